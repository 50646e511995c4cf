//! What a CREATE TABLE says of the placement of its rows, beyond PostgreSQL's grammar; by tokens.
//!
//! `SHARD KEY (a, b)` or `REPLICATED` stands where `PARTITION BY` or `WITH` could stand, in any order with
//! them. The clause is found without parsing the rest, so whatever else PostgreSQL knows may stand around
//! it, and is taken out of the text by writing spaces over it, so that the places in PostgreSQL's errors are
//! those of the client's text.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::sql::literal::identifier_value;
use crate::sql::statement::TokenRelation;
use crate::sql::token::Token;
use crate::sqlstate::SqlState;

/// The name in a CREATE statement, and what stands around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// What is made.
    pub name: TokenRelation,
    /// `IF NOT EXISTS`, where it stands.
    pub if_not_exists: Option<Range<u32>>,
    /// Where its rows are to be.
    pub clause: Option<Clause>,
    /// The query that fills it, without its `WITH [NO] DATA`.
    pub query: Option<Range<u32>>,
    /// `WITH NO DATA`.
    pub is_empty: bool,
}

/// Where the rows of a new table are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Where it stands in the text.
    pub range: Range<u32>,
    /// What it says.
    pub spread: ClauseSpread,
}

/// What a clause says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClauseSpread {
    /// `SHARD KEY (columns)`.
    Sharded(Vec<String>),
    /// `REPLICATED`.
    Replicated,
}

/// Reads `CREATE … TABLE name …` or `CREATE MATERIALIZED VIEW name …`; none if there is no such name.
///
/// # Errors
/// `42601` for a clause that is no clause, or stands there twice; `42701` for a column that stands in a key
/// twice.
pub fn creation(text: &str, tokens: &[Token]) -> Result<Option<Creation>> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
    let kind =
        |at: usize| is(at, "table") || (is(at, "view") && is(at.wrapping_sub(1), "materialized"));
    // Words like UNLOGGED may come before it.
    let Some(kind) = (1..tokens.len().min(6)).find(|at| kind(*at)) else {
        return Ok(None);
    };
    let if_not_exists = is(kind + 1, "if") && is(kind + 2, "not") && is(kind + 3, "exists");
    let at = kind + if if_not_exists { 4 } else { 1 };
    let words = tokens.get(kind + 1..at).unwrap_or_default();
    let words = words.first().zip(words.last());
    let if_not_exists = words.map(|(first, last)| first.start..last.end);
    let Some((name, behind)) = name_at(text, tokens, at) else {
        return Ok(None);
    };
    let (clause, end) = clause(text, tokens, behind)?;
    let (query, is_empty) = query(text, tokens, end);
    Ok(Some(Creation {
        name,
        if_not_exists,
        clause,
        query,
        is_empty,
    }))
}

/// A `REFRESH MATERIALIZED VIEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// The view.
    pub name: TokenRelation,
    /// Where `CONCURRENTLY` stands.
    pub concurrently: Option<Range<u32>>,
    /// `WITH NO DATA`.
    pub is_empty: bool,
}

/// Reads `REFRESH MATERIALIZED VIEW name`; none if it is anything else.
pub fn refresh(text: &str, tokens: &[Token]) -> Option<Refresh> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
    if !is(0, "refresh") || !is(1, "materialized") || !is(2, "view") {
        return None;
    }
    let concurrently = tokens.get(3).filter(|_| is(3, "concurrently"));
    let at = if concurrently.is_some() { 4 } else { 3 };
    let (name, behind) = name_at(text, tokens, at)?;
    Some(Refresh {
        name,
        concurrently: concurrently.map(Token::range),
        is_empty: is(behind, "with") && is(behind + 1, "no"),
    })
}

/// An index that is made or dropped concurrently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrentIndex {
    /// Its name; the schema is the table's where it is made.
    pub name: TokenRelation,
    /// It is dropped.
    pub is_dropped: bool,
}

/// Reads `CREATE INDEX CONCURRENTLY name ON table` or `DROP INDEX CONCURRENTLY name`; none if it is neither,
/// or has no name or several.
pub fn concurrent_index(text: &str, tokens: &[Token]) -> Option<ConcurrentIndex> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
    let is_dropped = is(0, "drop");
    if !is_dropped && !is(0, "create") {
        return None;
    }
    let index = if is(1, "unique") { 2 } else { 1 };
    if !is(index, "index") || !is(index + 1, "concurrently") {
        return None;
    }
    let mut at = index + 2;
    if is(at, "if") {
        at += if is_dropped { 2 } else { 3 };
    }
    let (mut name, end) = name_at(text, tokens, at)?;
    if is_dropped {
        let is_one = tokens.get(end).is_none_or(|one| !one.is_symbol(text, ","));
        return is_one.then_some(ConcurrentIndex { name, is_dropped });
    }
    if !is(end, "on") {
        return None;
    }
    let table = if is(end + 1, "only") {
        end + 2
    } else {
        end + 1
    };
    name.schema = name_at(text, tokens, table)?.0.schema;
    Some(ConcurrentIndex { name, is_dropped })
}

/// The `INTO` of a SELECT that makes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntoClause {
    /// Its tokens.
    pub tokens: Range<usize>,
    /// What `CREATE TABLE` would say of the table: `TEMP`, `UNLOGGED` and the like, if anything.
    pub kind: String,
    /// The table's name as written.
    pub name: String,
}

/// Finds the `INTO` of a SELECT; none if it has none that can be read.
pub fn into_clause(text: &str, tokens: &[Token]) -> Option<IntoClause> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
    let is_any = |at: usize, words: &[&str]| words.iter().any(|word| is(at, word));
    let written = |range: Range<usize>| {
        let of = tokens.get(range).unwrap_or_default();
        let (first, last) = (of.first()?, of.last()?);
        text.get(first.start as usize..last.end as usize)
    };
    let start = (0..tokens.len()).find(|at| {
        let before = at.wrapping_sub(1);
        let is_name = tokens
            .get(before)
            .is_some_and(|one| one.is_symbol(text, "."));
        is(*at, "into") && !is_name && !is_any(before, &["as", "insert", "merge"])
    })?;
    let is_named = |at: usize| {
        let is_word = tokens
            .get(at)
            .is_some_and(|one| identifier_value(text, one).is_some());
        is_word && !is_any(at, &BEHIND_INTO)
    };
    let kind = start + 1;
    let scope = usize::from(is_any(kind, &["global", "local"]));
    let mut at = kind;
    if is_any(kind + scope, &["temp", "temporary"]) && is_named(kind + scope + 1) {
        at = kind + scope + 1;
    } else if is(kind, "unlogged") && is_named(kind + 1) {
        at = kind + 1;
    }
    let kind = written(kind..at).unwrap_or_default().to_owned();
    if is(at, "table") {
        at += 1;
    }
    let (_, end) = name_at(text, tokens, at).filter(|_| is_named(at))?;
    Some(IntoClause {
        tokens: start..end,
        kind,
        name: written(at..end)?.to_owned(),
    })
}

/// The words that may stand behind `INTO name` and are no names.
const BEHIND_INTO: [&str; 13] = [
    "from",
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
];

/// The name that begins at a token, and the token behind it.
fn name_at(text: &str, tokens: &[Token], start: usize) -> Option<(TokenRelation, usize)> {
    let word = |at: usize| tokens.get(at).and_then(|one| identifier_value(text, one));
    let mut at = start;
    let mut name = word(at)?;
    let mut schema = None;
    while tokens
        .get(at + 1)
        .is_some_and(|one| one.is_symbol(text, "."))
        && let Some(next) = word(at + 2)
    {
        schema = Some(std::mem::replace(&mut name, next).into_owned());
        at += 2;
    }
    let name = name.into_owned();
    Some((TokenRelation { schema, name }, at + 1))
}

/// The clause behind the name, and the token where the query or the end comes.
fn clause(text: &str, tokens: &[Token], start: usize) -> Result<(Option<Clause>, usize)> {
    let mut found = None;
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        let is_open = token.is_symbol(text, "(") || token.is_symbol(text, "[");
        let is_closed = token.is_symbol(text, ")") || token.is_symbol(text, "]");
        if depth == 0 && token.is_word(text, "as") {
            break;
        }
        let read = match depth {
            0 => clause_at(text, tokens, at)?,
            _ => None,
        };
        if let Some((clause, end)) = read {
            if found.is_some() {
                return Err(syntax(text, token));
            }
            found = Some(clause);
            at = end;
            continue;
        }
        depth = match (is_open, is_closed) {
            (true, _) => depth + 1,
            (_, true) => depth.saturating_sub(1),
            _ => depth,
        };
        at += 1;
    }
    Ok((found, at))
}

/// The clause that begins at a token, if one does, and the token behind it.
fn clause_at(text: &str, tokens: &[Token], at: usize) -> Result<Option<(Clause, usize)>> {
    let Some(first) = tokens.get(at) else {
        return Ok(None);
    };
    let before = at.checked_sub(1).and_then(|at| tokens.get(at));
    // There it is the name of an access method, a tablespace, a type or a table.
    let is_name = before.is_some_and(|before| {
        before.is_symbol(text, ".")
            || ["using", "tablespace", "of"]
                .iter()
                .any(|word| before.is_word(text, word))
    });
    if is_name {
        return Ok(None);
    }
    if first.is_word(text, "replicated") {
        let clause = Clause {
            range: first.range(),
            spread: ClauseSpread::Replicated,
        };
        return Ok(Some((clause, at + 1)));
    }
    let is_key = tokens
        .get(at + 1)
        .is_some_and(|one| one.is_word(text, "key"));
    if !first.is_word(text, "shard") || !is_key {
        return Ok(None);
    }
    let (columns, end) = columns(text, tokens, at + 2)?;
    let last = tokens.get(end - 1).unwrap_or(first);
    let clause = Clause {
        range: first.start..last.end,
        spread: ClauseSpread::Sharded(columns),
    };
    Ok(Some((clause, end)))
}

/// `(a, b)`, and the token behind it.
fn columns(text: &str, tokens: &[Token], start: usize) -> Result<(Vec<String>, usize)> {
    let unexpected = |at: usize| match tokens.get(at) {
        Some(token) => syntax(text, token),
        None => Error::new(SqlState::SYNTAX_ERROR, "syntax error at end of input")
            .position(position(text, text.len())),
    };
    let is = |at: usize, symbol: &str| {
        tokens
            .get(at)
            .is_some_and(|token| token.is_symbol(text, symbol))
    };
    if !is(start, "(") {
        return Err(unexpected(start));
    }
    let mut columns: Vec<String> = Vec::new();
    let mut at = start + 1;
    loop {
        let name = tokens
            .get(at)
            .and_then(|token| identifier_value(text, token));
        let name = name.ok_or_else(|| unexpected(at))?.into_owned();
        if columns.contains(&name) {
            let message = format!("column \"{name}\" appears twice in the shard key");
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, message));
        }
        columns.push(name);
        match (is(at + 1, ","), is(at + 1, ")")) {
            (true, _) => at += 2,
            (_, true) => return Ok((columns, at + 2)),
            _ => return Err(unexpected(at + 1)),
        }
    }
}

/// The query behind `AS`, and whether it only gives the columns.
fn query(text: &str, tokens: &[Token], at: usize) -> (Option<Range<u32>>, bool) {
    let is_as = tokens.get(at).is_some_and(|one| one.is_word(text, "as"));
    let body = tokens.get(at + 1..).filter(|_| is_as).unwrap_or_default();
    let ends_in = |words: &[&str]| {
        let start = body.len().checked_sub(words.len());
        let tail = start.and_then(|start| body.get(start..));
        tail.is_some_and(|tail| {
            tail.iter()
                .zip(words)
                .all(|(one, word)| one.is_word(text, word))
        })
    };
    let is_empty = ends_in(&["with", "no", "data"]);
    let cut = match (is_empty, ends_in(&["with", "data"])) {
        (true, _) => 3,
        (_, true) => 2,
        _ => 0,
    };
    let body = body.get(..body.len() - cut).unwrap_or_default();
    let range = match (body.first(), body.last()) {
        (Some(first), Some(last)) => Some(first.start..last.end),
        _ => None,
    };
    (range, is_empty)
}

/// The text with spaces in place of a part, one for each character.
pub fn blanked(text: &str, range: &Range<u32>) -> String {
    let (start, end) = (range.start as usize, range.end as usize);
    let part = |range: Range<usize>| text.get(range).unwrap_or_default();
    let spaces = part(start..end).chars().map(|_| ' ');
    let mut out = part(0..start).to_owned();
    out.extend(spaces);
    out.push_str(part(end..text.len()));
    out
}

fn syntax(text: &str, token: &Token) -> Error {
    let word = token.text(text);
    let message = format!("syntax error at or near \"{word}\"");
    Error::new(SqlState::SYNTAX_ERROR, message).position(position(text, token.start as usize))
}

/// The 1-based character position of a byte.
fn position(text: &str, offset: usize) -> u32 {
    let before = text.get(..offset).unwrap_or(text);
    u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
