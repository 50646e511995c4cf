//! What is served, as operators see it, and what they can order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::session::database::Database;
use crate::session::gate::Gate;
use crate::sqlstate::SqlState;

/// Orders that wait to be carried out.
const MAX_ORDERS: usize = 16;

/// What a configuration has made.
pub struct Serving {
    /// The configuration.
    pub config: Arc<Config>,
    /// The databases by name.
    pub databases: BTreeMap<String, Arc<Database>>,
}

/// What an operator wants of the process.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again; the answer is what became of it.
    Reload(oneshot::Sender<Result<()>>),
    /// End, as at SIGTERM.
    ShutDown,
}

/// What is served, and the way to those who can change it.
pub struct Operations {
    serving: ArcSwapOption<Serving>,
    orders: mpsc::Sender<Order>,
    lasting: Mutex<Lasting>,
}

/// What outlives a reload.
#[derive(Default)]
struct Lasting {
    gates: BTreeMap<String, Arc<Gate>>,
    /// Every database that has been served and that a session still uses.
    databases: Vec<Weak<Database>>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Nothing is served yet; orders come out of the receiver.
    pub fn new() -> (Operations, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(MAX_ORDERS);
        let operations = Operations {
            serving: ArcSwapOption::empty(),
            orders,
            lasting: Mutex::default(),
        };
        (operations, receiver)
    }

    /// From now on this is served.
    pub fn serve(&self, serving: Serving) {
        let mut lasting = self.lasting.lock();
        lasting.databases.retain(|known| known.strong_count() > 0);
        for database in serving.databases.values() {
            let database = Arc::downgrade(database);
            if !lasting
                .databases
                .iter()
                .any(|known| known.ptr_eq(&database))
            {
                lasting.databases.push(database);
            }
        }
        drop(lasting);
        self.serving.store(Some(Arc::new(serving)));
    }

    /// What is served.
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    /// The gate of a database, one for all configurations.
    pub fn gate(&self, database: &str) -> Arc<Gate> {
        let mut lasting = self.lasting.lock();
        Arc::clone(lasting.gates.entry(database.to_owned()).or_default())
    }

    /// All gates, by database.
    pub fn gates(&self) -> Vec<(String, Arc<Gate>)> {
        let lasting = self.lasting.lock();
        let gates = lasting.gates.iter();
        gates
            .map(|(name, gate)| (name.clone(), Arc::clone(gate)))
            .collect()
    }

    /// The database of this name, and those of earlier configurations that sessions still use.
    pub fn generations(&self, name: &str) -> Vec<Arc<Database>> {
        let lasting = self.lasting.lock();
        let all = lasting.databases.iter().filter_map(Weak::upgrade);
        all.filter(|database| database.config.name == name)
            .collect()
    }

    /// Whether a user may see what is not its own.
    pub fn may_look(&self, user: &str) -> bool {
        self.serving()
            .is_some_and(|serving| serving.config.auth.may_look(user))
    }

    /// Whether a user may end other users' sessions.
    pub fn may_change(&self, user: &str) -> bool {
        self.serving()
            .is_some_and(|serving| serving.config.auth.may_change(user))
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// `F0000` with everything that is wrong with it; then nothing has changed.
    pub async fn reload(&self) -> Result<()> {
        let (answer, receiver) = oneshot::channel();
        self.order(Order::Reload(answer)).await?;
        receiver.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Ends the process, as at SIGTERM.
    ///
    /// # Errors
    /// `57P01` if it is ending already.
    pub async fn shut_down(&self) -> Result<()> {
        self.order(Order::ShutDown).await
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.map_err(|_| shutting_down())
    }
}

fn shutting_down() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "the proxy is shutting down")
}
