//! Views through which PostgreSQL writes rows of a sharded table ("auto-updatable" ones): what such a view is to a
//! statement that writes to it.
//!
//! What holds:
//! - A view is one of these if it takes its rows from one sharded table, or from another such view, without more than
//!   conditions, has no rules and triggers of its own, and has the columns of the shard key under their names. What it
//!   calls must mean the same on every shard; the planner looks at that.
//! - To a statement that writes it is the table, with the view's columns. The shards get the statement as it came,
//!   so privileges, defaults and `WITH CHECK OPTION` are PostgreSQL's own.
//! - Columns that references or the primary key name have their names in the view too, or the planner would take
//!   another for them.

use std::sync::Arc;

use crate::catalog::Adds;
use crate::catalog::Location;
use crate::catalog::RawCatalog;
use crate::catalog::Relation;
use crate::catalog::TableColumn;
use crate::catalog::Written;
use crate::sql::analysis;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Facts;
use crate::sql::analysis::Output;
use crate::sql::analysis::SourceKind;
use crate::sql::lexer::tokenize;
use crate::sql::token::LexOptions;

/// Views on views are followed so far.
const DEPTH: usize = 8;

/// Finds what is written through each view.
pub(super) fn find(relations: &mut [Relation], raw: &RawCatalog) {
    // Those that the catalogue knows of a view are also its tables'.
    let has_own = |at: usize| {
        let row = raw.relations.get(at);
        row.is_none_or(|row| row.hazards.has_rules || !row.hazards.triggers.is_empty())
    };
    for _ in 0..DEPTH {
        let found: Vec<(usize, Relation)> = relations
            .iter()
            .enumerate()
            .filter(|(at, _)| !has_own(*at))
            .filter_map(|(at, view)| Some((at, through(view, relations)?)))
            .collect();
        if found.is_empty() {
            return;
        }
        for (at, written) in found {
            if let Some(view) = relations.get_mut(at) {
                view.written = Written::Through(Arc::new(written));
            }
        }
    }
}

/// What is written through a view of which that is not known yet.
fn through(view: &Relation, relations: &[Relation]) -> Option<Relation> {
    let is_open = view.is_view() && matches!(view.written, Written::Here);
    let is_nowhere = matches!(view.location, Location::Unserved(_));
    let definition = view
        .definition
        .as_deref()
        .filter(|_| is_open && is_nowhere)?;
    let tokens = tokenize(definition.as_bytes(), LexOptions::default()).ok()?;
    let tokens = match tokens.split_last() {
        Some((last, rest)) if last.is_symbol(definition, ";") => rest,
        _ => &tokens,
    };
    let facts = analysis::analyse(definition, tokens).ok()?;
    let base = base(&facts, relations)?;
    let outputs = &facts.blocks.first()?.outputs;
    if outputs.len() != view.columns.len() {
        return None;
    }
    let columns = view.columns.iter().zip(outputs);
    let columns: Option<Vec<TableColumn>> = columns
        .map(|(column, output)| written(column, output, base))
        .collect();
    let columns = columns?;
    let keeps = |name: &String| {
        let mut plain = columns.iter().zip(outputs);
        plain.any(|(column, output)| column.name == *name && origin(output, base) == Some(name))
    };
    let ties = &base.ties;
    let key = base
        .placement()?
        .columns()
        .iter()
        .map(|column| &column.name);
    let tied = ties.referring.iter().chain(&ties.referenced[..]);
    let is_own = |name: &&String| columns.iter().any(|column| column.name == **name);
    let mut named = key.chain(tied.chain(&base.primary_key).filter(is_own));
    if !named.all(keeps) || !key_is_there(base, &columns) {
        return None;
    }
    let shows = |column: &TableColumn| {
        let mut all = outputs.iter();
        all.any(|output| origin(output, base) == Some(&column.name))
    };
    let hidden = base.columns.iter().filter(|column| !shows(column));
    // What a row has there each shard finds by itself.
    let adds = hidden.map(|column| match &column.default {
        default if column.sequence_default || default.of_users => Adds::Nothing,
        default if default.of_statement => Adds::OneRow,
        _ => Adds::Rows,
    });
    let below = match base.written {
        Written::View { adds } => adds,
        _ => Adds::Rows,
    };
    let primary_key = match base.primary_key.iter().all(keeps) {
        true => base.primary_key.clone(),
        false => Vec::new(),
    };
    Some(Relation {
        primary_key,
        definition: Some(Arc::from(definition)),
        written: Written::View {
            adds: adds.fold(below, Adds::min),
        },
        columns,
        ..base.clone()
    })
}

/// The table that a definition takes its rows from, or what is written through the view that it takes them from.
fn base<'a>(facts: &Facts, relations: &'a [Relation]) -> Option<&'a Relation> {
    let [block] = facts.blocks.as_slice() else {
        return None;
    };
    let unfit = [
        Clauses::DISTINCT,
        Clauses::GROUP_BY,
        Clauses::HAVING,
        Clauses::LIMIT,
        Clauses::OFFSET,
        Clauses::LOCKING,
        Clauses::WINDOW,
        Clauses::WITH,
        Clauses::AGGREGATE,
    ];
    let is_unfit = unfit.iter().any(|one| block.clauses.has(*one));
    let [source] = block.sources.as_slice() else {
        return None;
    };
    let SourceKind::Relation(name) = &source.kind else {
        return None;
    };
    let is_plain = block.kind == BlockKind::Select && !source.sampled;
    if !is_plain || is_unfit || !facts.ctes.is_empty() || facts.system_columns {
        return None;
    }
    let schema = name.schema.as_deref()?;
    let mut named = relations.iter();
    let named = named.find(|one| one.schema == schema && one.name == name.name)?;
    let base = match &named.written {
        Written::Through(base) => base,
        _ => named,
    };
    let is_table = matches!(base.kind, 'r' | 'p');
    (is_table && base.placement().is_some()).then_some(base)
}

/// The column of the table that a column of a definition is.
fn origin<'a>(output: &'a Output, base: &Relation) -> Option<&'a String> {
    match output {
        Output::One {
            column: Some(column),
            ..
        } => base.column(&column.name).map(|_| &column.name),
        _ => None,
    }
}

/// A column of a view as a statement writes it; none if its default would not be the table's.
fn written(column: &TableColumn, output: &Output, base: &Relation) -> Option<TableColumn> {
    let Some((_, below)) = origin(output, base).and_then(|name| base.column(name)) else {
        return Some(column.clone());
    };
    // A view's own default is taken before the table's.
    let has_own = column.default.exists;
    let default = match has_own {
        true => &column.default,
        false => &below.default,
    };
    let is_asked = default.varies && default.sequence.is_none();
    // Defaults are asked for by the table's name and the column's.
    if is_asked && (has_own || column.name != below.name) {
        return None;
    }
    Some(TableColumn {
        name: column.name.clone(),
        sequence_default: match has_own {
            true => column.sequence_default,
            false => below.sequence_default,
        },
        default: default.clone(),
        ..below.clone()
    })
}

/// Whether the key's columns are there once each.
fn key_is_there(base: &Relation, columns: &[TableColumn]) -> bool {
    let key = base.placement().map(|placement| placement.columns());
    key.unwrap_or_default().iter().all(|key| {
        let same = columns.iter().filter(|column| column.name == key.name);
        same.count() == 1
    })
}
