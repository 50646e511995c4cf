//! Accepts clients, spawns sessions, drains on shutdown, swaps the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::http::{Endpoint, Overview, Table};
use crate::auth::users::Users;
use crate::backend::dial::Target;
use crate::backend::principal::Principal;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::net::cores::Cores;
use crate::net::home::Home;
use crate::net::listener::Listener;
use crate::net::tls::{Acceptor, Connector};
use crate::pool::Pool;
use crate::session::census::Census;
use crate::session::control::{Sessions, Signal};
use crate::session::database::Database;
use crate::session::deadlock::Detector;
use crate::session::metrics::SessionFamilies;
use crate::session::operations::{Operations, Order, Serving};
use crate::session::roles::{Question, Roles};
use crate::session::start::{Reception, Terms};
use crate::sqlstate::SqlState;
use crate::topology::{Dialer, ReplicaSet, Topology, TopologyMetrics};
use crate::txn::recovery::{Recovery, RecoveryMetrics};

/// Between two looks for connections that have lain idle for too long.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// Between two looks whether the last session has ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What sessions that are told to terminate have for their last words.
const TERMINATE_LIMIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the process is told from outside.
#[derive(Debug)]
pub struct Signals {
    /// Interrupt, terminate, hangup.
    heard: Option<[unix::Signal; 3]>,
}

impl Signals {
    /// Takes the process's SIGINT, SIGTERM and SIGHUP from now on.
    ///
    /// # Errors
    /// `58000` when the system refuses.
    pub fn listen() -> Result<Signals> {
        let listen_for = |kind| {
            signal(kind).map_err(|error| {
                let message = format!("could not wait for signals: {error}");
                Error::new(SqlState::SYSTEM_ERROR, message)
            })
        };
        let interrupt = listen_for(SignalKind::interrupt())?;
        let terminate = listen_for(SignalKind::terminate())?;
        let hangup = listen_for(SignalKind::hangup())?;
        Ok(Signals {
            heard: Some([interrupt, terminate, hangup]),
        })
    }

    /// None ever comes: for a proxy inside another program.
    pub fn none() -> Signals {
        Signals { heard: None }
    }

    /// Waits for the next; true to shut down, false to reload.
    async fn next(&mut self) -> bool {
        let Some([interrupt, terminate, hangup]) = &mut self.heard else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = hangup.recv() => false,
        }
    }
}

/// What outlives a reload.
struct Lasting {
    sessions: Arc<Sessions>,
    census: Arc<Census>,
    topology_metrics: TopologyMetrics,
    recovery_metrics: RecoveryMetrics,
    session_families: SessionFamilies,
    /// Users who do not exist get their salts from it.
    seed: [u8; 32],
}

/// The running proxy as the status page and the readiness probe see it.
struct Running(Arc<ArcSwap<Reception>>);

impl Overview for Running {
    fn topologies(&self) -> Vec<Arc<Topology>> {
        let reception = self.0.load();
        reception
            .databases
            .values()
            .map(|database| Arc::clone(&database.topology))
            .collect()
    }

    fn tables(&self) -> Vec<Table> {
        let mut pools = Table {
            title: "Pools".to_owned(),
            columns: vec!["database", "server", "open", "idle", "in use", "waiting"],
            rows: Vec::new(),
        };
        for (name, database) in &self.0.load().databases {
            for pool in database.pools().iter().flatten() {
                let counts = pool.counts();
                let mut row = vec![name.clone(), pool.target().address.to_string()];
                let numbers = [counts.open, counts.idle, counts.leased, counts.waiting];
                row.extend(numbers.map(|number| number.to_string()));
                pools.rows.push(row);
            }
        }
        vec![pools]
    }
}

/// Serves a configuration until SIGINT or SIGTERM. SIGHUP reads it anew from `path`, if it came from
/// one, and takes it whole or not at all.
///
/// # Errors
/// `58000` when an address can't be listened on, `F0000` when certificates can't be used.
pub async fn serve(config: Config, path: Option<PathBuf>) -> Result<()> {
    let cores = Cores::start().map_err(|error| {
        let message = format!("could not start the threads that serve clients: {error}");
        Error::new(SqlState::SYSTEM_ERROR, message)
    })?;
    serve_on(Arc::new(cores), (config, path), Signals::listen()?).await
}

/// As [`serve`], with the clients on these threads, until these signals say otherwise.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(
    cores: Arc<Cores>,
    (config, path): (Config, Option<PathBuf>),
    signals: Signals,
) -> Result<()> {
    let metrics = Metrics::new();
    let (operations, orders) = Operations::new();
    let lasting = Lasting {
        sessions: Arc::new(Sessions::new(operations)),
        census: Arc::default(),
        topology_metrics: TopologyMetrics::register(&metrics)?,
        recovery_metrics: RecoveryMetrics::register(&metrics)?,
        session_families: SessionFamilies::register(&metrics)?,
        seed: rand::random(),
    };
    let mut listeners = Vec::new();
    for address in &config.listen {
        listeners.push(bind(address, &cores).await?);
    }
    let endpoint = match config.metrics {
        Some(address) => Some(Endpoint::bind(address).await?),
        None => None,
    };
    let reception = Arc::new(ArcSwap::from(build(&config, None, &lasting)?));
    let mut tasks = JoinSet::new();
    if let Some(endpoint) = endpoint {
        tasks.spawn(endpoint.serve(metrics, Arc::new(Running(Arc::clone(&reception)))));
    }
    for listener in listeners {
        let accept = accept(listener, Arc::clone(&reception), Arc::clone(&cores));
        tasks.spawn_on(accept, cores.first());
    }
    let balanced = Arc::clone(&cores);
    tasks.spawn(async move { balanced.balance().await });
    tasks.spawn(reap(Arc::clone(&reception)));
    tracing::info!(listen = ?config.listen, "serving");
    until_shutdown((config, path), &reception, &lasting, (signals, orders)).await;
    // Nobody new comes in; who is between transactions leaves, the others finish theirs.
    tasks.shutdown().await;
    let limit = reception.load().shutdown;
    drain(&lasting.sessions, limit).await;
    // Not before: with the threads all sessions end.
    drop(cores);
    Ok(())
}

/// Waits for SIGINT or SIGTERM; reloads on SIGHUP.
async fn until_shutdown(
    (mut config, path): (Config, Option<PathBuf>),
    reception: &ArcSwap<Reception>,
    lasting: &Lasting,
    (mut signals, mut orders): (Signals, mpsc::Receiver<Order>),
) {
    loop {
        let answer = tokio::select! {
            shuts_down = signals.next() => match shuts_down {
                true => return,
                false => None,
            },
            order = orders.recv() => match order {
                Some(Order::Reload(answer)) => Some(answer),
                Some(Order::ShutDown) | None => return,
            },
        };
        let reloaded = match &path {
            Some(path) => reload(path, &config, reception, lasting),
            None => Err("there is no configuration file to read again".to_owned()),
        };
        let outcome = match reloaded {
            Ok(new) => {
                tracing::info!("configuration reloaded");
                config = new;
                Ok(())
            }
            Err(problem) => {
                tracing::error!("configuration not reloaded, the old one stays: {problem}");
                let message = "configuration not reloaded, the old one stays";
                Err(Error::new(SqlState::CONFIG_FILE_ERROR, message).detail(problem))
            }
        };
        if let Some(answer) = answer {
            // Who has gone meanwhile need not be told.
            let _ = answer.send(outcome);
        }
    }
}

/// Reads the file and takes it whole; on any problem nothing changes.
fn reload(
    path: &std::path::Path,
    old: &Config,
    reception: &ArcSwap<Reception>,
    lasting: &Lasting,
) -> Result<Config, String> {
    let new = Config::load(path, &|name| std::env::var(name).ok()).map_err(|p| p.to_string())?;
    if new.listen != old.listen || new.metrics != old.metrics {
        return Err("`listen` and `metrics` can't change while the proxy runs; restart it".into());
    }
    let built = build(&new, Some((old, &reception.load())), lasting).map_err(|e| e.to_string())?;
    reception.store(built);
    Ok(new)
}

/// Puts together what a configuration asks for; databases that have not changed are kept.
fn build(
    config: &Config,
    old: Option<(&Config, &Reception)>,
    lasting: &Lasting,
) -> Result<Arc<Reception>> {
    let mut databases = BTreeMap::new();
    for (name, database) in &config.databases {
        let kept = old.and_then(|(old, reception)| {
            let same = old.databases.get(name) == Some(database)
                && old.limits == config.limits
                && old.timeouts == config.timeouts;
            same.then(|| reception.databases.get(name).cloned())
                .flatten()
        });
        let database = match kept {
            Some(kept) => kept,
            None => Arc::new(open(config, database, lasting)?),
        };
        databases.insert(name.clone(), database);
    }
    let users = Users::new(&config.auth, lasting.seed)?;
    let roles = roles(config, &databases, &users)?;
    let acceptor = Acceptor::load(&config.tls)?;
    lasting.sessions.operations.serve(Serving {
        config: Arc::new(config.clone()),
        databases: databases.clone(),
    });
    Ok(Arc::new(Reception {
        roles,
        databases,
        users,
        acceptor,
        sessions: Arc::clone(&lasting.sessions),
        login_timeout: config.timeouts.login,
        connect_timeout: config.timeouts.connect,
        shutdown: config.timeouts.shutdown,
        census: Arc::clone(&lasting.census),
        terms: terms(config),
        max_startup_bytes: usize::try_from(config.limits.max_startup_bytes).unwrap_or(usize::MAX),
    }))
}

/// Who asks servers for users that the configuration does not name.
fn roles(
    config: &Config,
    databases: &BTreeMap<String, Arc<Database>>,
    users: &Users,
) -> Result<BTreeMap<String, Roles>> {
    let mut roles = BTreeMap::new();
    for (name, database) in databases {
        let query = database.config.auth_query.as_ref();
        let Some(sql) = query.or(config.auth.query.as_ref()) else {
            continue;
        };
        let patience = config.timeouts.connect;
        let question = Question {
            sql: sql.clone(),
            holds: config.auth.query_cache,
            patience,
        };
        let dialer = Dialer::new(&database.config.backend, patience)?;
        let topology = Arc::clone(&database.topology);
        let asker = Roles::new(question, topology, dialer, users.maker());
        roles.insert(name.clone(), asker);
    }
    Ok(roles)
}

/// How many clients there may be, and who they are on the servers.
fn terms(config: &Config) -> Terms {
    let mut terms = Terms {
        limits: config.limits.clone(),
        administrators: config.auth.administrators.clone(),
        ..Terms::default()
    };
    for (name, user) in &config.auth.users {
        if let Some(most) = user.max_clients {
            terms.users.insert(name.clone(), most);
        }
        if let Some(config::Role { user, password }) = &user.backend {
            let principal = Principal::new(user, password.clone());
            terms.roles.insert(name.clone(), principal);
        }
    }
    terms
}

/// Starts a database's topology and makes its pools.
fn open(config: &Config, database: &Arc<config::Database>, lasting: &Lasting) -> Result<Database> {
    let topology = Topology::start(
        Arc::clone(database),
        &config.timeouts,
        &lasting.topology_metrics,
    )?;
    let connector = Connector::load(&database.backend.tls)?;
    let backend = &database.backend;
    let principal = Principal::new(&backend.user, backend.password.clone());
    let pool = |set: &ReplicaSet, shard: &config::Shard, server: &config::Server| {
        let target = Target {
            address: server.address.clone(),
            database: database.backend.database.clone(),
            principal: Arc::clone(&principal),
            // A client that gives no name has none.
            application_name: String::new(),
            parameters: Vec::new(),
            connect_timeout: config.timeouts.connect,
        };
        let statements = config.limits.prepared_statements_per_server;
        let limits = database.pool.clone();
        let oids = Arc::clone(&set.oids);
        Pool::new(
            &shard.name,
            target,
            connector.clone(),
            limits,
            statements,
            oids,
        )
    };
    let pools = database
        .shards
        .iter()
        .zip(topology.shards())
        .map(|(shard, set)| {
            let servers = shard.servers.iter();
            servers.map(|server| pool(set, shard, server)).collect()
        })
        .collect();
    let mut recovery = Recovery::start(&topology, &lasting.recovery_metrics);
    Detector::start(&mut recovery, &lasting.sessions, &topology);
    let opened = Database::new(
        Arc::clone(database),
        (config.limits.clone(), config.timeouts.idle_client),
        topology,
        lasting.session_families.of(&database.name),
        pools,
        lasting.sessions.operations.gate(&database.name),
    );
    Ok(opened.recovering(recovery))
}

/// Listens, watched by the first core, where most clients are served.
async fn bind(address: &config::ListenAddress, cores: &Cores) -> Result<Listener> {
    let address = address.clone();
    let binding = cores
        .first()
        .spawn(async move { Listener::bind(&address).await });
    binding.await.unwrap_or_else(|_| {
        let message = "the thread that serves clients has ended";
        Err(Error::new(SqlState::SYSTEM_ERROR, message))
    })
}

/// Lets clients in, each to the core where it is served.
async fn accept(listener: Listener, reception: Arc<ArcSwap<Reception>>, cores: Arc<Cores>) {
    let arrived = Home::here();
    loop {
        match listener.accept().await {
            Ok(mut stream) => {
                let reception = reception.load_full();
                cores.spawn(|station| async move {
                    if Home::here() != arrived
                        && let Err(error) = stream.register_anew()
                    {
                        tracing::warn!(%error, "could not take a client");
                        return;
                    }
                    reception.serve(stream, station).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes server connections that have lain idle for too long, also of databases that a reload has taken
/// away from new clients and that others still use.
async fn reap(reception: Arc<ArcSwap<Reception>>) {
    let mut served: Vec<Weak<Database>> = Vec::new();
    loop {
        let now = reception.load_full();
        for database in now.databases.values() {
            let known = |other: &Weak<Database>| other.as_ptr() == Arc::as_ptr(database);
            if !served.iter().any(known) {
                served.push(Arc::downgrade(database));
            }
        }
        drop(now);
        tokio::time::sleep(REAP_INTERVAL).await;
        reception.load().sessions.sample();
        served.retain(|database| database.strong_count() > 0);
        for database in served.iter().filter_map(Weak::upgrade) {
            for pool in database.pools().iter().flatten() {
                pool.reap();
            }
        }
    }
}

/// Waits until every session has ended, at most for `limit`; then ends them.
async fn drain(sessions: &Sessions, limit: Duration) {
    if signal_until_gone(sessions, Signal::Drain, limit).await {
        return;
    }
    tracing::warn!(
        sessions = sessions.count(),
        "sessions did not finish in time and are closed"
    );
    signal_until_gone(sessions, Signal::Terminate, TERMINATE_LIMIT).await;
}

/// Tells every session, also one whose client was still logging in at first; true once none is left.
async fn signal_until_gone(sessions: &Sessions, signal: Signal, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while sessions.count() > 0 && Instant::now() < deadline {
        sessions.signal_all(signal);
        tokio::time::sleep(DRAIN_POLL).await;
    }
    sessions.count() == 0
}
