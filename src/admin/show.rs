//! SHOW SHARDWIRE …: the proxy's state as ordinary rows.

use std::sync::Arc;

use crate::admin::table::{Kind, Table, Value};
use crate::config;
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::sqlstate::SqlState;
use crate::topology::{Role, Topology};

use Kind::{Bool, Int4, Int8, Text, Timestamptz};

/// What `SHOW SHARDWIRE` can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The shards and their slots.
    Shards,
    /// The servers and their state.
    Servers,
    /// The server connections.
    Pools,
    /// The sessions.
    Clients,
    /// The placement of tables.
    Tables,
    /// The plans that are kept.
    Plans,
    /// Open and prepared transactions.
    Transactions,
    /// The configuration in force.
    Config,
}

impl View {
    /// All of them, by their nouns.
    pub const ALL: [(&str, View); 8] = [
        ("SHARDS", View::Shards),
        ("SERVERS", View::Servers),
        ("POOLS", View::Pools),
        ("CLIENTS", View::Clients),
        ("TABLES", View::Tables),
        ("PLANS", View::Plans),
        ("TRANSACTIONS", View::Transactions),
        ("CONFIG", View::Config),
    ];

    /// The view of this noun, in upper case.
    ///
    /// # Errors
    /// `42704` for a noun that does not exist.
    pub fn named(noun: &str) -> Result<View> {
        let found = View::ALL.iter().find(|(name, _)| *name == noun);
        found.map(|(_, view)| *view).ok_or_else(|| {
            let names: Vec<&str> = View::ALL.iter().map(|(name, _)| *name).collect();
            Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!("SHOW SHARDWIRE {noun} does not exist"),
            )
            .hint(format!("There are {}.", names.join(", ")))
        })
    }

    /// Its columns, without rows.
    pub fn empty(self) -> Table {
        Table::new(match self {
            View::Shards => &[
                ("shard", Text),
                ("slots", Text),
                ("servers", Int8),
                ("primary", Text),
            ],
            View::Servers => &[
                ("shard", Text),
                ("server", Text),
                ("zone", Text),
                ("role", Text),
                ("state", Text),
                ("rtt_us", Int8),
                ("lag_bytes", Int8),
                ("detail", Text),
            ],
            View::Pools => &[
                ("shard", Text),
                ("server", Text),
                ("open", Int8),
                ("idle", Int8),
                ("in_use", Int8),
                ("waiting", Int8),
            ],
            View::Clients => &[
                ("pid", Int4),
                ("user", Text),
                ("database", Text),
                ("address", Text),
                ("state", Text),
                ("connected", Timestamptz),
                ("shards", Text),
                ("servers", Text),
                ("transactions", Int8),
                ("queries", Int8),
                ("application_name", Text),
                ("tls", Bool),
            ],
            View::Tables => &[
                ("table", Text),
                ("placement", Text),
                ("shard_key", Text),
                ("method", Text),
            ],
            View::Plans => &[
                ("query", Text),
                ("route", Text),
                ("access", Text),
                ("hits", Int8),
                ("epoch", Int8),
            ],
            View::Transactions => &[
                ("gid", Text),
                ("pid", Int4),
                ("user", Text),
                ("database", Text),
                ("state", Text),
                ("shards", Text),
                ("started", Timestamptz),
                ("age_ms", Int8),
            ],
            View::Config => &[
                ("name", Text),
                ("value", Text),
                ("default", Text),
                ("source", Text),
            ],
        })
    }
}

/// The shards of a database.
pub fn shards(database: &config::Database, topology: &Topology) -> Table {
    let mut table = View::Shards.empty();
    for (shard, set) in database.shards.iter().zip(topology.shards()) {
        let runs = shard
            .slots
            .iter()
            .map(|run| format!("{}-{}", run.start(), run.end()));
        let primary = set.primary().map(|server| server.address.to_string());
        table.rows.push(vec![
            shard.name.as_str().into(),
            runs.collect::<Vec<_>>().join(", ").into(),
            shard.servers.len().into(),
            primary.into(),
        ]);
    }
    table
}

/// The servers of a database.
pub fn servers(topology: &Topology) -> Table {
    let mut table = View::Servers.empty();
    for server in topology.shards().iter().flat_map(|set| set.servers()) {
        let state = server.state();
        let role = state.role.map(|role| match role {
            Role::Primary => "primary",
            Role::Secondary => "secondary",
        });
        let rtt = u64::try_from(state.rtt.as_micros()).unwrap_or(u64::MAX);
        table.rows.push(vec![
            server.shard_name.to_string().into(),
            server.address.to_string().into(),
            server.zone.clone().into(),
            role.into(),
            state.health.word().into(),
            rtt.into(),
            state.lag.bytes.into(),
            state.why_out().into(),
        ]);
    }
    table
}

/// The pools of a database, by shard and server.
pub fn pools(topology: &Topology, pools: &[Vec<Arc<Pool>>]) -> Table {
    let mut table = View::Pools.empty();
    for (set, pools) in topology.shards().iter().zip(pools) {
        for (server, pool) in set.servers().iter().zip(pools) {
            let counts = pool.counts();
            let numbers = [counts.open, counts.idle, counts.leased, counts.waiting];
            let mut row: Vec<Value> = vec![
                server.shard_name.to_string().into(),
                server.address.to_string().into(),
            ];
            row.extend(numbers.map(Value::from));
            table.rows.push(row);
        }
    }
    table
}

/// The placement of a database's tables.
pub fn tables(database: &config::Database) -> Table {
    let mut table = View::Tables.empty();
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
                ("sharded".to_owned(), Some(key.join(", ")), Some(method))
            }
        };
        table.rows.push(vec![
            name.into(),
            placement.into(),
            key.into(),
            method.into(),
        ]);
    }
    table
}
