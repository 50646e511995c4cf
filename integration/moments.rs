//! The time of a transaction that uses several shards, held against one PostgreSQL, where all statements see the same.

use crate::harness::compare::{MODES, Pair, frames, outcome};
use crate::harness::raw::values;
use crate::harness::{Cluster, Raw, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE log (id int PRIMARY KEY, what text, at timestamptz DEFAULT now(), local timestamp);\n\
             CREATE TABLE events (id bigserial PRIMARY KEY, at timestamptz DEFAULT now());\n\
             CREATE TABLE codes (id int PRIMARY KEY, at timestamptz DEFAULT now())",
        )
        .rows("INSERT INTO log SELECT i, 'old' FROM generate_series(1, 100) i")
        .sharded("log", &["id"])
        .sharded("events", &["id"])
        .replicated("codes")
        .start()
}

/// Ids of rows on a shard.
fn ids_on(cluster: &Cluster, shard: usize) -> Vec<String> {
    let rows = cluster
        .shard(shard)
        .raw()
        .rows("SELECT id FROM log ORDER BY 1 LIMIT 3");
    rows.into_iter().map(|row| row[0].clone()).collect()
}

/// A script of whose words some stand for ids on two shards.
fn script(cluster: &Cluster, script: &str) -> Vec<String> {
    let (near, far) = (ids_on(cluster, 0), ids_on(cluster, 1));
    let mut script = script.to_owned();
    for (name, ids) in [("NEAR", near), ("FAR", far)] {
        for (number, id) in ids.iter().enumerate() {
            script = script.replace(&format!("{name}{number}"), id);
        }
    }
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

fn same(cluster: &Cluster, text: &str) {
    let script = script(cluster, text);
    for mode in MODES {
        let mut pair = Pair::new(cluster);
        for sql in &script {
            let mut got = outcome(&frames(&mut pair.proxy, mode, sql, &[]));
            let mut wanted = outcome(&frames(&mut pair.oracle, mode, sql, &[]));
            got.rows.sort();
            wanted.rows.sort();
            assert_eq!(got, wanted, "{mode:?}: {sql}");
        }
    }
}

#[test]
fn every_shard_of_a_transaction_tells_the_same_time() {
    let cluster = cluster();
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        same(
            &cluster,
            &format!(
                "TRUNCATE log, events, codes
                 {begin}
                 INSERT INTO log (id, what) VALUES (FAR0, 'default')
                 INSERT INTO log (id, what) VALUES (NEAR0, 'default elsewhere')
                 INSERT INTO codes VALUES (1)
                 INSERT INTO codes VALUES (2, now())
                 SELECT count(DISTINCT c.at) FROM codes c, log l WHERE c.at = l.at
                 INSERT INTO log VALUES (FAR1, 'named', now())
                 INSERT INTO log VALUES (NEAR1, 'on both', CURRENT_TIMESTAMP), (FAR2, 'on both', DEFAULT)
                 INSERT INTO log (id, at) SELECT NEAR2, pg_catalog.now() FROM log WHERE id = FAR0
                 UPDATE log SET local = localtimestamp WHERE id = FAR0
                 UPDATE log SET local = localtimestamp WHERE local IS NULL
                 SELECT count(DISTINCT at), count(DISTINCT local), bool_and(at = now()) FROM log
                 SELECT id, at = transaction_timestamp() AS same, local = localtimestamp FROM log WHERE id = FAR0
                 WITH x AS (SELECT now()) SELECT now = at FROM x, log WHERE id = FAR1
                 SELECT id FROM log WHERE (at, local) = (now(), now()::timestamp) ORDER BY id
                 INSERT INTO events DEFAULT VALUES
                 INSERT INTO events DEFAULT VALUES
                 INSERT INTO events DEFAULT VALUES
                 INSERT INTO events (at) VALUES (DEFAULT), (now())
                 SELECT count(DISTINCT at) FROM events
                 COMMIT"
            ),
        );
    }
}

#[test]
fn the_time_of_a_transaction_is_that_of_its_first_statement() {
    let cluster = cluster();
    for first in [
        "SELECT count(*) FROM log WHERE at < now()",
        "SELECT now() > at FROM log WHERE id = FAR0",
        "SELECT now() IS NULL",
        "SELECT a.id FROM log a JOIN log b ON a.what = b.what WHERE a.at > now()",
        "UPDATE log SET at = now()",
        "SELECT 1; UPDATE log SET at = now() WHERE id = NEAR0; UPDATE log SET at = now() WHERE id = FAR0",
    ] {
        let first = &script(&cluster, first)[0];
        let mut raw = cluster.proxy().raw();
        let lines = "BEGIN
             FIRST
             UPDATE log SET at = now() WHERE id = FAR0
             UPDATE log SET at = now() WHERE id = NEAR0
             UPDATE log SET at = now() WHERE id = NEAR1; UPDATE log SET at = now() WHERE id = NEAR2
             UPDATE log SET at = now() WHERE id = FAR1; UPDATE log SET at = now() WHERE id = FAR2";
        for sql in script(&cluster, lines) {
            raw.query(&sql.replace("FIRST", first));
        }
        let ask = "SELECT at FROM log WHERE id = ID UNION ALL SELECT now()";
        let mut times = Vec::new();
        for id in [ids_on(&cluster, 0), ids_on(&cluster, 1)].concat() {
            let rows = raw.rows(&ask.replace("ID", &id));
            times.extend(rows.into_iter().flatten());
        }
        times.dedup();
        assert_eq!(times.len(), 1, "{first}: {times:?}");
        raw.query("COMMIT");
    }
}

#[test]
fn columns_that_are_a_time_keep_their_names_and_types() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         SELECT what FROM log WHERE id = NEAR0
         SELECT now(), current_date, current_time(2), localtime, localtimestamp(0) FROM log WHERE id = FAR0 AND id < 0
         SELECT now()::date, (now()), current_timestamp(3) + '1 day', pg_catalog.now() FROM log WHERE id = FAR0 AND id < 0
         SELECT CASE WHEN id < 0 THEN '2000-01-01' ELSE now() END, date_trunc('day', now()), now() AS at FROM log \
            WHERE id = FAR0 AND id < 0
         SELECT x.* FROM (SELECT now(), id FROM log WHERE id = FAR0 AND id < 0) x
         SELECT extract(year FROM now()) > 2000, 1 AS current_date FROM log WHERE id = FAR0
         UPDATE log SET what = 'x' WHERE id = FAR0 AND at > now() RETURNING now(), current_date
         SELECT max(now()), count(*) FROM log WHERE id IN (NEAR0, FAR0) AND id < 0 GROUP BY what
         SELECT DISTINCT current_date = now()::date FROM log ORDER BY 1
         ROLLBACK",
    );
}

/// The time in the first row of an answer.
fn time_in(raw: &mut Raw) -> Vec<u8> {
    let frames = raw.read_until(b'C', 1);
    let row = frames.iter().find(|frame| frame.tag == b'D');
    let row = values(row.unwrap_or_else(|| panic!("{frames:?}")));
    row[0].clone().unwrap()
}

#[test]
fn what_is_sent_up_to_a_sync_has_one_time() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let (near, far) = (ids_on(&cluster, 0), ids_on(&cluster, 1));
    let sql = "UPDATE log SET at = now() WHERE id = $1 RETURNING at";
    raw.send(&message::parse("", sql, &[23]));
    for id in [&near[0], &far[0], &near[1], &far[1]] {
        raw.send(&message::bind(
            "",
            "",
            &[],
            &[Some(id.clone().into_bytes())],
            &[],
        ));
        raw.send(&message::execute("", 0));
    }
    raw.send(&message::sync());
    let mut times: Vec<Vec<u8>> = (0..4).map(|_| time_in(&mut raw)).collect();
    raw.read_until(b'Z', 1);
    times.dedup();
    assert_eq!(times.len(), 1, "{times:?}");
}
