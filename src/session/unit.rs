//! The unit of work at hand: what the client has sent since it was last told that all is done.

use std::time::Instant;

use crate::net::buffer::Buffer;
use crate::session::heal::Stale;
use crate::session::measure::Share;
use crate::session::replies::Expect;
use crate::session::rewrite::Rewritten;

/// The most bytes of requests that are kept in case they must be sent to another server.
const LARGEST_LOG_BYTES: usize = 64 * 1024;

/// The unit of work at hand. Outside a transaction block it is PostgreSQL's implicit transaction.
#[derive(Debug, Default)]
pub struct Unit {
    /// The client's requests.
    log: Log,
    /// When it began.
    began: Option<Instant>,
    /// The error of a statement that had to be prepared anew, which is then repeated once.
    pub stale: Stale,
    /// A statement of it has failed.
    pub has_failed: bool,
    /// Requests that an error has just ended.
    pub given_up: Vec<Expect>,
    /// The statement of it that was rewritten last.
    pub rewritten: Option<Rewritten>,
    /// The statements of its message run one by one: only the last is followed by ReadyForQuery.
    pub is_script: bool,
    /// One of them has failed, and the client has been told.
    pub is_script_failed: bool,
    /// It has made settings outside a transaction block.
    pub has_settings: bool,
    /// Where rows go that the client is not to get at once.
    pub captured: Option<Buffer>,
    /// What shards have sent, while that is counted and the rows are dropped.
    pub measured: Option<Vec<Share>>,
    past: Past,
}

/// The units before.
#[derive(Debug, Default)]
struct Past {
    /// How many have ended.
    ended: u64,
    /// When the last of them began.
    before: Option<Instant>,
}

/// The client's requests of a unit.
#[derive(Debug, Default)]
struct Log {
    /// The last of them in any case, without gaps.
    requests: Vec<u8>,
    /// There were too many to keep.
    is_long: bool,
    /// Something happened that repeating would not undo.
    is_final: bool,
    /// They have been repeated.
    is_repeated: bool,
}

impl Unit {
    /// Takes note of a request; the first one begins the unit.
    pub fn note(&mut self, frame: &[u8]) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
        }
        if self.log.is_long || self.log.requests.len() + frame.len() > LARGEST_LOG_BYTES {
            self.log.is_final = true;
            self.log.is_long = true;
            self.log.requests.clear();
        } else {
            self.log.requests.extend_from_slice(frame);
        }
    }

    /// Whether nothing of it has happened.
    pub fn is_fresh(&self) -> bool {
        self.began.is_none()
            && !self.log.is_final
            && !self.has_failed
            && self.log.requests.is_empty()
            && self.given_up.is_empty()
            && self.rewritten.is_none()
            && !self.is_script
    }

    /// Begins it at a moment that the caller knows.
    pub fn begin(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// From now on the unit can't be repeated: it writes, or the client has seen part of its answer.
    pub fn make_final(&mut self) {
        self.log.is_final = true;
    }

    /// The requests, unless there were too many to keep.
    pub fn requests(&self) -> &[u8] {
        &self.log.requests
    }

    /// Takes the requests; what is repeated of them is noted again.
    pub fn take_requests(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.log.requests)
    }

    /// The requests to repeat after the loss of the server, if they can be repeated, once.
    pub fn repeat(&mut self) -> Option<Vec<u8>> {
        if self.log.is_final || self.log.is_repeated || self.log.requests.is_empty() {
            return None;
        }
        self.log.is_repeated = true;
        Some(std::mem::take(&mut self.log.requests))
    }

    /// Ends the unit; returns when it began.
    pub fn end(&mut self) -> Option<Instant> {
        self.log.requests.clear();
        self.log.is_final = false;
        self.log.is_repeated = false;
        self.is_script_failed |= self.is_script && self.has_failed;
        self.log.is_long = false;
        self.stale = Stale::None;
        self.has_failed = false;
        self.has_settings = false;
        self.rewritten = None;
        self.past.before = self.began.or(self.past.before);
        self.past.ended += u64::from(self.began.is_some());
        self.began.take()
    }

    /// How many units have ended.
    pub fn ended(&self) -> u64 {
        self.past.ended
    }

    /// When this unit began, or the one before it if the client has not asked for anything since.
    pub fn latest(&self) -> Option<Instant> {
        self.began.or(self.past.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_repeated_once() {
        let mut unit = Unit::default();
        unit.note(b"Q");
        assert_eq!(unit.repeat().as_deref(), Some(&b"Q"[..]));
        unit.note(b"Q");
        assert_eq!(unit.repeat(), None);
        unit.end();
        unit.note(b"R");
        assert_eq!(unit.repeat().as_deref(), Some(&b"R"[..]));
    }

    #[test]
    fn units_are_counted_when_they_end() {
        let mut unit = Unit::default();
        assert_eq!((unit.end(), unit.ended()), (None, 0));
        unit.note(b"Q");
        let began = unit.latest();
        assert!(began.is_some());
        assert_eq!(unit.end(), began);
        assert_eq!((unit.latest(), unit.ended()), (began, 1));
    }

    #[test]
    fn a_final_unit_is_not_repeated() {
        let mut unit = Unit::default();
        unit.note(b"Q");
        unit.make_final();
        unit.note(b"Q");
        assert_eq!(unit.repeat(), None);
        let mut unit = Unit::default();
        unit.note(&vec![0; LARGEST_LOG_BYTES + 1]);
        assert_eq!(unit.repeat(), None);
    }
}
