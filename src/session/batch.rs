//! The client's batch at hand: what it has sent of the extended protocol since its last Sync.

use std::sync::Arc;

use crate::net::buffer::Buffer;
use crate::session::executed::Execution;
use crate::session::owed::Owed;
use crate::session::prepared::Prepared;
use crate::session::scatter::ScatterPortal;
use crate::session::wording::Rewrite;

/// What the client has sent since its last Sync.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whether it is of the extended protocol.
    pub(super) extended: bool,
    /// Part of it was sent to the server that the session holds.
    pub(super) sent: bool,
    /// It failed: the rest, up to its Sync, is ignored.
    skipping: bool,
    /// A transaction block has begun or ended within it; only ReadyForQuery tells what is now.
    pub(super) has_turned: bool,
    /// The proxy's own settings have changed in it, as part of its implicit transaction.
    pub(super) has_own_settings: bool,
    /// Parses that wait for a server.
    pub(super) pending: Vec<(Box<[u8]>, Arc<Prepared>)>,
    /// Rows of the proxy's own that the EXPLAIN at hand begins with.
    pub(super) explanation: Box<[u8]>,
    /// A portal over several shards.
    pub(super) scatter: Option<ScatterPortal>,
    /// What the Query at hand runs as if it were of the extended protocol.
    pub(super) execution: Option<Execution>,
    /// What the client has yet to hear of the portal that runs over several shards.
    pub(super) owed: Option<Owed>,
    /// What was changed in the text of the statement at hand.
    pub(super) rewrite: Option<Rewrite>,
    /// The prepared statement that the Query at hand runs, and nothing else.
    pub(super) executes: Option<String>,
}

impl Batch {
    /// Where answers go: to the client, unless the proxy itself is to get the one at hand.
    pub(super) fn output<'a>(&'a mut self, client: &'a mut Buffer) -> &'a mut Buffer {
        let execution = self.execution.as_mut();
        let answer = execution.and_then(|execution| execution.answer.as_mut());
        answer.unwrap_or(client)
    }

    /// A message of the simple protocol is at hand.
    pub fn start_simple(&mut self) {
        self.extended = false;
    }

    /// A simple Query was sent behind it and ends it, as Sync would.
    pub fn end_by_query(&mut self) {
        self.note_left();
    }

    /// Whether a message of the extended protocol is at hand.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether the client still owes a Sync.
    pub fn is_open(&self) -> bool {
        self.sent || self.skipping || !self.pending.is_empty() || self.scatter.is_some()
    }

    /// Whether part of it was sent to a server.
    pub fn is_sent(&self) -> bool {
        self.sent
    }

    /// Notes that part of it was sent.
    pub fn note_sent(&mut self) {
        self.sent = true;
    }

    /// Notes that the server has been left.
    pub fn note_left(&mut self) {
        (self.sent, self.has_turned) = (false, false);
    }

    /// Ignores the rest.
    pub fn skip(&mut self) {
        self.skipping = true;
        (self.scatter, self.owed) = (None, None);
    }

    /// Whether the rest is ignored.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Drops the Parses that wait; returns how many.
    pub fn drop_pending(&mut self) -> usize {
        self.pending.drain(..).count()
    }

    /// Ends it; returns whether part of it was sent.
    pub fn clear(&mut self) -> bool {
        let sent = self.sent;
        self.note_left();
        (self.skipping, self.has_own_settings) = (false, false);
        self.pending.clear();
        (self.scatter, self.owed) = (None, None);
        sent
    }
}
