//! What `FOR UPDATE` and the like lock.

use crate::catalog::Location;
use crate::plan::bind::BoundSource;
use crate::plan::query::Query;
use crate::sql::analysis::Clauses;

impl Query<'_> {
    /// Whether it locks rows.
    pub fn locks(&self) -> bool {
        let mut blocks = self.facts.blocks.iter();
        blocks.any(|block| block.clauses.has(Clauses::LOCKING))
    }

    /// Whether all that its `FOR UPDATE` and the like lock are rows that are on one shard each: not those of
    /// replicated tables.
    pub fn locks_in_one_place(&self) -> bool {
        self.facts.blocks.iter().enumerate().all(|(block, facts)| {
            let locked = (facts.sources.iter().enumerate()).filter(|(_, source)| source.locked);
            let mut relations = locked.map(|(number, _)| {
                self.bound
                    .source(block, number)
                    .and_then(BoundSource::relation)
            });
            relations.all(|relation| {
                relation.is_some_and(|one| !matches!(one.location, Location::Replicated))
            })
        })
    }
}
