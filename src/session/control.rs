//! How others reach a session: cancel requests, shutdown, termination, and what they see of it.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::backend::connection::CancelKey;
use crate::error::{Error, Result};
use crate::pool::{Lease, Pool};
use crate::session::activity::{Activity, Link, State, Tally, Totals};
use crate::session::console::stats::{self, Samples};
use crate::session::operations::Operations;
use crate::sqlstate::SqlState;

/// The process ids of clients: above those of any process (`pid_max` is at most 2^22), so that none is
/// taken for a server's.
const PROCESS_IDS: RangeInclusive<i32> = (1 << 22) + 1..=i32::MAX;

/// How long a verdict stands whose cancellation comes late.
const VERDICT_STANDS: Duration = Duration::from_secs(5);

/// What a session is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Go on.
    None,
    /// End as soon as no transaction is open.
    Drain,
    /// End now.
    Terminate,
}

/// A session as others see it.
#[derive(Debug)]
pub struct Control {
    /// The process id in the client's BackendKeyData.
    pub process_id: i32,
    /// The user who has logged in.
    pub user: String,
    /// What it is and does.
    pub activity: Activity,
    secret: Vec<u8>,
    signal: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waker: Option<Waker>,
    /// The server connections that work for the client.
    working: Vec<(Arc<Pool>, Arc<CancelKey>)>,
    /// A cancel request may have reached one of them and not yet taken effect.
    cancelled: bool,
    /// The session waits for something that is no server's; whether its client has cancelled.
    waiting: Option<bool>,
    /// The transaction over several shards that is being committed.
    committing: Option<u128>,
    /// What the client is told in place of the cancellation that somebody else has made, and since when.
    verdict: Option<(Instant, Error)>,
}

impl Control {
    fn new(process_id: i32, secret: Vec<u8>, user: String) -> Control {
        let inner = Mutex::default();
        Control {
            process_id,
            user,
            activity: Activity::default(),
            secret,
            signal: AtomicU8::new(0),
            inner,
        }
    }

    /// The secret in the client's BackendKeyData.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Tells the session what to do.
    pub fn signal(&self, signal: Signal) {
        if self.signal.fetch_max(signal as u8, Ordering::AcqRel) >= signal as u8 {
            return;
        }
        let waker = self.inner.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What the session is told to do.
    pub fn told(&self) -> Signal {
        match self.signal.load(Ordering::Acquire) {
            0 => Signal::None,
            1 => Signal::Drain,
            _ => Signal::Terminate,
        }
    }

    /// As [`Control::told`]; wakes the task when that changes.
    pub fn poll_told(&self, cx: &Context<'_>) -> Signal {
        if self.told() != Signal::Terminate {
            let mut inner = self.inner.lock();
            if !inner
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                inner.waker = Some(cx.waker().clone());
            }
        }
        self.told()
    }

    /// Notes that a connection works for the client from now on.
    pub fn begin(&self, lease: &Lease) {
        self.activity.set_state(State::Active);
        let mut inner = self.inner.lock();
        inner
            .working
            .push((Arc::clone(lease.pool()), Arc::clone(&lease.cancel_key)));
    }

    /// Notes that no connection works for the client any more. False when a cancel request may still
    /// be on its way to one, which then must not work for anybody else.
    pub fn end(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.working.clear();
        !std::mem::take(&mut inner.cancelled)
    }

    /// The connections that work for the client, and those that rest.
    pub fn links(&self) -> Vec<Link> {
        let mut links: Vec<Link> = {
            let inner = self.inner.lock();
            let working = inner.working.iter();
            working
                .map(|(pool, key)| (Arc::clone(pool), key.process_id))
                .collect()
        };
        links.extend(self.activity.resting());
        links
    }

    /// Notes the transaction over several shards that is being committed, or that none is.
    pub fn set_committing(&self, transaction: Option<u128>) {
        self.inner.lock().committing = transaction;
    }

    /// The transaction over several shards that is being committed.
    pub fn committing(&self) -> Option<u128> {
        self.inner.lock().committing
    }

    /// Cancels whatever works for the client. Failures are the canceller's to ignore: PostgreSQL
    /// never answers a cancel request either.
    pub async fn cancel(&self) {
        self.wait_no_more();
        cancel_all(self.working()).await;
    }

    /// Cancels whatever works for the client, who is told this in place of the cancellation.
    pub async fn condemn(&self, verdict: Error) {
        self.inner.lock().verdict = Some((Instant::now(), verdict));
        self.cancel().await;
    }

    /// What the client is to be told in place of a cancellation.
    pub fn take_verdict(&self) -> Option<Error> {
        let verdict = self.inner.lock().verdict.take();
        let stands = |(since, _): &(Instant, Error)| since.elapsed() < VERDICT_STANDS;
        verdict.filter(stands).map(|(_, verdict)| verdict)
    }

    /// Ends the session, and whatever works for it.
    pub async fn terminate(&self) {
        // Once told, it lets go of its connections, and what they do would go on.
        let working = self.working();
        self.signal(Signal::Terminate);
        cancel_all(working).await;
    }

    /// The connections that are about to be cancelled.
    fn working(&self) -> Vec<(Arc<Pool>, Arc<CancelKey>)> {
        let mut inner = self.inner.lock();
        inner.cancelled = !inner.working.is_empty();
        inner.working.clone()
    }

    /// Ends what the session waits for that is no server's. Not for a session that has to end: it would
    /// take that for a cancellation if it looks before it is told.
    fn wait_no_more(&self) {
        let mut inner = self.inner.lock();
        if let Some(cancelled) = &mut inner.waiting {
            *cancelled = true;
            if let Some(waker) = inner.waker.take() {
                waker.wake();
            }
        }
    }

    /// The session waits for something that is no server's: whether it may go on waiting. Wakes the
    /// task when that changes.
    ///
    /// # Errors
    /// `57014` if its client has cancelled, `57P01` if it has to end.
    pub fn poll_waiting(&self, cx: &Context<'_>) -> Result<()> {
        if self.told() != Signal::None {
            return Err(shutdown());
        }
        self.poll_queued(cx)
    }

    /// As [`Control::poll_waiting`], while a statement of the session waits for a server. A shutdown
    /// lets it finish.
    ///
    /// # Errors
    /// `57014` if its client has cancelled, `57P01` if it has to end at once.
    pub fn poll_queued(&self, cx: &Context<'_>) -> Result<()> {
        if self.poll_told(cx) == Signal::Terminate {
            return Err(shutdown());
        }
        if *self.inner.lock().waiting.get_or_insert(false) {
            return Err(Error::new(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ));
        }
        Ok(())
    }

    /// The session waits no more.
    pub fn stop_waiting(&self) {
        self.inner.lock().waiting = None;
    }
}

/// Why a session ends that was told to.
pub(super) fn shutdown() -> Error {
    Error::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}

async fn cancel_all(working: Vec<(Arc<Pool>, Arc<CancelKey>)>) {
    for (pool, key) in working {
        if let Err(error) = pool.cancel(&key).await {
            tracing::warn!(%error, server = %pool.target().address, "cancel request failed");
        }
    }
}

/// All sessions, and what they have in common.
#[derive(Debug)]
pub struct Sessions {
    roll: Mutex<Roll>,
    /// What is served, and how to change it.
    pub operations: Operations,
}

#[derive(Debug, Default)]
struct Roll {
    by_process_id: HashMap<i32, Arc<Control>>,
    /// What the sessions that are gone have done, by database.
    gone: BTreeMap<String, Totals>,
    /// What all had done at some moments.
    samples: Samples,
}

/// A session's place among [`Sessions`]; left when dropped.
#[derive(Debug)]
pub struct Registered {
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// The session.
    pub control: Arc<Control>,
    /// What it counts.
    pub tally: Tally,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(operations: Operations) -> Sessions {
        Sessions {
            roll: Mutex::default(),
            operations,
        }
    }

    /// Enters a session of `user` with a new process id and a secret of `secret_bytes`.
    pub fn enter(self: &Arc<Sessions>, secret_bytes: usize, user: &str) -> Registered {
        let mut secret = vec![0; secret_bytes];
        rand::fill(&mut secret[..]);
        let by_process_id = &mut self.roll.lock().by_process_id;
        let mut process_id = rand::random_range(PROCESS_IDS);
        while by_process_id.contains_key(&process_id) {
            process_id = rand::random_range(PROCESS_IDS);
        }
        let control = Arc::new(Control::new(process_id, secret, user.to_owned()));
        by_process_id.insert(process_id, Arc::clone(&control));
        Registered {
            sessions: Arc::clone(self),
            control,
            tally: Tally::default(),
        }
    }

    /// All of them, in the order of their process ids.
    pub fn all(&self) -> Vec<Arc<Control>> {
        let mut all: Vec<_> = self.roll.lock().by_process_id.values().cloned().collect();
        all.sort_by_key(|control| control.process_id);
        all
    }

    /// What all sessions have done so far, those that are gone too, by database.
    pub fn totals(&self) -> BTreeMap<String, Totals> {
        let roll = self.roll.lock();
        let mut totals = roll.gone.clone();
        for (database, gate) in self.operations.gates() {
            let waited = gate.waited().as_micros();
            let totals = totals.entry(database).or_default();
            totals.wait_us += u64::try_from(waited).unwrap_or(u64::MAX);
        }
        for control in roll.by_process_id.values() {
            if let Some(identity) = control.activity.identity() {
                *totals.entry(identity.database.clone()).or_default() += control.activity.totals();
            }
        }
        totals
    }

    /// Notes what all have done so far; averages are of what is done after a while.
    pub fn sample(&self) {
        let totals = self.totals();
        stats::sample(&mut self.roll.lock().samples, Instant::now(), totals);
    }

    /// What all had done when the period began that averages are of.
    pub fn earliest_sample(&self) -> Option<(Instant, BTreeMap<String, Totals>)> {
        self.roll.lock().samples.first().cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.roll.lock().by_process_id.len()
    }

    /// Tells every session.
    pub fn signal_all(&self, signal: Signal) {
        for control in self.all() {
            control.signal(signal);
        }
    }

    /// The session that this cancel key belongs to.
    pub fn find(&self, process_id: i32, secret: &[u8]) -> Option<Arc<Control>> {
        let control = self.roll.lock().by_process_id.get(&process_id).cloned()?;
        bool::from(control.secret.ct_eq(secret)).then_some(control)
    }
}

impl Registered {
    /// The session with this process id, of any user.
    pub fn find(&self, process_id: i32) -> Option<Arc<Control>> {
        let roll = self.sessions.roll.lock();
        roll.by_process_id.get(&process_id).cloned()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut roll = self.sessions.roll.lock();
        roll.by_process_id.remove(&self.control.process_id);
        let activity = &self.control.activity;
        if let Some(identity) = activity.identity() {
            *roll.gone.entry(identity.database.clone()).or_default() += activity.totals();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    #[test]
    fn only_the_right_secret_finds_a_session() {
        let sessions = Arc::new(Sessions::new(Operations::new().0));
        let entered = sessions.enter(4, "app");
        let process_id = entered.control.process_id;
        assert!(
            sessions
                .find(process_id, entered.control.secret())
                .is_some()
        );
        assert!(sessions.find(process_id, b"").is_none());
        drop(entered);
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn each_new_signal_wakes_the_session_once() {
        struct Count(AtomicU8);
        impl Wake for Count {
            fn wake(self: Arc<Count>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let wakes = Arc::new(Count(AtomicU8::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let entered = Arc::new(Sessions::new(Operations::new().0)).enter(4, "app");
        let control = &entered.control;
        assert_eq!(control.poll_told(&cx), Signal::None);
        for (signal, seen) in [
            (Signal::Drain, 1),
            (Signal::Drain, 1),
            (Signal::Terminate, 2),
        ] {
            control.signal(signal);
            assert_eq!(wakes.0.load(Ordering::Relaxed), seen, "{signal:?}");
            assert_eq!(control.poll_told(&cx), signal);
        }
    }

    #[test]
    fn a_signal_never_weakens() {
        let sessions = Arc::new(Sessions::new(Operations::new().0));
        let entered = sessions.enter(4, "app");
        sessions.signal_all(Signal::Terminate);
        sessions.signal_all(Signal::Drain);
        assert_eq!(entered.control.told(), Signal::Terminate);
    }
}
