//! A request of the fast lane that waits in line for a server connection.
//!
//! The fast lane ([`super::quick`]) does not wait. Where every connection is in use it leaves the request
//! in the buffer and says for which shard it wants one; the session waits for that here, and then asks the
//! fast lane again, which finds the connection at hand. So a request that had to wait costs little more
//! than one that had not. If it has become one for the general way meanwhile, that takes the connection, or
//! the error in its place, where it would have asked for one. What nobody takes goes back untouched.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::plan::Access;
use crate::pool::Lease;
use crate::session::Session;
use crate::sharding::ShardIndex;
use crate::topology::Server;

/// A place in line, and what was had for it.
#[derive(Debug)]
pub struct Line {
    shard: ShardIndex,
    access: Access,
    since: Instant,
    got: Option<Result<(Lease, Arc<Server>)>>,
}

impl Line {
    /// A place in line for a connection to a shard.
    pub fn new(shard: ShardIndex, access: Access, since: Instant) -> Line {
        Line {
            shard,
            access,
            since,
            got: None,
        }
    }

    /// Puts a connection back that does not serve as it is.
    pub fn put_back(&mut self, lease: Lease, node: Arc<Server>) {
        self.got = Some(Ok((lease, node)));
    }

    /// The shard that it is for.
    pub fn shard(&self) -> ShardIndex {
        self.shard
    }

    /// Whether there is an error instead of a connection.
    pub fn has_failed(&self) -> bool {
        matches!(self.got, Some(Err(_)))
    }

    /// Since when the request has waited.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Session {
    /// Waits for the connection that the fast lane wants.
    pub(super) async fn wait_in_line(&mut self) {
        if let Some(line) = &self.memory.line {
            let got = self.lease(line.shard, line.access).await;
            if let Some(line) = &mut self.memory.line {
                line.got = Some(got);
            }
        }
    }

    /// What was waited for on behalf of the request at hand, be it a connection to this shard or an error.
    pub(super) fn waited(
        &mut self,
        shard: ShardIndex,
        access: Access,
    ) -> Option<Result<(Lease, Arc<Server>)>> {
        let line = self.memory.line.as_mut()?;
        let serves = (line.shard, line.access) == (shard, access);
        line.got.take_if(|got| serves || got.is_err())
    }

    /// The request has been handled: gives back what it did not take.
    pub(super) fn leave_line(&mut self) {
        if let Some(line) = self.memory.line.take()
            && let Some(Ok((lease, _))) = line.got
        {
            lease.give_back();
        }
    }

    /// Whether the session may draw from sequences over this connection as it is, and notes that it will;
    /// false if the connection must first forget what others have drawn.
    pub(super) fn may_draw(&mut self, shard: ShardIndex, lease: &Lease) -> bool {
        let Some(draws) = self.memory.draws.get_mut(shard) else {
            return true;
        };
        let was_last = lease.last_client == self.registered.control.process_id;
        let is_new = lease.last_client == 0;
        let mut after = *draws;
        let must_forget = after.write(lease.cancel_key.process_id, was_last) && !is_new;
        if !must_forget {
            *draws = after;
        }
        !must_forget
    }
}
