//! COPY over several shards that leaves columns to their defaults, beside one PostgreSQL; the rows of every
//! shard are looked at there.

use crate::harness::compare::{Mode, Pair, frames};
use crate::harness::raw::{Frame, Raw};
use crate::harness::{Cluster, message};

const SCHEMA: &str = "
CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, n serial, m int DEFAULT 7);
CREATE TABLE events (tenant int, id bigint GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5), what text,
    PRIMARY KEY (tenant, id));
CREATE TABLE fixed (tenant int DEFAULT 7, what text);
CREATE TABLE days (day date DEFAULT current_date, no int, PRIMARY KEY (day, no));
CREATE TABLE lookup (id serial PRIMARY KEY, word text UNIQUE, no smallserial, kind text DEFAULT 'k');
CREATE SEQUENCE numbered;
CREATE TABLE codes (code text DEFAULT 'c' || nextval('numbered') PRIMARY KEY, v text);
CREATE SEQUENCE few MAXVALUE 5;
CREATE TABLE short (id int DEFAULT nextval('few') PRIMARY KEY, v text);
CREATE TABLE times (id int PRIMARY KEY, at timestamptz DEFAULT now(), on_day date DEFAULT current_date,
    who text DEFAULT current_user, local time DEFAULT localtime, r float8 DEFAULT random());
CREATE TABLE stamps (id int PRIMARY KEY, at timestamptz DEFAULT now(), u uuid DEFAULT gen_random_uuid());
CREATE TABLE tokens (token uuid DEFAULT gen_random_uuid() PRIMARY KEY, v text);
CREATE FUNCTION own() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN nextval('numbered'); END $$;
CREATE TABLE odd (id int PRIMARY KEY, n int DEFAULT own());
CREATE TABLE keyless (id int, v text)";

fn cluster() -> Cluster {
    let mut builder = Cluster::new().shards(3).schema(SCHEMA);
    for (table, key) in [
        ("users", "id"),
        ("events", "tenant"),
        ("fixed", "tenant"),
        ("days", "day"),
        ("codes", "code"),
        ("short", "id"),
        ("times", "id"),
        ("tokens", "token"),
        ("odd", "id"),
        ("keyless", "id"),
    ] {
        builder = builder.sharded(table, &[key]);
    }
    builder.replicated("lookup").replicated("stamps").start()
}

/// What a client is told by a COPY whose data comes in pieces.
fn load(raw: &mut Raw, sql: &str, pieces: &[&[u8]]) -> Vec<(u8, Vec<String>)> {
    raw.send(&message::query(sql));
    let mut frames = Vec::new();
    loop {
        let frame = raw.read().expect("an answer");
        let tag = frame.tag;
        frames.push(frame);
        match tag {
            b'G' => break,
            b'Z' => return told(&frames),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for piece in pieces {
        out.extend(message::copy_data(piece));
    }
    out.extend(message::copy_done());
    raw.send(&out);
    frames.extend(raw.read_until(b'Z', 1));
    told(&frames)
}

fn told(frames: &[Frame]) -> Vec<(u8, Vec<String>)> {
    let words = |frame: &Frame| match frame.tag {
        b'E' => b"CMDW"
            .iter()
            .map(|code| {
                let text = frame.field(*code).unwrap_or_default();
                let lines = text.lines().filter(|line| !line.starts_with("shard s"));
                lines.collect::<Vec<_>>().join("\n")
            })
            .collect(),
        _ => vec![format!("{:?}", frame.body)],
    };
    frames
        .iter()
        .map(|frame| (frame.tag, words(frame)))
        .collect()
}

fn same(pair: &mut Pair, sql: &str, pieces: &[&[u8]]) {
    let got = load(&mut pair.proxy, sql, pieces);
    let wanted = load(&mut pair.oracle, sql, pieces);
    assert_eq!(got, wanted, "{sql}");
}

#[test]
fn what_the_data_leaves_out_is_as_on_one_server() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for (sql, data) in [
        ("COPY users (name) FROM STDIN", "a\nb\nc\nd\ne\nf"),
        (
            "COPY users (name, m) FROM STDIN (FORMAT csv, HEADER)",
            "name,m\n\"x\ny\",1\nz,\n\"\",3\n",
        ),
        (
            "COPY users (name, m) FROM STDIN (FORMAT csv, HEADER match, DELIMITER ';')",
            "name;m\nx;1\nz;2\n",
        ),
        (
            "COPY users (name, m) FROM STDIN (NULL '9', DELIMITER '|')",
            "a|1\nb|9\nc|3\nd|4\ne|5\nf|6\ng|7\n",
        ),
        ("COPY users (name) FROM STDIN", "a\\.\n"),
        ("COPY users (name) FROM STDIN", "after\n\\.\nnothing\n"),
        (
            "COPY public.users(name, n) FROM STDIN WHERE name <> 'b'",
            "a\t1\nb\t2\nc\t3\n",
        ),
        ("COPY users (id, name) FROM STDIN", "1000\ta\n1001\tb\n"),
        (
            "COPY events (tenant, what) FROM STDIN",
            "1\ta\n2\tb\n3\tc\n1\td\n",
        ),
        (
            "COPY events (what, tenant) FROM STDIN (FORMAT csv)",
            "a,1\nb,2\n\"c,d\",3\n",
        ),
        ("COPY fixed (what) FROM STDIN", "a\nb\n"),
        ("COPY days (no) FROM STDIN", "1\n2\n"),
        ("COPY lookup (word) FROM STDIN", "a\nb\nc\n"),
        (
            "COPY lookup (kind, word) FROM STDIN (FORMAT csv)",
            "k,d\nl,e\n",
        ),
        ("COPY codes (v) FROM STDIN", "a\nb\nc\n"),
        ("COPY short (v) FROM STDIN", "a\nb\nc\n"),
        ("COPY short (v) FROM STDIN", "d\ne\n\\.\n"),
    ] {
        same(&mut pair, sql, &[data.as_bytes()]);
    }
    cluster.same_data();
    // One more number is next.
    for sql in [
        "INSERT INTO users (name) VALUES ('next') RETURNING id, n",
        "INSERT INTO events (tenant, what) VALUES (1, 'next') RETURNING id",
        "INSERT INTO lookup (word) VALUES ('next') RETURNING id",
        "BEGIN",
    ] {
        pair.once(sql);
    }
    same(
        &mut pair,
        "COPY users (name) FROM STDIN",
        &[b"in\n", b"a ", b"transaction\n"],
    );
    same(
        &mut pair,
        "COPY lookup (word) FROM STDIN",
        &[b"in", b"\na ", b"transaction\n"],
    );
    pair.once("COMMIT");
    pair.once("BEGIN");
    same(&mut pair, "COPY users (name) FROM STDIN", &[b"undone\n"]);
    pair.once("ROLLBACK");
    pair.once("INSERT INTO users (name) VALUES ('last') RETURNING id, n");
    cluster.same_data();
}

#[test]
fn what_is_wrong_is_said_as_on_one_server() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "INSERT INTO users VALUES (1000, 'a'), (1001, 'b')",
        "INSERT INTO days (no) VALUES (1), (2)",
        "INSERT INTO lookup (word) VALUES ('a')",
        "SELECT setval('few', 4)",
    ] {
        pair.once(sql);
    }
    for (sql, data) in [
        ("COPY users (name) FROM STDIN", "a\nb\nc\n\\N\n"),
        ("COPY users (name, m) FROM STDIN", "too few\n"),
        ("COPY users (name, m) FROM STDIN", "a\t1\nmany\t2\t3\n"),
        ("COPY users (name, m) FROM STDIN", "a\t1\nno\tnumber\n"),
        ("COPY users (id, name) FROM STDIN", "1000\ta\n1001\tb\n"),
        ("COPY days (no) FROM STDIN", "1\n2\n"),
        ("COPY lookup (word) FROM STDIN", "f\na\n"),
        ("COPY short (v) FROM STDIN", "f\n"),
        ("COPY users (name, m) FROM STDIN (FORMAT csv)", "a,1\n\"b\n"),
        ("COPY users (nothing) FROM STDIN", "a\n"),
        ("COPY users (name, name) FROM STDIN", "a\tb\n"),
    ] {
        same(&mut pair, sql, &[data.as_bytes()]);
    }
    cluster.same_data();
}

#[test]
fn large_copies_get_their_numbers() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut data = String::new();
    for row in 0..30_000 {
        data.push_str(&format!("name {row}{}\n", "x".repeat(row % 50)));
    }
    let long = format!("{}\n{}\n", "y".repeat(100_000), "z".repeat(40_000));
    data.push_str(&long);
    for size in [100_000, 7_777, 100] {
        let pieces: Vec<&[u8]> = data.as_bytes().chunks(size).collect();
        same(&mut pair, "COPY users (name) FROM STDIN", &pieces);
    }
    let pieces: Vec<&[u8]> = data.as_bytes().chunks(3_000).collect();
    same(
        &mut pair,
        "COPY users (name) FROM STDIN (FORMAT csv)",
        &pieces,
    );
    cluster.same_data();
}

#[test]
fn binary_data_gets_its_values() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let row = |data: &mut Vec<u8>, fields: &[&[u8]]| {
        data.extend((fields.len() as u16).to_be_bytes());
        for field in fields {
            data.extend((field.len() as u32).to_be_bytes());
            data.extend(*field);
        }
    };
    for name in ["a", "b", "ccc"] {
        row(&mut data, &[name.as_bytes()]);
    }
    row(&mut data, &["l".repeat(50_000).as_bytes()]);
    data.extend(b"\xff\xff");
    let pieces: Vec<&[u8]> = data.chunks(1_000).collect();
    for sql in [
        "COPY users (name) FROM STDIN (FORMAT binary)",
        "COPY codes (v) FROM STDIN BINARY",
        "COPY lookup (kind) FROM STDIN (FORMAT binary)",
        "COPY fixed (what) FROM STDIN (FORMAT binary)",
    ] {
        same(&mut pair, sql, &pieces);
    }
    let mut broken = data[..19].to_vec();
    row(&mut broken, &[b"a", b"b"]);
    let got = load(
        &mut pair.proxy,
        "COPY users (name) FROM STDIN BINARY",
        &[&broken],
    );
    assert!(
        got.iter()
            .any(|(tag, words)| *tag == b'E' && words[0] == "22P04"),
        "{got:?}"
    );
    pair.once("SELECT count(*) FROM users");
    cluster.same_data();
}

#[test]
fn a_copy_has_one_time_on_all_shards() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut raw = cluster.proxy().raw();
    let data: String = (1..=20).map(|id| format!("{id}\n")).collect();
    for zone in ["UTC", "Asia/Kolkata"] {
        for style in ["ISO", "SQL, DMY", "German"] {
            raw.query(&format!(
                "SET TimeZone TO '{zone}'; SET DateStyle TO '{style}'"
            ));
            for table in ["times", "stamps"] {
                raw.query("BEGIN");
                load(
                    &mut raw,
                    &format!("COPY {table} (id) FROM STDIN"),
                    &[data.as_bytes()],
                );
                let sql = format!(
                    "SELECT count(*), count(DISTINCT at), bool_and(at > now() - interval '1 minute') FROM {table}"
                );
                assert_eq!(raw.rows(&sql), [["20", "1", "t"]]);
                raw.query("ROLLBACK");
            }
        }
    }
    raw.query("RESET ALL");
    load(&mut raw, "COPY times (id) FROM STDIN", &[data.as_bytes()]);
    let sql = "SELECT count(DISTINCT (at, on_day, who, local)), count(DISTINCT r) FROM times";
    assert_eq!(raw.rows(sql), [["1", "20"]]);
    // The copies are the same, and each row has its own.
    load(&mut raw, "COPY stamps (id) FROM STDIN", &[data.as_bytes()]);
    let all = "SELECT md5(string_agg(s::text, ',' ORDER BY id)), count(DISTINCT u) FROM stamps s";
    let first = cluster.shard(0).raw().rows(all);
    assert_eq!(first[0][1], "20");
    for shard in 1..3 {
        assert_eq!(cluster.shard(shard).raw().rows(all), first);
    }
    // Keys by default find their shard.
    load(&mut raw, "COPY tokens (v) FROM STDIN", &[data.as_bytes()]);
    for row in raw.rows("SELECT token, v FROM tokens") {
        let sql = format!("SELECT v FROM tokens WHERE token = '{}'", row[0]);
        assert_eq!(raw.rows(&sql), [[row[1].as_str()]]);
    }
    drop(frames(&mut pair.proxy, Mode::Simple, "SELECT 1", &[]));
    assert_eq!(raw.rows("SELECT count(*) FROM tokens"), [["20"]]);
}

#[test]
fn what_can_not_be_supplied_is_refused() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    for sql in [
        "COPY odd (id) FROM STDIN",
        "COPY keyless (v) FROM STDIN",
        "COPY users (name, n) FROM STDIN (DEFAULT 'd')",
        "COPY users (name) FROM STDIN (FORMAT csv, FORCE_NOT_NULL *)",
        "COPY lookup (id, word) FROM STDIN (DEFAULT 'd')",
    ] {
        let got = load(&mut raw, sql, &[b"1\n"]);
        assert_eq!(
            (got[0].0, got[0].1[0].as_str()),
            (b'E', "0A000"),
            "{sql} {got:?}"
        );
    }
}
