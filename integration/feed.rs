//! INSERT … SELECT over shards, against one PostgreSQL; the rows of every shard are looked at there.

use crate::harness::compare::{MODES, Pair, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, message};

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN code AS text CHECK (length(value) > 0);
CREATE TABLE users (id int PRIMARY KEY, name text, n numeric, at timestamptz);
CREATE TABLE copies (id bigint PRIMARY KEY, name varchar(20), n int, note text DEFAULT 'none');
CREATE TABLE words (word text PRIMARY KEY, id int);
CREATE TABLE nodes (id int PRIMARY KEY, parent int REFERENCES nodes, word text);
CREATE TABLE wide (id int PRIMARY KEY, m mood, p pair, c code, d date, i interval, j jsonb, a int[], t text[], b bytea,
    f4 real, f8 float8, bits varbit, ch char(5), net inet, rng int4range, u uuid, tm time, ts timestamp, bo bool);
CREATE TABLE wider (id bigint PRIMARY KEY, m mood, p pair, c code, d date, i interval, j jsonb, a int[], t text[], b bytea,
    f4 real, f8 float8, bits varbit, ch char(5), net inet, rng int4range, u uuid, tm time, ts timestamp, bo bool);
CREATE TABLE days (day date, hour int, hits int, PRIMARY KEY (day, hour));
CREATE TABLE products (id int PRIMARY KEY, name text, n int DEFAULT 5);
CREATE TABLE bare (v text, w int);
CREATE TABLE log (id int, line text, at date DEFAULT '2020-01-01');
CREATE TABLE far (id int PRIMARY KEY, line text)";

fn cluster() -> Cluster {
    let mut builder = Cluster::new()
        .shards(3)
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, CASE WHEN i % 7 > 0 THEN 'name ' || i END, i / 4.0, \
               timestamptz '2026-01-01 00:00:00.123456Z' + i * interval '1 hour' FROM generate_series(1, 60) i")
        .rows("INSERT INTO wide SELECT i, (ARRAY['sad', 'ok', NULL])[i % 3 + 1]::mood, \
               CASE WHEN i % 4 > 0 THEN (i, 'x,\"' || i)::pair END, 'c' || i, date '2026-01-01' + i, i * interval '1 day 2 hours', \
               jsonb_build_object('k', i), ARRAY[i, NULL, i + 1], ARRAY['a\"b', NULL, ',{}' || i], ('\\x0' || i % 10)::bytea, \
               i / 3.0, i / 7.0, B'101'::varbit, 'ab', '10.0.0.1', int4range(i, i + 3), \
               '00000000-0000-0000-0000-000000000001', '01:02:03.4', '2026-01-01 00:00:00', i % 2 = 0 FROM generate_series(1, 20) i")
        .rows("INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO log SELECT i, 'line ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO far SELECT i, 'far ' || i FROM generate_series(1, 10) i")
        .home("log", 0)
        .home("far", 1);
    for (table, key) in [
        ("users", "id"),
        ("copies", "id"),
        ("words", "word"),
        ("wide", "id"),
        ("wider", "id"),
        ("nodes", "word"),
    ] {
        builder = builder.sharded(table, &[key]);
    }
    builder
        .sharded("days", &["day", "hour"])
        .replicated("products")
        .replicated("bare")
        .start()
}

/// Runs each statement on both in every mode, each time on empty tables.
fn same(pair: &mut Pair, tables: &[&str], statements: &[&str]) {
    for sql in statements {
        for mode in MODES {
            for table in tables {
                pair.once(&format!("DELETE FROM {table} WHERE true"));
            }
            let is_ordered = sql.contains("ORDER BY");
            pair.compare(mode, sql, &[], is_ordered);
        }
    }
}

#[test]
fn rows_of_any_query_are_stored() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let tables = ["copies", "words", "days", "bare"];
    for sql in [
        // Each shard by itself.
        "INSERT INTO copies (id, name) SELECT id, name FROM users",
        "INSERT INTO copies SELECT id, name, n FROM users WHERE n > 3 RETURNING id, name, n, note",
        "INSERT INTO copies (name, id) SELECT u.name, u.id FROM users u JOIN products p ON p.id = u.id RETURNING *",
        "INSERT INTO copies (id, n) SELECT id, count(*) FROM users GROUP BY id",
        "INSERT INTO copies (id, name) SELECT id, 'constant' FROM users WHERE id IN (1, 2, 3, 4)",
        // Through the proxy.
        "INSERT INTO copies (id, name) SELECT id + 100, name FROM users RETURNING id, name",
        "INSERT INTO copies (id, name, n) SELECT id * 10, upper(name), n FROM users ORDER BY n DESC, id LIMIT 12 RETURNING id, n",
        "INSERT INTO copies (id, n) SELECT count(*), sum(id) FROM users RETURNING *",
        "INSERT INTO words (word, id) SELECT name, id FROM users WHERE name IS NOT NULL RETURNING word",
        "INSERT INTO words (word, id) SELECT name, max(id) FROM users GROUP BY name HAVING name IS NOT NULL",
        "INSERT INTO words SELECT name, id FROM users",
        "INSERT INTO words SELECT 'constant', max(id) FROM users RETURNING *",
        "INSERT INTO words (id, word) SELECT 5, 'w' || id FROM far",
        "INSERT INTO words (word) SELECT line FROM log UNION ALL SELECT name FROM users WHERE id < 4 RETURNING word",
        "INSERT INTO words (word, id) (SELECT line, id FROM far ORDER BY id) RETURNING word",
        "INSERT INTO words (word, id) TABLE far",
        "INSERT INTO words (word, id) WITH x AS (SELECT name, id FROM users WHERE id < 20) \
         SELECT x.name, y.id FROM x JOIN users y ON y.id = x.id + 1 WHERE x.name IS NOT NULL",
        "WITH x(a, b) AS (SELECT name, id FROM users WHERE id < 20) INSERT INTO words AS w (word, id) \
         SELECT a || b, b FROM x WHERE a IS NOT NULL RETURNING w.word || '!' AS shout",
        "INSERT INTO days SELECT at::date, 7, count(*) FROM users GROUP BY at::date",
        "INSERT INTO days (hits, hour, day) SELECT 1, id, '2026-05-05' FROM users",
        "INSERT INTO days SELECT '2026-05-05', id FROM users RETURNING day, hour, hits",
        "INSERT INTO days SELECT NULL, id FROM users",
        "INSERT INTO bare SELECT name, id FROM users",
        "INSERT INTO bare (w) SELECT sum(id) FROM users RETURNING *",
        "INSERT INTO words (word) SELECT name FROM users WHERE false RETURNING *",
        "INSERT INTO words SELECT DISTINCT ON (n::int) name, id FROM users WHERE name IS NOT NULL ORDER BY n::int, id RETURNING id",
        "INSERT INTO words (word, id) SELECT name, row_number() OVER (ORDER BY id DESC) FROM users WHERE name IS NOT NULL",
        // What PostgreSQL rejects.
        "INSERT INTO words (word, id) SELECT name, name FROM users",
        "INSERT INTO words (word) SELECT name, id FROM users",
        "INSERT INTO words (word, id) SELECT name FROM users",
        "INSERT INTO words (nothing) SELECT name FROM users",
        "INSERT INTO words (word) SELECT nothing FROM users",
        "INSERT INTO words (word, id) SELECT name, 3000000000 + id FROM users WHERE name IS NOT NULL",
        "INSERT INTO words (word) SELECT 'same' FROM users",
        "INSERT INTO copies (id, name) SELECT id, 'much too long for its column' FROM users",
        "INSERT INTO copies (id, name) SELECT id * 3, 'much too long for its column' FROM users",
        "INSERT INTO words (word, id) SELECT name || 1 / (id - 5), id FROM users WHERE name IS NOT NULL",
        "INSERT INTO days SELECT 'no date', id FROM users",
    ] {
        same(&mut pair, &tables, &[sql]);
        if sql.contains("users u JOIN") || sql.contains("WITH") {
            cluster.same_data();
        }
    }
    cluster.same_data();
}

#[test]
fn values_keep_their_types() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let columns = "m, p, c, d, i, j, a, t, b, f4, f8, bits, ch, net, rng, u, tm, ts, bo";
    for sql in [
        format!("INSERT INTO wider SELECT id + 7, {columns} FROM wide RETURNING *"),
        format!("INSERT INTO wider (id, {columns}) SELECT id, {columns} FROM wide"),
        "INSERT INTO wider (id, m, d, a, j) SELECT id + 7, 'ok', '2026-01-01', '{1,2}', NULL FROM wide".to_owned(),
        "INSERT INTO words (word, id) SELECT m::text, max(id) FROM wide WHERE m IS NOT NULL GROUP BY m".to_owned(),
    ] {
        same(&mut pair, &["wider", "words"], &[&sql]);
        cluster.same_data();
    }
}

#[test]
fn conflicts_and_references_are_those_of_one_statement() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once("INSERT INTO words (word, id) SELECT name, -id FROM users WHERE id < 30 AND name IS NOT NULL");
    for sql in [
        "INSERT INTO words (word, id) SELECT name, id FROM users WHERE name IS NOT NULL",
        "INSERT INTO words (word, id) SELECT name, id FROM users WHERE name IS NOT NULL ON CONFLICT DO NOTHING",
        "INSERT INTO words AS w (word, id) SELECT name, id FROM users WHERE name IS NOT NULL ON CONFLICT (word) DO UPDATE \
         SET id = excluded.id * 100 + w.id WHERE w.id < 20 RETURNING w.word, w.id",
        "INSERT INTO words (word, id) SELECT 'twice', id FROM users ON CONFLICT (word) DO UPDATE SET id = 1",
        "INSERT INTO words (word, id) SELECT 'twice', id FROM users ORDER BY id ON CONFLICT DO NOTHING",
        "INSERT INTO nodes SELECT id, CASE WHEN id < 60 THEN id + 1 END, 'same' FROM users",
        "INSERT INTO products (id, name) SELECT id, name FROM users ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING *",
        "INSERT INTO products (id, name) SELECT id + 100, name FROM users RETURNING id, name, n",
        "INSERT INTO products (id, name) SELECT id + 100, name FROM users",
        "INSERT INTO log (id, line) SELECT id, name FROM users WHERE id > 55 RETURNING *",
        "INSERT INTO far SELECT id, name FROM users WHERE id > 10",
        "INSERT INTO far SELECT id, name FROM users",
    ] {
        pair.compare(crate::harness::compare::Mode::Simple, sql, &[], false);
        cluster.same_data();
    }
}

#[test]
fn it_is_part_of_its_transaction() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "BEGIN",
        "INSERT INTO users VALUES (100, 'own', 1, now())",
        "INSERT INTO words (word, id) SELECT name, id FROM users WHERE id > 50",
        "INSERT INTO words (word, id) SELECT word || '!', id FROM words",
        "SELECT count(*), sum(id) FROM words",
        "SAVEPOINT s",
        "INSERT INTO words (word, id) SELECT word, id FROM words",
        "ROLLBACK TO s",
        "COMMIT",
        "BEGIN",
        "INSERT INTO copies (id) SELECT id + 1000 FROM users",
        "ROLLBACK",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "INSERT INTO copies (id) SELECT id + 1000 FROM users",
        "INSERT INTO copies (id) SELECT id FROM users",
        "SELECT count(*) FROM copies",
        "COMMIT",
        "INSERT INTO days SELECT '2026-01-01', id FROM users; INSERT INTO days SELECT day + 1, hour FROM days; SELECT count(*) FROM days",
        "INSERT INTO days SELECT '2027-01-01', id FROM users; INSERT INTO days SELECT '2027-01-01', id FROM users",
        "BEGIN READ ONLY",
        "INSERT INTO days SELECT '2028-01-01', id FROM users",
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
            "INSERT INTO words (word, id) SELECT name || $1, $2 FROM users WHERE id < $3 AND name IS NOT NULL",
            vec![Some("!"), Some("5"), Some("20")],
        ),
        (
            "INSERT INTO words AS w (word, id) SELECT name, id FROM users WHERE id < $1 AND name IS NOT NULL ON CONFLICT (word) \
             DO UPDATE SET id = $2 RETURNING word || $3, id",
            vec![Some("20"), Some("7"), Some("-")],
        ),
        (
            "INSERT INTO days (hits, hour, day) SELECT $1, id, $2 FROM users",
            vec![None, Some("2026-01-02")],
        ),
        (
            "INSERT INTO wider (id, m) SELECT id + 1, $1 FROM wide",
            vec![Some("happy")],
        ),
        (
            "INSERT INTO words (word, id) SELECT $1, id FROM users WHERE id = 1",
            vec![Some("w")],
        ),
        (
            "INSERT INTO products (id, name) SELECT id + $1, $2 FROM users RETURNING id, name || $3",
            vec![Some("100"), Some("p"), Some("q")],
        ),
        (
            "INSERT INTO log (id, line) SELECT id, $1 FROM users WHERE id < $2",
            vec![Some("p"), Some("3")],
        ),
    ] {
        for mode in MODES.into_iter().skip(1) {
            for table in ["words", "days", "wider", "products", "log"] {
                pair.once(&format!("DELETE FROM {table} WHERE true"));
            }
            pair.compare(mode, sql, &parameters, false);
            cluster.same_data();
        }
    }
    // There is none in a Query.
    pair.once("INSERT INTO words (word, id) SELECT $1, id FROM users");
    pair.once("INSERT INTO words (word, id) SELECT name, $1 FROM users");
}

/// Both get the same messages and must answer alike.
fn agree(pair: &mut Pair, messages: &[Vec<u8>]) {
    let bytes: Vec<u8> = messages.concat();
    for raw in [&mut pair.proxy, &mut pair.oracle] {
        raw.send(&bytes);
    }
    let (got, wanted) = (
        pair.proxy.read_until(b'Z', 1),
        pair.oracle.read_until(b'Z', 1),
    );
    assert_eq!(outcome(&got), outcome(&wanted));
    let tags = |frames: &[Frame]| {
        let tags = frames.iter().filter(|frame| frame.tag != b'N');
        tags.map(|frame| char::from(frame.tag)).collect::<String>()
    };
    assert_eq!(tags(&got), tags(&wanted));
}

#[test]
fn messages_are_answered_in_order() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let bind = || message::bind("", "s", &[], &[], &[]);
    let with_rows = "INSERT INTO words (word, id) SELECT name, id FROM users WHERE name IS NOT NULL ORDER BY id RETURNING id";
    let without = "INSERT INTO copies (id) SELECT id + 1000 FROM users";
    for sql in [with_rows, without] {
        agree(
            &mut pair,
            &[
                message::parse("s", sql, &[]),
                message::describe(b'S', "s"),
                bind(),
                message::execute("", 0),
                message::sync(),
            ],
        );
        pair.once("DELETE FROM words WHERE true");
        pair.once("DELETE FROM copies WHERE true");
        let mut messages = vec![bind(), message::describe(b'P', ""), message::execute("", 3)];
        if sql == with_rows {
            messages.push(message::execute("", 0));
        }
        messages.push(message::sync());
        agree(&mut pair, &messages);
        // The second fails, and with it the batch.
        agree(
            &mut pair,
            &[
                message::parse("", "DELETE FROM days WHERE true", &[]),
                message::bind("", "", &[], &[], &[]),
                message::execute("", 0),
                bind(),
                message::execute("", 0),
                message::sync(),
            ],
        );
        agree(&mut pair, &[message::close(b'S', "s"), message::sync()]);
        pair.once("DELETE FROM words WHERE true");
    }
    cluster.same_data();
}
