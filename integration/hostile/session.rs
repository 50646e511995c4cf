//! Hostile bytes in a session.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Case;
use crate::harness::message::{
    bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, frame, parse, query,
    sync,
};

pub fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(tags());
    cases.extend(bodies());
    cases.extend(order());
    cases.extend(texts());
    cases.extend(random());
    cases
}

/// Lengths that lie.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for tag in [b'Q', b'P', b'B', b'd', b'S', b'X', b'p', b'F', 0, 0xff] {
        for length in [0, 1, 2, 3, -1, i32::MIN, i32::MAX, 0x4000_0000] {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&i32::to_be_bytes(length));
            bytes.extend_from_slice(b"SELECT 1\0");
            cases.push(Case::new(format!("tag {tag} of length {length}"), bytes));
        }
    }
    let whole = [query("SELECT 1"), parse("a", "SELECT $1", &[23]), sync()].concat();
    for end in 1..whole.len() {
        cases.push(Case::new(format!("the first {end} bytes"), &whole[..end]));
    }
    cases
}

/// Every tag with nothing, and the known ones with zeroes.
fn tags() -> Vec<Case> {
    let case = |tag: u8, body: &[u8]| {
        let bytes = [frame(tag, body), sync()].concat();
        Case::new(format!("tag {tag} with {} zeroes", body.len()), bytes)
    };
    let empty = (0..=255).map(|tag| case(tag, b""));
    let zeroes = b"QPBEDCSHFdcfpX".iter().map(|tag| case(*tag, &[0; 10]));
    empty.chain(zeroes).collect()
}

/// Bodies that end too early, too late, or count wrongly.
#[allow(clippy::too_many_lines, reason = "a table")]
fn bodies() -> Vec<Case> {
    let mut cases = Vec::new();
    let messages = [
        ("Query", query("SELECT 1")),
        ("Parse", parse("name", "SELECT $1::int", &[23])),
        ("Bind", bind("", "", &[0], &[Some(b"1".to_vec())], &[1])),
        ("Describe", describe(b'S', "name")),
        ("Execute", execute("", 5)),
        ("Close", close(b'P', "name")),
        ("CopyFail", copy_fail("why")),
    ];
    for (name, message) in messages {
        let (tag, body) = (message[0], &message[5..]);
        for end in 0..body.len() {
            let bytes = [
                parse("", "SELECT $1::int", &[]),
                frame(tag, &body[..end]),
                sync(),
            ];
            cases.push(Case::new(format!("{name} cut to {end}"), bytes.concat()));
        }
        let longer = frame(tag, &[body, b"more"].concat());
        cases.push(Case::new(
            format!("{name} with more"),
            [longer, sync()].concat(),
        ));
    }
    let counts: &[(&str, u8, &[u8])] = &[
        ("Parse of 65535 types", b'P', b"\0SELECT 1\0\xff\xff"),
        (
            "Parse of 32767 types",
            b'P',
            b"\0SELECT 1\0\x7f\xff\0\0\0\x17",
        ),
        ("Bind of 65535 formats", b'B', b"\0\0\xff\xff"),
        (
            "Bind of 65535 values",
            b'B',
            b"\0\0\0\0\xff\xff\xff\xff\xff\xff",
        ),
        ("Bind of 65535 results", b'B', b"\0\0\0\0\0\0\xff\xff"),
        (
            "Bind of a value of 2 GiB",
            b'B',
            b"\0\0\0\0\0\x01\x7f\xff\xff\xff",
        ),
        (
            "Bind of a value of -2",
            b'B',
            b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
        ),
        (
            "Bind of the lowest length",
            b'B',
            b"\0\0\0\0\0\x01\x80\0\0\0\0\0",
        ),
        (
            "Bind with format 9",
            b'B',
            b"\0\0\0\x01\0\x09\0\x01\0\0\0\x011\0\0",
        ),
        (
            "Bind with format -1",
            b'B',
            b"\0\0\0\x01\xff\xff\0\x01\0\0\0\x011\0\0",
        ),
        ("Execute of the lowest number", b'E', b"\0\x80\0\0\0"),
        ("Describe of kind 0", b'D', b"\0\0"),
        ("Close of kind 255", b'C', b"\xff\0"),
        ("a name that is no UTF-8", b'D', b"S\xff\xfe\0"),
        (
            "a statement that is no UTF-8",
            b'P',
            b"\xff\0SELECT '\xff'\0\0\0",
        ),
    ];
    for (what, tag, body) in counts {
        let prepared = parse("", "SELECT $1::int", &[]);
        cases.push(Case::new(
            *what,
            [prepared, frame(*tag, body), sync()].concat(),
        ));
    }
    let many: Vec<Option<Vec<u8>>> = vec![Some(b"1".to_vec()); 65_535];
    cases.push(Case::new(
        "65535 values",
        [bind("", "", &[], &many, &[]), sync()].concat(),
    ));
    let types = vec![23; 65_535];
    cases.push(Case::new(
        "65535 types",
        [parse("", "SELECT 1", &types), sync()].concat(),
    ));
    let name = "n".repeat(100_000);
    cases.push(Case::new(
        "a long name",
        [parse(&name, "SELECT 1", &[]), sync()].concat(),
    ));
    cases
}

/// Messages where they have no place.
#[allow(clippy::too_many_lines, reason = "a table")]
fn order() -> Vec<Case> {
    let copy = || query("COPY (SELECT 1) TO STDOUT");
    let none: &[Option<Vec<u8>>] = &[];
    let sequences: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (
            "CopyData without COPY",
            vec![copy_data(b"x"), copy_done(), sync()],
        ),
        ("CopyFail without COPY", vec![copy_fail("x"), sync()]),
        (
            "much CopyData without COPY",
            vec![copy_data(&[b'x'; 8000]).repeat(500), sync()],
        ),
        (
            "CopyData into COPY TO",
            vec![copy(), copy_data(b"x"), copy_done(), sync()],
        ),
        (
            "an endless COPY",
            vec![
                query("COPY pg_temp.nowhere FROM STDIN"),
                copy_data(b"x").repeat(9),
            ],
        ),
        (
            "COPY and the end",
            vec![query("CREATE TEMP TABLE c (a int); COPY c FROM STDIN")],
        ),
        (
            "COPY and half a row",
            vec![
                query("CREATE TEMP TABLE c (a int); COPY c FROM STDIN"),
                copy_data(b"1"),
            ],
        ),
        (
            "COPY and garbage",
            vec![
                query("CREATE TEMP TABLE c (a int); COPY c FROM STDIN"),
                frame(b'z', b"garbage"),
            ],
        ),
        ("Execute without Bind", vec![execute("", 0), sync()]),
        (
            "Bind without Parse",
            vec![bind("", "", &[], none, &[]), sync()],
        ),
        (
            "Describe without anything",
            vec![describe(b'P', ""), sync()],
        ),
        ("Sync many times", vec![sync().repeat(2000)]),
        ("Flush many times", vec![flush().repeat(5000), sync()]),
        ("empty queries many times", vec![query("").repeat(2000)]),
        (
            "Close many times",
            vec![close(b'S', "x").repeat(3000), sync()],
        ),
        (
            "no Sync",
            vec![
                parse("", "SELECT 1", &[]),
                bind("", "", &[], none, &[]),
                execute("", 0),
            ],
        ),
        (
            "a startup",
            vec![crate::harness::message::startup(&[("user", "app")])],
        ),
        (
            "an SSLRequest",
            vec![crate::harness::message::ssl_request()],
        ),
        ("passwords", vec![frame(b'p', b"x\0").repeat(10)]),
        (
            "messages after Terminate",
            vec![frame(b'X', b""), query("SELECT 1").repeat(100)],
        ),
        (
            "an open transaction and the end",
            vec![query("BEGIN"), query("SELECT 1")],
        ),
        (
            "a failed transaction and the end",
            vec![query("BEGIN"), query("SELECT 1/0")],
        ),
        (
            "many statements prepared",
            vec![
                (0..2000)
                    .flat_map(|i| parse(&format!("s{i}"), "SELECT 1", &[]))
                    .collect(),
                sync(),
            ],
        ),
        (
            "many portals bound",
            vec![
                query("BEGIN"),
                parse("", "SELECT 1", &[]),
                (0..1000)
                    .flat_map(|i| bind(&format!("p{i}"), "", &[], none, &[]))
                    .collect(),
                sync(),
            ],
        ),
        ("errors many times", vec![query("SELECT 1/0").repeat(500)]),
    ];
    let join = |(what, parts): (&str, Vec<Vec<u8>>)| Case::new(what, parts.concat());
    sequences.into_iter().map(join).collect()
}

/// Texts that parsers choke on.
#[allow(clippy::too_many_lines, reason = "a table")]
fn texts() -> Vec<Case> {
    let deep = 20_000;
    let texts: Vec<(&str, String)> = vec![
        ("open parentheses", format!("SELECT {}", "(".repeat(deep))),
        (
            "parentheses",
            format!("SELECT {}1{}", "(".repeat(deep), ")".repeat(deep)),
        ),
        ("brackets", format!("SELECT {}", "ARRAY[".repeat(deep))),
        ("CASE", format!("SELECT {}", "CASE WHEN ".repeat(deep))),
        ("NOT", format!("SELECT {} true", "NOT ".repeat(deep))),
        ("minus", format!("SELECT {}1", "- ".repeat(deep))),
        ("casts", format!("SELECT 1{}", "::int".repeat(deep))),
        ("subqueries", format!("SELECT {}1", "(SELECT ".repeat(deep))),
        (
            "joins",
            format!("SELECT * FROM t{}", " JOIN t".repeat(deep)),
        ),
        ("sums", format!("SELECT 1{}", "+1".repeat(deep))),
        ("ORs", format!("SELECT true{}", " OR true".repeat(deep))),
        (
            "UNIONs",
            format!("SELECT 1{}", " UNION SELECT 1".repeat(2000)),
        ),
        (
            "an IN list",
            format!("SELECT 1 WHERE 1 IN (0{})", ", 1".repeat(deep)),
        ),
        ("semicolons", ";".repeat(100_000)),
        ("statements", "SELECT 1;".repeat(2000)),
        (
            "comments",
            format!("{}{} SELECT 1", "/*".repeat(2000), "*/".repeat(2000)),
        ),
        ("an open comment", format!("SELECT 1 {}", "/*".repeat(2000))),
        ("an open quote", "SELECT 'abc".into()),
        ("an open name", "SELECT \"abc".into()),
        ("an open dollar quote", "SELECT $a$ $b$ $a ".into()),
        ("dollar tags", format!("SELECT {}", "$".repeat(deep))),
        ("an open escape", "SELECT E'\\".into()),
        (
            "unicode escapes",
            "SELECT U&'\\+FFFFFF', U&'\\D800', U&'\\' UESCAPE '+'".into(),
        ),
        ("an empty name", "SELECT \"\"".into()),
        ("a long name", format!("SELECT {}", "x".repeat(200_000))),
        ("a long number", format!("SELECT {}", "9".repeat(200_000))),
        (
            "a long string",
            format!("SELECT '{}'", "x".repeat(2_000_000)),
        ),
        ("a high parameter", "SELECT $99999999999999999999".into()),
        ("parameter zero", "SELECT $0".into()),
        ("parameter 65536", "SELECT $65536".into()),
        (
            "odd characters",
            "SELECT \u{feff}1, \u{a0}, \u{2028}, '\u{202e}'".into(),
        ),
        (
            "operators",
            format!("SELECT 1 {} 2", "+*/<>=~!@#%^&|`?".repeat(1000)),
        ),
        ("a hint that does not end", "/* shardwire: shard=".into()),
        (
            "a hint of nonsense",
            "/* shardwire: shard=s99 shard_key=';-- */ SELECT 1".into(),
        ),
        ("settings", "SET shardwire.shard = 's99'; SELECT 1".into()),
        (
            "a value of nonsense",
            "SET shardwire.read_preference = ''';DROP'".into(),
        ),
        (
            "the console",
            "SHOW SHARDWIRE ; SHOW SHARDWIRE x; SHOW SHARDWIRE SHARDS garbage".into(),
        ),
        ("nothing but NOT", "NOT".into()),
        (
            "BEGIN and nonsense",
            "BEGIN nonsense; COMMIT nonsense; ROLLBACK TO".into(),
        ),
        (
            "PREPARE of itself",
            "PREPARE a AS EXECUTE a; EXECUTE a".into(),
        ),
        (
            "COPY of nonsense",
            "COPY FROM STDIN; COPY (; COPY t TO".into(),
        ),
    ];
    let mut cases = Vec::new();
    for (what, text) in texts {
        cases.push(Case::new(format!("{what}, simple"), query(&text)));
        let bytes = [parse("", &text, &[]), describe(b'S', ""), sync()].concat();
        cases.push(Case::new(format!("{what}, prepared"), bytes));
    }
    cases
}

/// A session's bytes with some changed, dropped, doubled or cut, by a fixed seed.
fn random() -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(11);
    let values = [Some(b"1".to_vec()), None];
    let original = [
        query("SELECT 1, 'two'"),
        parse("s", "SELECT $1::int, $2::text", &[23, 25]),
        describe(b'S', "s"),
        bind("p", "s", &[0, 0], &values, &[0]),
        describe(b'P', "p"),
        execute("p", 1),
        flush(),
        close(b'P', "p"),
        sync(),
        query("COPY (SELECT 1) TO STDOUT"),
        query("BEGIN"),
        query("ROLLBACK"),
    ]
    .concat();
    let mut cases = Vec::new();
    for number in 0..400 {
        let mut bytes = original.clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            let end = (at + random.random_range(1..9)).min(bytes.len());
            match random.random_range(0..5) {
                0 => bytes[at] = random.random(),
                1 => bytes[at] ^= 1 << random.random_range(0..8),
                2 => drop(bytes.drain(at..end)),
                3 => bytes.extend_from_within(at..end),
                _ => bytes.insert(at, random.random()),
            }
        }
        cases.push(Case::new(format!("changed session {number}"), bytes));
    }
    cases
}
