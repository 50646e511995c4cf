//! Data in any pieces, its lines and its faults.

use super::*;
use crate::plan::Route;
use crate::plan::tests::fixture::Fixture;
use proptest::prelude::*;
use std::sync::OnceLock;

const SCHEMA: &str = "shards s0 s1 s2
table t(id bigint, b text): shard_key id
table c(a text, id bigint): shard_key [a, id]
table w(name text): shard_key name";

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let (fixture, problems) = Fixture::parse(SCHEMA);
        assert!(problems.is_empty(), "{problems:?}");
        fixture
    })
}

fn splitter(sql: &str, most_bytes: usize) -> Splitter {
    let plan = fixture().plan(sql, &[]);
    let Route::CopyIn(copy) = &plan.route else {
        panic!("{sql}: {plan}");
    };
    let splitter = copy.splitter(Encoding::Utf8, most_bytes);
    splitter.unwrap().unwrap()
}

/// What became of the data: what each shard has got, the lines of each, and the fault.
type Done = (
    Vec<(Vec<u8>, Vec<Option<u64>>)>,
    Option<(u64, String, Option<usize>)>,
);

fn split(sql: &str, pieces: &[&[u8]]) -> Done {
    let mut splitter = splitter(sql, 1 << 20);
    let mut outcome = Ok(());
    for piece in pieces {
        if outcome.is_ok() {
            outcome = splitter.feed(piece).map(drop);
        }
    }
    let outcome = outcome.and_then(|()| splitter.finish());
    let parts = splitter.parts().iter().map(|part| {
        let lines = (1..part.lines.count() + 1).map(|line| part.lines.of_client(line));
        (part.bytes.clone(), lines.collect())
    });
    let fault = outcome.err();
    let fault = fault.map(|fault| (fault.line, fault.error.to_string(), fault.part));
    (parts.collect(), fault)
}

/// The rows that came out, in any order.
fn rows(sql: &str, data: &str) -> Vec<String> {
    let (parts, fault) = split(sql, &[data.as_bytes()]);
    assert_eq!(fault, None, "{data:?}");
    let texts = parts
        .into_iter()
        .map(|(bytes, _)| String::from_utf8(bytes).unwrap());
    texts.filter(|text| !text.is_empty()).collect()
}

fn fault(sql: &str, data: &str) -> (u64, String) {
    let (_, fault) = split(sql, &[data.as_bytes()]);
    let (line, error, _) = fault.unwrap_or_else(|| panic!("{data:?} is taken"));
    (line, error)
}

#[test]
fn every_row_goes_to_the_shard_of_its_key() {
    let data = (1..=100)
        .map(|id| format!("{id}\tb{id}\n"))
        .collect::<String>();
    let mut splitter = splitter("COPY t FROM STDIN", 1000);
    splitter.feed(data.as_bytes()).unwrap();
    splitter.finish().unwrap();
    let placement = splitter.layout.placement.clone().unwrap();
    let mut count = 0;
    for part in splitter.parts() {
        for line in String::from_utf8_lossy(&part.bytes).lines() {
            let id = line.split('\t').next().unwrap().parse().unwrap();
            assert_eq!(placement.shard(&[Key::Int(id)]), Ok(part.shard));
            count += 1;
        }
    }
    assert_eq!(count, 100);
}

#[test]
fn one_row_may_have_many_lines() {
    for (sql, data) in [
        ("COPY t FROM STDIN", "1\ta\\\nb\\\\\\\n\n"),
        ("COPY t FROM STDIN", "1\ta\\\tb\n"),
        ("COPY t FROM STDIN CSV", "1,\"a\nb\"\"\r\n,\"\n"),
        ("COPY t FROM STDIN CSV", "\"1\",a\"\n\"b\n"),
        ("COPY t FROM STDIN CSV ESCAPE '\\'", "1,\"\\\"\n\\\\\"\n"),
        ("COPY t (b, id) FROM STDIN CSV QUOTE ''''", "'\n,',1\n"),
        ("COPY t FROM STDIN CSV DELIMITER ';'", "1;\"\n\"\r\n"),
    ] {
        assert_eq!(rows(sql, data), [data], "{sql}");
    }
}

#[test]
fn keys_are_read_as_postgresql_reads_them() {
    for (sql, one, other) in [
        ("COPY w FROM STDIN", "a\\142c\n", "abc\n"),
        ("COPY w FROM STDIN", "\\x61\\b\n", "a\\x8\n"),
        ("COPY w FROM STDIN CSV", "\"a\"\"b\"\n", "a\"\"\"\"b\n"),
        ("COPY t FROM STDIN CSV", "\"7\",\n", "7,\n"),
        (
            "COPY t FROM STDIN (FORMAT csv, FORCE_NOT_NULL (b), NULL 'x')",
            "7,x\n",
            "7,y\n",
        ),
    ] {
        let way = |data: &str| {
            let (parts, fault) = split(sql, &[data.as_bytes()]);
            assert_eq!(fault, None, "{sql} {data:?}");
            parts.iter().position(|(bytes, _)| !bytes.is_empty())
        };
        assert_eq!(way(one), way(other), "{sql} {one:?}");
    }
}

#[test]
fn the_first_end_of_a_line_decides() {
    let text = "COPY t FROM STDIN";
    for (data, line, message) in [
        ("1\ta\n2\tb\r\n", 2, "literal carriage return"),
        ("1\ta\r\n2\tb\n", 2, "literal newline"),
        ("1\ta\r\n2\tb\rc\r\n", 2, "literal carriage return"),
        ("1\ta\r2\tb\r\n", 3, "literal newline"),
        ("1\ta\n\\.\r\n", 2, "does not match previous newline style"),
        ("1\ta\n\\.x\n", 2, "end-of-copy marker corrupt"),
        ("1\ta\n\\.", 2, "end-of-copy marker corrupt"),
        ("1\ta\r\n2\tb\r", 2, "literal carriage return"),
    ] {
        let (found, error) = fault(text, data);
        assert!(
            found == line && error.contains(message),
            "{data:?}: {found} {error}"
        );
    }
    let (line, error) = fault("COPY t FROM STDIN CSV", "1,\"a\nb\"\n2,\r\n");
    // The lines of the first row are counted as if lines ended with carriage returns.
    assert!(
        line == 2 && error.contains("unquoted carriage return"),
        "{line} {error}"
    );
    for ending in ["\n", "\r", "\r\n"] {
        let data = format!("1\ta{ending}2\tb{ending}\\.{ending}junk");
        let rows = rows(text, &data).concat();
        assert_eq!(rows.len(), 2 * (3 + ending.len()), "{rows:?}");
    }
}

#[test]
fn the_header_goes_to_every_shard() {
    let data = "id,\"b\nb\"\n1,a\n2,b\n3,c\n";
    let (parts, _) = split("COPY t FROM STDIN CSV HEADER", &[data.as_bytes()]);
    for (bytes, lines) in parts {
        assert!(bytes.starts_with(b"id,\"b\nb\"\n"));
        assert_eq!(lines.first(), Some(&Some(1)));
    }
}

#[test]
fn rows_that_postgresql_rejects_are_the_last() {
    for (sql, data, line) in [
        ("COPY t FROM STDIN", "1\ta\nx\tb\n3\tc\n", 2),
        ("COPY c FROM STDIN", "a\t1\nb\n", 2),
        ("COPY t FROM STDIN CSV", "1,a\n9223372036854775808,b\n", 2),
        ("COPY t FROM STDIN CSV", "1,a\n\"2\n\n,b\n", 5),
    ] {
        let (parts, fault) = split(sql, &[data.as_bytes()]);
        let (found, _, part) = fault.unwrap();
        assert_eq!((found, part), (line, Some(0)), "{data:?}");
        assert!(parts.iter().map(|(bytes, _)| bytes.len()).sum::<usize>() <= data.len());
    }
    let (line, error) = fault("COPY t FROM STDIN CSV", "1,a\n,b\n");
    assert!(line == 2 && error.contains("23502"), "{error}");
}

#[test]
fn long_rows_pass_as_they_come() {
    let mut splitter = splitter("COPY t FROM STDIN", 100_000);
    splitter.feed(b"1\t").unwrap();
    for _ in 0..1000 {
        splitter.feed(&[b'x'; 1000]).unwrap();
        assert!(splitter.pending.len() <= LONG_ROW_BYTES + 1000);
    }
    splitter.feed(b"\n2\tb\n").unwrap();
    splitter.finish().unwrap();
    let bytes: usize = splitter.parts().iter().map(|part| part.bytes.len()).sum();
    assert_eq!(bytes, 1_000_007);
    let mut splitter = self::splitter("COPY t (b, id) FROM STDIN", 10_000);
    let fault = splitter.feed(&[b'x'; 20_000]).unwrap_err();
    assert!(fault.error.to_string().contains("54000"), "{}", fault.error);
}

fn binary(rows: &[(Option<i64>, &[u8])], is_ended: bool) -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02xx".to_vec();
    for (id, b) in rows {
        out.extend(2_i16.to_be_bytes());
        match id {
            Some(id) => {
                out.extend(8_i32.to_be_bytes());
                out.extend(id.to_be_bytes());
            }
            None => out.extend((-1_i32).to_be_bytes()),
        }
        out.extend((b.len() as i32).to_be_bytes());
        out.extend(*b);
    }
    if is_ended {
        out.extend((-1_i16).to_be_bytes());
    }
    out
}

#[test]
fn binary_tuples_are_told_apart() {
    let sql = "COPY t FROM STDIN (FORMAT binary)";
    let data = binary(&[(Some(1), b"a"), (Some(2), b""), (Some(3), b"c")], true);
    let (parts, fault) = split(sql, &[&data]);
    assert_eq!(fault, None);
    let bytes: usize = parts.iter().map(|(bytes, _)| bytes.len()).sum();
    assert_eq!(bytes, data.len() + 2 * 23);
    assert!(parts.iter().all(|(bytes, _)| bytes.ends_with(b"\xff\xff")));
    for (data, line) in [
        (binary(&[(Some(1), b"a"), (None, b"b")], true), 2),
        (binary(&[(Some(1), b"a")], false)[..38].to_vec(), 1),
        ([binary(&[], true), b"x".to_vec()].concat(), 1),
        (b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec(), 1),
        (Vec::new(), 1),
    ] {
        let (_, fault) = split(sql, &[&data]);
        assert_eq!(fault.map(|fault| fault.0), Some(line), "{data:?}");
    }
    let (_, fault) = split(sql, &[&binary(&[(Some(1), b"a")], false)]);
    assert_eq!(fault, None);
}

/// The data in pieces that end at the marks.
fn pieces<'a>(data: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
    cuts.push(data.len());
    cuts.sort_unstable();
    let mut from = 0;
    let piece = |cut: usize| data.get(std::mem::replace(&mut from, cut)..cut).unwrap();
    cuts.into_iter().map(piece).collect()
}

const STATEMENTS: [&str; 9] = [
    "COPY t FROM STDIN",
    "COPY t (b, id) FROM STDIN DELIMITER ',' NULL ''",
    "COPY t FROM STDIN CSV",
    "COPY t (b, id) FROM STDIN CSV ESCAPE '\\'",
    "COPY c FROM STDIN CSV HEADER",
    "COPY c FROM STDIN (HEADER)",
    "COPY w FROM STDIN",
    "COPY w FROM STDIN CSV ESCAPE ','",
    "COPY t FROM STDIN BINARY",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_pieces_give_the_same(
        statement in 0..STATEMENTS.len(),
        words in proptest::collection::vec(proptest::sample::select(vec![
            "\n", "\n", "\r\n", "\r", "1", "2", "3", "\t", "\t", ",", "\"", "\\", "\\.", ".", "a", "\\N",
        ]), 0..40),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let data = words.concat();
        let sql = STATEMENTS[statement];
        let whole = split(sql, &[data.as_bytes()]);
        let bytes: Vec<&[u8]> = data.as_bytes().chunks(1).collect();
        prop_assert_eq!(&split(sql, &pieces(data.as_bytes(), &cuts)), &whole);
        prop_assert_eq!(&split(sql, &bytes), &whole);
    }

    #[test]
    fn any_pieces_of_binary_data_give_the_same(
        ids in proptest::collection::vec(proptest::option::weighted(0.9, 0..50_i64), 0..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        broken in proptest::option::of((any::<usize>(), any::<u8>())),
    ) {
        let tuples: Vec<(Option<i64>, &[u8])> = ids.iter().map(|id| (*id, &b"xyz"[..])).collect();
        let mut data = binary(&tuples, true);
        if let Some((at, byte)) = broken {
            let at = at % data.len();
            data[at] = byte;
        }
        let sql = "COPY t FROM STDIN BINARY";
        let whole = split(sql, &[&data]);
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        prop_assert_eq!(&split(sql, &pieces(&data, &cuts)), &whole);
        prop_assert_eq!(&split(sql, &bytes), &whole);
    }
}
