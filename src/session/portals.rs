//! Portals that servers know: which of the session's connections has each, and how it works again.
//!
//! What holds:
//! - A message about a portal goes to the connection that the portal was bound on, or is refused.
//! - A portal of the proxy's own runs once; its further Executes give the rows that are left.
//! - A cursor of DECLARE is a portal too. One on several shards has rows that no single Execute gives,
//!   so it is refused here; FETCH knows it.

use crate::error::Error;
use crate::plan::Access;
use crate::session::held::Held;
use crate::session::local::Answer;
use crate::session::prepared::{LocalPortal, Portal};
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sql::statement::Statement;
use crate::txn::Transaction;
use crate::wire::backend::{bind_complete, command_complete, portal_suspended};
use crate::wire::frame;

/// Where a portal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard.
    pub shard: ShardIndex,
    /// The server's process.
    process: i32,
}

impl Place {
    /// On this connection.
    pub fn on(held: &Held) -> Place {
        Place {
            shard: held.shard,
            process: held.lease.cancel_key.process_id,
        }
    }
}

impl Session {
    /// Has the connection work that a portal stands on.
    ///
    /// # Errors
    /// `0A000` if the session has left that connection, and the portal with it.
    pub(super) async fn reach_portal(&mut self, place: Place) -> Result<(), Stop> {
        let is_there = |session: &Session| session.server.as_ref().map(Place::on) == Some(place);
        if self.transaction == Transaction::Failed || is_there(self) {
            return Ok(());
        }
        if self.transaction.is_on_shard() {
            self.hold(on(place.shard)).await?;
            if is_there(self) {
                return Ok(());
            }
        }
        Err(left_behind().into())
    }

    /// Runs a portal of the proxy's own, or gives the next of its rows.
    ///
    /// # Errors
    /// As [`Session::perform`].
    pub(super) async fn execute_locally(
        &mut self,
        name: &[u8],
        mut portal: LocalPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        if self.batch.is_sent() {
            // It does nothing if what stands before it fails.
            self.drain().await?;
            if self.is_skipping() {
                return Err(Stop::Skip);
            }
        }
        let answer = match portal.left.take() {
            Some(left) => Answer::of_rows(&left),
            None => self.perform_portal(&portal).await?,
        };
        let limit = usize::try_from(max_rows).ok().filter(|rows| *rows > 0);
        let (bytes, count) = frame::first_rows(&answer.rows, limit.unwrap_or(usize::MAX));
        let is_suspended = limit == Some(count);
        let (shown, left) = answer.rows.split_at_checked(bytes).unwrap_or_default();
        if answer.is_of_rows {
            portal.left = Some(left.into());
            self.statements.put_portal(name, Portal::Local(portal));
        }
        let mut words = shown.to_vec();
        match is_suspended {
            true => portal_suspended(&mut words),
            false => command_complete(&mut words, &answer.tag),
        }
        words.extend_from_slice(&answer.status);
        self.say(words);
        Ok(())
    }

    async fn perform_portal(&mut self, portal: &LocalPortal) -> Result<Answer, Stop> {
        let text = portal.prepared.sql();
        let Some(local) = self.local(&portal.prepared.plan, text).await? else {
            return Err(Error::refused(
                "the statement's meaning has changed since it was bound",
                "Another statement of the same batch has begun or ended the transaction.",
                "Send Sync between them.",
            )
            .into());
        };
        self.database.metrics.local.inc();
        self.perform(local, &portal.formats).await
    }

    /// ParseComplete for every Parse that waits, and BindComplete for the kept portal; nothing if the client
    /// has sent neither.
    pub(super) fn acknowledge_bind(&mut self) {
        if self.batch.execution.is_some() {
            return;
        }
        let mut words = self.acknowledge_pending();
        bind_complete(&mut words);
        self.say(words);
    }

    /// Forgets a portal that the client closes; whether the server that works now is to close it.
    ///
    /// # Errors
    /// As for [`Session::reach_cursor`].
    pub(super) async fn close_portal(&mut self, name: &[u8]) -> Result<bool, Stop> {
        let portal = self.statements.portal(name).cloned();
        self.statements.remove_portal(name);
        match portal {
            Some(Portal::Local(..) | Portal::Spread(_) | Portal::Kept(_)) => Ok(false),
            // Where it was left behind it has ended.
            Some(Portal::OnServer(_, _, place)) => match self.reach_portal(place).await {
                Ok(()) => Ok(true),
                Err(Stop::Statement(_)) => Ok(false),
                Err(other) => Err(other),
            },
            Some(Portal::Partial) => Ok(self.server.is_some()),
            None => {
                self.reach_cursor(name).await?;
                Ok(self.server.is_some())
            }
        }
    }

    /// Has the connection work that has the cursor of this name, if there is one.
    ///
    /// # Errors
    /// `0A000` for a cursor on several shards.
    pub(super) async fn reach_cursor(&mut self, name: &[u8]) -> Result<(), Stop> {
        if self.transaction == Transaction::Failed {
            return Ok(());
        }
        let close = Statement::CloseCursor(Some(String::from_utf8_lossy(name).into_owned()));
        match self.memory.cursors.shards(&close) {
            None => Ok(()),
            Some(shards) => match shards.single() {
                Some(shard) => self.hold(on(shard)).await,
                None => Err(spread().into()),
            },
        }
    }
}

fn on(shard: ShardIndex) -> Need {
    Need {
        shard: Some(shard),
        access: Access::Read,
        writes: false,
        is_sticky: false,
        may_detach: false,
    }
}

fn left_behind() -> Error {
    Error::refused(
        "a portal can't be used once its batch has gone on to another shard",
        "Statements of the batch ran on several shards, each a transaction of its own there.",
        "Execute a portal before the next one is bound, or use a transaction block.",
    )
}

fn spread() -> Error {
    Error::refused(
        "a cursor on several shards can't be used as a portal",
        "Its rows are those of one cursor on each shard.",
        "Use FETCH, MOVE and CLOSE.",
    )
}
