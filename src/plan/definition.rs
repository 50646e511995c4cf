//! Definitions (DDL): served where one shard is enough.

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::error::Result;
use crate::plan::SessionUse;
use crate::plan::effects::Effects;
use crate::plan::names;
use crate::plan::own::stored;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::refusal;
use crate::plan::statement::Part;
use crate::plan::statement::finish;
use crate::sharding::ShardIndex;
use crate::sql::literal::identifier_value;
use crate::sql::relations::relations;
use crate::sql::statement::Ddl;
use crate::sql::statement::DdlObject;
use crate::sql::statement::DdlVerb;

/// What comes with a temporary table.
fn temporary() -> SessionUse {
    SessionUse::PINS | SessionUse::TEMPORARY_TABLES | SessionUse::NOT_PREPARABLE
}

/// Plans a definition.
pub(super) fn plan(part: Part<'_>, ddl: Ddl) -> Planned {
    let session = if ddl.temporary {
        temporary()
    } else {
        SessionUse::NONE
    };
    let mut planned = match part.is_sharded() {
        true => finish(part, shard(part, ddl).map(|shard| (shard, session))),
        false => finish(part, Ok((FIRST_SHARD, session))),
    };
    if matches!(ddl.object, DdlObject::TableAs | DdlObject::MaterializedView) {
        // It would keep what a server shows.
        planned.own = stored::mentions(part.request.text, part.all);
    }
    planned
}

fn shard(part: Part<'_>, ddl: Ddl) -> Result<ShardIndex> {
    let what = names::command(part);
    let everywhere = || refusal::everywhere(&what);
    let local = matches!(
        ddl.object,
        DdlObject::Table
            | DdlObject::TableAs
            | DdlObject::View
            | DdlObject::MaterializedView
            | DdlObject::Index
            | DdlObject::Sequence
            | DdlObject::Trigger
    );
    if !local || (ddl.verb == DdlVerb::Drop && names::cascades(part)) {
        return Err(everywhere());
    }
    if let (_, Some(name)) = names::calls(part, Effects::READS_TABLES) {
        return Err(refusal::reads_tables(&name));
    }
    // A trigger names its function, but runs it only later.
    if ddl.object != DdlObject::Trigger
        && let (_, Some(name)) = names::calls(part, Effects::USER_CODE)
    {
        return Err(refusal::user_code(&name));
    }
    let home = names::home(part, &what)?;
    if ddl.temporary {
        return match home {
            None | Some(FIRST_SHARD) => Ok(FIRST_SHARD),
            Some(_) => Err(refusal::several_homes()),
        };
    }
    if ddl.verb == DdlVerb::Create && places_by_wildcard(part, ddl.object) {
        return Err(everywhere());
    }
    match (home, ddl.verb, ddl.object) {
        // Unless the configuration gives it a home, a new table is at home on the first shard.
        (Some(shard), DdlVerb::Create, DdlObject::Table | DdlObject::TableAs)
            if shard != FIRST_SHARD && !makes_home(part, shard) =>
        {
            Err(everywhere())
        }
        (Some(shard), _, _) => Ok(shard),
        // Names of nothing: a new home table, or PostgreSQL's own error.
        (None, DdlVerb::Create | DdlVerb::Drop | DdlVerb::Alter | DdlVerb::Refresh, _) => {
            Ok(FIRST_SHARD)
        }
        (None, _, _) => Err(everywhere()),
    }
}

/// Whether a new table might be one that the wildcard shards or replicates.
fn places_by_wildcard(part: Part<'_>, object: DdlObject) -> bool {
    if !matches!(object, DdlObject::Table | DdlObject::TableAs) {
        return false;
    }
    relations(part.request.text, part.tokens)
        .iter()
        .any(|name| {
            let lookup = part.request.catalog.relation(
                name.schema.as_deref(),
                &name.name,
                part.request.search_path,
            );
            match lookup {
                Lookup::Unknown { wildcard, .. } => wildcard,
                Lookup::Relation(relation) => !matches!(relation.location, Location::Home(_)),
                Lookup::System | Lookup::Temporary => false,
            }
        })
}

/// Whether the configuration gives the table that is made this home.
fn makes_home(part: Part<'_>, shard: ShardIndex) -> bool {
    let text = part.request.text;
    let names = part
        .tokens
        .iter()
        .skip_while(|token| !token.is_word(text, "table"))
        .skip(1);
    let mut names = names.filter(|token| {
        !["if", "not", "exists"]
            .iter()
            .any(|word| token.is_word(text, word))
    });
    let Some(name) = names.next().and_then(|token| identifier_value(text, token)) else {
        return false;
    };
    let lookup = part
        .request
        .catalog
        .relation(None, &name, part.request.search_path);
    matches!(lookup, Lookup::Unknown { home, .. } if home == shard)
}
