//! Runs one statement on several shards at once and makes one answer of their rows.
//!
//! Every shard gets the same request in the extended protocol. No row is released before every shard
//! has described its result and the descriptions agree. From then on whole rows pass to the client as
//! they arrive, from whichever shard has one; a row that has arrived in part is finished before another
//! shard's row begins. Nothing is kept: while the client's queue is full no shard is read, and TCP
//! holds the shards back. An error on one shard ends the others.
//!
//! A server that changes rows has changed them all before it gives the first that RETURNING names (PostgreSQL
//! source, `PORTAL_ONE_RETURNING`). So no row of a change passes before every shard has one, or has none and is done.
//!
//! With a merge, the first whole row of each shard stays in its connection's buffer until the merge says
//! that it is next.

use std::borrow::{BorrowMut, Cow};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::backend::connection::LARGEST_HELD_FRAME_BYTES;
use crate::error::{Error, Result};
use crate::exec::description;
use crate::exec::merge::Merger;
use crate::net::buffer::Buffer;
use crate::pool::Lease;
use crate::wire::backend::Status;
use crate::wire::buffer::message;
use crate::wire::frame;

mod branch;
pub mod copying;
mod merging;
mod ordered;
mod preface;
mod words;

use branch::Branch;
use ordered::Order;
use preface::Preface;
use words::{affected, parses, tag, with_context};

pub use branch::Ended;

/// One statement on several shards.
#[derive(Debug)]
pub struct Scatter<C> {
    branches: Vec<Branch<C>>,
    /// What the client is told of the rows.
    told: Told,
    /// The descriptions have been compared, rows may pass.
    is_released: bool,
    /// The branch whose row has passed in part, and the bytes of it that are yet to come.
    current: Option<(usize, usize)>,
    /// The first error of a shard, as the frame for the client.
    failure: Option<Vec<u8>>,
    /// Rows that may still pass.
    left: u64,
    high_water_bytes: usize,
    /// Decides which row is next; none if any is.
    merger: Option<Merger>,
    /// Rows pass as COPY data for a server whose columns are described so.
    copied: Option<Vec<u8>>,
    /// Bytes of rows that have passed or begun to.
    bytes: u64,
    /// What comes before the first row.
    preface: Preface,
    /// Decides which shard's row is next, if that is known before rows come.
    order: Option<Order>,
}

/// How far a shard has come with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// It has not accepted the statement.
    #[default]
    Nothing,
    /// It has read the statement, or knew it.
    Parsed,
    /// It has bound it.
    Bound,
}

/// What the client is told of the rows before they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing, not even notices, and no rows.
    Silence,
    /// Nothing.
    Nothing,
    /// Their columns, if there are any: as a Query's client.
    Columns,
    /// Their columns, or that there are none: as the client of a Describe.
    All,
}

/// Why a scatter ended without its answer.
#[derive(Debug)]
pub enum Failure {
    /// A shard's error, as the frame for the client.
    Shard(Vec<u8>),
    /// An error of the proxy's own.
    Own(Error),
    /// The columns are not those that the client knows.
    Changed,
    /// A connection to this shard broke.
    Lost(String, io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Own(error)
    }
}

impl<C: BorrowMut<Lease>> Scatter<C> {
    /// Sends `request` (up to and with its Sync) on every connection. Stops reading while the client's queue
    /// holds `high_water_bytes`.
    pub fn start(
        connections: Vec<(String, C)>,
        request: impl Fn(&mut Lease) -> Vec<u8>,
        is_described: bool,
        high_water_bytes: usize,
    ) -> Scatter<C> {
        let branch = |(shard, mut connection): (String, C)| {
            let lease = connection.borrow_mut();
            let bytes = request(lease);
            lease.socket.output.push(&bytes);
            Branch::new(connection, shard, parses(&bytes))
        };
        Scatter {
            branches: connections.into_iter().map(branch).collect(),
            told: match is_described {
                true => Told::All,
                false => Told::Nothing,
            },
            is_released: false,
            current: None,
            failure: None,
            left: u64::MAX,
            high_water_bytes,
            merger: None,
            copied: None,
            bytes: 0,
            preface: Preface::default(),
            order: None,
        }
    }

    /// Of a change of rows, if it is one: none passes before all shards have changed theirs.
    #[must_use]
    pub fn changing(mut self, changes: bool) -> Scatter<C> {
        self.preface.changing = if changes { self.branches.len() } else { 0 };
        self
    }

    /// Tells the client nothing, whatever the shards say.
    #[must_use]
    pub fn silent(mut self) -> Scatter<C> {
        self.told = Told::Silence;
        self.left = 0;
        self
    }

    /// For a client that is told nothing because it knows the columns, of this digest.
    #[must_use]
    pub fn expecting(mut self, columns: Option<u64>) -> Scatter<C> {
        self.preface.expected = columns;
        self
    }

    /// Answers a Query: a statement without rows is not described.
    #[must_use]
    pub fn of_query(mut self) -> Scatter<C> {
        self.told = Told::Columns;
        self
    }

    /// As [`Scatter::of_query`], of one that has begun.
    pub fn answer_query(&mut self) {
        if self.told == Told::All {
            self.told = Told::Columns;
        }
    }

    /// Has the rows merged.
    #[must_use]
    pub fn merged(mut self, merger: Option<Merger>) -> Scatter<C> {
        self.merger = merger;
        self
    }

    /// Has rows in binary format pass as data of a binary COPY: a row of the one is a tuple of the other,
    /// byte for byte. `columns` is the RowDescription of what they are copied into.
    #[must_use]
    pub fn copied_into(mut self, columns: Vec<u8>) -> Scatter<C> {
        self.copied = Some(columns);
        self
    }

    /// Has the client's RowDescription say where columns come from as the frame `original` does.
    #[must_use]
    pub fn described_as(mut self, original: Vec<u8>) -> Scatter<C> {
        self.preface.original = Some(original);
        self
    }

    /// Has these rows, as frames, come first.
    #[must_use]
    pub fn headed(mut self, head: Vec<u8>) -> Scatter<C> {
        self.preface.head = head;
        self
    }

    /// Has rows pass in this order: for each row the connection that gives it. One that gives fewer loses
    /// its last turns.
    #[must_use]
    pub fn ordered(mut self, turns: Vec<usize>) -> Scatter<C> {
        self.order = Some(Order::new(turns, self.branches.len()));
        self
    }

    /// Has these frames, which say that the statement was read and bound, come first: before the columns, once
    /// every shard has bound it.
    pub fn acknowledge(&mut self, frames: Vec<u8>) {
        self.preface.acknowledgement = frames;
    }

    /// Whether every shard has bound the statement, and the client may know.
    pub fn is_released(&self) -> bool {
        self.is_released
    }

    /// How far the shard had come whose error has ended it.
    pub fn reached(&self) -> Reached {
        self.preface.reached
    }

    /// Bytes of rows that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Does something to each connection.
    pub fn each(&mut self, change: impl Fn(&mut C)) {
        for branch in &mut self.branches {
            change(&mut branch.connection);
        }
    }

    /// Passes `rows` rows at most.
    #[must_use]
    pub fn limited(mut self, rows: u64) -> Scatter<C> {
        self.left = rows;
        self
    }

    /// Of portals that were bound and described before: rows may pass at once.
    #[must_use]
    pub fn described(mut self) -> Scatter<C> {
        self.is_released = true;
        for branch in &mut self.branches {
            branch.reached = Reached::Bound;
        }
        self
    }

    /// Moves rows to `out`; ready with their number once every shard is done.
    pub fn poll(&mut self, cx: &mut Context<'_>, out: &mut Buffer) -> Poll<Result<u64, Failure>> {
        loop {
            let before = self.progress(out);
            self.emit(out)?;
            for index in 0..self.branches.len() {
                self.poll_branch(index, cx, out)?;
            }
            // What one branch has done may let another go on.
            if before == self.progress(out) {
                break;
            }
        }
        if self.current.is_none()
            && let Some(failure) = self.failure.take()
        {
            return Poll::Ready(Err(Failure::Shard(failure)));
        }
        if self.branches.iter().all(Branch::is_done) && self.drain(out)? {
            return Poll::Ready(Ok(match &self.merger {
                Some(merger) => merger.passed(),
                None => self.branches.iter().map(|branch| branch.rows).sum(),
            }));
        }
        Poll::Pending
    }

    /// Differs once anything has moved.
    fn progress(&self, out: &Buffer) -> (usize, bool, Option<(usize, usize)>, u64, usize) {
        let merged = self.merger.as_ref().map_or(0, Merger::progress);
        let ordered = self.order.as_ref().map_or(0, Order::progress);
        let changing = self.preface.changing;
        let rows = merged + ordered;
        (out.len(), self.is_released, self.current, rows, changing)
    }

    /// Whether the client has seen a row in part, so that nothing else can be said to it.
    pub fn is_mid_row(&self) -> bool {
        self.current.is_some()
    }

    fn poll_branch(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        out: &mut Buffer,
    ) -> Result<(), Failure> {
        loop {
            self.pass(index, out)?;
            let waits = self.current.is_some_and(|(current, _)| current != index);
            let Some(branch) = self.branches.get_mut(index) else {
                return Ok(());
            };
            // A branch that is ahead of its siblings' descriptions reads on until it holds a row, or the
            // end of none. Anything else at the front is a message that has come in part.
            let front = branch.socket().input.bytes().first().copied();
            let has_failed = front == Some(b'E') && branch.description.is_some();
            let is_ahead = !self.is_released
                && (has_failed || matches!(front, Some(b'D' | b'C' | b'I' | b's')));
            let waits_for_changes =
                self.preface.changing > 0 && self.preface.changed.contains(&index);
            let is_early =
                front == Some(b'D') && (waits_for_changes || !may_pass(&self.order, index));
            let waits = waits
                || is_early
                || self
                    .merger
                    .as_ref()
                    .is_some_and(|merger| merger.holds(index));
            if branch.is_done() || waits || is_ahead || out.len() >= self.high_water_bytes {
                return flush(branch, cx);
            }
            flush(branch, cx)?;
            match branch.socket().poll_fill(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => {
                    let cause = io::ErrorKind::UnexpectedEof.into();
                    return Err(Failure::Lost(branch.shard.clone(), cause));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Err(Failure::Lost(branch.shard.clone(), cause)),
            }
        }
    }

    /// Passes what branch `index` holds, as far as it may.
    fn pass(&mut self, index: usize, out: &mut Buffer) -> Result<(), Failure> {
        loop {
            if let Some((current, rest)) = self.current {
                let Some(branch) = self.branches.get_mut(current) else {
                    return Ok(());
                };
                let count = rest.min(branch.socket().input.len());
                branch.socket().input.move_to(count, out);
                self.current = (count < rest).then_some((current, rest - count));
                if self.current.is_some() {
                    return Ok(());
                }
            }
            let Some(branch) = self.branches.get_mut(index) else {
                return Ok(());
            };
            let dropping = branch.dropping.min(branch.socket().input.len());
            branch.socket().input.consume(dropping);
            branch.dropping -= dropping;
            if branch.dropping > 0 {
                return Ok(());
            }
            let bytes = branch.connection.borrow_mut().socket.input.bytes();
            let header = frame::header(bytes).map_err(Failure::Own)?;
            let Some(header) = header else { return Ok(()) };
            if header.tag == b'D' && self.merger.is_some() {
                if !self.hold(index, header.frame_bytes)? {
                    return Ok(());
                }
                if let Some(branch) = self.branches.get_mut(index) {
                    branch.bytes += header.frame_bytes as u64;
                }
                self.emit(out)?;
                continue;
            }
            if header.tag == b'D' {
                let is_next = self.preface.note_change(index, out) && may_pass(&self.order, index);
                let may_pass = self.is_released && self.failure.is_none() && is_next;
                if !may_pass || out.len() >= self.high_water_bytes {
                    return Ok(());
                }
                if self.left == 0 {
                    branch.dropping = header.frame_bytes;
                    continue;
                }
                self.left -= 1;
                branch.rows += 1;
                self.order.iter_mut().for_each(Order::pass);
                branch.bytes += header.frame_bytes as u64;
                self.bytes += header.frame_bytes as u64;
                self.current = Some((index, header.frame_bytes));
                if self.copied.is_some() {
                    branch.socket().input.consume(1);
                    out.push(b"d");
                    self.current = Some((index, header.frame_bytes - 1));
                }
                continue;
            }
            if bytes.len() < header.frame_bytes {
                if header.frame_bytes > LARGEST_HELD_FRAME_BYTES {
                    let error = Error::protocol("a server's message is too long");
                    return Err(Failure::Own(error));
                }
                return Ok(());
            }
            if !self.take(index, header, out)? {
                return Ok(());
            }
        }
    }

    /// Takes one whole frame other than a row; false if it has to wait.
    fn take(
        &mut self,
        index: usize,
        header: frame::Header,
        out: &mut Buffer,
    ) -> Result<bool, Failure> {
        let Some(branch) = self.branches.get_mut(index) else {
            return Ok(false);
        };
        let reached = branch.reached;
        if self.is_released && matches!(header.tag, b'C' | b's') {
            self.preface.note_change(index, out);
        }
        let input = &mut branch.connection.borrow_mut().socket.input;
        let frame = input.bytes().get(..header.frame_bytes).unwrap_or(&[]);
        match header.tag {
            b'T' | b'n' => {
                branch.description = Some(frame.to_vec());
                input.consume(header.frame_bytes);
                if !self.is_released {
                    self.release(out)?;
                }
                return Ok(true);
            }
            b'C' | b'I' | b's' if !self.is_released => return Ok(false),
            // The client hears of the columns first, as from one server.
            b'E' if !self.is_released && branch.description.is_some() && self.failure.is_none() => {
                return Ok(false);
            }
            b'N' if self.copied.is_some() || self.told == Told::Silence => {}
            b'N' => out.push(frame),
            b'E' => {
                if self.failure.is_none() {
                    self.failure = Some(with_context(frame, &branch.shard));
                    self.preface.reached = reached;
                }
            }
            b'Z' => {
                let status = frame::body(frame).first().copied();
                branch.status = status.and_then(Status::from_byte);
                if branch.status.is_none() {
                    let message = "a server's ReadyForQuery makes no sense";
                    return Err(Failure::Own(Error::protocol(message)));
                }
            }
            b'1' => branch.reached = Reached::Parsed,
            b'2' => branch.reached = Reached::Bound,
            b's' | b'C' => {
                branch.is_suspended |= header.tag == b's';
                branch.affected += affected(frame::body(frame));
                branch.clock.note_end();
                branch.tag = tag(frame::body(frame));
                self.merger.iter_mut().for_each(|merger| merger.end(index));
                self.order.iter_mut().for_each(|order| order.end(index));
            }
            b'3' | b'I' | b'S' | b'A' => {}
            other => {
                let message = format!("unexpected message '{}' of a server", char::from(other));
                return Err(Failure::Own(Error::protocol(message)));
            }
        }
        input.consume(header.frame_bytes);
        Ok(true)
    }

    /// Compares the descriptions once all are there, and lets rows pass.
    fn release(&mut self, out: &mut Buffer) -> Result<(), Failure> {
        let mut first: Option<&[u8]> = None;
        for branch in &self.branches {
            let Some(description) = &branch.description else {
                return Ok(());
            };
            if let Some(copied) = &self.copied {
                let (one, other) = (frame::body(copied), frame::body(description));
                description::compare_shipped(one, other, &branch.shard)?;
                continue;
            }
            match first {
                None => first = Some(description),
                Some(first) if first.first() != description.first() => {
                    return Err(Error::protocol("only some shards return rows").into());
                }
                Some(first) if first.first() == Some(&b'T') => {
                    let (one, other) = (frame::body(first), frame::body(description));
                    description::compare(one, other, &branch.shard)?;
                }
                Some(_) => {}
            }
        }
        let mut first = Cow::Borrowed(first.unwrap_or(&[]));
        if let Some(merger) = &mut self.merger {
            first = Cow::Owned(merger.describe(&first)?);
        }
        let has_columns = first.first() == Some(&b'T');
        let columns = description::digest(frame::body(&first)).filter(|_| has_columns);
        let expected = self.preface.expected;
        if self.told == Told::Nothing && expected.is_some_and(|known| columns != Some(known)) {
            return Err(Failure::Changed);
        }
        out.push(&std::mem::take(&mut self.preface.acknowledgement));
        let mut words = Vec::new();
        if self.told == Told::All || (self.told == Told::Columns && has_columns) {
            let original = self.preface.original.as_deref().map(frame::body);
            match original.and_then(|body| description::with_origins(frame::body(&first), body)) {
                Some(body) => message(&mut words, b'T', |frame| frame.extend_from_slice(&body)),
                None => words.extend_from_slice(&first),
            }
        }
        if self.told == Told::All {
            out.push(&std::mem::take(&mut words));
        }
        words.append(&mut self.preface.head);
        match self.preface.changing {
            0 => out.push(&words),
            _ => self.preface.waiting = words,
        }
        self.is_released = true;
        Ok(())
    }

    /// Ends it; what was not answered is not known.
    pub fn end(self) -> Vec<Ended<C>> {
        self.branches.into_iter().map(Branch::end).collect()
    }

    /// Lets the shards come to their ends, after a failure of the proxy's own; drops what they say.
    pub async fn settle(&mut self) {
        branch::settle(&mut self.branches).await;
    }

    /// Stops the shards that still work, after a failure, and waits for `patience` at most until they
    /// have.
    pub async fn stop(&mut self, patience: Duration) {
        branch::stop(&mut self.branches, patience).await;
    }
}

/// Whether the order lets a row of this branch pass.
fn may_pass(order: &Option<Order>, branch: usize) -> bool {
    order.as_ref().is_none_or(|order| order.may_pass(branch))
}

fn flush<C: BorrowMut<Lease>>(branch: &mut Branch<C>, cx: &mut Context<'_>) -> Result<(), Failure> {
    if branch.socket().output.is_empty() {
        return Ok(());
    }
    match branch.socket().poll_flush(cx) {
        Poll::Ready(Err(cause)) => Err(Failure::Lost(branch.shard.clone(), cause)),
        _ => Ok(()),
    }
}
