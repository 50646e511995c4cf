//! Row security on tables of several shards, beside one PostgreSQL with all rows.

use crate::harness::Cluster;
use crate::harness::compare::Pair;

const SCHEMA: &str = "
    CREATE TABLE items (id int PRIMARY KEY, tenant int, country text, n numeric);
    CREATE TABLE parts (item int, no int, tenant int, PRIMARY KEY (item, no));
    CREATE TABLE countries (code text PRIMARY KEY, title text);
    CREATE TABLE far (id int PRIMARY KEY, item int);
    ALTER TABLE items ENABLE ROW LEVEL SECURITY;
    ALTER TABLE items FORCE ROW LEVEL SECURITY;
    ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
    ALTER TABLE parts FORCE ROW LEVEL SECURITY;
    ALTER TABLE far ENABLE ROW LEVEL SECURITY;
    ALTER TABLE far FORCE ROW LEVEL SECURITY;
";

const ROWS: &str = "
    INSERT INTO items SELECT i, i % 4, (ARRAY['de', 'fr', 'it'])[1 + i % 3], i / 3.0 FROM generate_series(1, 80) i;
    INSERT INTO parts SELECT i, k, i % 4 FROM generate_series(1, 80) i, generate_series(1, 2) k;
    INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France');
    INSERT INTO far SELECT i, i FROM generate_series(1, 9) i;
";

/// Made when the rows are there, which even the tables' owner could not have stored.
const POLICIES: [&str; 4] = [
    "CREATE POLICY own ON items USING (tenant = current_setting('app.tenant')::int)",
    "CREATE POLICY known ON items AS RESTRICTIVE FOR SELECT USING (country IN (SELECT code FROM countries))",
    "CREATE POLICY own ON parts USING (tenant = nullif(current_setting('app.tenant', true), '')::int)",
    "CREATE POLICY own ON far USING (EXISTS (SELECT FROM items WHERE items.id = far.item))",
];

fn cluster() -> Cluster {
    let cluster = Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .sharded("items", &["id"])
        .sharded("parts", &["item"])
        .sharded("far", &["id"])
        .replicated("countries")
        .start();
    let mut pair = Pair::new(&cluster);
    for table in ["items", "parts", "far"] {
        pair.once(&format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"));
    }
    for sql in ROWS.trim().trim_end_matches(';').split(";\n") {
        pair.once(sql);
    }
    for table in ["items", "parts", "far"] {
        pair.once(&format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"));
    }
    for sql in POLICIES {
        pair.once(sql);
    }
    cluster
}

#[test]
fn each_client_sees_and_changes_its_own_rows() {
    let cluster = cluster();
    let mut pairs = [1, 2].map(|tenant| {
        let mut pair = Pair::new(&cluster);
        pair.once(&format!("SET app.tenant = '{tenant}'"));
        pair
    });
    for sql in [
        "SELECT id, n FROM items ORDER BY id",
        "SELECT count(*), sum(n), avg(n) FROM items",
        "SELECT country, count(*) FROM items GROUP BY country ORDER BY country",
        "SELECT * FROM items WHERE id = 5",
        "SELECT * FROM items WHERE id = 6",
        "SELECT i.id, p.no FROM items i JOIN parts p ON p.item = i.id ORDER BY 1, 2 LIMIT 9",
        "SELECT i.id, p.item FROM items i JOIN parts p ON p.item = i.id + 4 ORDER BY 1, 2 LIMIT 9",
        "SELECT title, (SELECT count(*) FROM items WHERE country = code) FROM countries ORDER BY 1",
        "SELECT id, rank() OVER (ORDER BY n DESC) FROM items ORDER BY id LIMIT 5",
        "SELECT count(DISTINCT country), string_agg(country, ',' ORDER BY id) FROM items",
    ] {
        for pair in &mut pairs {
            pair.same(sql);
        }
    }
    for sql in [
        "INSERT INTO items VALUES (101, 1, 'de', 1), (102, 1, 'de', 2), (103, 1, 'fr', 3)",
        "INSERT INTO items VALUES (201, 2, 'de', 1), (202, 2, 'de', 2), (203, 2, 'fr', 3)",
        "INSERT INTO items VALUES (301, 1, 'de', 1), (302, 2, 'de', 2)",
        "INSERT INTO items VALUES (5, 1, 'de', 1)",
        "UPDATE items SET n = n + 1",
        "UPDATE items SET n = 0 WHERE id IN (5, 6, 7, 9, 10)",
        "UPDATE items SET tenant = 3 WHERE id = 101",
        "UPDATE items SET tenant = 3 WHERE country = 'de'",
        "DELETE FROM parts WHERE no = 2",
        "BEGIN",
        "DELETE FROM parts WHERE item < 40",
        "SET LOCAL app.tenant = '3'",
        "SELECT count(*) FROM parts",
        "ROLLBACK",
        "SELECT count(*) FROM parts",
    ] {
        for pair in &mut pairs {
            pair.once(sql);
        }
    }
    let mut nobody = Pair::new(&cluster);
    nobody.same("SELECT count(*) FROM parts");
    nobody.once("SET app.tenant = '3'");
    nobody.same("SELECT count(*), sum(n) FROM items");
}

#[test]
fn what_would_be_another_command_or_reads_elsewhere_is_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once("SET app.tenant = '1'");
    for sql in [
        "UPDATE items SET id = id + 1000",
        "SELECT count(*) FROM far",
        "DELETE FROM far WHERE id = 3",
        "INSERT INTO far VALUES (100, 1)",
    ] {
        pair.refused(sql);
    }
    pair.same("SELECT count(*), max(id) FROM items");
}
