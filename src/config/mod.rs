//! What the operator wants: proxy.yaml read, checked as a whole and turned into types that are valid.
//!
//! A [`Config`] that exists is right as far as a file alone can tell; the rest of the program never
//! meets an unchecked value. The way from text to [`Config`]:
//!
//! 1. `yaml` turns the text into a tree in which every node knows its line and column,
//! 2. `decode` walks a tree and collects problems instead of stopping at the first one,
//! 3. `check`, `database` and `tables` read the sections with it, using the parsers of `value`.
//!
//! The tree comes from `saphyr-parser` and not from serde: serde stops at the first error, forgets
//! where a value stood, lets duplicate keys of maps pass and turns `1.50` into `1.5` before anybody
//! knows that text was wanted. Here a scalar stays text until its section says what it is, so `off`,
//! `007` and `5s` need no quotes and mean what they look like.

mod auth;
mod check;
mod database;
mod decode;
mod path;
mod problem;
mod secret;
mod show;
mod sources;
mod tables;
mod users;
mod value;
mod words;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use auth::Auth;
pub use auth::AuthMethod;
pub use auth::ClientCert;
pub use auth::ClientName;
pub use auth::ConnectionKind;
pub use auth::DatabaseName;
pub use auth::Mapping;
pub use auth::Network;
pub use auth::Password;
pub use auth::Role;
pub use auth::Rule;
pub use auth::User;
pub use problem::Problem;
pub use problem::Problems;
pub use secret::Secret;
pub use show::Setting;
pub use show::within_database;
pub use sources::Sources;
pub use words::Word;

/// Number of hash slots that the shards of a database share.
pub const SLOTS: u16 = 16_384;

/// The whole of proxy.yaml, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; never empty.
    pub listen: Vec<ListenAddress>,
    /// Where `/metrics`, `/healthz`, `/readyz` and the status page are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// How clients prove who they are.
    pub auth: Auth,
    /// TLS towards clients.
    pub tls: ClientTls,
    /// The databases clients can name; never empty.
    pub databases: BTreeMap<String, Arc<Database>>,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// Bounds on how long things may take.
    pub timeouts: Timeouts,
    /// Logging.
    pub log: Log,
    /// Where the values stand in the file.
    pub sources: Sources,
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The socket file itself: `<directory>/.s.PGSQL.<port>`, where libpq looks for it.
    Unix(PathBuf),
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether TLS is offered.
    pub mode: TlsMode,
    /// PEM file with the certificate chain; present unless the mode is off.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key; present unless the mode is off.
    pub key: Option<PathBuf>,
    /// PEM file with the authorities whose certificates clients may show; none asks for no certificate.
    pub client_ca: Option<PathBuf>,
    /// PEM file with lists of certificates that have been revoked.
    pub client_crl: Option<PathBuf>,
}

/// Whether clients may or must use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// SSLRequest is answered with `N`.
    Off,
    /// Clients choose.
    Prefer,
    /// A client without TLS is refused (unix sockets excepted).
    Require,
}

/// One database that clients can name, spread over its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The name clients use.
    pub name: String,
    /// What the servers are told at login.
    pub backend: Backend,
    /// Asked for users that the file does not name, instead of `auth.auth_query`.
    pub auth_query: Option<String>,
    /// Server connections kept.
    pub pool: Pool,
    /// Its clients at once, instead of `limits.max_clients_per_database`.
    pub max_clients: Option<u32>,
    /// Where this proxy runs; servers of the same zone are preferred.
    pub zone: Option<String>,
    /// The shards in the order of the file; never empty, names and addresses unique.
    pub shards: Vec<Shard>,
    /// Which servers reads may use.
    pub read_preference: ReadPreference,
    /// A secondary further behind than this serves no reads.
    pub max_staleness: Duration,
    /// What a session may expect of its reads.
    pub consistency: Consistency,
    /// Placement of tables.
    pub tables: Tables,
}

/// What the servers of a database are told at login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Database on the servers.
    pub database: String,
    /// Role on the servers.
    pub user: String,
    /// Its password; none for servers that trust the proxy or take its certificate.
    pub password: Option<Secret>,
    /// Clients have their own roles on the servers; `user` is for the proxy's own work.
    pub per_user: bool,
    /// TLS towards the servers.
    pub tls: BackendTls,
}

/// TLS towards servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// How much the proxy insists on.
    pub mode: BackendTlsMode,
    /// PEM file with the authorities to trust; none means those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file with the proxy's own certificate; together with `key` or not at all.
    pub cert: Option<PathBuf>,
    /// PEM file with the key of `cert`.
    pub key: Option<PathBuf>,
}

/// How much the proxy insists on towards servers, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendTlsMode {
    /// Plain text only.
    Off,
    /// TLS when the server has it, unverified.
    Prefer,
    /// TLS or nothing, unverified.
    Require,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// And be made out to the host that the file names.
    VerifyFull,
}

/// Server connections kept, for each server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// When a connection goes back to the pool.
    pub mode: PoolMode,
    /// Connections to one server, at most.
    pub max_size: u32,
    /// How long a client waits for a connection.
    pub queue_timeout: Duration,
    /// How many clients may wait for connections to one server.
    pub max_queue: u32,
    /// A connection unused for this long is closed.
    pub idle_timeout: Duration,
    /// A connection older than this is closed when it is next free.
    pub max_lifetime: Duration,
}

/// When a connection goes back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client goes.
    Session,
}

/// One slice of the data and the replica set that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Unique in its database.
    pub name: String,
    /// The members of the replica set; never empty.
    pub servers: Vec<Server>,
    /// The hash slots it owns, ascending and apart. The shards of a database own every slot once.
    pub slots: Vec<RangeInclusive<u16>>,
}

/// One PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: Address,
    /// Where it runs.
    pub zone: Option<String>,
    /// The role the file expects; the server itself has the last word.
    pub hint: Option<RoleHint>,
}

/// The role that the file expects a server to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleHint {
    /// Named under `primary`.
    Primary,
    /// Named under `secondaries`.
    Secondary,
}

/// Where a server listens. Hosts are lower case, IP addresses in their shortest form, so that equal
/// addresses compare equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A host name or IP address (IPv6 without brackets).
    Tcp {
        /// Name or address.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The socket `<directory>/.s.PGSQL.<port>`.
    Unix {
        /// Absolute directory.
        directory: PathBuf,
        /// Never 0.
        port: u16,
    },
}

/// Which servers reads may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPreference {
    /// The primary only.
    Primary,
    /// The primary, or a secondary when there is none.
    PrimaryPreferred,
    /// Secondaries only.
    Secondary,
    /// Secondaries, or the primary when none is fresh enough.
    SecondaryPreferred,
    /// Whichever answers fastest.
    Nearest,
}

/// What a session may expect of its reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every committed write is seen: reads use the primary.
    Strong,
    /// The session sees its own writes.
    Session,
    /// Whatever a server within `max_staleness` has.
    Eventual,
}

/// Placement of the tables of a database. A table named nowhere is a home table on the first shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// By `table` or `schema.table`, spelled as the catalog spells them.
    pub named: BTreeMap<String, TableRule>,
    /// `"*"`: every other table; when sharded, every other table that has the key's columns.
    pub wildcard: Option<TableRule>,
}

/// Where the rows of a table live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRule {
    /// Each row on the shard that its key names.
    Sharded {
        /// The key's columns in order; never empty, no column twice.
        key: Vec<String>,
        /// From key to shard.
        method: Method,
    },
    /// Every row on every shard.
    Replicated,
    /// All rows on one shard.
    Home {
        /// Index into [`Database::shards`].
        shard: usize,
    },
}

/// From a shard key to its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// By hash slot.
    Hash(HashKind),
    /// By listed values of a one-column key: shard index and its values as written. No value twice.
    List(Vec<(usize, Vec<String>)>),
    /// By ranges of a one-column key.
    Range(Vec<RangePart>),
}

/// The hash that makes slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// PostgreSQL's extended hash of the key's type with seed 0.
    Postgres,
    /// XXH3-64 over the canonical key bytes.
    Xxh3,
}

/// A range of keys on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePart {
    /// Index into [`Database::shards`].
    pub shard: usize,
    /// First key inside, as written; none is minus infinity.
    pub from: Option<String>,
    /// First key beyond, as written; none is plus infinity.
    pub to: Option<String>,
}

/// Bounds on what clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once.
    pub max_clients: u32,
    /// Client connections of one user at once; none is no limit of its own.
    pub max_clients_per_user: Option<u32>,
    /// Client connections to one database at once; none is no limit of its own.
    pub max_clients_per_database: Option<u32>,
    /// How many of `max_clients` are kept for `auth.administrators`; fewer than all.
    pub reserved_clients: u32,
    /// Length of one protocol message from a client, in bytes.
    pub max_message_bytes: u64,
    /// Length of a startup packet, in bytes.
    pub max_startup_bytes: u64,
    /// Memory one query may use in the proxy, in bytes.
    pub query_memory_bytes: u64,
    /// Rows that one query may have copied to the server that finishes it, in bytes.
    pub intermediate_bytes: u64,
    /// Prepared statements kept on one server connection.
    pub prepared_statements_per_server: u32,
    /// Prepared statements one client may hold.
    pub prepared_statements_per_client: u32,
    /// Plans kept for each database.
    pub plan_cache_entries: u32,
    /// Longer statements are not parsed, in bytes.
    pub query_parse_bytes: u64,
    /// Numbers of one sequence that the proxy takes at once, ahead of their use.
    pub sequence_block: u32,
}

/// Bounds on how long things may take. None is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From a client's connect to the end of its login.
    pub login: Duration,
    /// From dialling a server to the end of the proxy's login there.
    pub connect: Duration,
    /// A client idle outside a transaction for this long is closed; none is never.
    pub idle_client: Option<Duration>,
    /// From SIGTERM to closing the clients that are still there.
    pub shutdown: Duration,
    /// Between two probes of a server.
    pub probe_interval: Duration,
    /// A probe that takes longer has failed.
    pub probe_timeout: Duration,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Shape of a line.
    pub format: LogFormat,
    /// Levels as `tracing` writes them: `info`, or `info,shardwire::pool=debug`.
    pub level: String,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Reads and checks a file. Relative paths inside it are taken from its directory, and the files
    /// they name must be readable.
    ///
    /// # Errors
    /// Every problem of the file, or the one that kept it from being read.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
        check::load(path, env)
    }

    /// Checks a text. Relative paths inside it stay as they are.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
        check::parse(text, None, env)
    }
}

/// A duration with its unit, as the file writes it; for settings such as `shardwire.max_staleness`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    value::duration(text).ok()
}

impl Database {
    /// The index of the shard of this name.
    pub fn shard_index(&self, name: &str) -> Option<usize> {
        self.shards.iter().position(|shard| shard.name == name)
    }
}

impl Tables {
    /// The rule that names a table: `schema.table` before `table`. The wildcard is not consulted,
    /// because it depends on the table's columns.
    pub fn rule(&self, schema: &str, table: &str) -> Option<&TableRule> {
        self.named
            .get(&format!("{schema}.{table}"))
            .or_else(|| self.named.get(table))
    }
}

impl Address {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Address::Tcp { port, .. } | Address::Unix { port, .. } => *port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            mode: PoolMode::Transaction,
            max_size: 20,
            queue_timeout: Duration::from_secs(30),
            max_queue: 10_000,
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_clients: 10_000,
            max_clients_per_user: None,
            max_clients_per_database: None,
            reserved_clients: 0,
            max_message_bytes: 1 << 30,
            max_startup_bytes: 10_000,
            query_memory_bytes: 64 << 20,
            intermediate_bytes: 4 << 30,
            prepared_statements_per_server: 500,
            prepared_statements_per_client: 10_000,
            plan_cache_entries: 10_000,
            query_parse_bytes: 1 << 20,
            sequence_block: 100,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            login: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            idle_client: None,
            shutdown: Duration::from_secs(60),
            probe_interval: Duration::from_millis(500),
            probe_timeout: Duration::from_secs(2),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

impl Default for ClientTls {
    fn default() -> ClientTls {
        ClientTls {
            mode: TlsMode::Off,
            cert: None,
            key: None,
            client_ca: None,
            client_crl: None,
        }
    }
}

impl Default for BackendTls {
    fn default() -> BackendTls {
        BackendTls {
            mode: BackendTlsMode::Prefer,
            ca: None,
            cert: None,
            key: None,
        }
    }
}

#[cfg(test)]
mod tests;
