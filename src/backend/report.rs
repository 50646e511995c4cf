//! ErrorResponse and NoticeResponse of a server, read back into an [`Error`].

use crate::error::{Error, Severity};
use crate::sqlstate::SqlState;
use crate::wire::buffer::Reader;

/// Reads the body of an ErrorResponse; fields that are missing or odd get harmless values.
pub fn read(body: &[u8]) -> Error {
    let mut code = SqlState::INTERNAL_ERROR;
    let mut severity = Severity::Error;
    let (mut message, mut detail, mut hint) = (String::new(), None, None);
    let mut reader = Reader::new(body);
    while let Ok(field) = reader.u8() {
        let Some(value) = (field != 0).then(|| reader.cstring().ok()).flatten() else {
            break;
        };
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            b'C' => code = SqlState::from_bytes(value).unwrap_or(code),
            b'V' if value != b"ERROR" => severity = Severity::Fatal,
            b'M' => message = text(),
            b'D' => detail = Some(text()),
            b'H' => hint = Some(text()),
            _ => {}
        }
    }
    let mut error = match severity {
        Severity::Error => Error::new(code, message),
        Severity::Fatal => Error::fatal(code, message),
    };
    if let Some(detail) = detail {
        error = error.detail(detail);
    }
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    error
}

/// Whether the body of an ErrorResponse says that the server ends the session.
pub fn is_fatal(body: &[u8]) -> bool {
    read(body).is_fatal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{backend, frame};

    #[test]
    fn an_error_reads_back_as_it_was_written() {
        let error = Error::fatal(SqlState::ADMIN_SHUTDOWN, "going down")
            .detail("why")
            .hint("wait");
        let mut out = Vec::new();
        backend::error_response(&mut out, &error);
        let read = read(frame::body(&out));
        assert_eq!(read.to_string(), error.to_string());
        assert!(is_fatal(frame::body(&out)));
    }

    #[test]
    fn a_torn_body_is_an_internal_error() {
        assert_eq!(read(b"Cabc").code(), SqlState::INTERNAL_ERROR);
    }
}
