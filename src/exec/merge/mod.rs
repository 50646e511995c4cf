//! Merges the rows of shards: which row goes to the client next, and what of it; pure.
//!
//! Invariants:
//! - Before the first row, the shards' description is held against the plan: the number of columns, and
//!   that what is compared or combined is of a type that is compared or combined exactly as PostgreSQL
//!   does it. What is not is refused, and the client has seen nothing.
//! - A row in order is kept by its shard's connection, not here: of each shard only the first row's key
//!   is known. So the memory of a merge does not depend on the number of rows.
//! - Groups are kept here, in no more memory than a query may use, until every shard has ended.
//! - No more rows are given out than the client is to get.

mod group;
pub mod key;
mod numeric;
pub mod row;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::merge::group::Groups;
use crate::exec::merge::key::{Direction, Kind};
use crate::plan::Merge;
use crate::plan::merge::grouping::Value;
use crate::plan::merge::{LARGEST_HIDDEN, SortKey, Window};
use crate::sqlstate::SqlState;
use crate::wire::frame;

/// What a merge may assume and use.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The rows that the client gets.
    pub window: Window,
    /// The most memory that it may take.
    pub memory_bytes: u64,
    /// Strings come in UTF-8, or as the server has them.
    pub is_utf8: bool,
}

/// A merge of the rows of several shards.
#[derive(Debug)]
pub struct Merger {
    plan: Arc<Merge>,
    bounds: Bounds,
    numbers: Vec<String>,
    /// By column of the shards' rows; none if it is not compared.
    keys: Vec<(usize, Kind, Direction)>,
    branches: Vec<State>,
    /// How many branches have neither a row nor an end.
    unknown: usize,
    heads: BinaryHeap<Head>,
    spare: Vec<Vec<u8>>,
    skipped: u64,
    passed: u64,
    /// What rows are gathered in, if they are.
    groups: Option<Groups>,
    /// How often anything was learned of a branch.
    steps: u64,
}

/// What is known of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    /// Its first row waits.
    Held,
    Ended,
}

/// The first row of a branch.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    key: Vec<u8>,
    branch: usize,
    /// Where the client's columns end in the row's body.
    end: usize,
}

/// The least is the largest of a heap.
impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        let keys = other.key.cmp(&self.key);
        keys.then_with(|| other.branch.cmp(&self.branch))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Merger {
    /// A merge of so many shards.
    pub fn new(plan: Arc<Merge>, bounds: Bounds, branches: usize) -> Merger {
        Merger {
            plan,
            bounds,
            numbers: Vec::new(),
            keys: Vec::new(),
            branches: vec![State::Unknown; branches],
            unknown: branches,
            heads: BinaryHeap::with_capacity(branches),
            spare: Vec::new(),
            skipped: 0,
            passed: 0,
            groups: None,
            steps: 0,
        }
    }

    /// Takes the shards' RowDescription; the client's, as a frame.
    ///
    /// # Errors
    /// `0A000` for types that can't be merged.
    pub fn describe(&mut self, description: &[u8]) -> Result<Vec<u8>> {
        let (columns, end) = row::described(frame::body(description), self.plan.visible)?;
        if columns.len() != self.plan.visible + self.plan.hidden {
            return Err(other_columns());
        }
        if self.plan.grouping.is_some() {
            let groups = Groups::new(Arc::clone(&self.plan), columns, self.bounds)?;
            self.groups = Some(groups.comparing(&self.numbers)?);
        } else {
            for key in &self.plan.order {
                let Value::Column(column) = key.value else {
                    return Err(other_columns());
                };
                let kind = kind_of(key, column, &columns, self.bounds)?;
                self.keys.push((column, kind, direction(key)));
            }
        }
        let mut out = Vec::new();
        row::push_shortened(description, self.plan.visible, end, &mut out);
        Ok(out)
    }

    /// With the numbers that groups are compared with.
    #[must_use]
    pub fn comparing(mut self, numbers: Vec<String>) -> Merger {
        self.numbers = numbers;
        self
    }

    /// Whether rows are taken as they come, and the answer follows once every branch has ended.
    pub fn gathers(&self) -> bool {
        self.groups.is_some()
    }

    /// Takes a row, a whole frame.
    ///
    /// # Errors
    /// `53400` if it needs more memory than it may have, `08P01` for what is no row.
    pub fn gather(&mut self, frame: &[u8]) -> Result<()> {
        self.steps += 1;
        match &mut self.groups {
            Some(groups) => groups.add(frame::body(frame)),
            None => Ok(()),
        }
    }

    /// Appends rows of the answer until `out` is long enough; whether that was all. There are none as long
    /// as a branch has not ended.
    ///
    /// # Errors
    /// `22003` for sums that are too large.
    pub fn drain(&mut self, out: &mut Vec<u8>, high_water_bytes: usize) -> Result<bool> {
        let has_ended = self.branches.iter().all(|branch| *branch == State::Ended);
        let Some(groups) = self.groups.as_mut().filter(|_| has_ended) else {
            return Ok(self.groups.is_none());
        };
        let before = groups.passed();
        let is_all = groups.drain(out, high_water_bytes)?;
        self.passed = groups.passed();
        self.steps += self.passed - before;
        Ok(is_all)
    }

    /// Whether the first row of a branch waits.
    pub fn holds(&self, branch: usize) -> bool {
        self.branches.get(branch) == Some(&State::Held)
    }

    /// Whether no further row will pass.
    pub fn is_full(&self) -> bool {
        self.passed >= self.bounds.window.take
    }

    /// How many rows have passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Changes with whatever is learned of a branch.
    pub fn progress(&self) -> u64 {
        self.steps
    }

    /// Whether a row of this size can be held.
    ///
    /// # Errors
    /// `53400` if not.
    pub fn check_size(&self, frame_bytes: usize) -> Result<()> {
        match u64::try_from(frame_bytes) {
            Ok(bytes) if bytes <= self.bounds.memory_bytes => Ok(()),
            _ => Err(too_large()),
        }
    }

    /// The next row of a branch, a whole frame, which stays where it is.
    ///
    /// # Errors
    /// `08P01` for what is no row of the columns described.
    pub fn offer(&mut self, branch: usize, frame: &[u8]) -> Result<()> {
        let mut key = self.spare.pop().unwrap_or_default();
        key.clear();
        let (visible, columns) = (self.plan.visible, self.plan.visible + self.plan.hidden);
        let body = frame::body(frame);
        let mut end = body.len();
        if self.keys.is_empty() {
            row::walk(body, columns, |_, _, _| Ok(()))?;
        } else {
            let mut values = [None; LARGEST_HIDDEN];
            let keys = &self.keys;
            row::walk(body, columns, |index, value, begin| {
                if index == visible {
                    end = begin;
                }
                if let Some(slot) = index.checked_sub(visible).and_then(|at| values.get_mut(at)) {
                    *slot = value;
                }
                Ok(())
            })?;
            for (column, kind, direction) in keys {
                let value = column.checked_sub(visible).and_then(|at| values.get(at));
                key::encode(*kind, value.copied().flatten(), *direction, &mut key)?;
            }
        }
        self.heads.push(Head { key, branch, end });
        self.set(branch, State::Held);
        Ok(())
    }

    /// A branch has no further row.
    pub fn end(&mut self, branch: usize) {
        if !self.holds(branch) {
            self.set(branch, State::Ended);
        }
    }

    fn set(&mut self, branch: usize, state: State) {
        let Some(known) = self.branches.get_mut(branch) else {
            return;
        };
        match (*known, state) {
            (State::Unknown, State::Held | State::Ended) => self.unknown -= 1,
            (State::Held | State::Ended, State::Unknown) => self.unknown += 1,
            _ => {}
        }
        *known = state;
        self.steps += 1;
    }

    /// The branch whose first row is next, if that is known.
    pub fn next(&self) -> Option<usize> {
        if self.unknown > 0 && !self.keys.is_empty() {
            return None;
        }
        self.heads.peek().map(|head| head.branch)
    }

    /// Takes the next row, which is `frame`: what the client gets of it goes to `out`.
    pub fn take(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        let Some(head) = self.heads.pop() else {
            return;
        };
        self.set(head.branch, State::Unknown);
        if self.skipped < self.bounds.window.skip {
            self.skipped += 1;
        } else if !self.is_full() {
            self.passed += 1;
            match self.plan.hidden {
                0 => out.extend_from_slice(frame),
                _ => row::push_shortened(frame, self.plan.visible, head.end, out),
            }
        }
        self.spare.push(head.key);
    }
}

/// How the values of a sort key compare.
fn kind_of(
    key: &SortKey,
    column: usize,
    columns: &[row::Described],
    bounds: Bounds,
) -> Result<Kind> {
    let described = columns.get(column).ok_or_else(other_columns)?;
    let kind = Kind::of(described.type_oid).filter(|_| described.is_binary);
    let kind = kind.ok_or_else(|| unordered("of this type"))?;
    if key::is_string(described.type_oid) && !(key.bytewise && bounds.is_utf8) {
        return Err(unordered("a string of a collation other than C"));
    }
    Ok(kind)
}

fn direction(key: &SortKey) -> Direction {
    Direction {
        descending: key.descending,
        nulls_first: key.nulls_first,
    }
}

fn other_columns() -> Error {
    Error::refused(
        "the statement gives other columns than the proxy expected",
        "A table it reads has changed, and the proxy has not seen that yet.",
        "Try again in a moment.",
    )
}

fn unordered(what: &str) -> Error {
    Error::refused(
        format!("a query over several shards with ORDER BY {what} is not supported"),
        "The proxy puts rows in order by numbers, dates and times, booleans, uuids, bytea, and by strings \
         of the collation C.",
        "Add COLLATE \"C\", or a condition that equates the shard key with a constant or parameter.",
    )
}

fn too_large() -> Error {
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        "a query over several shards needs more memory than it may use",
    )
    .hint("Raise limits.query_memory, or make the query return less.")
}

#[cfg(test)]
mod tests;
