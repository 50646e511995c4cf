//! Answers that a hub makes of what each shard makes of its own rows: groups whose order, or whose aggregates,
//! are PostgreSQL's alone to know, and rows in such an order.
//!
//! What holds:
//! - Each shard runs one query over the client's own `FROM` and `WHERE`; rows of two shards never meet there
//!   ([`crate::plan::colocation`]). What it gives is copied to the hub as one table ([`TABLE`]).
//! - Groups: a row for each combination of the keys and of what is counted without repetitions, with the partial
//!   results of the other aggregates. Only aggregates of which PostgreSQL can add partial results up exactly are
//!   served: of sums the type of the partial result decides, which is known once the hub has made the table.
//! - On the hub the list, `HAVING`, windows, `ORDER BY` and `LIMIT` are the client's, with a column of the table
//!   in the place of each key and each aggregate. Nothing else of the client's tables is named there, or there is
//!   no such plan.
//! - Whoever runs it sees to it that `now()` is the same for all of them.
//! - Rows: the client's rows with its sort keys behind them, cut off by each shard where the client cuts them off.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::colocation::Joined;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::outline;
use crate::sql::analysis::outline::Distinct;

use super::Builder;
use super::edit::Piece;
use super::group::Reach;

/// The name by which the hub's query knows the table.
pub const TABLE: &str = "shardwire_1";

/// What shards and hub do.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The tokens of the client's query in the statement.
    pub body: Range<usize>,
    /// The shards' query.
    pub of_shard: Box<[Part]>,
    /// The hub's query.
    pub of_hub: Box<[Part]>,
    /// The columns of the table.
    pub columns: Box<[String]>,
    /// Tokens that mean the same only if they are the same.
    pub alike: Box<[(Range<usize>, Range<usize>)]>,
    /// Each shard makes groups of its rows.
    pub is_grouped: bool,
    /// Each shard cuts its rows off.
    pub is_cut: bool,
}

/// A part of a query. Ranges count tokens of the whole statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words of our own.
    Text(Box<str>),
    /// Tokens of the statement.
    Copy(Range<usize>),
    /// The sum of the partial sums in this column.
    Sum(usize),
    /// The average of the partial sums and counts in these columns.
    Average(usize, usize),
}

impl Builder<'_> {
    /// What shards and hub do for a query whose rows never cross shards.
    ///
    /// # Errors
    /// Why they can't.
    pub fn partial(self, joined: &Joined<'_>, has_aggregate: bool) -> Result<Partial> {
        let top = self.query.facts.top;
        let reach = self.reach(joined, has_aggregate)?;
        let holds_windows = self
            .top()
            .is_some_and(|block| joined.holds_windows(block, top));
        match reach {
            Reach::Groups => self.partial_groups(),
            Reach::Shard | Reach::Distinct if !holds_windows => Err(refusal::combine(
                "a window that is not partitioned by the shard key",
            )),
            Reach::Shard => self.partial_rows(false),
            Reach::Distinct => self.partial_rows(true),
        }
    }

    /// Rows in an order that only PostgreSQL knows.
    fn partial_rows(mut self, is_deduplicated: bool) -> Result<Partial> {
        let outline = self.outline;
        let visible = self.list()?.columns.len();
        let mut order = Vec::new();
        for key in &outline.order_by {
            let Some(meant) = self.meant_by_order(key)? else {
                return Err(unclear());
            };
            let column = self.hide(meant.pieces)?;
            let direction = if key.descending { " DESC" } else { "" };
            let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
            order.push(format!("{}{direction} NULLS {nulls}", column_name(column)));
        }
        let mut of_hub = "SELECT ".to_owned();
        match &outline.distinct {
            Distinct::On(keys) => {
                let mut names = Vec::new();
                for key in keys {
                    // A key of DISTINCT ON means what one of ORDER BY means.
                    let key = outline_key(key);
                    let meant = self.meant_by_order(&key)?.ok_or_else(unclear)?;
                    names.push(column_name(self.hide(meant.pieces)?));
                }
                of_hub.push_str(&format!("DISTINCT ON ({}) ", names.join(", ")));
            }
            Distinct::All | Distinct::No => {}
        }
        let names: Vec<String> = (0..visible).map(column_name).collect();
        of_hub.push_str(&names.join(", "));
        of_hub.push_str(
            &match is_deduplicated && outline.distinct == Distinct::All {
                true => format!(" FROM (SELECT DISTINCT * FROM pg_temp.{TABLE}) AS s"),
                false => format!(" FROM pg_temp.{TABLE}"),
            },
        );
        if !order.is_empty() {
            of_hub.push_str(&format!(" ORDER BY {}", order.join(", ")));
        }
        let limit = outline.places.limit_clause.clone();
        if limit.clone().any(|at| self.is_word(at, "select")) {
            return Err(unclear());
        }
        let cut = self.counts().ok().filter(|cut| !cut.is_all());
        let mut hub = vec![Part::Text(of_hub.into())];
        if !limit.is_empty() {
            hub.push(Part::Copy(limit.clone()));
        }
        let end = self.query.body.len();
        let behind = if limit.is_empty() { end } else { limit.start };
        let mut shard = vec![Part::Copy(0..outline.places.list_end)];
        for pieces in &self.hidden {
            shard.push(Part::Text(", (".into()));
            shard.extend(pieces.iter().map(part));
            shard.push(Part::Text(")".into()));
        }
        shard.push(Part::Copy(outline.places.list_end..behind));
        let is_cut = cut.is_some();
        if let Some(cut) = cut {
            shard.push(Part::Text(cut.of_shard().into()));
        }
        let columns = (0..visible + self.hidden.len()).map(column_name).collect();
        Ok(self.placed(Partial {
            body: 0..0,
            of_shard: shard.into(),
            of_hub: hub.into(),
            columns,
            alike: Box::default(),
            is_grouped: false,
            is_cut,
        }))
    }

    /// With the places of the whole statement.
    pub fn placed(&self, mut partial: Partial) -> Partial {
        let first = self.query.body.first().map_or(0, |token| token.start);
        let base = self
            .query
            .tokens
            .partition_point(|token| token.start < first);
        let moved = |range: &Range<usize>| range.start + base..range.end + base;
        for part in partial.of_shard.iter_mut().chain(&mut partial.of_hub) {
            if let Part::Copy(range) = part {
                *range = moved(range);
            }
        }
        for (one, other) in &mut partial.alike {
            (*one, *other) = (moved(one), moved(other));
        }
        partial.body = base..base + self.query.body.len();
        partial
    }
}

impl Part {
    /// It as SQL, once the types of the table's columns are known; none if partial sums of this type can't be
    /// added up exactly, or for tokens.
    pub fn sql(&self, types: &[u32]) -> Option<String> {
        /// The OID of `bigint`, the sum of smaller integers, and that of `numeric`.
        const INT8: u32 = 20;
        const NUMERIC: u32 = 1700;
        match self {
            Part::Text(words) => Some(words.clone().into()),
            Part::Copy(_) => None,
            Part::Sum(column) => match *types.get(*column)? {
                INT8 => Some(format!(
                    "pg_catalog.sum({})::pg_catalog.int8",
                    column_name(*column)
                )),
                NUMERIC => Some(format!("pg_catalog.sum({})", column_name(*column))),
                _ => None,
            },
            Part::Average(sum, count) => match *types.get(*sum)? {
                INT8 | NUMERIC => Some(format!(
                    "(pg_catalog.sum({})::pg_catalog.numeric / pg_catalog.sum({}))",
                    column_name(*sum),
                    column_name(*count)
                )),
                _ => None,
            },
        }
    }
}

/// The name of a column of the table, as SQL.
pub(super) fn column_name(index: usize) -> String {
    format!("\"?{}\"", index + 1)
}

fn part(piece: &Piece) -> Part {
    match piece {
        Piece::Text(words) => Part::Text(words.clone()),
        Piece::Copy(tokens) => Part::Copy(tokens.clone()),
    }
}

fn outline_key(key: &outline::Expression) -> outline::SortKey {
    outline::SortKey {
        expression: key.clone(),
        descending: false,
        nulls_first: false,
    }
}

pub(super) fn unclear() -> Error {
    refusal::combine("groups or an order that the shards can't prepare")
}

/// What shards and hub do for a query.
///
/// # Errors
/// Why they can't.
pub(in crate::plan) fn of(query: &Query<'_>, joined: &Joined<'_>) -> Result<Partial> {
    let outline = super::outlined(query)?;
    let builder = Builder::new(query, &outline);
    builder.partial(joined, super::has_aggregate(query))
}
