//! What the integration tests stand on: clusters of real servers, the proxy as a process, a raw
//! protocol client and the comparison with a single PostgreSQL.

pub mod cluster;
pub mod compare;
pub mod message;
pub mod process;
pub mod raw;
pub mod transcript;

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use compare::Pair;
pub use process::Proxy;
pub use raw::Raw;

/// Longest wait for anything; reached only by a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Where a client connects, and as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Endpoint {
    /// A logged-in protocol client.
    pub fn raw(&self) -> Raw {
        Raw::login(self)
    }

    /// A tokio-postgres client; its connection runs as a task of the current runtime.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(&self.database)
            .connect_timeout(DEADLINE)
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// The libpq connection string, for drivers.
    pub fn url(&self) -> String {
        let Endpoint {
            port,
            user,
            password,
            database,
        } = self;
        format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}")
    }
}

/// Asks until the answer is a value; fails with the last refusal after [`DEADLINE`].
pub fn eventually<T, E: Debug>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > end => panic!("never {what}: {reason:?}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
