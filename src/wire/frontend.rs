//! Messages that a client sends, checked and read in place.
//!
//! Every reader takes exactly one frame's body, checks it to its last byte and borrows from it.

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::buffer::{Reader, cstring, malformed, message};
use crate::wire::format;

/// Longest frame of a message type that carries no user data (PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`).
pub const SMALL_MESSAGE_BYTES: usize = 10_000;

/// Whether a client may send `tag` after login, and if so whether its frames are small by nature.
pub fn is_small(tag: u8) -> Option<bool> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(false),
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(true),
        _ => None,
    }
}

/// Query: the text without its zero.
pub fn query(body: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(body);
    let text = reader.cstring()?;
    reader.end()?;
    Ok(text)
}

/// Parse.
#[derive(Clone, Copy, Debug)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a Parse body.
    pub fn read(body: &'a [u8]) -> Result<Parse<'a>> {
        let mut reader = Reader::new(body);
        let name = reader.cstring()?;
        let text = reader.cstring()?;
        let count = usize::from(reader.u16()?);
        let types = reader.bytes(count * 4)?;
        reader.end()?;
        Ok(Parse { name, text, types })
    }

    /// The declared parameter types' OIDs; 0 leaves one to the server.
    pub fn types(&self) -> impl Iterator<Item = u32> + 'a {
        self.types
            .as_chunks::<4>()
            .0
            .iter()
            .map(|oid| u32::from_be_bytes(*oid))
    }
}

/// Appends a Parse frame.
pub fn write_parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], types: &[u32]) {
    message(out, b'P', |body| {
        cstring(body, name);
        cstring(body, text);
        body.extend_from_slice(&u16::try_from(types.len()).unwrap_or(u16::MAX).to_be_bytes());
        for oid in types {
            body.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// Bind.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name; empty for the unnamed one.
    pub statement: &'a [u8],
    /// Everything behind the names: formats, values, result formats.
    pub rest: &'a [u8],
    /// The parameter format codes, two bytes each.
    pub formats: &'a [u8],
    /// How many parameter values there are.
    pub count: u16,
    /// The parameter values: a length and bytes each, as on the wire.
    pub values: &'a [u8],
    /// The result format codes, two bytes each.
    pub results: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads a Bind body.
    pub fn read(body: &'a [u8]) -> Result<Bind<'a>> {
        let mut reader = Reader::new(body);
        let portal = reader.cstring()?;
        let statement = reader.cstring()?;
        let rest = reader.rest();
        let formats = usize::from(reader.u16()?);
        let formats = reader.bytes(formats * 2)?;
        let count = reader.u16()?;
        let values = reader.rest();
        for number in 1..=count {
            skip_value(&mut reader).map_err(|error| error.context(parameter(portal, number)))?;
        }
        let values = &values[..values.len() - reader.rest().len()];
        let results = format::codes(&mut reader)?;
        reader.end()?;
        Ok(Bind {
            portal,
            statement,
            rest,
            formats,
            count,
            values,
            results,
        })
    }
}

/// Names a parameter as PostgreSQL does in CONTEXT.
fn parameter(portal: &[u8], number: u16) -> String {
    match portal {
        b"" => format!("unnamed portal parameter ${number}"),
        name => format!(
            "portal \"{}\" parameter ${number}",
            String::from_utf8_lossy(name)
        ),
    }
}

fn skip_value(reader: &mut Reader<'_>) -> Result<()> {
    match reader.i32()? {
        -1 => Ok(()),
        length => {
            let length = usize::try_from(length)
                .map_err(|_| malformed("insufficient data left in message"))?;
            reader.bytes(length).map(|_| ())
        }
    }
}

/// Appends a Bind frame whose statement has another name than the client's.
pub fn write_bind(out: &mut Vec<u8>, bind: &Bind<'_>, statement: &[u8]) {
    message(out, b'B', |body| {
        cstring(body, bind.portal);
        cstring(body, statement);
        body.extend_from_slice(bind.rest);
    });
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `S`: a prepared statement.
    Statement,
    /// `P`: a portal.
    Portal,
}

/// Describe and Close (`message` is which): the kind and the name.
pub fn subject<'a>(body: &'a [u8], message: &str) -> Result<(Subject, &'a [u8])> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let name = reader.cstring()?;
    reader.end()?;
    match kind {
        b'S' => Ok((Subject::Statement, name)),
        b'P' => Ok((Subject::Portal, name)),
        other => Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("invalid {message} message subtype {other}"),
        )),
    }
}

/// Appends a Describe (`D`) or Close (`C`) frame.
pub fn write_subject(out: &mut Vec<u8>, tag: u8, subject: Subject, name: &[u8]) {
    message(out, tag, |body| {
        body.push(match subject {
            Subject::Statement => b'S',
            Subject::Portal => b'P',
        });
        cstring(body, name);
    });
}

/// FunctionCall: the function's OID; the rest is for the server to check.
///
/// # Errors
/// `08P01` for a message that is too short to name one.
pub fn function(body: &[u8]) -> Result<u32> {
    Reader::new(body).u32()
}

/// Execute: the portal's name and the row limit; 0 and less mean no limit.
pub fn execute(body: &[u8]) -> Result<(&[u8], i32)> {
    let mut reader = Reader::new(body);
    let portal = reader.cstring()?;
    let max_rows = reader.i32()?;
    reader.end()?;
    Ok((portal, max_rows))
}

/// Appends an Execute frame; a row limit of 0 is none.
pub fn write_execute(out: &mut Vec<u8>, portal: &[u8], max_rows: i32) {
    message(out, b'E', |body| {
        cstring(body, portal);
        body.extend_from_slice(&max_rows.to_be_bytes());
    });
}

/// Appends a Sync frame.
pub fn write_sync(out: &mut Vec<u8>) {
    out.extend_from_slice(b"S\0\0\0\x04");
}

/// Appends a Query frame.
pub fn write_query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, b'Q', |body| cstring(body, text));
}

/// Fails unless the body is empty, as those of Sync, Flush, CopyDone and Terminate are.
pub fn empty(body: &[u8]) -> Result<()> {
    Reader::new(body).end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use proptest::prelude::*;

    #[test]
    fn parse_round_trips() {
        let mut out = Vec::new();
        write_parse(&mut out, b"s1", b"SELECT $1", &[23, 0]);
        let parse = Parse::read(frame::body(&out)).unwrap();
        assert_eq!((parse.name, parse.text), (&b"s1"[..], &b"SELECT $1"[..]));
        assert_eq!(parse.types().collect::<Vec<_>>(), [23, 0]);
    }

    #[test]
    fn bind_is_renamed_without_touching_its_values() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0";
        let bind = Bind::read(body).unwrap();
        assert_eq!(
            (bind.portal, bind.statement, bind.count),
            (&b"p"[..], &b"s"[..], 2)
        );
        assert_eq!(bind.formats, [0, 1]);
        assert_eq!(bind.values, b"\0\0\0\x02ab\xff\xff\xff\xff");
        let mut out = Vec::new();
        write_bind(&mut out, &bind, b"other");
        let renamed = Bind::read(frame::body(&out)).unwrap();
        assert_eq!(
            (renamed.statement, renamed.rest),
            (&b"other"[..], bind.rest)
        );
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        assert!(Bind::read(b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0").is_err());
        assert!(Bind::read(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").is_err());
        assert!(Parse::read(b"\0\0\xff\xff").is_err());
        assert!(query(b"SELECT 1\0Q\0\0\0\x05").is_err());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = query(&body);
            let _ = Parse::read(&body).map(|parse| parse.types().count());
            let _ = Bind::read(&body);
            let _ = subject(&body, "x");
            let _ = execute(&body);
        }
    }
}
