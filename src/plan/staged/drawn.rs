//! Queries that draw from sequences, or set them, for rows of several shards: the rows are asked for first, and the
//! first shard then runs what stands in the select list with them in the place of the tables.
//!
//! What holds:
//! - All calls that draw stand in the select list. PostgreSQL calls such functions once for each row that the
//!   query gives, behind `ORDER BY` and before `LIMIT`; so does the first shard.
//! - An entry without such a call is evaluated with the rows. Of one with such a call its columns and aggregates
//!   are, and what it does with them is the first shard's.

use std::ops::Range;

use crate::error::Result;
use crate::plan::effects::Effects;
use crate::plan::feed::piece;
use crate::plan::pseudo;
use crate::plan::query::Query;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Call;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::outline::Distinct;
use crate::sql::analysis::outline::Form;
use crate::sql::analysis::outline::Item;
use crate::sql::analysis::outline::Outline;
use crate::sql::analysis::outline::outline;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

use super::DRAWN_ROWS;
use super::Stage;
use super::Staged;
use super::text::bytes;
use super::written::partner;

/// How the rows are known to what draws.
const DRAWN: &str = "shardwire_drawn";

/// A query whose select list draws from sequences. Ranges count tokens of the whole statement.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// The columns of the rows that are asked for.
    columns: Vec<Column>,
    /// From `FROM` to `ORDER BY` and its keys.
    rows: Range<usize>,
    /// The whole.
    body: Range<usize>,
}

/// A column of the rows.
#[derive(Clone, Debug)]
struct Column {
    tokens: Range<usize>,
    /// It is an entry of the select list, of this name.
    entry: Option<Box<str>>,
    /// The name does not stand behind it.
    is_named: bool,
}

impl Staged {
    /// A query that draws numbers: its rows, then what draws.
    pub(super) fn drawing(drawn: Drawn) -> Staged {
        let stage = |shown: &str, uses: Vec<usize>| Stage {
            shown: shown.to_owned(),
            body: drawn.body.clone(),
            head: None,
            uses,
            moments: Vec::new(),
        };
        let stages = vec![
            stage("the rows", Vec::new()),
            stage("the numbers of sequences for them", vec![DRAWN_ROWS]),
        ];
        Staged {
            with: drawn.body.start,
            order: vec![DRAWN_ROWS, DRAWN_ROWS + 1],
            main: DRAWN_ROWS + 1,
            drawn: Some(drawn),
            stages,
        }
    }
}

impl Query<'_> {
    /// Whether it is a query that draws from sequences, or sets them, at its top and nowhere else.
    pub(super) fn draws_at_top(&self) -> bool {
        let calls = self.facts.calls.iter().zip(&self.calls);
        let mut drawing = calls.filter(|(_, effects)| effects.any(Effects::DRAWS_SEQUENCE));
        let top = self.facts.top;
        let draws = |(call, _): (&Call, &Effects)| call.block == top && !call.windowed;
        let first = drawing.next();
        !self.facts.modifies()
            && first.is_some_and(draws)
            && drawing.all(draws)
            && self.view_calls.is_empty()
            && !self.facts.system_columns
    }

    /// How what draws is told from the rows that it draws for; none if it has none or that can't be told.
    pub(super) fn drawn(&self) -> Option<Drawn> {
        let block = self.facts.blocks.get(self.facts.top)?;
        let unfit = [
            Clauses::WITH,
            Clauses::LOCKING,
            Clauses::INTO,
            Clauses::DISTINCT,
        ];
        let is_unfit = unfit.iter().any(|one| block.clauses.has(*one));
        let is_plain = block.kind == BlockKind::Select && block.arms.is_empty();
        if !is_plain || block.sources.is_empty() || is_unfit || !self.facts.ctes.is_empty() {
            return None;
        }
        let mut sources = self.bound.occurrences();
        let is_collated = sources.any(|(_, _, bound)| {
            let relation = bound.relation();
            relation.is_some_and(|one| one.columns.iter().any(|column| column.own_collation))
        });
        let base = self
            .token_at(self.body.first()?.start)
            .filter(|_| !is_collated)?;
        let outline = outline(self.request.text, self.body)?;
        if outline.distinct != Distinct::No || outline.with_ties {
            return None;
        }
        let mut splitting = Splitting {
            query: self,
            base,
            columns: Vec::new(),
            drawing: Vec::new(),
        };
        for (at, item) in outline.items.iter().enumerate() {
            splitting.item(at, item)?;
        }
        splitting.check(&outline)?;
        let places = &outline.places;
        let end = match places.limit_clause.is_empty() {
            true => self.body.len(),
            false => places.limit_clause.start,
        };
        (places.list_end < end).then_some(Drawn {
            columns: splitting.columns,
            rows: base + places.list_end..base + end,
            body: base..base + self.body.len(),
        })
    }
}

/// A select list that is taken apart.
struct Splitting<'a> {
    query: &'a Query<'a>,
    /// The first token of the body.
    base: usize,
    columns: Vec<Column>,
    /// The entries that draw.
    drawing: Vec<usize>,
}

impl Splitting<'_> {
    fn item(&mut self, at: usize, item: &Item) -> Option<()> {
        if matches!(item.expression.form, Form::Wildcard | Form::WildcardOf(_)) {
            return None;
        }
        let tokens = &item.expression.tokens;
        let tokens = self.base + tokens.start..self.base + tokens.end;
        let calls = calls_in(self.query, &tokens);
        if (calls.iter()).any(|(_, call, _)| self.query.may_return_set(call)) {
            return None;
        }
        if !(calls.iter()).any(|(_, _, effects)| effects.any(Effects::DRAWS_SEQUENCE)) {
            let text = self.query.request.text;
            let is_named = self.query.tokens.get(tokens.end).is_some_and(|behind| {
                !behind.is_symbol(text, ",") && !behind.is_word(text, "from")
            });
            self.columns.push(Column {
                tokens,
                entry: Some(item.label.clone().unwrap_or_default().into()),
                is_named,
            });
            return Some(());
        }
        self.drawing.push(at);
        self.leaves(&tokens)
    }

    /// The aggregates and columns in an entry that draws.
    fn leaves(&mut self, tokens: &Range<usize>) -> Option<()> {
        let query = self.query;
        let text = query.request.text;
        let is_inner = |offset: Option<u32>| {
            let at = offset.and_then(|offset| query.token_at(offset));
            at.is_some_and(|at| tokens.contains(&at))
        };
        // What is a query within, a field of a row, or sorted as a collation says is not looked into.
        let has_query = query.facts.blocks.iter().any(|one| is_inner(one.select));
        if has_query || query.has_field(tokens) || query.has_word(tokens, "collate") {
            return None;
        }
        let mut leaves: Vec<Range<usize>> = Vec::new();
        let calls = calls_in(query, tokens);
        for (at, _, effects) in &calls {
            // A time is that of the rows.
            if effects.any(Effects::WINDOW | Effects::CLOCK) {
                return None;
            }
            if effects.any(Effects::AGGREGATE) {
                leaves.push(self.aggregate(*at)?);
            }
        }
        let aggregates = leaves.clone();
        let is_within = |at: usize| aggregates.iter().any(|one| one.contains(&at));
        let draws = |effects: &Effects| effects.any(Effects::DRAWS_SEQUENCE);
        if (calls.iter()).any(|(at, _, effects)| draws(effects) && is_within(*at)) {
            return None;
        }
        for reference in &query.facts.references {
            let found = pseudo::tokens_of(query, reference)?;
            if tokens.contains(&found.start) && !is_within(found.start) {
                leaves.push(found);
            }
        }
        leaves.sort_by_key(|leaf| leaf.start);
        leaves.dedup();
        let mut apart = leaves.windows(2);
        let is_apart = apart.all(|pair| matches!(pair, [one, next] if one.end <= next.start));
        let is_whole = |leaf: &Range<usize>| {
            let behind = query.tokens.get(leaf.end);
            !behind.is_some_and(|behind| [".", "["].iter().any(|one| behind.is_symbol(text, one)))
        };
        if !is_apart || !leaves.iter().all(is_whole) {
            return None;
        }
        self.columns.extend(leaves.into_iter().map(|tokens| Column {
            tokens,
            entry: None,
            is_named: false,
        }));
        Some(())
    }

    /// The tokens of a call of an aggregate whose name stands `at` a token.
    fn aggregate(&self, at: usize) -> Option<Range<usize>> {
        let text = self.query.request.text;
        let token = |at: usize| self.query.tokens.get(at);
        let is_dot = |at: usize| token(at).is_some_and(|one| one.is_symbol(text, "."));
        let start = match at.checked_sub(1).is_some_and(is_dot) {
            true => at.checked_sub(2)?,
            false => at,
        };
        if !token(at + 1)?.is_symbol(text, "(") {
            return None;
        }
        let end = partner(self.query, at + 1)? + 1;
        let more = ["filter", "over", "within"];
        let goes_on = |behind: &Token| more.iter().any(|word| behind.is_word(text, word));
        (!token(end).is_some_and(goes_on)).then_some(start..end)
    }

    /// All that draws is in the list, and what sorts the rows is known without it.
    fn check(&self, outline: &Outline) -> Option<()> {
        let query = self.query;
        let items = outline.items.iter().map(|item| &item.expression.tokens);
        let items: Vec<Range<usize>> = items
            .map(|tokens| self.base + tokens.start..self.base + tokens.end)
            .collect();
        let calls = query.facts.calls.iter().zip(&query.calls);
        let mut drawing = calls.filter(|(_, effects)| effects.any(Effects::DRAWS_SEQUENCE));
        let is_item = |call: &Call| {
            let at = call.offset.and_then(|offset| query.token_at(offset));
            at.is_some_and(|at| items.iter().any(|item| item.contains(&at)))
        };
        if !drawing.all(|(call, _)| is_item(call)) {
            return None;
        }
        let label = |at: &usize| outline.items.get(*at)?.label.as_deref();
        let means_drawn = |form: &Form| match form {
            Form::Number(_) => true,
            Form::Column(column) if column.qualifier.is_empty() => {
                let mut drawing = self.drawing.iter();
                drawing.any(|at| label(at).is_none_or(|label| label == column.name))
            }
            Form::Collated(..) => true,
            _ => false,
        };
        let sorts = outline.order_by.iter().map(|key| &key.expression.form);
        let groups = outline.group_by.iter().map(|key| &key.form);
        let mut forms = sorts.chain(groups);
        (!forms.any(means_drawn)).then_some(())
    }
}

/// The calls whose names stand among some tokens, and their effects.
fn calls_in<'a>(query: &'a Query<'_>, tokens: &Range<usize>) -> Vec<(usize, &'a Call, Effects)> {
    let calls = query.facts.calls.iter().zip(&query.calls);
    let found = calls.filter_map(|(call, effects)| {
        let at = query.token_at(call.offset?)?;
        tokens.contains(&at).then_some((at, call, *effects))
    });
    found.collect()
}

impl Drawn {
    /// The query of the rows.
    pub fn rows(&self, text: &str, tokens: &[Token]) -> String {
        let columns = self.columns.iter().enumerate().map(|(at, column)| {
            let written = piece(text, tokens, &column.tokens);
            match column.entry.as_deref() {
                Some(label) if !label.is_empty() => {
                    format!("{written} AS {}", quote_identifier(label))
                }
                _ => format!("{written} AS {DRAWN}{at}"),
            }
        });
        let mut columns: Vec<String> = columns.collect();
        if columns.is_empty() {
            columns.push("1".to_owned());
        }
        let behind = piece(text, tokens, &self.rows);
        format!("SELECT {} {behind}", columns.join(", "))
    }

    /// What draws, for the rows of a query.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn drawing(
        &self,
        (text, lex): (&str, LexOptions),
        tokens: &[Token],
        rows: &str,
    ) -> Result<String> {
        let span = bytes(tokens, &self.body)?;
        let mut edits = Vec::new();
        let mut put = |range: &Range<usize>, text: String| -> Result<()> {
            let range = bytes(tokens, range)?;
            edits.push(Edit {
                range: range.start - span.start..range.end - span.start,
                text,
            });
            Ok(())
        };
        for (at, column) in self.columns.iter().enumerate() {
            let name = match column.entry.as_deref() {
                Some(label) if !column.is_named && !label.is_empty() => {
                    format!(" AS {}", quote_identifier(label))
                }
                _ => String::new(),
            };
            put(&column.tokens, format!(" {DRAWN}.c{at}{name} "))?;
        }
        let names: Vec<String> = (0..self.columns.len().max(1))
            .map(|at| format!("c{at}"))
            .collect();
        let source = format!("FROM ({rows}) AS {DRAWN}({})", names.join(", "));
        put(&self.rows, source)?;
        splice(piece(text, tokens, &self.body), lex, &edits)
    }
}
