//! SQL cursors over shards: where each one lives, and DECLARE, FETCH, MOVE and CLOSE of those on several.
//!
//! A cursor whose query needs several shards is one cursor on each of them, inside the client's
//! transaction; [`crate::exec::walk`] says which of them moves when. The shards' descriptions of it are
//! compared when it is declared. One `WITH HOLD` keeps a connection to each of its shards for the
//! session.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::exec::description;
use crate::exec::scatter::Scatter;
use crate::exec::walk::Walk;
use crate::pool::Lease;
use crate::session::effect::Effect;
use crate::session::nesting::Nesting;
use crate::session::others::quoted;
use crate::session::scatter::{Answered, Joins, ScatterPortal};
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::statement::{Fetch, Statement};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{command_complete, no_data};
use crate::wire::buffer::message;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Subject};

/// A cursor of the session.
#[derive(Debug)]
pub struct Cursor {
    /// The shards it is on.
    shards: Vec<ShardIndex>,
    /// Which of them it stands on.
    at: usize,
    /// It outlives its transaction.
    hold: bool,
    /// Simple queries get its rows in binary.
    binary: bool,
    /// The transaction that declared it is open.
    is_new: bool,
    /// How many savepoints stood when it was declared.
    depth: usize,
    /// Its rows, if the proxy keeps them.
    rows: Option<Box<Rows>>,
}

/// The rows of a cursor that the proxy keeps.
#[derive(Debug)]
pub(super) struct Rows {
    /// Their RowDescription, as a frame.
    pub description: Vec<u8>,
    /// What came behind it.
    pub bytes: Vec<u8>,
    /// Where each row is among that.
    pub starts: Vec<Range<usize>>,
    /// The row it stands on, from 1: 0 is before the first, and one more than there are behind the last.
    pub at: usize,
    /// It may move backward.
    pub scrolls: bool,
}

/// The session's cursors, as far as it is known which shards they are on.
#[derive(Debug, Default)]
pub struct Cursors {
    by_name: HashMap<String, Cursor>,
    nesting: Nesting,
}

impl Cursors {
    /// Whether no server knows all of them: they are on several shards, or the proxy keeps rows.
    pub(super) fn is_spread(&self) -> bool {
        let mut all = self.by_name.values();
        let Some(first) = all.next() else {
            return false;
        };
        let is_whole = |cursor: &Cursor| cursor.rows.is_none() && cursor.shards.len() == 1;
        !is_whole(first) || all.any(|one| !is_whole(one) || one.shards != first.shards)
    }

    /// Refuses a query that asks for the session's cursors where no server knows all of them.
    ///
    /// # Errors
    /// `0A000`.
    pub(super) fn check_asked(&self, text: &str) -> Result<()> {
        // Only sessions with such cursors pay for reading the text once more.
        if !self.is_spread() || !text.to_ascii_lowercase().contains("pg_cursor") {
            return Ok(());
        }
        Err(Error::refused(
            "pg_cursors is not known while the session has cursors over several shards",
            "Each server knows those of its own, and none that the proxy keeps.",
            "Close the cursors over several shards first.",
        ))
    }

    /// Notes a cursor that was declared on one shard.
    pub fn declared(&mut self, name: &str, hold: bool, shard: ShardIndex) {
        let cursor = Cursor {
            shards: vec![shard],
            at: 0,
            hold,
            binary: false,
            is_new: true,
            depth: self.nesting.depth(),
            rows: None,
        };
        self.by_name.insert(name.to_owned(), cursor);
    }

    /// Keeps a cursor with all its rows: whether it outlives its transaction, and whether there is one.
    ///
    /// # Errors
    /// `53400` if that were more than `limit` bytes for all such cursors.
    pub(super) fn keep(
        &mut self,
        name: &str,
        rows: Rows,
        (hold, is_new): (bool, bool),
        limit: u64,
    ) -> Result<()> {
        let kept = self.by_name.values().filter_map(|one| one.rows.as_ref());
        let bytes: usize = kept.map(|rows| rows.bytes.len()).sum();
        if (bytes + rows.bytes.len()) as u64 > limit {
            return Err(Error::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "cursors over several shards need more memory than a query may use",
            )
            .hint("Raise limits.query_memory, or close cursors."));
        }
        let cursor = Cursor {
            shards: Vec::new(),
            at: 0,
            hold,
            binary: false,
            is_new,
            depth: self.nesting.depth(),
            rows: Some(Box::new(rows)),
        };
        self.by_name.insert(name.to_owned(), cursor);
        Ok(())
    }

    /// Whether there is a cursor of this name.
    pub fn is_known(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether the proxy keeps the rows of a cursor.
    pub fn keeps(&self, name: &str) -> bool {
        let cursor = self.by_name.get(name);
        cursor.is_some_and(|cursor| cursor.rows.is_some())
    }

    /// The rows of a cursor, if the proxy keeps them.
    pub(super) fn rows(&mut self, name: &str) -> Option<&mut Rows> {
        self.by_name.get_mut(name)?.rows.as_deref_mut()
    }

    /// Forgets a cursor, or all of them.
    pub fn close(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.by_name.remove(name)),
            None => self.by_name.clear(),
        }
    }

    /// A statement has completed: what was declared behind a savepoint ends when the transaction goes back to it.
    pub fn nest(&mut self, effect: &Effect) {
        if let Some(turn) = self.nesting.note(effect) {
            self.by_name.retain(|_, cursor| {
                let stands = turn.stands(cursor.depth).filter(|_| cursor.is_new);
                cursor.depth = stands.unwrap_or_default();
                stands.is_some() || !cursor.is_new
            });
        }
    }

    /// The transaction has ended.
    pub fn end(&mut self, is_committed: bool) {
        self.nesting.clear();
        self.by_name
            .retain(|_, cursor| cursor.hold && (is_committed || !cursor.is_new));
        for cursor in self.by_name.values_mut() {
            (cursor.is_new, cursor.depth) = (false, 0);
        }
    }

    /// The shards on which a statement finds the cursors that it names; none if they are not known.
    pub fn shards(&self, statement: &Statement) -> Option<ShardSet> {
        let of = |name: &str| self.by_name.get(name);
        let mut shards = ShardSet::default();
        match statement {
            Statement::Fetch(fetch) | Statement::Move(fetch) => {
                shards.extend(of(&fetch.cursor)?.shards.iter().copied());
            }
            Statement::CloseCursor(Some(name)) => shards.extend(of(name)?.shards.iter().copied()),
            Statement::CloseCursor(None) => {
                let all = self.by_name.values().flat_map(|cursor| &cursor.shards);
                shards.extend(all.copied());
            }
            _ => return None,
        }
        (!shards.is_empty()).then_some(shards)
    }
}

/// A statement about a cursor on several shards.
#[derive(Clone, Copy, Debug)]
pub(super) struct CursorCall<'a> {
    /// The statement.
    pub statement: &'a Statement,
    /// Its text.
    pub text: &'a [u8],
    /// The declared types of its parameters, and its Bind; none for a simple Query.
    pub bound: Option<(&'a [u32], Bind<'a>)>,
    /// Whether the client is to get a RowDescription.
    pub is_described: bool,
}

/// Whether a statement is about a cursor.
pub(super) fn is_about_cursor(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Declare { .. }
            | Statement::Fetch(_)
            | Statement::Move(_)
            | Statement::CloseCursor(_)
    )
}

impl Session {
    /// Runs a statement about a cursor on several shards; returns its command tag.
    ///
    /// # Errors
    /// The shards' errors, and `0A000` where the transaction can't use all of them.
    pub(super) async fn call_cursor(
        &mut self,
        call: CursorCall<'_>,
        shards: &ShardSet,
    ) -> Result<String, Stop> {
        match call.statement {
            Statement::Declare {
                name, hold, binary, ..
            } => {
                self.check_free_cursor(call.statement)?;
                self.declare_on(call, shards, name, *hold).await?;
                let cursor = Cursor {
                    shards: shards.iter().collect(),
                    at: 0,
                    hold: *hold,
                    binary: *binary,
                    is_new: self.transaction != Transaction::Idle,
                    depth: self.memory.cursors.nesting.depth(),
                    rows: None,
                };
                self.memory.cursors.by_name.insert(name.clone(), cursor);
                Ok("DECLARE CURSOR".to_owned())
            }
            Statement::Fetch(fetch) => {
                let rows = self.walk(call, fetch, "FETCH").await?;
                Ok(format!("FETCH {rows}"))
            }
            Statement::Move(fetch) => {
                let rows = self.walk(call, fetch, "MOVE").await?;
                Ok(format!("MOVE {rows}"))
            }
            Statement::CloseCursor(name) => {
                self.everywhere(call.text, shards).await?;
                self.memory.cursors.close(name.as_deref());
                let all = if name.is_none() { " ALL" } else { "" };
                Ok(format!("CLOSE CURSOR{all}"))
            }
            _ => Ok(String::new()),
        }
    }

    /// Runs a bound statement about a cursor on several shards.
    pub(super) async fn execute_cursor_call(&mut self, portal: &ScatterPortal) -> Result<(), Stop> {
        self.drain().await?;
        self.check_declared(portal)?;
        let bind = Bind::read(frame::body(&portal.bind))?;
        let call = CursorCall {
            statement: &portal.prepared.plan.statement,
            text: &portal.prepared.text,
            bound: Some((&portal.prepared.types, bind)),
            is_described: portal.is_described,
        };
        let returns_rows = matches!(call.statement, Statement::Fetch(_));
        if returns_rows {
            self.pay_owed();
        }
        let tag = self.call_cursor(call, &portal.shards).await?;
        let mut words = Vec::new();
        if portal.is_described && !returns_rows {
            no_data(&mut words);
        }
        command_complete(&mut words, &tag);
        self.say(words);
        Ok(())
    }

    /// Declares a cursor on each shard, and compares what they say of its rows.
    async fn declare_on(
        &mut self,
        call: CursorCall<'_>,
        shards: &ShardSet,
        name: &str,
        hold: bool,
    ) -> Result<(), Stop> {
        let joins = match hold {
            true => Joins::Keeping,
            false => Joins::Reading,
        };
        let gathered = self.gather(shards, joins, &[]).await?;
        let request = |lease: &mut Lease| {
            let mut out = match call.bound {
                Some((types, bind)) => {
                    lease.unnamed = None;
                    let mut out = Vec::new();
                    frontend::write_parse(&mut out, b"", call.text, types);
                    frontend::write_bind(&mut out, &bind, b"");
                    out
                }
                None => unnamed(lease, call.text, &[]),
            };
            frontend::write_execute(&mut out, b"", 0);
            frontend::write_subject(&mut out, b'D', Subject::Portal, name.as_bytes());
            frontend::write_sync(&mut out);
            out
        };
        let mut scatter = Scatter::start(gathered, request, false, HIGH_WATER_BYTES).described();
        if hold {
            scatter.each(|held| held.is_pinned = true);
        }
        let answered = self.drive(scatter).await?;
        let mut descriptions = answered.descriptions.iter();
        if let Some(first) = descriptions.next() {
            for other in descriptions {
                description::compare(frame::body(first), frame::body(other), "another")?;
            }
        }
        Ok(())
    }

    /// Runs a statement that returns nothing on each shard.
    async fn everywhere(&mut self, text: &[u8], shards: &ShardSet) -> Result<Answered, Stop> {
        let gathered = self.gather(shards, Joins::Reading, &[]).await?;
        let request = |lease: &mut Lease| {
            let mut out = unnamed(lease, text, &[]);
            frontend::write_execute(&mut out, b"", 0);
            frontend::write_sync(&mut out);
            out
        };
        let scatter = Scatter::start(gathered, request, false, HIGH_WATER_BYTES).described();
        self.drive(scatter).await
    }

    /// FETCH and MOVE.
    async fn walk(&mut self, call: CursorCall<'_>, fetch: &Fetch, verb: &str) -> Result<u64, Stop> {
        let Some(mut cursor) = self.memory.cursors.by_name.remove(&fetch.cursor) else {
            return Err(no_cursor(&fetch.cursor).into());
        };
        let mut walk = Walk::new(fetch.direction, cursor.at, cursor.shards.len());
        let mut total = 0;
        let binary: &[u8] = if cursor.binary { &[0, 1] } else { &[] };
        let formats = call.bound.map_or(binary, |(_, bind)| bind.results);
        let mut is_described = call.is_described;
        let mut ended = Ok(());
        while let Some(step) = walk.step() {
            let delivers = step.delivers && verb == "FETCH";
            let sql = format!(
                "{} {} FROM {}",
                if delivers { "FETCH" } else { "MOVE" },
                step.command.sql(),
                quoted(&fetch.cursor)
            );
            let Some(shard) = cursor.shards.get(step.shard) else {
                break;
            };
            let shows = delivers && std::mem::take(&mut is_described);
            match self.step_on(*shard, &sql, formats, shows).await {
                Ok(rows) => {
                    walk.passed(rows);
                    total += if step.delivers { rows } else { 0 };
                }
                Err(stop) => {
                    ended = Err(stop);
                    break;
                }
            }
        }
        cursor.at = walk.at();
        let name = fetch.cursor.clone();
        self.memory.cursors.by_name.insert(name, cursor);
        ended.map(|()| total)
    }

    async fn step_on(
        &mut self,
        shard: ShardIndex,
        sql: &str,
        formats: &[u8],
        is_described: bool,
    ) -> Result<u64, Stop> {
        let gathered = self
            .gather(&ShardSet::from_iter([shard]), Joins::Reading, &[])
            .await?;
        let request = |lease: &mut Lease| {
            let mut out = unnamed(lease, sql.as_bytes(), formats);
            frontend::write_subject(&mut out, b'D', Subject::Portal, b"");
            frontend::write_execute(&mut out, b"", 0);
            frontend::write_sync(&mut out);
            out
        };
        let scatter = Scatter::start(gathered, request, is_described, HIGH_WATER_BYTES);
        Ok(self.drive(scatter).await?.affected)
    }
}

/// Parse and Bind of a text without a name.
fn unnamed(lease: &mut Lease, text: &[u8], formats: &[u8]) -> Vec<u8> {
    lease.unnamed = None;
    let mut out = Vec::new();
    frontend::write_parse(&mut out, b"", text, &[]);
    message(&mut out, b'B', |body| {
        // No names, parameter formats or parameters.
        body.extend_from_slice(&[0; 6]);
        let count = u16::try_from(formats.len() / 2).unwrap_or(0);
        body.extend_from_slice(&count.to_be_bytes());
        body.extend_from_slice(formats);
    });
    out
}

fn no_cursor(name: &str) -> Error {
    Error::new(
        SqlState::INVALID_CURSOR_NAME,
        format!("cursor \"{name}\" does not exist"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_with_hold_outlive_their_transaction() {
        let mut cursors = Cursors::default();
        cursors.declared("short", false, 0);
        cursors.declared("long", true, 1);
        let on = |cursors: &Cursors, name: &str| {
            let close = Statement::CloseCursor(Some(name.to_owned()));
            let shards = cursors.shards(&close)?;
            Some(shards.iter().collect::<Vec<_>>())
        };
        assert_eq!(on(&cursors, "short"), Some(vec![0]));
        cursors.end(true);
        assert_eq!(on(&cursors, "short"), None);
        assert_eq!(on(&cursors, "long"), Some(vec![1]));
        cursors.nest(&Effect::Savepoint("s".into()));
        cursors.declared("behind", true, 0);
        cursors.nest(&Effect::RollbackTo("s".into()));
        assert_eq!(on(&cursors, "behind"), None);
        assert_eq!(on(&cursors, "long"), Some(vec![1]));
        cursors.declared("undone", true, 0);
        cursors.end(false);
        assert_eq!(on(&cursors, "undone"), None);
        assert_eq!(on(&cursors, "long"), Some(vec![1]));
    }
}
