//! Queries of which each shard does its part and a hub the rest, beside one PostgreSQL with all rows.

use crate::harness::compare::{Mode, Pair, frames, outcome};
use crate::harness::{Cluster, Raw};

const SCHEMA: &str = "
    CREATE DOMAIN filled AS text NOT NULL;
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, title text COLLATE \"de-x-icu\", age int, score float8,
        paid money, country text, code filled);
    CREATE TABLE orders (user_id bigint, order_id int, total numeric(12,3), small smallint, big bigint, took interval,
        status varchar(9), day date, ok bool, kind char(3), PRIMARY KEY (user_id, order_id));
    CREATE TABLE countries (code text PRIMARY KEY, title text);
    CREATE TABLE nothing (id int PRIMARY KEY, name text, n int);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, (ARRAY['Ann','bob','Ötzi','zoe','ärger','Zed','Bob',NULL,''])[1 + i % 9],
        (ARRAY['Ärger','Affe','Zoo','öde','Oper','über',NULL])[1 + i % 7], NULLIF(i % 13, 7), i % 5 / 4.0, i % 6 * 1.5,
        (ARRAY['de','fr','us',NULL])[1 + i % 4], 'c' || i % 3 FROM generate_series(1, 80) i;
    INSERT INTO orders SELECT 1 + i * 7 % 90, i, CASE i % 17 WHEN 0 THEN NULL ELSE (i % 23) * 1.125 END,
        NULLIF(i % 9, 4), i * 1000000000000, i % 4 * interval '90 minutes', (ARRAY['new','paid',NULL])[1 + i % 3],
        '2026-01-01'::date + i % 20, i % 3 = 0, (ARRAY['a','b '])[1 + i % 2] FROM generate_series(1, 400) i;
    INSERT INTO countries VALUES ('de', 'Ärger'), ('fr', 'Zoo'), ('it', 'öde');
";

/// Served by what each shard makes of its rows.
const GATHERED: &[&str] = &[
    "SELECT count(DISTINCT name), count(DISTINCT age), count(*), count(name), sum(age), avg(age), min(title), max(title) FROM users",
    "SELECT title, count(*) FROM users GROUP BY title ORDER BY title",
    "SELECT title, count(*) AS n FROM users GROUP BY title ORDER BY n DESC, title DESC NULLS LAST LIMIT 3 OFFSET 1",
    "SELECT country, count(DISTINCT name), sum(age), avg(age), round(avg(age), 3), sum(age) / count(*), \
     (sum(age) / 2)::int FROM users GROUP BY country ORDER BY country NULLS FIRST",
    "SELECT upper(title), min(name), bool_or(age > 3), every(age < 90), bit_or(age), bit_and(age) FROM users \
     GROUP BY upper(title) ORDER BY 1",
    "SELECT status, sum(total), avg(total), sum(small), avg(small), sum(big), avg(big), min(took), max(day), count(DISTINCT kind) \
     FROM orders GROUP BY status ORDER BY status",
    "SELECT kind, count(DISTINCT status), sum(total) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok) FROM orders \
     GROUP BY kind ORDER BY kind DESC",
    "SELECT u.title, o.status, sum(o.total), count(DISTINCT o.day) FROM users u JOIN orders o USING (user_id) \
     GROUP BY 1, 2 HAVING count(*) > 2 ORDER BY 1, 2",
    "SELECT c.title, count(DISTINCT u.name) FROM users u JOIN countries c ON c.code = u.country GROUP BY c.title ORDER BY c.title",
    "SELECT title, rank() OVER (ORDER BY count(*) DESC), sum(count(*)) OVER (ORDER BY title) FROM users GROUP BY title ORDER BY title",
    "SELECT DISTINCT count(DISTINCT name) FROM users GROUP BY title ORDER BY 1",
    "SELECT DISTINCT ON (n) title, n FROM (SELECT title, user_id AS n FROM users) t ORDER BY n DESC, title LIMIT 4",
    "SELECT count(DISTINCT title), sum(n) FROM (SELECT u.user_id, u.title, count(*) AS n FROM users u, orders o \
     WHERE o.user_id = u.user_id GROUP BY u.user_id) t",
    "WITH w AS (SELECT * FROM orders WHERE total > 3) SELECT status, count(DISTINCT day) FROM w GROUP BY status ORDER BY status",
    "SELECT title, count(*) FROM users WHERE age > (SELECT count(*) FROM countries) GROUP BY title ORDER BY title",
    "SELECT country, count(*) FROM users WHERE user_id IN (SELECT user_id FROM orders WHERE total > 20) GROUP BY country ORDER BY country",
    "SELECT count(DISTINCT name), sum(n), avg(n), max(name), min(name) FROM nothing",
    "SELECT name, count(DISTINCT n) FROM nothing GROUP BY name ORDER BY name",
    "SELECT title, name, user_id FROM users ORDER BY title, user_id",
    "SELECT title, name, user_id FROM users WHERE age > 3 ORDER BY title DESC, user_id LIMIT 7",
    "SELECT * FROM users ORDER BY title NULLS FIRST, user_id DESC LIMIT 5 OFFSET 3",
    "SELECT title AS t, length(name) FROM users ORDER BY t, user_id FETCH FIRST 4 ROWS ONLY",
    "SELECT title FROM users ORDER BY title FETCH FIRST 4 ROWS WITH TIES",
    "SELECT DISTINCT title, country FROM users ORDER BY title, country DESC LIMIT 9",
    "SELECT DISTINCT ON (title) title, user_id FROM users ORDER BY title, user_id DESC",
    "SELECT u.title, o.order_id FROM users u LEFT JOIN orders o USING (user_id) ORDER BY u.title, order_id, user_id LIMIT 20",
    "SELECT title, (SELECT max(total) FROM orders o WHERE o.user_id = u.user_id) FROM users u ORDER BY title, user_id LIMIT 9",
    "SELECT title, rank() OVER (PARTITION BY user_id ORDER BY name) FROM users ORDER BY title DESC, user_id LIMIT 3",
    "SELECT user_id, title, count(*) FROM users GROUP BY user_id ORDER BY title, user_id LIMIT 3",
    "SELECT 1 / (age - 5), title FROM users ORDER BY title",
    "SELECT 2, title, count(*) FROM users GROUP BY 1, title ORDER BY 2",
    "SELECT (age + 1), abs(age + 1), (age + 1)::text, count(DISTINCT name) FROM users GROUP BY (age + 1) ORDER BY 1",
    "SELECT count(DISTINCT x), min(x) = max(x) FROM (SELECT now() AS x FROM users) t",
    "SELECT count(*), min(now()) = max(current_timestamp), max(localtimestamp) - min(localtimestamp) FROM orders",
    "SELECT status, count(*) FROM orders WHERE day < current_date AND day > now() - interval '1000 years' GROUP BY status ORDER BY status",
    "SELECT order_id, user_id, pg_catalog.now() > day, transaction_timestamp() = now() FROM orders WHERE day < CURRENT_DATE ORDER BY order_id",
    "SELECT title, now() IS NULL AS n FROM users WHERE now() > '2020-01-01' ORDER BY title, n, user_id LIMIT 3",
];

/// Served over whole copies, because types or clauses don't allow more.
const COPIED: &[&str] = &[
    "SELECT title, sum(score) FROM users GROUP BY title ORDER BY title",
    "SELECT title, avg(took) FROM users JOIN orders USING (user_id) GROUP BY title ORDER BY title",
    "SELECT title, sum(paid) FROM users GROUP BY title ORDER BY title",
    "SELECT country, string_agg(name, ',' ORDER BY user_id) FROM users GROUP BY country ORDER BY country",
    "SELECT country, sum(DISTINCT age) FROM users GROUP BY country ORDER BY country",
    "SELECT title, count(*) FROM users GROUP BY ROLLUP (title) ORDER BY title, 2",
    "SELECT u.code, o.order_id FROM orders o LEFT JOIN users u USING (user_id) ORDER BY u.title, order_id",
    "SELECT NOT (age > 3), NOT (age > 3) IS NULL, count(DISTINCT name) FROM users GROUP BY NOT (age > 3) ORDER BY 1",
    "SELECT - (age), - (age) :: text, count(DISTINCT name) FROM users GROUP BY - (age) ORDER BY 1",
    "SELECT ROW(title, age) FROM users ORDER BY title, user_id LIMIT 3",
    "SELECT title, sum(age) OVER (ORDER BY user_id) FROM users ORDER BY title, user_id",
];

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .sharded("nothing", &["id"])
        .replicated("countries")
        .start()
}

#[test]
fn groups_and_rows_of_each_shard_become_one_servers_answer() {
    for shards in [2, 4] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        for sql in GATHERED.iter().chain(COPIED) {
            pair.same(sql);
        }
        let sql = "SELECT title, count(DISTINCT name), sum(age + $1::int) FROM users WHERE age < $2 GROUP BY title \
                   HAVING count(*) > $3 ORDER BY title LIMIT $4";
        pair.same_with(sql, &[Some("3"), Some("9"), Some("1"), Some("4")]);
        let sql = "SELECT title, $1::int FROM users WHERE age > $2 ORDER BY title, user_id OFFSET $3 LIMIT $4";
        pair.same_with(sql, &[Some("3"), Some("2"), Some("2"), Some("4")]);
        pair.once("BEGIN");
        pair.once("UPDATE users SET title = 'Mitte' WHERE user_id < 9");
        pair.same("SELECT title, count(DISTINCT name) FROM users GROUP BY title ORDER BY title");
        pair.same("SELECT title, user_id FROM users ORDER BY title, user_id LIMIT 30");
        pair.once("ROLLBACK");
    }
}

#[test]
fn groups_are_shipped_and_not_rows() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let mut shipped = |sql: &str| {
        let plan = raw
            .rows(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}"))
            .concat();
        let copies: Vec<String> = plan
            .iter()
            .filter(|line| line.contains("->  Copy"))
            .cloned()
            .collect();
        copies
    };
    let copies =
        shipped("SELECT status, count(DISTINCT kind), sum(total) FROM orders GROUP BY status");
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(
        copies[0].contains("groups that each shard makes"),
        "{copies:?}"
    );
    assert!(copies[0].contains("(rows=12 "), "{copies:?}");
    let copies = shipped(
        "SELECT title, order_id FROM users JOIN orders USING (user_id) ORDER BY title LIMIT 5",
    );
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(
        copies[0].contains("the first rows of each shard"),
        "{copies:?}"
    );
    assert!(copies[0].contains("(rows=10 "), "{copies:?}");
    let copies = shipped("SELECT count(*) FROM orders WHERE day > now() - interval '1000 years'");
    assert!(
        copies[0].contains("groups that each shard makes"),
        "{copies:?}"
    );
    assert!(copies[0].contains("(rows=2 "), "{copies:?}");
    let copies = shipped("SELECT title, sum(score) FROM users GROUP BY title ORDER BY title");
    assert!(copies[0].contains("Copy users"), "{copies:?}");
}

/// The sum of a figure of both shards in a plan.
fn total(plan: &[String], what: &str) -> u64 {
    let counts = plan.iter().filter_map(|line| {
        let count = line
            .strip_prefix("->  shard ")?
            .split(' ')
            .find_map(|word| word.strip_prefix(what))?;
        count.parse::<u64>().ok()
    });
    let counts: Vec<u64> = counts.collect();
    assert_eq!(counts.len(), 2, "{plan:?}");
    counts.iter().sum()
}

#[test]
fn what_each_shard_sends_is_counted() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let mut lines = |sql: &str| {
        let plan = raw.rows(&format!("EXPLAIN (ANALYZE, COSTS OFF) {sql}"));
        plan.concat()
    };
    // What is merged, what is grouped, and what is concatenated.
    let plan = lines("SELECT user_id FROM users ORDER BY user_id LIMIT 5");
    assert!(plan[0].starts_with("Limit 5"), "{plan:?}");
    assert_eq!(total(&plan, "rows="), 10);
    // Each row has its key behind it.
    assert!(
        total(&plan, "bytes=") >= 10 * (7 + 4 + 1 + 4 + 8),
        "{plan:?}"
    );
    let plan = lines("SELECT ok, count(*), sum(total) FROM orders GROUP BY ok");
    assert_eq!(total(&plan, "rows="), 4);
    let plan = lines("SELECT u.name FROM users u JOIN orders o USING (user_id) WHERE u.age = 3");
    assert!(
        total(&plan, "rows=") > 10 && total(&plan, "bytes=") > 100,
        "{plan:?}"
    );
    assert!(
        plan.iter()
            .any(|line| line.starts_with("->  plan of shard")),
        "{plan:?}"
    );
    assert!(
        plan.iter().any(|line| line.contains("Execution Time")),
        "{plan:?}"
    );
    let plan = lines("SELECT user_id FROM users WHERE user_id = 5");
    assert!(
        !plan.iter().any(|line| line.starts_with("->  shard")),
        "{plan:?}"
    );
    // Its rows are not kept: the answer is larger than a query may use.
    let sql = "SELECT repeat('x', 1000000) FROM users a, countries, generate_series(1, 20)";
    let plan = lines(sql);
    assert_eq!(total(&plan, "rows="), 80 * 3 * 20);
}

#[test]
fn what_each_shard_sends_is_counted_in_batches_and_transactions() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let bound = |raw: &mut Raw, sql: &str| {
        let frames = frames(raw, Mode::Text, sql, &[]);
        let rows = outcome(&frames).rows.into_iter().flatten().flatten();
        rows.map(|line| String::from_utf8(line).unwrap())
            .collect::<Vec<String>>()
    };
    let plan = bound(
        &mut raw,
        "EXPLAIN ANALYZE SELECT user_id FROM users ORDER BY user_id LIMIT 5",
    );
    assert_eq!(total(&plan, "rows="), 10);
    let plan = bound(
        &mut raw,
        "EXPLAIN ANALYZE SELECT ARRAY[age], count(*) FROM users GROUP BY 1",
    );
    assert!(plan[0].starts_with("Combine"), "{plan:?}");
    let failing = "EXPLAIN ANALYZE SELECT 1 / (user_id - 5) FROM users";
    let failed = frames(&mut raw, Mode::Text, failing, &[]);
    assert_eq!(outcome(&failed).reports[0].0, "22012");
    raw.query("BEGIN");
    raw.query("INSERT INTO users (user_id, code) VALUES (1000, 'x')");
    let plan = bound(&mut raw, "EXPLAIN ANALYZE SELECT user_id FROM users");
    assert_eq!(total(&plan, "rows="), 81);
    let plan = raw
        .rows("EXPLAIN ANALYZE SELECT user_id FROM users")
        .concat();
    assert_eq!(total(&plan, "rows="), 81);
    raw.query("ROLLBACK");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["80"]]);
}
