//! LISTEN and NOTIFY through the proxy: over two shards, two proxies and a failover, and what clients
//! that share server connections must not hear of each other. `wire/listen*.test` compare the rest with
//! PostgreSQL, message by message.

use std::time::Duration;

use shardwire::demo::postgres::Server;

use crate::harness::cluster::{Builder, DATABASE};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text);
    CREATE TABLE log (what text);
";

/// User 1 is on the first shard, 4 on the second. One server connection per server.
fn builder(shards: usize) -> Builder {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i")
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
}

/// A notification: who, channel, payload.
fn told(frame: &Frame) -> Option<(i32, String, String)> {
    let (process, text) = frame.body.split_first_chunk::<4>()?;
    let mut parts = text.split(|byte| *byte == 0);
    let mut part = || String::from_utf8_lossy(parts.next().unwrap()).into_owned();
    (frame.tag == b'A').then(|| (i32::from_be_bytes(*process), part(), part()))
}

/// The payloads among frames.
fn payloads(frames: &[Frame]) -> Vec<String> {
    let told = frames.iter().filter_map(told);
    told.map(|(_, _, payload)| payload).collect()
}

/// The tags of the answer to a query.
fn tags(raw: &mut Raw, sql: &str) -> String {
    let frames = raw.query(sql);
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

/// The next notification, which comes while the client is idle.
fn next(raw: &mut Raw) -> (i32, String, String) {
    let frame = raw.read().unwrap();
    told(&frame).unwrap_or_else(|| panic!("{frame:?} is no notification"))
}

fn process(raw: &Raw) -> i32 {
    raw.key.as_ref().unwrap().0
}

/// The processes of the listening connections on a server.
fn listeners(server: &Server) -> Vec<String> {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'shardwire listener' ORDER BY 1";
    let pids = server.psql(DATABASE, sql).unwrap();
    pids.lines().map(str::to_owned).collect()
}

/// A second proxy in front of the same servers.
pub fn another_proxy(builder: Builder, first: &Cluster) -> Cluster {
    let mut second = builder.without_proxy().start();
    let yaml: String = second
        .yaml()
        .lines()
        .map(|line| {
            let mut line = line.to_owned();
            for (own, theirs) in second.shards.iter().zip(&first.shards) {
                let port = |server: &Server| format!("127.0.0.1:{}", server.port());
                line = line.replace(&port(&own.primary), &port(&theirs.primary));
            }
            line + "\n"
        })
        .collect();
    second.write_config(&yaml);
    second.start_proxy();
    second
}

#[test]
fn a_client_keeps_its_channels_while_another_uses_the_connection() {
    for shards in [1, 2] {
        let cluster = builder(shards).start();
        let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
        assert_eq!(tags(&mut a, "LISTEN news"), "CZ");
        assert_eq!(
            tags(&mut b, "NOTIFY news, 'from b'"),
            "CZ",
            "b hears nothing"
        );
        assert_eq!(next(&mut a), (process(&b), "news".into(), "from b".into()));
        let frames = b.query("SELECT pg_notify('news', 'again')");
        assert!(payloads(&frames).is_empty());
        assert_eq!(payloads(&a.query("SELECT 1")), ["again"]);
        let frames = a.query("NOTIFY news, 'own'");
        let own = frames.iter().find_map(told).unwrap();
        assert_eq!(own, (process(&a), "news".into(), "own".into()));
        assert_eq!(frames.last().unwrap().tag, b'Z');
        assert_eq!(b.rows("SELECT pg_listening_channels()").len(), 0);
        assert_eq!(a.rows("SELECT pg_listening_channels()"), [["news"]]);
    }
}

#[test]
fn notifications_leave_with_a_transaction_of_any_shard() {
    let cluster = builder(2).start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    for user in [1, 4] {
        a.query("BEGIN");
        a.query(&format!(
            "UPDATE users SET name = 'x' WHERE user_id = {user}"
        ));
        assert_eq!(tags(&mut a, "LISTEN changes"), "CZ");
        a.query("SAVEPOINT s");
        assert_eq!(tags(&mut a, "LISTEN undone"), "CZ");
        a.query("ROLLBACK TO s");
        a.query("COMMIT");
        assert_eq!(a.rows("SELECT pg_listening_channels()"), [["changes"]]);
        b.query("NOTIFY undone; NOTIFY changes, 'heard'");
        assert_eq!(payloads(&a.query("SELECT 1")), ["heard"]);
        a.query("UNLISTEN *");
    }
    a.query("BEGIN");
    assert_eq!(tags(&mut a, "LISTEN early"), "CZ");
    assert_eq!(tags(&mut a, "COMMIT"), "CZ");
    b.query("BEGIN");
    b.query("NOTIFY early, 'first'");
    b.query("INSERT INTO users VALUES (1, 'twice') ON CONFLICT DO NOTHING");
    b.query("COMMIT");
    assert_eq!(next(&mut a).2, "first");
}

#[test]
fn two_proxies_pass_notifications_between_their_clients() {
    let cluster = builder(2).start();
    let other = another_proxy(builder(2), &cluster);
    let (mut a, mut b) = (cluster.proxy().raw(), other.proxy().raw());
    a.query("LISTEN news");
    b.query("LISTEN news");
    let payload = "'quoted' \"twice\" \\ ä 文 \u{1f600}\nnew line";
    let sql = format!(
        "SELECT pg_notify('news', '{}')",
        payload.replace('\'', "''")
    );
    assert_eq!(payloads(&a.query(&sql)), [payload]);
    assert_eq!(next(&mut b).2, payload);
    b.query("NOTIFY news, 'back'");
    assert_eq!(next(&mut a).2, "back");
    assert_ne!(process(&a), process(&b));
}

#[test]
fn the_listening_connection_lives_as_long_as_somebody_listens() {
    let cluster = builder(1).start();
    let server = &cluster.shards[0].primary;
    let is = |count: usize| {
        let found = listeners(server);
        (found.len() == count).then_some(()).ok_or(found)
    };
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("LISTEN news");
    b.query("LISTEN news");
    is(1).unwrap();
    a.query("DISCARD ALL");
    b.query("NOTIFY news, 'to b alone'");
    assert_eq!(payloads(&a.query("SELECT 1")), [""; 0]);
    is(1).unwrap();
    drop(b);
    eventually("closed", || is(0));
    a.query("BEGIN");
    a.query("LISTEN news");
    a.query("ROLLBACK");
    eventually("closed", || is(0));
    a.query("LISTEN news");
    assert_eq!(payloads(&a.query("NOTIFY news, 'again'")), ["again"]);
    a.query("UNLISTEN news");
    eventually("closed", || is(0));
}

#[test]
fn who_may_have_missed_something_is_told() {
    let cluster = builder(1).start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("LISTEN news");
    b.query("SELECT 1");
    let pid = listeners(&cluster.shards[0].primary).remove(0);
    let end = format!("SELECT pg_terminate_backend({pid})");
    cluster.shards[0].primary.psql(DATABASE, &end).unwrap();
    let error = a.read().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"), "{error:?}");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert!(a.read().is_none());
    assert_eq!(
        tags(&mut b, "SELECT 1"),
        "TDCZ",
        "who does not listen goes on"
    );
    assert_eq!(tags(&mut b, "LISTEN news"), "CZ");
    assert_eq!(payloads(&b.query("NOTIFY news, 'again'")), ["again"]);
}

#[test]
fn a_new_primary_is_listened_to() {
    let mut cluster = builder(1).secondaries(1).start();
    let mut a = cluster.proxy().raw();
    a.query("LISTEN news");
    cluster.shards[0].primary.kill().unwrap();
    let error = a.read().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"), "{error:?}");
    cluster.shards[0].secondaries[0].promote().unwrap();
    let mut b = cluster.proxy().raw();
    eventually("listening", || match &*tags(&mut b, "LISTEN news") {
        "CZ" => Ok(()),
        other => Err(other.to_owned()),
    });
    let mut c = cluster.proxy().raw();
    c.query("NOTIFY news, 'on the new one'");
    assert_eq!(next(&mut b).2, "on the new one");
}

#[test]
fn nobody_is_taken_for_another() {
    let cluster = builder(2).start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    let mut c = cluster.proxy().raw();
    c.query("LISTEN news");
    a.query("LISTEN news");
    for round in 0..50 {
        // The same server process works for all of them, one after the other.
        b.query(&format!("NOTIFY news, 'b{round}'"));
        let frames = a.query(&format!("NOTIFY news, 'a{round}'"));
        let expected = [(process(&b), 'b'), (process(&a), 'a')];
        let heard: Vec<_> = frames.iter().filter_map(told).collect();
        let mut late: Vec<_> = Vec::new();
        while heard.len() + late.len() < 2 {
            late.push(next(&mut a));
        }
        for ((pid, _, payload), (wanted, letter)) in heard.iter().chain(&late).zip(expected) {
            assert_eq!((*pid, &**payload), (wanted, &*format!("{letter}{round}")));
        }
        for (wanted, letter) in expected {
            let (pid, _, payload) = next(&mut c);
            assert_eq!((pid, payload), (wanted, format!("{letter}{round}")));
        }
    }
    b.query("PREPARE tell AS SELECT pg_notify('news', 'prepared')");
    a.query("PREPARE tell AS SELECT pg_notify('news', 'prepared')");
    for who in [&mut b, &mut a] {
        let own = process(who);
        who.query("EXECUTE tell");
        assert_eq!(next(&mut c).0, own);
    }
    // Not a client of the proxy: its own process.
    cluster.shards[0]
        .primary
        .psql(DATABASE, "NOTIFY news, 'direct'")
        .unwrap();
    let (pid, _, payload) = next(&mut a);
    assert_eq!(payload, "direct");
    assert!(![process(&a), process(&b), process(&c)].contains(&pid));
}

#[test]
fn a_trigger_notifies_as_a_statement_does() {
    let trigger = "
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_notify('log', NEW.what); RETURN NEW; END $$;
        CREATE TRIGGER tell AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION tell();
    ";
    let cluster = builder(2).schema(trigger).start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("LISTEN log");
    let frames = a.query("INSERT INTO log VALUES ('one'), ('two')");
    assert_eq!(payloads(&frames), ["one", "two"]);
    b.query("INSERT INTO log VALUES ('three')");
    assert_eq!(next(&mut a).2, "three");
}

#[test]
fn a_client_that_takes_no_notifications_is_closed() {
    let cluster = builder(1)
        .config("limits", "{ query_memory: 1MiB }")
        .start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("LISTEN news");
    a.query("BEGIN");
    for round in 0..400 {
        let sql = format!("SELECT pg_notify('news', repeat('x', 7000) || {round})");
        assert_eq!(tags(&mut b, &sql), "TDCZ");
    }
    a.send(&message::query("COMMIT"));
    let frames = a.read_until(b'E', 1);
    let error = frames.last().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("53200"), "{error:?}");
    assert!(a.read().is_none());
}

#[test]
fn what_can_not_be_done_is_refused() {
    let cluster = builder(2).setting("max_prepared_transactions", "5").start();
    let mut raw = cluster.proxy().raw();
    raw.query("SET shardwire.shard = s1");
    assert_eq!(raw.code("NOTIFY news"), "0A000", "where nobody listens");
    raw.query("RESET shardwire.shard");
    let single = builder(1).setting("max_prepared_transactions", "5").start();
    let mut raw = single.proxy().raw();
    raw.query("BEGIN");
    raw.query("LISTEN news");
    assert_eq!(raw.code("PREPARE TRANSACTION 'x'"), "0A000");
    raw.query("ROLLBACK");
    assert_eq!(raw.rows("SELECT pg_listening_channels()").len(), 0);
}

#[test]
fn a_hidden_listen_reaches_nobody_else() {
    let cluster = builder(1).start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("DO $$ BEGIN EXECUTE 'LISTEN news'; END $$");
    for _ in 0..3 {
        assert_eq!(tags(&mut b, "NOTIFY news, 'x'"), "CZ");
    }
    assert_eq!(tags(&mut b, "SELECT 1"), "TDCZ");
}

#[test]
fn a_session_pooled_client_listens_on_its_own_connection() {
    let cluster = Cluster::new().database("pool", "{ mode: session }").start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("LISTEN news");
    assert_eq!(listeners(&cluster.shards[0].primary), [""; 0]);
    let frames = a.query("NOTIFY news, 'own'");
    assert_eq!(frames.iter().find_map(told).unwrap().0, process(&a));
    b.query("NOTIFY news, 'from b'");
    assert_eq!(next(&mut a).2, "from b");
    assert_eq!(a.rows("SELECT pg_listening_channels()"), [["news"]]);
}

#[test]
fn notifications_come_in_the_clients_encoding() {
    let cluster = builder(2).start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("LISTEN \"caf\u{e9}\"");
    a.query("SET client_encoding = 'LATIN1'");
    b.query("NOTIFY \"caf\u{e9}\", 'cr\u{e8}me'");
    let frame = a.read().unwrap();
    assert_eq!(&frame.body[4..], b"caf\xe9\0cr\xe8me\0");
    b.query("NOTIFY \"caf\u{e9}\", '\u{6587}'");
    let error = a.read().unwrap();
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{error:?}");
}

/// A thousand notifications while the client reads slowly: all come, in order.
#[test]
fn many_notifications_keep_their_order() {
    let cluster = builder(1).start();
    let endpoint: Endpoint = cluster.proxy();
    let mut a = endpoint.raw();
    a.query("LISTEN news");
    let mut b = endpoint.raw();
    for round in 0..10 {
        let sql = format!(
            "SELECT pg_notify('news', (i + {}) || repeat('x', 2000)) FROM generate_series(1, 100) i",
            round * 100
        );
        b.query(&sql);
    }
    a.set_patience(Duration::from_secs(30));
    for number in 1..=1_000 {
        let payload = next(&mut a).2;
        assert_eq!(payload.trim_end_matches('x'), number.to_string());
    }
}
