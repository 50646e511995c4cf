//! What is read of a scatter's requests, and of servers' words; pure.

use crate::wire::buffer::{Reader, cstring, message};
use crate::wire::frame;

/// Whether a request has the server read a statement.
pub(super) fn parses(request: &[u8]) -> bool {
    let mut rest = request;
    while let Ok(Some(header)) = frame::header(rest) {
        if header.tag == b'P' {
            return true;
        }
        rest = rest.get(header.frame_bytes..).unwrap_or_default();
    }
    false
}

/// A command tag in words.
pub(super) fn tag(body: &[u8]) -> String {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    String::from_utf8_lossy(tag).into_owned()
}

/// The number at the end of a command tag; 0 if there is none.
pub(super) fn affected(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let number = tag.rsplit(|byte| *byte == b' ').next();
    number
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// An ErrorResponse frame with the shard's name added to its CONTEXT.
pub(super) fn with_context(frame: &[u8], shard: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + shard.len() + 16);
    let mut reader = Reader::new(frame::body(frame));
    message(&mut out, b'E', |body| {
        let mut context = Vec::new();
        while let Ok(field) = reader.u8() {
            let Some(value) = (field != 0).then(|| reader.cstring().ok()).flatten() else {
                break;
            };
            if field == b'W' {
                context.extend_from_slice(value);
                context.push(b'\n');
            } else {
                body.push(field);
                cstring(body, value);
            }
        }
        context.extend_from_slice(b"shard ");
        context.extend_from_slice(shard.as_bytes());
        body.push(b'W');
        cstring(body, &context);
        body.push(0);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::sqlstate::SqlState;
    use crate::wire::backend::error_response;

    #[test]
    fn a_tag_ends_with_its_number() {
        assert_eq!(affected(b"FETCH 17\0"), 17);
        assert_eq!(affected(b"DECLARE CURSOR\0"), 0);
    }

    #[test]
    fn an_error_names_its_shard() {
        let mut frame = Vec::new();
        error_response(&mut frame, &Error::new(SqlState::UNDEFINED_TABLE, "no"));
        let named = with_context(&frame, "s1");
        let text = String::from_utf8_lossy(&named);
        assert!(text.contains("Wshard s1\0"), "{text}");
        assert!(text.contains("C42P01\0"), "{text}");
    }
}
