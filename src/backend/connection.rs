//! A logged-in server connection and what is known of its session.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lru::LruCache;

use crate::backend::dial::Dialed;
use crate::backend::member::Member;
use crate::backend::report;
use crate::backend::settings::Settings;
use crate::error::{Error, Result};
use crate::net::duplex::Duplex;
use crate::sqlstate::SqlState;
use crate::wire::buffer::{Reader, message};
use crate::wire::{frame, frontend};

/// The largest reply frame that the proxy keeps whole; DataRow and CopyData stream past this.
pub const LARGEST_HELD_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// Names one prepared statement across all server connections of a database.
pub type StatementId = u128;

/// How to cancel what a server connection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelKey {
    /// The server's process.
    pub process_id: i32,
    /// Its secret.
    pub secret: Vec<u8>,
}

/// One server connection. Outside a lease it is idle, outside a transaction and in a known state.
#[derive(Debug)]
pub struct Connection {
    /// The socket with its queues.
    pub socket: Duplex,
    /// The role that it has logged in as.
    pub role: Arc<str>,
    /// How to cancel its work.
    pub cancel_key: Arc<CancelKey>,
    /// What others see of it.
    pub member: Arc<Member>,
    /// What the server reported at login, in its order.
    pub parameters: Arc<[(String, String)]>,
    /// The settings that its session has, beyond the server's defaults.
    pub settings: Arc<Settings>,
    /// The statement that stands under the empty name.
    pub unnamed: Option<StatementId>,
    statements: LruCache<StatementId, ()>,
    /// Statements prepared since somebody last counted them.
    pub learned: u32,
    /// The process id of the client that used it last; 0 if none has.
    pub last_client: i32,
    /// `default_transaction_isolation` of its role in this database; none until it has shown that it leads
    /// to the right shard.
    pub isolation: Option<String>,
    /// How long the proxy waits for its own statements.
    patience: Duration,
}

/// What a server says of changed settings.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Names and values of ParameterStatus.
    pub parameters: Vec<(String, String)>,
    /// NoticeResponses, whole.
    pub notices: Vec<u8>,
}

impl Connection {
    /// A connection that has just logged in; it keeps up to `statements` prepared statements, and the
    /// proxy waits for `patience` for its own statements on it.
    pub fn new(dialed: Dialed, role: &Arc<str>, statements: u32, patience: Duration) -> Connection {
        let capacity = NonZeroUsize::new(statements as usize).unwrap_or(NonZeroUsize::MIN);
        Connection {
            member: Arc::new(Member::new(dialed.process_id, role, &dialed.stream)),
            socket: Duplex::new(dialed.stream),
            role: Arc::clone(role),
            cancel_key: Arc::new(CancelKey {
                process_id: dialed.process_id,
                secret: dialed.secret,
            }),
            parameters: dialed.parameters.into(),
            settings: Arc::default(),
            unnamed: None,
            statements: LruCache::new(capacity),
            learned: 0,
            last_client: 0,
            isolation: None,
            patience,
        }
    }

    /// Whether it has yet to show that it leads to the right shard.
    pub fn is_new(&self) -> bool {
        self.isolation.is_none()
    }

    /// Whether the server has this statement prepared.
    pub fn knows(&mut self, id: StatementId) -> bool {
        self.statements.get(&id).is_some()
    }

    /// Notes that the statement is about to be prepared; returns one that must be closed for it.
    pub fn learn(&mut self, id: StatementId) -> Option<StatementId> {
        self.learned += 1;
        let evicted = self.statements.push(id, ());
        self.member.set_statements(self.statements.len());
        match evicted {
            Some((evicted, ())) if evicted != id => Some(evicted),
            _ => None,
        }
    }

    /// Notes that the statement is not prepared after all.
    pub fn unlearn(&mut self, id: StatementId) {
        self.statements.pop(&id);
        self.member.set_statements(self.statements.len());
    }

    /// Makes room for `count` more prepared statements; returns those that must be closed for it.
    pub fn make_room(&mut self, count: usize) -> Vec<StatementId> {
        let capacity = self.statements.cap().get().saturating_sub(count);
        let mut evicted = Vec::new();
        while self.statements.len() > capacity
            && let Some((id, ())) = self.statements.pop_lru()
        {
            evicted.push(id);
        }
        evicted
    }

    /// Forgets every prepared statement, as `DISCARD ALL` and `DEALLOCATE ALL` do.
    pub fn forget_statements(&mut self) {
        self.statements.clear();
        self.member.set_statements(0);
        self.unnamed = None;
    }

    /// Whether an idle connection is alive and has nothing to say but notices, which are dropped.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.socket.poll_fill(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return false,
            }
        }
        while let Ok(Some(header)) = frame::header(self.socket.input.bytes()) {
            // A notification shows that it was left listening, so that it is not clean.
            let unasked = matches!(header.tag, b'N' | b'S');
            if !unasked || self.socket.input.len() < header.frame_bytes {
                return false;
            }
            self.socket.input.consume(header.frame_bytes);
        }
        self.socket.input.is_empty()
    }

    /// Ready with the cause once a connection that is not asked anything has ended. What it says
    /// meanwhile (notices and the like) is dropped.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            match self.socket.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(cause),
            }
            while let Ok(Some((tag, frame_bytes))) = self.next_frame() {
                let frame = self.socket.input.bytes().get(..frame_bytes).unwrap_or(&[]);
                if tag == b'E' {
                    let words = report::read(frame::body(frame));
                    return Poll::Ready(io::Error::other(words.fields().message.clone()));
                }
                self.socket.input.consume(frame_bytes);
            }
        }
    }

    /// Makes the session's settings be `settings`: a round trip if they differ, else nothing.
    ///
    /// # Errors
    /// What the server says of a setting that it does not accept; nothing has changed then.
    pub async fn apply(&mut self, settings: &Arc<Settings>) -> Result<(), Failed> {
        if Arc::ptr_eq(&self.settings, settings) {
            return Ok(());
        }
        self.apply_reporting(settings).await.map(drop)
    }

    /// As [`Connection::apply`]; returns what the server says of it.
    ///
    /// # Errors
    /// As [`Connection::apply`].
    pub async fn apply_reporting(&mut self, settings: &Arc<Settings>) -> Result<Said, Failed> {
        let mut said = Said::default();
        if let Some(sql) = settings.change_from(&self.settings) {
            let mut note = |tag, body: &[u8]| match tag {
                b'S' => said.parameters.extend(parameter(body)),
                b'N' => message(&mut said.notices, tag, |out| out.extend_from_slice(body)),
                _ => {}
            };
            self.run_noting(&sql, &mut note).await?;
        }
        self.settings = Arc::clone(settings);
        Ok(said)
    }

    /// Runs statements of the proxy's own, outside the client's sight, and drops their rows.
    ///
    /// # Errors
    /// The server's error, or the loss of the connection, which it is also when no answer comes in
    /// time.
    pub async fn run(&mut self, sql: &str) -> Result<(), Failed> {
        self.run_noting(sql, &mut |_, _| {}).await
    }

    /// As [`Connection::run`]; adds what the server reports in ParameterStatus to `reported`.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn run_reporting(
        &mut self,
        sql: &str,
        reported: &mut Vec<(String, String)>,
    ) -> Result<(), Failed> {
        let mut note = |tag, body: &[u8]| {
            if tag == b'S' {
                reported.extend(parameter(body));
            }
        };
        self.run_noting(sql, &mut note).await
    }

    /// Runs a query of the proxy's own; tells whether it returned a row.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn returns_row(&mut self, sql: &str) -> Result<bool, Failed> {
        let mut rows = 0;
        self.run_noting(sql, &mut |tag, _| rows += u32::from(tag == b'D'))
            .await?;
        Ok(rows > 0)
    }

    /// Runs a query of the proxy's own; the first value of the last row that it returned.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn value(&mut self, sql: &str) -> Result<Option<String>, Failed> {
        let mut value = None;
        self.run_noting(sql, &mut |tag, body| {
            if tag == b'D' {
                value = first_value(body);
            }
        })
        .await?;
        Ok(value)
    }

    /// As [`Connection::run`]; `note` gets every message of the answer, tag and body.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn run_noting(
        &mut self,
        sql: &str,
        note: &mut (dyn FnMut(u8, &[u8]) + Send),
    ) -> Result<(), Failed> {
        let mut query = Vec::new();
        frontend::write_query(&mut query, sql.as_bytes());
        self.ask(&query, note).await
    }

    /// Sends messages of the proxy's own that end with a Query or Sync, the only one among them.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn send(&mut self, messages: &[u8]) -> Result<(), Failed> {
        self.ask(messages, &mut |_, _| {}).await
    }

    /// Sends messages that describe a statement and end with a Sync; the RowDescription, if it has one.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn columns(&mut self, messages: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        let mut columns = None;
        let mut note = |tag, body: &[u8]| {
            if tag == b'T' {
                columns = Some(body.to_vec());
            }
        };
        self.ask(messages, &mut note).await?;
        Ok(columns)
    }

    /// Sends messages as [`Connection::send`] does; `note` gets the tag and body of each answer.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn ask(
        &mut self,
        messages: &[u8],
        note: &mut (dyn FnMut(u8, &[u8]) + Send),
    ) -> Result<(), Failed> {
        let patience = self.patience;
        tokio::time::timeout(patience, self.converse(messages, note))
            .await
            .unwrap_or_else(|_| {
                let message = format!("the server did not answer within {patience:?}");
                Err(Failed::Lost(io::Error::new(
                    io::ErrorKind::TimedOut,
                    message,
                )))
            })
    }

    async fn converse(
        &mut self,
        messages: &[u8],
        note: &mut (dyn FnMut(u8, &[u8]) + Send),
    ) -> Result<(), Failed> {
        self.unnamed = None;
        self.socket.output.push(messages);
        self.socket.flush().await.map_err(Failed::Lost)?;
        let mut failure = None;
        loop {
            while let Some((tag, frame_bytes)) = self.next_frame()? {
                let frame = self.socket.input.bytes().get(..frame_bytes).unwrap_or(&[]);
                if tag == b'E' && failure.is_none() {
                    failure = Some(report::read(frame::body(frame)));
                }
                note(tag, frame::body(frame));
                self.socket.input.consume(frame_bytes);
                if tag == b'Z' {
                    return failure.map_or(Ok(()), |error| Err(Failed::Refused(error)));
                }
            }
            self.socket.fill().await.map_err(Failed::Lost)?;
        }
    }

    /// The tag and length of the next whole frame.
    fn next_frame(&self) -> Result<Option<(u8, usize)>, Failed> {
        let bytes = self.socket.input.bytes();
        let header = frame::header(bytes).map_err(|error| Failed::Lost(io::Error::other(error)))?;
        Ok(header
            .filter(|header| bytes.len() >= header.frame_bytes)
            .map(|header| (header.tag, header.frame_bytes)))
    }
}

/// The first value of a DataRow in text; none if it is NULL.
pub fn first_value(body: &[u8]) -> Option<String> {
    let mut reader = Reader::new(body);
    reader.bytes(2).ok()?;
    let length = usize::try_from(reader.i32().ok()?).ok()?;
    let value = reader.bytes(length).ok()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The name and the value in a ParameterStatus.
pub fn parameter(body: &[u8]) -> Option<(String, String)> {
    let mut reader = Reader::new(body);
    let name = String::from_utf8_lossy(reader.cstring().ok()?).into_owned();
    let value = String::from_utf8_lossy(reader.cstring().ok()?).into_owned();
    Some((name, value))
}

/// Why the proxy's own statements did not run.
#[derive(Debug)]
pub enum Failed {
    /// The server refused them; the connection is in order.
    Refused(Error),
    /// The connection is gone.
    Lost(io::Error),
}

/// The error that a client gets when its server connection breaks (`08006`).
pub fn lost(cause: &io::Error) -> Error {
    Error::new(
        SqlState::CONNECTION_FAILURE,
        "connection to the server was lost",
    )
    .detail(cause.to_string())
}
