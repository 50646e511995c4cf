//! Makes a server have the prepared statements that a client's messages name.
//!
//! In a batch of the extended protocol this happens by messages among the client's own, so that nothing
//! waits. Ahead of a simple Query, and on connections that are about to take part in a scatter, it is a
//! round trip, once per connection and statement.

use std::sync::Arc;

use crate::backend::connection::{Failed, StatementId};
use crate::pool::Lease;
use crate::session::held::Held;
use crate::session::prepared::{Needs, Prepared, server_name};
use crate::session::replies::Expect;
use crate::session::{Session, Stop};
use crate::wire::frontend::{self, Bind, Subject};

/// The portal in which a PREPARE of the proxy's own runs within a client's batch.
const PORTAL: &[u8] = b"shardwire_prepare";

/// A Bind without parameters.
pub(super) fn plain_bind<'a>(portal: &'a [u8], statement: &'a [u8]) -> Bind<'a> {
    Bind {
        portal,
        statement,
        rest: &[0; 6],
        formats: &[],
        count: 0,
        values: &[],
        results: &[],
    }
}

impl Held {
    /// Makes it so that what a statement needs of another is there, within the client's batch.
    pub(super) fn meet(&mut self, needs: &Needs) {
        match needs {
            Needs::Nothing => {}
            Needs::Present(prepared) => self.announce(prepared, None),
            Needs::Absent(id) => {
                if self.lease.knows(*id) {
                    self.lease.unlearn(*id);
                    self.close(*id);
                }
                for evicted in self.lease.make_room(1) {
                    self.close(evicted);
                }
            }
        }
    }

    /// Has the server run a PREPARE within the client's batch, unless it has the statement.
    pub(super) fn declare(&mut self, id: StatementId, sql: &str) {
        if self.lease.knows(id) {
            return;
        }
        if let Some(evicted) = self.lease.learn(id) {
            self.close(evicted);
        }
        self.lease.unnamed = None;
        let out = self.lease.socket.output.tail();
        frontend::write_parse(out, b"", sql.as_bytes(), &[]);
        frontend::write_bind(out, &plain_bind(PORTAL, b""), b"");
        frontend::write_execute(out, PORTAL, 0);
        frontend::write_subject(out, b'C', Subject::Portal, PORTAL);
        for expect in [
            Expect::Quiet(b'1'),
            Expect::Quiet(b'2'),
            Expect::Prepared(id),
            Expect::Quiet(b'3'),
        ] {
            self.replies.push(expect);
        }
    }
}

/// What servers must have before they get this statement, and don't get in its batch.
pub(super) fn needed(prepared: &Arc<Prepared>) -> Vec<Arc<Prepared>> {
    let mut needed = Vec::new();
    if let Needs::Present(other) = &prepared.needs {
        needed.push(Arc::clone(other));
    }
    if prepared.declared.is_some() {
        needed.push(Arc::clone(prepared));
    }
    needed
}

/// Makes the server have a statement: a round trip if it has it not.
pub(super) async fn ensure_one(lease: &mut Lease, prepared: &Prepared) -> Result<(), Failed> {
    if lease.knows(prepared.id) {
        return Ok(());
    }
    let mut messages = Vec::new();
    if let Some(evicted) = lease.learn(prepared.id) {
        write_close(&mut messages, evicted);
    }
    match &prepared.declared {
        Some(declared) => {
            let sql = declared.statement(&prepared.server_name);
            frontend::write_query(&mut messages, sql.as_bytes());
        }
        None => {
            let name = &prepared.server_name;
            frontend::write_parse(&mut messages, name, &prepared.text, &prepared.types);
            frontend::write_sync(&mut messages);
        }
    }
    let sent = lease.send(&messages).await;
    if sent.is_err() {
        lease.unlearn(prepared.id);
    }
    sent
}

/// Appends the Close of a statement.
fn write_close(out: &mut Vec<u8>, id: StatementId) {
    frontend::write_subject(out, b'C', Subject::Statement, server_name(id).as_bytes());
}

/// How it ends the client's statement.
fn stop(failed: Failed) -> Stop {
    match failed {
        Failed::Refused(error) => Stop::Statement(error),
        Failed::Lost(cause) => Stop::Lost(cause),
    }
}

impl Session {
    /// Makes the server that is held have what a text names, by a round trip; `absent` are those that
    /// the text itself prepares.
    pub(super) async fn ensure_held(
        &mut self,
        present: &[Arc<Prepared>],
        absent: &[StatementId],
    ) -> Result<(), Stop> {
        let is_known = self.server.as_mut().is_none_or(|held| {
            present.iter().all(|one| held.lease.knows(one.id))
                && absent.iter().all(|id| !held.lease.knows(*id))
        });
        if is_known && absent.is_empty() {
            return Ok(());
        }
        self.drain().await?;
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        let mut closes = Vec::new();
        for id in absent {
            if held.lease.knows(*id) {
                held.lease.unlearn(*id);
                write_close(&mut closes, *id);
            }
        }
        for evicted in held.lease.make_room(absent.len() + present.len()) {
            write_close(&mut closes, evicted);
        }
        let mut made = Ok(());
        if !closes.is_empty() {
            frontend::write_sync(&mut closes);
            made = held.lease.send(&closes).await;
        }
        for prepared in present {
            if made.is_ok() {
                made = ensure_one(&mut held.lease, prepared).await;
            }
        }
        made.map_err(stop)
    }
}
