//! Replica sets on real servers: roles, failover, fencing, identity, freshness, catalogue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shardwire::admin::check;
use shardwire::config::{Config, ReadPreference};
use shardwire::demo::postgres::{Binaries, Options, Server, Template};
use shardwire::metrics::Metrics;
use shardwire::sqlstate::SqlState;
use shardwire::topology::{Access, ReplicaSet, Role, Topology, TopologyMetrics, Want};

const DEADLINE: Duration = Duration::from_secs(30);

fn template(name: &str) -> Template {
    let binaries = Binaries::find().unwrap();
    Template::initdb(&binaries, name, &[]).unwrap()
}

fn primary(template: &Template, name: &str) -> Server {
    Server::primary(template, name, &Options::default()).unwrap()
}

fn secondary(upstream: &Server, name: &str) -> Server {
    Server::secondary_of(upstream, name, &Options::default()).unwrap()
}

fn address(server: &Server) -> String {
    format!("{}:{}", server.socket_directory().display(), server.port())
}

/// A database `shop` with shards s0, s1 … of the given servers, and further lines for it.
fn config(user: &str, shards: &[&[&Server]], more: &str) -> Config {
    let mut text = format!(
        "listen: 127.0.0.1:6432\nauth: {{ method: trust }}\n\
         timeouts: {{ probe_interval: 100ms, probe_timeout: 2s }}\ndatabases:\n  shop:\n    \
         backend: {{ database: postgres, user: {user} }}\n"
    );
    for line in more.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text.push_str("    shards:\n");
    for (index, servers) in shards.iter().enumerate() {
        let servers: Vec<String> = servers.iter().map(|server| address(server)).collect();
        let servers = servers.join(", ");
        text.push_str(&format!(
            "      - {{ name: s{index}, servers: [{servers}] }}\n"
        ));
    }
    Config::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// One topology as a proxy would have it, and its metrics.
struct Proxy {
    topology: Arc<Topology>,
    metrics: Metrics,
}

impl Proxy {
    /// With shards s0, s1 … of the given servers, and further lines for the database.
    fn start(shards: &[&[&Server]], more: &str) -> Proxy {
        Proxy::start_as("postgres", shards, more)
    }

    fn start_as(user: &str, shards: &[&[&Server]], more: &str) -> Proxy {
        let config = config(user, shards, more);
        let metrics = Metrics::new();
        let families = TopologyMetrics::register(&metrics).unwrap();
        let database = Arc::clone(&config.databases["shop"]);
        let topology = Topology::start(database, &config.timeouts, &families).unwrap();
        Proxy { topology, metrics }
    }

    fn shard(&self, index: usize) -> &ReplicaSet {
        &self.topology.shards()[index]
    }

    async fn ready(&self) {
        let ready = self.topology.ready(Instant::now() + DEADLINE).await;
        assert!(ready, "not ready: {:#?}", self.reasons());
    }

    fn reasons(&self) -> Vec<String> {
        let servers = self.topology.shards().iter().flat_map(|set| set.servers());
        servers
            .map(|server| format!("{server}: {:?}", **server.state()))
            .collect()
    }

    /// Looks until it is so.
    async fn until(&self, what: &str, so: impl Fn(&Proxy) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !so(self) {
            assert!(
                Instant::now() < deadline,
                "never {what}: {:#?}",
                self.reasons()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|l| l == line)
    }
}

fn read(preference: ReadPreference) -> Want {
    Want {
        access: Access::Read,
        preference,
        max_staleness: Duration::from_secs(1),
        wrote_at: None,
    }
}

fn chosen(set: &ReplicaSet, want: &Want) -> Option<usize> {
    set.choose(want).ok().map(|server| server.index)
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_what_the_servers_say() {
    let template = template("roles");
    let (a, b) = (primary(&template, "a"), primary(&template, "b"));
    let follower = secondary(&a, "as");
    let proxy = Proxy::start(&[&[&follower, &a], &[&b]], "");
    proxy.ready().await;
    let s0 = proxy.shard(0);
    proxy
        .until("both members in service", |_| {
            s0.servers().iter().all(|s| s.state().usable())
        })
        .await;
    assert_eq!(chosen(s0, &Want::primary()), Some(1));
    assert_eq!(chosen(s0, &read(ReadPreference::Secondary)), Some(0));
    assert_eq!(s0.servers()[0].state().role, Some(Role::Secondary));
    let error = proxy
        .shard(1)
        .choose(&read(ReadPreference::Secondary))
        .unwrap_err();
    assert_eq!(error.code(), SqlState::CANNOT_CONNECT_NOW);
    let detail = error.fields().detail.clone().unwrap();
    assert!(
        detail.contains(&address(&b)) && detail.contains("is the primary"),
        "{detail}"
    );
    let row = "SELECT cluster_id, shard_count FROM shardwire.shard";
    let cluster = a.psql("postgres", row).unwrap();
    assert_eq!(cluster, b.psql("postgres", row).unwrap());
    let names = "SELECT shard_name, slots FROM shardwire.shard";
    assert_eq!(a.psql("postgres", names).unwrap(), "s0|0-8191\n");
    assert_eq!(b.psql("postgres", names).unwrap(), "s1|8192-16383\n");
    let identity = s0.servers()[1].identity_query();
    assert_eq!(a.psql("postgres", &identity).unwrap(), "read committed\n");
    assert_eq!(b.psql("postgres", &identity).unwrap(), "");
    let server = address(&follower);
    let labels = format!("{{database=\"shop\",server=\"{server}\",shard=\"s0\"}}");
    assert!(proxy.metric(&format!("shardwire_server_up{labels} 1")));
    proxy
        .until("lag zero", |p| {
            p.metric(&format!("shardwire_replication_lag_bytes{labels} 0"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_secondary_takes_over_and_the_old_primary_is_fenced() {
    let template = template("failover");
    let mut old = primary(&template, "a");
    let new = secondary(&old, "b");
    let proxy = Proxy::start(&[&[&old, &new]], "");
    proxy.ready().await;
    let set = proxy.shard(0);
    proxy
        .until("both members in service", |_| {
            set.servers().iter().all(|s| s.state().usable())
        })
        .await;
    let generation = set.servers()[0].generation();
    old.kill().unwrap();
    set.servers()[0].mark_failed("connection reset");
    assert!(set.primary().is_none());
    assert_ne!(set.servers()[0].generation(), generation);
    proxy
        .until("an error for writes", |_| {
            set.choose(&Want::primary()).is_err()
        })
        .await;
    // The promise of freshness is relative to the most advanced secondary now.
    assert_eq!(chosen(set, &read(ReadPreference::Nearest)), Some(1));
    let own_write = Want {
        wrote_at: Some(Instant::now()),
        ..read(ReadPreference::Nearest)
    };
    assert_eq!(chosen(set, &own_write), None);

    let want = Want::primary();
    let (found, promoted) = tokio::join!(
        set.wait_for(&want, Instant::now() + DEADLINE),
        tokio::task::spawn_blocking(move || new.promote().map(|()| new)),
    );
    assert_eq!(found.unwrap().index, 1);
    let new = promoted.unwrap().unwrap();
    assert_eq!(chosen(set, &Want::primary()), Some(1));

    old.start().unwrap();
    proxy
        .until("fenced", |_| set.servers()[0].state().fence.is_some())
        .await;
    assert_eq!(chosen(set, &Want::primary()), Some(1));
    assert_eq!(chosen(set, &read(ReadPreference::Nearest)), Some(1));
    let labels = format!(
        "{{database=\"shop\",server=\"{}\",shard=\"s0\"}}",
        address(&old)
    );
    assert!(proxy.metric(&format!("shardwire_server_up{labels} 0")));
    assert!(!proxy.metric(&format!("shardwire_partition_events_total{labels} 0")));

    // A fresh proxy that can't reach the new primary elects no one either way once it knows of both.
    let other = Proxy::start(&[&[&old, &new]], "");
    other
        .until("the right primary", |p| {
            p.shard(0).primary().is_some_and(|s| s.index == 1)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_follows_its_new_primary_without_privileges() {
    let template = template("follow");
    let mut old = primary(&template, "a");
    old.psql(
        "postgres",
        "CREATE ROLE shop LOGIN; GRANT CREATE ON DATABASE postgres TO shop",
    )
    .unwrap();
    let (new, third) = (secondary(&old, "b"), secondary(&old, "c"));
    let proxy = Proxy::start_as("shop", &[&[&old, &new, &third]], "");
    proxy.ready().await;
    let set = proxy.shard(0);
    proxy
        .until("all in service", |_| {
            set.servers().iter().all(|s| s.state().usable())
        })
        .await;
    third.catch_up(&old).unwrap();
    old.kill().unwrap();
    new.promote().unwrap();
    proxy
        .until("a new primary", |_| {
            set.primary().is_some_and(|s| s.index == 1)
        })
        .await;
    // It still listens to the dead primary: what it has may be another history.
    assert!(set.servers()[2].state().fresh_as_of.is_none());
    third.follow(&new).unwrap();
    proxy
        .until("fresh", |_| {
            chosen(set, &read(ReadPreference::Secondary)) == Some(2)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_secondary_serves_neither_stale_reads_nor_own_writes() {
    let template = template("lag");
    let lead = primary(&template, "a");
    let follower = secondary(&lead, "b");
    let proxy = Proxy::start(&[&[&lead, &follower]], "max_staleness: 1s");
    proxy.ready().await;
    let set = proxy.shard(0);
    let secondaries = read(ReadPreference::Secondary);
    proxy
        .until("the secondary is fresh", |_| {
            chosen(set, &secondaries) == Some(1)
        })
        .await;
    follower
        .psql("postgres", "SELECT pg_wal_replay_pause()")
        .unwrap();
    lead.psql("postgres", "CREATE TABLE t AS SELECT 1 AS a")
        .unwrap();
    let own_write = Want {
        wrote_at: Some(Instant::now()),
        max_staleness: DEADLINE,
        ..secondaries
    };
    assert_eq!(chosen(set, &own_write), Some(0));
    let labels = format!(
        "{{database=\"shop\",server=\"{}\",shard=\"s0\"}}",
        address(&follower)
    );
    proxy
        .until("stale", |_| chosen(set, &secondaries).is_none())
        .await;
    proxy
        .until("counted", |p| {
            p.metric(&format!("shardwire_partition_events_total{labels} 1"))
        })
        .await;
    assert_eq!(chosen(set, &own_write), Some(0));
    assert!(
        set.servers()[1]
            .state()
            .lag
            .bytes
            .is_some_and(|bytes| bytes > 0)
    );

    follower
        .psql("postgres", "SELECT pg_wal_replay_resume()")
        .unwrap();
    proxy
        .until("own writes on the secondary", |_| {
            chosen(set, &own_write) == Some(1)
        })
        .await;
    // An idle primary after a segment switch leaves nobody behind.
    lead.psql("postgres", "SELECT pg_switch_wal()").unwrap();
    let later = Want {
        wrote_at: Some(Instant::now()),
        ..own_write
    };
    proxy
        .until("fresh after a segment switch", |_| {
            chosen(set, &later) == Some(1)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_in_the_wrong_place_serve_nothing() {
    let template = template("swap");
    let (a, b) = (primary(&template, "a"), primary(&template, "b"));
    let proxy = Proxy::start(&[&[&a], &[&b]], "");
    proxy.ready().await;
    proxy
        .until("complete", |_| {
            a.psql("postgres", "SELECT complete FROM shardwire.shard")
                .unwrap()
                == "t\n"
        })
        .await;
    drop(proxy);
    let refused = async |proxy: &Proxy, shard: usize, reason: &str| {
        let mut text = String::new();
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline && !text.contains(reason) {
            let error = proxy.shard(shard).choose(&Want::primary()).unwrap_err();
            text = error.to_string();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(text.contains(reason), "{text}");
        let error = proxy.shard(shard).choose(&Want::primary()).unwrap_err();
        assert_eq!(error.code(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        let deadline = Instant::now() + DEADLINE;
        assert!(
            proxy
                .shard(shard)
                .wait_for(&Want::primary(), deadline)
                .await
                .is_err()
        );
    };
    let swapped = Proxy::start(&[&[&b], &[&a]], "");
    refused(&swapped, 0, "seem to be swapped").await;
    refused(&swapped, 1, "seem to be swapped").await;
    let fewer = Proxy::start(&[&[&a]], "");
    refused(&fewer, 0, "placed for 2 shards").await;
    let stranger = primary(&template, "c");
    let replaced = Proxy::start(&[&[&a], &[&stranger]], "");
    refused(&replaced, 1, "replaced by an empty server").await;
    assert!(replaced.shard(0).choose(&Want::primary()).is_ok());
    let lone = Proxy::start(&[&[&stranger]], "");
    lone.ready().await;
    drop(lone);
    let foreign = Proxy::start(&[&[&a], &[&stranger]], "");
    refused(&foreign, 1, "belongs to cluster").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_that_start_together_agree_on_the_cluster() {
    let template = template("race");
    let (a, b) = (primary(&template, "a"), primary(&template, "b"));
    let proxies: Vec<Proxy> = (0..4).map(|_| Proxy::start(&[&[&a], &[&b]], "")).collect();
    for proxy in &proxies {
        proxy.ready().await;
    }
    let row = "SELECT cluster_id FROM shardwire.shard";
    assert_eq!(
        a.psql("postgres", row).unwrap(),
        b.psql("postgres", row).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_privileges_is_served() {
    let template = template("plain");
    let (a, b) = (primary(&template, "a"), primary(&template, "b"));
    for server in [&a, &b] {
        server.psql("postgres", "CREATE ROLE shop LOGIN").unwrap();
    }
    let proxy = Proxy::start_as("shop", &[&[&a], &[&b]], "");
    proxy.ready().await;
    for shard in proxy.topology.shards() {
        let state = shard.choose(&Want::primary()).unwrap().state();
        let reason = state.unidentified.clone().unwrap();
        assert!(reason.contains("may not create"), "{reason}");
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'shardwire'";
    assert_eq!(a.psql("postgres", schemas).unwrap(), "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_follows_ddl_and_shards_that_differ_are_told() {
    let template = template("catalogue");
    let (a, b) = (primary(&template, "a"), primary(&template, "b"));
    let table = "CREATE TABLE users (user_id bigint PRIMARY KEY, name text)";
    a.psql("postgres", table).unwrap();
    let events = "CREATE TABLE events (id bigint); \
                  INSERT INTO events SELECT generate_series(1, 1000); ANALYZE events";
    a.psql("postgres", events).unwrap();
    b.psql("postgres", &events.replace("1000", "500")).unwrap();
    let tables = "tables: { users: { shard_key: user_id }, events: { shard_key: id } }";
    let proxy = Proxy::start(&[&[&a], &[&b]], tables);
    proxy.ready().await;
    let missing = |p: &Proxy| {
        let problems = p.topology.problems();
        problems
            .iter()
            .any(|p| p.to_string().contains("does not exist on shard \"s1\""))
    };
    proxy.until("the missing table is told", missing).await;

    let epoch = proxy.topology.epoch();
    proxy.topology.refresh().await.unwrap();
    assert!(proxy.topology.epoch() > epoch);
    let epoch = proxy.topology.epoch();
    let (one, two) = tokio::join!(proxy.topology.refresh(), proxy.topology.refresh());
    one.and(two).unwrap();
    assert!(proxy.topology.epoch() > epoch);
    let skew = "shardwire_shard_skew_ratio{database=\"shop\",table=\"public.events\"} 2";
    proxy.until("the skew is shown", |p| p.metric(skew)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_everything_at_once_and_changes_nothing() {
    let template = template("check");
    let options = Options {
        settings: vec![("max_prepared_transactions".into(), "0".into())],
        ..Options::default()
    };
    let a = Server::primary(&template, "a", &options).unwrap();
    let (b, mut c) = (primary(&template, "b"), primary(&template, "c"));
    for server in [&a, &b] {
        server.psql("postgres", "CREATE ROLE shop LOGIN").unwrap();
    }
    a.psql(
        "postgres",
        "CREATE TABLE users (user_id bigint PRIMARY KEY)",
    )
    .unwrap();
    b.psql(
        "postgres",
        "CREATE TABLE users (user_id integer PRIMARY KEY); DROP EXTENSION plpgsql; \
         CREATE TABLE named (name text COLLATE \"de-x-icu\")",
    )
    .unwrap();
    c.stop().unwrap();
    let tables = "tables: { users: { shard_key: user_id } }";
    let findings = check::check(&config("shop", &[&[&a], &[&b], &[&c]], tables)).await;
    let text = findings.to_string();
    for expected in [
        "max_prepared_transactions is 0",
        "may not create the schema",
        "GRANT CREATE ON DATABASE \"postgres\" TO \"shop\"",
        "Is the server running",
        "shard s2: it has no primary",
        "the collation de-x-icu is \"",
        "the extension plpgsql is missing, but \"1.0\" on ",
        "\", but missing on ",
        "table public.users: its columns are (user_id integer NOT NULL) on shard \"s1\"",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'shardwire'";
    assert_eq!(b.psql("postgres", schemas).unwrap(), "0\n");

    let findings = check::check(&config("nobody", &[&[&a], &[&b]], "")).await;
    assert!(
        findings
            .to_string()
            .contains("role \"nobody\" does not exist (28000)"),
        "{findings}"
    );

    let proxy = Proxy::start(&[&[&a], &[&b]], "");
    proxy.ready().await;
    drop(proxy);
    let findings = check::check(&config("postgres", &[&[&b], &[&a]], "")).await;
    assert!(
        findings.to_string().contains("seem to be swapped"),
        "{findings}"
    );
    let findings = check::check(&config("postgres", &[&[&a], &[&b]], "")).await;
    assert_eq!(findings.count(check::Weight::Error), 0, "{findings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_checked_over_tcp() {
    let template = template("password");
    let server = primary(&template, "a");
    server
        .psql(
            "postgres",
            "CREATE ROLE shop LOGIN PASSWORD 'right'; GRANT CREATE ON DATABASE postgres TO shop",
        )
        .unwrap();
    let config = |password: &str| {
        let text = format!(
            "listen: 127.0.0.1:6432\nauth: {{ method: trust }}\ndatabases:\n  shop:\n    \
             backend: {{ database: postgres, user: shop, password: {password} }}\n    \
             shards: [{{ name: s0, servers: [\"127.0.0.1:{}\"] }}]\n",
            server.port()
        );
        Config::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"))
    };
    let text = check::check(&config("right")).await.to_string();
    assert!(text.contains("0 errors"), "{text}");
    let text = check::check(&config("wrong")).await.to_string();
    assert!(text.contains("(28P01)"), "{text}");
    assert!(
        text.contains("Correct the user or the password in `databases.shop.backend`"),
        "{text}"
    );
    assert!(!text.contains("wrong"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_doubted_and_comes_back() {
    let template = template("hang");
    let server = primary(&template, "a");
    let proxy = Proxy::start(&[&[&server]], "");
    proxy.ready().await;
    let probes = "SELECT pid FROM pg_stat_activity WHERE application_name = 'shardwire control'";
    let pids = server.psql("postgres", probes).unwrap();
    let postmaster = server.pid().unwrap().to_string();
    let signal = |name: &str| {
        // The postmaster too, or a new connection would tell that all is well.
        let mut kill = std::process::Command::new("kill");
        kill.arg(name)
            .arg(&postmaster)
            .args(pids.split_whitespace());
        kill.status().unwrap();
    };
    signal("-STOP");
    let set = proxy.shard(0);
    proxy.until("doubted", |_| set.primary().is_none()).await;
    // It is the last one: statements may still try.
    assert_eq!(chosen(set, &Want::primary()), Some(0));
    signal("-CONT");
    proxy.until("back", |_| set.primary().is_some()).await;
}
