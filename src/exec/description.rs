//! Compares the RowDescriptions of shards before a row of any of them is released; pure.

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::buffer::{Reader, cstring};

/// A column as far as clients can tell shards apart by it.
#[derive(Debug, PartialEq, Eq)]
struct Column<'a> {
    name: &'a [u8],
    type_oid: u32,
    type_length: i16,
    typmod: i32,
    format: i16,
}

/// Fails unless two RowDescription bodies describe the same columns. OIDs and numbers of the tables
/// they come from differ between shards and are not compared.
///
/// # Errors
/// `0A000` that names the first difference.
pub fn compare(first: &[u8], other: &[u8], shard: &str) -> Result<()> {
    compare_by(first, other, shard, |one, other| one == other)
}

/// As [`compare`], for rows that a server is sent in binary format: only types matter, and OIDs of types
/// that users made differ between servers.
///
/// # Errors
/// As [`compare`].
pub fn compare_shipped(first: &[u8], other: &[u8], shard: &str) -> Result<()> {
    compare_by(first, other, shard, |one, other| {
        one.typmod == other.typmod
            && (one.type_oid == other.type_oid
                || one.type_oid.min(other.type_oid) >= FIRST_USER_OID)
    })
}

/// Tells the columns of a RowDescription body apart; none if it is torn. Where a column comes from makes no
/// difference, and neither do formats and types of which each shard has its own.
pub fn digest(body: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(body);
    let mut hasher = Xxh3::new();
    for _ in 0..reader.u16().ok()? {
        let column = column(&mut reader).ok()?;
        hasher.update(column.name);
        hasher.update(&[0]);
        hasher.update(&column.type_oid.min(FIRST_USER_OID).to_be_bytes());
        hasher.update(&column.typmod.to_be_bytes());
    }
    Some(hasher.digest())
}

/// The names of the columns in a RowDescription body.
///
/// # Errors
/// `08P01` if it is torn.
pub fn names(body: &[u8]) -> Result<Vec<&[u8]>> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    (0..count).map(|_| Ok(column(&mut reader)?.name)).collect()
}

/// `FirstNormalObjectId`.
const FIRST_USER_OID: u32 = 16_384;

fn compare_by(
    first: &[u8],
    other: &[u8],
    shard: &str,
    is_same: impl Fn(&Column<'_>, &Column<'_>) -> bool,
) -> Result<()> {
    let (mut a, mut b) = (Reader::new(first), Reader::new(other));
    let (columns, others) = (a.u16()?, b.u16()?);
    if columns != others {
        return Err(differs(
            shard,
            &format!("it has {others} columns instead of {columns}"),
        ));
    }
    for number in 1..=columns {
        let (one, two) = (column(&mut a)?, column(&mut b)?);
        if !is_same(&one, &two) {
            let name = String::from_utf8_lossy(one.name);
            return Err(differs(
                shard,
                &format!("column {number} (\"{name}\") is different"),
            ));
        }
    }
    Ok(())
}

/// A RowDescription body that says of the same columns where they come from as `original` does; none if
/// their types differ. The formats stay.
pub fn with_origins(body: &[u8], original: &[u8]) -> Option<Vec<u8>> {
    let (mut a, mut b) = (Reader::new(body), Reader::new(original));
    let count = a.u16().ok()?;
    if b.u16().ok()? != count {
        return None;
    }
    let mut out = count.to_be_bytes().to_vec();
    for _ in 0..count {
        let name = a.cstring().ok()?;
        a.bytes(6).ok()?;
        let kind = a.bytes(10).ok()?;
        let format = a.bytes(2).ok()?;
        let known_as = b.cstring().ok()?;
        let origin = b.bytes(6).ok()?;
        if b.bytes(10).ok()? != kind || name != known_as {
            return None;
        }
        b.bytes(2).ok()?;
        cstring(&mut out, name);
        out.extend_from_slice(origin);
        out.extend_from_slice(kind);
        out.extend_from_slice(format);
    }
    Some(out)
}

/// A RowDescription body that says of the same columns that they are text; none if it is torn.
pub fn as_text(body: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body);
    let count = reader.u16().ok()?;
    let mut out = count.to_be_bytes().to_vec();
    for _ in 0..count {
        cstring(&mut out, reader.cstring().ok()?);
        out.extend_from_slice(reader.bytes(16).ok()?);
        reader.bytes(2).ok()?;
        out.extend_from_slice(&[0, 0]);
    }
    Some(out)
}

/// A RowDescription body with these formats, as a Bind gives them: one for all columns, or one for each; none if
/// it is torn.
pub fn in_formats(body: &[u8], is_binary: &[bool]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body);
    let count = reader.u16().ok()?;
    let mut out = count.to_be_bytes().to_vec();
    for at in 0..usize::from(count) {
        cstring(&mut out, reader.cstring().ok()?);
        out.extend_from_slice(reader.bytes(16).ok()?);
        reader.bytes(2).ok()?;
        let is_binary = match is_binary {
            [all] => *all,
            each => each.get(at).copied().unwrap_or(false),
        };
        out.extend_from_slice(&i16::from(is_binary).to_be_bytes());
    }
    Some(out)
}

fn column<'a>(reader: &mut Reader<'a>) -> Result<Column<'a>> {
    let name = reader.cstring()?;
    reader.bytes(6)?;
    Ok(Column {
        name,
        type_oid: reader.u32()?,
        type_length: reader.i16()?,
        typmod: reader.i32()?,
        format: reader.i16()?,
    })
}

fn differs(shard: &str, how: &str) -> Error {
    Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "the shards describe the result differently",
    )
    .detail(format!("On shard {shard} {how}."))
    .hint("Bring the table's definition on all shards into agreement.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::{Column, row_description};
    use crate::wire::frame::body;

    fn described(columns: &[Column<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        row_description(&mut out, columns);
        body(&out).to_vec()
    }

    #[test]
    fn equal_columns_pass_whatever_their_tables() {
        let one = described(&[Column::text("a"), Column::int8("b")]);
        let mut two = one.clone();
        two[5] = 9;
        assert!(compare(&one, &two, "s1").is_ok());
    }

    #[test]
    fn a_difference_is_named() {
        let one = described(&[Column::text("a"), Column::int8("b")]);
        let two = described(&[Column::text("a"), Column::text("b")]);
        let error = compare(&one, &two, "s1").unwrap_err().to_string();
        assert!(
            error.contains("On shard s1 column 2 (\"b\") is different."),
            "{error}"
        );
        assert!(compare(&one, &described(&[Column::text("a")]), "s1").is_err());
    }

    #[test]
    fn torn_descriptions_are_errors() {
        assert!(compare(b"\0\x01a", b"\0\x01a", "s1").is_err());
    }
}
