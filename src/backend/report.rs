//! What a server says in ErrorResponse of the state it leaves the connection in.

use crate::error::Error;
use crate::wire::authentication::parse_report;
use crate::wire::buffer::{Reader, cstring};

/// Reads the body of an ErrorResponse; a malformed one is an error as well.
pub fn read(body: &[u8]) -> Error {
    parse_report(body).unwrap_or_else(|malformed| malformed)
}

/// Whether the body of an ErrorResponse says that the server ends the session (severity `FATAL` or
/// `PANIC`, in the field that is never translated).
pub fn is_fatal(body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    while let Ok(field) = reader.u8() {
        let Some(value) = (field != 0).then(|| reader.cstring().ok()).flatten() else {
            break;
        };
        if field == b'V' {
            return value != b"ERROR";
        }
    }
    false
}

/// Whether the body of an ErrorResponse is "cached plan must not change result type", in whatever
/// language (`0A000` from the one function of PostgreSQL that compares results).
pub fn is_stale_plan(body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    let (mut is_refused, mut is_compared) = (false, false);
    while let Ok(field) = reader.u8() {
        let Some(value) = (field != 0).then(|| reader.cstring().ok()).flatten() else {
            break;
        };
        match field {
            b'C' => is_refused = value == b"0A000",
            b'R' => is_compared = value == b"RevalidateCachedQuery",
            // A function's own statement.
            b'W' => return false,
            _ => {}
        }
    }
    is_refused && is_compared
}

/// The body of an ErrorResponse whose position in the statement's text is what `place` makes of it;
/// none if it has no position.
pub fn moved(body: &[u8], place: impl Fn(u32) -> u32) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let mut reader = Reader::new(body);
    let mut is_moved = false;
    while let Ok(field) = reader.u8() {
        out.push(field);
        if field == 0 {
            break;
        }
        let value = reader.cstring().ok()?;
        let position = match field {
            b'P' => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok()),
            _ => None,
        };
        match position {
            Some(position) => {
                is_moved = true;
                cstring(&mut out, place(position).to_string().as_bytes());
            }
            None => cstring(&mut out, value),
        }
    }
    is_moved.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlstate::SqlState;
    use crate::wire::{backend, frame};

    #[test]
    fn only_fatal_errors_end_the_session() {
        for (error, fatal) in [
            (Error::fatal(SqlState::ADMIN_SHUTDOWN, "going down"), true),
            (
                Error::new(SqlState::UNDEFINED_TABLE, "no such table"),
                false,
            ),
        ] {
            let mut out = Vec::new();
            backend::error_response(&mut out, &error);
            assert_eq!(is_fatal(frame::body(&out)), fatal);
            assert_eq!(read(frame::body(&out)).code(), error.code());
        }
        assert!(!is_fatal(b"VFATAL"));
    }
}
