//! The messages by which intermediate relations are made, filled and read; pure.

use crate::error::Result;
use crate::sharding::Format;
use crate::wire::buffer::{Reader, cstring, message};
use crate::wire::frontend::{self, Subject};

/// The first OID of types that users made; it differs between servers.
pub const FIRST_USER_OID: u32 = 16_384;

/// A parameter: its type, its format and its value.
pub type Parameter<'a> = (u32, Format, Option<&'a [u8]>);

/// What a server says of a statement that it was asked to describe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The types of its parameters.
    pub types: Vec<u32>,
    /// Its RowDescriptions, as frames: one for each statement described that returns rows.
    pub rows: Vec<Vec<u8>>,
}

impl Described {
    /// Takes an answer of the server's.
    pub fn note(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b't' => self.types = types(body).unwrap_or_default(),
            b'T' => {
                let mut frame = Vec::new();
                message(&mut frame, b'T', |out| out.extend_from_slice(body));
                self.rows.push(frame);
            }
            _ => {}
        }
    }
}

/// The OIDs in a ParameterDescription.
fn types(body: &[u8]) -> Result<Vec<u32>> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    (0..count).map(|_| reader.u32()).collect()
}

/// Appends the messages that describe a statement, up to its Sync.
pub fn write_describe(out: &mut Vec<u8>, text: &[u8], types: &[u32]) {
    frontend::write_parse(out, b"", text, types);
    frontend::write_subject(out, b'D', Subject::Statement, b"");
}

/// Appends the messages that fetch the rows of a fragment in binary format, up to its Sync.
pub fn write_fragment(out: &mut Vec<u8>, text: &[u8], parameters: &[Parameter<'_>]) {
    write_select(out, text, parameters, &[true]);
}

/// Appends the messages that run a statement, up to its Sync; `formats` says of each column, or of all if
/// it is one, whether it is wanted in binary format.
pub fn write_select(
    out: &mut Vec<u8>,
    text: &[u8],
    parameters: &[Parameter<'_>],
    formats: &[bool],
) {
    let type_of = |parameter: &Parameter<'_>| match parameter.0 {
        oid if oid < FIRST_USER_OID => oid,
        _ => 0,
    };
    let types: Vec<u32> = parameters.iter().map(type_of).collect();
    frontend::write_parse(out, b"", text, &types);
    write_bind(out, parameters, formats);
    frontend::write_subject(out, b'D', Subject::Portal, b"");
    frontend::write_execute(out, b"", 0);
    frontend::write_sync(out);
}

/// Appends a Bind of the unnamed statement to the unnamed portal; `formats` as for [`write_select`].
pub fn write_bind(out: &mut Vec<u8>, parameters: &[Parameter<'_>], formats: &[bool]) {
    message(out, b'B', |body| {
        cstring(body, b"");
        cstring(body, b"");
        let count = u16::try_from(parameters.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for (_, format, _) in parameters {
            let code: i16 = match format {
                Format::Text => 0,
                Format::Binary => 1,
            };
            body.extend_from_slice(&code.to_be_bytes());
        }
        body.extend_from_slice(&count.to_be_bytes());
        for (_, _, value) in parameters {
            match value {
                None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
                    body.extend_from_slice(&length.to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        let count = u16::try_from(formats.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for is_binary in formats {
            body.extend_from_slice(&i16::from(*is_binary).to_be_bytes());
        }
    });
}

/// Appends the COPY into a table, and what stands before its rows.
pub fn write_copy(out: &mut Vec<u8>, table: &str) {
    let sql = format!("COPY pg_temp.{table} FROM STDIN (FORMAT binary)");
    frontend::write_query(out, sql.as_bytes());
    message(out, b'd', |body| {
        // The signature, no flags, no header extension.
        body.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    });
}

/// Appends what stands behind the rows of a COPY, and its end.
pub fn write_copy_end(out: &mut Vec<u8>) {
    message(out, b'd', |body| {
        body.extend_from_slice(&(-1_i16).to_be_bytes())
    });
    message(out, b'c', |_| {});
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use crate::wire::frontend::{Bind, Parse};

    #[test]
    fn fragments_ask_for_binary_rows() {
        let mut out = Vec::new();
        let parameters: [Parameter<'_>; 2] = [
            (23, Format::Binary, Some(b"\0\0\0\x07")),
            (90_000, Format::Text, None),
        ];
        write_fragment(&mut out, b"SELECT $1, $2", &parameters);
        let header = frame::header(&out).unwrap().unwrap();
        let parse = Parse::read(frame::body(&out[..header.frame_bytes])).unwrap();
        assert_eq!(parse.types().collect::<Vec<_>>(), [23, 0]);
        let rest = &out[header.frame_bytes..];
        let header = frame::header(rest).unwrap().unwrap();
        let bind = Bind::read(frame::body(&rest[..header.frame_bytes])).unwrap();
        assert_eq!(bind.formats, [0, 1, 0, 0]);
        assert_eq!(bind.values, b"\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff");
        assert_eq!(bind.results, [0, 1]);
    }

    #[test]
    fn descriptions_are_kept() {
        let mut described = Described::default();
        described.note(b't', b"\0\x02\0\0\0\x17\0\0\0\x19");
        described.note(b'T', b"\0\0");
        assert_eq!(described.types, [23, 25]);
        assert_eq!(described.rows, [b"T\0\0\0\x06\0\0".to_vec()]);
        described.note(b't', b"\0\x02\0");
        assert!(described.types.is_empty());
    }
}
