//! What the console shows: the tables of PgBouncer 1.24, their columns in its order and of its types.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin::table::{Kind, Table, Value};
use crate::backend::member::Member;
use crate::config::{Address, PoolMode, Word};
use crate::net::stream::Peer;
use crate::pool::Counts;
use crate::session::activity::{Identity, State};
use crate::session::console::stats;
use crate::session::control::{Control, Sessions};
use crate::session::database::Database;
use crate::session::operations::Serving;
use crate::wire::format;

use Kind::{Int4, Int8, Numeric, Text};

/// The version of PgBouncer whose tables these are.
const LIKE: &str = "1.24.0";

/// A table of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Our version, and whose console it is like.
    Version,
    /// The sessions.
    Clients,
    /// The server connections.
    Servers,
    /// Both.
    Sockets,
    /// Clients and server connections of each database.
    Pools,
    /// What has been done: totals and averages.
    Stats,
    /// Totals alone.
    StatsTotals,
    /// Averages alone.
    StatsAverages,
    /// Sums over all databases.
    Totals,
    /// The databases.
    Databases,
    /// The users.
    Users,
    /// How many there are of what.
    Lists,
    /// The configuration.
    Config,
    /// Memory.
    Mem,
    /// Whether anything is paused.
    State,
    /// Host names that are kept: none.
    DnsHosts,
    /// Zones of host names: none.
    DnsZones,
    /// Peers: none.
    Peers,
    /// Their pools: none.
    PeerPools,
}

const NOUNS: [(&str, View); 20] = [
    ("VERSION", View::Version),
    ("CLIENTS", View::Clients),
    ("SERVERS", View::Servers),
    ("SOCKETS", View::Sockets),
    ("ACTIVE_SOCKETS", View::Sockets),
    ("POOLS", View::Pools),
    ("STATS", View::Stats),
    ("STATS_TOTALS", View::StatsTotals),
    ("STATS_AVERAGES", View::StatsAverages),
    ("TOTALS", View::Totals),
    ("DATABASES", View::Databases),
    ("USERS", View::Users),
    ("LISTS", View::Lists),
    ("CONFIG", View::Config),
    ("MEM", View::Mem),
    ("STATE", View::State),
    ("DNS_HOSTS", View::DnsHosts),
    ("DNS_ZONES", View::DnsZones),
    ("PEERS", View::Peers),
    ("PEER_POOLS", View::PeerPools),
];

const SOCKET: &[(&str, Kind)] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int4),
    ("id", Int4),
];

const POOLS: &[(&str, Kind)] = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int4),
    ("cl_waiting", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active", Int4),
    ("sv_active_cancel", Int4),
    ("sv_being_canceled", Int4),
    ("sv_idle", Int4),
    ("sv_used", Int4),
    ("sv_tested", Int4),
    ("sv_login", Int4),
    ("maxwait", Int4),
    ("maxwait_us", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
];

const DATABASES: &[(&str, Kind)] = &[
    ("name", Text),
    ("host", Text),
    ("port", Int4),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
    ("reserve_pool_size", Int4),
    ("server_lifetime", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
    ("max_connections", Int4),
    ("current_connections", Int4),
    ("max_client_connections", Int4),
    ("current_client_connections", Int4),
    ("paused", Int4),
    ("disabled", Int4),
];

const USERS: &[(&str, Kind)] = &[
    ("name", Text),
    ("pool_size", Text),
    ("reserve_pool_size", Text),
    ("pool_mode", Text),
    ("max_user_connections", Int4),
    ("current_connections", Int4),
    ("max_user_client_connections", Int4),
    ("current_client_connections", Int4),
];

impl View {
    /// The view of a noun in upper case.
    pub fn named(noun: &str) -> Option<View> {
        let found = NOUNS.iter().find(|(name, _)| *name == noun);
        found.map(|(_, view)| *view)
    }

    /// Every noun.
    pub fn nouns() -> String {
        let names: Vec<&str> = NOUNS.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Its columns, without rows.
    pub fn empty(self) -> Table {
        Table::new(match self {
            View::Version => &[("version", Text)],
            View::Clients | View::Servers | View::Sockets => SOCKET,
            View::Pools => POOLS,
            View::Stats => stats::BOTH,
            View::StatsTotals | View::StatsAverages => stats::EITHER,
            View::Totals => &[("name", Text), ("value", Numeric)],
            View::Databases => DATABASES,
            View::Users => USERS,
            View::Lists => &[("list", Text), ("items", Int4)],
            View::Config => &[
                ("key", Text),
                ("value", Text),
                ("default", Text),
                ("changeable", Text),
            ],
            View::Mem => &[
                ("name", Text),
                ("size", Int4),
                ("used", Int4),
                ("free", Int4),
                ("memtotal", Int4),
            ],
            View::State => &[("key", Text), ("value", Text)],
            View::DnsHosts => &[("hostname", Text), ("ttl", Int8), ("addrs", Text)],
            View::DnsZones => &[("zonename", Text), ("serial", Int8), ("count", Int4)],
            View::Peers => &[
                ("peer_id", Int4),
                ("host", Text),
                ("port", Int4),
                ("pool_size", Int4),
            ],
            View::PeerPools => &[
                ("peer_id", Int4),
                ("cl_active_cancel_req", Int4),
                ("cl_waiting_cancel_req", Int4),
                ("sv_active_cancel", Int4),
                ("sv_login", Int4),
            ],
        })
    }

    /// It with its rows.
    pub fn table(self, sessions: &Sessions, serving: &Serving) -> Table {
        let mut table = self.empty();
        let databases = || serving.databases.values();
        match self {
            View::Version => {
                let own = env!("CARGO_PKG_VERSION");
                let version = format!("PgBouncer {LIKE} (Shardwire {own})");
                table.rows.push(vec![version.into()]);
            }
            View::Clients => table.rows = clients(sessions),
            View::Servers => table.rows = databases().flat_map(|d| servers(d, sessions)).collect(),
            View::Sockets => {
                table.rows = clients(sessions);
                table
                    .rows
                    .extend(databases().flat_map(|d| servers(d, sessions)));
            }
            View::Pools => table.rows = databases().map(|d| pools(d, sessions)).collect(),
            View::Stats => table.rows = stats::both(sessions, serving),
            View::StatsTotals => table.rows = stats::totals(sessions, serving),
            View::StatsAverages => table.rows = stats::averages(sessions, serving),
            View::Totals => table.rows = stats::sums(sessions, serving),
            View::Databases => {
                table.rows = databases()
                    .map(|d| database(d, sessions, serving))
                    .collect();
            }
            View::Users => table.rows = users(sessions, serving),
            View::Lists => table.rows = lists(sessions, serving),
            View::Config => table.rows = settings(serving),
            View::Mem => table.rows = memory(serving),
            View::State => {
                let is_paused = databases().all(|database| database.gate.is_closed());
                let word = |is: bool| Value::from(if is { "yes" } else { "no" });
                table.rows.push(vec!["active".into(), word(!is_paused)]);
                table.rows.push(vec!["paused".into(), word(is_paused)]);
                table.rows.push(vec!["suspended".into(), word(false)]);
            }
            View::DnsHosts | View::DnsZones | View::Peers | View::PeerPools => {}
        }
        table
    }
}

/// A moment as PgBouncer writes it.
fn moment(since: Duration) -> Value {
    let iso = format::iso(since);
    format!("{} UTC", iso.get(..19).unwrap_or_default()).into()
}

/// An address and its port.
fn ends(peer: Peer) -> [Value; 2] {
    match peer {
        Peer::Tcp(address) => [
            address.ip().to_string().into(),
            u32::from(address.port()).into(),
        ],
        Peer::Local | Peer::Gone => ["unix".into(), 0_u32.into()],
    }
}

/// What stands for the address of an object: unique among those of its kind.
fn pointer(kind: &str, number: i32) -> String {
    format!("{kind}{number:x}")
}

fn tls_word(tls: bool) -> Value {
    if tls { "TLS".into() } else { "".into() }
}

fn clients(sessions: &Sessions) -> Vec<Vec<Value>> {
    let now = Instant::now();
    let all = sessions.all();
    all.iter()
        .filter_map(|control| Some(client(control, control.activity.identity()?, now)))
        .collect()
}

fn client(control: &Control, identity: &Identity, now: Instant) -> Vec<Value> {
    let activity = &control.activity;
    let request = activity.request();
    let state = activity.state();
    let wait = match (state, request) {
        (State::Waiting, Some(request)) => (now - identity.began)
            .checked_sub(request)
            .unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let word = match state {
        State::Idle => "idle",
        State::Waiting => "waiting",
        State::Active | State::InTransaction | State::Failed => "active",
    };
    let link = control
        .links()
        .first()
        .map(|(_, process)| pointer("s", *process));
    let mut row: Vec<Value> = vec![
        "C".into(),
        identity.user.as_str().into(),
        identity.database.as_str().into(),
        "none".into(),
        word.into(),
    ];
    row.extend(ends(identity.peer));
    row.extend(ends(identity.local));
    row.extend([
        moment(identity.since),
        moment(identity.since + request.unwrap_or_default()),
        wait.as_secs().into(),
        wait.subsec_micros().into(),
        0_u32.into(),
        pointer("c", control.process_id).into(),
        link.unwrap_or_default().into(),
        0_u32.into(),
        tls_word(identity.tls),
        activity.application_name().into(),
        activity.prepared().into(),
        control.process_id.into(),
    ]);
    row
}

fn servers(database: &Database, sessions: &Sessions) -> Vec<Vec<Value>> {
    let all = sessions.all();
    let mut rows = Vec::new();
    for pool in database.pools().iter().flatten() {
        for member in pool.members() {
            let works_for = |control: &&Arc<Control>| {
                control.links().iter().any(|(other, process)| {
                    Arc::ptr_eq(other, pool) && *process == member.process_id
                })
            };
            let client = all.iter().find(works_for);
            rows.push(server(database, &member, client));
        }
    }
    rows
}

fn server(database: &Database, member: &Member, client: Option<&Arc<Control>>) -> Vec<Value> {
    let (state, link, application, request) = match client {
        Some(control) => {
            let activity = &control.activity;
            let identity = activity.identity();
            let login = identity.map_or(member.since, |identity| identity.since);
            (
                "active",
                pointer("c", control.process_id),
                activity.application_name(),
                login + activity.request().unwrap_or_default(),
            )
        }
        None => ("idle", String::new(), String::new(), member.since),
    };
    let mut row: Vec<Value> = vec![
        "S".into(),
        (*member.role).into(),
        database.config.name.as_str().into(),
        "none".into(),
        state.into(),
    ];
    row.extend(ends(member.peer));
    row.extend(ends(member.local));
    row.extend([
        moment(member.since),
        moment(request.max(member.since)),
        0_u32.into(),
        0_u32.into(),
        0_u32.into(),
        pointer("s", member.process_id).into(),
        link.into(),
        member.process_id.into(),
        tls_word(member.tls),
        application.into(),
        member.statements().into(),
        member.process_id.into(),
    ]);
    row
}

/// The counts of a database's pools, together.
fn counts(database: &Database) -> Counts {
    let mut sum = Counts::default();
    for pool in database.pools().iter().flatten() {
        let counts = pool.counts();
        sum.idle += counts.idle;
        sum.leased += counts.leased;
        sum.open += counts.open;
        sum.waiting += counts.waiting;
        sum.longest_wait = sum.longest_wait.max(counts.longest_wait);
    }
    sum
}

/// The sessions of a database, or of a user.
fn sessions_where(sessions: &Sessions, wanted: impl Fn(&Identity) -> bool) -> Vec<Arc<Control>> {
    let mut all = sessions.all();
    all.retain(|control| control.activity.identity().is_some_and(&wanted));
    all
}

fn mode(mode: PoolMode) -> Value {
    mode.word().into()
}

fn pools(database: &Database, sessions: &Sessions) -> Vec<Value> {
    let config = &database.config;
    let clients = sessions_where(sessions, |one| one.database == config.name);
    let waiting = |control: &&Arc<Control>| control.activity.state() == State::Waiting;
    let waiting = clients.iter().filter(waiting).count();
    let counts = counts(database);
    let login = counts.open.saturating_sub(counts.idle + counts.leased);
    let none = || Value::from(0_u32);
    vec![
        config.name.as_str().into(),
        config.backend.user.as_str().into(),
        (clients.len() - waiting).into(),
        waiting.into(),
        none(),
        none(),
        counts.leased.into(),
        none(),
        none(),
        counts.idle.into(),
        none(),
        none(),
        login.into(),
        counts.longest_wait.as_secs().into(),
        counts.longest_wait.subsec_micros().into(),
        mode(config.pool.mode),
        Value::Null,
    ]
}

fn database(database: &Database, sessions: &Sessions, serving: &Serving) -> Vec<Value> {
    let config = &database.config;
    let servers = || config.shards.iter().flat_map(|shard| &shard.servers);
    let hosts: Vec<String> = servers()
        .map(|server| match &server.address {
            Address::Tcp { host, .. } => host.clone(),
            Address::Unix { directory, .. } => directory.display().to_string(),
        })
        .collect();
    let port = servers().next().map_or(0, |server| server.address.port());
    let clients = sessions_where(sessions, |one| one.database == config.name);
    let per_database = serving.config.limits.max_clients_per_database;
    let most = config.max_clients.or(per_database);
    vec![
        config.name.as_str().into(),
        hosts.join(",").into(),
        u32::from(port).into(),
        config.backend.database.as_str().into(),
        config.backend.user.as_str().into(),
        config.pool.max_size.into(),
        0_u32.into(),
        0_u32.into(),
        config.pool.max_lifetime.as_secs().into(),
        mode(config.pool.mode),
        Value::Null,
        (config.pool.max_size as usize * servers().count()).into(),
        counts(database).open.into(),
        most.unwrap_or(0).into(),
        clients.len().into(),
        u32::from(database.gate.is_closed()).into(),
        u32::from(database.gate.is_disabled()).into(),
    ]
}

fn users(sessions: &Sessions, serving: &Serving) -> Vec<Vec<Value>> {
    let config = &serving.config;
    let row = |(name, user): (&String, &crate::config::User)| {
        let clients = sessions_where(sessions, |one| one.user == *name);
        let connections: usize = clients.iter().map(|control| control.links().len()).sum();
        let most = user.max_clients.or(config.limits.max_clients_per_user);
        vec![
            name.as_str().into(),
            "".into(),
            "".into(),
            Value::Null,
            0_u32.into(),
            connections.into(),
            most.unwrap_or(0).into(),
            clients.len().into(),
        ]
    };
    config.auth.users.iter().map(row).collect()
}

fn lists(sessions: &Sessions, serving: &Serving) -> Vec<Vec<Value>> {
    let databases = serving.databases.values();
    let open: u32 = databases.map(|database| counts(database).open).sum();
    let all = sessions.count();
    let known = sessions_where(sessions, |_| true).len();
    let none = Value::from(0_u32);
    let number = |number: usize| Value::from(number);
    [
        ("databases", number(serving.databases.len())),
        ("users", number(serving.config.auth.users.len())),
        ("peers", none.clone()),
        ("pools", number(serving.databases.len())),
        ("peer_pools", none.clone()),
        ("free_clients", none.clone()),
        ("used_clients", number(known)),
        ("login_clients", number(all.saturating_sub(known))),
        ("free_servers", none.clone()),
        ("used_servers", open.into()),
        ("dns_names", none.clone()),
        ("dns_zones", none.clone()),
        ("dns_queries", none.clone()),
        ("dns_pending", none),
    ]
    .into_iter()
    .map(|(name, items)| vec![name.into(), items])
    .collect()
}

/// Our settings, and behind them those that exporters look for by PgBouncer's names.
fn settings(serving: &Serving) -> Vec<Vec<Value>> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for setting in serving.config.settings() {
        let is_fixed = matches!(setting.path.as_str(), "listen" | "metrics");
        rows.push(vec![
            setting.path.into(),
            setting.value.into(),
            setting.default.into(),
            if is_fixed { "no" } else { "yes" }.into(),
        ]);
    }
    let limits = &serving.config.limits;
    let per_user = limits.max_clients_per_user.unwrap_or(0);
    for (key, value) in [
        ("max_client_conn", limits.max_clients.to_string()),
        ("max_user_client_connections", per_user.to_string()),
        ("max_user_connections", "0".to_owned()),
    ] {
        rows.push(vec![key.into(), value.into(), Value::Null, "yes".into()]);
    }
    rows
}

fn memory(serving: &Serving) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for (name, database) in &serving.databases {
        let kept = database.plans().len();
        let most = database.limits.plan_cache_entries as usize;
        rows.push(vec![
            format!("plans_{name}").into(),
            Value::from(0_u32),
            kept.into(),
            most.saturating_sub(kept).into(),
            Value::from(0_u32),
        ]);
    }
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    if let Some(resident) = resident {
        const PAGE: u64 = 4096;
        rows.push(vec![
            "process".into(),
            PAGE.into(),
            resident.into(),
            Value::from(0_u32),
            (resident * PAGE).into(),
        ]);
    }
    rows
}
