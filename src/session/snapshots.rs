//! Transactions at REPEATABLE READ over several shards: one snapshot of all of them.
//!
//! Which shards such a transaction is going to need is not known when its first statement needs its
//! snapshot, so it is opened on every shard then, while the barrier ([`crate::txn::barrier`]) keeps commits
//! on several shards out. So it sees each of them on all shards or on none. SERIALIZABLE transactions stay
//! on one shard, or are opened in the same way ([`crate::session::serializable`]).

use std::sync::Arc;

use futures_util::future::join_all;

use crate::backend::connection::{Failed, lost};
use crate::error::{Error, Result};
use crate::plan::Access;
use crate::session::held::Held;
use crate::session::lease::unless_cancelled;
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::txn::barrier::Pass;

impl Session {
    /// Whether the transaction at hand, of which no shard knows yet, has to be opened on every shard.
    pub(super) fn needs_snapshots(&self) -> bool {
        let Transaction::Begun(opening) = &self.transaction else {
            return false;
        };
        let is_shared = opening.shares_snapshot() || self.has_snapshot_by_default();
        is_shared
            && !self.is_confined()
            && !self.is_unplaced()
            && self.settings.context().shard.is_none()
    }

    /// Opens the transaction on every shard, with one snapshot.
    ///
    /// # Errors
    /// Why a shard can't be had, `55P03` if commits are in the way for too long, `40001` if the moment was
    /// missed.
    pub(super) async fn open_snapshots(&mut self) -> Result<(), Stop> {
        self.drain().await?;
        let Transaction::Begun(opening) = &self.transaction else {
            return Ok(());
        };
        let opening = opening.sql();
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        self.rest_pinned();
        if self.may_let_go() {
            self.let_go();
        }
        let mut all = match self.lease_all().await {
            Ok(all) => all,
            Err(stop) => return Err(stop),
        };
        let barrier = Arc::clone(&self.database.barrier);
        let control = Arc::clone(&self.registered.control);
        let pass = match unless_cancelled(&control, barrier.pass()).await {
            Ok(pass) => pass,
            Err(error) => {
                self.give_up(all);
                return Err(error.into());
            }
        };
        let (opened, is_covered) = open_all(&mut all, &opening, pass).await;
        let failed = opened.into_iter().find_map(|opened| match opened {
            Ok(Some(proof)) if proof == "t" => None,
            Ok(_) => Some(missed()),
            Err(Failed::Refused(error)) => Some(error),
            Err(Failed::Lost(cause)) => Some(lost(&cause)),
        });
        if let Some(error) = failed.or_else(|| (!is_covered).then(missed)) {
            // What state the servers are in depends on where they failed: the connections are closed.
            control.end();
            self.transaction.fail();
            return Err(error.into());
        }
        let undisturbed = control.end();
        self.opened();
        self.others.is_everywhere = true;
        // Any of them could be.
        self.others.first = Some(0);
        for mut held in all {
            held.is_lost |= !undisturbed;
            self.keep(held);
        }
        Ok(())
    }

    /// Leases a connection to the primary of each shard, with the session's settings.
    async fn lease_all(&mut self) -> Result<Vec<Held>, Stop> {
        let mut all = Vec::new();
        for shard in 0..self.database.config.shards.len() {
            let need = Need {
                shard: Some(shard),
                access: Access::Write,
                writes: false,
                is_sticky: false,
                may_detach: false,
            };
            // Who has one connection must get the others, whatever operators say meanwhile.
            self.others.is_gathering = !all.is_empty();
            let leased = match self.wake(Some(shard)) {
                Some(_) => Ok(()),
                None => self.take_seat(&need).await,
            };
            self.others.is_gathering = false;
            let applied = match (leased, &mut self.server) {
                (Ok(()), Some(held)) => {
                    let settings = self.settings.server_at_begin();
                    held.lease.apply(settings).await
                }
                (Err(error), _) => Err(Failed::Refused(error)),
                (Ok(()), None) => Ok(()),
            };
            all.extend(self.server.take());
            if let Err(failed) = applied {
                if matches!(failed, Failed::Lost(_)) {
                    all.pop();
                }
                self.give_up(all);
                return Err(Stop::Statement(match failed {
                    Failed::Refused(error) => error,
                    Failed::Lost(cause) => lost(&cause),
                }));
            }
        }
        Ok(all)
    }

    /// Keeps connections that were leased in vain; no transaction is open on them.
    fn give_up(&mut self, all: Vec<Held>) {
        let undisturbed = self.registered.control.end();
        for mut held in all {
            held.is_lost |= !undisturbed;
            self.keep(held);
        }
    }
}

/// Opens the transaction on all servers while the barrier is held: what each says of the barrier once it
/// has its snapshot, and whether they are the servers that it is held on.
async fn open_all(
    all: &mut [Held],
    opening: &str,
    pass: Pass,
) -> (Vec<Result<Option<String>, Failed>>, bool) {
    let opened = all.iter_mut().map(|held| {
        let sql = format!("{opening};\n{}", pass.proof(held.shard));
        async move { held.lease.value(&sql).await }
    });
    let opened = join_all(opened).await;
    let covered = |held: &Held| pass.covers(held.shard, held.seat.node.index);
    (opened, all.iter().all(covered))
}

fn missed() -> Error {
    Error::new(
        SqlState::T_R_SERIALIZATION_FAILURE,
        "could not take one snapshot of all shards",
    )
    .detail("It took too long, or a shard got another primary meanwhile.")
    .hint("The transaction might succeed if retried.")
}
