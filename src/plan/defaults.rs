//! Assignments of DEFAULT, and what a shard can't evaluate for itself.

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::query::Query;
use crate::plan::refusal;

impl Query<'_> {
    /// Refuses assignments of defaults that a shard can't evaluate for itself.
    pub fn check_defaults(
        &self,
        relation: &Relation,
        assigned: &[String],
        over_shards: bool,
    ) -> Result<()> {
        let text = self.request.text;
        if !self.body.iter().any(|token| token.is_word(text, "default")) {
            return Ok(());
        }
        let columns = assigned.iter().filter_map(|name| relation.column(name));
        for (_, column) in columns {
            if column.sequence_default || column.default.of_users {
                return Err(refusal::assigned_default(&relation.name, &column.name));
            }
            if over_shards && column.default.of_statement {
                let what = format!("the default of column \"{}\"", column.name);
                return Err(refusal::differs(&what));
            }
        }
        Ok(())
    }
}
