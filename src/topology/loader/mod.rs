//! Keeps the catalogue: reads it from a server, notices changes, compares the shards' schemas.

mod behind;
mod compare;
mod estimates;
mod functions;
mod homes;
mod news;
mod oids;
mod queries;
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify, watch};
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
use compare::unlike;
pub(super) use estimates::Estimates;
pub(super) use homes::{merge, shards as home_shards};
pub use queries::{RowSource, TextRow, read_catalog};
pub(super) use queries::{SchemaOf, load, read_schema};

/// Between two looks whether the schema changed by other hands than this proxy's.
const POLL: Duration = Duration::from_secs(10);
/// Between two readings that were asked for without waiting for them.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts while no catalogue has been read yet.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// Between two comparisons of the shards' schemas while nothing changes …
const COMPARISON: Duration = Duration::from_secs(15);
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
    /// The tables that are not served because of that.
    unlike: ArcSwap<Vec<Problem>>,
    /// The catalogue's epoch; 0 until one has been read.
    installed: watch::Sender<u64>,
    /// Number of the last request for a reload.
    requests: AtomicU64,
    /// Something has changed, says somebody who does not wait for the reading.
    stale: Notify,
    reader: Mutex<Reader>,
}

/// The connections that read, and what they read last.
#[derive(Default)]
struct Reader {
    /// By shard.
    sources: BTreeMap<usize, Source>,
    digest: Option<String>,
    raw: Arc<RawCatalog>,
    epoch: u64,
    /// The last request that began before the last reload did.
    covered: u64,
    /// Number of the last request for which it was looked whether that is needed.
    looked: u64,
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
            unlike: ArcSwap::default(),
            installed: watch::Sender::new(0),
            requests: AtomicU64::new(0),
            stale: Notify::new(),
            reader: Mutex::default(),
        }
    }

    /// Makes control connections.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
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
        news::spread(&reader).await;
        Ok(())
    }

    /// Reads the catalogue anew if it has changed; looks that come together share one.
    ///
    /// # Errors
    /// As [`Loader::refresh`].
    pub async fn look(&self) -> Result<()> {
        let request = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let mut reader = self.reader.lock().await;
        if reader.covered.max(reader.looked) >= request {
            return Ok(());
        }
        // Whoever asks for a refresh is not served by a look.
        let looked = self.requests.load(Ordering::Acquire);
        self.within(self.update(&mut reader)).await?;
        reader.looked = looked;
        Ok(())
    }

    /// Has the catalogue read anew soon.
    pub fn refresh_soon(&self) {
        self.stale.notify_one();
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
            if loaded {
                sleep(PAUSE).await;
                // Whether it is stale or the time is up, the loop looks again.
                let _ = timeout(POLL, self.stale.notified()).await;
            } else {
                sleep(FIRST_POLL).await;
            }
        }
    }

    /// Compares the shards' schemas for ever.
    pub(super) async fn compare(self: Arc<Self>) {
        let mut installed = self.installed();
        // The sender is part of self, so it can't be gone.
        let _ = installed.wait_for(|epoch| *epoch > 0).await;
        let mut seen = Vec::new();
        loop {
            installed.mark_unchanged();
            let raw = {
                let mut reader = self.reader.lock().await;
                // A shard may have been away, or was changed by other hands.
                let _ = timeout(LIMIT, self.learn_oids(&mut reader)).await;
                let _ = timeout(LIMIT, self.learn_roles(&mut reader)).await;
                Arc::clone(&reader.raw)
            };
            let schemas = self.schemas().await;
            let differences = differences(&self.database, &raw, &schemas);
            let known = self.differences.load();
            for problem in differences.iter().filter(|p| !known.contains(p)) {
                tracing::error!(database = self.database.name, %problem, "shards differ");
            }
            self.differences.store(Arc::new(differences));
            let is_whole = schemas.len() == self.sets.len();
            let mut unlike = unlike(&self.database, &raw, &schemas);
            if !is_whole {
                // What was different on a shard that is away still is.
                let known = self.unlike.load();
                let is_new = |old: &&Problem| unlike.iter().all(|new| new.table != old.table);
                let kept: Vec<Problem> = known.iter().filter(is_new).cloned().collect();
                unlike.extend(kept);
            }
            // A definition that is being committed is on one shard before it is on another.
            let is_certain = unlike == seen;
            if is_certain || unlike.is_empty() {
                self.withdraw(&unlike).await;
            }
            seen = unlike;
            sleep(COMPARISON_PAUSE).await;
            if is_whole && seen.is_empty() {
                // Whether it changed or the time is up, the loop looks again.
                let _ = timeout(COMPARISON, installed.changed()).await;
            }
        }
    }

    /// Has plans made without the tables that differ between the shards.
    async fn withdraw(&self, unlike: &[Problem]) {
        if self.unlike.load().as_slice() == unlike {
            return;
        }
        let mut reader = self.reader.lock().await;
        self.unlike.store(Arc::new(unlike.to_vec()));
        let raw = Arc::clone(&reader.raw);
        self.install(&mut reader, raw);
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
            reader.sources.clear();
            reader.digest = None;
        }
        result
    }

    async fn try_update(&self, reader: &mut Reader) -> Result<(), ControlError> {
        let server = self
            .pick()
            .ok_or_else(|| ControlError::answer("no server to read it from is in service"))?;
        let source = self.open(reader, server).await?;
        let homes = homes::shards(&self.database, &reader.raw, server.shard);
        let mut digest = queries::digest(source.control.client()).await?;
        for shard in &homes {
            digest.push_str(&self.digest_of_home(reader, *shard).await);
        }
        let is_new = reader.digest.as_deref() != Some(digest.as_str());
        let loaded = match is_new {
            true => {
                let known = &reader.raw.built_in;
                Some(load(source.control.client(), &self.database, known).await?)
            }
            false => None,
        };
        reader.sources.insert(server.shard, source);
        if let Some(mut raw) = loaded {
            let all_homes = homes::shards(&self.database, &raw, server.shard);
            self.add_homes(reader, &mut raw, &all_homes).await;
            self.learn_oids(reader).await;
            self.learn_roles(reader).await;
            // With a home more the digest is not comparable: the next look reads again.
            let is_done = all_homes == homes && raw.definitions.is_some();
            self.install(reader, Arc::new(raw));
            reader.digest = is_done.then_some(digest);
        }
        Ok(())
    }

    /// A connection to a server: the one of last time if it is as good as new. It is taken out while in
    /// use, so whoever drops a future midway leaves no half-read connection behind.
    async fn open(
        &self,
        reader: &mut Reader,
        server: &Arc<Server>,
    ) -> Result<Source, ControlError> {
        let generation = server.generation();
        let kept = reader.sources.remove(&server.shard).filter(|source| {
            Arc::ptr_eq(&source.server, server)
                && source.generation == generation
                && !source.control.client().is_closed()
        });
        Ok(match kept {
            Some(source) => source,
            None => Source {
                generation,
                control: self.dialer.connect(&server.address).await?,
                server: Arc::clone(server),
            },
        })
    }

    /// The digest of another home shard; a constant while it can't be read.
    async fn digest_of_home(&self, reader: &mut Reader, shard: usize) -> String {
        let Some(server) = self.server_of(shard) else {
            return " away".to_owned();
        };
        let digest = async {
            let source = self.open(reader, server).await?;
            let digest = queries::digest(source.control.client()).await?;
            reader.sources.insert(shard, source);
            Ok::<_, ControlError>(digest)
        };
        digest.await.unwrap_or_else(|error| {
            tracing::debug!(%server, %error, "home tables can't be looked at");
            " away".to_owned()
        })
    }

    /// Adds the home tables of other shards; of one that can't be read, as they were.
    async fn add_homes(&self, reader: &mut Reader, raw: &mut RawCatalog, homes: &BTreeSet<usize>) {
        for &shard in homes {
            let read = async {
                let server = self
                    .server_of(shard)
                    .ok_or_else(|| ControlError::answer("no server of the shard is in service"))?;
                let source = self.open(reader, server).await?;
                let known = &raw.built_in;
                let other = load(source.control.client(), &self.database, known).await?;
                reader.sources.insert(shard, source);
                Ok::<_, ControlError>(other)
            };
            match read.await {
                Ok(other) => homes::merge(raw, &self.database, shard, &other),
                Err(error) => {
                    tracing::debug!(shard, %error, "home tables can't be read");
                    homes::merge(raw, &self.database, shard, &reader.raw);
                }
            }
        }
    }

    /// Puts a catalogue in place.
    fn install(&self, reader: &mut Reader, raw: Arc<RawCatalog>) {
        reader.epoch += 1;
        let unlike = self.unlike.load();
        let (catalog, problems) =
            Catalog::build_beside(reader.epoch, &raw, &self.database, &unlike);
        let known = self.problems.load();
        for problem in problems.iter().filter(|p| !known.contains(p)) {
            tracing::error!(database = self.database.name, %problem, "table can't be served");
        }
        reader.raw = raw;
        self.problems.store(Arc::new(problems));
        self.catalog.store(Arc::new(catalog));
        self.metrics.count_reload(&self.database.name);
        self.installed.send_replace(reader.epoch);
    }

    /// The server to read from: one of the first shard, or before anything was read of any shard.
    fn pick(&self) -> Option<&Arc<Server>> {
        let shards = if self.epoch() == 0 {
            self.sets.len()
        } else {
            1
        };
        (0..shards).find_map(|shard| self.server_of(shard))
    }

    /// A shard's primary, or else any of its servers in service.
    fn server_of(&self, shard: usize) -> Option<&Arc<Server>> {
        let set = self.sets.get(shard)?;
        let mut others = set.servers().iter();
        set.primary()
            .or_else(|| others.find(|server| server.state().usable()))
    }
}
