//! MERGE over shards, against one PostgreSQL; the rows of every shard are looked at there.

use crate::harness::Cluster;
use crate::harness::compare::{MODES, Mode, Pair, frames};

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE users (id int PRIMARY KEY, name text, n int DEFAULT 5, m mood, note text DEFAULT 'none');
CREATE TABLE changes (id bigint PRIMARY KEY, name text, n int, gone boolean DEFAULT false);
CREATE TABLE events (seq int, id int, name text, n int);
CREATE TABLE words (word varchar(20) PRIMARY KEY, n int);
CREATE TABLE days (day date, hour int, hits int, PRIMARY KEY (day, hour));
CREATE TABLE products (id int PRIMARY KEY, name text, n int DEFAULT 1);
CREATE TABLE log (id int PRIMARY KEY, line text, at date DEFAULT '2020-01-01');
CREATE TABLE far (id int PRIMARY KEY, line text);
CREATE TABLE numbered (id int PRIMARY KEY, number serial, made timestamptz DEFAULT now(), own uuid DEFAULT gen_random_uuid(), name text);
CREATE TABLE strict (id int PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY, name text)";

fn cluster() -> Cluster {
    let mut builder = Cluster::new()
        .shards(3)
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, 'user ' || i, i, (ARRAY['sad', 'ok', NULL])[i % 3 + 1]::mood FROM generate_series(1, 60) i")
        .rows("INSERT INTO changes SELECT i, 'changed ' || i, i * 10, i % 4 = 0 FROM generate_series(2, 90, 3) i")
        .rows("INSERT INTO events SELECT i, i * 2, 'event ' || i, i FROM generate_series(1, 40) i")
        .rows("INSERT INTO words SELECT 'word ' || i, i FROM generate_series(1, 20) i")
        .rows("INSERT INTO days SELECT date '2026-01-01' + i / 5, i % 5, i FROM generate_series(1, 30) i")
        .rows("INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO log SELECT i, 'line ' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO far SELECT i, 'far ' || i FROM generate_series(10, 30) i")
        .home("log", 0)
        .home("far", 1);
    for (table, key) in [
        ("users", "id"),
        ("changes", "id"),
        ("events", "seq"),
        ("words", "word"),
        ("numbered", "id"),
        ("strict", "id"),
    ] {
        builder = builder.sharded(table, &[key]);
    }
    builder
        .sharded("days", &["day", "hour"])
        .replicated("products")
        .start()
}

/// Runs each statement on both, undone behind it, and once for good.
fn same(cluster: &Cluster, pair: &mut Pair, statements: &[&str]) {
    let mut modes = MODES.into_iter().cycle();
    for sql in statements {
        pair.once("BEGIN");
        pair.compare(modes.next().unwrap(), sql, &[], false);
        pair.compare(Mode::Simple, "SELECT * FROM users", &[], false);
        pair.once("ROLLBACK");
        pair.compare(modes.next().unwrap(), sql, &[], false);
        cluster.same_data();
    }
}

#[test]
fn rows_of_any_source_meet_those_of_the_target() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    same(
        &cluster,
        &mut pair,
        &[
            // Each shard by itself.
            "MERGE INTO users u USING changes c ON u.id = c.id WHEN MATCHED AND c.gone THEN DELETE \
             WHEN MATCHED THEN UPDATE SET name = c.name, n = u.n + c.n WHEN NOT MATCHED THEN INSERT (id, name) VALUES (c.id, c.name)",
            "MERGE INTO users USING changes ON changes.id = users.id AND changes.n > 100 WHEN MATCHED THEN DO NOTHING \
             WHEN NOT MATCHED AND changes.n > 500 THEN INSERT (name, id) VALUES ('x', changes.id)",
            "MERGE INTO users u USING products p ON u.n = p.id WHEN MATCHED THEN UPDATE SET note = p.name",
            "MERGE INTO users u USING products p ON u.id = p.id AND p.n = 1 WHEN MATCHED AND u.n > 10 THEN DELETE",
            // Its source passes through the proxy.
            "MERGE INTO users AS u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET name = e.name, m = 'ok' \
             WHEN NOT MATCHED THEN INSERT (name, id, m) VALUES (e.name || '!', e.id, 'sad')",
            "MERGE INTO users u USING (SELECT id, max(name) AS name, count(*) AS c FROM events GROUP BY id) AS e ON e.id = u.id \
             WHEN MATCHED AND e.c = 1 THEN UPDATE SET (name, n) = (e.name, e.c) WHEN NOT MATCHED THEN DO NOTHING",
            "MERGE INTO users u USING (VALUES (1, 'one'), (2, 'two'), (1000, 'thousand'), (1001, NULL)) AS v(id, name) ON u.id = v.id \
             WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED AND v.name IS NOT NULL THEN INSERT VALUES (v.id, v.name, DEFAULT, NULL) \
             WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
            "MERGE INTO users u USING (SELECT 7 AS id, 'seven' AS name) s ON u.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name \
             WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
            "MERGE INTO users u USING generate_series(50, 120, 7) AS g(i) ON u.id = g.i WHEN MATCHED THEN DELETE \
             WHEN NOT MATCHED THEN INSERT (id, n, name) VALUES (g.i, CASE WHEN g.i > 100 THEN 1 ELSE 2 END, 'series')",
            "WITH x(a, b) AS (SELECT id + 3, name FROM changes) MERGE INTO users USING x ON users.id = x.a WHEN MATCHED THEN UPDATE SET name = b \
             WHEN NOT MATCHED THEN INSERT (id, name) VALUES (a, b)",
            "MERGE INTO users u USING log l ON u.id = l.id + 0 WHEN MATCHED THEN UPDATE SET note = l.line",
            "MERGE INTO users u USING far ON u.id = far.id WHEN MATCHED THEN UPDATE SET note = line WHEN NOT MATCHED THEN INSERT (id, note) VALUES (id, line)",
            "MERGE INTO users u USING events e ON u.n = e.n AND e.seq < 9 WHEN MATCHED THEN UPDATE SET note = e.name",
            "MERGE INTO users u USING (SELECT * FROM users WHERE id < 9) s ON u.id = s.id + 1 WHEN MATCHED THEN UPDATE SET note = s.name",
            "MERGE INTO words w USING users u ON w.word = u.name WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND u.id < 20 THEN INSERT VALUES (u.name, u.id)",
            "MERGE INTO days d USING (SELECT date '2026-01-01' + id / 5 AS day, id % 5 AS hour, id FROM users) s ON d.day = s.day AND d.hour = s.hour \
             WHEN MATCHED THEN UPDATE SET hits = hits + s.id WHEN NOT MATCHED THEN INSERT (day, hour, hits) VALUES (s.day, s.hour, s.id)",
            "MERGE INTO days d USING users u ON d.hits = u.id AND d.hour = u.n WHEN MATCHED THEN DELETE",
            "MERGE INTO users u USING users v ON u.id = v.id AND v.id < 30 WHEN MATCHED THEN UPDATE SET n = v.n + 1",
            "MERGE INTO users u USING changes c ON u.id = c.id WHEN MATCHED AND (SELECT count(*) FROM products) = 20 THEN UPDATE SET n = 0",
            "MERGE INTO users u USING (SELECT 1 AS id WHERE false) s ON u.id = s.id WHEN MATCHED THEN DELETE",
        ],
    );
}

#[test]
fn home_and_replicated_targets_take_any_source() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    same(
        &cluster,
        &mut pair,
        &[
            "MERGE INTO log l USING users u ON l.id = u.id WHEN MATCHED THEN UPDATE SET line = u.name WHEN NOT MATCHED AND u.id % 2 = 0 THEN INSERT VALUES (u.id, u.name)",
            "MERGE INTO far USING log l ON far.id = l.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (l.id, l.line)",
            "MERGE INTO far USING products p ON far.id = p.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (p.id, p.name)",
            "MERGE INTO products p USING users u ON p.id = u.id WHEN MATCHED THEN UPDATE SET name = u.name, n = p.n + 1 WHEN NOT MATCHED THEN INSERT (id, name) VALUES (u.id, u.name)",
            "MERGE INTO products p USING (VALUES (1), (100)) AS v(i) ON p.id = v.i WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.i, 'v')",
            "MERGE INTO products p USING log ON p.id = log.id WHEN MATCHED THEN UPDATE SET n = DEFAULT",
            "MERGE INTO products p USING products q ON p.id = q.id + 1 WHEN MATCHED THEN UPDATE SET name = q.name",
        ],
    );
}

#[test]
fn errors_are_postgresqls() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        // A row that two rows of the source match.
        "MERGE INTO users u USING (VALUES (1, 'a'), (1, 'b'), (2, 'c')) v(id, name) ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name",
        "MERGE INTO users u USING (VALUES (1000, 'a'), (1000, 'b')) v(id, name) ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
        "MERGE INTO products p USING users u ON p.id = u.id % 20 WHEN MATCHED THEN UPDATE SET n = 1",
        "MERGE INTO users u USING (SELECT NULL::int AS id) v ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
        "MERGE INTO users u USING (SELECT NULL::int AS id) v ON u.id = v.id WHEN NOT MATCHED THEN DO NOTHING",
        "MERGE INTO users u USING (SELECT 3000000000 AS id) v ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
        "MERGE INTO words w USING (SELECT 'much too long a word for this'::text AS word) v ON w.word = v.word WHEN NOT MATCHED THEN INSERT (word) VALUES (v.word)",
        "MERGE INTO users u USING events e ON u.id = e.nothing WHEN MATCHED THEN DELETE",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET nothing = 1",
        "MERGE INTO users u USING events e ON id = e.id WHEN MATCHED THEN DELETE",
        "MERGE INTO users u USING nowhere e ON u.id = e.id WHEN MATCHED THEN DELETE",
        "MERGE INTO users u USING events e ON u.id = e.name WHEN MATCHED THEN DELETE",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET n = 1 / (e.n - 5)",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN DELETE WHEN MATCHED THEN DO NOTHING",
    ] {
        for mode in MODES {
            pair.compare(mode, sql, &[], false);
        }
    }
    cluster.same_data();
    for sql in [
        "MERGE INTO users u USING events e ON u.n = e.n WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (e.id)",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN NOT MATCHED THEN INSERT (id) VALUES (e.id + 1)",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN NOT MATCHED THEN INSERT (name) VALUES (e.name)",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET id = e.id",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED AND EXISTS (SELECT FROM words) THEN DELETE",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET n = nextval('numbered_number_seq')",
        "MERGE INTO users u USING (SELECT 1.0 AS id) e ON u.id = e.id WHEN MATCHED THEN DELETE",
        "MERGE INTO products u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET n = random()",
    ] {
        pair.refused(sql);
    }
    cluster.same_data();
}

#[test]
fn it_is_part_of_its_transaction() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "BEGIN",
        "INSERT INTO events VALUES (200, 500, 'own', 1), (201, 501, 'own', 2), (202, 502, 'own', 3)",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (e.id, e.name)",
        "SELECT count(*), sum(id) FROM users",
        "SAVEPOINT s",
        "MERGE INTO users u USING changes c ON u.id = c.id WHEN MATCHED THEN DELETE",
        "ROLLBACK TO s",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN UPDATE SET note = e.name",
        "COMMIT",
        "BEGIN",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN DELETE",
        "ROLLBACK",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN DELETE; SELECT count(*) FROM users; SELECT 1 / 0",
        "BEGIN READ ONLY",
        "MERGE INTO users u USING events e ON u.id = e.id WHEN MATCHED THEN DELETE",
        "ROLLBACK",
    ] {
        pair.once(sql);
    }
    cluster.same_data();
}

#[test]
fn parameters_stand_anywhere() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for (sql, parameters) in [
        (
            "MERGE INTO users u USING (SELECT $1::int AS id, $2 AS name) s ON u.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name \
             WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
            vec![Some("5"), Some("five")],
        ),
        (
            "MERGE INTO users u USING (SELECT $1::int AS id, $2 AS name) s ON u.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name \
             WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
            vec![Some("5555"), None],
        ),
        (
            "MERGE INTO users u USING events e ON u.id = e.id AND e.n < $1 WHEN MATCHED AND u.n > $2 THEN UPDATE SET note = $3 \
             WHEN NOT MATCHED THEN INSERT (id, note) VALUES (e.id, $4)",
            vec![Some("30"), Some("3"), Some("note"), None],
        ),
        (
            "MERGE INTO products p USING users u ON p.id = u.id AND u.n > $1 WHEN MATCHED THEN UPDATE SET name = $2",
            vec![Some("5"), Some("p")],
        ),
        (
            "MERGE INTO log l USING users u ON l.id = u.id WHEN MATCHED THEN UPDATE SET line = $1",
            vec![Some("l")],
        ),
        (
            "MERGE INTO users u USING changes c ON u.id = c.id WHEN MATCHED AND c.n > $1 THEN DELETE",
            vec![Some("300")],
        ),
    ] {
        for mode in [Mode::Text, Mode::Binary] {
            pair.compare(mode, sql, &parameters, false);
            cluster.same_data();
        }
    }
}

#[test]
fn defaults_and_moments_are_one_statements() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut raw = cluster.proxy().raw();
    for sql in [
        "MERGE INTO numbered t USING events e ON t.id = e.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (e.id, e.name)",
        "MERGE INTO numbered t USING users u ON t.id = u.id WHEN MATCHED THEN UPDATE SET made = now(), name = 'again' \
         WHEN NOT MATCHED AND u.id < 20 THEN INSERT VALUES (u.id) WHEN NOT MATCHED THEN INSERT (made, id) VALUES (CURRENT_TIMESTAMP, u.id)",
        "MERGE INTO strict t USING events e ON t.id = e.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (e.id, e.name)",
        "MERGE INTO strict t USING users u ON t.id = u.id WHEN NOT MATCHED THEN INSERT VALUES (u.id)",
    ] {
        for raw in [&mut pair.proxy, &mut pair.oracle] {
            let answer = frames(raw, Mode::Text, sql, &[]);
            assert!(
                !answer.iter().any(|frame| frame.tag == b'E'),
                "{sql}\n{answer:?}"
            );
        }
        pair.same_rows("SELECT id, name FROM numbered");
        pair.same_rows("SELECT id, name FROM strict");
    }
    let one = raw.rows("SELECT count(DISTINCT number) = count(*), count(DISTINCT own) = count(*), count(DISTINCT made), count(number) FROM numbered");
    let count = raw.rows("SELECT count(*) FROM numbered").concat().concat();
    assert_eq!(one, [["t", "t", "2", &count]]);
    let one = raw.rows("SELECT count(DISTINCT number) = count(*), min(number) > 0 FROM strict");
    assert_eq!(one, [["t", "t"]]);
}
