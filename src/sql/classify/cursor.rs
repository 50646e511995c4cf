//! Reads a statement's tokens front to back, in the terms of PostgreSQL's grammar.

use std::borrow::Cow;
use std::ops::Range;

use crate::sql::literal::identifier_value;
use crate::sql::literal::token_value;
use crate::sql::statement::TokenRelation;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// Words that name nothing unless quoted (`RESERVED_KEYWORD` in PostgreSQL's `kwlist.h`, less
/// `system_user`, which is new in 16).
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// Words that can name functions and types only (`TYPE_FUNC_NAME_KEYWORD`).
const FUNCTION_OR_TYPE: &[&str] = &[
    "authorization",
    "binary",
    "collation",
    "concurrently",
    "cross",
    "current_schema",
    "freeze",
    "full",
    "ilike",
    "inner",
    "is",
    "isnull",
    "join",
    "left",
    "like",
    "natural",
    "notnull",
    "outer",
    "overlaps",
    "right",
    "similar",
    "tablesample",
    "verbose",
];

/// Whether an unquoted `word` (in lower case) is a reserved keyword.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// What is left to read of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str, tokens: &'a [Token]) -> Cursor<'a> {
        Cursor { text, tokens }
    }

    /// The tokens not read yet.
    pub fn tokens(&self) -> &'a [Token] {
        self.tokens
    }

    pub fn is_end(&self) -> bool {
        self.tokens.is_empty()
    }

    /// `value` if everything has been read.
    pub fn end<T>(self, value: T) -> Option<T> {
        self.is_end().then_some(value)
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.tokens.first()
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    /// Whether the token `ahead` tokens on is the unquoted `word`.
    pub fn is(&self, ahead: usize, word: &str) -> bool {
        self.tokens
            .get(ahead)
            .is_some_and(|token| token.is_word(self.text, word))
    }

    /// Whether the token `ahead` tokens on is an unquoted word among `words`.
    pub fn is_any(&self, ahead: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(ahead, word))
    }

    /// Whether the token `ahead` tokens on is `symbol`.
    pub fn is_symbol(&self, ahead: usize, symbol: &str) -> bool {
        self.tokens
            .get(ahead)
            .is_some_and(|token| token.is_symbol(self.text, symbol))
    }

    /// Reads `words` if they all come next.
    pub fn eat(&mut self, words: &[&str]) -> bool {
        let found = words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.is(ahead, word));
        if found {
            self.skip(words.len());
        }
        found
    }

    /// Moves `count` tokens on.
    pub fn skip(&mut self, count: usize) {
        self.tokens = self.tokens.get(count..).unwrap_or_default();
    }

    /// Reads one of `words` if it comes next.
    pub fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(&[word]))
    }

    pub fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(0, symbol);
        if found {
            self.next();
        }
        found
    }

    /// `ColId`: a name that is not reserved.
    pub fn name(&mut self) -> Option<String> {
        self.name_unless(|word| is_reserved(word) || FUNCTION_OR_TYPE.contains(&word))
    }

    /// `NonReservedWord`.
    pub fn non_reserved(&mut self) -> Option<String> {
        self.name_unless(is_reserved)
    }

    /// `ColLabel`: any name or keyword.
    pub fn label(&mut self) -> Option<String> {
        self.name_unless(|_| false)
    }

    fn name_unless(&mut self, excluded: impl Fn(&str) -> bool) -> Option<String> {
        let token = self.peek()?;
        let name = identifier_value(self.text, token)?;
        if token.kind == TokenKind::Word && excluded(&name) {
            return None;
        }
        self.next();
        Some(name.into_owned())
    }

    /// `qualified_name`: a relation, perhaps with its schema, perhaps with its database.
    pub fn relation(&mut self) -> Option<TokenRelation> {
        let mut name = self.name()?;
        let mut schema = None;
        while self.eat_symbol(".") {
            schema = Some(name);
            name = self.label()?;
        }
        Some(TokenRelation { schema, name })
    }

    /// `Sconst`: the token, whether or not its value can be told.
    pub fn string(&mut self) -> Option<&'a Token> {
        let token = self.peek().filter(|token| token.kind.is_string())?;
        self.next();
        Some(token)
    }

    /// The value of an `Sconst`.
    pub fn string_value(&mut self) -> Option<String> {
        let token = self.string()?;
        token_value(self.text, token).map(Cow::into_owned)
    }

    /// `SignedIconst`.
    pub fn integer(&mut self) -> Option<i64> {
        let mut ahead = *self;
        let negative = ahead.eat_symbol("-");
        if !negative {
            ahead.eat_symbol("+");
        }
        let token = ahead
            .next()
            .filter(|token| token.kind == TokenKind::Number)?;
        let number: i64 = token.text(self.text).parse().ok()?;
        i32::try_from(number).ok()?;
        *self = ahead;
        Some(if negative { -number } else { number })
    }

    /// `NumericOnly`.
    pub fn number(&mut self) -> Option<()> {
        let mut ahead = *self;
        if !ahead.eat_symbol("-") {
            ahead.eat_symbol("+");
        }
        ahead
            .next()
            .filter(|token| token.kind == TokenKind::Number)?;
        *self = ahead;
        Some(())
    }

    /// What stands in the parentheses that come next, which must be balanced.
    pub fn parentheses(&mut self) -> Option<Cursor<'a>> {
        if !self.is_symbol(0, "(") {
            return None;
        }
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate() {
            depth = depth_behind(depth, self.text, token)?;
            if depth == 0 {
                let (inside, rest) = self.tokens.split_at(at);
                self.tokens = rest.get(1..)?;
                return Some(Cursor::new(self.text, inside.get(1..)?));
            }
        }
        None
    }

    /// The parts between top-level commas; `None` if one is empty.
    pub fn list(self) -> Option<Vec<Cursor<'a>>> {
        let mut parts = Vec::new();
        let mut depth = 0;
        let mut start = 0;
        for (at, token) in self.tokens.iter().enumerate() {
            depth = depth_behind(depth, self.text, token)?;
            if depth == 0 && token.is_symbol(self.text, ",") {
                parts.push(Cursor::new(self.text, self.tokens.get(start..at)?));
                start = at + 1;
            }
        }
        parts.push(Cursor::new(self.text, self.tokens.get(start..)?));
        (depth == 0 && !parts.iter().any(Cursor::is_end)).then_some(parts)
    }

    /// The bytes of what is left, from its first token to its last; `None` if nothing is.
    pub fn range(&self) -> Option<Range<u32>> {
        Some(self.tokens.first()?.start..self.tokens.last()?.end)
    }

    /// Moves behind the first token at this level for which `found` holds, and says whether there
    /// is one.
    pub fn seek(&mut self, found: impl Fn(&Cursor<'a>) -> bool) -> bool {
        let mut depth = 0usize;
        while let Some(token) = self.peek() {
            if depth == 0 && found(self) {
                self.next();
                return true;
            }
            depth = depth_behind(depth, self.text, token).unwrap_or(0);
            self.next();
        }
        false
    }
}

/// The depth of parentheses and brackets behind `token`; `None` if it closes too many.
fn depth_behind(depth: usize, text: &str, token: &Token) -> Option<usize> {
    if token.kind != TokenKind::Punctuation {
        return Some(depth);
    }
    match token.text(text) {
        "(" | "[" => Some(depth + 1),
        ")" | "]" => depth.checked_sub(1),
        _ => Some(depth),
    }
}
