//! Subqueries that each shard answers by itself, beside one PostgreSQL with all rows: the statements of the
//! planner's golden file on tables that are as they are there.

use crate::harness::Cluster;
use crate::harness::compare::Pair;

const PLANS: &str = include_str!("../src/plan/testdata/nested.test");

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, age int, country text);
    CREATE TABLE orders (order_id bigint, user_id int, total numeric, product_id bigint, at timestamptz,
        PRIMARY KEY (user_id, order_id));
    CREATE TABLE items (item_id bigint, user_id bigint, order_id bigint);
    CREATE TABLE parcels (parcel_id bigint PRIMARY KEY, order_id bigint);
    CREATE TABLE pages (tenant_id uuid, day date, hits int);
    CREATE TABLE products (product_id bigint PRIMARY KEY, name text, price numeric);
    CREATE TABLE log (id bigint, line text);
    CREATE VIEW names AS SELECT user_id, name FROM users;
    CREATE VIEW spent AS SELECT u.user_id AS who, sum(o.total) AS total FROM users u
        LEFT JOIN orders o ON o.user_id = u.user_id GROUP BY u.user_id;
    CREATE VIEW everyone AS SELECT user_id AS id FROM users UNION ALL SELECT user_id FROM orders;
    CREATE VIEW last AS SELECT user_id FROM orders ORDER BY at DESC LIMIT 10;
";

const ROWS: &str = "
    INSERT INTO users SELECT i, (ARRAY['Ann','bob','Ötzi',NULL])[1 + i % 4], i % 9, (ARRAY['de','fr',NULL])[1 + i % 3]
        FROM generate_series(1, 40) i;
    INSERT INTO users VALUES (3000000000, 'big', 5, NULL), (4000000000, 'x', 7, 'de'), (5000000000, 'x', 7, 'de');
    INSERT INTO orders SELECT i, 1 + i * 7 % 45, NULLIF(i % 13, 5) * 1.25 + i / 1000.0, 1 + i % 9,
        '2026-01-01 00:00+00'::timestamptz + i * interval '5 hours' FROM generate_series(1, 120) i;
    INSERT INTO orders SELECT 1000 + i, 5, i, 2, '2026-03-01 00:00+00'::timestamptz + i * interval '1 hour'
        FROM generate_series(1, 4) i;
    INSERT INTO items SELECT i, 1 + i % 42, i FROM generate_series(1, 90) i;
    INSERT INTO parcels SELECT i, 1 + i % 50 FROM generate_series(1, 30) i;
    INSERT INTO pages SELECT ('6f6fbd9e-2b3d-4d1e-9c7e-0a5cf1f4a00' || i % 3)::uuid, '2026-01-01'::date + i % 4, i
        FROM generate_series(1, 24) i;
    INSERT INTO products SELECT i, (ARRAY['x','y','z'])[1 + i % 3], i * 1.1 FROM generate_series(1, 7) i;
    INSERT INTO log SELECT i, 'line ' || i FROM generate_series(1, 12) i;
";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .sharded("items", &["user_id"])
        .sharded("parcels", &["parcel_id"])
        .sharded("pages", &["tenant_id", "day"])
        .replicated("products")
        .home("log", 0)
        .start()
}

/// The queries of the golden file that leave PostgreSQL no choice.
fn queries() -> Vec<&'static str> {
    let is_query = |line: &&str| line.starts_with("SELECT") || line.starts_with("WITH");
    let has_choice = |line: &str| {
        (line.contains("LIMIT") || line.contains("OFFSET")) && !line.contains("ORDER BY")
    };
    let mut found: Vec<&str> = PLANS.lines().filter(is_query).collect();
    found.retain(|line| !line.contains('$') && !has_choice(line));
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn subqueries_give_what_one_server_gives() {
    for shards in [2, 4] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        let refused: Vec<&str> = queries()
            .into_iter()
            .filter(|sql| !pair.same_or_refused(sql))
            .collect();
        for key in ["3000000000", "4000000000", "5000000000"] {
            pair.same(&format!(
                "SELECT * FROM (SELECT user_id FROM orders UNION ALL SELECT user_id FROM users) t WHERE user_id = {key}"
            ));
        }
        assert!(queries().len() > 100);
        assert!(refused.len() < 8, "{refused:#?}");
    }
}

#[test]
fn keys_are_proven_for_every_value_of_a_parameter() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for user in ["1", "2", "3", "5", "41", "1000"] {
        for sql in [
            "SELECT * FROM names WHERE user_id = $1",
            "SELECT total FROM spent WHERE who = $1",
            "SELECT count(*) FROM everyone WHERE id = $1",
            "SELECT count(*) FROM last WHERE user_id = $1",
            "SELECT t.n FROM (SELECT user_id AS k, count(*) AS n FROM orders GROUP BY user_id) t WHERE k = $1",
            "WITH t AS (SELECT * FROM users) SELECT name FROM t WHERE user_id = $1",
            "WITH t AS (SELECT * FROM users) SELECT a.name, b.user_id FROM t a, t b WHERE a.user_id = $1 ORDER BY 2",
        ] {
            pair.same_with(sql, &[Some(user)]);
        }
    }
}
