//! Calls of functions and procedures that stay on the shard of their arguments.
//!
//! What holds:
//! - Of a function's name there is one function, so that its parameters have the types that it declares.
//! - An argument that is a key of the body's tables is a constant or a parameter. Its proofs stand among those of the
//!   statement: an execution whose keys are on several shards is refused.
//! - The statement around it changes nothing itself, and its other tables are restricted to keys or replicated.

use std::ops::Range;

use crate::catalog::Function;
use crate::plan::Request;
use crate::plan::Route;
use crate::plan::bind::same_family;
use crate::plan::effects::Effects;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Part as KeyPart;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Query;
use crate::plan::query::keyed;
use crate::plan::refusal;
use crate::plan::routine;
use crate::plan::statement::Part;
use crate::sharding::KeyType;
use crate::sql::literal::identifier_value;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// What the caller of functions may do beside.
const ALLOWED: Effects = Effects::RANDOM
    .with(Effects::CLOCK)
    .with(Effects::SERVER)
    .with(Effects::AGGREGATE)
    .with(Effects::WINDOW);

/// The route of a query that calls functions of users; none if it is not known.
pub(in crate::plan) fn plan(query: &Query<'_>) -> Option<Route> {
    if query.facts.modifies() || query.request.temporary_tables {
        return None;
    }
    // Nothing tells which shard the functions in a view read.
    let mut of_views = query.view_calls.iter();
    if of_views.any(|(_, effects)| effects.without(ALLOWED) != Effects::NONE) {
        return None;
    }
    let mut proofs = query.proven()?;
    let mut first = None;
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        if effects.without(ALLOWED) == Effects::NONE {
            continue;
        }
        if !effects.any(Effects::USER_CODE) {
            return None;
        }
        let offset = call.offset?;
        let at = query
            .tokens
            .iter()
            .position(|token| token.start == offset)?;
        proofs.extend(called(
            query.request,
            query.tokens,
            at,
            call.name.schema.as_deref(),
            false,
        )?);
        first.get_or_insert(call.name.name.as_str());
    }
    Some(route(proofs, first?))
}

/// The route of a `CALL`; none if it is not known.
pub(in crate::plan) fn plan_call(part: Part<'_>) -> Option<Route> {
    let (request, tokens) = (part.request, part.tokens);
    let is_symbol = |at: usize, symbol: &str| {
        let token = tokens.get(at);
        token.is_some_and(|token| token.is_symbol(request.text, symbol))
    };
    let name = |at: usize| Some(identifier_value(request.text, tokens.get(at)?)?.into_owned());
    let (schema, at) = match is_symbol(2, ".") {
        true => (Some(name(1)?), 3),
        false => (None, 1),
    };
    // Its arguments call nothing and read nothing.
    let mut opening = (0..tokens.len()).filter(|at| is_symbol(*at, "("));
    if request.temporary_tables
        || opening.next() != Some(at + 1)
        || opening.next().is_some()
        || !is_symbol(tokens.len().checked_sub(1)?, ")")
    {
        return None;
    }
    let proofs = called(request, tokens, at, schema.as_deref(), true)?;
    Some(route(proofs, &name(at)?))
}

fn route(proofs: Vec<Proof>, name: &str) -> Route {
    match proofs.is_empty() {
        true => Route::Shard(FIRST_SHARD),
        false => keyed(
            proofs,
            None,
            Spread::Refuse(refusal::arguments_spread(name)),
        ),
    }
}

/// The proofs of a call whose name is the token `at`.
fn called(
    request: &Request<'_>,
    tokens: &[Token],
    at: usize,
    schema: Option<&str>,
    is_procedure: bool,
) -> Option<Vec<Proof>> {
    let name = identifier_value(request.text, tokens.get(at)?)?;
    // Another schema's function of this name may be the one that is meant.
    let mut named = request.catalog.functions_named(None, &name);
    let function = named.next().filter(|_| named.next().is_none())?;
    if schema.is_some_and(|schema| schema != function.schema) {
        return None;
    }
    let routine = function.routine.as_ref()?;
    if routine.is_procedure != is_procedure {
        return None;
    }
    let arguments = arguments(request.text, tokens, at + 1)?;
    let types = types(function, arguments.len())?;
    let confined = routine::function(request.catalog, function)?;
    let mut proofs = Vec::with_capacity(confined.proofs.len());
    for proof in confined.proofs {
        let mut parts = Vec::with_capacity(proof.parts.len());
        for part in &proof.parts {
            let values = part.values.iter().map(|value| {
                let KeySource::Parameter(index) = value.source else {
                    return None;
                };
                let cell = tokens.get(arguments.get(index)?.clone())?;
                argument(request, tokens, cell, *types.get(index)?)
            });
            parts.push(KeyPart {
                column: part.column,
                values: values.collect::<Option<_>>()?,
            });
        }
        proofs.push(Proof {
            parts: parts.into(),
            ..proof
        });
    }
    Some(proofs)
}

/// The types of the parameters, if a call with so many arguments gives them in their order.
fn types(function: &Function, given: usize) -> Option<Vec<u32>> {
    let routine = function.routine.as_ref()?;
    let all = routine.arguments.iter();
    // A CALL names those as well that are given back.
    if all.clone().any(|argument| argument.mode == 'v')
        || (routine.is_procedure && all.clone().any(|argument| argument.mode == 'o'))
    {
        return None;
    }
    let inputs = all.filter(|argument| matches!(argument.mode, 'i' | 'b'));
    let types: Vec<u32> = inputs.map(|argument| argument.type_oid).collect();
    (given <= types.len()).then_some(types)
}

/// The tokens of each argument between a parenthesis and the one that closes it; none if they are not in their order.
fn arguments(text: &str, tokens: &[Token], open: usize) -> Option<Vec<Range<usize>>> {
    let is = |at: usize, symbol: &str| {
        let token = tokens.get(at);
        token.is_some_and(|token| token.is_symbol(text, symbol))
    };
    if !is(open, "(") {
        return None;
    }
    let mut arguments = Vec::new();
    let mut depth = 0_usize;
    let mut start = open + 1;
    for at in open + 1..tokens.len() {
        if depth == 0 && (is(at, ",") || is(at, ")")) {
            if start < at {
                arguments.push(start..at);
            }
            start = at + 1;
            if is(at, ")") {
                return Some(arguments);
            }
        } else if is(at, "(") || is(at, "[") {
            depth += 1;
        } else if is(at, ")") || is(at, "]") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && (is(at, "=>") || is(at, ":=")) {
            return None;
        }
    }
    None
}

/// A constant or parameter as a key, of the type that the function declares.
fn argument(
    request: &Request<'_>,
    tokens: &[Token],
    cell: &[Token],
    type_oid: u32,
) -> Option<KeyValue> {
    let text = request.text;
    let (cell, written) = match cell {
        [value @ .., cast, name] if cast.is_symbol(text, "::") => (value, Some(name)),
        cell => (cell, None),
    };
    let cast = match written {
        None => type_oid,
        Some(name) => type_named(text, name)?,
    };
    if !same_family(KeyType::from_oid(cast)?, KeyType::from_oid(type_oid)?) {
        return None;
    }
    let (token, negative) = match cell {
        [token] => (token, false),
        [sign, token] if sign.is_symbol(text, "-") && token.kind == TokenKind::Number => {
            (token, true)
        }
        _ => return None,
    };
    let mut shared = false;
    let source = match token.kind {
        TokenKind::Parameter => {
            let number: usize = token.text(text).strip_prefix('$')?.parse().ok()?;
            // Used elsewhere it may have another type.
            let is_it = |other: &&Token| {
                other.kind == TokenKind::Parameter && other.text(text) == token.text(text)
            };
            shared = tokens.iter().filter(is_it).count() > 1;
            KeySource::Parameter(number.checked_sub(1)?)
        }
        TokenKind::Word if token.is_word(text, "null") => KeySource::Null,
        kind if kind.is_string() || kind == TokenKind::Number => {
            let literals = &request.shape.literals;
            let found = literals.binary_search_by_key(&token.start, |literal| literal.start);
            let index = found.ok()?;
            let known = KeyType::from_oid(type_oid)?;
            let is_number = matches!(known, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
            if kind == TokenKind::Number && !is_number {
                return None;
            }
            KeySource::Literal { index, negative }
        }
        _ => return None,
    };
    Some(KeyValue {
        source,
        cast,
        shared,
    })
}

/// The type of this name, if it is one that keys are given in.
fn type_named(text: &str, name: &Token) -> Option<u32> {
    let types = [
        ("bigint", 20),
        ("int8", 20),
        ("smallint", 21),
        ("int2", 21),
        ("int", 23),
        ("int4", 23),
        ("integer", 23),
        ("text", 25),
        ("varchar", 1043),
        ("uuid", 2950),
    ];
    let mut types = types.iter();
    types.find_map(|(known, oid)| name.is_word(text, known).then_some(*oid))
}
