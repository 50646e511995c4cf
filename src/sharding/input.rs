//! PostgreSQL's input functions of integers, text, uuid, bytea and boolean.

use crate::sharding::KeyBytes;
use crate::sharding::KeyError;

/// C's `isspace` in every locale PostgreSQL runs UTF-8 under.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// The text without leading and trailing white space.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_space(last)
    {
        text = rest;
    }
    text
}

/// Whether a number may be one of the forms that only PostgreSQL 16 and later read: `0x1F`, `1_000`.
pub(super) fn is_modern_number(text: &[u8]) -> bool {
    let unsigned = match text {
        [b'+' | b'-', rest @ ..] => rest,
        _ => text,
    };
    text.contains(&b'_')
        || matches!(
            unsigned,
            [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]
        )
}

/// `int8in`: white space around, a sign, decimal digits.
pub(super) fn integer(text: &[u8]) -> Result<i64, KeyError> {
    let text = trim(text);
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(if is_modern_number(text) {
            KeyError::Unprovable("the number's form depends on PostgreSQL's version")
        } else {
            KeyError::Rejected("invalid input syntax for an integer")
        });
    }
    // Summed up below zero, where there is one value more.
    digits
        .iter()
        .try_fold(0_i64, |sum, digit| {
            sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))
        })
        .and_then(|sum| {
            if negative {
                Some(sum)
            } else {
                sum.checked_neg()
            }
        })
        .ok_or(KeyError::Rejected("integer out of range"))
}

/// `textin`, `textrecv`: valid UTF-8 without NUL.
pub(super) fn text(text: &[u8]) -> Result<KeyBytes, KeyError> {
    if !text.is_ascii() && std::str::from_utf8(text).is_err() {
        return Err(KeyError::Unprovable("the text is not UTF-8"));
    }
    if text.contains(&0) {
        return Err(KeyError::Rejected("invalid byte sequence: 0x00"));
    }
    Ok(KeyBytes::from_slice(text))
}

/// Takes the trailing blanks off, which mean nothing in a bpchar.
pub(super) fn trim_blanks(text: &mut KeyBytes) {
    while text.last() == Some(&b' ') {
        text.pop();
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `uuid_in`: 32 hexadecimal digits, a hyphen allowed after any four of them, braces around allowed.
pub(super) fn uuid(text: &[u8]) -> Result<[u8; 16], KeyError> {
    uuid_digits(text).ok_or(KeyError::Rejected("invalid input syntax for a uuid"))
}

fn uuid_digits(text: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match text {
        [b'{', inside @ .., b'}'] => inside,
        _ => text,
    };
    let mut uuid = [0; 16];
    for (position, byte) in uuid.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        rest = match after {
            [b'-', after @ ..] if position % 2 == 1 && position < 15 => after,
            _ => after,
        };
    }
    rest.is_empty().then_some(uuid)
}

/// `byteain`: hex format after `\x`, else escape format.
pub(super) fn bytea(text: &[u8]) -> Result<KeyBytes, KeyError> {
    match text {
        [b'\\', b'x', digits @ ..] => bytea_hex(digits).ok_or(KeyError::Rejected(
            "invalid hexadecimal digits in a bytea value",
        )),
        _ if text.is_ascii() && !text.contains(&0) => {
            bytea_escape(text).ok_or(KeyError::Rejected("invalid input syntax for a bytea"))
        }
        _ => Err(KeyError::Unprovable(
            "the bytea value has characters beyond ASCII, whose bytes depend on encodings",
        )),
    }
}

fn bytea_hex(mut rest: &[u8]) -> Option<KeyBytes> {
    let mut bytes = KeyBytes::new();
    loop {
        rest = match rest {
            [] => return Some(bytes),
            // Between bytes, not inside one.
            [b' ' | b'\n' | b'\t' | b'\r', after @ ..] => after,
            [high, low, after @ ..] => {
                bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                after
            }
            [_] => return None,
        };
    }
}

fn bytea_escape(mut rest: &[u8]) -> Option<KeyBytes> {
    let mut bytes = KeyBytes::new();
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', after @ ..] => {
                bytes.push(b'\\');
                after
            }
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            [b'\\', ..] => return None,
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
        };
    }
}

/// `boolin`: white space around, an unambiguous beginning of a word for true or false in any case.
pub(super) fn boolean(text: &[u8]) -> Result<bool, KeyError> {
    // The word, the length that makes it unambiguous, its value.
    const WORDS: [(&[u8], usize, bool); 8] = [
        (b"true", 1, true),
        (b"false", 1, false),
        (b"yes", 1, true),
        (b"no", 1, false),
        (b"on", 2, true),
        (b"off", 2, false),
        (b"1", 1, true),
        (b"0", 1, false),
    ];
    let text = trim(text);
    WORDS
        .iter()
        .find(|(word, least, _)| {
            text.len() >= *least
                && word
                    .get(..text.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(text))
        })
        .map(|(_, _, value)| *value)
        .ok_or(KeyError::Rejected("invalid input syntax for a boolean"))
}
