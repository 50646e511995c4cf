//! LISTEN and NOTIFY: every client keeps its channels, whichever server connection works for it.
//!
//! All channels of a database live on its home shard's primary. There one connection per database and
//! proxy listens for all clients ([`listener`]): opened by the first LISTEN, beside the pool's
//! connections, and closed after the last UNLISTEN. It hands every notification to the mailboxes of the
//! clients that listen to its channel ([`hub`], [`mailbox`]). NOTIFY and `pg_notify` are ordinary
//! statements for the home shard's primary.
//!
//! **LISTEN** takes effect when its transaction commits. Its channel is kept among what transactions and
//! savepoints undo (`settings`), and the shared connection listens before the statement is sent, so
//! nothing that commits after the client's COMMIT can be missed. What arrives before the client sends
//! its COMMIT is dropped. To the server goes UNLISTEN in its place: it does nothing there, yet it is
//! answered, and fails, where and when LISTEN would ([`rewrite`]).
//!
//! **Order.** A client gets notifications only between its transactions: while it is idle, and before
//! ReadyForQuery. PostgreSQL delivers there whatever was committed before, the client's own
//! notifications first of all. To say the same, the ReadyForQuery of a client that listens waits for a
//! round trip on the shared connection: a server signals its listeners before it says ReadyForQuery to
//! who notified, and a listener that is signalled tells what it has heard before its next ReadyForQuery.
//! So a Sync that is sent to the listener after one connection's ReadyForQuery returns behind all that
//! was committed there ([`delivery`]). Who does not listen waits for nothing, but for its own explicit
//! NOTIFY while others listen.
//!
//! **Process ids.** A notification names the notifying server process. If that process works for a
//! client of this proxy, the client's own id, which it knows from BackendKeyData, is told instead;
//! where it can't be known for certain whose transaction it was, the server's is ([`holders`]).
//!
//! **Loss.** When the shared connection breaks, or another server becomes the primary, notifications may
//! have been missed. PostgreSQL's clients would lose their connection then, and so do they here: every
//! client that listens is told (`57P01`) and closed. A client that does not take its notifications is
//! closed once `limits.query_memory` bytes wait for it (`53200`).
//!
//! A LISTEN that runs where the proxy can't see it, in a function or DO block, is not supported: the
//! connection that it ran on is closed when the first notification gives it away. With
//! `pool.mode: session` over one shard all of this is left to the server connection, which is the
//! client's own.

mod delivery;
mod holders;
pub mod hub;
mod listener;
mod mailbox;
mod rewrite;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::{Plan, SessionUse};
use crate::sharding::ShardIndex;
use crate::sql::statement::Statement;

pub use delivery::Mail;
pub use hub::Holding;

/// The shard whose primary holds the channels.
const HOME: ShardIndex = 0;

/// Whether servers get a statement in other words because of the client's channels.
pub fn concerns_channels(plan: &Plan) -> bool {
    matches!(plan.statement, Statement::Listen(_))
        || plan.session.contains(SessionUse::ASKS_CHANNELS)
}

/// Whether a statement may run on the shard that the client has chosen.
///
/// # Errors
/// `0A000` for a NOTIFY where nobody listens.
pub fn check_home(plan: &Plan, shard: ShardIndex) -> Result<()> {
    if shard == HOME || !plan.session.contains(SessionUse::NOTIFIES) {
        return Ok(());
    }
    Err(Error::refused(
        "NOTIFY on a shard other than the first is not supported",
        "Every client listens on the first shard, whose channels are the database's.",
        "RESET shardwire.shard, or leave the hint out.",
    ))
}

/// The channels that a client listens to, by the order of their LISTEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    by_name: BTreeMap<Arc<str>, u64>,
    next: u64,
}

impl Channels {
    /// `LISTEN`.
    pub fn add(&mut self, name: &str) {
        if !self.contains(name) {
            self.by_name.insert(name.into(), self.next);
            self.next += 1;
        }
    }

    /// `UNLISTEN`; none is `*`.
    pub fn remove(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.by_name.remove(name)),
            None => self.by_name.clear(),
        }
    }

    /// Whether the channel is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Their names, the first LISTEN first.
    pub fn names(&self) -> Vec<&str> {
        let mut all: Vec<_> = self.by_name.iter().collect();
        all.sort_by_key(|(_, order)| **order);
        all.into_iter().map(|(name, _)| &**name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_stand_in_the_order_of_their_listen() {
        let mut channels = Channels::default();
        for name in ["b", "a", "b", "c"] {
            channels.add(name);
        }
        assert_eq!(channels.names(), ["b", "a", "c"]);
        channels.remove(Some("b"));
        channels.add("b");
        assert_eq!(channels.names(), ["a", "c", "b"]);
        channels.remove(None);
        assert_eq!(channels.len(), 0);
    }
}
