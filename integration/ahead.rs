//! Clients that send ahead: random messages of the extended protocol, in fragments with pauses between
//! them, beside the same messages to PostgreSQL. Whatever has come of a batch when a part of it fails, the
//! answers are the same, message by message.
//!
//! `SEED` in the environment makes another run. A failure is shortened to the messages that it needs.

use std::env;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Endpoint, Raw, message, transcript};

/// Seeds of the runs, unless `SEED` says otherwise.
const SEEDS: [u64; 2] = [1, 2];
/// Pairs of sessions in a run.
const SESSIONS: usize = 25;
/// How long an answer may take while a failure is shortened.
const HASTE: Duration = Duration::from_secs(3);
/// Exchanges of one pair: each ends with a Sync, after which everything is answered.
const EXCHANGES: usize = 6;

/// Each with its number of parameters. Rows come in one order only, and nothing is changed for good.
const STATEMENTS: [(&str, usize); 37] = [
    ("SELECT 1", 0),
    ("SELECT name FROM users WHERE user_id = $1", 1),
    ("SELECT name FROM users WHERE user_id = $1", 1),
    (
        "SELECT name FROM users WHERE user_id = $1 AND user_id = $2",
        2,
    ),
    ("SELECT count(*) FROM users", 0),
    ("SELECT user_id FROM users ORDER BY user_id LIMIT 3", 0),
    (
        "SELECT max(a.name) FROM users a JOIN users b ON a.user_id = b.user_id + 1",
        0,
    ),
    ("SELECT id FROM home ORDER BY id", 0),
    ("SELECT 1 / 0", 0),
    ("SELECT 1 / (user_id - $1) FROM users WHERE user_id = $1", 1),
    ("SELECT no_such FROM users WHERE user_id = 1", 0),
    ("SELECT no_such FROM users", 0),
    ("SELECT * FROM no_such", 0),
    ("SELEC 1", 0),
    ("", 0),
    ("SET work_mem = '7MB'", 0),
    ("SHOW work_mem", 0),
    ("BEGIN", 0),
    ("BEGIN", 0),
    ("COMMIT", 0),
    ("ROLLBACK", 0),
    ("SAVEPOINT s", 0),
    ("ROLLBACK TO s", 0),
    ("UPDATE users SET name = name WHERE user_id = $1", 1),
    ("UPDATE users SET name = name", 0),
    ("INSERT INTO users VALUES ($1, 'twice')", 1),
    ("DELETE FROM home WHERE id = 99", 0),
    ("SELECT current_setting('ahead.none', true)", 0),
    (
        "DECLARE c CURSOR FOR SELECT name FROM users WHERE user_id = $1",
        1,
    ),
    (
        "DECLARE c CURSOR FOR SELECT user_id FROM users ORDER BY user_id",
        0,
    ),
    ("DECLARE p CURSOR FOR SELECT id FROM home ORDER BY id", 0),
    ("FETCH c", 0),
    ("CLOSE c", 0),
    ("RELEASE s", 0),
    (
        "DELETE FROM users WHERE user_id = $1 RETURNING user_id / ($1 - 4)",
        1,
    ),
    (
        "UPDATE users SET name = name || $1 WHERE user_id = -1 RETURNING name",
        1,
    ),
    ("SELECT user_id FROM users WHERE name = $1 ORDER BY 1", 1),
];

/// Users 1 to 3 are on the first shard, 4 on the second.
const KEYS: [&str; 4] = ["1", "2", "4", "x"];
const NAMES: [&str; 3] = ["", "a", "b"];

/// A message of the client's.
#[derive(Clone, Debug)]
enum Message {
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str, Vec<&'static str>),
    Describe(u8, &'static str),
    Execute(&'static str, i32),
    Close(u8, &'static str),
    Flush,
    Sync,
    Query(&'static str),
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Message::Parse(name, sql) => message::parse(name, sql, &[]),
            Message::Bind(portal, name, values) => {
                let values: Vec<_> = values
                    .iter()
                    .map(|value| Some(value.as_bytes().to_vec()))
                    .collect();
                message::bind(portal, name, &[], &values, &[])
            }
            Message::Describe(kind, name) => message::describe(*kind, name),
            Message::Execute(portal, rows) => message::execute(portal, *rows),
            Message::Close(kind, name) => message::close(*kind, name),
            Message::Flush => message::flush(),
            Message::Sync => message::sync(),
            Message::Query(sql) => message::query(sql),
        }
    }
}

fn pick<T: Copy>(random: &mut StdRng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}

/// A statement from Parse to Execute, some of it left out.
fn statement(random: &mut StdRng, out: &mut Vec<Message>) {
    let (sql, count) = pick(random, &STATEMENTS);
    let name = pick(random, &NAMES);
    let portal = match random.random_bool(0.8) {
        true => "",
        false => "p",
    };
    // What an unnamed statement is that was sent behind an error is left open.
    if name.is_empty() || random.random_bool(0.9) {
        if !name.is_empty() {
            out.push(Message::Close(b'S', name));
        }
        out.push(Message::Parse(name, sql));
    }
    if random.random_bool(0.15) {
        out.push(Message::Describe(b'S', name));
    }
    if random.random_bool(0.1) {
        out.push(Message::Flush);
    }
    if random.random_bool(0.9) {
        let values = (0..count).map(|_| pick(random, &KEYS)).collect();
        if !portal.is_empty() && random.random_bool(0.5) {
            out.push(Message::Close(b'P', portal));
        }
        out.push(Message::Bind(portal, name, values));
        if random.random_bool(0.6) {
            out.push(Message::Describe(b'P', portal));
        }
        if random.random_bool(0.05) {
            out.push(Message::Flush);
        }
        out.push(Message::Execute(portal, 0));
        if random.random_bool(0.1) {
            out.push(Message::Execute(pick(random, &["", "p", "c"]), 0));
        }
    }
    match random.random_range(0..30) {
        0 => out.push(Message::Flush),
        1 => out.push(Message::Close(b'P', portal)),
        _ => {}
    }
}

/// What is sent before everything is answered.
fn exchange(random: &mut StdRng) -> Vec<Message> {
    let mut out = Vec::new();
    for _ in 0..random.random_range(1..5) {
        for _ in 0..random.random_range(1..4) {
            statement(random, &mut out);
        }
        match random.random_range(0..10) {
            0 => {
                let (sql, count) = pick(random, &STATEMENTS);
                if count == 0 {
                    out.push(Message::Query(sql));
                }
            }
            1 => {}
            _ => out.push(Message::Sync),
        }
    }
    out.push(Message::Sync);
    out
}

/// A session and its twin.
struct Twins {
    proxy: Raw,
    oracle: Raw,
}

/// The last word of an exchange.
const END: &str = "SELECT 'the end'";

impl Twins {
    fn login(proxy: &Endpoint, oracle: &Endpoint, patience: Duration) -> Twins {
        let [proxy, oracle] = [proxy, oracle].map(|endpoint| {
            let mut raw = endpoint.raw();
            raw.set_patience(patience);
            raw
        });
        Twins { proxy, oracle }
    }

    /// Whether both say the same; `Ok(false)` if the proxy has refused something.
    fn run(&mut self, messages: &[Message], pauses: &mut StdRng) -> Result<bool, String> {
        let mut bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
        bytes.extend(message::sync());
        bytes.extend(message::query("ROLLBACK"));
        bytes.extend(message::query(END));
        let wanted = said(&mut self.oracle, &[bytes.as_slice()]);
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = pauses.random_range(1..=rest.len().min(200));
            let (piece, behind) = rest.split_at(length);
            pieces.push(piece);
            rest = behind;
        }
        let got = said(&mut self.proxy, &pieces);
        let is_refused = |line: &String| line.contains("0A000");
        if got == wanted || is_known(&got, &wanted) {
            return Ok(true);
        }
        match got.iter().any(is_refused) {
            true => Ok(false),
            false => Err(format!(
                "says\n  {}\nPostgreSQL\n  {}",
                got.join("\n  "),
                wanted.join("\n  ")
            )),
        }
    }
}

/// Sends pieces with pauses between some of them; what is said up to the end.
fn said(raw: &mut Raw, pieces: &[&[u8]]) -> Vec<String> {
    for (number, piece) in pieces.iter().enumerate() {
        raw.send(piece);
        if pieces.len() > 1 && number % 3 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    let mut lines = Vec::new();
    loop {
        let (frames, read) = raw.try_read_until(b'Z', 1);
        let is_end = frames.iter().any(|frame| frame.body.ends_with(b"the end"));
        if is_end || (frames.is_empty() && read.is_ok()) {
            return lines;
        }
        lines.extend(frames.iter().map(line));
        forget_known(&mut lines);
        if read.is_err() {
            lines.push("no end".to_owned());
            return lines;
        }
    }
}

/// A text that the server has read before is parsed by the proxy; that its transaction has failed may then
/// be said to the Bind.
fn forget_known(lines: &mut Vec<String>) {
    let is_said_late = |two: &[String]| two[0] == "ParseComplete" && two[1] == "E ERROR 25P02";
    while let Some(at) = lines.windows(2).position(is_said_late) {
        lines.remove(at);
    }
}

/// Whether the difference is that a text which the server has read before is parsed by the proxy, in a
/// transaction that has failed, though nothing comes behind it that says so.
fn is_known(got: &[String], wanted: &[String]) -> bool {
    let is_same = |(ours, theirs): (&String, &String)| {
        ours == theirs || (ours == "ParseComplete" && theirs == "E ERROR 25P02")
    };
    got.len() == wanted.len() && got.iter().zip(wanted).all(is_same)
}

/// Of errors and notices the code counts.
fn line(frame: &Frame) -> String {
    match frame.tag {
        b'E' | b'N' => {
            let field = |code| frame.field(code).unwrap_or_default();
            format!("{} {} {}", char::from(frame.tag), field(b'S'), field(b'C'))
        }
        _ => transcript::line(frame),
    }
}

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema("CREATE TABLE users (user_id bigint PRIMARY KEY, name text); CREATE TABLE home (id int)")
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i")
        .setting("max_prepared_transactions", "20")
        .start()
}

/// Runs exchanges with new sessions.
fn run(
    cluster: &Cluster,
    exchanges: &[Vec<Message>],
    (seed, patience): (u64, Duration),
) -> Result<(), String> {
    let mut twins = Twins::login(&cluster.proxy(), &cluster.oracle(), patience);
    let mut pauses = StdRng::seed_from_u64(seed);
    for exchange in exchanges {
        match twins.run(exchange, &mut pauses) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether no statement is parsed under a name that another may have. PostgreSQL would look at its text first.
fn is_new_name(two: &[Message]) -> bool {
    match two {
        [before, Message::Parse(name, _)] if !name.is_empty() => {
            matches!(before, Message::Close(b'S', closed) if closed == name)
        }
        _ => true,
    }
}

/// The messages that a failure needs, and how they fail then.
fn shortened(
    cluster: &Cluster,
    mut all: Vec<Vec<Message>>,
    seed: u64,
    mut failure: String,
) -> String {
    for at in (0..all.len()).rev() {
        let mut fewer = all.clone();
        fewer.remove(at);
        if let Err(error) = run(cluster, &fewer, (seed, HASTE)) {
            (all, failure) = (fewer, error);
            continue;
        }
        for message in (0..all[at].len()).rev() {
            let mut fewer = all.clone();
            fewer[at].remove(message);
            if !fewer[at].windows(2).all(is_new_name) {
                continue;
            }
            if let Err(error) = run(cluster, &fewer, (seed, HASTE)) {
                (all, failure) = (fewer, error);
            }
        }
    }
    let shown: String = all
        .iter()
        .map(|messages| format!("{messages:?}\n"))
        .collect();
    format!("{shown}{failure}")
}

fn check(shards: usize) {
    let cluster = cluster(shards);
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(SEEDS.to_vec(), |seed: u64| vec![seed]) {
        let mut random = StdRng::seed_from_u64(seed);
        for session in 0..SESSIONS {
            let exchanges: Vec<_> = (0..EXCHANGES).map(|_| exchange(&mut random)).collect();
            let pauses = seed.wrapping_mul(1_000) + session as u64;
            if let Err(failure) = run(&cluster, &exchanges, (pauses, DEADLINE)) {
                eprintln!("SEED={seed}, session {session}\n{exchanges:?}\n{failure}");
                let short = shortened(&cluster, exchanges, pauses, failure.clone());
                panic!("SEED={seed}, session {session}\n{failure}\n\nshortened:\n{short}");
            }
        }
    }
}

#[test]
fn one_shard_answers_as_postgresql_whatever_was_sent_ahead() {
    check(1);
}

#[test]
fn two_shards_answer_as_postgresql_whatever_was_sent_ahead() {
    check(2);
}

/// A batch that waits for its Sync, in a transaction that has failed on several shards, keeps nobody else waiting.
#[test]
fn a_batch_without_its_sync_in_a_failed_transaction_is_waited_for() {
    let cluster = cluster(2);
    let [mut raw, mut other] = [cluster.proxy().raw(), cluster.proxy().raw()];
    let batch = |sql: &str| {
        let mut bytes = message::parse("", sql, &[]);
        bytes.extend(message::bind("", "", &[], &[], &[]));
        bytes.extend(message::execute("", 0));
        bytes
    };
    for sql in ["BEGIN", "UPDATE users SET name = name"] {
        raw.send(&message::query(sql));
        raw.read_until(b'Z', 1);
    }
    // The second batch is under way before the first has failed.
    let mut bytes = batch("SELECT 1 / (user_id - 4) FROM users WHERE user_id = 4");
    bytes.extend(message::sync());
    bytes.extend(batch("SELECT name FROM users WHERE user_id = 4"));
    bytes.extend(message::flush());
    raw.send(&bytes);
    raw.read_until(b'E', 2);
    for _ in 0..3 {
        other.send(&message::query("SELECT count(*) FROM users"));
        other.read_until(b'Z', 1);
    }
    raw.send(&message::sync());
    raw.send(&message::query("ROLLBACK"));
    let frames = raw.read_until(b'Z', 2);
    let said: Vec<String> = frames.iter().map(line).collect();
    assert_eq!(
        said,
        [
            "ReadyForQuery E",
            "CommandComplete ROLLBACK",
            "ReadyForQuery I"
        ]
    );
}

/// A Query ends the batch that it stands behind, an empty one too.
#[test]
fn an_empty_query_commits_the_batch_before_it() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut raw = cluster.proxy().raw();
        let mut bytes = Vec::new();
        for sql in [
            "INSERT INTO users VALUES (11, 'a')",
            "INSERT INTO users VALUES (14, 'b')",
        ] {
            bytes.extend(message::parse("", sql, &[]));
            bytes.extend(message::bind("", "", &[], &[], &[]));
            bytes.extend(message::execute("", 0));
        }
        bytes.extend(message::query(" "));
        bytes.extend(message::parse("", "SELEC 1", &[]));
        bytes.extend(message::sync());
        bytes.extend(message::query(
            "SELECT count(*) FROM users WHERE user_id > 10",
        ));
        raw.send(&bytes);
        let frames = raw.read_until(b'Z', 3);
        let said: Vec<String> = frames.iter().map(line).collect();
        assert_eq!(
            said,
            [
                "ParseComplete",
                "BindComplete",
                "CommandComplete INSERT 0 1",
                "ParseComplete",
                "BindComplete",
                "CommandComplete INSERT 0 1",
                "EmptyQueryResponse",
                "ReadyForQuery I",
                "E ERROR 42601",
                "ReadyForQuery I",
                "RowDescription [count type=20 length=8 format=0]",
                "DataRow \"2\"",
                "CommandComplete SELECT 1",
                "ReadyForQuery I",
            ],
            "{shards} shards"
        );
    }
}

/// A cursor over shards has the parameters that its DECLARE was bound to.
#[test]
fn a_cursor_over_shards_knows_its_parameters() {
    let cluster = cluster(2);
    let [mut proxy, mut oracle] = [cluster.proxy().raw(), cluster.oracle().raw()];
    let declared = [
        (
            "SELECT name FROM users WHERE name > $1 AND user_id <> $2",
            "user 3",
            "5",
        ),
        (
            "SELECT name FROM users WHERE name <> $1 AND user_id = $2",
            "user 3",
            " 4",
        ),
        (
            "SELECT count(*) FROM users WHERE name > $1 AND user_id <> $2",
            "user 3",
            "5",
        ),
        (
            "SELECT name FROM users WHERE name > $1 ORDER BY user_id LIMIT $2",
            "user 3",
            "2",
        ),
    ];
    for (query, first, second) in declared {
        for options in ["", "SCROLL", "BINARY"] {
            let sql = format!("DECLARE c {options} CURSOR FOR {query}");
            let values = [first, second].map(|value| Some(value.as_bytes().to_vec()));
            let mut bytes = message::query("BEGIN");
            bytes.extend(message::parse("", &sql, &[25, 20]));
            bytes.extend(message::bind("", "", &[], &values, &[]));
            bytes.extend(message::describe(b'P', ""));
            bytes.extend(message::execute("", 0));
            // As psycopg asks for the columns.
            bytes.extend(message::describe(b'P', "c"));
            bytes.extend(message::sync());
            bytes.extend(message::query("FETCH ALL FROM c"));
            bytes.extend(message::query("ROLLBACK"));
            let [got, wanted] = [&mut proxy, &mut oracle].map(|raw| {
                raw.send(&bytes);
                let mut said: Vec<String> = raw.read_until(b'Z', 4).iter().map(line).collect();
                said.sort();
                said
            });
            assert_eq!(got, wanted, "{sql}");
        }
    }
}
