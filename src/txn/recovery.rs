//! Ends what other proxies, or an earlier life of this one, have left prepared.
//!
//! Every proxy looks at what is prepared on the primaries of its shards. What is of this cluster and
//! older than [`AGE`] by the server's own clock is ended as its deciding shard says, after an insert of
//! `'abort'` there that does nothing if there is a decision. So any number of proxies may do it at once,
//! while the coordinator is slow or comes back; see [`crate::txn::commit`]. What is not ours is never
//! touched. A deciding shard that can't be asked leaves its transactions in doubt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::backend::settings::quote_literal;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::topology::{Control, ControlError, Topology};
use crate::txn::gid::{Branch, Gid};

/// A commit takes milliseconds; what is older has lost its coordinator, or waits for it in vain.
const AGE: Duration = Duration::from_secs(2);
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// One server's answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two clean-ups of decisions.
const CLEANING: Duration = Duration::from_secs(60);

/// Decisions that may go: of commits that are long over, and of aborts whose coordinator, had it frozen,
/// is not going to come back. Whoever has lost the answer to a commit asks within [`DOUBT`].
const CLEAN: &str = "DELETE FROM shardwire.decisions WHERE gid IN (SELECT gid FROM shardwire.decisions \
     WHERE decided_at < pg_catalog.clock_timestamp() - CASE decision WHEN 'commit' \
     THEN interval '10 minutes' ELSE interval '7 days' END AND NOT gid = ANY ($1) LIMIT 10000)";

/// How long after the decision an answer of [`decide`] can be believed: decisions are kept for longer.
pub const DOUBT: Duration = Duration::from_secs(60);

const LIST: &str = "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 \
     FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() \
     AND gid LIKE 'shardwire\\_%'";

/// What the deciding shard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The transaction is committed.
    Commit,
    /// It is not, and never will be.
    Abort,
}

/// Makes sure that there is a decision, and returns it.
///
/// # Errors
/// As the server says: `55P03` while the deciding commit is under way. It must be asked again then.
pub async fn decide(client: &Client, gid: &Gid) -> Result<Decision, ControlError> {
    let fence = gid.fence();
    let gid = quote_literal(&gid.to_string());
    let sql = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '1s'; \
         SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_advisory_xact_lock({fence}); \
         INSERT INTO shardwire.decisions (gid, decision, decided_at) \
         VALUES ({gid}, 'abort', pg_catalog.clock_timestamp()) ON CONFLICT DO NOTHING; \
         SELECT decision FROM shardwire.decisions WHERE gid = {gid}; COMMIT"
    );
    let messages = match client.simple_query(&sql).await {
        Ok(messages) => messages,
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            return Err(error.into());
        }
    };
    // The first row is that of the lock.
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match rows.last() {
        Some("commit") => Ok(Decision::Commit),
        Some("abort") => Ok(Decision::Abort),
        _ => Err(ControlError::answer("the decision can't be read")),
    }
}

/// Ends what is prepared under this name, if anything is.
///
/// # Errors
/// As the server says: `55000` while somebody else ends it.
pub async fn finish(client: &Client, name: &str, decision: Decision) -> Result<(), ControlError> {
    let name = quote_literal(name);
    let owner = format!(
        "SELECT owner, owner = current_user FROM pg_catalog.pg_prepared_xacts WHERE gid = {name}"
    );
    let messages = client.simple_query(&owner).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else { return Ok(()) };
    let is_own = row.get(1) == Some("t");
    if !is_own {
        // Only who has prepared it, or a superuser, may end it.
        let owner = row.get(0).unwrap_or_default().replace('"', "\"\"");
        let _ = client.batch_execute(&format!("SET ROLE \"{owner}\"")).await;
    }
    let verb = match decision {
        Decision::Commit => "COMMIT",
        Decision::Abort => "ROLLBACK",
    };
    let sql = format!("{verb} PREPARED {name}");
    let ended = client.batch_execute(&sql).await;
    if !is_own {
        client.batch_execute("RESET ROLE").await?;
    }
    match ended.map_err(ControlError::from) {
        // Somebody else was faster.
        Err(error) if error.code() == Some(SqlState::UNDEFINED_OBJECT.as_str()) => Ok(()),
        ended => ended,
    }
}

/// Metrics of every recovery of a process; registered once.
#[derive(Clone)]
pub struct RecoveryMetrics {
    prepared: IntGaugeVec,
    age: GaugeVec,
    recovered: IntCounterVec,
}

impl RecoveryMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// `XX000` when they are registered already.
    pub fn register(metrics: &Metrics) -> Result<RecoveryMetrics> {
        let labels = &["database", "shard"];
        Ok(RecoveryMetrics {
            prepared: metrics.integers(
                "transactions_in_doubt",
                "Prepared transactions of Shardwire that are overdue.",
                labels,
            )?,
            age: metrics.gauges(
                "transactions_in_doubt_seconds",
                "Age of the oldest prepared transaction of Shardwire.",
                labels,
            )?,
            recovered: metrics.counters(
                "transactions_recovered_total",
                "Prepared transactions that this proxy has ended for their coordinator.",
                &["database", "decision"],
            )?,
        })
    }
}

/// One prepared transaction of ours.
#[derive(Clone, Debug)]
struct Found {
    shard: ShardIndex,
    name: String,
    branch: Branch,
    age: f64,
}

/// A connection to a shard's primary that is kept.
#[derive(Default)]
struct Line {
    /// The server, by its index in the replica set, and the connection.
    kept: Option<(usize, Control)>,
}

/// The recovery of one database; see [`Recovery::start`].
pub struct Recovery {
    topology: Arc<Topology>,
    metrics: RecoveryMetrics,
    lines: Vec<Line>,
    cleaned: Instant,
}

impl Recovery {
    /// Starts a task that lives as long as what is returned. Must be called in a Tokio runtime.
    pub fn start(topology: &Arc<Topology>, metrics: &RecoveryMetrics) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let lines = topology.shards().iter().map(|_| Line::default());
        let recovery = Recovery {
            lines: lines.collect(),
            topology: Arc::clone(topology),
            metrics: metrics.clone(),
            cleaned: Instant::now(),
        };
        // With one shard nothing is ever prepared.
        if recovery.lines.len() > 1 {
            tasks.spawn(recovery.run());
        }
        tasks
    }

    async fn run(mut self) {
        loop {
            sleep(INTERVAL).await;
            self.round().await;
        }
    }

    async fn round(&mut self) {
        let topology = Arc::clone(&self.topology);
        let lines = self.lines.iter_mut().enumerate();
        let listed = join_all(lines.map(|(shard, line)| line.list(&topology, shard))).await;
        let mut all = Vec::new();
        let is_complete = listed.iter().all(Option::is_some);
        for (shard, found) in listed.into_iter().enumerate() {
            let Some(found) = found else { continue };
            self.show(shard, &found);
            all.extend(found);
        }
        let mut decisions = HashMap::new();
        for found in &all {
            if found.age >= AGE.as_secs_f64() {
                self.end(found, &mut decisions).await;
            }
        }
        if is_complete && self.cleaned.elapsed() >= CLEANING {
            self.cleaned = Instant::now();
            self.clean(&all).await;
        }
    }

    fn show(&self, shard: ShardIndex, found: &[Found]) {
        let database = self.topology.database();
        let name = database.shards.get(shard).map_or("", |shard| &shard.name);
        let labels = [database.name.as_str(), name];
        let overdue = found.iter().filter(|one| one.age >= AGE.as_secs_f64());
        let count = i64::try_from(overdue.count()).unwrap_or(i64::MAX);
        let oldest = found.iter().map(|one| one.age).fold(0.0, f64::max);
        let RecoveryMetrics { prepared, age, .. } = &self.metrics;
        prepared.with_label_values(&labels).set(count);
        age.with_label_values(&labels).set(oldest);
    }

    /// Ends one prepared transaction, if it can be known how.
    async fn end(&mut self, found: &Found, decisions: &mut HashMap<String, Option<Decision>>) {
        let gid = found.branch.gid.to_string();
        let decision = match decisions.get(&gid) {
            Some(known) => *known,
            None => {
                let decision = self.ask(found).await;
                decisions.insert(gid.clone(), decision);
                decision
            }
        };
        let Some(decision) = decision else { return };
        let Some(line) = self.lines.get_mut(found.shard) else {
            return;
        };
        let Some((_, control)) = &line.kept else {
            return;
        };
        match timeout(LIMIT, finish(control.client(), &found.name, decision)).await {
            Ok(Ok(())) => {
                let word = match decision {
                    Decision::Commit => "commit",
                    Decision::Abort => "abort",
                };
                let labels = [self.topology.database().name.as_str(), word];
                self.metrics.recovered.with_label_values(&labels).inc();
                tracing::info!(gid, decision = word, "a prepared transaction was ended");
            }
            Ok(Err(error)) => tracing::warn!(gid, %error, "a prepared transaction stays in doubt"),
            Err(_) => line.kept = None,
        }
    }

    /// What the deciding shard says; none if it can't be known now.
    async fn ask(&mut self, found: &Found) -> Option<Decision> {
        let topology = Arc::clone(&self.topology);
        let decider = &found.branch.decider;
        let mut shards = topology.database().shards.iter();
        let Some(shard) = shards.position(|shard| shard.name == *decider) else {
            tracing::warn!(gid = %found.branch, "no shard has the name of the one that decides");
            return None;
        };
        let line = self.lines.get_mut(shard)?;
        let control = line.connected(&topology, shard).await?;
        match timeout(LIMIT, decide(control.client(), &found.branch.gid)).await {
            Ok(Ok(decision)) => Some(decision),
            Ok(Err(error)) => {
                tracing::warn!(gid = %found.branch, %error, "the deciding shard can't say yet");
                None
            }
            Err(_) => {
                line.kept = None;
                None
            }
        }
    }

    /// Forgets decisions that nobody is going to ask for.
    async fn clean(&mut self, prepared: &[Found]) {
        let gids = prepared.iter().map(|found| found.branch.gid.to_string());
        let gids: Vec<String> = gids.collect();
        for line in &mut self.lines {
            if let Some((_, control)) = &line.kept {
                match timeout(LIMIT, control.client().execute(CLEAN, &[&gids])).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "decisions can't be cleaned up"),
                    Err(_) => line.kept = None,
                }
            }
        }
    }
}

impl Line {
    /// The connection to the shard's primary.
    async fn connected(&mut self, topology: &Topology, shard: ShardIndex) -> Option<&Control> {
        let primary = topology.shards().get(shard)?.primary()?.index;
        if self
            .kept
            .as_ref()
            .is_none_or(|(index, control)| *index != primary || control.client().is_closed())
        {
            self.kept = None;
            let control = topology.control(shard).await.ok()?;
            self.kept = Some((primary, control));
        }
        self.kept.as_ref().map(|(_, control)| control)
    }

    /// What of ours is prepared on a shard; none if it can't be asked.
    async fn list(&mut self, topology: &Topology, shard: ShardIndex) -> Option<Vec<Found>> {
        let set = topology.shards().get(shard)?;
        let cluster = set.primary()?.state().cluster.clone();
        let control = self.connected(topology, shard).await?;
        let listed = timeout(LIMIT, control.client().query(LIST, &[])).await;
        let Ok(Ok(rows)) = listed else {
            self.kept = None;
            return None;
        };
        let mut found = Vec::new();
        for row in rows {
            let name: String = row.try_get(0).ok()?;
            let branch = Branch::read(&name);
            let of_us = |branch: &Branch| Some(branch.gid.cluster()) == cluster.as_deref();
            if let Some(branch) = branch.filter(of_us) {
                let age = row.try_get(1).ok()?;
                found.push(Found {
                    shard,
                    name,
                    branch,
                    age,
                });
            }
        }
        Some(found)
    }
}
