//! A COPY FROM STDIN over several shards: the client's data to the shards, what becomes of it back.
//!
//! What holds:
//! - The client is asked for data once every shard has asked for it.
//! - No more is read of the client while any shard is behind, so that a shard which is slow holds the client
//!   back and nothing is kept but one read's worth for each shard. The shards are read all the time: what they
//!   complain of is known at once, and none waits for another.
//! - It is all or nothing: who calls ends the transaction by what [`CopyIn::poll`] says.
//! - Of several errors the client gets that of the earliest line, as one PostgreSQL would have met it: after the
//!   first one, the others read what they have got before they are told to stop.

mod context;
mod lane;

use std::borrow::BorrowMut;
use std::task::{Context, Poll};

use lane::Lane;

use crate::error::Error;
use crate::exec::scatter::{Ended, Failure};
use crate::net::duplex::Duplex;
use crate::plan::copy::supply::Value;
use crate::plan::copy::{Fault, Lines, Splitter};
use crate::pool::Lease;
use crate::sqlstate::SqlState;
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::frontend;

/// Data for one shard that is sent in one message.
const PIECE_BYTES: usize = 32 * 1024;

/// Rows for which values are found at once.
const MOST_WANTED: usize = 10_000;

/// Rows that PostgreSQL enters into indexes at once (`MAX_BUFFERED_TUPLES`).
const BATCH_ROWS: u64 = 1000;

/// Tells a shard to stop because of another.
const ELSEWHERE: &[u8] = b"shardwire: the copy has failed elsewhere";

/// A COPY FROM STDIN over several shards.
#[derive(Debug)]
pub struct CopyIn<C> {
    lanes: Vec<Lane<C>>,
    table: String,
    /// Takes the data apart; none if every shard gets all of it.
    splitter: Option<Splitter>,
    phase: Phase,
    /// Bytes of the client's message at hand that are yet to come.
    rest: usize,
    /// Rows that want values before the data can be taken.
    wanted: Option<usize>,
    /// What is wrong with the data.
    fault: Option<Fault>,
    /// The client has given up.
    is_given_up: bool,
    high_water_bytes: usize,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The shards are asked.
    Opening,
    /// The client sends.
    Data,
    /// All has been sent.
    Ending,
    /// It fails.
    Failing,
}

/// How a copy ended.
#[derive(Debug)]
pub enum Outcome {
    /// It has not: rows need values for what the data leaves out, about so many of them.
    Wants(usize),
    /// With so many rows.
    Copied(u64),
    /// The client is told why.
    Failed(Failure),
    /// The client has gone.
    Gone,
    /// The client has sent a message that has no place among the data, and its session must end.
    OutOfPlace(Error),
}

/// When one PostgreSQL would have met an error: it enters rows into indexes in batches, and has read the lines
/// of the whole batch before.
fn rank(error: &[u8], line: Option<u64>) -> (u64, u64) {
    let line = line.unwrap_or(u64::MAX);
    let is_of_index = matches!(context::field(error, b'C'), Some(b"23505" | b"23P01"));
    match line.checked_next_multiple_of(BATCH_ROWS) {
        Some(read) if is_of_index => (read, line),
        _ => (line, line),
    }
}

/// How many rows end in a piece of data, about.
fn lines(data: &[u8]) -> usize {
    let ends = memchr::memchr_iter(b'\n', data).count();
    let is_over = data.ends_with(b"\\.\n") || data.ends_with(b"\\.\r\n");
    ends.saturating_sub(usize::from(is_over))
        .clamp(1, MOST_WANTED)
}

impl<C: BorrowMut<Lease>> CopyIn<C> {
    /// Sends the statement, whose table has this name, on every connection. No more is read of the client while
    /// `high_water_bytes` are queued for a shard.
    pub fn start(
        connections: Vec<(String, C)>,
        (text, table): (&[u8], &str),
        splitter: Option<Splitter>,
        high_water_bytes: usize,
    ) -> CopyIn<C> {
        let lane = |(shard, mut connection): (String, C)| {
            let lease = connection.borrow_mut();
            lease.unnamed = None;
            frontend::write_query(lease.socket.output.tail(), text);
            Lane {
                connection,
                shard,
                response: None,
                error: None,
                affected: 0,
                is_ended: false,
                status: None,
            }
        };
        CopyIn {
            lanes: connections.into_iter().map(lane).collect(),
            table: table.to_owned(),
            splitter,
            phase: Phase::Opening,
            rest: 0,
            wanted: None,
            fault: None,
            is_given_up: false,
            high_water_bytes,
        }
    }

    /// Ready with the CopyInResponse for the client once every shard asks for data.
    pub fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Duplex,
    ) -> Poll<Result<Vec<u8>, Failure>> {
        self.poll_lanes(cx, client)?;
        let is_answered = |lane: &Lane<C>| lane.response.is_some() || lane.status.is_some();
        if !self.lanes.iter().all(is_answered) {
            return Poll::Pending;
        }
        if self.lanes.iter().any(|lane| lane.response.is_none()) {
            self.fail(ELSEWHERE);
            return self.poll_failing(cx, client).map(Err);
        }
        let mut responses = self.lanes.iter().map(|lane| lane.response.as_ref());
        let first = responses.next().flatten().cloned().unwrap_or_default();
        if responses.any(|other| other != Some(&first)) {
            let error = Error::refused(
                "the table's columns differ between shards",
                format!("The shards of \"{}\" ask for other data.", self.table),
                "Make the same definition on every shard.",
            );
            return Poll::Ready(Err(Failure::Own(error)));
        }
        self.phase = Phase::Data;
        Poll::Ready(Ok(first))
    }

    /// Takes values for what the data leaves out.
    pub fn supply(&mut self, values: Vec<Vec<Value>>) {
        let supplied = self.splitter.as_mut().map(|one| one.supply(values));
        if let Some(Err(error)) = supplied {
            self.refuse(error);
        }
    }

    /// There are no values for further rows.
    pub fn exhaust(&mut self, error: Error) {
        if let Some(splitter) = &mut self.splitter {
            splitter.exhaust(error);
        }
    }

    /// Values that no row has got.
    pub fn left(&mut self) -> Vec<Vec<Value>> {
        self.splitter
            .as_mut()
            .map(Splitter::left)
            .unwrap_or_default()
    }

    /// Ends it before there is data, for a reason of the proxy's own.
    pub fn refuse(&mut self, error: Error) {
        self.fault = Some(Fault {
            line: 0,
            error,
            part: None,
        });
        self.fail(ELSEWHERE);
    }

    /// Moves the client's data to the shards; ready once every shard is done, or the client has gone.
    pub fn poll(&mut self, cx: &mut Context<'_>, client: &mut Duplex) -> Poll<Outcome> {
        loop {
            if let Err(failure) = self.poll_lanes(cx, client) {
                return Poll::Ready(Outcome::Failed(failure));
            }
            if let Poll::Ready(Err(_)) = client.poll_flush(cx) {
                return Poll::Ready(Outcome::Gone);
            }
            if self.phase == Phase::Data && self.lanes.iter().any(|lane| lane.error.is_some()) {
                self.fail(ELSEWHERE);
                continue;
            }
            match self.phase {
                Phase::Failing => return self.poll_failing(cx, client).map(Outcome::Failed),
                Phase::Opening | Phase::Ending => return self.poll_ending(cx, client),
                Phase::Data => {}
            }
            if self.is_behind() {
                return Poll::Pending;
            }
            match self.take_all(client) {
                _ if self.wanted.is_some() => {
                    return Poll::Ready(Outcome::Wants(self.wanted.take().unwrap_or(1)));
                }
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return Poll::Ready(Outcome::OutOfPlace(error)),
            }
            self.send_parts(1);
            if let Err(failure) = self.poll_lanes(cx, client) {
                return Poll::Ready(Outcome::Failed(failure));
            }
            if self.lanes.iter().any(|lane| lane.error.is_some()) {
                continue;
            }
            match client.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Outcome::Gone),
            }
        }
    }

    /// Ends it; what was not answered is not known.
    pub fn end(self) -> Vec<Ended<C>> {
        self.lanes.into_iter().map(Lane::end).collect()
    }

    fn poll_lanes(&mut self, cx: &mut Context<'_>, client: &mut Duplex) -> Result<(), Failure> {
        let mut parts = self
            .splitter
            .as_mut()
            .map(|splitter| splitter.parts().iter());
        for lane in &mut self.lanes {
            let part = parts.as_mut().and_then(Iterator::next);
            let lines: Option<&Lines> = part.map(|part| &part.lines);
            lane.poll(cx, &mut client.output, (&self.table, lines))?;
        }
        Ok(())
    }

    /// Whether a shard is behind.
    fn is_behind(&mut self) -> bool {
        let high_water_bytes = self.high_water_bytes;
        let mut lanes = self.lanes.iter_mut();
        lanes.any(|lane| lane.socket().output.len() >= high_water_bytes)
    }

    /// Takes what the client has sent until there is no more; false if something else is to be done first.
    fn take_all(&mut self, client: &mut Duplex) -> Result<bool, Error> {
        while self.phase == Phase::Data && !self.is_behind() && self.wanted.is_none() {
            if !self.take(client)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes what comes next; false if there is nothing to take.
    ///
    /// # Errors
    /// A message that has no place among the data (`08P01`).
    fn take(&mut self, client: &mut Duplex) -> Result<bool, Error> {
        let bytes = client.input.bytes();
        if self.rest > 0 {
            let count = self.rest.min(bytes.len());
            let data = bytes.get(..count).unwrap_or(&[]);
            let taken = self.feed(data);
            if taken < count {
                self.wanted = Some(lines(data.get(taken..).unwrap_or_default()));
            }
            self.rest -= taken;
            client.input.consume(taken);
            return Ok(count > 0);
        }
        let Some(header) = frame::header(bytes)? else {
            return Ok(false);
        };
        match header.tag {
            b'd' => {
                self.rest = header.frame_bytes - HEADER_BYTES;
                client.input.consume(HEADER_BYTES);
                return Ok(true);
            }
            b'c' | b'f' | b'H' | b'S' => {}
            other => {
                let message =
                    format!("unexpected message type 0x{other:02X} during COPY from stdin");
                return Err(Error::protocol(message));
            }
        }
        if header.frame_bytes > frontend::SMALL_MESSAGE_BYTES {
            return Err(Error::protocol("invalid message length"));
        }
        let Some(frame) = bytes.get(..header.frame_bytes) else {
            return Ok(false);
        };
        match header.tag {
            b'c' => self.finish(),
            b'f' => {
                let body = frame::body(frame);
                let reason = body.strip_suffix(b"\0").unwrap_or(body).to_vec();
                self.is_given_up = true;
                self.fail(&reason);
            }
            // A server ignores them while it copies.
            _ => {}
        }
        client.input.consume(header.frame_bytes);
        Ok(true)
    }

    /// Takes data; how many bytes of it.
    fn feed(&mut self, data: &[u8]) -> usize {
        let Some(splitter) = &mut self.splitter else {
            self.lanes.iter_mut().for_each(|lane| lane.send(data));
            return data.len();
        };
        match splitter.feed(data) {
            Ok(taken) => {
                self.send_parts(PIECE_BYTES);
                taken
            }
            Err(fault) => {
                self.found(fault);
                data.len()
            }
        }
    }

    /// The client has sent all of its data.
    fn finish(&mut self) {
        let finished = self.splitter.as_mut().map(Splitter::finish);
        if let Some(Err(fault)) = finished {
            self.found(fault);
            return;
        }
        self.send_parts(1);
        self.lanes.iter_mut().for_each(|lane| lane.finish(None));
        self.phase = Phase::Ending;
    }

    /// Something is wrong with the data.
    fn found(&mut self, fault: Fault) {
        self.send_parts(1);
        // Who has got the row that is wrong reads it to the end.
        if let Some(lane) = fault.part.and_then(|part| self.lanes.get_mut(part)) {
            lane.finish(None);
        }
        self.fault = Some(fault);
        self.fail(ELSEWHERE);
    }

    /// Sends each shard what there is for it, if that is as much as `least` bytes.
    fn send_parts(&mut self, least: usize) {
        let Some(splitter) = &mut self.splitter else {
            return;
        };
        for (lane, part) in self.lanes.iter_mut().zip(splitter.parts()) {
            if part.bytes.len() >= least {
                lane.send(&part.bytes);
                part.bytes.clear();
            }
        }
    }

    /// Has every shard fail behind what it has got.
    fn fail(&mut self, reason: &[u8]) {
        self.send_parts(1);
        let lanes = self.lanes.iter_mut().filter(|lane| lane.response.is_some());
        for lane in lanes {
            if !self.is_given_up {
                // Whether a carriage return ends a line is known by what follows.
                lane.send(b" ");
            }
            lane.finish(Some(reason));
        }
        self.phase = Phase::Failing;
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>, client: &mut Duplex) -> Poll<Outcome> {
        if let Err(failure) = self.poll_lanes(cx, client) {
            return Poll::Ready(Outcome::Failed(failure));
        }
        if self.lanes.iter().any(|lane| lane.status.is_none()) {
            return Poll::Pending;
        }
        if self.lanes.iter().any(|lane| lane.error.is_some()) {
            return Poll::Ready(Outcome::Failed(self.failure()));
        }
        let mut counts = self.lanes.iter().map(|lane| lane.affected);
        if self.splitter.as_ref().is_some_and(|one| !one.is_for_all()) {
            return Poll::Ready(Outcome::Copied(counts.sum()));
        }
        let first = counts.next().unwrap_or(0);
        if counts.any(|other| other != first) {
            let error = Error::new(
                SqlState::INTERNAL_ERROR,
                format!(
                    "the shards have stored other numbers of rows of \"{}\"",
                    self.table
                ),
            );
            return Poll::Ready(Outcome::Failed(Failure::Own(error)));
        }
        Poll::Ready(Outcome::Copied(first))
    }

    fn poll_failing(&mut self, cx: &mut Context<'_>, client: &mut Duplex) -> Poll<Failure> {
        if let Err(failure) = self.poll_lanes(cx, client) {
            return Poll::Ready(failure);
        }
        if self.lanes.iter().any(|lane| lane.status.is_none()) {
            return Poll::Pending;
        }
        Poll::Ready(self.failure())
    }

    /// A shard's error that shows no more of a line than is the client's.
    fn trimmed(&self, frame: Vec<u8>) -> Vec<u8> {
        match &self.splitter {
            Some(splitter) => {
                context::trimmed(&frame, &self.table, |line| splitter.of_client(line))
            }
            None => frame,
        }
    }

    /// The error of the earliest line.
    fn failure(&mut self) -> Failure {
        let mut best: Option<((u64, u64), Vec<u8>)> = None;
        let client_line = self.splitter.as_ref().map(Splitter::line);
        let mut parts = self
            .splitter
            .as_mut()
            .map(|splitter| splitter.parts().iter());
        for lane in &self.lanes {
            let part = parts.as_mut().and_then(Iterator::next);
            let Some(error) = &lane.error else { continue };
            let said = context::field(error, b'M').unwrap_or_default();
            if !self.is_given_up && memchr::memmem::find(said, ELSEWHERE).is_some() {
                continue;
            }
            let mut line = context::line(error, &self.table);
            if let (Some(own), Some(part)) = (line, part) {
                line = match self.is_given_up && own > part.lines.count() {
                    true => client_line,
                    false => part.lines.of_client(own),
                };
            }
            let rank = rank(error, line);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                let frame = context::moved(error, &self.table, line, &lane.shard);
                best = Some((rank, frame));
            }
        }
        let best = best.map(|(rank, frame)| (rank, Failure::Shard(self.trimmed(frame))));
        let fault = self.fault.take();
        match (best, fault) {
            (Some((rank, failure)), Some(fault)) if rank <= (fault.line, fault.line) => failure,
            (_, Some(fault)) => Failure::Own(fault.error),
            (Some((_, failure)), None) => failure,
            (None, None) => Failure::Own(Error::new(
                SqlState::INTERNAL_ERROR,
                "the copy has failed, and no shard says why",
            )),
        }
    }
}
