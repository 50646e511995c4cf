//! Views on sharded tables, beside one PostgreSQL with all rows.

use crate::harness::compare::{Pair, outcome};
use crate::harness::{Cluster, message};

const SCHEMA: &str = r#"
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, age int, country text, joined timestamptz);
    CREATE TABLE orders (user_id bigint, order_id int, total numeric(8,2), status text, PRIMARY KEY (user_id, order_id));
    CREATE TABLE countries (code text PRIMARY KEY, title text);
    CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1) || ''!''';
    CREATE VIEW adults AS SELECT user_id, name, age, country FROM users WHERE age >= 18;
    CREATE VIEW spent(who, total, orders) AS SELECT u.user_id, sum(o.total), count(*) FROM users u
        LEFT JOIN orders o USING (user_id) GROUP BY u.user_id;
    CREATE VIEW per_country AS SELECT c.title, count(a.user_id) AS n, string_agg(shout(a.name), ',' ORDER BY a.user_id) AS names
        FROM countries c LEFT JOIN adults a ON a.country = c.code GROUP BY c.title;
    CREATE VIEW quoted AS SELECT user_id AS "User Id", name AS "select", E'back\\slash''s' AS odd,
        '2026-01-01 00:00+00'::timestamptz AS at, CASE WHEN age BETWEEN 3 AND 9 THEN 'x' END AS c,
        extract(year FROM joined)::int AS y, interval '1 day -2 hours' AS i FROM users;
    CREATE VIEW recursive_one AS WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5)
        SELECT n, name FROM t JOIN users ON user_id = n;
    CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM users WHERE country <> 'de';
    CREATE VIEW all_names AS SELECT name FROM users UNION SELECT title FROM countries;
    CREATE VIEW titles AS SELECT title FROM countries;
"#;

const ROWS: &str = "
    INSERT INTO users SELECT i, 'name ' || i % 17, i % 40, (ARRAY['de','fr',NULL])[1 + i % 3],
        '2026-01-01 00:00+00'::timestamptz + i * interval '9 days' FROM generate_series(1, 60) i;
    INSERT INTO orders SELECT 1 + i % 70, i, i * 1.25, (ARRAY['new','paid'])[1 + i % 2] FROM generate_series(1, 150) i;
    INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('it', 'Italy');
";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .replicated("countries")
        .start()
}

#[test]
fn views_give_what_one_server_gives() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT name FROM adults WHERE user_id = 30",
        "SELECT * FROM adults ORDER BY user_id",
        "SELECT a.name, o.total FROM adults a JOIN orders o ON o.user_id = a.user_id ORDER BY o.order_id",
        "SELECT count(*) FROM adults",
        "SELECT * FROM spent ORDER BY who",
        "SELECT total FROM spent WHERE who = 7",
        "SELECT max(total), sum(orders) FROM public.spent",
        "SELECT * FROM per_country ORDER BY title",
        "SELECT * FROM quoted ORDER BY 1",
        "SELECT q.\"select\", odd, at, c, y, i FROM quoted q WHERE \"User Id\" = 5",
        "SELECT * FROM recursive_one ORDER BY n",
        "SELECT name FROM barrier WHERE age > 3 ORDER BY user_id",
        "SELECT name FROM all_names ORDER BY 1",
        "SELECT a.title, s.total FROM titles a, spent s WHERE s.who = 3 ORDER BY 1",
        "SELECT name FROM users u WHERE EXISTS (SELECT FROM spent s WHERE s.who = u.user_id AND s.total > 200) ORDER BY user_id",
        "WITH x AS (SELECT * FROM adults) SELECT country, count(*) FROM x GROUP BY 1 ORDER BY 1",
        "SELECT * FROM ONLY adults ORDER BY user_id LIMIT 3",
        "TABLE spent ORDER BY who LIMIT 3",
        "SELECT nothing FROM adults",
        "SELECT 1 / (age - age) FROM adults ORDER BY user_id",
        "SELECT x, y FROM spent AS s(x, y) WHERE x < 9 ORDER BY x",
    ] {
        pair.same(sql);
    }
    pair.same_with("SELECT name FROM adults WHERE user_id = $1", &[Some("30")]);
    pair.same_with(
        "SELECT count(*), max(total) FROM spent WHERE total > $1",
        &[Some("100.5")],
    );
    pair.once("SET search_path = pg_catalog");
    pair.same("SELECT count(*) FROM public.per_country");
    pair.once("RESET search_path");
    pair.once("SET DateStyle = German");
    pair.once("SET IntervalStyle = postgres_verbose");
    pair.same("SELECT * FROM quoted ORDER BY 1");
    pair.once("INSERT INTO orders VALUES (3, 1000, 7)");
    pair.same("SELECT orders FROM spent WHERE who = 3");
    pair.once("SET standard_conforming_strings = off");
    for sql in [
        "SELECT adults FROM adults",
        "INSERT INTO spent VALUES (1)",
        "SELECT * FROM quoted",
    ] {
        let frames = pair.proxy.query(sql);
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("0A000"), "{sql}");
    }
}

#[test]
fn a_prepared_query_sees_a_view_that_is_defined_anew() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for raw in [&mut pair.proxy, &mut pair.oracle] {
        let sql = "SELECT count(*) FROM adults WHERE user_id > $1";
        let mut out = message::parse("q", sql, &[]);
        out.extend(message::describe(b'S', "q"));
        out.extend(message::sync());
        raw.send(&out);
        raw.read_until(b'Z', 1);
    }
    let run = |pair: &mut Pair| {
        let mut answers = Vec::new();
        for raw in [&mut pair.proxy, &mut pair.oracle] {
            let mut out = message::bind("", "q", &[], &[Some(b"2".to_vec())], &[]);
            out.extend(message::execute("", 0));
            out.extend(message::sync());
            raw.send(&out);
            answers.push(outcome(&raw.read_until(b'Z', 1)).rows);
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].len(), 1);
        answers.remove(0)
    };
    let before = run(&mut pair);
    pair.once("CREATE OR REPLACE VIEW adults AS SELECT user_id, name, age, country FROM users WHERE age >= 30");
    assert_ne!(run(&mut pair), before);
}

/// A server runs the functions in a view by itself: on one shard, unless somebody looks.
#[test]
fn functions_in_views_are_judged_as_those_of_the_query() {
    const FUNCTIONS: &str = "
        CREATE TABLE settings (name text PRIMARY KEY, n int);
        CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM users';
        CREATE FUNCTION imm() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT total()';
        CREATE FUNCTION often(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
            'BEGIN IF n < 2 THEN RETURN 1; END IF; RETURN n * often(n - 1); END';
        CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT often(n) * 2';
        CREATE FUNCTION setting(text) RETURNS int LANGUAGE sql STABLE AS 'SELECT n FROM settings WHERE name = $1';
        CREATE VIEW one_total AS SELECT total() AS n;
        CREATE VIEW behind AS SELECT n + 1 AS n FROM one_total;
        CREATE VIEW with_titles AS SELECT title, imm() AS n FROM countries;
        CREATE VIEW xml AS SELECT query_to_xml('SELECT * FROM users', true, true, '') AS x;
        CREATE FUNCTION through() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT n FROM behind';
        CREATE VIEW harmless AS SELECT title, shout(title) AS s, twice(3) AS n, count(*) OVER () FROM countries;
        CREATE VIEW at_home AS SELECT name, setting('a') AS a, max(n) AS m FROM settings GROUP BY name;
        CREATE FUNCTION from_view() RETURNS int LANGUAGE sql STABLE AS 'SELECT max(m) FROM at_home';
    ";
    let cluster = Cluster::new()
        .shards(2)
        .schema(&format!("{SCHEMA}{FUNCTIONS}"))
        .rows(&format!(
            "{ROWS} INSERT INTO settings VALUES ('a', 1), ('b', 2);"
        ))
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .replicated("countries")
        .start();
    let mut pair = Pair::new(&cluster);
    pair.proxy
        .rows("INSERT INTO settings VALUES ('a', 1), ('b', 2)");
    for sql in [
        "SELECT n FROM one_total",
        "SELECT n FROM behind",
        "TABLE with_titles",
        "SELECT x FROM xml",
        "SELECT through()",
        "SELECT imm()",
        "SELECT user_id FROM users WHERE age > imm()",
        "SELECT u.user_id FROM users u JOIN with_titles w ON w.title = u.name",
        "WITH x AS (SELECT * FROM one_total) SELECT * FROM x",
        "INSERT INTO settings SELECT 'c', n FROM one_total",
    ] {
        pair.refused(sql);
    }
    for sql in [
        "SELECT * FROM harmless ORDER BY title",
        "SELECT * FROM at_home ORDER BY name",
        "SELECT from_view()",
        "SELECT often(5), twice(4)",
        "SELECT sum(twice(age % 5)) FROM users",
        "SELECT u.user_id, h.s FROM users u JOIN harmless h ON h.title = u.country ORDER BY 1",
        "SELECT count(*), max(h.n) FROM users u JOIN harmless h ON u.age > length(h.title)",
    ] {
        pair.same(sql);
    }
}

/// A view of replicated tables is on every shard, and what it calls has another value on each.
#[test]
fn views_that_call_what_varies_are_read_once() {
    const VARYING: &str = "
        CREATE FUNCTION noise() RETURNS float LANGUAGE plpgsql AS 'BEGIN RETURN random(); END';
        CREATE VIEW noisy AS SELECT code, title, random() AS r FROM countries;
        CREATE VIEW noisier AS SELECT code, r, noise() AS n FROM noisy;
        CREATE VIEW timed AS SELECT code, now() AS at, clock_timestamp() AS later FROM countries;
        CREATE VIEW one_uuid AS SELECT gen_random_uuid() AS id FROM countries WHERE code = 'de';
    ";
    let cluster = Cluster::new()
        .shards(2)
        .schema(&format!("{SCHEMA}{VARYING}"))
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .replicated("countries")
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT count(DISTINCT r) FROM noisy JOIN users ON country = code",
        "SELECT count(DISTINCT (r, n)), count(*) FROM noisier JOIN users ON country = code",
        "SELECT country, count(DISTINCT r), count(*) FROM noisy JOIN users ON country = code GROUP BY country",
        "SELECT count(DISTINCT n.title || r) FROM users, noisy AS n WHERE n.code = 'fr' AND user_id IN (1, 2, 3, 4, 5)",
        "SELECT count(DISTINCT s) FROM (SELECT (SELECT max(r) FROM noisy) AS s FROM users) x",
        "SELECT count(DISTINCT at) FROM timed JOIN users ON country = code",
        "WITH x AS (SELECT * FROM one_uuid) SELECT count(DISTINCT id), count(*) FROM x, orders",
        "DELETE FROM orders USING noisy WHERE status = code AND r > 2",
        "SELECT r < 2 FROM noisy JOIN users ON country = code WHERE user_id = 3",
        "SELECT count(DISTINCT r) FROM noisy",
        "SELECT count(DISTINCT r) FROM users LEFT JOIN noisy n ON country = code WHERE user_id IN (1, 2, 3, 4, 5, 7)",
        "SELECT country, count(DISTINCT (r, n)) FROM users JOIN noisier ON country = code JOIN orders USING (user_id) \
         GROUP BY country ORDER BY country",
    ] {
        pair.same(sql);
    }
    pair.same_or_refused("DELETE FROM orders USING noisy WHERE r > 2 RETURNING *");
    if pair.same_or_refused("UPDATE orders SET total = (SELECT 100 * max(r) FROM noisy)") {
        pair.same("SELECT count(DISTINCT total) FROM orders");
    }
    pair.once("PREPARE one AS SELECT r < 2, at = now() FROM noisy JOIN timed USING (code) JOIN users ON country = code WHERE user_id = $1");
    pair.same("EXECUTE one(3)");
    // Nobody has printed what the transaction may have changed: it is not read on every shard.
    pair.once("BEGIN");
    pair.once("CREATE VIEW noisy_too AS SELECT * FROM noisy");
    let sql = "SELECT count(DISTINCT r) FROM noisy_too JOIN users ON country = code";
    assert_ne!(pair.proxy.code(sql), "");
    pair.proxy.query("ROLLBACK");
    pair.oracle.query("ROLLBACK");
}
