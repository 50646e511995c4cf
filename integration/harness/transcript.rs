//! Prints server messages as lines, without what differs from run to run.

use std::fmt::Write;

use super::raw::{Frame, values};

/// OIDs from here on are given out as objects are made (PostgreSQL's FirstNormalObjectId).
pub const FIRST_USER_OID: u32 = 16_384;

/// One line for a message. Masked: process ids, secrets, OIDs of the test's own objects. Left out
/// of errors: where in the server's source they arose.
pub fn line(frame: &Frame) -> String {
    let body = &frame.body;
    match frame.tag {
        b'R' => format!("Authentication {}", int32(body, 0)),
        b'S' => {
            let mut parts = body.split(|byte| *byte == 0).map(text);
            let mut part = || parts.next().unwrap_or_default();
            format!("ParameterStatus {}={}", part(), part())
        }
        b'K' => "BackendKeyData".into(),
        b'Z' => format!("ReadyForQuery {}", text(body)),
        b'T' => row_description(body),
        b'D' => data_row(frame),
        b'C' => format!("CommandComplete {}", text(&body[..body.len() - 1])),
        b'I' => "EmptyQueryResponse".into(),
        b'1' => "ParseComplete".into(),
        b'2' => "BindComplete".into(),
        b'3' => "CloseComplete".into(),
        b'n' => "NoData".into(),
        b's' => "PortalSuspended".into(),
        b't' => {
            let oids = body[2..].chunks(4).map(|oid| masked(uint32(oid, 0)));
            format!(
                "ParameterDescription [{}]",
                oids.collect::<Vec<_>>().join(" ")
            )
        }
        b'G' => format!("CopyInResponse {}", copy_formats(body)),
        b'H' => format!("CopyOutResponse {}", copy_formats(body)),
        b'd' => format!("CopyData {}", quoted(body)),
        b'c' => "CopyDone".into(),
        b'E' => format!("ErrorResponse{}", fields(frame)),
        b'N' => format!("NoticeResponse{}", fields(frame)),
        b'A' => {
            let mut parts = body[4..].split(|byte| *byte == 0).map(text);
            let mut part = || parts.next().unwrap_or_default();
            format!("NotificationResponse {}={}", part(), part())
        }
        b'V' => format!("FunctionCallResponse {}", quoted(body)),
        b'v' => format!("NegotiateProtocolVersion {}", int32(body, 0)),
        tag => format!("unknown message {:?} {}", char::from(tag), quoted(body)),
    }
}

/// One line for each message.
pub fn lines(frames: &[Frame]) -> String {
    frames.iter().map(|frame| line(frame) + "\n").collect()
}

fn row_description(body: &[u8]) -> String {
    let mut out = String::from("RowDescription");
    let mut rest = &body[2..];
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, column) = (text(&rest[..end]), &rest[end + 1..]);
        let table = if uint32(column, 0) == 0 {
            ""
        } else {
            " of table"
        };
        let attribute = int16(column, 4);
        let oid = masked(uint32(column, 6));
        let (length, modifier, format) = (int16(column, 10), int32(column, 12), int16(column, 16));
        let _ = write!(out, " [{name}{table}");
        if attribute != 0 {
            let _ = write!(out, " column {attribute}");
        }
        let _ = write!(out, " type={oid} length={length}");
        if modifier != -1 {
            let _ = write!(out, " modifier={modifier}");
        }
        let _ = write!(out, " format={format}]");
        rest = &column[18..];
    }
    out
}

fn data_row(frame: &Frame) -> String {
    let shown = values(frame).into_iter().map(|value| match value {
        Some(value) => quoted(&value),
        None => "NULL".into(),
    });
    format!("DataRow {}", shown.collect::<Vec<_>>().join(" "))
}

fn copy_formats(body: &[u8]) -> String {
    let columns: Vec<String> = body[3..]
        .chunks(2)
        .map(|column| int16(column, 0).to_string())
        .collect();
    format!("format={} [{}]", body[0], columns.join(" "))
}

fn fields(frame: &Frame) -> String {
    let mut out = String::new();
    for (code, name) in [
        (b'S', ""),
        (b'C', ""),
        (b'M', ""),
        (b'D', "detail="),
        (b'H', "hint="),
        (b'P', "position="),
        (b'p', "internal position="),
        (b'q', "internal query="),
        (b'W', "context="),
        (b's', "schema="),
        (b't', "table="),
        (b'c', "column="),
        (b'd', "type="),
        (b'n', "constraint="),
    ] {
        if let Some(value) = frame.field(code) {
            let _ = match code {
                b'S' | b'C' => write!(out, " {value}"),
                _ => write!(out, " {name}{}", quoted(value.as_bytes())),
            };
        }
    }
    let severities = (frame.field(b'S'), frame.field(b'V'));
    if severities.0 != severities.1 {
        let _ = write!(out, " severities differ: {severities:?}");
    }
    out
}

fn masked(oid: u32) -> String {
    if oid < FIRST_USER_OID {
        oid.to_string()
    } else {
        "user".into()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Text in double quotes; what is no printable text as `0x…`.
fn quoted(bytes: &[u8]) -> String {
    let printable = |text: &str| {
        text.chars()
            .all(|c| !c.is_control() || c == '\n' || c == '\t')
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if printable(text) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let escaped = escaped.replace('\n', "\\n").replace('\t', "\\t");
            format!("\"{escaped}\"")
        }
        _ => bytes
            .iter()
            .fold("0x".into(), |out, byte| format!("{out}{byte:02x}")),
    }
}

fn int16(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn int32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn uint32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}
