//! The calls of a statement that changes rows of several shards: what each may be.

use crate::error::Result;
use crate::plan::change::subquery::Subqueries;
use crate::plan::effects::Effects;
use crate::plan::moment::Moment;
use crate::plan::moment::moment;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Place;

/// Functions that say the same of every connection of one session.
pub(in crate::plan) const OF_SESSION: [&str; 6] = [
    "current_user",
    "session_user",
    "user",
    "current_role",
    "current_schema",
    "current_catalog",
];

/// The calls whose value is asked of one shard.
///
/// # Errors
/// What can't be called by several shards, or by another than the one where its state is.
pub(super) fn moments(
    query: &Query<'_>,
    main: BlockId,
    subqueries: &Subqueries,
) -> Result<Vec<Moment>> {
    let mut found = Vec::new();
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        let name = call.name.name.as_str();
        let effects = effects.without(Effects::AGGREGATE | Effects::WINDOW | Effects::SHARD);
        let is_of_session = effects == Effects::SERVER && OF_SESSION.contains(&name);
        if effects == Effects::NONE || is_of_session {
            continue;
        }
        if effects == Effects::CLOCK {
            let moment = moment(query, call);
            found.push(moment.ok_or_else(|| differs(name))?);
            continue;
        }
        if effects.any(Effects::HOME) {
            return Err(refusal::global_state(name));
        }
        let of_row = call.block == main && call.place == Place::Expression;
        let once = call
            .offset
            .is_some_and(|offset| subqueries.is_evaluated(query, offset));
        if effects != Effects::RANDOM || !(of_row || once) {
            return Err(differs(name));
        }
    }
    Ok(found)
}

fn differs(name: &str) -> crate::error::Error {
    refusal::differs(&format!("the function \"{name}\""))
}
