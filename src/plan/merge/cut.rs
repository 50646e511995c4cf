//! `LIMIT` and `OFFSET`: what each shard gets, and what is left for the proxy.

use std::fmt;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::refusal;
use crate::sharding::Format;
use crate::sql::analysis::CastType;
use crate::sql::analysis::outline::Quantity;
use crate::sqlstate::SqlState;

use super::Builder;
use super::edit::Change;
use super::edit::Piece;

/// `bigint`, the type of a limit.
const INT8: u32 = 20;

/// A limit beyond this is none for a shard, so that sums don't overflow.
const LARGEST: u64 = 1 << 62;

/// Which rows of an answer the client gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    limit: Option<Count>,
    offset: Option<Count>,
}

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Number(u64),
    /// A parameter, from 0, and its type if it is not declared.
    Parameter(usize, u32),
}

/// Which rows of an answer the client gets, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// So many are left out.
    pub skip: u64,
    /// So many follow.
    pub take: u64,
}

impl Builder<'_> {
    /// The rows that the client gets. The shards' limit takes the place of the client's.
    pub fn cut(&mut self) -> Result<Cut> {
        let cut = self.counts()?;
        let clause = self.outline.places.limit_clause.clone();
        if !clause.is_empty() {
            let pieces = vec![Piece::Text(cut.of_shard().into())];
            self.changes.push(Change::new(clause, pieces));
        }
        Ok(cut)
    }

    /// The rows that the client gets, of all that there are.
    pub fn counts(&self) -> Result<Cut> {
        if self.outline.with_ties {
            return Err(refusal::combine("WITH TIES"));
        }
        Ok(Cut {
            limit: count(&self.outline.limit, "LIMIT")?,
            offset: count(&self.outline.offset, "OFFSET")?,
        })
    }
}

fn count(quantity: &Quantity, clause: &str) -> Result<Option<Count>> {
    match quantity {
        Quantity::None => Ok(None),
        Quantity::Number(number) => Ok(Some(Count::Number(*number))),
        Quantity::Parameter(number, cast) => {
            let type_oid = match cast {
                CastType::None => Some(INT8),
                CastType::To(oid) if width(*oid).is_some() => Some(*oid),
                CastType::To(_) | CastType::Other => None,
            };
            let index = usize::try_from(*number).ok();
            match (index.and_then(|index| index.checked_sub(1)), type_oid) {
                (Some(index), Some(oid)) => Ok(Some(Count::Parameter(index, oid))),
                _ => Err(computed(clause)),
            }
        }
        Quantity::Other => Err(computed(clause)),
    }
}

fn computed(clause: &str) -> Error {
    Error::refused(
        format!("a query over several shards with a computed {clause} is not supported"),
        "Each shard gets the sum of LIMIT and OFFSET as its limit, so the proxy must know them.",
        format!("Write {clause} with a whole number or a parameter."),
    )
}

impl Cut {
    /// The limit clause of a shard. Every parameter of the client's stays in it.
    pub(super) fn of_shard(&self) -> String {
        match (self.limit, self.offset) {
            (None, None) => "LIMIT ALL".to_owned(),
            (Some(Count::Number(limit)), None) => format!("LIMIT {limit}"),
            (Some(limit), None) => format!("LIMIT {}", limit.sql()),
            (None, Some(offset)) => format!("OFFSET 0 * {}", offset.sql()),
            (Some(Count::Number(limit)), Some(offset)) if limit > LARGEST => {
                format!("OFFSET 0 * {}", offset.sql())
            }
            (Some(Count::Number(limit)), Some(Count::Number(offset))) => {
                let sum = limit.saturating_add(offset);
                format!("LIMIT {}", sum.min(i64::MAX as u64))
            }
            (Some(limit), Some(offset)) => format!(
                "LIMIT least({}::numeric + {}::numeric, {})::int8",
                limit.sql(),
                offset.sql(),
                i64::MAX
            ),
        }
    }

    /// A clause that has all parameters and changes nothing.
    pub(super) fn parameters(&self) -> String {
        let counts = [self.limit, self.offset].into_iter().flatten();
        let parameters = counts.filter(|count| matches!(count, Count::Parameter(..)));
        let terms = parameters.map(|count| format!("0 * coalesce({}, 0)", count.sql()));
        let terms: Vec<String> = terms.collect();
        match terms.is_empty() {
            true => String::new(),
            false => format!("OFFSET {}", terms.join(" + ")),
        }
    }

    /// The numbers of one execution.
    ///
    /// # Errors
    /// `2201W` and `2201X` for negative numbers, `22P02` for what is none.
    pub fn window(&self, arguments: &Arguments<'_>) -> Result<Window> {
        // PostgreSQL looks at OFFSET first.
        let skip = match self
            .offset
            .map(|count| count.value(arguments))
            .transpose()?
        {
            Some(Some(skip)) => u64::try_from(skip).map_err(|_| {
                let code = SqlState::INVALID_ROW_COUNT_IN_RESULT_OFFSET;
                Error::new(code, "OFFSET must not be negative")
            })?,
            Some(None) | None => 0,
        };
        let take = match self.limit.map(|count| count.value(arguments)).transpose()? {
            Some(Some(take)) => u64::try_from(take).map_err(|_| {
                let code = SqlState::INVALID_ROW_COUNT_IN_LIMIT;
                Error::new(code, "LIMIT must not be negative")
            })?,
            Some(None) | None => u64::MAX,
        };
        Ok(Window { skip, take })
    }

    /// Whether the client gets all rows.
    pub fn is_all(&self) -> bool {
        self.limit.is_none() && self.offset.is_none()
    }

    /// Writes it for EXPLAIN; false if there is nothing to write.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        if let Some(limit) = self.limit {
            write!(f, "Limit {limit}")?;
        }
        if let Some(offset) = self.offset {
            let word = if self.limit.is_some() {
                " offset"
            } else {
                "Offset"
            };
            write!(f, "{word} {offset}")?;
        }
        Ok(!self.is_all())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Number(number) => write!(f, "{number}"),
            Count::Parameter(index, _) => write!(f, "${}", index + 1),
        }
    }
}

impl Count {
    fn sql(self) -> String {
        match self {
            Count::Number(number) => format!("({number})::int8"),
            Count::Parameter(index, INT8) => format!("(${})::int8", index + 1),
            Count::Parameter(index, 23) => format!("(${}::int4)::int8", index + 1),
            Count::Parameter(index, _) => format!("(${}::int2)::int8", index + 1),
        }
    }

    /// The inner none is NULL.
    fn value(self, arguments: &Arguments<'_>) -> Result<Option<i64>> {
        let (index, inferred) = match self {
            Count::Number(number) => return Ok(i64::try_from(number).ok()),
            Count::Parameter(index, inferred) => (index, inferred),
        };
        let parameters = &arguments.parameters;
        let declared = parameters.type_oid(index);
        let type_oid = if declared == 0 { inferred } else { declared };
        let width = width(type_oid).ok_or_else(|| computed("LIMIT or OFFSET"))?;
        let value = parameters.value(index).flatten();
        let Some(bytes) = value else {
            return Ok(None);
        };
        match parameters.format(index) {
            Some(Format::Binary) if bytes.len() == width => Ok(Some(integer(bytes))),
            Some(Format::Text) => text_integer(bytes).map(Some),
            _ => Err(Error::new(
                SqlState::INVALID_BINARY_REPRESENTATION,
                format!(
                    "incorrect binary data format in bind parameter {}",
                    index + 1
                ),
            )),
        }
    }
}

/// How many bytes a binary integer of a type has.
fn width(type_oid: u32) -> Option<usize> {
    match type_oid {
        INT8 => Some(8),
        23 => Some(4),
        21 => Some(2),
        _ => None,
    }
}

/// A big-endian integer of up to 8 bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    bytes
        .iter()
        .fold(start, |value, byte| (value << 8) | i64::from(*byte))
}

fn text_integer(bytes: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim_ascii();
    // Servers from 16 read 0x1F and 1_000.
    let digits = text.trim_start_matches(['+', '-']);
    if digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.contains(|other: char| other.is_ascii_alphabetic() || other == '_')
    {
        return Err(computed("LIMIT or OFFSET"));
    }
    text.parse().map_err(|_| {
        Error::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type bigint: \"{text}\""),
        )
    })
}
