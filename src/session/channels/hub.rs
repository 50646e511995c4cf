//! Who listens to what in one database, and the rounds that tell when everything has been heard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::{Error, Result};
use crate::session::channels::holders::Holders;
use crate::session::channels::listener;
use crate::session::channels::mailbox::{Letter, Mailbox};
use crate::session::database::Database;
use crate::sqlstate::SqlState;
use crate::wire::backend::notification_response;

/// The listeners of one database on this proxy.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    /// Calls the task that owns the connection.
    pub(super) bell: Notify,
    /// Whether somebody listens.
    is_active: AtomicBool,
    /// The most bytes that wait for one client.
    mailbox_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    subscribers: HashMap<Arc<str>, Vec<Arc<Mailbox>>>,
    /// Channels that perhaps nobody listens to any more.
    stale: Vec<Arc<str>>,
    orders: Vec<Order>,
    /// Who waits for a round to pass.
    waiters: Vec<(u64, oneshot::Sender<Result<()>>)>,
    /// The last round that has begun.
    begun: u64,
    /// Another one is wanted.
    is_wanted: bool,
    holders: Holders,
    /// Counts the times that the first client began to listen.
    generation: u64,
}

/// A client's wish to listen to a channel.
#[derive(Debug)]
pub(super) struct Order {
    /// The channel.
    pub channel: Arc<str>,
    mailbox: Arc<Mailbox>,
    done: oneshot::Sender<Result<()>>,
}

/// What the task does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing until something comes.
    Wait,
    /// A round.
    Round {
        /// The clients' wishes, which are met once it has passed.
        orders: Vec<Order>,
        /// Channels that nobody listens to any more.
        stale: Vec<Arc<str>>,
    },
    /// Nobody listens any more.
    Close,
}

/// A server process that works for a client.
#[derive(Debug)]
pub struct Holding {
    hub: Arc<Hub>,
    process: i32,
    client: i32,
    generation: u64,
    /// The round with which it is certain whose notifications are heard.
    certain: u64,
}

impl Hub {
    /// Nobody listens; up to `mailbox_bytes` may wait for one client.
    pub fn new(mailbox_bytes: usize) -> Arc<Hub> {
        Arc::new(Hub {
            state: Mutex::default(),
            bell: Notify::new(),
            is_active: AtomicBool::new(false),
            mailbox_bytes,
        })
    }

    /// An empty mailbox.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Mailbox::new(self.mailbox_bytes)
    }

    /// Whether somebody listens.
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// Has the channel's notifications put into the mailbox from now on: everything that commits after
    /// this returns, nothing that was committed before it was called.
    ///
    /// # Errors
    /// Why the home shard's primary can't be reached, or what it says to LISTEN.
    pub async fn subscribe(
        database: &Arc<Database>,
        channel: &str,
        mailbox: &Arc<Mailbox>,
    ) -> Result<()> {
        let hub = &database.hub;
        let (done, answer) = oneshot::channel();
        let is_first = {
            let mut state = hub.state.lock();
            state.orders.push(Order {
                channel: channel.into(),
                mailbox: Arc::clone(mailbox),
                done,
            });
            let is_first = !hub.is_active.swap(true, Ordering::AcqRel);
            state.generation += u64::from(is_first);
            is_first
        };
        if is_first {
            tokio::spawn(listener::run(Arc::clone(database)));
        }
        hub.bell.notify_one();
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Ends what [`Hub::subscribe`] began.
    pub fn unsubscribe(&self, channel: &Arc<str>, mailbox: &Arc<Mailbox>) {
        {
            let mut state = self.state.lock();
            let Some(all) = state.subscribers.get_mut(channel) else {
                return;
            };
            all.retain(|one| !Arc::ptr_eq(one, mailbox));
            if !all.is_empty() {
                return;
            }
            state.subscribers.remove(channel);
            state.stale.push(Arc::clone(channel));
        }
        self.bell.notify_one();
    }

    /// Waits until everything that was committed by now is in its mailboxes.
    ///
    /// # Errors
    /// Why that can't be known: the connection was lost.
    pub async fn pass(&self) -> Result<()> {
        let answer = {
            let mut state = self.state.lock();
            if !self.is_active() {
                return Ok(());
            }
            let (done, answer) = oneshot::channel();
            let round = state.begun + 1;
            state.is_wanted = true;
            state.waiters.push((round, done));
            answer
        };
        self.bell.notify_one();
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Asks for a round.
    pub(super) fn want_round(&self) {
        self.state.lock().is_wanted = true;
    }

    /// Notes that a process of the home shard's primary works for `client`; `last` used it before, 0 if
    /// nobody has.
    pub fn hold(self: &Arc<Hub>, process: i32, client: i32, last: i32) -> Holding {
        let mut state = self.state.lock();
        let next = state.begun + 1;
        let certain = state.holders.take(process, client, last, next);
        if certain > state.holders.passed() {
            state.is_wanted = true;
            self.bell.notify_one();
        }
        Holding {
            hub: Arc::clone(self),
            process,
            client,
            generation: state.generation,
            certain,
        }
    }

    /// What the task does next.
    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        if state.subscribers.is_empty() && state.orders.is_empty() {
            return Next::Close;
        }
        let stale: Vec<_> = std::mem::take(&mut state.stale)
            .into_iter()
            .filter(|channel| {
                let is_ordered = state.orders.iter().any(|order| order.channel == *channel);
                !is_ordered && !state.subscribers.contains_key(channel)
            })
            .collect();
        if state.orders.is_empty() && stale.is_empty() && !state.is_wanted {
            return Next::Wait;
        }
        state.begun += 1;
        state.is_wanted = false;
        Next::Round {
            orders: std::mem::take(&mut state.orders),
            stale,
        }
    }

    /// The round that began last has passed.
    pub(super) fn passed(&self, orders: Vec<Order>) {
        let mut done = Vec::with_capacity(orders.len());
        {
            let mut state = self.state.lock();
            let round = state.begun;
            state.holders.pass(round);
            for order in orders {
                let all = state.subscribers.entry(order.channel).or_default();
                if !all.iter().any(|one| Arc::ptr_eq(one, &order.mailbox)) {
                    all.push(order.mailbox);
                }
                done.push(order.done);
            }
            for (wanted, waiter) in std::mem::take(&mut state.waiters) {
                if wanted <= round {
                    done.push(waiter);
                } else {
                    state.waiters.push((wanted, waiter));
                }
            }
        }
        for one in done {
            // Who has gone needs no answer.
            let _ = one.send(Ok(()));
        }
    }

    /// Puts a notification into the mailboxes of those who listen to its channel.
    pub(super) fn deliver(&self, process: i32, channel: &[u8], payload: &[u8]) {
        let Ok(name) = std::str::from_utf8(channel) else {
            return;
        };
        let state = self.state.lock();
        let Some((channel, mailboxes)) = state.subscribers.get_key_value(name) else {
            return;
        };
        let mut frame = Vec::with_capacity(name.len() + payload.len() + 16);
        let notifier = state.holders.notifier(process);
        notification_response(&mut frame, notifier, name.as_bytes(), payload);
        let letter = Arc::new(Letter {
            channel: Arc::clone(channel),
            frame,
        });
        for mailbox in mailboxes {
            mailbox.put(&letter);
        }
    }

    /// Takes orders back that a round did not meet.
    pub(super) fn put_back(&self, orders: Vec<Order>) {
        self.state.lock().orders.extend(orders);
    }

    /// The connection is lost: tells everybody.
    pub(super) fn fail(&self, cause: &Error) {
        let (subscribers, orders, waiters) = {
            let mut state = self.state.lock();
            state.stale.clear();
            (
                std::mem::take(&mut state.subscribers),
                std::mem::take(&mut state.orders),
                std::mem::take(&mut state.waiters),
            )
        };
        for mailbox in subscribers.values().flatten() {
            mailbox.end(missed(cause));
        }
        let fields = cause.fields();
        let mut error = Error::new(fields.code, fields.message.clone());
        if let Some(detail) = &fields.detail {
            error = error.detail(detail.clone());
        }
        let orders = orders.into_iter().map(|order| order.done);
        for waiter in orders.chain(waiters.into_iter().map(|(_, waiter)| waiter)) {
            // As above.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Ends the task's work if nobody listens or wants to; false if somebody does.
    pub(super) fn rest(&self) -> bool {
        let waiters = {
            let mut state = self.state.lock();
            if !state.subscribers.is_empty() || !state.orders.is_empty() {
                return false;
            }
            state.stale.clear();
            state.is_wanted = false;
            let passed = state.begun;
            state.holders = Holders::default();
            state.holders.pass(passed);
            self.is_active.store(false, Ordering::Release);
            std::mem::take(&mut state.waiters)
        };
        for (_, waiter) in waiters {
            // Nobody listens, so nobody misses anything.
            let _ = waiter.send(Ok(()));
        }
        true
    }
}

impl Holding {
    /// Whether this is of the process, and known to those who listen now.
    pub fn is_of(&self, process: i32) -> bool {
        self.process == process && self.generation == self.hub.state.lock().generation
    }

    /// Whether it is certain whose notifications are heard.
    pub fn is_certain(&self) -> bool {
        self.certain <= self.hub.state.lock().holders.passed()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        let next = state.begun + 1;
        state.holders.give_back(self.process, self.client, next);
    }
}

/// What a client that listens is told when notifications may have been missed.
fn missed(cause: &Error) -> Error {
    let message = "terminating connection because notifications may have been missed";
    Error::fatal(SqlState::ADMIN_SHUTDOWN, message)
        .detail(format!(
            "The connection that listens for all clients was lost: {}.",
            cause.fields().message
        ))
        .hint("Connect and LISTEN again, then look at what has happened meanwhile.")
}

fn stopped() -> Error {
    Error::new(
        SqlState::CONNECTION_FAILURE,
        "the connection that listens for all clients was closed",
    )
}
