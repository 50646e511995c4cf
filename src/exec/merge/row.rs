//! DataRow and RowDescription frames with columns behind those that the client gets; pure.

use crate::error::{Error, Result};
use crate::wire::buffer::Reader;

/// A column's type as a server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The type.
    pub type_oid: u32,
    /// Whether its values are binary.
    pub is_binary: bool,
}

/// The columns of a RowDescription's body, and where the first `visible` of them end.
///
/// # Errors
/// `08P01` if it is none.
pub fn described(body: &[u8], visible: usize) -> Result<(Vec<Described>, usize)> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u16()?);
    let mut columns = Vec::with_capacity(count);
    let mut end = 0;
    for index in 0..count {
        if index == visible {
            end = body.len() - reader.rest().len();
        }
        reader.cstring()?;
        reader.bytes(6)?;
        let type_oid = reader.u32()?;
        reader.bytes(6)?;
        let is_binary = reader.i16()? == 1;
        columns.push(Described {
            type_oid,
            is_binary,
        });
    }
    if visible >= count {
        end = body.len();
    }
    Ok((columns, end))
}

/// Calls `see` with each column of a DataRow's body: its index, its value, and where it begins.
///
/// # Errors
/// `08P01` if it is none or has another number of columns.
pub fn walk<'a>(
    body: &'a [u8],
    columns: usize,
    mut see: impl FnMut(usize, Option<&'a [u8]>, usize) -> Result<()>,
) -> Result<()> {
    let (count, _) = body.split_first_chunk::<2>().ok_or_else(malformed)?;
    if usize::from(u16::from_be_bytes(*count)) != columns {
        return Err(malformed());
    }
    let mut at = 2;
    for index in 0..columns {
        let rest = body.get(at..).unwrap_or(&[]);
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let length = i32::from_be_bytes(*length);
        let begin = at;
        at += 4;
        if length < 0 {
            see(index, None, begin)?;
            continue;
        }
        let length = usize::try_from(length).unwrap_or(0);
        let value = rest.get(..length).ok_or_else(malformed)?;
        at += length;
        see(index, Some(value), begin)?;
    }
    Ok(())
}

/// Appends a frame like `frame` that has the first `columns` columns only, whose last ends at `end` of
/// the body.
pub fn push_shortened(frame: &[u8], columns: usize, end: usize, out: &mut Vec<u8>) {
    let (Some(tag), Some(kept)) = (frame.first(), frame.get(7..5 + end)) else {
        return;
    };
    out.push(*tag);
    let length = u32::try_from(end + 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(kept);
}

fn malformed() -> Error {
    Error::protocol("a server's row is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::{Column, data_row, row_description};
    use crate::wire::frame::body;

    #[test]
    fn rows_are_cut_behind_the_visible_columns() {
        let mut frame = Vec::new();
        data_row(&mut frame, [Some(&b"ab"[..]), None, Some(b"c")].into_iter());
        let mut seen = Vec::new();
        walk(body(&frame), 3, |index, value, at| {
            seen.push((index, value.map(<[u8]>::to_vec), at));
            Ok(())
        })
        .unwrap();
        let at = seen[2].2;
        assert_eq!(seen[0].1, Some(b"ab".to_vec()));
        assert_eq!(seen[1].1, None);
        let mut out = Vec::new();
        push_shortened(&frame, 2, at, &mut out);
        let mut expected = Vec::new();
        data_row(&mut expected, [Some(&b"ab"[..]), None].into_iter());
        assert_eq!(out, expected);
        assert!(walk(body(&frame), 2, |_, _, _| Ok(())).is_err());
        for end in 0..body(&frame).len() {
            assert!(walk(&body(&frame)[..end], 3, |_, _, _| Ok(())).is_err());
        }
    }

    #[test]
    fn descriptions_are_cut_too() {
        let mut frame = Vec::new();
        row_description(&mut frame, &[Column::text("a"), Column::int8("b")]);
        let (columns, end) = described(body(&frame), 1).unwrap();
        assert_eq!((columns[0].type_oid, columns[1].type_oid), (25, 20));
        let mut out = Vec::new();
        push_shortened(&frame, 1, end, &mut out);
        let mut expected = Vec::new();
        row_description(&mut expected, &[Column::text("a")]);
        assert_eq!(out, expected);
        let (_, end) = described(body(&frame), 2).unwrap();
        assert_eq!(end, body(&frame).len());
        assert!(described(&body(&frame)[..7], 1).is_err());
    }
}
