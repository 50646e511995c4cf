//! A stream with the bytes that came in and the bytes that are to go out.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::net::buffer::Buffer;
use crate::net::home::Home;
use crate::net::stream::Stream;
use crate::wire::oids::{Oids, Walk};

/// A stream and its two queues. One read and one write move as much as there is.
#[derive(Debug)]
pub struct Duplex {
    stream: Stream,
    home: Home,
    /// Bytes read and not yet consumed.
    pub input: Buffer,
    /// Bytes to write.
    pub output: Buffer,
    /// Bytes that came in so far.
    pub received: u64,
    /// Bytes that went out so far.
    pub sent: u64,
    /// Exchanges OIDs on their way, if the server's differ from those that clients are told.
    walk: Option<Box<Walk>>,
}

impl Duplex {
    /// A stream that was opened on the caller's runtime, with empty queues.
    pub fn new(stream: Stream) -> Duplex {
        Duplex {
            stream,
            home: Home::here(),
            input: Buffer::new(),
            output: Buffer::new(),
            received: 0,
            sent: 0,
            walk: None,
        }
    }

    /// The stream itself.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Which runtime watches it.
    pub fn home(&self) -> Home {
        self.home
    }

    /// Has the caller's runtime, which is `here`, watch it. It must not be in use.
    ///
    /// # Errors
    /// What the system says, mostly that there are no more file descriptors; it can't be used then.
    pub fn settle(&mut self, here: Home) -> io::Result<()> {
        if self.home != here {
            self.stream.register_anew()?;
            self.home = here;
        }
        Ok(())
    }

    /// Has OIDs exchanged from now on, or none. Must come between two frames in both directions, with empty
    /// queues.
    pub fn exchange_oids(&mut self, oids: Option<Arc<Oids>>) {
        match oids {
            None => self.walk = None,
            Some(oids) if self.walk.as_ref().is_some_and(|walk| walk.is_by(&oids)) => {}
            Some(oids) => self.walk = Some(Box::new(Walk::new(oids, self.received, self.sent))),
        }
    }

    /// Reads once; ready with 0 at the end of the stream. Takes no memory while there is nothing.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.input.has_room() {
            match self.stream.poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
        let read = pin!(self.stream.read_buf(self.input.room())).poll(cx);
        if let Poll::Ready(Ok(count)) = read {
            self.input.after_read(count);
            self.received += count as u64;
            if let Some(walk) = &mut self.walk {
                walk.hear(self.received, self.input.bytes_mut());
            }
        }
        read
    }

    /// Writes until nothing is left to write.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(walk) = &mut self.walk {
            let queued = self.sent + self.output.len() as u64;
            walk.say(queued, self.output.bytes_mut());
        }
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.output.bytes()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.output.consume(count);
                    self.sent += count as u64;
                }
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes everything.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads once, or fails with `UnexpectedEof`.
    pub async fn fill(&mut self) -> io::Result<()> {
        match std::future::poll_fn(|cx| self.poll_fill(cx)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Gives the memory of empty queues back, but for a little.
    pub fn release(&mut self) {
        self.input.release();
        self.output.release();
    }

    /// Gives the memory of empty queues back that have grown large.
    pub fn trim(&mut self) {
        self.input.trim();
        self.output.trim();
    }
}
