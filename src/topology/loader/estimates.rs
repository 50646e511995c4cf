//! Estimated rows per shard: whether the data lies evenly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Loader;
use super::compare::{Spread, spread_tables};
use crate::topology::control::ControlError;
use crate::topology::replica_set::ReplicaSet;

/// Between two estimates …
const PERIOD: Duration = Duration::from_secs(60);
/// … and after one that lacked a shard.
const RETRY: Duration = Duration::from_secs(5);
/// For the estimates of one shard.
const LIMIT: Duration = Duration::from_secs(30);

/// The statistics collector's count is the more recent; the planner's survives a crash.
const ROWS: &str = "
SELECT pg_catalog.concat(n.nspname, '.', c.relname),
       (SELECT pg_catalog.sum(CASE WHEN s.n_live_tup > 0 THEN s.n_live_tup
                                   WHEN l.reltuples > 0 THEN l.reltuples ELSE 0 END)
        FROM pg_catalog.pg_class l LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = l.oid
        WHERE l.oid = c.oid AND c.relkind = 'r'
           OR c.relkind = 'p' AND l.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf)
       )::pg_catalog.float8
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND pg_catalog.concat(n.nspname, '.', c.relname) = ANY ($1)";

/// Shows the estimated rows of every sharded table.
pub(in crate::topology) struct Estimates {
    loader: Arc<Loader>,
    /// The tables shown last.
    shown: BTreeSet<String>,
}

impl Estimates {
    pub fn new(loader: Arc<Loader>) -> Estimates {
        Estimates {
            loader,
            shown: BTreeSet::new(),
        }
    }

    /// Estimates for ever.
    pub async fn run(mut self) {
        let mut installed = self.loader.installed();
        // The sender lives in the loader, so it can't be gone.
        let _ = installed.wait_for(|epoch| *epoch > 0).await;
        loop {
            let all = self.round().await;
            sleep(if all { PERIOD } else { RETRY }).await;
        }
    }

    /// Tells whether every shard answered.
    async fn round(&mut self) -> bool {
        let mut answers = 0;
        let raw = Arc::clone(&self.loader.reader.lock().await.raw);
        let tables: Vec<String> = spread_tables(&self.loader.database, &raw)
            .filter(|(_, spread)| *spread == Spread::Sharded)
            .map(|(table, _)| table)
            .collect();
        let mut rows: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
        for set in self.loader.sets.iter() {
            match timeout(LIMIT, self.of_shard(set, &tables)).await {
                Ok(Ok(counts)) => {
                    answers += 1;
                    for table in &tables {
                        if let Some(count) = counts.get(table) {
                            rows.entry(table).or_default().push((&set.name, *count));
                        }
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(shard = &*set.name, %error, "rows can't be estimated");
                }
                Err(_) => tracing::debug!(shard = &*set.name, "rows can't be estimated in time"),
            }
        }
        let database = &self.loader.database.name;
        let shards: Vec<&str> = self.loader.sets.iter().map(|set| &*set.name).collect();
        // A ratio over some of the shards would mislead.
        rows.retain(|_, counts| counts.len() == shards.len());
        for (table, counts) in &rows {
            self.loader.metrics.show_rows(database, table, counts);
        }
        let shown: BTreeSet<String> = rows.keys().map(|table| (*table).to_owned()).collect();
        for gone in self.shown.difference(&shown) {
            self.loader.metrics.forget_rows(database, gone, &shards);
        }
        self.shown = shown;
        answers == shards.len()
    }

    async fn of_shard(
        &self,
        set: &ReplicaSet,
        tables: &[String],
    ) -> Result<BTreeMap<String, f64>, ControlError> {
        if tables.is_empty() {
            return Ok(BTreeMap::new());
        }
        let server = set
            .primary()
            .ok_or_else(|| ControlError::answer("the shard has no primary"))?;
        let control = self.loader.dialer.connect(&server.address).await?;
        let mut counts = BTreeMap::new();
        for row in control.client().query(ROWS, &[&tables]).await? {
            let count: Option<f64> = row.try_get(1)?;
            counts.insert(row.try_get(0)?, count.unwrap_or(0.0));
        }
        Ok(counts)
    }
}
