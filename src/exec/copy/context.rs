//! The lines of COPY data that a shard's errors and notices name, as the client counts them.

use crate::wire::buffer::{Reader, cstring, message};
use crate::wire::frame;

/// What stands between a table's name and the number of a line, in any language, is at most this long.
const LONGEST_WORD_BYTES: usize = 32;

/// The line that an ErrorResponse or NoticeResponse frame names in its CONTEXT; none if it names none.
pub(super) fn line(frame: &[u8], table: &str) -> Option<u64> {
    let context = field(frame, b'W')?;
    let (start, end) = digits(context, table)?;
    let digits = std::str::from_utf8(context.get(start..end)?).ok()?;
    digits.parse().ok()
}

/// A field of an ErrorResponse or NoticeResponse frame.
pub(super) fn field(frame: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(frame::body(frame));
    loop {
        let code = reader.u8().ok().filter(|code| *code != 0)?;
        let value = reader.cstring().ok()?;
        if code == wanted {
            return Some(value);
        }
    }
}

/// The frame with another line in its CONTEXT, and the shard's name behind it.
pub(super) fn moved(frame: &[u8], table: &str, line: Option<u64>, shard: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + shard.len() + 32);
    let tag = frame.first().copied().unwrap_or(b'E');
    let mut reader = Reader::new(frame::body(frame));
    message(&mut out, tag, |body| {
        let mut context = Vec::new();
        while let Ok(code) = reader.u8() {
            let Some(value) = (code != 0).then(|| reader.cstring().ok()).flatten() else {
                break;
            };
            if code != b'W' {
                body.push(code);
                cstring(body, value);
                continue;
            }
            match (digits(value, table), line) {
                (Some((start, end)), Some(line)) => {
                    context.extend_from_slice(value.get(..start).unwrap_or(&[]));
                    context.extend_from_slice(line.to_string().as_bytes());
                    context.extend_from_slice(value.get(end..).unwrap_or(&[]));
                }
                _ => context.extend_from_slice(value),
            }
            context.push(b'\n');
        }
        context.extend_from_slice(b"shard ");
        context.extend_from_slice(shard.as_bytes());
        body.push(b'W');
        cstring(body, &context);
        body.push(0);
    });
    out
}

/// The frame with the line that its CONTEXT shows as `cut` leaves it.
pub(super) fn trimmed(
    frame: &[u8],
    table: &str,
    cut: impl for<'a> Fn(&'a [u8]) -> &'a [u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len());
    let tag = frame.first().copied().unwrap_or(b'E');
    let mut reader = Reader::new(frame::body(frame));
    message(&mut out, tag, |body| {
        while let Ok(code) = reader.u8() {
            let Some(value) = (code != 0).then(|| reader.cstring().ok()).flatten() else {
                break;
            };
            body.push(code);
            let end = digits(value, table)
                .filter(|_| code == b'W')
                .map(|(_, end)| end);
            let shown = end.and_then(|end| value.split_at_checked(end));
            let shown =
                shown.and_then(|(before, rest)| Some((before, rest.strip_prefix(b": \"")?)));
            match shown {
                Some((before, line)) => {
                    cstring(body, &[before, b": \"", cut(line)].concat());
                }
                None => cstring(body, value),
            }
        }
        body.push(0);
    });
    out
}

/// Where the number of the line stands: `COPY t, line 7`, the word in the server's language, at the beginning
/// of a line of the CONTEXT.
fn digits(context: &[u8], table: &str) -> Option<(usize, usize)> {
    let lead = format!("COPY {table}, ");
    let mut begins = vec![0];
    begins.extend(memchr::memchr_iter(b'\n', context).map(|at| at + 1));
    let begin = begins.into_iter().find(|begin| {
        let rest = context.get(*begin..);
        rest.is_some_and(|rest| rest.starts_with(lead.as_bytes()))
    })?;
    let from = begin + lead.len();
    let rest = context.get(from..)?;
    let before = rest.iter().take(LONGEST_WORD_BYTES);
    let skip = before.take_while(|byte| !byte.is_ascii_digit() && **byte != b':');
    let start = from + skip.count();
    let number = context.get(start..)?;
    let count = number.iter().take_while(|byte| byte.is_ascii_digit());
    let end = start + count.count();
    (end > start).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::sqlstate::SqlState;
    use crate::wire::backend::error_response;

    fn frame(context: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let error = Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "no");
        error_response(&mut frame, &error.context(context.to_owned()));
        frame
    }

    #[test]
    fn the_line_is_replaced_in_any_language() {
        for (context, wanted) in [
            (
                "COPY t, line 7, column x: \"COPY t, line 9\"",
                "COPY t, line 41, column x: \"COPY t, line 9\"",
            ),
            ("COPY t, Zeile 7", "COPY t, Zeile 41"),
            (
                "f() line 3 at RAISE\nCOPY t, line 7: \"1\"",
                "f() line 3 at RAISE\nCOPY t, line 41: \"1\"",
            ),
        ] {
            let frame = frame(context);
            assert_eq!(line(&frame, "t"), Some(7));
            let moved = moved(&frame, "t", Some(41), "s1");
            assert_eq!(
                field(&moved, b'W').unwrap(),
                format!("{wanted}\nshard s1").as_bytes()
            );
            assert_eq!(field(&moved, b'C'), Some(&b"22P02"[..]));
        }
    }

    #[test]
    fn the_line_is_shown_without_what_was_put_before_it() {
        fn cut(line: &[u8]) -> &[u8] {
            let at = line.iter().position(|byte| *byte == b'\t');
            line.get(at.map_or(0, |at| at + 1)..).unwrap_or_default()
        }
        for (context, wanted) in [
            ("COPY t, line 7: \"5\ta\tb\"", "COPY t, line 7: \"a\tb\""),
            (
                "COPY t, line 7, column x: \"5\ta\"",
                "COPY t, line 7, column x: \"5\ta\"",
            ),
        ] {
            let trimmed = trimmed(&frame(context), "t", cut);
            assert_eq!(field(&trimmed, b'W').unwrap(), wanted.as_bytes());
        }
    }

    #[test]
    fn what_names_no_line_stays() {
        for context in [
            "COPY t",
            "COPY u, line 7",
            "SQL statement \"COPY t, line 7\"",
        ] {
            let frame = frame(context);
            assert_eq!(line(&frame, "t"), None, "{context}");
            let moved = moved(&frame, "t", Some(1), "s1");
            assert_eq!(
                field(&moved, b'W').unwrap(),
                format!("{context}\nshard s1").as_bytes()
            );
        }
    }
}
