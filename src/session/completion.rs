//! What becomes of the session when a statement has completed, and when the server is ready again.

use std::sync::Arc;

use crate::session::Session;
use crate::session::drawn::Drawn;
use crate::session::draws::Draws;
use crate::session::effect::Effect;
use crate::txn::commit::Work;
use crate::txn::{Opening, Transaction};
use crate::wire::backend::Status;

impl Session {
    /// A statement has completed: does what it does to the session.
    pub(super) fn complete(&mut self, effect: Effect, tag: &[u8]) {
        self.note_for_others(&effect);
        self.nest(&effect);
        if effect == Effect::End {
            self.batch.has_turned = true;
            self.others.opening.chain();
            self.memory.cursors.end(!tag.starts_with(b"ROLLBACK"));
            self.statements.clear_portals();
            self.note_written(false);
        }
        self.note_definitions(&effect);
        match effect {
            Effect::End if tag.starts_with(b"ROLLBACK") => {
                self.settings.roll_back();
                if let Some(held) = &mut self.server {
                    held.is_lost |= held.is_reset;
                }
            }
            Effect::End => self.settings.commit(),
            Effect::Schema => self.note_schema(),
            Effect::Pin => self.pin(),
            Effect::Declare { name, hold } => {
                if let Some(held) = &self.server {
                    self.memory.cursors.declared(&name, hold, held.shard);
                }
                if hold {
                    self.pin();
                }
            }
            Effect::Close(name) => self.memory.cursors.close(name.as_deref()),
            Effect::Begin => {
                self.others.opening = Opening::unknown();
                self.batch.has_turned = true;
            }
            Effect::RollbackTo(_) if self.transaction == Transaction::Failed => {
                self.transaction = Transaction::Open;
                // As above.
                let _ = self.settings.complete(&effect);
            }
            Effect::DiscardAll | Effect::Deallocate(None) => {
                self.statements.clear_named();
                if let Some(held) = &mut self.server {
                    held.lease.forget_statements();
                }
                if effect == Effect::DiscardAll {
                    self.unpin();
                    self.memory.temporary_tables = false;
                    self.memory.cursors.close(None);
                    self.memory.draws.fill(Draws::Nowhere);
                    self.memory.drawn = Drawn::default();
                    // The proxy's own settings were checked when they were made.
                    let _ = self.settings.complete(&effect);
                    self.note_reset(true);
                }
            }
            Effect::Prepared(name) => self.note_prepared(&name),
            Effect::Deallocate(Some(name)) => self.note_deallocated(&name),
            Effect::ResetAll => {
                // As above.
                let _ = self.settings.complete(&effect);
                self.note_reset(false);
            }
            Effect::None => {}
            other => {
                self.unit.has_settings = true;
                // As above.
                let _ = self.settings.complete(&other);
            }
        }
    }

    /// Takes back the settings that a transaction of no block has made. A connection that was given them when a
    /// batch went on from one server to another keeps them: it is closed.
    pub(super) fn roll_back_settings(&mut self) {
        self.settings.roll_back();
        if let Some(held) = &mut self.server
            && !held.is_detached()
            && !held.is_pinned
        {
            held.is_lost |= *held.lease.settings != **self.settings.server();
        }
    }

    /// What a statement that has completed does to cursors and portals.
    pub(super) fn nest(&mut self, effect: &Effect) {
        self.memory.cursors.nest(effect);
        self.statements.nest(effect);
    }

    /// What the connection has written is committed: it must be read from now on. Behind it, what is under
    /// way may write as well.
    fn note_written(&mut self, is_due: bool) {
        let Some(held) = &mut self.server else { return };
        if held.work == Work::Writes
            && let Some(wrote_at) = self.memory.wrote_at.get_mut(held.shard)
        {
            *wrote_at = Some(std::time::Instant::now());
        }
        if !is_due {
            held.work = Work::Reads;
        }
    }

    /// ReadyForQuery: returns the status that the client is to see.
    pub(super) fn ready(&mut self, status: Status) -> Status {
        let Some(held) = &mut self.server else {
            return status;
        };
        let is_due = !held.replies.is_empty();
        if held.is_detached() {
            self.unit.end();
            self.note_pipelined(is_due);
            return self.transaction.status();
        }
        self.transaction.report(status);
        if status == Status::Idle {
            if self.unit.has_failed {
                // What a RESET ALL did is undone, and what stands now is not known.
                held.is_lost |= held.is_reset;
                self.roll_back_settings();
            } else {
                self.settings.commit();
                if !held.is_reset && !Arc::ptr_eq(&held.lease.settings, self.settings.server()) {
                    held.lease.settings = Arc::clone(self.settings.server());
                }
            }
            self.memory.cursors.end(!self.unit.has_failed);
            self.end_sequences(is_due);
            if self.memory.definitions.end() {
                self.database.note_change();
            }
            self.note_written(is_due);
            // What is under way belongs to later units, whose portals and draws these are by now.
            if !is_due {
                self.memory.drawn.end();
                self.statements.clear_portals();
                self.memory.may_have_drawn = false;
            }
        }
        if let Some(began) = self.unit.end() {
            let elapsed = began.elapsed();
            self.database.metrics.latency.observe(elapsed.as_secs_f64());
            let is_done = status == Status::Idle;
            self.registered.tally.served(began, elapsed, is_done);
        }
        self.note_pipelined(is_due);
        status
    }

    /// Requests that are under way already belong to the next unit, which has no record of them and so
    /// can't be repeated.
    fn note_pipelined(&mut self, is_due: bool) {
        if is_due {
            self.unit.make_final();
        }
    }
}
