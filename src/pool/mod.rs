//! Server connections kept for reuse: one pool per server, for all roles.
//!
//! A [`Lease`] is the right to use one connection. [`Lease::give_back`] returns it, which its holder
//! may do only when the connection is in a known-clean state; dropping a lease in any other way closes
//! the connection. So a connection whose state is not known never reaches another client.
//!
//! Connections that lie idle, connections being made and connections on lease together never exceed
//! `pool.max_size`. Who finds none waits in line, first come first served, for at most
//! `pool.queue_timeout`; a connection given back goes straight to the first in line.
//!
//! Clients stay on their cores ([`crate::net::cores`]), and a connection is watched by the core that it
//! was last used on. So a client gets one of its own core if one lies idle there, and a connection given
//! back goes to somebody of its core unless another has waited longer by [`MOST_OVERTAKEN`]. Only then, or
//! when its own core has none, a connection moves. Every now and then a new one is made instead, so that
//! each core comes to have what it needs, within `pool.max_size`.
//!
//! A connection belongs to the role that it has logged in as. Who needs one of another role takes the
//! place of the connection that has lain idle longest, or of one that is given back.

mod lease;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::backend::connection::{CancelKey, Connection};
use crate::backend::dial::{Target, dial};
use crate::backend::member::Member;
use crate::backend::principal::Principal;
use crate::config;
use crate::error::{Error, Result};
use crate::net::home::Home;
use crate::net::tls::Connector;
use crate::sqlstate::SqlState;
use crate::wire::oids::Oids;

pub use lease::Lease;

/// The connections to one server.
#[derive(Debug)]
pub struct Pool {
    shard: Box<str>,
    target: Target,
    connector: Connector,
    limits: config::Pool,
    statements: u32,
    /// How the shard's OIDs differ from those that clients are told.
    oids: Arc<ArcSwapOption<Oids>>,
    leased: AtomicU32,
    generation: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Idle connections, the most recently used last.
    idle: Vec<Idle>,
    /// Who waits, the longest waiting first.
    line: VecDeque<Waiter>,
    /// How often the first in line has been passed over since the last turn was its.
    passed_over: u32,
    /// How many connections have moved to another core since the last was made.
    moves: u32,
    /// Connections that exist or are being made.
    open: u32,
    /// Older connections are closed when they are free.
    renewed: Option<Instant>,
    /// The connections that exist, and some that did.
    members: Vec<Weak<Member>>,
}

impl State {
    fn enroll(&mut self, member: &Arc<Member>) {
        self.members.retain(|known| known.strong_count() > 0);
        self.members.push(Arc::downgrade(member));
    }

    /// Whether a connection made at `born` may stay.
    fn keeps(&self, born: Instant) -> bool {
        self.renewed.is_none_or(|renewed| born >= renewed)
    }

    /// Takes the connection of a role that was used last, of those that are at home here if there are any.
    /// None, too, if too many have moved and there is `room` for a new one.
    fn take_idle(&mut self, role: &Arc<str>, here: Home, room: bool) -> Option<Idle> {
        let mut elsewhere = None;
        for (at, idle) in self.idle.iter().enumerate().rev() {
            if is_same(&idle.connection.role, role) {
                if idle.home == here {
                    return Some(self.idle.remove(at));
                }
                elsewhere.get_or_insert(at);
            }
        }
        let at = elsewhere?;
        if room && self.moves >= MOVES_PER_NEW {
            return None;
        }
        self.moves = self.moves.saturating_add(1);
        Some(self.idle.remove(at))
    }

    /// Whether `most` wait. Who has given up still stands in line until the place is wanted.
    fn is_full(&mut self, most: usize) -> bool {
        if self.line.len() >= most {
            self.line.retain(|waiter| !waiter.sender.is_closed());
        }
        self.line.len() >= most
    }

    /// Who gets a connection of this role that has come free: the first who waits for that role, or the
    /// first of all once it has been passed over too often; before the former who waits where the
    /// connection is at home, and nearly as long. Tells whether the role fits.
    fn next_for(&mut self, role: &Arc<str>, home: Home) -> Option<(oneshot::Sender<Turn>, bool)> {
        let mut near = self.line.iter().take(LOOK_AHEAD);
        let at = near
            .position(|waiter| is_same(&waiter.role, role))
            .filter(|at| *at == 0 || self.passed_over < MOST_PASSED_OVER);
        match at {
            None | Some(0) => self.passed_over = 0,
            Some(_) => self.passed_over += 1,
        }
        let waiter = match at {
            Some(at) => self.line.remove(self.near_home(at, home)),
            None => self.line.pop_front(),
        };
        waiter.map(|waiter| (waiter.sender, at.is_some()))
    }

    /// Who goes before the one at this place in line, because it waits at `home`.
    fn near_home(&self, at: usize, home: Home) -> usize {
        let Some(first) = self.line.get(at).filter(|first| first.home != home) else {
            return at;
        };
        let goes_before = |waiter: &Waiter| {
            waiter.home == home
                && is_same(&waiter.role, &first.role)
                && waiter.since.duration_since(first.since) < MOST_OVERTAKEN
        };
        let mut behind = self.line.iter().enumerate().take(LOOK_AHEAD).skip(at);
        let nearer = behind.find(|(_, waiter)| goes_before(waiter));
        nearer.map_or(at, |(nearer, _)| nearer)
    }
}

/// Whether two roles are one. Mostly they are the same string in memory.
fn is_same(one: &Arc<str>, other: &Arc<str>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// How far down the line a connection looks for who wants its role.
const LOOK_AHEAD: usize = 32;

/// How often the first in line lets others go first whose role fits.
const MOST_PASSED_OVER: u32 = 8;

/// How much longer than others somebody may have waited before whom they go, for being on the core where
/// the connection is at home.
const MOST_OVERTAKEN: Duration = Duration::from_millis(5);

/// How many connections move to another core before a new one is made.
const MOVES_PER_NEW: u32 = 16;

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    home: Home,
    since: Instant,
}

/// One in line.
#[derive(Debug)]
struct Waiter {
    /// The role that it needs a connection of.
    role: Arc<str>,
    home: Home,
    sender: oneshot::Sender<Turn>,
    since: Instant,
}

/// What the first in line gets.
#[derive(Debug)]
enum Turn {
    Lease(Lease),
    Place(Place),
}

/// A place among the `max_size`, not yet filled; dropping it passes it on.
#[derive(Debug)]
struct Place(Option<Arc<Pool>>);

/// How many connections a pool has, and in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Idle connections.
    pub idle: u32,
    /// Connections on lease.
    pub leased: u32,
    /// Connections that exist or are being made.
    pub open: u32,
    /// Clients in line.
    pub waiting: u32,
    /// How long the first of them has waited.
    pub longest_wait: Duration,
}

impl Pool {
    /// An empty pool for `target`, a server of `shard`; each connection keeps up to `statements`
    /// prepared statements, and exchanges OIDs by what `oids` holds when it is leased.
    pub fn new(
        shard: &str,
        target: Target,
        connector: Connector,
        limits: config::Pool,
        statements: u32,
        oids: Arc<ArcSwapOption<Oids>>,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            shard: shard.into(),
            target,
            connector,
            limits,
            statements,
            oids,
            leased: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// Operations in flight: how many connections are on lease.
    pub fn in_flight(&self) -> u32 {
        self.leased.load(Ordering::Relaxed)
    }

    /// The server and the identity the connections have on it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The shard that the server belongs to.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// The connections that exist, in the order in which they were made.
    pub fn members(&self) -> Vec<Arc<Member>> {
        let state = self.state.lock();
        state.members.iter().filter_map(Weak::upgrade).collect()
    }

    /// The state of the pool.
    pub fn counts(&self) -> Counts {
        let state = self.state.lock();
        let waiting = || state.line.iter().filter(|one| !one.sender.is_closed());
        Counts {
            idle: state.idle.len() as u32,
            leased: self.in_flight(),
            open: state.open,
            waiting: waiting().count() as u32,
            longest_wait: waiting()
                .next()
                .map_or(Duration::ZERO, |first| first.since.elapsed()),
        }
    }

    /// Leases a connection of the pool's own role.
    ///
    /// # Errors
    /// As [`Pool::lease_as`].
    pub async fn lease(self: &Arc<Pool>) -> Result<Lease> {
        self.lease_as(&self.target.principal).await
    }

    /// Leases a connection of a role: an idle one, else a new one, else the next that is given back.
    ///
    /// # Errors
    /// `53300` when the line is full or the wait too long; what [`dial`] says when the server does
    /// not take a connection.
    pub async fn lease_as(self: &Arc<Pool>, principal: &Arc<Principal>) -> Result<Lease> {
        let role = &principal.role;
        let mut waited = Duration::ZERO;
        loop {
            let here = Home::here();
            let turn = match self.next(role, here) {
                Next::Turn(turn) => turn,
                Next::Spare(place) => match self.fill(place, principal).await {
                    Ok(lease) => return Ok(lease),
                    // There are others, though not here.
                    Err(_) => continue,
                },
                Next::Wait(receiver, since) => {
                    let turn = self.wait(receiver).await?;
                    waited += since.elapsed();
                    turn
                }
                Next::Full => return Err(self.line_is_full()),
            };
            match turn {
                Turn::Lease(mut lease) => {
                    if lease.is_quiet() && lease.settle(here) {
                        lease.waited = waited;
                        return Ok(lease);
                    }
                }
                Turn::Place(place) => {
                    let mut lease = self.fill(place, principal).await?;
                    lease.waited = waited;
                    return Ok(lease);
                }
            }
        }
    }

    /// Makes a connection in a place.
    async fn fill(self: &Arc<Pool>, place: Place, principal: &Arc<Principal>) -> Result<Lease> {
        let connection = self.connect(principal).await?;
        place.fill();
        self.state.lock().enroll(&connection.member);
        Ok(Lease::new(connection, Arc::clone(self)))
    }

    async fn connect(&self, principal: &Arc<Principal>) -> Result<Box<Connection>> {
        let dialed = if Arc::ptr_eq(principal, &self.target.principal) {
            dial(&self.target, &self.connector).await?
        } else {
            let target = Target {
                principal: Arc::clone(principal),
                ..self.target.clone()
            };
            dial(&target, &self.connector).await?
        };
        let patience = self.limits.queue_timeout;
        let connection = Connection::new(dialed, &principal.role, self.statements, patience);
        Ok(Box::new(connection))
    }

    /// Makes a connection that is none of the pool's and does not count towards its limit.
    ///
    /// # Errors
    /// What [`dial`] says.
    pub async fn dial_apart(&self, application_name: &str) -> Result<Connection> {
        let mut target = self.target.clone();
        target.application_name = application_name.to_owned();
        let dialed = dial(&target, &self.connector).await?;
        let patience = self.limits.queue_timeout;
        let role = &target.principal.role;
        Ok(Connection::new(dialed, role, self.statements, patience))
    }

    /// Leases the connection to this server process if it is idle and `client` was the last to use it.
    pub fn lease_last_of(self: &Arc<Pool>, client: i32, process: i32) -> Option<Lease> {
        let mut state = self.state.lock();
        let is_it = |idle: &Idle| {
            idle.connection.last_client == client
                && idle.connection.cancel_key.process_id == process
        };
        let at = state.idle.iter().rposition(is_it)?;
        let connection = state.idle.remove(at).connection;
        drop(state);
        let mut lease = Lease::new(connection, Arc::clone(self));
        (lease.is_quiet() && lease.settle(Home::here())).then_some(lease)
    }

    /// Leases an idle connection of a role that has shown where it leads, if there is one. Never waits.
    pub fn lease_idle(self: &Arc<Pool>, role: &Arc<str>) -> Option<Lease> {
        let here = Home::here();
        let idle = {
            let mut state = self.state.lock();
            let room = state.open < self.limits.max_size;
            state.take_idle(role, here, room)?
        };
        let mut lease = Lease::new(idle.connection, Arc::clone(self));
        // Dropped, it is closed; the general way then finds another.
        (!lease.is_new() && lease.is_quiet() && lease.settle(here)).then_some(lease)
    }

    fn next(self: &Arc<Pool>, role: &Arc<str>, here: Home) -> Next {
        let mut state = self.state.lock();
        let room = state.open < self.limits.max_size;
        if let Some(idle) = state.take_idle(role, here, room) {
            Next::Turn(Turn::Lease(Lease::new(idle.connection, Arc::clone(self))))
        } else if room {
            let has_others = state.moves >= MOVES_PER_NEW;
            state.open += 1;
            state.moves = 0;
            let place = Place(Some(Arc::clone(self)));
            match has_others {
                true => Next::Spare(place),
                false => Next::Turn(Turn::Place(place)),
            }
        } else if !state.idle.is_empty() {
            // Of another role, and idle for longest: its place serves better.
            let idle = state.idle.remove(0);
            drop(state);
            drop(idle);
            Next::Turn(Turn::Place(Place(Some(Arc::clone(self)))))
        } else if state.is_full(self.limits.max_queue as usize) {
            Next::Full
        } else {
            let (sender, receiver) = oneshot::channel();
            let (role, since) = (Arc::clone(role), Instant::now());
            state.line.push_back(Waiter {
                role,
                home: here,
                sender,
                since,
            });
            Next::Wait(receiver, since)
        }
    }

    async fn wait(&self, receiver: oneshot::Receiver<Turn>) -> Result<Turn> {
        match tokio::time::timeout(self.limits.queue_timeout, receiver).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::new(
                SqlState::TOO_MANY_CONNECTIONS,
                format!(
                    "timed out waiting for a connection to server {}",
                    self.target.address
                ),
            )
            .detail(format!(
                "All {} connections stayed in use for {:?}.",
                self.limits.max_size, self.limits.queue_timeout
            ))
            .hint("Raise pool.max_size or pool.queue_timeout, or shorten transactions.")),
        }
    }

    fn line_is_full(&self) -> Error {
        Error::new(
            SqlState::TOO_MANY_CONNECTIONS,
            format!(
                "too many clients wait for a connection to server {}",
                self.target.address
            ),
        )
        .detail(format!("{} clients wait already.", self.limits.max_queue))
        .hint("Raise pool.max_queue or pool.max_size.")
    }

    /// Takes a clean connection back: to the first in line, else among the idle ones.
    fn take_back(&self, mut lease: Lease) {
        let now = Instant::now();
        if now.saturating_duration_since(lease.member.born) >= self.limits.max_lifetime {
            return;
        }
        lease.socket.trim();
        loop {
            let (sender, fits) = {
                let mut state = self.state.lock();
                if !state.keeps(lease.member.born) {
                    // Unlocked first: closing it takes the lock again.
                    drop(state);
                    return;
                }
                let home = lease.socket.home();
                let Some(next) = state.next_for(&lease.role, home) else {
                    state.idle.push(Idle {
                        connection: lease.end(),
                        home,
                        since: now,
                    });
                    return;
                };
                next
            };
            if !fits {
                // The connection makes room: whoever is next takes its place.
                self.make_room(lease, sender);
                return;
            }
            // Who gave up waiting hands the lease back.
            match sender.send(Turn::Lease(lease)) {
                Err(Turn::Lease(returned)) => lease = returned,
                _ => return,
            }
        }
    }

    /// Closes a connection; who waits with `sender` may make another in its place.
    fn make_room(&self, lease: Lease, sender: oneshot::Sender<Turn>) {
        let pool = Arc::clone(lease.pool());
        drop(lease.end());
        // If nobody receives it any more, it goes to the next in line when it is dropped.
        drop(sender.send(Turn::Place(Place(Some(pool)))));
    }

    /// Notes that a connection was closed; the first in line may make one in its place.
    fn closed(self: &Arc<Pool>) {
        drop(Place(Some(Arc::clone(self))));
    }

    /// Closes connections that lay idle for too long or are too old; returns how many.
    pub fn reap(&self) -> usize {
        let now = Instant::now();
        let mut state = self.state.lock();
        let before = state.idle.len();
        state.idle.retain(|idle| {
            now - idle.since < self.limits.idle_timeout
                && now - idle.connection.member.born < self.limits.max_lifetime
        });
        let reaped = before - state.idle.len();
        state.open -= reaped as u32;
        reaped
    }

    /// Closes connections that exist now as soon as they are free, as after the way to the server has
    /// changed; at once those that are idle.
    pub fn renew(&self) {
        self.state.lock().renewed = Some(Instant::now());
        self.clear();
    }

    /// Whether connections that [`Pool::renew`] ended are still in use.
    pub fn has_outdated(&self) -> bool {
        let state = self.state.lock();
        let mut members = state.members.iter().filter_map(Weak::upgrade);
        members.any(|member| !state.keeps(member.born))
    }

    /// Closes every idle connection; true once there is none any more, nor one being made.
    pub fn is_emptied(&self) -> bool {
        self.clear();
        self.state.lock().open == 0
    }

    /// Closes every idle connection, as after the server's role or identity has changed.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.open -= state.idle.len() as u32;
        state.idle.clear();
    }

    /// Closes the idle connections once the server's generation has grown past the one they were made
    /// under: it has failed, lost its role or been fenced since.
    pub fn at_generation(&self, generation: u64) {
        if self.generation.load(Ordering::Relaxed) != generation
            && self.generation.swap(generation, Ordering::Relaxed) != generation
        {
            self.clear();
        }
    }

    /// Asks the server to cancel what the connection with `key` is doing; returns once it has.
    pub async fn cancel(&self, key: &CancelKey) -> Result<()> {
        crate::backend::cancel::cancel(&self.target, &self.connector, key.process_id, &key.secret)
            .await
    }
}

/// What a client that needs a connection does next.
enum Next {
    Turn(Turn),
    /// A place for a new connection where one that lies idle would have to move.
    Spare(Place),
    Wait(oneshot::Receiver<Turn>, Instant),
    Full,
}

impl Place {
    /// The place is taken by a connection now.
    fn fill(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(pool) = self.0.take() else { return };
        loop {
            let sender = {
                let mut state = pool.state.lock();
                let Some(waiter) = state.line.pop_front() else {
                    state.open -= 1;
                    return;
                };
                state.passed_over = 0;
                waiter.sender
            };
            // Sent outside the lock: a receiver that is gone gives the place back, which drops it.
            match sender.send(Turn::Place(Place(Some(Arc::clone(&pool))))) {
                Ok(()) => return,
                Err(Turn::Place(mut place)) => place.0 = None,
                Err(Turn::Lease(_)) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(state: &mut State, role: &str) -> oneshot::Receiver<Turn> {
        wait_at(state, role, Home::here(), Instant::now())
    }

    fn wait_at(
        state: &mut State,
        role: &str,
        home: Home,
        since: Instant,
    ) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let role = role.into();
        state.line.push_back(Waiter {
            role,
            home,
            sender,
            since,
        });
        receiver
    }

    fn is_served(receiver: &mut oneshot::Receiver<Turn>) -> bool {
        matches!(
            receiver.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        )
    }

    #[tokio::test]
    async fn a_connection_stays_on_its_core_unless_another_waits_too_long() {
        let here = Home::here();
        let there = std::thread::spawn(Home::here).join().unwrap();
        assert_ne!(here, there);
        let role: Arc<str> = "a".into();
        let mut state = State::default();
        let start = Instant::now();
        let mut first = wait_at(&mut state, "a", there, start);
        let _other = wait_at(&mut state, "b", here, start);
        let mut near = wait_at(&mut state, "a", here, start + MOST_OVERTAKEN / 2);
        let mut late = wait_at(&mut state, "a", here, start + MOST_OVERTAKEN);
        drop(state.next_for(&role, here));
        assert!(is_served(&mut near));
        drop(state.next_for(&role, here));
        assert!(is_served(&mut first));
        drop(state.next_for(&role, here));
        assert!(is_served(&mut late));
    }

    #[test]
    fn a_connection_goes_to_its_role_but_not_for_ever() {
        let mut state = State::default();
        let mut first = wait(&mut state, "b");
        let a: Arc<str> = "a".into();
        for _ in 0..MOST_PASSED_OVER {
            let _receiver = wait(&mut state, "a");
            let (_, fits) = state.next_for(&a, Home::here()).unwrap();
            assert!(fits);
        }
        let _receiver = wait(&mut state, "a");
        let (sender, fits) = state.next_for(&a, Home::here()).unwrap();
        assert!(!fits);
        drop(sender);
        assert!(is_served(&mut first));
        assert_eq!(state.passed_over, 0);
        assert!(
            state
                .next_for(&a, Home::here())
                .is_some_and(|(_, fits)| fits)
        );
        assert!(state.next_for(&a, Home::here()).is_none());
    }

    #[test]
    fn who_gave_up_waiting_leaves_the_line() {
        let mut state = State::default();
        let first = wait(&mut state, "a");
        let _second = wait(&mut state, "a");
        assert!(state.is_full(2));
        drop(first);
        assert!(!state.is_full(2));
        assert!(state.is_full(1), "the second still waits");
    }
}
