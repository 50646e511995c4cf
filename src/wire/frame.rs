//! Frame headers: where a message begins and ends in a buffer.
//!
//! A frame is a tag byte, a big-endian length that counts itself but not the tag, and a body.
//! The scanner never looks into bodies and never allocates.

use crate::error::{Error, Result};

/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 5;

/// The first five bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes of the whole frame: tag, length field and body.
    pub frame_bytes: usize,
}

/// The header at the start of `buffer`, or `None` while fewer than five bytes are there.
///
/// # Errors
/// `08P01` when the length does not even count itself.
pub fn header(buffer: &[u8]) -> Result<Option<Header>> {
    let Some((&[tag, a, b, c, d], _)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length < 4 || length > i32::MAX as u32 {
        return Err(Error::protocol("invalid message length"));
    }
    Ok(Some(Header {
        tag,
        frame_bytes: length as usize + 1,
    }))
}

/// Bytes of the whole DataRow and CopyData frames at the start of `buffer`.
pub fn rows(buffer: &[u8]) -> usize {
    let mut rest = buffer;
    while let Some((&[b'D' | b'd', a, b, c, d], _)) = rest.split_first_chunk::<HEADER_BYTES>()
        && let length = u32::from_be_bytes([a, b, c, d])
        && (4..=i32::MAX as u32).contains(&length)
        && let Some(behind) = rest.get(length as usize + 1..)
    {
        rest = behind;
    }
    buffer.len() - rest.len()
}

/// Bytes of the first `limit` whole DataRow frames at the start of `buffer`, and how many they are.
pub fn first_rows(buffer: &[u8], limit: usize) -> (usize, usize) {
    let (mut bytes, mut count) = (0, 0);
    while count < limit
        && let Some(rest) = buffer.get(bytes..)
        && let Ok(Some(next)) = header(rest)
        && next.tag == b'D'
        && next.frame_bytes <= rest.len()
    {
        bytes += next.frame_bytes;
        count += 1;
    }
    (bytes, count)
}

/// The body of the frame that `frame` is exactly.
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEADER_BYTES..).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_rows_are_counted() {
        let rows = b"D\0\0\0\x04D\0\0\0\x06ab";
        for (limit, wanted) in [(0, (0, 0)), (1, (5, 1)), (2, (12, 2)), (9, (12, 2))] {
            assert_eq!(first_rows(rows, limit), wanted);
        }
        assert_eq!(first_rows(&rows[..9], 9), (5, 1));
        assert_eq!(first_rows(b"C\0\0\0\x04", 9), (0, 0));
    }

    #[test]
    fn headers_are_read_once_complete() {
        assert_eq!(header(b"Z\0\0\0").unwrap(), None);
        assert_eq!(
            header(b"Z\0\0\0\x05I").unwrap(),
            Some(Header {
                tag: b'Z',
                frame_bytes: 6
            })
        );
    }

    #[test]
    fn whole_rows_are_taken_together() {
        let bytes = b"D\0\0\0\x04d\0\0\0\x05xD\0\0\0\x06a";
        assert_eq!(rows(bytes), 11);
        assert_eq!(rows(b"D\0\0\0\x06abC\0\0\0\x04"), 7);
        assert_eq!(rows(b"C\0\0\0\x04D\0\0\0\x04"), 0);
        assert_eq!(rows(b"D\0\0\0\x03"), 0);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(header(b"Q\0\0\0\x03").is_err());
        assert!(header(b"Q\xff\xff\xff\xff").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            if let Ok(Some(header)) = header(&bytes) {
                prop_assert!(header.frame_bytes >= HEADER_BYTES);
            }
            prop_assert!(rows(&bytes) <= bytes.len());
        }
    }
}
