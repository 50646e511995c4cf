//! Key proofs: which values the shard key of a table can have, by the conditions of its block.
//!
//! Let T be an occurrence of a sharded table in a block. Every equality that may restrict T holds in
//! every row of the block's result in which T is not null-extended: those of its `WHERE`, of inner
//! joins, and of the outer joins that have T on the side they may null-extend. If these equalities
//! link each column of T's key to a constant, rows of T with another key change nothing: in any
//! combination they take part in, one of the links fails, and it fails too when T is null-extended
//! instead, since equality is never true of NULL. Equalities of the blocks around T's hold for every
//! row that survives there, so they count as well.
//!
//! A column of a subquery in `FROM` is what it is inside, in every row of it. Whoever asks for some rows of a
//! subquery only asks for those of its sources, if a condition on the column may as well stand inside
//! ([`Bound::holds_inside`]); a `WITH` that is named twice is asked for by each. The same holds for `IN`,
//! of which only rows with the value looked for can make it true.
//!
//! [`Bound::holds_inside`]: crate::plan::bind::Bound::holds_inside

use std::sync::Arc;

use crate::catalog::Relation;
use crate::plan::bind::BoundSource;
use crate::plan::bind::ColumnId;
use crate::plan::bind::Equal;
use crate::plan::bind::Equation;
use crate::plan::bind::same_family;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Part;
use crate::plan::keyed::Proof;
use crate::plan::outputs::Reader;
use crate::plan::query::Query;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::KeyUse;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::CastType;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Rows;
use crate::sql::analysis::Value;
use crate::sql::analysis::ValueSource;
use crate::sql::token::TokenKind;

/// More combinations of values than this are not looked at in each execution.
const COMBINATIONS: usize = 10_000;

/// How deep proofs follow one `WITH` into another that are each named twice.
const DEPTH: usize = 3;

/// What a column equals in every row that matters.
struct Reached<'a> {
    /// Columns, itself first.
    columns: Vec<ColumnId>,
    /// Columns among them that are equal to one of these values.
    values: Vec<(ColumnId, &'a [Value])>,
    /// Columns inside subqueries that are read by several.
    shared: Vec<ColumnId>,
    /// The blocks whose equalities hold.
    blocks: Vec<BlockId>,
}

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
        self.part_within(column, 0)
    }

    fn part_within(&self, column: ColumnId, depth: usize) -> Option<Part> {
        let column_type = self.query.bound.key_type(column)?;
        let reached = self.reach(column);
        let listed = reached.values.iter().filter_map(|(at, values)| {
            let column_type = self.query.bound.key_type(*at)?;
            self.values(values, column_type)
        });
        // What a WITH that is named twice says of its own rows.
        let shared = reached.shared.iter().filter(|_| depth < DEPTH);
        let shared = shared.filter_map(|inside| self.part_within(*inside, depth + 1));
        let best = listed.chain(shared).min_by_key(|part| part.values.len());
        best.filter(|part| same_family(part.column.key_type, column_type.key_type))
    }

    /// Whether rows of the source of `column` matter only where it equals `to`.
    pub fn links(&self, column: ColumnId, to: ColumnId) -> bool {
        column == to || self.reach(column).columns.contains(&to)
    }

    /// All that a column equals in every row that matters.
    fn reach(&self, column: ColumnId) -> Reached<'a> {
        let mut reached = Reached {
            columns: vec![column],
            values: Vec::new(),
            shared: Vec::new(),
            blocks: Vec::new(),
        };
        self.enter(column.block, &mut reached);
        let mut next = 0;
        while let Some(at) = reached.columns.get(next).copied() {
            next += 1;
            if let Some(column_type) = self.query.bound.key_type(at) {
                self.step_aside(column, (at, column_type), &mut reached);
                self.step_in(at, &mut reached);
                self.step_out(at, column_type, &mut reached);
            }
        }
        reached
    }

    /// Takes in a block and those around it.
    fn enter(&self, block: BlockId, reached: &mut Reached<'_>) {
        let mut next = Some(block);
        while let Some(block) = next {
            if !reached.blocks.contains(&block) {
                reached.blocks.push(block);
            }
            let outer = self.query.facts.blocks.get(block);
            let outer = outer.and_then(|block| block.outer.as_ref());
            next = outer
                .map(|outer| outer.block)
                .filter(|outer| *outer < block);
        }
    }

    /// Follows the equalities of the blocks that were taken in.
    fn step_aside(
        &self,
        column: ColumnId,
        (at, column_type): (ColumnId, ColumnType),
        reached: &mut Reached<'a>,
    ) {
        for block in reached.blocks.clone() {
            for equation in self.usable(block, column, at) {
                let other = match (equation.column == at, equation.equals) {
                    (true, Equal::Values(values)) => {
                        reached.values.push((at, values));
                        continue;
                    }
                    (true, Equal::Row(query, number)) => {
                        let Some(inside) = self.query.bound.origin(query, number) else {
                            continue;
                        };
                        if !reached.blocks.contains(&query) {
                            reached.blocks.push(query);
                        }
                        inside
                    }
                    (true, Equal::Column(other)) => other,
                    (false, Equal::Column(other)) if other == at => equation.column,
                    _ => continue,
                };
                self.note(other, column_type, reached);
            }
        }
    }

    /// From a subquery's column to what it is inside. Of a row of a `WITH` that is named twice nothing else
    /// may be known by way of the other.
    fn step_in(&self, at: ColumnId, reached: &mut Reached<'_>) {
        let bound = &self.query.bound;
        let Some(BoundSource::Query(query)) = bound.source(at.block, at.source) else {
            return;
        };
        let Some(inside) = bound.origin(query, at.column) else {
            return;
        };
        if bound.reader(query) == Reader::Several {
            reached.shared.push(inside);
            return;
        }
        if !reached.blocks.contains(&query) {
            reached.blocks.push(query);
        }
        if !reached.columns.contains(&inside) {
            reached.columns.push(inside);
        }
    }

    /// From a column inside a subquery to that of its rows, where only rows that are asked for matter.
    fn step_out(&self, at: ColumnId, column_type: ColumnType, reached: &mut Reached<'_>) {
        let bound = &self.query.bound;
        if bound.outputs_of(at).next().is_none() || !bound.holds_inside(at) {
            return;
        }
        for number in bound.outputs_of(at) {
            if let Some(outside) = self.outside(at.block, number) {
                self.enter(outside.block, reached);
                self.note(outside, column_type, reached);
            }
        }
        // Only rows with the value that is looked for change what `IN` says.
        for (block, equations) in bound.equations.iter().enumerate() {
            for equation in equations {
                let Equal::Row(query, number) = equation.equals else {
                    continue;
                };
                if query == at.block && bound.origin(query, number) == Some(at) {
                    self.enter(block, reached);
                    self.note(equation.column, column_type, reached);
                }
            }
        }
    }

    /// The column of the source that a block is whose column has this number; its rows may pass through set
    /// operations.
    fn outside(&self, mut block: BlockId, column: usize) -> Option<ColumnId> {
        let bound = &self.query.bound;
        loop {
            match bound.reader(block) {
                Reader::Source(block, source) => {
                    return Some(ColumnId {
                        block,
                        source,
                        column,
                    });
                }
                Reader::Arm(of) => {
                    let facts = self.query.facts.blocks.get(of)?;
                    bound.given_type(of, column)?;
                    // A set operation stands before its arms, so this ends.
                    if facts.clauses.cuts() || of >= block {
                        return None;
                    }
                    block = of;
                }
                Reader::Several | Reader::Other => return None,
            }
        }
    }

    /// Takes in a column of the same kind of type.
    fn note(&self, other: ColumnId, column_type: ColumnType, reached: &mut Reached<'_>) {
        let other_type = self.query.bound.key_type(other);
        let is_alike =
            other_type.is_some_and(|other| same_family(other.key_type, column_type.key_type));
        if is_alike && !reached.columns.contains(&other) {
            reached.columns.push(other);
        }
    }

    /// The equalities of a block that may restrict the source of `column`, which is linked to `at`.
    ///
    /// A column that is linked to another is not null where the other is not: then its own source is
    /// not null-extended, and the equalities that restrict that source hold.
    fn usable(
        &self,
        block: BlockId,
        column: ColumnId,
        at: ColumnId,
    ) -> impl Iterator<Item = &Equation<'a>> {
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
