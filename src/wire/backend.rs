//! Messages that a server sends, built by the proxy for its clients.

use crate::error::Error;
use crate::wire::buffer::{cstring, message};

/// Transaction status of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `I`: outside a transaction block.
    Idle,
    /// `T`: in a transaction block.
    Transaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl Status {
    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Status::Idle => b'I',
            Status::Transaction => b'T',
            Status::Failed => b'E',
        }
    }

    /// The status of a byte on the wire.
    pub fn from_byte(byte: u8) -> Option<Status> {
        match byte {
            b'I' => Some(Status::Idle),
            b'T' => Some(Status::Transaction),
            b'E' => Some(Status::Failed),
            _ => None,
        }
    }
}

/// Appends ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: Status) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
}

/// Appends CommandComplete with `tag`.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |body| cstring(body, tag.as_bytes()));
}

/// Appends EmptyQueryResponse.
pub fn empty_query_response(out: &mut Vec<u8>) {
    out.extend_from_slice(b"I\0\0\0\x04");
}

/// Appends ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(b"1\0\0\0\x04");
}

/// Appends BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(b"2\0\0\0\x04");
}

/// Appends CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(b"3\0\0\0\x04");
}

/// Appends NoData.
pub fn no_data(out: &mut Vec<u8>) {
    out.extend_from_slice(b"n\0\0\0\x04");
}

/// Appends PortalSuspended.
pub fn portal_suspended(out: &mut Vec<u8>) {
    out.extend_from_slice(b"s\0\0\0\x04");
}

/// Appends ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |body| {
        cstring(body, name.as_bytes());
        cstring(body, value.as_bytes());
    });
}

/// Appends NotificationResponse: who notified, the channel and the payload.
pub fn notification_response(out: &mut Vec<u8>, process_id: i32, channel: &[u8], payload: &[u8]) {
    message(out, b'A', |body| {
        body.extend_from_slice(&process_id.to_be_bytes());
        cstring(body, channel);
        cstring(body, payload);
    });
}

/// Appends BackendKeyData; the secret has 4 bytes in protocol 3.0 and up to 256 in 3.2.
pub fn backend_key_data(out: &mut Vec<u8>, process_id: i32, secret: &[u8]) {
    message(out, b'K', |body| {
        body.extend_from_slice(&process_id.to_be_bytes());
        body.extend_from_slice(secret);
    });
}

/// Appends ErrorResponse with the fields that `error` has.
pub fn error_response(out: &mut Vec<u8>, error: &Error) {
    let fields = error.fields();
    report(out, b'E', fields.severity.as_str(), error);
}

/// Appends NoticeResponse of severity `WARNING`, `NOTICE` …
pub fn notice_response(out: &mut Vec<u8>, severity: &str, notice: &Error) {
    report(out, b'N', severity, notice);
}

fn report(out: &mut Vec<u8>, tag: u8, severity: &str, error: &Error) {
    let fields = error.fields();
    message(out, tag, |body| {
        field(body, b'S', severity);
        field(body, b'V', severity);
        field(body, b'C', fields.code.as_str());
        field(body, b'M', &fields.message);
        if let Some(detail) = &fields.detail {
            field(body, b'D', detail);
        }
        if let Some(hint) = &fields.hint {
            field(body, b'H', hint);
        }
        if let Some(position) = fields.position {
            field(body, b'P', &position.to_string());
        }
        if let Some(context) = &fields.context {
            field(body, b'W', context);
        }
        body.push(0);
    });
}

fn field(body: &mut Vec<u8>, code: u8, value: &str) {
    body.push(code);
    cstring(body, value.as_bytes());
}

/// A column of a row that the proxy makes itself.
#[derive(Clone, Debug)]
pub struct Column<'a> {
    /// The column's name.
    pub name: &'a str,
    /// The type's OID: 25 text, 20 int8, 701 float8, 16 bool …
    pub type_oid: u32,
    /// The type's length in bytes, negative when it varies.
    pub type_length: i16,
    /// Whether its values come in binary format.
    pub is_binary: bool,
}

impl<'a> Column<'a> {
    /// A column of type text.
    pub fn text(name: &'a str) -> Column<'a> {
        Column {
            name,
            type_oid: 25,
            type_length: -1,
            is_binary: false,
        }
    }

    /// A column of type int8.
    pub fn int8(name: &'a str) -> Column<'a> {
        Column {
            name,
            type_oid: 20,
            type_length: 8,
            is_binary: false,
        }
    }
}

/// Appends RowDescription.
pub fn row_description(out: &mut Vec<u8>, columns: &[Column<'_>]) {
    message(out, b'T', |body| {
        body.extend_from_slice(&count(columns.len()).to_be_bytes());
        for column in columns {
            cstring(body, column.name.as_bytes());
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&column.type_oid.to_be_bytes());
            body.extend_from_slice(&column.type_length.to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&i16::from(column.is_binary).to_be_bytes());
        }
    });
}

/// Appends DataRow; `None` is NULL.
pub fn data_row<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
    message(out, b'D', |body| {
        body.extend_from_slice(&count(values.len()).to_be_bytes());
        for value in values {
            match value {
                None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
                    body.extend_from_slice(&length.to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
    });
}

fn count(columns: usize) -> i16 {
    i16::try_from(columns).unwrap_or(i16::MAX)
}
