//! Statements over several shards on the wire: large answers, failures, cancel requests.

use std::fmt::Write;

use crate::harness::{Cluster, message};

#[test]
fn a_description_longer_than_a_read_is_waited_for() {
    let columns = 1..=1000;
    let mut table = "CREATE TABLE wide (id int PRIMARY KEY".to_owned();
    for column in columns.clone() {
        write!(table, ", a_rather_long_name_of_column_{column} int").unwrap();
    }
    table.push(')');
    let cluster = Cluster::new()
        .shards(2)
        .schema(&table)
        .rows("INSERT INTO wide SELECT i, i FROM generate_series(1, 100) i")
        .sharded("wide", &["id"])
        .start();
    let mut raw = cluster.proxy().raw();
    for _ in 0..3 {
        assert_eq!(raw.rows("SELECT * FROM wide").len(), 100);
        raw.send(&message::parse("wide", "SELECT * FROM wide", &[]));
        raw.send(&message::bind("", "wide", &[], &[], &[]));
        raw.send(&message::describe(b'P', ""));
        raw.send(&message::execute("", 0));
        raw.send(&message::close(b'S', "wide"));
        raw.send(&message::sync());
        let frames = raw.read_until(b'Z', 1);
        let rows = frames.iter().filter(|frame| frame.tag == b'D').count();
        assert_eq!(rows, 100);
    }
}
