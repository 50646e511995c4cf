//! One client: handshake, login, protocol state, prepared statements, settings, reply.
//!
//! One task per client drives the client's socket and the server's. It alternates between two things:
//! *handling* frames that the client has sent, which decides where they go and queues bytes, and the
//! *exchange*, which moves bytes in all directions at once until something has to be decided
//! ([`exchange`]). Nothing else writes to either socket.
//!
//! What the session guarantees:
//! - Replies reach the client in the order of its requests; words of the proxy's own stand in that
//!   order too ([`replies`]).
//! - A server connection is held from the first statement of a transaction to its end and goes back
//!   only idle, with settings that are known; in every other case it is closed ([`route`]).
//! - A statement that is refused has not run. Inside a transaction that a shard has open the refusal
//!   makes the shard's transaction fail too, so that client and shard agree ([`refusal`]).
//! - What a statement does to the session takes effect when the server says that it has completed, and
//!   is taken back when its transaction is ([`settings`]).

pub mod activity;
mod announce;
mod arguments;
mod aside;
mod batch;
pub mod census;
mod change;
mod channels;
mod combine;
mod commit;
mod completion;
mod configure;
pub mod console;
pub mod control;
mod copy;
mod copy_out;
mod cursors;
mod custom;
pub mod database;
mod date_style;
pub mod deadlock;
mod define;
mod definitions;
mod describe;
mod drawn;
mod draws;
mod effect;
mod ending;
mod exchange;
mod execute;
mod executed;
mod explain;
mod extended;
mod failure;
mod feed;
mod fill;
pub mod gate;
pub mod greeting;
pub mod handshake;
mod heal;
mod held;
mod hint;
mod implicit;
mod insert;
mod kept;
mod lease;
mod line;
mod local;
pub mod login;
mod loss;
mod many;
mod measure;
mod merge;
pub mod metrics;
mod moment;
mod named;
mod nesting;
pub mod operations;
mod others;
mod outcome;
mod owed;
mod own_values;
mod path;
mod pending;
mod portals;
mod prepared;
mod pseudo;
mod quick;
mod refusal;
mod replicated;
mod replies;
mod requests;
mod reset;
mod revert;
mod rewrite;
pub mod roles;
mod route;
mod scatter;
mod script;
mod select;
mod serializable;
mod settings;
mod simple;
mod snapshots;
mod spread;
mod staged;
pub mod start;
mod statements;
mod stored;
mod study;
mod supply;
mod unit;
mod view;
mod whole;
mod wording;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::principal::Principal;
use crate::backend::report;
use crate::error::Error;
use crate::net::cores::Station;
use crate::net::duplex::Duplex;
use crate::net::home::Home;
use crate::plan::Plan;
use crate::session::batch::Batch;
use crate::session::channels::Mail;
use crate::session::control::{Registered, Signal, shutdown};
use crate::session::copy::CopyAtHand;
use crate::session::cursors::Cursors;
use crate::session::database::Database;
use crate::session::definitions::Definitions;
use crate::session::drawn::Drawn;
use crate::session::draws::Draws;
use crate::session::exchange::Event;
use crate::session::held::Held;
use crate::session::line::Line;
use crate::session::loss::Lost;
use crate::session::others::Others;
use crate::session::prepared::Statements;
use crate::session::replies::{Expect, Replies};
use crate::session::settings::SessionSettings;
use crate::session::unit::Unit;
use crate::sql::shape::Shape;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::error_response;
use crate::wire::{frame, frontend};

/// Bytes queued towards one side at which no more are read from the other.
const HIGH_WATER_BYTES: usize = 256 * 1024;

/// Answers that are due at which no more messages are handled.
const HIGH_WATER_REPLIES: usize = 16 * 1024;

/// A logged-in client.
pub struct Session {
    client: Client,
    database: Arc<Database>,
    registered: Registered,
    /// The connection that works for the client.
    server: Option<Held>,
    others: Others,
    statements: Statements,
    transaction: Transaction,
    settings: SessionSettings,
    batch: Batch,
    unit: Unit,
    memory: Memory,
    /// Scratch space: the shape of the text at hand.
    shape: Shape,
}

/// The client's side of the session.
struct Client {
    socket: Duplex,
    /// Bytes of the CopyData message at hand that have yet to come.
    copy_rest: usize,
    /// Whether that message goes to the server; else it is dropped.
    copy_passes: bool,
    /// Frames were left unhandled because the server or the client was behind.
    is_held_up: bool,
    /// The message at hand, while it is handled.
    at_hand: Option<u8>,
    /// Its role on the servers, if that is another than all clients share.
    principal: Option<Arc<Principal>>,
    /// What it listens to.
    mail: Mail,
    /// The COPY whose data it is about to send to several shards.
    copying: Option<Box<CopyAtHand>>,
    /// Where it is served.
    station: Option<Station>,
}

impl Client {
    /// Whether the server has got a CopyData message in part.
    fn is_mid_copy(&self) -> bool {
        self.copy_rest > 0 && self.copy_passes
    }
}

/// What a transaction has done to the numbers that are next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sequences {
    /// Nothing.
    #[default]
    Untouched,
    /// It has set some, at once and for all.
    Set,
    /// It has some start anew, which only its own connections see before it is committed.
    Restarted,
}

/// What the session remembers between transactions.
#[derive(Debug, Default)]
struct Memory {
    /// When it last wrote to each shard.
    wrote_at: Vec<Option<Instant>>,
    /// Where it has drawn from sequences, on each shard.
    draws: Vec<Draws>,
    /// Its cursors.
    cursors: Cursors,
    /// The transaction at hand may have drawn from a sequence.
    may_have_drawn: bool,
    /// What the proxy has drawn from sequences for it, of which no server connection knows.
    drawn: Drawn,
    /// What the transaction at hand has done to sequences.
    sequences: Sequences,
    /// It has made temporary tables.
    temporary_tables: bool,
    /// What definitions it has changed.
    definitions: Definitions,
    /// The plan of the request at hand, if the fast lane has left it to the general way.
    studied: Option<Arc<Plan>>,
    /// The answers due of a connection that has been given back: none, but their memory.
    replies: Replies,
    /// A definition has changed; the catalogue must be read again before the client goes on.
    schema_changed: bool,
    /// Where the request at hand waits for a connection, if the fast lane had none.
    line: Option<Box<Line>>,
}

/// Why handling stopped.
#[derive(Debug)]
enum Stop {
    /// The statement fails, the session goes on.
    Statement(Error),
    /// The statement fails with a shard's own ErrorResponse.
    Words(Vec<u8>),
    /// The message is ignored: an error came before it in its batch.
    Skip,
    /// The session ends; the client is told why.
    Session(Error),
    /// The client has gone, or asked to.
    Gone,
    /// The server connection broke.
    Lost(io::Error),
    /// A statement means something else than when the server read it.
    Stale,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        if error.is_fatal() {
            Stop::Session(error)
        } else {
            Stop::Statement(error)
        }
    }
}

impl Session {
    /// Serves the client until it leaves, the session fails, or the proxy drains. If the client is to be
    /// served on another core, it gives back the session, which is at rest.
    pub async fn run(mut self: Box<Self>) -> Option<Box<Session>> {
        let end = match self.client.socket.settle(Home::here()) {
            Err(_) => Stop::Gone,
            Ok(()) => loop {
                if let Err(stop) = self.step().await
                    && let Err(end) = Box::pin(self.recover(stop)).await
                {
                    break end;
                }
                if self.is_leaving() {
                    return Some(self);
                }
            },
        };
        if let Stop::Session(error) | Stop::Statement(error) = end {
            Box::pin(self.farewell(&error)).await;
        }
        Box::pin(self.end()).await;
        None
    }

    /// Whether the client is to be served on another core, and may be: nothing is under way.
    fn is_leaving(&mut self) -> bool {
        let is_asked = self
            .client
            .station
            .as_mut()
            .is_some_and(Station::is_leaving);
        is_asked && self.is_at_rest()
    }

    /// Goes on after what ends a statement; fails with what ends the session.
    async fn recover(&mut self, stop: Stop) -> Result<(), Stop> {
        let at_hand = self.client.at_hand.take();
        match stop {
            Stop::Skip => Ok(()),
            Stop::Statement(error)
                if error.code() == SqlState::QUERY_CANCELED
                    && self.registered.control.told() == Signal::Terminate =>
            {
                Err(Stop::Session(shutdown()))
            }
            Stop::Statement(error) => match self.refuse(&error).await {
                Err(Stop::Lost(cause)) => match self.server_lost(&cause)? {
                    Lost::Repeated => Ok(()),
                    Lost::Told { .. } => self.refuse(&error).await,
                },
                other => other,
            },
            // Whoever is told to end has its shards cancelled behind that.
            Stop::Words(words) if self.is_ended_by(&words) => Err(Stop::Session(shutdown())),
            Stop::Words(words) => self.fail_with(words).await,
            Stop::Stale => match self.heal().await {
                Err(Stop::Lost(cause)) => match self.server_lost(&cause)? {
                    Lost::Repeated => Ok(()),
                    Lost::Told { error, in_batch } => self.answer_lost(None, error, in_batch).await,
                },
                other => other,
            },
            Stop::Lost(cause) => match self.server_lost(&cause)? {
                Lost::Repeated => Ok(()),
                Lost::Told { error, in_batch } => self.answer_lost(at_hand, error, in_batch).await,
            },
            other => Err(other),
        }
    }

    /// Whether an error is that of a server that was cancelled because the session has to end.
    fn is_ended_by(&self, words: &[u8]) -> bool {
        self.registered.control.told() == Signal::Terminate
            && report::read(frame::body(words)).code() == SqlState::QUERY_CANCELED
    }

    /// Handles what the client has sent, then moves bytes until there is something to decide.
    async fn step(&mut self) -> Result<(), Stop> {
        // What needs no waiting is done without a future for it: they are large, and an idle client's
        // memory is mostly the room for them if they are not boxed.
        let mut is_done = self.handle_now();
        if !is_done && self.memory.line.is_some() {
            Box::pin(self.wait_in_line()).await;
            is_done = self.handle_now();
        }
        if !is_done {
            let handled = Box::pin(self.handle_frames()).await;
            self.leave_line();
            handled?;
        }
        let event = match self.database.idle_client {
            None => std::future::poll_fn(|cx| self.poll_exchange(cx, true)).await?,
            Some(limit) => Box::pin(self.listen(limit)).await?,
        };
        match event {
            Event::Heard => Ok(()),
            Event::Ready => Box::pin(self.pass_ready()).await,
            Event::Answered if self.answered_now() => Ok(()),
            Event::Answered => match Box::pin(self.answered()).await {
                // The client has asked for nothing meanwhile: its next statement fails with this.
                Err(Stop::Statement(error)) => {
                    self.others.broken_by = Some(error);
                    Ok(())
                }
                answered => answered,
            },
            Event::Told(signal) => self.told(signal),
        }
    }

    /// Exchanges bytes; a client that stays silent outside a transaction for too long is closed.
    async fn listen(&mut self, limit: Duration) -> Result<Event, Stop> {
        if self.server.is_some() || self.transaction != Transaction::Idle {
            return self.exchange(true).await;
        }
        tokio::time::timeout(limit, self.exchange(true))
            .await
            .unwrap_or_else(|_| {
                let message = "terminating connection due to idle-session timeout";
                Err(Stop::Session(Error::fatal(
                    SqlState::IDLE_SESSION_TIMEOUT,
                    message,
                )))
            })
    }

    /// Handles what the client has sent as far as the fast lane takes it; true if nothing is left.
    fn handle_now(&mut self) -> bool {
        let mut input = std::mem::take(&mut self.client.socket.input);
        let mut sent = usize::MAX;
        while sent > 0 && !input.is_empty() {
            sent = self.quick(input.bytes());
            input.consume(sent);
        }
        let is_done = input.is_empty();
        self.client.socket.input = input;
        is_done
    }

    /// Handles every whole frame, unless the server is behind.
    async fn handle_frames(&mut self) -> Result<(), Stop> {
        // The frames are borrowed from the buffer while they are handled, so it is taken out of self.
        let mut input = std::mem::take(&mut self.client.socket.input);
        let result = loop {
            if self.is_congested() {
                self.client.is_held_up = !input.is_empty();
                break Ok(());
            }
            if self.client.copy_rest > 0 {
                let count = self.client.copy_rest.min(input.len());
                self.pass_copy_data(input.bytes().get(..count).unwrap_or(&[]));
                input.consume(count);
                self.client.copy_rest -= count;
                if self.client.copy_rest > 0 {
                    break Ok(());
                }
            }
            let header = match frame::header(input.bytes()) {
                Ok(Some(header)) => header,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Stop::Session(error)),
            };
            if let Err(error) = self.check(&header) {
                break Err(Stop::Session(error));
            }
            if header.tag == b'd' {
                self.client.copy_rest = header.frame_bytes;
                self.client.copy_passes = self.takes_copy_data();
                continue;
            }
            let Some(frame) = input.bytes().get(..header.frame_bytes) else {
                break Ok(());
            };
            self.client.at_hand = Some(header.tag);
            let handled = self.handle(header.tag, frame).await;
            input.consume(header.frame_bytes);
            if handled.is_err() {
                break handled;
            }
            self.client.at_hand = None;
            if let Some(at_hand) = self.client.copying.take() {
                self.client.socket.input = input;
                let copied = Box::pin(self.run_copy(*at_hand)).await;
                input = std::mem::take(&mut self.client.socket.input);
                if copied.is_err() {
                    break copied;
                }
            }
        };
        self.client.socket.input = input;
        result
    }

    /// Checks a frame by its header alone.
    fn check(&self, header: &frame::Header) -> Result<(), Error> {
        let Some(is_small) = frontend::is_small(header.tag) else {
            return Err(Error::protocol(format!(
                "invalid frontend message type {}",
                header.tag
            )));
        };
        let too_long = is_small && header.frame_bytes > frontend::SMALL_MESSAGE_BYTES;
        if too_long {
            return Err(Error::protocol("invalid message length"));
        }
        if header.tag != b'd' && header.frame_bytes as u64 > self.database.limits.max_message_bytes
        {
            return Err(
                Error::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, "message is too long")
                    .detail(format!(
                        "The message has {} bytes, limits.max_message allows {}.",
                        header.frame_bytes, self.database.limits.max_message_bytes
                    ))
                    .hint("Raise limits.max_message, or load bulk data with COPY."),
            );
        }
        Ok(())
    }

    async fn handle(&mut self, tag: u8, frame: &[u8]) -> Result<(), Stop> {
        if self.is_skipping() && !matches!(tag, b'S' | b'X' | b'c' | b'f') {
            return Ok(());
        }
        if !matches!(tag, b'S' | b'H' | b'c' | b'f') {
            self.settle().await?;
            self.tell_others().await?;
            self.refresh_schema().await;
            self.look_again().await?;
            if matches!(tag, b'Q' | b'P' | b'B' | b'F') {
                self.forget_rewrite().await?;
            }
            if matches!(tag, b'Q' | b'F') && self.batch.is_open() {
                // A batch without its Sync: if it has failed, they are part of what is ignored.
                self.finish_batch().await?;
                self.drain().await?;
            }
            if self.is_skipping() {
                return Ok(());
            }
            if let Some(held) = &mut self.server
                && held.replies.is_copying()
            {
                // It has no place among COPY data; the server says so, and ends the connection.
                held.lease.socket.output.push(frame);
                return Ok(());
            }
        }
        match tag {
            b'Q' => self.query(frame).await,
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.extended(tag, frame).await,
            b'c' | b'f' => {
                self.end_copy_data(frame);
                Ok(())
            }
            b'F' => self.function_call(frame).await,
            b'X' => {
                // What was asked before is still answered, but for a batch without its Sync.
                if !self.batch.is_sent() {
                    self.drain().await?;
                }
                let _ = self.client.socket.flush().await;
                Err(Stop::Gone)
            }
            _ => Err(Stop::Session(Error::protocol(format!(
                "invalid frontend message type {tag}"
            )))),
        }
    }

    /// Whether more is under way than server and client have kept up with.
    fn is_congested(&self) -> bool {
        let is_behind = |held: &Held| {
            held.lease.socket.output.len() >= HIGH_WATER_BYTES
                || held.replies.len() >= HIGH_WATER_REPLIES
        };
        self.server.as_ref().is_some_and(is_behind)
            || self.client.socket.output.len() >= HIGH_WATER_BYTES
    }

    /// Whether a server is there for COPY data; without one it is dropped, as PostgreSQL does.
    fn takes_copy_data(&self) -> bool {
        self.server
            .as_ref()
            .is_some_and(|held| held.replies.is_copying() || !held.replies.is_empty())
    }

    /// Passes part of a CopyData message on.
    fn pass_copy_data(&mut self, bytes: &[u8]) {
        if self.client.copy_passes
            && let Some(held) = &mut self.server
        {
            held.lease.socket.output.push(bytes);
        }
    }

    /// CopyDone or CopyFail.
    fn end_copy_data(&mut self, frame: &[u8]) {
        if self.takes_copy_data()
            && let Some(held) = &mut self.server
        {
            held.send(frame, Expect::CopyEnd);
        }
    }

    /// What others tell the session to do.
    fn told(&mut self, signal: Signal) -> Result<(), Stop> {
        match signal {
            Signal::None => Ok(()),
            Signal::Drain | Signal::Terminate => Err(Stop::Session(shutdown())),
        }
    }

    /// Tells the client why its session ends, behind the answers to what it asked before.
    async fn farewell(&mut self, error: &Error) {
        let limit = Duration::from_secs(5);
        if !self.batch.is_sent() {
            let _ = tokio::time::timeout(limit, self.drain()).await;
        }
        if self.server.as_ref().is_some_and(|held| held.rest > 0) {
            return;
        }
        self.database.metrics.error(error.code().as_str());
        error_response(self.client.socket.output.tail(), error);
        // The client may not be reading any more; then it is not told.
        let _ = tokio::time::timeout(limit, self.client.socket.flush()).await;
    }
}
