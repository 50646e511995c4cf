//! The common exchange in one piece: a request that ends with Sync or Query, and its whole answer.
//!
//! Nearly all requests are of a few forms. Recognising one at a glance, and its answer as well, saves the
//! hot path a state machine's turn per message. What is not recognised is nobody's fault: the general
//! way takes it.

use crate::wire::backend::Status;
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::frontend::{Bind, Parse};

/// The longest request that is looked at, in bytes.
const LONGEST_REQUEST: usize = 16 * 1024;

const DESCRIBE: &[u8] = b"D\0\0\0\x06P\0";
const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";
const SYNC: &[u8] = b"S\0\0\0\x04";

/// `[Parse] Bind [Describe] Execute Sync`: one statement through the unnamed portal, with all its rows.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The Parse, of the statement that is bound.
    pub parse: Option<Parse<'a>>,
    /// The Bind.
    pub bind: Bind<'a>,
    /// The Bind's frame.
    pub bind_frame: &'a [u8],
    /// Whether the portal is described.
    pub describes: bool,
    /// All behind the Bind: `[Describe] Execute Sync`.
    pub rest: &'a [u8],
    /// All of it.
    pub frames: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the start of `bytes`, if a whole one of this form is there.
    pub fn read(bytes: &'a [u8]) -> Option<Batch<'a>> {
        let bytes = bytes.get(..LONGEST_REQUEST).unwrap_or(bytes);
        let (mut at, mut parse) = (0, None);
        if bytes.first() == Some(&b'P') {
            let frame = first(bytes, b'P')?;
            parse = Some(Parse::read(frame::body(frame)).ok()?);
            at = frame.len();
        }
        let bind_frame = first(bytes.get(at..)?, b'B')?;
        let bind = Bind::read(frame::body(bind_frame)).ok()?;
        let is_other = |parse: Parse<'_>| parse.name != bind.statement;
        if !bind.portal.is_empty() || parse.is_some_and(is_other) {
            return None;
        }
        let rest_at = at + bind_frame.len();
        let behind = bytes.get(rest_at..)?;
        let describes = behind.starts_with(DESCRIBE);
        let described = if describes { DESCRIBE.len() } else { 0 };
        let executed = behind.get(described..)?.strip_prefix(EXECUTE)?;
        if !executed.starts_with(SYNC) {
            return None;
        }
        let rest_bytes = described + EXECUTE.len() + SYNC.len();
        Some(Batch {
            parse,
            bind,
            bind_frame,
            describes,
            rest: behind.get(..rest_bytes)?,
            frames: bytes.get(..rest_at + rest_bytes)?,
        })
    }
}

/// The Query at the start of `bytes`, if a whole one is there: the frame.
pub fn query(bytes: &[u8]) -> Option<&[u8]> {
    first(bytes.get(..LONGEST_REQUEST).unwrap_or(bytes), b'Q')
}

fn first(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let header = frame::header(bytes).ok()??;
    bytes
        .get(..header.frame_bytes)
        .filter(|_| header.tag == tag)
}

/// What a whole answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Of a Query: `T`, if there are rows.
    Query,
    /// Of a [`Batch`].
    Batch {
        /// `1` comes first.
        parses: bool,
        /// `T` or `n` comes behind `2`.
        describes: bool,
    },
}

impl Form {
    /// Whether `bytes` are the whole answer to one statement that succeeded, and nothing else: rows,
    /// CommandComplete, and ReadyForQuery with this status.
    pub fn is_answer(self, bytes: &[u8], status: Status) -> bool {
        let mut rest = bytes;
        let begins = match self {
            Form::Query if bytes.first() != Some(&b'T') => true,
            Form::Query => take(&mut rest).is_some(),
            Form::Batch { parses, describes } => {
                (!parses || take(&mut rest) == Some(b'1'))
                    && take(&mut rest) == Some(b'2')
                    && (!describes || matches!(take(&mut rest), Some(b'T' | b'n')))
            }
        };
        if !begins {
            return false;
        }
        loop {
            match take(&mut rest) {
                Some(b'D') => {}
                Some(b'C') => return is_ready(rest, status),
                _ => return false,
            }
        }
    }
}

/// Whether this is a ReadyForQuery with this status, and nothing else.
fn is_ready(bytes: &[u8], wanted: Status) -> bool {
    matches!(bytes, [b'Z', 0, 0, 0, 5, status] if *status == wanted.byte())
}

/// Takes a whole frame from the front; its tag.
fn take(bytes: &mut &[u8]) -> Option<u8> {
    let header = frame::header(bytes).ok()??;
    let behind = bytes.get(header.frame_bytes..)?;
    debug_assert!(header.frame_bytes >= HEADER_BYTES);
    *bytes = behind;
    Some(header.tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frontend::{Subject, write_execute, write_parse, write_subject, write_sync};
    use proptest::prelude::*;

    fn bind(portal: &[u8], statement: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::wire::buffer::message(&mut out, b'B', |body| {
            body.extend_from_slice(portal);
            body.push(0);
            body.extend_from_slice(statement);
            body.extend_from_slice(b"\0\0\0\0\x01\0\0\0\x02ab\0\0");
        });
        out
    }

    fn batch(parses: bool, describes: bool, max_rows: i32) -> Vec<u8> {
        let mut out = Vec::new();
        if parses {
            write_parse(&mut out, b"s", b"SELECT $1", &[25]);
        }
        out.extend(bind(b"", b"s"));
        if describes {
            write_subject(&mut out, b'D', Subject::Portal, b"");
        }
        write_execute(&mut out, b"", max_rows);
        write_sync(&mut out);
        out
    }

    #[test]
    fn batches_of_the_common_forms_are_recognised() {
        for (parses, describes) in [(false, false), (false, true), (true, false), (true, true)] {
            let frames = batch(parses, describes, 0);
            let mut input = frames.clone();
            input.extend_from_slice(b"next");
            let read = Batch::read(&input).unwrap();
            assert_eq!(read.frames, frames);
            assert_eq!((read.parse.is_some(), read.describes), (parses, describes));
            assert_eq!(read.bind.statement, b"s");
            assert_eq!(read.bind.values, b"\0\0\0\x02ab");
            let behind = frames.len() - read.rest.len();
            assert_eq!(read.rest, &frames[behind..]);
            for end in 0..frames.len() {
                assert!(Batch::read(&frames[..end]).is_none(), "{end} bytes");
            }
        }
    }

    #[test]
    fn other_batches_are_not() {
        assert!(Batch::read(&batch(false, false, 1)).is_none());
        let mut other = Vec::new();
        write_parse(&mut other, b"t", b"SELECT 1", &[]);
        other.extend(batch(false, false, 0));
        assert!(Batch::read(&other).is_none());
        let mut named = bind(b"p", b"s");
        named.extend_from_slice(EXECUTE);
        named.extend_from_slice(SYNC);
        assert!(Batch::read(&named).is_none());
    }

    #[test]
    fn whole_answers_are_recognised_to_the_last_byte() {
        let all = Form::Batch {
            parses: true,
            describes: true,
        };
        let bare = Form::Batch {
            parses: false,
            describes: false,
        };
        let frames = |tags: &[u8], status: u8| {
            let mut out = Vec::new();
            for tag in tags {
                crate::wire::buffer::message(&mut out, *tag, |body| {
                    if *tag == b'Z' {
                        body.push(status);
                    }
                });
            }
            out
        };
        for (form, tags, status, is) in [
            (all, &b"12TDDCZ"[..], b'I', true),
            (all, b"12nCZ", b'I', true),
            (bare, b"2CZ", b'I', true),
            (bare, b"2DCZ", b'T', false),
            (bare, b"2DC", b'I', false),
            (bare, b"2EZ", b'I', false),
            (bare, b"2NDCZ", b'I', false),
            (bare, b"12DCZ", b'I', false),
            (bare, b"2DCZZ", b'I', false),
            (bare, b"2DCCZ", b'I', false),
            (all, b"2TDCZ", b'I', false),
            (Form::Query, b"TDCZ", b'I', true),
            (Form::Query, b"TDCTDCZ", b'I', false),
            (Form::Query, b"CZ", b'I', true),
            (Form::Query, b"DCZ", b'I', true),
            (Form::Query, b"TCZ", b'T', false),
            (Form::Query, b"EZ", b'I', false),
            (Form::Query, b"GCZ", b'I', false),
        ] {
            let bytes = frames(tags, status);
            let is_answer = |bytes| form.is_answer(bytes, Status::Idle);
            assert_eq!(is_answer(&bytes), is, "{}", tags.escape_ascii());
            assert!(!is_answer(&bytes[..bytes.len() - 1]));
            let is_so = form.is_answer(&bytes, Status::Transaction);
            assert_eq!(is_so, !is && status == b'T', "{}", tags.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_safely(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'D'), Just(4), any::<u8>()], 0..60),
        ) {
            for start in [&b""[..], b"2\0\0\0\x04", b"T\0\0\0\x04", b"B\0\0\0\x0c\0\0\0\0\0\0\0\0"] {
                let all = [start, &bytes].concat();
                let _ = (Batch::read(&all), query(&all), Form::Query.is_answer(&all, Status::Idle));
                let _ = Form::Batch { parses: false, describes: false }.is_answer(&all, Status::Failed);
            }
        }
    }
}
