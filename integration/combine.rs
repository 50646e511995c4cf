//! Queries that a hub finishes, beside one PostgreSQL with all rows.

use crate::harness::compare::Pair;
use crate::harness::{Cluster, DEADLINE, Raw, message};

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE TYPE pair AS (a int, b text);
    CREATE COLLATION de (provider = icu, locale = 'de');
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, age int, country text,
        title text COLLATE de, joined timestamptz);
    CREATE TABLE orders (order_id bigint PRIMARY KEY, user_id bigint, total numeric(12,2), status text,
        day date, score double precision);
    CREATE TABLE items (item_id int PRIMARY KEY, order_id bigint, amount smallint, price real);
    CREATE TABLE countries (code text PRIMARY KEY, title text);
    CREATE TABLE settings (key text PRIMARY KEY, value int);
    CREATE TABLE lists (id int PRIMARY KEY, l int[]);
    CREATE TABLE kinds (id int PRIMARY KEY, m mood, p positive, c pair, n int[], t text[][], r int4range,
        j jsonb, u uuid, b bytea, x numeric, f float8, v varchar(5), h char(4), i interval, k bit(3),
        ip inet, tz timetz, ts tsvector, mr int8multirange, o name, y \"char\", s xml, l pg_lsn, a money);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, (ARRAY['Ann','Bob','Ötzi','zoe','ärger','Zed','bob',NULL])[1 + i % 8],
        NULLIF(i % 40, 7), (ARRAY['de','fr','us'])[1 + i % 3],
        (ARRAY['Ärger','Affe','Zoo','öde','Oper','über'])[1 + i % 6],
        '2026-01-01'::timestamptz + i * interval '7 hours' FROM generate_series(1, 200) i;
    INSERT INTO orders SELECT i, 1 + i * 7 % 220, NULLIF(i % 13, 5) * 1.25,
        (ARRAY['new','paid','sent'])[1 + i % 3], '2026-01-01'::date + i % 90,
        CASE i % 10 WHEN 0 THEN 'NaN' WHEN 1 THEN 'infinity' WHEN 2 THEN NULL ELSE i / 8.0 END
        FROM generate_series(1, 400) i;
    INSERT INTO items SELECT i, 1 + i * 3 % 410, i % 9, i / 4.0 FROM generate_series(1, 600) i;
    INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('it', 'Italy');
    INSERT INTO settings VALUES ('de', 3), ('us', 5), ('Bob', 7);
    INSERT INTO lists SELECT i, (ARRAY['{}', '{1}', '{1,NULL}', NULL])[1 + i % 4]::int[] FROM generate_series(1, 20) i;
    INSERT INTO kinds SELECT i, (ARRAY['sad','ok','happy',NULL])[1 + i % 4]::mood, 1 + i % 5,
        CASE WHEN i % 6 > 0 THEN ROW(i, 'x' || i)::pair END, ARRAY[i, NULL, 3], ARRAY[['a','b'],['c',NULL]],
        int4range(i, i + 5), jsonb_build_object('a', i, 'b', ARRAY[1, 2]),
        md5(i::text)::uuid, decode(lpad(to_hex(i), 4, '0'), 'hex'),
        (ARRAY['NaN', 'infinity', '1.500', '-0.00', '123456789012345678901234567890.12'])[1 + i % 5]::numeric,
        (ARRAY['NaN','-infinity','-0','1e-300','0.1'])[1 + i % 5]::float8, 'ab', 'c', i * interval '1 day 2 hours',
        (i % 8)::bit(3), ('10.0.0.' || i)::inet, '12:00+02', to_tsvector('simple', 'a b c'),
        int8multirange(int8range(1, i + 2)), 'n' || i, 'y', '<a/>', '0/1', 5 * i
        FROM generate_series(1, 40) i;
";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["order_id"])
        .sharded("items", &["item_id"])
        .sharded("kinds", &["id"])
        .sharded("lists", &["id"])
        .replicated("countries")
        .home("settings", 1)
        .start()
}

/// Queries with one order of rows.
const QUERIES: &[&str] = &[
    "SELECT count(DISTINCT name), count(DISTINCT age) FROM users",
    "SELECT name, title FROM users ORDER BY title, user_id",
    "SELECT name COLLATE \"C\", count(*) FROM users GROUP BY 1 ORDER BY 1 NULLS FIRST",
    "SELECT string_agg(name, ',' ORDER BY title, user_id) FROM users",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total), mode() WITHIN GROUP (ORDER BY status) FROM orders",
    "SELECT country, status, count(*), sum(total) FROM users u JOIN orders o ON u.user_id = o.user_id \
     GROUP BY GROUPING SETS ((country, status), (country), ()) ORDER BY 1, 2, 3",
    "SELECT user_id, age, rank() OVER (PARTITION BY country ORDER BY age DESC, user_id), \
     sum(age) OVER (ORDER BY user_id ROWS 3 PRECEDING) FROM users ORDER BY user_id",
    "SELECT u.user_id, o.order_id, i.item_id FROM users u JOIN orders o USING (user_id) \
     JOIN items i ON i.order_id = o.order_id WHERE u.age BETWEEN 3 AND 9 AND o.total > 2 ORDER BY 1, 2, 3",
    "SELECT u.user_id, o.order_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND o.total > 12 \
     WHERE u.country = 'de' ORDER BY 1, 2",
    "SELECT u.user_id, o.order_id FROM users u FULL JOIN orders o ON o.user_id = u.user_id \
     WHERE o.order_id IS NULL OR u.user_id IS NULL ORDER BY 1, 2",
    "SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id AND o.total > 14) \
     ORDER BY user_id",
    "SELECT user_id FROM users WHERE age > (SELECT avg(age) FROM users) ORDER BY 1",
    "SELECT user_id FROM users u WHERE user_id NOT IN (SELECT user_id FROM orders WHERE total IS NOT NULL) ORDER BY 1",
    "SELECT user_id, (SELECT max(total) FROM orders o WHERE o.user_id = u.user_id) FROM users u ORDER BY 1",
    "WITH RECURSIVE t(n) AS (SELECT min(user_id) FROM users UNION ALL SELECT n + 1 FROM t WHERE n < 9) \
     SELECT n, name FROM t JOIN users ON user_id = n ORDER BY n",
    "SELECT user_id FROM users INTERSECT SELECT order_id FROM orders EXCEPT SELECT 5 ORDER BY 1",
    "SELECT DISTINCT ON (country) country, name, user_id FROM users ORDER BY country, age DESC NULLS LAST, user_id",
    "SELECT count(*), sum(user_id) FROM (SELECT * FROM users ORDER BY age FETCH FIRST 4 ROWS WITH TIES) t",
    "SELECT u.user_id, x.order_id FROM users u, LATERAL (SELECT order_id FROM orders o WHERE o.user_id = u.user_id \
     ORDER BY total DESC NULLS LAST, order_id LIMIT 2) x WHERE u.age = 3 ORDER BY 1, 2",
    "SELECT c.title, count(u.user_id) FROM countries c LEFT JOIN users u ON u.country = c.code GROUP BY c.title ORDER BY 1",
    "SELECT s.key, count(*) FROM settings s JOIN users u ON u.country = s.key OR u.name = s.key GROUP BY 1 ORDER BY 1",
    "SELECT u.* FROM users u JOIN orders o ON o.order_id = u.age WHERE o.status = 'new' ORDER BY u.user_id",
    "SELECT * FROM users NATURAL JOIN orders ORDER BY order_id",
    "SELECT row_to_json(u), count(*) OVER () FROM users u WHERE age = 3 ORDER BY user_id",
    "SELECT public.users.name FROM users JOIN public.orders USING (user_id) WHERE public.orders.total = 1.25 ORDER BY order_id",
    "SELECT order_id, score FROM orders ORDER BY score DESC NULLS LAST, order_id LIMIT 30",
    "SELECT sum(total) / 3, avg(total), stddev(total), var_pop(age) FROM orders o, users u WHERE o.order_id = u.user_id",
    "SELECT count(*) FROM users a, users b WHERE a.name = b.name AND a.age = 3 AND b.age = 11",
    "SELECT day, count(*) FILTER (WHERE status = 'new') FROM orders WHERE day >= '2026-02-01' AND day < date '2026-02-05' \
     GROUP BY day ORDER BY day",
    "SELECT max(joined), min(day), bool_and(age > 3) FROM users, orders WHERE user_id = 3 OR order_id = 4 AND age IS NULL",
    "SELECT CASE WHEN age > 20 THEN 'old' ELSE 'young' END AS a, count(*) FROM users GROUP BY a ORDER BY a DESC",
    "SELECT count(*) FROM users WHERE name LIKE '%o%' AND name IS NOT NULL AND (age > 3 OR age IS NULL) AND NOT age = 9 \
     HAVING count(*) > 1 ORDER BY 1",
    "SELECT user_id FROM users WHERE false ORDER BY title",
    "SELECT array_agg(user_id ORDER BY user_id) FROM users WHERE age IN (1, 2, NULL) GROUP BY age ORDER BY age",
    "SELECT array_agg(DISTINCT country ORDER BY country), jsonb_object_agg(user_id, name) FROM users WHERE user_id < 6",
    "SELECT 1 / (age - age) FROM users ORDER BY title",
    "SELECT nothing FROM users ORDER BY title",
    "SELECT name FROM users GROUP BY age",
    "SELECT u.name, count(*) FROM users u JOIN orders o ON o.order_id = u.age GROUP BY u.user_id ORDER BY u.user_id",
    "SELECT u.name, o.total FROM users u JOIN orders o ON o.order_id = u.age GROUP BY u.user_id ORDER BY u.user_id",
    "SELECT sum(name) FROM users",
    "SELECT count(*) FROM users, missing_table",
    "SELECT count(*) FROM users WHERE joined > now() - interval '1000 years'",
    "SELECT count(*) FROM (VALUES (1), (2)) v(i) JOIN users ON age = i",
    "SELECT max(random()) < 2 FROM users",
    "SELECT a.id, b.id FROM lists a JOIN lists b ON a.l = b.l AND a.id < 9 ORDER BY 1, 2",
    "SELECT array_agg(u ORDER BY user_id) FROM users u WHERE user_id < 5",
    "SELECT DISTINCT o FROM orders o ORDER BY o LIMIT 5",
    "SELECT (u).*, u IS NULL FROM users u ORDER BY u.user_id LIMIT 3",
    "SELECT u, o FROM users u LEFT JOIN orders o ON o.order_id = u.age ORDER BY u.user_id",
    "SELECT coalesce(u, NULL), count(*) FROM users u, orders o WHERE o.order_id = u.age AND u.age < 5 GROUP BY u ORDER BY u",
    "SELECT pg_typeof(u), pg_typeof(o.*), pg_typeof(o.day) FROM users u, orders o WHERE o.order_id = u.age ORDER BY u.user_id",
    "SELECT count(*) FROM users WHERE joined < 'now' OR name = 'today'",
    "SELECT user_id FROM users WHERE joined > 'yesterday' OR user_id < 3",
    "SELECT count(*), count(DISTINCT name) FROM users TABLESAMPLE bernoulli (100) REPEATABLE (7)",
    "SELECT u.user_id FROM users u TABLESAMPLE system (100) JOIN orders o TABLESAMPLE bernoulli (0) ON o.order_id = u.age",
    "SELECT user_id FROM users AS u (id) TABLESAMPLE system (100) JOIN countries TABLESAMPLE bernoulli (100) ON code = country \
     ORDER BY title, id",
];

/// Queries with values that another server has in other bytes.
const TEXTS: &[&str] = &[
    "SELECT k FROM kinds k JOIN users u ON u.age = k.id ORDER BY k.id, u.user_id",
    "SELECT user_id, 'users'::regclass, 'public.kinds'::regclass::text FROM users ORDER BY user_id LIMIT 3",
    "SELECT count(*) FROM users WHERE 'users'::regclass = to_regclass('public.users') AND to_regclass(name) IS NULL",
    "SELECT m, 'mood'::regtype, count(*) FROM kinds GROUP BY m ORDER BY m",
];

#[test]
fn queries_give_what_one_server_gives() {
    for shards in [2, 4] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        for sql in QUERIES {
            pair.same(sql);
        }
        for sql in TEXTS {
            pair.once(sql);
        }
    }
}

#[test]
fn a_sample_that_is_repeatable_is_the_same_again() {
    let cluster = cluster(2);
    let mut proxy = cluster.proxy().raw();
    for (sample, most) in [("bernoulli (30)", 150), ("system (50)", 200)] {
        let sql = format!("SELECT user_id FROM users TABLESAMPLE {sample} REPEATABLE (3)");
        let sorted = |raw: &mut Raw| {
            let mut rows = raw.rows(&sql);
            rows.sort();
            rows
        };
        let rows = sorted(&mut proxy);
        assert!(rows.len() <= most, "{sample} gives {} rows", rows.len());
        assert_eq!(sorted(&mut proxy), rows, "{sample}");
    }
}

#[test]
fn parameters_reach_shards_and_hub() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for (sql, parameters) in [
        (
            "SELECT count(DISTINCT name) FROM users WHERE age = $1 OR $2 = country",
            &[Some("3"), Some("de")][..],
        ),
        (
            "SELECT u.user_id, o.order_id FROM users u JOIN orders o ON u.user_id = o.user_id \
             WHERE o.total > $2 AND u.country = $1 AND u.age + $3 > 4 ORDER BY 1, 2",
            &[Some("fr"), Some("3.5"), Some("2")],
        ),
        (
            "SELECT count(DISTINCT m) FROM kinds WHERE m = $1 AND id > $2",
            &[Some("sad"), Some("3")],
        ),
        (
            "SELECT count(DISTINCT m) FROM kinds WHERE m = $1 AND id > $2",
            &[None, Some("3")],
        ),
        (
            "SELECT count(DISTINCT m) FROM kinds WHERE m = $1",
            &[Some("angry")],
        ),
        (
            "SELECT title FROM users WHERE title < $1 ORDER BY title, user_id",
            &[Some("Öffnung")],
        ),
    ] {
        pair.same_with(sql, parameters);
    }
}

#[test]
fn values_of_every_type_arrive() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for column in [
        "m", "p", "n", "t", "r", "j", "u", "b", "x", "f", "v", "h", "i", "k", "ip", "tz", "ts",
        "mr", "o", "y", "l", "a", "c",
    ] {
        pair.same(&format!(
            "SELECT {column}, count(*) OVER () FROM kinds ORDER BY id"
        ));
    }
    pair.same("SELECT s::text, count(*) OVER () FROM kinds ORDER BY id");
    pair.same("SELECT m, count(*) FROM kinds GROUP BY m ORDER BY m");
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for _ in 0..2 {
        pair.once("BEGIN");
        pair.once("SET LOCAL TimeZone = 'Asia/Tokyo'");
        pair.once("UPDATE settings SET value = 100 WHERE key = 'de'");
        pair.once("SELECT sum(value), count(DISTINCT joined::date) FROM settings JOIN users ON key = country");
        pair.once("SELECT joined FROM users ORDER BY title, user_id LIMIT 3");
        pair.once("SAVEPOINT a");
        pair.once("SELECT 1 / (age - age) FROM users ORDER BY title");
        pair.once("SELECT 1");
        pair.once("ROLLBACK TO a");
        pair.once("SELECT sum(value), count(DISTINCT joined::date) FROM settings JOIN users ON key = country");
        pair.once("ROLLBACK");
        pair.once("SELECT sum(value) FROM settings JOIN users ON key = country");
        pair.once("BEGIN READ ONLY");
        pair.once("SELECT count(DISTINCT name) FROM users");
        pair.once("COMMIT");
        pair.once("BEGIN");
        pair.once("INSERT INTO users VALUES (1000, 'Own', 3, 'de', 'Affe')");
        pair.once(
            "SELECT count(DISTINCT name), max(user_id) FROM users JOIN orders ON age = order_id",
        );
        pair.once("ROLLBACK");
    }
}

#[test]
fn settings_of_the_session_hold_on_the_hub() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    pair.once("SET DateStyle = 'German'");
    pair.once("SET TimeZone = 'America/New_York'");
    pair.once("SET extra_float_digits = -5");
    pair.once("SET bytea_output = escape");
    pair.same("SELECT joined, joined::text, title FROM users ORDER BY title, user_id");
    pair.same("SELECT score, score::text, day::text FROM orders ORDER BY status, order_id");
    pair.same("SELECT b, f, x, count(*) OVER () FROM kinds ORDER BY id");
    pair.once("SET search_path = pg_catalog");
    pair.same("SELECT count(DISTINCT name) FROM public.users");
    pair.same("SELECT count(DISTINCT name) FROM users");
}

#[test]
fn portals_are_described_without_being_run() {
    let cluster = cluster(2);
    let proxy = cluster.proxy();
    let mut raw = proxy.raw();
    raw.set_patience(DEADLINE);
    let sql = "SELECT s.key, count(*) FROM settings s JOIN users u ON u.country = $1 GROUP BY 1";
    let mut out = message::parse("q", sql, &[]);
    out.extend(message::describe(b'S', "q"));
    out.extend(message::sync());
    for _ in 0..6 {
        raw.send(&out);
        let frames = raw.read_until(b'Z', 1);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        assert!(frames.iter().any(|frame| frame.tag == b'T'));
        out = message::bind("p", "q", &[], &[Some(b"de".to_vec())], &[]);
        out.extend(message::describe(b'P', "p"));
        out.extend(message::sync());
    }
}

#[test]
fn what_a_hub_cannot_finish_is_refused() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    pair.once("CREATE SEQUENCE s");
    for sql in [
        "SELECT name FROM users ORDER BY title FOR UPDATE",
        "SELECT count(ctid) FROM users",
        "SELECT count(nextval('s')) FROM users",
    ] {
        pair.refused(sql);
    }
    pair.same("SELECT count(DISTINCT name) FROM users");
}

#[test]
fn explain_shows_what_is_copied() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let sql = "SELECT count(DISTINCT name) FROM users WHERE age = 3";
    let plan: Vec<String> = raw.rows(&format!("EXPLAIN ANALYZE {sql}")).concat();
    assert!(plan[0].starts_with("Combine on s"), "{plan:?}");
    assert!(
        plan[1].starts_with(
            "  ->  Copy groups that each shard makes to shardwire_1 from s0, s1 (rows="
        ),
        "{plan:?}"
    );
    assert!(
        plan.iter()
            .any(|line| line.contains("WHERE age = 3 GROUP BY 1")),
        "{plan:?}"
    );
    let share = plan.iter().find(|line| line.contains("s0 rows="));
    assert!(share.is_some_and(|line| line.contains(", s1 rows=") && line.ends_with(" ms")));
    assert!(
        plan.iter().any(|line| line.contains("Execution Time")),
        "{plan:?}"
    );
    let plan: Vec<String> = raw.rows(&format!("EXPLAIN {sql}")).concat();
    let made = "  ->  Copy groups that each shard makes to shardwire_1 from s0, s1";
    assert_eq!(plan[1], made);
    let other = "SELECT string_agg(name, ',' ORDER BY user_id) FROM users WHERE age = 3";
    let plan: Vec<String> = raw.rows(&format!("EXPLAIN ANALYZE {other}")).concat();
    assert_eq!(
        plan[1],
        "  ->  Copy users to shardwire_1 from s0, s1 (rows=5 bytes=170)"
    );
    let plan = raw.rows(&format!("EXPLAIN (FORMAT JSON) {sql}"));
    assert!(plan[0][0].starts_with('['), "{plan:?}");
}

#[test]
fn copies_have_a_limit() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i")
        .sharded("t", &["id"])
        .config("limits", "{ intermediate: 64KiB }")
        .start();
    let mut raw = cluster.proxy().raw();
    let frames = raw.query("SELECT string_agg(name, ',' ORDER BY id) FROM t");
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').unwrap(), "53400");
    assert!(error.field(b'H').unwrap().contains("limits.intermediate"));
    assert_eq!(
        raw.rows("SELECT count(DISTINCT name) FROM t WHERE id < 100"),
        [["1"]]
    );
}

#[test]
fn a_small_side_restricts_a_large_one() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE small (id int PRIMARY KEY, kind text, n int);
             CREATE TABLE large (id int PRIMARY KEY, small_id bigint, note text)",
        )
        .rows(
            "INSERT INTO small SELECT i, (ARRAY['a','b',NULL])[1 + i % 3], NULLIF(i % 50, 3) FROM generate_series(1, 300) i;
             INSERT INTO large SELECT i, NULLIF(i % 5000, 7), 'k''\\' || i % 7 FROM generate_series(1, 20000) i",
        )
        .sharded("small", &["id"])
        .sharded("large", &["id"])
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT count(*), sum(l.id) FROM large l JOIN small s ON s.id = l.small_id WHERE s.kind = 'a'",
        "SELECT s.id, count(l.id) FROM small s LEFT JOIN large l ON l.small_id = s.n AND s.kind = 'b' GROUP BY 1 ORDER BY 1",
        "SELECT s.id FROM small s WHERE s.kind = 'a' AND NOT EXISTS (SELECT FROM large l WHERE l.small_id = s.n + 0 AND l.small_id = s.id) ORDER BY 1",
        "SELECT s.id, (SELECT max(l.id) FROM large l WHERE l.small_id = s.n) FROM small s WHERE s.kind IS NULL ORDER BY 1",
        "SELECT count(*) FROM small s RIGHT JOIN large l ON l.small_id = s.n WHERE l.note = 'k''\\3'",
        "SELECT count(*) FROM small s FULL JOIN large l ON l.small_id = s.n",
        "SELECT count(*) FROM small s JOIN large l ON l.small_id = s.n WHERE s.kind = 'nothing'",
        "SELECT count(*) FROM small s, large l, large m WHERE l.small_id = s.id AND m.note = l.note AND s.id = 5 AND m.id < 100",
        "SELECT count(*), sum(l.id) FROM large l WHERE l.small_id IN (SELECT id FROM small WHERE kind = 'a')",
        "SELECT count(*) FROM large l WHERE l.small_id IN (SELECT n FROM small WHERE kind = 'a' AND id = l.id)",
        "SELECT count(*) FROM large l WHERE NOT l.small_id IN (SELECT id FROM small WHERE kind = 'a')",
        "SELECT count(*) FROM large l WHERE l.small_id = ANY (SELECT n FROM small GROUP BY n HAVING count(*) > 5)",
        "SELECT count(*) FROM large l JOIN (SELECT id AS k, n FROM small WHERE kind = 'b') s ON s.k = l.small_id",
        "WITH s AS (SELECT * FROM small WHERE kind = 'a') SELECT count(*) FROM s JOIN large l ON l.small_id = s.id",
        "WITH s AS (SELECT * FROM small WHERE kind = 'a') SELECT count(*) FROM s JOIN s t ON t.n = s.n JOIN large l ON l.small_id = t.id",
        "WITH l AS (SELECT * FROM large) SELECT count(*) FROM l a JOIN small s ON s.id = a.small_id AND s.kind = 'a', l b WHERE b.id < 9",
        "SELECT count(*) FROM (SELECT small_id FROM large ORDER BY id LIMIT 50) l JOIN small s ON s.id = l.small_id WHERE s.kind = 'a'",
        "SELECT count(*) FROM (SELECT small_id, rank() OVER (ORDER BY id) r FROM large) l JOIN small s ON s.id = l.small_id WHERE s.kind = 'a' AND l.r < 100",
        "SELECT s.id, l.m FROM small s LEFT JOIN (SELECT small_id, max(id) m FROM large GROUP BY small_id) l ON l.small_id = s.n WHERE s.kind = 'a' ORDER BY 1",
        "SELECT s.id, l.c FROM small s JOIN (SELECT note, small_id, count(*) c FROM large GROUP BY GROUPING SETS ((note), (small_id))) l ON l.small_id = s.n WHERE s.kind = 'a' ORDER BY 1",
        "SELECT count(*) FROM small s WHERE s.kind = 'a' AND s.n IN (SELECT small_id FROM large WHERE note LIKE '%3')",
        "SELECT count(*) FROM small s WHERE s.kind = 'a' AND (s.id, s.n) IN (SELECT small_id, id FROM large)",
        "SELECT count(*) FROM (SELECT small_id FROM large UNION ALL SELECT id FROM small) l JOIN small s ON s.id = l.small_id WHERE s.kind = 'a'",
    ] {
        pair.same(sql);
    }
    for sql in [
        "SELECT count(*) FROM large l JOIN small s ON s.id = l.small_id WHERE s.kind = 'a'",
        "SELECT count(*) FROM large l WHERE l.small_id IN (SELECT id FROM small WHERE kind = 'a')",
        "SELECT count(*) FROM large l JOIN (SELECT id AS k FROM small WHERE kind = 'a') s ON s.k = l.small_id",
        "SELECT sum(c) FROM (SELECT small_id, count(*) c FROM large GROUP BY small_id) l JOIN small s ON s.id = l.small_id WHERE s.kind = 'a'",
    ] {
        let plan: Vec<String> = pair.proxy.rows(&format!("EXPLAIN ANALYZE {sql}")).concat();
        let line = plan.iter().find(|line| line.contains("Copy large"));
        assert!(line.unwrap().contains("rows=400 "), "{plan:?}");
    }
}

#[test]
fn equal_subqueries_read_one_copy() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT (SELECT max(age) FROM users WHERE country = 'de'), count(*) FROM items \
         GROUP BY (SELECT max(age) FROM users WHERE country = 'de')",
        "SELECT (item_id % 3) IN (SELECT o.order_id FROM orders o WHERE o.status = 'new'), count(*) FROM items \
         GROUP BY ROLLUP ((item_id % 3) IN (SELECT o.order_id FROM orders o WHERE o.status = 'new'))",
        "SELECT array_agg(DISTINCT (SELECT u.name FROM users u WHERE u.user_id = amount + 1 AND age < 30) \
         ORDER BY (SELECT u.name FROM users u WHERE u.user_id = amount + 1 AND age < 30)) FROM items",
        "SELECT (SELECT count(*) FROM users WHERE age = 3), (SELECT count(*) FROM users WHERE age = 4)",
    ] {
        pair.same(sql);
    }
}

#[test]
fn statements_at_once_do_not_wait_for_each_other() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'n' || i % 10 FROM generate_series(1, 200) i")
        .sharded("t", &["id"])
        .database("pool", "{ max_size: 2, queue_timeout: 20s }")
        .start();
    let endpoint = cluster.proxy();
    let mut clients: Vec<_> = (0..8).map(|_| endpoint.raw()).collect();
    for _ in 0..3 {
        for raw in &mut clients {
            raw.send(&message::query("SELECT count(DISTINCT name) FROM t"));
        }
        for raw in &mut clients {
            let frames = raw.read_until(b'Z', 1);
            assert!(frames.iter().any(|frame| frame.tag == b'D'), "{frames:?}");
        }
    }
}

/// Functions of users, most of them declared to be more than they are, or less.
const FUNCTIONS: &str = "
    CREATE FUNCTION acc(int[], int) RETURNS int[] LANGUAGE sql AS 'SELECT CASE WHEN $2 IS NULL THEN $1 ELSE $1 || $2 END';
    CREATE FUNCTION fin(int[]) RETURNS numeric LANGUAGE plpgsql AS
        'BEGIN RETURN (SELECT avg(x) FROM unnest($1) AS t(x)); END';
    CREATE AGGREGATE mean (int) (sfunc = acc, stype = int[], finalfunc = fin, initcond = '{}');
    CREATE FUNCTION clamp(x int) RETURNS int LANGUAGE plpgsql AS
        'BEGIN IF x IS NULL THEN RETURN 0; ELSIF x > 20 THEN RETURN 20; END IF; RETURN x; END';
    CREATE FUNCTION label(u users) RETURNS text LANGUAGE sql STABLE AS 'SELECT u.name || clamp(u.age)';
    CREATE FUNCTION next(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 + 1;
    CREATE FUNCTION counts(int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT count(*) FROM users WHERE age = $1';
    CREATE FUNCTION makes(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
        'DECLARE n bigint; BEGIN EXECUTE ''SELECT count(*) FROM users'' INTO n; RETURN n; END';
    CREATE FUNCTION stored(int) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN (SELECT count(*) FROM users);
    CREATE FUNCTION indirect(int) RETURNS bigint LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT 1 + counts($1); END;
    CREATE FUNCTION further(int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT indirect($1)';
    CREATE FUNCTION xml(int) RETURNS int LANGUAGE sql IMMUTABLE AS
        'SELECT length(query_to_xml(''SELECT * FROM users'', true, true, '''')::text)';
    CREATE FUNCTION xml_atomic(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN length(table_to_xml('users', true, true, '')::text);
    CREATE FUNCTION bytes(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN pg_relation_size(''users''); END';
    CREATE FUNCTION plus(bigint, int) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN $1 + counts($2);
    CREATE OPERATOR |+| (leftarg = bigint, rightarg = int, function = plus);
    CREATE FUNCTION operated(int) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 1::bigint |+| $1;
    CREATE FUNCTION clamped(int) RETURNS int LANGUAGE sql STABLE RETURN (SELECT max(clamp(x)) FROM generate_series(1, $1) x);
    CREATE FUNCTION adds(bigint, int) RETURNS bigint LANGUAGE sql AS 'SELECT $1 + count(*) FROM users';
    CREATE AGGREGATE total (int) (sfunc = adds, stype = bigint, initcond = '0');
";

#[test]
fn functions_of_users_only_compute_or_are_refused() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(&format!("{SCHEMA}{FUNCTIONS}"))
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["order_id"])
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT mean(age), max(next(age)) FROM users",
        "SELECT country, mean(age), count(DISTINCT clamp(age)) FROM users GROUP BY country ORDER BY country",
        "SELECT user_id FROM users WHERE clamp(age) < 9 ORDER BY clamp(age) DESC, user_id LIMIT 9",
        "SELECT u.label, label(u) FROM users u JOIN orders o ON o.order_id = u.age ORDER BY u.user_id",
        "SELECT clamp(77), next(3)",
        "SELECT user_id, clamped(age) FROM users WHERE clamped(age) < 9 ORDER BY user_id LIMIT 9",
    ] {
        pair.same(sql);
    }
    for sql in [
        "SELECT indirect(age) FROM users",
        "SELECT further(1)",
        "SELECT max(xml(age)) FROM users",
        "SELECT xml_atomic(age) FROM users WHERE user_id = 3",
        "SELECT bytes(age) FROM users",
        "SELECT operated(1)",
        "UPDATE users SET age = age + further(1) WHERE user_id = 3",
        "SELECT counts(age) FROM users",
        "SELECT makes(3)",
        "SELECT stored(age) FROM users WHERE user_id = 3",
        "SELECT total(age) FROM users",
    ] {
        pair.refused(sql);
    }
}

/// `u.total` is `total(u)` where `users` has no such column, and no parser tells.
#[test]
fn functions_that_are_called_as_fields_are_seen() {
    const ROWS_OF: &str = "
        CREATE FUNCTION others(users) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM users';
        CREATE FUNCTION behind(users) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT ($1).others';
        CREATE FUNCTION doubled(users) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT ($1).age * 2';
    ";
    let cluster = Cluster::new()
        .shards(2)
        .schema(&format!("{SCHEMA}{ROWS_OF}"))
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["order_id"])
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT u.doubled FROM users u WHERE u.user_id = 3",
        "SELECT u.doubled, (u).doubled FROM users u ORDER BY u.user_id",
        "SELECT max(u.doubled) FROM users u",
    ] {
        pair.same(sql);
    }
    for sql in [
        "SELECT u.others FROM users u WHERE u.user_id = 3",
        "SELECT u.behind FROM users u WHERE u.user_id = 3",
        "SELECT (u).others FROM users u",
        "SELECT max(u.others) FROM users u",
        "SELECT u.user_id FROM users u WHERE u.others > 5",
        "DELETE FROM users u WHERE u.others > 5 AND u.user_id = 3",
    ] {
        pair.refused(sql);
    }
}
