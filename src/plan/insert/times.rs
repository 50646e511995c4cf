//! Dates and times in the keys of an `INSERT`, where only a server can read them.
//!
//! What holds:
//! - A string or a parameter for a column of dates or timestamps whose value settings decide (`'2026-01-01 10:00'`
//!   for `timestamptz`, `'1/2/2026'`) is evaluated before anything is stored, with the session's settings, as the type
//!   of its column; the row is stored with that value.
//! - What could not be assigned to the column (another type of value, or of the cast) is left as it is, so that
//!   PostgreSQL rejects it.

use std::ops::Range;

use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::insert::parts::parameter;
use crate::plan::insert::rows::Evaluated;
use crate::plan::insert::rows::Insertion;
use crate::plan::insert::rows::Origin;
use crate::plan::insert::rows::Reader;
use crate::plan::insert::rows::RowPattern;
use crate::sharding::KeyColumn;
use crate::sharding::KeyError;
use crate::sharding::KeyType;
use crate::sql::token::Token;
use crate::sql::values;

impl Insertion {
    /// Whether an execution has dates or times in its keys that only a server can read.
    pub(super) fn has_times(&self, arguments: &Arguments<'_>) -> Result<bool> {
        let columns = self.placement.columns();
        if columns.iter().all(|column| time_type(column).is_none()) {
            return Ok(false);
        }
        let (tokens, found) = self.read(arguments.text)?;
        let mut reader = Reader::new(self, arguments, &tokens);
        reader.note_uses(&found)?;
        for row in found {
            let row = tokens.get(row).unwrap_or_default();
            let cells = values::cells(arguments.text, row);
            let pattern = reader.pattern(row, &cells)?;
            if !reader.times(pattern, row, &cells).is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Reader<'_> {
    /// The cells of a row that are dates or times which only a server can read, and the types of their columns.
    pub(super) fn times(
        &self,
        pattern: &RowPattern,
        row: &[Token],
        cells: &[Range<usize>],
    ) -> Vec<(Evaluated, Option<String>)> {
        let mut times = Vec::new();
        let columns = self.insertion.placement.columns();
        for (index, (column, origin)) in columns.iter().zip(&pattern.keys).enumerate() {
            let (cell, cast) = match *origin {
                Origin::Atom { cell } => (cell, 0),
                Origin::Cast { cell, cast, .. } => (cell, cast),
                Origin::Evaluated { cell } => (cell, 0),
            };
            let Some(name) = time_type(column) else {
                continue;
            };
            let tokens = cells.get(cell).and_then(|cell| row.get(cell.clone()));
            let tokens = tokens.unwrap_or_default();
            if matches!(origin, Origin::Evaluated { .. })
                && !is_written_time(self.arguments.text, tokens)
            {
                continue;
            }
            let is_time = tokens.iter().any(|token| {
                let declared = parameter(self.arguments.text, token)
                    .map(|index| self.arguments.parameters.type_oid(index));
                declared.map_or(token.kind.is_string(), is_time_or_none)
            });
            let key = self.key(*origin, row, cells, index);
            if is_time && is_time_or_none(cast) && matches!(key, Err(KeyError::Unprovable(_))) {
                let is_shared = false;
                times.push((Evaluated { cell, is_shared }, Some(name)));
            }
        }
        times
    }
}

/// The name of a column's type, if what is written for it may depend on settings.
pub(super) fn time_type(column: &KeyColumn) -> Option<String> {
    let name = match column.column_type.key_type {
        KeyType::Date => "date",
        KeyType::Timestamp => "timestamp",
        KeyType::Timestamptz => "timestamptz",
        _ => return None,
    };
    Some(match column.column_type.typmod {
        -1 => format!("pg_catalog.{name}"),
        precision => format!("pg_catalog.{name}({precision})"),
    })
}

/// Whether this is the type of a date or a timestamp, or none: anything else is not assigned to such a column.
fn is_time_or_none(type_oid: u32) -> bool {
    let times = [KeyType::Date, KeyType::Timestamp, KeyType::Timestamptz];
    type_oid == 0 || KeyType::from_oid(type_oid).is_some_and(|known| times.contains(&known))
}

/// Whether a cell is a string of a type of dates and times: `date '2026-01-01'`, `'2026-01-01'::date`.
fn is_written_time(text: &str, cell: &[Token]) -> bool {
    let (name, string) = match cell {
        [name, string] => (name, string),
        [string, cast, name] if cast.is_symbol(text, "::") => (name, string),
        _ => return false,
    };
    let names = ["date", "timestamp", "timestamptz"];
    string.kind.is_string() && names.iter().any(|known| name.is_word(text, known))
}
