//! The right to use one server connection, given back clean or not at all.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backend::connection::Connection;
use crate::net::home::Home;
use crate::pool::Pool;

/// One connection on lease. Dropped without [`Lease::give_back`] it is closed.
#[derive(Debug)]
pub struct Lease {
    connection: Box<Connection>,
    ticket: Ticket,
    /// How long its holder stood in line for it.
    pub waited: Duration,
}

/// Counts the lease; dropped in place it also gives up the connection's place in the pool.
#[derive(Debug)]
struct Ticket {
    pool: Arc<Pool>,
    keeps_place: bool,
}

impl Lease {
    pub(super) fn new(mut connection: Box<Connection>, pool: Arc<Pool>) -> Lease {
        connection.socket.exchange_oids(pool.oids.load_full());
        // Before whoever leases asks whether it may use it: see `Pool::in_flight`.
        pool.leased.fetch_add(1, Ordering::SeqCst);
        Lease {
            connection,
            ticket: Ticket {
                pool,
                keeps_place: false,
            },
            waited: Duration::ZERO,
        }
    }

    /// The pool that the connection comes from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.ticket.pool
    }

    /// Has the connection at home here; false if that can't be, and it must be closed.
    pub(super) fn settle(&mut self, here: Home) -> bool {
        // It may come from another's hands.
        self.learn_oids();
        self.socket.settle(here).is_ok()
    }

    /// Exchanges OIDs as is known now. No answer may be due; while something is queued nothing changes.
    pub fn learn_oids(&mut self) {
        let oids = self.ticket.pool.oids.load_full();
        if self.socket.input.is_empty() && self.socket.output.is_empty() {
            self.socket.exchange_oids(oids);
        }
    }

    /// Returns the connection, whose session must be idle and whose queues must be empty.
    pub fn give_back(self) {
        let pool = Arc::clone(&self.ticket.pool);
        pool.take_back(self);
    }

    /// Ends the lease without closing the connection.
    pub(super) fn end(self) -> Box<Connection> {
        let Lease {
            connection,
            mut ticket,
            ..
        } = self;
        ticket.keeps_place = true;
        connection
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.leased.fetch_sub(1, Ordering::Relaxed);
        if !self.keeps_place {
            self.pool.closed();
        }
    }
}
