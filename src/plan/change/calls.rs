//! The calls of a statement that changes rows of several shards: what each may be.

use std::ops::Range;

use crate::error::Result;
use crate::plan::change::subquery::Subqueries;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Call;
use crate::sql::analysis::Place;
use crate::sql::literal::quote_identifier;
use crate::sql::token::TokenKind;

/// A call that has one value in a statement.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Moment {
    /// Its tokens, with the schema before it and the parentheses behind it.
    pub tokens: Range<usize>,
    /// The tokens of its precision.
    pub precision: Option<usize>,
    /// It is the statement's own time, not the transaction's.
    pub of_statement: bool,
    /// What it returns.
    pub kind: &'static str,
    /// The name of a column that is this call.
    pub name: String,
}

impl Moment {
    /// It, of a parameter that is a time: as a subquery of its own, so a column that is this call keeps its name.
    pub(in crate::plan) fn written(&self, precision: &str, number: usize) -> String {
        let name = quote_identifier(&self.name);
        let value = format!("${number}::pg_catalog.timestamptz");
        // `timestamptz(3)` of pg_catalog is no type name of the grammar's own; these words are.
        let kind = match (self.kind, precision.is_empty()) {
            (kind, true) => format!("pg_catalog.{kind}"),
            ("timestamptz", _) => format!("timestamp({precision}) with time zone"),
            ("timetz", _) => format!("time({precision}) with time zone"),
            (kind, _) => format!("{kind}({precision})"),
        };
        format!(" (SELECT {value}::{kind} AS {name}) ")
    }
}

/// Functions that say the same of every connection of one session.
pub(in crate::plan) const OF_SESSION: [&str; 6] = [
    "current_user",
    "session_user",
    "user",
    "current_role",
    "current_schema",
    "current_catalog",
];

/// The calls whose value is asked of one shard.
///
/// # Errors
/// What can't be called by several shards, or by another than the one where its state is.
pub(super) fn moments(
    query: &Query<'_>,
    main: BlockId,
    subqueries: &Subqueries,
) -> Result<Vec<Moment>> {
    let mut found = Vec::new();
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        let name = call.name.name.as_str();
        let effects = effects.without(Effects::AGGREGATE | Effects::WINDOW | Effects::SHARD);
        let is_of_session = effects == Effects::SERVER && OF_SESSION.contains(&name);
        if effects == Effects::NONE || is_of_session {
            continue;
        }
        if effects == Effects::CLOCK {
            let moment = moment(query, call);
            found.push(moment.ok_or_else(|| differs(name))?);
            continue;
        }
        if effects.any(Effects::HOME) {
            return Err(refusal::global_state(name));
        }
        let of_row = call.block == main && call.place == Place::Expression;
        let once = call
            .offset
            .is_some_and(|offset| subqueries.is_evaluated(query, offset));
        if effects != Effects::RANDOM || !(of_row || once) {
            return Err(differs(name));
        }
    }
    Ok(found)
}

fn differs(name: &str) -> crate::error::Error {
    refusal::differs(&format!("the function \"{name}\""))
}

/// The moment that a call names; none if it is written in another way.
pub(in crate::plan) fn moment(query: &Query<'_>, call: &Call) -> Option<Moment> {
    let text = query.request.text;
    let name = call.name.name.as_str();
    let kind = match name {
        "now" | "transaction_timestamp" | "statement_timestamp" | "current_timestamp" => {
            "timestamptz"
        }
        "current_date" => "date",
        "current_time" => "timetz",
        "localtime" => "time",
        "localtimestamp" => "timestamp",
        _ => return None,
    };
    let at = query.token_at(call.offset?)?;
    let is = |index: usize, symbol: &str| {
        let token = query.tokens.get(index);
        token.is_some_and(|token| token.is_symbol(text, symbol))
    };
    let start = match call.name.schema {
        Some(_) if is(at.checked_sub(1)?, ".") => at.checked_sub(2)?,
        Some(_) => return None,
        None => at,
    };
    let (end, precision) = match call.arguments {
        0 if is(at + 1, "(") && is(at + 2, ")") => (at + 3, None),
        0 if !is(at + 1, "(") => (at + 1, None),
        1 if is(at + 1, "(") && is(at + 3, ")") => {
            let number = query.tokens.get(at + 2)?;
            (number.kind == TokenKind::Number).then_some((at + 4, Some(at + 2)))?
        }
        _ => return None,
    };
    Some(Moment {
        tokens: start..end,
        precision,
        of_statement: name == "statement_timestamp",
        kind,
        name: name.to_owned(),
    })
}
