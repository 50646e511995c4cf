//! What definitions a session has changed, so that a statement it prepares afterwards is not taken for
//! one that servers have read before.
//!
//! Servers know statements by a hash of their text. A text means something else once a table of its
//! names has been made, changed, dropped or hidden, and a server keeps what it meant: whoever prepares
//! it then must get a statement of a new name. What others can see counts in the database; what only
//! this session sees, because it is temporary, counts here.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::plan::follow::Sight;
use crate::session::Session;
use crate::session::effect::Effect;

/// The changes of one session.
#[derive(Debug, Default)]
pub struct Definitions {
    /// How often names have changed for this session alone; 0 if they mean the same as for all.
    private: u64,
    /// The transaction at hand has changed a definition for all, if it commits.
    is_open: bool,
    /// What the transaction at hand sees.
    view: View,
}

/// The catalogue that a session plans with.
#[derive(Clone, Debug, Default)]
pub enum View {
    /// Everybody's.
    #[default]
    Shared,
    /// Its transaction's.
    Own(Arc<Sight>),
    /// Its transaction's, which must be read again: a part of the transaction is undone.
    Unknown,
}

impl Definitions {
    /// Tells apart what texts mean for the client of this process id; 0 if they mean the same for all.
    pub fn private(&self, client: i32) -> u64 {
        match self.private {
            0 => 0,
            count => xxh3_64_with_seed(&client.to_be_bytes(), count),
        }
    }

    /// Temporary tables, or whatever else stays on the session's connection, may have come or gone.
    pub fn note_private(&mut self) {
        self.private += 1;
    }

    /// The session has changed a definition that others will see.
    pub fn note_shared(&mut self) {
        self.is_open = true;
    }

    /// The transaction sees this catalogue from now on.
    pub fn note_sight(&mut self, sight: Arc<Sight>) {
        self.view = View::Own(sight);
    }

    /// The catalogue to plan with.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Part of the transaction is undone. Returns whether that changes what others see.
    pub fn roll_back_part(&mut self) -> bool {
        if matches!(self.view, View::Own(_)) {
            self.view = View::Unknown;
        }
        self.private += u64::from(self.private > 0);
        self.is_open
    }

    /// The transaction has ended: what is temporary in it is gone. Returns whether what others see has
    /// changed, now or back to what it was.
    pub fn end(&mut self) -> bool {
        self.view = View::Shared;
        self.private += u64::from(self.private > 0);
        std::mem::take(&mut self.is_open)
    }

    /// Whether the transaction at hand has changed what others see once it is committed.
    pub fn has_changed(&self) -> bool {
        self.is_open
    }

    /// Everything temporary is gone, and the server has forgotten all statements.
    pub fn discard(&mut self) {
        self.private = 0;
    }
}

impl Session {
    /// A definition has changed.
    pub(super) fn note_schema(&mut self) {
        self.database.topology.drop_blocks();
        if self.database.needs_catalog() {
            self.memory.schema_changed = true;
        } else {
            self.database.topology.refresh_soon();
        }
    }

    /// Whether the catalogue must be read before the client goes on. Not while its transaction is open:
    /// that would show nothing of it, and might wait for its locks.
    pub(super) fn is_schema_due(&self) -> bool {
        self.memory.schema_changed && !self.transaction.is_on_shard() && !self.batch.is_sent()
    }

    /// Reads the catalogue again after a definition has changed.
    pub(super) async fn refresh_schema(&mut self) {
        if !self.is_schema_due() {
            return;
        }
        self.memory.schema_changed = false;
        if let Err(error) = self.database.topology.refresh().await {
            tracing::warn!(%error, "the catalogue could not be read after a definition changed");
        }
        self.learn_oids();
    }

    /// The epoch of the catalogue that the session plans with.
    pub(super) fn epoch(&self) -> u64 {
        match self.memory.definitions.view() {
            View::Own(sight) => sight.catalog.epoch,
            View::Shared | View::Unknown => self.database.topology.epoch(),
        }
    }

    /// What a completed statement has done to definitions, as far as texts mean something else now.
    pub(super) fn note_definitions(&mut self, effect: &Effect) {
        let is_shared = match effect {
            Effect::Pin | Effect::DiscardTemporary => {
                self.memory.definitions.note_private();
                false
            }
            Effect::Schema => {
                self.memory.definitions.note_shared();
                true
            }
            Effect::RollbackTo(_) => self.memory.definitions.roll_back_part(),
            // The transaction may go on at once, with AND CHAIN or in the same message.
            Effect::End => {
                self.end_sequences(false);
                self.memory.definitions.end()
            }
            Effect::DiscardAll => {
                self.memory.definitions.discard();
                false
            }
            _ => false,
        };
        if is_shared {
            self.database.note_change();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_changes_is_like_any_other() {
        let mut definitions = Definitions::default();
        assert!(!definitions.end() && !definitions.roll_back_part());
        assert_eq!(definitions.private(7), 0);
    }

    #[test]
    fn every_private_change_and_its_end_tell_apart() {
        let mut definitions = Definitions::default();
        let mut seen = vec![definitions.private(7)];
        for step in [
            Definitions::note_private,
            Definitions::note_private,
            |one: &mut Definitions| assert!(!one.roll_back_part()),
            |one: &mut Definitions| assert!(!one.end()),
        ] {
            step(&mut definitions);
            seen.push(definitions.private(7));
            seen.push(definitions.private(8));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        definitions.discard();
        assert_eq!(definitions.private(7), 0);
    }

    #[test]
    fn a_shared_change_counts_again_when_it_ends() {
        let mut definitions = Definitions::default();
        definitions.note_shared();
        assert!(definitions.roll_back_part());
        assert!(definitions.end());
        assert!(!definitions.end());
    }
}
