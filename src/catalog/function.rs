//! Functions as the planner sees them: all of one name and schema together.

use std::collections::HashMap;

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
    /// One is written in a language that may run queries, and is not declared immutable.
    pub runs_queries: bool,
    /// The bodies of those; none if one can't be read.
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
pub(super) fn by_name(raw: &[RawFunction]) -> HashMap<String, Vec<Function>> {
    let mut functions: HashMap<String, Vec<Function>> = HashMap::new();
    for row in raw {
        let volatility = match row.volatility {
            'i' => Volatility::Immutable,
            's' => Volatility::Stable,
            _ => Volatility::Volatile,
        };
        let runs_queries = volatility != Volatility::Immutable
            && !matches!(row.language.as_str(), "c" | "internal")
            && row.schema != "pg_catalog";
        let body = || row.source.as_deref().and_then(Body::read);
        let bodies = match runs_queries {
            true => body().map(|body| vec![body]),
            false => Some(Vec::new()),
        };
        let next = Function {
            schema: row.schema.clone(),
            volatility,
            aggregate: row.kind == 'a',
            window: row.kind == 'w',
            returns_set: row.returns_set,
            runs_queries,
            bodies,
        };
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
