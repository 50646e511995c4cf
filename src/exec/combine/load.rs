//! Fills one intermediate relation of a hub.

use std::borrow::BorrowMut;
use std::io;
use std::task::{Context, Poll, ready};

use crate::backend::connection::LARGEST_HELD_FRAME_BYTES;
use crate::error::Error;
use crate::exec::combine::request;
use crate::exec::scatter::{Failure, Scatter};
use crate::pool::Lease;
use crate::sqlstate::SqlState;
use crate::wire::frame;

/// Rows on their way from shards into a hub.
#[derive(Debug)]
pub struct Load<'a, C> {
    scatter: &'a mut Scatter<C>,
    hub: &'a mut Lease,
    /// The rows, once all have been sent.
    rows: Option<u64>,
    /// Bytes that may pass.
    most_bytes: u64,
    high_water_bytes: usize,
}

/// Why a load failed.
#[derive(Debug)]
pub enum Trouble {
    /// On the way from the shards.
    Shards(Failure),
    /// The hub's error, as a frame.
    Hub(Vec<u8>),
    /// The connection to the hub broke.
    HubLost(io::Error),
}

impl<'a, C: BorrowMut<Lease>> Load<'a, C> {
    /// Copies what `scatter` brings into `table` of the hub, which owes no answer. `bounds`: bytes that
    /// may pass, and bytes in the hub's queue above which no shard is read.
    pub fn start(
        scatter: &'a mut Scatter<C>,
        hub: &'a mut Lease,
        table: &str,
        bounds: (u64, usize),
    ) -> Load<'a, C> {
        hub.unnamed = None;
        request::write_copy(hub.socket.output.tail(), table);
        let (most_bytes, high_water_bytes) = bounds;
        Load {
            scatter,
            hub,
            rows: None,
            most_bytes,
            high_water_bytes,
        }
    }

    /// Moves rows; ready with their number once the hub has all of them.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, Trouble>> {
        loop {
            if self.rows.is_none() {
                let out = &mut self.hub.socket.output;
                if let Poll::Ready(done) = self.scatter.poll(cx, out) {
                    let rows = done.map_err(Trouble::Shards)?;
                    request::write_copy_end(out.tail());
                    self.rows = Some(rows);
                }
                if self.scatter.bytes() > self.most_bytes {
                    let failure = Failure::Own(too_much(self.most_bytes));
                    return Poll::Ready(Err(Trouble::Shards(failure)));
                }
            }
            let before = self.hub.socket.output.len();
            let is_flushed = match self.hub.socket.poll_flush(cx) {
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(Trouble::HubLost(cause))),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            if let Poll::Ready(done) = self.poll_hub(cx, is_flushed) {
                return Poll::Ready(done.map(|()| self.rows.unwrap_or_default()));
            }
            // Room again for rows that had to wait for it.
            let has_room = before >= self.high_water_bytes
                && self.hub.socket.output.len() < self.high_water_bytes;
            if !has_room {
                return Poll::Pending;
            }
        }
    }

    /// Reads what the hub says; ready once it is ready for the next statement.
    fn poll_hub(&mut self, cx: &mut Context<'_>, is_flushed: bool) -> Poll<Result<(), Trouble>> {
        let socket = &mut self.hub.socket;
        loop {
            while let Some(header) = frame::header(socket.input.bytes()).map_err(broken)? {
                let Some(frame) = socket.input.bytes().get(..header.frame_bytes) else {
                    if header.frame_bytes > LARGEST_HELD_FRAME_BYTES {
                        let error = Error::protocol("a server's message is too long");
                        return Poll::Ready(Err(broken(error)));
                    }
                    break;
                };
                let is_ready = header.tag == b'Z' && self.rows.is_some() && is_flushed;
                if header.tag == b'E' {
                    return Poll::Ready(Err(Trouble::Hub(frame.to_vec())));
                }
                socket.input.consume(header.frame_bytes);
                if is_ready {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(socket.poll_fill(cx)) {
                Ok(0) => {
                    let cause = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(Trouble::HubLost(cause)));
                }
                Ok(_) => {}
                Err(cause) => return Poll::Ready(Err(Trouble::HubLost(cause))),
            }
        }
    }
}

fn broken(error: Error) -> Trouble {
    Trouble::HubLost(io::Error::other(error))
}

/// More rows of shards than a statement may have copied (`53400`).
fn too_much(most_bytes: u64) -> Error {
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        "the statement needs too many rows of the shards at one place",
    )
    .detail(format!(
        "More than {most_bytes} bytes would have to be copied to the server that finishes it."
    ))
    .hint("Restrict the tables by conditions on their own columns, or raise limits.intermediate.")
}
