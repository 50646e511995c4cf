//! `INSERT … VALUES` into a sharded table: each row to its shard.
//!
//! What holds:
//! - The plan ([`Insertion`]) knows the *patterns* of rows, never their number or values: one plan serves
//!   lists of any length. It says for each column of the shard key where its value comes from
//!   ([`Origin`]); that is the one place to add to for values that have to be made first.
//! - [`Insertion::place`] reads the rows of one execution and finds the shard of each. What a shard is
//!   sent ([`Placed::parts`]) is the client's text with the rows of others cut out, and the parameters
//!   that are left numbered anew: a row that is sent is sent byte for byte, to one shard.
//! - A parameter without a declared type gets it from its first use. Where rows that are cut out may have
//!   been that, [`Placed::needs_types`] says so, and the types have to be asked for first.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::Target;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::NOT_UTF8;
use crate::plan::keyed::is_relative_time;
use crate::plan::refusal;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyUse;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::lexer::tokenize;
use crate::sql::literal::token_value;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;
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
}

/// What is known of rows of one pattern.
#[derive(Clone, Debug)]
pub(in crate::plan) struct RowPattern {
    pub pattern: Pattern,
    /// For each column of the shard key where its value comes from.
    pub keys: Box<[Origin]>,
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
}

/// The rows of one execution, each with its shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The tokens of the text.
    tokens: Vec<Token>,
    /// In the order of the text.
    rows: Vec<PlacedRow>,
    /// Some parameter may have another type than its use in a part of the rows suggests.
    needs_types: bool,
}

/// A row and its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlacedRow {
    tokens: Range<usize>,
    shard: ShardIndex,
}

/// What one shard is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsPart {
    /// The shard.
    pub shard: ShardIndex,
    /// The statement with the rows of this shard.
    pub text: String,
    /// Its parameters, as indexes (from 0) of the client's.
    pub parameters: Vec<usize>,
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
        let placed = self.place(arguments)?;
        match placed.single() {
            Some(shard) => Ok(Target::One(shard)),
            None => Ok(Target::Rows(Arc::new(placed))),
        }
    }

    /// The rows of one execution with their shards.
    ///
    /// # Errors
    /// `23502` for a NULL in the shard key, `23514` for a key that no shard takes, `0A000` for one that
    /// can't be known.
    pub fn place(&self, arguments: &Arguments<'_>) -> Result<Placed> {
        let text = arguments.text;
        let mut tokens =
            tokenize(text.as_bytes(), self.lex).map_err(|error| error.to_error(text.as_bytes()))?;
        while tokens.last().is_some_and(|last| last.is_symbol(text, ";")) {
            tokens.pop();
        }
        let found = values::rows(text, &tokens).ok_or_else(unlike)?;
        let mut reader = Reader {
            insertion: self,
            arguments,
            tokens: &tokens,
            uses: Vec::new(),
            last: 0,
        };
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
        };
        if placed.single().is_none() {
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
                let is_suspect = *is_moment || !values::is_atom(text, cell);
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
struct Reader<'a> {
    insertion: &'a Insertion,
    arguments: &'a Arguments<'a>,
    tokens: &'a [Token],
    /// Of each parameter without a declared type; empty if there are no parameters.
    uses: Vec<Use>,
    /// The pattern of the last row.
    last: usize,
}

impl Reader<'_> {
    /// Notes how parameters without a declared type are used.
    fn note_uses(&mut self, rows: &[Range<usize>]) -> Result<()> {
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
        let patterns = &self.insertion.patterns;
        let fits = |at: usize| {
            let known = patterns.get(at);
            known.is_some_and(|known| known.pattern.fits(text, tokens, &cells))
        };
        if !fits(self.last) {
            self.last = (0..patterns.len())
                .find(|at| fits(*at))
                .ok_or_else(unlike)?;
        }
        let keys = patterns.get(self.last).map(|known| &*known.keys);
        let columns = self.insertion.placement.columns();
        let mut values: SmallVec<[Key; 2]> = SmallVec::new();
        for (column, origin) in columns.iter().zip(keys.unwrap_or_default()) {
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
    fn key(
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

impl Placed {
    /// The shard, if all rows are on one.
    pub fn single(&self) -> Option<ShardIndex> {
        let (first, others) = self.rows.split_first()?;
        let is_single = others.iter().all(|row| row.shard == first.shard);
        is_single.then_some(first.shard)
    }

    /// The shards.
    pub fn shards(&self) -> ShardSet {
        self.rows.iter().map(|row| row.shard).collect()
    }

    /// What was changed of `text` to make the part of a shard.
    pub fn edits(&self, text: &str, shard: ShardIndex) -> Vec<Edit> {
        let mut edits = Vec::new();
        let mut numbers = Numbers::default();
        // Behind the last row that was kept.
        let mut kept: Option<u32> = None;
        let (head, tail) = self.around(text);
        numbers.edits(text, head.1, &mut edits);
        let mut at = head.0.end;
        for row in &self.rows {
            let tokens = self.tokens.get(row.tokens.clone()).unwrap_or_default();
            let range = span(tokens);
            if row.shard != shard {
                continue;
            }
            let comma = if kept.is_some() { ", " } else { "" };
            edits.push(Edit {
                range: at..range.start,
                text: comma.to_owned(),
            });
            numbers.edits(text, tokens, &mut edits);
            at = range.end;
            kept = Some(at);
        }
        edits.push(Edit {
            range: at..tail.0.start,
            text: String::new(),
        });
        numbers.edits(text, tail.1, &mut edits);
        edits
    }

    /// Whether the types of parameters that were not declared have to be asked for, of the whole text,
    /// before parts of it are sent.
    pub fn needs_types(&self) -> bool {
        self.needs_types
    }

    /// Of each parameter of the text up to the largest number whether the text has it.
    pub fn parameters(&self, text: &str) -> Vec<bool> {
        let mut used = Vec::new();
        for index in self
            .tokens
            .iter()
            .filter_map(|token| parameter(text, token))
        {
            if used.len() <= index {
                used.resize(index + 1, false);
            }
            if let Some(used) = used.get_mut(index) {
                *used = true;
            }
        }
        used
    }

    /// What each shard is sent of `text`, in the order of shards.
    pub fn parts(&self, text: &str) -> Vec<RowsPart> {
        let mut parts: Vec<RowsPart> = Vec::new();
        let mut shards: Vec<ShardIndex> = self.rows.iter().map(|row| row.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let has_parameters = self
            .tokens
            .iter()
            .any(|token| token.kind == TokenKind::Parameter);
        for shard in shards {
            let mut part = RowsPart {
                shard,
                text: String::with_capacity(text.len() / 2),
                parameters: Vec::new(),
            };
            let mut numbers = Numbers::default();
            let mut push =
                |out: &mut String, tokens: &[Token], range: Range<u32>| match has_parameters {
                    true => numbers.push(out, text, tokens, range),
                    false => out.push_str(slice(text, range)),
                };
            let (head, tail) = self.around(text);
            push(&mut part.text, head.1, head.0);
            let own = self.rows.iter().filter(|row| row.shard == shard);
            for (index, row) in own.enumerate() {
                if index > 0 {
                    part.text.push_str(", ");
                }
                let tokens = self.tokens.get(row.tokens.clone()).unwrap_or_default();
                push(&mut part.text, tokens, span(tokens));
            }
            push(&mut part.text, tail.1, tail.0);
            part.parameters = numbers.kept;
            parts.push(part);
        }
        parts
    }

    /// For each row which of the parts has it.
    pub fn order(&self) -> Vec<usize> {
        let mut shards: Vec<ShardIndex> = self.rows.iter().map(|row| row.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let part = |row: &PlacedRow| shards.binary_search(&row.shard).unwrap_or_default();
        self.rows.iter().map(part).collect()
    }

    /// What stands before the rows, and behind them: bytes and tokens.
    fn around(&self, text: &str) -> (Stretch<'_>, Stretch<'_>) {
        let first = self.rows.first().map_or(0, |row| row.tokens.start);
        let last = self.rows.last().map_or(0, |row| row.tokens.end);
        let start = self.tokens.get(first).map_or(0, |token| token.start);
        let end = self.tokens.get(last.saturating_sub(1));
        let end = end.map_or(0, |token| token.end);
        let all = u32::try_from(text.len()).unwrap_or(u32::MAX);
        (
            (0..start, self.tokens.get(..first).unwrap_or_default()),
            (end..all, self.tokens.get(last..).unwrap_or_default()),
        )
    }
}

/// Bytes of the text and the tokens in them.
type Stretch<'a> = (Range<u32>, &'a [Token]);

/// The parameters of a part, numbered by their first use.
#[derive(Default)]
struct Numbers {
    kept: Vec<usize>,
    /// The new number (from 1) of each of the client's; 0 if it has none.
    new: Vec<usize>,
}

impl Numbers {
    /// Appends a stretch of the text with new numbers.
    fn push(&mut self, out: &mut String, text: &str, tokens: &[Token], range: Range<u32>) {
        let mut at = range.start;
        for token in tokens {
            if token.kind != TokenKind::Parameter {
                continue;
            }
            let Some(index) = parameter(text, token) else {
                continue;
            };
            out.push_str(slice(text, at..token.start));
            // Writing to a string does not fail.
            let _ = write!(out, "${}", self.number(index));
            at = token.end;
        }
        out.push_str(slice(text, at..range.end));
    }

    /// The same as edits of the text.
    fn edits(&mut self, text: &str, tokens: &[Token], edits: &mut Vec<Edit>) {
        for token in tokens {
            if let Some(index) = parameter(text, token) {
                edits.push(Edit {
                    range: token.range(),
                    text: format!("${}", self.number(index)),
                });
            }
        }
    }

    fn number(&mut self, index: usize) -> usize {
        if self.new.len() <= index {
            self.new.resize(index + 1, 0);
        }
        let Some(number) = self.new.get_mut(index) else {
            return 0;
        };
        if *number == 0 {
            self.kept.push(index);
            *number = self.kept.len();
        }
        *number
    }
}

/// The bytes from the first token to the last.
fn span(tokens: &[Token]) -> Range<u32> {
    let start = tokens.first().map_or(0, |token| token.start);
    start..tokens.last().map_or(start, |token| token.end)
}

/// The index (from 0) of a parameter.
pub(super) fn parameter(text: &str, token: &Token) -> Option<usize> {
    if token.kind != TokenKind::Parameter {
        return None;
    }
    let number: usize = token.text(text).strip_prefix('$')?.parse().ok()?;
    number.checked_sub(1)
}

const UNREAD: KeyError = KeyError::Unprovable("it is no constant of a kind that can be a key");

/// A row of a text is not of a kind that its plan knows, which the cache of plans must not let happen.
fn unlike() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the rows of an INSERT are not those that were planned",
    )
}

/// PostgreSQL's words for `$0` and for numbers beyond all bounds.
fn no_parameter() -> Error {
    Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $0")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::splice::splice;

    /// The rows of a text, on the shards given.
    fn placed(text: &str, shards: &[ShardIndex]) -> Placed {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        let found = values::rows(text, &tokens).unwrap();
        let rows = found.into_iter().zip(shards);
        Placed {
            rows: rows
                .map(|(tokens, shard)| PlacedRow {
                    tokens,
                    shard: *shard,
                })
                .collect(),
            tokens,
            needs_types: false,
        }
    }

    #[test]
    fn parameters_are_numbered_by_their_first_use() {
        let text =
            "WITH c AS (SELECT $9) INSERT INTO t VALUES ($1, $2), ($3, $2), ($4, $9) RETURNING $2";
        let parts = placed(text, &[0, 2, 0]).parts(text);
        let part = |shard, text: &str, parameters: &[usize]| RowsPart {
            shard,
            text: text.to_owned(),
            parameters: parameters.to_vec(),
        };
        assert_eq!(
            parts,
            [
                part(
                    0,
                    "WITH c AS (SELECT $1) INSERT INTO t VALUES ($2, $3), ($4, $1) RETURNING $3",
                    &[8, 0, 1, 3]
                ),
                part(
                    2,
                    "WITH c AS (SELECT $1) INSERT INTO t VALUES ($2, $3) RETURNING $3",
                    &[8, 2, 1]
                ),
            ]
        );
    }

    proptest! {
        #[test]
        fn each_row_goes_to_one_part_as_it_is(
            rows in proptest::collection::vec(
                ("[a-z ,()]{0,6}", 1..9_usize, 0..3_usize, prop_oneof![Just("--)\n"), Just("/*(*/"), Just("")]),
                1..8,
            ),
        ) {
            let written: Vec<String> = rows
                .iter()
                .map(|(text, number, _, comment)| format!("('{text}', {comment} ${number})"))
                .collect();
            let text = format!("INSERT INTO t VALUES {} -- end", written.join("\n, "));
            let shards: Vec<usize> = rows.iter().map(|(.., shard, _)| *shard).collect();
            let placed = placed(&text, &shards);
            let parts = placed.parts(&text);
            let mut gathered = Vec::new();
            for part in &parts {
                let edits = placed.edits(&text, part.shard);
                let spliced = splice(&text, LexOptions::default(), &edits).unwrap();
                prop_assert_eq!(&spliced, &part.text);
                let tokens = tokenize(part.text.as_bytes(), LexOptions::default()).unwrap();
                let rows = values::rows(&part.text, &tokens).unwrap();
                for row in rows {
                    // Back to the client's numbers.
                    let mut row = slice(&part.text, span(&tokens[row])).to_owned();
                    let at = row.rfind('$').unwrap();
                    let number: usize = row[at + 1..row.len() - 1].parse().unwrap();
                    row.replace_range(at.., &format!("${})", part.parameters[number - 1] + 1));
                    gathered.push((part.shard, row));
                }
            }
            let order = placed.order();
            prop_assert_eq!(order.len(), shards.len());
            let mut wanted: Vec<(usize, String)> = shards.iter().copied().zip(written).collect();
            // Stable: rows of one shard keep their order.
            wanted.sort_by_key(|(shard, _)| *shard);
            prop_assert_eq!(gathered, wanted);
        }
    }
}
