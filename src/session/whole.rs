//! Queries that are merged or finished by a hub, for clients that take the rows in parts: portals with row
//! limits, and cursors.
//!
//! What holds:
//! - Such a query runs to its end at once, inside the client's transaction: its rows are those that there
//!   were when the portal was first executed or the cursor declared, as PostgreSQL has it.
//! - The rows are kept in no more memory than a query may use; all cursors of a session together as well.
//! - A cursor's rows are in text, or binary if it is declared so. Who asks for the other is refused.

use crate::error::{Error, Result};
use crate::exec::combine::request::{self, Parameter};
use crate::exec::description;
use crate::exec::merge::row::described;
use crate::exec::walk::{Command, Walk};
use crate::plan::{Parameters, Plan};
use crate::session::cursors::Rows;
use crate::session::heal::changed;
use crate::session::kept::Captured;
use crate::session::local::Answer;
use crate::session::scatter::{ScatterPortal, Way};
use crate::session::{Session, Stop};
use crate::sharding::Format;
use crate::sql::shape::Literal;
use crate::sql::statement::{Fetch, Statement};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{command_complete, no_data};
use crate::wire::format::Formats;
use crate::wire::frame;
use crate::wire::frontend::Bind;

impl Session {
    /// Whether the rows of a kept portal that the client takes in parts are kept here.
    pub(super) fn is_kept_whole(&self, portal: &ScatterPortal) -> bool {
        let plan = &portal.prepared.plan;
        let is_query = matches!(plan.statement, Statement::Query(_));
        let is_own = match portal.way {
            Way::Combine => plan.change().is_none(),
            Way::Scatter => plan.merge.is_some(),
            Way::Rows(_) | Way::Feed | Way::Staged => false,
        };
        is_query && is_own && self.transaction != Transaction::Idle
    }

    /// Runs a kept portal to its end, and serves the first part of its rows.
    pub(super) async fn execute_whole(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let is_described = portal.is_described;
        let portal = ScatterPortal {
            is_described: true,
            ..portal
        };
        self.capture();
        let ran = self.run_captured(&portal).await;
        let captured = self.captured();
        ran?;
        let (told, _) = captured.told()?;
        let bind = Bind::read(frame::body(&portal.bind))?;
        let known = self.expected(bind.statement).filter(|_| !is_described);
        if known.is_some() && description::digest(frame::body(told)) != known {
            return Err(changed());
        }
        let kept = captured.whole(is_described)?;
        self.execute_kept(&portal.portal, kept, max_rows).await
    }

    async fn run_captured(&mut self, portal: &ScatterPortal) -> Result<(), Stop> {
        let plan = &portal.prepared.plan;
        let merge = plan.merge.as_ref();
        let Some(merge) = merge.filter(|_| matches!(portal.way, Way::Scatter)) else {
            return self.combine_portal(portal, 0).await.map(drop);
        };
        let joins = self.check_scatter(plan, &portal.shards).await?;
        let merged = self.merge_rows(portal, merge, (joins, 0)).await;
        match self.is_for_hub(plan, joins, &merged) {
            true => self.combine_portal(portal, 0).await.map(drop),
            false => merged.map(drop),
        }
    }

    /// Runs a bound DECLARE of a cursor whose rows a hub finds.
    pub(super) async fn execute_declare(&mut self, portal: &ScatterPortal) -> Result<(), Stop> {
        self.check_declared(portal)?;
        let prepared = &portal.prepared;
        let bind = Bind::read(frame::body(&portal.bind))?;
        let parameters = Parameters::new(&prepared.types, bind.formats, bind.values);
        let written = (prepared.sql(), &*prepared.literals);
        self.declare_whole(&prepared.plan, written, (&prepared.types, parameters))
            .await?;
        let mut words = Vec::new();
        if portal.is_described {
            no_data(&mut words);
        }
        command_complete(&mut words, "DECLARE CURSOR");
        self.say(words);
        Ok(())
    }

    /// DECLARE of a cursor whose rows a hub finds.
    pub(super) async fn declare_whole(
        &mut self,
        plan: &Plan,
        (text, literals): (&str, &[Literal]),
        (types, parameters): (&[u32], Parameters<'_>),
    ) -> Result<(), Stop> {
        let Statement::Declare {
            name,
            hold,
            binary,
            scroll,
            ..
        } = &plan.statement
        else {
            return Err(Stop::Gone);
        };
        self.check_free_cursor(&plan.statement)?;
        let mut values: Vec<Parameter<'_>> = Vec::new();
        while let Some(value) = parameters.value(values.len()) {
            let type_oid = types.get(values.len()).copied().unwrap_or(0);
            let format = parameters.format(values.len()).unwrap_or(Format::Text);
            values.push((type_oid, format, value));
        }
        let mut bound = Vec::new();
        request::write_bind(&mut bound, &values, &[*binary]);
        let bind = Bind::read(frame::body(&bound))?;
        self.capture();
        let ran = Box::pin(self.combine_captured(plan, (text, literals), (types, bind))).await;
        let captured = self.captured();
        ran?;
        let (told, rows) = captured.told()?;
        let rows = Rows::new(told, rows, *scroll != Some(false))?;
        let limit = self.database.limits.query_memory_bytes;
        let is_new = self.transaction != Transaction::Idle;
        self.memory
            .cursors
            .keep(name, rows, (*hold, is_new), limit)?;
        Ok(())
    }

    /// Whether a statement is about a cursor whose rows are kept here.
    pub(super) fn is_about_kept(&self, statement: &Statement) -> bool {
        let name = match statement {
            Statement::Fetch(fetch) | Statement::Move(fetch) => &fetch.cursor,
            Statement::CloseCursor(Some(name)) => name,
            _ => return false,
        };
        self.transaction != Transaction::Failed && self.memory.cursors.keeps(name)
    }

    /// FETCH, MOVE or CLOSE of a cursor whose rows are kept here.
    ///
    /// # Errors
    /// `55000` for a move backward that it does not make, `0A000` for rows in another format.
    pub(super) fn move_kept(&mut self, statement: &Statement, formats: &Formats) -> Result<Answer> {
        let is_extended = self.batch.is_extended();
        let cursors = &mut self.memory.cursors;
        let mut answer = Answer::default();
        match statement {
            Statement::Fetch(fetch) => {
                if let Some(rows) = cursors.rows(&fetch.cursor) {
                    if is_extended {
                        rows.check(formats)?;
                    }
                    let count = rows.walk(fetch, &mut answer.rows)?;
                    answer.is_of_rows = true;
                    answer.description = rows.description.clone();
                    answer.tag = format!("FETCH {count}");
                }
            }
            Statement::Move(fetch) => {
                if let Some(rows) = cursors.rows(&fetch.cursor) {
                    let count = rows.walk(fetch, &mut Vec::new())?;
                    answer.tag = format!("MOVE {count}");
                }
            }
            Statement::CloseCursor(name) => {
                cursors.close(name.as_deref());
                answer.tag = "CLOSE CURSOR".to_owned();
            }
            _ => {}
        }
        Ok(answer)
    }

    /// The RowDescription of what a statement about such a cursor gives; empty if it has no rows.
    pub(super) fn described_kept(&mut self, statement: &Statement) -> Vec<u8> {
        match statement {
            Statement::Fetch(fetch) => {
                let rows = self.memory.cursors.rows(&fetch.cursor);
                rows.map_or_else(Vec::new, |rows| rows.description.clone())
            }
            _ => Vec::new(),
        }
    }
}

impl Rows {
    /// The rows of an answer, behind its RowDescription.
    ///
    /// # Errors
    /// `08P01` for what is no answer.
    fn new(description: &[u8], mut bytes: &[u8], scrolls: bool) -> Result<Rows> {
        let mut rows = Rows {
            description: description.to_vec(),
            bytes: bytes.to_vec(),
            starts: Vec::new(),
            at: 0,
            scrolls,
        };
        let mut start = 0;
        while let Some(header) = frame::header(bytes)? {
            if header.tag == b'D' {
                rows.starts.push(start..start + header.frame_bytes);
            }
            start += header.frame_bytes;
            bytes = bytes.get(header.frame_bytes..).unwrap_or_default();
        }
        Ok(rows)
    }

    /// Fails unless its rows have these formats.
    fn check(&self, formats: &Formats) -> Result<()> {
        let (columns, _) = described(frame::body(&self.description), usize::MAX)?;
        let mut columns = columns.iter().enumerate();
        match columns.all(|(index, column)| column.is_binary == formats.is_binary(index)) {
            true => Ok(()),
            false => Err(Error::refused(
                "rows of this cursor can't be fetched in this format",
                "They were kept in another one when the cursor was declared.",
                "Declare the cursor BINARY for binary rows, and not for text.",
            )),
        }
    }

    /// Moves as a FETCH says; how many rows it passed, which are appended to `out`.
    fn walk(&mut self, fetch: &Fetch, out: &mut Vec<u8>) -> Result<u64> {
        let mut walk = Walk::new(fetch.direction, 0, 1);
        let mut total = 0;
        while let Some(step) = walk.step() {
            let is_backward = matches!(step.command, Command::Backward(_) | Command::Rewind);
            if is_backward && !self.scrolls && self.at > 0 {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "cursor can only scan forward",
                )
                .hint("Declare it with SCROLL option to enable backward scan."));
            }
            let mut passed = 0;
            for row in self.passes(step.command) {
                passed += 1;
                let row = row.checked_sub(1).and_then(|row| self.starts.get(row));
                let bytes = row.and_then(|row| self.bytes.get(row.clone()));
                if step.delivers {
                    out.extend_from_slice(bytes.unwrap_or_default());
                }
            }
            walk.passed(passed);
            total += if step.delivers { passed } else { 0 };
        }
        Ok(total)
    }

    /// Moves; the rows it passes, from 1.
    fn passes(&mut self, command: Command) -> Vec<usize> {
        let (at, behind) = (self.at, self.starts.len() + 1);
        let wanted = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        match command {
            Command::Rewind => {
                self.at = 0;
                Vec::new()
            }
            Command::End => {
                self.at = behind;
                Vec::new()
            }
            Command::Here => (at..=at).filter(|row| (1..behind).contains(row)).collect(),
            Command::Forward(rows) => {
                let end = rows.map_or(behind, |rows| at.saturating_add(wanted(rows)).min(behind));
                self.at = end;
                (at + 1..=end).filter(|row| *row < behind).collect()
            }
            Command::Backward(rows) => {
                let end = rows.map_or(0, |rows| at.saturating_sub(wanted(rows)));
                self.at = end;
                (end..at).rev().filter(|row| *row > 0).collect()
            }
        }
    }
}

impl Captured {
    /// The RowDescription that was captured first, and what stands behind it.
    ///
    /// # Errors
    /// `08P01` if there is none.
    fn told(&self) -> Result<(&[u8], &[u8])> {
        let bytes = self.bytes();
        let header = frame::header(bytes)?.filter(|header| header.tag == b'T');
        let told = header.and_then(|header| bytes.split_at_checked(header.frame_bytes));
        told.ok_or_else(|| Error::protocol("rows without their description"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statement::FetchDirection;
    use crate::wire::backend::{Column, data_row, row_description};

    #[test]
    fn a_kept_cursor_moves_as_postgresqls() {
        let (mut told, mut bytes) = (Vec::new(), Vec::new());
        row_description(&mut told, &[Column::text("a")]);
        for value in [b"1", b"2", b"3"] {
            data_row(&mut bytes, [Some(&value[..])].into_iter());
        }
        let mut rows = Rows::new(&told, &bytes, true).unwrap();
        let mut fetch = |direction| {
            let mut out = Vec::new();
            let cursor = "c".to_owned();
            let count = rows.walk(&Fetch { cursor, direction }, &mut out).unwrap();
            let values = out.iter().filter(|byte| byte.is_ascii_digit());
            let values: String = values.map(|byte| char::from(*byte)).collect();
            assert_eq!(values.len() as u64, count);
            values
        };
        assert_eq!(fetch(FetchDirection::Forward(2)), "12");
        assert_eq!(fetch(FetchDirection::Relative(0)), "2");
        assert_eq!(fetch(FetchDirection::Backward(1)), "1");
        assert_eq!(fetch(FetchDirection::Backward(1)), "");
        assert_eq!(fetch(FetchDirection::ForwardAll), "123");
        assert_eq!(fetch(FetchDirection::Forward(0)), "");
        assert_eq!(fetch(FetchDirection::BackwardAll), "321");
        assert_eq!(fetch(FetchDirection::Absolute(-1)), "3");
        assert_eq!(fetch(FetchDirection::Forward(1)), "");
        assert_eq!(fetch(FetchDirection::Relative(-2)), "2");
        rows.scrolls = false;
        let back = Fetch {
            cursor: "c".to_owned(),
            direction: FetchDirection::Backward(1),
        };
        assert!(rows.walk(&back, &mut Vec::new()).is_err());
    }
}
