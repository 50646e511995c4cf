//! What the client is told before the first row, and what that waits for.

use crate::exec::scatter::Reached;
use crate::net::buffer::Buffer;

/// What comes before the first row.
#[derive(Debug, Default)]
pub(super) struct Preface {
    /// Describes the columns as the client named them.
    pub(super) original: Option<Vec<u8>>,
    /// Rows of the proxy's own that come first.
    pub(super) head: Vec<u8>,
    /// The digest of the columns that the client knows already.
    pub(super) expected: Option<u64>,
    /// That the statement was read and bound, as frames.
    pub(super) acknowledgement: Vec<u8>,
    /// How far the shard had come whose error has ended it.
    pub(super) reached: Reached,
    /// Shards that have yet to change their rows, before which none may pass.
    pub(super) changing: usize,
    /// The branches that have.
    pub(super) changed: Vec<usize>,
    /// What waits for them.
    pub(super) waiting: Vec<u8>,
}

impl Preface {
    /// A shard has changed its rows; what has waited for the last one passes. Returns whether that was the last.
    pub(super) fn note_change(&mut self, branch: usize, out: &mut Buffer) -> bool {
        if self.changing > 0 && !self.changed.contains(&branch) {
            self.changed.push(branch);
            self.changing -= 1;
            if self.changing == 0 {
                out.push(&std::mem::take(&mut self.waiting));
            }
        }
        self.changing == 0
    }
}
