//! `TRUNCATE` and `LOCK` of tables that are on several shards: every shard that has rows of one does it.
//!
//! What holds:
//! - A shard has tables of the same names as every other, and what hangs on them. So `CASCADE` goes to every
//!   shard: each truncates the same, and where a table has no rows that does nothing.
//! - Numbers come from the first shard's sequences, or from those of a table's home. `RESTART IDENTITY` goes
//!   to every shard, and sets sequences as the transaction's end.

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Trigger;
use crate::error::Result;
use crate::plan::Access;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::hazards::check_hazards;
use crate::plan::names::cascades;
use crate::plan::query::{FIRST_SHARD, Planned};
use crate::plan::statement::Part;
use crate::sharding::ShardSet;
use crate::sql::literal::identifier_value;

/// The statement on all shards that have rows of its tables, or where PostgreSQL says that there is no such table;
/// none if a table is not on several.
pub(super) fn plan(part: Part<'_>) -> Option<Planned> {
    let session = match restarts(part) {
        true => SessionUse::RESTARTS_SEQUENCE,
        false => SessionUse::NONE,
    };
    if are_unknown(part) {
        let nowhere = Route::Shard(FIRST_SHARD);
        return Some(planned(nowhere, session | SessionUse::UNKNOWN_NAMES));
    }
    let route = match shards(part)? {
        Ok(shards) => Route::Scatter(shards),
        Err(error) => Route::Refused(error),
    };
    Some(planned(route, session))
}

/// Whether no table of it is known.
fn are_unknown(part: Part<'_>) -> bool {
    let is_unknown = |(schema, name): &(Option<String>, String)| {
        let schema = schema.as_deref();
        let path = part.request.search_path;
        let lookup = part.request.catalog.relation(schema, name, path);
        matches!(lookup, Lookup::Unknown { .. })
    };
    let tables = tables(part).filter(|_| !part.request.temporary_tables);
    tables.is_some_and(|tables| tables.iter().all(is_unknown))
}

fn planned(route: Route, session: SessionUse) -> Planned {
    Planned {
        route,
        access: Access::Write,
        session,
        own: Box::default(),
        pseudo: Box::default(),
        listed: Box::default(),
        moments: None,
        merge: None,
        fallback: None,
    }
}

fn is_lock(part: Part<'_>) -> bool {
    let text = part.request.text;
    part.tokens
        .first()
        .is_some_and(|token| token.is_word(text, "lock"))
}

fn shards(part: Part<'_>) -> Option<Result<ShardSet>> {
    let catalog = part.request.catalog;
    let mut shards = ShardSet::new();
    let mut hazard = Ok(());
    for (schema, name) in tables(part)? {
        let lookup = catalog.relation(schema.as_deref(), &name, part.request.search_path);
        let relation = match lookup {
            Lookup::Relation(relation) => relation,
            // PostgreSQL says that there is none.
            Lookup::Unknown { .. } if !part.request.temporary_tables => continue,
            _ => return None,
        };
        match &relation.location {
            Location::Sharded(placement) => shards.union(placement.shards()),
            Location::Replicated => shards.union(&ShardSet::all(catalog.shards().len())),
            Location::Home(shard) => {
                shards.insert(*shard);
            }
            Location::Unserved(_) => return None,
        }
        // Nothing happens behind a lock's back.
        if !is_lock(part) {
            hazard = hazard.and_then(|()| check_hazards(catalog, relation, Trigger::TRUNCATE));
        }
    }
    if !shards.is_empty() && (cascades(part) || (restarts(part) && shards.single().is_none())) {
        shards.union(&ShardSet::all(catalog.shards().len()));
    }
    let several = !shards.is_empty() && shards.single().is_none();
    several.then(|| hazard.map(|()| shards))
}

/// Whether it has sequences start anew.
fn restarts(part: Part<'_>) -> bool {
    let text = part.request.text;
    let mut words = part.tokens.windows(2);
    words.any(|pair| {
        matches!(pair, [one, other] if one.is_word(text, "restart") && other.is_word(text, "identity"))
    })
}

/// The tables that stand behind the verb, each with its schema; none if they can't be read.
fn tables(part: Part<'_>) -> Option<Vec<(Option<String>, String)>> {
    let text = part.request.text;
    let mut tokens = part.tokens.iter().skip(1).peekable();
    let mut found = Vec::new();
    tokens.next_if(|token| token.is_word(text, "table"));
    loop {
        tokens.next_if(|token| token.is_word(text, "only"));
        let mut name = identifier_value(text, tokens.next()?)?.into_owned();
        let mut schema = None;
        while tokens.next_if(|token| token.is_symbol(text, ".")).is_some() {
            let part = identifier_value(text, tokens.next()?)?.into_owned();
            schema = Some(std::mem::replace(&mut name, part));
        }
        tokens.next_if(|token| token.is_symbol(text, "*"));
        found.push((schema, name));
        if tokens.next_if(|token| token.is_symbol(text, ",")).is_none() {
            return Some(found);
        }
    }
}
