//! Statements that no PostgreSQL accepts fail with its SQLSTATE over shards, too, and what it only warns of works.

use crate::harness::Cluster;
use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};

const SCHEMA: &str = "
CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, age int);
CREATE TABLE filled (user_id bigint PRIMARY KEY, name text);
CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.user_id := 1; RETURN NEW; END';
CREATE TRIGGER fill BEFORE INSERT ON filled FOR EACH ROW EXECUTE FUNCTION fill();
CREATE TABLE products (id int PRIMARY KEY, name text)";

const ROWS: &str = "INSERT INTO users SELECT n, 'n' || n, n FROM generate_series(1, 20) n";

fn cluster() -> Cluster {
    let cluster = Cluster::new().shards(2).schema(SCHEMA);
    let cluster = cluster.sharded("users", &["user_id"]);
    let cluster = cluster.sharded("filled", &["user_id"]);
    cluster.replicated("products").start()
}

/// The SQLSTATEs, tags and status are the oracle's.
fn same_code(pair: &mut Pair, mode: Mode, sql: &str) {
    let mut got = outcome(&frames(&mut pair.proxy, mode, sql, &[]));
    let mut wanted = outcome(&frames(&mut pair.oracle, mode, sql, &[]));
    for (code, message) in got.reports.iter_mut().chain(&mut wanted.reports) {
        message.truncate(if code == "08P01" { 0 } else { usize::MAX });
    }
    got.rows.sort();
    wanted.rows.sort();
    assert_eq!(got, wanted, "{mode:?}: {sql}");
}

#[test]
fn a_row_without_its_key_has_null_there() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once(ROWS);
    for mode in MODES {
        for sql in [
            "INSERT INTO users (name) VALUES ('x')",
            "INSERT INTO users (name) VALUES ('x'), ('y') ON CONFLICT DO NOTHING",
            "INSERT INTO users (user_id, name) VALUES (DEFAULT, 'x')",
            "INSERT INTO users (user_id, name) VALUES (31, 'x'), (DEFAULT, 'y')",
            "INSERT INTO users DEFAULT VALUES",
            "INSERT INTO users (no_such) VALUES (1)",
            "INSERT INTO users (name, age) VALUES ('x', true)",
            "SELECT count(*) FROM users",
        ] {
            same_code(&mut pair, mode, sql);
        }
    }
    // Its trigger would give the row its key.
    pair.refused("INSERT INTO filled (name) VALUES ('x')");
}

#[test]
fn a_table_that_is_not_there_is_not_truncated() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once(ROWS);
    for mode in MODES {
        for sql in [
            "TRUNCATE nosuch",
            "TRUNCATE TABLE ONLY nosuch, nosuch2 RESTART IDENTITY CASCADE",
            "TRUNCATE nowhere.nosuch",
            "TRUNCATE users, nosuch",
            "BEGIN",
            "LOCK TABLE nosuch",
            "ROLLBACK",
            "SELECT count(*) FROM users",
        ] {
            same_code(&mut pair, mode, sql);
        }
    }
}

#[test]
fn a_parameter_needs_the_extended_protocol() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once(ROWS);
    for sql in [
        "SELECT name FROM users WHERE user_id = $1",
        "SELECT 'ä', count(*) FROM users WHERE age > $1",
        "UPDATE users SET name = $1",
        "UPDATE users SET age = age WHERE user_id = $2",
        "DELETE FROM users WHERE user_id IN ($1, 2)",
        "DELETE FROM products WHERE id = $1",
        "INSERT INTO users VALUES ($1, $2)",
        "INSERT INTO users (name) SELECT $1",
        "SELECT '$1', $$ $1 $$, count(*) FROM users",
        "SELECT $1",
    ] {
        same_code(&mut pair, Mode::Simple, sql);
    }
}

#[test]
fn a_second_begin_changes_nothing() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once(ROWS);
    for first in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for sql in [
            first,
            "UPDATE users SET age = 1 WHERE user_id = 1",
            "BEGIN",
            "SHOW transaction_isolation",
            "UPDATE users SET age = 2 WHERE user_id = 2",
            "START TRANSACTION",
            "UPDATE users SET age = 3 WHERE user_id = 3",
            "UPDATE users SET age = 4 WHERE user_id IN (4, 5, 6)",
            "SELECT sum(age), count(*) FROM users",
            "ROLLBACK",
            "SELECT sum(age), count(*) FROM users",
        ] {
            same_code(&mut pair, Mode::Simple, sql);
        }
    }
}
