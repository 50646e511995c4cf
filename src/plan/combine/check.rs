//! What a hub can't finish.

use crate::catalog::Location;
use crate::error::Error;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Name;

/// How the names of those begin that say what a catalogue has of an object, which is the same on every shard.
const OF_CATALOGS: [&str; 7] = [
    "pg_get_",
    "to_reg",
    "obj_desc",
    "col_desc",
    "shobj_desc",
    "pg_table_is_visible",
    "pg_encoding_to_char",
];

/// How the names of PostgreSQL's own functions begin that say something of one server: its files, its
/// statistics, its catalogues, its transactions.
const ONE_SERVERS: [&str; 10] = [
    "pg_",
    "inet_",
    "txid_",
    "lo_",
    "to_reg",
    "currtid",
    "obj_desc",
    "col_desc",
    "shobj_desc",
    "row_security",
];

/// Fails unless the statement only reads.
///
/// # Errors
/// `refused`; a refusal of row locks.
pub(super) fn is_select(query: &Query<'_>, refused: &Error) -> Result<()> {
    let facts = query.facts;
    if facts.modifies() || !facts.created.is_empty() {
        return Err(refused.clone());
    }
    let mut blocks = facts.blocks.iter();
    if blocks.any(|block| block.clauses.has(Clauses::LOCKING)) {
        let is_replicated = |source: BoundSource<'_>| {
            let relation = source.relation();
            relation.is_some_and(|one| matches!(one.location, Location::Replicated))
        };
        let mut occurrences = query.bound.occurrences();
        return match occurrences.any(|(_, _, source)| is_replicated(source))
            && !query.locks_in_one_place()
        {
            true => Err(refusal::locks_replicated()),
            false => Err(refusal::locks_combined()),
        };
    }
    if facts.system_columns {
        return Err(refusal::differs("system columns"));
    }
    Ok(())
}

/// Whether it asks for what catalogues say: the first shard's speak for all, as in any other statement.
pub(super) fn reads_catalogs(query: &Query<'_>) -> bool {
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    let is_asking = |name: &str| OF_CATALOGS.iter().any(|one| name.starts_with(one));
    query.facts.object_ids
        || asks_type(query)
        || calls.any(|(call, effects)| effects.any(Effects::SERVER) && is_asking(&call.name.name))
}

/// Fails for functions that a hub can't call for all shards.
pub(super) fn calls(query: &Query<'_>) -> Result<()> {
    query.check_calls()?;
    if let Some(name) = query.call_with(Effects::HOME) {
        return Err(refusal::global_state(name));
    }
    let harmful = Effects::WRITES
        | Effects::PINS
        | Effects::SET_CONFIG
        | Effects::NOTIFIES
        | Effects::ASKS_CHANNELS
        | Effects::UNKNOWN;
    if let Some(name) = query.call_with(harmful) {
        return Err(refusal::hub_calls(name));
    }
    if query.effects.any(Effects::SHARD) {
        return Err(refusal::differs("the column \"shard_id\""));
    }
    let calls = query.facts.calls.iter().zip(&query.calls);
    for (call, effects) in calls {
        if effects.any(Effects::SERVER) && asks_one_server(query, &call.name) {
            let what = format!("the function \"{}\"", call.name.name);
            return Err(refusal::differs(&what));
        }
    }
    Ok(())
}

/// Whether a function of PostgreSQL's own says something of its server alone. Those of extensions work
/// on their arguments.
fn asks_one_server(query: &Query<'_>, name: &Name) -> bool {
    let known = &name.name;
    let begins = |prefixes: &[&str]| prefixes.iter().any(|one| known.starts_with(one));
    if !begins(&ONE_SERVERS) || begins(&OF_CATALOGS) {
        return false;
    }
    let request = query.request;
    let schema = name.schema.as_deref();
    let mut functions = request
        .catalog
        .functions(schema, &name.name, request.search_path);
    functions.any(|function| function.schema == "pg_catalog")
}

/// Whether it asks for the types of values.
pub(super) fn asks_type(query: &Query<'_>) -> bool {
    let mut calls = query.facts.calls.iter();
    calls.any(|call| call.name.name == "pg_typeof")
}
