//! The calls of a statement that name the time of its transaction or its own, and what stands in their place
//! where several connections would each tell their own.

use std::ops::Range;

use crate::catalog::Lookup;
use crate::error::Result;
use crate::plan::Clock;
use crate::plan::Plan;
use crate::plan::bind::BoundSource;
use crate::plan::effects::Effects;
use crate::plan::own::tokens_of;
use crate::plan::query::Query;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Call;
use crate::sql::analysis::Place;
use crate::sql::literal::quote_identifier;
use crate::sql::literal::quote_literal;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// A call that has one value in a statement.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Its tokens, with the schema before it and the parentheses behind it.
    pub(super) tokens: Range<usize>,
    /// The tokens of its precision.
    pub(super) precision: Option<usize>,
    /// It is the statement's own time, not the transaction's.
    pub(super) of_statement: bool,
    /// What it returns.
    pub(super) kind: &'static str,
    /// The name of a column that is this call.
    name: String,
}

impl Moment {
    /// It, of a parameter that is a time: as a subquery of its own, so a column that is this call keeps its name.
    pub(super) fn written(&self, precision: &str, number: usize) -> String {
        self.named(&self.of(&format!("${number}"), precision))
    }

    /// Made of a time.
    fn of(&self, time: &str, precision: &str) -> String {
        // `timestamptz(3)` of pg_catalog is no type name of the grammar's own; these words are.
        let kind = match (self.kind, precision.is_empty()) {
            (kind, true) => format!("pg_catalog.{kind}"),
            ("timestamptz", _) => format!("timestamp({precision}) with time zone"),
            ("timetz", _) => format!("time({precision}) with time zone"),
            (kind, _) => format!("{kind}({precision})"),
        };
        format!("{time}::pg_catalog.timestamptz::{kind}")
    }

    fn named(&self, value: &str) -> String {
        format!(" (SELECT {value} AS {}) ", quote_identifier(&self.name))
    }
}

/// What a statement takes of its transaction's time.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The calls that name it, where a value can take their place.
    calls: Vec<Moment>,
    /// The columns of its rows that have such a default.
    pub defaults: Option<Clock>,
}

impl Moments {
    /// Whether calls name it.
    pub fn are_named(&self) -> bool {
        !self.calls.is_empty()
    }

    /// What a statement takes; none if that is nothing.
    pub(super) fn find(query: &Query<'_>) -> Option<Box<Moments>> {
        if query.request.catalog.shards().len() == 1 {
            return None;
        }
        let calls = query.facts.calls.iter().zip(&query.calls);
        let clocks = calls.filter(|(call, effects)| {
            effects.any(Effects::CLOCK) && call.place == Place::Expression
        });
        let moments = clocks.filter_map(|(call, _)| moment(query, call));
        let calls: Vec<Moment> = moments.filter(|moment| !moment.of_statement).collect();
        let defaults = defaults(query);
        let is_some = !calls.is_empty() || defaults.is_some();
        is_some.then(|| Box::new(Moments { calls, defaults }))
    }
}

/// The defaults of an INSERT's rows that are such a time.
fn defaults(query: &Query<'_>) -> Option<Clock> {
    let BlockKind::Insert(insert) = &query.facts.blocks.first()?.kind else {
        return None;
    };
    match query.bound.source(0, 0)? {
        BoundSource::Named(Lookup::Relation(relation)) => Clock::find(relation, insert),
        _ => None,
    }
}

impl Plan {
    /// The edits that put a time, in a text that means the same whatever is set, in the place of the calls that
    /// name the transaction's.
    ///
    /// # Errors
    /// What PostgreSQL's scanner would say.
    pub fn at_moment(&self, text: &str, lex: LexOptions, time: &str) -> Result<Vec<Edit>> {
        let tokens = tokens_of(text, lex)?;
        let named = names_columns(text, &tokens);
        let time = quote_literal(time);
        let edit = |moment: &Moment| {
            let first = tokens.get(moment.tokens.start)?;
            let last = tokens.get(moment.tokens.end.checked_sub(1)?)?;
            let precision = moment.precision.and_then(|at| tokens.get(at));
            let precision = precision.map_or("", |token| slice(text, token.range()));
            let value = moment.of(&time, precision);
            Some(Edit {
                range: first.start..last.end,
                text: match named.get(moment.tokens.start) {
                    Some(true) => moment.named(&value),
                    _ => format!(" ({value}) "),
                },
            })
        };
        let calls = self.moments.iter().flat_map(|moments| &moments.calls);
        Ok(calls.filter_map(edit).collect())
    }
}

/// Words that begin a list whose expressions may name columns.
const LISTS: [&str; 2] = ["select", "returning"];

/// Words that end one.
const ENDS: [&str; 14] = [
    "from",
    "into",
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "union",
    "except",
    "intersect",
];

/// Of each token, whether it stands in a list of columns that a call among them may name.
fn names_columns(text: &str, tokens: &[Token]) -> Vec<bool> {
    let mut named = Vec::with_capacity(tokens.len());
    // Of each parenthesis that is open, and of what stands in none.
    let mut open = vec![false];
    for token in tokens {
        let is_in_list = open.last().copied().unwrap_or_default();
        named.push(is_in_list);
        if token.is_symbol(text, "(") {
            open.push(is_in_list);
        } else if token.is_symbol(text, ")") {
            open.pop();
        } else if let Some(last) = open.last_mut() {
            let is_one_of = |words: &[&str]| words.iter().any(|word| token.is_word(text, word));
            *last = is_one_of(&LISTS) || *last && !is_one_of(&ENDS);
        }
    }
    named
}

/// The moment that a call names; none if it is written in another way.
pub(super) fn moment(query: &Query<'_>, call: &Call) -> Option<Moment> {
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
