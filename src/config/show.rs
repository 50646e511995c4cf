//! The configuration in force, defaults included, as paths and values: what `SHOW SHARDWIRE CONFIG`
//! answers.

use super::Auth;
use super::BackendTls;
use super::Config;
use super::Database;
use super::DatabaseName;
use super::Method;
use super::RangePart;
use super::Rule;
use super::Server;
use super::Shard;
use super::TableRule;
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
        limits.put("query_parse", format_size(of.query_parse_bytes));
        let per_server = of.prepared_statements_per_server;
        limits.put("prepared_statements_per_server", per_server);
        let per_client = of.prepared_statements_per_client;
        limits.put("prepared_statements_per_client", per_client);
        limits.put("plan_cache_entries", of.plan_cache_entries);
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
        section.put_some("max_clients", user.max_clients);
    }
    for (index, rule) in auth.rules.iter().flatten().enumerate() {
        let path = path::index(&path::key(&section.path, "rules"), index);
        let settings = &mut *section.settings;
        show_rule_of_auth(&mut Section { path, settings }, rule);
    }
    section.put_some("auth_query", auth.query.as_ref());
    section.put("auth_query_cache", format_duration(auth.query_cache));
    if !auth.administrators.is_empty() {
        let names: Vec<_> = auth.administrators.iter().collect();
        section.put("administrators", joined(&names));
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
}

/// A limit as the file writes it.
fn limit(limit: Option<u32>) -> String {
    limit.map_or_else(|| "off".to_owned(), |most| most.to_string())
}

fn show_database(section: &mut Section<'_>, database: &Database) {
    let mut backend = section.section("backend");
    backend.put("database", &database.backend.database);
    backend.put("user", &database.backend.user);
    backend.put_some("password", database.backend.password.as_ref());
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
