//! What others may know of a session while it runs: who it is, what it does, what it has done.
//!
//! The session counts for itself ([`Tally`]) and shows its counts before it waits for its client
//! ([`Activity`]): plain stores of its own, which no other session writes to.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::backend::settings::Settings;
use crate::net::stream::{Peer, Stream};
use crate::pool::Pool;
use crate::sql::lexer::tokenize;
use crate::sql::literal::{identifier_value, token_value};
use crate::sql::token::LexOptions;

/// Who a session is; known once its client has logged in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user.
    pub user: String,
    /// The database that it named.
    pub database: String,
    /// Where its client is.
    pub peer: Peer,
    /// Where its client came in.
    pub local: Peer,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// When it logged in, since 1970-01-01 UTC.
    pub since: Duration,
    /// The same moment by the other clock.
    pub began: Instant,
}

impl Identity {
    /// A session that begins now.
    pub fn new(user: &str, database: &str, stream: &Stream) -> Identity {
        Identity {
            user: user.to_owned(),
            database: database.to_owned(),
            peer: stream.peer(),
            local: stream.local(),
            tls: stream.is_tls(),
            since: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            began: Instant::now(),
        }
    }

    /// Microseconds from login to a later moment; never 0.
    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began)).max(1)
    }
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its client, outside a transaction.
    Idle,
    /// It serves a request.
    Active,
    /// It waits for its client, inside a transaction.
    InTransaction,
    /// The same, and the transaction has failed.
    Failed,
    /// It waits for a server connection.
    Waiting,
}

impl State {
    /// As views show it, in the words of `pg_stat_activity`.
    pub fn word(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Active => "active",
            State::InTransaction => "idle in transaction",
            State::Failed => "idle in transaction (aborted)",
            State::Waiting => "waiting",
        }
    }

    fn from_number(number: u8) -> State {
        match number {
            0 => State::Idle,
            2 => State::InTransaction,
            3 => State::Failed,
            4 => State::Waiting,
            _ => State::Active,
        }
    }
}

/// What a session has done, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Transactions that used a server.
    pub transactions: u64,
    /// Requests that were answered: simple queries and batches up to their Sync.
    pub queries: u64,
    /// Bytes that came from the client.
    pub received: u64,
    /// Bytes that went to the client.
    pub sent: u64,
    /// Microseconds inside transactions that used a server.
    pub transaction_us: u64,
    /// Microseconds from requests to the end of their answers.
    pub query_us: u64,
    /// How often it got a server connection.
    pub assignments: u64,
    /// Microseconds in line for one.
    pub wait_us: u64,
    /// Named statements that its client has prepared.
    pub parses: u64,
    /// Statements that had to be prepared on a server for it.
    pub server_parses: u64,
    /// Named statements that its client has bound.
    pub binds: u64,
}

impl Totals {
    /// How many counters there are.
    const COUNT: usize = 11;

    fn to_array(self) -> [u64; Totals::COUNT] {
        [
            self.transactions,
            self.queries,
            self.received,
            self.sent,
            self.transaction_us,
            self.query_us,
            self.assignments,
            self.wait_us,
            self.parses,
            self.server_parses,
            self.binds,
        ]
    }

    fn from_array(counts: [u64; Totals::COUNT]) -> Totals {
        let [
            transactions,
            queries,
            received,
            sent,
            transaction_us,
            query_us,
            assignments,
            wait_us,
            parses,
            server_parses,
            binds,
        ] = counts;
        Totals {
            transactions,
            queries,
            received,
            sent,
            transaction_us,
            query_us,
            assignments,
            wait_us,
            parses,
            server_parses,
            binds,
        }
    }

    /// What has been added since `earlier`.
    pub fn since(self, earlier: Totals) -> Totals {
        let (mut now, before) = (self.to_array(), earlier.to_array());
        for (count, before) in now.iter_mut().zip(before) {
            *count = count.saturating_sub(before);
        }
        Totals::from_array(now)
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        let (mut sum, more) = (self.to_array(), other.to_array());
        for (count, more) in sum.iter_mut().zip(more) {
            *count = count.saturating_add(more);
        }
        *self = Totals::from_array(sum);
    }
}

/// A server connection of a session's: its pool and the server's process.
pub type Link = (Arc<Pool>, i32);

/// What others see.
#[derive(Debug, Default)]
pub struct Activity {
    identity: OnceLock<Identity>,
    state: AtomicU8,
    /// When the latest request came, in microseconds after login; 0 before the first.
    request: AtomicU64,
    /// When the transaction at hand got its first answer, likewise; 0 outside transactions.
    transaction: AtomicU64,
    counts: [AtomicU64; Totals::COUNT],
    settings: Mutex<Arc<Settings>>,
    /// The connections that it keeps beside the one that works.
    resting: Mutex<Vec<Link>>,
    /// How many named statements its client has prepared.
    prepared: AtomicU64,
}

impl Activity {
    /// The client has logged in.
    pub fn identify(&self, identity: Identity) {
        // A session logs in once.
        let _ = self.identity.set(identity);
    }

    /// Who it is, once its client has logged in.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// What it does now.
    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed))
    }

    /// Shows what it does now.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// What it has done.
    pub fn totals(&self) -> Totals {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals::from_array(self.counts.each_ref().map(load))
    }

    /// When its latest request came, since its login.
    pub fn request(&self) -> Option<Duration> {
        after_login(&self.request)
    }

    /// When the transaction at hand got its first answer, since its login.
    pub fn transaction(&self) -> Option<Duration> {
        after_login(&self.transaction)
    }

    /// The settings that it has made.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }

    /// The connections that it keeps beside the one that works.
    pub fn resting(&self) -> Vec<Link> {
        self.resting.lock().clone()
    }

    /// How many named statements its client has prepared.
    pub fn prepared(&self) -> u64 {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Shows how many named statements its client has prepared.
    pub fn set_prepared(&self, count: usize) {
        self.prepared.store(count as u64, Ordering::Relaxed);
    }

    /// The value of `application_name`.
    pub fn application_name(&self) -> String {
        let settings = self.settings();
        let statement = settings.get("application_name");
        statement.and_then(set_value).unwrap_or_default()
    }
}

/// The value in `SET name = value`, or in the `SELECT set_config('name', 'value', false)` of a startup
/// packet's parameter.
fn set_value(statement: &str) -> Option<String> {
    let tokens = tokenize(statement.as_bytes(), LexOptions::default()).ok()?;
    let is_call = tokens
        .first()?
        .text(statement)
        .eq_ignore_ascii_case("select");
    let token = match is_call {
        true => tokens
            .iter()
            .filter(|token| token.kind.is_string())
            .nth(1)?,
        false => tokens.last()?,
    };
    let value = token_value(statement, token).or_else(|| identifier_value(statement, token))?;
    Some(value.into_owned())
}

fn after_login(place: &AtomicU64) -> Option<Duration> {
    match place.load(Ordering::Relaxed) {
        0 => None,
        micros => Some(Duration::from_micros(micros)),
    }
}

/// What the session itself counts.
#[derive(Debug, Default)]
pub struct Tally {
    totals: Totals,
    transaction: Option<Instant>,
    shown: Arc<Settings>,
    has_resting: bool,
}

impl Tally {
    /// A request that began at `began` has its answer from a server after `elapsed`; `is_done`: and
    /// so has its transaction.
    pub fn served(&mut self, began: Instant, elapsed: Duration, is_done: bool) {
        self.totals.query_us += micros(elapsed);
        let start = *self.transaction.get_or_insert(began);
        if is_done {
            self.totals.transactions += 1;
            let spent = elapsed + began.saturating_duration_since(start);
            self.totals.transaction_us += micros(spent);
            self.transaction = None;
        }
    }

    /// The transaction has ended without a server's answer.
    pub fn ended(&mut self) {
        self.transaction = None;
    }

    /// The session has got a server connection, for which it stood in line so long.
    pub fn assigned(&mut self, waited: Duration) {
        self.totals.assignments += 1;
        self.totals.wait_us += micros(waited);
    }

    /// The client has prepared a statement of this name.
    pub fn parsed(&mut self, name: &[u8]) {
        self.totals.parses += u64::from(!name.is_empty());
    }

    /// The client has bound a statement of this name.
    pub fn bound(&mut self, name: &[u8]) {
        self.totals.binds += u64::from(!name.is_empty());
    }

    /// So many named statements had to be prepared on a server.
    pub fn server_parsed(&mut self, count: u32) {
        self.totals.server_parses += u64::from(count);
    }

    /// Shows the counts; `request` is when the latest request came, `queries` how many were answered,
    /// `bytes` what came and went.
    pub fn show(
        &mut self,
        activity: &Activity,
        request: Option<Instant>,
        queries: u64,
        bytes: (u64, u64),
    ) {
        self.totals.queries = queries;
        (self.totals.received, self.totals.sent) = bytes;
        for (shown, count) in activity.counts.iter().zip(self.totals.to_array()) {
            shown.store(count, Ordering::Relaxed);
        }
        if let Some(identity) = activity.identity() {
            let at = |moment: Option<Instant>| moment.map_or(0, |at| identity.micros(at));
            activity.request.store(at(request), Ordering::Relaxed);
            let transaction = at(self.transaction);
            activity.transaction.store(transaction, Ordering::Relaxed);
        }
    }

    /// Shows the connections that the session keeps beside the one that works.
    pub fn show_resting(&mut self, activity: &Activity, links: impl Iterator<Item = Link>) {
        let mut links = links.peekable();
        let has_resting = links.peek().is_some();
        if has_resting || self.has_resting {
            *activity.resting.lock() = links.collect();
            self.has_resting = has_resting;
        }
    }

    /// Shows the session's settings if they have changed.
    pub fn show_settings(&mut self, activity: &Activity, settings: &Arc<Settings>) {
        if !Arc::ptr_eq(&self.shown, settings) {
            self.shown = Arc::clone(settings);
            *activity.settings.lock() = Arc::clone(settings);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transactions_time_reaches_from_its_first_request_to_its_last_answer() {
        let mut tally = Tally::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        tally.served(start, second, false);
        tally.served(start + 5 * second, second, true);
        assert_eq!(tally.totals.transactions, 1);
        assert_eq!(tally.totals.query_us, 2_000_000);
        assert_eq!(tally.totals.transaction_us, 6_000_000);
        tally.served(start + 9 * second, second, true);
        assert_eq!(tally.totals.transaction_us, 7_000_000);
    }

    #[test]
    fn the_application_is_what_was_set_last() {
        let activity = Activity::default();
        assert_eq!(activity.application_name(), "");
        for (statement, name) in [
            (
                "SELECT pg_catalog.set_config('application_name', 'it''s', false)",
                "it's",
            ),
            ("SET application_name = 'psql'", "psql"),
            ("SET application_name TO Word", "word"),
        ] {
            let mut settings = Settings::default();
            settings.set("application_name", statement);
            Tally::default().show_settings(&activity, &Arc::new(settings));
            assert_eq!(activity.application_name(), name);
        }
    }

    #[test]
    fn totals_add_up_field_by_field() {
        let counts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let mut totals = Totals::from_array(counts);
        assert_eq!(totals.to_array(), counts);
        totals += Totals::from_array(counts);
        assert_eq!(totals.queries, 4);
        assert_eq!(totals.since(Totals::from_array(counts)).to_array(), counts);
    }

    #[test]
    fn what_is_shown_is_what_was_counted() {
        let (activity, mut tally) = (Activity::default(), Tally::default());
        tally.served(Instant::now(), Duration::from_millis(2), true);
        tally.assigned(Duration::ZERO);
        tally.show(&activity, None, 3, (10, 20));
        let totals = activity.totals();
        assert_eq!((totals.queries, totals.assignments), (3, 1));
        assert_eq!((totals.received, totals.sent), (10, 20));
        for state in [
            State::Idle,
            State::Active,
            State::InTransaction,
            State::Failed,
            State::Waiting,
        ] {
            activity.set_state(state);
            assert_eq!(activity.state(), state);
        }
    }
}
