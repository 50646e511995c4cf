//! What sessions must never do to each other or to themselves: leak state through a server connection
//! they share, stall on large data, or go on after an error. One server connection per server.

use crate::harness::cluster::run_as_superuser;
use crate::harness::{Cluster, Raw, message};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text);
    CREATE TABLE bulk (id int, body text);
";

/// Users 1 to 3 are on the first shard, 4 on the second.
const ROWS: &str = "INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i;";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema(SCHEMA)
        .rows(ROWS)
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

fn run(raw: &mut Raw, messages: &[Vec<u8>]) -> String {
    raw.send(&messages.concat());
    let frames = raw.read_until(b'Z', 1);
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

#[test]
fn large_results_arrive_whole() {
    let cluster = cluster(1);
    let mut raw = cluster.proxy().raw();
    let frames = raw.query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    assert_eq!(
        frames.iter().filter(|frame| frame.tag == b'D').count(),
        20_000
    );
}

#[test]
fn large_copies_and_long_pipelines_go_through() {
    let cluster = cluster(1);
    let mut raw = cluster.proxy().raw();
    raw.send(&message::query("COPY bulk FROM STDIN"));
    raw.read_until(b'G', 1);
    let line = format!("1\t{}\n", "x".repeat(1_000));
    for _ in 0..2_000 {
        raw.send(&message::copy_data(line.repeat(10).as_bytes()));
    }
    raw.send(&message::copy_done());
    raw.read_until(b'Z', 1);
    assert_eq!(value(&mut raw, "SELECT count(*) FROM bulk"), "20000");
    let mut pipeline = message::parse("s", "SELECT length($1)", &[]);
    let long = Some(vec![b'y'; 2_000]);
    for _ in 0..5_000 {
        pipeline.extend(message::bind(
            "",
            "s",
            &[],
            std::slice::from_ref(&long),
            &[],
        ));
        pipeline.extend(message::execute("", 0));
    }
    pipeline.extend(message::sync());
    raw.send(&pipeline);
    let frames = raw.read_until(b'Z', 1);
    assert_eq!(
        frames.iter().filter(|frame| frame.tag == b'D').count(),
        5_000
    );
}

#[test]
fn what_a_rolled_back_transaction_has_set_stays_with_nobody() {
    let cluster = cluster(2);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    for statement in [
        "BEGIN",
        "SET search_path = tenant, public",
        "SELECT name FROM users WHERE user_id = 1",
        "ROLLBACK",
    ] {
        a.query(statement);
    }
    let sql = "SELECT current_setting('search_path') FROM users WHERE user_id = 1";
    assert_eq!(value(&mut b, sql), "\"$user\", public");
    assert_eq!(value(&mut a, sql), "\"$user\", public");
}

#[test]
fn a_setting_that_is_refused_leaves_the_connection_to_others_as_it_was() {
    let cluster = cluster(2);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("SET search_path = tenant, public");
    let sql = "SELECT current_setting('search_path') FROM users WHERE user_id = 1";
    assert_eq!(value(&mut a, sql), "tenant, public");
    b.query("BEGIN");
    assert_eq!(value(&mut b, "SET work_mem = 'banana'"), "22023");
    b.query("ROLLBACK");
    assert_eq!(value(&mut b, sql), "\"$user\", public");
}

#[test]
fn a_role_survives_reset_all_and_leaves_with_its_session() {
    let cluster = cluster(1);
    run_as_superuser(
        &cluster.shards[0].primary,
        "CREATE ROLE low; GRANT low TO app;",
    );
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("SET ROLE low");
    a.query("RESET ALL");
    assert_eq!(value(&mut a, "SELECT current_user"), "low");
    assert_ne!(value(&mut b, "SELECT current_user"), "low");
    assert_eq!(value(&mut a, "SELECT current_user"), "low");
}

#[test]
fn a_setting_named_at_login_is_reset_beside_those_of_the_transaction() {
    let cluster = cluster(1);
    let named = [("DateStyle", "German")];
    let mut raw = Raw::login_with(&cluster.proxy(), &named).unwrap();
    raw.query("SET ROLE app");
    raw.query("SET DateStyle = 'ISO'");
    for reset in ["RESET DateStyle", "SET DateStyle TO DEFAULT"] {
        raw.query("BEGIN");
        raw.query("SET work_mem = '7MB'");
        raw.query("SET LOCAL work_mem = '9MB'");
        raw.query(reset);
        assert_eq!(value(&mut raw, "SHOW DateStyle"), "German, DMY");
        assert_eq!(value(&mut raw, "SHOW work_mem"), "9MB");
        raw.query("ROLLBACK");
        assert_eq!(value(&mut raw, "SHOW DateStyle"), "ISO, DMY");
    }
}

#[test]
fn half_a_date_style_named_at_login_takes_nobody_elses_other_half() {
    let cluster = cluster(1);
    let mut a = cluster.proxy().raw();
    let mut b = Raw::login_with(&cluster.proxy(), &[("DateStyle", "ISO")]).unwrap();
    assert_eq!(value(&mut b, "SHOW DateStyle"), "ISO, MDY");
    a.query("SET DateStyle = 'SQL, DMY'");
    assert_eq!(value(&mut b, "SHOW DateStyle"), "ISO, MDY");
    b.query("SET DateStyle = 'SQL, DMY'");
    b.query("RESET DateStyle");
    assert_eq!(value(&mut b, "SHOW DateStyle"), "ISO, MDY");
    b.query("BEGIN");
    b.query("SET DateStyle = 'SQL, DMY'");
    b.query("RESET DateStyle");
    assert_eq!(value(&mut b, "SHOW DateStyle"), "ISO, MDY");
    b.query("COMMIT");
    assert_eq!(value(&mut b, "SHOW DateStyle"), "ISO, MDY");
}

#[test]
fn transaction_characteristics_leave_with_their_session() {
    let cluster = cluster(1);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY");
    assert_eq!(value(&mut a, "SHOW default_transaction_read_only"), "on");
    assert_eq!(value(&mut b, "SHOW default_transaction_read_only"), "off");
    assert_eq!(value(&mut a, "SHOW default_transaction_read_only"), "on");
}

#[test]
fn prepared_statements_are_read_under_their_own_sessions_settings() {
    let cluster = cluster(1);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("SET TimeZone = 'Asia/Tokyo'");
    b.query("SET TimeZone = 'UTC'");
    let sql = "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')::bigint::text";
    let ask = |raw: &mut Raw| {
        let messages = [
            message::parse("s", sql, &[]),
            message::bind("", "s", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ];
        raw.send(&messages.concat());
        let frames = raw.read_until(b'Z', 1);
        let row = frames.iter().find(|frame| frame.tag == b'D').unwrap();
        String::from_utf8_lossy(&row.body[6..]).into_owned()
    };
    assert_eq!(ask(&mut a), "1704034800");
    assert_eq!(ask(&mut b), "1704067200");
}

#[test]
fn a_copy_that_fails_early_blocks_nobody() {
    let cluster = cluster(1);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    let start = [
        message::parse("", "COPY bulk FROM STDIN", &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
        message::sync(),
        message::copy_data(b"not a number\tx\n"),
    ];
    a.send(&start.concat());
    a.read_until(b'E', 1);
    let mut late = message::copy_data(&vec![b'x'; 300_000]);
    late.extend(message::copy_done());
    late.extend(message::sync());
    a.send(&late);
    a.read_until(b'Z', 1);
    assert_eq!(value(&mut b, "SELECT 1"), "1");
    assert_eq!(value(&mut a, "SELECT 2"), "2");
}

#[test]
fn a_failed_copys_data_does_not_reach_the_next_client() {
    let cluster = cluster(1);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.send(&message::query("COPY bulk FROM STDIN"));
    a.read_until(b'G', 1);
    let mut data = message::copy_data(b"not a number\tx\n");
    let long = message::copy_data(&vec![b'x'; 1_000_000]);
    data.extend(&long[..150_000]);
    a.send(&data);
    a.read_until(b'E', 1);
    a.send(&long[150_000..]);
    a.send(&message::copy_done());
    a.read_until(b'Z', 1);
    assert_eq!(value(&mut b, "SELECT 1"), "1");
    assert_eq!(value(&mut a, "SELECT 2"), "2");
}

#[test]
fn a_portal_over_several_shards_never_gives_some_of_its_rows() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let described = [
        message::parse("", "SELECT user_id FROM users", &[]),
        message::bind("", "", &[], &[], &[]),
        message::describe(b'P', ""),
        message::flush(),
    ];
    raw.send(&described.concat());
    raw.read_until(b'T', 1);
    let rest = run(&mut raw, &[message::execute("", 0), message::sync()]);
    assert_eq!(rest, "DDDDDDDDCZ");
    // What is bound before rows change must not see them; it is refused, as it has no snapshot.
    let changing = [
        message::query("BEGIN"),
        message::parse("", "SELECT user_id FROM users", &[]),
        message::bind("before", "", &[], &[], &[]),
        message::parse("", "DELETE FROM users WHERE user_id = 1", &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
        message::execute("before", 0),
        message::sync(),
    ];
    raw.send(&changing.concat());
    let frames = raw.read_until(b'Z', 2);
    let error = frames.iter().find(|frame| frame.tag == b'E');
    assert_eq!(error.unwrap().field(b'C').as_deref(), Some("0A000"));
}

#[test]
fn nothing_of_a_batch_runs_behind_an_error_in_it() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    for _ in 0..5 {
        let answers = run(
            &mut raw,
            &[
                message::parse(
                    "",
                    "SELECT no_such_column FROM users WHERE user_id = 1",
                    &[],
                ),
                message::describe(b'S', ""),
                message::parse(
                    "b",
                    "INSERT INTO users VALUES (4, 'again') ON CONFLICT DO NOTHING",
                    &[],
                ),
                message::bind("", "b", &[], &[], &[]),
                message::execute("", 0),
                message::sync(),
            ],
        );
        assert_eq!(answers, "EZ");
    }
}

#[test]
fn a_batch_that_writes_on_two_shards_is_one_transaction() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let sql = "UPDATE users SET name = 'x' WHERE user_id = $1";
    let key = |id: &str| [Some(id.as_bytes().to_vec())];
    let answers = run(
        &mut raw,
        &[
            message::parse("u", sql, &[]),
            message::bind("", "u", &[], &key("1"), &[]),
            message::execute("", 0),
            message::bind("", "u", &[], &key("4"), &[]),
            message::execute("", 0),
            message::sync(),
        ],
    );
    assert_eq!(answers, "12C2CZ");
    for id in [1, 4] {
        let sql = format!("SELECT name FROM users WHERE user_id = {id}");
        assert_eq!(value(&mut raw, &sql), "x");
    }
}

#[test]
fn a_statement_behind_its_search_path_is_planned_in_it() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let sql = "SET search_path = tenant; SELECT name FROM users WHERE user_id = 4";
    assert_eq!(value(&mut raw, sql), "42P01");
}

#[test]
fn deallocate_knows_what_the_protocol_prepared() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    run(
        &mut raw,
        &[message::parse("s", "SELECT 1", &[]), message::sync()],
    );
    assert_eq!(value(&mut raw, "DEALLOCATE s"), "");
    assert_eq!(value(&mut raw, "DEALLOCATE s"), "26000");
}

#[test]
fn a_wide_result_is_scattered_whole() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    let columns: Vec<String> = (0..400)
        .map(|i| format!("name AS some_column_number_{i}"))
        .collect();
    let frames = raw.query(&format!("SELECT {} FROM users", columns.join(", ")));
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'D').count(), 8);
}

#[test]
fn a_transaction_has_one_time() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    raw.query("BEGIN");
    let first = value(&mut raw, "SELECT now()");
    assert_eq!(value(&mut raw, "SELECT now()"), first);
    raw.query("ROLLBACK");
}

#[test]
fn a_broken_transaction_stays_broken_until_it_ends() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    raw.query("BEGIN");
    assert_eq!(value(&mut raw, "SELECT no_such_column"), "42703");
    let messages = [
        message::parse("p", "SELECT 1", &[]),
        message::describe(b'S', "p"),
        message::sync(),
    ];
    raw.send(&messages.concat());
    let frames = raw.read_until(b'Z', 1);
    assert_eq!(frames.last().unwrap().body, b"E");
    raw.send(&[message::parse("q", "SELECT 1", &[]), message::sync()].concat());
    assert_eq!(raw.read_until(b'Z', 1).last().unwrap().body, b"E");
    assert_eq!(value(&mut raw, "SELECT 1"), "25P02");
    raw.query("ROLLBACK");
    assert_eq!(value(&mut raw, "SELECT 1"), "1");
}

#[test]
fn a_connection_outlives_a_client_that_leaves_in_its_transaction() {
    let cluster = cluster(1);
    let started = "SELECT backend_start FROM pg_stat_activity WHERE application_name = 'first'";
    let mut raw = cluster.proxy().raw();
    value(&mut raw, "SET application_name TO first");
    let mut seen = Vec::new();
    for left in [
        "SELECT 1",
        "SET LOCAL work_mem TO '1MB'",
        "SET search_path TO nowhere",
        "INSERT INTO bulk VALUES (1, 'lost')",
        "SELECT 1/0",
        "DECLARE c CURSOR FOR SELECT 1",
    ] {
        seen.push(value(&mut raw, started));
        let mut leaving = cluster.proxy().raw();
        leaving.query("BEGIN");
        leaving.query(left);
        drop(leaving);
        assert_eq!(value(&mut raw, "SHOW work_mem"), "4MB", "{left}");
        assert_eq!(value(&mut raw, "SELECT count(*) FROM bulk"), "0", "{left}");
    }
    seen.push(value(&mut raw, started));
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

#[test]
fn a_client_that_idles_too_long_in_its_transaction_is_told_and_closed() {
    let cluster = cluster(1);
    let mut raw = cluster.proxy().raw();
    raw.query("SET idle_in_transaction_session_timeout TO '50ms'");
    raw.query("BEGIN");
    assert_eq!(value(&mut raw, "SELECT 1"), "1");
    let error = raw.read().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("25P03"), "{error:?}");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{error:?}");
    assert!(raw.read().is_none());
    // Whoever comes next has a connection without the setting.
    let mut other = cluster.proxy().raw();
    let setting = "SHOW idle_in_transaction_session_timeout";
    assert_eq!(value(&mut other, setting), "0");
}

#[test]
fn a_word_that_nothing_discards_is_an_error_of_syntax() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut raw = cluster.proxy().raw();
        assert_eq!(value(&mut raw, "DISCARD nonsense"), "42601");
        assert_eq!(value(&mut raw, "DISCARD ALL"), "");
    }
}
