//! Queries whose answer is made of the shards' answers.

use crate::catalog::Location;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::effects::Effects;
use crate::plan::merge;
use crate::plan::merge::Merge;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::ShardSet;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::JoinKind;

/// The clauses of a block that a merge sees to.
const MERGED: [Clauses; 3] = [Clauses::ORDER_BY, Clauses::LIMIT, Clauses::OFFSET];

/// The shards to ask for a query that nothing restricts to one, and how their answers are merged.
///
/// # Errors
/// What it has that needs more than that.
pub(super) fn shards(query: &Query<'_>) -> Result<(ShardSet, Option<Merge>)> {
    let [block] = query.facts.blocks.as_slice() else {
        return Err(refusal::combine("subqueries, WITH or set operations"));
    };
    if block.kind != BlockKind::Select {
        return Err(refusal::several_shards());
    }
    if let Some(clause) = block.clauses.without(&MERGED).first_name() {
        return Err(refusal::combine(clause));
    }
    check_calls(query)?;
    if query.facts.object_ids {
        return Err(refusal::differs("object identifiers"));
    }
    if query.facts.system_columns {
        return Err(refusal::differs("system columns"));
    }
    if block.sources.iter().any(|source| source.sampled) {
        return Err(refusal::differs("TABLESAMPLE"));
    }
    let (sharded, shards) = sharded_source(query)?;
    check_joins(block, sharded)?;
    Ok((shards, merge::of_rows(query)?))
}

/// The only sharded source and its shards.
fn sharded_source(query: &Query<'_>) -> Result<(usize, ShardSet)> {
    let mut found = None;
    for (_, source, bound) in query.bound.occurrences() {
        let relation = match bound {
            BoundSource::Opaque => continue,
            BoundSource::Named(_) => bound.relation(),
        };
        match relation.map(|relation| &relation.location) {
            Some(Location::Replicated) => {}
            Some(Location::Sharded(placement)) if found.is_none() => {
                found = Some((source, placement.shards().clone()));
            }
            Some(Location::Sharded(_)) => {
                return Err(refusal::combine("a join of sharded tables"));
            }
            _ => return Err(refusal::several_shards()),
        }
    }
    found.ok_or_else(refusal::several_shards)
}

fn check_calls(query: &Query<'_>) -> Result<()> {
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        let name = &call.name.name;
        if effects.any(Effects::AGGREGATE) {
            return Err(refusal::combine(&format!("the aggregate \"{name}\"")));
        }
        if effects.any(Effects::WINDOW) {
            return Err(refusal::combine("a window function"));
        }
        if *effects != Effects::NONE {
            return Err(refusal::differs(&format!("the function \"{name}\"")));
        }
    }
    Ok(())
}

/// The sharded table must not be on the side that an outer join may null-extend: each shard would
/// add rows of its own for what has no match there.
fn check_joins(block: &Block, sharded: usize) -> Result<()> {
    for join in &block.outer_joins {
        let (preserved, extended) = match join.join {
            JoinKind::Left => (&join.left, &join.right),
            JoinKind::Right => (&join.right, &join.left),
            JoinKind::Inner | JoinKind::Full => {
                return Err(refusal::combine("FULL JOIN"));
            }
        };
        if extended.contains(&sharded) && !preserved.contains(&sharded) {
            return Err(refusal::combine(
                "an outer join that keeps all rows of its other side",
            ));
        }
    }
    Ok(())
}
