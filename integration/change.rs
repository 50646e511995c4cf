//! UPDATE and DELETE over shards beside one PostgreSQL with all rows; the place of every row is checked.

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::{Cluster, Raw, eventually};

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, age int, country text, n int,
        changed timestamptz, m mood, score float8, day date, tags text[]);
    CREATE TABLE orders (user_id bigint, order_id int, total numeric(12,2), status text,
        at timestamptz, note varchar(8), PRIMARY KEY (user_id, order_id));
    CREATE TABLE visits (visit_id int PRIMARY KEY, user_id bigint, country text, at timestamptz,
        m mood, x float8, i interval, b bytea, j json, a int[]);
    CREATE TABLE countries (code text PRIMARY KEY, title text, rate numeric);
    CREATE TABLE settings (key text PRIMARY KEY, value int);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, 'name' || i, i % 50, (ARRAY['de','fr','us'])[1 + i % 3], 0, NULL,
        (ARRAY['sad','ok','happy',NULL])[1 + i % 4]::mood, i / 7.0, '2026-01-01'::date + i % 30,
        ARRAY['a', 'b' || i] FROM generate_series(1, 60) i;
    INSERT INTO orders SELECT 1 + i % 70, i, i * 1.25, (ARRAY['new','paid','sent'])[1 + i % 3],
        '2026-01-01'::timestamptz + i * interval '7 hours', 'n' || i FROM generate_series(1, 200) i;
    INSERT INTO visits SELECT i, 1 + i * 7 % 66, (ARRAY['de','fr','it',NULL])[1 + i % 4],
        '2026-01-01 12:34:56.789012'::timestamptz + i * interval '7 hours 3 seconds',
        (ARRAY['sad','ok','happy',NULL])[1 + i % 4]::mood, i / 3.0,
        i * interval '1 day -2 hours', decode(lpad(to_hex(i), 4, '0'), 'hex'),
        json_build_object('a', 'q\"uo\\te', 'b', i), ARRAY[i, NULL, 3] FROM generate_series(1, 120) i;
    INSERT INTO countries VALUES ('de', 'Germany', 1.5), ('fr', 'France', 2.25), ('it', 'Italy', 3);
    INSERT INTO settings VALUES ('limit', 30), ('de', 3), ('us', 5);
";

/// The tables and their keys.
const TABLES: [(&str, &str); 3] = [
    ("users", "user_id"),
    ("orders", "user_id"),
    ("visits", "visit_id"),
];

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .sharded("visits", &["visit_id"])
        .replicated("countries")
        .home("settings", 1)
        .trust()
        .start()
}

/// All rows of a table as texts, in order.
fn rows(raw: &mut Raw, table: &str) -> Vec<String> {
    let sql = format!("SELECT t::text FROM {table} t");
    let mut rows: Vec<String> = raw.rows(&sql).into_iter().flatten().collect();
    rows.sort();
    rows
}

/// The shards hold the oracle's rows, each where its key belongs.
fn settled(cluster: &Cluster, shards: usize, what: &str) {
    let mut oracle = cluster.oracle().raw();
    let all: Vec<(&str, Option<&str>)> = TABLES
        .iter()
        .map(|(table, key)| (*table, Some(*key)))
        .chain([("settings", None)])
        .collect();
    let mut direct: Vec<Raw> = (0..shards)
        .map(|shard| cluster.shard(shard).raw())
        .collect();
    for (table, key) in all {
        let mut found = Vec::new();
        for (shard, direct) in direct.iter_mut().enumerate() {
            found.extend(rows(direct, table));
            let Some(key) = key else { continue };
            let slots = 16384 / shards;
            let sql = format!(
                "SELECT {key} FROM {table} WHERE least((hashint8extended({key}, 0) & 16383) / {slots}, {}) \
                 <> {shard}",
                shards - 1
            );
            let misplaced = direct.rows(&sql);
            assert!(
                misplaced.is_empty(),
                "{what}\n{table} on s{shard}: {misplaced:?}"
            );
        }
        found.sort();
        assert_eq!(found, rows(&mut oracle, table), "{table} after\n{what}");
    }
    for direct in &mut direct {
        let gids = direct.rows("SELECT gid FROM pg_prepared_xacts");
        assert!(gids.is_empty(), "{what}: {gids:?}");
    }
}

/// Runs a change on both and undoes it, in every mode; runs it again for good.
fn change(cluster: &Cluster, pair: &mut Pair, shards: usize, sql: &str) {
    for mode in MODES {
        pair.once("BEGIN");
        same(pair, mode, sql, &[]);
        pair.once("ROLLBACK");
    }
    same(pair, Mode::Text, sql, &[]);
    settled(cluster, shards, sql);
}

fn same(pair: &mut Pair, mode: Mode, sql: &str, parameters: &[Option<&str>]) {
    let mut got = outcome(&frames(&mut pair.proxy, mode, sql, parameters));
    let mut wanted = outcome(&frames(&mut pair.oracle, mode, sql, parameters));
    got.rows.sort();
    wanted.rows.sort();
    assert_eq!(got, wanted, "{sql}\n{mode:?} {parameters:?}");
}

const CHANGES: &[&str] = &[
    "UPDATE users SET n = n + 1 WHERE age > 10 RETURNING user_id, n",
    "UPDATE users SET n = (SELECT count(*) FROM orders o WHERE o.user_id = users.user_id)",
    "UPDATE users SET n = n + 1 WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = users.user_id \
     AND o.total > 100) RETURNING *",
    "UPDATE users u SET name = v.country FROM visits v WHERE v.visit_id = u.user_id RETURNING u.user_id, v.*",
    "UPDATE users SET n = s.n FROM (SELECT user_id, count(*)::int AS n FROM visits GROUP BY user_id) s \
     WHERE s.user_id = users.user_id RETURNING users.user_id, s.n",
    "UPDATE users SET age = (SELECT max(age) FROM users) WHERE user_id IN (SELECT user_id FROM visits \
     WHERE country = 'it')",
    "UPDATE users SET name = c.title FROM countries c WHERE c.code = users.country",
    "UPDATE users SET n = (SELECT value FROM settings WHERE key = 'limit')",
    "UPDATE users SET n = s.value FROM settings s WHERE s.key = users.country RETURNING user_id, s.key",
    "DELETE FROM orders WHERE user_id IN (SELECT user_id FROM users WHERE age < 5) RETURNING order_id",
    "DELETE FROM orders USING users u WHERE u.user_id = orders.user_id AND u.age = 7",
    "DELETE FROM orders o WHERE NOT EXISTS (SELECT FROM users u WHERE u.user_id = o.user_id)",
    "DELETE FROM visits WHERE visit_id IN (SELECT visit_id FROM visits ORDER BY at, visit_id LIMIT 7) \
     RETURNING visit_id, at",
    "UPDATE visits v SET x = w.x, i = w.i, b = w.b, j = w.j, a = w.a, m = w.m, at = w.at FROM visits w \
     WHERE w.visit_id = v.visit_id + 1 AND v.visit_id % 3 = 0 RETURNING v.*",
    "UPDATE visits SET (x, i) = (SELECT score, day - '2026-01-01'::timestamp FROM users u \
     WHERE u.user_id = visits.user_id) WHERE visit_id % 5 = 0",
    "UPDATE settings SET value = (SELECT count(*) FROM users) WHERE key = 'limit' RETURNING *",
    "UPDATE settings SET value = u.age FROM users u WHERE u.user_id = 7 AND settings.key = u.country",
    "DELETE FROM settings WHERE key IN (SELECT country FROM users WHERE user_id IN (SELECT user_id FROM visits))",
    "WITH old AS (SELECT user_id FROM visits WHERE x > 20), more AS (SELECT user_id FROM old WHERE user_id > 3) \
     UPDATE users SET n = -1 FROM more WHERE more.user_id = users.user_id RETURNING users.user_id",
    "UPDATE users SET tags = ARRAY(SELECT country FROM visits WHERE country IS NOT NULL ORDER BY visit_id LIMIT 3)",
    "UPDATE users SET n = 5 WHERE (age, country) IN (SELECT age, country FROM users WHERE user_id < 20)",
    "UPDATE users SET score = (SELECT avg(visit_id) FROM visits), day = (SELECT max(day) FROM users)",
    "UPDATE users SET m = (SELECT m FROM visits WHERE m IS NOT NULL ORDER BY visit_id LIMIT 1) RETURNING user_id, m",
    "DELETE FROM users WHERE user_id > ALL (SELECT user_id FROM visits)",
    "DELETE FROM users WHERE user_id = 5 AND EXISTS (SELECT 1 FROM visits WHERE visits.user_id = users.user_id)",
    "UPDATE users SET n = 9 WHERE user_id IN (3, 4, 5, 6) AND country IN (SELECT country FROM visits)",
    "DELETE FROM orders WHERE user_id = 9 AND order_id NOT IN (SELECT visit_id FROM visits)",
    "UPDATE users SET name = current_user, n = length(session_user)",
];

#[test]
fn changes_are_those_of_one_postgresql() {
    for shards in [2, 3] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        for sql in CHANGES {
            change(&cluster, &mut pair, shards, sql);
        }
    }
}

/// What a session says of the moment is the same on all shards.
#[test]
fn a_moment_is_one_on_all_shards() {
    let cluster = cluster(3);
    let mut raw = cluster.proxy().raw();
    let one = |raw: &mut Raw, sql: &str| {
        let rows = raw.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].clone()
    };
    let moments = "SELECT DISTINCT changed FROM users";
    for call in [
        "now()",
        "current_timestamp",
        "pg_catalog.now()",
        "transaction_timestamp ( )",
        "current_timestamp(3)",
        "localtimestamp",
        "localtimestamp(0)",
        "current_date",
        "current_date + localtime",
        "statement_timestamp()",
        "coalesce(NULL, now() - interval '1 day')",
        "(SELECT max(at) FROM orders WHERE at < now())",
    ] {
        let rows = raw.rows(&format!(
            "UPDATE users SET changed = {call} RETURNING now(), changed"
        ));
        assert_eq!(rows.len(), 60, "{call}");
        one(&mut raw, moments);
    }
    // In a transaction it is that of the first shard, whichever joins later.
    raw.query("BEGIN");
    let id = raw.rows("SELECT user_id FROM users")[5][0].clone();
    let update = format!("UPDATE users SET changed = now() WHERE user_id = {id} RETURNING changed");
    let first = one(&mut raw, &update);
    raw.query("UPDATE users SET changed = now() WHERE n = 0");
    assert_eq!(one(&mut raw, moments), first);
    raw.query("UPDATE orders SET at = now()");
    assert_eq!(one(&mut raw, "SELECT DISTINCT at FROM orders"), first);
    raw.query("COMMIT");
    assert_eq!(one(&mut raw, moments), first);
    raw.query("UPDATE users SET changed = now()");
    assert_ne!(one(&mut raw, moments), first);
    // Parameters keep their numbers, and settings change nothing.
    raw.query("SET datestyle = 'German'");
    raw.query("SET timezone = 'Asia/Kolkata'");
    raw.query("SET intervalstyle = 'sql_standard'");
    let mut pair = Pair::new(&cluster);
    let sql = "UPDATE users SET n = $1, name = $2 WHERE changed < now() AND age > $3 \
               AND user_id IN (SELECT user_id FROM visits WHERE country = $2 OR x > $1) RETURNING user_id, n, name";
    for mode in [Mode::Text, Mode::Binary] {
        pair.oracle.query("UPDATE users SET changed = '2026-01-01'");
        same(&mut pair, mode, sql, &[Some("7"), Some("it"), Some("3")]);
    }
    raw.rows("UPDATE users SET changed = now(), name = 'x' WHERE age > 3 RETURNING changed");
    one(
        &mut raw,
        "SELECT DISTINCT changed FROM users WHERE name = 'x'",
    );
}

#[test]
fn what_has_a_value_for_each_row_is_called_by_each_shard() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    raw.query("UPDATE users SET score = random(), name = gen_random_uuid()::text, changed = clock_timestamp()");
    let rows = raw.rows("SELECT count(DISTINCT score), count(DISTINCT name) FROM users");
    assert_eq!(rows, [["60", "60"]]);
    raw.query("UPDATE users SET score = (SELECT random())");
    assert_eq!(raw.rows("SELECT count(DISTINCT score) FROM users"), [["1"]]);
}

#[test]
fn a_failure_undoes_all_and_settings_change_nothing() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for setting in [
        "SET datestyle = 'SQL, DMY'",
        "SET intervalstyle = 'sql_standard'",
        "SET extra_float_digits = -5",
        "SET bytea_output = 'escape'",
        "SET timezone = 'America/St_Johns'",
    ] {
        pair.once(setting);
    }
    let copy = "UPDATE visits v SET x = w.x, i = w.i, b = w.b, j = w.j, a = w.a, m = w.m, at = w.at \
                FROM visits w WHERE w.visit_id = v.visit_id + 1 AND v.visit_id % 3 = 0 RETURNING v.*";
    same(&mut pair, Mode::Text, copy, &[]);
    let all = "UPDATE visits SET at = (SELECT at FROM visits WHERE visit_id = 8), \
               i = (SELECT i FROM visits WHERE visit_id = 8), x = (SELECT x FROM visits WHERE visit_id = 8)";
    same(&mut pair, Mode::Simple, all, &[]);
    settled(&cluster, 2, all);
    for sql in [
        "UPDATE users SET n = 1 / (user_id - 33), age = (SELECT max(age) FROM users)",
        "UPDATE users SET n = (SELECT age FROM users WHERE user_id < 3)",
        "UPDATE users SET n = nothing FROM visits v WHERE v.user_id = users.user_id",
        "UPDATE orders SET note = (SELECT max(name) || 'too long' FROM users)",
        "DELETE FROM users WHERE user_id = (SELECT 1 / (count(*) - 120) FROM visits)",
    ] {
        for mode in MODES {
            same(&mut pair, mode, sql, &[]);
            settled(&cluster, 2, sql);
            pair.once("BEGIN");
            pair.once("UPDATE users SET n = 77 WHERE user_id = 3");
            same(&mut pair, mode, sql, &[]);
            same(&mut pair, mode, "SELECT 1", &[]);
            pair.once("COMMIT");
            settled(&cluster, 2, sql);
        }
    }
}

#[test]
fn what_travels_is_limited() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .sharded("visits", &["visit_id"])
        .config("limits", "{ intermediate: 1MB }")
        .start();
    let mut raw = cluster.proxy().raw();
    raw.query("UPDATE visits SET country = repeat('x', 20000)");
    let sql = "UPDATE users SET name = v.country FROM visits v WHERE v.user_id = users.user_id";
    assert_eq!(raw.code(sql), "53400");
    raw.query(&format!("{sql} AND v.visit_id < 9"));
    let rows = raw.rows("SELECT count(*) > 0 FROM users WHERE length(name) = 20000");
    assert_eq!(rows, [["t"]]);
}

/// A transaction that has lost a participant leaves no connection to others in the middle of it.
#[test]
fn a_lost_participant_takes_the_others_along() {
    let cluster = cluster(3);
    for lost in 0..3 {
        let mut raw = cluster.proxy().raw();
        raw.query("BEGIN");
        raw.query("UPDATE users SET n = 4");
        let mut direct = cluster.shard(lost).raw();
        let open = "FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        direct.rows(&format!("SELECT pg_terminate_backend(pid) {open}"));
        assert_ne!(raw.code("UPDATE users SET n = 5"), "");
        for shard in 0..3 {
            let mut direct = cluster.shard(shard).raw();
            eventually("ended", || {
                match direct.rows(&format!("SELECT query {open}")) {
                    rows if rows.is_empty() => Ok(()),
                    rows => Err(rows),
                }
            });
        }
        raw.query("ROLLBACK");
        assert_eq!(raw.rows("SELECT DISTINCT n FROM users"), [["0"]]);
    }
}

const MOVES: &[&str] = &[
    "UPDATE orders SET user_id = 7 WHERE user_id = 3 RETURNING *",
    "UPDATE orders SET user_id = user_id + 100 WHERE order_id % 3 = 0 RETURNING order_id, user_id, note",
    "UPDATE orders SET user_id = 3, order_id = order_id + 1000, note = NULL, status = 'moved', at = now() - now() + at \
     WHERE user_id IN (4, 5, 6)",
    "UPDATE users SET user_id = user_id + 1000, m = 'sad', score = score * 2, tags = tags || 'x'::text \
     RETURNING user_id, tags, m",
    "UPDATE visits SET visit_id = visit_id + 500, user_id = 1 WHERE x > 20",
    "UPDATE visits AS v SET visit_id = v.visit_id + 1000 + c.n FROM (SELECT code, length(title) AS n FROM countries) c \
     WHERE c.code = v.country",
    "UPDATE visits SET visit_id = 5000 + visit_id + (SELECT count(*) FROM users) WHERE visit_id IN \
     (SELECT visit_id FROM visits ORDER BY at DESC, visit_id LIMIT 9) RETURNING *",
    "UPDATE users SET user_id = user_id, name = 'same' WHERE user_id % 2 = 0",
    "UPDATE users SET user_id = 1001 WHERE user_id = 1001 RETURNING name",
    "UPDATE orders SET user_id = -1 WHERE user_id = -77",
    "WITH big AS (SELECT user_id FROM users WHERE age > 30) UPDATE orders SET user_id = 77, order_id = -order_id \
     FROM big WHERE big.user_id = orders.user_id + 1000",
];

#[test]
fn rows_move_with_their_keys() {
    for shards in [2, 3] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        for sql in MOVES {
            change(&cluster, &mut pair, shards, sql);
        }
        let sql = "UPDATE orders SET user_id = $1, note = $2 WHERE order_id = $3 RETURNING user_id, note, at";
        for (mode, id) in [(Mode::Text, "41"), (Mode::Binary, "42")] {
            for key in ["500", "501", "502"] {
                same(&mut pair, mode, sql, &[Some(key), Some("p"), Some(id)]);
            }
        }
        settled(&cluster, shards, sql);
        // What one shard says undoes all.
        for sql in [
            "UPDATE users SET user_id = 1009 WHERE user_id IN (1010, 1011, 1012)",
            "UPDATE users SET user_id = NULL WHERE user_id = 1009",
            "UPDATE users SET user_id = user_id + 9223372036854775000 WHERE user_id > 1000",
            "UPDATE orders SET user_id = 9000, note = 'much too long' WHERE order_id = 42",
            "UPDATE orders SET user_id = 9000, total = status WHERE order_id = 42",
            "UPDATE orders SET user_id = 'x' WHERE order_id = 42",
        ] {
            for mode in MODES {
                let code = |raw: &mut Raw| {
                    let reports = outcome(&frames(raw, mode, sql, &[])).reports;
                    reports
                        .into_iter()
                        .map(|(code, _)| code)
                        .collect::<Vec<_>>()
                };
                assert_eq!(code(&mut pair.proxy), code(&mut pair.oracle), "{sql}");
            }
            settled(&cluster, shards, sql);
        }
        for sql in [
            "UPDATE users SET user_id = 5, score = random() WHERE user_id = 1009",
            "UPDATE users SET user_id = v.visit_id FROM visits v WHERE v.user_id = 3 RETURNING name",
            "UPDATE users SET (user_id, name) = (5, 'x') WHERE user_id = 1009",
        ] {
            pair.refused(sql);
        }
    }
}

#[test]
fn rows_that_others_follow_do_not_move() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE users (user_id bigint PRIMARY KEY, name text);\n\
             CREATE TABLE plain (user_id bigint REFERENCES users, id int, PRIMARY KEY (user_id, id));\n\
             CREATE TABLE owners (user_id bigint PRIMARY KEY, name text);\n\
             CREATE TABLE owned (user_id bigint REFERENCES owners ON UPDATE CASCADE, id int)",
        )
        .rows(
            "INSERT INTO users SELECT i, 'n' FROM generate_series(1, 20) i;\n\
             INSERT INTO plain SELECT i, i FROM generate_series(1, 10) i;\n\
             INSERT INTO owners SELECT i, 'n' FROM generate_series(1, 20) i;\n\
             INSERT INTO owned SELECT i, i FROM generate_series(1, 10) i",
        )
        .sharded("users", &["user_id"])
        .sharded("plain", &["user_id"])
        .sharded("owners", &["user_id"])
        .sharded("owned", &["user_id"])
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "UPDATE plain SET user_id = 15 WHERE id < 5",
        "UPDATE users SET user_id = user_id + 100 WHERE user_id IN (11, 12, 13, 14)",
        "UPDATE users SET user_id = user_id + 100 WHERE user_id < 9",
        "UPDATE plain SET user_id = 999",
    ] {
        let code = |raw: &mut Raw| {
            let outcome = outcome(&raw.query(sql));
            (
                outcome.tags,
                outcome
                    .reports
                    .into_iter()
                    .map(|(code, _)| code)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(code(&mut pair.proxy), code(&mut pair.oracle), "{sql}");
        for table in ["users", "plain"] {
            assert_eq!(
                rows(&mut pair.proxy, table),
                rows(&mut pair.oracle, table),
                "{sql}"
            );
        }
    }
    assert_eq!(
        pair.proxy.code("UPDATE owners SET user_id = user_id + 100"),
        "0A000"
    );
    assert_eq!(
        rows(&mut pair.proxy, "owners"),
        rows(&mut pair.oracle, "owners")
    );
    pair.once("UPDATE owners SET user_id = user_id, name = 'x'");
}

#[test]
fn tables_are_truncated_and_locked_everywhere() {
    let cluster = cluster(3);
    let mut pair = Pair::new(&cluster);
    pair.once("BEGIN");
    pair.once("TRUNCATE users, TABLE_OF_NOBODY");
    pair.once("ROLLBACK");
    pair.once("BEGIN");
    pair.once("LOCK TABLE users, orders IN SHARE MODE");
    for shard in 0..3 {
        let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND relation IN \
                     ('users'::regclass, 'orders'::regclass)";
        assert_eq!(cluster.shard(shard).raw().rows(locks), [["2"]]);
    }
    pair.once("TRUNCATE TABLE users, ONLY public.orders RESTART IDENTITY CASCADE");
    pair.same_rows("SELECT count(*) FROM users");
    pair.once("ROLLBACK");
    settled(&cluster, 3, "ROLLBACK");
    pair.same("LOCK users");
    for sql in ["TRUNCATE users", "TRUNCATE TABLE orders, visits"] {
        same(&mut pair, Mode::Text, sql, &[]);
        settled(&cluster, 3, sql);
    }
}

#[test]
fn rows_are_locked_where_they_are() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    pair.same_rows("SELECT user_id, name FROM users WHERE age > 10 FOR UPDATE");
    pair.once("BEGIN");
    let sql = "SELECT users.user_id, order_id FROM users JOIN orders USING (user_id) WHERE age > 10 \
               FOR NO KEY UPDATE OF orders SKIP LOCKED";
    pair.same_rows(sql);
    for shard in 0..2 {
        let mut direct = cluster.shard(shard).raw();
        let free = "SELECT order_id FROM orders JOIN users USING (user_id) WHERE age > 10 FOR UPDATE \
                    OF orders SKIP LOCKED";
        assert!(direct.rows(free).is_empty());
        let free = "SELECT user_id FROM users WHERE age > 10 FOR UPDATE SKIP LOCKED";
        assert!(!direct.rows(free).is_empty());
    }
    pair.once("COMMIT");
    for shard in 0..2 {
        let free = "SELECT user_id FROM users FOR UPDATE NOWAIT";
        assert!(!cluster.shard(shard).raw().rows(free).is_empty());
    }
    // Rows of replicated tables are on every shard: one lock would not keep others out.
    let joined = "SELECT u.user_id, title FROM users u JOIN countries ON code = country";
    pair.refused(&format!("{joined} FOR UPDATE"));
    pair.refused(&format!(
        "{joined} WHERE u.user_id = 3 FOR SHARE OF u, countries"
    ));
    pair.once("BEGIN");
    pair.same_rows(&format!("{joined} FOR UPDATE OF u"));
    pair.same(&format!(
        "{joined} WHERE u.user_id = 3 FOR SHARE OF u FOR UPDATE OF u NOWAIT"
    ));
    pair.same(&format!(
        "{joined} ORDER BY u.user_id DESC LIMIT 3 FOR UPDATE OF u"
    ));
    for shard in 0..2 {
        let mut direct = cluster.shard(shard).raw();
        let free = "SELECT user_id FROM users WHERE country IN ('de', 'fr') FOR UPDATE SKIP LOCKED";
        assert!(direct.rows(free).is_empty());
        let free = "SELECT code FROM countries FOR UPDATE NOWAIT";
        assert_eq!(direct.rows(free).len(), 3);
    }
    pair.once("COMMIT");
    pair.once("SELECT value FROM settings JOIN countries ON code = key FOR UPDATE OF settings");
    pair.refused("SELECT user_id FROM users ORDER BY name COLLATE \"de-x-icu\" LIMIT 3 FOR UPDATE");
}

#[test]
fn rows_in_order_are_locked_where_they_are() {
    let cluster = cluster(2);
    let [mut first, mut second] = [Pair::new(&cluster), Pair::new(&cluster)];
    first.same("SELECT user_id FROM users ORDER BY user_id DESC FOR NO KEY UPDATE");
    for pair in [&mut first, &mut second] {
        pair.once("BEGIN");
    }
    first.same(
        "SELECT user_id, name FROM users WHERE user_id <= 6 ORDER BY user_id DESC FOR UPDATE",
    );
    second.same("SELECT user_id FROM users ORDER BY user_id LIMIT 3 FOR UPDATE SKIP LOCKED");
    second.same_with(
        "SELECT user_id FROM users WHERE user_id > $1 ORDER BY user_id OFFSET 1 LIMIT $2 FOR SHARE",
        &[Some("12"), Some("3")],
    );
    second.once("UPDATE users SET age = 7 WHERE user_id = 8");
    second.once("SELECT user_id FROM users ORDER BY user_id FOR KEY SHARE NOWAIT");
    second.once("ROLLBACK");
    first.once("UPDATE users SET age = 9 WHERE user_id IN (3, 4)");
    first.once("COMMIT");
    settled(&cluster, 2, "COMMIT");
    second.same("SELECT user_id, age FROM users ORDER BY user_id FOR UPDATE NOWAIT");
    for shard in 0..2 {
        let free = "SELECT user_id FROM users FOR UPDATE NOWAIT";
        assert!(!cluster.shard(shard).raw().rows(free).is_empty());
    }
}

/// One PostgreSQL changes all rows before it gives the first that RETURNING names.
#[test]
fn a_change_that_fails_gives_no_rows() {
    let cluster = cluster(3);
    let mut pair = Pair::new(&cluster);
    pair.once("ALTER TABLE users ADD CHECK (n < 100)");
    for sql in [
        "UPDATE users SET n = CASE user_id WHEN 7 THEN 100 ELSE 1 END RETURNING user_id, name",
        "UPDATE users SET n = 1 RETURNING 1 / (user_id - 9)",
        "DELETE FROM orders RETURNING order_id, 1 / (order_id - 77)",
        "UPDATE users u SET n = 60 * s.value FROM settings s WHERE s.key = u.country RETURNING u.user_id",
        "INSERT INTO orders SELECT user_id, order_id - 100 * (order_id / 101), 5 FROM orders RETURNING order_id",
        "INSERT INTO users (user_id, n) VALUES (101, 1), (102, 2), (103, 3), (104, 104), (105, 5) RETURNING user_id",
        "INSERT INTO countries VALUES ('es', 'Spain', 1), ('de', 'Germany', 1) RETURNING code",
    ] {
        pair.same(sql);
    }
    // The rows of the shard that is done are ready long before the other fails.
    let late = "UPDATE users SET n = 1 WHERE user_id < 20 RETURNING user_id, repeat('x', 20000), \
         CASE user_id WHEN 7 THEN 1 / (length(pg_sleep(0.3)::text) - length(pg_sleep(0)::text)) END";
    for _ in 0..2 {
        let frames = pair.proxy.query(late);
        let tags: Vec<u8> = frames.iter().map(|frame| frame.tag).collect();
        assert_eq!(tags, b"EZ");
    }
    pair.same_rows("UPDATE users SET n = 2 RETURNING user_id, repeat(name, 20000)");
}
