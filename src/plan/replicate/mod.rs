//! Writes to replicated tables: what the first shard runs, and what the others run behind it.
//!
//! What holds:
//! - The rows of a replicated table are the same on every shard. A statement runs on the first shard
//!   first; once it has completed there, the others follow. So writers of the same rows meet on the first
//!   shard, and every shard changes in the order in which that one did.
//! - *The same text* goes to the others only if it means the same there: one table, constants, parameters,
//!   functions without effects, and for what it leaves out defaults that never vary. It names its rows by
//!   their primary key or brings them along; any other UPDATE or DELETE locks the table against other
//!   writers on each shard, so that both see the same rows.
//! - Any other statement is evaluated once, on the first shard, which returns the *images* of the rows: all
//!   columns of an INSERT; the primary key, and of an UPDATE what it assigns. They become one statement
//!   for each row, by its primary key unless it is new.
//! - Every shard must change as many rows as the first, else the statement fails on all.

mod images;

use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::bind::BoundSource;
use crate::plan::effects::Effects;
use crate::plan::hazards::check_quiet;
use crate::plan::keyed::names_moment;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Equals;
use crate::sql::analysis::Insert;
use crate::sql::analysis::Rows;
use crate::sql::literal::quote_identifier;

pub use images::Images;

/// How a replicated table is written.
#[derive(Clone, Debug)]
pub struct Replicate {
    /// The table's name, for messages.
    pub table: String,
    /// What locks tables against other writers, where the text goes everywhere.
    pub lock: Option<String>,
    /// The text means the same on every shard, unless a constant names a moment.
    is_same: bool,
    /// How it is evaluated once, or why it can't be.
    images: Result<Arc<Images>>,
}

/// How one execution is carried out.
#[derive(Clone, Debug)]
pub enum Carried {
    /// The same text goes to every shard.
    Same,
    /// It is evaluated once.
    Once(Arc<Images>),
}

impl Replicate {
    /// How an execution is carried out.
    ///
    /// # Errors
    /// `0A000` if it would have to be evaluated once and can't.
    pub fn carried(&self, arguments: &Arguments<'_>) -> Result<Carried> {
        if self.is_same && !names_moment(arguments) {
            return Ok(Carried::Same);
        }
        self.images.clone().map(Carried::Once)
    }

    /// What it does, in words.
    pub(super) fn words(&self) -> String {
        let how = match (self.is_same, &self.images) {
            (false, Ok(images)) => format!("once, {}", images.words()),
            _ => "everywhere".to_owned(),
        };
        let lock = self.lock.as_ref().filter(|_| self.is_same);
        let lock = if lock.is_some() { ", locked" } else { "" };
        format!("Replicated {}, {how}{lock}", self.table)
    }
}

/// The target of a statement that writes to a replicated table; none if there is no such.
///
/// # Errors
/// `0A000` for one that is not written by the statement as a whole.
pub(super) fn target<'a>(query: &Query<'a>) -> Result<Option<&'a Relation>> {
    let mut found = None;
    for (block, source, bound) in query.bound.occurrences() {
        let kind = query.facts.blocks.get(block).map(|block| &block.kind);
        let is_written = source == 0 && kind.is_some_and(BlockKind::modifies);
        if let BoundSource::Named(Lookup::Relation(relation)) = bound
            && is_written
            && matches!(relation.location, Location::Replicated)
        {
            let is_whole = block == 0 && !matches!(kind, Some(BlockKind::Merge(_)));
            if !is_whole {
                return Err(refusal::writes_replicated(&relation.name));
            }
            found = Some(relation);
        }
    }
    Ok(found)
}

/// Plans a statement that writes to a replicated table.
///
/// # Errors
/// `0A000` for what can't be kept the same on all shards.
pub(super) fn plan(query: &Query<'_>, relation: &Relation) -> Result<Replicate> {
    if relation.is_view() {
        return Err(refusal::no_place(&relation.name, "it is a view"));
    }
    let keeping = Effects::PINS | Effects::SET_CONFIG | Effects::NOTIFIES;
    if let Some(name) = query.call_with(keeping) {
        return Err(refusal::own_call(name));
    }
    let Some(block) = query.facts.blocks.first() else {
        return Err(refusal::writes_replicated(&relation.name));
    };
    let others = query.facts.blocks.iter().skip(1);
    if others.into_iter().any(|block| block.kind.modifies()) {
        return Err(refusal::writes_with(&relation.name));
    }
    let reads = Reads::of(query)?;
    // The images of rows would have the triggers fire once more.
    let images = match check_quiet(relation, query.events()) {
        Ok(()) => images::plan(query, relation, block),
        Err(error) => Err(error),
    };
    let is_same = reads.is_replicated && is_pure(query) && {
        let is_alone = block.sources.len() == 1
            && query.facts.ctes.is_empty()
            && query.facts.blocks.iter().skip(1).all(is_values);
        match (is_alone, &images) {
            (true, _) => has_fixed_defaults(query, relation, block),
            // Whichever rows another order would give it: it has no use for their order.
            (false, Err(_)) => is_about_sets(query, block),
            (false, Ok(_)) => false,
        }
    };
    if !is_same && let Err(error) = images {
        return Err(error);
    }
    let is_addressed = matches!(block.kind, BlockKind::Insert(_))
        || (query.facts.blocks.len() == 1 && names_one_row(relation, block));
    Ok(Replicate {
        table: relation.name.clone(),
        lock: (is_same && !is_addressed).then(|| reads.lock(relation)),
        is_same,
        images: images.map(Arc::new),
    })
}

/// What a statement reads.
struct Reads<'a> {
    /// Nothing but replicated tables.
    is_replicated: bool,
    tables: Vec<&'a Relation>,
}

impl<'a> Reads<'a> {
    /// # Errors
    /// `0A000` for what the first shard does not have.
    fn of(query: &Query<'a>) -> Result<Reads<'a>> {
        let mut reads = Reads {
            is_replicated: true,
            tables: Vec::new(),
        };
        for (_, _, bound) in query.bound.occurrences() {
            let BoundSource::Named(lookup) = bound else {
                continue;
            };
            let home = match lookup {
                Lookup::Relation(relation) => match &relation.location {
                    Location::Replicated => {
                        reads.tables.push(relation);
                        continue;
                    }
                    Location::Home(shard) => *shard,
                    Location::Sharded(_) => return Err(refusal::reads_sharded(&relation.name)),
                    Location::Unserved(why) => {
                        return Err(refusal::unserved(&relation.name, why));
                    }
                },
                Lookup::Unknown { home, .. } if !query.request.temporary_tables => home,
                Lookup::System | Lookup::Temporary | Lookup::Unknown { .. } => FIRST_SHARD,
            };
            if home != FIRST_SHARD {
                return Err(refusal::several_homes());
            }
            reads.is_replicated = false;
        }
        Ok(reads)
    }

    /// Locks the tables against other writers.
    fn lock(&self, target: &Relation) -> String {
        let mut names: Vec<String> = vec![full_name(target)];
        for table in self.tables.iter().filter(|table| !table.is_view()) {
            let name = full_name(table);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
            names.join(", ")
        )
    }
}

/// A table's name as SQL has it.
fn full_name(relation: &Relation) -> String {
    let schema = quote_identifier(&relation.schema);
    format!("{schema}.{}", quote_identifier(&relation.name))
}

/// Whether nothing in it depends on the server, the moment or the call.
fn is_pure(query: &Query<'_>) -> bool {
    query.effects.without(Effects::AGGREGATE | Effects::WINDOW) == Effects::NONE
        && !query.facts.object_ids
        && !query.facts.system_columns
}

fn is_values(block: &Block) -> bool {
    matches!(block.kind, BlockKind::Values)
}

/// Whether what it leaves to defaults is the same wherever they are evaluated.
fn has_fixed_defaults(query: &Query<'_>, relation: &Relation, block: &Block) -> bool {
    let varies = |name: &String| {
        let column = relation.column(name);
        column.is_none_or(|(_, column)| column.default.varies)
    };
    let text = query.request.text;
    let says_default = query
        .body
        .iter()
        .any(|token| token.is_word(text, "default"));
    match &block.kind {
        BlockKind::Update(assigned) => !says_default || !assigned.iter().any(varies),
        BlockKind::Insert(insert) => {
            let mut assigned = insert.conflict_assigns.iter();
            let is_varying = insert.overriding_user
                || left_out(relation, insert).any(|column| column.default.varies)
                || (says_default && assigned.any(varies));
            !is_varying
        }
        _ => true,
    }
}

/// The columns for which some row of an INSERT brings no value.
fn left_out<'a>(
    relation: &'a Relation,
    insert: &'a Insert,
) -> impl Iterator<Item = &'a crate::catalog::TableColumn> {
    let columns = relation.columns.iter().enumerate();
    columns.filter_map(move |(index, column)| {
        let position = match &insert.columns {
            Some(listed) => listed.iter().position(|name| *name == column.name),
            None => Some(index),
        };
        let is_given = position.is_some_and(|position| match &insert.rows {
            Rows::Default | Rows::Query(_) => false,
            Rows::Values(rows) => rows
                .iter()
                .all(|row| !matches!(row.get(position), None | Some(Cell::Default))),
        });
        (!is_given).then_some(column)
    })
}

/// Whether the rows that it changes are a set that does not depend on the order in which it meets rows.
fn is_about_sets(query: &Query<'_>, block: &Block) -> bool {
    let ordered = [
        Clauses::DISTINCT,
        Clauses::LIMIT,
        Clauses::OFFSET,
        Clauses::WINDOW,
        Clauses::GROUP_BY,
        Clauses::AGGREGATE,
        Clauses::LOCKING,
    ];
    let has_ordered = |block: &Block| ordered.iter().any(|clause| block.clauses.has(*clause));
    matches!(block.kind, BlockKind::Delete)
        && query.effects == Effects::NONE
        && !query.facts.blocks.iter().any(has_ordered)
        && !query
            .facts
            .blocks
            .iter()
            .flat_map(|block| &block.sources)
            .any(|source| source.sampled)
}

/// Whether its conditions name one row at most by the primary key.
fn names_one_row(relation: &Relation, block: &Block) -> bool {
    let target = block.sources.first();
    let name = target.and_then(|source| source.alias.as_ref());
    let name = name.unwrap_or(&relation.name);
    let is_named = |key: &String| {
        block.conditions.iter().any(|condition| {
            let column = &condition.column;
            let is_own = column.qualifier.last().is_none_or(|one| one == name);
            let is_one = matches!(&condition.equals, Equals::Values(values) if values.len() == 1);
            is_own && is_one && column.name == *key
        })
    };
    !relation.primary_key.is_empty() && relation.primary_key.iter().all(is_named)
}

/// That the images of rows can't be had.
fn no_images(relation: &Relation, why: impl Into<String>) -> Error {
    Error::refused(
        format!(
            "this change of the replicated table \"{}\" is not supported",
            relation.name
        ),
        why.into(),
        "Name the rows by constants or parameters, and compute values first.",
    )
}
