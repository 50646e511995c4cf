//! One shard's part in a scatter, and its end.

use std::borrow::BorrowMut;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::exec::scatter::Reached;
use crate::net::duplex::Duplex;
use crate::pool::Lease;
use crate::wire::backend::Status;
use crate::wire::frame;

/// One shard's part.
#[derive(Debug)]
pub(super) struct Branch<C> {
    pub(super) connection: C,
    pub(super) shard: String,
    /// Its RowDescription or NoData, as a frame.
    pub(super) description: Option<Vec<u8>>,
    pub(super) rows: u64,
    /// The number in its command tag.
    pub(super) affected: u64,
    /// Its command tag.
    pub(super) tag: String,
    /// It stopped at the row limit of its Execute.
    pub(super) is_suspended: bool,
    /// How far the server has come: once bound, what the lease believes of prepared statements is true.
    pub(super) reached: Reached,
    /// What it says of its transaction, once it is done.
    pub(super) status: Option<Status>,
    /// Bytes of a message that is dropped that are yet to come.
    pub(super) dropping: usize,
    /// Bytes of its rows that have passed or begun to.
    pub(super) bytes: u64,
    /// How long it takes.
    pub(super) clock: Clock,
}

/// When a part began, and how long it took to the end of its rows.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    took: Duration,
}

impl Clock {
    pub(super) fn note_end(&mut self) {
        self.took = self.began.elapsed();
    }
}

impl<C: BorrowMut<Lease>> Branch<C> {
    /// A part that has just been asked; whether that has it read a statement first.
    pub(super) fn new(connection: C, shard: String, parses: bool) -> Branch<C> {
        Branch {
            connection,
            shard,
            description: None,
            rows: 0,
            affected: 0,
            tag: String::new(),
            is_suspended: false,
            reached: match parses {
                true => Reached::Nothing,
                false => Reached::Parsed,
            },
            status: None,
            dropping: 0,
            bytes: 0,
            clock: Clock {
                began: Instant::now(),
                took: Duration::ZERO,
            },
        }
    }

    pub(super) fn socket(&mut self) -> &mut Duplex {
        &mut self.connection.borrow_mut().socket
    }

    pub(super) fn is_done(&self) -> bool {
        self.status.is_some()
    }

    pub(super) fn end(mut self) -> Ended<C> {
        let socket = self.socket();
        let is_quiet = socket.input.is_empty() && socket.output.is_empty();
        Ended {
            status: self.status.filter(|_| is_quiet),
            is_bound: self.reached == Reached::Bound,
            affected: self.affected,
            tag: self.tag,
            is_suspended: self.is_suspended,
            description: self.description,
            bytes: self.bytes,
            took: self.clock.took,
            connection: self.connection,
        }
    }

    /// Drops what the server still says, until it is ready.
    pub(super) fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let dropping = self.dropping;
            let input = &mut self.socket().input;
            let count = dropping.min(input.len());
            input.consume(count);
            self.dropping -= count;
            if self.dropping == 0 {
                match self.drop_message() {
                    Dropping::Begun => continue,
                    Dropping::Ended => return Poll::Ready(()),
                    Dropping::Waiting => {}
                }
            }
            match std::task::ready!(self.socket().poll_fill(cx)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Begins to drop the next message.
    fn drop_message(&mut self) -> Dropping {
        if self.is_done() {
            return Dropping::Ended;
        }
        let input = &mut self.connection.borrow_mut().socket.input;
        let Ok(header) = frame::header(input.bytes()) else {
            return Dropping::Ended;
        };
        let Some(header) = header else {
            return Dropping::Waiting;
        };
        let body = input.bytes().get(..header.frame_bytes).map(frame::body);
        match (header.tag, body) {
            (b'Z', None) => return Dropping::Waiting,
            (b'Z', Some(body)) => self.status = body.first().copied().and_then(Status::from_byte),
            (b'2', _) => self.reached = Reached::Bound,
            _ => {}
        }
        self.dropping = header.frame_bytes;
        Dropping::Begun
    }
}

/// Stops the shards that still work, after a failure, and waits for `patience` at most until they have.
pub(super) async fn stop<C: BorrowMut<Lease>>(branches: &mut [Branch<C>], patience: Duration) {
    let cancels = branches.iter().filter(|branch| !branch.is_done());
    let cancels = cancels.map(|branch| async {
        let lease = branch.connection.borrow();
        if let Err(error) = lease.pool().cancel(&lease.cancel_key).await {
            tracing::warn!(%error, shard = branch.shard, "cancel request failed");
        }
    });
    join_all(cancels).await;
    // Those that take longer are closed.
    let _ = tokio::time::timeout(patience, settle(branches)).await;
}

/// Drops what the shards still say, until all are ready.
pub(super) async fn settle<C: BorrowMut<Lease>>(branches: &mut [Branch<C>]) {
    std::future::poll_fn(|cx| {
        // Each is polled, whatever the others say.
        let polled = branches.iter_mut();
        let pending = polled.filter_map(|branch| branch.poll_settle(cx).is_pending().then_some(()));
        if pending.count() > 0 {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

/// How far the dropping of messages has come.
enum Dropping {
    /// A message is being dropped.
    Begun,
    /// The next one has not come yet.
    Waiting,
    /// There is none: the server is ready, or makes no sense.
    Ended,
}

/// What a shard has done in a scatter, without its connection.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// As in [`Ended`].
    pub status: Option<Status>,
    /// As in [`Ended`].
    pub is_bound: bool,
    /// The number in its command tag.
    pub rows: u64,
    /// Bytes of its rows that have passed.
    pub bytes: u64,
}

impl<C> Ended<C> {
    /// What it has done.
    pub fn account(&self) -> Account {
        Account {
            status: self.status,
            is_bound: self.is_bound,
            rows: self.affected,
            bytes: self.bytes,
        }
    }
}

/// A connection that has served a scatter.
#[derive(Debug)]
pub struct Ended<C> {
    /// The connection.
    pub connection: C,
    /// What the server says of its transaction; none if what state it is in is not known.
    pub status: Option<Status>,
    /// The server has accepted the Bind, so what the lease believes of prepared statements is true.
    pub is_bound: bool,
    /// The number in its command tag.
    pub affected: u64,
    /// Its command tag.
    pub tag: String,
    /// It stopped at the row limit of its Execute, and has more.
    pub is_suspended: bool,
    /// The last RowDescription or NoData it sent, as a frame.
    pub description: Option<Vec<u8>>,
    /// Bytes of its rows that have passed.
    pub bytes: u64,
    /// How long it took to the end of its rows.
    pub took: Duration,
}
