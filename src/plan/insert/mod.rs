//! `INSERT` into sharded tables: the key of each row.
//!
//! Where all rows are for one shard the statement goes there as it is. Rows of several are told apart by
//! [`rows`], which also has the expressions evaluated that say where a row belongs, or that would not mean
//! the same on every shard; what is neither is refused.

mod clock;
mod expression;
pub(in crate::plan) mod listed;
mod parts;
mod rows;
mod times;

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::catalog::Trigger;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::effects::Effects;
use crate::plan::hazards::check_secured;
use crate::plan::hazards::check_spread;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Part;
use crate::plan::keyed::Proof;
use crate::plan::proof::Prover;
use crate::plan::query::Query;
use crate::plan::query::check_assigned;
use crate::plan::refusal;
use crate::sharding::KeyColumn;
use crate::sharding::KeyUse;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::CastType;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Insert;
use crate::sql::analysis::Rows;
use crate::sql::analysis::Value;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::values;
use crate::sql::values::Pattern;

pub use clock::Clock;
pub use expression::Expression;
pub use expression::together;
pub use listed::Listed;
pub use parts::PartParameter;
pub use parts::Placed;
pub use parts::RowsPart;
pub use rows::Computed;
pub use rows::Expressions;
pub use rows::Insertion;

use parts::parameter;
use parts::span;
use rows::Evaluated;
pub(super) use rows::Origin;
use rows::RowPattern;

/// `date`, `time`, `timestamp`, `timestamptz`, `timetz`: types that read `'now'` as a moment.
const MOMENTS: [u32; 5] = [1082, 1083, 1114, 1184, 1266];

/// An `INSERT … VALUES` that may be taken apart by the shards of its rows; none if that does not apply:
/// it is something else, has one row only, or needs one shard for another reason.
///
/// # Errors
/// Why the table can't be written so.
pub(super) fn over_shards(query: &Query<'_>) -> Result<Option<Insertion>> {
    let Some((block, insert, relation)) = target(query) else {
        return Ok(None);
    };
    let Rows::Values(facts) = &insert.rows else {
        return Ok(None);
    };
    let Some((insertion, known)) = taken_apart(query, insert, facts, relation) else {
        return Ok(None);
    };
    // What is evaluated by itself does not know the queries that stand before the statement.
    let has_queries = query
        .body
        .first()
        .is_some_and(|first| first.is_word(query.request.text, "with"));
    if has_queries && !known.is_empty() {
        return Ok(None);
    }
    let is_alone = facts.len() < 2 && !query.request.is_template;
    if (is_alone && !needs_values(query, &insertion, &known))
        || !may_run_in_parts(query, block, &known)
    {
        return Ok(None);
    }
    check_secured(relation)?;
    query.check_events(relation)?;
    query.check_defaults(relation, &insert.conflict_assigns, true)?;
    check_insert(relation, insert)?;
    Ok(Some(Insertion {
        spread: check_spread(query.request.catalog, relation, query.events()),
        ..insertion
    }))
}

/// Whether a statement of one row can't run as it is: its key is computed, or it asks for what one shard
/// alone has. A date or time in a key may be one that only a server can read. `known` are the bytes of the cells that are evaluated first.
fn needs_values(query: &Query<'_>, insertion: &Insertion, known: &[Range<u32>]) -> bool {
    let mut keys = insertion.patterns.iter().flat_map(|known| &known.keys);
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    let mut columns = insertion.placement.columns().iter();
    keys.any(|origin| matches!(origin, Origin::Evaluated { .. }))
        || columns.any(|column| times::time_type(column).is_some())
        || calls.any(|(call, effects)| {
            effects.any(Effects::HOME) && call.offset.is_some_and(|at| lies_in(at, known))
        })
}

fn lies_in(offset: u32, ranges: &[Range<u32>]) -> bool {
    ranges.iter().any(|range| range.contains(&offset))
}

/// The only block that changes rows, if that is an `INSERT` into a sharded table.
fn target<'a>(query: &'a Query<'_>) -> Option<(usize, &'a Insert, &'a Relation)> {
    let blocks = query.facts.blocks.iter().enumerate();
    let mut changes = blocks.filter(|(_, block)| block.kind.modifies());
    let (Some((at, block)), None) = (changes.next(), changes.next()) else {
        return None;
    };
    let BlockKind::Insert(insert) = &block.kind else {
        return None;
    };
    let relation = query.bound.source(at, 0)?.relation()?;
    relation.placement().map(|_| (at, insert, relation))
}

/// Whether each shard can insert its rows by itself: all else that the statement reads is everywhere,
/// and what it calls has the same value everywhere, or another each time. That does not go for `known`,
/// the bytes of what is evaluated first.
fn may_run_in_parts(query: &Query<'_>, target: usize, known: &[Range<u32>]) -> bool {
    let mut occurrences = query.bound.occurrences();
    let everywhere = occurrences.all(|(block, source, bound)| match bound {
        _ if (block, source) == (target, 0) => true,
        bound => {
            let block = query.facts.blocks.get(block);
            let written = block.and_then(|block| block.sources.get(source));
            let offset = written.and_then(|source| source.offset);
            is_everywhere(bound) || offset.is_some_and(|at| lies_in(at, known))
        }
    });
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    let harmless = calls.all(|(call, effects)| {
        (is_harmless(*effects) && !query.may_return_set(call))
            || call.offset.is_some_and(|at| lies_in(at, known))
    });
    everywhere && harmless && !query.facts.object_ids && !query.facts.system_columns
}

/// Whether every shard has all the rows of a source.
fn is_everywhere(source: BoundSource<'_>) -> bool {
    match source {
        BoundSource::Query(_) | BoundSource::Opaque => true,
        BoundSource::Named(Lookup::Relation(relation)) => {
            matches!(relation.location, Location::Replicated) && !relation.hazards.row_security
        }
        BoundSource::Named(_) => false,
    }
}

/// Whether it does not matter on which shard a function with these effects is called.
fn is_harmless(effects: Effects) -> bool {
    let allowed = Effects::RANDOM | Effects::AGGREGATE | Effects::WINDOW;
    effects.without(allowed) == Effects::NONE
}

/// The rows of a statement by their patterns, and the bytes of the cells that are evaluated first.
fn taken_apart(
    query: &Query<'_>,
    insert: &Insert,
    facts: &[Vec<Cell>],
    relation: &Relation,
) -> Option<(Insertion, Vec<Range<u32>>)> {
    let text = query.request.text;
    let prover = Prover::new(query);
    let rows = values::rows(text, query.body).filter(|rows| rows.len() == facts.len())?;
    let mut patterns: Vec<RowPattern> = Vec::new();
    let mut known = Vec::new();
    for (row, facts) in rows.into_iter().zip(facts) {
        let tokens = query.body.get(row)?;
        let cells = values::cells(text, tokens);
        if cells.len() != facts.len() {
            return None;
        }
        let fits = |known: &RowPattern| known.pattern.fits(text, tokens, &cells);
        let cell = |index: usize| cells.get(index).and_then(|cell| tokens.get(cell.clone()));
        let at = patterns.iter().position(fits).unwrap_or(patterns.len());
        if at == patterns.len() {
            let keys = origins(relation, insert, &prover, (text, &cell, facts))?;
            let cells = (0..cells.len()).filter_map(|index| {
                let is_key = keys.contains(&Origin::Evaluated { cell: index });
                evaluated(query, index, cell(index)?, is_key)
            });
            patterns.push(RowPattern {
                pattern: Pattern::of(text, tokens),
                evaluated: cells.collect(),
                keys,
            });
        }
        let evaluated = patterns.get(at).map(|pattern| &pattern.evaluated);
        for one in evaluated.into_iter().flatten() {
            known.push(span(cell(one.cell)?));
        }
    }
    let column_of = |cell: usize| match &insert.columns {
        Some(names) => relation.column(names.get(cell)?).map(|(_, column)| column),
        None => relation.columns.get(cell),
    };
    let width = facts.iter().map(Vec::len).max()?;
    let moments = (0..width).map(|cell| {
        // Of a type that is not known here anything may be a moment.
        column_of(cell).is_none_or(|column| MOMENTS.contains(&column.type_oid))
    });
    let insertion = Insertion {
        table: relation.name.clone(),
        placement: Arc::clone(relation.placement()?),
        lex: query.request.lex,
        patterns,
        moments: moments.collect(),
        clock: Clock::find(relation, insert),
        spread: Ok(()),
    };
    Some((insertion, known))
}

/// A cell as one to be evaluated first, if it is: it is a computed key, or would not mean the same on every
/// shard.
fn evaluated(query: &Query<'_>, cell: usize, tokens: &[Token], is_key: bool) -> Option<Evaluated> {
    let range = span(tokens);
    let calls = query.facts.calls.iter().zip(&query.calls);
    let calls: Vec<Effects> = calls
        .filter(|(call, _)| call.offset.is_some_and(|at| range.contains(&at)))
        .map(|(_, effects)| *effects)
        .collect();
    let mut sources = query.bound.occurrences().filter(|(block, source, _)| {
        let block = query.facts.blocks.get(*block);
        let source = block.and_then(|block| block.sources.get(*source));
        let offset = source.and_then(|source| source.offset);
        offset.is_some_and(|at| range.contains(&at))
    });
    let has_queries = tokens
        .iter()
        .any(|token| token.is_word(query.request.text, "select"));
    let is_needed = is_key
        || calls.iter().any(|effects| !is_harmless(*effects))
        || sources.any(|(_, _, source)| !is_everywhere(source));
    let is_clock = |effects: &Effects| effects.without(Effects::CLOCK) == Effects::NONE;
    let has_values = tokens
        .iter()
        .any(|token| token.kind == TokenKind::Parameter);
    is_needed.then(|| Evaluated {
        cell,
        is_shared: calls.iter().all(is_clock) && !has_values && !has_queries,
    })
}

/// Finds the tokens of a cell.
type CellTokens<'a> = dyn Fn(usize) -> Option<&'a [Token]> + 'a;

/// Where the value of each column of the shard key comes from in rows like this one; none if that can't
/// be told from the text.
fn origins<'a>(
    relation: &Relation,
    insert: &Insert,
    prover: &Prover<'_>,
    (text, cell, facts): (&str, &CellTokens<'a>, &[Cell]),
) -> Option<Box<[Origin]>> {
    let columns = relation.placement()?.columns();
    let origin = |key: &KeyColumn| {
        let position = position(relation, insert, key)?;
        let tokens = cell(position)?;
        let value = match facts.get(position)? {
            Cell::Value(value) => value,
            Cell::Computed => return Some(Origin::Evaluated { cell: position }),
            Cell::Default => return None,
        };
        if values::is_atom(text, tokens) && value.cast == CastType::None {
            return Some(Origin::Atom { cell: position });
        }
        let cast = cast(prover, key, value, (text, position, tokens));
        Some(cast.unwrap_or(Origin::Evaluated { cell: position }))
    };
    columns.iter().map(origin).collect()
}

/// A constant or parameter within a cast or parentheses.
fn cast(
    prover: &Prover<'_>,
    key: &KeyColumn,
    value: &Value,
    (text, cell, tokens): (&str, usize, &[Token]),
) -> Option<Origin> {
    let known = prover.value(value, key.column_type.key_type)?;
    let (token, negative) = match known.source {
        KeySource::Literal { index, negative } => {
            let start = prover.literal_start(index)?;
            let at = tokens.iter().position(|token| token.start == start)?;
            (at, negative)
        }
        KeySource::Parameter(index) => {
            let is_it = |token: &Token| parameter(text, token) == Some(index);
            (tokens.iter().position(is_it)?, false)
        }
        KeySource::Session { .. } => return None,
        KeySource::Null | KeySource::Bool(_) => {
            let words = ["null", "true", "false"];
            let is_it = |token: &Token| words.iter().any(|word| token.is_word(text, word));
            (tokens.iter().position(is_it)?, false)
        }
    };
    Some(Origin::Cast {
        cell,
        token,
        negative,
        cast: known.cast,
    })
}

/// What no `INSERT` into a sharded table may have.
fn check_insert(relation: &Relation, insert: &Insert) -> Result<()> {
    check_assigned(relation, &insert.conflict_assigns)?;
    if insert.overriding_user {
        return Err(refusal::overriding(&relation.name));
    }
    check_sequences(relation, insert)
}

/// The position in a row of a column of the shard key.
fn position(relation: &Relation, insert: &Insert, key: &KeyColumn) -> Option<usize> {
    match &insert.columns {
        Some(columns) => columns.iter().position(|column| *column == key.name),
        None => relation.column(&key.name).map(|(position, _)| position),
    }
}

/// Adds a proof for each row of an `INSERT`.
///
/// # Errors
/// Why the rows' shards can't be known.
pub(super) fn prove(
    relation: &Relation,
    insert: &Insert,
    prover: &Prover<'_>,
    proofs: &mut Vec<Proof>,
) -> Result<()> {
    check_insert(relation, insert)?;
    let rows: &[Vec<Cell>] = match &insert.rows {
        Rows::Default => &[Vec::new()],
        Rows::Values(rows) => rows,
        // All rows have the values of the select list.
        Rows::Query(cells) => std::slice::from_ref(cells),
    };
    let from_query = matches!(insert.rows, Rows::Query(_));
    for row in rows {
        proofs.push(prove_row(relation, insert, row, from_query, prover)?);
    }
    Ok(())
}

fn prove_row(
    relation: &Relation,
    insert: &Insert,
    row: &[Cell],
    from_query: bool,
    prover: &Prover<'_>,
) -> Result<Proof> {
    let computed = |key: &KeyColumn| refusal::computed_key(&relation.name, &key.name);
    let missing = |key: &KeyColumn| refusal::missing_key(&relation.name, &key.name);
    let placement = relation
        .placement()
        .ok_or_else(|| refusal::no_place(&relation.name, "it is not sharded"))?;
    let mut parts = Vec::with_capacity(placement.columns().len());
    for key in placement.columns() {
        let position = position(relation, insert, key);
        let value = match position.map(|position| row.get(position)) {
            Some(Some(Cell::Value(value))) => prover
                .value(value, key.column_type.key_type)
                .ok_or_else(|| computed(key))?,
            Some(Some(Cell::Computed)) => return Err(computed(key)),
            // The select list ends where its columns can't be counted any more.
            Some(None) if from_query => return Err(computed(key)),
            _ if !from_query && is_null_by_default(relation, key) => NULL,
            _ => return Err(missing(key)),
        };
        parts.push(Part {
            column: key.column_type,
            values: Box::new([value]),
        });
    }
    Ok(Proof {
        table: relation.name.clone(),
        placement: Arc::clone(placement),
        parts: parts.into_boxed_slice(),
        use_: KeyUse::Store,
        optional: from_query,
    })
}

/// The key of a row that has none.
const NULL: KeyValue = KeyValue {
    source: KeySource::Null,
    cast: 0,
    shared: false,
};

/// Whether rows that name no value for a column of the key have NULL there, which nothing changes.
fn is_null_by_default(relation: &Relation, key: &KeyColumn) -> bool {
    let column = relation.column(&key.name);
    let is_changed = |trigger: &Trigger| trigger.is_before_row;
    column.is_some_and(|(_, column)| !column.default.exists && !column.generated)
        && !relation.hazards.rules
        && !relation.hazards.triggers.iter().any(is_changed)
        && !relation.is_view()
}

/// Refuses rows that leave a column to a sequence: each shard has its own.
fn check_sequences(relation: &Relation, insert: &Insert) -> Result<()> {
    for (index, column) in relation.columns.iter().enumerate() {
        if !column.sequence_default {
            continue;
        }
        let position = match &insert.columns {
            Some(columns) => columns.iter().position(|name| *name == column.name),
            None => Some(index),
        };
        let given = position.is_some_and(|position| match &insert.rows {
            Rows::Default => false,
            Rows::Values(rows) => rows
                .iter()
                .all(|row| !matches!(row.get(position), None | Some(Cell::Default))),
            // With a column list the select list is as long as it.
            Rows::Query(cells) => insert.columns.is_some() || position < cells.len(),
        });
        if !given {
            return Err(refusal::sequence_default(&relation.name, &column.name));
        }
    }
    Ok(())
}
