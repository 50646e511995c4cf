//! The top level of proxy.yaml: listeners, users, TLS, limits, timeouts, logging.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::ClientTls;
use super::Config;
use super::Database;
use super::Limits;
use super::ListenAddress;
use super::Log;
use super::Sources;
use super::Timeouts;
use super::TlsMode;
use super::database;
use super::decode::Context;
use super::decode::Field;
use super::problem::Problem;
use super::problem::Problems;
use super::users;
use super::value;
use super::yaml;

/// Larger files are refused before they are read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The database of the operators' console.
const CONSOLE: &str = "shardwire";

/// Reads and checks a file.
pub(super) fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let text = read_file(path).map_err(|message| {
        let problem = Problem {
            path: String::new(),
            line: 0,
            column: 0,
            message,
            hint: None,
        };
        Problems::new(Some(path.to_owned()), vec![problem])
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    match parse(&text, Some(base), env) {
        Ok(mut config) => {
            config.sources.set_file(path);
            Ok(config)
        }
        Err(problems) => Err(Problems {
            file: Some(path.to_owned()),
            ..problems
        }),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let fault = |error: std::io::Error| format!("could not read the file: {error}");
    let file = std::fs::File::open(path).map_err(fault)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(fault)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("the file is larger than 4 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|b| **b == b'\n');
        format!("the file is not UTF-8, see line {}", line.count() + 1)
    })
}

/// Checks a text; with a base directory, the files it names too.
pub(super) fn parse(
    text: &str,
    base: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problems> {
    let (tree, problems) = yaml::read(text);
    let context = Context::new(env, base, problems);
    let config = tree.and_then(|tree| root(&context.root(&tree)));
    let (problems, sources) = context.into_findings();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { sources, ..config }),
        _ => Err(Problems::new(None, problems)),
    }
}

fn root(field: &Field<'_>) -> Option<Config> {
    let mut fields = field.fields("a map of settings")?;
    let listen = fields
        .get("listen")
        .map_or_else(default_listen, |field| listen(&field));
    let metrics = fields
        .get("metrics")
        .and_then(|field| metrics(&field, &listen));
    let auth_field = fields.get("auth");
    let (auth, nobody) = users::read(auth_field.as_ref(), fields.whole());
    let tls = fields.get("tls").map(|field| client_tls(&field));
    let tls = tls.unwrap_or_default();
    users::check_tls(&auth, &tls, auth_field.as_ref());
    let databases = fields
        .required("databases", "Name at least one database and its shards.")
        .map(|field| databases(&field));
    let mut all = databases.iter().flat_map(BTreeMap::values);
    if auth.query.is_none() && all.all(|database| database.auth_query.is_none()) {
        nobody.iter().for_each(users::nobody);
    }
    let (mut limits, mut timeouts, mut log) = <(Limits, Timeouts, Log)>::default();
    fields.read("limits", &mut limits, read_limits);
    fields.read("timeouts", &mut timeouts, read_timeouts);
    fields.read("log", &mut log, read_log);
    fields.finish();
    Some(Config {
        listen,
        metrics,
        auth,
        tls,
        databases: databases?,
        limits,
        timeouts,
        log,
        sources: Sources::default(),
    })
}

pub(super) fn default_listen() -> Vec<ListenAddress> {
    let address = SocketAddr::from(([127, 0, 0, 1], 6432));
    vec![ListenAddress::Tcp(address)]
}

fn listen(field: &Field<'_>) -> Vec<ListenAddress> {
    const WHAT: &str = "an address such as 127.0.0.1:6432, or a list of them";
    let items = field.one_or_more(WHAT).unwrap_or_default();
    if items.is_empty() {
        field.problem("nowhere to listen", None);
    }
    let mut addresses = Vec::new();
    for item in items {
        let Some(address) = item.parsed(WHAT, value::listen_address) else {
            continue;
        };
        let any_port = matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 0);
        if !any_port && addresses.contains(&address) {
            item.problem(format!("{} is listed twice", item.shown()), None);
        }
        addresses.push(address);
    }
    addresses
}

fn metrics(field: &Field<'_>, listen: &[ListenAddress]) -> Option<SocketAddr> {
    let what = "an address such as 127.0.0.1:9187";
    let address = field.parsed(what, value::tcp_listen_address)?;
    if address.port() != 0 && listen.contains(&ListenAddress::Tcp(address)) {
        let message = format!("{} already listens for clients", field.shown());
        field.problem(message, "Choose another port.".to_owned());
    }
    Some(address)
}

fn client_tls(field: &Field<'_>) -> ClientTls {
    let mut tls = ClientTls::default();
    let mut complete = false;
    if field.is_scalar() {
        tls.mode = field.word().unwrap_or(TlsMode::Off);
    } else if let Some(mut fields) =
        field.fields("a mode, or a map with mode, cert, key and client_ca")
    {
        tls.mode = TlsMode::Prefer;
        fields.read("mode", &mut tls.mode, Field::word);
        let (cert, key) = (fields.get("cert"), fields.get("key"));
        complete = cert.is_some() && key.is_some();
        let (ca, crl) = (fields.get("client_ca"), fields.get("client_crl"));
        if let Some(crl) = crl.as_ref().filter(|_| ca.is_none()) {
            let hint = "Name the authorities with client_ca.".to_owned();
            crl.key_problem("no certificates are asked for that could be revoked", hint);
        }
        tls.client_ca = ca.and_then(|field| field.file());
        tls.client_crl = crl.and_then(|field| field.file());
        tls.cert = cert.and_then(|field| field.file());
        tls.key = key.and_then(|field| field.file());
        fields.finish();
    } else {
        return tls;
    }
    if tls.mode != TlsMode::Off && !complete {
        field.key_problem(
            "TLS needs a certificate and its key",
            "Write { mode: prefer, cert: server.crt, key: server.key }, or off.".to_owned(),
        );
    }
    tls
}

fn databases(field: &Field<'_>) -> BTreeMap<String, Arc<Database>> {
    let mut databases = BTreeMap::new();
    let Some(entries) = field.entries("a map of databases") else {
        return databases;
    };
    if entries.is_empty() {
        field.problem("there is no database", "Name at least one.".to_owned());
    }
    for (name, field) in entries {
        if let Err(fault) = value::name(name) {
            let message = format!("the database's name {}", fault.what);
            field.key_problem(message, fault.hint.to_owned());
        }
        if name == CONSOLE {
            let hint = "Choose another name for clients; backend.database may stay.".to_owned();
            field.key_problem("\"shardwire\" is the name of the console", hint);
        }
        if let Some(database) = database::read(name, &field) {
            databases.insert(name.to_owned(), Arc::new(database));
        }
    }
    databases
}

fn read_limits(field: &Field<'_>) -> Option<Limits> {
    let mut fields = field.fields("a map of limits")?;
    let mut limits = Limits::default();
    let f = &mut fields;
    f.read("max_clients", &mut limits.max_clients, Field::count);
    f.read(
        "max_clients_per_user",
        &mut limits.max_clients_per_user,
        users::limit,
    );
    f.read(
        "max_clients_per_database",
        &mut limits.max_clients_per_database,
        users::limit,
    );
    f.read(
        "reserved_clients",
        &mut limits.reserved_clients,
        |field| match field.text("a number")?.as_str() {
            "0" => Some(0),
            _ => field.count(),
        },
    );
    if limits.reserved_clients >= limits.max_clients {
        let hint = "Make reserved_clients less than max_clients.".to_owned();
        field.key_problem("only administrators could come in", hint);
    }
    f.read("max_message", &mut limits.max_message_bytes, |field| {
        field.size(1 << 13..=1 << 30, "8KiB to 1GiB")
    });
    f.read("max_startup", &mut limits.max_startup_bytes, |field| {
        field.size(1 << 9..=1 << 20, "512B to 1MiB")
    });
    f.read("query_memory", &mut limits.query_memory_bytes, |field| {
        field.size(1 << 16..=1 << 40, "64KiB to 1TiB")
    });
    f.read("intermediate", &mut limits.intermediate_bytes, |field| {
        field.size(1 << 16..=1 << 50, "64KiB to 1PiB")
    });
    f.read(
        "prepared_statements_per_server",
        &mut limits.prepared_statements_per_server,
        Field::count,
    );
    f.read(
        "prepared_statements_per_client",
        &mut limits.prepared_statements_per_client,
        Field::count,
    );
    f.read(
        "plan_cache_entries",
        &mut limits.plan_cache_entries,
        Field::count,
    );
    f.read("sequence_block", &mut limits.sequence_block, Field::count);
    f.read("query_parse", &mut limits.query_parse_bytes, |field| {
        field.size(1 << 10..=1 << 30, "1KiB to 1GiB")
    });
    fields.finish();
    Some(limits)
}

fn read_timeouts(field: &Field<'_>) -> Option<Timeouts> {
    let mut fields = field.fields("a map of durations")?;
    let mut timeouts = Timeouts::default();
    let f = &mut fields;
    f.read("login", &mut timeouts.login, Field::duration);
    f.read("connect", &mut timeouts.connect, Field::duration);
    f.read(
        "idle_client",
        &mut timeouts.idle_client,
        |field| match field.text("a duration such as 1h, or off")?.as_str() {
            "off" => Some(None),
            _ => field.duration().map(Some),
        },
    );
    f.read("shutdown", &mut timeouts.shutdown, Field::duration);
    f.read(
        "probe_interval",
        &mut timeouts.probe_interval,
        Field::duration,
    );
    f.read(
        "probe_timeout",
        &mut timeouts.probe_timeout,
        Field::duration,
    );
    fields.finish();
    Some(timeouts)
}

fn read_log(field: &Field<'_>) -> Option<Log> {
    let mut fields = field.fields("a map with format and level")?;
    let mut log = Log::default();
    fields.read("format", &mut log.format, Field::word);
    fields.read("level", &mut log.level, |field| {
        let text = field.text("a log level")?;
        field.parsed("a log level", value::log_level).map(|()| text)
    });
    fields.finish();
    Some(log)
}
