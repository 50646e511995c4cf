//! A server connection as others see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::net::stream::{Peer, Stream};

/// What is known of a server connection while it exists, whoever uses it.
#[derive(Debug)]
pub struct Member {
    /// The server's process; 0 if it has told none.
    pub process_id: i32,
    /// The role that it has logged in as.
    pub role: Arc<str>,
    /// When it was made, since 1970-01-01 UTC.
    pub since: Duration,
    /// The same moment by the other clock.
    pub born: Instant,
    /// The server's end.
    pub peer: Peer,
    /// The proxy's end.
    pub local: Peer,
    /// Whether it is encrypted.
    pub tls: bool,
    statements: AtomicU32,
}

impl Member {
    /// A connection that has just been made.
    pub fn new(process_id: i32, role: &Arc<str>, stream: &Stream) -> Member {
        Member {
            process_id,
            role: Arc::clone(role),
            since: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            born: Instant::now(),
            peer: stream.peer(),
            local: stream.local(),
            tls: stream.is_tls(),
            statements: AtomicU32::new(0),
        }
    }

    /// How many statements it has prepared.
    pub fn statements(&self) -> u32 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Notes how many statements it has prepared.
    pub fn set_statements(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.statements.store(count, Ordering::Relaxed);
    }
}
