//! Materialised views and temporary tables with rows of several shards, against one PostgreSQL.

use crate::harness::compare::{MODES, Mode, Pair};
use crate::harness::{Cluster, Raw};

const SCHEMA: &str = "
CREATE SCHEMA later;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE users (id int PRIMARY KEY, name varchar(20), n numeric(8, 2), m mood, tags text[], at timestamptz, ch char(4));
CREATE TABLE orders (id int, user_id int, total numeric, PRIMARY KEY (user_id, id));
CREATE TABLE products (id int PRIMARY KEY, name text);
CREATE TABLE notes (id int, line text);
CREATE TABLE far (id int, line text);
CREATE VIEW named AS SELECT id, name FROM users WHERE name IS NOT NULL";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(3)
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, CASE WHEN i % 7 > 0 THEN 'name ' || i END, i / 4.0, (ARRAY['sad', 'ok', NULL])[i % 3 + 1]::mood, \
               ARRAY['a' || i, NULL], timestamptz '2026-01-01 00:00:00.123456Z' + i * interval '1 hour', 'c' || i % 5 FROM generate_series(1, 60) i")
        .rows("INSERT INTO orders SELECT i, i % 20 + 1, i * 1.5 FROM generate_series(1, 90) i")
        .rows("INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO far SELECT i, 'far ' || i FROM generate_series(1, 10) i")
        .sharded("users", &["id"])
        .sharded("orders", &["user_id"])
        .replicated("products")
        .home("notes", 0)
        .home("far", 1)
        .start()
}

/// Each shard and the oracle.
fn servers(cluster: &Cluster) -> (Vec<Raw>, Raw) {
    let shards = 0..cluster.shards.len();
    let shards = shards.map(|shard| cluster.shard(shard).raw()).collect();
    (shards, cluster.oracle().raw())
}

/// The view is on every shard with the oracle's columns; the first has its rows, the others none; nothing is left
/// in the table that it takes them from, and nothing is prepared.
fn check(cluster: &Cluster, view: &str) {
    let (mut shards, mut oracle) = servers(cluster);
    let columns = format!(
        "SELECT attname, format_type(atttypid, atttypmod), attcollation::regcollation::text FROM pg_attribute \
         WHERE attrelid = '{view}'::regclass AND attnum > 0 ORDER BY attnum"
    );
    let kind = format!("SELECT relkind FROM pg_class WHERE oid = '{view}'::regclass");
    let wanted = oracle.rows(&format!("SELECT x::text FROM {view} x ORDER BY 1"));
    for (number, shard) in shards.iter_mut().enumerate() {
        for sql in [&columns, &kind] {
            assert_eq!(shard.rows(sql), oracle.rows(sql), "{view} on {number}");
        }
        if number == 0 {
            let rows = shard.rows(&format!("SELECT x::text FROM {view} x ORDER BY 1"));
            assert_eq!(rows, wanted, "{view}");
        }
    }
    check_clean(&mut shards, 1);
}

/// How many tables there are that views take their rows from, all of them empty.
fn check_clean(shards: &mut [Raw], tables: usize) {
    for shard in shards {
        let open = shard.rows("SELECT gid FROM pg_prepared_xacts");
        assert!(open.is_empty(), "{open:?}");
        let names = shard.rows(
            "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'shardwire'::regnamespace AND relname LIKE 'rows%'",
        );
        assert_eq!(names.len(), tables);
        for name in names {
            assert_eq!(
                shard.rows(&format!("SELECT count(*) FROM {}", name[0])),
                [["0"]]
            );
        }
    }
}

#[test]
fn views_have_the_rows_of_all_shards() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut modes = MODES.into_iter().cycle();
    for sql in [
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM users",
        "CREATE MATERIALIZED VIEW v AS SELECT user_id, sum(total) AS sum, count(*) FROM orders GROUP BY user_id",
        "CREATE MATERIALIZED VIEW v (a, b) AS SELECT count(*), max(name) FROM users",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v (a) WITH (fillfactor = 50) AS SELECT id FROM users ORDER BY id DESC LIMIT 5 WITH DATA",
        "CREATE MATERIALIZED VIEW v AS SELECT p.name, sum(o.total) FROM orders o JOIN products p ON p.id = o.id % 10 GROUP BY p.name",
        "CREATE MATERIALIZED VIEW v AS WITH x AS (SELECT * FROM users) SELECT x.id, y.name FROM x JOIN users y ON y.id = x.id + 1",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM named",
        "CREATE MATERIALIZED VIEW v AS TABLE orders",
        "CREATE MATERIALIZED VIEW v AS (SELECT id FROM users UNION SELECT id FROM far) -- all",
        "CREATE MATERIALIZED VIEW v AS SELECT name COLLATE \"C\", ch, NULL AS none, 'x' AS x, m, tags, at FROM users WHERE id IN (1, 2, 7)",
        "CREATE MATERIALIZED VIEW v AS SELECT name FROM users WHERE id = 7",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM users WHERE false",
        "CREATE MATERIALIZED VIEW v AS SELECT u.id, n.line FROM users u JOIN notes n ON n.id = u.id",
        "CREATE MATERIALIZED VIEW v AS SELECT id AS shardwire_query FROM (SELECT id FROM users) shardwire_query",
    ] {
        pair.compare(modes.next().unwrap(), sql, &[], false);
        check(&cluster, "v");
        pair.same_rows("SELECT * FROM v");
        // What it was made of changes, and it does not; then it does.
        pair.once(
            "INSERT INTO users (id, name) VALUES (1000, 'new'), (1001, 'newer'), (1002, 'newest')",
        );
        pair.once("INSERT INTO orders VALUES (1000, 1000, 5), (1000, 1001, 7)");
        pair.same_rows("SELECT * FROM v");
        pair.compare(
            modes.next().unwrap(),
            "REFRESH MATERIALIZED VIEW v",
            &[],
            false,
        );
        check(&cluster, "v");
        pair.same_rows("SELECT * FROM v");
        pair.once("DELETE FROM users WHERE id >= 1000");
        pair.once("DELETE FROM orders WHERE id >= 1000");
        pair.once("REFRESH MATERIALIZED VIEW v WITH NO DATA");
        pair.once("SELECT * FROM v");
        pair.once("REFRESH MATERIALIZED VIEW v WITH DATA");
        check(&cluster, "v");
        pair.once("DROP MATERIALIZED VIEW v");
    }
    check_clean(&mut servers(&cluster).0, 0);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn they_are_views_of_postgresqls_in_every_other_way() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let table = "CREATE TABLE bought (id int PRIMARY KEY, what text)";
    pair.proxy.query(&format!("{table} SHARD KEY (id)"));
    pair.oracle.query(table);
    for sql in [
        "CREATE MATERIALIZED VIEW v AS SELECT user_id, sum(total) AS sum FROM orders GROUP BY user_id WITH NO DATA",
        "SELECT * FROM v",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "REFRESH MATERIALIZED VIEW v",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "CREATE UNIQUE INDEX ON v (user_id)",
        "UPDATE orders SET total = total + 1 WHERE id < 50",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "SELECT * FROM v ORDER BY user_id",
        "SELECT u.id, v.sum FROM users u JOIN v ON v.user_id = u.id ORDER BY u.id",
        "INSERT INTO v VALUES (1, 2)",
        "CREATE MATERIALIZED VIEW v AS SELECT id FROM users",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT id FROM users",
        "CREATE MATERIALIZED VIEW w AS SELECT nothing FROM users",
        "CREATE MATERIALIZED VIEW w AS SELECT * FROM nowhere",
        "CREATE MATERIALIZED VIEW w AS SELECT id, id FROM users",
        "CREATE MATERIALIZED VIEW w AS SELECT 1 / (id - 5) FROM users",
        "CREATE MATERIALIZED VIEW nowhere.w AS SELECT id FROM users",
        "REFRESH MATERIALIZED VIEW w",
        "ALTER MATERIALIZED VIEW v RENAME TO w",
        "ALTER MATERIALIZED VIEW w RENAME COLUMN sum TO total",
        "ALTER MATERIALIZED VIEW w SET SCHEMA later",
        "REFRESH MATERIALIZED VIEW later.w",
        "SELECT * FROM later.w ORDER BY user_id",
        "INSERT INTO bought SELECT id, name FROM users",
        "CREATE MATERIALIZED VIEW b AS SELECT id, what FROM bought WHERE id < 10",
        "ALTER TABLE bought RENAME TO sales",
        "ALTER TABLE sales RENAME COLUMN what TO price",
        "UPDATE sales SET price = 'x' WHERE id < 4",
        "REFRESH MATERIALIZED VIEW b",
        "SELECT * FROM b ORDER BY id",
        "DROP MATERIALIZED VIEW b",
        // In a transaction, with writes on all shards.
        "BEGIN",
        "INSERT INTO users (id, name) VALUES (2000, 'a'), (2001, 'b'), (2002, 'c'), (2003, 'd')",
        "CREATE MATERIALIZED VIEW fresh AS SELECT id, name FROM users WHERE id >= 2000",
        "SELECT * FROM fresh ORDER BY id",
        "CREATE UNIQUE INDEX ON fresh (id)",
        "DELETE FROM users WHERE id = 2001",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY fresh",
        "SELECT * FROM fresh ORDER BY id",
        "COMMIT",
        "BEGIN",
        "DELETE FROM users WHERE id = 2002",
        "REFRESH MATERIALIZED VIEW fresh",
        "ROLLBACK",
        "SELECT * FROM fresh ORDER BY id",
        "BEGIN",
        "CREATE MATERIALIZED VIEW undone AS SELECT id FROM users",
        "ROLLBACK",
        "SELECT * FROM undone",
        "DROP MATERIALIZED VIEW later.w, fresh",
    ] {
        pair.once(sql);
    }
    check_clean(&mut servers(&cluster).0, 0);
    // In one message.
    pair.once(
        "SELECT 1; CREATE MATERIALIZED VIEW v AS SELECT id, name FROM users WHERE id < 5; SELECT * FROM v ORDER BY id; \
         UPDATE users SET name = 'other' WHERE id < 3; REFRESH MATERIALIZED VIEW v; SELECT * FROM v ORDER BY id",
    );
    check(&cluster, "v");
    pair.once("DROP MATERIALIZED VIEW v");
    // What it reads can't be dropped without it.
    pair.once("CREATE MATERIALIZED VIEW v AS SELECT id FROM users");
    let code = pair.proxy.code("DROP TABLE users");
    assert_eq!(code, "2BP01");
    pair.once("SET client_min_messages = error");
    pair.once("DROP VIEW named");
    pair.once("DROP TABLE users CASCADE");
    pair.once("SELECT * FROM v");
    check_clean(&mut servers(&cluster).0, 0);
}

#[test]
fn another_proxy_refreshes_it_too() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let other = cluster.another_proxy();
    pair.once("CREATE MATERIALIZED VIEW v AS SELECT id, name FROM users");
    pair.once("INSERT INTO users (id, name) VALUES (1000, 'new'), (1001, 'newer')");
    pair.oracle.query("REFRESH MATERIALIZED VIEW v");
    let mut raw = other.endpoint.raw();
    raw.query("REFRESH MATERIALIZED VIEW v");
    check(&cluster, "v");
    // Past any proxy it can't lose its rows.
    let code = cluster.shard(0).raw().code("REFRESH MATERIALIZED VIEW v");
    assert_eq!(code, "42704");
    pair.same_rows("SELECT * FROM v");
}

#[test]
fn temporary_tables_have_the_rows_of_all_shards() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut modes = MODES.into_iter().cycle();
    for sql in [
        "CREATE TEMP TABLE t AS SELECT * FROM users",
        "CREATE TEMPORARY TABLE t (a, b) ON COMMIT PRESERVE ROWS AS SELECT user_id, sum(total) FROM orders GROUP BY user_id WITH DATA",
        "CREATE TEMP TABLE t AS SELECT * FROM named",
        "CREATE TEMP TABLE t AS SELECT * FROM far",
        "CREATE TEMP TABLE t AS SELECT id, tags, m, ch FROM users ORDER BY id LIMIT 7",
        "CREATE TEMP TABLE t AS SELECT * FROM users WITH NO DATA",
        "SELECT u.id, p.name INTO TEMP t FROM users u JOIN products p ON p.id = u.id",
        "SELECT count(*) INTO TEMPORARY TABLE t FROM orders",
        "CREATE TEMP TABLE IF NOT EXISTS t AS SELECT id FROM users",
    ] {
        pair.compare(modes.next().unwrap(), sql, &[], false);
        pair.same_rows("SELECT * FROM t");
        pair.same_rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0",
        );
        pair.once("CREATE TEMP TABLE IF NOT EXISTS t AS SELECT id FROM users");
        pair.once("CREATE TEMP TABLE t AS SELECT id FROM users");
        pair.once("DROP TABLE t");
    }
    pair.once("CREATE TEMP TABLE t AS SELECT 1 / (id - 5) FROM users");
    pair.once("SELECT * FROM t");
    for sql in [
        "BEGIN",
        "UPDATE users SET n = n + 1",
        "CREATE TEMP TABLE few ON COMMIT DROP AS SELECT id, n FROM users WHERE id < 9",
        "SELECT * FROM few ORDER BY id",
        "COMMIT",
        "SELECT * FROM few",
    ] {
        pair.once(sql);
    }
    // One that hides what its query reads, and one that hides what others do.
    pair.once("CREATE TEMP TABLE notes AS SELECT u.id, n.line FROM users u JOIN notes n ON n.id = u.id WHERE u.id < 5");
    pair.same_rows("SELECT * FROM notes");
    pair.refused("CREATE TEMP TABLE orders AS SELECT * FROM orders WHERE id < 30");
    pair.compare(
        Mode::Text,
        "CREATE TEMP TABLE t AS SELECT id, $1::text AS word FROM users WHERE id < $2",
        &[Some("w"), Some("10")],
        false,
    );
    pair.same_rows("SELECT * FROM t");
    cluster.same_data();
}
