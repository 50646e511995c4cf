//! One server as the proxy knows it: what probes found, read without a lock.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use crate::config::Address;
use crate::config::RoleHint;

use super::replica_set::ReplicaSet;
use super::selection::Role;

/// What the last probe, or the data path, says about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// No probe has ended yet, or its identity is not settled; with what is waited for.
    Unknown(Arc<str>),
    /// It answers and is what the configuration says.
    Good,
    /// A statement or a probe failed in a way that may pass; used when it is the last one left.
    Doubtful(Arc<str>),
    /// A probe found that it can't be used.
    Down(Arc<str>),
    /// It answers but is not the shard that the configuration says it is; never used.
    Misplaced(Arc<str>),
}

impl Health {
    /// Whether it may be used without reserve.
    pub fn is_good(&self) -> bool {
        *self == Health::Good
    }

    /// Why it is not good.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Health::Good => None,
            Health::Unknown(why)
            | Health::Doubtful(why)
            | Health::Down(why)
            | Health::Misplaced(why) => Some(why),
        }
    }

    /// One word, for SHOW SHARDWIRE and the status page.
    pub fn word(&self) -> &'static str {
        match self {
            Health::Unknown(_) => "unknown",
            Health::Good => "up",
            Health::Doubtful(_) => "doubtful",
            Health::Down(_) => "down",
            Health::Misplaced(_) => "misplaced",
        }
    }
}

/// What a server said of itself in one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// It accepts writes (`not pg_is_in_recovery()`).
    pub writable: bool,
    /// Its timeline; of a secondary, the highest that it provably follows.
    pub timeline: u32,
    /// `pg_control_system().system_identifier`.
    pub system: u64,
    /// End of the last WAL record written (primary) or replayed (secondary), in bytes.
    pub lsn: u64,
    /// `server_version_num`, 150003 for 15.3.
    pub version: u32,
    /// `max_prepared_transactions`; 0 rules out transactions over several shards.
    pub max_prepared_transactions: u32,
    /// Of a secondary: age of the last replayed commit by its own clock.
    pub replay_age: Option<Duration>,
    /// Of a secondary: whether WAL streams in, if the role may know.
    pub streaming: Option<bool>,
}

/// How far a secondary is behind its primary.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Bytes of WAL not yet replayed; none if no primary is known.
    pub bytes: Option<u64>,
    /// Time since it had everything; zero when it has.
    pub time: Option<Duration>,
}

/// Everything known about a server at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// Whether it may be used.
    pub health: Health,
    /// Why it gets no queries although it answers: it lost an election, or follows a stranger.
    pub fence: Option<Arc<str>>,
    /// Its role; none before the first answer and for a fenced server.
    pub role: Option<Role>,
    /// What it last said.
    pub facts: Option<Facts>,
    /// Smoothed round-trip time of its probes (EWMA, α = 0.2).
    pub rtt: Duration,
    /// It has everything that the primary had committed by then.
    pub fresh_as_of: Option<Instant>,
    /// It has everything that the most advanced member had by then; kept while no primary is known.
    pub level_as_of: Option<Instant>,
    /// Distance to the primary.
    pub lag: Lag,
    /// The cluster that its identity names.
    pub cluster: Option<Arc<str>>,
    /// Why its identity can't be recorded or read, if so: used all the same, and told by `check`.
    pub unidentified: Option<Arc<str>>,
    /// Since when it has answered without a break.
    pub good_since: Option<Instant>,
}

impl State {
    /// Before the first probe.
    pub fn unknown() -> State {
        State {
            health: Health::Unknown("it has not been probed yet".into()),
            fence: None,
            role: None,
            facts: None,
            rtt: Duration::ZERO,
            fresh_as_of: None,
            level_as_of: None,
            lag: Lag::default(),
            cluster: None,
            unidentified: None,
            good_since: None,
        }
    }

    /// Whether queries may go there without reserve.
    pub fn usable(&self) -> bool {
        self.health.is_good() && self.fence.is_none() && self.role.is_some()
    }

    /// Why it is out of service, if it is.
    pub fn why_out(&self) -> Option<&str> {
        self.health.reason().or(self.fence.as_deref())
    }
}

/// One PostgreSQL server of a replica set.
pub struct Server {
    /// Index of its shard in the database.
    pub shard: usize,
    /// Name of its shard.
    pub shard_name: Arc<str>,
    /// Index in its replica set.
    pub index: usize,
    /// Where it listens.
    pub address: Address,
    /// Where it runs.
    pub zone: Option<String>,
    /// The role the configuration expects.
    pub hint: Option<RoleHint>,
    /// It runs in the proxy's zone.
    pub local: bool,
    pub(super) in_flight: AtomicU32,
    pub(super) generation: AtomicU64,
    pub(super) state: ArcSwap<State>,
    pub(super) nudge: Notify,
    pub(super) set: Weak<ReplicaSet>,
}

impl Server {
    /// What is known now.
    pub fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// Operations that work on it now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts an operation until the guard is dropped.
    pub fn operate(self: &Arc<Self>) -> Operation {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Operation(Arc::clone(self))
    }

    /// Grows whenever the server fails, loses its role or is fenced: connections made under an earlier
    /// generation must not be reused.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A query that returns one row, the default isolation level, if a new connection has reached this very
    /// shard, and none or an error if it has not: the name may lead elsewhere than the probe's older
    /// connection. A shard that holds no identity is believed.
    pub fn identity_query(&self) -> String {
        let isolation = "SELECT pg_catalog.current_setting('default_transaction_isolation')";
        let state = self.state();
        let Some(cluster) = state.cluster.as_deref() else {
            return isolation.to_owned();
        };
        let quoted = |text: &str| text.replace('\'', "''");
        format!(
            "{isolation} FROM shardwire.shard WHERE cluster_id = '{}' AND shard_name = '{}'",
            quoted(cluster),
            quoted(&self.shard_name)
        )
    }

    /// Takes the server out of the choice at once because a connection to it failed; a probe that starts
    /// now brings it back. Only for failures of the server or the way to it (refused, reset, timed out,
    /// 57P01-57P03), never for overload (53xxx) or a statement's own error.
    pub fn mark_failed(&self, reason: &str) {
        if let Some(set) = self.set.upgrade() {
            set.doubt(self.index, reason);
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}/{})", self.shard_name, self.address)
    }
}

/// An operation in flight on a server; ends when dropped.
#[derive(Debug)]
pub struct Operation(Arc<Server>);

impl Drop for Operation {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
