//! Key proofs: which values the shard key of a table can have, by the conditions of its block.
//!
//! Let T be an occurrence of a sharded table in a block. Every equality that may restrict T holds in
//! every row of the block's result in which T is not null-extended: those of its `WHERE`, of inner
//! joins, and of the outer joins that have T on the side they may null-extend. If these equalities
//! link each column of T's key to a constant, rows of T with another key change nothing: in any
//! combination they take part in, one of the links fails, and it fails too when T is null-extended
//! instead, since equality is never true of NULL. Equalities of the blocks around T's hold for every
//! row that survives there, so they count as well.

use std::sync::Arc;

use crate::catalog::Relation;
use crate::plan::bind::ColumnId;
use crate::plan::bind::Equal;
use crate::plan::bind::Equation;
use crate::plan::bind::same_family;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Part;
use crate::plan::keyed::Proof;
use crate::plan::query::Query;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::KeyUse;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::CastType;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Rows;
use crate::sql::analysis::Value;
use crate::sql::analysis::ValueSource;
use crate::sql::token::TokenKind;

/// More combinations of values than this are not looked at in each execution.
const COMBINATIONS: usize = 10_000;

/// Finds proofs in one query.
pub(super) struct Prover<'a> {
    query: &'a Query<'a>,
    /// Parameters whose every use gives them the type of a key column.
    unshared: Vec<u32>,
}

impl<'a> Prover<'a> {
    pub fn new(query: &'a Query<'a>) -> Prover<'a> {
        let mut prover = Prover {
            query,
            unshared: Vec::new(),
        };
        prover.unshared = prover.find_unshared();
        prover
    }

    /// Proves what the key of a table's occurrence can be.
    pub fn prove(&self, relation: &Relation, block: usize, source: usize) -> Option<Proof> {
        let placement = relation.placement()?;
        let mut parts = Vec::with_capacity(placement.columns().len());
        let mut combinations = 1_usize;
        for key in placement.columns() {
            let (column, _) = relation.column(&key.name)?;
            let part = self.part(ColumnId {
                block,
                source,
                column,
            })?;
            combinations = combinations.checked_mul(part.values.len())?;
            parts.push(part);
        }
        (combinations <= COMBINATIONS).then(|| Proof {
            table: relation.name.clone(),
            placement: Arc::clone(placement),
            parts: parts.into_boxed_slice(),
            use_: KeyUse::Compare,
            optional: false,
        })
    }

    /// The values that a column can have: those of the shortest list it is linked to.
    fn part(&self, column: ColumnId) -> Option<Part> {
        let mut linked = vec![column];
        let mut best: Option<Part> = None;
        let mut next = 0;
        while let Some(at) = linked.get(next).copied() {
            next += 1;
            let column_type = self.query.bound.key_type(at)?;
            for equation in self.usable(column, at) {
                let other = match (equation.column == at, equation.equals) {
                    (true, Equal::Values(values)) => {
                        let part = self.values(values, column_type);
                        let length =
                            |part: &Option<Part>| part.as_ref().map(|part| part.values.len());
                        if part.is_some() && (best.is_none() || length(&part) < length(&best)) {
                            best = part;
                        }
                        continue;
                    }
                    (true, Equal::Column(other)) => other,
                    (false, Equal::Column(other)) if other == at => equation.column,
                    _ => continue,
                };
                let links = self
                    .query
                    .bound
                    .key_type(other)
                    .is_some_and(|other| same_family(other.key_type, column_type.key_type));
                if links && !linked.contains(&other) {
                    linked.push(other);
                }
            }
        }
        best
    }

    /// Whether rows of the source of `column` matter only where it equals `to`.
    pub fn links(&self, column: ColumnId, to: ColumnId) -> bool {
        let mut linked = vec![column];
        let mut next = 0;
        while let Some(at) = linked.get(next).copied() {
            if at == to {
                return true;
            }
            next += 1;
            let Some(column_type) = self.query.bound.key_type(at) else {
                continue;
            };
            for equation in self.usable(column, at) {
                let other = match equation.equals {
                    Equal::Column(other) if equation.column == at => other,
                    Equal::Column(other) if other == at => equation.column,
                    _ => continue,
                };
                let is_key = self.query.bound.key_type(other);
                let is_key =
                    is_key.is_some_and(|other| same_family(other.key_type, column_type.key_type));
                if is_key && !linked.contains(&other) {
                    linked.push(other);
                }
            }
        }
        false
    }

    /// The equalities of column `at` that may restrict the table of `column`, to which it is linked.
    ///
    /// A column that is linked to another is not null where the other is not: then its own source is
    /// not null-extended, and the equalities that restrict that source hold.
    fn usable(&self, column: ColumnId, at: ColumnId) -> impl Iterator<Item = &Equation<'a>> {
        let facts = self.query.facts;
        let mut next = Some(column.block);
        let blocks = std::iter::from_fn(move || {
            let block = next?;
            let outer = facts
                .blocks
                .get(block)
                .and_then(|block| block.outer.as_ref());
            next = outer
                .map(|outer| outer.block)
                .filter(|outer| *outer < block);
            Some(block)
        });
        blocks.flat_map(move |block| {
            let equations = self.query.bound.equations.get(block);
            let equations = equations.map(Vec::as_slice).unwrap_or_default();
            equations
                .iter()
                .filter(move |equation| match &equation.restricts {
                    None => true,
                    Some(sources) => {
                        (block == column.block && sources.contains(&column.source))
                            || (block == at.block && sources.contains(&at.source))
                    }
                })
        })
    }

    /// The values as a part of a key of this type; none if one of them proves nothing.
    fn values(&self, values: &[Value], column: ColumnType) -> Option<Part> {
        // In a list, values of other types may give a parameter another type.
        let mixed = values.len() > 1 && values.iter().any(|value| self.gives_type(value));
        let values = values
            .iter()
            .map(|value| {
                let mut value = self.value(value, column.key_type)?;
                value.shared |= mixed;
                Some(value)
            })
            .collect::<Option<Vec<KeyValue>>>()?;
        Some(Part {
            column,
            values: values.into_boxed_slice(),
        })
    }

    fn gives_type(&self, value: &Value) -> bool {
        value.cast != CastType::None
            || match value.source {
                ValueSource::Literal { offset, .. } => self
                    .literal(offset)
                    .is_none_or(|(_, kind)| kind == TokenKind::Number),
                ValueSource::Bool(_) => true,
                ValueSource::Parameter(_) | ValueSource::Null => false,
            }
    }

    /// The value as a key of this type; none if it can't be one.
    pub fn value(&self, value: &Value, key_type: KeyType) -> Option<KeyValue> {
        let cast = match value.cast {
            CastType::None => 0,
            CastType::To(oid) if same_family(KeyType::from_oid(oid)?, key_type) => oid,
            CastType::To(_) | CastType::Other => return None,
        };
        let mut shared = false;
        let source = match value.source {
            ValueSource::Literal { offset, negative } => {
                let (index, kind) = self.literal(offset)?;
                if !is_key_literal(kind, cast, key_type) {
                    return None;
                }
                KeySource::Literal { index, negative }
            }
            ValueSource::Parameter(number) => {
                shared = !self.unshared.contains(&number);
                KeySource::Parameter(usize::try_from(number).ok()?.checked_sub(1)?)
            }
            ValueSource::Null => KeySource::Null,
            ValueSource::Bool(value) => KeySource::Bool(value),
        };
        Some(KeyValue {
            source,
            cast,
            shared,
        })
    }

    /// The index and kind of the literal at an offset of the text.
    fn literal(&self, offset: u32) -> Option<(usize, TokenKind)> {
        let literals = &self.query.request.shape.literals;
        let index = literals
            .binary_search_by_key(&offset, |literal| literal.start)
            .ok()?;
        Some((index, literals.get(index)?.kind))
    }

    /// Where a literal begins in the text.
    pub fn literal_start(&self, index: usize) -> Option<u32> {
        let literals = &self.query.request.shape.literals;
        literals.get(index).map(|literal| literal.start)
    }

    /// The parameters whose every use compares them with, or stores them in, columns of one type.
    fn find_unshared(&self) -> Vec<u32> {
        let mut uses: Vec<(u32, KeyType, usize)> = Vec::new();
        let mut mixed: Vec<u32> = Vec::new();
        let mut note = |value: &Value, key_type: Option<ColumnType>| {
            let (ValueSource::Parameter(number), Some(column)) = (value.source, key_type) else {
                return;
            };
            // A cast decides on the parameter's type.
            let given = match value.cast {
                CastType::None => Some(column.key_type),
                CastType::To(oid) => KeyType::from_oid(oid),
                CastType::Other => None,
            };
            match (
                given,
                uses.iter_mut().find(|(known, _, _)| *known == number),
            ) {
                (Some(given), None) => uses.push((number, given, 1)),
                (Some(given), Some((_, known, count))) if *known == given => *count += 1,
                _ => mixed.push(number),
            }
        };
        for equation in self.query.bound.equations.iter().flatten() {
            if let Equal::Values(values) = equation.equals {
                for value in values {
                    note(value, self.query.bound.key_type(equation.column));
                }
            }
        }
        for (block, facts) in self.query.facts.blocks.iter().enumerate() {
            let BlockKind::Insert(insert) = &facts.kind else {
                continue;
            };
            let target = self
                .query
                .bound
                .source(block, 0)
                .and_then(|source| source.relation());
            let (Rows::Values(rows), Some(target)) = (&insert.rows, target) else {
                continue;
            };
            for row in rows {
                for (position, cell) in row.iter().enumerate() {
                    let column = match &insert.columns {
                        Some(names) => names
                            .get(position)
                            .and_then(|name| target.column(name))
                            .map(|(_, column)| column),
                        None => target.columns.get(position),
                    };
                    if let Cell::Value(value) = cell {
                        note(value, column.and_then(|column| column.key_type));
                    }
                }
            }
        }
        uses.retain(|(number, _, count)| {
            !mixed.contains(number) && *count == self.query.parameter_uses(*number)
        });
        uses.into_iter().map(|(number, _, _)| number).collect()
    }
}

/// Whether a literal of this kind, cast to this type, can be read as a key of that type.
fn is_key_literal(kind: TokenKind, cast: u32, key_type: KeyType) -> bool {
    match kind {
        // A cast number is printed first when it becomes a string.
        TokenKind::Number => {
            cast == 0
                || matches!(
                    key_type,
                    KeyType::Int2 | KeyType::Int4 | KeyType::Int8 | KeyType::Numeric
                )
        }
        TokenKind::String
        | TokenKind::EscapeString
        | TokenKind::UnicodeString
        | TokenKind::DollarString => true,
        _ => false,
    }
}
