//! What the test suites of clients have found, each in a few messages.

use std::time::Duration;

use crate::harness::{Cluster, DEADLINE, Raw, message};

fn cluster(connections: u32) -> Cluster {
    Cluster::new()
        .shards(1)
        .schema("CREATE TABLE numbered (id serial PRIMARY KEY, name text DEFAULT 'nobody');")
        .database(
            "pool",
            &format!("{{ max_size: {connections}, queue_timeout: 5s }}"),
        )
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
fn a_definition_does_not_wait_for_the_transaction_that_locks_a_table() {
    let cluster = cluster(2);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("BEGIN");
    assert_eq!(value(&mut a, "ALTER TABLE numbered ADD more int"), "");
    assert_eq!(value(&mut a, "DROP TABLE numbered"), "");
    assert_eq!(value(&mut a, "CREATE TABLE numbered (id int)"), "");
    assert_eq!(value(&mut b, "CREATE TABLE other (id serial)"), "");
    assert_eq!(value(&mut b, "SELECT count(*) FROM other"), "0");
    a.query("COMMIT");
    let insert = "INSERT INTO numbered VALUES (1) RETURNING id";
    assert_eq!(value(&mut a, insert), "1");
}

/// lib/pq names the encoding that it wants besides the options of its user.
#[test]
fn a_startup_parameter_wins_over_the_same_in_options() {
    let cluster = cluster(1);
    let asked = "SELECT concat(current_setting('client_encoding'), current_setting('work_mem'))";
    for endpoint in [cluster.oracle(), cluster.proxy()] {
        let parameters = [
            ("client_encoding", "UTF8"),
            (
                "options",
                "-c client_encoding=SQL_ASCII -c work_mem=1MB -c work_mem=2MB",
            ),
        ];
        let mut raw = Raw::login_with(&endpoint, &parameters).unwrap();
        assert_eq!(value(&mut raw, asked), "UTF82MB");
    }
}

/// tokio-postgres expects what PostgreSQL remarks on a setting in the startup packet.
#[test]
fn notices_on_startup_parameters_arrive() {
    let cluster = cluster(1);
    let name = "x".repeat(65);
    for endpoint in [cluster.oracle(), cluster.proxy()] {
        let raw = Raw::login_with(&endpoint, &[("application_name", &name)]).unwrap();
        let codes: Vec<_> = raw.notices.iter().map(|one| one.field(b'C')).collect();
        assert_eq!(codes, [Some("42622".to_owned())]);
        assert_eq!(raw.parameters["application_name"], name[..63]);
    }
}

/// node-postgres does this when it is told to end before it has begun.
#[test]
fn who_says_good_bye_first_hears_nothing() {
    let cluster = cluster(1);
    for endpoint in [cluster.oracle(), cluster.proxy()] {
        let mut raw = Raw::open(endpoint.port);
        raw.send(&message::terminate());
        raw.finish_sending();
        assert_eq!(raw.read_to_end(1_000).unwrap(), b"");
    }
}

#[test]
fn a_statement_that_waits_for_a_connection_is_cancelled() {
    let cluster = cluster(1);
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    a.query("BEGIN");
    assert_eq!(value(&mut a, "SELECT 1"), "1");
    let (process_id, secret) = b.key.clone().unwrap();
    b.send(&message::query("SELECT 2"));
    b.set_patience(Duration::from_millis(100));
    let mut told = Vec::new();
    for _ in 0..300 {
        // Until the statement has arrived there is nothing to cancel.
        let mut cancel = Raw::open(cluster.proxy().port);
        cancel.send(&message::cancel_request(process_id, &secret));
        cancel.finish_sending();
        let _ = cancel.read_to_end(1_000);
        let (frames, end) = b.try_read_until(b'Z', 1);
        told.extend(frames);
        if end.is_ok() {
            break;
        }
    }
    assert_eq!(told[0].field(b'C').as_deref(), Some("57014"));
    b.set_patience(DEADLINE);
    a.query("ROLLBACK");
    assert_eq!(value(&mut b, "SELECT 3"), "3");
}

/// DBD::Pg's last_insert_id looks for the sequence's name first, in a transaction of its own.
#[test]
fn what_was_drawn_before_a_transaction_is_known_in_it() {
    let cluster = cluster(1);
    let mut raw = cluster.proxy().raw();
    raw.query("INSERT INTO numbered DEFAULT VALUES");
    raw.query("BEGIN");
    let name = "SELECT pg_get_serial_sequence('numbered', 'id')";
    assert_eq!(value(&mut raw, name), "public.numbered_id_seq");
    let drawn = "SELECT currval('public.numbered_id_seq')";
    assert_eq!(value(&mut raw, drawn), "1");
    raw.query("COMMIT");
    let mut other = cluster.proxy().raw();
    assert_eq!(value(&mut other, "SELECT nextval('numbered_id_seq')"), "2");
    raw.query("BEGIN");
    assert_eq!(value(&mut raw, name), "public.numbered_id_seq");
    assert_eq!(value(&mut raw, drawn), "0A000");
}
