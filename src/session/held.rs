//! The server connection that works for the session.

use std::borrow::{Borrow, BorrowMut};
use std::sync::Arc;

use crate::backend::connection::StatementId;
use crate::error::Error;
use crate::pool::Lease;
use crate::session::channels::Holding;
use crate::session::prepared::{Needs, Prepared, server_name};
use crate::session::replies::{Expect, Replies};
use crate::sharding::ShardIndex;
use crate::topology::{Operation, Server};
use crate::txn::commit::Work;
use crate::wire::frontend::{self, Bind, Subject};

/// A leased connection, what it owes the session, and which server it is of.
#[derive(Debug)]
pub struct Held {
    /// The connection.
    pub lease: Lease,
    /// Whose connection it is.
    pub seat: Seat,
    /// Its shard.
    pub shard: ShardIndex,
    /// Whether it takes writes.
    pub is_primary: bool,
    /// The answers that are due.
    pub replies: Replies,
    /// Bytes of the row at hand that have yet to come.
    pub rest: usize,
    /// What was sent since the last transaction ended.
    pub work: Work,
    /// Whether it is part of the client's transaction.
    pub part: Part,
    /// A RESET ALL has made its settings the server's defaults; a rollback would undo that.
    pub is_reset: bool,
    /// It holds state of the session's that can't be moved, so that the session keeps it.
    pub is_pinned: bool,
    /// What state it is in is not known: it must be closed.
    pub is_lost: bool,
    /// What the server said before it closed the connection.
    pub last_words: Option<Error>,
}

impl Borrow<Lease> for Held {
    fn borrow(&self) -> &Lease {
        &self.lease
    }
}

impl BorrowMut<Lease> for Held {
    fn borrow_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }
}

/// Whose transaction a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The client's, if there is one.
    Client,
    /// None: it serves a statement beside the client's transaction.
    Detached,
    /// One like the client's, but not the client's, which must be rolled back.
    Aside,
}

/// A place on a server.
#[derive(Debug)]
pub struct Seat {
    /// The server.
    pub node: Arc<Server>,
    /// Its generation when the seat was taken.
    pub generation: u64,
    /// Whose notifications come from it, once somebody listens.
    pub holding: Option<Holding>,
    /// Counts as an operation in flight.
    _operation: Operation,
}

impl Seat {
    /// Takes a seat on a server.
    pub fn take(node: Arc<Server>) -> Seat {
        let (generation, _operation) = (node.generation(), node.operate());
        Seat {
            node,
            generation,
            holding: None,
            _operation,
        }
    }

    /// Whether the server has gone on as it was since the seat was taken.
    pub fn is_valid(&self) -> bool {
        self.generation == self.node.generation()
    }
}

/// Whether a server has a statement and what it needs.
pub fn has(lease: &mut Lease, prepared: &Prepared) -> bool {
    matches!(prepared.needs, Needs::Nothing)
        && match prepared.is_unnamed() {
            true => lease.unnamed == Some(prepared.id),
            false => lease.knows(prepared.id),
        }
}

impl Held {
    /// Notes what a statement that is sent does.
    pub fn note(&mut self, work: Work) {
        self.work = self.work.max(work);
    }

    /// Whether something that may have written was sent since the last transaction ended.
    pub fn wrote(&self) -> bool {
        self.work == Work::Writes
    }

    /// Whether it serves a statement beside the client's transaction, which it is not part of.
    pub fn is_detached(&self) -> bool {
        self.part != Part::Client
    }

    /// Whether it is in a transaction that must be rolled back.
    pub fn is_aside(&self) -> bool {
        self.part == Part::Aside
    }

    /// Whether nothing is under way on the connection.
    pub fn is_at_rest(&self) -> bool {
        self.replies.is_empty()
            && !self.replies.is_skipping()
            && !self.replies.is_copying()
            && self.rest == 0
            && self.lease.socket.input.is_empty()
            && self.lease.socket.output.is_empty()
    }

    /// Whether the client's transaction, which is open here, can go on with any statement at once.
    pub fn may_go_on(&self) -> bool {
        self.is_at_rest()
            && self.part == Part::Client
            && !self.is_reset
            && !self.is_pinned
            && !self.is_lost
            && !self.replies.is_in_doubt()
    }

    /// Opens the client's transaction with a BEGIN that can't fail, out of the client's sight.
    pub fn open(&mut self, begin: &str) {
        self.lease.unnamed = None;
        frontend::write_query(self.lease.socket.output.tail(), begin.as_bytes());
        self.replies.push(Expect::Opening);
    }

    /// Sends bytes whose answer is `expect`.
    pub fn send(&mut self, bytes: &[u8], expect: Expect) {
        self.lease.socket.output.push(bytes);
        self.replies.push(expect);
    }

    /// Whether the server has the statement and what it needs.
    pub fn has(&mut self, prepared: &Prepared) -> bool {
        has(&mut self.lease, prepared)
    }

    /// Makes sure the server has the statement. `seen`: the client waits for ParseComplete, under this
    /// name.
    pub fn announce(&mut self, prepared: &Prepared, seen: Option<&[u8]>) {
        let id = prepared.id;
        self.meet(&prepared.needs);
        if let Some(declared) = &prepared.declared {
            self.declare(id, &declared.statement(&prepared.server_name));
        } else if prepared.is_unnamed() {
            if seen.is_some() || self.lease.unnamed != Some(id) {
                self.parse(prepared, seen);
                self.lease.unnamed = Some(id);
            }
        } else if !self.lease.knows(id) {
            if let Some(evicted) = self.lease.learn(id) {
                self.close(evicted);
            }
            self.parse(prepared, seen);
        } else if let Some(name) = seen {
            self.replies.push(Expect::Known {
                id,
                name: name.into(),
            });
        }
    }

    fn parse(&mut self, prepared: &Prepared, seen: Option<&[u8]>) {
        let out = self.lease.socket.output.tail();
        frontend::write_parse(out, &prepared.server_name, &prepared.text, &prepared.types);
        let seen = seen.map(Box::from);
        self.replies.push(Expect::Parse {
            id: prepared.id,
            seen,
        });
    }

    /// Closes a statement of the server's, out of the client's sight.
    pub fn close(&mut self, id: StatementId) {
        let name = server_name(id);
        let out = self.lease.socket.output.tail();
        frontend::write_subject(out, b'C', Subject::Statement, name.as_bytes());
        self.replies.push(Expect::Close { seen: false });
    }

    /// Sends the client's Bind, under the name by which the server knows the statement. `is_seen`: the client
    /// waits for BindComplete.
    pub fn bind(&mut self, frame: &[u8], bind: &Bind<'_>, prepared: &Prepared, is_seen: bool) {
        if *bind.statement == *prepared.server_name {
            self.lease.socket.output.push(frame);
        } else {
            frontend::write_bind(self.lease.socket.output.tail(), bind, &prepared.server_name);
        }
        self.replies.push(match is_seen {
            true => Expect::Bind,
            false => Expect::Quiet(b'2'),
        });
    }

    /// Makes the server fail where the proxy refuses, so that its transaction fails with the client's;
    /// the client gets `words` in place of the server's error.
    pub fn refuse(&mut self, words: Vec<u8>) {
        let missing = Bind {
            portal: b"",
            statement: b"shardwire_refusal",
            rest: &[0; 6],
            formats: &[],
            count: 0,
            values: &[],
            results: &[],
        };
        let out = self.lease.socket.output.tail();
        frontend::write_bind(out, &missing, missing.statement);
        self.replies.push(Expect::Refused(words.into()));
    }

    /// Sends Sync.
    pub fn sync(&mut self) {
        frontend::write_sync(self.lease.socket.output.tail());
        self.replies.push(Expect::Sync);
    }
}
