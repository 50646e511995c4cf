//! One type or table is one OID to clients, though every shard numbers what users make by itself.

use std::collections::BTreeSet;

use crate::harness::compare::{Mode, Pair};
use crate::harness::raw::{Frame, Raw, values};
use crate::harness::{Cluster, message};

/// Shards that have numbered differently, with the same types and tables.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new().shards(2).without_proxy().start();
    let mut shard = cluster.shard(1).raw();
    for _ in 0..3 {
        shard.query("CREATE TYPE passing AS ENUM ('a', 'b')");
        shard.query("DROP TYPE passing");
    }
    cluster.start_proxy();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        "CREATE TYPE spot AS (x int, felt mood)",
        "CREATE TYPE span AS RANGE (subtype = float8)",
        "CREATE DOMAIN feeling AS mood CHECK (VALUE <> 'sad')",
    ] {
        pair.once(sql);
    }
    let table =
        "CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[], at spot, s span, f feeling)";
    let frames = pair.proxy.query(&format!("{table} SHARD KEY (id)"));
    assert_eq!(frames[0].tag, b'C', "{frames:?}");
    pair.oracle.query(table);
    pair.once(
        "INSERT INTO t SELECT i, (ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::mood, ARRAY['ok', 'sad']::mood[], \
        ROW(i, 'ok')::spot, span(i, i + 1), 'happy' FROM generate_series(1, 40) i",
    );
    let own = |shard: usize| {
        cluster
            .shard(shard)
            .raw()
            .rows("SELECT 'mood'::regtype::oid")
    };
    assert_ne!(
        own(0),
        own(1),
        "the shards number alike, which tests nothing"
    );
    cluster
}

fn oid(proxy: &mut Raw, what: &str) -> u32 {
    proxy.rows(&format!("SELECT {what}::oid"))[0][0]
        .parse()
        .unwrap()
}

/// The frames of a statement of the extended protocol, described.
fn extended(
    proxy: &mut Raw,
    sql: &str,
    types: &[u32],
    parameters: &[Option<Vec<u8>>],
) -> Vec<Frame> {
    let sent = [
        message::parse("", sql, types),
        message::describe(b'S', ""),
        message::bind("", "", &[], parameters, &[1]),
        message::execute("", 0),
        message::sync(),
    ];
    proxy.send(&sent.concat());
    proxy.read_until(b'Z', 1)
}

fn one(frames: &[Frame], tag: u8) -> &Frame {
    let found = frames.iter().find(|frame| frame.tag == tag);
    found.unwrap_or_else(|| panic!("no {} in {frames:?}", tag as char))
}

#[test]
fn every_shard_describes_by_the_same_oids() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    let sql = |id: i32| format!("SELECT id, m, ms, at, s, f FROM t WHERE id = {id}");
    let mut described = BTreeSet::new();
    let mut shards = BTreeSet::new();
    for id in 1..=10 {
        described.insert(one(&proxy.query(&sql(id)), b'T').body.clone());
        shards.insert(proxy.rows(&format!("SELECT shard_id FROM t WHERE id = {id}")));
    }
    assert_eq!(shards.len(), 2, "all rows are on one shard");
    let all = proxy.query("SELECT id, m, ms, at, s, f FROM t");
    described.insert(one(&all, b'T').body.clone());
    let sorted = proxy.query("SELECT id, m, ms, at, s, f FROM t ORDER BY m, id LIMIT 3");
    described.insert(one(&sorted, b'T').body.clone());
    assert_eq!(described.len(), 1, "{described:?}");
    let described = described.pop_first().unwrap();
    for name in [
        "'t'::regclass",
        "'mood'::regtype",
        "'mood[]'::regtype",
        "'spot'::regtype",
        "'span'::regtype",
    ] {
        let bytes = oid(&mut proxy, name).to_be_bytes();
        assert!(
            described.windows(4).any(|four| four == bytes),
            "{name} is not there"
        );
    }
}

#[test]
fn parameters_are_declared_and_described_by_them() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    let mood = oid(&mut proxy, "'mood'::regtype");
    for id in 1..=10 {
        let sql = format!("SELECT m FROM t WHERE id = {id} AND (m = $1 OR $1 IS NOT NULL)");
        for types in [&[][..], &[mood]] {
            let frames = extended(&mut proxy, &sql, types, &[Some(b"sad".to_vec())]);
            let parameters = &one(&frames, b't').body;
            assert_eq!(parameters[2..], mood.to_be_bytes(), "{frames:?}");
            one(&frames, b'D');
        }
    }
    let sql = "INSERT INTO t (id, m) VALUES ($1, $2) RETURNING m";
    for id in 50u32..60 {
        let parameters = [id.to_string(), "happy".to_owned()].map(|one| Some(one.into_bytes()));
        let frames = extended(&mut proxy, sql, &[23, mood], &parameters);
        assert_eq!(values(one(&frames, b'D')), [Some(b"happy".to_vec())]);
    }
    assert_eq!(proxy.code("SELECT m FROM t WHERE m = 'none'"), "22P02");
}

#[test]
fn values_of_such_types_are_shipped_whole() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT ms, count(DISTINCT m) FROM t GROUP BY ms",
        "SELECT at, f FROM t ORDER BY id LIMIT 5",
        "SELECT m, array_agg(s ORDER BY id) FROM t GROUP BY m ORDER BY m",
        "SELECT a.at, b.ms FROM t a JOIN t b ON a.id = b.id + 1 ORDER BY a.id",
        "SELECT DISTINCT ON (m) m, at, f, s FROM t ORDER BY m, id",
        "SELECT max(m), min(f), array_agg(DISTINCT m) FROM t",
        "SELECT id FROM t WHERE m = ANY (ARRAY['sad', 'happy']::mood[]) ORDER BY id",
        "SELECT enum_range(m), m FROM t WHERE id IN (1, 2, 3, 4) ORDER BY id",
    ] {
        // Inside binary arrays and rows a shard's own numbers stand.
        for mode in [Mode::Simple, Mode::Text] {
            pair.compare(mode, sql, &[], true);
        }
    }
    pair.once("CREATE TYPE later AS ENUM ('x', 'y')");
    pair.once("ALTER TABLE t ADD COLUMN l later DEFAULT 'y'");
    pair.same("SELECT l, count(*) FROM t GROUP BY l ORDER BY l");
    let mut proxy = cluster.proxy().raw();
    let later = oid(&mut proxy, "'later'::regtype").to_be_bytes();
    for id in 1..=10 {
        let frames = proxy.query(&format!("SELECT l FROM t WHERE id = {id}"));
        let described = &one(&frames, b'T').body;
        assert!(
            described.windows(4).any(|four| four == later),
            "{described:?}"
        );
    }
}
