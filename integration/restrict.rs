//! Relations on a hub, and small ones, restrict what is copied for a query that it finishes.

use crate::harness::Cluster;
use crate::harness::compare::Pair;

#[test]
fn what_is_on_the_hub_or_seems_small_restricts_what_is_copied() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE few (id int PRIMARY KEY, kind text);
             CREATE TABLE codes (id int PRIMARY KEY, title text);
             CREATE TABLE small (id int PRIMARY KEY, n int, note text);
             CREATE TABLE large (id int PRIMARY KEY, small_id int, note text)",
        )
        .rows(
            "INSERT INTO few SELECT i, (ARRAY['a','b',NULL])[1 + i % 3] FROM generate_series(1, 30) i;
             INSERT INTO codes SELECT i, 't' || i FROM generate_series(1, 30) i;
             INSERT INTO small SELECT i, i * 3, 'n' FROM generate_series(1, 100) i;
             INSERT INTO large SELECT i, NULLIF(i % 5000, 7), 'k' || i % 7 FROM generate_series(1, 20000) i",
        )
        .home("few", 1)
        .replicated("codes")
        .sharded("small", &["id"])
        .sharded("large", &["id"])
        .start();
    let mut pair = Pair::new(&cluster);
    for (sql, rows) in [
        (
            "SELECT count(*) FROM large l JOIN few f ON f.id = l.small_id",
            "116",
        ),
        (
            "SELECT f.id, l.id FROM few f LEFT JOIN large l ON l.small_id = f.id WHERE f.kind = 'a' ORDER BY 1, 2",
            "40",
        ),
        (
            "SELECT count(l.id) FROM codes c LEFT JOIN large l ON l.small_id = c.id WHERE c.title = 't5'",
            "4",
        ),
        (
            "SELECT count(l.id) FROM codes c LEFT JOIN large l ON l.small_id = c.id WHERE c.title = 'no'",
            "0",
        ),
        (
            "SELECT count(*) FROM large l JOIN small s ON l.small_id = s.n WHERE l.note > 'a' AND l.id > 0",
            "400",
        ),
    ] {
        pair.same(sql);
        let plan: Vec<String> = pair.proxy.rows(&format!("EXPLAIN ANALYZE {sql}")).concat();
        let line = plan
            .iter()
            .find(|line| line.contains("Copy large"))
            .unwrap();
        let wanted = format!("rows={rows} ");
        assert!(
            line.contains(&wanted) || (rows == "0" && line.contains("no shard")),
            "{plan:?}"
        );
    }
    let both = [
        "BEGIN",
        "INSERT INTO few VALUES (7000, 'a')",
        "INSERT INTO large VALUES (30000, 7000, 'x')",
    ];
    for sql in both {
        pair.once(sql);
    }
    pair.same(
        "SELECT f.id, l.id FROM few f LEFT JOIN large l ON l.small_id = f.id WHERE f.kind = 'a' ORDER BY 1, 2",
    );
    pair.once("ROLLBACK");
}

#[test]
fn keys_need_no_other_privileges_than_the_statement() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE few (id int PRIMARY KEY, note text);
             CREATE TABLE large (id int PRIMARY KEY, few_id int, note text);
             GRANT SELECT ON large TO PUBLIC; GRANT SELECT (id) ON few TO PUBLIC",
        )
        .rows(
            "INSERT INTO few SELECT i, 'secret' FROM generate_series(1, 5) i;
             INSERT INTO large SELECT i, i % 50, 'n' || i FROM generate_series(1, 200) i",
        )
        .home("few", 1)
        .sharded("large", &["id"])
        .start();
    let mut pair = Pair::new(&cluster);
    let sql = "SELECT l.note FROM large l JOIN few f ON f.id = l.few_id ORDER BY l.id";
    pair.same(sql);
    // Each look at a sample gives other rows.
    pair.same(
        "SELECT count(*) FROM few f TABLESAMPLE BERNOULLI (50) LEFT JOIN large l ON l.few_id = f.id WHERE l.id IS NULL",
    );
    let servers = cluster.shards.iter().map(|shard| &shard.primary);
    for server in servers.chain([&cluster.oracle]) {
        let create = "CREATE ROLE reader; GRANT reader TO app";
        server.psql("app", create).unwrap();
    }
    pair.once("SET ROLE reader");
    pair.same(sql);
    pair.same("SELECT f.note FROM large l JOIN few f ON f.id = l.few_id");
}
