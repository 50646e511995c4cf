//! Programs and drivers that people use, through the proxy on one shard and on two.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::cluster::{PASSWORD, USER, template};
use crate::harness::{Cluster, Endpoint};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, born date);
    CREATE TABLE orders (user_id bigint, order_id int, total numeric(10,2), PRIMARY KEY (user_id, order_id));
    CREATE TABLE products (product_id int PRIMARY KEY, name text);
    CREATE INDEX users_name ON users (name);
    COMMENT ON TABLE users IS 'people';
";

const ROWS: &str = "
    INSERT INTO users SELECT i, 'user ' || i, date '1970-01-01' + i FROM generate_series(1, 30) i;
    INSERT INTO orders SELECT u, o, u * o FROM generate_series(1, 30) u, generate_series(1, 3) o;
    INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 10) i;
";

/// pgbench's own tables and rows at scale 1.
const PGBENCH: &str = "
    CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
    CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
    CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
";
const PGBENCH_ROWS: &str = "
    INSERT INTO pgbench_branches VALUES (1, 0);
    INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, 10) i;
    INSERT INTO pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(1, 100000) i;
";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .replicated("products")
        .start()
}

fn pgbench_cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(PGBENCH)
        .rows(PGBENCH_ROWS)
        .sharded("pgbench_accounts", &["aid"])
        .home("pgbench_branches", 0)
        .home("pgbench_tellers", 0)
        .start()
}

/// Runs a command to its end; its standard output. Panics with all it said when it fails.
fn output(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{said}\n{complained}");
    said + &complained
}

/// A client program of PostgreSQL, aimed at an endpoint.
fn client(program: &str, endpoint: &Endpoint) -> Command {
    let mut command = Command::new(template().binaries().directory().join(program));
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", endpoint.port.to_string())
        .env("PGUSER", USER)
        .env("PGPASSWORD", PASSWORD)
        .env("PGDATABASE", &endpoint.database)
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a psql script; what it prints.
fn psql(cluster: &Cluster, endpoint: &Endpoint, commands: &[&str]) -> String {
    let file = cluster.directory().join("script.sql");
    std::fs::write(&file, commands.join("\n")).unwrap();
    let mut command = client("psql", endpoint);
    output(
        command
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(file),
    )
}

/// A file that `integration/drivers/install.sh` puts there.
fn installed(path: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/drivers")
        .join(path);
    let shown = file.display();
    assert!(
        file.exists(),
        "{shown} is missing: run integration/drivers/install.sh"
    );
    file
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("integration/drivers")
        .join(name)
}

fn python(name: &str) {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        python_at(name, &cluster.proxy().url());
    }
}

/// Runs a Python script of this directory against a URL; it must say that it is done.
pub fn python_at(name: &str, url: &str) {
    let python = installed("venv/bin/python");
    let said = output(Command::new(&python).arg(script(name)).arg(url));
    assert!(said.contains("done"), "{said}");
}

#[test]
fn psycopg() {
    python("check_psycopg.py");
}

#[test]
fn asyncpg() {
    python("check_asyncpg.py");
}

#[test]
fn node_postgres() {
    let modules = installed("node_modules/pg");
    let modules = modules.parent().unwrap();
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut node = Command::new("node");
        node.env("NODE_PATH", modules).arg(script("check_pg.js"));
        let said = output(node.arg(cluster.proxy().url()));
        assert!(said.contains("done"), "{said}");
    }
}

#[tokio::test]
async fn tokio_postgres() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut client = cluster.proxy().connect().await;
        let by_id = client
            .prepare("SELECT name FROM users WHERE user_id = $1")
            .await
            .unwrap();
        for id in 1..=30_i64 {
            let row = client.query_one(&by_id, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("user {id}"));
        }
        // Its pipelining: both are under way at once.
        let (one, two) = tokio::join!(
            client.query_one(&by_id, &[&1_i64]),
            client.query_one(&by_id, &[&2_i64]),
        );
        assert_eq!(one.unwrap().get::<_, String>(0), "user 1");
        assert_eq!(two.unwrap().get::<_, String>(0), "user 2");
        let transaction = client.transaction().await.unwrap();
        let changed = "UPDATE users SET name = $1 WHERE user_id = $2";
        transaction
            .execute(changed, &[&"lost", &5_i64])
            .await
            .unwrap();
        transaction.rollback().await.unwrap();
        let row = client.query_one(&by_id, &[&5_i64]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "user 5");
    }
}

#[test]
fn psql_shows_what_it_shows_on_postgresql() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        for commands in [
            &["\\d"][..],
            &["\\d users"],
            &["\\d+ orders"],
            &["\\dt public.*"],
            &["\\di public.*", "\\df pg_catalog.abs"],
            &["SELECT * FROM users WHERE user_id = 3;"],
            &[
                "\\x",
                "SELECT * FROM orders WHERE user_id = 3 ORDER BY order_id",
            ],
            &[
                "\\pset null NULL",
                "SELECT * FROM users WHERE user_id = -1;",
            ],
            &["SELECT 1 AS one \\gset", "\\echo :one"],
            &[
                "BEGIN;",
                "UPDATE users SET name = 'x' WHERE user_id = 1;",
                "ROLLBACK;",
            ],
            &["SELECT name FROM users WHERE user_id = 1 \\gdesc"],
        ] {
            let wanted = psql(&cluster, &cluster.oracle(), commands);
            assert_eq!(
                psql(&cluster, &cluster.proxy(), commands),
                wanted,
                "{shards} shards: {commands:?}"
            );
        }
    }
}

#[test]
fn psql_copies_in_and_out_on_one_shard() {
    let cluster = cluster(1);
    let file = cluster.directory().join("rows");
    let shown = file.display();
    psql(
        &cluster,
        &cluster.proxy(),
        &[&format!("\\copy users TO '{shown}'")],
    );
    psql(&cluster, &cluster.proxy(), &["DELETE FROM users;"]);
    psql(
        &cluster,
        &cluster.proxy(),
        &[&format!("\\copy users FROM '{shown}'")],
    );
    let count = psql(&cluster, &cluster.proxy(), &["SELECT count(*) FROM users;"]);
    assert!(count.contains("30"), "{count}");
}

/// Runs pgbench with arguments (without blanks in them); what it reports.
fn pgbench(endpoint: &Endpoint, arguments: &str) -> String {
    output(client("pgbench", endpoint).args(arguments.split(' ')))
}

/// Everything was done, nothing failed.
fn assert_complete(said: &str, transactions: usize) {
    let done = format!("number of transactions actually processed: {transactions}/{transactions}");
    assert!(said.contains(&done), "{said}");
    assert!(said.contains("number of failed transactions: 0 "), "{said}");
}

const MODES: [&str; 3] = ["simple", "extended", "prepared"];

#[test]
fn pgbench_runs_its_own_transactions_on_one_shard() {
    let cluster = Cluster::new().start();
    let proxy = cluster.proxy();
    pgbench(&proxy, "-i -q");
    for mode in MODES {
        let said = pgbench(&proxy, &format!("-n -M {mode} -c 8 -j 2 -t 50"));
        assert_complete(&said, 400);
    }
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
                       (SELECT sum(bbalance) FROM pgbench_branches), \
                       (SELECT sum(tbalance) FROM pgbench_tellers), \
                       (SELECT sum(delta) FROM pgbench_history)";
    let sums = &proxy.raw().rows(sums)[0];
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
}

#[test]
fn pgbench_reads_accounts() {
    for shards in [1, 2] {
        let cluster = pgbench_cluster(shards);
        let file = cluster.directory().join("read.sql");
        // Division by zero if another row comes; an error if none does.
        let text = "\\set aid random(1, 100000)\n\
                    SELECT aid AS got FROM pgbench_accounts WHERE aid = :aid \\gset\n\
                    SELECT 1 / (CASE WHEN :got = :aid THEN 1 ELSE 0 END);\n";
        std::fs::write(&file, text).unwrap();
        for mode in MODES {
            let load = format!("-n -M {mode} -c 16 -j 2 -t 100");
            let checked = format!("{load} -f {}", file.display());
            assert_complete(&pgbench(&cluster.proxy(), &checked), 1600);
            assert_complete(&pgbench(&cluster.proxy(), &format!("{load} -S")), 1600);
        }
    }
}

#[test]
fn pgbench_updates_accounts_over_two_shards() {
    let cluster = pgbench_cluster(2);
    let file = cluster.directory().join("update.sql");
    let text = "\\set aid random(1, 100000)\n\
                BEGIN;\n\
                UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n\
                SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
                END;\n";
    std::fs::write(&file, text).unwrap();
    for mode in MODES {
        let load = format!("-n -M {mode} -c 8 -j 2 -t 50 -f {}", file.display());
        assert_complete(&pgbench(&cluster.proxy(), &load), 400);
    }
    let sum = |shard: usize| -> i64 {
        let sql = "SELECT sum(abalance) FROM pgbench_accounts";
        cluster.shard(shard).raw().rows(sql)[0][0].parse().unwrap()
    };
    assert_eq!(sum(0) + sum(1), 1200);
}
