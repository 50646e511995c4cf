//! By which columns of its source the rows of a MERGE find their shards.

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::query::Query;
use crate::sharding::Placement;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Column;
use crate::sql::analysis::Equals;
use crate::sql::analysis::MergeActions;
use crate::sql::analysis::MergeValue;

use super::given;
use super::unfed;
use super::written::Written;

/// Which names of a statement are the target's and which the source's.
pub(super) struct Names<'a> {
    query: &'a Query<'a>,
    block: BlockId,
    relation: &'a Relation,
    /// The name of the target.
    target: String,
    source: &'a str,
}

impl<'a> Names<'a> {
    pub fn of(
        query: &'a Query<'a>,
        block: BlockId,
        (relation, written): (&'a Relation, &'a Written),
    ) -> Names<'a> {
        let facts = query.facts.blocks.get(block);
        let target = facts.and_then(|facts| facts.sources.first());
        let alias = target.and_then(|target| target.alias.clone());
        Names {
            query,
            block,
            relation,
            target: alias.unwrap_or_else(|| relation.name.clone()),
            source: &written.name,
        }
    }

    fn is_target(&self, column: &Column) -> bool {
        match column.qualifier.as_slice() {
            // If the source has a column of the name too, PostgreSQL says so.
            [] => self.relation.column(&column.name).is_some(),
            [name] => *name == self.target,
            _ => false,
        }
    }

    fn is_source(&self, column: &Column) -> bool {
        match column.qualifier.as_slice() {
            [] => self.relation.column(&column.name).is_none(),
            [name] => *name == self.source,
            _ => false,
        }
    }

    /// The columns of the source that `ON` equates with a column of the target.
    fn equal_to(&self, key: &str) -> Vec<&'a str> {
        let block = self.query.facts.blocks.get(self.block);
        let conditions = block.map_or(&[][..], |block| &block.conditions);
        let mut found = Vec::new();
        for condition in conditions {
            let Equals::Column(other) = &condition.equals else {
                continue;
            };
            for (one, other) in [(&condition.column, other), (other, &condition.column)] {
                if one.name == key && self.is_target(one) && self.is_source(other) {
                    found.push(other.name.as_str());
                }
            }
        }
        found
    }
}

/// The columns of the source by which its rows find their shards; none if all rows go to every shard.
pub(super) fn keys(
    names: &Names<'_>,
    (actions, relation): (&MergeActions, &Relation),
    placement: &Placement,
) -> Result<Vec<String>> {
    let mut keys = Vec::with_capacity(placement.columns().len());
    for column in placement.columns() {
        let equal = names.equal_to(&column.name);
        let is_inserted = |name: &str| {
            actions.inserts.iter().all(|insert| {
                let given = given(relation, insert);
                let at = given.iter().position(|given| *given == column.name);
                let value = at.and_then(|at| insert.values.get(at));
                matches!(value, Some(MergeValue::Column(value))
                    if value.name == name
                        && (value.qualifier.is_empty() || names.is_source(value)))
            })
        };
        let key = equal.iter().find(|name| is_inserted(name));
        match key {
            Some(key) => keys.push((*key).to_owned()),
            None if actions.inserts.is_empty() => return Ok(Vec::new()),
            None if equal.is_empty() => {
                return Err(unfed(
                    format!(
                        "It inserts rows, and its ON does not equate column \"{}\" of the shard key with a column \
                         of the source: whether a row has a match is known only where all rows are.",
                        column.name
                    ),
                    "Have ON equate the shard key with a column of the source.",
                ));
            }
            None => {
                return Err(unfed(
                    format!(
                        "It inserts rows whose shard key is not what ON equates it with: column \"{}\".",
                        column.name
                    ),
                    "Insert the column of the source that ON names.",
                ));
            }
        }
    }
    Ok(keys)
}
