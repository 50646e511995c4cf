//! Assignments of DEFAULT, what a shard can't evaluate for itself, and how defaults are evaluated.

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::literal::quote_literal;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As text.
    Text,
    /// In hexadecimal digits, the bytes that it is sent as.
    Binary,
}

/// Asks for the statement that evaluates the default of a table's column `count` times. A value gets the
/// column's type, but not its length: whether it fits is found when it is stored.
pub fn evaluation(table: &str, column: &str, count: usize, form: Form) -> String {
    // A time must not be read otherwise than it was written: JSON has it in ISO form.
    let written = match form {
        Form::Text => {
            "CASE WHEN a.atttypid IN (1082, 1083, 1114, 1184, 1266) \
             THEN 'SELECT pg_catalog.to_jsonb((%s)::%s) #>> ''{}''' ELSE 'SELECT ((%s)::%s)::pg_catalog.text' END"
        }
        Form::Binary => {
            "(SELECT 'SELECT pg_catalog.encode(' || pg_catalog.quote_ident(n.nspname) || '.' || \
             pg_catalog.quote_ident(p.proname) || '((%s)::%s), ''hex'')' FROM pg_catalog.pg_proc p \
             JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = t.typsend)"
        }
    };
    let (table, column) = (quote_literal(table), quote_literal(column));
    format!(
        "SELECT pg_catalog.format({written} \
         || ' AS value FROM pg_catalog.generate_series(1, {count})', coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), \
         t.typdefault, 'NULL'), pg_catalog.format_type(a.atttypid, -1)) AS value \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE a.attrelid = {table}::pg_catalog.regclass AND a.attname = {column}"
    )
}

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
