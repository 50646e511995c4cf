//! Rows whose shard key or global number is left to a default: what is to be found out before they can be
//! sent anywhere, and where it then stands in the text.
//!
//! What holds:
//! - The numbers of a sharded table are global: they come from the sequence on the first shard. So a column
//!   whose default draws from a sequence, and a column of the shard key that has any default, is given its
//!   value in the text. The statement with all values is then planned like any other.
//! - A default that calls functions of users may do anything: draw from a sequence, read tables. It is evaluated
//!   where the state of the whole database is, on the first shard.
//! - Rows that are completed may turn out to be for several shards. What has one value in a statement (`now()`)
//!   is then completed along with the rest.
//! - Each row gets a value of its own, in the order of the rows.
//! - What PostgreSQL rejects stays as it is, so that the error is PostgreSQL's: a value for a column that is
//!   GENERATED ALWAYS is not overridden on its way.
//! - The places are those of tokens: texts of one shape have the same.

use std::ops::Range;

use crate::catalog::Identity;
use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::catalog::SequenceName;
use crate::catalog::TableColumn;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::own::tokens_of;
use crate::plan::query::Query;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Insert;
use crate::sql::analysis::Rows;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

/// How the rows of an INSERT are completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The table, as SQL has it.
    pub table: String,
    /// The columns whose values are to be found out, and for how many rows.
    pub columns: Vec<Filled>,
    /// What is put in, whatever the values: in front of these tokens.
    fixed: Vec<(usize, String)>,
    /// The words of `OVERRIDING USER VALUE`, which has done its work then.
    overriding: Option<usize>,
    /// Where the values go, in the order of the rows.
    slots: Vec<Slot>,
}

/// A column whose values are to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Its name.
    pub name: String,
    /// The sequence of which it takes the next number; none if its default has to be evaluated.
    pub sequence: Option<SequenceName>,
    /// How many values it takes.
    pub count: usize,
    /// All rows get the same.
    pub is_shared: bool,
}

/// Where a value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    /// Index of its column in [`Fill::columns`].
    column: usize,
    /// In place of these tokens; in front of the first if there are none.
    tokens: Range<usize>,
    /// What stands in front of it.
    before: &'static str,
    /// What stands behind it.
    after: &'static str,
}

impl Fill {
    /// The edits that put values in: for each column as many as it takes, written as SQL.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn edits(&self, text: &str, lex: LexOptions, values: &[Vec<String>]) -> Result<Vec<Edit>> {
        let tokens = tokens_of(text, lex)?;
        let start = |at: usize| match tokens.get(at) {
            Some(token) => token.start,
            None => tokens.last().map_or(0, |token| token.end),
        };
        let mut edits = Vec::new();
        for (at, added) in &self.fixed {
            edits.push(Edit {
                range: start(*at)..start(*at),
                text: added.clone(),
            });
        }
        if let Some(word) = self.overriding.and_then(|at| tokens.get(at)) {
            edits.push(Edit {
                range: word.range(),
                text: "SYSTEM".to_owned(),
            });
        }
        let shared = |column: usize| self.columns.get(column).is_some_and(|one| one.is_shared);
        let mut taken: Vec<_> = values.iter().map(|values| values.iter()).collect();
        for slot in &self.slots {
            let value = match shared(slot.column) {
                true => values.get(slot.column).and_then(|values| values.first()),
                false => taken.get_mut(slot.column).and_then(Iterator::next),
            };
            let value = value.map_or("DEFAULT", String::as_str);
            let replaced = tokens.get(slot.tokens.clone()).unwrap_or_default();
            let range = match (replaced.first(), replaced.last()) {
                (Some(first), Some(last)) => first.start..last.end,
                _ => start(slot.tokens.start)..start(slot.tokens.start),
            };
            edits.push(Edit {
                range,
                text: format!("{}{value}{}", slot.before, slot.after),
            });
        }
        Ok(edits)
    }

    /// What it finds out, in words.
    pub(super) fn words(&self) -> String {
        let columns = self.columns.iter().map(|column| match &column.sequence {
            Some(sequence) => format!("{} from {}", column.name, sequence.name),
            None => format!("{} by default", column.name),
        });
        let columns: Vec<String> = columns.collect();
        format!("Filled {}: {}", self.table, columns.join(", "))
    }
}

/// What becomes of an INSERT that leaves out what matters.
pub(super) enum Completion {
    /// It is completed.
    Fill(Fill),
    /// PostgreSQL rejects it, wherever it is sent.
    Rejected,
}

/// How an INSERT into a sharded table is completed; none if nothing is left out that matters.
pub(super) fn plan(query: &Query<'_>) -> Option<Completion> {
    let BoundSource::Named(Lookup::Relation(relation)) = query.bound.source(0, 0)? else {
        return None;
    };
    let block = query.facts.blocks.first()?;
    let BlockKind::Insert(insert) = &block.kind else {
        return None;
    };
    if !matches!(relation.location, Location::Sharded(_)) || relation.hazards.rules {
        return None;
    }
    let wanted: Vec<(usize, &TableColumn)> = relation
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| is_global(relation, column))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let has_rows = matches!(&insert.rows, Rows::Values(rows) if rows.len() > 1);
    let columns = relation.columns.iter().enumerate();
    let wanted: Vec<(usize, &TableColumn)> = columns
        .filter(|(_, column)| is_global(relation, column) || (has_rows && is_moment(column)))
        .collect();
    let written = Written::read(query)?;
    written.fill(relation, insert, &wanted)
}

/// Whether a column must have its value before its row is sent to a shard.
fn is_global(relation: &Relation, column: &TableColumn) -> bool {
    let keys = relation.placement().map(|placement| placement.columns());
    let is_key = keys
        .unwrap_or_default()
        .iter()
        .any(|key| key.name == column.name);
    column.sequence_default || (is_key && column.default.exists) || column.default.of_users
}

/// Whether all rows of a statement that leave a column to its default have the same there.
fn is_moment(column: &TableColumn) -> bool {
    column.default.of_statement && !column.generated
}

/// The places of an INSERT's parts, by the indexes of tokens in the whole statement.
struct Written {
    /// Behind the target.
    target_end: usize,
    /// The parenthesis that ends the list of columns.
    columns_end: Option<usize>,
    /// `SYSTEM` or `USER` of OVERRIDING.
    overriding: Option<usize>,
    /// `VALUES`, or `DEFAULT` of DEFAULT VALUES.
    values: usize,
    /// The cells of each row, and the parenthesis that ends it; none for DEFAULT VALUES.
    rows: Option<Vec<(Vec<Range<usize>>, usize)>>,
}

impl Written {
    fn read(query: &Query<'_>) -> Option<Written> {
        let text = query.request.text;
        let tokens = query.tokens;
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
        let symbol = |at: usize, symbol: &str| {
            tokens
                .get(at)
                .is_some_and(|one| one.is_symbol(text, symbol))
        };
        let mut depth = 0_usize;
        let into = tokens.iter().enumerate().position(|(at, token)| {
            match token.text(text) {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && is(at, "into")
        })?;
        let mut at = into + 2;
        while symbol(at, ".") {
            at += 2;
        }
        if is(at, "as") {
            at += 2;
        }
        let target_end = at;
        let mut columns_end = None;
        if symbol(at, "(") {
            let end = closing(text, tokens, at)?;
            columns_end = Some(end);
            at = end + 1;
        }
        let mut overriding = None;
        if is(at, "overriding") {
            overriding = Some(at + 1);
            at += 3;
        }
        let mut written = Written {
            target_end,
            columns_end,
            overriding,
            values: at,
            rows: None,
        };
        if is(at, "default") && is(at + 1, "values") {
            return Some(written);
        }
        if !is(at, "values") {
            return None;
        }
        let mut rows = Vec::new();
        at += 1;
        while symbol(at, "(") {
            let end = closing(text, tokens, at)?;
            rows.push((cells(text, tokens, at..end), end));
            at = end + 1;
            if !symbol(at, ",") {
                break;
            }
            at += 1;
        }
        written.rows = Some(rows);
        Some(written)
    }

    fn fill(
        &self,
        relation: &Relation,
        insert: &Insert,
        wanted: &[(usize, &TableColumn)],
    ) -> Option<Completion> {
        let mut fill = Fill {
            table: table_name(relation),
            columns: Vec::new(),
            fixed: Vec::new(),
            overriding: None,
            slots: Vec::new(),
        };
        let width = match (&insert.rows, &insert.columns) {
            (Rows::Default, _) => 0,
            (Rows::Values(rows), _) if self.rows.as_ref()?.len() != rows.len() => return None,
            (Rows::Values(rows), None) => rows.first()?.len(),
            (Rows::Values(_), Some(columns)) => columns.len(),
            (Rows::Query(_), _) => return None,
        };
        let mut added = Vec::new();
        let mut is_always = false;
        let mut by_row: Vec<Vec<Slot>> = Vec::new();
        for (position, column) in wanted {
            let position = match &insert.columns {
                Some(listed) => listed.iter().position(|name| *name == column.name),
                None => Some(*position),
            };
            let position = position.filter(|position| *position < width);
            let index = fill.columns.len();
            let slots = match position {
                Some(_) if self.rejects(insert, column, position) => {
                    return Some(Completion::Rejected);
                }
                Some(position) => self.defaults(insert, column, (index, position))?,
                None => {
                    added.push(quote_identifier(&column.name));
                    self.appended(index)
                }
            };
            if slots.is_empty() {
                continue;
            }
            let is_shared = !is_global(relation, column);
            is_always |= column.default.identity == Some(Identity::Always);
            fill.columns.push(Filled {
                name: column.name.clone(),
                sequence: column.default.sequence.clone(),
                count: match is_shared {
                    true => 1,
                    false => slots.len(),
                },
                is_shared,
            });
            by_row.push(slots);
        }
        if fill.columns.iter().all(|column| column.is_shared) {
            return None;
        }
        fill.slots = by_row.concat();
        let overrides = is_always || insert.overriding_user;
        self.fix(&mut fill, relation, (&added, width), overrides);
        Some(Completion::Fill(fill))
    }

    /// Whether some row brings a value of its own for a column that is GENERATED ALWAYS, another none.
    fn rejects(&self, insert: &Insert, column: &TableColumn, position: Option<usize>) -> bool {
        let Rows::Values(rows) = &insert.rows else {
            return false;
        };
        let cell = |row: &Vec<Cell>| row.get(position?).cloned();
        let defaults = rows.iter().filter(|row| cell(row) == Some(Cell::Default));
        let defaults = defaults.count();
        column.default.identity == Some(Identity::Always)
            && self.overriding.is_none()
            && defaults > 0
            && defaults < rows.len()
    }

    /// The cells of a column that say DEFAULT, or all of them if values of users are overridden.
    fn defaults(
        &self,
        insert: &Insert,
        column: &TableColumn,
        (index, position): (usize, usize),
    ) -> Option<Vec<Slot>> {
        let Rows::Values(rows) = &insert.rows else {
            return Some(Vec::new());
        };
        let is_identity = column.default.identity.is_some();
        let all = insert.overriding_user && is_identity;
        let is_default = |row: &Vec<Cell>| matches!(row.get(position), Some(Cell::Default));
        let mut slots = Vec::new();
        for (row, (cells, _)) in rows.iter().zip(self.rows.iter().flatten()) {
            if all || is_default(row) {
                slots.push(Slot {
                    column: index,
                    tokens: cells.get(position)?.clone(),
                    before: "",
                    after: "",
                });
            }
        }
        Some(slots)
    }

    /// A value behind those of each row.
    fn appended(&self, column: usize) -> Vec<Slot> {
        let Some(rows) = &self.rows else {
            return vec![Slot {
                column,
                tokens: self.values..self.values,
                before: "",
                after: "",
            }];
        };
        let slot = |(_, end): &(Vec<Range<usize>>, usize)| Slot {
            column,
            tokens: *end..*end,
            before: ", ",
            after: "",
        };
        rows.iter().map(slot).collect()
    }

    /// What is added whatever the values: columns, and that they override.
    fn fix(
        &self,
        fill: &mut Fill,
        relation: &Relation,
        (added, width): (&[String], usize),
        overrides: bool,
    ) {
        let overriding = match self.overriding {
            None if overrides => " OVERRIDING SYSTEM VALUE ",
            _ => "",
        };
        fill.overriding = self.overriding.filter(|_| overrides);
        if self.rows.is_none() {
            self.fix_default_values(fill, added, overriding);
            return;
        }
        match self.columns_end {
            Some(end) => {
                for name in added {
                    fill.fixed.push((end, format!(", {name}")));
                }
            }
            None if !added.is_empty() => {
                let listed = relation.columns.iter().take(width);
                let mut listed: Vec<String> = listed
                    .map(|column| quote_identifier(&column.name))
                    .collect();
                listed.extend(added.iter().cloned());
                let listed = format!(" ({}) ", listed.join(", "));
                fill.fixed.push((self.target_end, listed));
            }
            None => {}
        }
        if !overriding.is_empty() {
            fill.fixed.push((self.values, overriding.to_owned()));
        }
    }

    /// `DEFAULT VALUES` becomes a row.
    fn fix_default_values(&self, fill: &mut Fill, added: &[String], overriding: &str) {
        fill.fixed
            .push((self.target_end, format!(" ({}) ", added.join(", "))));
        fill.fixed
            .push((self.values, format!("{overriding} VALUES (")));
        let last = fill.slots.len().saturating_sub(1);
        for (index, slot) in fill.slots.iter_mut().enumerate() {
            if index > 0 {
                slot.before = ", ";
            }
            // The last one takes the place of the two words.
            if index == last {
                slot.tokens = self.values..self.values + 2;
                slot.after = ")";
            }
        }
    }
}

/// The parenthesis that closes the one at `open`.
fn closing(text: &str, tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text(text) {
            "(" | "[" => depth += 1,
            ")" | "]" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The cells of a row between its parentheses.
fn cells(text: &str, tokens: &[Token], row: Range<usize>) -> Vec<Range<usize>> {
    let (mut cells, mut depth, mut start) = (Vec::new(), 0_usize, row.start + 1);
    for at in row.start + 1..row.end {
        match tokens.get(at).map(|token| token.text(text)) {
            Some("(" | "[") => depth += 1,
            Some(")" | "]") => depth = depth.saturating_sub(1),
            Some(",") if depth == 0 => {
                cells.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    cells.push(start..row.end);
    cells
}

fn table_name(relation: &Relation) -> String {
    let schema = quote_identifier(&relation.schema);
    format!("{schema}.{}", quote_identifier(&relation.name))
}
