//! A client that outlives the proxies it uses, and what it is told of its transactions.

use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::Rng;
use rand::rngs::StdRng;

use crate::harness::raw::{Frame, values};
use crate::harness::{Endpoint, Raw, message};

/// Why a request has no answer that can be used.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The server's SQLSTATE and DETAIL.
    Refused(String, String),
    /// The connection is gone.
    Gone,
}

/// What a client was told of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is committed.
    Committed,
    /// It is rolled back, and why.
    RolledBack(String),
    /// Nobody can know, and the transaction's name if there was one.
    Unknown(Option<String>),
}

/// One client.
pub struct Client {
    proxies: Vec<Endpoint>,
    raw: Option<Raw>,
    pub random: StdRng,
}

impl Client {
    pub fn new(proxies: &[Endpoint], random: StdRng) -> Client {
        Client {
            proxies: proxies.to_vec(),
            raw: None,
            random,
        }
    }

    /// Whether it has a session, if need be a new one with any proxy that is there.
    pub fn is_ready(&mut self) -> bool {
        if self.raw.is_none() {
            let proxy = &self.proxies[self.random.random_range(0..self.proxies.len())];
            self.raw = login(proxy);
        }
        self.raw.is_some()
    }

    /// Sends messages that end with a Query or Sync; what is answered.
    pub fn exchange(&mut self, messages: &[u8]) -> Result<Vec<Frame>, Failure> {
        let Some(raw) = self.raw.as_mut() else {
            return Err(Failure::Gone);
        };
        let frames = match raw.try_send(messages) {
            Ok(()) => raw.try_read_until(b'Z', 1).0,
            Err(_) => Vec::new(),
        };
        let is_over = frames.last().is_none_or(|frame| frame.tag != b'Z');
        if is_over {
            self.raw = None;
        }
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            let field = |code| error.field(code).unwrap_or_default();
            return Err(Failure::Refused(field(b'C'), field(b'D')));
        }
        if is_over {
            Err(Failure::Gone)
        } else {
            Ok(frames)
        }
    }

    /// Runs a simple query.
    pub fn ask(&mut self, sql: &str) -> Result<Vec<Frame>, Failure> {
        self.exchange(&message::query(sql))
    }

    /// The rows of a simple query.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
        let frames = self.ask(sql)?;
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default()).unwrap();
        let rows = frames.iter().filter(|frame| frame.tag == b'D');
        Ok(rows
            .map(|row| values(row).into_iter().map(text).collect())
            .collect())
    }

    /// Runs the statements of a transaction and its COMMIT.
    pub fn transact(&mut self, statements: &[String]) -> Told {
        for sql in statements {
            if let Err(failure) = self.ask(sql) {
                // Nobody has asked for a commit.
                self.recover();
                return Told::RolledBack(format!("{failure:?}"));
            }
        }
        let answer = self.ask("COMMIT");
        self.told(answer, false)
    }

    /// What an answer says of the transaction it ends. `is_implicit`: the client has not begun it, so that
    /// a lost connection says nothing.
    pub fn told(&mut self, answer: Result<Vec<Frame>, Failure>, is_implicit: bool) -> Told {
        let told = match answer {
            Ok(frames) => {
                let mut tags = frames.iter().filter(|frame| frame.tag == b'C');
                let is_undone = tags
                    .next_back()
                    .is_some_and(|tag| tag.body.starts_with(b"ROLLBACK"));
                return match is_undone {
                    true => Told::RolledBack("ROLLBACK".into()),
                    false => Told::Committed,
                };
            }
            Err(Failure::Gone) => Told::Unknown(None),
            Err(Failure::Refused(code, detail)) if code == "08007" => {
                let words = detail.split(' ');
                let name = words
                    .map(str::to_owned)
                    .find(|word| word.starts_with("shardwire_"));
                assert!(
                    name.is_some(),
                    "08007 without the transaction's name: {detail}"
                );
                Told::Unknown(name)
            }
            Err(Failure::Refused(code, _))
                if is_implicit && (code.starts_with("08") || code.starts_with("57P")) =>
            {
                Told::Unknown(None)
            }
            Err(Failure::Refused(code, detail)) => Told::RolledBack(format!("{code} {detail}")),
        };
        self.recover();
        told
    }

    /// Ends whatever transaction is open.
    pub fn recover(&mut self) {
        if self.raw.is_some() && self.ask("ROLLBACK").is_err() {
            self.raw = None;
        }
    }
}

/// A session, if the proxy is there.
fn login(proxy: &Endpoint) -> Option<Raw> {
    TcpStream::connect(("127.0.0.1", proxy.port)).ok()?;
    // It may be gone again by now.
    catch_unwind(AssertUnwindSafe(|| Raw::try_login(proxy).ok())).ok()?
}
