//! A sharded, replicated cluster with the proxy in front, and one PostgreSQL with all rows beside.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::{env, fs};

use shardwire::demo::postgres::{Binaries, Options, Port, Server, Template};

use super::process::Ports;
use super::{Endpoint, Proxy};

/// Role of clients and of the proxy on the servers; no superuser.
pub const USER: &str = "app";
/// Its password, on both sides.
pub const PASSWORD: &str = "app-secret";
/// Database on every server and of the proxy.
pub const DATABASE: &str = "app";
/// Slots of the hash placement.
const SLOTS: usize = 16_384;

/// How the rows of a table are placed.
#[derive(Clone)]
struct Table {
    name: String,
    /// Its value in proxy.yaml.
    yaml: String,
    /// For each shard the SQL condition that its rows meet.
    rows: Rows,
}

#[derive(Clone)]
enum Rows {
    /// By PostgreSQL's own hashes of these columns, computed by PostgreSQL.
    Hashed(Vec<String>),
    /// By a condition per shard.
    Where(Vec<String>),
    Everywhere,
    Home(usize),
}

/// What a test wants.
#[derive(Clone)]
pub struct Builder {
    shards: usize,
    secondaries: usize,
    schema: String,
    rows: String,
    tables: Vec<Table>,
    top: Vec<(String, String)>,
    database: Vec<(String, String)>,
    settings: Vec<(String, String)>,
    trust: bool,
    proxy: bool,
}

/// One slice of the data.
pub struct Shard {
    pub primary: Server,
    pub secondaries: Vec<Server>,
}

/// Servers, proxy and oracle. Fields drop in order: the proxy goes first.
pub struct Cluster {
    pub proxy: Option<Proxy>,
    pub shards: Vec<Shard>,
    pub oracle: Server,
    builder: Builder,
    directory: PathBuf,
    ports: Arc<Ports>,
}

/// The data directory that all servers of this test process are copied from.
pub fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let binaries = Binaries::find().unwrap();
        let template = Template::initdb(&binaries, "test", &["--locale=C.UTF-8"]).unwrap();
        let role = format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'");
        let database = format!("CREATE DATABASE {DATABASE} OWNER {USER}");
        template.prepare("postgres", &[&role, &database]).unwrap();
        template
    })
}

/// A name that no other server of this process has.
fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Builder {
    /// Slices of the data; one by default.
    pub fn shards(mut self, count: usize) -> Builder {
        self.shards = count;
        self
    }

    /// Secondaries of each shard; none by default.
    pub fn secondaries(mut self, count: usize) -> Builder {
        self.secondaries = count;
        self
    }

    /// DDL that runs on every shard and on the oracle, as the role `app`.
    pub fn schema(mut self, script: &str) -> Builder {
        self.schema.push_str(script);
        self.schema.push_str(";\n");
        self
    }

    /// A script that runs on the oracle only; the rows it leaves are then spread over the shards.
    pub fn rows(mut self, script: &str) -> Builder {
        self.rows.push_str(script);
        self.rows.push_str(";\n");
        self
    }

    /// A table whose rows are spread by the hash of these columns.
    pub fn sharded(self, name: &str, key: &[&str]) -> Builder {
        let key: Vec<String> = key.iter().map(|column| (*column).to_owned()).collect();
        let yaml = format!("{{ shard_key: [{}] }}", key.join(", "));
        self.table(name, yaml, Rows::Hashed(key))
    }

    /// A table with any rule: its YAML, and for each shard the condition that its rows meet.
    pub fn placed(self, name: &str, yaml: &str, conditions: &[&str]) -> Builder {
        let conditions = conditions.iter().map(|text| (*text).to_owned()).collect();
        self.table(name, yaml.to_owned(), Rows::Where(conditions))
    }

    /// A table with the same rows on every shard.
    pub fn replicated(self, name: &str) -> Builder {
        self.table(name, "{ replicated: true }".to_owned(), Rows::Everywhere)
    }

    /// A table on one shard.
    pub fn home(self, name: &str, shard: usize) -> Builder {
        self.table(name, format!("{{ shard: s{shard} }}"), Rows::Home(shard))
    }

    fn table(mut self, name: &str, yaml: String, rows: Rows) -> Builder {
        self.tables.push(Table {
            name: name.to_owned(),
            yaml,
            rows,
        });
        self
    }

    /// A key of proxy.yaml and its value, instead of the harness's own.
    pub fn config(mut self, key: &str, yaml: &str) -> Builder {
        self.top.push((key.to_owned(), yaml.to_owned()));
        self
    }

    /// A key of the database's part of proxy.yaml and its value.
    pub fn database(mut self, key: &str, yaml: &str) -> Builder {
        self.database.push((key.to_owned(), yaml.to_owned()));
        self
    }

    /// A setting of every server.
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Nobody asks for passwords: for tests that log in hundreds of times.
    pub fn trust(mut self) -> Builder {
        self.trust = true;
        self.config(
            "auth",
            &format!("{{ method: trust, users: {{ {USER}: {{}} }} }}"),
        )
    }

    /// No proxy is started: the test does it itself.
    pub fn without_proxy(mut self) -> Builder {
        self.proxy = false;
        self
    }

    /// Starts everything, in parallel, and returns when the proxy serves.
    pub fn start(self) -> Cluster {
        let options = Options {
            settings: self.settings.clone(),
            ..Options::default()
        };
        let (shards, oracle) = thread::scope(|scope| {
            let oracle = scope.spawn(|| self.start_oracle(&options));
            let shards: Vec<_> = (0..self.shards)
                .map(|shard| (&self, &options, shard))
                .map(|(builder, options, shard)| {
                    scope.spawn(move || builder.start_shard(shard, options))
                })
                .collect();
            let shards: Vec<Shard> = shards
                .into_iter()
                .map(|shard| shard.join().unwrap())
                .collect();
            (shards, oracle.join().unwrap())
        });
        let directory = template().directory().join(unique("proxy"));
        fs::create_dir(&directory).unwrap();
        let mut cluster = Cluster {
            proxy: None,
            shards,
            oracle,
            directory,
            ports: Ports::reserve(),
            builder: self,
        };
        if cluster.builder.trust {
            cluster.trust();
        }
        cluster.spread();
        cluster.catch_up();
        cluster.write_config(&cluster.yaml());
        if cluster.builder.proxy && !bypassed() {
            cluster.start_proxy();
        }
        cluster
    }

    fn start_oracle(&self, options: &Options) -> Server {
        let oracle = Server::primary(template(), &unique("oracle"), options).unwrap();
        run_as_user(&oracle, &format!("{}{}", self.schema, self.rows));
        oracle
    }

    fn start_shard(&self, shard: usize, options: &Options) -> Shard {
        let name = unique(&format!("s{shard}"));
        let primary = Server::primary(template(), &name, options).unwrap();
        let secondary = |number| {
            let name = format!("{name}-secondary{number}");
            Server::secondary_of(&primary, &name, options).unwrap()
        };
        let secondaries = (0..self.secondaries).map(secondary).collect();
        run_as_user(&primary, &self.schema);
        Shard {
            primary,
            secondaries,
        }
    }
}

impl Cluster {
    /// One shard without secondaries or tables.
    #[allow(
        clippy::new_ret_no_self,
        reason = "reads as what it is for: Cluster::new()….start()"
    )]
    pub fn new() -> Builder {
        Builder {
            shards: 1,
            secondaries: 0,
            schema: String::new(),
            rows: String::new(),
            tables: Vec::new(),
            top: Vec::new(),
            database: Vec::new(),
            settings: Vec::new(),
            trust: false,
            proxy: true,
        }
    }

    /// Where clients reach the proxy.
    pub fn proxy(&self) -> Endpoint {
        if bypassed() {
            return self.shard(0);
        }
        endpoint(self.ports.clients.number())
    }

    /// Where clients reach the single PostgreSQL with all rows.
    pub fn oracle(&self) -> Endpoint {
        endpoint(self.oracle.port())
    }

    /// A shard's primary, past the proxy.
    pub fn shard(&self, shard: usize) -> Endpoint {
        endpoint(self.shards[shard].primary.port())
    }

    /// The proxy's process.
    pub fn process(&mut self) -> &mut Proxy {
        self.proxy.as_mut().unwrap()
    }

    /// The directory that holds the proxy's file and log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts the proxy, on the file as it stands.
    pub fn start_proxy(&mut self) {
        self.proxy = Some(Proxy::start(&self.directory, self.proxy(), &self.ports));
    }

    /// Starts another proxy in front of the same servers.
    pub fn another_proxy(&self) -> Proxy {
        let directory = template().directory().join(unique("proxy"));
        fs::create_dir(&directory).unwrap();
        let ports = Ports::reserve();
        let address = |port: &Port| format!("127.0.0.1:{}\n", port.number());
        let mut yaml = self.yaml();
        for (own, other) in [
            (&self.ports.clients, &ports.clients),
            (&self.ports.metrics, &ports.metrics),
        ] {
            yaml = yaml.replace(&address(own), &address(other));
        }
        fs::write(directory.join("proxy.yaml"), yaml).unwrap();
        Proxy::start(&directory, endpoint(ports.clients.number()), &ports)
    }

    /// Replaces the proxy's file.
    pub fn write_config(&self, yaml: &str) {
        fs::write(self.directory.join("proxy.yaml"), yaml).unwrap();
    }

    /// The proxy's file for this cluster.
    pub fn yaml(&self) -> String {
        let user =
            format!("{{ method: scram-sha-256, users: {{ {USER}: {{ password: {PASSWORD} }} }} }}");
        let mut top = vec![
            (
                "listen".to_owned(),
                format!("127.0.0.1:{}", self.ports.clients.number()),
            ),
            (
                "metrics".to_owned(),
                format!("127.0.0.1:{}", self.ports.metrics.number()),
            ),
            ("auth".to_owned(), user),
            (
                "timeouts".to_owned(),
                "{ probe_interval: 200ms, probe_timeout: 2s }".to_owned(),
            ),
        ];
        let backend = format!("{{ database: {DATABASE}, user: {USER}, password: {PASSWORD} }}");
        let mut database = vec![("backend".to_owned(), backend)];
        merge(&mut top, &self.builder.top);
        merge(&mut database, &self.builder.database);
        let mut out = String::new();
        for (key, value) in top {
            let _ = writeln!(out, "{key}: {value}");
        }
        let _ = writeln!(out, "databases:\n  {DATABASE}:");
        for (key, value) in database {
            let _ = writeln!(out, "    {key}: {value}");
        }
        out.push_str("    shards:\n");
        for (number, shard) in self.shards.iter().enumerate() {
            let _ = writeln!(out, "      - name: s{number}");
            let _ = writeln!(out, "        primary: 127.0.0.1:{}", shard.primary.port());
            let address = |server: &Server| format!("\"127.0.0.1:{}\"", server.port());
            let secondaries: Vec<String> = shard.secondaries.iter().map(address).collect();
            if !secondaries.is_empty() {
                let _ = writeln!(out, "        secondaries: [{}]", secondaries.join(", "));
            }
        }
        if !self.builder.tables.is_empty() {
            out.push_str("    tables:\n");
        }
        for table in &self.builder.tables {
            let _ = writeln!(out, "      {}: {}", table.name, table.yaml);
        }
        out
    }

    fn trust(&self) {
        let shards = self.shards.iter();
        let members = shards.flat_map(|shard| shard.secondaries.iter().chain([&shard.primary]));
        for server in members.chain([&self.oracle]) {
            let rules = server.data_directory().join("pg_hba.conf");
            fs::write(
                rules,
                "local all all trust\nhost all all 127.0.0.1/32 trust\n",
            )
            .unwrap();
            server.psql(DATABASE, "SELECT pg_reload_conf()").unwrap();
        }
    }

    /// Copies the oracle's rows to the shards that own them.
    fn spread(&self) {
        for table in &self.builder.tables {
            for (number, shard) in self.shards.iter().enumerate() {
                let (functions, condition) = self.condition(table, number);
                let name = &table.name;
                let select =
                    format!("{functions} COPY (SELECT * FROM {name} WHERE {condition}) TO STDOUT;");
                let rows = self.oracle.psql(DATABASE, &select).unwrap();
                if !rows.is_empty() {
                    let script = format!(
                        "SET session_replication_role = replica;\nCOPY {name} FROM STDIN;\n{rows}\\.\n"
                    );
                    shard.primary.psql(DATABASE, &script).unwrap();
                }
            }
        }
    }

    /// Every shard has the rows of the oracle that belong there, and no others.
    pub fn same_data(&self) {
        for table in &self.builder.tables {
            for (number, shard) in self.shards.iter().enumerate() {
                let (functions, condition) = self.condition(table, number);
                let name = &table.name;
                let rows = |condition: &str| {
                    format!(
                        "{functions} COPY (SELECT * FROM {name} WHERE {condition} \
                         ORDER BY {name}::text COLLATE \"C\") TO STDOUT;"
                    )
                };
                let wanted = self.oracle.psql(DATABASE, &rows(&condition)).unwrap();
                let got = shard.primary.psql(DATABASE, &rows("true")).unwrap();
                assert_eq!(got, wanted, "rows of {name} on shard {number}");
            }
        }
    }

    /// Functions to make first, and the condition that the rows of a shard meet.
    fn condition(&self, table: &Table, shard: usize) -> (String, String) {
        let condition = match &table.rows {
            Rows::Everywhere => "true".to_owned(),
            Rows::Home(home) => (*home == shard).to_string(),
            Rows::Where(conditions) => conditions[shard].clone(),
            Rows::Hashed(key) => {
                let (functions, slot) = self.slot(&table.name, key);
                let start = |shard: usize| shard * SLOTS / self.shards.len();
                let (first, end) = (start(shard), start(shard + 1));
                return (functions, format!("{slot} >= {first} AND {slot} < {end}"));
            }
        };
        (String::new(), condition)
    }

    /// The slot of a row in SQL. PostgreSQL's own extended hash functions are found in its
    /// catalogue; they are wrapped, because not all can be called with their type as they are.
    fn slot(&self, table: &str, key: &[String]) -> (String, String) {
        let mut functions = String::new();
        let mut hash = "0".to_owned();
        for column in key {
            let ask = format!(
                "SELECT f.prosrc, t.typname FROM pg_attribute a \
                 JOIN pg_type d ON d.oid = a.atttypid \
                 CROSS JOIN LATERAL (SELECT CASE d.typtype WHEN 'd' THEN d.typbasetype ELSE d.oid END) AS b (oid) \
                 JOIN pg_type t ON t.oid = CASE WHEN b.oid IN (20, 21, 23) THEN 20 \
                                WHEN b.oid = 1043 THEN 25 ELSE b.oid END \
                 JOIN pg_opclass c ON c.opcmethod = 405 AND c.opcdefault AND c.opcintype = t.oid \
                 JOIN pg_amproc p ON p.amprocfamily = c.opcfamily AND p.amproclefttype = t.oid \
                                 AND p.amprocnum = 2 \
                 JOIN pg_proc f ON f.oid = p.amproc \
                 WHERE a.attrelid = '{table}'::regclass AND a.attname = '{column}'"
            );
            let found = self.oracle.psql(DATABASE, &ask).unwrap();
            let (symbol, kind) = found.trim().split_once('|').unwrap_or_else(|| {
                panic!("{table}.{column} has no hash function");
            });
            let _ = writeln!(
                functions,
                "CREATE OR REPLACE FUNCTION pg_temp.key_hash({kind}, bigint) RETURNS bigint \
                 LANGUAGE internal IMMUTABLE AS '{symbol}';"
            );
            hash = format!("pg_temp.key_hash({column}::{kind}, {hash})");
        }
        (functions, format!("({hash} & {})", SLOTS - 1))
    }

    /// Waits until every secondary has what its primary has.
    pub fn catch_up(&self) {
        for shard in &self.shards {
            for secondary in &shard.secondaries {
                secondary.catch_up(&shard.primary).unwrap();
            }
        }
    }
}

/// `BYPASS=1` sends clients to the first shard instead of the proxy: what fails then is the fault
/// of the test.
fn bypassed() -> bool {
    env::var_os("BYPASS").is_some()
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        port,
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        database: DATABASE.to_owned(),
    }
}

/// Later values win; the order of first mention stays.
fn merge(own: &mut Vec<(String, String)>, more: &[(String, String)]) {
    for (key, value) in more {
        match own.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1.clone_from(value),
            None => own.push((key.clone(), value.clone())),
        }
    }
}

/// Runs a script so that `app` owns what it makes.
pub fn run_as_user(server: &Server, script: &str) {
    if !script.trim().is_empty() {
        let script = format!("SET ROLE {USER};\n{script}");
        server.psql(DATABASE, &script).unwrap();
    }
}

/// Runs a script as the superuser.
pub fn run_as_superuser(server: &Server, script: &str) -> String {
    server.psql(DATABASE, script).unwrap()
}
