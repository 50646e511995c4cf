//! SHOW SHARDWIRE …: the proxy's state as ordinary rows.

use std::sync::Arc;

use crate::config;
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::sqlstate::SqlState;
use crate::topology::{Role, Topology};

/// Rows of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    fn new(columns: &[&str]) -> Table {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// What SHOW of one setting answers.
    pub fn setting(name: &str, value: String) -> Table {
        let mut table = Table::new(&[name]);
        table.rows.push(vec![Some(value)]);
        table
    }
}

/// Answers `SHOW SHARDWIRE noun`.
///
/// # Errors
/// `42704` for a noun that does not exist.
pub fn shardwire(
    noun: &str,
    database: &config::Database,
    topology: &Topology,
    pools: &[Vec<Arc<Pool>>],
) -> Result<Table> {
    match noun {
        "SHARDS" => Ok(shards(database, topology)),
        "SERVERS" => Ok(servers(topology)),
        "POOLS" => Ok(show_pools(topology, pools)),
        "TABLES" => Ok(tables(database)),
        _ => Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("SHOW SHARDWIRE {noun} does not exist"),
        )
        .hint("There are SHARDS, SERVERS, POOLS and TABLES.")),
    }
}

fn shards(database: &config::Database, topology: &Topology) -> Table {
    let mut table = Table::new(&["shard", "slots", "servers", "primary"]);
    for (shard, set) in database.shards.iter().zip(topology.shards()) {
        let runs = shard
            .slots
            .iter()
            .map(|run| format!("{}-{}", run.start(), run.end()));
        table.rows.push(vec![
            Some(shard.name.clone()),
            Some(runs.collect::<Vec<_>>().join(", ")),
            Some(shard.servers.len().to_string()),
            set.primary().map(|server| server.address.to_string()),
        ]);
    }
    table
}

fn servers(topology: &Topology) -> Table {
    let mut table = Table::new(&[
        "shard",
        "server",
        "zone",
        "role",
        "state",
        "rtt_us",
        "lag_bytes",
        "detail",
    ]);
    for server in topology.shards().iter().flat_map(|set| set.servers()) {
        let state = server.state();
        let role = state.role.map(|role| match role {
            Role::Primary => "primary".to_owned(),
            Role::Secondary => "secondary".to_owned(),
        });
        table.rows.push(vec![
            Some(server.shard_name.to_string()),
            Some(server.address.to_string()),
            server.zone.clone(),
            role,
            Some(state.health.word().to_owned()),
            Some(state.rtt.as_micros().to_string()),
            state.lag.bytes.map(|bytes| bytes.to_string()),
            state.why_out().map(str::to_owned),
        ]);
    }
    table
}

fn show_pools(topology: &Topology, pools: &[Vec<Arc<Pool>>]) -> Table {
    let mut table = Table::new(&["shard", "server", "open", "idle", "in_use", "waiting"]);
    for (set, pools) in topology.shards().iter().zip(pools) {
        for (server, pool) in set.servers().iter().zip(pools) {
            let counts = pool.counts();
            let numbers = [counts.open, counts.idle, counts.leased, counts.waiting];
            let mut row = vec![
                Some(server.shard_name.to_string()),
                Some(server.address.to_string()),
            ];
            row.extend(numbers.map(|number| Some(number.to_string())));
            table.rows.push(row);
        }
    }
    table
}

fn tables(database: &config::Database) -> Table {
    let mut table = Table::new(&["table", "placement", "shard_key", "method"]);
    let wildcard = database.tables.wildcard.as_ref().map(|rule| ("*", rule));
    let named = database
        .tables
        .named
        .iter()
        .map(|(name, rule)| (name.as_str(), rule));
    for (name, rule) in named.chain(wildcard) {
        let (placement, key, method) = match rule {
            config::TableRule::Replicated => ("replicated".to_owned(), None, None),
            config::TableRule::Home { shard } => {
                let shard = database
                    .shards
                    .get(*shard)
                    .map_or("?", |shard| shard.name.as_str());
                (format!("home on {shard}"), None, None)
            }
            config::TableRule::Sharded { key, method } => {
                let method = match method {
                    config::Method::Hash(_) => "hash",
                    config::Method::List(_) => "list",
                    config::Method::Range(_) => "range",
                };
                (
                    "sharded".to_owned(),
                    Some(key.join(", ")),
                    Some(method.to_owned()),
                )
            }
        };
        table
            .rows
            .push(vec![Some(name.to_owned()), Some(placement), key, method]);
    }
    table
}
