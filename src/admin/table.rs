//! Rows of the proxy's own, and how they look on the wire.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::backend::{Column, data_row, row_description};
use crate::wire::format::{self, Formats};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `text`.
    Text,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `numeric`; whole numbers only.
    Numeric,
    /// `bool`.
    Bool,
    /// `timestamptz`.
    Timestamptz,
}

impl Kind {
    /// The type's OID and its length in bytes, negative when it varies.
    fn of_wire(self) -> (u32, i16) {
        match self {
            Kind::Text => (25, -1),
            Kind::Int4 => (23, 4),
            Kind::Int8 => (20, 8),
            Kind::Numeric => (1700, -1),
            Kind::Bool => (16, 1),
            Kind::Timestamptz => (1184, 8),
        }
    }
}

/// A value; which kinds of columns it fits is in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// A time, since 1970-01-01 UTC.
    Time(Duration),
}

impl Value {
    fn to_text(&self) -> Option<Vec<u8>> {
        Some(match self {
            Value::Null => return None,
            Value::Text(text) => text.as_bytes().to_vec(),
            Value::Int(number) => number.to_string().into_bytes(),
            Value::Bool(true) => b"t".to_vec(),
            Value::Bool(false) => b"f".to_vec(),
            Value::Time(since) => format::iso(*since).into_bytes(),
        })
    }

    fn to_binary(&self, kind: Kind) -> Option<Vec<u8>> {
        Some(match (self, kind) {
            (Value::Int(number), Kind::Int4) => i32::try_from(*number)
                .unwrap_or(i32::MAX)
                .to_be_bytes()
                .to_vec(),
            (Value::Int(number), Kind::Numeric) => format::numeric(*number),
            (Value::Int(number), _) => number.to_be_bytes().to_vec(),
            (Value::Bool(value), _) => vec![u8::from(*value)],
            (Value::Time(since), _) => format::timestamptz(*since).to_vec(),
            _ => return self.to_text(),
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Int(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Int(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::from(number as u64)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// Rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Kind)>,
    /// The rows; each as long as there are columns.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&str, Kind)]) -> Table {
        let columns = columns
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind));
        Table {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// What SHOW of one setting answers.
    pub fn setting(name: &str, value: String) -> Table {
        let mut table = Table::new(&[(name, Kind::Text)]);
        table.rows.push(vec![value.into()]);
        table
    }

    /// The columns' names and types.
    pub fn columns(&self) -> &[(String, Kind)] {
        &self.columns
    }

    /// Appends the RowDescription.
    pub fn describe(&self, out: &mut Vec<u8>, formats: &Formats) {
        let columns = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, kind))| {
                let (type_oid, type_length) = kind.of_wire();
                Column {
                    name,
                    type_oid,
                    type_length,
                    is_binary: formats.is_binary(index),
                }
            });
        row_description(out, &columns.collect::<Vec<_>>());
    }

    /// Appends the DataRows.
    pub fn write(&self, out: &mut Vec<u8>, formats: &Formats) {
        for row in &self.rows {
            self.write_row(out, row, formats);
        }
    }

    /// Appends the DataRow of one of the rows.
    pub fn write_row(&self, out: &mut Vec<u8>, row: &[Value], formats: &Formats) {
        let columns = self.columns.iter().zip(row).enumerate();
        let values: Vec<Option<Vec<u8>>> = columns
            .map(
                |(index, ((_, kind), value))| match formats.is_binary(index) {
                    true => value.to_binary(*kind),
                    false => value.to_text(),
                },
            )
            .collect();
        data_row(out, values.iter().map(|value| value.as_deref()));
    }

    /// Checks that the formats of a Bind message are as many as the columns.
    ///
    /// # Errors
    /// `08P01` if they are not.
    pub fn check(&self, formats: &Formats) -> Result<()> {
        if formats.fit(self.columns.len()) {
            return Ok(());
        }
        Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "bind message has {} result formats but query has {} columns",
                formats.count(),
                self.columns.len()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_comes_in_the_format_that_was_asked_for() {
        let mut table = Table::new(&[("a", Kind::Int8), ("b", Kind::Text), ("c", Kind::Bool)]);
        table.rows.push(vec![7_u32.into(), "x".into(), true.into()]);
        let mut out = Vec::new();
        table.write(&mut out, &Formats::new(&[0, 1, 0, 1, 0, 0]));
        let row = b"D\0\0\0\x1c\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x01x\0\0\0\x01t";
        assert_eq!(out, row);
        let mut out = Vec::new();
        table.describe(&mut out, &Formats::new(&[0, 1, 0, 1, 0, 0]));
        let formats = [out[26], out[46], out[66]];
        assert_eq!(formats, [1, 1, 0], "{out:?}");
        assert!(table.check(&Formats::new(&[0, 1, 0, 1])).is_err());
    }

    #[test]
    fn null_has_no_length() {
        let mut table = Table::new(&[("a", Kind::Text)]);
        table.rows.push(vec![None::<&str>.into()]);
        let mut out = Vec::new();
        table.write(&mut out, &Formats::default());
        assert_eq!(out, b"D\0\0\0\x0a\0\x01\xff\xff\xff\xff");
    }
}
