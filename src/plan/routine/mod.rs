//! Functions and triggers whose queries stay on the shard of a key that is given to them.
//!
//! What holds:
//! - Every query of the body is planned as a statement of its own, whose parameters are the arguments (of a trigger:
//!   the columns of the shard key of its row). Each sharded table in it must be restricted to a key of arguments
//!   alone, by the proof that a statement needs; replicated tables are read, and nothing else is touched. So the body
//!   does on the shard of these keys what it would do on one PostgreSQL, if all of them are on one shard
//!   ([`call`], [`trigger`]).
//! - A name stands for an argument only if nothing in the body could give it another meaning: no variable has it,
//!   nothing assigns to it, and no table of its query has such a column. Where a variable might hide a column of a
//!   query, the body is not taken.
//! - A name of a table means the same in every search path: there is one of this name.
//! - The body runs no text that it makes, ends no transaction, and calls nothing that is not harmless.
//! - Rows that it stores have no value that only the first shard could give: numbers of sequences.

pub(super) mod call;

use crate::catalog::Catalog;
use crate::catalog::Function;
use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::catalog::Trigger;
use crate::plan::Request;
use crate::plan::bind::BoundSource;
use crate::plan::bind::same_family;
use crate::plan::conduct::Conduct;
use crate::plan::effects::Effects;
use crate::plan::hazards;
use crate::plan::insert;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::Proof;
use crate::plan::names;
use crate::plan::proof::Prover;
use crate::plan::query::Query;
use crate::plan::query::check_assigned;
use crate::plan::statement::Part;
use crate::sharding::KeyColumn;
use crate::sharding::KeyType;
use crate::sql::analysis;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::SourceKind;
use crate::sql::body::Body;
use crate::sql::lexer::tokenize;
use crate::sql::routine;
use crate::sql::routine::Known;
use crate::sql::routine::Routine;
use crate::sql::routine::RowsUsed;
use crate::sql::shape;
use crate::sql::shape::Shape;
use crate::sql::token::LexOptions;

/// What a body may do beside reading and changing rows of its shard.
const HARMLESS: Effects = Effects::RANDOM
    .with(Effects::CLOCK)
    .with(Effects::SERVER)
    .with(Effects::AGGREGATE)
    .with(Effects::WINDOW);

/// Variables that PL/pgSQL has in every body.
const OWN_VARIABLES: [&str; 6] = ["found", "sqlstate", "sqlerrm", "new", "old", "tg_argv"];

/// Names of arguments that mean something else when they stand without quotes.
const KEYWORDS: [&str; 19] = [
    "user",
    "current_user",
    "session_user",
    "system_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "null",
    "true",
    "false",
    "default",
    "all",
    "any",
    "some",
];

/// Triggers that fire in a function called by a statement are followed so deep.
const DEPTH: usize = 3;

/// What a body does.
pub(super) struct Confined {
    /// What restricts its tables to keys; the parameters in them are its arguments.
    pub proofs: Vec<Proof>,
    /// What it does beyond that.
    pub effects: Effects,
}

/// Follows one body.
struct Reader<'a> {
    catalog: &'a Catalog,
    routine: &'a Routine,
    is_plpgsql: bool,
    /// Names that stand for parameters.
    known: Vec<Known>,
    /// All variables that have a name of their own.
    variables: Vec<String>,
    /// The types of the parameters.
    types: Vec<u32>,
    /// The rows for which a trigger runs.
    fired: Option<&'a Trigger>,
    /// Triggers that fire are followed so deep.
    depth: usize,
    confined: Confined,
}

/// What a function does, if that stays on the shard of its arguments.
pub(super) fn function(catalog: &Catalog, function: &Function) -> Option<Confined> {
    let source = function.routine.as_ref()?;
    let routine = Routine::read(&source.source, source.is_plpgsql)?;
    let mut known = Vec::new();
    let mut types = Vec::new();
    let mut variables = Vec::new();
    for argument in source.arguments.iter() {
        let is_given = matches!(argument.mode, 'i' | 'b' | 'v');
        if is_given {
            types.push(argument.type_oid);
        }
        if argument.name.is_empty() {
            continue;
        }
        variables.push(argument.name.clone());
        let is_assigned = routine.variables.contains(&argument.name);
        let is_keyword = KEYWORDS.contains(&argument.name.as_str());
        if argument.mode == 'i' && !is_assigned && !is_keyword {
            known.push(Known::Variable(argument.name.clone(), types.len()));
        }
    }
    let reader = Reader {
        catalog,
        routine: &routine,
        is_plpgsql: source.is_plpgsql,
        known,
        variables,
        types,
        fired: None,
        depth: DEPTH,
        confined: Confined {
            proofs: Vec::new(),
            effects: Effects::NONE,
        },
    };
    reader.read(&source.source)
}

/// The effects of a trigger of a sharded table, if it touches nothing but what is on the shard of its row.
pub(super) fn trigger(
    catalog: &Catalog,
    relation: &Relation,
    trigger: &Trigger,
    depth: usize,
) -> Option<Effects> {
    // The rows that follow a foreign key are another table's, and those of a transition table all of the statement's.
    let sees_more = trigger.follows || trigger.has_transitions;
    if !trigger.is_row || trigger.is_guarded || sees_more {
        return None;
    }
    let placement = relation.placement()?;
    let mut functions = catalog.functions_named(Some(&trigger.schema), &trigger.function);
    let function = functions.next().filter(|_| functions.next().is_none())?;
    let source = function.routine.as_ref().filter(|one| one.is_plpgsql)?;
    let routine = Routine::read(&source.source, true)?;
    let mut known = Vec::new();
    let mut types = Vec::new();
    for (number, key) in placement.columns().iter().enumerate() {
        let (_, column) = relation.column(&key.name)?;
        types.push(column.type_oid);
        known.push(Known::Field(key.name.clone(), number + 1));
        let assigned = [format!("new.{}", key.name), format!("old.{}", key.name)];
        let is_row = |name: &String| name == "new" || name == "old" || assigned.contains(name);
        if routine.variables.iter().any(is_row) {
            return None;
        }
    }
    let reader = Reader {
        catalog,
        routine: &routine,
        is_plpgsql: true,
        known,
        variables: Vec::new(),
        types,
        fired: Some(trigger),
        depth,
        confined: Confined {
            proofs: Vec::new(),
            effects: Effects::NONE,
        },
    };
    let confined = reader.read(&source.source)?;
    let is_same = |proof: &Proof| {
        let parts = proof.parts.iter().enumerate();
        let mut own = parts.map(|(number, part)| {
            let [value] = &*part.values else { return false };
            value.source == KeySource::Parameter(number)
        });
        proof.placement.colocated_with(placement) && own.all(|is_own| is_own)
    };
    // A key that is stored with another length may not stay what it is.
    let is_alike = |proof: &Proof| {
        let mut pairs = proof.parts.iter().zip(placement.columns());
        pairs.all(|(part, own)| {
            same_family(part.column.key_type, own.column_type.key_type)
                && (part.column.typmod == -1 || part.column == own.column_type)
        })
    };
    let mut proofs = confined.proofs.iter();
    proofs
        .all(|proof| is_same(proof) && is_alike(proof))
        .then_some(confined.effects)
}

impl Reader<'_> {
    fn read(mut self, source: &str) -> Option<Confined> {
        let body = Body::read(source)?;
        if body.dynamic {
            return None;
        }
        let conduct = Conduct::new(self.catalog);
        for call in &body.calls {
            self.note(conduct.call(&body, call, 1))?;
        }
        for name in &body.names {
            self.note(conduct.field(name))?;
        }
        if body.reports {
            self.note(Effects::SERVER)?;
        }
        self.variables
            .extend(self.routine.variables.iter().cloned());
        let own = OWN_VARIABLES.iter().map(|name| (*name).to_owned());
        self.variables.extend(own);
        for query in &self.routine.queries {
            self.query(query)?;
        }
        Some(self.confined)
    }

    fn note(&mut self, effects: Effects) -> Option<()> {
        // What is computed of rows of the shard is nothing to the statement outside.
        let inside = Effects::AGGREGATE | Effects::WINDOW;
        self.confined.effects |= effects.without(inside);
        (effects.without(HARMLESS) == Effects::NONE).then_some(())
    }

    fn query(&mut self, piece: &routine::Query) -> Option<()> {
        let path = self.schemas(piece)?;
        let text = self.routine.text(piece, &self.usable(piece));
        let lex = LexOptions::default();
        let mut shape = Shape::default();
        shape::scan(text.as_bytes(), lex, &mut shape).ok()?;
        let tokens = tokenize(text.as_bytes(), lex).ok()?;
        let facts = analysis::analyse(&text, &tokens).ok()?;
        let types = self.types.clone();
        let request = Request {
            text: &text,
            shape: &shape,
            lex,
            parse_bytes: usize::MAX,
            parameter_types: &types,
            search_path: &path,
            is_template: false,
            temporary_tables: false,
            by_key: false,
            catalog: self.catalog,
        };
        let part = Part {
            request: &request,
            all: &tokens,
            tokens: &tokens,
        };
        let query = Query::new(part, &facts);
        if !names::all_known(part, &facts)
            || !facts.created.is_empty()
            || facts.system_columns
            || facts.object_ids
        {
            return None;
        }
        // In SQL a column of a query within wins, and may have its name from nowhere.
        let mut sources = query.bound.occurrences();
        let is_named = self.usable(piece).iter().any(|known| match known {
            Known::Variable(variable, _) => self.routine.names(piece).contains(variable),
            Known::Field(..) => false,
        });
        if !self.is_plpgsql && is_named && sources.any(|(_, _, bound)| bound.relation().is_none()) {
            return None;
        }
        for effects in &query.calls {
            self.note(*effects)?;
        }
        let given = self.routine.rows_used(piece, &self.known);
        self.sources(&query, given)
    }

    /// The schemas of the relations that a query may name, each of which is the only one of its name.
    fn schemas(&self, piece: &routine::Query) -> Option<Vec<String>> {
        let mut schemas: Vec<String> = Vec::new();
        for name in self.routine.names(piece) {
            let mut relations = self.catalog.relations_named(&name);
            let Some(relation) = relations.next() else {
                continue;
            };
            if relations.next().is_some() {
                return None;
            }
            if !schemas.contains(&relation.schema) {
                schemas.push(relation.schema.clone());
            }
        }
        Some(schemas)
    }

    /// The names that stand for parameters in a query: no table in it has such a column.
    fn usable(&self, piece: &routine::Query) -> Vec<Known> {
        let names = self.routine.names(piece);
        let is_column = |variable: &str| {
            names.iter().any(|name| {
                let mut relations = self.catalog.relations_named(name);
                relations.any(|relation| relation.column(variable).is_some())
            })
        };
        let mut known = self.known.clone();
        known.retain(|known| match known {
            Known::Field(..) => true,
            // Columns of VALUES, and those that are called like a function, have their names from nowhere.
            Known::Variable(variable, _) => {
                !variable.starts_with("column")
                    && !self.routine.is_named_otherwise(piece, variable)
                    && !is_column(variable)
            }
        });
        known
    }

    fn sources(&mut self, query: &Query<'_>, given: RowsUsed) -> Option<()> {
        let prover = Prover::new(query);
        let mut is_replicated = false;
        for (block, source, bound) in query.bound.occurrences() {
            let facts = query.facts.blocks.get(block)?;
            let written = facts.sources.get(source)?;
            if let Some(alias) = &written.alias {
                self.check_name(alias)?;
            }
            if let SourceKind::Relation(name) = &written.kind {
                self.check_name(&name.name)?;
            }
            let relation = match bound {
                BoundSource::Query(_) => continue,
                BoundSource::Named(Lookup::Relation(relation)) => relation,
                _ => return None,
            };
            self.check_columns(query, relation)?;
            if relation.hazards.row_security {
                return None;
            }
            let is_target = source == 0 && facts.kind.modifies();
            match &relation.location {
                Location::Replicated if !is_target => is_replicated = true,
                Location::Sharded(_) if is_target => {
                    self.target((query, given), relation, (block, source), &prover)?;
                }
                Location::Sharded(_) => {
                    let proof = prover.prove(relation, block, source)?;
                    self.proof(proof)?;
                }
                _ => return None,
            }
        }
        let mut blocks = query.facts.blocks.iter();
        let locks = blocks.any(|block| block.clauses.has(Clauses::LOCKING));
        (!is_replicated || !locks).then_some(())
    }

    /// A variable of the name of a table might stand for it.
    fn check_name(&self, name: &str) -> Option<()> {
        let is_hidden = self.is_plpgsql && self.variables.iter().any(|known| known == name);
        (!is_hidden).then_some(())
    }

    /// No variable of PL/pgSQL hides a column that a query names.
    fn check_columns(&self, query: &Query<'_>, relation: &Relation) -> Option<()> {
        if !self.is_plpgsql {
            return Some(());
        }
        let mut references = query.facts.references.iter();
        let is_hidden = references.any(|reference| {
            let name = &reference.column.name;
            reference.column.qualifier.is_empty()
                && self.variables.contains(name)
                && relation.column(name).is_some()
        });
        (!is_hidden).then_some(())
    }

    /// A table whose rows are changed.
    fn target(
        &mut self,
        (query, given): (&Query<'_>, RowsUsed),
        relation: &Relation,
        (block, source): (usize, usize),
        prover: &Prover<'_>,
    ) -> Option<()> {
        let kind = query.facts.blocks.get(block).map(|block| &block.kind)?;
        let events = hazards::events_of(kind);
        self.confined.effects |=
            hazards::effects_behind(self.catalog, relation, events, self.depth)?;
        query.check_called_defaults(relation).ok()?;
        match kind {
            BlockKind::Insert(insert) => {
                let mut proofs = Vec::new();
                insert::prove(relation, insert, prover, &mut proofs).ok()?;
                for column in &relation.columns {
                    let listed = insert.columns.as_ref();
                    let is_given = listed.is_some_and(|names| names.contains(&column.name));
                    if is_given {
                        continue;
                    }
                    let default = &column.default;
                    if default.of_users || column.sequence_default || default.identity.is_some() {
                        return None;
                    }
                    if default.of_statement {
                        self.confined.effects |= Effects::CLOCK;
                    }
                }
                // DEFAULT among the values is not looked at.
                let text = query.request.text;
                if query
                    .body
                    .iter()
                    .any(|token| token.is_word(text, "default"))
                {
                    return None;
                }
                for proof in proofs {
                    self.stored(proof, relation, given)?;
                }
                return Some(());
            }
            BlockKind::Update(columns) => {
                check_assigned(relation, columns).ok()?;
                query.check_defaults(relation, columns, true).ok()?;
            }
            BlockKind::Delete => {}
            _ => return None,
        }
        self.proof(prover.prove(relation, block, source)?)
    }

    /// Takes a proof whose values are arguments.
    fn proof(&mut self, proof: Proof) -> Option<()> {
        for (part, key) in proof.parts.iter().zip(proof.placement.columns()) {
            for value in &part.values {
                let KeySource::Parameter(index) = value.source else {
                    return None;
                };
                let given = KeyType::from_oid(*self.types.get(index)?)?;
                if value.cast != 0
                    || !is_exact(given)
                    || !same_family(given, part.column.key_type)
                    || !same_family(given, key.column_type.key_type)
                {
                    return None;
                }
            }
        }
        self.confined.proofs.push(proof);
        Some(())
    }

    /// Takes a proof of a row that is stored. Its key must not be NULL, which one PostgreSQL might store.
    fn stored(&mut self, mut proof: Proof, relation: &Relation, given: RowsUsed) -> Option<()> {
        // A trigger has no NEW for rows that are deleted, and no OLD for those that are inserted.
        let lacks = |event: u16, is_used: bool| {
            let fired = self.fired.map_or(0, |trigger| trigger.own_events);
            is_used && fired & event != 0
        };
        let may_be_null = lacks(Trigger::DELETE, given.new) || lacks(Trigger::INSERT, given.old);
        let is_not_null = |key: &KeyColumn| {
            relation
                .column(&key.name)
                .is_some_and(|(_, column)| column.not_null)
        };
        if may_be_null && !proof.placement.columns().iter().all(is_not_null) {
            return None;
        }
        // Whether the row is stored at all is not known.
        proof.optional = true;
        self.proof(proof)
    }
}

/// Whether a value of this type is the same key wherever it is given.
fn is_exact(key_type: KeyType) -> bool {
    matches!(
        key_type,
        KeyType::Int2
            | KeyType::Int4
            | KeyType::Int8
            | KeyType::Text
            | KeyType::Varchar
            | KeyType::Uuid
    )
}
