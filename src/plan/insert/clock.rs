//! Defaults that have one value for all rows of a statement (`now()`), where the rows go to several shards.
//!
//! Each shard would evaluate them for itself. So they are evaluated once, and stand in the text that is then
//! planned in the client's place; rows of one shard are left as they are.

use std::ops::Range;

use crate::catalog::Relation;
use crate::catalog::TableColumn;
use crate::error::Result;
use crate::plan::insert::rows::unlike;
use crate::plan::own::tokens_of;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Insert;
use crate::sql::analysis::Rows;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;
use crate::sql::values;

/// The columns of an INSERT that are to be evaluated once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The table, as SQL.
    pub table: String,
    columns: Vec<Moment>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    name: String,
    /// Its place in a row; none if the statement leaves it out.
    cell: Option<usize>,
}

impl Clock {
    /// The columns that an INSERT leaves to such a default; none if there are none. Its columns are listed.
    pub(in crate::plan) fn find(relation: &Relation, insert: &Insert) -> Option<Clock> {
        let (Some(listed), Rows::Values(rows)) = (&insert.columns, &insert.rows) else {
            return None;
        };
        let moment = |column: &TableColumn| {
            let cell = listed.iter().position(|name| *name == column.name);
            let is_default = |row: &Vec<Cell>| match cell {
                Some(cell) => row.get(cell) == Some(&Cell::Default),
                None => true,
            };
            let is_moment = column.default.of_statement && !column.generated;
            (is_moment && rows.iter().any(is_default)).then(|| Moment {
                name: column.name.clone(),
                cell,
            })
        };
        let columns: Vec<Moment> = relation.columns.iter().filter_map(moment).collect();
        let schema = quote_identifier(&relation.schema);
        (!columns.is_empty()).then(|| Clock {
            table: format!("{schema}.{}", quote_identifier(&relation.name)),
            columns,
        })
    }

    /// The names of the columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The edits that put the columns' values in, written as SQL.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn edits(&self, text: &str, lex: LexOptions, values: &[String]) -> Result<Vec<Edit>> {
        let tokens = tokens_of(text, lex)?;
        let rows = values::rows(text, &tokens).ok_or_else(unlike)?;
        let first = rows.first().map_or(0, |row| row.start);
        // Before VALUES, and before OVERRIDING … VALUE.
        let mut end = first.checked_sub(2).ok_or_else(unlike)?;
        if tokens
            .get(end)
            .is_some_and(|token| token.is_word(text, "value"))
        {
            end = end.checked_sub(3).ok_or_else(unlike)?;
        }
        let end = tokens.get(end).filter(|token| token.is_symbol(text, ")"));
        let end = end.ok_or_else(unlike)?.start;
        let mut edits = Vec::new();
        let mut put = |range: Range<u32>, text: String| edits.push(Edit { range, text });
        let columns = || self.columns.iter().zip(values);
        for (column, _) in columns().filter(|(column, _)| column.cell.is_none()) {
            put(end..end, format!(", {}", quote_identifier(&column.name)));
        }
        for row in rows {
            let row = tokens.get(row).unwrap_or_default();
            let cells = values::cells(text, row);
            let last = row.last().ok_or_else(unlike)?.start;
            for (column, value) in columns() {
                let Some(cell) = column.cell else {
                    put(last..last, format!(", {value}"));
                    continue;
                };
                let cell = cells.get(cell).and_then(|cell| row.get(cell.clone()));
                if let Some([word]) = cell
                    && word.is_word(text, "default")
                {
                    put(word.range(), value.clone());
                }
            }
        }
        Ok(edits)
    }
}
