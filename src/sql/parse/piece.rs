//! Tokens with their text, which the mending may replace.

use std::borrow::Cow;

use crate::sql::literal::identifier_value;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// PostgreSQL's `NAMEDATALEN - 1`: longer names are cut.
const NAME_BYTES: usize = 63;

/// A token on its way to the parser crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What it is; all kinds of strings and identifiers are told apart no further than the grammar
    /// does.
    pub kind: TokenKind,
    /// Names as the catalogue stores them, everything else as written. Strings are left empty: no
    /// decision may hang on them, since the shape does not hold them.
    pub text: Cow<'a, str>,
    /// Index of the token it comes from.
    pub at: u32,
}

impl Piece<'_> {
    /// Whether it is the unquoted word, given in lower case.
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text == word
    }

    /// Whether it is the operator or punctuation.
    pub fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.kind, TokenKind::Operator | TokenKind::Punctuation) && self.text == symbol
    }

    /// Whether it is a name or a keyword.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::QuotedIdentifier)
    }
}

/// The pieces of a text.
pub(super) fn pieces<'a>(text: &'a str, tokens: &[Token]) -> Vec<Piece<'a>> {
    tokens
        .iter()
        .zip(0..)
        .map(|(token, at)| Piece {
            kind: token.kind,
            text: piece_text(text, token),
            at,
        })
        .collect()
}

fn piece_text<'a>(text: &'a str, token: &Token) -> Cow<'a, str> {
    let written = token.text(text);
    match token.kind {
        TokenKind::Word if written.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            cut(Cow::Owned(written.to_ascii_lowercase()))
        }
        TokenKind::Word => cut(Cow::Borrowed(written)),
        TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier => {
            cut(identifier_value(text, token).unwrap_or_default())
        }
        kind if kind.is_string() => Cow::Borrowed(""),
        _ => Cow::Borrowed(written),
    }
}

/// Cuts a name to the length that PostgreSQL keeps.
fn cut(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES {
        return name;
    }
    let end = (0..=NAME_BYTES)
        .rev()
        .find(|end| name.is_char_boundary(*end))
        .unwrap_or(0);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.get(..end).unwrap_or_default()),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}
