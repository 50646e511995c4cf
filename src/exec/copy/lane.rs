//! One shard's part in a COPY FROM STDIN.

use std::borrow::BorrowMut;
use std::io;
use std::task::{Context, Poll};

use super::context;
use crate::backend::connection::LARGEST_HELD_FRAME_BYTES;
use crate::error::Error;
use crate::exec::scatter::{Ended, Failure};
use crate::net::buffer::Buffer;
use crate::net::duplex::Duplex;
use crate::plan::copy::Lines;
use crate::pool::Lease;
use crate::wire::backend::Status;
use crate::wire::buffer::message;
use crate::wire::frame;

/// Bytes of notices that may wait for the client.
const MOST_NOTICE_BYTES: usize = 256 * 1024;

/// One shard's part.
#[derive(Debug)]
pub(super) struct Lane<C> {
    pub connection: C,
    pub shard: String,
    /// Its CopyInResponse, as a frame.
    pub response: Option<Vec<u8>>,
    /// Its ErrorResponse, as a frame.
    pub error: Option<Vec<u8>>,
    /// The number in its command tag.
    pub affected: u64,
    /// It has been told that the data ends, or that there is none.
    pub is_ended: bool,
    /// What it says of its transaction, once it is done.
    pub status: Option<Status>,
}

impl<C: BorrowMut<Lease>> Lane<C> {
    pub fn socket(&mut self) -> &mut Duplex {
        &mut self.connection.borrow_mut().socket
    }

    /// Sends data.
    pub fn send(&mut self, data: &[u8]) {
        if self.is_ended || self.error.is_some() || data.is_empty() {
            return;
        }
        let out = self.socket().output.tail();
        message(out, b'd', |body| body.extend_from_slice(data));
    }

    /// Ends the data: with CopyDone, or with CopyFail and its reason.
    pub fn finish(&mut self, failure: Option<&[u8]>) {
        if std::mem::replace(&mut self.is_ended, true) || self.error.is_some() {
            return;
        }
        let out = self.socket().output.tail();
        match failure {
            None => message(out, b'c', |_| {}),
            Some(reason) => message(out, b'f', |body| {
                body.extend_from_slice(reason);
                body.push(0);
            }),
        }
    }

    /// Writes what is queued, and takes what the server says; notices go to `out`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Buffer,
        (table, lines): (&str, Option<&Lines>),
    ) -> Result<(), Failure> {
        if self.status.is_some() {
            return Ok(());
        }
        let lost = |lane: &Lane<C>, cause| Failure::Lost(lane.shard.clone(), cause);
        if !self.socket().output.is_empty()
            && let Poll::Ready(Err(cause)) = self.socket().poll_flush(cx)
        {
            // It may have said why before it closed.
            let _ = self.take(out, (table, lines));
            return Err(lost(self, cause));
        }
        while self.status.is_none() && out.len() < MOST_NOTICE_BYTES {
            match self.socket().poll_fill(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => self.take(out, (table, lines))?,
                Poll::Ready(Ok(_)) => return Err(lost(self, io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Err(cause)) => return Err(lost(self, cause)),
            }
        }
        Ok(())
    }

    /// Takes the whole frames that have come.
    fn take(
        &mut self,
        out: &mut Buffer,
        (table, lines): (&str, Option<&Lines>),
    ) -> Result<(), Failure> {
        loop {
            let input = &mut self.connection.borrow_mut().socket.input;
            let header = frame::header(input.bytes()).map_err(Failure::Own)?;
            let Some(header) = header else { return Ok(()) };
            let Some(frame) = input.bytes().get(..header.frame_bytes) else {
                if header.frame_bytes > LARGEST_HELD_FRAME_BYTES {
                    let error = Error::protocol("a server's message is too long");
                    return Err(Failure::Own(error));
                }
                return Ok(());
            };
            match header.tag {
                b'G' => self.response = Some(frame.to_vec()),
                b'E' => self.error = Some(frame.to_vec()),
                b'C' => self.affected = count(frame::body(frame)),
                b'Z' => {
                    let status = frame::body(frame).first().copied();
                    self.status = status.and_then(Status::from_byte);
                }
                b'N' => {
                    let line = context::line(frame, table);
                    let line = line
                        .zip(lines)
                        .and_then(|(line, lines)| lines.of_client(line));
                    match line {
                        Some(_) => out.push(&context::moved(frame, table, line, &self.shard)),
                        None => out.push(frame),
                    }
                }
                b'S' | b'A' => {}
                other => {
                    let message = format!("unexpected message '{}' of a server", char::from(other));
                    return Err(Failure::Own(Error::protocol(message)));
                }
            }
            input.consume(header.frame_bytes);
        }
    }

    pub fn end(mut self) -> Ended<C> {
        let socket = self.socket();
        let is_quiet = socket.input.is_empty() && socket.output.is_empty();
        Ended {
            bytes: 0,
            took: std::time::Duration::ZERO,
            status: self.status.filter(|_| is_quiet),
            is_bound: true,
            affected: self.affected,
            tag: String::new(),
            is_suspended: false,
            description: None,
            connection: self.connection,
        }
    }
}

/// The number in `COPY 17`.
fn count(body: &[u8]) -> u64 {
    let digits = body.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| {
        u64::wrapping_add(sum.wrapping_mul(10), u64::from(digit - b'0'))
    })
}
