//! COPY over several shards beside one PostgreSQL: what becomes of the data, where each row is, and what is
//! said of data that is wrong.

use std::io::Write;
use std::process::Stdio;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardwire::demo::postgres::Binaries;

use crate::harness::compare::{Mode, Pair, frames};
use crate::harness::raw::{Frame, values};
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};

const SHARDS: usize = 3;

const SCHEMA: &str = "
CREATE TABLE t (id int PRIMARY KEY, name text CHECK (name <> 'bad'), n numeric);
CREATE TABLE names (name text NOT NULL, no int);
CREATE TABLE pairs (a text NOT NULL, b date NOT NULL, no int DEFAULT 7);
CREATE TABLE wide (id bigint NOT NULL, body text);
CREATE TABLE loose (id int, body text);
CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, body text DEFAULT 'x');
CREATE TABLE kinds (kind text PRIMARY KEY, no int DEFAULT 1, at timestamptz DEFAULT now());
CREATE TABLE notes (id int PRIMARY KEY, body text)";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(SHARDS)
        .schema(SCHEMA)
        .sharded("t", &["id"])
        .sharded("names", &["name"])
        .sharded("pairs", &["a", "b"])
        .sharded("wide", &["id"])
        .sharded("loose", &["id"])
        .sharded("made", &["id"])
        .replicated("kinds")
        .home("notes", 1)
        .start()
}

/// The slot of a row of each table.
const SLOTS: [(&str, &str); 6] = [
    ("t", "hashint8extended(id, 0)"),
    ("names", "hashtextextended(name, 0)"),
    (
        "pairs",
        "hash_record_extended(ROW(b), hashtextextended(a, 0))",
    ),
    ("wide", "hashint8extended(id, 0)"),
    ("loose", "hashint8extended(id, 0)"),
    ("made", "hashint8extended(id, 0)"),
];

/// How the client ends the data.
#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Fail,
}

/// What a client has been told: formats, tag, report, status.
#[derive(Debug, PartialEq)]
struct Told {
    response: Vec<Vec<u8>>,
    tags: Vec<String>,
    reports: Vec<Vec<String>>,
    status: Vec<u8>,
}

fn told(frames: &[Frame]) -> Told {
    let of = |tag: u8| frames.iter().filter(move |frame| frame.tag == tag);
    let report = |frame: &Frame| {
        let fields = b"CMDHWtcn".iter().map(|code| {
            let text = frame.field(*code).unwrap_or_default();
            // The shard's name stands behind what PostgreSQL says.
            let lines = text.lines().filter(|line| !line.starts_with("shard s"));
            lines.collect::<Vec<_>>().join("\n")
        });
        fields.collect()
    };
    Told {
        response: of(b'G').map(|frame| frame.body.clone()).collect(),
        tags: of(b'C')
            .map(|frame| String::from_utf8_lossy(&frame.body).into_owned())
            .collect(),
        reports: of(b'E').map(report).collect(),
        status: of(b'Z').flat_map(|frame| frame.body.clone()).collect(),
    }
}

/// Runs a COPY FROM STDIN with its data in pieces.
fn load(raw: &mut Raw, sql: &str, pieces: &[&[u8]], end: End) -> Told {
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
    out.extend(match end {
        End::Done => message::copy_done(),
        End::Fail => message::copy_fail("enough"),
    });
    raw.send(&out);
    frames.extend(raw.read_until(b'Z', 1));
    told(&frames)
}

/// Whether the proxy says that only a server could know where a row belongs.
fn is_unknown(told: &Told) -> bool {
    let said = |report: &Vec<String>| {
        report[0] == "0A000" && report[1].contains("cannot be determined from column")
    };
    told.reports.iter().any(said)
}

fn same(pair: &mut Pair, sql: &str, pieces: &[&[u8]], end: End) -> Told {
    let got = load(&mut pair.proxy, sql, pieces, end);
    let wanted = load(&mut pair.oracle, sql, pieces, end);
    let data: Vec<_> = pieces
        .iter()
        .map(|piece| String::from_utf8_lossy(piece))
        .collect();
    assert_eq!(got, wanted, "{sql}\n{data:?} {end:?}");
    got
}

fn same_text(pair: &mut Pair, sql: &str, data: &str) -> Told {
    same(pair, sql, &[data.as_bytes()], End::Done)
}

/// The rows of a table, sorted.
fn rows(raw: &mut Raw, table: &str) -> Vec<Vec<Option<Vec<u8>>>> {
    let frames = raw.query(&format!("SELECT * FROM {table}"));
    let mut rows: Vec<_> = frames
        .iter()
        .filter(|frame| frame.tag == b'D')
        .map(values)
        .collect();
    rows.sort();
    rows
}

/// Both have the same rows, and every row is where it belongs.
fn check(cluster: &Cluster, pair: &mut Pair) {
    for (table, hash) in SLOTS {
        assert_eq!(
            rows(&mut pair.proxy, table),
            rows(&mut pair.oracle, table),
            "{table}"
        );
        let mut found = 0;
        for shard in 0..SHARDS {
            let sql = format!("SELECT {hash} & 16383 FROM {table}");
            for row in cluster.shard(shard).raw().rows(&sql) {
                let slot: usize = row[0].parse().unwrap();
                let start = |shard: usize| shard * 16384 / SHARDS;
                assert!(
                    (start(shard)..start(shard + 1)).contains(&slot),
                    "{table}: slot {slot} is on shard {shard}"
                );
                found += 1;
            }
        }
        assert_eq!(found, rows(&mut pair.oracle, table).len(), "{table}");
    }
    let kinds = rows(&mut pair.oracle, "kinds");
    for shard in 0..SHARDS {
        assert_eq!(rows(&mut cluster.shard(shard).raw(), "kinds"), kinds);
        let prepared = cluster
            .shard(shard)
            .raw()
            .rows("SELECT gid FROM pg_prepared_xacts");
        assert!(prepared.is_empty(), "{prepared:?}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn rows_are_where_their_keys_belong() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let many: String = (1..=500)
        .map(|id| format!("{id}\tname {id}\t{id}.5\n"))
        .collect();
    let csv: String = (501..=900)
        .map(|id| format!("{id},\"na\"\"me\n{id}\",\n"))
        .collect();
    for (sql, data) in [
        ("COPY t FROM STDIN", many.as_str()),
        ("COPY t FROM STDIN CSV", csv.as_str()),
        (
            "COPY t (n, id) FROM STDIN (FORMAT csv, HEADER, DELIMITER ';')",
            "n;id\n1.5;1001\n;1002\n",
        ),
        (
            "COPY public.t (name, id) FROM STDIN (HEADER MATCH)",
            "name\tid\na\t1003\n\\N\t1004\n",
        ),
        (
            "COPY t (name, id) FROM STDIN (HEADER MATCH)",
            "id\tname\n1\ta\n",
        ),
        (
            "COPY t FROM STDIN USING DELIMITERS ',' WITH NULL AS 'nix'",
            "1005,nix,1\n1006,b,nix\n",
        ),
        (
            "COPY t FROM STDIN WITH DELIMITER '|' CSV HEADER QUOTE '''' ESCAPE '\\' FORCE NOT NULL name",
            "id|name|n\n1007||1\n1008|'a\\'|'|2\n",
        ),
        (
            "COPY t FROM STDIN (FORMAT csv, FORCE_NULL (name, n))",
            "1009,\"\",\"\"\n1010,\"a\",3\n",
        ),
        (
            "COPY t FROM STDIN (FORMAT csv) WHERE id > 1011 AND length(name) < 3",
            "1011,a,\n1012,b,\n1013,bcd,\n",
        ),
        (
            "COPY names FROM STDIN",
            "a\t1\n\\142\\x63\t2\nü\\tx\t3\n\t4\n\\\\N\t5\n",
        ),
        ("COPY names FROM STDIN (NULL 'x')", "a\tx\n\\N\t5\n"),
        (
            "COPY names FROM STDIN CSV",
            "\"\",1\n\"a\"\"b\",2\n x ,3\n\"a\"b\"c,\",4\n",
        ),
        (
            "COPY pairs FROM STDIN",
            "a\t2024-01-01\t1\na\t2024-01-02\t\\N\n",
        ),
        (
            "COPY pairs (b, a) FROM STDIN",
            "2024-02-01\tx\n2024-02-02\ty\n",
        ),
        ("COPY wide FROM STDIN", "-9223372036854775808\ta\n 42 \tb\n"),
        ("COPY loose FROM STDIN CSV", "1,\n2,a\n"),
        ("COPY made FROM STDIN", "1\ta\n2\tb\n3\tc\n"),
        ("COPY made (id) FROM STDIN", "4\n5\n6\n"),
        (
            "COPY kinds FROM STDIN",
            "a\t1\t2024-01-01 00:00:00+00\nb\t2\t2024-01-02 00:00:00+00\n",
        ),
        ("COPY notes FROM STDIN", "1\ta\n"),
        ("COPY t FROM STDIN", ""),
        ("COPY t FROM STDIN CSV HEADER", ""),
        ("COPY t FROM STDIN CSV HEADER", "id,name,n\n"),
        ("COPY t FROM STDIN", "\\.\n"),
        ("COPY t FROM STDIN", "1020\ta\t\\N\n\\.\n1021\tb\t\\N\n"),
        ("COPY t FROM STDIN CSV", "1022,a,\n\\.\n1023,b,\n"),
        ("COPY t FROM STDIN", "1024\ta\t\\N"),
        ("COPY t FROM STDIN", "1025\ta\t1\r\n1026\tb\t2\r\n\\.\r\n"),
        ("COPY t FROM STDIN CSV", "1027,a,1\r1028,\"b\n\",2\r"),
        ("COPY t FROM STDIN (FREEZE)", "1029\ta\t1\n"),
        ("COPY t (id, nothing) FROM STDIN", "1\ta\n"),
        ("COPY nowhere FROM STDIN", "1\ta\n"),
        ("COPY t FROM STDIN (DELIMITER 'ab')", "1\ta\n"),
        ("COPY t FROM STDIN (QUOTE 'a')", "1\ta\n"),
        ("COPY t FROM STDIN (FORMAT csv, QUOTE 'ab')", "1\ta\n"),
        ("COPY t FROM STDIN (FORMAT xml)", "1\ta\n"),
        ("COPY t FROM STDIN (NULL E'a\\nb')", "1\ta\n"),
    ] {
        same_text(&mut pair, sql, data);
    }
    check(&cluster, &mut pair);
}

#[test]
fn errors_name_the_line_of_the_client() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let good: String = (1..=20).map(|id| format!("{id}\tname {id}\t1\n")).collect();
    let csv: String = (1..=20)
        .map(|id| format!("{id},\"name\n{id}\",1\n"))
        .collect();
    for (sql, good, bad) in [
        ("COPY t FROM STDIN", &good, "x\ta\t1\n"),
        ("COPY t FROM STDIN", &good, "21\ta\tx\n"),
        ("COPY t FROM STDIN", &good, "21\ta\n"),
        ("COPY t FROM STDIN", &good, "21\ta\t1\t2\n"),
        ("COPY t FROM STDIN", &good, "\n"),
        ("COPY t FROM STDIN", &good, "21\tbad\t1\n"),
        ("COPY t FROM STDIN", &good, "7\ta\t1\n"),
        ("COPY t FROM STDIN", &good, "\\N\ta\t1\n"),
        ("COPY t FROM STDIN", &good, "99999999999\ta\t1\n"),
        ("COPY t FROM STDIN", &good, "21\ta\t1\r\n"),
        ("COPY t FROM STDIN", &good, "\\.x\n"),
        ("COPY t FROM STDIN CSV", &csv, "21,\"a\nb\",x\n"),
        ("COPY t FROM STDIN CSV", &csv, "21,\"a\nb\n"),
        ("COPY t FROM STDIN CSV", &csv, "21,a\r,1\n"),
        ("COPY t FROM STDIN CSV", &csv, "21,\"bad\",1\n"),
        ("COPY t FROM STDIN CSV", &csv, "\"2\n1\",,\n"),
        ("COPY t FROM STDIN CSV HEADER", &csv, "21\n"),
    ] {
        let more = "22\tb\t2\n23\tc\t3\n";
        let more = if sql.contains("CSV") {
            more.replace('\t', ",")
        } else {
            more.to_owned()
        };
        let data = format!("{good}{bad}{more}");
        same_text(&mut pair, sql, &data);
        same_text(&mut pair, sql, &format!("{good}{bad}"));
        for end in ["ROLLBACK", "COMMIT"] {
            pair.once("BEGIN");
            same_text(&mut pair, sql, &data);
            pair.once(end);
        }
        same(&mut pair, sql, &[good.as_bytes()], End::Fail);
    }
    same(&mut pair, "COPY t FROM STDIN", &[], End::Fail);
    same(
        &mut pair,
        "COPY t FROM STDIN",
        &[b"1\ta\t1\n2\t"],
        End::Fail,
    );
    for (sql, data) in [
        ("COPY t FROM STDIN CSV", "1,a,1\n2,\"b\n\nc"),
        ("COPY t FROM STDIN", "1\ta\t1\nx\\.\n"),
    ] {
        same(&mut pair, sql, &[data.as_bytes()], End::Fail);
    }
    check(&cluster, &mut pair);
    assert!(rows(&mut pair.oracle, "t").is_empty());
}

const RANDOM: [&str; 14] = [
    "COPY t FROM STDIN",
    "COPY t (name, id) FROM STDIN",
    "COPY t FROM STDIN CSV",
    "COPY t (n, name, id) FROM STDIN CSV HEADER",
    "COPY t FROM STDIN (DELIMITER ',', NULL '')",
    "COPY names FROM STDIN",
    "COPY names FROM STDIN CSV",
    "COPY names FROM STDIN CSV ESCAPE '\\'",
    "COPY names FROM STDIN CSV QUOTE ';'",
    "COPY names FROM STDIN (HEADER)",
    "COPY names (no, name) FROM STDIN (DELIMITER ';')",
    "COPY names FROM STDIN (FORMAT csv, NULL 'a', FORCE_NULL (name))",
    "COPY names FROM STDIN (FORMAT csv, NULL 'a', FORCE_NOT_NULL (name, no))",
    "COPY pairs (no, b, a) FROM STDIN CSV",
];

const WORDS: [&str; 30] = [
    "\n",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\t",
    ",",
    ",",
    ";",
    "\"",
    "\"",
    "\\",
    "\\.",
    "\\N",
    "\\\n",
    "1",
    "2",
    "31",
    "42",
    "a",
    "b",
    "é",
    "\\t",
    "\\062",
    "\"\n\"",
    " ",
    "2024-01-03",
    "",
];

/// Data that is often right.
fn data(random: &mut StdRng, sql: &str) -> String {
    if random.random_bool(0.3) {
        let count = random.random_range(0..25);
        return (0..count)
            .map(|_| WORDS[random.random_range(0..WORDS.len())])
            .collect();
    }
    let (mark, end) = match sql {
        _ if sql.contains("DELIMITER ','") || sql.contains("CSV") || sql.contains("csv") => {
            (",", "\n")
        }
        _ if sql.contains("DELIMITER ';'") => (";", "\n"),
        _ => ("\t", "\n"),
    };
    let columns = match sql {
        _ if sql.contains("(name, id)") || sql.contains("names") => 2,
        _ => 3,
    };
    let mut out = String::new();
    for row in 0..random.random_range(0..8) {
        for column in 0..columns {
            if column > 0 {
                out.push_str(mark);
            }
            match random.random_range(0..10) {
                0 => out.push_str(WORDS[random.random_range(0..WORDS.len())]),
                1 => out.push_str("\"a,\"\"b\n\""),
                2 => out.push_str("2024-01-03"),
                _ => out.push_str(&format!("{}", row * 7 + column)),
            }
        }
        out.push_str(end);
    }
    out
}

#[test]
fn any_data_does_what_it_does_in_one_postgresql() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut random = StdRng::seed_from_u64(8);
    let (mut copied, mut unknown) = (0, 0);
    for _ in 0..400 {
        let sql = RANDOM[random.random_range(0..RANDOM.len())];
        let data = data(&mut random, sql);
        let bytes = data.as_bytes();
        let cut = random.random_range(0..=bytes.len());
        let (one, other) = bytes.split_at(cut);
        let end = match random.random_bool(0.05) {
            true => End::Fail,
            false => End::Done,
        };
        let begun = random.random_bool(0.7);
        if begun {
            pair.once("BEGIN");
        }
        let told = load(&mut pair.proxy, sql, &[one, other], end);
        if is_unknown(&told) {
            if begun {
                pair.proxy.query("ROLLBACK");
                pair.oracle.query("ROLLBACK");
            }
            unknown += 1;
            continue;
        }
        let wanted = load(&mut pair.oracle, sql, &[one, other], end);
        assert_eq!(
            told,
            wanted,
            "{sql}\n{:?} {end:?}",
            data.split_at_checked(cut)
        );
        copied += usize::from(told.reports.is_empty());
        if begun {
            if told.reports.is_empty() {
                for table in ["t", "names", "pairs"] {
                    let got = rows(&mut pair.proxy, table);
                    assert_eq!(got, rows(&mut pair.oracle, table), "{sql}\n{data:?}");
                }
            }
            pair.once("ROLLBACK");
        }
    }
    assert!(copied > 60 && unknown < 40, "{copied} {unknown}");
    check(&cluster, &mut pair);
}

/// The data of a COPY TO: its format, the header, the rows.
#[derive(Debug, PartialEq)]
struct Data {
    format: Vec<Vec<u8>>,
    head: Vec<u8>,
    rows: Vec<Vec<u8>>,
    told: Told,
}

const BINARY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

fn data_of(sql: &str, frames: &[Frame]) -> Data {
    let of = |tag: u8| frames.iter().filter(move |frame| frame.tag == tag);
    let mut rows: Vec<Vec<u8>> = of(b'd').map(|frame| frame.body.clone()).collect();
    let mut head = Vec::new();
    if sql.contains("HEADER") && !rows.is_empty() {
        head = rows.remove(0);
    }
    if let Some(first) = rows.first_mut()
        && first.starts_with(BINARY_HEAD)
    {
        head = first.drain(..BINARY_HEAD.len()).collect();
        assert!(rows.last().unwrap().ends_with(b"\xff\xff"), "{sql}");
    }
    if !sql.contains("ORDER BY") {
        rows.sort();
    }
    let ends = of(b'c').count();
    assert_eq!(ends, of(b'H').count().min(of(b'C').count()), "{sql}");
    Data {
        format: of(b'H').map(|frame| frame.body.clone()).collect(),
        head,
        rows,
        told: told(frames),
    }
}

/// Runs a COPY TO in the simple and in the extended protocol.
fn same_data(pair: &mut Pair, sql: &str) {
    for mode in [Mode::Simple, Mode::Text] {
        let got = data_of(sql, &frames(&mut pair.proxy, mode, sql, &[]));
        let wanted = data_of(sql, &frames(&mut pair.oracle, mode, sql, &[]));
        assert_eq!(got, wanted, "{sql} {mode:?}");
    }
}

#[test]
fn rows_of_all_shards_come_out() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let queries = [
        "COPY t TO STDOUT",
        "COPY t TO STDOUT CSV HEADER",
        "COPY t (n, id) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
        "COPY t TO STDOUT (HEADER)",
        "COPY t TO STDOUT (FORMAT binary)",
        "COPY names TO STDOUT (FORMAT binary)",
        "COPY made TO STDOUT (DELIMITER '|', NULL 'nix')",
        "COPY kinds TO STDOUT",
        "COPY notes TO STDOUT (FORMAT binary)",
        "COPY t (nothing) TO STDOUT",
        "COPY (SELECT * FROM t) TO STDOUT",
        "COPY (SELECT id, name || 'x' AS y FROM t WHERE id > 50) TO STDOUT CSV HEADER",
        "COPY (SELECT * FROM t WHERE id = 7) TO STDOUT",
        "COPY (SELECT * FROM t WHERE id IN (7, 8, 9)) TO STDOUT BINARY",
        "COPY (SELECT * FROM t ORDER BY id LIMIT 10) TO STDOUT",
        "COPY (SELECT * FROM t WHERE id IN (7, 8, 9) ORDER BY id DESC) TO STDOUT",
        "COPY (SELECT * FROM t ORDER BY id) TO STDOUT (FORMAT binary)",
        "COPY (SELECT count(*), sum(n) AS s FROM t) TO STDOUT CSV HEADER",
        "COPY (SELECT a.id, b.id AS other FROM t a JOIN t b ON a.id = b.id + 1 ORDER BY a.id) TO STDOUT (HEADER)",
        "COPY (SELECT id FROM t WHERE id < 0 ORDER BY id) TO STDOUT (FORMAT binary)",
        "COPY (SELECT id FROM t WHERE id < 0) TO STDOUT (FORMAT binary)",
        "COPY (SELECT id / (id - 7) FROM t) TO STDOUT",
        "COPY (SELECT nothing FROM t ORDER BY 1) TO STDOUT",
        "COPY (VALUES (1), (2)) TO STDOUT",
    ];
    let empty = [
        "COPY t TO STDOUT CSV HEADER",
        "COPY t TO STDOUT BINARY",
        "COPY t TO STDOUT",
    ];
    for sql in empty {
        same_data(&mut pair, sql);
    }
    let many: String = (1..=300)
        .map(|id| format!("{id}\tname {id}\t{id}.5\n"))
        .collect();
    same_text(&mut pair, "COPY t FROM STDIN", &many);
    same_text(
        &mut pair,
        "COPY names FROM STDIN",
        "a\t1\nb\\tc\t2\nd\t\\N\n",
    );
    same_text(&mut pair, "COPY made FROM STDIN", "1\ta\n2\tb\n");
    same_text(
        &mut pair,
        "COPY kinds FROM STDIN",
        "a\t1\t2024-01-01 00:00:00+00\n",
    );
    same_text(&mut pair, "COPY notes FROM STDIN", "1\ta\n");
    for sql in queries.into_iter().filter(|sql| !sql.contains("id - 7")) {
        same_data(&mut pair, sql);
    }
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        pair.once(begin);
        pair.once("DELETE FROM t WHERE id = 3");
        same_data(&mut pair, "COPY t TO STDOUT");
        same_data(&mut pair, "COPY (SELECT id FROM t WHERE id = 4) TO STDOUT");
        pair.once("ROLLBACK");
    }
    let failed = pair
        .proxy
        .query("COPY (SELECT id / (id - 7) FROM t) TO STDOUT");
    assert_eq!(told(&failed).reports[0][0], "22012");
    assert_eq!(told(&failed).status, b"I");
}

/// A COPY in the extended protocol, all in one piece, as libpq sends it.
fn pipelined(raw: &mut Raw, sql: &str, data: &str, end: End) -> Told {
    let mut out = message::parse("", sql, &[]);
    out.extend(message::bind("", "", &[], &[], &[]));
    out.extend(message::describe(b'P', ""));
    out.extend(message::execute("", 0));
    out.extend(message::sync());
    raw.send(&out);
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
    let mut out = message::copy_data(data.as_bytes());
    out.extend(match end {
        End::Done => message::copy_done(),
        End::Fail => message::copy_fail("enough"),
    });
    out.extend(message::sync());
    raw.send(&out);
    frames.extend(raw.read_until(b'Z', 1));
    told(&frames)
}

#[test]
fn the_extended_protocol_copies_too() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let sql = "COPY t FROM STDIN";
    let good: String = (1..=50).map(|id| format!("{id}\tname {id}\t1\n")).collect();
    for (data, end) in [
        (good.as_str(), End::Done),
        ("51\ta\tx\n52\tb\t1\n", End::Done),
        ("53\ta\t1\n", End::Fail),
        ("7\ta\t1\n", End::Done),
        ("54\ta\t1\n55\tb\t2\n56\tc\t3\n", End::Done),
    ] {
        let got = pipelined(&mut pair.proxy, sql, data, end);
        assert_eq!(got, pipelined(&mut pair.oracle, sql, data, end), "{data:?}");
        // What comes next is answered in its turn.
        pair.once("SELECT 1");
        pair.once("BEGIN");
        let got = pipelined(
            &mut pair.proxy,
            sql,
            "101\ta\t1\n102\tb\t1\n103\tc\t1\n",
            end,
        );
        let wanted = pipelined(
            &mut pair.oracle,
            sql,
            "101\ta\t1\n102\tb\t1\n103\tc\t1\n",
            end,
        );
        assert_eq!(got, wanted);
        pair.once("ROLLBACK");
    }
    check(&cluster, &mut pair);
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    {
        let mut raw = cluster.proxy().raw();
        raw.send(&message::query("COPY t FROM STDIN"));
        raw.read_until(b'G', 1);
        let rows: String = (1..=5000).map(|id| format!("{id}\tname\t1\n")).collect();
        raw.send(&message::copy_data(rows.as_bytes()));
    }
    eventually("gone", || {
        let open = (0..SHARDS).map(|shard| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY t%' AND state = 'active'";
            cluster.shard(shard).raw().rows(sql)[0][0].clone()
        });
        let open: Vec<String> = open.collect();
        if open.iter().all(|count| count == "0") {
            Ok(())
        } else {
            Err(open)
        }
    });
    check(&cluster, &mut pair);
    let mut raw = cluster.proxy().raw();
    raw.send(&message::query("COPY t FROM STDIN"));
    raw.read_until(b'G', 1);
    raw.send(&message::query("SELECT 1"));
    let frames = raw.read_until(b'Z', 1);
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').unwrap(), "08P01");
    assert_eq!(rows(&mut pair.proxy, "t").len(), 0);
}

#[test]
fn much_data_passes_while_shards_keep_up() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let body = "x".repeat(3000);
    let rows: String = (1..=6000)
        .map(|id| format!("{id},\"{body}\n\"\n"))
        .collect();
    let pieces: Vec<&[u8]> = rows.as_bytes().chunks(7919).collect();
    let told = load(
        &mut pair.proxy,
        "COPY wide FROM STDIN CSV",
        &pieces,
        End::Done,
    );
    assert_eq!(told.tags, ["COPY 6000\0"]);
    let sql = "SELECT count(*), count(DISTINCT id), min(length(body)), max(length(body)) FROM wide";
    assert_eq!(pair.proxy.rows(sql), [["6000", "6000", "3001", "3001"]]);
    let frames = pair.proxy.query("COPY wide TO STDOUT");
    assert_eq!(
        frames.iter().filter(|frame| frame.tag == b'd').count(),
        6000
    );
}

/// A program of PostgreSQL's through the proxy, or with the oracle.
fn program(name: &str, endpoint: &Endpoint, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Binaries::find().unwrap().command(name);
    let mut child = command
        .args(arguments)
        .arg(endpoint.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_dump_of_one_postgresql_is_replayed() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.oracle.query(
        "INSERT INTO t SELECT i, E'a\\tb\\\\' || i, i / 3.0 FROM generate_series(1, 700) i;
         INSERT INTO names SELECT E'n\\n' || i, i FROM generate_series(1, 90) i;
         INSERT INTO pairs SELECT 'a' || i, '2024-01-01'::date + i FROM generate_series(1, 90) i;
         INSERT INTO kinds VALUES ('a', 1), ('b', 2);
         INSERT INTO made VALUES (1), (2), (3); INSERT INTO notes VALUES (1, 'x')",
    );
    let oracle = cluster.oracle();
    let (is_dumped, dump) = program("pg_dump", &oracle, &["--data-only"], "");
    assert!(is_dumped, "{dump}");
    let psql = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"];
    let (is_loaded, said) = program("psql", &cluster.proxy(), &psql, &dump);
    assert!(is_loaded && !said.contains("ERROR"), "{said}");
    check(&cluster, &mut pair);
    let script = "\\copy (SELECT * FROM t ORDER BY id) TO STDOUT CSV\nTRUNCATE notes;\n\
                  \\copy notes FROM STDIN\n7\tseven\n\\.\nSELECT * FROM notes;\n";
    let both = [&oracle, &cluster.proxy()].map(|end| program("psql", end, &psql, script));
    assert_eq!(both[0], both[1]);
    let (is_wrong, said) = program(
        "psql",
        &cluster.proxy(),
        &psql,
        "\\copy t FROM STDIN\n1001\ta\t1\n1002\tb\tx\n\\.\n",
    );
    assert!(
        !is_wrong && said.contains("COPY t, line 2, column n: \"x\""),
        "{said}"
    );
    check(&cluster, &mut pair);
}

#[test]
fn a_copy_takes_part_in_transactions() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let rows = |from: usize| -> String {
        (from..from + 30)
            .map(|id| format!("{id}\ta\t1\n"))
            .collect()
    };
    let sql = "COPY t FROM STDIN";
    for begin in [
        "BEGIN",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN READ ONLY",
    ] {
        for end in ["ROLLBACK", "COMMIT"] {
            pair.once(begin);
            same_text(&mut pair, sql, &rows(1));
            pair.once("SAVEPOINT a");
            same_text(&mut pair, sql, &rows(101));
            pair.once("ROLLBACK TO a");
            same_text(&mut pair, sql, &rows(201));
            pair.once("SELECT count(*), sum(id) FROM t");
            same_text(&mut pair, sql, "301\ta\tx\n");
            pair.once("ROLLBACK TO a");
            pair.once("UPDATE t SET name = 'b' WHERE id = 7");
            pair.once(end);
            check(&cluster, &mut pair);
            pair.once("DELETE FROM t");
        }
    }
    pair.once("SET client_encoding = 'LATIN1'");
    let latin: &[&[u8]] = &[b"\xe9t\xe9\t1\n\xfc\t2\n"];
    same(&mut pair, "COPY names FROM STDIN", latin, End::Done);
    same(
        &mut pair,
        "COPY names FROM STDIN (ENCODING 'UTF8')",
        &["é\t3\n".as_bytes()],
        End::Done,
    );
    pair.once("SET client_encoding = 'UTF8'");
    same(
        &mut pair,
        "COPY names FROM STDIN (ENCODING 'WIN1252')",
        &[b"\x80\t4\n"],
        End::Done,
    );
    same(
        &mut pair,
        "COPY names FROM STDIN",
        &[b"ok\t1\n\xff\t4\n"],
        End::Done,
    );
    check(&cluster, &mut pair);
}
