//! Functions as the planner sees them: all of one name and schema together.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::catalog::RawArgument;
use crate::catalog::RawCatalog;
use crate::catalog::RawFunction;
use crate::sql::body::Body;
use crate::sql::body::BodyCall;

/// Functions that tell the moment of a transaction or statement.
const MOMENTS: [&str; 3] = ["now", "statement_timestamp", "transaction_timestamp"];

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
    /// One may be called as a field of a row: `u.f` is `f(u)` where `u` has no such column (PostgreSQL
    /// documentation, 8.16.5 Using Composite Types in Queries).
    pub takes_row: bool,
    /// One is written in a language that may run queries. What is declared immutable is taken for it unless its
    /// body names a relation, makes statements of strings, or calls what may run queries.
    pub runs_queries: bool,
    /// The bodies of those, and calls of what aggregates are made of; none if one can't be read.
    pub bodies: Option<Vec<Body>>,
    /// The function itself, if it is the only one of its name, in SQL or PL/pgSQL.
    pub routine: Option<Routine>,
}

/// One function or procedure in SQL or PL/pgSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routine {
    /// Its body.
    pub source: Arc<str>,
    /// The language is PL/pgSQL, otherwise SQL.
    pub is_plpgsql: bool,
    /// It is a procedure.
    pub is_procedure: bool,
    /// All its arguments and columns.
    pub arguments: Arc<[RawArgument]>,
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

/// The functions that a server of one version comes with. They stay what they are, and are most of all: so they
/// are read and compiled once.
#[derive(Debug, Default)]
pub struct BuiltIn {
    version: u32,
    by_name: HashMap<String, Vec<Function>>,
}

impl BuiltIn {
    /// Compiles the functions of a server of this version (`server_version_num`).
    pub fn new(version: u32, rows: &[RawFunction]) -> BuiltIn {
        BuiltIn {
            version,
            by_name: by_name(rows, (&HashSet::new(), &HashMap::new()), &HashMap::new()),
        }
    }

    /// Whether they are of this version.
    pub fn is_of(&self, version: u32) -> bool {
        self.version == version
    }
}

/// All functions of a database.
#[derive(Clone, Debug)]
pub(super) struct Functions {
    own: HashMap<String, Vec<Function>>,
    /// Whom operators and types of users call.
    pub hidden: HashMap<String, Vec<BodyCall>>,
    pub built_in: Arc<BuiltIn>,
}

impl Functions {
    pub fn new(raw: &RawCatalog) -> Functions {
        let relations = raw.relations.iter();
        let relations = relations.map(|relation| relation.name.as_str()).collect();
        let hidden = hidden_calls(raw);
        Functions {
            own: by_name(&raw.functions, (&relations, &hidden), &raw.built_in.by_name),
            hidden,
            built_in: Arc::clone(&raw.built_in),
        }
    }

    /// The functions of a name; of each schema there is one.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Function> {
        let own = self.own.get(name).map(Vec::as_slice).unwrap_or_default();
        let built_in = self.built_in.by_name.get(name).map(Vec::as_slice);
        let built_in = built_in.unwrap_or_default().iter();
        let is_hidden = |function: &&Function| own.iter().any(|one| one.schema == function.schema);
        own.iter()
            .chain(built_in.filter(move |one| !is_hidden(one)))
    }
}

/// Whom operators and types call, by their names.
fn hidden_calls(raw: &RawCatalog) -> HashMap<String, Vec<BodyCall>> {
    let mut hidden: HashMap<String, Vec<BodyCall>> = HashMap::new();
    for (mark, call) in &raw.hidden_calls {
        hidden.entry(mark.clone()).or_default().push(call.clone());
    }
    hidden
}

/// What is known beside functions: the names of all tables and their like, and whom operators and types call.
type Beside<'a> = (&'a HashSet<&'a str>, &'a HashMap<String, Vec<BodyCall>>);

/// Functions by name. What is `below` is part of those that have its name and schema.
fn by_name(
    rows: &[RawFunction],
    beside: Beside<'_>,
    below: &HashMap<String, Vec<Function>>,
) -> HashMap<String, Vec<Function>> {
    let mut functions: HashMap<String, Vec<Function>> = HashMap::new();
    let bodies: Vec<Option<Body>> = rows
        .iter()
        .map(|row| row.source.as_deref().and_then(Body::read))
        .collect();
    let suspects = suspects(rows, &bodies, beside, below);
    for (row, body) in rows.iter().zip(bodies) {
        let is_suspect = suspects.contains(row.name.as_str());
        let next = known(row, body, is_suspect);
        let overloads = functions.entry(row.name.clone()).or_default();
        if overloads.iter().all(|known| known.schema != row.schema) {
            let mut below = below.get(&row.name).into_iter().flatten();
            overloads.extend(below.find(|known| known.schema == row.schema).cloned());
        }
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
                known.takes_row |= next.takes_row;
                known.runs_queries |= next.runs_queries;
                known.routine = None;
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

/// The names of functions that may run queries, or call one that may: whatever is declared of a function, it does
/// what those do that it calls. `built_in` are the functions that PostgreSQL comes with.
fn suspects<'a>(
    rows: &'a [RawFunction],
    bodies: &[Option<Body>],
    (relations, hidden): Beside<'_>,
    built_in: &HashMap<String, Vec<Function>>,
) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    // Those of them that may be called as a field of a row.
    let mut fields = HashSet::new();
    let foreign = rows
        .iter()
        .filter(|row| row.language == "c" && row.volatility != 'i');
    let foreign: HashSet<&str> = foreign.map(|row| row.name.as_str()).collect();
    let harmful = |name: &str| names_harm(name, built_in) || foreign.contains(name);
    let mut is_more = true;
    while is_more {
        let before = (names.len(), fields.len());
        for (row, body) in rows.iter().zip(bodies) {
            let is_declared = is_code(row) && row.volatility != 'i';
            let is_seen = || {
                body.as_ref().is_some_and(|body| {
                    let behind = body.marks().filter_map(|mark| hidden.get(mark)).flatten();
                    let calls = body.calls.iter().chain(behind);
                    let mut calls = calls.map(|call| call.name.as_str());
                    reads(body, relations)
                        || calls.any(|name| names.contains(name) || harmful(name))
                        || body.names.iter().any(|name| fields.contains(name.as_str()))
                })
            };
            if is_declared || is_seen() {
                names.insert(row.name.as_str());
                if row.takes_row {
                    fields.insert(row.name.as_str());
                }
            }
        }
        is_more = before != (names.len(), fields.len());
    }
    names
}

/// Whether PostgreSQL comes with a function of this name that does more than compute, or reads tables that its
/// arguments name.
fn names_harm(name: &str, built_in: &HashMap<String, Vec<Function>>) -> bool {
    let functions = built_in.get(name).into_iter().flatten();
    functions
        .into_iter()
        .any(|function| match function.volatility {
            Volatility::Immutable => false,
            Volatility::Stable => name.contains("_to_xml") || MOMENTS.contains(&name),
            Volatility::Volatile => true,
        })
}

/// Whether a body names a relation or makes statements of strings.
fn reads(body: &Body, relations: &HashSet<&str>) -> bool {
    let mut names = body.names.iter();
    body.dynamic || (body.queries && names.any(|name| relations.contains(name.as_str())))
}

/// Whether it is in a language that may run queries.
fn is_code(row: &RawFunction) -> bool {
    !matches!(row.language.as_str(), "c" | "internal") && row.schema != "pg_catalog"
}

/// What is known of one function. It `is_suspect` if one of its name may run queries, by itself or by what it calls.
fn known(row: &RawFunction, body: Option<Body>, is_suspect: bool) -> Function {
    let volatility = match row.volatility {
        'i' => Volatility::Immutable,
        's' => Volatility::Stable,
        _ => Volatility::Volatile,
    };
    let is_code = is_code(row);
    let routine = match row.language.as_str() {
        "sql" | "plpgsql" if is_code && matches!(row.kind, 'f' | 'p') && body.is_some() => {
            let source = row.source.as_deref().filter(|_| !row.is_tree);
            source.map(|source| Routine {
                source: source.into(),
                is_plpgsql: row.language == "plpgsql",
                is_procedure: row.kind == 'p',
                arguments: row.arguments.clone().into(),
            })
        }
        _ => None,
    };
    // What is written in SQL and yet has no source to look at may do anything, whatever it is declared to be: the
    // default of an argument may draw from a sequence.
    let is_hidden = matches!(row.language.as_str(), "sql" | "plpgsql") && row.source.is_none();
    let is_suspect = is_hidden || is_suspect && body.is_some();
    let runs_queries = is_code && (volatility != Volatility::Immutable || is_suspect);
    Function {
        schema: row.schema.clone(),
        volatility,
        aggregate: row.kind == 'a',
        window: row.kind == 'w',
        returns_set: row.returns_set,
        takes_row: row.takes_row,
        runs_queries,
        bodies: match (runs_queries, row.kind) {
            (true, _) => body.map(|body| vec![body]),
            (false, 'a') => Some(body.into_iter().collect()),
            (false, _) => Some(Vec::new()),
        },
        routine,
    }
}
