//! Values for columns that the data of a COPY FROM leaves out; pure.
//!
//! What holds:
//! - A column that shards must not find a value for by themselves is listed before the client's own, and its
//!   value stands before each row. So PostgreSQL counts and names the client's fields as it would have.
//! - A value can't be taken for NULL or for the mark of a default: in text format its first byte is written as
//!   digits if it would be, in CSV it is quoted.
//! - A row is not begun before there are values for it.

use std::collections::VecDeque;

use super::Layout;
use crate::catalog::SequenceName;
use crate::error::Error;
use crate::error::Result;
use crate::plan::defaults::Form;

/// A column that is given values on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supplied {
    /// Its name.
    pub name: String,
    /// Where its values come from.
    pub source: Source,
    /// The OID of its type.
    pub type_oid: u32,
}

/// Where the values of a column come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The next number of a sequence for each row.
    Number(SequenceName),
    /// Its default, which is the same for all rows.
    Once,
    /// Its default, evaluated for each row.
    Each,
}

/// A value as the data has it, before it is written into it; none is NULL.
pub type Value = Option<Vec<u8>>;

/// Values that rows have yet to get.
#[derive(Debug, Default)]
pub(super) struct Supply {
    columns: Vec<Column>,
    /// Why there are no further values.
    end: Option<Error>,
}

#[derive(Debug)]
struct Column {
    /// Each row has its own.
    is_each: bool,
    values: VecDeque<Value>,
}

impl Supply {
    pub fn new(supplied: &[Supplied]) -> Supply {
        let column = |one: &Supplied| Column {
            is_each: one.source != Source::Once,
            values: VecDeque::new(),
        };
        Supply {
            columns: supplied.iter().map(column).collect(),
            end: None,
        }
    }

    /// Whether another row may be begun: there are values for it, or it is known that there are none.
    pub fn may_begin(&self) -> bool {
        self.end.is_some() || self.has_row()
    }

    fn has_row(&self) -> bool {
        self.columns.iter().all(|column| !column.values.is_empty())
    }

    /// There are no further values: the next row that needs some fails.
    pub fn end(&mut self, error: Error) {
        self.end = Some(error);
    }

    /// Takes further values, of each column that needs some.
    pub fn extend(&mut self, values: Vec<Vec<Value>>) {
        for (column, values) in self.columns.iter_mut().zip(values) {
            column.values.extend(values);
        }
    }

    /// The values of the next row.
    ///
    /// # Errors
    /// Why there are none.
    pub fn take(&mut self) -> Result<Vec<Value>> {
        if !self.has_row()
            && let Some(error) = &self.end
        {
            return Err(error.clone());
        }
        let take = |column: &mut Column| match column.is_each {
            true => column.values.pop_front().flatten(),
            false => column.values.front().cloned().flatten(),
        };
        Ok(self.columns.iter_mut().map(take).collect())
    }

    /// What no row has got, of each column.
    pub fn left(&mut self) -> Vec<Vec<Value>> {
        let left = |column: &mut Column| column.values.drain(..).collect();
        self.columns.iter_mut().map(left).collect()
    }
}

impl Source {
    /// Whether each row has a value of its own.
    pub fn is_each(&self) -> bool {
        *self != Source::Once
    }
}

/// A number as the data of a column has it; none if the column's type does not hold it.
pub fn number(number: i64, type_oid: u32, form: Form) -> Option<Vec<u8>> {
    if form == Form::Text {
        return Some(number.to_string().into_bytes());
    }
    match type_oid {
        21 => Some(i16::try_from(number).ok()?.to_be_bytes().to_vec()),
        23 => Some(i32::try_from(number).ok()?.to_be_bytes().to_vec()),
        _ => Some(number.to_be_bytes().to_vec()),
    }
}

/// Whether [`number`] knows the binary form of a type.
pub(super) fn is_integer(type_oid: u32) -> bool {
    matches!(type_oid, 20 | 21 | 23)
}

/// Whether a value can't be written: in text format an empty string may say NULL.
pub(super) fn is_unwritable(value: &Value, layout: &Layout) -> bool {
    let is_empty = value.as_ref().is_some_and(Vec::is_empty);
    let is_text = !layout.is_binary && layout.marks.quote.is_none();
    is_empty && is_text && (layout.null.is_empty() || layout.default.as_deref() == Some(""))
}

/// What stands before the header.
pub(super) fn header(supplied: &[Supplied], layout: &Layout) -> Vec<u8> {
    let names: Vec<Value> = supplied
        .iter()
        .map(|one| Some(one.name.clone().into_bytes()))
        .collect();
    head(&names, layout)
}

/// What stands before a row with these values.
pub(super) fn head(values: &[Value], layout: &Layout) -> Vec<u8> {
    let mut out = Vec::new();
    if values.is_empty() {
        return out;
    }
    if layout.is_binary {
        let count = u16::try_from(values.len() + layout.columns.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for value in values {
            let length = value
                .as_ref()
                .map_or(Ok(-1), |value| i32::try_from(value.len()));
            out.extend_from_slice(&length.unwrap_or(i32::MAX).to_be_bytes());
            out.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        return out;
    }
    for value in values {
        match (value, layout.marks.quote) {
            (None, _) => out.extend_from_slice(layout.null.as_bytes()),
            (Some(value), None) => write_text(&mut out, value, layout),
            (Some(value), Some(quote)) => {
                write_quoted(&mut out, value, (quote, layout.marks.escape));
            }
        }
        out.push(layout.marks.delimiter);
    }
    out
}

/// What stands behind the head of a line.
pub(super) fn behind_head<'a>(line: &'a [u8], values: usize, layout: &Layout) -> &'a [u8] {
    let mut rest = line;
    for _ in 0..values {
        let mut is_quoted = false;
        let end = rest.iter().position(|byte| {
            is_quoted ^= Some(*byte) == layout.marks.quote;
            *byte == layout.marks.delimiter && !is_quoted
        });
        rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
    }
    rest
}

fn write_text(out: &mut Vec<u8>, value: &[u8], layout: &Layout) {
    let start = out.len();
    write_escaped(out, value, layout.marks.delimiter);
    let written = out.get(start..).unwrap_or_default();
    let is_mark = |mark: &str| mark.as_bytes() == written;
    if (is_mark(&layout.null) || layout.default.as_deref().is_some_and(is_mark))
        && let Some((first, rest)) = value.split_first()
    {
        out.truncate(start);
        out.extend_from_slice(format!("\\{first:03o}").as_bytes());
        write_escaped(out, rest, layout.marks.delimiter);
    }
}

fn write_escaped(out: &mut Vec<u8>, value: &[u8], delimiter: u8) {
    for byte in value {
        match *byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte if byte == delimiter => {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            byte => out.push(byte),
        }
    }
}

fn write_quoted(out: &mut Vec<u8>, value: &[u8], (quote, escape): (u8, Option<u8>)) {
    let escape = escape.unwrap_or(quote);
    out.push(quote);
    for byte in value {
        if *byte == quote || *byte == escape {
            out.push(escape);
        }
        out.push(*byte);
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::super::Marks;
    use super::*;

    fn layout(quote: Option<u8>, null: &str) -> Layout {
        Layout {
            is_binary: false,
            marks: Marks {
                delimiter: b'|',
                quote,
                escape: None,
                is_marker_alone: false,
            },
            null: null.to_owned(),
            default: None,
            has_header: false,
            has_condition: false,
            encoding: None,
            columns: vec!["a".to_owned()],
            keys: Vec::new(),
            placement: None,
        }
    }

    fn value(text: &str) -> Value {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn values_say_what_they_are() {
        let values = [value("7"), value("a|b\\\n"), None];
        let text = layout(None, "7");
        assert_eq!(head(&values, &text), b"\\067|a\\174b\\\\\\n|7|");
        let csv = layout(Some(b'"'), "");
        let values = [value("7"), value("a|\"b"), None];
        let written = head(&values, &csv);
        assert_eq!(written, b"\"7\"|\"a|\"\"b\"||");
        let line = [&written[..], b"x|y"].concat();
        assert_eq!(behind_head(&line, 3, &csv), b"x|y");
        assert!(is_unwritable(&value(""), &layout(None, "")));
        assert!(!is_unwritable(&value(""), &csv));
    }

    #[test]
    fn binary_rows_have_more_fields() {
        let mut layout = layout(None, "");
        layout.is_binary = true;
        let number = number(5, 21, Form::Binary);
        assert_eq!(
            head(&[number, None], &layout),
            b"\0\x03\0\0\0\x02\0\x05\xff\xff\xff\xff"
        );
        assert_eq!(super::number(70_000, 21, Form::Binary), None);
    }

    #[test]
    fn each_row_takes_its_own() {
        let supplied = |source| Supplied {
            name: "a".to_owned(),
            source,
            type_oid: 20,
        };
        let mut supply = Supply::new(&[supplied(Source::Once), supplied(Source::Each)]);
        supply.extend(vec![vec![value("now")], vec![value("1"), value("2")]]);
        assert!(supply.may_begin());
        assert_eq!(supply.take().unwrap(), [value("now"), value("1")]);
        assert_eq!(supply.take().unwrap(), [value("now"), value("2")]);
        assert!(!supply.may_begin());
        supply.end(Error::protocol("no more"));
        assert!(supply.may_begin() && supply.take().is_err());
        assert!(Supply::new(&[]).may_begin());
    }
}
