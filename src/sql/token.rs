//! The vocabulary of PostgreSQL's scanner: tokens, where they stand, and why a text has none.

use std::fmt;
use std::ops::Range;

use crate::error::Error;
use crate::sqlstate::SqlState;

/// What changes the lexical rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexOptions {
    /// The session's `standard_conforming_strings`: off makes `'…'` read backslash escapes.
    pub standard_conforming_strings: bool,
}

impl Default for LexOptions {
    fn default() -> LexOptions {
        LexOptions {
            standard_conforming_strings: true,
        }
    }
}

/// A token and its bytes in the text. Whitespace and comments are not tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Offset of its first byte.
    pub start: u32,
    /// Offset behind its last byte.
    pub end: u32,
}

/// The kinds of tokens.
///
/// In a text that is UTF-8 every token starts and ends between characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A keyword or an unquoted identifier; compare it without case.
    Word,
    /// `"…"`.
    QuotedIdentifier,
    /// `U&"…"`, with its `UESCAPE '…'` if there is one.
    UnicodeIdentifier,
    /// `'…'` without escapes, with its continuations on further lines.
    String,
    /// `E'…'`, and `'…'` when `standard_conforming_strings` is off.
    EscapeString,
    /// `U&'…'`, with its `UESCAPE '…'` if there is one.
    UnicodeString,
    /// `N'…'`: a string of type `bpchar`.
    NationalString,
    /// `B'…'`.
    BitString,
    /// `X'…'`.
    HexString,
    /// `$tag$…$tag$`.
    DollarString,
    /// An unsigned number: `1`, `1.5`, `.5e-3`, `0x1F`, `1_000`.
    Number,
    /// `$1`.
    Parameter,
    /// Operator characters: `+`, `<=`, `=>`, `->>`.
    Operator,
    /// `(` `)` `[` `]` `,` `;` `.` `:` and `::` `:=` `..`, and any byte that starts nothing else.
    Punctuation,
}

impl TokenKind {
    /// Whether the token is a constant.
    pub fn is_literal(self) -> bool {
        matches!(
            self,
            TokenKind::Number
                | TokenKind::NationalString
                | TokenKind::BitString
                | TokenKind::HexString
        ) || self.is_string()
    }

    /// Whether the grammar takes the token for `Sconst`, a character string constant.
    pub fn is_string(self) -> bool {
        matches!(
            self,
            TokenKind::String
                | TokenKind::EscapeString
                | TokenKind::UnicodeString
                | TokenKind::DollarString
        )
    }

    /// Whether the token is a name in double quotes.
    pub fn is_quoted_identifier(self) -> bool {
        matches!(
            self,
            TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier
        )
    }
}

impl Token {
    /// The token's bytes as offsets.
    pub fn range(&self) -> Range<u32> {
        self.start..self.end
    }

    /// The token as it is written; empty if `text` is not the text that was lexed.
    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        slice(text, self.range())
    }

    /// Whether the token is the unquoted word `word` (given in lower case).
    pub fn is_word(&self, text: &str, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(text).eq_ignore_ascii_case(word)
    }

    /// Whether the token is the operator or punctuation `symbol`.
    pub fn is_symbol(&self, text: &str, symbol: &str) -> bool {
        matches!(self.kind, TokenKind::Operator | TokenKind::Punctuation)
            && self.text(text) == symbol
    }
}

/// The part of `text` at `range`; empty where there is none.
pub fn slice(text: &str, range: Range<u32>) -> &str {
    text.get(range.start as usize..range.end as usize)
        .unwrap_or_default()
}

/// Why a text can't be split into tokens; PostgreSQL rejects it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexError {
    /// Offset of the byte where the offending token starts.
    pub offset: u32,
    /// What is wrong.
    pub reason: LexReason,
}

/// What is wrong with the token at [`LexError::offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexReason {
    /// `/*` without its `*/`.
    UnterminatedComment,
    /// `'` without its closing quote.
    UnterminatedString,
    /// `B'` without its closing quote.
    UnterminatedBitString,
    /// `X'` without its closing quote.
    UnterminatedHexString,
    /// `$tag$` without its second `$tag$`.
    UnterminatedDollarString,
    /// `"` without its closing quote.
    UnterminatedIdentifier,
    /// `""`.
    ZeroLengthIdentifier,
    /// A number that runs into letters, or whose exponent or digits are missing.
    TrailingJunk,
    /// `$1a`.
    ParameterJunk,
    /// `U&'…'` while `standard_conforming_strings` is off.
    UnsafeUnicodeString,
    /// A zero byte.
    ZeroByte,
    /// An operator of 64 bytes or more.
    OperatorTooLong,
    /// A text of 4 GiB or more.
    TooLong,
}

impl LexReason {
    /// PostgreSQL's words for it.
    pub fn message(self) -> &'static str {
        match self {
            LexReason::UnterminatedComment => "unterminated /* comment",
            LexReason::UnterminatedString => "unterminated quoted string",
            LexReason::UnterminatedBitString => "unterminated bit string literal",
            LexReason::UnterminatedHexString => "unterminated hexadecimal string literal",
            LexReason::UnterminatedDollarString => "unterminated dollar-quoted string",
            LexReason::UnterminatedIdentifier => "unterminated quoted identifier",
            LexReason::ZeroLengthIdentifier => "zero-length delimited identifier",
            LexReason::TrailingJunk => "trailing junk after numeric literal",
            LexReason::ParameterJunk => "trailing junk after parameter",
            LexReason::UnsafeUnicodeString => "unsafe use of string constant with Unicode escapes",
            LexReason::ZeroByte => "invalid byte sequence for encoding: 0x00",
            LexReason::OperatorTooLong => "operator too long",
            LexReason::TooLong => "statement is too long",
        }
    }

    /// The SQLSTATE PostgreSQL gives it.
    pub fn code(self) -> SqlState {
        match self {
            LexReason::UnsafeUnicodeString => SqlState::FEATURE_NOT_SUPPORTED,
            LexReason::TooLong => SqlState::PROGRAM_LIMIT_EXCEEDED,
            LexReason::ZeroByte => SqlState::PROTOCOL_VIOLATION,
            _ => SqlState::SYNTAX_ERROR,
        }
    }
}

impl LexError {
    /// The error for the client: PostgreSQL's SQLSTATE and words, and the position in `text`.
    pub fn to_error(self, text: &[u8]) -> Error {
        let before = text.get(..self.offset as usize).unwrap_or_default();
        let characters = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        let position = u32::try_from(characters + 1).unwrap_or(u32::MAX);
        let error = Error::new(self.reason.code(), self.reason.message()).position(position);
        match self.reason {
            LexReason::UnsafeUnicodeString => error.detail(
                "String constants with Unicode escapes cannot be used when \
                 standard_conforming_strings is off.",
            ),
            _ => error,
        }
    }
}

impl fmt::Display for LexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason.message(), self.offset)
    }
}

impl std::error::Error for LexError {}
