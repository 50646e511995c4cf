//! Queries that the parser does not know: they go by their names alone.

use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::error::Result;
use crate::plan::Access;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::combine::unread;
use crate::plan::conduct::Conduct;
use crate::plan::effects::Effects;
use crate::plan::hazards::check_called_defaults;
use crate::plan::hazards::check_home;
use crate::plan::names;
use crate::plan::own::stored;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::refusal;
use crate::plan::statement::Part;
use crate::plan::statement::finish;
use crate::plan::statement::may_write;
use crate::sql::parse::StopReason;
use crate::sql::parse::Stopped;
use crate::sql::relations::relations;
use crate::sql::statement::Query;

/// Plans a query that is not parsed: it is served if every name that could be a relation is on one
/// shard. It counts as a write, since nobody knows what it does. One that only reads may be finished by a
/// hub.
pub(super) fn plan(part: Part<'_>, query: Query, stopped: Stopped) -> Planned {
    let (effects, _) = names::calls(part, Effects::NONE);
    let mut session = effects.session();
    if query.into.is_some_and(|into| into.temporary) {
        session |= SessionUse::PINS | SessionUse::TEMPORARY_TABLES | SessionUse::NOT_PREPARABLE;
    }
    let shard = if part.is_sharded() {
        shard(part, query, stopped)
    } else {
        Ok(FIRST_SHARD)
    };
    // What is long is left to shards that can be chosen without copies.
    if shard.is_err()
        && !may_write(query)
        && !matches!(stopped.reason, StopReason::TooLong)
        && let Some(combine) = unread::plan(part)
    {
        return Planned {
            route: Route::Combine(Arc::new(combine)),
            access: Access::Read,
            ..finish(part, Ok((FIRST_SHARD, SessionUse::NONE)))
        };
    }
    let mut planned = finish(part, shard.map(|shard| (shard, session)));
    planned.own = stored::mentions(part.request.text, part.all);
    planned
}

fn shard(part: Part<'_>, query: Query, stopped: Stopped) -> Result<usize> {
    let text = part.request.text;
    let refuse = |why: &str| refusal::not_understood(stopped, text, why);
    let events = if may_write(query) { u16::MAX } else { 0 };
    let mut home = None;
    for name in relations(text, part.tokens) {
        let lookup = part.request.catalog.relation(
            name.schema.as_deref(),
            &name.name,
            part.request.search_path,
        );
        check_view(part, lookup)?;
        let shard = match lookup {
            Lookup::Relation(relation) => match &relation.location {
                Location::Home(shard) => {
                    check_home(part.request.catalog, relation, events)?;
                    check_called_defaults(part.request.catalog, relation, events, |_| true)?;
                    *shard
                }
                Location::Replicated if !may_write(query) => continue,
                Location::Replicated => {
                    return Err(refuse(&format!("\"{}\" is replicated", relation.name)));
                }
                Location::Sharded(_) => {
                    return Err(refuse(&format!("\"{}\" is sharded", relation.name)));
                }
                Location::Unserved(reason) => {
                    return Err(refusal::unserved(&relation.name, reason));
                }
            },
            Lookup::System | Lookup::Temporary => FIRST_SHARD,
            Lookup::Unknown {
                configured: true, ..
            } => {
                return Err(refuse(&format!(
                    "\"{}\" is not in the catalogue",
                    name.name
                )));
            }
            Lookup::Unknown { .. } => continue,
        };
        if home.is_some_and(|home| home != shard) {
            return Err(refuse("it names tables of several shards"));
        }
        home = Some(shard);
    }
    if query.into.is_some() {
        return Err(refusal::everywhere("SELECT INTO"));
    }
    if let Some(unknown) = names::unknown_relation(part) {
        let lookup = part.request.catalog.relation(
            unknown.schema.as_deref(),
            &unknown.name,
            part.request.search_path,
        );
        if matches!(lookup, Lookup::Unknown { wildcard: true, .. })
            && !part.request.temporary_tables
        {
            return Err(refuse(&format!(
                "\"{}\" is not in the catalogue",
                unknown.name
            )));
        }
    }
    check_calls(part)?;
    let shard = home.unwrap_or(FIRST_SHARD);
    match names::calls(part, Effects::HOME) {
        (_, Some(name)) if shard != FIRST_SHARD => Err(refusal::global_state(&name)),
        _ => Ok(shard),
    }
}

/// What a view calls is called by whoever reads it.
fn check_view(part: Part<'_>, lookup: Lookup<'_>) -> Result<()> {
    let Lookup::Relation(view) = lookup else {
        return Ok(());
    };
    if !view.is_view() {
        return Ok(());
    }
    let leaves = Effects::USER_CODE | Effects::READS_TABLES;
    let calls = Conduct::new(part.request.catalog).view(view, 0);
    match calls.iter().find(|(_, effects)| effects.any(leaves)) {
        Some((name, _)) => Err(refusal::user_code(name)),
        None => Ok(()),
    }
}

fn check_calls(part: Part<'_>) -> Result<()> {
    if let (_, Some(name)) = names::calls(part, Effects::READS_TABLES) {
        return Err(refusal::reads_tables(&name));
    }
    if let (_, Some(name)) = names::calls(part, Effects::USER_CODE) {
        return Err(refusal::user_code(&name));
    }
    if let Some(name) = names::field_call(part, Effects::USER_CODE | Effects::HOME) {
        return Err(refusal::user_code(&name));
    }
    Ok(())
}
