//! Functions as the planner sees them: all of one name and schema together.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::catalog::RawCatalog;
use crate::catalog::RawFunction;
use crate::sql::body::Body;

/// What is known of the functions of one name in one schema. Overloads can't be told apart without
/// types, so that the worst of them counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The schema.
    pub schema: String,
    /// The worst volatility.
    pub volatility: Volatility,
    /// One is an aggregate.
    pub aggregate: bool,
    /// One is a window function.
    pub window: bool,
    /// One returns several rows.
    pub returns_set: bool,
    /// One is written in a language that may run queries. What is declared immutable is taken for it unless its
    /// body names a relation or makes statements of strings.
    pub runs_queries: bool,
    /// The bodies of those, and calls of what aggregates are made of; none if one can't be read.
    pub bodies: Option<Vec<Body>>,
}

/// `provolatile`, from harmless to harmful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// The result depends on the arguments only.
    Immutable,
    /// The result is the same within a statement.
    Stable,
    /// Anything.
    Volatile,
}

/// Functions by name.
pub(super) fn by_name(raw: &RawCatalog) -> HashMap<String, Vec<Function>> {
    let relations = raw.relations.iter();
    let relations = relations.map(|relation| relation.name.as_str()).collect();
    let mut functions: HashMap<String, Vec<Function>> = HashMap::new();
    for row in &raw.functions {
        let next = known(row, &relations);
        let overloads = functions.entry(row.name.clone()).or_default();
        match overloads
            .iter_mut()
            .find(|known| known.schema == row.schema)
        {
            None => overloads.push(next),
            Some(known) => {
                known.volatility = known.volatility.max(next.volatility);
                known.aggregate |= next.aggregate;
                known.window |= next.window;
                known.returns_set |= next.returns_set;
                known.runs_queries |= next.runs_queries;
                known.bodies = match (known.bodies.take(), next.bodies) {
                    (Some(mut bodies), Some(more)) => {
                        bodies.extend(more);
                        Some(bodies)
                    }
                    _ => None,
                };
            }
        }
    }
    functions
}

/// What is known of one function; `relations` are the names of all tables and their like.
fn known(row: &RawFunction, relations: &HashSet<&str>) -> Function {
    let volatility = match row.volatility {
        'i' => Volatility::Immutable,
        's' => Volatility::Stable,
        _ => Volatility::Volatile,
    };
    let is_code = !matches!(row.language.as_str(), "c" | "internal") && row.schema != "pg_catalog";
    let body = row.source.as_deref().and_then(Body::read);
    let reads = body.as_ref().is_some_and(|body| {
        let mut names = body.names.iter();
        body.dynamic || (body.queries && names.any(|name| relations.contains(name.as_str())))
    });
    let runs_queries = is_code && (volatility != Volatility::Immutable || reads);
    Function {
        schema: row.schema.clone(),
        volatility,
        aggregate: row.kind == 'a',
        window: row.kind == 'w',
        returns_set: row.returns_set,
        runs_queries,
        bodies: match (runs_queries, row.kind) {
            (true, _) => body.map(|body| vec![body]),
            (false, 'a') => Some(body.into_iter().collect()),
            (false, _) => Some(Vec::new()),
        },
    }
}
