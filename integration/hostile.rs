//! Malformed and hostile bytes at startup and in session: the proxy neither panics nor hangs nor
//! grows, other clients are unharmed, and what PostgreSQL calls a protocol violation is one here.

mod session;
mod startup;

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Endpoint, Proxy, Raw, message, transcript};

/// Bytes and what they are.
pub struct Case {
    what: String,
    bytes: Vec<u8>,
}

impl Case {
    fn new(what: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
        Case {
            what: what.into(),
            bytes: bytes.into(),
        }
    }
}

/// A server's reaction.
struct Reaction {
    /// Everything it said.
    said: Vec<Frame>,
    /// How long it kept the connection.
    took: Duration,
}

impl Reaction {
    /// How often it has complained about the protocol, or about a length as such.
    fn violations(&self) -> usize {
        let errors = self.said.iter().filter(|frame| frame.tag == b'E');
        let codes = errors.map(|error| error.field(b'C').unwrap_or_default());
        codes
            .filter(|code| code == "08P01" || code == "54000")
            .count()
    }
}

/// A server that says nothing for so long has nothing to say.
const QUIET: Duration = Duration::from_secs(1);
/// Answers that no client could understand end a test.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// What a round of attacks may leave in the proxy that an earlier round has not.
const MAX_GROWTH_BYTES: u64 = 4 * 1024 * 1024;
/// A thread that meets a large message for the first time grows for good, so there may be rounds
/// that grow without a leak; a leak grows in every one.
const ROUNDS: usize = 6;
/// What it may hold at all; a debug build, so roomy.
const MAX_RESIDENT_BYTES: u64 = 512 * 1024 * 1024;

/// A connection that has said nothing, or one that is logged in.
type Connect = fn(&Endpoint) -> Raw;

fn at_startup(endpoint: &Endpoint) -> Raw {
    Raw::open(endpoint.port)
}

fn in_session(endpoint: &Endpoint) -> Raw {
    endpoint.raw()
}

/// Sends the bytes and hangs up; reads until the server does so too.
fn react(mut raw: Raw, case: &Case) -> Reaction {
    let start = Instant::now();
    // Who hangs up early is right to do so.
    let _ = raw.try_send(&case.bytes);
    raw.finish_sending();
    let bytes = raw.read_to_end(MAX_ANSWER_BYTES);
    let bytes = bytes.unwrap_or_else(|error| {
        let (what, sent) = (&case.what, show(&case.bytes));
        panic!("{what}: no end of the answer: {error}; sent {sent}")
    });
    Reaction {
        said: Raw::frames(&bytes),
        took: start.elapsed(),
    }
}

/// Sends the bytes and stays; what the server says of its own accord until it complains about the
/// protocol or says nothing for so long.
fn linger(mut raw: Raw, case: &Case, patience: Duration) -> Reaction {
    let start = Instant::now();
    raw.set_patience(patience);
    let _ = raw.try_send(&case.bytes);
    let mut reaction = Reaction {
        said: Vec::new(),
        took: Duration::ZERO,
    };
    while let Ok(Some(frame)) = raw.try_read() {
        reaction.said.push(frame);
        if reaction.violations() > 0 {
            break;
        }
    }
    reaction.took = start.elapsed();
    reaction
}

/// A session that must not notice anything.
struct Bystander(Raw);

impl Bystander {
    fn check(&mut self, after: &str) {
        let rows = self.0.rows("SELECT 6 * 7");
        assert_eq!(rows, [["42"]], "another session, after {after}");
    }
}

fn attack(cluster: &mut Cluster, cases: &[Case], connect: Connect) {
    let (proxy, oracle) = (cluster.proxy(), cluster.oracle());
    let mut bystander = Bystander(proxy.raw());
    let mut differences = String::new();
    for case in cases {
        let got = react(connect(&proxy), case);
        let (what, took) = (&case.what, got.took);
        assert!(took < DEADLINE, "{what} holds a connection for {took:?}");
        bystander.check(what);
        if got.violations() > 0 || react(connect(&oracle), case).violations() == 0 {
            continue;
        }
        // A proxy may wait for a header that is cut short, whose tag PostgreSQL judges alone; and
        // it may hang up on who has hung up, so once more with patience.
        if ends_in_a_header(&case.bytes) {
            continue;
        }
        let wanted = linger(connect(&oracle), case, QUIET);
        if wanted.violations() == 0 {
            continue;
        }
        // No more than it takes, but on a busy machine that may be long.
        let got = linger(connect(&proxy), case, DEADLINE);
        if got.violations() == 0 {
            let bytes = show(&case.bytes);
            let (wanted, got) = (
                transcript::lines(&wanted.said),
                transcript::lines(&got.said),
            );
            let _ = writeln!(
                differences,
                "{what}: {bytes}\nPostgreSQL:\n{wanted}proxy:\n{got}"
            );
        }
    }
    check_health(cluster);
    check_growth(cluster, cases, connect);
    assert!(
        differences.is_empty(),
        "not reported as protocol violations:\n{differences}"
    );
}

/// Whether the last message has less than its tag and length.
fn ends_in_a_header(mut bytes: &[u8]) -> bool {
    while let Some(length) = bytes.get(1..5) {
        let length = u32::from_be_bytes(length.try_into().unwrap());
        let end = usize::try_from(length).unwrap().saturating_add(1);
        match bytes.get(end..) {
            Some(rest) if end > 4 => bytes = rest,
            _ => return false,
        }
    }
    !bytes.is_empty()
}

/// Attacks again: what one round needed for good, another one does not need again.
fn check_growth(cluster: &mut Cluster, cases: &[Case], connect: Connect) {
    let resident = |cluster: &Cluster| cluster.proxy.as_ref().map_or(0, Proxy::resident_bytes);
    let mut growths = Vec::new();
    for _ in 0..ROUNDS {
        let before = resident(cluster);
        for case in cases {
            react(connect(&cluster.proxy()), case);
        }
        check_health(cluster);
        let growth = resident(cluster).saturating_sub(before);
        growths.push(growth);
        if growth < MAX_GROWTH_BYTES {
            return;
        }
    }
    panic!("every round has added to what the proxy holds: {growths:?} bytes");
}

fn check_health(cluster: &mut Cluster) {
    let Some(proxy) = &mut cluster.proxy else {
        return;
    };
    assert!(proxy.is_alive(), "the proxy is gone:\n{}", proxy.log());
    let log = proxy.log();
    let panic = log
        .lines()
        .find(|line| line.contains("panicked") || line.contains("overflow"));
    assert_eq!(panic, None, "{log}");
    let resident = proxy.resident_bytes();
    assert!(
        resident < MAX_RESIDENT_BYTES,
        "the proxy holds {resident} bytes"
    );
}

fn show(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(200)];
    format!("{} bytes: {}", bytes.len(), start.escape_ascii())
}

#[test]
fn hostile_bytes_at_startup_harm_nobody() {
    let mut cluster = Cluster::new().trust().start();
    let cases = startup::cases();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    attack(&mut cluster, &cases, at_startup);
}

#[test]
fn hostile_bytes_in_a_session_harm_nobody() {
    let mut cluster = Cluster::new().trust().start();
    let cases = session::cases();
    assert!(cases.len() >= 400, "{} cases", cases.len());
    attack(&mut cluster, &cases, in_session);
}

#[test]
fn hostile_bytes_on_several_shards_harm_nobody() {
    let mut cluster = Cluster::new()
        .shards(2)
        .trust()
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 10) i")
        .sharded("t", &["id"])
        .start();
    let proxy = cluster.proxy();
    let mut bystander = Bystander(proxy.raw());
    for case in session::cases() {
        react(proxy.raw(), &case);
        bystander.check(&case.what);
    }
    check_health(&mut cluster);
}

#[test]
fn a_client_that_says_nothing_is_sent_away() {
    // Long enough for the harness's own logins on a busy machine.
    let timeouts = "{ login: 5s, probe_interval: 200ms }";
    let cluster = Cluster::new().config("timeouts", timeouts).start();
    let beginnings = [
        vec![],
        vec![0, 0],
        message::ssl_request(),
        message::startup(&[("user", "app")]),
    ];
    let waiting = beginnings.map(|bytes| {
        let mut raw = Raw::open(cluster.proxy().port);
        raw.send(&bytes);
        (show(&bytes), raw)
    });
    for (case, mut raw) in waiting {
        // No end is signalled: only the proxy's patience ends this.
        let end = raw.read_to_end(MAX_ANSWER_BYTES);
        assert!(end.is_ok(), "{case}: still connected");
    }
}
