//! Questions about the schema: what tools and mappers ask, and how large tables are over all shards.

use crate::harness::cluster::run_as_superuser;
use crate::harness::{Cluster, Raw, message};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL DEFAULT 'nobody');
    CREATE TABLE orders (
        order_id bigint, user_id bigint REFERENCES users, note text, PRIMARY KEY (user_id, order_id));
    CREATE INDEX orders_note ON orders (left(note, 20));
    CREATE TABLE products (product_id int PRIMARY KEY, name text);
    CREATE TABLE settings (key text PRIMARY KEY);
    CREATE VIEW notes AS SELECT user_id, note FROM orders;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE FUNCTION add_one(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
    COMMENT ON TABLE orders IS 'what users want';
";

const ROWS: &str = "
    INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 2000) i;
    INSERT INTO orders SELECT i, 1 + i % 2000, repeat('x', i % 90) FROM generate_series(1, 8000) i;
    INSERT INTO orders SELECT 9000 + i, i,
        (SELECT string_agg(md5(j::text), '') FROM generate_series(1, 400) j) FROM generate_series(1, 20) i;
    INSERT INTO products SELECT i, 'product' FROM generate_series(1, 500) i;
    INSERT INTO settings VALUES ('a');
";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .replicated("products")
        .home("settings", 0)
        .schema(SCHEMA)
        .rows(ROWS)
        .start()
}

/// What clients and mappers ask, without OIDs in the answers.
const QUESTIONS: &[&str] = &[
    "SELECT 'orders'::regclass::text, to_regclass('nothing'), 'add_one(int)'::regprocedure::text",
    "SELECT table_name, column_name, data_type, is_nullable, column_default \
     FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    "SELECT c.constraint_name, k.column_name, u.table_name FROM information_schema.table_constraints c \
     JOIN information_schema.key_column_usage k USING (constraint_schema, constraint_name) \
     JOIN information_schema.constraint_column_usage u USING (constraint_schema, constraint_name) \
     WHERE c.constraint_type = 'FOREIGN KEY' ORDER BY 1, 2, 3",
    "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
            pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum) \
     FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     WHERE a.attrelid = 'users'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    "SELECT i.relname, x.indisunique, x.indkey, pg_get_indexdef(x.indexrelid) FROM pg_index x \
     JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = '\"orders\"'::regclass ORDER BY 1",
    "SELECT c.relname, c.relkind, obj_description(c.oid, 'pg_class'), pg_get_userbyid(c.relowner) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r', 'v', 'm', 'p', 'f') \
     AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1",
    "SELECT conname, pg_get_constraintdef(oid, true), conrelid::regclass, confrelid::regclass \
     FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT pg_get_viewdef('notes'::regclass, true), pg_get_functiondef('add_one'::regproc)",
    "SELECT t.typname, e.enumlabel FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid \
     ORDER BY e.enumsortorder",
    "WITH RECURSIVE tree(oid, depth) AS (SELECT 'mood'::regtype::oid, 0 UNION ALL \
     SELECT t.typarray, depth + 1 FROM pg_type t, tree WHERE t.oid = tree.oid AND t.typarray <> 0) \
     SELECT oid::regtype, depth FROM tree ORDER BY depth",
    "SELECT current_database(), current_schema(), current_schemas(true), current_user, session_user",
    "SELECT has_table_privilege('orders', 'INSERT'), has_schema_privilege('public', 'USAGE')",
    "SELECT name, setting FROM pg_settings WHERE name IN ('server_version_num', 'block_size') ORDER BY 1",
    "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public' ORDER BY 1",
    "SELECT n.nspname, pg_get_userbyid(n.nspowner) FROM pg_namespace n \
     WHERE n.nspname !~ '^(pg_|shardwire)' ORDER BY 1",
    "SELECT tableoid::regclass, ctid IS NULL, xmin IS NULL FROM pg_class WHERE relname = 'users'",
];

/// Names of columns, values of rows, codes of errors.
fn ask(raw: &mut Raw, messages: &[u8]) -> Vec<String> {
    raw.send(messages);
    let frames = raw.read_until(b'Z', 1);
    let shown = frames.into_iter().filter_map(|frame| match frame.tag {
        b'T' => {
            let name = frame.body[2..].split(|byte| *byte == 0).next().unwrap();
            Some(String::from_utf8_lossy(name).into_owned())
        }
        b'D' => Some(String::from_utf8_lossy(&frame.body[6..]).into_owned()),
        b'E' => Some(format!("{:?} {:?}", frame.field(b'C'), frame.field(b'M'))),
        _ => None,
    });
    shown.collect()
}

fn query(raw: &mut Raw, sql: &str) -> Vec<String> {
    ask(raw, &message::query(sql))
}

/// The answers of each shard's primary, summed.
fn sum(cluster: &Cluster, sql: &str) -> i64 {
    let shards = cluster.shards.iter();
    shards
        .map(|shard| {
            let answer = run_as_superuser(&shard.primary, sql);
            answer.trim().parse::<i64>().unwrap()
        })
        .sum()
}

#[test]
fn questions_about_the_schema_are_answered_as_by_one_postgresql() {
    let cluster = cluster();
    let (mut one, mut raw) = (cluster.oracle().raw(), cluster.proxy().raw());
    for sql in QUESTIONS {
        let expected = query(&mut one, sql);
        assert!(expected.len() > 1, "{sql}");
        assert_eq!(query(&mut raw, sql), expected, "{sql}");
        let extended = [
            message::parse("", sql, &[]),
            message::bind("", "", &[], &[], &[]),
            message::describe(b'P', ""),
            message::execute("", 0),
            message::sync(),
        ];
        assert_eq!(ask(&mut raw, &extended.concat()), expected, "{sql}");
    }
}

#[test]
fn sizes_of_sharded_tables_are_sums() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let toast = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'orders'::regclass)";
    for call in [
        "pg_table_size('orders')",
        "pg_total_relation_size('public.orders')",
        "pg_indexes_size('orders'::regclass)",
        "pg_relation_size('orders'::regclass::oid)",
        "pg_relation_size('orders', 'vm')",
        "pg_relation_size('orders', lower('FSM'))",
        "pg_catalog.pg_table_size('users')",
        "pg_relation_size('orders_note')",
        "pg_table_size('orders_pkey')",
        &format!("pg_relation_size({toast})"),
        &format!("pg_total_relation_size({toast})"),
        "pg_table_size(max('orders'::regclass::oid))",
    ] {
        let sql = format!("SELECT {call}");
        let name = call.split('(').next().unwrap().replace("pg_catalog.", "");
        let expected = vec![name, sum(&cluster, &sql).to_string()];
        assert_eq!(query(&mut raw, &sql), expected, "{sql}");
    }
    for database in [
        "current_database()",
        "(SELECT oid FROM pg_database WHERE datname = current_database())",
    ] {
        // A database grows a little while it is looked at.
        let sql = format!("SELECT pg_database_size({database})");
        let expected = sum(&cluster, &sql);
        let shown: i64 = query(&mut raw, &sql)[1].parse().unwrap();
        assert!(
            (shown - expected).abs() < expected / 10,
            "{shown} {expected}"
        );
    }
    let by_table = "SELECT sum(pg_table_size(c.oid)) FROM pg_class c WHERE c.relkind = 'r' \
                    AND c.relname IN ('orders', 'users')";
    let expected = sum(&cluster, by_table).to_string();
    assert_eq!(query(&mut raw, by_table), ["sum", &expected]);
    let expected = sum(&cluster, "SELECT pg_table_size('orders')").to_string();
    for sql in [
        "SELECT * FROM pg_table_size('orders')",
        "SELECT pg_table_size FROM (SELECT pg_table_size(s.r) FROM (SELECT 'orders'::regclass) s(r)) x",
        "SELECT pg_table_size(relid) FROM pg_stat_user_tables s WHERE relname = 'orders' \
         GROUP BY pg_table_size(relid)",
    ] {
        assert_eq!(query(&mut raw, sql), ["pg_table_size", &expected], "{sql}");
    }
    let bound = [
        message::parse("", "SELECT pg_table_size($1)", &[]),
        message::bind("", "", &[], &[Some(b"orders".to_vec())], &[]),
        message::describe(b'P', ""),
        message::execute("", 0),
        message::sync(),
    ];
    assert_eq!(ask(&mut raw, &bound.concat()), ["pg_table_size", &expected]);
}

#[test]
fn sizes_of_what_is_not_sharded_are_one_servers() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let first = |sql: &str| run_as_superuser(&cluster.shards[0].primary, sql);
    for sql in [
        "SELECT pg_table_size('products')",
        "SELECT pg_total_relation_size('settings')",
        "SELECT pg_relation_size('pg_class')",
        "SELECT pg_database_size('postgres')",
    ] {
        assert_eq!(query(&mut raw, sql)[1], first(sql).trim(), "{sql}");
    }
    assert_eq!(
        query(&mut raw, "SELECT pg_table_size(NULL) IS NULL")[1],
        "t"
    );
    assert_eq!(query(&mut raw, "SELECT pg_table_size(1) IS NULL")[1], "t");
    assert!(query(&mut raw, "SELECT pg_table_size('nothing')")[0].contains("42P01"));
    // Whoever chooses a shard means that one.
    let sql = "SELECT pg_table_size('orders')";
    let second = run_as_superuser(&cluster.shards[1].primary, sql);
    let hinted = format!("/* shardwire: shard=s1 */ {sql}");
    assert_eq!(query(&mut raw, &hinted)[1], second.trim());
    query(&mut raw, "SET shardwire.shard = 's0'");
    assert_eq!(query(&mut raw, sql)[1], first(sql).trim());
}
