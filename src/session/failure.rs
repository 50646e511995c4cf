//! What a server's error does to the session, and in which words the client gets it.

use crate::backend::{connection, report};
use crate::exec::scatter::Failure;
use crate::session::heal::changed;
use crate::session::prepared::{SERVER_NAME_BYTES, SERVER_NAME_PREFIX};
use crate::session::replies::Expect;
use crate::session::scatter::Answered;
use crate::session::{Session, Stop};
use crate::sqlstate::SqlState;
use crate::wire::backend::error_response;
use crate::wire::buffer::message;
use crate::wire::frame::{self, HEADER_BYTES};

impl Session {
    /// Tells the client why a scatter failed.
    pub(super) fn scatter_failed(&mut self, failure: Failure) -> Result<Answered, Stop> {
        match failure {
            Failure::Own(error) => Err(Stop::Statement(error)),
            Failure::Changed => Err(changed()),
            Failure::Lost(shard, cause) => {
                let error = connection::lost(&cause);
                Err(Stop::Statement(
                    error.hint(format!("Shard {shard} was lost.")),
                ))
            }
            Failure::Shard(frame) => {
                let code = report::read(frame::body(&frame)).code();
                Err(Stop::Words(self.verdict(code).unwrap_or(frame)))
            }
        }
    }

    /// A server's error: takes back what will not happen now. Returns what the client gets in its
    /// place: the proxy's own refusal, or nothing yet if the server is about to close the connection.
    pub(super) fn failed(
        &mut self,
        frame: &[u8],
        in_place: Option<Box<[u8]>>,
    ) -> Option<Box<[u8]>> {
        let error = report::read(frame::body(frame));
        let moved = self.at_clients_place(frame);
        let frame = moved.as_deref().unwrap_or(frame);
        self.take_back_given_up();
        if report::is_fatal(frame::body(frame)) {
            if let Some(held) = &mut self.server {
                held.last_words = Some(error);
            }
            return Some(Box::default());
        }
        self.unit.has_failed = true;
        self.memory.drawn.fail();
        if self.server.as_ref().is_some_and(|held| held.is_detached()) {
            self.transaction.fail();
        }
        if in_place.is_none()
            && let Some(words) = self.verdict(error.code())
        {
            return Some(words.into());
        }
        if in_place.is_none() {
            self.database.metrics.error(error.code().as_str());
            return self.with_clients_names(frame).or(moved);
        }
        in_place
    }

    /// What the client gets in place of a cancellation that was not its own.
    pub(super) fn verdict(&self, code: SqlState) -> Option<Vec<u8>> {
        let is_cancelled = code == SqlState::QUERY_CANCELED;
        let verdict = is_cancelled.then(|| self.registered.control.take_verdict())??;
        self.database.metrics.error(verdict.code().as_str());
        let mut words = Vec::new();
        error_response(&mut words, &verdict);
        Some(words)
    }

    /// An error about a statement that was rewritten, with its place in the client's text.
    fn at_clients_place(&self, frame: &[u8]) -> Option<Box<[u8]>> {
        let rewritten = self.unit.rewritten.as_ref()?;
        let is_meant = match (rewritten.statement, self.unit.given_up.first()) {
            (None, None) => true,
            (Some(rewritten), Some(Expect::Parse { id, .. })) => rewritten == *id,
            _ => false,
        };
        let original = |position| rewritten.shifts.original(position);
        let body = is_meant.then(|| report::moved(frame::body(frame), original))??;
        let mut moved = Vec::with_capacity(frame.len());
        message(&mut moved, b'E', |out| out.extend_from_slice(&body));
        Some(moved.into())
    }

    /// An error that speaks of a statement by the name that servers know, with the client's name for
    /// it.
    fn with_clients_names(&self, frame: &[u8]) -> Option<Box<[u8]>> {
        if let Some(rewrite) = &self.batch.rewrite {
            return Some(rewrite.restore(frame).into());
        }
        let at = memchr::memmem::find(frame, SERVER_NAME_PREFIX)?;
        let known = frame.get(at..at + SERVER_NAME_BYTES)?;
        let name = self.statements.name_of(known)?;
        let body = frame::body(frame);
        let at = at - HEADER_BYTES;
        let mut renamed = Vec::with_capacity(frame.len());
        message(&mut renamed, b'E', |out| {
            out.extend_from_slice(body.get(..at).unwrap_or(&[]));
            out.extend_from_slice(name);
            out.extend_from_slice(body.get(at + SERVER_NAME_BYTES..).unwrap_or(&[]));
        });
        Some(renamed.into())
    }

    /// Undoes what was noted of requests that the server has not carried out.
    pub(super) fn take_back_given_up(&mut self) {
        for expect in std::mem::take(&mut self.unit.given_up) {
            if let Expect::Parse { id, seen } = expect {
                if let Some(held) = &mut self.server {
                    held.lease.unlearn(id);
                    if held.lease.unnamed == Some(id) {
                        held.lease.unnamed = None;
                    }
                }
                if let Some(name) = seen {
                    self.statements.reject(&name, id);
                }
            } else if let Expect::Prepared(id) = expect {
                if let Some(held) = &mut self.server {
                    held.lease.unlearn(id);
                }
            } else if let Expect::Known { id, name } = expect {
                self.statements.reject(&name, id);
            } else if let Expect::Close { seen: false } = expect
                && let Some(held) = &mut self.server
            {
                // The server keeps a statement that is not known here any more.
                held.is_lost = true;
            }
        }
    }
}
