//! Routing over two shards: every statement gives what one PostgreSQL with all rows gives, or is
//! refused before anything happened; and rows are where their slots say.

use crate::harness::{Cluster, Pair, Raw, message, transcript};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, born date);
    CREATE TABLE orders (user_id bigint, order_id int, total numeric(10,2), PRIMARY KEY (user_id, order_id));
    CREATE TABLE products (product_id int PRIMARY KEY, name text, price numeric(10,2));
    CREATE TABLE settings (name text PRIMARY KEY, value text);
    CREATE TABLE notes (id int PRIMARY KEY, body text);
    CREATE TABLE small (k smallint PRIMARY KEY, v text);
    CREATE TABLE plain (k int PRIMARY KEY, v text);
    CREATE TABLE texts (k text PRIMARY KEY, v int);
    CREATE TABLE varchars (k varchar(20) PRIMARY KEY, v int);
    CREATE TABLE chars (k char(8) PRIMARY KEY, v int);
    CREATE TABLE uuids (k uuid PRIMARY KEY, v int);
    CREATE TABLE dates (k date PRIMARY KEY, v int);
    CREATE TABLE stamps (k timestamp PRIMARY KEY, v int);
    CREATE TABLE zoned (k timestamptz PRIMARY KEY, v int);
    CREATE TABLE numbers (k numeric PRIMARY KEY, v int);
    CREATE TABLE bytes (k bytea PRIMARY KEY, v int);
    CREATE TABLE flags (k bool PRIMARY KEY, v int);
    CREATE TABLE views (tenant_id int, day date, hits int, PRIMARY KEY (tenant_id, day));
    CREATE TABLE regions (code text PRIMARY KEY, name text);
    CREATE TABLE readings (at date PRIMARY KEY, value int);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, 'user ' || i, date '1970-01-01' + i FROM generate_series(1, 40) i;
    INSERT INTO orders SELECT u, o, u * 1.5 + o FROM generate_series(1, 40) u, generate_series(1, 3) o;
    INSERT INTO products SELECT i, 'product ' || i, i * 9.99 FROM generate_series(1, 10) i;
    INSERT INTO settings VALUES ('theme', 'dark'), ('language', 'en');
    INSERT INTO notes VALUES (1, 'on the first shard');
    INSERT INTO small SELECT i, 'v' || i FROM generate_series(-8, 8) i;
    INSERT INTO plain SELECT i, 'v' || i FROM generate_series(-8, 8) i;
    INSERT INTO texts SELECT 'key ' || i, i FROM generate_series(1, 20) i;
    INSERT INTO texts VALUES ('', 0), ('größe €', 100), (' ', 101), ('a''b', 102), (E'back\\\\slash', 103);
    INSERT INTO varchars SELECT 'key ' || i, i FROM generate_series(1, 20) i;
    INSERT INTO chars SELECT 'k' || i, i FROM generate_series(1, 20) i;
    INSERT INTO uuids SELECT md5(i::text)::uuid, i FROM generate_series(1, 20) i;
    INSERT INTO dates SELECT date '2024-02-20' + i, i FROM generate_series(1, 20) i;
    INSERT INTO dates VALUES ('infinity', 100), ('-infinity', 101), ('0044-03-15 BC', 102);
    INSERT INTO stamps SELECT timestamp '2024-02-28 12:00' + i * interval '7 hours 0.25 s', i FROM generate_series(1, 20) i;
    INSERT INTO zoned SELECT timestamptz '2024-02-28 12:00+00' + i * interval '7 hours', i FROM generate_series(1, 20) i;
    INSERT INTO numbers SELECT i * 1.25, i FROM generate_series(-10, 10) i;
    INSERT INTO numbers VALUES ('NaN', 100), (1e30, 101), (0.000001, 102);
    INSERT INTO bytes SELECT decode(md5(i::text), 'hex'), i FROM generate_series(1, 20) i;
    INSERT INTO bytes VALUES ('', 0);
    INSERT INTO flags VALUES (true, 1), (false, 0);
    INSERT INTO views SELECT t, date '2024-01-01' + d, t * d FROM generate_series(1, 6) t, generate_series(1, 5) d;
    INSERT INTO regions VALUES ('eu', 'Europe'), ('uk', 'United Kingdom'), ('us', 'United States');
    INSERT INTO readings SELECT date '2025-12-20' + i, i FROM generate_series(1, 25) i;
";

const REGIONS: &str = "{ shard_key: code, list: { s0: [eu, uk], s1: [us] } }";
const READINGS: &str =
    r#"{ shard_key: at, range: { s0: { to: "2026-01-01" }, s1: { from: "2026-01-01" } } }"#;
/// Tables sharded by the hash of one column `k`.
const KEYED: [&str; 12] = [
    "small", "plain", "texts", "varchars", "chars", "uuids", "dates", "stamps", "zoned", "numbers",
    "bytes", "flags",
];

fn cluster() -> Cluster {
    let mut builder = Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .replicated("products")
        .home("settings", 1)
        .home("notes", 0)
        .sharded("views", &["tenant_id", "day"])
        .placed("regions", REGIONS, &["code IN ('eu', 'uk')", "code = 'us'"])
        .placed(
            "readings",
            READINGS,
            &["at < '2026-01-01'", "at >= '2026-01-01'"],
        );
    for table in KEYED {
        builder = builder.sharded(table, &["k"]);
    }
    builder.start()
}

/// Rows of a table on a shard, past the proxy.
fn count(cluster: &Cluster, shard: usize, table: &str, condition: &str) -> usize {
    let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
    cluster.shard(shard).raw().rows(&sql)[0][0].parse().unwrap()
}

#[test]
fn point_reads_find_their_rows_by_literal_and_by_parameter() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for table in KEYED {
        for row in cluster
            .oracle()
            .raw()
            .rows(&format!("SELECT k FROM {table}"))
        {
            let key = &row[0];
            let literal = key.replace('\'', "''");
            pair.same(&format!("SELECT * FROM {table} WHERE k = '{literal}'"));
            pair.same_with(&format!("SELECT * FROM {table} WHERE k = $1"), &[Some(key)]);
        }
        pair.same(&format!("SELECT * FROM {table} WHERE k IS NULL"));
        pair.same_with(&format!("SELECT * FROM {table} WHERE k = $1"), &[None]);
    }
    for id in -2..45 {
        pair.same(&format!("SELECT * FROM users WHERE user_id = {id}"));
        pair.same(&format!(
            "SELECT name FROM public.users u WHERE u.user_id = {id} AND born IS NOT NULL"
        ));
        pair.same_with(
            "SELECT * FROM users WHERE user_id = $1",
            &[Some(&id.to_string())],
        );
    }
}

#[test]
fn composite_list_and_range_keys_find_their_rows() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for tenant in 0..8 {
        for day in 1..7 {
            pair.same(&format!(
                "SELECT * FROM views WHERE tenant_id = {tenant} AND day = '2024-01-0{day}'"
            ));
            let parameters = [tenant.to_string(), format!("2024-01-0{day}")];
            pair.same_with(
                "SELECT hits FROM views WHERE day = $2 AND $1 = tenant_id",
                &[Some(&parameters[0]), Some(&parameters[1])],
            );
        }
    }
    for code in ["eu", "uk", "us"] {
        pair.same(&format!("SELECT * FROM regions WHERE code = '{code}'"));
        pair.same_with("SELECT * FROM regions WHERE code = $1", &[Some(code)]);
    }
    for day in [
        "2025-12-31",
        "2026-01-01",
        "2026-01-10",
        "2030-01-01",
        "-infinity",
    ] {
        pair.same(&format!("SELECT * FROM readings WHERE at = '{day}'"));
        pair.same_with("SELECT * FROM readings WHERE at = $1", &[Some(day)]);
    }
}

#[test]
fn writes_land_where_the_slots_say() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for id in 100..140 {
        pair.once(&format!(
            "INSERT INTO users (user_id, name) VALUES ({id}, 'new')"
        ));
        pair.once(&format!(
            "INSERT INTO orders VALUES ({id}, 1, 5.00) RETURNING *"
        ));
        pair.once(&format!(
            "UPDATE users SET name = 'changed' WHERE user_id = {id} RETURNING *"
        ));
    }
    for id in 120..130 {
        pair.once(&format!("DELETE FROM orders WHERE user_id = {id}"));
        pair.once(&format!(
            "DELETE FROM users WHERE user_id = {id} RETURNING name"
        ));
    }
    pair.once("INSERT INTO users VALUES (100, 'again')");
    for table in ["users", "orders"] {
        let slot = "(hashint8extended(user_id, 0) & 16383)";
        assert_eq!(
            count(&cluster, 0, table, &format!("{slot} >= 8192")),
            0,
            "{table} on s0"
        );
        assert_eq!(
            count(&cluster, 1, table, &format!("{slot} < 8192")),
            0,
            "{table} on s1"
        );
        assert!(count(&cluster, 0, table, "true") > 10 && count(&cluster, 1, table, "true") > 10);
    }
    pair.same_rows("SELECT * FROM users WHERE name = 'changed'");
    pair.same_rows("SELECT * FROM orders");
}

#[test]
fn a_null_key_is_refused_as_a_missing_value() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    assert_eq!(proxy.code("INSERT INTO plain VALUES (NULL, 'x')"), "23502");
    // An omitted key may also be refused: its default would have to be known first.
    let omitted = proxy.code("INSERT INTO plain (v) VALUES ('x')");
    assert!(["23502", "0A000"].contains(&&*omitted), "{omitted}");
}

#[test]
fn tables_that_are_not_sharded_are_read_and_written() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.same("SELECT * FROM products ORDER BY price DESC LIMIT 3");
    pair.same("SELECT count(*), sum(price), max(name) FROM products");
    pair.same("SELECT * FROM settings ORDER BY name");
    pair.same("SELECT * FROM notes");
    pair.same("SELECT 1");
    pair.same("SELECT now() IS NOT NULL, 1 + 1, 'x' || 'y'");
    pair.once("INSERT INTO settings VALUES ('size', 'big')");
    pair.once("UPDATE settings SET value = 'light' WHERE name = 'theme'");
    pair.once("DELETE FROM notes");
    pair.same("SELECT * FROM settings ORDER BY value");
    assert_eq!(count(&cluster, 0, "settings", "true"), 0);
    assert_eq!(count(&cluster, 1, "settings", "true"), 3);
    // Joined with the tables of one shard.
    pair.same(
        "SELECT u.name, o.order_id, p.name FROM users u \
         JOIN orders o ON o.user_id = u.user_id JOIN products p ON p.product_id = o.order_id \
         WHERE u.user_id = 7 ORDER BY 2",
    );
}

#[test]
fn statements_over_several_shards_concatenate() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.same_rows("SELECT * FROM users");
    pair.same_rows("SELECT user_id, total * 2 AS double FROM orders WHERE total > 30");
    pair.same_rows("SELECT * FROM users WHERE user_id IN (1, 2, 3, 4, 5, 6)");
    pair.same_rows("SELECT * FROM users WHERE false");
}

/// Traps that sharding proxies are known to fall into, among statements of every kind. Which are
/// answered grows over time; none may ever be answered wrongly.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn nothing_is_answered_wrongly() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let statements = [
        "SELECT count(*) FROM users",
        "SELECT count(*) FROM users WHERE user_id = 3",
        "SELECT count(*) FROM (SELECT * FROM users LIMIT 5) x",
        "SELECT user_id FROM users ORDER BY user_id LIMIT 5",
        "SELECT user_id FROM users ORDER BY user_id OFFSET 38",
        "SELECT user_id FROM users ORDER BY user_id DESC FETCH FIRST 3 ROWS WITH TIES",
        "SELECT max(user_id), min(name) FROM users",
        "SELECT avg(total) FROM orders",
        "SELECT user_id % 3, count(*) FROM users GROUP BY 1 ORDER BY 1",
        "SELECT user_id, sum(total) FROM orders GROUP BY user_id",
        "SELECT order_id, sum(total) FROM orders GROUP BY order_id",
        "SELECT order_id FROM orders GROUP BY order_id HAVING count(*) > 30",
        "SELECT DISTINCT order_id FROM orders",
        "SELECT DISTINCT ON (order_id) order_id, user_id FROM orders ORDER BY order_id, user_id",
        "SELECT order_id FROM orders UNION SELECT order_id FROM orders ORDER BY 1",
        "SELECT user_id FROM users UNION ALL SELECT user_id FROM orders",
        "SELECT user_id FROM users INTERSECT SELECT order_id FROM orders",
        "SELECT user_id FROM users EXCEPT SELECT order_id FROM orders",
        "SELECT row_number() OVER (ORDER BY user_id), user_id FROM users",
        "SELECT sum(total) OVER (PARTITION BY order_id) FROM orders",
        "SELECT (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) FROM users u",
        "SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id + 1)",
        "SELECT * FROM users WHERE user_id NOT IN (SELECT order_id FROM orders)",
        "SELECT * FROM users WHERE user_id = (SELECT max(user_id) FROM users)",
        "SELECT p.name, o.user_id FROM products p LEFT JOIN orders o ON o.order_id = p.product_id",
        "SELECT p.name FROM products p WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.order_id = p.product_id)",
        "SELECT u.name, o.total FROM users u JOIN orders o USING (user_id) WHERE o.total > 40",
        "SELECT o.user_id, p.name FROM orders o JOIN products p ON p.product_id = o.order_id",
        "SELECT u.name, o.total FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND o.order_id = 9",
        "SELECT a.user_id, b.user_id FROM users a JOIN users b ON a.user_id = b.user_id + 1",
        "SELECT a.user_id FROM users a, users b WHERE a.user_id = 1 AND b.user_id = 2",
        "SELECT u.name, s.value FROM users u, settings s",
        "SELECT s.value, n.body FROM settings s, notes n",
        "SELECT * FROM users WHERE user_id = 1 OR user_id = 2",
        "SELECT * FROM users WHERE NOT user_id = 1 AND user_id < 4",
        "SELECT user_id = 1 FROM users",
        "SELECT count(*) FILTER (WHERE user_id = 1) FROM users",
        "SELECT CASE WHEN user_id = 1 THEN 'one' END FROM users",
        "SELECT * FROM users WHERE user_id = 1 UNION ALL SELECT * FROM users",
        "SELECT count(*) FROM (SELECT * FROM users LIMIT 2) s",
        "SELECT * FROM (SELECT * FROM users WHERE user_id = 5) s",
        "WITH u AS (SELECT * FROM users WHERE user_id = 6) SELECT * FROM u",
        "WITH u AS (SELECT * FROM users) SELECT count(*) FROM u",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r JOIN users ON user_id = n",
        "SELECT * FROM users FOR UPDATE",
        "SELECT * FROM users WHERE user_id = 1 FOR UPDATE",
        "SELECT * FROM users TABLESAMPLE SYSTEM (100)",
        "SELECT * FROM ONLY users WHERE user_id = 2",
        "SELECT u FROM users u WHERE user_id = 2",
        "SELECT (u).name FROM users u WHERE user_id = 2",
        "SELECT users.* FROM users, LATERAL (SELECT count(*) FROM orders o WHERE o.user_id = users.user_id) c",
        "SELECT string_agg(name, ',' ORDER BY user_id) FROM users",
        "SELECT array_agg(user_id ORDER BY user_id) FROM users",
        "SELECT * FROM users WHERE user_id = '7'",
        "SELECT * FROM users WHERE user_id = 7.0",
        "SELECT * FROM users WHERE user_id = 7.5",
        "SELECT * FROM users WHERE user_id = 3 + 4",
        "SELECT * FROM users WHERE user_id = 7::smallint",
        "SELECT * FROM users WHERE user_id = 99999999999999999999",
        "SELECT * FROM users WHERE user_id::text = '7'",
        "SELECT * FROM users WHERE (user_id, name) = (7, 'user 7')",
        "SELECT * FROM users WHERE user_id = ANY (ARRAY[7, 8])",
        "SELECT * FROM users WHERE user_id = ANY ('{7,8}')",
        "SELECT * FROM users WHERE user_id BETWEEN 7 AND 7",
        "SELECT * FROM users WHERE 7 = user_id",
        "SELECT * FROM users WHERE user_id = 7 AND user_id = 8",
        "SELECT * FROM users WHERE user_id IS NOT DISTINCT FROM 7",
        "SELECT * FROM texts WHERE k = 'key 7' COLLATE \"C\"",
        "SELECT * FROM texts WHERE k LIKE 'key 1%'",
        "SELECT * FROM texts WHERE upper(k) = 'KEY 7'",
        "SELECT * FROM chars WHERE k = 'k7'",
        "SELECT * FROM chars WHERE k = 'k7   '",
        "SELECT * FROM chars WHERE k = 'k7'::text",
        "SELECT * FROM varchars WHERE k = 'key 7 '",
        "SELECT * FROM numbers WHERE k = 1.250",
        "SELECT * FROM numbers WHERE k = 125e-2",
        "SELECT * FROM numbers WHERE k = 'NaN'",
        "SELECT * FROM numbers WHERE k = 1e30",
        "SELECT * FROM dates WHERE k = '2024-03-01'",
        "SELECT * FROM dates WHERE k = 'infinity'",
        "SELECT * FROM dates WHERE k = 'March 1, 2024'",
        "SELECT * FROM dates WHERE k = timestamp '2024-03-01 00:00'",
        "SELECT * FROM dates WHERE k = '2024-03-01'::date + 1",
        "SELECT * FROM zoned WHERE k = '2024-02-28 19:00+00'",
        "SELECT * FROM zoned WHERE k = '2024-02-28 20:00+01'",
        "SELECT * FROM zoned WHERE k = '2024-02-28 19:00'",
        "SELECT * FROM stamps WHERE k = '2024-02-28 19:00:00.25'",
        "SELECT * FROM flags WHERE k",
        "SELECT * FROM flags WHERE k = 'yes'",
        "SELECT * FROM flags WHERE k IS TRUE",
        "SELECT * FROM bytes WHERE k = ''",
        "SELECT * FROM bytes WHERE k = '\\xc4ca4238a0b923820dcc509a6f75849b'",
        "SELECT * FROM uuids WHERE k = 'C4CA4238-A0B9-2382-0DCC-509A6F75849B'",
        "SELECT * FROM uuids WHERE k = '{c4ca4238a0b923820dcc509a6f75849b}'",
        "SELECT * FROM small WHERE k = 70000",
        "SELECT * FROM small WHERE k = -3",
        "SELECT * FROM small WHERE k = - 3",
        "SELECT * FROM small WHERE k = '-3'",
        "SELECT * FROM views WHERE tenant_id = 1",
        "SELECT * FROM views WHERE day = '2024-01-02'",
        "SELECT * FROM views WHERE (tenant_id, day) = (1, '2024-01-02')",
        "SELECT * FROM regions",
        "SELECT * FROM regions WHERE code = 'nowhere'",
        "SELECT * FROM readings WHERE at > '2025-12-30'",
        "SELECT generate_series(1, 3)",
        "SELECT user_id, generate_series(1, 2) FROM users WHERE user_id = 4",
        "TABLE users",
        "VALUES (1), (2)",
        "SELECT * FROM missing",
        "SELECT missing FROM users",
        "SELECT missing FROM users WHERE user_id = 1",
        "SELECT * FROM users WHERE user_id = 1 AND missing = 2",
        "SELECT 1/0 FROM users",
        "SELECT count(*) FROM pg_class WHERE relname = 'users'",
        "SELECT relname, nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname IN ('users', 'orders') ORDER BY 1",
    ];
    let mut answered = 0;
    for statement in statements {
        answered += usize::from(pair.same_or_refused(statement));
    }
    assert!(
        answered > 40,
        "only {answered} of {} are answered",
        statements.len()
    );
}

#[test]
fn writes_without_a_key_do_nothing_or_all() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    for statement in [
        "INSERT INTO users VALUES (500, 'a'), (501, 'b'), (502, 'c'), (503, 'd'), (504, 'e')",
        "INSERT INTO users VALUES (1000 + (random() * 1000)::int, 'x')",
        "INSERT INTO products VALUES (99, 'x', 1)",
        "UPDATE users SET name = 'all'",
        "UPDATE users SET user_id = 999 WHERE user_id = 1",
        "UPDATE products SET price = 0",
        "DELETE FROM users",
        "DELETE FROM users WHERE name LIKE '%1%'",
        "TRUNCATE users",
        "MERGE INTO users USING (VALUES (1)) v(i) ON user_id = i WHEN MATCHED THEN DELETE",
        "WITH d AS (DELETE FROM users WHERE user_id = 2 RETURNING *) INSERT INTO users SELECT user_id + 700, name FROM d",
        "DROP TABLE users",
        "ALTER TABLE users ADD COLUMN x int",
        "CREATE INDEX ON users (name)",
    ] {
        let frames = proxy.query(&format!("BEGIN; {statement}"));
        let failed = frames.iter().find(|frame| frame.tag == b'E');
        if let Some(error) = failed {
            assert_eq!(
                error.field(b'C').unwrap(),
                "0A000",
                "{statement}: {error:?}"
            );
        }
        proxy.query("ROLLBACK");
        let totals = (
            count(&cluster, 0, "users", "true"),
            count(&cluster, 1, "users", "true"),
        );
        assert_eq!(totals.0 + totals.1, 40, "{statement}: {totals:?}");
    }
}

#[test]
fn a_transaction_stays_on_its_shard() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    let on = |shard| {
        let sql = "SELECT user_id FROM users ORDER BY user_id LIMIT 2";
        cluster.shard(shard).raw().rows(sql).concat()
    };
    let (near, far) = (on(0), on(1));
    proxy.rows("BEGIN");
    proxy.rows(&format!(
        "UPDATE users SET name = 'x' WHERE user_id = {}",
        near[0]
    ));
    proxy.rows(&format!(
        "UPDATE users SET name = 'x' WHERE user_id = {}",
        near[1]
    ));
    proxy.rows("COMMIT");
    assert_eq!(count(&cluster, 0, "users", "name = 'x'"), 2);

    // A second shard: all or nothing.
    proxy.rows("BEGIN");
    proxy.rows(&format!(
        "UPDATE users SET name = 'y' WHERE user_id = {}",
        near[0]
    ));
    let second = proxy.query(&format!(
        "UPDATE users SET name = 'y' WHERE user_id = {}",
        far[0]
    ));
    if let Some(error) = second.iter().find(|frame| frame.tag == b'E') {
        assert_eq!(error.field(b'C').unwrap(), "0A000");
        assert_eq!(
            second.last().unwrap().body,
            b"E",
            "the transaction has failed"
        );
    }
    proxy.query("COMMIT");
    let changed = (
        count(&cluster, 0, "users", "name = 'y'"),
        count(&cluster, 1, "users", "name = 'y'"),
    );
    assert!(changed == (0, 0) || changed == (1, 1), "{changed:?}");

    // An error of the server fails the transaction until its end.
    proxy.rows("BEGIN");
    assert_eq!(
        proxy.code(&format!("INSERT INTO users VALUES ({}, 'dup')", far[0])),
        "23505"
    );
    assert_eq!(
        proxy.code(&format!("SELECT * FROM users WHERE user_id = {}", far[0])),
        "25P02"
    );
    proxy.rows("ROLLBACK");
    proxy.rows("SELECT 1");
}

#[test]
fn statements_that_begin_a_transaction_see_its_settings() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "SHOW transaction_isolation",
        "SHOW transaction_read_only",
        "SELECT name FROM users WHERE user_id = 1",
        "SELECT current_setting('transaction_isolation') FROM users WHERE user_id = 1",
        "INSERT INTO users VALUES (1, 'x')",
        "ROLLBACK",
        "BEGIN",
        "SET LOCAL TimeZone = 'Asia/Tokyo'",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 3",
        "COMMIT",
        "SHOW TimeZone",
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 1",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 2",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 3",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 5",
        "RESET TimeZone",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 1",
        "SELECT current_setting('TimeZone') FROM users WHERE user_id = 5",
    ] {
        pair.once(statement);
    }
}

#[test]
fn prepared_statements_route_each_execution() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for id in 1..20 {
        let id = id.to_string();
        pair.same_with(
            "SELECT * FROM users WHERE user_id = $1 AND name <> $2",
            &[Some(&id), Some("x")],
        );
    }
    // One statement, many executions, in one packet.
    let executions = |raw: &mut Raw| {
        let mut out = message::parse("byid", "SELECT * FROM users WHERE user_id = $1", &[]);
        for id in 1..20 {
            let id = Some(id.to_string().into_bytes());
            out.extend(message::bind("", "byid", &[], &[id], &[]));
            out.extend(message::execute("", 0));
        }
        out.extend(message::sync());
        raw.send(&out);
        transcript::lines(&raw.read_until(b'Z', 1))
    };
    assert_eq!(executions(&mut pair.proxy), executions(&mut pair.oracle));
}

#[test]
fn prepared_statements_of_sql_route_or_are_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let prepare = "PREPARE byid (bigint) AS SELECT * FROM users WHERE user_id = $1";
    let frames = pair.proxy.query(prepare);
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        assert_eq!(error.field(b'C').unwrap(), "0A000");
        return;
    }
    pair.oracle.rows(prepare);
    for id in 1..20 {
        pair.once(&format!("EXECUTE byid({id})"));
    }
}

#[test]
fn queries_are_counted_by_route() {
    let mut cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    let process = cluster.process();
    let counted = |route: &str, process: &crate::harness::Proxy| {
        let name = format!("shardwire_queries_total{{database=\"app\",route=\"{route}\"}}");
        process.metric(&name)
    };
    let (single, scatter) = (counted("single", process), counted("scatter", process));
    for id in 0..10 {
        proxy.rows(&format!("SELECT * FROM users WHERE user_id = {id}"));
    }
    proxy.rows("SELECT * FROM users");
    assert_eq!(counted("single", process) - single, 10.0);
    assert_eq!(counted("scatter", process) - scatter, 1.0);
}

#[test]
fn a_transaction_opens_on_its_shard_only() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .setting("log_statement", "all")
        .start();
    let mut proxy = cluster.proxy().raw();
    let shards = [0, 1].map(|shard: usize| &cluster.shards[shard].primary);
    let owner = usize::from(count(&cluster, 1, "users", "user_id = 1") == 1);
    proxy.rows("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE");
    let begun = |shard: usize| {
        shards[shard]
            .log()
            .contains("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE")
    };
    assert!(!begun(0) && !begun(1), "before the first statement");
    proxy.rows("SELECT name FROM users WHERE user_id = 1");
    proxy.rows("COMMIT");
    assert!(begun(owner) && !begun(1 - owner));
}
