//! Domains, collations and lengths of values that pass through the proxy, against one PostgreSQL.

use crate::harness::Cluster;
use crate::harness::compare::{Mode, Pair};

const SCHEMA: &str = r#"
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN handle AS text COLLATE ci;
CREATE DOMAIN pair AS int[];
CREATE FUNCTION three() RETURNS char(3) LANGUAGE plpgsql AS $$ BEGIN RETURN 'abc'; END $$;
CREATE FUNCTION kind(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'int' $$;
CREATE FUNCTION kind(positive) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'positive' $$;
CREATE FUNCTION kind(int[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'int[]' $$;
CREATE FUNCTION kind(positive[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'positive[]' $$;
CREATE FUNCTION kind(pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'pair' $$;
CREATE FUNCTION kind(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'text' $$;
CREATE FUNCTION kind(varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'varchar' $$;
CREATE FUNCTION kind(bpchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'bpchar' $$;
CREATE TABLE users (user_id int PRIMARY KEY, name text COLLATE ci, plain text COLLATE "C", v varchar(8), c char(4),
    p positive, ps positive[], pr pair, h handle);
CREATE TABLE other (user_id int PRIMARY KEY, name text, c char(4), k text);
CREATE TABLE lengths (user_id int PRIMARY KEY, name text, c char(3) DEFAULT three(), cs char(3)[] DEFAULT ARRAY[three()],
    v varchar(3) DEFAULT three(), n numeric(6,2) DEFAULT length(three()) + 0.25)"#;

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(
            "INSERT INTO users SELECT i, n || (i / 2), 'n' || i, 'v' || i, 'c' || i, i, ARRAY[i], ARRAY[i], n || (i / 2) \
             FROM generate_series(1, 20) i, LATERAL (SELECT CASE WHEN i % 2 = 0 THEN 'ABC' ELSE 'abc' END AS n) s; \
             INSERT INTO other SELECT i, CASE WHEN i % 3 = 0 THEN 'ABC' ELSE 'abc' END || (i / 2), 'c' || i, 'x' \
             FROM generate_series(1, 20) i",
        )
        .sharded("users", &["user_id"])
        .sharded("other", &["user_id"])
        .sharded("lengths", &["user_id"])
        .start()
}

#[test]
fn defaults_that_are_fed_keep_their_lengths() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "INSERT INTO lengths (user_id, name) SELECT user_id, name FROM users",
        "INSERT INTO lengths (user_id, name) VALUES (101, 'a'), (102, 'b'), (103, 'c'), (104, 'd')",
        "INSERT INTO lengths (user_id) VALUES (105)",
        "MERGE INTO lengths l USING (SELECT user_id + 200 AS user_id FROM users) u ON l.user_id = u.user_id \
         WHEN NOT MATCHED THEN INSERT (user_id) VALUES (u.user_id)",
        "SELECT * FROM lengths ORDER BY user_id",
    ] {
        pair.once(sql);
    }
}

#[test]
fn subqueries_that_are_evaluated_once_keep_domains_and_collations() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "UPDATE other SET k = 'a' WHERE name = (SELECT name FROM users WHERE user_id = 6)",
        "UPDATE other SET k = 'b' WHERE name IN (SELECT name FROM users WHERE user_id > 11)",
        "UPDATE other SET k = 'c' WHERE name = (SELECT max(h) FROM users)",
        "UPDATE other SET k = 'd' WHERE (SELECT name FROM users WHERE user_id = 7) = 'ABC3' AND user_id < 5",
        "UPDATE other SET k = 'e' WHERE c = (SELECT c FROM users WHERE user_id = 17)",
        "UPDATE other SET k = 'f' WHERE name > (SELECT min(plain) FROM users)",
        "UPDATE other SET k = 'g' WHERE (name, user_id) IN (SELECT h, p FROM users WHERE user_id < 9)",
        "SELECT * FROM other ORDER BY user_id",
        "UPDATE other SET k = kind((SELECT p FROM users WHERE user_id = 5)) || kind((SELECT v FROM users WHERE user_id = 5)) \
         || kind((SELECT c FROM users WHERE user_id = 5)) || kind((SELECT ps FROM users WHERE user_id = 5)) \
         || kind((SELECT pr FROM users WHERE user_id = 5))",
        "SELECT * FROM other ORDER BY user_id",
        "UPDATE other SET k = kind((SELECT p FROM users WHERE user_id = 500)) || octet_length((SELECT coalesce(c, 'abcdef') \
         FROM users WHERE user_id = 5)::text) || octet_length((SELECT coalesce(c, 'abcdef') FROM users WHERE user_id = 5))",
        "SELECT * FROM other ORDER BY user_id",
        "UPDATE other SET k = u.k FROM (SELECT kind(max(p)) AS k FROM users) u WHERE name <> ALL (SELECT h FROM users WHERE user_id < 4)",
        "SELECT * FROM other ORDER BY user_id",
        "DELETE FROM other WHERE (SELECT h FROM users WHERE user_id = 7) = 'ABC3' AND user_id > 15",
        "SELECT * FROM other ORDER BY user_id",
    ] {
        pair.once(sql);
    }
    for mode in [Mode::Text, Mode::Binary] {
        pair.compare(
            mode,
            "UPDATE other SET k = kind((SELECT p FROM users WHERE user_id = $1)) WHERE $2 = (SELECT name FROM users WHERE user_id = 7)",
            &[Some("5"), Some("ABC3")],
            true,
        );
        pair.once("SELECT * FROM other ORDER BY user_id");
    }
    // Collations that contradict each other stay an error.
    pair.once("UPDATE other SET k = 'x' WHERE (SELECT name FROM users WHERE user_id = 5) = (SELECT plain FROM users WHERE user_id = 5)");
    cluster.same_data();
}

#[test]
fn sources_of_merges_keep_domains_and_collations() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "MERGE INTO other o USING (SELECT user_id, name FROM users WHERE user_id < 10) s ON o.user_id = s.user_id \
         WHEN MATCHED AND s.name = 'ABC1' THEN UPDATE SET k = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (s.user_id, s.name)",
        "SELECT * FROM other ORDER BY user_id",
        "MERGE INTO other o USING (SELECT user_id + 1 AS user_id, name, p, ps, pr, v, c, h FROM users WHERE user_id < 30) s \
         ON o.user_id = s.user_id WHEN MATCHED AND s.h = 'ABC1' THEN UPDATE SET k = 'again' \
         WHEN MATCHED THEN UPDATE SET k = kind(s.p) || kind(s.ps) || kind(s.pr) || kind(s.v) || kind(s.c), c = s.c \
         WHEN NOT MATCHED THEN INSERT VALUES (s.user_id, s.name, s.c, kind(s.p))",
        "SELECT * FROM other ORDER BY user_id",
    ] {
        pair.once(sql);
    }
    pair.compare(
        Mode::Binary,
        "MERGE INTO other o USING (SELECT user_id + $1 AS user_id, h FROM users) s ON o.user_id = s.user_id \
         WHEN MATCHED AND s.h = $2 THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.user_id, s.h)",
        &[Some("1"), Some("ABC2")],
        true,
    );
    pair.once("SELECT * FROM other ORDER BY user_id");
    cluster.same_data();
}

#[test]
fn parts_of_with_do_not_lose_domains() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.refused(
        "WITH x AS (DELETE FROM users WHERE user_id < 8 RETURNING p) SELECT kind(p) FROM x",
    );
    pair.refused("WITH x AS (UPDATE users SET v = 'a' RETURNING name) SELECT max(name) FROM x");
    cluster.same_data();
}
