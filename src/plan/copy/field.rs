//! The value of one field of COPY data, as PostgreSQL's input function gets it.

use std::borrow::Cow;

use super::Layout;
use super::Marks;
use crate::sql::encoding::Encoding;

/// What a field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// NULL.
    Null,
    /// The column's default.
    Default,
    /// A text in UTF-8.
    Text(Cow<'a, str>),
    /// Bytes that are no text.
    Invalid,
}

/// What PostgreSQL does to a field beyond its format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forced {
    /// `FORCE_NOT_NULL`.
    pub not_null: bool,
    /// `FORCE_NULL`.
    pub null: bool,
}

/// Reads a field (`CopyReadAttributesText`, `CopyReadAttributesCSV`, `NextCopyFrom`).
pub(super) fn read<'a>(
    bytes: &'a [u8],
    layout: &Layout,
    encoding: Encoding,
    forced: Forced,
) -> Field<'a> {
    // PostgreSQL converts the data before it looks for fields.
    let text = match bytes.is_ascii() || encoding.is_utf8() {
        true => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        false => encoding.read(bytes),
    };
    let Some(text) = text else {
        return Field::Invalid;
    };
    match layout.marks.quote {
        None => of_text(text, layout),
        Some(quote) => of_csv(text, layout, quote, forced),
    }
}

fn of_text<'a>(text: Cow<'a, str>, layout: &Layout) -> Field<'a> {
    if *text == *layout.null {
        return Field::Null;
    }
    if layout.default.as_deref() == Some(&*text) {
        return Field::Default;
    }
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Field::Text(text);
    }
    match String::from_utf8(unescaped(text.as_bytes())) {
        Ok(text) => Field::Text(text.into()),
        Err(_) => Field::Invalid,
    }
}

/// The backslashes of the text format, resolved.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        let (b'\\', [escaped, behind @ ..]) = (*byte, rest) else {
            out.push(*byte);
            continue;
        };
        rest = behind;
        let (value, behind) = match escaped {
            b'0'..=b'7' => digits(escaped - b'0', rest, 8, 2),
            b'x' => match rest {
                [digit, behind @ ..] if digit.is_ascii_hexdigit() => {
                    let (high, _) = digits(0, std::slice::from_ref(digit), 16, 1);
                    digits(high, behind, 16, 1)
                }
                _ => (b'x', rest),
            },
            b'b' => (8, rest),
            b'f' => (12, rest),
            b'n' => (b'\n', rest),
            b'r' => (b'\r', rest),
            b't' => (b'\t', rest),
            b'v' => (11, rest),
            other => (*other, rest),
        };
        out.push(value);
        rest = behind;
    }
    out
}

/// Appends up to `most` digits to a number, of which one byte is kept.
fn digits(first: u8, mut rest: &[u8], base: u8, most: usize) -> (u8, &[u8]) {
    let mut value = first;
    for _ in 0..most {
        let [byte, behind @ ..] = rest else { break };
        let Some(digit) = char::from(*byte).to_digit(u32::from(base)) else {
            break;
        };
        // A digit fits.
        value = value.wrapping_mul(base).wrapping_add(digit as u8);
        rest = behind;
    }
    (value, rest)
}

fn of_csv<'a>(text: Cow<'a, str>, layout: &Layout, quote: u8, forced: Forced) -> Field<'a> {
    let is_quoted = memchr::memchr(quote, text.as_bytes()).is_some();
    if !is_quoted && *text == *layout.null {
        return match forced.not_null {
            true => Field::Text(layout.null.clone().into()),
            false => Field::Null,
        };
    }
    if !is_quoted && layout.default.as_deref() == Some(&*text) {
        return Field::Default;
    }
    let text = match is_quoted {
        true => unquoted(&text, quote, layout.marks).into(),
        false => text,
    };
    match forced.null && *text == *layout.null {
        true => Field::Null,
        false => Field::Text(text),
    }
}

/// A CSV field without its quotes, which may stand anywhere in it.
fn unquoted(text: &str, quote: u8, marks: Marks) -> String {
    let escape = marks.escape.unwrap_or(quote);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let (quote, escape) = (char::from(quote), char::from(escape));
    let mut is_inside = false;
    while let Some(letter) = rest.next() {
        if is_inside
            && letter == escape
            && let Some(escaped) = rest.next_if(|next| *next == escape || *next == quote)
        {
            out.push(escaped);
        } else if letter == quote {
            is_inside = !is_inside;
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_are_resolved() {
        for (text, wanted) in [
            (&br"a\tb\\"[..], &b"a\tb\\"[..]),
            (br"\101\1018", b"AA8"),
            (br"\x41\x4g\x", b"A\x04gx"),
            (br"\q\N\.", b"qN."),
            (br"\777\0", b"\xff\0"),
        ] {
            assert_eq!(unescaped(text), wanted, "{text:?}");
        }
        assert_eq!(unescaped(b"a\\"), b"a\\");
    }

    #[test]
    fn quotes_stand_anywhere() {
        let marks = |escape| Marks {
            delimiter: b',',
            quote: Some(b'"'),
            escape,
            is_marker_alone: false,
        };
        for (text, wanted) in [("\"a\"\"b\"", "a\"b"), ("x\"y,\"z", "xy,z"), ("\"\"", "")] {
            assert_eq!(unquoted(text, b'"', marks(None)), wanted);
        }
        let escaped = unquoted(r#""a\"b\\c\d""#, b'"', marks(Some(b'\\')));
        assert_eq!(escaped, r#"a"b\c\d"#);
    }
}
