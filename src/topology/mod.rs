//! Replica sets: probes, roles, lag, nearest selection, the catalogue's loader.
//!
//! A [`Topology`] is what the proxy knows of one database's servers. Tasks of its own probe every server
//! (`probe`), hold its identity against the configuration (`identity`) and read the catalogue (`loader`);
//! the data path reads the outcome without waiting ([`ReplicaSet::choose`], [`Topology::catalog`]).

mod control;
mod election;
mod families;
mod freshness;
mod identity;
mod inspection;
mod loader;
mod members;
mod prepared;
mod probe;
mod replica_set;
mod selection;
mod sequences;
mod server;
mod sizes;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::catalog::Catalog;
use crate::catalog::Problem;
use crate::config::Database;
use crate::config::Timeouts;
use crate::error::Result;
use crate::plan::sizes::Sizes;

use identity::Book;
use loader::{Estimates, Loader};
use probe::{Pace, Probe};
use sequences::Sequences;

pub use control::{Control, ControlError, Dialer};
pub use families::TopologyMetrics;
pub use inspection::{Identity, Inspected, Inspection, Seen, catalog, inspect};
pub use loader::{RowSource, TextRow, read_catalog};
pub use prepared::PreparedTransaction;
pub use replica_set::ReplicaSet;
pub use selection::{Access, Role, Want};
pub use server::{Facts, Health, Lag, Operation, Server, State};

/// The servers of one database and what is known of them.
///
/// Its tasks end when it is dropped.
pub struct Topology {
    database: Arc<Database>,
    shards: Arc<[Arc<ReplicaSet>]>,
    loader: Arc<Loader>,
    dialer: Arc<Dialer>,
    sequences: Sequences,
    /// Probes, loader, estimates; aborted on drop.
    _tasks: JoinSet<()>,
}

impl Topology {
    /// Starts probing a database's servers and reading its catalogue; returns at once, whether servers
    /// answer or not. Must be called in a Tokio runtime; blocks on TLS files.
    ///
    /// # Errors
    /// `F0000` when the TLS files can't be used.
    pub fn start(
        database: Arc<Database>,
        timeouts: &Timeouts,
        metrics: &TopologyMetrics,
    ) -> Result<Arc<Topology>> {
        let dialer = Arc::new(Dialer::new(&database.backend, timeouts.connect)?);
        let reachable = Arc::new(AtomicUsize::new(0));
        let shards: Arc<[Arc<ReplicaSet>]> = (0..database.shards.len())
            .map(|shard| ReplicaSet::new(&database, shard, metrics, &reachable))
            .collect();
        let book = Arc::new(Book::new(&database));
        let loader = Arc::new(Loader::new(&database, &shards, &dialer, metrics));
        let mut tasks = JoinSet::new();
        for set in shards.iter() {
            for server in set.servers() {
                let probe = Probe {
                    set: Arc::clone(set),
                    server: Arc::clone(server),
                    dialer: Arc::clone(&dialer),
                    book: Arc::clone(&book),
                    pace: Pace {
                        interval: timeouts.probe_interval,
                        limit: timeouts.probe_timeout,
                    },
                };
                tasks.spawn(probe.run());
            }
        }
        tasks.spawn(Arc::clone(&loader).run());
        tasks.spawn(Arc::clone(&loader).compare());
        if database.shards.len() > 1 {
            tasks.spawn(Arc::clone(&loader).listen());
        }
        tasks.spawn(Estimates::new(Arc::clone(&loader)).run());
        Ok(Arc::new(Topology {
            database,
            shards,
            loader,
            dialer,
            sequences: Sequences::default(),
            _tasks: tasks,
        }))
    }

    /// The configuration it was started with.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The replica sets in the order of the configuration's shards.
    pub fn shards(&self) -> &[Arc<ReplicaSet>] {
        &self.shards
    }

    /// The catalogue; empty with epoch 0 until one has been read.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.loader.catalog()
    }

    /// The epoch of the catalogue: plans made under another one are stale.
    pub fn epoch(&self) -> u64 {
        self.loader.epoch()
    }

    /// Forgets the numbers that were taken ahead: a sequence may have been set.
    pub fn drop_blocks(&self) {
        self.sequences.drop_blocks();
    }

    /// Reads the catalogue anew and returns when it is in place; for sessions, after DDL.
    ///
    /// # Errors
    /// `58000` when no server could be read; the old catalogue stays, and a poll tries again.
    pub async fn refresh(&self) -> Result<()> {
        self.loader.refresh().await
    }

    /// Reads the catalogue anew if it has changed, and returns when it is in place.
    ///
    /// # Errors
    /// As [`Topology::refresh`].
    pub async fn look(&self) -> Result<()> {
        self.loader.look().await
    }

    /// Has the catalogue read anew soon, without waiting for it.
    pub fn refresh_soon(&self) {
        self.loader.refresh_soon();
    }

    /// What is wrong with the tables: against the configuration, and between the shards.
    pub fn problems(&self) -> Vec<Problem> {
        self.loader.problems()
    }

    /// What shards other than the first have on disk, measured now.
    ///
    /// # Errors
    /// `58000` when a shard's primary can't be asked.
    pub async fn sizes(&self) -> Result<Sizes> {
        sizes::gather(&self.catalog(), &self.shards, self.loader.dialer()).await
    }

    /// Whether every shard has a server in service and the catalogue has been read.
    pub fn is_ready(&self) -> bool {
        self.epoch() > 0 && self.shards.iter().all(|set| set.is_usable())
    }

    /// Waits until [`Topology::is_ready`], at most until the deadline; tells whether it is.
    pub async fn ready(&self, deadline: Instant) -> bool {
        let all = async {
            while !self.is_ready() {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        tokio::time::timeout_at(deadline, all).await.is_ok()
    }
}

/// Between two looks whether every shard has a server in service.
const READY_POLL: Duration = Duration::from_millis(20);
