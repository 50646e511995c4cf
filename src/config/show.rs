//! The configuration in force, defaults included, as paths and values: what `SHOW SHARDWIRE CONFIG`
//! answers.

use std::collections::HashMap;
use std::sync::Arc;

use super::Auth;
use super::AuthMethod;
use super::BackendTls;
use super::ClientTls;
use super::Config;
use super::Consistency;
use super::Database;
use super::DatabaseName;
use super::HashKind;
use super::Limits;
use super::Log;
use super::Mapping;
use super::Method;
use super::Pool;
use super::RangePart;
use super::ReadPreference;
use super::Rule;
use super::Server;
use super::Shard;
use super::TableRule;
use super::Timeouts;
use super::check;
use super::database;
use super::path;
use super::value::format_duration;
use super::value::format_size;
use super::words::Word;

/// One value of the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// YAML path, as problems name it.
    pub path: String,
    /// The value in the notation of the file; `***` for passwords; lists are joined by commas.
    pub value: String,
    /// What it is unless the file says otherwise; none where the file must say it, or nothing is meant.
    pub default: Option<String>,
    /// Where it comes from: `proxy.yaml:12`, or `default`.
    pub source: String,
}

impl Setting {
    /// Whether it belongs to this database.
    pub fn is_of(&self, database: &str) -> bool {
        within_database(&self.path, database).is_some()
    }
}

/// What is left of a setting's path inside a database.
pub fn within_database<'a>(path: &'a str, database: &str) -> Option<&'a str> {
    let section = path::key("databases", database);
    path.strip_prefix(&section)?.strip_prefix('.')
}

/// A place in the tree that is being written down.
struct Section<'a> {
    path: String,
    settings: &'a mut Vec<Setting>,
}

impl Section<'_> {
    fn put(&mut self, key: &str, value: impl ToString) {
        self.settings.push(Setting {
            path: path::key(&self.path, key),
            value: value.to_string(),
            default: None,
            source: String::new(),
        });
    }

    fn put_some(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn section(&mut self, key: &str) -> Section<'_> {
        Section {
            path: path::key(&self.path, key),
            settings: self.settings,
        }
    }
}

impl Config {
    /// Everything in force, in the order of the annotated file.
    pub fn settings(&self) -> Vec<Setting> {
        let defaults: HashMap<String, String> = self
            .as_if_unset()
            .values()
            .into_iter()
            .map(|setting| (setting.path, setting.value))
            .collect();
        let mut settings = self.values();
        for setting in &mut settings {
            setting.default = defaults
                .get(&setting.path)
                .filter(|_| has_default(&setting.path))
                .cloned();
            let is_default = setting.default.as_ref() == Some(&setting.value);
            setting.source = self
                .sources
                .of(&setting.path, is_default)
                .unwrap_or_else(|| "default".to_owned());
        }
        settings
    }

    /// The same databases with every option that has a default at its default.
    fn as_if_unset(&self) -> Config {
        let mut config = self.clone();
        config.listen = check::default_listen();
        config.auth.method = Auth::default().method;
        config.tls = ClientTls::default();
        config.limits = Limits::default();
        config.timeouts = Timeouts::default();
        config.log = Log::default();
        for database in config.databases.values_mut() {
            let database = Arc::make_mut(database);
            database.backend.database.clone_from(&database.name);
            database.backend.tls = BackendTls::default();
            database.pool = Pool::default();
            database.read_preference = ReadPreference::Nearest;
            database.max_staleness = database::MAX_STALENESS;
            database.consistency = Consistency::Session;
            database.max_clients = None;
            for rule in database.tables.named.values_mut() {
                unset_hash(rule);
            }
            if let Some(rule) = &mut database.tables.wildcard {
                unset_hash(rule);
            }
        }
        config
    }

    /// Paths and values alone.
    fn values(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut root = Section {
            path: String::new(),
            settings: &mut settings,
        };
        root.put("listen", joined(&self.listen));
        root.put_some("metrics", self.metrics);
        show_auth(&mut root.section("auth"), &self.auth);
        let mut tls = root.section("tls");
        tls.put("mode", self.tls.mode.word());
        tls.put_some("cert", self.tls.cert.as_deref().map(|path| path.display()));
        tls.put_some("key", self.tls.key.as_deref().map(|path| path.display()));
        let files = [
            ("client_ca", &self.tls.client_ca),
            ("client_crl", &self.tls.client_crl),
        ];
        for (key, file) in files {
            tls.put_some(key, file.as_deref().map(|path| path.display()));
        }
        for (name, database) in &self.databases {
            show_database(&mut root.section("databases").section(name), database);
        }
        self.show_bounds(&mut root);
        settings
    }

    fn show_bounds(&self, root: &mut Section<'_>) {
        let mut limits = root.section("limits");
        let of = &self.limits;
        limits.put("max_clients", of.max_clients);
        limits.put("max_clients_per_user", limit(of.max_clients_per_user));
        let per_database = limit(of.max_clients_per_database);
        limits.put("max_clients_per_database", per_database);
        limits.put("reserved_clients", of.reserved_clients);
        limits.put("max_message", format_size(of.max_message_bytes));
        limits.put("max_startup", format_size(of.max_startup_bytes));
        limits.put("query_memory", format_size(of.query_memory_bytes));
        limits.put("intermediate", format_size(of.intermediate_bytes));
        limits.put("query_parse", format_size(of.query_parse_bytes));
        let per_server = of.prepared_statements_per_server;
        limits.put("prepared_statements_per_server", per_server);
        let per_client = of.prepared_statements_per_client;
        limits.put("prepared_statements_per_client", per_client);
        limits.put("plan_cache_entries", of.plan_cache_entries);
        limits.put("sequence_block", of.sequence_block);
        let mut timeouts = root.section("timeouts");
        let of = &self.timeouts;
        timeouts.put("login", format_duration(of.login));
        timeouts.put("connect", format_duration(of.connect));
        let idle = of.idle_client.map(format_duration);
        timeouts.put("idle_client", idle.unwrap_or_else(|| "off".to_owned()));
        timeouts.put("shutdown", format_duration(of.shutdown));
        timeouts.put("probe_interval", format_duration(of.probe_interval));
        timeouts.put("probe_timeout", format_duration(of.probe_timeout));
        let mut log = root.section("log");
        log.put("format", self.log.format.word());
        log.put("level", &self.log.level);
    }
}

fn show_auth(section: &mut Section<'_>, auth: &Auth) {
    section.put("method", auth.method.word());
    let mut users = section.section("users");
    for (name, user) in &auth.users {
        let mut section = users.section(name);
        let password = user.password.as_ref().map(|_| "***");
        section.put("password", password.unwrap_or(""));
        if let Some(role) = &user.backend {
            let mut backend = section.section("backend");
            backend.put("user", &role.user);
            backend.put_some("password", role.password.as_ref());
        }
        section.put_some("max_clients", user.max_clients);
    }
    for (index, rule) in auth.rules.iter().flatten().enumerate() {
        let path = path::index(&path::key(&section.path, "rules"), index);
        let settings = &mut *section.settings;
        show_rule_of_auth(&mut Section { path, settings }, rule);
    }
    let mut maps = section.section("maps");
    for (name, map) in &auth.maps {
        let mut section = maps.section(name);
        for Mapping { certificate, users } in map {
            section.put(certificate, joined(users));
        }
    }
    section.put_some("auth_query", auth.query.as_ref());
    section.put("auth_query_cache", format_duration(auth.query_cache));
    if !auth.administrators.is_empty() {
        let names: Vec<_> = auth.administrators.iter().collect();
        section.put("administrators", joined(&names));
    }
    if !auth.stats_users.is_empty() {
        let names: Vec<_> = auth.stats_users.iter().collect();
        section.put("stats_users", joined(&names));
    }
}

fn show_rule_of_auth(section: &mut Section<'_>, rule: &Rule) {
    section.put_some("type", rule.kind.map(Word::word));
    let database = |name: &DatabaseName| match name {
        DatabaseName::SameUser => "sameuser".to_owned(),
        DatabaseName::Named(name) => name.clone(),
    };
    let databases = rule.databases.as_ref();
    let databases = databases.map(|names| names.iter().map(database).collect::<Vec<_>>());
    section.put_some("database", databases.map(|names| joined(&names)));
    section.put_some("user", rule.users.as_deref().map(joined));
    section.put_some("address", rule.addresses.as_deref().map(joined));
    section.put("method", rule.method.word());
    section.put_some("clientcert", rule.client_cert.map(Word::word));
    if rule.method == AuthMethod::Cert || rule.client_cert.is_some() {
        section.put("clientname", rule.client_name.word());
    }
    section.put_some("map", rule.map.as_ref());
}

/// A limit as the file writes it.
fn limit(limit: Option<u32>) -> String {
    limit.map_or_else(|| "off".to_owned(), |most| most.to_string())
}

/// Whether a setting has a value without being named.
fn has_default(path: &str) -> bool {
    const NAMED: [&str; 8] = [
        "user",
        "password",
        "name",
        "servers",
        "slots",
        "shard_key",
        "shard",
        "replicated",
    ];
    let (rest, key) = path.rsplit_once('.').unwrap_or(("", path));
    let is_named = rest.starts_with("auth.rules") || rest.starts_with("auth.users");
    let is_map = is_named || rest.ends_with(".list") || rest.ends_with(".range");
    let is_optional = matches!(
        key,
        "metrics" | "zone" | "cert" | "key" | "ca" | "administrators" | "stats_users"
    );
    !NAMED.contains(&key) && !is_map && !is_optional
}

fn unset_hash(rule: &mut TableRule) {
    if let TableRule::Sharded {
        method: Method::Hash(kind),
        ..
    } = rule
    {
        *kind = HashKind::Postgres;
    }
}

fn show_database(section: &mut Section<'_>, database: &Database) {
    let mut backend = section.section("backend");
    backend.put("database", &database.backend.database);
    backend.put("user", &database.backend.user);
    backend.put_some("password", database.backend.password.as_ref());
    backend.put("per_user", database.backend.per_user);
    show_backend_tls(&mut backend.section("tls"), &database.backend.tls);
    section.put_some("auth_query", database.auth_query.as_ref());
    let mut pool = section.section("pool");
    let of = &database.pool;
    pool.put("mode", of.mode.word());
    pool.put("max_size", of.max_size);
    pool.put("queue_timeout", format_duration(of.queue_timeout));
    pool.put("max_queue", of.max_queue);
    pool.put("idle_timeout", format_duration(of.idle_timeout));
    pool.put("max_lifetime", format_duration(of.max_lifetime));
    section.put_some("max_clients", database.max_clients);
    section.put_some("zone", database.zone.as_ref());
    for (index, shard) in database.shards.iter().enumerate() {
        let path = path::index(&path::key(&section.path, "shards"), index);
        let settings = &mut *section.settings;
        show_shard(&mut Section { path, settings }, shard);
    }
    section.put("read_preference", database.read_preference.word());
    section.put("max_staleness", format_duration(database.max_staleness));
    section.put("consistency", database.consistency.word());
    let mut tables = section.section("tables");
    for (name, rule) in &database.tables.named {
        show_rule(&mut tables.section(name), rule, &database.shards);
    }
    if let Some(rule) = &database.tables.wildcard {
        show_rule(&mut tables.section("*"), rule, &database.shards);
    }
}

fn show_backend_tls(section: &mut Section<'_>, tls: &BackendTls) {
    section.put("mode", tls.mode.word());
    for (key, file) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
        section.put_some(key, file.as_deref().map(|path| path.display()));
    }
}

fn show_shard(section: &mut Section<'_>, shard: &Shard) {
    section.put("name", &shard.name);
    let shown = shard.servers.iter().map(|Server { address, zone, .. }| {
        let zone = zone.as_ref().map(|zone| format!(" ({zone})"));
        format!("{address}{}", zone.unwrap_or_default())
    });
    section.put("servers", joined(&shown.collect::<Vec<_>>()));
    let runs = shard.slots.iter();
    let runs: Vec<String> = runs
        .map(|run| format!("{}-{}", run.start(), run.end()))
        .collect();
    section.put("slots", joined(&runs));
}

fn show_rule(section: &mut Section<'_>, rule: &TableRule, shards: &[Shard]) {
    let name = |shard: &usize| shards.get(*shard).map_or("", |shard| shard.name.as_str());
    match rule {
        TableRule::Replicated => section.put("replicated", true),
        TableRule::Home { shard } => section.put("shard", name(shard)),
        TableRule::Sharded { key, method } => {
            section.put("shard_key", joined(key));
            match method {
                Method::Hash(kind) => section.put("hash", kind.word()),
                Method::List(lists) => {
                    let mut section = section.section("list");
                    for (shard, values) in lists {
                        section.put(name(shard), joined(values));
                    }
                }
                Method::Range(parts) => {
                    let mut section = section.section("range");
                    for RangePart { shard, from, to } in parts {
                        let bound = |key: &str, value: &Option<String>| {
                            value.as_ref().map(|value| format!("{key}: {value}"))
                        };
                        let bounds = [bound("from", from), bound("to", to)];
                        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
                        section.put(name(shard), joined(&bounds));
                    }
                }
            }
        }
    }
}

fn joined(values: &[impl ToString]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(", ")
}
