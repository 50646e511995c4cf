//! Queries whose answer is made of the shards' answers, and changes of rows that each shard makes by itself.

use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::colocation::Joined;
use crate::plan::combine::sample;
use crate::plan::effects::Effects;
use crate::plan::hazards::check_spread;
use crate::plan::merge;
use crate::plan::merge::Merge;
use crate::plan::nested;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::ShardSet;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;

/// The clauses that a merge sees to, and those that each shard can see to if its groups are its own.
const SERVED: [Clauses; 8] = [
    Clauses::ORDER_BY,
    Clauses::LIMIT,
    Clauses::OFFSET,
    Clauses::GROUP_BY,
    Clauses::HAVING,
    Clauses::DISTINCT,
    Clauses::WINDOW,
    Clauses::AGGREGATE,
];

/// The shards to ask for a query that nothing restricts to one, and how their answers are merged.
///
/// # Errors
/// What it has that needs more than that.
pub(super) fn shards(query: &Query<'_>) -> Result<(ShardSet, Option<Merge>)> {
    let joined = joined(query, Effects::NONE)?;
    Ok((joined.shards(), merge::of(query, &joined)?))
}

/// The sharded sources of a query that each shard can run over its own rows, if somebody sees to calls with
/// these effects.
///
/// # Errors
/// What it has that needs more than that.
pub(super) fn joined<'a>(query: &'a Query<'a>, seen_to: Effects) -> Result<Joined<'a>> {
    let Some(block) = query.facts.blocks.get(query.facts.top) else {
        return Err(refusal::several_shards());
    };
    if query.facts.blocks.len() > 1 {
        if block.kind != BlockKind::Select {
            return Err(refusal::combine("subqueries, WITH or set operations"));
        }
        nested::check(query)?;
    }
    match &block.kind {
        BlockKind::Update(assigned) => {
            if let Some(relation) = query.bound.source(0, 0).and_then(BoundSource::relation) {
                query.check_defaults(relation, assigned, true)?;
            }
        }
        BlockKind::Select | BlockKind::Delete => {}
        _ => return Err(refusal::several_shards()),
    }
    if block.kind.modifies()
        && let Some(relation) = query.bound.source(0, 0).and_then(BoundSource::relation)
    {
        check_spread(query.request.catalog, relation, query.events())?;
    }
    // Rows are locked where they are. Of those that LIMIT cuts off each shard locks its own first ones: those that the
    // client gets are among them.
    let behind_locks = [Clauses::ORDER_BY, Clauses::LIMIT, Clauses::OFFSET];
    let unlocked = block.clauses.without(&[Clauses::LOCKING]);
    let clauses = match unlocked.without(&behind_locks) == Clauses::default() {
        true => unlocked,
        false => block.clauses,
    };
    if let Some(clause) = clauses.without(&SERVED).first_name() {
        return Err(refusal::combine(clause));
    }
    check_calls(query, seen_to)?;
    let inner = Effects::AGGREGATE | Effects::WINDOW;
    let mut of_views = query.view_calls.iter();
    if let Some((name, _)) = of_views.find(|(_, effects)| effects.without(inner) != Effects::NONE) {
        return Err(refusal::differs(&format!("the function \"{name}\"")));
    }
    if query.facts.object_ids {
        return Err(refusal::differs("object identifiers"));
    }
    if query.facts.system_columns {
        return Err(refusal::differs("system columns"));
    }
    if !sample::is_each_shards(query) {
        return Err(refusal::differs("TABLESAMPLE"));
    }
    Joined::new(query)
}

fn check_calls(query: &Query<'_>, seen_to: Effects) -> Result<()> {
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        let name = &call.name.name;
        let allowed = Effects::AGGREGATE | Effects::WINDOW | Effects::SHARD | seen_to;
        if effects.any(Effects::WINDOW) && !call.windowed && !effects.any(Effects::AGGREGATE) {
            return Err(refusal::combine("a window function"));
        }
        let effects = effects.without(allowed);
        // A type has another number on each server.
        if effects != Effects::NONE || name == "pg_typeof" {
            return Err(refusal::differs(&format!("the function \"{name}\"")));
        }
    }
    Ok(())
}
