//! Settings made and asked by function call: they follow the session like those made by SET.

use crate::harness::{Cluster, Raw, message};

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema("CREATE TABLE users (user_id bigint PRIMARY KEY, name text)")
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i;")
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
        .start()
}

/// The first value of the last row, or the SQLSTATE of the error.
fn value(raw: &mut Raw, messages: &[u8]) -> String {
    raw.send(messages);
    let frames = raw.read_until(b'Z', 1);
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        return error.field(b'C').unwrap();
    }
    let mut rows = frames.iter().filter(|frame| frame.tag == b'D');
    let row = rows
        .next_back()
        .map(|row| row.body.get(6..).unwrap_or_default());
    String::from_utf8_lossy(row.unwrap_or_default()).into_owned()
}

fn ask(raw: &mut Raw, sql: &str) -> String {
    value(raw, &message::query(sql))
}

/// The setting where users 1 and 4 are: on different shards if there are two.
fn everywhere(raw: &mut Raw, name: &str) -> [String; 2] {
    [1, 4].map(|user| {
        let sql =
            format!("SELECT current_setting('{name}', true) FROM users WHERE user_id = {user}");
        ask(raw, &sql)
    })
}

#[test]
fn set_config_is_a_set() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        // They share one connection for each server, so none may keep it.
        let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
        let sql = "SELECT pg_catalog.set_config('search_path', 'tenant, public', false)";
        assert_eq!(ask(&mut a, sql), "tenant, public");
        assert_eq!(everywhere(&mut a, "search_path"), ["tenant, public"; 2]);
        assert_eq!(everywhere(&mut b, "search_path"), ["\"$user\", public"; 2]);
        assert_eq!(everywhere(&mut a, "search_path"), ["tenant, public"; 2]);
        let several = "SELECT set_config('app.a', 'it''s', false), set_config('app.b', 'b', 'f') AS x; \
                       SELECT set_config('TimeZone', 'Asia/Tokyo', false)";
        assert_eq!(ask(&mut a, several), "Asia/Tokyo");
        for (name, value) in [
            ("app.a", "it's"),
            ("app.b", "b"),
            ("TimeZone", "Asia/Tokyo"),
        ] {
            assert_eq!(everywhere(&mut a, name), [value; 2]);
        }
        assert_eq!(everywhere(&mut b, "TimeZone"), ["UTC"; 2]);
        ask(&mut a, "SELECT set_config('timezone', NULL, false)");
        assert_eq!(everywhere(&mut a, "TimeZone"), ["UTC"; 2]);
        ask(&mut a, "DISCARD ALL");
        assert_eq!(everywhere(&mut a, "search_path"), ["\"$user\", public"; 2]);
    }
}

#[test]
fn set_config_takes_parameters() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
        for (format, no) in [(0, b"false".to_vec()), (1, vec![0])] {
            for tenant in ["seven", "eight"] {
                let values = [
                    b"app.tenant".to_vec(),
                    tenant.as_bytes().to_vec(),
                    no.clone(),
                ];
                let values = values.map(Some);
                let messages = [
                    message::parse("", "SELECT set_config($1, $2, $3)", &[25, 25, 16]),
                    message::bind("", "", &[format], &values, &[]),
                    message::execute("", 0),
                    message::sync(),
                ];
                assert_eq!(value(&mut a, &messages.concat()), tenant);
                assert_eq!(everywhere(&mut a, "app.tenant"), [tenant; 2]);
                assert_eq!(everywhere(&mut b, "app.tenant"), [""; 2]);
            }
        }
    }
}

#[test]
fn set_config_ends_with_its_transaction() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut a = cluster.proxy().raw();
        for (end, local, left) in [
            ("COMMIT", true, "UTC"),
            ("ROLLBACK", false, "UTC"),
            ("COMMIT", false, "Asia/Tokyo"),
        ] {
            ask(&mut a, "BEGIN");
            let sql = format!("SELECT set_config('TimeZone', 'Asia/Tokyo', {local})");
            assert_eq!(ask(&mut a, &sql), "Asia/Tokyo");
            assert_eq!(everywhere(&mut a, "TimeZone"), ["Asia/Tokyo"; 2]);
            ask(&mut a, end);
            assert_eq!(everywhere(&mut a, "TimeZone"), [left; 2], "{end} {local}");
        }
        // Of local effect, and there is no transaction.
        ask(&mut a, "SELECT set_config('DateStyle', 'German', true)");
        assert_eq!(everywhere(&mut a, "DateStyle"), ["ISO, MDY"; 2]);
        assert_eq!(
            ask(&mut a, "SELECT set_config('work_mem', 'banana', false)"),
            "22023"
        );
    }
}

#[test]
fn what_set_config_sets_must_be_known_over_several_shards() {
    let cluster = cluster(2);
    let mut a = cluster.proxy().raw();
    for sql in [
        "SELECT set_config('app.a', 'a' || 'b', false)",
        "SELECT set_config('app.a', 'a', false) FROM users WHERE user_id = 1",
        "SELECT set_config('transaction_isolation', 'serializable', true)",
        "SELECT set_config('shardwire.shard', 's1', false)",
    ] {
        assert_eq!(ask(&mut a, sql), "0A000", "{sql}");
    }
    assert_eq!(everywhere(&mut a, "app.a"), [""; 2]);
}

#[test]
fn current_setting_knows_the_proxys_own() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut a = cluster.proxy().raw();
        assert_eq!(ask(&mut a, "SELECT current_setting('shardwire.shard')"), "");
        ask(&mut a, "SET shardwire.consistency = 'strong'");
        let sql = "SELECT current_setting('shardwire.consistency', true) AS c";
        assert_eq!(ask(&mut a, sql), "strong");
        assert_eq!(
            ask(&mut a, "SELECT current_setting('shardwire.nothing')"),
            "42704"
        );
        let sql = "SELECT current_setting('shardwire.nothing', true) IS NULL";
        assert_eq!(ask(&mut a, sql), "t");
        assert_eq!(ask(&mut a, "SELECT current_setting('block_size')"), "8192");
    }
}

#[test]
fn what_tools_set_where_it_is_there_is_set() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE things (id int PRIMARY KEY, body bytea)")
        .rows("INSERT INTO things SELECT i, '\\x41ff' FROM generate_series(1, 9) i")
        .sharded("things", &["id"])
        .start();
    let mut raw = cluster.proxy().raw();
    // What pgAdmin sends first.
    let first = "SET DateStyle=ISO; SET client_min_messages=notice; \
                 SELECT set_config('bytea_output','escape',false) FROM pg_show_all_settings() WHERE name = 'bytea_output'; \
                 SET client_encoding='utf-8';";
    assert!(raw.query(first).iter().all(|frame| frame.tag != b'E'));
    let all = "SELECT DISTINCT body FROM things";
    assert_eq!(raw.rows(all), [["A\\377"]]);
    let name = "SELECT set_config('bytea_output', 'hex', false) FROM pg_catalog.pg_settings WHERE name = 'bytea_output'";
    assert_eq!(raw.rows(name), [["hex"]]);
    assert_eq!(raw.rows(all), [["\\x41ff"]]);
    // Names are as they are written, and another's row is no condition.
    for other in ["'BYTEA_OUTPUT'", "'work_mem'"] {
        let sql = format!(
            "SELECT set_config({other}, 'escape', false) FROM pg_settings WHERE name = {other}"
        );
        let frames = raw.query(&sql);
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'C').unwrap(), "0A000", "{sql}");
    }
}
