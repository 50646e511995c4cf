//! What is said of data that is wrong.

use crate::error::Error;
use crate::plan::copy::scan::Broken;
use crate::sqlstate::SqlState;

impl Broken {
    /// PostgreSQL's own words (`22P04`).
    pub(super) fn error(self, is_csv: bool) -> Error {
        let (message, hint) = match (self, is_csv) {
            (Broken::CarriageReturn, false) => (
                "literal carriage return found in data",
                Some("Use \"\\r\" to represent carriage return."),
            ),
            (Broken::CarriageReturn, true) => (
                "unquoted carriage return found in data",
                Some("Use quoted CSV field to represent carriage return."),
            ),
            (Broken::Newline, false) => (
                "literal newline found in data",
                Some("Use \"\\n\" to represent newline."),
            ),
            (Broken::Newline, true) => (
                "unquoted newline found in data",
                Some("Use quoted CSV field to represent newline."),
            ),
            (Broken::Marker, _) => ("end-of-copy marker corrupt", None),
            (Broken::MarkerEnding, _) => (
                "end-of-copy marker does not match previous newline style",
                None,
            ),
            (Broken::MarkerNotAlone, _) => ("end-of-copy marker is not alone on its line", None),
        };
        let error = Error::new(SqlState::BAD_COPY_FILE_FORMAT, message);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// What a shard should have said better (`22P04`).
pub(super) fn malformed(message: &'static str) -> Error {
    Error::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

pub(super) fn too_long(most_bytes: usize) -> Error {
    Error::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        "a row is too long before its shard key",
    )
    .detail(format!(
        "More than {most_bytes} bytes of it would have to be kept until its shard is known."
    ))
    .hint("Put the shard key's columns first, or raise limits.max_message.")
}
