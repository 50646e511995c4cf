//! The gate before a database's servers: operators close it, and new transactions wait.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::activity::State;
use crate::session::control::Control;
use crate::sqlstate::SqlState;

/// Whether a database's sessions may go to its servers, and whether new ones may come. It outlives
/// reloads.
#[derive(Debug)]
pub struct Gate {
    is_closed: AtomicBool,
    is_disabled: AtomicBool,
    /// Wakes those who wait.
    opened: watch::Sender<bool>,
    waited_us: AtomicU64,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            is_closed: AtomicBool::new(false),
            is_disabled: AtomicBool::new(false),
            opened: watch::Sender::new(true),
            waited_us: AtomicU64::new(0),
        }
    }
}

impl Gate {
    /// Lets nobody pass any more; false if it was closed already.
    pub fn close(&self) -> bool {
        self.opened.send_replace(false);
        !self.is_closed.swap(true, Ordering::SeqCst)
    }

    /// Lets everybody pass; false if it was open already.
    pub fn open(&self) -> bool {
        let was_closed = self.is_closed.swap(false, Ordering::SeqCst);
        self.opened.send_replace(true);
        was_closed
    }

    /// Whether sessions have to wait.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Whether new sessions are turned away.
    pub fn is_disabled(&self) -> bool {
        self.is_disabled.load(Ordering::Relaxed)
    }

    /// Turns new sessions away from now on, or not any more.
    pub fn set_disabled(&self, is_disabled: bool) {
        self.is_disabled.store(is_disabled, Ordering::Relaxed);
    }

    /// How long sessions have waited here, those that wait now left out.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }

    /// Waits until the gate is open.
    pub async fn opened(&self) {
        let mut opened = self.opened.subscribe();
        // The sender lives as long as the gate.
        let _ = opened.wait_for(|is_open| *is_open).await;
    }

    /// Waits until the gate is open, or until the session that waits is told something.
    ///
    /// # Errors
    /// `57014` if its client cancels, `57P01` if it has to end.
    async fn pass(&self, control: &Control) -> Result<()> {
        let since = Instant::now();
        let mut opened = pin!(self.opened());
        let passed = std::future::poll_fn(|cx| {
            if let Err(error) = control.poll_waiting(cx) {
                return Poll::Ready(Err(error));
            }
            opened.as_mut().poll(cx).map(Ok)
        })
        .await;
        control.stop_waiting();
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited_us.fetch_add(waited, Ordering::Relaxed);
        passed
    }

    /// Lets a new session in.
    ///
    /// # Errors
    /// `57P03` while an operator has disabled the database.
    pub fn admit(&self, database: &str) -> Result<()> {
        if !self.is_disabled() {
            return Ok(());
        }
        Err(Error::fatal(
            SqlState::CANNOT_CONNECT_NOW,
            format!("database \"{database}\" does not allow connections"),
        )
        .detail("An operator has disabled it."))
    }
}

impl Session {
    /// Whether the session must not go to a server it is not at yet. What it has begun it may end.
    pub(super) fn is_held_back(&self) -> bool {
        self.database.gate.is_closed()
            && self.server.is_none()
            && self.others.is_empty()
            && !self.others.is_gathering
            && !self.transaction.is_on_shard()
    }

    /// Waits while an operator keeps new transactions from the servers.
    ///
    /// # Errors
    /// `57014` if the client cancels, `57P01` if the session has to end.
    pub(super) async fn pass_gate(&self) -> Result<()> {
        while self.is_held_back() {
            let control = &self.registered.control;
            control.activity.set_state(State::Waiting);
            self.database.gate.pass(control).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::control::{Sessions, Signal};
    use crate::session::operations::Operations;
    use std::sync::Arc;

    #[tokio::test]
    async fn who_waits_goes_on_when_the_gate_opens() {
        let sessions = Arc::new(Sessions::new(Operations::new().0));
        let entered = sessions.enter(4, "app");
        let gate = Arc::new(Gate::default());
        assert!(gate.pass(&entered.control).await.is_ok());
        assert!(gate.close() && !gate.close() && gate.is_closed());
        let (other, control) = (Arc::clone(&gate), Arc::clone(&entered.control));
        let waiting = tokio::spawn(async move { other.pass(&control).await });
        tokio::task::yield_now().await;
        assert!(gate.open() && !gate.open());
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_waits_can_be_cancelled_and_ended() {
        let sessions = Arc::new(Sessions::new(Operations::new().0));
        let entered = sessions.enter(4, "app");
        let gate = Gate::default();
        gate.close();
        let control = &entered.control;
        let cancelled = async {
            tokio::task::yield_now().await;
            control.cancel().await;
        };
        let (passed, ()) = tokio::join!(gate.pass(control), cancelled);
        assert_eq!(passed.unwrap_err().code(), SqlState::QUERY_CANCELED);
        let ended = async {
            tokio::task::yield_now().await;
            control.signal(Signal::Drain);
        };
        let (passed, ()) = tokio::join!(gate.pass(control), ended);
        assert_eq!(passed.unwrap_err().code(), SqlState::ADMIN_SHUTDOWN);
    }
}
