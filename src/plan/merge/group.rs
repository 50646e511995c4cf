//! `GROUP BY` and `DISTINCT`: whether each group's rows are on one shard.

use crate::error::Result;
use crate::plan::bind::ColumnId;
use crate::plan::colocation::Joined;
use crate::plan::effects::is_shard_id;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Column;
use crate::sql::analysis::outline::Distinct;
use crate::sql::analysis::outline::Expression;
use crate::sql::analysis::outline::Form;

use super::Builder;

/// What is made of rows of several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing but the answer.
    Shard,
    /// Groups, or the one group of all rows.
    Groups,
    /// Rows of which `DISTINCT` keeps one.
    Distinct,
}

impl Builder<'_> {
    /// Whether every group, and every row that `DISTINCT` keeps, is made of rows of one shard.
    pub fn reach(&self, joined: &Joined<'_>, has_aggregate: bool) -> Result<Reach> {
        let outline = self.outline;
        let clauses = self.top().map(|block| block.clauses);
        let clauses = clauses.unwrap_or_default();
        if !outline.group_by.is_empty() {
            let is_shards = outline.group_by.iter().any(|key| self.is_shard_id(key));
            if !is_shards && !joined.is_within(&self.columns_of(&outline.group_by)) {
                return Ok(Reach::Groups);
            }
        } else if has_aggregate
            || clauses.has(Clauses::HAVING)
            || clauses.has(Clauses::GROUP_BY)
            || clauses.has(Clauses::AGGREGATE)
        {
            return Ok(Reach::Groups);
        }
        let is_within = match &outline.distinct {
            Distinct::No => true,
            Distinct::All => {
                let columns = self.list()?.columns.iter();
                let columns: Vec<ColumnId> = columns
                    .filter_map(|listed| match &listed.form {
                        Form::Column(column) => self.column(column),
                        _ => None,
                    })
                    .collect();
                let is_shards = self
                    .list()?
                    .columns
                    .iter()
                    .any(|listed| is_shard(&listed.form));
                is_shards || joined.is_within(&columns)
            }
            Distinct::On(keys) => joined.is_within(&self.columns_of_order(keys)),
        };
        Ok(if is_within {
            Reach::Shard
        } else {
            Reach::Distinct
        })
    }

    /// Whether a key of `GROUP BY` is the shard's name.
    fn is_shard_id(&self, key: &Expression) -> bool {
        let listed = match &key.form {
            Form::Number(number) => self.ordinal(number).ok().flatten().map(|meant| meant.form),
            _ => None,
        };
        is_shard(listed.as_ref().unwrap_or(&key.form))
    }

    /// The columns of tables among the keys of `GROUP BY`: a bare name is first that of such a column.
    fn columns_of(&self, keys: &[Expression]) -> Vec<ColumnId> {
        let columns = keys.iter().filter_map(|key| match &key.form {
            Form::Number(number) => self.column_numbered(number),
            Form::Column(column) => self.column(column).or_else(|| self.column_named(column)),
            _ => None,
        });
        columns.collect()
    }

    /// The columns of tables among the keys of `DISTINCT ON`, whose names mean what those of `ORDER BY`
    /// mean.
    fn columns_of_order(&self, keys: &[Expression]) -> Vec<ColumnId> {
        let columns = keys.iter().filter_map(|key| match &key.form {
            Form::Number(number) => self.column_numbered(number),
            Form::Column(column) if column.qualifier.is_empty() => {
                match self.list.as_ref()?.named(&column.name)? {
                    Some(listed) => match &listed.form {
                        Form::Column(column) => self.column(column),
                        _ => None,
                    },
                    None => self.column(column),
                }
            }
            Form::Column(column) => self.column(column),
            _ => None,
        });
        columns.collect()
    }

    fn column_numbered(&self, number: &str) -> Option<ColumnId> {
        match self.ordinal(number).ok()??.form {
            Form::Column(column) => self.column(&column),
            _ => None,
        }
    }

    /// The column that a name of the select list stands for, if no source can have one of that name.
    fn column_named(&self, column: &Column) -> Option<ColumnId> {
        if !self.knows_sources() || !column.qualifier.is_empty() {
            return None;
        }
        match &self.list.as_ref()?.named(&column.name)??.form {
            Form::Column(column) => self.column(column),
            _ => None,
        }
    }
}

/// Whether an expression is the shard's name.
fn is_shard(form: &Form) -> bool {
    match form {
        Form::Collated(inner, _) => is_shard(inner),
        Form::Call(name) => is_shard_id(name),
        _ => false,
    }
}
