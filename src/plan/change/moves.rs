//! UPDATEs that assign to the shard key, so that rows may have to move.
//!
//! The rows are locked and their new images computed where they are (`SELECT … FOR UPDATE`). Those whose
//! new key belongs to the same shard are updated there as the statement says; the others are deleted, and
//! their images inserted where they belong. What holds:
//! - A constant, a parameter without a cast, NULL and DEFAULT mean what the column makes of them: they stand
//!   in the INSERT as they stand in the UPDATE. Anything else has a type of its own, and is stored as an
//!   UPDATE stores it: by the assignment that INSERT makes too.
//! - A row stays only if its new key depends on nothing but the row and constants: since it is locked, the
//!   UPDATE then finds the same key.

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::change::Target;
use crate::plan::change::execution::Column;
use crate::plan::change::execution::Extra;
use crate::plan::change::execution::Steps;
use crate::plan::change::execution::Written;
use crate::plan::change::execution::other_shape;
use crate::plan::change::key_type::type_of;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyUse;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sql::analysis::BlockKind;
use crate::sql::encoding::Encoding;
use crate::sql::literal::identifier_value;
use crate::sql::literal::quote_identifier;
use crate::sql::literal::quote_literal;
use crate::sql::token::TokenKind;

/// An UPDATE whose rows may move.
#[derive(Clone, Debug)]
pub(super) struct Move {
    /// The target's name, for messages.
    table: String,
    /// The target, as SQL.
    relation: String,
    /// The name by which the statement knows it, as SQL.
    alias: String,
    /// Its rows are in partitions.
    is_partitioned: bool,
    /// All columns that are stored.
    columns: Vec<(String, NewValue)>,
    /// For each column of the shard key its index among them.
    key: Vec<usize>,
    placement: Arc<Placement>,
    layout: Layout,
    /// New keys depend on nothing but their rows.
    is_own: bool,
}

/// What a column of a row becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NewValue {
    Kept,
    /// These tokens, whose type is the column's.
    Constant(Range<usize>),
    /// What these tokens give.
    Computed(Range<usize>),
}

/// The tokens of the parts of an UPDATE.
#[derive(Clone, Debug, Default)]
struct Layout {
    /// Before `UPDATE`.
    head: Range<usize>,
    target: Range<usize>,
    assignments: Range<usize>,
    from: Range<usize>,
    condition: Range<usize>,
    returning: Range<usize>,
}

/// The number of columns before the key's in what a selection gives.
pub const BEFORE_KEY: usize = 3;

/// The move that a statement may make; none if it assigns no shard key.
///
/// # Errors
/// Why its rows can't move.
pub(super) fn find(query: &Query<'_>, target: &Target<'_>) -> Result<Option<Move>> {
    let relation = target.relation;
    let block = query.facts.blocks.get(target.block);
    let (Some(placement), Some(BlockKind::Update(assigned))) =
        (relation.placement(), block.map(|block| &block.kind))
    else {
        return Ok(None);
    };
    let keys = placement.columns();
    let Some(moved) = keys.iter().find(|key| assigned.contains(&key.name)) else {
        return Ok(None);
    };
    let refuse = |why: &str| refusal::moves(&relation.name, &moved.name, why);
    if relation.is_shown() {
        return Err(refuse("it is changed through a view"));
    }
    if !relation.hazards.triggers.is_empty() {
        return Err(refuse(
            "its triggers would take an update for a deletion and an insertion",
        ));
    }
    let layout = layout(query).ok_or_else(|| refuse("its clauses could not be told apart"))?;
    if query.effects.any(Effects::RANDOM) {
        return Err(refuse(
            "it calls a function that gives another value each time",
        ));
    }
    if !layout.returning.is_empty() {
        check_returning(query, &layout).map_err(refuse)?;
    }
    let given = assignments(query, &layout.assignments)
        .ok_or_else(|| refuse("it assigns fields, elements or several columns at once"))?;
    let mut columns = Vec::new();
    for column in relation.columns.iter().filter(|column| !column.generated) {
        let value = given.iter().find(|(name, _)| *name == column.name);
        let value = value.map_or(NewValue::Kept, |(_, tokens)| new_value(query, tokens));
        if is_default(query, &value) && column.sequence_default {
            return Err(refusal::sequence_default(&relation.name, &column.name));
        }
        columns.push((column.name.clone(), value));
    }
    let mut key = Vec::new();
    for column in keys {
        let at = columns.iter().position(|(name, _)| *name == column.name);
        let at = at.ok_or_else(|| refuse("the key is generated"))?;
        if columns
            .get(at)
            .is_some_and(|(_, value)| is_default(query, value))
        {
            return Err(refuse("the new key is a default"));
        }
        key.push(at);
    }
    let values: Vec<&NewValue> = key
        .iter()
        .filter_map(|at| Some(&columns.get(*at)?.1))
        .collect();
    let is_own = values.iter().all(|value| is_own(query, target, value));
    let source = block.and_then(|block| block.sources.first());
    let alias = source.and_then(|source| source.alias.as_ref());
    Ok(Some(Move {
        table: relation.name.clone(),
        relation: row_type(relation),
        alias: quote_identifier(alias.unwrap_or(&relation.name)),
        is_partitioned: relation.kind == 'p',
        columns,
        key,
        placement: Arc::clone(placement),
        layout,
        is_own,
    }))
}

fn row_type(relation: &Relation) -> String {
    let schema = quote_identifier(&relation.schema);
    format!("{schema}.{}", quote_identifier(&relation.name))
}

/// The parts of the UPDATE that a statement is.
fn layout(query: &Query<'_>) -> Option<Layout> {
    let text = query.request.text;
    let first = query.token_at(query.body.first()?.start)?;
    let end = first + query.body.len();
    let mut depth = 0_usize;
    let (mut update, mut set, mut marks) = (None, None, Vec::new());
    for (index, token) in query.tokens.iter().enumerate().take(end).skip(first) {
        match token.text(text) {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        let is = |word: &str| depth == 0 && token.is_word(text, word);
        if update.is_none() {
            update = is("update").then_some(index);
        } else if set.is_none() {
            set = is("set").then_some(index);
        } else if is("from") {
            // `a IS DISTINCT FROM b` is none.
            let before = query.tokens.get(index - 1);
            if !before.is_some_and(|before| before.is_word(text, "distinct")) {
                marks.push((index, 0));
            }
        } else if is("where") {
            marks.push((index, 1));
        } else if is("returning") {
            marks.push((index, 2));
        }
    }
    let (update, set) = (update?, set?);
    let mut layout = Layout {
        head: first..update,
        target: update + 1..set,
        assignments: set + 1..marks.first().map_or(end, |(at, _)| *at),
        ..Layout::default()
    };
    for (number, (at, kind)) in marks.iter().enumerate() {
        let until = marks.get(number + 1).map_or(end, |(next, _)| *next);
        let part = match kind {
            0 => &mut layout.from,
            1 => &mut layout.condition,
            _ => &mut layout.returning,
        };
        if part.start < part.end {
            return None;
        }
        *part = at + 1..until;
    }
    let current_of = query.tokens.get(layout.condition.clone())?;
    let is_current_of = matches!(current_of, [current, of, ..]
        if current.is_word(text, "current") && of.is_word(text, "of"));
    (!is_current_of).then_some(layout)
}

/// RETURNING is answered by an INSERT too, which knows no other relation and no row before it.
fn check_returning(query: &Query<'_>, layout: &Layout) -> Result<(), &'static str> {
    if !layout.from.is_empty() {
        return Err("it has both FROM and RETURNING");
    }
    let text = query.request.text;
    let tokens = query
        .tokens
        .get(layout.returning.clone())
        .unwrap_or_default();
    let names_state = |pair: &[crate::sql::token::Token]| {
        let [name, dot] = pair else { return false };
        let is_state = name.is_word(text, "old") || name.is_word(text, "new");
        is_state && dot.is_symbol(text, ".")
    };
    match tokens.windows(2).any(names_state) {
        true => Err("RETURNING names the old or new row"),
        false => Ok(()),
    }
}

/// The columns that are assigned, each with the tokens of its value.
fn assignments(query: &Query<'_>, range: &Range<usize>) -> Option<Vec<(String, Range<usize>)>> {
    let text = query.request.text;
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_usize, range.start);
    for index in range.start..=range.end {
        let token = query.tokens.get(index);
        let ends = index == range.end
            || depth == 0 && token.is_some_and(|token| token.is_symbol(text, ","));
        if ends {
            let name = identifier_value(text, query.tokens.get(start)?)?;
            if !query.tokens.get(start + 1)?.is_symbol(text, "=") || start + 2 >= index {
                return None;
            }
            found.push((name.into_owned(), start + 2..index));
            start = index + 1;
        }
        match token.map(|token| token.text(text)) {
            Some("(" | "[") => depth += 1,
            Some(")" | "]") => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Some(found)
}

/// The only token of an expression, parentheses aside.
fn only_token(query: &Query<'_>, tokens: &Range<usize>) -> Option<usize> {
    let text = query.request.text;
    let (mut start, mut end) = (tokens.start, tokens.end);
    while end > start + 1 {
        let is = |at: usize, symbol: &str| {
            let token = query.tokens.get(at);
            token.is_some_and(|token| token.is_symbol(text, symbol))
        };
        if !is(start, "(") || !is(end - 1, ")") {
            return None;
        }
        (start, end) = (start + 1, end - 1);
    }
    Some(start)
}

fn new_value(query: &Query<'_>, tokens: &Range<usize>) -> NewValue {
    let text = query.request.text;
    let only = only_token(query, tokens).and_then(|at| query.tokens.get(at));
    let is_constant = only.is_some_and(|token| {
        token.kind.is_literal()
            || token.kind == TokenKind::Parameter
            || token.is_word(text, "null")
            || token.is_word(text, "default")
    });
    match is_constant {
        true => NewValue::Constant(tokens.clone()),
        false => NewValue::Computed(tokens.clone()),
    }
}

fn is_default(query: &Query<'_>, value: &NewValue) -> bool {
    let NewValue::Constant(tokens) = value else {
        return false;
    };
    let only = only_token(query, tokens).and_then(|at| query.tokens.get(at));
    only.is_some_and(|token| token.is_word(query.request.text, "default"))
}

/// Whether a value depends on nothing but the target's row and constants.
fn is_own(query: &Query<'_>, target: &Target<'_>, value: &NewValue) -> bool {
    let NewValue::Computed(tokens) = value else {
        return true;
    };
    let text = query.request.text;
    let is_within = |offset: Option<u32>| {
        let at = offset.and_then(|offset| query.token_at(offset));
        at.is_some_and(|at| tokens.contains(&at))
    };
    let mut all = query.facts.references.iter();
    let mut inside = query
        .facts
        .references
        .iter()
        .filter(|one| is_within(one.offset));
    let words = query.tokens.get(tokens.clone()).unwrap_or_default();
    all.all(|reference| reference.offset.is_some())
        && !words.iter().any(|word| word.is_word(text, "select"))
        && inside.all(|reference| {
            let column = query.bound.resolve(reference.block, &reference.column);
            column.is_some_and(|column| (column.block, column.source) == (target.block, 0))
        })
}

impl Move {
    /// The shard of a row with this new key, its columns in binary; none if no shard can store the row, which
    /// PostgreSQL will say.
    ///
    /// # Errors
    /// `23502` for NULL, `23514` for a key that no shard takes, `0A000` for one that can't be known.
    fn destination(
        &self,
        values: &[Option<&[u8]>],
        encoding: Encoding,
    ) -> Result<Option<ShardIndex>> {
        let mut keys = Vec::with_capacity(values.len());
        for (column, value) in self.placement.columns().iter().zip(values) {
            let column_type = &column.column_type;
            let oid = type_of(column_type.key_type).1;
            let use_ = KeyUse::Store;
            let key = match Key::from_parameter(oid, Format::Binary, *value, column_type, use_) {
                Err(KeyError::Rejected(_)) => return Ok(None),
                Err(error) => return Err(error.store_error(&self.table, &column.name)),
                Ok(key) => key,
            };
            if key.requires_utf8() && !encoding.is_utf8() {
                let why =
                    "the key has characters beyond ASCII, and the client's encoding is not UTF-8";
                return Err(refusal::moves(&self.table, &column.name, why));
            }
            keys.push(key);
        }
        let name = || {
            self.placement
                .columns()
                .first()
                .map_or("", |column| &column.name)
        };
        let shard = self.placement.shard(&keys);
        shard
            .map(Some)
            .map_err(|error| error.store_error(&self.table, name()))
    }

    /// The columns whose new values travel, with the tokens that compute them.
    fn images(&self) -> impl Iterator<Item = (&str, Option<&Range<usize>>)> {
        self.columns.iter().filter_map(|(name, value)| match value {
            NewValue::Kept => Some((name.as_str(), None)),
            NewValue::Computed(tokens) => Some((name.as_str(), Some(tokens))),
            NewValue::Constant(_) => None,
        })
    }

    /// The condition that a row is one of those listed in two parameters.
    fn chosen(&self, first: usize) -> String {
        let alias = &self.alias;
        format!(
            "({alias}.tableoid::pg_catalog.text || ' ' || {alias}.ctid::pg_catalog.text) = \
             ANY (${first}::pg_catalog.text[]) AND {alias}.ctid = ANY (${}::pg_catalog.tid[])",
            first + 1
        )
    }
}

/// The steps of a move.
impl Steps<'_> {
    /// Whether rows may move.
    pub fn moves(&self) -> bool {
        self.change.moved.is_some()
    }

    fn moved(&self) -> Result<&Move> {
        self.change.moved.as_ref().ok_or_else(other_shape)
    }

    /// How many columns the shard key has.
    pub fn key_columns(&self) -> usize {
        self.change
            .moved
            .as_ref()
            .map_or(0, |moved| moved.key.len())
    }

    /// Where a row with a new key belongs, and whether it can be updated there if it is there already; none if
    /// no shard can store it.
    ///
    /// # Errors
    /// As PostgreSQL or the placement rejects the key.
    pub fn destination(
        &self,
        key: &[Option<&[u8]>],
        encoding: Encoding,
    ) -> Result<(Option<ShardIndex>, bool)> {
        let moved = self.moved()?;
        Ok((moved.destination(key, encoding)?, moved.is_own))
    }

    /// Locks the rows and computes their images: what names a row, its `ctid`, whether it is in the table
    /// itself, its new key, its new values.
    ///
    /// # Errors
    /// `XX000` for a text that is not of the planned shape.
    pub fn selection(&self, values: &[Vec<Column>]) -> Result<Written> {
        let moved = self.moved()?;
        let (alias, layout) = (&moved.alias, &moved.layout);
        let mut extras = Vec::new();
        let mut text = self.part(&layout.head, values, &mut extras)?;
        let is_own = match moved.is_partitioned {
            true => "true".to_owned(),
            false => {
                let name = quote_literal(&moved.relation);
                format!("{alias}.tableoid = {name}::pg_catalog.regclass")
            }
        };
        text.push_str(&format!(
            " SELECT {alias}.tableoid::pg_catalog.text || ' ' || {alias}.ctid::pg_catalog.text, \
             {alias}.ctid::pg_catalog.text, ({is_own})::pg_catalog.text"
        ));
        for (at, column) in moved.key.iter().zip(moved.placement.columns()) {
            let Some((name, value)) = moved.columns.get(*at) else {
                continue;
            };
            let value = match value {
                NewValue::Kept => format!("{alias}.{}", quote_identifier(name)),
                NewValue::Constant(tokens) | NewValue::Computed(tokens) => {
                    self.part(tokens, values, &mut extras)?
                }
            };
            let (type_name, _) = type_of(column.column_type.key_type);
            text.push_str(&format!(", CAST(({value}) AS pg_catalog.{type_name})"));
        }
        for (name, tokens) in moved.images() {
            let value = match tokens {
                None => format!("{alias}.{}", quote_identifier(name)),
                Some(tokens) => self.part(tokens, values, &mut extras)?,
            };
            text.push_str(&format!(", ({value})"));
        }
        text.push_str(" FROM ");
        text.push_str(&self.part(&layout.target, values, &mut extras)?);
        if !layout.from.is_empty() {
            text.push_str(", ");
            text.push_str(&self.part(&layout.from, values, &mut extras)?);
        }
        if !layout.condition.is_empty() {
            text.push_str(" WHERE ");
            text.push_str(&self.part(&layout.condition, values, &mut extras)?);
        }
        text.push_str(&format!(" FOR UPDATE OF {alias}"));
        Ok(Written { text, extras })
    }

    /// The UPDATE of the rows that stay: two more parameters list them.
    ///
    /// # Errors
    /// As [`Steps::selection`].
    pub fn staying(&self, values: &[Vec<Column>]) -> Result<Written> {
        let moved = self.moved()?;
        let layout = &moved.layout;
        let mut extras = Vec::new();
        let mut add = |range: &Range<usize>| self.part(range, values, &mut extras);
        let mut text = add(&layout.head)?;
        text.push_str(&format!(" UPDATE {} SET ", add(&layout.target)?));
        text.push_str(&add(&layout.assignments)?);
        if !layout.from.is_empty() {
            text.push_str(&format!(" FROM {}", add(&layout.from)?));
        }
        let condition = add(&layout.condition)?;
        let returning = add(&layout.returning)?;
        let chosen = moved.chosen(self.count + extras.len() + 1);
        match condition.is_empty() {
            true => text.push_str(&format!(" WHERE {chosen}")),
            false => text.push_str(&format!(" WHERE ({condition}\n) AND {chosen}")),
        }
        if !returning.is_empty() {
            text.push_str(&format!(" RETURNING {returning}"));
        }
        Ok(Written { text, extras })
    }

    /// The DELETE of the rows that move: two parameters behind the client's list them.
    ///
    /// # Errors
    /// As [`Steps::selection`].
    pub fn leaving(&self) -> Result<Written> {
        let moved = self.moved()?;
        let mut extras = Vec::new();
        let target = self.part(&moved.layout.target, &[], &mut extras)?;
        let chosen = moved.chosen(self.count + 1);
        Ok(Written {
            text: format!("DELETE FROM {target} WHERE {chosen}"),
            extras,
        })
    }

    /// The INSERT of `rows` rows that have moved, whose values are parameters behind the others.
    ///
    /// # Errors
    /// As [`Steps::selection`].
    pub fn arriving(&self, values: &[Vec<Column>], rows: usize) -> Result<Written> {
        let moved = self.moved()?;
        let mut extras: Vec<Extra> = Vec::new();
        let mut cells = Vec::new();
        for (_, value) in &moved.columns {
            cells.push(match value {
                NewValue::Constant(tokens) => Some(self.part(tokens, values, &mut extras)?),
                NewValue::Kept | NewValue::Computed(_) => None,
            });
        }
        let returning = self.part(&moved.layout.returning, values, &mut extras)?;
        let names = moved.columns.iter().map(|(name, _)| quote_identifier(name));
        let names: Vec<String> = names.collect();
        let mut text = format!(
            "INSERT INTO {} AS {} ({}) OVERRIDING SYSTEM VALUE VALUES ",
            moved.relation,
            moved.alias,
            names.join(", ")
        );
        let mut number = self.count + extras.len();
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for (at, cell) in cells.iter().enumerate() {
                if at > 0 {
                    text.push_str(", ");
                }
                match cell {
                    Some(constant) => text.push_str(constant),
                    None => {
                        number += 1;
                        text.push_str(&format!("${number}"));
                    }
                }
            }
            text.push(')');
        }
        if !returning.is_empty() {
            text.push_str(&format!(" RETURNING {returning}"));
        }
        Ok(Written { text, extras })
    }

    /// The query that tells whether other tables' rows follow a row of the target: the name of a constraint.
    ///
    /// # Errors
    /// As [`Steps::selection`].
    pub fn followers(&self) -> Result<String> {
        let relation = quote_literal(&self.moved()?.relation);
        Ok(format!(
            "SELECT conname FROM pg_catalog.pg_constraint WHERE contype = 'f' \
             AND confrelid = {relation}::pg_catalog.regclass \
             AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')) LIMIT 1"
        ))
    }

    /// Why a row can't move.
    pub fn stuck(&self, why: &str) -> Error {
        let moved = self.change.moved.as_ref();
        let key = moved.and_then(|moved| moved.placement.columns().first());
        let key = key.map_or("", |column| column.name.as_str());
        refusal::moves(moved.map_or("", |moved| moved.table.as_str()), key, why)
    }
}
