//! Splits a text into tokens exactly as PostgreSQL's scanner does.
//!
//! The rules are those of PostgreSQL 17's `scan.l`. Servers before 16 read `0x1F` and `1_000`
//! differently (mostly as errors); see [`crate::sql::literal`].

use crate::sql::token::LexError;
use crate::sql::token::LexOptions;
use crate::sql::token::LexReason;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// PostgreSQL's `NAMEDATALEN`: the bytes of a name, and one.
pub(crate) const NAME_BYTES: usize = 64;

/// All tokens of `text`.
///
/// # Errors
/// Where PostgreSQL's scanner would stop with an error of its own.
pub fn tokenize(text: &[u8], options: LexOptions) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer::new(text, options)?;
    let mut tokens = Vec::with_capacity(text.len() / 5 + 1);
    while let Some(token) = lexer.next_token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

/// What a byte can start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Word,
    /// A letter that may introduce a string: `b e n u x`.
    Prefix,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Operator,
    Dash,
    Slash,
    Dot,
    Colon,
    Single,
}

const fn class_of(byte: u8) -> Class {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => Class::Space,
        b'b' | b'B' | b'e' | b'E' | b'n' | b'N' | b'u' | b'U' | b'x' | b'X' => Class::Prefix,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => Class::Word,
        b'0'..=b'9' => Class::Digit,
        b'\'' => Class::Quote,
        b'"' => Class::DoubleQuote,
        b'$' => Class::Dollar,
        b'-' => Class::Dash,
        b'/' => Class::Slash,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'*' | b'%'
        | b'<' | b'>' | b'=' => Class::Operator,
        b'.' => Class::Dot,
        b':' => Class::Colon,
        _ => Class::Single,
    }
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Single; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = class_of(byte as u8);
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[byte as usize]
}

fn starts_word(byte: u8) -> bool {
    matches!(class(byte), Class::Word | Class::Prefix)
}

/// The bytes that a word may hold behind its first.
const CONTINUES_WORD: [bool; 256] = {
    let mut continues = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        continues[byte] = matches!(
            CLASSES[byte],
            Class::Word | Class::Prefix | Class::Digit | Class::Dollar
        );
        byte += 1;
    }
    continues
};

#[inline]
fn continues_word(byte: u8) -> bool {
    CONTINUES_WORD[byte as usize]
}

fn is_operator(byte: u8) -> bool {
    matches!(class(byte), Class::Operator | Class::Dash | Class::Slash)
}

/// Reads tokens one by one; allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    options: LexOptions,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of `text`.
    ///
    /// # Errors
    /// If the text holds a zero byte or is too long for 32-bit offsets.
    pub fn new(text: &'a [u8], options: LexOptions) -> Result<Lexer<'a>, LexError> {
        if u32::try_from(text.len()).is_err() {
            return Err(error(0, LexReason::TooLong));
        }
        match memchr::memchr(0, text) {
            Some(at) => Err(error(at, LexReason::ZeroByte)),
            None => Ok(Lexer {
                text,
                at: 0,
                options,
            }),
        }
    }

    /// The next token, or `None` at the end.
    ///
    /// # Errors
    /// Where PostgreSQL's scanner would stop with an error of its own.
    #[inline(always)]
    pub fn next_token(&mut self) -> Result<Option<Token>, LexError> {
        self.skip_space()?;
        let start = self.at;
        let Some(&first) = self.text.get(start) else {
            return Ok(None);
        };
        let kind = match class(first) {
            Class::Word => self.word(),
            Class::Prefix => self.prefixed(first)?,
            Class::Digit => self.number()?,
            Class::Quote if self.options.standard_conforming_strings => {
                self.string(1, TokenKind::String)?
            }
            Class::Quote => self.string(1, TokenKind::EscapeString)?,
            Class::DoubleQuote => self.quoted_identifier(1, TokenKind::QuotedIdentifier)?,
            Class::Dollar => self.dollar()?,
            Class::Operator | Class::Dash | Class::Slash => self.operator()?,
            Class::Dot if self.peek(1).is_ascii_digit() => self.number()?,
            Class::Dot if self.peek(1) == b'.' => self.punctuation(2),
            Class::Colon if matches!(self.peek(1), b':' | b'=') => self.punctuation(2),
            Class::Dot | Class::Colon | Class::Single | Class::Space => self.punctuation(1),
        };
        Ok(Some(Token {
            kind,
            start: start as u32,
            end: self.at as u32,
        }))
    }

    /// The byte `ahead` bytes on; zero, which is no part of any text, behind the end.
    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        byte_at(self.text, self.at + ahead)
    }

    /// Moves to the next byte that is neither space nor comment.
    #[inline]
    fn skip_space(&mut self) -> Result<(), LexError> {
        while let Some(&byte) = self.text.get(self.at) {
            match class(byte) {
                Class::Space => self.at += 1,
                Class::Dash if self.peek(1) == b'-' => self.skip_line(),
                Class::Slash if self.peek(1) == b'*' => self.skip_comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    fn skip_line(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    fn skip_comment(&mut self) -> Result<(), LexError> {
        match comment_end(self.text, self.at) {
            Some(end) => self.at = end,
            None => return Err(error(self.at, LexReason::UnterminatedComment)),
        }
        Ok(())
    }

    fn punctuation(&mut self, length: usize) -> TokenKind {
        self.at += length;
        TokenKind::Punctuation
    }

    #[inline]
    fn word(&mut self) -> TokenKind {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let length = rest.iter().position(|byte| !continues_word(*byte));
        self.at += 1 + length.unwrap_or(rest.len());
        TokenKind::Word
    }

    /// A word, or a string that its one-letter prefix introduces.
    #[inline]
    fn prefixed(&mut self, first: u8) -> Result<TokenKind, LexError> {
        let second = self.peek(1);
        if second != b'\'' && second != b'&' {
            return Ok(self.word());
        }
        match (first | 0x20, second) {
            (b'b', b'\'') => self.string(2, TokenKind::BitString),
            (b'e', b'\'') => self.string(2, TokenKind::EscapeString),
            (b'n', b'\'') => self.string(2, TokenKind::NationalString),
            (b'x', b'\'') => self.string(2, TokenKind::HexString),
            (b'u', b'&') if self.peek(2) == b'\'' => self.unicode_string(),
            (b'u', b'&') if self.peek(2) == b'"' => {
                self.quoted_identifier(3, TokenKind::UnicodeIdentifier)?;
                self.escape_clause();
                Ok(TokenKind::UnicodeIdentifier)
            }
            _ => Ok(self.word()),
        }
    }

    fn unicode_string(&mut self) -> Result<TokenKind, LexError> {
        if !self.options.standard_conforming_strings {
            return Err(error(self.at, LexReason::UnsafeUnicodeString));
        }
        self.string(3, TokenKind::UnicodeString)?;
        self.escape_clause();
        Ok(TokenKind::UnicodeString)
    }

    /// Takes the `UESCAPE '…'` behind a Unicode string or identifier into the token.
    fn escape_clause(&mut self) {
        let mut ahead = *self;
        let found = ahead.skip_space().is_ok() && starts_word(ahead.peek(0));
        let start = ahead.at;
        if !found || ahead.word() != TokenKind::Word {
            return;
        }
        let word = self.text.get(start..ahead.at).unwrap_or_default();
        if !word.eq_ignore_ascii_case(b"uescape") || ahead.skip_space().is_err() {
            return;
        }
        // Anything but a plain string is a syntax error, and a U& here would make this recursive.
        if matches!(ahead.peek(0), b'\'' | b'e' | b'E' | b'$')
            && let Ok(Some(token)) = ahead.next_token()
            && token.kind.is_string()
        {
            self.at = ahead.at;
        }
    }

    /// A string whose text starts `opening` bytes on, with its continuations on further lines.
    fn string(&mut self, opening: usize, kind: TokenKind) -> Result<TokenKind, LexError> {
        let (escapes, doubling, reason) = match kind {
            TokenKind::BitString => (false, false, LexReason::UnterminatedBitString),
            TokenKind::HexString => (false, false, LexReason::UnterminatedHexString),
            TokenKind::EscapeString => (true, true, LexReason::UnterminatedString),
            TokenKind::NationalString => (
                !self.options.standard_conforming_strings,
                true,
                LexReason::UnterminatedString,
            ),
            _ => (false, true, LexReason::UnterminatedString),
        };
        let mut at = self.at + opening;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let found = if escapes {
                memchr::memchr2(b'\'', b'\\', rest)
            } else {
                memchr::memchr(b'\'', rest)
            };
            let Some(found) = found else {
                return Err(error(self.at, reason));
            };
            at += found + 1;
            if rest.get(found) == Some(&b'\\') || (doubling && byte_at(self.text, at) == b'\'') {
                at += 1;
            } else if let Some(reopened) = continuation(self.text, at) {
                at = reopened;
            } else {
                self.at = at;
                return Ok(kind);
            }
        }
    }

    fn quoted_identifier(
        &mut self,
        opening: usize,
        kind: TokenKind,
    ) -> Result<TokenKind, LexError> {
        let first = self.at + opening;
        let mut at = first;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr(b'"', rest) else {
                return Err(error(self.at, LexReason::UnterminatedIdentifier));
            };
            at += found + 1;
            if byte_at(self.text, at) == b'"' {
                at += 1;
            } else if at == first + 1 {
                return Err(error(self.at, LexReason::ZeroLengthIdentifier));
            } else {
                self.at = at;
                return Ok(kind);
            }
        }
    }

    /// `$1`, a dollar-quoted string, or a lone `$`.
    fn dollar(&mut self) -> Result<TokenKind, LexError> {
        let start = self.at;
        let mut at = start + 1;
        if byte_at(self.text, at).is_ascii_digit() {
            while byte_at(self.text, at).is_ascii_digit() {
                at += 1;
            }
            if starts_word(byte_at(self.text, at)) {
                return Err(error(start, LexReason::ParameterJunk));
            }
            self.at = at;
            return Ok(TokenKind::Parameter);
        }
        while continues_word(byte_at(self.text, at)) && byte_at(self.text, at) != b'$' {
            at += 1;
        }
        if byte_at(self.text, at) != b'$' {
            return Ok(self.punctuation(1));
        }
        let body = at + 1;
        let delimiter = self.text.get(start..body).unwrap_or_default();
        let rest = self.text.get(body..).unwrap_or_default();
        match memchr::memmem::find(rest, delimiter) {
            Some(found) => self.at = body + found + delimiter.len(),
            None => return Err(error(start, LexReason::UnterminatedDollarString)),
        }
        Ok(TokenKind::DollarString)
    }

    fn operator(&mut self) -> Result<TokenKind, LexError> {
        let start = self.at;
        let mut end = start + 1;
        while is_operator(byte_at(self.text, end))
            && !starts_comment(byte_at(self.text, end), byte_at(self.text, end + 1))
        {
            end += 1;
        }
        let is_sign = |at: usize| matches!(byte_at(self.text, at), b'+' | b'-');
        if end > start + 1 && is_sign(end - 1) {
            let run = self.text.get(start..end - 1).unwrap_or_default();
            let special = |byte: &u8| {
                matches!(
                    byte,
                    b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
                )
            };
            if !run.iter().any(special) {
                while end > start + 1 && is_sign(end - 1) {
                    end -= 1;
                }
            }
        }
        if end - start >= NAME_BYTES {
            return Err(error(start, LexReason::OperatorTooLong));
        }
        self.at = end;
        Ok(TokenKind::Operator)
    }

    #[inline]
    fn number(&mut self) -> Result<TokenKind, LexError> {
        // Most numbers are a few digits and nothing else.
        let rest = self.text.get(self.at..).unwrap_or_default();
        if let Some(length) = rest.iter().position(|byte| !byte.is_ascii_digit())
            && rest
                .get(length)
                .is_some_and(|byte| *byte != b'.' && !continues_word(*byte))
        {
            self.at += length;
            return Ok(TokenKind::Number);
        }
        self.odd_number()
    }

    #[inline(never)]
    fn odd_number(&mut self) -> Result<TokenKind, LexError> {
        match number_end(self.text, self.at) {
            Some(end) => self.at = end,
            None => return Err(error(self.at, LexReason::TrailingJunk)),
        }
        Ok(TokenKind::Number)
    }
}

fn error(offset: usize, reason: LexReason) -> LexError {
    LexError {
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        reason,
    }
}

#[inline]
fn byte_at(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

fn starts_comment(first: u8, second: u8) -> bool {
    matches!((first, second), (b'/', b'*') | (b'-', b'-'))
}

/// The offset behind the nested comment that starts at `start`.
pub(crate) fn comment_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 2;
    let mut depth = 1;
    while depth > 0 {
        let rest = text.get(at..)?;
        at += memchr::memchr2(b'*', b'/', rest)?;
        match (byte_at(text, at), byte_at(text, at + 1)) {
            (b'*', b'/') => depth -= 1,
            (b'/', b'*') => depth += 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    Some(at)
}

/// Where a string goes on whose closing quote stands before `at`: behind the next opening quote, if
/// only space and line comments with at least one newline stand between.
pub(crate) fn continuation(text: &[u8], mut at: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match byte_at(text, at) {
            b' ' | b'\t' | 0x0B | 0x0C => at += 1,
            b'\n' | b'\r' => {
                newline = true;
                at += 1;
            }
            b'-' if byte_at(text, at + 1) == b'-' => {
                at += memchr::memchr2(b'\n', b'\r', text.get(at..)?)?;
            }
            b'\'' if newline => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The offset behind the number at `start` (a digit, or a dot before a digit); `None` if it runs
/// into junk.
fn number_end(text: &[u8], start: usize) -> Option<usize> {
    let byte = |at| byte_at(text, at);
    if byte(start) == b'0' {
        let is_digit: Option<fn(&u8) -> bool> = match byte(start + 1) | 0x20 {
            b'x' => Some(u8::is_ascii_hexdigit),
            b'o' => Some(|digit| (b'0'..=b'7').contains(digit)),
            b'b' => Some(|digit| (b'0'..=b'1').contains(digit)),
            _ => None,
        };
        if let Some(is_digit) = is_digit {
            let end = digits_end(text, start + 2, is_digit);
            return (end > start + 2 && !continues_word(byte(end))).then_some(end);
        }
    }
    let mut end = start;
    if byte(end) != b'.' {
        end = decimal_end(text, end);
        if byte(end) == b'.' && byte(end + 1) == b'.' {
            return Some(end);
        }
    }
    if byte(end) == b'.' {
        end += 1;
        if byte(end).is_ascii_digit() {
            end = decimal_end(text, end);
        }
    }
    if byte(end) | 0x20 != b'e' {
        return (!starts_word(byte(end))).then_some(end);
    }
    let signed = matches!(byte(end + 1), b'+' | b'-');
    let exponent = end + 1 + usize::from(signed);
    if !byte(exponent).is_ascii_digit() {
        return None;
    }
    end = decimal_end(text, exponent);
    // Without a sign, "e5$" would also be a word, and the scanner takes the longest match.
    let junk = if signed { starts_word } else { continues_word };
    (!junk(byte(end))).then_some(end)
}

fn decimal_end(text: &[u8], start: usize) -> usize {
    digits_end(text, start, u8::is_ascii_digit)
}

/// Behind the digits at `start`, each of which may follow one underscore.
fn digits_end(text: &[u8], start: usize, is_digit: fn(&u8) -> bool) -> usize {
    let mut end = start;
    let first = |at: usize| at == start && !is_digit(&byte_at(text, at));
    loop {
        let at = end + usize::from(byte_at(text, end) == b'_');
        if first(at) && byte_at(text, end) != b'_' || !is_digit(&byte_at(text, at)) {
            return end;
        }
        end = at + 1;
    }
}

#[cfg(test)]
pub(crate) mod tests;
