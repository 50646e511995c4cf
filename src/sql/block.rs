//! What a PL/pgSQL block that defines things is made of, by its tokens alone.
//!
//! A block is cut where a statement of PL/pgSQL may begin or end: at `;`, and behind `BEGIN`, `THEN`, `ELSE`,
//! `LOOP`, `DECLARE` and labels. So a piece holds at most one statement, and a condition is a piece as well. What holds:
//! - Rows are changed, and the session's state, only by a piece that begins with a verb, or with `WITH`. Pieces
//!   that begin with any but those of definitions make the block something else.
//! - A piece that begins with a definition's verb has no query in it.
//! - `EXECUTE` runs a definition: the string behind it begins with its verb and has no query in it, nor does any
//!   other string of the block begin like a statement that is none. No string has a default or the like, which
//!   rows that are there might be given.

use std::ops::Range;

use crate::sql::lexer::tokenize;
use crate::sql::literal::token_value;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

/// A part of a block, as indexes of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its tokens.
    pub tokens: Range<usize>,
    /// Whether it defines something; else it computes.
    pub defines: bool,
}

/// Verbs of definitions.
const DEFINES: [&str; 6] = ["create", "alter", "drop", "comment", "grant", "revoke"];

/// What a block that only defines does not begin a statement with.
const ACTS: [&str; 38] = [
    "abort",
    "analyse",
    "analyze",
    "call",
    "checkpoint",
    "cluster",
    "commit",
    "copy",
    "deallocate",
    "delete",
    "discard",
    "do",
    "explain",
    "fetch",
    "import",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "open",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "rollback",
    "savepoint",
    "security",
    "set",
    "show",
    "truncate",
    "update",
    "vacuum",
    "with",
];

/// Words in a definition that fill what it makes, or make it one session's.
const FILLS: [&str; 6] = [
    "select",
    "values",
    "temp",
    "temporary",
    "concurrently",
    "materialized",
];

/// The pieces of a block that defines something and changes nothing else; none if it does more, or nothing of
/// the kind.
pub fn defining(source: &str, tokens: &[Token]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        if !is_border(source, token) {
            continue;
        }
        pieces.extend(piece(source, tokens, start..at)?);
        start = at + 1;
    }
    pieces.extend(piece(source, tokens, start..tokens.len())?);
    pieces.iter().any(|piece| piece.defines).then_some(pieces)
}

fn is_border(source: &str, token: &Token) -> bool {
    const WORDS: [&str; 6] = ["begin", "then", "else", "loop", "declare", "atomic"];
    const SYMBOLS: [&str; 2] = [";", ">>"];
    WORDS.iter().any(|word| token.is_word(source, word))
        || SYMBOLS.iter().any(|symbol| token.is_symbol(source, symbol))
}

/// One piece, if there is anything in it; none if it must not be.
fn piece(source: &str, tokens: &[Token], range: Range<usize>) -> Option<Option<Piece>> {
    let part = tokens.get(range.clone()).unwrap_or_default();
    let Some(first) = part.first() else {
        return Some(None);
    };
    let begins_with = |words: &[&str]| words.iter().any(|word| first.is_word(source, word));
    let is_assignment = part.get(1).is_some_and(|next| {
        [":=", "=", ".", "["]
            .iter()
            .any(|symbol| next.is_symbol(source, symbol))
    });
    let defines = match is_assignment {
        true => false,
        false if begins_with(&ACTS) => return None,
        false if begins_with(&["execute"]) => {
            executed(source, tokens, part)?;
            true
        }
        false => begins_with(&DEFINES),
    };
    let is_word =
        |token: &Token, words: &[&str]| words.iter().any(|one| token.is_word(source, one));
    // PL/pgSQL has EXECUTE elsewhere as well: in loops, and behind RETURN QUERY.
    let is_odd = |pair: &[Token]| match pair {
        [token, next] if token.is_word(source, "execute") => {
            !is_word(next, &["function", "procedure", "on"])
        }
        _ => false,
    };
    let inner = part.get(1..).unwrap_or_default();
    if inner.windows(2).any(is_odd) || defines && inner.iter().any(|one| is_word(one, &FILLS)) {
        return None;
    }
    Some(Some(Piece {
        tokens: range,
        defines,
    }))
}

/// `EXECUTE 'definition'`, perhaps by way of `format`.
fn executed(source: &str, tokens: &[Token], part: &[Token]) -> Option<()> {
    let mut at = 1;
    while part.get(at).is_some_and(|token| {
        token.is_word(source, "format")
            || token.is_symbol(source, "(")
            || token.is_symbol(source, ".")
    }) {
        at += 1;
    }
    let first = part.get(at).filter(|token| token.kind.is_string())?;
    let text = token_value(source, first)?;
    // What stands in its place is given by the string alone.
    if part.iter().any(|token| token.is_word(source, "using")) || !is_definition(&text) {
        return None;
    }
    let others = tokens.iter().filter(|token| token.kind.is_string());
    let mut others = others.filter_map(|token| token_value(source, token));
    others.all(|text| !is_statement(&text)).then_some(())
}

/// Whether a text is one definition with no query in it.
fn is_definition(text: &str) -> bool {
    let Ok(tokens) = tokenize(text.as_bytes(), LexOptions::default()) else {
        return false;
    };
    let is = |token: &Token, words: &[&str]| words.iter().any(|word| token.is_word(text, word));
    let last = tokens.last().is_some_and(|one| one.is_symbol(text, ";"));
    let inner = tokens.len().saturating_sub(usize::from(last));
    tokens.first().is_some_and(|first| is(first, &DEFINES))
        && !tokens
            .iter()
            .any(|one| is(one, &FILLS) || is(one, &["as", "using"]))
        && !tokens
            .iter()
            .take(inner)
            .any(|one| one.is_symbol(text, ";"))
}

/// Whether a text may be a statement, or the rest of one, that reads rows, changes them or computes values for them.
fn is_statement(text: &str) -> bool {
    const VERBS: [&str; 10] = [
        "select", "insert", "update", "delete", "merge", "with", "values", "table", "truncate",
        "as",
    ];
    const VALUES: [&str; 10] = [
        "default",
        "generated",
        "identity",
        "using",
        "serial",
        "bigserial",
        "smallserial",
        "serial2",
        "serial4",
        "serial8",
    ];
    match tokenize(text.as_bytes(), LexOptions::default()) {
        Ok(tokens) => {
            let first = tokens.first();
            let acts = |one: &Token| {
                VERBS
                    .iter()
                    .chain(&ACTS)
                    .any(|word| one.is_word(text, word))
            };
            let computes = |one: &Token| VALUES.iter().any(|word| one.is_word(text, word));
            let is_end = |one: &Token| one.is_symbol(text, ";");
            first.is_some_and(acts) || tokens.iter().any(|one| is_end(one) || computes(one))
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(source: &str) -> Option<String> {
        let tokens = tokenize(source.as_bytes(), LexOptions::default()).unwrap();
        let pieces = defining(source, &tokens)?;
        let first = |piece: &Piece| {
            let word = tokens[piece.tokens.start].text(source).to_lowercase();
            match piece.defines {
                true => word.to_uppercase(),
                false => word,
            }
        };
        Some(pieces.iter().map(first).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn blocks_that_define_are_cut_into_pieces() {
        for (source, pieces) in [
            (
                "BEGIN CREATE TYPE mood AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN NULL; END",
                "CREATE exception null end",
            ),
            (
                "BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'mood') THEN \
                 CREATE TYPE mood AS ENUM ('a'); END IF; END",
                "if CREATE end end",
            ),
            (
                "DECLARE n text; BEGIN FOR n IN SELECT conname FROM pg_constraint LOOP \
                 EXECUTE format('ALTER TABLE t DROP CONSTRAINT %I', n); END LOOP; END",
                "n for EXECUTE end end",
            ),
            (
                "BEGIN EXECUTE 'DROP TABLE ' || quote_ident('t'); RAISE NOTICE 'gone'; END",
                "EXECUTE raise end",
            ),
            (
                "BEGIN CREATE TRIGGER t BEFORE UPDATE OR DELETE ON u FOR EACH ROW EXECUTE FUNCTION f(); \
                 ALTER TABLE u ADD FOREIGN KEY (a) REFERENCES v ON DELETE CASCADE; END",
                "CREATE ALTER end",
            ),
        ] {
            assert_eq!(read(source).as_deref(), Some(pieces), "{source}");
        }
    }

    #[test]
    fn what_does_more_is_none() {
        for source in [
            "BEGIN NULL; END",
            "BEGIN CREATE TABLE t (); INSERT INTO t VALUES (1); END",
            "BEGIN CREATE TABLE t AS SELECT 1; END",
            "BEGIN CREATE TEMP TABLE t (a int); END",
            "BEGIN CREATE VIEW v AS VALUES (1); END",
            "BEGIN CREATE TABLE t (); IF true THEN UPDATE u SET a = 1; END IF; END",
            "BEGIN CREATE TABLE t (); WITH x AS (DELETE FROM u RETURNING *) SELECT 1 INTO y FROM x; END",
            "BEGIN EXECUTE x; CREATE TABLE t (); END",
            "BEGIN EXECUTE 'CREATE TABLE x AS ' || q; END",
            "BEGIN q := 'SELECT 1'; EXECUTE 'CREATE TABLE x ' || q; END",
            "BEGIN EXECUTE 'DROP TABLE x' || '; DELETE FROM y'; END",
            "BEGIN EXECUTE 'DROP TABLE x; DELETE FROM y'; END",
            "BEGIN EXECUTE 'UPDATE t SET a = 1'; CREATE TABLE t (); END",
            "BEGIN EXECUTE 'ALTER TABLE t ADD COLUMN a timestamptz DEFAULT now()'; END",
            "BEGIN EXECUTE format('ALTER TABLE %I ADD COLUMN id serial', x); END",
            "BEGIN EXECUTE 'ALTER TABLE t ADD COLUMN a text ' || 'DEFAULT random()'; END",
            "DECLARE d text := ' DEFAULT now()'; BEGIN EXECUTE 'ALTER TABLE t ADD COLUMN a date' || d; END",
            "BEGIN CREATE TABLE t (); RETURN QUERY EXECUTE 'DELETE FROM u'; END",
            "BEGIN CREATE TABLE t (); FOR x IN EXECUTE 'DELETE FROM u RETURNING 1' LOOP NULL; END LOOP; END",
            "BEGIN CREATE TABLE t (); COMMIT; END",
            "BEGIN CREATE TABLE t (); SET search_path = x; END",
            "BEGIN CREATE TABLE t (); <<a>> DELETE FROM u; END",
        ] {
            assert_eq!(read(source), None, "{source}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(source in "[a-zA-Z ;'()$<>:=.]{0,60}") {
            if let Ok(tokens) = tokenize(source.as_bytes(), LexOptions::default()) {
                for piece in defining(&source, &tokens).unwrap_or_default() {
                    prop_assert!(piece.tokens.start < piece.tokens.end && piece.tokens.end <= tokens.len());
                }
            }
        }
    }
}
