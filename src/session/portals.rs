//! Portals that servers know: which of the session's connections has each, and how it works again.
//!
//! What holds:
//! - A message about a portal goes to the connection that the portal was bound on, or is refused.
//! - A cursor of DECLARE is a portal too. One on several shards has rows that no single Execute gives,
//!   so it is refused here; FETCH knows it.

use crate::error::Error;
use crate::plan::Access;
use crate::session::held::Held;
use crate::session::prepared::Portal;
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sql::statement::Statement;
use crate::txn::Transaction;

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
