//! The canonical value of a key column, from a literal or from a bind parameter.

use smallvec::SmallVec;

use crate::error::Error;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::Numeric;
use crate::sharding::column::Family;
use crate::sharding::datetime;
use crate::sharding::hash;
use crate::sharding::input;
use crate::sqlstate::SqlState;

/// Bytes of a key; up to 32 need no allocation.
pub type KeyBytes = SmallVec<[u8; 32]>;

/// The canonical value of a key column: equal under PostgreSQL's `=` means equal here.
///
/// Keys of one column always have the same variant. They order as PostgreSQL orders them, texts as
/// under the collation `C`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `smallint`, `integer`, `bigint`.
    Int(i64),
    /// `numeric`.
    Numeric(Numeric),
    /// `text`, `varchar`, and `bpchar` without trailing blanks; UTF-8.
    Text(KeyBytes),
    /// `uuid`.
    Uuid([u8; 16]),
    /// `date`: days since 2000-01-01; the ends of the type are the infinities.
    Date(i32),
    /// `timestamp` and (in UTC) `timestamptz`: microseconds since 2000-01-01 00:00; the ends of the
    /// type are the infinities.
    Timestamp(i64),
    /// `bytea`.
    Bytea(KeyBytes),
    /// `boolean`.
    Bool(bool),
}

/// Why a value has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The value is NULL. A comparison matches no row; a store is an error (`23502`).
    Null,
    /// The value that PostgreSQL compares or stores can't be known here, and why (a clause). A
    /// comparison proves nothing; a store must be computed by a server first or be refused.
    Unprovable(&'static str),
    /// PostgreSQL rejects the value for certain, and why. Any server may be asked, so that the client
    /// gets PostgreSQL's own error.
    Rejected(&'static str),
    /// No row has this key: it is beyond the column's type, or no list or range has it. A comparison
    /// matches no row, so that any server may answer; a store is an error.
    OutOfRange,
}

/// What the value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// `column = value`: the value is not cut or rounded to the column's length, precision or scale.
    Compare,
    /// `INSERT`, `UPDATE … SET`, `COPY FROM`: the value goes through the assignment cast.
    Store,
}

/// How a literal was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiteralKind {
    /// A bare number, with its sign if it has one: PostgreSQL makes it `integer`, `bigint` or `numeric`.
    Number,
    /// A string of any quoting: PostgreSQL gives it the column's type.
    String,
    /// `true` or `false`.
    Bool,
}

/// The format of a bind parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Format code 0.
    Text,
    /// Format code 1.
    Binary,
}

impl Format {
    /// The format with this code in a Bind message.
    pub fn from_code(code: i16) -> Option<Format> {
        match code {
            0 => Some(Format::Text),
            1 => Some(Format::Binary),
            _ => None,
        }
    }
}

/// Declared parameter types that leave the choice to the server: none, and `unknown`.
const UNDECLARED: [u32; 2] = [0, 705];

const DIFFERENT_TYPES: KeyError =
    KeyError::Unprovable("the value's type is not that of the shard key's column");

impl Key {
    /// The key of a constant in the statement's text.
    ///
    /// `text` is the cooked value: no quotes, escapes resolved. It may have been read from a client
    /// whose encoding is not UTF-8: see [`Key::requires_utf8`].
    ///
    /// # Errors
    /// Why there is no key; [`KeyError::Rejected`] only when storing.
    pub fn from_literal(
        text: &str,
        literal: LiteralKind,
        column: &ColumnType,
        use_: KeyUse,
    ) -> Result<Key, KeyError> {
        match literal {
            LiteralKind::Number => {
                let (value, source) = read_number(text.as_bytes(), column.key_type)?;
                finish(value, source, column, use_)
            }
            LiteralKind::String => {
                let value = read_text(text.as_bytes(), column.key_type);
                let value = match use_ {
                    KeyUse::Store => value?,
                    // In a list with values of other types the string may get another type.
                    KeyUse::Compare => value.map_err(KeyError::doubt)?,
                };
                finish(value, column.key_type, column, use_)
            }
            LiteralKind::Bool if column.key_type == KeyType::Bool => {
                Ok(Key::Bool(text.eq_ignore_ascii_case("true")))
            }
            LiteralKind::Bool => Err(DIFFERENT_TYPES),
        }
    }

    /// The key of a bind parameter. `type_oid` is the type that the Parse message declares, 0 for
    /// none; then the server infers the column's type. `bytes` is `None` for NULL. The client's
    /// encoding may not be UTF-8: see [`Key::requires_utf8`].
    ///
    /// A parameter without a declared type that the statement uses in several places gets its type
    /// from the first of them: ask only when the column is that place.
    ///
    /// # Errors
    /// Why there is no key; [`KeyError::Rejected`] only when the type is declared.
    pub fn from_parameter(
        type_oid: u32,
        format: Format,
        bytes: Option<&[u8]>,
        column: &ColumnType,
        use_: KeyUse,
    ) -> Result<Key, KeyError> {
        let bytes = bytes.ok_or(KeyError::Null)?;
        let declared = !UNDECLARED.contains(&type_oid);
        let source = if declared {
            KeyType::from_oid(type_oid).ok_or(DIFFERENT_TYPES)?
        } else {
            column.key_type
        };
        let value = match format {
            Format::Text => read_text(bytes, source),
            Format::Binary => read_binary(bytes, source),
        };
        let value = if declared {
            value?
        } else {
            value.map_err(KeyError::doubt)?
        };
        finish(value, source, column, use_)
    }

    /// Whether the key holds only if the client's encoding is UTF-8: it has text beyond ASCII. A
    /// caller whose client uses another encoding must take such a key for unprovable.
    pub fn requires_utf8(&self) -> bool {
        matches!(self, Key::Text(text) if !text.is_ascii())
    }

    /// PostgreSQL's extended hash of the key's type, with a seed.
    pub fn hash_extended(&self, seed: u64) -> u64 {
        match self {
            Key::Int(value) | Key::Timestamp(value) => hash::int8(*value, seed),
            Key::Numeric(value) => hash::numeric(value, seed),
            Key::Text(value) | Key::Bytea(value) => hash::bytes(value, seed),
            Key::Uuid(value) => hash::bytes(value, seed),
            Key::Date(value) => hash::uint32(value.cast_unsigned(), seed),
            Key::Bool(value) => hash::uint32(u32::from(*value), seed),
        }
    }

    /// XXH3-64 of the canonical key bytes, with a seed.
    ///
    /// The bytes are: integers and timestamps, 8 bytes, big-endian two's complement; dates, 4 such
    /// bytes; texts, uuids and byteas, themselves (bpchar without trailing blanks); booleans, one
    /// byte 0 or 1; numerics as in [`Numeric::canonical_bytes`].
    pub fn hash_xxh3(&self, seed: u64) -> u64 {
        use xxhash_rust::xxh3::xxh3_64_with_seed as xxh3;
        match self {
            Key::Int(value) | Key::Timestamp(value) => xxh3(&value.to_be_bytes(), seed),
            Key::Numeric(value) => xxh3(&value.canonical_bytes(), seed),
            Key::Text(value) | Key::Bytea(value) => xxh3(value, seed),
            Key::Uuid(value) => xxh3(value, seed),
            Key::Date(value) => xxh3(&value.to_be_bytes(), seed),
            Key::Bool(value) => xxh3(&[u8::from(*value)], seed),
        }
    }
}

impl KeyError {
    /// The same without the certainty that PostgreSQL rejects the value, for values whose type is
    /// only presumed.
    fn doubt(self) -> KeyError {
        match self {
            KeyError::Rejected(why) => KeyError::Unprovable(why),
            other => other,
        }
    }

    /// The error for a row that can't be stored: `23502` for NULL, `23514` for a key that no list or
    /// range has, `0A000` for one that can't be known, `22023` for one that PostgreSQL would reject.
    pub fn store_error(self, table: &str, column: &str) -> Error {
        match self {
            KeyError::Null => Error::new(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"
                ),
            )
            .detail("The column is part of the shard key, which decides where the row is stored."),
            KeyError::OutOfRange => Error::new(
                SqlState::CHECK_VIOLATION,
                format!("no shard takes the value of column \"{column}\" of relation \"{table}\""),
            )
            .detail("The table's list or range placement does not cover the value.")
            .hint("Add the value to a shard's list or range in the table's placement."),
            KeyError::Unprovable(why) => Error::refused(
                format!(
                    "the shard of a row of \"{table}\" cannot be determined from column \"{column}\""
                ),
                format!("It can't be known what the column will hold: {why}."),
                "Write the shard key as a constant or parameter of the column's own type.",
            ),
            KeyError::Rejected(why) => Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for column \"{column}\" of relation \"{table}\": {why}"),
            ),
        }
    }
}

/// A number in the statement's text and the type it has for a column of type `target`.
fn read_number(text: &[u8], target: KeyType) -> Result<(Key, KeyType), KeyError> {
    match target.family() {
        Family::Integer => {
            if let Ok(value) = input::integer(text) {
                return Ok((Key::Int(value), KeyType::Int8));
            }
        }
        Family::Numeric => {}
        _ => return Err(DIFFERENT_TYPES),
    }
    let value = Numeric::parse(text).map_err(KeyError::doubt)?;
    Ok((Key::Numeric(value), KeyType::Numeric))
}

/// What the input function of a type makes of a text.
fn read_text(text: &[u8], source: KeyType) -> Result<Key, KeyError> {
    Ok(match source {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
            let value = input::integer(text)?;
            if !source.holds(value) {
                return Err(KeyError::Rejected("integer out of range"));
            }
            Key::Int(value)
        }
        KeyType::Numeric => Key::Numeric(Numeric::parse(text)?),
        KeyType::Text | KeyType::Varchar | KeyType::Bpchar => Key::Text(input::text(text)?),
        KeyType::Uuid => Key::Uuid(input::uuid(text)?),
        KeyType::Date => Key::Date(datetime::parse_date(text)?),
        KeyType::Timestamp => Key::Timestamp(datetime::parse_timestamp(text)?),
        KeyType::Timestamptz => Key::Timestamp(datetime::parse_timestamptz(text)?),
        KeyType::Bytea => Key::Bytea(input::bytea(text)?),
        KeyType::Bool => Key::Bool(input::boolean(text)?),
    })
}

/// What the receive function of a type makes of a binary parameter.
fn read_binary(bytes: &[u8], source: KeyType) -> Result<Key, KeyError> {
    Ok(match source {
        KeyType::Int2 => Key::Int(i64::from(i16::from_be_bytes(fixed(bytes)?))),
        KeyType::Int4 => Key::Int(i64::from(i32::from_be_bytes(fixed(bytes)?))),
        KeyType::Int8 => Key::Int(i64::from_be_bytes(fixed(bytes)?)),
        KeyType::Numeric => Key::Numeric(Numeric::from_binary(bytes)?),
        KeyType::Text | KeyType::Varchar | KeyType::Bpchar => Key::Text(input::text(bytes)?),
        KeyType::Uuid => Key::Uuid(fixed(bytes)?),
        KeyType::Date => Key::Date(datetime::check_date(i32::from_be_bytes(fixed(bytes)?))?),
        KeyType::Timestamp | KeyType::Timestamptz => Key::Timestamp(datetime::check_timestamp(
            i64::from_be_bytes(fixed(bytes)?),
        )?),
        KeyType::Bytea => Key::Bytea(KeyBytes::from_slice(bytes)),
        KeyType::Bool => {
            let [byte] = fixed(bytes)?;
            Key::Bool(byte != 0)
        }
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], KeyError> {
    bytes
        .try_into()
        .map_err(|_| KeyError::Rejected("incorrect binary data format"))
}

/// From a value of type `source` to the key of a column.
fn finish(value: Key, source: KeyType, column: &ColumnType, use_: KeyUse) -> Result<Key, KeyError> {
    let mut key = if source == column.key_type || source.family() == column.key_type.family() {
        value
    } else {
        convert(value, source, column.key_type, use_)?
    };
    if use_ == KeyUse::Store {
        column.store(&mut key)?;
    }
    if column.key_type == KeyType::Bpchar
        && let Key::Text(text) = &mut key
    {
        input::trim_blanks(text);
    }
    Ok(key)
}

/// The value as one of another family, where PostgreSQL's `=` between the two families is equality of
/// the converted values and its assignment cast changes nothing.
fn convert(value: Key, source: KeyType, target: KeyType, use_: KeyUse) -> Result<Key, KeyError> {
    // For a comparison no row can be equal; for a store the cast fails.
    let impossible = match use_ {
        KeyUse::Compare => KeyError::OutOfRange,
        KeyUse::Store => KeyError::Rejected("value out of range for the column's type"),
    };
    // For a comparison no row can be equal; for a store the cast rounds.
    let inexact = match use_ {
        KeyUse::Compare => KeyError::OutOfRange,
        KeyUse::Store => KeyError::Unprovable("the value is rounded to the column's type"),
    };
    match (value, source.family(), target.family()) {
        (Key::Int(value), Family::Integer, Family::Numeric) => Ok(Key::Numeric(value.into())),
        (Key::Numeric(value), Family::Numeric, Family::Integer) => match value.to_i64() {
            Some(value) => Ok(Key::Int(value)),
            None if value.is_integral() || value.is_special() => Err(impossible),
            None => Err(inexact),
        },
        // `text = bpchar` compares as text: a text with trailing blanks equals no bpchar, and it
        // does no harm to look for it where the text without them is.
        (Key::Text(value), Family::Text, Family::Bpchar) => Ok(Key::Text(value)),
        (Key::Date(value), Family::Date, Family::Timestamp) => datetime::date_to_timestamp(value)
            .map(Key::Timestamp)
            .ok_or(impossible),
        (Key::Timestamp(value), Family::Timestamp, Family::Date) => {
            datetime::timestamp_to_date(value)
                .map(Key::Date)
                .ok_or(inexact)
        }
        (Key::Date(_) | Key::Timestamp(_), ..) => Err(KeyError::Unprovable(
            "the conversion depends on the session's TimeZone",
        )),
        _ => Err(DIFFERENT_TYPES),
    }
}
