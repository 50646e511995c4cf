//! How a transaction ends on the participants that rest: with the client's COMMIT or ROLLBACK, or because it
//! has failed.
//!
//! A failed transaction of PostgreSQL holds no locks any more, though its client has not said ROLLBACK: all
//! that was done since the latest savepoint is undone at once. So it is on the other shards, as soon as the
//! client has its error.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::others::{quoted, several_shards};
use crate::session::study::effect_of;
use crate::session::{Session, Stop};
use crate::sql::statement::Statement;
use crate::txn::Transaction;
use crate::txn::commit::Work;

impl Session {
    /// Before a statement runs that may end the transaction. Whether it has been committed here, so that
    /// the statement must only be answered.
    ///
    /// # Errors
    /// As [`Session::commit_together`]; `0A000` for what can't be done with several shards.
    pub(super) async fn before_end(&mut self, statement: &Statement) -> Result<bool, Stop> {
        let ends = effect_of(statement) == Effect::End;
        if !ends || !self.others.has_joined() {
            return Ok(false);
        }
        self.drain().await?;
        if self.is_skipping() {
            // An error stands before it in its batch: it ends nothing.
            return Err(Stop::Skip);
        }
        match statement {
            Statement::Commit { chain } => self.commit_others(*chain).await,
            Statement::Rollback { .. } => self.roll_back_others().await.map(|()| false),
            Statement::PrepareTransaction => Err(several_shards("PREPARE TRANSACTION").into()),
            _ => Ok(false),
        }
    }

    /// Before the client's COMMIT. Where one participant has written and no other holds locks, it works,
    /// and the others are ended; else all are committed here.
    ///
    /// # Errors
    /// Why they are not committed.
    async fn commit_others(&mut self, chain: bool) -> Result<bool, Stop> {
        self.drain().await?;
        if !self.others.has_joined() {
            return Ok(false);
        }
        if self.transaction == Transaction::Failed {
            return self.roll_back_others().await.map(|()| false);
        }
        self.tell_others().await?;
        let resting = self.others.resting.iter().filter(|one| one.has_joined);
        let resting = resting.map(|one| one.held.work);
        let at_work = self.server.iter().map(|held| held.work);
        let works: Vec<Work> = resting.chain(at_work).collect();
        let did = |work| works.iter().filter(|one| **one == work).count();
        let guards = did(Work::Writes) == 1 && did(Work::Locks) > 0;
        if did(Work::Writes) > 1 || guards || self.may_be_serializable() {
            self.commit_together(chain).await?;
            return Ok(true);
        }
        if let Some(writer) = self.others.writer() {
            if self.batch.is_sent() {
                self.leave_batch().await?;
            }
            self.rest();
            self.wake(Some(writer));
        }
        self.end_others("COMMIT").await.map(|()| false)
    }

    /// Before the client's ROLLBACK.
    async fn roll_back_others(&mut self) -> Result<(), Stop> {
        if !self.others.has_joined() {
            return Ok(());
        }
        self.others.untold.clear();
        self.drain().await?;
        self.end_others("ROLLBACK").await
    }

    /// Has the participants that rest end the transaction.
    ///
    /// # Errors
    /// The loss of one that holds state of the session's.
    pub(super) async fn end_others(&mut self, sql: &str) -> Result<(), Stop> {
        let (mut joined, apart): (Vec<_>, Vec<_>) = std::mem::take(&mut self.others.resting)
            .into_iter()
            .partition(|one| one.has_joined);
        self.others.resting = apart;
        let ended = joined.iter_mut().map(|one| one.held.lease.run(sql));
        let ended = join_all(ended).await;
        let mut failure = None;
        let committed = sql == "COMMIT";
        for (mut one, ended) in joined.into_iter().zip(ended) {
            let is_pinned = one.held.is_pinned;
            match ended {
                Ok(()) => {
                    one.held.work = Work::Reads;
                    one.held.lease.settings = Arc::clone(match committed {
                        true => self.settings.server(),
                        false => self.settings.server_at_begin(),
                    });
                    one.has_joined = false;
                    match is_pinned {
                        true => self.others.resting.push(one),
                        false => self.give_back(one.held),
                    }
                }
                // It has only read, and what it read stands.
                Err(_) if !is_pinned => {}
                Err(failed) => failure = Some(failed),
            }
        }
        match failure {
            None => Ok(()),
            Some(failed) => Err(self.break_transaction(failed)),
        }
    }

    /// Whether the transaction has failed, participants that rest don't know yet, and can be told: no answer is
    /// due, and no Sync that the client has yet to send.
    pub(super) fn must_undo_others(&self) -> bool {
        self.transaction == Transaction::Failed
            && !self.others.is_implicit
            && self.others.may_undo()
            && self.server.as_ref().is_some_and(Held::is_at_rest)
    }

    /// Has the participants that rest undo what is lost, once every answer has come.
    ///
    /// # Errors
    /// The loss of a participant.
    pub(super) async fn undo_others(&mut self) -> Result<(), Stop> {
        if !self.must_undo_others() {
            return Ok(());
        }
        self.others.is_undone = true;
        match self.others.opening.latest_savepoint().map(quoted) {
            Some(name) => {
                let sql = format!("ROLLBACK TO SAVEPOINT {name}");
                self.run_on_others(&sql).await
            }
            None => self.end_others("ROLLBACK").await,
        }
    }
}
