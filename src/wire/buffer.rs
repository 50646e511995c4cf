//! Writing messages with lengths patched in afterwards, and reading bodies without panics.

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// Appends one message: `tag`, a length that is patched in, and the body that `write` appends.
pub fn message(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, write);
}

/// Appends one message without a tag (startup, cancel, SSL requests).
pub fn untagged(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a string and its terminating zero; what stands behind an inner zero is cut off.
pub fn cstring(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// Reads a message body front to back; every short read is `08P01`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `body` from its start.
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or_else(too_short)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or_else(too_short)?;
        self.rest = tail;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next 16-bit integer.
    pub fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// The next 16-bit count.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 32-bit integer.
    pub fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// The next 32-bit unsigned integer (an OID).
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next zero-terminated string, without its zero.
    pub fn cstring(&mut self) -> Result<&'a [u8]> {
        let end =
            memchr::memchr(0, self.rest).ok_or_else(|| malformed("invalid string in message"))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// Fails unless the whole body has been read.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(malformed("invalid message format"))
        }
    }
}

/// A body that does not hold what its type promises. The frame itself is sound, so unlike a broken
/// frame this costs the statement, not the session (`08P01`, severity ERROR, as PostgreSQL does).
pub fn malformed(message: &'static str) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, message)
}

fn too_short() -> Error {
    malformed("insufficient data left in message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        let mut out = Vec::new();
        message(&mut out, b'Q', |body| cstring(body, b"SELECT 1"));
        assert_eq!(out, b"Q\0\0\0\x0dSELECT 1\0");
    }

    #[test]
    fn an_inner_zero_ends_a_string() {
        let mut out = Vec::new();
        cstring(&mut out, b"a\0b");
        assert_eq!(out, b"a\0");
    }

    #[test]
    fn short_bodies_are_errors_and_never_panic() {
        let mut reader = Reader::new(b"\0\x01abc");
        assert_eq!(reader.u16().unwrap(), 1);
        assert!(reader.i32().is_err());
        assert!(reader.cstring().is_err());
        assert_eq!(reader.bytes(3).unwrap(), b"abc");
        assert!(reader.u8().is_err());
        assert!(reader.end().is_ok());
    }
}
