//! `INSERT … VALUES` into a sharded table: each row to its shard.
//!
//! What holds:
//! - The plan ([`Insertion`]) knows the *patterns* of rows, never their number or values: one plan serves
//!   lists of any length. It says for each column of the shard key where its value comes from
//!   ([`Origin`]); that is the one place to add to for values that have to be made first.
//! - [`Insertion::place`] reads the rows of one execution and finds the shard of each. What a shard is
//!   sent ([`Placed::parts`]) is the client's text with the rows of others cut out, and the parameters
//!   that are left numbered anew: a row that is sent is sent byte for byte, to one shard.
//! - A date or time in the shard key that settings have a say in (`'2026-01-01 10:00'` for `timestamptz`) is
//!   evaluated first as well, as the type of its column; that is seen in each execution.
//! - A parameter without a declared type gets it from its first use. Where rows that are cut out may have
//!   been that, [`Placed::needs_types`] says so, and the types have to be asked for first.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::Target;
use crate::plan::insert::clock::Clock;
use crate::plan::insert::expression::Expression;
use crate::plan::insert::expression::expression;
use crate::plan::insert::parts::ComputedCell;
use crate::plan::insert::parts::Placed;
use crate::plan::insert::parts::PlacedRow;
use crate::plan::insert::parts::parameter;
use crate::plan::insert::parts::span;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::NOT_UTF8;
use crate::plan::keyed::is_relative_time;
use crate::plan::refusal;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyType;
use crate::sharding::KeyUse;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sql::lexer::tokenize;
use crate::sql::literal::token_value;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::values;
use crate::sql::values::Pattern;
use crate::sqlstate::SqlState;

/// An `INSERT … VALUES` whose rows may be on several shards.
#[derive(Clone, Debug)]
pub struct Insertion {
    /// The table's name, for messages.
    pub(in crate::plan) table: String,
    pub(in crate::plan) placement: Arc<Placement>,
    /// How texts of this plan are lexed.
    pub(super) lex: LexOptions,
    /// Of each kind of row.
    pub(in crate::plan) patterns: Vec<RowPattern>,
    /// For each cell of a row whether its column is of a date or time type.
    pub(super) moments: Box<[bool]>,
    /// The columns whose defaults are evaluated once if the rows are on several shards.
    pub(in crate::plan) clock: Option<Clock>,
    /// Why its rows must not be on several shards, if they must not.
    pub(super) spread: Result<()>,
}

/// What is known of rows of one pattern.
#[derive(Clone, Debug)]
pub(in crate::plan) struct RowPattern {
    pub pattern: Pattern,
    /// For each column of the shard key where its value comes from.
    pub keys: Box<[Origin]>,
    /// Cells that are evaluated before anything is stored, in order.
    pub evaluated: Box<[Evaluated]>,
}

/// A cell that is evaluated first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Evaluated {
    /// The cell.
    pub cell: usize,
    /// Cells that read alike have the same value.
    pub is_shared: bool,
}

/// What an expression has become: its type, format and value; none is NULL.
pub type Computed = (u32, Format, Option<Vec<u8>>);

/// The expressions of one execution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expressions {
    /// What to evaluate.
    pub list: Vec<Expression>,
    /// Types of parameters have to be asked for first, of the whole text.
    pub needs_types: bool,
    /// The cells, each with the index of its expression.
    cells: Vec<ComputedCell>,
}

/// Where the value of a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Origin {
    /// A constant or parameter that is this cell.
    Atom { cell: usize },
    /// A constant or parameter with a cast.
    Cast {
        cell: usize,
        /// Its token, counted from the first one of the cell.
        token: usize,
        negative: bool,
        /// The type it is cast to.
        cast: u32,
    },
    /// Whatever the expression in this cell, evaluated first, gives.
    Evaluated { cell: usize },
}

/// How a parameter without a declared type is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Never,
    /// As this cell of rows.
    Cell(usize),
    /// Once, in some other way.
    Once,
    /// In ways that may give it several types.
    Mixed,
}

impl Insertion {
    /// Where an execution runs.
    ///
    /// # Errors
    /// As for [`Insertion::place`].
    pub(in crate::plan) fn target(&self, arguments: &Arguments<'_>) -> Result<Target> {
        let mut patterns = self.patterns.iter();
        if patterns.any(|known| !known.evaluated.is_empty()) || self.has_times(arguments)? {
            return Ok(match self.clock {
                None => Target::Computed,
                Some(_) => Target::Fill,
            });
        }
        let placed = self.place(arguments, &Expressions::default(), &[])?;
        match placed.single() {
            Some(shard) => Ok(Target::One(shard)),
            None if self.clock.is_some() => Ok(Target::Fill),
            None => Ok(Target::Rows(Arc::new(placed))),
        }
    }

    /// Of each parameter of a text up to the largest number whether the text has it.
    pub fn parameters(&self, text: &str) -> Vec<bool> {
        let tokens = tokenize(text.as_bytes(), self.lex).unwrap_or_default();
        let placed = Placed {
            tokens,
            ..Placed::default()
        };
        placed.parameters(text)
    }

    /// The expressions that have to be evaluated before the rows of an execution can be placed.
    ///
    /// # Errors
    /// `42P02` for a number that no parameter has.
    pub fn expressions(&self, arguments: &Arguments<'_>) -> Result<Expressions> {
        let text = arguments.text;
        let (tokens, found) = self.read(text)?;
        let mut reader = Reader::new(self, arguments, &tokens);
        reader.note_uses(&found)?;
        let mut all = Expressions {
            needs_types: reader.uses.contains(&Use::Mixed),
            ..Expressions::default()
        };
        let mut shared: Vec<(&str, usize)> = Vec::new();
        for row in found {
            let row = tokens.get(row).unwrap_or_default();
            let cells = values::cells(text, row);
            let pattern = reader.pattern(row, &cells)?;
            let mut first: Vec<(Evaluated, Option<String>)> =
                pattern.evaluated.iter().map(|one| (*one, None)).collect();
            for (time, cast) in reader.times(pattern, row, &cells) {
                first.retain(|(known, _)| known.cell != time.cell);
                first.push((time, cast));
            }
            first.sort_unstable_by_key(|(evaluated, _)| evaluated.cell);
            for (evaluated, cast) in first {
                let cell = cells.get(evaluated.cell).cloned().unwrap_or_default();
                let cell = row.get(cell).unwrap_or_default();
                let written = values::written(text, cell);
                let known = shared.iter().find(|(known, _)| *known == written);
                let index = match known.filter(|_| evaluated.is_shared) {
                    Some((_, index)) => *index,
                    None => {
                        let index = all.list.len();
                        all.list.push(expression(text, cell, cast));
                        if evaluated.is_shared {
                            shared.push((written, index));
                        }
                        index
                    }
                };
                all.cells.push(ComputedCell {
                    range: span(cell),
                    index,
                });
            }
        }
        Ok(all)
    }

    /// The tokens of a text, and its rows.
    pub(super) fn read(&self, text: &str) -> Result<(Vec<Token>, Vec<Range<usize>>)> {
        let mut tokens =
            tokenize(text.as_bytes(), self.lex).map_err(|error| error.to_error(text.as_bytes()))?;
        while tokens.last().is_some_and(|last| last.is_symbol(text, ";")) {
            tokens.pop();
        }
        tokens.drain(..values::explained(text, &tokens));
        let rows = values::rows(text, &tokens).ok_or_else(unlike)?;
        Ok((tokens, rows))
    }

    /// The rows of one execution with their shards; `computed` are the values of its expressions.
    ///
    /// # Errors
    /// `23502` for a NULL in the shard key, `23514` for a key that no shard takes, `0A000` for one that
    /// can't be known.
    pub fn place(
        &self,
        arguments: &Arguments<'_>,
        expressions: &Expressions,
        computed: &[Computed],
    ) -> Result<Placed> {
        let (tokens, found) = self.read(arguments.text)?;
        let mut reader = Reader::new(self, arguments, &tokens);
        reader.expressions = &expressions.cells;
        reader.computed = computed;
        reader.note_uses(&found)?;
        let mut rows: Vec<PlacedRow> = Vec::with_capacity(found.len());
        for row in found {
            let shard = reader.shard(row.clone())?;
            rows.push(PlacedRow { tokens: row, shard });
        }
        let needs_types = reader.uses.contains(&Use::Mixed);
        let placed = Placed {
            tokens,
            rows,
            needs_types,
            computed: expressions.cells.clone(),
        };
        if placed.single().is_none() {
            self.spread.clone()?;
            self.check_moments(&placed, arguments)?;
        }
        Ok(placed)
    }

    /// Refuses `'now'` and the like in columns of date and time types: each shard would read it for
    /// itself.
    fn check_moments(&self, placed: &Placed, arguments: &Arguments<'_>) -> Result<()> {
        if !self.moments.contains(&true) {
            return Ok(());
        }
        let text = arguments.text;
        for row in &placed.rows {
            let row = placed.tokens.get(row.tokens.clone()).unwrap_or_default();
            let cells = values::cells(text, row);
            for (cell, is_moment) in cells.into_iter().zip(&self.moments) {
                let cell = row.get(cell).unwrap_or_default();
                // An expression may make a moment of any string in it.
                let start = span(cell).start;
                let known = placed
                    .computed
                    .binary_search_by_key(&start, |one| one.range.start);
                let is_known = known.is_ok();
                let is_suspect = !is_known && (*is_moment || !values::is_atom(text, cell));
                let says_now = |token: &Token| match token.kind {
                    TokenKind::Parameter => parameter(text, token).is_some_and(|index| {
                        let is_text = arguments.parameters.format(index) == Some(Format::Text);
                        let value = arguments.parameters.value(index).flatten();
                        is_text && value.is_some_and(is_relative_time)
                    }),
                    kind if kind.is_string() => token_value(text, token)
                        .is_some_and(|value| is_relative_time(value.as_bytes())),
                    _ => false,
                };
                if is_suspect && cell.iter().any(says_now) {
                    return Err(refusal::relative_time());
                }
            }
        }
        Ok(())
    }
}

/// Reads the rows of one execution.
pub(super) struct Reader<'a> {
    pub(super) insertion: &'a Insertion,
    pub(super) arguments: &'a Arguments<'a>,
    tokens: &'a [Token],
    /// Of each parameter without a declared type; empty if there are no parameters.
    uses: Vec<Use>,
    /// The pattern of the last row.
    last: usize,
    /// The cells that were evaluated, and what they gave.
    expressions: &'a [ComputedCell],
    computed: &'a [Computed],
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        insertion: &'a Insertion,
        arguments: &'a Arguments<'a>,
        tokens: &'a [Token],
    ) -> Reader<'a> {
        Reader {
            insertion,
            arguments,
            tokens,
            uses: Vec::new(),
            last: 0,
            expressions: &[],
            computed: &[],
        }
    }

    /// The pattern of a row.
    pub(super) fn pattern(
        &mut self,
        row: &[Token],
        cells: &[Range<usize>],
    ) -> Result<&'a RowPattern> {
        let text = self.arguments.text;
        let patterns = &self.insertion.patterns;
        let fits = |at: usize| {
            let known = patterns.get(at);
            known.is_some_and(|known| known.pattern.fits(text, row, cells))
        };
        if !fits(self.last) {
            self.last = (0..patterns.len())
                .find(|at| fits(*at))
                .ok_or_else(unlike)?;
        }
        patterns.get(self.last).ok_or_else(unlike)
    }

    /// Notes how parameters without a declared type are used.
    pub(super) fn note_uses(&mut self, rows: &[Range<usize>]) -> Result<()> {
        let text = self.arguments.text;
        let mut at = 0;
        for row in rows {
            self.note(at..row.start, None)?;
            let tokens = self.tokens.get(row.clone()).unwrap_or_default();
            if tokens
                .iter()
                .any(|token| token.kind == TokenKind::Parameter)
            {
                for (index, cell) in values::cells(text, tokens).into_iter().enumerate() {
                    let is_atom = cell.len() == 1;
                    let cell = row.start + cell.start..row.start + cell.end;
                    self.note(cell, is_atom.then_some(index))?;
                }
            }
            at = row.end;
        }
        self.note(at..self.tokens.len(), None)
    }

    fn note(&mut self, tokens: Range<usize>, cell: Option<usize>) -> Result<()> {
        let text = self.arguments.text;
        for token in self.tokens.get(tokens).unwrap_or_default() {
            if token.kind != TokenKind::Parameter {
                continue;
            }
            // More parameters than a message can carry are for a server to refuse.
            let index = parameter(text, token).filter(|index| *index < usize::from(u16::MAX));
            let index = index.ok_or_else(no_parameter)?;
            if self.arguments.parameters.type_oid(index) != 0 {
                continue;
            }
            if self.uses.len() <= index {
                self.uses.resize(index + 1, Use::Never);
            }
            if let Some(known) = self.uses.get_mut(index) {
                *known = match (*known, cell) {
                    (Use::Never, Some(cell)) => Use::Cell(cell),
                    (Use::Never, None) => Use::Once,
                    (Use::Cell(one), Some(other)) if one == other => Use::Cell(one),
                    _ => Use::Mixed,
                };
            }
        }
        Ok(())
    }

    /// The shard of a row.
    fn shard(&mut self, row: Range<usize>) -> Result<ShardIndex> {
        let text = self.arguments.text;
        let tokens = self.tokens.get(row).unwrap_or_default();
        let cells = values::cells(text, tokens);
        let keys = &self.pattern(tokens, &cells)?.keys;
        let columns = self.insertion.placement.columns();
        let mut values: SmallVec<[Key; 2]> = SmallVec::new();
        for (column, origin) in columns.iter().zip(keys) {
            match self.key(*origin, tokens, &cells, values.len()) {
                Ok(key) => values.push(key),
                // A server says what is wrong with it; any will do.
                Err(KeyError::Rejected(_)) => return Ok(self.any()),
                Err(error) => return Err(error.store_error(&self.insertion.table, &column.name)),
            }
        }
        self.insertion.placement.shard(&values).map_err(|error| {
            let name = columns.first().map_or("", |column| column.name.as_str());
            error.store_error(&self.insertion.table, name)
        })
    }

    fn any(&self) -> ShardIndex {
        let mut shards = self.insertion.placement.shards().iter();
        shards.next().unwrap_or_default()
    }

    /// The key of column `index`.
    pub(super) fn key(
        &self,
        origin: Origin,
        row: &[Token],
        cells: &[Range<usize>],
        index: usize,
    ) -> Result<Key, KeyError> {
        let tokens = |cell: usize| {
            let cell = cells.get(cell).and_then(|cell| row.get(cell.clone()));
            cell.unwrap_or_default()
        };
        if let Origin::Atom { cell } | Origin::Cast { cell, .. } = origin
            && self.is_computed(tokens(cell))
        {
            return self.computed_key(tokens(cell), index);
        }
        let value = match origin {
            Origin::Atom { cell } => match tokens(cell) {
                [sign, number] => self.value(number, true, sign),
                [one] => self.value(one, false, one),
                _ => None,
            },
            Origin::Cast {
                cell,
                token,
                negative,
                cast,
            } => {
                let token = tokens(cell).get(token);
                let value = token.and_then(|token| self.value(token, negative, token));
                value.map(|value| KeyValue { cast, ..value })
            }
            Origin::Evaluated { cell } => return self.computed_key(tokens(cell), index),
        };
        let column = self.insertion.placement.columns().get(index);
        let (Some(value), Some(column)) = (value, column) else {
            return Err(UNREAD);
        };
        let key = value.key(self.arguments, &column.column_type, KeyUse::Store)?;
        if key.requires_utf8() && !self.arguments.encoding.is_exact() {
            return Err(NOT_UTF8);
        }
        Ok(key)
    }

    fn is_computed(&self, cell: &[Token]) -> bool {
        let start = span(cell).start;
        let cells = self.expressions;
        cells
            .binary_search_by_key(&start, |cell| cell.range.start)
            .is_ok()
    }

    /// The key of column `index` that an expression has given.
    fn computed_key(&self, cell: &[Token], index: usize) -> Result<Key, KeyError> {
        let range = span(cell);
        let cells = self.expressions;
        let found = cells.binary_search_by_key(&range.start, |cell| cell.range.start);
        let cell = found.ok().and_then(|at| cells.get(at));
        let computed = cell.and_then(|cell| self.computed.get(cell.index));
        let column = self.insertion.placement.columns().get(index);
        let (Some((type_oid, format, value)), Some(column)) = (computed, column) else {
            return Err(UNREAD);
        };
        let is_string =
            |known: KeyType| matches!(known, KeyType::Text | KeyType::Varchar | KeyType::Bpchar);
        // No assignment makes anything else of a string.
        if KeyType::from_oid(*type_oid).is_some_and(is_string)
            && !is_string(column.column_type.key_type)
        {
            return Err(KeyError::Rejected("the expression is a string"));
        }
        Key::from_parameter(
            *type_oid,
            *format,
            value.as_deref(),
            &column.column_type,
            KeyUse::Store,
        )
    }

    /// The value of a token that is a constant or parameter.
    fn value(&self, token: &Token, negative: bool, first: &Token) -> Option<KeyValue> {
        let text = self.arguments.text;
        let mut shared = false;
        let source = match token.kind {
            TokenKind::Parameter => {
                let index = parameter(text, token)?;
                shared = self.uses.get(index) == Some(&Use::Mixed);
                KeySource::Parameter(index)
            }
            TokenKind::Word if first.is_word(text, "null") => KeySource::Null,
            TokenKind::Word => KeySource::Bool(first.is_word(text, "true")),
            _ => {
                let literals = self.arguments.literals;
                let found = literals.binary_search_by_key(&token.start, |one| one.start);
                KeySource::Literal {
                    index: found.ok()?,
                    negative,
                }
            }
        };
        Some(KeyValue {
            source,
            cast: 0,
            shared,
        })
    }
}

const UNREAD: KeyError = KeyError::Unprovable("it is no constant of a kind that can be a key");

/// A row of a text is not of a kind that its plan knows, which the cache of plans must not let happen.
pub(super) fn unlike() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the rows of an INSERT are not those that were planned",
    )
}

/// PostgreSQL's words for `$0` and for numbers beyond all bounds.
fn no_parameter() -> Error {
    Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $0")
}
