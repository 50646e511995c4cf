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
        "INSERT INTO adults VALUES (1)",
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
