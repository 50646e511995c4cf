//! Cursors, portals and EXECUTE of queries that are merged or finished by a hub, beside one PostgreSQL.

use crate::harness::compare::{MODES, Mode, Pair, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, message, transcript};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text COLLATE \"de-x-icu\", n int);
             CREATE TABLE kinds (n int PRIMARY KEY, kind text)",
        )
        .rows(
            "INSERT INTO t SELECT i, (ARRAY['Zoo','öde','Affe',NULL])[1 + i % 4], i % 7 FROM generate_series(1, 40) i;
             INSERT INTO kinds SELECT i, 'kind ' || i FROM generate_series(0, 5) i",
        )
        .sharded("t", &["id"])
        .sharded("kinds", &["n"])
        .start()
}

fn script(pair: &mut Pair, mode: Mode, script: &str) {
    for sql in script.lines().map(str::trim).filter(|sql| !sql.is_empty()) {
        pair.compare(mode, sql, &[], true);
    }
}

#[test]
fn cursors_move_as_postgresqls() {
    let cluster = cluster();
    for query in [
        "SELECT id, name FROM t ORDER BY name, id",
        "SELECT id FROM t ORDER BY id",
        "SELECT n, count(*) FROM t GROUP BY n ORDER BY n",
        "SELECT t.id, kind FROM t JOIN kinds USING (n) WHERE id < 20 ORDER BY 1",
    ] {
        for mode in [Mode::Simple, Mode::Text] {
            let mut pair = Pair::new(&cluster);
            let lines = "DECLARE c CURSOR FOR QUERY
                BEGIN
                DECLARE c SCROLL CURSOR FOR QUERY
                FETCH c
                FETCH 3 FROM c
                FETCH BACKWARD 2 FROM c
                FETCH LAST FROM c
                FETCH NEXT FROM c
                FETCH ABSOLUTE 5 FROM c
                MOVE 100 FROM c
                FETCH PRIOR FROM c
                FETCH ABSOLUTE 0 FROM c
                FETCH ALL FROM c
                CLOSE c
                DECLARE c NO SCROLL CURSOR FOR QUERY
                FETCH 2 FROM c
                UPDATE t SET n = 0 WHERE id = 3
                FETCH 100 FROM c
                ROLLBACK
                BEGIN
                DECLARE c CURSOR WITH HOLD FOR QUERY
                FETCH 2 FROM c
                COMMIT
                FETCH 3 FROM c
                CLOSE c
                DECLARE d SCROLL CURSOR WITH HOLD FOR QUERY
                FETCH 1 FROM d
                CLOSE ALL
                FETCH d";
            script(&mut pair, mode, &lines.replace("QUERY", query));
            let several = format!(
                "BEGIN; DECLARE e CURSOR FOR {query}; FETCH 4 FROM e; FETCH 2 FROM e; CLOSE e; COMMIT"
            );
            pair.compare(Mode::Simple, &several, &[], true);
        }
        let mut pair = Pair::new(&cluster);
        let all = "BEGIN; DECLARE c CURSOR FOR SELECT id FROM t; FETCH ALL FROM c; COMMIT";
        assert_eq!(pair.proxy.rows(all).len(), 40);
        let lines = "BEGIN
            DECLARE c BINARY CURSOR FOR QUERY
            FETCH 30 FROM c
            DECLARE c CURSOR FOR QUERY
            ROLLBACK";
        script(&mut pair, Mode::Simple, &lines.replace("QUERY", query));
    }
}

/// Executes a portal in parts of so many rows.
fn parts(raw: &mut Raw, sql: &str, rows: i32, described: bool) -> Vec<Frame> {
    raw.query("BEGIN");
    let mut out = message::parse("", sql, &[]);
    out.extend(message::bind("p", "", &[], &[Some(b"30".to_vec())], &[]));
    if described {
        out.extend(message::describe(b'P', "p"));
    }
    let mut frames = Vec::new();
    for _ in 0..4 {
        out.extend(message::execute("p", rows));
        out.extend(message::sync());
        raw.send(&out);
        frames.extend(raw.read_until(b'Z', 1));
        out.clear();
    }
    raw.query("COMMIT");
    frames
}

#[test]
fn portals_are_fetched_in_parts() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT id, name FROM t WHERE id < $1 ORDER BY name, id",
        "SELECT id FROM t WHERE id < $1 ORDER BY id",
        "SELECT n, count(*) FROM t WHERE id < $1 GROUP BY n ORDER BY n",
        "SELECT t.id, kind FROM t JOIN kinds USING (n) WHERE id < $1 ORDER BY 1",
    ] {
        for (rows, described) in [(3, true), (5, false), (10, true), (100, true)] {
            let got = parts(&mut pair.proxy, sql, rows, described);
            let wanted = parts(&mut pair.oracle, sql, rows, described);
            let tags = |frames: &[Frame]| frames.iter().map(|frame| frame.tag).collect::<Vec<u8>>();
            assert_eq!(tags(&got), tags(&wanted), "{sql} {rows}");
            assert_eq!(outcome(&got), outcome(&wanted), "{sql} {rows}");
        }
    }
}

#[test]
fn execute_names_what_a_hub_finishes() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    script(
        &mut pair,
        Mode::Simple,
        "PREPARE a AS SELECT id, name FROM t WHERE n = $1 ORDER BY name, id
         EXECUTE a(3)
         PREPARE b(text, int) AS SELECT count(*), max(id) FROM t JOIN kinds USING (n) WHERE kind <> $1 AND id > $2
         EXECUTE b('kind 3', 7)
         EXECUTE b(NULL, 7)
         PREPARE c AS SELECT n, count(*) FROM t GROUP BY n ORDER BY n
         EXECUTE c
         BEGIN
         EXECUTE c
         EXECUTE a(4)
         COMMIT
         EXECUTE b('x')",
    );
}

#[test]
fn what_can_not_be_merged_is_finished_by_a_hub_within_a_transaction_too() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for mode in MODES {
        pair.once("BEGIN");
        pair.once("UPDATE t SET n = 100 WHERE id = 3");
        for sql in [
            "SELECT id, upper(name) FROM t ORDER BY upper(name), id",
            "SELECT max(upper(name)), sum(n / 2.0::float8) FROM t",
            "SELECT n FROM t ORDER BY n, id LIMIT 3",
        ] {
            pair.compare(mode, sql, &[], true);
        }
        pair.once("ROLLBACK");
    }
}

#[test]
fn what_the_parser_does_not_know_is_finished_over_whole_copies() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT id FROM t WHERE n > ALL ((SELECT n FROM kinds WHERE n < 3) UNION (SELECT 2)) ORDER BY 1",
        "SELECT (n % 2)::text, count(*) FROM t GROUP BY CUBE ((n % 2)::text, name) ORDER BY 1, 2",
        "SELECT id FROM t AS x LEFT JOIN kinds ON kinds.n = x.n, LATERAL (SELECT 1) y WHERE id = ANY ((SELECT 7) UNION (SELECT n FROM ONLY public.kinds)) ORDER BY 1",
        "SELECT nothing FROM t WHERE n > ALL ((SELECT 1) UNION (SELECT 2))",
        "SELECT 1 / (n - n) FROM t WHERE n > ALL ((SELECT 1) UNION (SELECT 2))",
    ] {
        pair.same(sql);
    }
    pair.same_with(
        "SELECT id FROM t WHERE n > ALL ((SELECT $1::int) UNION (SELECT 2)) ORDER BY 1",
        &[Some("4")],
    );
    pair.same(
        "SELECT t.id FROM ROWS FROM (generate_series(1, 3)) AS g(i), t \
         WHERE t.n > ALL ((SELECT 1) UNION (SELECT 2)) AND t.n IN (SELECT n FROM kinds) ORDER BY 1",
    );
    for sql in [
        "WITH t AS (SELECT 1 AS id) SELECT id FROM t, kinds WHERE id > ALL ((SELECT 0) UNION (SELECT -1))",
        "SELECT public.t.id FROM t WHERE id > ALL ((SELECT 1) UNION (SELECT 2))",
        "SELECT extract(year FROM t) FROM (SELECT now() AS t) x, kinds WHERE n > ALL ((SELECT 1) UNION (SELECT 2))",
        "SELECT id FROM t WHERE id > ALL ((SELECT 1) UNION (SELECT 2)) FOR UPDATE",
    ] {
        pair.same_or_refused(sql);
    }
}

#[test]
fn cursors_end_with_the_savepoint_they_were_declared_behind() {
    let cluster = cluster();
    for query in [
        "SELECT id, name FROM t ORDER BY name, id",
        "SELECT id FROM t WHERE id = 7",
        "SELECT 1 FROM generate_series(1, 5)",
    ] {
        for mode in MODES {
            let mut pair = Pair::new(&cluster);
            let binary = if mode == Mode::Binary { "BINARY" } else { "" };
            let lines = "BEGIN
                SAVEPOINT s
                DECLARE c BINARY CURSOR FOR QUERY
                FETCH c
                ROLLBACK TO s
                FETCH c
                ROLLBACK TO s
                DECLARE c BINARY CURSOR FOR QUERY
                FETCH 2 FROM c
                RELEASE s
                FETCH 2 FROM c
                DECLARE c BINARY CURSOR FOR QUERY
                ROLLBACK
                FETCH c
                BEGIN
                DECLARE c BINARY CURSOR WITH HOLD FOR QUERY
                SAVEPOINT s
                FETCH c
                SAVEPOINT t
                DECLARE c CURSOR FOR SELECT id FROM t WHERE id = 1
                ROLLBACK TO t
                FETCH c
                DECLARE d BINARY CURSOR WITH HOLD FOR QUERY
                RELEASE t
                FETCH d
                ROLLBACK TO s
                FETCH 2 FROM c
                COMMIT
                FETCH 3 FROM c
                FETCH d
                BEGIN
                SAVEPOINT s
                FETCH c
                ROLLBACK TO s
                FETCH c
                ROLLBACK
                FETCH c
                CLOSE c
                BEGIN
                DECLARE c BINARY CURSOR WITH HOLD FOR QUERY
                SELECT 1 / 0
                ROLLBACK
                FETCH c";
            let lines = lines.replace("BINARY", binary).replace("QUERY", query);
            script(&mut pair, mode, &lines);
        }
    }
}

#[test]
fn one_name_is_one_cursor_wherever_its_rows_are() {
    let cluster = cluster();
    let queries = [
        "SELECT id FROM t ORDER BY name, id",
        "SELECT id FROM t WHERE id = 1",
        "SELECT id FROM t WHERE id = 2",
        "SELECT id FROM t WHERE id = 3",
        "SELECT 1",
    ];
    for first in queries {
        for second in queries {
            let mut pair = Pair::new(&cluster);
            let lines = format!(
                "BEGIN
                 DECLARE c CURSOR FOR {first}
                 DECLARE c CURSOR FOR {second}
                 ROLLBACK
                 DECLARE c CURSOR WITH HOLD FOR {first}
                 DECLARE c CURSOR WITH HOLD FOR {second}
                 CLOSE c
                 DECLARE c CURSOR WITH HOLD FOR {second}
                 FETCH c
                 CLOSE ALL"
            );
            script(&mut pair, Mode::Simple, &lines);
        }
    }
}

/// The answers to messages that end with a Sync, without the words of errors.
fn answers(raw: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    raw.send(&messages.concat());
    let syncs = messages
        .iter()
        .filter(|one| one[0] == b'S' || one[0] == b'Q');
    let frames = raw.read_until(b'Z', syncs.count());
    let line = |frame: &Frame| match frame.tag {
        b'E' => format!("error {}", frame.field(b'C').unwrap_or_default()),
        _ => transcript::line(frame),
    };
    frames.iter().map(line).collect()
}

#[test]
fn a_portal_may_be_executed_long_after_it_was_bound_and_again() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let begin = vec![message::query("BEGIN")];
    for sql in [
        "SELECT id FROM t ORDER BY id LIMIT 4",
        "SELECT name, id FROM t ORDER BY name, id LIMIT 4",
        "SELECT id FROM t WHERE id = 3",
        "UPDATE t SET n = n WHERE id < 3 RETURNING 1",
        "UPDATE t SET n = n WHERE id < 3",
        "SELECT 1",
    ] {
        for portal in ["", "p"] {
            // What any shard answers runs beside a transaction that no shard knows of yet.
            if portal.is_empty() && sql == "SELECT 1" {
                continue;
            }
            let bind = [
                message::parse("", sql, &[]),
                message::bind(portal, "", &[], &[], &[]),
            ];
            let execute = |rows| [message::execute(portal, rows), message::sync()];
            let describe = [message::describe(b'P', portal), message::sync()];
            let mut script = vec![begin.clone()];
            // Bound in one batch and executed in others.
            let mut first = bind.to_vec();
            first.push(message::sync());
            script.push(first);
            script.push(describe.to_vec());
            for rows in [0, 0, 2] {
                script.push(execute(rows).to_vec());
            }
            script.push(vec![message::query("ROLLBACK")]);
            // Flushed in between, outside a transaction, and bound again.
            let mut all = bind.to_vec();
            all.push(message::flush());
            all.push(message::execute(portal, 0));
            all.push(message::execute(portal, 0));
            all.push(message::sync());
            all.push(message::execute(portal, 0));
            all.push(message::sync());
            all.extend(bind.to_vec());
            all.extend(bind.to_vec());
            all.push(message::execute(portal, 0));
            all.push(message::sync());
            script.push(all);
            for messages in script {
                let got = answers(&mut pair.proxy, &messages);
                let wanted = answers(&mut pair.oracle, &messages);
                assert_eq!(got, wanted, "{sql}, portal {portal:?}");
            }
        }
    }
}
