//! Clients that write in other encodings than UTF-8: what they mean is what PostgreSQL reads.

use shardwire::sql::encoding::Encoding;

use crate::harness::cluster::run_as_superuser;
use crate::harness::{Cluster, Endpoint, Raw, message};

/// PostgreSQL's names of the encodings that have one byte per character.
const SINGLE: &str = "LATIN1 LATIN2 LATIN3 LATIN4 LATIN5 LATIN6 LATIN7 LATIN8 LATIN9 LATIN10 \
    ISO_8859_5 ISO_8859_6 ISO_8859_7 ISO_8859_8 WIN1250 WIN1251 WIN1252 WIN1253 WIN1254 WIN1255 \
    WIN1256 WIN1257 WIN1258 WIN866 WIN874 KOI8R KOI8U";

const KEYS: [&str; 6] = ["größe", "ÿ", "müll", "ñandú", "plain", "Ærø"];

fn cluster(shards: usize) -> Cluster {
    let rows: Vec<String> = KEYS.iter().map(|key| format!("('{key}', 1)")).collect();
    Cluster::new()
        .shards(shards)
        .sharded("words", &["word"])
        .schema("CREATE TABLE words (word text PRIMARY KEY, n int, note text)")
        .rows(&format!("INSERT INTO words VALUES {};", rows.join(", ")))
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
        .start()
}

fn client(endpoint: &Endpoint, encoding: &str) -> Raw {
    Raw::login_with(endpoint, &[("client_encoding", encoding)]).unwrap()
}

/// A text with one byte per character.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

/// A Query of bytes.
fn query(sql: &[u8]) -> Vec<u8> {
    message::frame(b'Q', &[sql, &b"\0"[..]].concat())
}

/// The answer: tags, rows as they are, codes of errors.
fn answer(raw: &mut Raw, messages: &[u8]) -> Vec<(char, Vec<u8>)> {
    raw.send(messages);
    let frames = raw.read_until(b'Z', 1);
    let shown = frames.into_iter().map(|frame| {
        let what = match frame.tag {
            b'D' | b'C' => frame.body,
            b'E' => frame.field(b'C').unwrap().into_bytes(),
            _ => Vec::new(),
        };
        (char::from(frame.tag), what)
    });
    shown.collect()
}

fn code(answer: &[(char, Vec<u8>)]) -> String {
    let error = answer.iter().find(|(tag, _)| *tag == 'E');
    error.map_or(String::new(), |(_, code)| {
        String::from_utf8(code.clone()).unwrap()
    })
}

/// Parse, Bind with one value, Execute, Sync.
fn bound(sql: &str, format: i16, value: &[u8]) -> Vec<u8> {
    [
        message::parse("", sql, &[25]),
        message::bind("", "", &[format], &[Some(value.to_vec())], &[]),
        message::execute("", 0),
        message::sync(),
    ]
    .concat()
}

#[test]
fn single_bytes_are_what_postgresql_takes_them_for() {
    let cluster = Cluster::new().shards(1).without_proxy().start();
    let mut wrong = Vec::new();
    for name in SINGLE.split_whitespace() {
        let script = format!(
            "CREATE OR REPLACE FUNCTION pg_temp.code(byte int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
             RETURN ascii(convert_from(set_byte('\\x00', 0, byte), '{name}')); \
             EXCEPTION WHEN OTHERS THEN RETURN 'none'; END $$; \
             SELECT string_agg(pg_temp.code(b), ' ' ORDER BY b) FROM generate_series(128, 255) b;"
        );
        let codes = run_as_superuser(&cluster.oracle, &script);
        let encoding = Encoding::named(name);
        assert!(encoding.is_exact() && !encoding.is_utf8(), "{name}");
        let codes = codes.lines().last().unwrap().split(' ');
        for (byte, code) in (128_u8..=255).zip(codes) {
            // What PostgreSQL rejects reaches no table.
            let Ok(code) = code.parse::<u32>() else {
                continue;
            };
            let bytes = [byte];
            let read = encoding.read(&bytes);
            let read = read.and_then(|text| text.chars().next().map(u32::from));
            if read != Some(code) {
                wrong.push(format!("{name} {byte:#x}: {code:#x}, not {read:x?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_of_a_latin1_client_lead_to_their_rows() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        for encoding in ["LATIN1", "WIN1252", "iso-8859-15"] {
            let mut one = client(&cluster.oracle(), encoding);
            let mut raw = client(&cluster.proxy(), encoding);
            // Nobody keeps the only connection.
            let mut other = client(&cluster.proxy(), encoding);
            for key in KEYS {
                let key = latin1(key);
                let mut all = Vec::new();
                for sql in [
                    "SELECT word, n FROM words WHERE word = '?' AND note IS NULL",
                    "SELECT 'é', word FROM words WHERE word = E'?' OR word = '?' -- ü",
                    "SELECT word AS \"ä\" FROM words WHERE word IN ('?', '?')",
                    "UPDATE words SET note = 'ß' WHERE word = '?' RETURNING note",
                    "UPDATE words SET note = NULL WHERE word = '?'; SELECT note FROM words WHERE word = '?'",
                    "SELECT pg_backend_pid() > 0, 'é' FROM words WHERE word = '?'",
                ] {
                    let sql = latin1(sql);
                    let parts: Vec<&[u8]> = sql.split(|byte| *byte == b'?').collect();
                    all.push(query(&parts.join(&key[..])));
                }
                let sql = "SELECT word, length(word) FROM words WHERE word = $1";
                all.push(bound(sql, 0, &key));
                all.push(bound(sql, 1, &key));
                for messages in all {
                    let expected = answer(&mut one, &messages);
                    let shown = String::from_utf8_lossy(&messages);
                    assert_eq!(code(&expected), "", "{shown}");
                    assert_eq!(answer(&mut raw, &messages), expected, "{encoding} {shown}");
                    assert_eq!(
                        answer(&mut other, &messages),
                        expected,
                        "{encoding} {shown}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_of_a_latin1_client_are_where_others_look_for_them() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    assert_eq!(
        code(&answer(&mut raw, &query(b"SET client_encoding = 'LATIN1'"))),
        ""
    );
    for word in ["é", "è", "ê", "ë", "à", "â"] {
        let sql = latin1(&format!("INSERT INTO words VALUES ('{word}', 2)"));
        assert_eq!(code(&answer(&mut raw, &query(&sql))), "");
    }
    let binary = bound("INSERT INTO words VALUES ($1, 3)", 1, &latin1("ç"));
    assert_eq!(code(&answer(&mut raw, &binary)), "");
    let mut utf8 = cluster.proxy().raw();
    for word in ["é", "è", "ê", "ë", "à", "â", "ç"] {
        let sql = format!("SELECT n FROM words WHERE word = '{word}'");
        let rows = answer(&mut utf8, &query(sql.as_bytes()));
        assert!(rows.iter().any(|(tag, _)| *tag == 'D'), "{word}");
    }
}

#[test]
fn a_backslash_within_a_character_is_none() {
    let cluster = cluster(2);
    let mut one = client(&cluster.oracle(), "SJIS");
    let mut raw = client(&cluster.proxy(), "SJIS");
    // The second byte is a backslash, and it would hide the quote behind it.
    let text = b"SELECT E'\x83\x5c', n, '\x95\\' FROM words WHERE word = 'plain'";
    let expected = answer(&mut one, &query(text));
    assert_eq!(code(&expected), "");
    assert_eq!(answer(&mut raw, &query(text)), expected);
    // The key is not known, so every shard is asked.
    let text = b"UPDATE words SET n = n WHERE word = '\x83\x5c'";
    let expected = answer(&mut one, &query(text));
    assert_eq!(answer(&mut raw, &query(text)), expected);
    for refused in [
        &b"SELECT n AS \"\x83\x5c\" FROM words WHERE word = 'plain'"[..],
        b"SELECT n FROM \x83\x5c",
        b"SET application_name = '\x83\x5c'",
    ] {
        assert_eq!(code(&answer(&mut raw, &query(refused))), "0A000");
    }
    let sql = "UPDATE words SET n = n WHERE word = $1";
    for key in [&b"\x83\x5c"[..], b"plain"] {
        let expected = answer(&mut one, &bound(sql, 0, key));
        assert_eq!(answer(&mut raw, &bound(sql, 0, key)), expected);
    }
}

#[test]
fn sql_ascii_takes_texts_as_they_are() {
    let cluster = cluster(2);
    let mut one = client(&cluster.oracle(), "SQL_ASCII");
    let mut raw = client(&cluster.proxy(), "SQL_ASCII");
    for key in KEYS {
        let sql = format!("SELECT word, n FROM words WHERE word = '{key}'");
        let expected = answer(&mut one, &query(sql.as_bytes()));
        assert_eq!(answer(&mut raw, &query(sql.as_bytes())), expected);
    }
    let invalid = query(b"SELECT n FROM words WHERE word = '\xe9'");
    assert_eq!(code(&answer(&mut one, &invalid)), "22021");
    assert_eq!(code(&answer(&mut raw, &invalid)), "0A000");
}
