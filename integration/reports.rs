//! ParameterStatus: what a client has been told of its settings by the time that the server is ready is what
//! they are, as with PostgreSQL. Clients encode and read what they send and get by it.

use std::collections::BTreeMap;
use std::env;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::raw::Frame;
use crate::harness::{Cluster, Endpoint, Raw, message};

const SCHEMA: &str = "CREATE TABLE users (user_id bigint PRIMARY KEY, name text)";

/// What the startup packet names.
const STARTUP: [(&str, &str); 4] = [
    ("client_encoding", "LATIN1"),
    ("DateStyle", "SQL, DMY"),
    ("TimeZone", "Europe/Berlin"),
    ("application_name", "reports"),
];

/// Settings that are reported and that sessions set.
const REPORTED: [&str; 6] = [
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "application_name",
    "IntervalStyle",
    "standard_conforming_strings",
];

/// A session and what it has been told.
struct Client {
    raw: Raw,
    told: BTreeMap<String, String>,
}

impl Client {
    fn new(endpoint: &Endpoint, startup: &[(&str, &str)]) -> Client {
        let raw = Raw::login_with(endpoint, startup).unwrap();
        let told = REPORTED.map(|name| (name.to_owned(), raw.parameters[name].clone()));
        Client {
            raw,
            told: told.into(),
        }
    }

    /// What the statement's answer ends with, if it comes.
    fn say(&mut self, sql: &str, is_extended: bool) -> Option<u8> {
        let messages = match is_extended {
            false => message::query(sql),
            true => [
                message::parse("", sql, &[]),
                message::bind("", "", &[], &[], &[]),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        };
        self.raw.send(&messages);
        let (frames, end) = self.raw.try_read_until(b'Z', 1);
        frames.iter().for_each(|frame| self.note(frame));
        end.ok()?;
        frames.last().map(|frame| frame.body[0])
    }

    fn note(&mut self, frame: &Frame) {
        if frame.tag == b'S' {
            let mut words = frame.body.split(|byte| *byte == 0);
            let mut next = || String::from_utf8_lossy(words.next().unwrap()).into_owned();
            let (name, value) = (next(), next());
            if REPORTED.contains(&name.as_str()) {
                self.told.insert(name, value);
            }
        }
    }
}

/// Runs statements here and there; after each the clients know the same.
fn compare(cluster: &Cluster, startup: &[(&str, &str)], statements: &[(String, bool)]) {
    let mut here = Client::new(&cluster.proxy(), startup);
    let mut there = Client::new(&cluster.oracle(), startup);
    assert_eq!(here.told, there.told);
    for (at, (sql, is_extended)) in statements.iter().enumerate() {
        let ready = [&mut here, &mut there].map(|client| client.say(sql, *is_extended));
        let so_far = &statements[..=at];
        assert_eq!(ready[0], ready[1], "{so_far:#?}");
        assert_eq!(here.told, there.told, "{so_far:#?}");
    }
}

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i")
        .setting("max_prepared_transactions", "20")
        .start()
}

/// The second of two clients that ask for the same need not ask a server.
#[test]
fn logins_alike_are_told_the_same() {
    let cluster = cluster(2);
    let startups: [&[(&str, &str)]; 5] = [
        &[],
        &STARTUP,
        &[("TimeZone", "europe/berlin"), ("DateStyle", "german")],
        &[("options", "-c timezone=utc -c intervalstyle=iso_8601")],
        &[("application_name", "n\u{e4}me")],
    ];
    for startup in startups {
        for _ in 0..3 {
            compare(
                &cluster,
                startup,
                &[
                    ("SET TimeZone = 'Asia/Tokyo'".to_owned(), false),
                    ("SET application_name = 'other'".to_owned(), false),
                    ("RESET ALL".to_owned(), true),
                    ("SELECT count(*) FROM users".to_owned(), false),
                ],
            );
        }
    }
    for _ in 0..3 {
        for endpoint in [cluster.proxy(), cluster.oracle()] {
            let refused = Raw::login_with(&endpoint, &[("TimeZone", "nowhere")]);
            let code = refused.err().and_then(|error| error.field(b'C'));
            assert_eq!(code.as_deref(), Some("22023"));
        }
    }
}

#[test]
fn a_client_knows_its_settings_when_the_server_is_ready() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        for statements in [
            &["RESET ALL", "SELECT 1", "DISCARD ALL", "SELECT 1"][..],
            &["SET client_encoding = UTF8", "RESET ALL"],
            &["SET client_encoding = UTF8", "DISCARD ALL"],
            &["BEGIN", "SET client_encoding = UTF8", "ROLLBACK"],
            &["BEGIN", "SET LOCAL client_encoding = UTF8", "COMMIT"],
            &["BEGIN", "SET client_encoding = UTF8", "COMMIT", "RESET ALL"],
            &[
                "BEGIN",
                "SET TimeZone = UTC",
                "SAVEPOINT s",
                "SET TimeZone = 'Asia/Tokyo'",
                "SET DateStyle = ISO",
                "ROLLBACK TO s",
                "ROLLBACK",
            ],
            &["BEGIN", "SET TimeZone = UTC", "RESET ALL", "ROLLBACK"],
            &[
                "SET application_name = 'x'; RESET ALL; SET TimeZone = UTC",
                "RESET ALL",
            ],
        ] {
            for is_extended in [false, true] {
                let as_sent = |sql: &&str| (sql.to_string(), is_extended && !sql.contains(';'));
                let statements: Vec<_> = statements.iter().map(as_sent).collect();
                compare(&cluster, &STARTUP, &statements);
                compare(&cluster, &[], &statements);
            }
        }
    }
}

fn pick<T: Copy>(random: &mut StdRng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}

/// A statement that may change what is reported, or ends what did.
fn statement(random: &mut StdRng) -> String {
    let name = pick(random, &REPORTED);
    let value = match name {
        "client_encoding" => pick(random, &["UTF8", "LATIN1", "LATIN9", "nonsense"]),
        "DateStyle" => pick(random, &["ISO", "German", "SQL, MDY", "DMY"]),
        "TimeZone" => pick(random, &["UTC", "Asia/Tokyo", "nowhere"]),
        "application_name" => pick(random, &["one", "two", ""]),
        "IntervalStyle" => pick(random, &["iso_8601", "postgres"]),
        _ => pick(random, &["on", "off"]),
    };
    let quoted: Vec<String> = value.split(", ").map(|one| format!("'{one}'")).collect();
    let quoted = quoted.join(", ");
    match random.random_range(0..16) {
        0 => "BEGIN".to_owned(),
        1 => "COMMIT".to_owned(),
        2 => "ROLLBACK".to_owned(),
        3 => "SAVEPOINT s".to_owned(),
        4 => "ROLLBACK TO s".to_owned(),
        5 => "RESET ALL".to_owned(),
        6 => "DISCARD ALL".to_owned(),
        7 => format!("RESET {name}"),
        8 => format!("SET {name} TO DEFAULT"),
        9 => format!("SET LOCAL {name} TO {quoted}"),
        10 => format!("SELECT set_config('{name}', '{value}', false)"),
        11 => "SELECT count(*) FROM users".to_owned(),
        12 => format!(
            "SELECT name FROM users WHERE user_id = {}",
            random.random_range(1..9)
        ),
        13 => "SELECT 1 / 0".to_owned(),
        _ => format!("SET {name} TO {quoted}"),
    }
}

#[test]
fn a_transaction_that_resets_all_may_use_every_shard() {
    let cluster = cluster(2);
    for startup in [&STARTUP[..], &[]] {
        for first in ["SELECT 1", "SELECT name FROM users WHERE user_id = 1"] {
            let statements = [
                "SET work_mem = '5MB'",
                "BEGIN",
                first,
                "SET TimeZone = UTC",
                "RESET ALL",
                "SELECT count(*) FROM users",
                "SELECT name FROM users WHERE user_id = 4",
                "SAVEPOINT s",
                "SET TimeZone = 'Asia/Tokyo'",
                "RESET ALL",
                "UPDATE users SET name = name",
                "COMMIT",
                "SELECT count(*) FROM users WHERE name = 'user ' || user_id",
            ];
            let statements = statements.map(|sql| (sql.to_owned(), false));
            compare(&cluster, startup, &statements);
            let mut raw = Raw::login_with(&cluster.proxy(), startup).unwrap();
            for sql in ["SET work_mem = '5MB'", "BEGIN", first, "RESET ALL"] {
                raw.query(sql);
            }
            for shard in ["s0", "s1"] {
                let sql = format!("/* shardwire: shard={shard} */ SHOW work_mem");
                assert_eq!(raw.rows(&sql), [["4MB"]], "{shard}");
            }
            assert_eq!(raw.rows("SELECT count(*) FROM users"), [["8"]]);
            raw.query("ROLLBACK");
            for shard in ["s0", "s1"] {
                let sql = format!("/* shardwire: shard={shard} */ SHOW work_mem");
                assert_eq!(raw.rows(&sql), [["5MB"]], "{shard}");
            }
        }
    }
}

#[test]
fn a_setting_is_given_back_within_a_batch() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        for reset in ["RESET TimeZone", "RESET DateStyle", "RESET ALL"] {
            for (last, code) in [("SELECT 1", None), ("SELECT 1 / 0", Some("22012"))] {
                for endpoint in [cluster.proxy(), cluster.oracle()] {
                    let mut raw = Raw::login_with(&endpoint, &STARTUP).unwrap();
                    raw.query("SET TimeZone = UTC; SET DateStyle = ISO");
                    let insert = "INSERT INTO users VALUES (9, 'new')";
                    let batch = [insert, reset, last].map(|sql| {
                        let bind = message::bind("", "", &[], &[], &[]);
                        [message::parse("", sql, &[]), bind, message::execute("", 0)].concat()
                    });
                    raw.send(&[batch.concat(), message::sync()].concat());
                    let frames = raw.read_until(b'Z', 1);
                    let error = frames.iter().find(|frame| frame.tag == b'E');
                    assert_eq!(error.and_then(|error| error.field(b'C')).as_deref(), code);
                    let count = raw.rows("DELETE FROM users WHERE user_id = 9 RETURNING 1");
                    assert_eq!(count.len(), usize::from(code.is_none()), "{reset}");
                    let is_back = |name: &str| {
                        code.is_none() && (reset.contains(name) || reset.contains("ALL"))
                    };
                    let zone = if is_back("TimeZone") {
                        "Europe/Berlin"
                    } else {
                        "UTC"
                    };
                    assert_eq!(raw.rows("SHOW TimeZone"), [[zone]], "{reset}");
                    let style = if is_back("DateStyle") {
                        "SQL, DMY"
                    } else {
                        "ISO, DMY"
                    };
                    assert_eq!(raw.rows("SHOW DateStyle"), [[style]], "{reset}");
                }
            }
        }
    }
}

#[test]
fn random_sessions_are_told_the_same() {
    let seeds = match env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 2],
    };
    for seed in seeds {
        for shards in [1, 2] {
            let cluster = cluster(shards);
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..25 {
                let startup = if random.random_bool(0.7) {
                    &STARTUP[..]
                } else {
                    &[]
                };
                let count = random.random_range(1..30);
                let statements: Vec<_> = (0..count)
                    .map(|_| (statement(&mut random), random.random_bool(0.3)))
                    .collect();
                compare(&cluster, startup, &statements);
            }
        }
    }
}
