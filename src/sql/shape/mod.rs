//! Shapes: what texts have in common that differ only in constants, space, comments and case.
//!
//! In the hash, for every statement that starts with `SELECT`, `WITH`, `VALUES`, `TABLE`, `INSERT`,
//! `UPDATE`, `DELETE`, `MERGE` or `EXECUTE` (parentheses before it don't count):
//! - words without case; quoted identifiers, operators, punctuation and parameters as written;
//! - for a *lifted* literal its kind only; numbers are of five kinds: at most 9 digits (an
//!   `integer`), at most 18 (a `bigint`), more digits, with a point or exponent, and `0x1F` or
//!   `1_000`;
//! - for every other literal its text: numbers inside `ORDER BY`, `GROUP BY` and `DISTINCT ON (…)`,
//!   which may be ordinals, numbers in the parentheses of a type (behind `::`, or one that SQL
//!   knows), and anything in `LIMIT`, `OFFSET` and `FETCH`.
//!
//! So a plan must not depend on whether two lifted literals are equal.
//!
//! Of every other statement (`SET`, `CREATE`, `EXPLAIN` …) the hash has each byte from the first
//! token to the last, and where the first stands, so that byte ranges in a plan hold too.
//!
//! Also in the hash: the number of statements, and the `/* shardwire: … */` hint. A final semicolon
//! and comments are not. Lists of different lengths are different shapes.

use std::ops::Range;

use crate::sql::lexer;
use crate::sql::lexer::Lexer;
use crate::sql::token::LexError;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

mod digest;
mod keyword;
mod plain;

use digest::Digest;
use keyword::Head;
use keyword::Keyword;

pub use plain::without_constants;

/// A literal of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Offset of its first byte.
    pub start: u32,
    /// Offset behind its last byte.
    pub end: u32,
    /// A kind for which [`TokenKind::is_literal`] holds.
    pub kind: TokenKind,
    /// Whether the shape is the same whatever the value; otherwise the value is part of the hash.
    pub lifted: bool,
}

/// What a text looks like once its literals are lifted out.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Equal for texts that differ only in lifted literals, space, comments and case.
    pub hash: u128,
    /// All literals, in order.
    pub literals: Vec<Literal>,
    /// The statements between top-level semicolons, from first to last token, empty ones left out.
    pub statements: Vec<Range<u32>>,
    /// The body of a leading `/* shardwire: … */`, without spaces around it.
    pub hint: Option<Range<u32>>,
    digest: Digest,
}

/// Scans `text` into `out`, whose buffers are reused: once they are big enough nothing is allocated,
/// but for one small block when the text is longer than a few KiB.
///
/// # Errors
/// Where PostgreSQL's scanner would stop with an error of its own. `out` then holds what came
/// before the error and no hash.
pub fn scan(text: &[u8], options: LexOptions, out: &mut Shape) -> Result<(), LexError> {
    out.hash = 0;
    out.literals.clear();
    out.statements.clear();
    out.digest.clear();
    out.hint = leading_hint(text);
    if let Some(hint) = out.hint.clone() {
        out.digest.push(tag::HINT);
        out.digest.extend(bytes(text, hint.start, hint.end));
        out.digest.push(tag::END);
    }
    let mut lexer = Lexer::new(text, options)?;
    let mut statement = StatementScan::new();
    while let Some(token) = lexer.next_token()? {
        let first = text.get(token.start as usize).copied().unwrap_or(0);
        if first == b';' && statement.ends_here() {
            statement.finish(text, out);
            statement = StatementScan::new();
        } else {
            statement.token(text, token, first, out);
        }
    }
    statement.finish(text, out);
    out.hash = out.digest.finish();
    Ok(())
}

/// The bytes that stand for things in the hashed stream. Words and operators contain none of them.
mod tag {
    /// Ends what may hold any byte but zero.
    pub const END: u8 = 0;
    pub const WORD: u8 = 1;
    pub const QUOTED_IDENTIFIER: u8 = 2;
    pub const UNICODE_IDENTIFIER: u8 = 3;
    pub const RETAINED: u8 = 4;
    pub const PARAMETER: u8 = 5;
    pub const OPERATOR: u8 = 6;
    pub const PUNCTUATION: u8 = 7;
    pub const STATEMENT: u8 = 8;
    pub const VERBATIM: u8 = 9;
    pub const HINT: u8 = 10;
    /// The first of the literal kinds.
    pub const LITERAL: u8 = 11;
}

/// How a statement goes into the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing but opening parentheses so far.
    Undecided,
    /// Token by token, literals lifted.
    Lifted,
    /// As written.
    Verbatim,
}

/// What stood before a token, as far as it changes the token's meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Dot,
    As,
    OrderOrGroup,
    Cast,
    TypeName,
    Distinct,
    DistinctOn,
    Begin,
    Other,
}

/// Which literals of the clause at hand stay in the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steering {
    /// None.
    No,
    /// Numbers, until parentheses close below this depth or another clause starts at it.
    Numbers(u32),
    /// All, likewise.
    All(u32),
}

/// Where a `CREATE FUNCTION` or `PROCEDURE` stands, whose `BEGIN ATOMIC` body holds semicolons.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routine {
    /// At the statement's first word.
    Start,
    /// Behind `CREATE [OR REPLACE]`.
    Create,
    /// It is no routine.
    No,
    /// Outside its body.
    Header,
    /// Inside so many `BEGIN ATOMIC` and `CASE`.
    Body(u32),
}

/// The scan of one statement.
struct StatementScan {
    mode: Mode,
    start: u32,
    end: u32,
    depth: u32,
    before: Before,
    steering: Steering,
    /// The depth inside the parentheses of a type.
    type_depth: Option<u32>,
    routine: Routine,
}

impl StatementScan {
    fn new() -> StatementScan {
        StatementScan {
            mode: Mode::Undecided,
            start: 0,
            end: 0,
            depth: 0,
            before: Before::Nothing,
            steering: Steering::No,
            type_depth: None,
            routine: Routine::Start,
        }
    }

    /// Whether a semicolon here ends the statement.
    fn ends_here(&self) -> bool {
        self.depth == 0 && !matches!(self.routine, Routine::Body(_))
    }

    fn finish(&self, text: &[u8], out: &mut Shape) {
        if self.end == 0 {
            return;
        }
        out.statements.push(self.start..self.end);
        if self.mode != Mode::Lifted {
            out.digest.push(tag::VERBATIM);
            out.digest.extend(&self.start.to_le_bytes());
            out.digest.extend(bytes(text, self.start, self.end));
            out.digest.push(tag::END);
        }
    }

    #[inline]
    fn token(&mut self, text: &[u8], token: Token, first: u8, out: &mut Shape) {
        if self.end == 0 {
            self.start = token.start;
            out.digest.push(tag::STATEMENT);
        }
        self.end = token.end;
        let lexeme = bytes(text, token.start, token.end);
        if token.kind == TokenKind::Word {
            return self.word(text, token.start, lexeme, out);
        }
        if self.mode == Mode::Undecided && first != b'(' {
            self.mode = Mode::Verbatim;
        }
        match token.kind {
            TokenKind::Punctuation => return self.punctuation(lexeme, first, out),
            TokenKind::Operator => self.exact(tag::OPERATOR, lexeme, false, out),
            TokenKind::Parameter => self.exact(tag::PARAMETER, lexeme, false, out),
            TokenKind::QuotedIdentifier => self.exact(tag::QUOTED_IDENTIFIER, lexeme, true, out),
            TokenKind::UnicodeIdentifier => self.exact(tag::UNICODE_IDENTIFIER, lexeme, true, out),
            _ => self.literal(lexeme, token, out),
        }
        self.before = match self.before {
            Before::Cast if token.kind.is_quoted_identifier() => Before::TypeName,
            _ => Before::Other,
        };
    }

    fn exact(&self, tag: u8, lexeme: &[u8], terminated: bool, out: &mut Shape) {
        if self.mode == Mode::Lifted {
            out.digest.push(tag);
            out.digest.extend(lexeme);
            if terminated {
                out.digest.push(tag::END);
            }
        }
    }

    fn literal(&self, lexeme: &[u8], token: Token, out: &mut Shape) {
        let number = token.kind == TokenKind::Number;
        let retained = match self.steering {
            Steering::All(_) => true,
            Steering::Numbers(_) if number => true,
            _ => number && self.type_depth == Some(self.depth),
        };
        let lifted = !retained && self.mode == Mode::Lifted;
        out.literals.push(Literal {
            start: token.start,
            end: token.end,
            kind: token.kind,
            lifted,
        });
        if lifted {
            out.digest.push(literal_tag(token.kind, lexeme));
        } else {
            self.exact(tag::RETAINED, lexeme, true, out);
        }
    }

    #[inline]
    fn punctuation(&mut self, lexeme: &[u8], first: u8, out: &mut Shape) {
        let single = lexeme.len() == 1;
        self.before = match first {
            b'(' => {
                self.open();
                Before::Other
            }
            b')' => {
                self.close();
                Before::Other
            }
            b'.' if single => Before::Dot,
            b':' if lexeme == b"::" => Before::Cast,
            _ => Before::Other,
        };
        if self.mode != Mode::Lifted {
            return;
        }
        if single && matches!(first, b'(' | b')' | b'[' | b']' | b',' | b'.' | b':') {
            out.digest.push(first);
        } else {
            out.digest.push(tag::PUNCTUATION);
            out.digest.extend(lexeme);
        }
    }

    fn open(&mut self) {
        self.depth = self.depth.saturating_add(1);
        match self.before {
            Before::TypeName if self.type_depth.is_none() => self.type_depth = Some(self.depth),
            Before::DistinctOn if self.steering == Steering::No => {
                self.steering = Steering::Numbers(self.depth);
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.type_depth.is_some_and(|depth| depth > self.depth) {
            self.type_depth = None;
        }
        if let Steering::Numbers(depth) | Steering::All(depth) = self.steering
            && depth > self.depth
        {
            self.steering = Steering::No;
        }
    }

    #[inline]
    fn word(&mut self, text: &[u8], start: u32, lexeme: &[u8], out: &mut Shape) {
        let behind = text.get(start as usize..).unwrap_or_default();
        let head = Head::new(behind, lexeme.len());
        let keyword = Keyword::of(head, lexeme);
        if self.mode == Mode::Undecided {
            self.decide(keyword, out);
        }
        if self.mode == Mode::Verbatim {
            self.routine(keyword);
            self.before = Before::after(self.before, keyword);
            return;
        }
        out.digest.push(tag::WORD);
        out.digest.extend_short(head.bytes(), lexeme.len());
        for rest in lexeme.chunks(8).skip(1) {
            out.digest
                .extend_short(Head::new(rest, rest.len()).bytes(), rest.len());
        }
        if keyword != Keyword::No && !matches!(self.before, Before::Dot | Before::As) {
            self.clause(keyword);
        }
        self.before = Before::after(self.before, keyword);
    }

    /// Takes the first word.
    fn decide(&mut self, keyword: Keyword, out: &mut Shape) {
        self.mode = if keyword == Keyword::Query {
            // Parentheses before the first word were not hashed; their number is.
            out.digest.extend(&self.depth.to_le_bytes());
            Mode::Lifted
        } else {
            Mode::Verbatim
        };
    }

    /// Follows the clauses whose literals steer planning.
    fn clause(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::By if self.before == Before::OrderOrGroup && self.steering == Steering::No => {
                self.steering = Steering::Numbers(self.depth);
            }
            Keyword::Limit => {
                self.steering = match self.steering {
                    Steering::No => Steering::All(self.depth),
                    Steering::Numbers(depth) | Steering::All(depth) => Steering::All(depth),
                }
            }
            Keyword::ClauseEnd | Keyword::On | Keyword::From => {
                if let Steering::Numbers(depth) | Steering::All(depth) = self.steering
                    && depth == self.depth
                    && self.before != Before::Distinct
                {
                    self.steering = Steering::No;
                }
            }
            _ => {}
        }
    }

    /// Follows a `CREATE FUNCTION … BEGIN ATOMIC … END`.
    fn routine(&mut self, keyword: Keyword) {
        let label = matches!(self.before, Before::Dot | Before::As);
        self.routine = match (self.routine, keyword) {
            (Routine::Start, Keyword::Create) => Routine::Create,
            (Routine::Create, Keyword::OrReplace) => Routine::Create,
            (Routine::Create, Keyword::Routine) => Routine::Header,
            (Routine::Start | Routine::Create, _) => Routine::No,
            (Routine::Header, Keyword::Atomic) if self.before == Before::Begin => Routine::Body(1),
            (Routine::Body(depth), Keyword::Case) if !label => {
                Routine::Body(depth.saturating_add(1))
            }
            (Routine::Body(1), Keyword::End) if !label => Routine::Header,
            (Routine::Body(depth), Keyword::End) if !label => Routine::Body(depth - 1),
            (routine, _) => routine,
        };
    }
}

impl Before {
    fn after(before: Before, keyword: Keyword) -> Before {
        match (before, keyword) {
            (Before::Dot | Before::As | Before::Cast, Keyword::TypeName) => Before::TypeName,
            (Before::Dot | Before::As, _) => Before::Other,
            (Before::Cast, _) | (_, Keyword::TypeName) => Before::TypeName,
            (Before::Distinct, Keyword::On) => Before::DistinctOn,
            (_, Keyword::As) => Before::As,
            (_, Keyword::OrderOrGroup) => Before::OrderOrGroup,
            (_, Keyword::Distinct) => Before::Distinct,
            (_, Keyword::Begin) => Before::Begin,
            _ => Before::Other,
        }
    }
}

/// What stands for a lifted literal: its kind, and for numbers the type PostgreSQL gives them.
fn literal_tag(kind: TokenKind, lexeme: &[u8]) -> u8 {
    tag::LITERAL
        + match kind {
            TokenKind::Number if !lexeme.iter().all(u8::is_ascii_digit) => {
                let odd =
                    |byte: &u8| matches!(byte, b'_' | b'x' | b'X' | b'o' | b'O' | b'b' | b'B');
                if lexeme.iter().any(odd) { 4 } else { 3 }
            }
            TokenKind::Number if lexeme.len() <= 9 => 0,
            TokenKind::Number if lexeme.len() <= 18 => 1,
            TokenKind::Number => 2,
            TokenKind::EscapeString => 6,
            TokenKind::UnicodeString => 7,
            TokenKind::NationalString => 8,
            TokenKind::BitString => 9,
            TokenKind::HexString => 10,
            TokenKind::DollarString => 11,
            _ => 5,
        }
}

#[inline]
fn bytes(text: &[u8], start: u32, end: u32) -> &[u8] {
    text.get(start as usize..end as usize).unwrap_or_default()
}

/// The body of the first `/* shardwire: … */` before the first token.
fn leading_hint(text: &[u8]) -> Option<Range<u32>> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| !is_space(*byte))?;
        let rest = text.get(at..)?;
        if rest.starts_with(b"--") {
            at += memchr::memchr2(b'\n', b'\r', rest)?;
        } else if rest.starts_with(b"/*") {
            let end = lexer::comment_end(text, at)?;
            if let Some(hint) = hint_body(text, at + 2, end - 2) {
                return Some(hint);
            }
            at = end;
        } else {
            return None;
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0B
}

fn hint_body(text: &[u8], start: usize, end: usize) -> Option<Range<u32>> {
    const MARK: &[u8] = b"shardwire:";
    let inner = text.get(start..end)?;
    let start = start + inner.iter().position(|byte| !is_space(*byte))?;
    let marked = text.get(start..end)?;
    let (mark, body) = marked.split_at_checked(MARK.len())?;
    if !mark.eq_ignore_ascii_case(MARK) {
        return None;
    }
    let body = body.trim_ascii();
    let start = end - text.get(start + MARK.len()..end)?.trim_ascii_start().len();
    let start = u32::try_from(start).ok()?;
    let length = u32::try_from(body.len()).ok()?;
    Some(start..start.checked_add(length)?)
}

#[cfg(test)]
mod tests;
