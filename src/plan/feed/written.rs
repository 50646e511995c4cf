//! Where the parts of an `INSERT … SELECT` stand, by its tokens.
//!
//! The tree says what it is; our own tokens say where: its clauses begin with reserved words outside
//! parentheses. `ON CONFLICT` is told from the condition of a join by the reserved `DO` that belongs to it.

use std::ops::Range;

use crate::plan::query::Query;
use crate::sql::analysis::Cell;
use crate::sql::analysis::ValueSource;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

use super::insert::is_open;

/// The parts, as tokens of the whole statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// `WITH` and its queries; empty if there is none.
    pub with: Range<usize>,
    /// From `INSERT` to the target or its alias.
    pub head: Range<usize>,
    /// `OVERRIDING … VALUE`.
    pub overriding: Option<Range<usize>>,
    /// It says `USER`.
    pub is_user: bool,
    /// The query. Behind it stand `ON CONFLICT` and `RETURNING`.
    pub query: Range<usize>,
}

impl Written {
    /// None if the text does not look like that.
    pub fn read(query: &Query<'_>) -> Option<Written> {
        let text = query.request.text;
        let tokens = query.tokens;
        // In front of it may stand EXPLAIN.
        let first = query.body.first()?.start;
        let base = tokens.partition_point(|token| token.start < first);
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
        let symbol = |at: usize, symbol: &str| {
            let token = tokens.get(at);
            token.is_some_and(|one| one.is_symbol(text, symbol))
        };
        let mut level = Level::default();
        let mut from_base = tokens.iter().enumerate().skip(base);
        let (insert, _) = from_base.find(|(at, token)| {
            level.pass(text, token);
            level.is_outside() && is(*at, "insert") && is(at + 1, "into")
        })?;
        let starts = insert == base || is(base, "with");
        let mut at = insert + 3;
        while symbol(at, ".") {
            at += 2;
        }
        if is(at, "as") {
            at += 2;
        }
        let head = insert..at;
        if symbol(at, "(") && !is_query(text, tokens, at) {
            at = closing(text, tokens, at)? + 1;
        }
        let mut overriding = None;
        let is_user = is(at, "overriding") && is(at + 1, "user");
        if is(at, "overriding") {
            overriding = Some(at..at + 3);
            at += 3;
        }
        let end = behind(text, tokens, at);
        let begins = ["select", "with", "table", "values"]
            .iter()
            .any(|word| is(at, word));
        (starts && at < end && (begins || symbol(at, "("))).then_some(Written {
            with: base..insert,
            head,
            overriding,
            is_user,
            query: at..end,
        })
    }

    /// The tokens behind the query.
    pub fn behind<'a>(&self, tokens: &'a [Token]) -> &'a [Token] {
        tokens.get(self.query.end..).unwrap_or_default()
    }

    /// Whether queries stand behind the query.
    pub fn queries_behind(&self, query: &Query<'_>) -> bool {
        let text = query.request.text;
        let words = ["select", "with", "table", "values"];
        let mut behind = self.behind(query.tokens).iter();
        behind.any(|token| words.iter().any(|word| token.is_word(text, word)))
    }

    /// The columns of the query that are constants of an open type, and their tokens.
    pub fn constants(&self, query: &Query<'_>, cells: &[Cell]) -> Vec<(usize, Option<usize>)> {
        let text = query.request.text;
        let is_select = query
            .tokens
            .get(self.query.start)
            .is_some_and(|token| token.is_word(text, "select"));
        if !is_select {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (column, cell) in cells.iter().enumerate() {
            let token = match is_open(cell) {
                Some(ValueSource::Literal { offset, .. }) => self.literal(query, offset),
                Some(ValueSource::Parameter(number)) => self.parameter(query, number),
                Some(ValueSource::Null) => {
                    found.push((column, None));
                    continue;
                }
                _ => None,
            };
            found.extend(token.map(|token| (column, Some(token))));
        }
        found
    }

    /// The token of a string.
    fn literal(&self, query: &Query<'_>, offset: u32) -> Option<usize> {
        let tokens = query.tokens;
        let at = tokens
            .binary_search_by_key(&offset, |token| token.start)
            .ok()?;
        let is_string = |at: usize| tokens.get(at).is_some_and(|token| token.kind.is_string());
        let text = query.request.text;
        let is_escaped = tokens
            .get(at + 1)
            .is_some_and(|token| token.is_word(text, "uescape"));
        // Strings on two lines are one.
        (is_string(at) && !is_string(at + 1) && !is_escaped).then_some(at)
    }

    /// A token of a parameter in the query.
    fn parameter(&self, query: &Query<'_>, number: u32) -> Option<usize> {
        let text = query.request.text;
        let name = format!("${number}");
        let mut query = query.tokens.iter().enumerate().skip(self.query.start);
        let found =
            query.find(|(_, token)| token.kind == TokenKind::Parameter && token.text(text) == name);
        found.map(|(at, _)| at).filter(|at| *at < self.query.end)
    }
}

/// How deep in parentheses.
#[derive(Default)]
struct Level(usize);

impl Level {
    fn pass(&mut self, text: &str, token: &Token) {
        if token.kind != TokenKind::Punctuation {
            return;
        }
        match token.text(text) {
            "(" | "[" => self.0 += 1,
            ")" | "]" => self.0 = self.0.saturating_sub(1),
            _ => {}
        }
    }

    fn is_outside(&self) -> bool {
        self.0 == 0
    }
}

/// Whether a parenthesis holds a query, not a list of columns.
fn is_query(text: &str, tokens: &[Token], open: usize) -> bool {
    let mut at = open;
    while tokens.get(at).is_some_and(|one| one.is_symbol(text, "(")) {
        at += 1;
    }
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
    // A list of columns has no second parenthesis, and VALUES may be the name of a column.
    let is_values = is(at, "values")
        && tokens
            .get(at + 1)
            .is_some_and(|one| one.is_symbol(text, "("));
    at > open + 1 || is_values || ["select", "with", "table"].iter().any(|word| is(at, word))
}

/// The parenthesis that closes the one at `open`.
pub(super) fn closing(text: &str, tokens: &[Token], open: usize) -> Option<usize> {
    let mut level = Level::default();
    let mut rest = tokens.iter().enumerate().skip(open);
    let found = rest.find(|(_, token)| {
        level.pass(text, token);
        level.is_outside()
    });
    found.map(|(at, _)| at)
}

/// Where `ON CONFLICT` or `RETURNING` begins, or the statement ends.
fn behind(text: &str, tokens: &[Token], query: usize) -> usize {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
    let mut level = Level::default();
    let mut end = tokens.len();
    let mut conflict = None;
    for (at, token) in tokens.iter().enumerate().skip(query) {
        level.pass(text, token);
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let is_name = before.is_some_and(|one| one.is_word(text, "as") || one.is_symbol(text, "."));
        if !level.is_outside() || is_name {
            continue;
        }
        if is(at, "on") && is(at + 1, "conflict") {
            conflict = Some(at);
        }
        if is(at, "do")
            && (is(at + 1, "nothing") || is(at + 1, "update"))
            && let Some(conflict) = conflict
        {
            return conflict;
        }
        if is(at, "returning") {
            end = at;
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::tokenize;
    use crate::sql::token::LexOptions;
    use crate::sql::token::slice;

    fn behind_of(text: &str) -> String {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        let at = behind(text, &tokens, 3);
        let start = tokens
            .get(at)
            .map_or(text.len(), |token| token.start as usize);
        slice(
            text,
            u32::try_from(start).unwrap()..u32::try_from(text.len()).unwrap(),
        )
        .to_owned()
    }

    #[test]
    fn clauses_behind_a_query_are_found() {
        for (query, tail) in [
            ("SELECT 1", ""),
            ("SELECT a FROM b JOIN c ON conflict", ""),
            (
                "SELECT a FROM b JOIN c ON conflict ",
                "ON CONFLICT DO NOTHING",
            ),
            (
                "SELECT a FROM b JOIN c ON conflict ",
                "ON CONFLICT (a) WHERE x DO UPDATE SET a = 1 RETURNING a",
            ),
            ("SELECT a AS returning, b.returning FROM c ", "RETURNING *"),
            (
                "SELECT (SELECT a FROM b JOIN c ON conflict) ",
                "ON CONFLICT DO NOTHING",
            ),
        ] {
            assert_eq!(behind_of(&format!("INSERT INTO t {query}{tail}")), tail);
        }
    }
}
