//! The values of literals and names: quotes taken off, escapes read; and the way back.

use std::borrow::Cow;

use crate::sql::lexer;
use crate::sql::lexer::Lexer;
use crate::sql::lexer::NAME_BYTES;
use crate::sql::shape::Literal;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// The value of a literal of `text`: a number as written, the characters of a string, the digits of
/// a bit string.
///
/// `None` where the text alone doesn't tell: escapes that are invalid, don't give UTF-8 or read
/// differently from version to version (`\v`); and `0x1F` or `1_000`, which servers before 16 take
/// for `0` and `1` with an alias.
pub fn literal_value<'a>(text: &'a str, literal: &Literal) -> Option<Cow<'a, str>> {
    string_value(slice(text, literal.start..literal.end), literal.kind)
}

/// As [`literal_value`], for a token; `None` too if the token is no literal.
pub fn token_value<'a>(text: &'a str, token: &Token) -> Option<Cow<'a, str>> {
    string_value(token.text(text), token.kind)
}

fn string_value(lexeme: &str, kind: TokenKind) -> Option<Cow<'_, str>> {
    match kind {
        TokenKind::Number => {
            let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
            lexeme.bytes().all(plain).then_some(Cow::Borrowed(lexeme))
        }
        TokenKind::String => undouble(lexeme, '\'').map(|(value, _)| value),
        TokenKind::EscapeString => unescape(lexeme.trim_start_matches(['e', 'E'])),
        TokenKind::UnicodeString => unicode(lexeme, '\''),
        // With standard_conforming_strings off a backslash would start an escape.
        TokenKind::NationalString if lexeme.contains('\\') => None,
        TokenKind::NationalString | TokenKind::BitString | TokenKind::HexString => {
            undouble(lexeme.get(1..)?, '\'').map(|(value, _)| value)
        }
        TokenKind::DollarString => {
            let delimiter = lexeme.get(1..)?.find('$')? + 2;
            let end = lexeme.len().checked_sub(delimiter)?;
            lexeme.get(delimiter..end).map(Cow::Borrowed)
        }
        _ => None,
    }
}

/// The name that a word or quoted identifier stands for, as PostgreSQL stores it: folded to lower
/// case (ASCII letters) unless quoted, and cut to 63 bytes. `None` for anything else and for invalid
/// escapes.
pub fn identifier_value<'a>(text: &'a str, token: &Token) -> Option<Cow<'a, str>> {
    let lexeme = token.text(text);
    let name = match token.kind {
        TokenKind::Word if lexeme.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Cow::Owned(lexeme.to_ascii_lowercase())
        }
        TokenKind::Word => Cow::Borrowed(lexeme),
        TokenKind::QuotedIdentifier => undouble(lexeme, '"')?.0,
        TokenKind::UnicodeIdentifier => unicode(lexeme, '"')?,
        _ => return None,
    };
    if name.len() < NAME_BYTES {
        return Some(name);
    }
    let mut end = NAME_BYTES - 1;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    match name {
        Cow::Borrowed(name) => name.get(..end).map(Cow::Borrowed),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Some(Cow::Owned(name))
        }
    }
}

/// `name` as SQL text, always in quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `value` as a string literal that reads the same whatever `standard_conforming_strings` is.
pub fn quote_literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// What stands between the quotes at the start of `lexeme`, doubled quotes halved and continuations
/// joined, and the offset behind the last quote.
fn undouble(lexeme: &str, quote: char) -> Option<(Cow<'_, str>, usize)> {
    let mut value = Cow::Borrowed("");
    let end = pieces(lexeme, quote, false, |piece| {
        append(&mut value, piece);
        Some(())
    })?;
    Some((value, end))
}

/// Gives `each` what stands between the quotes at the start of `lexeme`, in pieces that end at
/// doubled quotes (the next one starts with the quote) and continuations; the offset behind the
/// last quote. With `escapes`, a backslash and what it escapes are passed over and kept.
fn pieces<'a>(
    lexeme: &'a str,
    quote: char,
    escapes: bool,
    mut each: impl FnMut(&'a str) -> Option<()>,
) -> Option<usize> {
    let mut start = quote.len_utf8();
    let mut at = start;
    if !lexeme.starts_with(quote) {
        return None;
    }
    loop {
        at += lexeme.get(at..)?.find([quote, '\\'])?;
        let found = lexeme.get(at..)?;
        if found.starts_with('\\') {
            let escaped = found.chars().nth(1).filter(|_| escapes);
            at += 1 + escaped.map_or(0, char::len_utf8);
            continue;
        }
        each(lexeme.get(start..at)?)?;
        at += 1;
        if lexeme.get(at..)?.starts_with(quote) {
            start = at;
            at += 1;
        } else if quote == '\''
            && let Some(reopened) = lexer::continuation(lexeme.as_bytes(), at)
        {
            start = reopened;
            at = reopened;
        } else {
            return Some(at);
        }
    }
}

fn append<'a>(value: &mut Cow<'a, str>, piece: &'a str) {
    if value.is_empty() {
        *value = Cow::Borrowed(piece);
    } else {
        value.to_mut().push_str(piece);
    }
}

/// The value of a string with escapes, from its opening quote on.
fn unescape(quoted: &str) -> Option<Cow<'_, str>> {
    if !quoted.contains('\\') {
        return undouble(quoted, '\'').map(|(value, _)| value);
    }
    let mut bytes = Vec::with_capacity(quoted.len());
    // Piece by piece: the digits of an escape don't go on behind a continuation.
    pieces(quoted, '\'', true, |mut rest| {
        while let Some(at) = rest.find('\\') {
            bytes.extend_from_slice(rest.get(..at)?.as_bytes());
            rest = escape(rest.get(at + 1..)?, &mut bytes)?;
        }
        bytes.extend_from_slice(rest.as_bytes());
        Some(())
    })?;
    let value = String::from_utf8(bytes).ok()?;
    (!value.contains('\0')).then_some(Cow::Owned(value))
}

/// Reads one escape from behind its backslash; what is left of the string.
fn escape<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let first = rest.chars().next()?;
    let behind = rest.get(first.len_utf8()..)?;
    let plain = match first {
        'b' => 0x08,
        'f' => 0x0C,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        // A vertical tab since 16, the letter before.
        'v' => return None,
        '0'..='7' => {
            let length = digits(rest, 3, |digit| digit.is_digit(8));
            let value = u32::from_str_radix(rest.get(..length)?, 8).ok()?;
            bytes.push((value & 0xFF) as u8);
            return rest.get(length..);
        }
        'x' if behind.starts_with(|digit: char| digit.is_ascii_hexdigit()) => {
            let length = digits(behind, 2, |digit| digit.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(behind.get(..length)?, 16).ok()?);
            return behind.get(length..);
        }
        'u' | 'U' => {
            let (unit, mut rest) = code_unit(rest)?;
            let mut character = char::from_u32(unit);
            if (0xD800..0xDC00).contains(&unit) {
                let (low, behind) = code_unit(rest.strip_prefix('\\')?)?;
                character = surrogate_pair(unit, low);
                rest = behind;
            }
            bytes.extend_from_slice(character?.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => {
            bytes.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(behind);
        }
    };
    bytes.push(plain);
    Some(behind)
}

/// How many of the first `most` characters of `text` are digits.
fn digits(text: &str, most: usize, is_digit: impl Fn(char) -> bool) -> usize {
    text.chars().take(most).take_while(|c| is_digit(*c)).count()
}

/// `uXXXX` or `UXXXXXXXX` at the start of `text`, and what follows.
fn code_unit(text: &str) -> Option<(u32, &str)> {
    let length = match text.as_bytes().first()? {
        b'u' => 4,
        b'U' => 8,
        _ => return None,
    };
    hexadecimal(text.get(1..)?, length)
}

/// The number in the first `length` characters of `text`, all of them digits, and what follows.
fn hexadecimal(text: &str, length: usize) -> Option<(u32, &str)> {
    if digits(text, length, |digit| digit.is_ascii_hexdigit()) < length {
        return None;
    }
    let value = u32::from_str_radix(text.get(..length)?, 16).ok()?;
    Some((value, text.get(length..)?))
}

fn surrogate_pair(high: u32, low: u32) -> Option<char> {
    if !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    char::from_u32(0x1_0000 + ((high & 0x3FF) << 10) + (low & 0x3FF))
}

/// The value of `U&'…' UESCAPE '…'` or `U&"…" UESCAPE '…'`.
fn unicode(lexeme: &str, quote: char) -> Option<Cow<'_, str>> {
    let quoted = lexeme.get(2..)?;
    let (raw, end) = undouble(quoted, quote)?;
    let escape = escape_character(quoted.get(end..)?)?;
    if !raw.contains(escape) {
        return Some(raw);
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw.as_ref();
    while let Some(at) = rest.find(escape) {
        value.push_str(rest.get(..at)?);
        rest = rest.get(at + escape.len_utf8()..)?;
        if let Some(behind) = rest.strip_prefix(escape) {
            value.push(escape);
            rest = behind;
            continue;
        }
        let (unit, behind) = code_point(rest)?;
        rest = behind;
        let mut character = char::from_u32(unit);
        if (0xD800..0xDC00).contains(&unit) {
            let (low, behind) = code_point(rest.strip_prefix(escape)?)?;
            character = surrogate_pair(unit, low);
            rest = behind;
        }
        value.push(character.filter(|character| *character != '\0')?);
    }
    value.push_str(rest);
    Some(Cow::Owned(value))
}

/// `XXXX` or `+XXXXXX` at the start of `text`, and what follows.
fn code_point(text: &str) -> Option<(u32, &str)> {
    match text.strip_prefix('+') {
        Some(text) => hexadecimal(text, 6),
        None => hexadecimal(text, 4),
    }
}

/// The character that the `UESCAPE '…'` in `clause` names; a backslash if there is none.
fn escape_character(clause: &str) -> Option<char> {
    let mut lexer = Lexer::new(clause.as_bytes(), LexOptions::default()).ok()?;
    if lexer.next_token().ok()?.is_none() {
        return Some('\\');
    }
    let string = lexer.next_token().ok()??;
    let value = token_value(clause, &string)?;
    let mut characters = value.chars();
    let escape = characters.next()?;
    let allowed = !escape.is_ascii_hexdigit()
        && !matches!(
            escape,
            '+' | '\'' | '"' | ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C'
        );
    // PostgreSQL wants one byte.
    (allowed && escape.is_ascii() && characters.next().is_none()).then_some(escape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::lexer::tokenize;

    fn value(text: &str) -> Option<String> {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        assert_eq!(tokens.len(), 1, "{text}");
        token_value(text, &tokens[0]).map(Cow::into_owned)
    }

    fn name(text: &str) -> Option<String> {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        assert_eq!(tokens.len(), 1, "{text}");
        identifier_value(text, &tokens[0]).map(Cow::into_owned)
    }

    #[test]
    fn values_lose_their_quotes_and_escapes() {
        for (text, expected) in [
            ("42", "42"),
            ("1.50e-3", "1.50e-3"),
            ("''", ""),
            ("'it''s'", "it's"),
            ("'a\\b'", "a\\b"),
            ("'a' -- x'\n 'b'''", "ab'"),
            (r"E'a\'b\\\n\x41\101\u00e9\U0001F600\q'", "a'b\\\nAAé😀q"),
            (r"E'\xc3\xa9'", "é"),
            (r"E'\ud83d\ude00'", "😀"),
            (r"U&'\0061\+0000e9\\'", "aé\\"),
            (r"U&'d!0061!!\' UESCAPE '!'", "da!\\"),
            ("N'x'", "x"),
            ("b'01'", "01"),
            ("X'1f'", "1f"),
            ("$$it's$$", "it's"),
            ("$q$a$$b$q$", "a$$b"),
        ] {
            assert_eq!(value(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_text_alone_does_not_tell_has_no_value() {
        for text in [
            "0x1F",
            "1_000",
            r"E'\v'",
            r"E'\xff'",
            r"E'\000'",
            r"E'\u12'",
            r"E'\ud83d'",
            r"U&'\12'",
            r"U&'\0000'",
            r"U&'a' UESCAPE 'ab'",
            r"N'a\b'",
            "a",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn a_string_that_does_not_conform_reads_its_escapes() {
        let options = LexOptions {
            standard_conforming_strings: false,
        };
        let text = r"'a\'b'";
        let tokens = tokenize(text.as_bytes(), options).unwrap();
        assert_eq!(token_value(text, &tokens[0]).as_deref(), Some("a'b"));
    }

    #[test]
    fn names_fold_and_are_cut_as_postgresql_does() {
        assert_eq!(name("FoO_É").as_deref(), Some("foo_É"));
        assert_eq!(name("\"FoO\"\"\"").as_deref(), Some("FoO\""));
        assert_eq!(name(r#"U&"d\0061t\+000061""#).as_deref(), Some("data"));
        assert_eq!(name(&"x".repeat(70)), Some("x".repeat(63)));
        assert_eq!(
            name(&format!("\"{}\"", "é".repeat(40))),
            Some("é".repeat(31))
        );
        assert_eq!(name("'x'"), None);
    }

    /// The value PostgreSQL's grammar gives the constant.
    fn oracle(text: &str) -> Option<String> {
        use pg_query::NodeEnum;
        use pg_query::protobuf::a_const::Val;
        let parsed = pg_query::parse(&format!("SELECT {text}")).ok()?;
        let statement = parsed.protobuf.stmts.first()?.stmt.as_ref()?.node.clone()?;
        let NodeEnum::SelectStmt(select) = statement else {
            return None;
        };
        let NodeEnum::ResTarget(target) = select.target_list.first()?.node.clone()? else {
            return None;
        };
        match target.val?.node? {
            NodeEnum::AConst(constant) => match constant.val? {
                Val::Sval(value) => Some(value.sval),
                _ => None,
            },
            _ => None,
        }
    }

    const PIECES: &[&str] = &[
        "a",
        "é",
        "''",
        "\\\\",
        "\\'",
        "\\n",
        "\\x4",
        "\\xc3\\xa9",
        "\\101",
        "\\7",
        "\\u0061",
        "\\ud83d",
        "\\ude00",
        "\\U0001F600",
        "\\0061",
        "\\+01F600",
        "\\d83d",
        "\\de00",
        "!0061",
        "!!",
        "$",
        "\n",
        " ",
        "'\n'",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn values_are_those_of_postgresql(
            prefix in prop::sample::select(vec!["", "E", "e", "U&"]),
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..6),
            suffix in prop::sample::select(vec!["", " UESCAPE '!'"]),
        ) {
            let suffix = if prefix == "U&" { suffix } else { "" };
            let text = format!("{prefix}'{}'{suffix}", pieces.concat());
            // Of what PostgreSQL rejects it will tell the client itself.
            if let Some(theirs) = oracle(&text) {
                prop_assert_eq!(value(&text), Some(theirs), "{}", text);
            }
        }

        #[test]
        fn quoting_is_undone_by_reading(content in "\\PC{0,30}") {
            prop_assert_eq!(value(&quote_literal(&content)), Some(content.clone()));
            if !content.is_empty() && content.len() < 64 {
                prop_assert_eq!(name(&quote_identifier(&content)), Some(content));
            }
        }
    }
}
