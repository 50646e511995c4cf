//! Holds the lexer against examples, against random bytes and against PostgreSQL's own scanner.

use proptest::prelude::*;

use super::*;
use crate::sql::token::LexReason;
use crate::sql::token::slice;

fn kinds(text: &str) -> Vec<(TokenKind, &str)> {
    tokenize(text.as_bytes(), LexOptions::default())
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .iter()
        .map(|token| (token.kind, token.text(text)))
        .collect()
}

fn words(text: &str) -> Vec<&str> {
    kinds(text).into_iter().map(|(_, lexeme)| lexeme).collect()
}

fn reason(text: &str) -> (LexReason, u32) {
    let error = tokenize(text.as_bytes(), LexOptions::default()).unwrap_err();
    (error.reason, error.offset)
}

/// PostgreSQL's tokens of `text`, put together as ours are; `Err` with its message.
pub(crate) fn oracle(text: &str) -> Result<Vec<(u32, u32, &'static str)>, String> {
    use pg_query::protobuf::Token as Pg;
    let scanned = pg_query::scan(text).map_err(|error| error.to_string())?;
    let mut tokens: Vec<(u32, u32, &'static str, Pg)> = Vec::new();
    for token in scanned.tokens {
        let kind = token.token();
        let (start, end) = (token.start as u32, token.end as u32);
        let class = match kind {
            Pg::SqlComment | Pg::CComment => continue,
            Pg::Uident | Pg::Ident => "name",
            Pg::Sconst | Pg::Usconst | Pg::Bconst | Pg::Xconst => "string",
            Pg::Iconst | Pg::Fconst => "number",
            Pg::Param => "parameter",
            _ if token.keyword_kind != 0 => "name",
            _ => "symbol",
        };
        let last = tokens.len().checked_sub(1);
        let before = last.and_then(|last| tokens.get(last).copied());
        match (before, kind) {
            // N'…' comes as the keyword NCHAR and a string.
            (Some((_, at, _, Pg::Nchar)), Pg::Sconst) if at == start => {
                let token = tokens.last_mut().unwrap();
                *token = (token.0, end, "string", Pg::Sconst);
            }
            (Some((.., Pg::Uescape)), Pg::Sconst)
                if tokens.len() > 1
                    && matches!(tokens[tokens.len() - 2].3, Pg::Uident | Pg::Usconst) =>
            {
                tokens.pop();
                let token = tokens.last_mut().unwrap();
                *token = (token.0, end, token.2, Pg::Ident);
            }
            _ => tokens.push((start, end, class, kind)),
        }
    }
    Ok(tokens
        .into_iter()
        .map(|(start, end, class, _)| (start, end, class))
        .collect())
}

fn class_name(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Word | TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier => "name",
        TokenKind::Number => "number",
        TokenKind::Parameter => "parameter",
        TokenKind::Operator | TokenKind::Punctuation => "symbol",
        _ => "string",
    }
}

/// Errors about what a string means, not where it ends: ours are found when its value is read.
fn about_value(message: &str) -> bool {
    [
        "Unicode",
        "surrogate",
        "invalid byte sequence",
        "out of range",
        "too large",
    ]
    .iter()
    .any(|part| message.contains(part))
}

/// Whether the token is a string that goes on behind a line comment: PostgreSQL joins the pieces,
/// the library behind pg_query, which gives comments out as tokens, does not.
fn holds_comment(text: &str, token: &(u32, u32, &'static str)) -> bool {
    let lexeme = slice(text, token.0..token.1);
    let mut at = 0;
    token.2 == "string"
        && std::iter::from_fn(|| {
            at += lexeme.get(at..)?.find('\'')? + 1;
            continuation(lexeme.as_bytes(), at).map_or(Some(false), |end| {
                lexeme.get(at..end).map(|space| space.contains("--"))
            })
        })
        .any(|found| found)
}

/// Fails if PostgreSQL's scanner splits `text` differently.
pub(crate) fn agrees(text: &str) -> Result<(), String> {
    let ours = tokenize(text.as_bytes(), LexOptions::default());
    match (oracle(text), ours) {
        (Ok(theirs), Ok(ours)) => {
            let ours: Vec<_> = ours
                .iter()
                .map(|token| (token.start, token.end, class_name(token.kind)))
                .collect();
            if ours == theirs || ours.iter().any(|token| holds_comment(text, token)) {
                Ok(())
            } else {
                Err(format!("{text:?}\nours:   {ours:?}\ntheirs: {theirs:?}"))
            }
        }
        (Err(_), Err(_)) => Ok(()),
        (Err(message), Ok(_)) if about_value(&message) => Ok(()),
        // The library behind pg_query has taken out PostgreSQL's check of "$1a".
        (Ok(_), Err(error)) if error.reason == LexReason::ParameterJunk => Ok(()),
        (theirs, ours) => Err(format!("{text:?}\nours:   {ours:?}\ntheirs: {theirs:?}")),
    }
}

#[test]
fn words_fold_nothing_and_take_dollars_and_high_bytes() {
    assert_eq!(
        words("Select größe a$b _x x1"),
        ["Select", "größe", "a$b", "_x", "x1"]
    );
}

#[test]
fn every_kind_of_constant_is_one_token() {
    let text =
        r#"'a''b' E'a\'b' U&'\0061' U&'!0061' UESCAPE '!' n'x' B'01' X'1F' $$a$$ $t$'$t $t$"#;
    use TokenKind::*;
    let expected = [
        (String, "'a''b'"),
        (EscapeString, r"E'a\'b'"),
        (UnicodeString, r"U&'\0061'"),
        (UnicodeString, "U&'!0061' UESCAPE '!'"),
        (NationalString, "n'x'"),
        (BitString, "B'01'"),
        (HexString, "X'1F'"),
        (DollarString, "$$a$$"),
        (DollarString, "$t$'$t $t$"),
    ];
    assert_eq!(kinds(text), expected);
}

#[test]
fn strings_continue_only_over_a_newline() {
    assert_eq!(words("'a'\n'b'"), ["'a'\n'b'"]);
    assert_eq!(words("'a' -- c\n -- d\n 'b'"), ["'a' -- c\n -- d\n 'b'"]);
    assert_eq!(words("'a' 'b'"), ["'a'", "'b'"]);
    assert_eq!(words("'a' /* c\n */ 'b'"), ["'a'", "'b'"]);
    assert_eq!(words("E'a'\n'\\'b'"), ["E'a'\n'\\'b'"]);
}

#[test]
fn backslashes_escape_quotes_when_strings_do_not_conform() {
    let options = LexOptions {
        standard_conforming_strings: false,
    };
    let text = r"'a\'b' n'\''";
    let tokens = tokenize(text.as_bytes(), options).unwrap();
    let found: Vec<_> = tokens
        .iter()
        .map(|token| (token.kind, token.text(text)))
        .collect();
    let expected = [
        (TokenKind::EscapeString, r"'a\'b'"),
        (TokenKind::NationalString, r"n'\''"),
    ];
    assert_eq!(found, expected);
    let error = tokenize(b" U&'x'", options).unwrap_err();
    assert_eq!(
        (error.reason, error.offset),
        (LexReason::UnsafeUnicodeString, 1)
    );
    assert!(tokenize(b"U&\"x\"", options).is_ok());
}

#[test]
fn operators_end_before_comments_and_signs() {
    assert_eq!(words("a<-1"), ["a", "<", "-", "1"]);
    assert_eq!(words("a@-1"), ["a", "@-", "1"]);
    assert_eq!(words("a=+-b"), ["a", "=", "+", "-", "b"]);
    assert_eq!(words("a+/*c*/b*--c\n2"), ["a", "+", "b", "*", "2"]);
    assert_eq!(words("a->>'b'"), ["a", "->>", "'b'"]);
    assert_eq!(
        words("a=>b:=c::d[1:2]..e"),
        [
            "a", "=>", "b", ":=", "c", "::", "d", "[", "1", ":", "2", "]", "..", "e"
        ]
    );
    assert_eq!(reason(&"+@".repeat(40)), (LexReason::OperatorTooLong, 0));
}

#[test]
fn numbers_follow_postgresql_17() {
    let text = "1 1.5 .5 1. 1e5 1E-5 .5e+1 0x1F 0o17 0b01 1_000 1_0.0_1e1_0";
    assert_eq!(words(text), text.split(' ').collect::<Vec<_>>());
    assert_eq!(words("1..2"), ["1", "..", "2"]);
    assert_eq!(words("1.5.6"), ["1.5", ".6"]);
    assert_eq!(words("1$2"), ["1", "$2"]);
    for junk in [
        "1a", "1e", "1e+", "1.5x", "0x", "0xg", "0b12", "1_", "1__0", "0x1_", "1e5$",
    ] {
        assert_eq!(
            reason(&format!(" {junk}")),
            (LexReason::TrailingJunk, 1),
            "{junk}"
        );
    }
    assert_eq!(reason("$1a"), (LexReason::ParameterJunk, 0));
}

#[test]
fn comments_nest() {
    assert_eq!(words("a/* b /* c */ d */e--f\rg"), ["a", "e", "g"]);
    assert_eq!(words("/**//*/**/*/ 1"), ["1"]);
}

#[test]
fn what_never_ends_is_an_error_where_it_starts() {
    assert_eq!(reason("a /* /* */"), (LexReason::UnterminatedComment, 2));
    assert_eq!(reason("a 'b''"), (LexReason::UnterminatedString, 2));
    assert_eq!(reason(r"E'\'"), (LexReason::UnterminatedString, 0));
    assert_eq!(reason("'a'\n'b"), (LexReason::UnterminatedString, 0));
    assert_eq!(reason("B'0"), (LexReason::UnterminatedBitString, 0));
    assert_eq!(reason("x'0"), (LexReason::UnterminatedHexString, 0));
    assert_eq!(reason("$a$ $b$"), (LexReason::UnterminatedDollarString, 0));
    assert_eq!(reason("\"a"), (LexReason::UnterminatedIdentifier, 0));
    assert_eq!(reason("u&\"\""), (LexReason::ZeroLengthIdentifier, 0));
    assert_eq!(reason("a\0"), (LexReason::ZeroByte, 1));
}

#[test]
fn errors_for_the_client_count_characters() {
    let text = "é 'x";
    let error = tokenize(text.as_bytes(), LexOptions::default()).unwrap_err();
    let error = error.to_error(text.as_bytes());
    assert_eq!(error.code().as_str(), "42601");
    assert_eq!(error.fields().position, Some(3));
}

/// Pieces that meet at the edges of the scanner's rules.
const PIECES: &[&str] = &[
    "SELECT",
    "a",
    "é",
    "u",
    "U&",
    "e",
    "b",
    "x",
    "n",
    "_",
    "'",
    "''",
    "'a'",
    "\"",
    "\"b\"",
    "$",
    "$$",
    "$a$",
    "$1",
    "\\",
    "\\'",
    "\\u0061",
    "\n",
    "\r",
    " ",
    "\t",
    "--",
    "-- c\n",
    "/*",
    "*/",
    "/* c */",
    "/",
    "*",
    "+",
    "-",
    "<",
    ">",
    "=",
    "@",
    "!",
    "~",
    "#",
    "^",
    "&",
    "|",
    "`",
    "?",
    "%",
    ":",
    "::",
    ":=",
    ".",
    "..",
    "0",
    "1",
    "12",
    "0x",
    "0b1",
    "1.5",
    "1e",
    "e5",
    ",",
    ";",
    "(",
    ")",
    "[",
    "]",
    "{",
    "UESCAPE",
    "uescape '!'",
];

/// Texts made of such pieces.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_postgresql(text in texts()) {
        prop_assert_eq!(agrees(&text), Ok(()));
    }

    #[test]
    fn any_bytes_give_ordered_tokens(bytes in prop::collection::vec(any::<u8>(), 0..64), conforming: bool) {
        let options = LexOptions { standard_conforming_strings: conforming };
        if let Ok(tokens) = tokenize(&bytes, options) {
            let mut end = 0;
            for token in tokens {
                prop_assert!(token.start >= end && token.end > token.start);
                end = token.end;
            }
            prop_assert!(end as usize <= bytes.len());
        }
    }

    #[test]
    fn tokens_of_utf8_end_between_characters(text in "\\PC{0,40}") {
        if let Ok(tokens) = tokenize(text.as_bytes(), LexOptions::default()) {
            for token in tokens {
                prop_assert!(!token.text(&text).is_empty());
            }
        }
    }
}
