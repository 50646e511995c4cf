//! How the rows of several shards become one answer: decided here, carried out by `exec::merge`.
//!
//! Invariants:
//! - The shards' statement is the client's with token ranges replaced. It gives the client's columns
//!   first and then hidden ones, which are asked for in binary; their number is known here.
//! - Types are not known here. The plan names the hidden columns that are compared or combined, and
//!   the executor looks at the types that the shards describe before it lets a row pass.
//! - `LIMIT` and `OFFSET` are the proxy's: each shard gets their sum as its limit, and no offset.

mod aggregate;
mod cut;
mod edit;
mod group;
pub mod grouping;
mod having;
mod list;
mod order;
pub mod partial;
mod partial_groups;

use std::fmt;

use crate::error::Error;
use crate::error::Result;
use crate::plan::colocation::Joined;
use crate::plan::effects::Effects;
use crate::plan::nested;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::outline;
use crate::sql::analysis::outline::Form;
use crate::sql::analysis::outline::Outline;

use edit::Change;
use edit::Piece;
use group::Reach;
use grouping::Grouping;
use grouping::Value;
use list::List;

pub use cut::Cut;
pub use cut::Window;
pub use partial::Partial;

/// The most hidden columns of a merge.
pub const LARGEST_HIDDEN: usize = 64;

/// How the rows of several shards become one answer.
#[derive(Clone, Debug)]
pub struct Merge {
    /// How many columns the client gets.
    pub visible: usize,
    /// How many columns stand behind them.
    pub hidden: usize,
    /// Which rows become one; none if each is one of the answer.
    pub grouping: Option<Grouping>,
    /// The order of the answer; none means that any will do.
    pub order: Box<[SortKey]>,
    /// Which of the rows the client gets.
    pub cut: Cut,
    /// What makes the shards' statement of the client's.
    changes: Box<[Change]>,
}

/// A column to sort by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// What is compared.
    pub value: Value,
    /// From the largest to the smallest.
    pub descending: bool,
    /// Where NULLs go.
    pub nulls_first: bool,
    /// A string is ordered by its bytes.
    pub bytewise: bool,
    /// What it is, for EXPLAIN.
    name: Box<str>,
}

#[cfg(test)]
impl SortKey {
    /// A key of a test; `places` are its direction and that of NULLs.
    pub fn new(column: usize, places: (bool, bool), bytewise: bool, name: &str) -> SortKey {
        SortKey {
            value: Value::Column(column),
            descending: places.0,
            nulls_first: places.1,
            bytewise,
            name: name.into(),
        }
    }
}

/// The merge of a query over several shards; none if its answer is the concatenation of theirs.
///
/// # Errors
/// Why there is none.
pub(super) fn of(query: &Query<'_>, joined: &Joined<'_>) -> Result<Option<Merge>> {
    let top = query.facts.top;
    let Some(block) = query.facts.blocks.get(top) else {
        return Err(refusal::several_shards());
    };
    if !joined.holds_windows(block, top) {
        return Err(refusal::combine(
            "a window that is not partitioned by the shard key",
        ));
    }
    let has_aggregate = has_aggregate(query);
    if block.clauses.without(&[Clauses::WINDOW]) == Clauses::default() && !has_aggregate {
        return Ok(None);
    }
    let outline = outlined(query)?;
    let builder = Builder::new(query, &outline);
    let reach = builder.reach(joined, has_aggregate)?;
    if !matches!(reach, Reach::Shard) && builder.has_sublinks() {
        return Err(refusal::combine("groups and subqueries in expressions"));
    }
    match reach {
        Reach::Groups => return builder.groups(joined).map(Some),
        Reach::Distinct => return builder.distinct().map(Some),
        Reach::Shard => {}
    }
    let orders = [Clauses::ORDER_BY, Clauses::LIMIT, Clauses::OFFSET];
    if orders.iter().any(|clause| block.clauses.has(*clause)) {
        return builder.rows().map(Some);
    }
    Ok(None)
}

/// What the columns of a query are; none if they are not all known.
pub(super) fn forms(query: &Query<'_>) -> Option<Vec<Form>> {
    let outline = outlined(query).ok()?;
    let list = List::new(query, &outline)?;
    Some(list.columns.into_iter().map(|column| column.form).collect())
}

/// Whether a query calls an aggregate, or what may be one, that is no window function.
fn has_aggregate(query: &Query<'_>) -> bool {
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    calls.any(|(call, effects)| {
        call.block == query.facts.top && !call.windowed && effects.any(Effects::AGGREGATE)
    })
}

fn outlined(query: &Query<'_>) -> Result<Outline> {
    outline::outline(query.request.text, query.body)
        .ok_or_else(|| refusal::combine("clauses that can't be told apart"))
}

/// A merge that is being put together.
struct Builder<'a> {
    query: &'a Query<'a>,
    outline: &'a Outline,
    /// The client's columns; none if they are not all known.
    list: Option<List>,
    /// The hidden columns.
    hidden: Vec<Vec<Piece>>,
    changes: Vec<Change>,
}

impl<'a> Builder<'a> {
    fn new(query: &'a Query<'a>, outline: &'a Outline) -> Builder<'a> {
        Builder {
            query,
            outline,
            list: List::new(query, outline),
            hidden: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Whether there are subqueries in expressions elsewhere than in `FROM` and `WHERE`.
    fn has_sublinks(&self) -> bool {
        let body = self.query.body;
        let start = body
            .get(self.outline.places.list_end)
            .map_or(0, |token| token.start);
        let last = self.outline.places.rows_end.checked_sub(1);
        let end = last
            .and_then(|last| body.get(last))
            .map_or(0, |token| token.end);
        nested::has_sublinks(self.query, &(start..end))
    }

    /// The client's columns.
    fn list(&self) -> Result<&List> {
        let unknown = "a select list whose columns are not all known to the proxy";
        self.list.as_ref().ok_or_else(|| refusal::combine(unknown))
    }

    fn rows(mut self) -> Result<Merge> {
        let order = self.order()?;
        let cut = self.cut()?;
        self.finish(order, cut)
    }

    /// The column of an expression that is added behind the client's.
    fn hide(&mut self, pieces: Vec<Piece>) -> Result<usize> {
        let known = self.hidden.iter().position(|known| *known == pieces);
        let index = known.unwrap_or_else(|| {
            self.hidden.push(pieces);
            self.hidden.len() - 1
        });
        Ok(self.list()?.columns.len() + index)
    }

    fn finish(mut self, order: Vec<SortKey>, cut: Cut) -> Result<Merge> {
        if self.hidden.len() > LARGEST_HIDDEN {
            return Err(refusal::combine("so many sort keys"));
        }
        let mut added = Vec::new();
        for (index, pieces) in self.hidden.iter().enumerate() {
            added.push(Piece::Text(", (".into()));
            added.extend(pieces.iter().cloned());
            // A name that no ORDER BY or GROUP BY means.
            added.push(Piece::Text(format!(") AS \"?shardwire {index}?\"").into()));
        }
        if !added.is_empty() {
            let at = self.outline.places.list_end;
            self.changes.push(Change::new(at..at, added));
        }
        Ok(Merge {
            visible: self.list()?.columns.len(),
            hidden: self.hidden.len(),
            grouping: None,
            order: order.into(),
            cut,
            changes: self.changes.into(),
        })
    }
}

impl Merge {
    /// A merge of a test.
    #[cfg(test)]
    pub fn of_order(visible: usize, hidden: usize, order: Vec<SortKey>) -> Merge {
        Merge {
            visible,
            hidden,
            grouping: None,
            order: order.into(),
            cut: Cut::default(),
            changes: Box::default(),
        }
    }

    /// Writes the steps that stand above the shards, from the last to the first, each on its line; how
    /// far the next is indented.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> Result<usize, fmt::Error> {
        let mut depth = 0;
        if self.cut.write(f)? {
            depth += 2;
            write!(f, "\n{:depth$}", "")?;
        }
        if !self.order.is_empty() {
            let verb = if self.grouping.is_some() {
                "Sort"
            } else {
                "Merge"
            };
            write!(f, "{verb} by ")?;
            for (index, key) in self.order.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{}", key.name)?;
                if key.descending {
                    write!(f, " DESC")?;
                }
                if key.nulls_first != key.descending {
                    let place = if key.nulls_first { "FIRST" } else { "LAST" };
                    write!(f, " NULLS {place}")?;
                }
            }
            depth += 2;
            write!(f, "\n{:depth$}", "")?;
        }
        if let Some(grouping) = &self.grouping {
            grouping.write(f)?;
            depth += 2;
            write!(f, "\n{:depth$}", "")?;
        }
        Ok(depth)
    }
}

/// What rows of several shards can't be put in order by.
fn unordered(what: &str) -> Error {
    Error::refused(
        format!("a query over several shards with ORDER BY {what} is not supported"),
        "The proxy puts rows in order by numbers, dates and times, booleans, uuids, bytea, and by strings \
         of the collation C.",
        "Add COLLATE \"C\", or a condition that equates the shard key with a constant or parameter.",
    )
}
