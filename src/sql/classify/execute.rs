//! Finds the `EXECUTE` that a statement is or holds.

use std::ops::Range;

use super::cursor::Cursor;
use super::explain::explain;
use super::session;
use super::without_semicolons;
use crate::sql::statement::Statement;
use crate::sql::token::Token;

/// An `EXECUTE`, alone or within another statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The name of the prepared statement.
    pub name: String,
    /// Where the name stands.
    pub name_range: Range<u32>,
    /// The arguments as written.
    pub arguments: Vec<Range<u32>>,
}

/// The `EXECUTE` of `EXECUTE …`, `EXPLAIN … EXECUTE …` and `CREATE TABLE … AS EXECUTE …`; none for
/// anything else.
pub fn executed(text: &str, tokens: &[Token]) -> Option<Executed> {
    find(Cursor::new(text, without_semicolons(text, tokens)))
}

fn find(whole: Cursor) -> Option<Executed> {
    let mut rest = whole;
    if rest.eat(&["execute"]) {
        return read(rest);
    }
    if rest.eat(&["explain"]) {
        let body = explain(whole, rest)?.body;
        let start = whole
            .tokens()
            .partition_point(|token| token.start < body.start);
        return find(Cursor::new(whole.text, whole.tokens().get(start..)?));
    }
    if rest.eat(&["create"]) && rest.seek(|rest| rest.is(0, "as") && rest.is(1, "execute")) {
        rest.next();
        return read(without_data(rest));
    }
    None
}

/// Behind `EXECUTE`.
fn read(rest: Cursor) -> Option<Executed> {
    match session::execute(rest)? {
        Statement::Execute {
            name,
            name_range,
            arguments,
        } => Some(Executed {
            name,
            name_range,
            arguments,
        }),
        _ => None,
    }
}

/// Without `WITH [NO] DATA` at its end.
fn without_data(rest: Cursor) -> Cursor {
    for words in [&["with", "no", "data"][..], &["with", "data"]] {
        let Some(start) = rest.tokens().len().checked_sub(words.len()) else {
            continue;
        };
        let mut end = rest;
        end.skip(start);
        if end.eat(words) {
            return Cursor::new(rest.text, rest.tokens().get(..start).unwrap_or_default());
        }
    }
    rest
}
