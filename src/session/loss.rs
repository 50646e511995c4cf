//! What becomes of a session whose server connection breaks.

use std::io;
use std::time::Instant;

use crate::backend::connection::lost;
use crate::error::Error;
use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::replies::Expect;
use crate::session::{Session, Stop};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{error_response, ready_for_query};
use crate::wire::frame;
use crate::wire::frontend::Parse;

/// What has become of the client's requests.
#[derive(Debug)]
pub(super) enum Lost {
    /// They will be handled again, on another server.
    Repeated,
    /// The client has been told of those that were sent.
    Told {
        /// What it was told.
        error: Error,
        /// Whether the batch at hand was among them.
        in_batch: bool,
    },
}

impl Session {
    /// The server connection broke: repeats the unit elsewhere if nothing of it can have taken effect
    /// and the client has seen nothing of it, else tells the client.
    ///
    /// # Errors
    /// What ends the session: a row that was passed on in part, state that was on the connection, or a
    /// server that was right to end it.
    pub(super) fn server_lost(&mut self, cause: &io::Error) -> Result<Lost, Stop> {
        let Some(mut held) = self.server.take() else {
            let in_batch = self.batch.clear();
            return Ok(Lost::Told {
                error: lost(cause),
                in_batch,
            });
        };
        self.registered.control.end();
        self.unit.given_up.extend(held.replies.clear());
        let units = self
            .unit
            .given_up
            .iter()
            .filter(|due| due.ends_unit())
            .count();
        let commits = self.unit.given_up.iter().any(commits);
        self.take_back_given_up();
        if held.last_words.is_none() {
            held.seat.node.mark_failed("a connection to it broke");
        }
        if held.rest > 0 || self.client.is_mid_copy() {
            // The client has seen a row in part; nothing can be said to it any more.
            return Err(Stop::Gone);
        }
        let error = self.lost_error(&held, cause, commits);
        if let Some(words) = &held.last_words
            && words.code() == SqlState::PROTOCOL_VIOLATION
        {
            // The client broke the protocol in a way that only the server could notice.
            let message = words.fields().message.clone();
            return Err(Stop::Session(Error::protocol(message)));
        }
        if held.is_pinned || ends_session(held.last_words.as_ref()) {
            // Whatever kept the session on this connection is gone with it.
            return Err(Stop::Session(error.into_fatal()));
        }
        let is_repeatable = self.transaction == Transaction::Idle || held.is_detached();
        if is_repeatable && let Some(log) = self.unit.repeat() {
            self.forget_parsed(&log);
            self.batch.clear();
            self.client.socket.input.push_front(&log);
            return Ok(Lost::Repeated);
        }
        if held.wrote()
            && let Some(wrote_at) = self.memory.wrote_at.get_mut(held.shard)
        {
            // Perhaps it was written, and then it must be read.
            *wrote_at = Some(Instant::now());
        }
        self.unit.has_failed = true;
        self.memory.drawn.fail();
        self.settings.roll_back();
        self.transaction.fail();
        self.others.drop_joined();
        self.statements.clear_portals();
        let in_batch = self.tell_lost(&error, units);
        Ok(Lost::Told { error, in_batch })
    }

    fn lost_error(&self, held: &Held, cause: &io::Error, commits: bool) -> Error {
        let words = held.last_words.as_ref();
        // A server that is shut down, or has crashed, may have committed first.
        let says_nothing = |words: &Error| {
            matches!(
                words.code(),
                SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN
            )
        };
        let error = match words.filter(|words| !(commits && says_nothing(words))) {
            Some(words) => Error::new(words.code(), words.fields().message.clone()),
            None if commits => Error::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "connection to the server was lost during COMMIT",
            )
            .hint("Check whether the transaction's changes are there before repeating it."),
            None => lost(cause),
        };
        error.detail(format!(
            "Server {} of shard {} closed the connection: {cause}.",
            held.seat.node.address,
            self.database.shard_name(held.shard)
        ))
    }

    /// Takes the names back that requests give to statements, which are about to be repeated.
    fn forget_parsed(&mut self, log: &[u8]) {
        let mut rest = log;
        while let Ok(Some(header)) = frame::header(rest)
            && let Some((whole, behind)) = rest.split_at_checked(header.frame_bytes)
        {
            if header.tag == b'P'
                && let Ok(parse) = Parse::read(frame::body(whole))
            {
                self.statements.remove(parse.name);
            }
            rest = behind;
        }
    }

    /// Tells the client of a lost server, once per unit that was under way; true if the batch at hand
    /// was among them.
    fn tell_lost(&mut self, error: &Error, units: usize) -> bool {
        self.database.metrics.error(error.code().as_str());
        let status = self.transaction.status();
        let in_batch = self.batch.clear();
        let out = self.client.socket.output.tail();
        for _ in 0..units {
            error_response(out, error);
            if !self.unit.is_script {
                ready_for_query(out, status);
            }
        }
        if in_batch {
            error_response(out, error);
            self.batch.skip();
        }
        if units > 0 {
            self.unit.end();
        }
        in_batch
    }

    /// Answers the message that was being handled when the server was lost and had not been sent yet.
    pub(super) async fn answer_lost(
        &mut self,
        at_hand: Option<u8>,
        error: Error,
        in_batch: bool,
    ) -> Result<(), Stop> {
        match at_hand {
            None => Ok(()),
            Some(b'S') => {
                let out = self.client.socket.output.tail();
                if !in_batch {
                    error_response(out, &error);
                }
                ready_for_query(out, self.transaction.status());
                self.batch.clear();
                self.unit.end();
                Ok(())
            }
            Some(b'P' | b'B' | b'D' | b'E' | b'C' | b'H') if in_batch => Ok(()),
            Some(_) => self.refuse(&error).await,
        }
    }
}

/// Whether the server closed the connection for what its client did or left undone, so that the client
/// must hear of it now and not be told later that its transaction has failed.
fn ends_session(last_words: Option<&Error>) -> bool {
    last_words.is_some_and(|words| words.code() == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT)
}

/// Whether a request would have ended the transaction.
fn commits(expect: &Expect) -> bool {
    match expect {
        Expect::Query(Some(effects)) | Expect::Execute(Some(effects)) => {
            effects.contains(&Effect::End)
        }
        _ => false,
    }
}
