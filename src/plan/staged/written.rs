//! Where the queries of a statement's `WITH` stand, and units of them that can be read by themselves; by tokens.

use std::ops::Range;

use crate::plan::change::subquery::stands_alone;
use crate::plan::change::subquery::subquery_at;
use crate::plan::query::Query;
use crate::sql::literal::identifier_value;
use crate::sql::token::Token;

/// A query of `WITH`, as tokens of the whole statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    pub name: String,
    /// Its name, and the names that it gives its columns.
    pub head: Range<usize>,
    /// What stands between its parentheses.
    pub body: Range<usize>,
}

impl Clause {
    /// Whether it is no change without RETURNING.
    fn gives_rows(&self, query: &Query<'_>) -> bool {
        let text = query.request.text;
        let tokens = query.tokens.get(self.body.clone()).unwrap_or_default();
        let is = |token: &Token, words: &[&str]| words.iter().any(|word| token.is_word(text, word));
        let verbs = ["insert", "update", "delete", "merge"];
        let is_change = tokens.first().is_some_and(|first| is(first, &verbs));
        !is_change || tokens.iter().any(|token| is(token, &["returning"]))
    }
}

/// A statement that begins with `WITH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The token `WITH`.
    pub start: usize,
    pub clauses: Vec<Clause>,
    /// What stands behind them.
    pub main: Range<usize>,
}

impl Written {
    /// None if it is written in another way.
    pub fn read(query: &Query<'_>) -> Option<Written> {
        let text = query.request.text;
        let start = query.token_at(query.body.first()?.start)?;
        let end = start + query.body.len();
        let token = |at: usize| query.tokens.get(at);
        let is = |at: usize, word: &str| token(at).is_some_and(|one| one.is_word(text, word));
        let symbol = |at: usize, symbol: &str| {
            let token = token(at);
            token.is_some_and(|one| one.is_symbol(text, symbol))
        };
        if !is(start, "with") {
            return None;
        }
        let mut clauses = Vec::new();
        let mut at = start + 1;
        loop {
            let first = at;
            let name = identifier_value(text, token(at)?)?.into_owned();
            at += 1;
            if symbol(at, "(") {
                at = partner(query, at)? + 1;
            }
            let head = first..at;
            if !is(at, "as") {
                return None;
            }
            at += 1;
            at += usize::from(is(at, "not"));
            at += usize::from(is(at, "materialized"));
            if !symbol(at, "(") {
                return None;
            }
            let close = partner(query, at)?;
            clauses.push(Clause {
                name,
                head,
                body: at + 1..close,
            });
            at = close + 1;
            if !symbol(at, ",") {
                break;
            }
            at += 1;
        }
        let verbs = [
            "select", "insert", "update", "delete", "merge", "values", "table",
        ];
        let is_main = symbol(at, "(") || verbs.iter().any(|verb| is(at, verb));
        (is_main && at < end).then_some(Written {
            start,
            clauses,
            main: at..end,
        })
    }

    /// A statement without one.
    pub fn without_with(query: &Query<'_>) -> Option<Written> {
        let start = query.token_at(query.body.first()?.start)?;
        Some(Written {
            start,
            clauses: Vec::new(),
            main: start..start + query.body.len(),
        })
    }

    /// Which of its queries that give rows may be read by some tokens; a column of the name may count as well.
    pub fn named(&self, query: &Query<'_>, range: &Range<usize>) -> Vec<usize> {
        let text = query.request.text;
        let words = ["from", "join", "using", "only", "table"];
        let mut found = Vec::new();
        for at in range.clone() {
            let Some(token) = query.tokens.get(at) else {
                continue;
            };
            let Some(name) = identifier_value(text, token) else {
                continue;
            };
            let before = at.checked_sub(1).and_then(|at| query.tokens.get(at));
            let may_be_source = before.is_some_and(|before| {
                [",", "("].iter().any(|one| before.is_symbol(text, one))
                    || words.iter().any(|word| before.is_word(text, word))
            });
            let behind = query.tokens.get(at + 1);
            let is_more = behind
                .is_some_and(|behind| [".", "("].iter().any(|one| behind.is_symbol(text, one)));
            if !may_be_source || is_more {
                continue;
            }
            let clause = self
                .clauses
                .iter()
                .position(|clause| clause.name == *name && clause.gives_rows(query));
            found.extend(clause.filter(|clause| !found.contains(clause)));
        }
        found
    }

    /// The part of `body` around the token `at` that can be read before everything else: an arm of a set
    /// operation or a subquery, that names none of the queries and no column outside.
    pub fn unit(&self, query: &Query<'_>, body: &Range<usize>, at: usize) -> Option<Range<usize>> {
        let arms = arms(query, body);
        let arm = arms.into_iter().find(|arm| arm.contains(&at));
        if let Some(arm) = arm
            && arm != *body
            && self.named(query, &arm).is_empty()
        {
            return Some(arm);
        }
        let mut opens = body.clone();
        opens.find_map(|open| {
            let token = query.tokens.get(open)?;
            if !token.is_symbol(query.request.text, "(") {
                return None;
            }
            let inner = subquery_at(query, open).filter(|inner| inner.contains(&at))?;
            let is_free = self.named(query, &inner).is_empty();
            (is_free && stands_alone(query, &inner)).then_some(inner)
        })
    }
}

/// The index of the parenthesis that closes the one at `open`.
pub(super) fn partner(query: &Query<'_>, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in query.tokens.iter().enumerate().skip(open) {
        pass(query.request.text, token, &mut depth);
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn pass(text: &str, token: &Token, depth: &mut usize) {
    if token.is_symbol(text, "(") {
        *depth += 1;
    } else if token.is_symbol(text, ")") {
        *depth = depth.saturating_sub(1);
    }
}

/// The arms of a set operation of SELECTs; none where that is not plain to see.
fn arms(query: &Query<'_>, body: &Range<usize>) -> Vec<Range<usize>> {
    let text = query.request.text;
    let token = |at: usize| query.tokens.get(at);
    let is = |at: usize, words: &[&str]| {
        let token = token(at);
        token.is_some_and(|one| words.iter().any(|word| one.is_word(text, word)))
    };
    let (mut depth, mut start, mut arms) = (0, body.start, Vec::new());
    // What stands behind a SELECT with one of these is the last arm's only by parentheses.
    let tails = ["order", "limit", "offset", "fetch", "for"];
    let mut at = body.start;
    while at < body.end {
        if let Some(token) = token(at) {
            pass(text, token, &mut depth);
        }
        let is_name = at.checked_sub(1).is_some_and(|before| {
            is(before, &["as"]) || token(before).is_some_and(|one| one.is_symbol(text, "."))
        });
        if depth == 0 && !is_name && is(at, &["union", "intersect", "except"]) {
            arms.push(start..at);
            at += usize::from(is(at + 1, &["all", "distinct"]));
            start = at + 1;
        } else if depth == 0 && !is_name && is(at, &tails) {
            break;
        }
        at += 1;
    }
    if arms.is_empty() {
        return arms;
    }
    arms.push(start..at);
    arms.retain(|arm| !arm.is_empty() && is(arm.start, &["select"]));
    arms
}
