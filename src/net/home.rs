//! Which runtime watches a socket.
//!
//! A socket is registered with the runtime that it was opened on. Used on another it works as well, but
//! each of its events then wakes two threads. So whoever keeps sockets for others notes where they are
//! at home.

use tokio::runtime::{Handle, Id};

/// The runtime of the task at hand, or none outside of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(Option<Id>);

impl Home {
    /// The runtime of the caller.
    pub fn here() -> Home {
        Home(Handle::try_current().ok().map(|handle| handle.id()))
    }
}
