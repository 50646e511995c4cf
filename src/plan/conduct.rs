//! What functions of users do, as far as their bodies tell.
//!
//! What holds:
//! - A function that reads and changes no relation, and calls none that does, is what the functions are that it
//!   calls, however it is declared: it may run on whatever shard.
//! - One that names no relation but those at home on the first shard has effects there
//!   ([`Effects::HOME`]), whatever triggers fire on the way.
//! - An aggregate is what it is made of.
//! - Of any other it is taken that it may read and change anything ([`Effects::USER_CODE`]).

use crate::catalog::Catalog;
use crate::catalog::Function;
use crate::catalog::Location;
use crate::catalog::Relation;
use crate::catalog::Trigger;
use crate::plan::effects;
use crate::plan::effects::Effects;
use crate::plan::hazards;
use crate::plan::query::FIRST_SHARD;
use crate::sharding::ShardIndex;
use crate::sql::body::Body;
use crate::sql::body::BodyCall;

/// Calls deeper than this are not followed: each body is read anew wherever it is called.
const DEPTH: usize = 4;

/// No shard.
const AWAY: ShardIndex = ShardIndex::MAX;

/// What is not known to be harmless anywhere.
const UNKNOWN: Effects = Effects::USER_CODE
    .with(Effects::SERVER)
    .with(Effects::WRITES)
    .with(Effects::RANDOM);

/// What may read or change relations that are not at home.
const LEAVES_HOME: Effects = Effects::USER_CODE
    .with(Effects::READS_TABLES)
    .with(Effects::UNKNOWN);

/// Trigger functions of PostgreSQL's own that change nothing but their row.
const HARMLESS_TRIGGERS: [&str; 3] = [
    "suppress_redundant_updates_trigger",
    "tsvector_update_trigger",
    "tsvector_update_trigger_column",
];

/// Follows bodies, on the shard where a statement runs.
#[derive(Clone, Copy)]
pub(super) struct Conduct<'a> {
    pub catalog: &'a Catalog,
    /// Where relations at home are in reach.
    pub home: ShardIndex,
}

impl<'a> Conduct<'a> {
    pub fn new(catalog: &'a Catalog) -> Conduct<'a> {
        Conduct {
            catalog,
            home: FIRST_SHARD,
        }
    }

    /// Where a row of a sharded or replicated table is: nothing at home is in reach.
    pub fn away(catalog: &'a Catalog) -> Conduct<'a> {
        Conduct {
            catalog,
            home: AWAY,
        }
    }

    /// Whether nothing at home is in reach.
    pub fn is_away(&self) -> bool {
        self.home == AWAY
    }

    /// The effects of a call that PostgreSQL has resolved.
    pub fn made(&self, call: &BodyCall) -> Effects {
        self.call(&Body::default(), call, 0)
    }

    /// The effects of a function that may run queries; none if its bodies can't be read.
    pub fn function(&self, function: &Function, depth: usize) -> Option<Effects> {
        let bodies = function.bodies.as_ref()?;
        if depth > DEPTH {
            return None;
        }
        let effects = bodies.iter().map(|body| self.body(body, depth));
        Some(effects.fold(Effects::NONE, |all, one| all | one))
    }

    /// The effects of a trigger.
    pub fn trigger(&self, trigger: &Trigger, depth: usize) -> Effects {
        let (schema, name) = (trigger.schema.as_str(), trigger.function.as_str());
        if trigger.is_guarded {
            return UNKNOWN;
        }
        if schema == "pg_catalog" && HARMLESS_TRIGGERS.contains(&name) {
            return Effects::NONE;
        }
        let mut effects = Effects::NONE;
        let mut is_known = false;
        for function in self.catalog.functions_named(Some(schema), name) {
            is_known = true;
            effects |= match function.runs_queries {
                true => self.function(function, depth).unwrap_or(UNKNOWN),
                false => UNKNOWN,
            };
        }
        match is_known {
            true => effects,
            false => UNKNOWN,
        }
    }

    /// The columns that a trigger may assign to in the row that is stored; none if that is not known.
    pub fn assigned(&self, trigger: &Trigger) -> Option<Vec<String>> {
        let mut assigned = Vec::new();
        if !trigger.is_before_row
            || (trigger.schema == "pg_catalog"
                && HARMLESS_TRIGGERS.contains(&trigger.function.as_str()))
        {
            return Some(assigned);
        }
        for function in self
            .catalog
            .functions_named(Some(&trigger.schema), &trigger.function)
        {
            for body in function.bodies.as_ref()? {
                assigned.extend(body.assigned.clone()?);
            }
        }
        Some(assigned)
    }

    /// The effects of running a body.
    pub fn body(&self, body: &Body, depth: usize) -> Effects {
        let mut effects = Effects::NONE;
        for call in &body.calls {
            effects |= self.call(body, call, depth);
        }
        for name in &body.names {
            effects |= self.field_within(name, depth + 1);
        }
        for mark in body.marks() {
            effects |= self.behind(mark, depth + 1);
        }
        if body.reports {
            effects |= Effects::SERVER;
        }
        if !body.queries {
            return effects;
        }
        if body.dynamic || !self.stays_home(body, depth) {
            return effects | UNKNOWN;
        }
        effects |= Effects::SERVER | Effects::RANDOM;
        if !self.is_away() {
            effects |= Effects::HOME;
        }
        match body.writes {
            true => effects | Effects::WRITES,
            false => effects,
        }
    }

    /// The effects of a call in a body. A name means whatever some schema has by it: the search path is that of
    /// whoever calls.
    pub fn call(&self, body: &Body, call: &BodyCall, depth: usize) -> Effects {
        let schema = call.schema.as_deref();
        let mut functions = self.catalog.functions_named(schema, &call.name).peekable();
        if functions.peek().is_none() {
            return match effects::grammar_effects(&call.name) {
                Some(effects) if matches!(schema, None | Some("pg_catalog")) => effects,
                // A table with a list of its columns looks like a call.
                _ if body.queries => Effects::NONE,
                _ => Effects::UNKNOWN | UNKNOWN,
            };
        }
        functions.fold(Effects::NONE, |all, function| {
            all | effects::of_function(self, function, &call.name, call.arguments, depth + 1)
        })
    }

    /// The effects of an operator, or of a value of a type.
    pub fn behind(&self, mark: &str, depth: usize) -> Effects {
        let calls = self.catalog.hidden_calls(mark).iter();
        calls.fold(Effects::NONE, |all, call| {
            all | self.call(&Body::default(), call, depth)
        })
    }

    /// The calls in the definition of a view, and of the views that it reads, that have effects. A server prints
    /// a definition with the schema before every name that is not in `pg_catalog`.
    pub fn view(&self, view: &Relation, depth: usize) -> Vec<(String, Effects)> {
        let mut found = Vec::new();
        let mut views = vec![view];
        let mut at = 0;
        while let Some(view) = views.get(at).copied() {
            at += 1;
            let Some(mut body) = view.definition.as_deref().and_then(Body::read) else {
                // In a transaction that has run definitions nobody has printed it.
                let calls = view
                    .hazards
                    .calls
                    .iter()
                    .map(|call| (call.name.clone(), self.made(call)));
                found.extend(calls.filter(|(_, effects)| *effects != Effects::NONE));
                continue;
            };
            // What is no function is a list of columns.
            body.queries = true;
            for call in &body.calls {
                let schema = call.schema.as_deref().unwrap_or("pg_catalog");
                let call = BodyCall {
                    schema: Some(schema.to_owned()),
                    ..call.clone()
                };
                let effects = self.call(&body, &call, depth);
                if effects != Effects::NONE {
                    found.push((call.name, effects));
                }
            }
            for mark in body.marks() {
                let effects = self.behind(mark, depth);
                if effects != Effects::NONE {
                    found.push((mark.to_owned(), effects));
                }
            }
            for name in &body.names {
                for read in self.catalog.relations_named(name) {
                    let is_known = views.iter().any(|one| one.oid == read.oid);
                    if read.kind == 'v' && !is_known {
                        views.push(read);
                    }
                }
            }
        }
        found
    }

    /// The effects of naming a field of a row, which may be a function of the row.
    pub fn field(&self, name: &str) -> Effects {
        self.field_within(name, 0)
    }

    fn field_within(&self, name: &str, depth: usize) -> Effects {
        let functions = self.catalog.functions_named(None, name);
        let functions = functions.filter(|function| function.takes_row);
        functions.fold(Effects::NONE, |all, function| {
            all | effects::of_function(self, function, name, 1, depth)
        })
    }

    /// Whether all relations that a body names are at home, with whatever happens behind their backs.
    fn stays_home(&self, body: &Body, depth: usize) -> bool {
        let mut names = body.names.iter();
        names.all(|name| {
            let mut relations = self.catalog.relations_named(name);
            relations.all(|relation| self.is_at_home(relation, body.writes, depth))
        })
    }

    fn is_at_home(&self, relation: &Relation, writes: bool, depth: usize) -> bool {
        if relation.kind == 'v' {
            let calls = match depth > DEPTH {
                true => return false,
                false => self.view(relation, depth + 1),
            };
            if calls.iter().any(|(_, effects)| effects.any(LEAVES_HOME)) {
                return false;
            }
        }
        match relation.location {
            Location::Home(shard) if shard == self.home => {
                !relation.hazards.leaves_home
                    && (!writes || !hazards::is_code_away(self.catalog, relation))
                    && (!writes
                        || self
                            .leaves_home(&relation.hazards.triggers, depth)
                            .is_none())
            }
            Location::Replicated => !writes && !relation.hazards.row_security,
            _ => false,
        }
    }

    /// The first of these triggers that may read or change what is not at home.
    pub fn leaves_home<'t>(&self, triggers: &'t [Trigger], depth: usize) -> Option<&'t Trigger> {
        triggers
            .iter()
            .find(|trigger| depth > DEPTH || self.trigger(trigger, depth + 1).any(LEAVES_HOME))
    }
}
