//! The types a shard key's column may have, and what storing does to a value of them.

use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::datetime;
use crate::sharding::numeric::Fit;
use crate::sharding::numeric::Numeric;

/// The types that can be keys: those whose equality is equality of canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `numeric`
    Numeric,
    /// `text`
    Text,
    /// `character varying`
    Varchar,
    /// `character`, whose trailing blanks mean nothing
    Bpchar,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    Timestamptz,
    /// `bytea`
    Bytea,
    /// `boolean`
    Bool,
}

/// Types whose values are equal exactly when their keys are, across the types of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Integer,
    Numeric,
    Text,
    Bpchar,
    Uuid,
    Date,
    Timestamp,
    Timestamptz,
    Bytea,
    Bool,
}

impl KeyType {
    /// The key type with this OID in `pg_type` (`pg_type.dat`), if it is one.
    pub fn from_oid(oid: u32) -> Option<KeyType> {
        Some(match oid {
            16 => KeyType::Bool,
            17 => KeyType::Bytea,
            20 => KeyType::Int8,
            21 => KeyType::Int2,
            23 => KeyType::Int4,
            25 => KeyType::Text,
            1042 => KeyType::Bpchar,
            1043 => KeyType::Varchar,
            1082 => KeyType::Date,
            1114 => KeyType::Timestamp,
            1184 => KeyType::Timestamptz,
            1700 => KeyType::Numeric,
            2950 => KeyType::Uuid,
            _ => return None,
        })
    }

    /// Its OID in `pg_type`.
    pub fn oid(self) -> u32 {
        match self {
            KeyType::Bool => 16,
            KeyType::Bytea => 17,
            KeyType::Int8 => 20,
            KeyType::Int2 => 21,
            KeyType::Int4 => 23,
            KeyType::Text => 25,
            KeyType::Bpchar => 1042,
            KeyType::Varchar => 1043,
            KeyType::Date => 1082,
            KeyType::Timestamp => 1114,
            KeyType::Timestamptz => 1184,
            KeyType::Numeric => 1700,
            KeyType::Uuid => 2950,
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => Family::Integer,
            KeyType::Numeric => Family::Numeric,
            KeyType::Text | KeyType::Varchar => Family::Text,
            KeyType::Bpchar => Family::Bpchar,
            KeyType::Uuid => Family::Uuid,
            KeyType::Date => Family::Date,
            KeyType::Timestamp => Family::Timestamp,
            KeyType::Timestamptz => Family::Timestamptz,
            KeyType::Bytea => Family::Bytea,
            KeyType::Bool => Family::Bool,
        }
    }

    /// Whether an integer type can hold the value.
    pub(super) fn holds(self, value: i64) -> bool {
        match self {
            KeyType::Int2 => i16::try_from(value).is_ok(),
            KeyType::Int4 => i32::try_from(value).is_ok(),
            _ => true,
        }
    }
}

/// The type of a key's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnType {
    /// The type.
    pub key_type: KeyType,
    /// `pg_attribute.atttypmod`: length, precision or scale; -1 is none.
    pub typmod: i32,
}

/// PostgreSQL counts the four bytes of a length word into the typmods of variable-length types.
const VARHDRSZ: i32 = 4;

const TOO_LONG: KeyError = KeyError::Rejected("value too long for the column's type");

impl ColumnType {
    /// A type without length, precision or scale.
    pub fn plain(key_type: KeyType) -> ColumnType {
        ColumnType {
            key_type,
            typmod: -1,
        }
    }

    /// Makes of the value what the column would hold after an assignment (`INSERT`, `UPDATE`,
    /// `COPY`), not yet without a bpchar's blanks.
    pub(super) fn store(&self, key: &mut Key) -> Result<(), KeyError> {
        match key {
            Key::Int(value) if !self.key_type.holds(*value) => {
                Err(KeyError::Rejected("integer out of range"))
            }
            Key::Text(text) if self.typmod >= VARHDRSZ && self.key_type != KeyType::Text => {
                text.truncate(stored_length(text, self.typmod - VARHDRSZ)?);
                Ok(())
            }
            Key::Numeric(value) if self.typmod >= VARHDRSZ => self.store_numeric(value),
            Key::Timestamp(value) if self.loses_precision(*value) => Err(KeyError::Unprovable(
                "the timestamp is rounded to the column's precision",
            )),
            _ => Ok(()),
        }
    }

    fn store_numeric(&self, value: &Numeric) -> Result<(), KeyError> {
        let modifier = self.typmod - VARHDRSZ;
        let precision = (modifier >> 16) & 0xffff;
        // Since PostgreSQL 15 the scale is a signed number of 11 bits.
        let scale = ((modifier & 0x7ff) ^ 1024) - 1024;
        match value.fit(precision, scale) {
            Fit::Exact => Ok(()),
            Fit::Overflows => Err(KeyError::Rejected("numeric field overflow")),
            Fit::Rounds => Err(KeyError::Unprovable(
                "the number is rounded to the column's scale",
            )),
        }
    }

    fn loses_precision(&self, microseconds: i64) -> bool {
        let finite = !matches!(
            microseconds,
            datetime::TIMESTAMP_INFINITY | datetime::TIMESTAMP_MINUS_INFINITY
        );
        let digits = u32::try_from(self.typmod).unwrap_or(6).min(6);
        finite && microseconds % 10_i64.pow(6 - digits) != 0
    }
}

/// How many bytes of a text a column of `limit` characters keeps: all, or what is left when blanks
/// beyond the limit are cut off. Other characters beyond it are an error (`22001`).
fn stored_length(text: &[u8], limit: i32) -> Result<usize, KeyError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if text.len() <= limit {
        return Ok(text.len());
    }
    let start_of_character = |byte: &u8| *byte & 0xc0 != 0x80;
    let end = text
        .iter()
        .enumerate()
        .filter(|(_, byte)| start_of_character(byte))
        .map(|(position, _)| position)
        .nth(limit)
        .unwrap_or(text.len());
    let blank = text.iter().skip(end).all(|&byte| byte == b' ');
    if blank { Ok(end) } else { Err(TOO_LONG) }
}
