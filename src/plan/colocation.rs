//! Joins whose rows never cross shards.
//!
//! One sharded source is the anchor. Every other is of the same placement, and its key is linked to the
//! anchor's as a proof links a key to a constant: rows with another key than the anchor's row change
//! nothing. So whatever an anchor's row is joined with is on its own shard. A source that an outer join
//! may null-extend must stand opposite one that is sharded: each shard would add rows of its own for
//! what has no match there.
//!
//! Sources may stand in subqueries: [`nested`] says what holds of those.

use std::sync::Arc;

use crate::catalog::Location;
use crate::error::Error;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::bind::ColumnId;
use crate::plan::nested;
use crate::plan::proof::Prover;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::Placement;
use crate::sharding::ShardSet;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::JoinKind;
use crate::sql::analysis::SourceKind;
use crate::sql::analysis::Sources;

/// The sharded sources of a query block, which never meet rows of other shards.
pub(super) struct Joined<'a> {
    query: &'a Query<'a>,
    prover: Prover<'a>,
    placement: Arc<Placement>,
    /// The key columns of the anchor.
    key: Vec<ColumnId>,
}

impl<'a> Joined<'a> {
    /// The sources of the only block of a query.
    ///
    /// # Errors
    /// Its rows may meet rows of other shards.
    pub fn new(query: &'a Query<'a>) -> Result<Joined<'a>> {
        let mut sharded = Vec::new();
        for (block, source, bound) in query.bound.occurrences() {
            let relation = match bound {
                BoundSource::Query(_) | BoundSource::Opaque => continue,
                BoundSource::Named(_) => bound.relation(),
            };
            match relation.map(|relation| &relation.location) {
                Some(Location::Replicated) => {}
                Some(Location::Sharded(placement)) => sharded.push((block, source, placement)),
                _ => return Err(refusal::several_shards()),
            }
        }
        let Some((_, _, placement)) = sharded.first() else {
            return Err(refusal::several_shards());
        };
        let is_together = sharded
            .iter()
            .all(|(_, _, other)| placement.colocated_with(other));
        let mut keys = Vec::new();
        for (block, source, _) in &sharded {
            keys.push(key_of(query, *block, *source).ok_or_else(refusal::several_shards)?);
        }
        let mut joined = Joined {
            query,
            prover: Prover::new(query),
            placement: Arc::clone(placement),
            key: Vec::new(),
        };
        let mut has_anchor = false;
        for anchor in keys.iter().filter(|_| is_together) {
            joined.key.clone_from(anchor);
            if keys.iter().all(|key| joined.is_tied(key)) && nested::is_local(&joined) {
                has_anchor = true;
                break;
            }
        }
        if !has_anchor {
            return Err(refusal::combine("a join of sharded tables"));
        }
        let holds = nested::holders(query, sharded.iter().map(|(block, _, _)| *block));
        for (block, facts) in query.facts.blocks.iter().enumerate() {
            let is_sharded = |sources: &Sources| {
                let mut all = sharded.iter();
                let mut inner = facts.sources.iter().enumerate();
                all.any(|(of, source, _)| *of == block && sources.contains(source))
                    || inner.any(|(number, source)| match source.kind {
                        SourceKind::Query(query) => {
                            sources.contains(&number) && holds.contains(&query)
                        }
                        _ => false,
                    })
            };
            check_joins(facts, is_sharded)?;
        }
        Ok(joined)
    }

    /// Whether rows with this key matter only where it equals the anchor's.
    fn is_tied(&self, key: &[ColumnId]) -> bool {
        let mut both = key.iter().zip(&self.key);
        key.len() == self.key.len() && both.all(|(from, to)| self.prover.links(*from, *to))
    }

    /// The query.
    pub fn query(&self) -> &'a Query<'a> {
        self.query
    }

    /// The key columns of the anchor.
    pub fn key(&self) -> &[ColumnId] {
        &self.key
    }

    /// The block of the anchor.
    pub fn block(&self) -> BlockId {
        self.key.first().map_or(0, |column| column.block)
    }

    /// Where its rows are.
    pub fn shards(&self) -> ShardSet {
        self.placement.shards().clone()
    }

    /// Whether rows of this placement with the anchor's key are where the anchor's are.
    pub fn is_placed_as(&self, other: &Placement) -> bool {
        self.placement.colocated_with(other)
    }

    /// Whether rows that are equal in these columns, or in more, are on one shard.
    pub fn is_within(&self, columns: &[ColumnId]) -> bool {
        self.key.iter().all(|key| {
            let mut columns = columns.iter();
            columns.any(|column| self.prover.links(*key, *column))
        })
    }

    /// Whether every window of the block is of rows of one shard.
    pub fn holds_windows(&self, block: &Block, id: BlockId) -> bool {
        block.partitions.iter().all(|partition| {
            let columns = partition.iter();
            let columns: Vec<ColumnId> = columns
                .filter_map(|column| self.query.bound.resolve(id, column))
                .collect();
            self.is_within(&columns)
        })
    }
}

/// The key columns of a sharded source.
fn key_of(query: &Query<'_>, block: BlockId, source: usize) -> Option<Vec<ColumnId>> {
    let relation = query.bound.source(block, source)?.relation()?;
    let columns = relation.placement()?.columns().iter();
    columns
        .map(|key| {
            let (column, _) = relation.column(&key.name)?;
            Some(ColumnId {
                block,
                source,
                column,
            })
        })
        .collect()
}

fn check_joins(block: &Block, is_sharded: impl Fn(&Sources) -> bool) -> Result<()> {
    for join in &block.outer_joins {
        let (preserved, extended) = match join.join {
            JoinKind::Left => (&join.left, &join.right),
            JoinKind::Right => (&join.right, &join.left),
            JoinKind::Inner | JoinKind::Full => return Err(full()),
        };
        if is_sharded(extended) && !is_sharded(preserved) {
            return Err(refusal::combine(
                "an outer join that keeps all rows of its other side",
            ));
        }
    }
    Ok(())
}

fn full() -> Error {
    refusal::combine("FULL JOIN")
}
