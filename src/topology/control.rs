//! The control plane's own connections to servers: probes, identity, catalogue.

use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTls;
use tokio_postgres::{AsyncMessage, Client, Config};

use crate::backend::dial;
use crate::config::Address;
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::net::tls::Connector;

/// What operators see in `pg_stat_activity`.
const APPLICATION: &str = "shardwire control";

/// Makes control connections to the servers of one database.
#[derive(Clone, Debug)]
pub struct Dialer {
    config: Config,
    connector: Connector,
    connect_timeout: Duration,
}

/// What went wrong on a control connection.
#[derive(Clone, Debug)]
pub struct ControlError {
    message: String,
    /// The server's SQLSTATE, if it was the server that said no.
    code: Option<String>,
    timed_out: bool,
}

impl ControlError {
    /// Nothing came in time.
    pub fn timed_out(what: &str, limit: Duration) -> ControlError {
        ControlError {
            message: format!("{what} took more than {limit:?}"),
            code: None,
            timed_out: true,
        }
    }

    /// The server's answer makes no sense.
    pub fn answer(message: impl Into<String>) -> ControlError {
        ControlError {
            message: message.into(),
            code: None,
            timed_out: false,
        }
    }

    /// The server's SQLSTATE.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether the role lacks a privilege (`42501`), or the database refuses writes (`25006`).
    pub fn is_denied(&self) -> bool {
        matches!(self.code(), Some("42501" | "25006"))
    }

    /// Whether the login was refused: wrong password, no such role or database, no entry in pg_hba.conf.
    pub fn is_login(&self) -> bool {
        self.code()
            .is_some_and(|code| code.starts_with("28") || code == "3D000")
    }

    /// Whether it may be the load's fault or pass by itself: too slow, out of resources, canceled.
    pub fn is_passing(&self) -> bool {
        self.timed_out
            || self
                .code()
                .is_some_and(|code| code.starts_with("53") || code == "57014" || code == "55P03")
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<tokio_postgres::Error> for ControlError {
    fn from(error: tokio_postgres::Error) -> ControlError {
        if let Some(server) = error.as_db_error() {
            return ControlError {
                message: server.message().to_owned(),
                code: Some(server.code().code().to_owned()),
                timed_out: false,
            };
        }
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        ControlError::answer(message)
    }
}

impl From<Error> for ControlError {
    fn from(error: Error) -> ControlError {
        let fields = error.fields();
        ControlError::answer(match &fields.detail {
            Some(detail) => format!("{}: {detail}", fields.message),
            None => fields.message.to_string(),
        })
    }
}

/// A connection; closed when dropped.
pub struct Control {
    client: Client,
    task: AbortHandle,
}

impl Control {
    /// The client to send statements with.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A server that hangs would keep the task waiting for its answer.
        self.task.abort();
    }
}

impl Dialer {
    /// A dialer with the database's role, password and TLS. Blocks on the TLS files.
    ///
    /// # Errors
    /// `F0000` when the TLS files can't be used.
    pub fn new(backend: &Backend, connect_timeout: Duration) -> Result<Dialer> {
        let mut config = Config::new();
        config
            .dbname(&backend.database)
            .user(&backend.user)
            .application_name(APPLICATION)
            // TLS is below: the stream is what the protocol runs on.
            .ssl_mode(SslMode::Disable);
        if let Some(password) = &backend.password {
            config.password(password.expose());
        }
        Ok(Dialer {
            config,
            connector: Connector::load(&backend.tls)?,
            connect_timeout,
        })
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// What kept it from that, also when it took too long.
    pub async fn connect(&self, address: &Address) -> Result<Control, ControlError> {
        self.connect_hearing(address, Arc::default()).await
    }

    /// As [`Dialer::connect`]; `heard` is told of notifications, and of the connection's end.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub async fn connect_hearing(
        &self,
        address: &Address,
        heard: Arc<Notify>,
    ) -> Result<Control, ControlError> {
        let deadline = Instant::now() + self.connect_timeout;
        match timeout_at(deadline, self.log_in(address, deadline, heard)).await {
            Ok(connected) => connected,
            Err(_) => Err(ControlError::timed_out("connecting", self.connect_timeout)),
        }
    }

    async fn log_in(
        &self,
        address: &Address,
        deadline: Instant,
        heard: Arc<Notify>,
    ) -> Result<Control, ControlError> {
        let stream = dial::connect(address, &self.connector, deadline).await?;
        let (client, mut connection) = self.config.connect_raw(stream, NoTls).await?;
        let task = tokio::spawn(async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(_))) => heard.notify_one(),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "control connection ended");
                        break;
                    }
                    None => break,
                }
            }
            heard.notify_one();
        });
        Ok(Control {
            client,
            task: task.abort_handle(),
        })
    }
}
