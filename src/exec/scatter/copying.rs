//! Runs one COPY TO STDOUT on several servers at once and makes one stream of their data.
//!
//! Data passes once every server has said what it looks like, and they agree. A server's first message has the
//! header, if there is one, and its last the trailer of the binary format: the client gets one of each. As in
//! [`Scatter`](super::Scatter) nothing is kept, and an error of one ends the others.

use std::borrow::BorrowMut;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use super::branch::{self, Branch, Ended};
use super::{Failure, Reached, affected, flush, with_context};
use crate::backend::connection::LARGEST_HELD_FRAME_BYTES;
use crate::error::Error;
use crate::net::buffer::Buffer;
use crate::pool::Lease;
use crate::wire::backend::Status;
use crate::wire::buffer::message;
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::frontend;

/// What stands before the tuples of binary data: the signature, no flags, no extension.
const BINARY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What stands behind them.
const BINARY_TRAILER: &[u8] = b"\xff\xff";

/// What the data has beside rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frills {
    /// Nothing.
    None,
    /// A line of names first.
    Header,
    /// What binary data begins and ends with.
    Binary,
}

/// One COPY TO STDOUT on several servers.
#[derive(Debug)]
pub struct CopyOut<C> {
    branches: Vec<Branch<C>>,
    frills: Frills,
    /// Which of them have sent something.
    begun: Vec<bool>,
    /// The client has got data.
    has_begun: bool,
    /// Data may pass.
    is_released: bool,
    /// The branch whose message has passed in part, and the bytes of it that are yet to come.
    current: Option<(usize, usize)>,
    /// The first error, as the frame for the client.
    failure: Option<Vec<u8>>,
    high_water_bytes: usize,
}

impl<C: BorrowMut<Lease>> CopyOut<C> {
    /// Sends the statement on every connection. Stops reading while the client's queue holds
    /// `high_water_bytes`.
    pub fn start(
        connections: Vec<(String, C)>,
        text: &[u8],
        frills: Frills,
        high_water_bytes: usize,
    ) -> CopyOut<C> {
        let branch = |(shard, mut connection): (String, C)| {
            let lease = connection.borrow_mut();
            lease.unnamed = None;
            frontend::write_query(lease.socket.output.tail(), text);
            Branch {
                reached: Reached::Bound,
                ..Branch::new(connection, shard, true)
            }
        };
        let branches: Vec<Branch<C>> = connections.into_iter().map(branch).collect();
        CopyOut {
            begun: vec![false; branches.len()],
            branches,
            frills,
            has_begun: false,
            is_released: false,
            current: None,
            failure: None,
            high_water_bytes,
        }
    }

    /// Moves data to `out`; ready with the number of rows once every server is done, and the end of the data
    /// has been said.
    pub fn poll(&mut self, cx: &mut Context<'_>, out: &mut Buffer) -> Poll<Result<u64, Failure>> {
        loop {
            let before = (out.len(), self.is_released, self.current);
            for index in 0..self.branches.len() {
                self.poll_branch(index, cx, out)?;
            }
            // What one has done may let another go on.
            if before == (out.len(), self.is_released, self.current) {
                break;
            }
        }
        if self.current.is_none()
            && let Some(failure) = self.failure.take()
        {
            return Poll::Ready(Err(Failure::Shard(failure)));
        }
        if !self.branches.iter().all(Branch::is_done) {
            return Poll::Pending;
        }
        self.end_data(out);
        let rows = self.branches.iter().map(|branch| branch.affected);
        Poll::Ready(Ok(rows.sum()))
    }

    /// Whether the client has seen a message in part, so that nothing else can be said to it.
    pub fn is_mid_row(&self) -> bool {
        self.current.is_some()
    }

    /// Stops those that still work, after a failure.
    pub async fn stop(&mut self, patience: Duration) {
        branch::stop(&mut self.branches, patience).await;
    }

    /// Ends it; what was not answered is not known.
    pub fn end(self) -> Vec<Ended<C>> {
        self.branches.into_iter().map(Branch::end).collect()
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
            let is_ahead = !self.is_released && branch.description.is_some();
            flush(branch, cx)?;
            if branch.is_done() || waits || is_ahead || out.len() >= self.high_water_bytes {
                return Ok(());
            }
            match branch.socket().poll_fill(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(Ok(_)) => {
                    let cause = io::ErrorKind::UnexpectedEof.into();
                    return Err(Failure::Lost(branch.shard.clone(), cause));
                }
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
            let may_pass = self.is_released && self.failure.is_none();
            match header.tag {
                b'd' if !may_pass || out.len() >= self.high_water_bytes => return Ok(()),
                b'd' => {
                    if !self.pass_data(index, header.frame_bytes, out) {
                        return Ok(());
                    }
                }
                _ if bytes.len() >= header.frame_bytes => self.take(index, header, out)?,
                _ if header.frame_bytes > LARGEST_HELD_FRAME_BYTES => {
                    let error = Error::protocol("a server's message is too long");
                    return Err(Failure::Own(error));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Begins to pass a message of data; false if more of it must be there.
    fn pass_data(&mut self, index: usize, frame_bytes: usize, out: &mut Buffer) -> bool {
        let (Some(branch), Some(has_sent)) =
            (self.branches.get_mut(index), self.begun.get_mut(index))
        else {
            return false;
        };
        let head = BINARY_HEAD.len();
        let input = &mut branch.connection.borrow_mut().socket.input;
        let trailer = HEADER_BYTES + BINARY_TRAILER.len();
        let needed = frame_bytes.min(head + trailer);
        let Some(seen) = input.bytes().get(..needed) else {
            return false;
        };
        let is_first = !std::mem::replace(has_sent, true);
        let is_end = seen.ends_with(BINARY_TRAILER)
            && match is_first {
                true => frame_bytes == head + trailer,
                false => frame_bytes == trailer,
            };
        let is_binary = self.frills == Frills::Binary;
        let repeats = is_first && self.has_begun;
        if (is_binary && is_end) || (self.frills == Frills::Header && repeats) {
            branch.dropping = frame_bytes;
            return true;
        }
        self.has_begun = true;
        if is_binary && repeats {
            input.consume(HEADER_BYTES + head);
            let length = u32::try_from(frame_bytes - head - 1).unwrap_or(u32::MAX);
            out.push(b"d");
            out.push(&length.to_be_bytes());
            self.current = Some((index, frame_bytes - HEADER_BYTES - head));
        } else {
            self.current = Some((index, frame_bytes));
        }
        true
    }

    /// Takes one whole message that is no data.
    fn take(
        &mut self,
        index: usize,
        header: frame::Header,
        out: &mut Buffer,
    ) -> Result<(), Failure> {
        let Some(branch) = self.branches.get_mut(index) else {
            return Ok(());
        };
        let input = &mut branch.connection.borrow_mut().socket.input;
        let frame = input.bytes().get(..header.frame_bytes).unwrap_or(&[]);
        match header.tag {
            b'H' => {
                branch.description = Some(frame.to_vec());
                input.consume(header.frame_bytes);
                return self.release(out);
            }
            b'N' => out.push(frame),
            b'E' => {
                if self.failure.is_none() {
                    self.failure = Some(with_context(frame, &branch.shard));
                }
            }
            b'C' => branch.affected = affected(frame::body(frame)),
            b'Z' => {
                let status = frame::body(frame).first().copied();
                branch.status = status.and_then(Status::from_byte);
            }
            b'c' | b'S' | b'A' => {}
            other => {
                let message = format!("unexpected message '{}' of a server", char::from(other));
                return Err(Failure::Own(Error::protocol(message)));
            }
        }
        input.consume(header.frame_bytes);
        Ok(())
    }

    /// Compares what the servers say of their data once all have, and lets it pass.
    fn release(&mut self, out: &mut Buffer) -> Result<(), Failure> {
        let mut responses = self
            .branches
            .iter()
            .map(|branch| branch.description.as_ref());
        let Some(Some(first)) = responses.next() else {
            return Ok(());
        };
        for other in responses {
            match other {
                None => return Ok(()),
                Some(other) if other != first => {
                    return Err(Failure::Own(Error::refused(
                        "the columns differ between shards",
                        "The shards would send other data.",
                        "Make the same definition on every shard, or list the columns.",
                    )));
                }
                Some(_) => {}
            }
        }
        out.push(first);
        self.is_released = true;
        Ok(())
    }

    /// The end of the data, and its beginning if there was none.
    fn end_data(&mut self, out: &mut Buffer) {
        if !self.is_released {
            return;
        }
        if self.frills == Frills::Binary {
            let begun = self.has_begun;
            message(out.tail(), b'd', |body| {
                if !begun {
                    body.extend_from_slice(BINARY_HEAD);
                }
                body.extend_from_slice(BINARY_TRAILER);
            });
        }
        message(out.tail(), b'c', |_| {});
    }
}
