//! Protocol transcripts: scripts that run against plain PostgreSQL and through the proxy on one
//! shard, whose answers must be the same, message by message.
//!
//! `integration/wire/*.test` hold blocks of a directive, its input, `----` and the answer of
//! PostgreSQL. `REWRITE=1` writes the answers anew. Directives, each with an optional `on=NAME`
//! that names the session (a session begins with its first use):
//!
//! - `login`: begins a session and shows what the server says; input: more startup parameters.
//! - `run`: sends the messages in one go and reads one ReadyForQuery for each Query and Sync.
//! - `send`: sends the messages and reads nothing.
//! - `read until=MESSAGE`: reads up to that message; `count=N` for the Nth.

mod script;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use shardwire::demo::postgres::Server;

use crate::harness::cluster::{run_as_superuser, template};
use crate::harness::transcript;
use crate::harness::{Cluster, Endpoint, Raw, message};
use script::{Block, messages};

/// The PostgreSQL that the answers in the files are from; its texts differ between versions.
const RECORDED_WITH: u32 = 15;

/// What every script finds.
const RESET: &str = "
    SET client_min_messages = warning;
    SET lock_timeout = '20s';
    DROP SCHEMA IF EXISTS public CASCADE;
    CREATE SCHEMA public AUTHORIZATION app;
    SET ROLE app;
    CREATE TABLE t (id int PRIMARY KEY, name text);
    INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 5) i;
";

/// Longest wait for a message; scripts hold nothing that takes time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Stands at the end of an answer that does not end.
const TIMEOUT: &str = "no answer in time\n";

struct Target<'a> {
    name: &'a str,
    endpoint: Endpoint,
    fragment: usize,
    sessions: BTreeMap<String, Raw>,
}

impl Target<'_> {
    fn session(&mut self, name: &str) -> &mut Raw {
        let (endpoint, fragment) = (&self.endpoint, self.fragment);
        self.sessions.entry(name.to_owned()).or_insert_with(|| {
            let mut raw = endpoint.raw();
            raw.fragment = fragment;
            raw.set_patience(PATIENCE);
            raw
        })
    }

    /// Does what a block says and returns the answer as lines.
    fn run(&mut self, block: &Block) -> String {
        let session = block.argument("on").unwrap_or("a");
        match block.directive() {
            "login" => self.login(session, &block.input),
            "send" => {
                let (bytes, _) = messages(&block.input);
                // A peer that has hung up shows in the next read.
                let _ = self.session(session).try_send(&bytes);
                String::new()
            }
            "run" => {
                let (bytes, answers) = messages(&block.input);
                let raw = self.session(session);
                let _ = raw.try_send(&bytes);
                show(raw, b'Z', answers)
            }
            "read" => {
                let tag = script::tag(block.argument("until").unwrap());
                let count = block
                    .argument("count")
                    .map_or(1, |text| text.parse().unwrap());
                show(self.session(session), tag, count)
            }
            other => panic!("no directive is called {other}"),
        }
    }

    fn login(&mut self, session: &str, input: &str) -> String {
        let parameters: Vec<(&str, &str)> = input
            .lines()
            .map(|line| line.split_once('=').unwrap())
            .collect();
        match Raw::login_with(&self.endpoint, &parameters) {
            Ok(mut raw) => {
                raw.fragment = self.fragment;
                raw.set_patience(PATIENCE);
                let lines = raw.parameters.iter();
                let shown = lines
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect();
                self.sessions.insert(session.to_owned(), raw);
                shown
            }
            Err(error) => transcript::lines(&[error]),
        }
    }
}

/// The messages that come, as lines, and why they stop before the awaited one.
fn show(raw: &mut Raw, tag: u8, count: usize) -> String {
    let (frames, end) = raw.try_read_until(tag, count);
    let mut out = transcript::lines(&frames);
    if end.is_err() {
        out.push_str(TIMEOUT);
    } else if frames.iter().filter(|frame| frame.tag == tag).count() < count {
        out.push_str("connection closed\n");
    }
    out
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/wire");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "test")
        })
        .collect();
    paths.sort();
    paths
}

/// Runs all blocks on a target; the answers.
fn answers(server: &Server, target: &mut Target, blocks: &[Block]) -> Vec<String> {
    run_as_superuser(server, RESET);
    let mut answers: Vec<String> = Vec::new();
    for block in blocks {
        // Who has stopped answering will not begin again; the rest of the file says nothing.
        if answers
            .last()
            .is_some_and(|answer| answer.ends_with(TIMEOUT))
        {
            break;
        }
        answers.push(target.run(block));
    }
    target.sessions.clear();
    answers
}

#[test]
fn the_proxy_answers_as_postgresql_does() {
    let cluster = Cluster::new().start();
    let version = template().binaries().major_version().unwrap();
    let target = |name, endpoint, fragment| Target {
        name,
        endpoint,
        fragment,
        sessions: BTreeMap::new(),
    };
    let mut oracle = target("PostgreSQL", cluster.oracle(), 0);
    let mut proxies = [
        target("the proxy", cluster.proxy(), 0),
        target("the proxy, in fragments,", cluster.proxy(), 3),
    ];
    let only = env::var("ONLY").unwrap_or_default();
    let mut differences = String::new();
    let mut blocks_run = 0;
    for path in scripts() {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if !file.contains(&only) {
            continue;
        }
        let blocks = script::read(&path);
        blocks_run += blocks.len();
        let wanted = answers(&cluster.oracle, &mut oracle, &blocks);
        if env::var_os("REWRITE").is_some() {
            let lasting: Vec<String> = wanted.iter().map(|text| lasting(text)).collect();
            script::write(&path, &blocks, &lasting);
        } else if version == RECORDED_WITH {
            for (block, wanted) in blocks.iter().zip(&wanted) {
                if block.output != lasting(wanted) {
                    let recorded = &block.output;
                    report(
                        &mut differences,
                        &file,
                        block,
                        (recorded, "PostgreSQL now", wanted),
                    );
                }
            }
        }
        let mut whole = wanted.clone();
        for proxy in &mut proxies {
            let got = answers(&cluster.shards[0].primary, proxy, &blocks);
            let seen = std::mem::replace(&mut whole, got.clone());
            for (((block, wanted), got), seen) in blocks.iter().zip(&wanted).zip(&got).zip(&seen) {
                // What has been reported of whole messages is not repeated of fragments.
                if wanted != got && got != seen {
                    report(&mut differences, &file, block, (wanted, proxy.name, got));
                }
            }
        }
    }
    assert!(blocks_run > 0, "no script was found");
    assert!(differences.is_empty(), "answers differ:\n{differences}");
}

/// An answer without what every minor release of PostgreSQL changes.
fn lasting(answer: &str) -> String {
    let of_release = |line: &&str| !line.starts_with("server_version=");
    answer.split_inclusive('\n').filter(of_release).collect()
}

fn report(out: &mut String, file: &str, block: &Block, answers: (&str, &str, &str)) {
    let (wanted, who, got) = answers;
    let (line, head, input) = (block.line, &block.head, &block.input);
    let _ = writeln!(
        out,
        "\n{file}:{line}: {head}\n{input}wanted:\n{wanted}{who} answers:\n{got}"
    );
}

#[test]
fn login_parameters_are_postgresqls() {
    let cluster = Cluster::new().start();
    let (proxy, oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
    assert_eq!(proxy.parameters, oracle.parameters);
    let (_, secret) = proxy.key.unwrap();
    assert_eq!(secret.len(), 4, "protocol 3.0 has secrets of four bytes");
}

#[test]
fn encryption_is_declined_and_the_startup_goes_on() {
    let cluster = Cluster::new()
        .trust()
        .config("tls", "{ mode: off }")
        .start();
    let endpoint = cluster.proxy();
    let mut raw = Raw::open(endpoint.port);
    for request in [message::gss_request(), message::ssl_request()] {
        raw.send(&request);
        assert_eq!(raw.read_byte(), Some(b'N'));
    }
    raw.send(&message::startup(&[
        ("user", &endpoint.user),
        ("database", "app"),
    ]));
    let frames = raw.read_until(b'Z', 1);
    assert_eq!(transcript::line(&frames[0]), "Authentication 0");
    assert_eq!(raw.rows("SELECT 1"), [["1"]]);
}
