//! Keeps the catalogue: reads it from a server, notices changes, compares the shards' schemas.

mod compare;
mod estimates;
mod queries;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::catalog::Catalog;
use crate::catalog::Problem;
use crate::catalog::RawCatalog;
use crate::config::Database;
use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

use super::control::{Control, ControlError, Dialer};
use super::families::TopologyMetrics;
use super::replica_set::ReplicaSet;
use super::server::Server;

pub(super) use compare::differences;
pub(super) use estimates::Estimates;
pub(super) use queries::{SchemaOf, load, read_schema};

/// Between two looks whether the schema changed by other hands than this proxy's.
const POLL: Duration = Duration::from_secs(10);
/// Between two attempts while no catalogue has been read yet.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// Between two comparisons of the shards' schemas while nothing changes …
const COMPARISON: Duration = Duration::from_secs(60);
/// … and at least.
const COMPARISON_PAUSE: Duration = Duration::from_secs(2);
/// For reading a catalogue, however large.
const LIMIT: Duration = Duration::from_secs(60);

/// The catalogue of one database and the way to a newer one.
pub struct Loader {
    database: Arc<Database>,
    sets: Arc<[Arc<ReplicaSet>]>,
    dialer: Arc<Dialer>,
    metrics: TopologyMetrics,
    catalog: ArcSwap<Catalog>,
    /// What the catalogue's compilation found wrong.
    problems: ArcSwap<Vec<Problem>>,
    /// Where the shards' schemas differ.
    differences: ArcSwap<Vec<Problem>>,
    /// The catalogue's epoch; 0 until one has been read.
    installed: watch::Sender<u64>,
    /// Number of the last request for a reload.
    requests: AtomicU64,
    reader: Mutex<Reader>,
}

/// The connection that reads, and what it read last.
#[derive(Default)]
struct Reader {
    source: Option<Source>,
    digest: Option<String>,
    raw: Arc<RawCatalog>,
    epoch: u64,
    /// The last request that began before the last reload did.
    covered: u64,
}

struct Source {
    server: Arc<Server>,
    generation: u64,
    control: Control,
}

impl Loader {
    pub(super) fn new(
        database: &Arc<Database>,
        sets: &Arc<[Arc<ReplicaSet>]>,
        dialer: &Arc<Dialer>,
        metrics: &TopologyMetrics,
    ) -> Loader {
        let (empty, _) = Catalog::build(0, &RawCatalog::default(), database);
        Loader {
            database: Arc::clone(database),
            sets: Arc::clone(sets),
            dialer: Arc::clone(dialer),
            metrics: metrics.clone(),
            catalog: ArcSwap::from_pointee(empty),
            problems: ArcSwap::default(),
            differences: ArcSwap::default(),
            installed: watch::Sender::new(0),
            requests: AtomicU64::new(0),
            reader: Mutex::default(),
        }
    }

    /// The catalogue; empty with epoch 0 until one has been read.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// The epoch of the catalogue, without taking it.
    pub fn epoch(&self) -> u64 {
        self.catalog.load().epoch
    }

    /// The epoch again, as a channel that tells of changes.
    pub fn installed(&self) -> watch::Receiver<u64> {
        self.installed.subscribe()
    }

    /// What is wrong with the tables: against the configuration, and between the shards.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = (**self.problems.load()).clone();
        problems.extend(self.differences.load().iter().cloned());
        problems
    }

    /// Reads the catalogue anew and returns when it is in place. A session calls this after its DDL;
    /// calls that come together share one reading.
    ///
    /// # Errors
    /// `58000` when no server could be read; the old catalogue stays, and the next poll tries again.
    pub async fn refresh(&self) -> Result<()> {
        let request = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let mut reader = self.reader.lock().await;
        if reader.covered >= request {
            return Ok(());
        }
        let covered = self.requests.load(Ordering::Acquire);
        reader.digest = None;
        self.within(self.update(&mut reader)).await?;
        reader.covered = covered;
        Ok(())
    }

    /// Reads at once, then polls for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut failing = false;
        loop {
            let outcome = {
                let mut reader = self.reader.lock().await;
                self.within(self.update(&mut reader)).await
            };
            let loaded = *self.installed.borrow() > 0;
            if let Err(error) = outcome {
                // While servers come up this is no news; they are logged by their probes.
                if loaded && !failing {
                    tracing::warn!(database = self.database.name, %error, "catalogue can't be read");
                }
                failing = true;
            } else {
                failing = false;
            }
            sleep(if loaded { POLL } else { FIRST_POLL }).await;
        }
    }

    /// Compares the shards' schemas for ever.
    pub(super) async fn compare(self: Arc<Self>) {
        let mut installed = self.installed();
        // The sender is part of self, so it can't be gone.
        let _ = installed.wait_for(|epoch| *epoch > 0).await;
        loop {
            installed.mark_unchanged();
            let raw = Arc::clone(&self.reader.lock().await.raw);
            let schemas = self.schemas().await;
            let differences = differences(&self.database, &raw, &schemas);
            let known = self.differences.load();
            for problem in differences.iter().filter(|p| !known.contains(p)) {
                tracing::error!(database = self.database.name, %problem, "shards differ");
            }
            self.differences.store(Arc::new(differences));
            sleep(COMPARISON_PAUSE).await;
            if schemas.len() == self.sets.len() {
                // Whether it changed or the time is up, the loop looks again.
                let _ = timeout(COMPARISON, installed.changed()).await;
            }
        }
    }

    /// The schemas of the shards whose primaries answer.
    async fn schemas(&self) -> Vec<SchemaOf> {
        let mut schemas = Vec::new();
        for set in self.sets.iter() {
            let Some(server) = set.primary() else {
                continue;
            };
            let read = async {
                let control = self.dialer.connect(&server.address).await?;
                read_schema(control.client()).await
            };
            match timeout(LIMIT, read).await {
                Ok(Ok(tables)) => schemas.push(SchemaOf {
                    shard: set.shard,
                    tables,
                }),
                Ok(Err(error)) => {
                    tracing::debug!(server = %server.address, %error, "schema can't be read");
                }
                Err(_) => tracing::debug!(server = %server.address, "schema can't be read in time"),
            }
        }
        schemas
    }

    async fn within(&self, work: impl Future<Output = Result<(), ControlError>>) -> Result<()> {
        let outcome = match timeout(LIMIT, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ControlError::timed_out("reading the catalogue", LIMIT)),
        };
        outcome.map_err(|error| {
            let message = format!(
                "the catalogue of database \"{}\" can't be read",
                self.database.name
            );
            Error::new(SqlState::SYSTEM_ERROR, message).detail(format!("Reason: {error}."))
        })
    }

    /// Reads the catalogue if it changed.
    async fn update(&self, reader: &mut Reader) -> Result<(), ControlError> {
        let result = self.try_update(reader).await;
        if result.is_err() {
            reader.source = None;
            reader.digest = None;
        }
        result
    }

    async fn try_update(&self, reader: &mut Reader) -> Result<(), ControlError> {
        let server = self
            .pick()
            .ok_or_else(|| ControlError::answer("no server of any shard is in service"))?;
        // Taken out while in use: whoever drops this future midway leaves no half-read connection behind.
        let source = match reader.source.take() {
            Some(source)
                if Arc::ptr_eq(&source.server, server)
                    && source.generation == server.generation()
                    && !source.control.client().is_closed() =>
            {
                source
            }
            _ => Source {
                generation: server.generation(),
                control: self.dialer.connect(&server.address).await?,
                server: Arc::clone(server),
            },
        };
        let client = source.control.client();
        let digest = queries::digest(client).await?;
        if reader.digest.as_deref() != Some(digest.as_str()) {
            let raw = load(client, &self.database).await?;
            self.install(reader, raw);
            reader.digest = Some(digest);
        }
        reader.source = Some(source);
        Ok(())
    }

    /// Puts a catalogue in place.
    fn install(&self, reader: &mut Reader, raw: RawCatalog) {
        reader.epoch += 1;
        let (catalog, problems) = Catalog::build(reader.epoch, &raw, &self.database);
        let known = self.problems.load();
        for problem in problems.iter().filter(|p| !known.contains(p)) {
            tracing::error!(database = self.database.name, %problem, "table can't be served");
        }
        reader.raw = Arc::new(raw);
        self.problems.store(Arc::new(problems));
        self.catalog.store(Arc::new(catalog));
        self.metrics.count_reload(&self.database.name);
        self.installed.send_replace(reader.epoch);
    }

    /// The server to read from: the first shard's primary, or else any server in service.
    fn pick(&self) -> Option<&Arc<Server>> {
        let primaries = self.sets.iter().take(1).filter_map(|set| set.primary());
        let others = self.sets.iter().flat_map(|set| set.servers());
        primaries
            .chain(others.filter(|server| server.state().usable()))
            .next()
    }
}
