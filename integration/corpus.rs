//! What PostgreSQL's own regression tests found when they ran through the proxy.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Raw, message};

const SCHEMA: &str = "CREATE TABLE things (id int PRIMARY KEY, body text);";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .schema(SCHEMA)
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
        .start()
}

/// The first value of a query's only row, or the SQLSTATE of its error.
fn value(raw: &mut Raw, sql: &str) -> String {
    let frames = raw.query(sql);
    let row = frames.iter().find(|frame| frame.tag == b'D');
    match row {
        Some(row) => String::from_utf8_lossy(row.body.get(6..).unwrap()).into_owned(),
        None => {
            let error = frames.iter().find(|frame| frame.tag == b'E');
            error
                .and_then(|error| error.field(b'C'))
                .unwrap_or_default()
        }
    }
}

#[test]
fn half_a_date_style_keeps_the_other_half() {
    let cluster = cluster(1);
    let mut one = cluster.proxy().raw();
    let mut other = cluster.proxy().raw();
    let date = "SELECT date '2026-02-03'";
    one.query("SET datestyle TO 'Postgres, MDY'");
    one.query("SET datestyle TO iso");
    one.query("SET datestyle TO ymd");
    assert_eq!(value(&mut other, "SHOW datestyle"), "ISO, MDY");
    assert_eq!(value(&mut one, "SHOW datestyle"), "ISO, YMD");
    assert_eq!(value(&mut one, date), "2026-02-03");
    // A half alone starts from the default, not from what the connection happens to have.
    other.query("SET datestyle TO dmy");
    assert_eq!(value(&mut one, "SHOW datestyle"), "ISO, YMD");
    assert_eq!(value(&mut other, "SHOW datestyle"), "ISO, DMY");
}

#[test]
fn definitions_in_a_transaction_do_not_wait_for_their_own_locks() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut raw = cluster.proxy().raw();
        let began = Instant::now();
        if shards > 1 {
            raw.query("SET shardwire.shard = 's0'");
        }
        raw.query("CREATE TABLE locked (id int DEFAULT 1)");
        raw.query("BEGIN");
        raw.query("ALTER TABLE locked ALTER id TYPE bigint");
        assert_eq!(value(&mut raw, "SELECT count(*) FROM locked"), "0");
        raw.query("COMMIT");
        assert_eq!(value(&mut raw, "SELECT count(*) FROM locked"), "0");
        // The reading of the catalogue gives up after a minute.
        assert!(began.elapsed() < Duration::from_secs(50));
    }
}

#[test]
fn a_statement_prepared_again_after_a_change_is_a_new_one() {
    let cluster = cluster(1);
    let mut raw = cluster.proxy().raw();
    for sql in ["BEGIN", "ALTER TABLE things ADD more int", "COMMIT"] {
        let mut messages = message::parse("s", "SELECT * FROM things", &[]);
        messages.extend(message::bind("", "s", &[], &[], &[]));
        messages.extend(message::execute("", 0));
        messages.extend(message::close(b'S', "s"));
        messages.extend(message::sync());
        raw.send(&messages);
        let frames = raw.read_until(b'Z', 1);
        let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
        assert_eq!(tags, "12C3Z", "before {sql}");
        raw.query(sql);
    }
}

#[test]
fn currval_is_never_an_older_connections() {
    let cluster = Cluster::new()
        .shards(1)
        .schema("CREATE SEQUENCE numbers; CREATE TABLE things (id int);")
        .database("pool", "{ max_size: 2, queue_timeout: 5s }")
        .start();
    let mut one = cluster.proxy().raw();
    let mut other = cluster.proxy().raw();
    let draw = "SELECT nextval('numbers')";
    let ask = "SELECT currval('numbers')";
    assert_eq!(value(&mut one, draw), "1");
    assert_eq!(value(&mut one, ask), "1");
    // The other client takes the connection, so that the next number is drawn on a second one.
    other.query("BEGIN");
    other.query("SELECT 1");
    assert_eq!(value(&mut one, draw), "2");
    other.query("COMMIT");
    other.query("BEGIN");
    other.query("SELECT 1");
    assert_eq!(value(&mut one, "INSERT INTO things VALUES (1)"), "");
    // Both connections know a number of this session, and neither is sure to be the last.
    assert_eq!(value(&mut one, ask), "0A000");
    other.query("COMMIT");
    // In a transaction that has drawn it is certain, in one that has only written it is not.
    one.query("BEGIN");
    one.query("UPDATE things SET id = id");
    assert_eq!(value(&mut one, "SELECT lastval()"), "0A000");
    one.query("ROLLBACK");
    one.query("BEGIN");
    let drawn = value(&mut one, draw);
    assert_eq!(value(&mut one, ask), drawn);
    one.query("COMMIT");
}

#[test]
fn lastval_is_never_another_clients() {
    let cluster = cluster(1);
    let mut one = cluster.proxy().raw();
    one.query("CREATE SEQUENCE numbers");
    assert_eq!(value(&mut one, "SELECT nextval('numbers')"), "1");
    let mut other = cluster.proxy().raw();
    other.query("INSERT INTO things VALUES (7)");
    assert_eq!(value(&mut other, "SELECT lastval()"), "55000");
}

#[test]
fn a_setting_given_back_is_reported_behind_its_tag() {
    let cluster = cluster(1);
    let startup = [("datestyle", "German")];
    let mut raw = Raw::login_with(&cluster.proxy(), &startup).unwrap();
    raw.query("SET datestyle TO ISO");
    let frames = raw.query("RESET datestyle");
    let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, "CSZ");
}

#[test]
fn where_nothing_is_placed_all_is_at_home() {
    let cluster = Cluster::new().shards(2).start();
    let mut raw = cluster.proxy().raw();
    for sql in [
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE TABLE people (id serial PRIMARY KEY, is_now mood)",
        "INSERT INTO people (is_now) VALUES ('happy'), ('sad')",
        "CREATE FUNCTION people_count() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM people'",
        "DO $$ BEGIN DELETE FROM people WHERE is_now = 'sad'; END $$",
        "CREATE TEMP TABLE notes (body text)",
        "PREPARE p AS SELECT people_count()",
    ] {
        assert_eq!(value(&mut raw, sql), "", "{sql}");
    }
    assert_eq!(value(&mut raw, "EXECUTE p"), "1");
    assert_eq!(value(&mut raw, "SELECT people_count()"), "1");
    assert_eq!(value(&mut raw, "SELECT 'happy'::mood"), "happy");
    assert_eq!(value(&mut raw, "SELECT count(*) FROM people, notes"), "0");
    assert_eq!(value(&mut raw, "SELECT no such statement"), "42601");
    // Another shard can still be chosen.
    let elsewhere = "/* shardwire: shard=s1 */ SELECT count(*) FROM people";
    assert_eq!(value(&mut raw, "DISCARD ALL"), "");
    assert_eq!(value(&mut raw, elsewhere), "0");
}

#[test]
fn what_discard_all_gives_back_is_reported() {
    let cluster = cluster(1);
    let startup = [("datestyle", "German")];
    let mut raw = Raw::login_with(&cluster.proxy(), &startup).unwrap();
    raw.query("SET datestyle TO ISO");
    let frames = raw.query("DISCARD ALL");
    let heard = frames.iter().rfind(|frame| frame.tag == b'S');
    let heard = heard.expect("the client hears of its date style");
    assert_eq!(heard.body, b"DateStyle\0German, DMY\0");
    let frames = raw.query("SELECT date '2026-02-03'");
    let row = frames.iter().find(|frame| frame.tag == b'D').unwrap();
    assert!(row.body.ends_with(b"03.02.2026"));
}

#[test]
fn several_statements_in_a_parse_are_refused_as_postgresql_does() {
    let cluster = cluster(1);
    let mut raw = cluster.proxy().raw();
    for (sql, words) in [
        (
            "SELECT 1; SELECT 2 + ; SELECT 3",
            "syntax error at or near \";\"",
        ),
        (
            "SELECT 1; SELECT 2",
            "cannot insert multiple commands into a prepared statement",
        ),
    ] {
        raw.send(&[message::parse("", sql, &[]), message::sync()].concat());
        let frames = raw.read_until(b'Z', 1);
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'M').as_deref(), Some(words));
    }
}

#[test]
fn what_no_server_would_run_fails_as_it_does_there() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE things (id int PRIMARY KEY, body text)")
        .sharded("things", &["id"])
        .start();
    let mut raw = cluster.proxy().raw();
    for (sql, code) in [
        ("SELECT no_such(id) FROM things", "42883"),
        ("INSERT INTO things (no_such) VALUES (1)", "42703"),
        ("DELETE FROM things USING no_such", "42P01"),
        ("CALL no_such()", "42883"),
        ("BEGIN ISOLATION LEVEL none_such", "42601"),
        ("LISTEN", "42601"),
        ("SELECT 'x", "42601"),
        ("INSERT INTO things (body) VALUES ('x')", "23502"),
        // There is nothing wrong with these but the shards.
        ("SELECT ctid FROM things", "0A000"),
        ("SELECT ctid, shard_id FROM things", "0A000"),
    ] {
        assert_eq!(value(&mut raw, sql), code, "{sql}");
    }
    // Another's lock does not keep the refusal.
    let mut other = cluster.proxy().raw();
    other.query("BEGIN");
    other.query("LOCK TABLE things");
    assert_eq!(value(&mut raw, "SELECT ctid FROM things"), "0A000");
}

#[test]
fn large_objects_have_owners_rights_and_comments_where_they_are() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE things (id int PRIMARY KEY, body text)")
        .sharded("things", &["id"])
        .start();
    let mut raw = cluster.proxy().raw();
    for (sql, answer) in [
        ("SELECT lo_create(4711)", "4711"),
        ("ALTER LARGE OBJECT 4711 OWNER TO CURRENT_USER", ""),
        ("GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC", ""),
        ("COMMENT ON LARGE OBJECT 4711 IS 'of things'", ""),
        (
            "SELECT obj_description(4711, 'pg_largeobject')",
            "of things",
        ),
        ("COMMENT ON LARGE OBJECT 4712 IS 'none'", "42704"),
    ] {
        assert_eq!(value(&mut raw, sql), answer, "{sql}");
    }
}
