//! The proxy's prepared transactions: what a shard keeps until it learns how they end.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::timeout;

use super::Control;
use super::ControlError;
use super::Topology;
use crate::sharding::ShardIndex;

/// For one server's answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Those of any Shardwire in this database; their names begin alike.
const QUERY: &str = "SELECT gid, owner::text, prepared FROM pg_catalog.pg_prepared_xacts \
     WHERE database = pg_catalog.current_database() AND gid LIKE 'shardwire%' ORDER BY prepared";

/// A transaction of ours that is prepared on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedTransaction {
    /// Its name.
    pub gid: String,
    /// The role that prepared it.
    pub owner: String,
    /// The shard.
    pub shard: String,
    /// When it was prepared, since 1970-01-01 UTC, by the server's clock.
    pub since: Duration,
}

impl Topology {
    /// A connection of the control plane to a shard's primary.
    ///
    /// # Errors
    /// That there is none, or what kept it from connecting.
    pub async fn control(&self, shard: ShardIndex) -> Result<Control, ControlError> {
        let primary = self.shards().get(shard).and_then(|set| set.primary());
        let primary = primary.ok_or_else(|| ControlError::answer("the shard has no primary"))?;
        self.dialer.connect(&primary.address).await
    }

    /// What is prepared on the primaries of the shards, as they say now. A shard that can't be asked is
    /// left out and logged.
    pub async fn prepared_transactions(&self) -> Vec<PreparedTransaction> {
        let mut all = Vec::new();
        for set in self.shards() {
            let Some(primary) = set.primary() else {
                continue;
            };
            let asked = async {
                let control = self.dialer.connect(&primary.address).await?;
                prepared_on(&control, &set.name).await
            };
            let answer = timeout(LIMIT, asked).await;
            match answer.unwrap_or_else(|_| Err(ControlError::timed_out("asking", LIMIT))) {
                Ok(found) => all.extend(found),
                Err(error) => {
                    tracing::warn!(%error, server = %primary.address, "prepared transactions can't be listed");
                }
            }
        }
        all
    }
}

async fn prepared_on(
    control: &Control,
    shard: &str,
) -> Result<Vec<PreparedTransaction>, ControlError> {
    let rows = control.client().query(QUERY, &[]).await?;
    let mut found = Vec::new();
    for row in rows {
        let at: std::time::SystemTime = row.try_get(2)?;
        found.push(PreparedTransaction {
            gid: row.try_get(0)?,
            owner: row.try_get(1)?,
            shard: shard.to_owned(),
            since: at.duration_since(UNIX_EPOCH).unwrap_or_default(),
        });
    }
    Ok(found)
}
