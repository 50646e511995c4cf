//! Shard keys of domains: as of the type that the domain is made of, with PostgreSQL's checks.

use crate::harness::compare::{MODES, Pair};
use crate::harness::{Cluster, message};

const SCHEMA: &str = "
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN code AS varchar(3);
CREATE DOMAIN price AS numeric(6, 2) CHECK (value >= 0);
CREATE DOMAIN moment AS timestamptz;
CREATE TABLE counts (id positive PRIMARY KEY, v text);
CREATE TABLE codes (id code PRIMARY KEY, v text);
CREATE TABLE prices (id price, day date, at moment DEFAULT 'now', PRIMARY KEY (id, day))";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows("INSERT INTO counts SELECT i, 'v' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO codes SELECT 'c' || i, 'v' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO prices SELECT i / 4.0, date '2026-01-01' + i, '2026-01-01' FROM generate_series(1, 20) i")
        .sharded("counts", &["id"])
        .sharded("codes", &["id"])
        .sharded("prices", &["id", "day"])
        .start()
}

#[test]
fn a_key_of_a_domain_is_placed_and_found_by_its_type() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT * FROM counts WHERE id = 7",
        "SELECT * FROM counts WHERE id IN (3, 4, 5) ORDER BY id",
        "SELECT * FROM counts WHERE id = 7::positive",
        "SELECT id, count(*) FROM codes GROUP BY id ORDER BY id DESC LIMIT 3",
        "SELECT min(id), max(id), count(DISTINCT id) FROM codes",
        "SELECT c.v, p.day FROM counts c JOIN prices p ON p.id = c.id ORDER BY 1, 2",
        "SELECT sum(id), avg(id) FROM prices",
    ] {
        pair.same(sql);
    }
    pair.same_with("SELECT * FROM counts WHERE id = $1", &[Some("8")]);
    pair.same_with(
        "SELECT * FROM prices WHERE id = $1 AND day = $2",
        &[Some("1.50"), Some("2026-01-07")],
    );
    for mode in MODES {
        for sql in [
            "INSERT INTO counts VALUES (0, 'none')",
            "INSERT INTO counts VALUES (51, 'a'), (52, 'b'), (-1, 'c')",
            "INSERT INTO counts VALUES (31, 'a'), (32, 'b'), (33, 'c') ON CONFLICT (id) DO UPDATE SET v = counts.v || 'x'",
            "INSERT INTO counts SELECT i, 'fed' FROM generate_series(30, 40) i ON CONFLICT DO NOTHING",
            "INSERT INTO counts SELECT i - 9, 'fed' FROM generate_series(1, 9) i",
            "UPDATE counts SET id = id + 100 WHERE id > 37 RETURNING id",
            "UPDATE counts SET id = -id WHERE id = 1",
            "DELETE FROM counts WHERE id > 37",
            "INSERT INTO codes VALUES ('abcd', 'long')",
            "INSERT INTO codes VALUES ('abc', 'a'), ('ab ', 'b'), ('x', 'c') ON CONFLICT (id) DO NOTHING",
            "INSERT INTO prices SELECT id, day + 100, '2026-02-02' FROM prices ON CONFLICT DO NOTHING",
            "UPDATE prices SET id = id + 1 WHERE day < '2026-01-05'",
        ] {
            pair.compare(mode, sql, &[], false);
        }
    }
    cluster.same_data();
    // A default that is one moment for the whole statement.
    pair.proxy
        .query("INSERT INTO prices (id, day) SELECT i, '2030-01-01' FROM generate_series(1, 9) i");
    assert_eq!(
        pair.proxy
            .rows("SELECT count(DISTINCT at) FROM prices WHERE day = '2030-01-01'"),
        [["1"]]
    );
}

#[test]
fn copies_find_the_shards_of_keys_of_domains() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for raw in [&mut pair.proxy, &mut pair.oracle] {
        for data in ["41\ta\n42\tb\n43\tc\n", "44\ta\n0\tb\n45\tc\n"] {
            let mut out = message::query("COPY counts FROM STDIN");
            out.extend(message::copy_data(data.as_bytes()));
            out.extend(message::copy_done());
            raw.send(&out);
            raw.read_until(b'Z', 1);
        }
    }
    pair.same("SELECT count(*), max(id) FROM counts");
    cluster.same_data();
}

#[test]
fn tables_with_such_keys_are_defined_and_others_refused() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    for sql in [
        "CREATE DOMAIN small AS positive CHECK (value < 100)",
        "CREATE TABLE smalls (id small PRIMARY KEY, v text) SHARD KEY (id)",
        "INSERT INTO smalls SELECT i FROM generate_series(1, 50) i",
    ] {
        raw.rows(sql);
    }
    assert_eq!(raw.code("INSERT INTO smalls VALUES (100)"), "23514");
    assert_eq!(
        raw.rows("SELECT count(*) FROM smalls WHERE id IN (1, 2, 3, 4)"),
        [["4"]]
    );
    raw.query("CREATE DOMAIN list AS int[]; CREATE TYPE mood AS ENUM ('sad', 'ok')");
    for key in ["list", "mood", "float8"] {
        let sql = format!("CREATE TABLE other (id {key} PRIMARY KEY) SHARD KEY (id)");
        assert_eq!(raw.code(&sql), "0A000", "{sql}");
    }
}
