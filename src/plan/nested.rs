//! Subqueries of a query that each shard answers by itself.
//!
//! One sharded occurrence is the anchor, and every other is tied to it ([`super::colocation`]): rows with another
//! key than that of the anchor's row change nothing. What is left to be seen to:
//! - The anchor stands in the `FROM` of the query itself, or of a subquery in `FROM` each of whose rows comes from
//!   rows of one key. So each row of the query's `FROM` is made on one shard, and on one only.
//! - A subquery without sharded tables has the same rows on every shard: it has nothing whose choice or order
//!   is the server's own, such as `LIMIT`, windows, `array_agg`.
//! - An aggregate in a subquery is that subquery's, not one of the query around it.
//! - Nothing in a subquery changes or locks rows, or reads itself.

use std::collections::HashSet;
use std::ops::Range;

use crate::catalog::Location;
use crate::error::Error;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::colocation::Joined;
use crate::plan::effects::Effects;
use crate::plan::outputs::Reader;
use crate::plan::own;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Call;
use crate::sql::analysis::Clauses;

/// Aggregates whose value does not depend on the order of rows.
const ORDERLESS: [&str; 11] = [
    "count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or",
    "bit_xor",
];

/// Fails unless a query's subqueries can be answered by each shard, whatever their tables are tied to.
///
/// # Errors
/// What they have that needs more than that.
pub(super) fn check(query: &Query<'_>) -> Result<()> {
    let facts = query.facts;
    if facts.recursive {
        return Err(refusal::combine("WITH RECURSIVE"));
    }
    let sharded = holders(query, sharded_blocks(query));
    for (block, one) in facts.blocks.iter().enumerate() {
        if block == facts.top || is_with(one) {
            continue;
        }
        let is_query = matches!(
            one.kind,
            BlockKind::Select | BlockKind::Values | BlockKind::SetOperation
        );
        if !is_query || one.clauses.has(Clauses::LOCKING) || one.clauses.has(Clauses::INTO) {
            return Err(nested());
        }
        let is_free = [Clauses::WINDOW, Clauses::DISTINCT_ON];
        let is_free = one.clauses.cuts() || is_free.iter().any(|clause| one.clauses.has(*clause));
        if is_free && !sharded.contains(&block) {
            return Err(nested());
        }
    }
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        if !effects.any(Effects::AGGREGATE) || call.block == facts.top || call.windowed {
            continue;
        }
        let is_orderless = ORDERLESS.contains(&call.name.name.as_str());
        if !is_own(query, call) || !(is_orderless || sharded.contains(&call.block)) {
            return Err(refusal::combine("an aggregate in a subquery"));
        }
    }
    Ok(())
}

/// Whether a query has subqueries in expressions that stand elsewhere than in these bytes of the text.
pub(super) fn has_sublinks(query: &Query<'_>, but: &Range<u32>) -> bool {
    let blocks = query.facts.blocks.iter().enumerate();
    let mut others = blocks.filter(|(block, _)| *block != query.facts.top);
    others.any(|(block, facts)| {
        let is_there = facts.select.is_some_and(|at| but.contains(&at));
        !is_with(facts) && !is_there && query.bound.reader(block) == Reader::Other
    })
}

/// Whether a block does nothing but hold a `WITH`.
fn is_with(block: &Block) -> bool {
    block.kind == BlockKind::SetOperation && block.arms.is_empty()
}

/// Whether each row of the query's `FROM` comes from rows of one key of the anchor.
pub(super) fn is_local(joined: &Joined<'_>) -> bool {
    let query = joined.query();
    let mut block = joined.block();
    while block != query.facts.top {
        let Reader::Source(reader, _) = query.bound.reader(block) else {
            return false;
        };
        if !is_of_one_key(joined, block) {
            return false;
        }
        block = reader;
    }
    true
}

/// Whether each row of a block comes from rows of one key, and no other row from the same.
fn is_of_one_key(joined: &Joined<'_>, block: BlockId) -> bool {
    let query = joined.query();
    let Some(facts) = query.facts.blocks.get(block) else {
        return false;
    };
    let clauses = facts.clauses;
    let is_grouped = clauses.has(Clauses::GROUP_BY);
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    let has_aggregate = clauses.has(Clauses::HAVING)
        || clauses.has(Clauses::AGGREGATE)
        || calls.any(|(call, effects)| {
            call.block == block && !call.windowed && effects.any(Effects::AGGREGATE)
        });
    facts.kind == BlockKind::Select
        && !clauses.cuts()
        && !clauses.has(Clauses::DISTINCT_ON)
        && (!has_aggregate || is_grouped)
        && (!is_grouped || joined.is_within(&query.bound.groups(block)))
        && (!clauses.has(Clauses::DISTINCT) || joined.is_within(&query.bound.origins(block)))
        && (!clauses.has(Clauses::WINDOW) || !facts.partitions.is_empty())
        && joined.holds_windows(facts, block)
}

/// Some blocks, and all that read one of them in `FROM`.
pub(super) fn holders(
    query: &Query<'_>,
    blocks: impl Iterator<Item = BlockId>,
) -> HashSet<BlockId> {
    let mut found: HashSet<BlockId> = blocks.collect();
    loop {
        let before = found.len();
        for (block, facts) in query.facts.blocks.iter().enumerate() {
            let sources = query.bound.sources.get(block);
            let mut sources = sources.into_iter().flatten();
            let reads = sources.any(|source| match source {
                BoundSource::Query(query) => found.contains(query),
                _ => false,
            });
            if reads || facts.arms.iter().any(|arm| found.contains(arm)) {
                found.insert(block);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn sharded_blocks<'q>(query: &'q Query<'_>) -> impl Iterator<Item = BlockId> + 'q {
    let sharded = query.bound.occurrences().filter(|(_, _, source)| {
        let relation = source.relation();
        relation.is_some_and(|relation| matches!(relation.location, Location::Sharded(_)))
    });
    sharded.map(|(block, _, _)| block)
}

/// Whether an aggregate is that of the block in which it stands: it has a column of that block in its
/// arguments, or none at all.
fn is_own(query: &Query<'_>, call: &Call) -> bool {
    let mut references = query.facts.references.iter();
    let has_places = references.all(|one| one.offset.is_some());
    let Some(range) = call_bytes(query, call).filter(|_| has_places) else {
        return false;
    };
    let references = query.facts.references.iter();
    let is_inside = |at: u32| range.contains(&at);
    let mut inside = references.filter(|one| one.offset.is_some_and(is_inside));
    let mut is_any = false;
    let is_found = inside.any(|one| {
        is_any = true;
        let column = query.bound.resolve(one.block, &one.column);
        column.is_some_and(|column| column.block == call.block)
    });
    is_found || !is_any
}

/// The bytes of a call and of what stands behind it up to the end of its arguments.
fn call_bytes(query: &Query<'_>, call: &Call) -> Option<Range<u32>> {
    let start = call.offset?;
    let at = query.token_at(start)?;
    let text = query.request.text;
    let opens = query.tokens.get(at + 1)?.is_symbol(text, "(");
    let (end, _) = own::arguments(text, query.tokens, at + 2).filter(|_| opens)?;
    let last = query.tokens.get(end.checked_sub(1)?)?;
    Some(start..last.end)
}

fn nested() -> Error {
    refusal::combine("such subqueries, WITH or set operations")
}
