//! `DO` and `CALL` over several shards: what they run is read as far as it can be told.
//!
//! What holds:
//! - Code that stays at home on the first shard, by [`Conduct`], runs there.
//! - A `DO` block that only defines things ([`block`]) is a definition and runs on every shard. What decides its
//!   way is the same on each: it asks the catalogue, but no table of users, neither clock nor chance.
//! - A `CALL` of a procedure that stays on the shard of its arguments ([`routine`]) runs there.
//! - Of anything else only the user knows the shard.

use crate::error::Result;
use crate::plan::Request;
use crate::plan::SessionUse;
use crate::plan::conduct::Conduct;
use crate::plan::definition;
use crate::plan::definition::Define;
use crate::plan::effects::Effects;
use crate::plan::effects::grammar_effects;
use crate::plan::names;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::refusal;
use crate::plan::routine;
use crate::plan::statement::Part;
use crate::plan::statement::finish;
use crate::sql::block;
use crate::sql::block::Piece;
use crate::sql::body::Body;
use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::literal::token_value;
use crate::sql::relations::relations;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

/// What leaves the first shard, or may.
const LEAVES: Effects = Effects::USER_CODE
    .with(Effects::READS_TABLES)
    .with(Effects::UNKNOWN);

/// What no part of a definition does while it runs: another shard would do something else.
const DIFFERS: Effects = LEAVES
    .with(Effects::RANDOM)
    .with(Effects::CLOCK)
    .with(Effects::WRITES)
    .with(Effects::HOME)
    .with(Effects::PINS)
    .with(Effects::SET_CONFIG)
    .with(Effects::SHARD);

/// Plans a `DO`.
pub(super) fn plan_do(part: Part<'_>) -> Planned {
    if !part.is_sharded() {
        return finish(part, Ok((FIRST_SHARD, SessionUse::NONE)));
    }
    let Some(code) = code(part) else {
        return unknown(part);
    };
    if let Some(body) = Body::read(&code) {
        let effects = Conduct::new(part.request.catalog).body(&body, 0);
        if !effects.any(LEAVES) {
            let mut planned = finish(part, Ok((FIRST_SHARD, effects.session())));
            if body.queries {
                // Another proxy may have made a table by one of its names.
                planned.session |= SessionUse::UNKNOWN_NAMES;
            }
            return planned;
        }
    }
    match define(part, &code) {
        Some(define) => definition::everywhere(part, Ok(define)),
        None => unknown(part),
    }
}

/// Plans a `CALL`.
pub(super) fn plan_call(part: Part<'_>) -> Planned {
    if !part.is_sharded() {
        return finish(part, Ok((FIRST_SHARD, SessionUse::NONE)));
    }
    let called = called(part);
    let confined = called
        .as_ref()
        .err()
        .and_then(|_| routine::call::plan_call(part));
    let mut planned = finish(part, called);
    if let Some(route) = confined {
        planned.route = route;
    }
    if !names_procedure(part) {
        planned.session |= SessionUse::UNKNOWN_NAMES;
    }
    planned
}

fn called(part: Part<'_>) -> Result<(usize, SessionUse)> {
    let text = part.request.text;
    let queries = ["select", "table", "with", "values"];
    let reads = part
        .tokens
        .iter()
        .any(|token| queries.iter().any(|word| token.is_word(text, word)));
    let (effects, leaving) = names::calls(part, LEAVES);
    match leaving {
        Some(name) => Err(refusal::user_code(&name)),
        // One that the catalogue does not know may do anything.
        None if reads || !names_procedure(part) => Err(refusal::choose_shard("CALL")),
        None => Ok((FIRST_SHARD, effects.session())),
    }
}

/// Whether the catalogue knows what is called.
fn names_procedure(part: Part<'_>) -> bool {
    let request = part.request;
    let name = |at: usize| Some(identifier_value(request.text, part.tokens.get(at)?)?.into_owned());
    let is_dot = |at: usize| {
        let token = part.tokens.get(at);
        token.is_some_and(|token| token.is_symbol(request.text, "."))
    };
    let (schema, name) = match is_dot(2) {
        true => (name(1), name(3)),
        false => (None, name(1)),
    };
    let Some(name) = name else { return false };
    let path = request.search_path;
    let mut found = request.catalog.functions(schema.as_deref(), &name, path);
    found.next().is_some()
}

fn unknown(part: Part<'_>) -> Planned {
    finish(part, Err(refusal::choose_shard("DO")))
}

/// The code of a block in PL/pgSQL.
fn code(part: Part<'_>) -> Option<String> {
    let text = part.request.text;
    let mut code = None;
    let mut is_language = false;
    for token in part.tokens.get(1..)? {
        if is_language {
            let language = match token.kind.is_string() {
                true => token_value(text, token)?,
                false => identifier_value(text, token)?,
            };
            if language != "plpgsql" {
                return None;
            }
            is_language = false;
        } else if token.is_word(text, "language") {
            is_language = true;
        } else if token.kind.is_string() && code.is_none() {
            code = Some(token_value(text, token)?.into_owned());
        } else {
            return None;
        }
    }
    code
}

/// The block as a definition, if it is one.
fn define(part: Part<'_>, code: &str) -> Option<Define> {
    // Dollar quotes and the like are read as the session reads its texts.
    let tokens = tokenize(code.as_bytes(), part.request.lex).ok()?;
    if tokens != tokenize(code.as_bytes(), LexOptions::default()).ok()? {
        return None;
    }
    let pieces = block::defining(code, &tokens)?;
    let request = Request {
        text: code,
        ..*part.request
    };
    let whole = Part {
        request: &request,
        all: &tokens,
        tokens: &tokens,
    };
    pieces
        .iter()
        .all(|piece| is_same_everywhere(whole, piece))
        .then(|| definition::of_block(part, relations(code, &tokens)))
}

/// Whether every shard does the same in a piece.
fn is_same_everywhere(whole: Part<'_>, piece: &Piece) -> bool {
    let part = Part {
        tokens: whole.tokens.get(piece.tokens.clone()).unwrap_or_default(),
        ..whole
    };
    if piece.defines {
        return !definition::changes_rows(part) && !defaults_to_unknown(part);
    }
    !calls_more(part) && !reads_users(part)
}

/// Whether a definition has a default that calls a function which the catalogue does not know: rows that are there
/// might be given it.
fn defaults_to_unknown(part: Part<'_>) -> bool {
    let text = part.request.text;
    let is_default = |token: &Token| token.is_word(text, "default");
    let at = part.tokens.iter().position(is_default);
    let behind = at.and_then(|at| part.tokens.get(at..)).unwrap_or_default();
    !behind.is_empty()
        && definition::adds_columns(part)
        && calls_more(Part {
            tokens: behind,
            ..part
        })
}

/// Whether a function is called that does more than compute, or that the catalogue does not know: the block may
/// make it.
fn calls_more(part: Part<'_>) -> bool {
    let range = part.tokens.first().zip(part.tokens.last());
    let range = range.map(|(first, last)| first.start as usize..last.end as usize);
    let source = range.and_then(|range| part.request.text.get(range));
    let Some(body) = source.and_then(Body::read) else {
        return true;
    };
    let catalog = part.request.catalog;
    let conduct = Conduct::new(catalog);
    body.calls.iter().any(|call| {
        let mut functions = catalog.functions_named(call.schema.as_deref(), &call.name);
        let is_known = functions.next().is_some() || grammar_effects(&call.name).is_some();
        !is_known || conduct.call(&body, call, 0).any(DIFFERS)
    })
}

/// Whether rows may be read of anything but the server's own catalogue.
fn reads_users(part: Part<'_>) -> bool {
    let text = part.request.text;
    let is_source = |token: &Token| {
        ["from", "join", "table"]
            .iter()
            .any(|word| token.is_word(text, word))
    };
    let is_own = |token: &Token| match identifier_value(text, token) {
        Some(name) => name.starts_with("pg_") || name == "information_schema",
        None => token.is_symbol(text, "("),
    };
    let sources = part.tokens.windows(2).filter_map(|pair| match pair {
        [word, source] if is_source(word) => Some(source),
        _ => None,
    });
    let mut names = part
        .tokens
        .iter()
        .filter_map(|token| identifier_value(text, token));
    let is_named = names.any(|name| part.request.catalog.relations_named(&name).next().is_some());
    is_named || !sources.into_iter().all(is_own)
}
