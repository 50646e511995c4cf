//! `WITH` that changes rows of several shards, against one PostgreSQL; the rows of every shard are looked at there.

use crate::harness::Cluster;
use crate::harness::compare::{MODES, Mode, Pair};

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE users (id int PRIMARY KEY, name text, n int DEFAULT 5, m mood, tags text[], p pair, note char(5), own numeric(10, 2));
CREATE TABLE archive (id bigint PRIMARY KEY, name varchar(20), n int, m mood, tags text[], p pair, note char(5), own numeric(10, 2));
CREATE TABLE orders (user_id int, number int, total int, at timestamptz, PRIMARY KEY (user_id, number));
CREATE TABLE words (word text PRIMARY KEY, n int);
CREATE TABLE numbered (id serial PRIMARY KEY, name text, made date DEFAULT now());
CREATE TABLE products (id int PRIMARY KEY, name text, n int DEFAULT 1);
CREATE TABLE log (id int, line text);
CREATE TABLE far (id int, line text);
CREATE TABLE sorted (id int PRIMARY KEY, name text COLLATE \"C\");
CREATE TABLE parents (id int PRIMARY KEY, name text);
CREATE TABLE children (id int REFERENCES parents, name text)";

fn cluster() -> Cluster {
    let mut builder = Cluster::new()
        .shards(3)
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, 'user ' || i, i, (ARRAY['sad', 'ok', NULL])[i % 3 + 1]::mood, ARRAY['t' || i, NULL, 'a,\"b'], CASE WHEN i % 4 > 0 THEN ROW(i, 'b ' || i)::pair END, 'n' || i, i / 3.0 FROM generate_series(1, 40) i")
        .rows("INSERT INTO orders SELECT i % 20 + 1, i, i * 10, '2026-01-01 12:00:00+00' FROM generate_series(1, 60) i")
        .rows("INSERT INTO words SELECT 'word ' || i, i FROM generate_series(1, 20) i")
        .rows("INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO log SELECT i, 'line ' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO far SELECT i, 'far ' || i FROM generate_series(10, 30) i")
        .rows("INSERT INTO parents SELECT i, 'parent ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO children SELECT i, 'child ' || i FROM generate_series(1, 10) i")
        .home("log", 0)
        .home("far", 1);
    for (table, key) in [
        ("users", "id"),
        ("archive", "id"),
        ("orders", "user_id"),
        ("words", "word"),
        ("numbered", "id"),
        ("sorted", "id"),
        ("parents", "id"),
        ("children", "id"),
    ] {
        builder = builder.sharded(table, &[key]);
    }
    builder.replicated("products").start()
}

/// Runs each statement on both, undone behind it, and once for good.
fn same(cluster: &Cluster, pair: &mut Pair, statements: &[&str]) {
    let mut modes = MODES.into_iter().cycle();
    for (number, sql) in statements.iter().enumerate() {
        pair.once("BEGIN");
        pair.compare(modes.next().unwrap(), sql, &[], false);
        pair.compare(Mode::Simple, "SELECT * FROM users", &[], false);
        pair.once("ROLLBACK");
        pair.compare(modes.next().unwrap(), sql, &[], false);
        if number % 4 == 3 {
            cluster.same_data();
        }
    }
    cluster.same_data();
}

#[test]
fn only_what_is_returned_passes_between_parts() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    same(
        &cluster,
        &mut pair,
        &[
            "WITH moved AS (DELETE FROM users WHERE n % 5 = 0 RETURNING *) INSERT INTO archive SELECT * FROM moved RETURNING id, name, m, tags, p, note, own",
            "WITH moved AS (DELETE FROM users WHERE n % 5 = 1 RETURNING id + 1000 AS id, name) INSERT INTO archive (id, name) SELECT * FROM moved",
            "WITH moved AS (DELETE FROM users WHERE false RETURNING *) INSERT INTO archive SELECT * FROM moved RETURNING *",
            "WITH moved(a, \"B c\") AS (DELETE FROM archive WHERE id < 10 RETURNING id, upper(name)) INSERT INTO users (id, name) SELECT a + 100, \"B c\" FROM moved RETURNING *",
            "WITH ins AS (INSERT INTO words VALUES ('word 1', 1), ('new', 2), ('other', 3) ON CONFLICT DO NOTHING RETURNING word) SELECT word FROM ins UNION ALL SELECT word FROM words WHERE word IN ('word 1', 'new', 'other')",
            "WITH ins AS (INSERT INTO words VALUES ('word 2', 1), ('more', 2) ON CONFLICT (word) DO UPDATE SET n = words.n + 100 RETURNING word, n) SELECT ins.*, (SELECT count(*) FROM words) AS before, (SELECT sum(n) FROM words w) FROM ins",
            "WITH upd AS (UPDATE words SET n = 0 WHERE word = 'word 3' RETURNING *) INSERT INTO words SELECT 'word 3', 7 WHERE NOT EXISTS (SELECT 1 FROM upd)",
            "WITH upd AS (UPDATE words SET n = 0 WHERE word = 'absent' RETURNING *) INSERT INTO words SELECT 'absent', 7 WHERE NOT EXISTS (SELECT 1 FROM upd)",
            "WITH new(word, n) AS (VALUES ('word 4', 4), ('word x', 5)), upd AS (UPDATE words w SET n = new.n * 2 FROM new WHERE w.word = new.word RETURNING w.word) INSERT INTO words SELECT word, n FROM new WHERE word NOT IN (SELECT word FROM upd)",
            "WITH a AS (UPDATE users SET n = n + 1 WHERE id < 30 RETURNING id, n), b AS (DELETE FROM words WHERE n > 15 RETURNING n) SELECT a.id, a.n, b.n FROM a JOIN b ON b.n = a.n",
            "WITH a AS (UPDATE users SET n = n + 1 WHERE id < 30) SELECT count(*), sum(n) FROM users",
            "WITH a AS (UPDATE users SET n = n + 1 RETURNING *) UPDATE orders o SET total = total + a.n FROM a WHERE a.id = o.user_id RETURNING o.user_id, o.number, o.total",
            "WITH top AS (SELECT user_id, sum(total) AS sum FROM orders GROUP BY user_id ORDER BY sum DESC, user_id LIMIT 3), a AS (UPDATE users SET n = top.sum FROM top WHERE id = top.user_id RETURNING id) DELETE FROM orders USING a WHERE user_id = a.id RETURNING *",
            "WITH a AS (DELETE FROM log WHERE id < 5 RETURNING *), b AS (INSERT INTO far SELECT * FROM a RETURNING *) INSERT INTO products SELECT id + 100, line FROM b RETURNING *",
            "WITH a AS (UPDATE products SET n = n + 1 WHERE id < 6 RETURNING *) INSERT INTO archive (id, name, n) SELECT id + 500, name, n FROM a",
            "WITH a AS (INSERT INTO products VALUES (200, 'two hundred') RETURNING id) SELECT * FROM a",
            "WITH a AS (INSERT INTO products SELECT 300, name FROM users WHERE id = 4 RETURNING *) UPDATE users SET note = 'x' FROM a WHERE users.name = a.name",
            "WITH a AS (DELETE FROM orders WHERE total > 500 RETURNING user_id) MERGE INTO users u USING (SELECT DISTINCT user_id FROM a) a ON u.id = a.user_id WHEN MATCHED THEN UPDATE SET n = 0 WHEN NOT MATCHED THEN INSERT (id) VALUES (a.user_id)",
            "WITH users AS (DELETE FROM users WHERE id = 3 OR id = 4 RETURNING *) SELECT id, name FROM users",
            "WITH parent AS (INSERT INTO parents VALUES (20, 'p'), (21, 'q') RETURNING id) INSERT INTO children SELECT id, 'c' FROM parent",
            "WITH child AS (INSERT INTO children VALUES (30, 'c')), parent AS (INSERT INTO parents VALUES (30, 'p')) SELECT 1",
            "WITH parent AS (DELETE FROM parents WHERE id < 3), child AS (DELETE FROM children WHERE id < 3) SELECT 1",
            "WITH a AS (DELETE FROM words WHERE n = 11 RETURNING word), b AS (SELECT word || '!' AS word FROM a), c AS (INSERT INTO words SELECT word, 1 FROM b RETURNING *) SELECT * FROM a, b, c",
            "WITH a AS (DELETE FROM users WHERE id > 38 RETURNING ARRAY[id, n] AS ids, note, id::char(4) AS four, ARRAY[note] AS notes) SELECT ids, note || '|', four, notes FROM a",
            "WITH a AS (DELETE FROM users WHERE id > 36 RETURNING users) SELECT * FROM a",
            "UPDATE users SET name = 'taken' WHERE id = (SELECT id FROM users WHERE name <> 'taken' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, name",
            "WITH job AS (SELECT id FROM users WHERE name <> 'taken' ORDER BY id DESC LIMIT 2 FOR UPDATE SKIP LOCKED) UPDATE users SET name = 'taken' FROM job WHERE users.id = job.id RETURNING users.id, name",
            "WITH job AS (SELECT id FROM users ORDER BY id LIMIT 1 FOR UPDATE) DELETE FROM users WHERE id IN (SELECT id FROM job) RETURNING *",
            "WITH a AS (DELETE FROM users WHERE id = 20 RETURNING now() AS at) INSERT INTO orders SELECT 99, 1, extract(epoch FROM now() - a.at) FROM a WHERE a.at = now() RETURNING user_id, total, now() = statement_timestamp()",
        ],
    );
    for sql in [
        "WITH a AS (DELETE FROM users WHERE id = $1 OR id = $2::int RETURNING id, m) INSERT INTO archive (id, name, m) SELECT id + $1, $3, m FROM a RETURNING *",
        "WITH a AS (DELETE FROM archive WHERE id < $2 RETURNING id) SELECT count(*), $1::int, $3::text FROM a",
    ] {
        for mode in [Mode::Text, Mode::Binary] {
            let parameters = [Some("11"), Some("12"), Some("x")];
            pair.once("BEGIN");
            pair.compare(mode, sql, &parameters, false);
            pair.once("ROLLBACK");
            pair.compare(mode, sql, &parameters, false);
            cluster.same_data();
        }
    }
    pair.once("PREPARE move AS WITH a AS (DELETE FROM users WHERE id = $1 RETURNING id, name) INSERT INTO archive (id, name) SELECT id + 2000, name FROM a RETURNING *");
    pair.once("EXECUTE move(13)");
    pair.once("BEGIN; EXECUTE move(14); EXECUTE move(15); COMMIT");
    pair.once("WITH a AS (DELETE FROM sorted) SELECT 1; WITH a AS (DELETE FROM users WHERE id = 16 RETURNING *) SELECT id FROM a");
    cluster.same_data();
    // A number of the first shard's sequence each, the same on both sides.
    pair.compare(
        Mode::Simple,
        "WITH a AS (INSERT INTO numbered (name) SELECT name FROM users ORDER BY id RETURNING name) SELECT count(*) FROM a",
        &[],
        false,
    );
}

#[test]
fn an_error_of_any_part_undoes_all() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "WITH a AS (DELETE FROM users RETURNING *) INSERT INTO orders SELECT 1, 20, n FROM a",
        "WITH a AS (DELETE FROM users RETURNING *) INSERT INTO archive (id, name) SELECT id, repeat('x', 30) FROM a",
        "WITH a AS (DELETE FROM users RETURNING 1 / (id - 5) AS x) SELECT * FROM a",
        "WITH a AS (DELETE FROM users RETURNING *) SELECT 1 / (id - 5) FROM a",
        "WITH a AS (DELETE FROM users RETURNING nothing) SELECT * FROM a",
        "WITH a AS (DELETE FROM users) SELECT * FROM a",
        "WITH a AS (DELETE FROM users RETURNING *) INSERT INTO archive (id) SELECT NULL FROM a",
        "WITH a AS (DELETE FROM parents WHERE id = 5 RETURNING id) SELECT * FROM a",
    ] {
        for mode in MODES {
            pair.compare(mode, sql, &[], false);
            pair.once("BEGIN");
            pair.once("UPDATE words SET n = n");
            pair.compare(mode, sql, &[], false);
            pair.once("ROLLBACK");
        }
    }
    cluster.same_data();
}

#[test]
fn what_a_part_would_see_of_another_is_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "WITH a AS (UPDATE users SET n = 0 RETURNING id) SELECT * FROM a JOIN users USING (id)",
        "WITH a AS (UPDATE users SET n = 0 RETURNING id) DELETE FROM users WHERE n = 0",
        "WITH a AS (UPDATE users SET n = 0 WHERE id < 9 RETURNING id) UPDATE users SET n = 1 FROM a WHERE users.id = a.id",
        "WITH a AS (DELETE FROM words WHERE word = 'word 1') INSERT INTO words VALUES ('word 1', 0), ('word 99', 0)",
        "WITH a AS (DELETE FROM words WHERE word < 'x' RETURNING *) INSERT INTO words SELECT * FROM a ON CONFLICT DO NOTHING",
        "WITH a AS (DELETE FROM parents RETURNING id) INSERT INTO parents SELECT id FROM a",
        "WITH a AS (DELETE FROM parents RETURNING id) DELETE FROM children USING a WHERE a.id = children.id",
        "WITH a AS (DELETE FROM users RETURNING ROW(1, 2) AS r) SELECT * FROM a",
        "WITH a AS (DELETE FROM sorted RETURNING *) SELECT * FROM a ORDER BY name",
        "WITH a AS (DELETE FROM users RETURNING name COLLATE \"C\" AS name) SELECT * FROM a ORDER BY name",
    ] {
        pair.refused(sql);
    }
    cluster.same_data();
}

#[test]
fn two_workers_never_get_one_job() {
    let cluster = cluster();
    for sql in [
        "UPDATE users SET name = 'taken' WHERE id = (SELECT id FROM users WHERE name <> 'taken' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id",
        "WITH job AS (SELECT id FROM users WHERE name <> 'taken' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) UPDATE users SET name = 'taken' FROM job WHERE users.id = job.id RETURNING users.id",
    ] {
        let take = |raw: &mut crate::harness::Raw| {
            let frames = crate::harness::compare::frames(raw, Mode::Simple, sql, &[]);
            crate::harness::compare::outcome(&frames).rows
        };
        let (mut one, mut two) = (cluster.proxy().raw(), cluster.proxy().raw());
        crate::harness::compare::frames(&mut one, Mode::Simple, "BEGIN", &[]);
        let first = take(&mut one);
        let second = take(&mut two);
        crate::harness::compare::frames(&mut one, Mode::Simple, "ROLLBACK", &[]);
        assert_eq!((first.len(), second.len()), (1, 1), "{sql}");
        assert_ne!(first, second, "{sql}");
    }
}
