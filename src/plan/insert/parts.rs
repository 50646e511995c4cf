//! What each shard is sent of an `INSERT … VALUES` whose rows have their shards.

use std::fmt::Write;
use std::ops::Range;

use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::splice::Edit;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// The rows of one execution, each with its shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The tokens of the text.
    pub(super) tokens: Vec<Token>,
    /// In the order of the text.
    pub(super) rows: Vec<PlacedRow>,
    /// Some parameter may have another type than its use in a part of the rows suggests.
    pub(super) needs_types: bool,
    /// Cells that have been evaluated, in the order of the text.
    pub(super) computed: Vec<ComputedCell>,
}

/// A row and its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlacedRow {
    pub tokens: Range<usize>,
    pub shard: ShardIndex,
}

/// A cell whose value is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ComputedCell {
    /// Its bytes in the text.
    pub range: Range<u32>,
    /// Which of the values it has.
    pub index: usize,
}

/// A parameter of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartParameter {
    /// The client's with this index (from 0).
    Client(usize),
    /// The value with this index of those that were evaluated first.
    Computed(usize),
}

/// What one shard is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsPart {
    /// The shard.
    pub shard: ShardIndex,
    /// The statement with the rows of this shard.
    pub text: String,
    /// Its parameters.
    pub parameters: Vec<PartParameter>,
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
        let mut numbers = Numbers::new(&self.computed);
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
            .any(|token| token.kind == TokenKind::Parameter)
            || !self.computed.is_empty();
        for shard in shards {
            let mut part = RowsPart {
                shard,
                text: String::with_capacity(text.len() / 2),
                parameters: Vec::new(),
            };
            let mut numbers = Numbers::new(&self.computed);
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
struct Numbers<'a> {
    kept: Vec<PartParameter>,
    /// The new number (from 1) of each of the client's; 0 if it has none.
    new: Vec<usize>,
    computed: &'a [ComputedCell],
}

impl<'a> Numbers<'a> {
    fn new(computed: &'a [ComputedCell]) -> Numbers<'a> {
        Numbers {
            kept: Vec::new(),
            new: Vec::new(),
            computed,
        }
    }

    /// Appends a stretch of the text with new numbers.
    fn push(&mut self, out: &mut String, text: &str, tokens: &[Token], range: Range<u32>) {
        let mut at = range.start;
        self.each(text, tokens, |old, number| {
            out.push_str(slice(text, at..old.start));
            // Writing to a string does not fail.
            let _ = write!(out, "${number}");
            at = old.end;
        });
        out.push_str(slice(text, at..range.end));
    }

    /// The same as edits of the text.
    fn edits(&mut self, text: &str, tokens: &[Token], edits: &mut Vec<Edit>) {
        self.each(text, tokens, |range, number| {
            edits.push(Edit {
                range,
                text: format!("${number}"),
            });
        });
    }

    /// Finds the parameters and the cells that become some, with their new numbers.
    fn each(&mut self, text: &str, tokens: &[Token], mut see: impl FnMut(Range<u32>, usize)) {
        let mut done = 0;
        let first = tokens.first().map_or(0, |token| token.start);
        let mut next = self
            .computed
            .partition_point(|cell| cell.range.start < first);
        for token in tokens.iter() {
            if token.start < done {
                continue;
            }
            let computed = self.computed.get(next);
            if let Some(cell) = computed.filter(|cell| cell.range.start == token.start) {
                self.kept.push(PartParameter::Computed(cell.index));
                see(cell.range.clone(), self.kept.len());
                done = cell.range.end;
                next += 1;
            } else if let Some(index) = parameter(text, token) {
                see(token.range(), self.number(index));
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
            self.kept.push(PartParameter::Client(index));
            *number = self.kept.len();
        }
        *number
    }
}

/// The bytes from the first token to the last.
pub(super) fn span(tokens: &[Token]) -> Range<u32> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::lexer::tokenize;
    use crate::sql::splice::splice;
    use crate::sql::token::LexOptions;
    use crate::sql::values;

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
            computed: Vec::new(),
        }
    }

    fn client(parameter: PartParameter) -> usize {
        match parameter {
            PartParameter::Client(index) => index,
            PartParameter::Computed(_) => panic!("nothing was computed"),
        }
    }

    #[test]
    fn cells_that_were_evaluated_become_parameters() {
        let text = "INSERT INTO t VALUES (f($1), $2), (3, now( )) RETURNING $1";
        let mut placed = placed(text, &[0, 1]);
        let cell = |written: &str, index| {
            let start = text.find(written).unwrap() as u32;
            let range = start..start + written.len() as u32;
            ComputedCell { range, index }
        };
        placed.computed = vec![cell("f($1)", 0), cell("now( )", 1)];
        let parts = placed.parts(text);
        assert_eq!(parts[0].text, "INSERT INTO t VALUES ($1, $2) RETURNING $3");
        assert_eq!(
            parts[0].parameters,
            [
                PartParameter::Computed(0),
                PartParameter::Client(1),
                PartParameter::Client(0)
            ]
        );
        assert_eq!(parts[1].text, "INSERT INTO t VALUES (3, $1) RETURNING $2");
        let edits = placed.edits(text, 0);
        let spliced = splice(text, LexOptions::default(), &edits).unwrap();
        assert_eq!(spliced, parts[0].text);
    }

    #[test]
    fn parameters_are_numbered_by_their_first_use() {
        let text =
            "WITH c AS (SELECT $9) INSERT INTO t VALUES ($1, $2), ($3, $2), ($4, $9) RETURNING $2";
        let parts = placed(text, &[0, 2, 0]).parts(text);
        let part = |shard, text: &str, parameters: &[usize]| RowsPart {
            shard,
            text: text.to_owned(),
            parameters: parameters
                .iter()
                .map(|at| PartParameter::Client(*at))
                .collect(),
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
                    row.replace_range(at.., &format!("${})", client(part.parameters[number - 1]) + 1));
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
