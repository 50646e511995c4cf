//! From an accepted socket to a running session: handshake, login, the greeting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::users::Users;
use crate::backend::connection::Failed;
use crate::backend::principal::Principal;
use crate::config;
use crate::error::{Error, Result};
use crate::net::cores::Station;
use crate::net::duplex::Duplex;
use crate::net::stream::Stream;
use crate::net::tls::Acceptor;
use crate::pool::Lease;
use crate::session::activity::Identity;
use crate::session::batch::Batch;
use crate::session::census::{Bounds, Census, Place};
use crate::session::console::{self, Console};
use crate::session::control::Sessions;
use crate::session::database::Database;
use crate::session::greeting::Parameters;
use crate::session::handshake::{Handshake, Startup, accept};
use crate::session::lease::lease_for_login;
use crate::session::login::{Authenticated, authenticate};
use crate::session::others::Others;
use crate::session::own_values::is_own;
use crate::session::path::Whose;
use crate::session::roles::Roles;
use crate::session::settings::{ISOLATION, SessionSettings, is_utf8, shares_snapshot};
use crate::session::unit::Unit;
use crate::session::{Client, Memory, Session};
use crate::sql::classify::setting_values;
use crate::sql::shape::Shape;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{Status, backend_key_data, parameter_status, ready_for_query};
use crate::wire::startup::options;

/// Bytes of a cancel key's secret before protocol 3.2.
const SHORT_SECRET_BYTES: usize = 4;
/// And since.
const LONG_SECRET_BYTES: usize = 32;

/// What every new client meets.
pub struct Reception {
    /// The databases by name.
    pub databases: BTreeMap<String, Arc<Database>>,
    /// Who may log in.
    pub users: Users,
    /// Who asks a database's servers for other users, by database.
    pub roles: BTreeMap<String, Roles>,
    /// TLS towards clients.
    pub acceptor: Acceptor,
    /// All sessions of the process.
    pub sessions: Arc<Sessions>,
    /// The longest time from connect to login.
    pub login_timeout: Duration,
    /// The longest time for a connection to a server.
    pub connect_timeout: Duration,
    /// The longest time that sessions get to finish when the proxy shuts down.
    pub shutdown: Duration,
    /// How many clients there are.
    pub census: Arc<Census>,
    /// How many there may be, and who they are.
    pub terms: Terms,
    /// The longest startup packet, in bytes.
    pub max_startup_bytes: usize,
}

/// What the configuration has for clients beside their passwords: how many there may be, of any user
/// and in any database, and who they are on the servers.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The bounds that hold for all.
    pub limits: config::Limits,
    /// Clients of single users.
    pub users: BTreeMap<String, u32>,
    /// Whom most bounds don't bind.
    pub administrators: BTreeSet<String>,
    /// Users with a role on the servers that the configuration names.
    pub roles: BTreeMap<String, Arc<Principal>>,
}

impl Terms {
    /// The bounds for a user in a database.
    fn bounds(&self, user: &str, database: &config::Database) -> Bounds {
        let of_user = self.users.get(user).copied();
        Bounds {
            all: self.limits.max_clients,
            reserved: self.limits.reserved_clients,
            user: of_user.or(self.limits.max_clients_per_user),
            database: database
                .max_clients
                .or(self.limits.max_clients_per_database),
            is_administrator: self.administrators.contains(user),
        }
    }
}

/// Who has come in.
enum Admitted {
    /// A client, and its place among all clients.
    Client(Box<Session>, Place),
    /// An operator.
    Operator(Box<Console>),
}

impl Reception {
    /// Serves one connection, at this place, from its first byte to its last.
    pub async fn serve(self: Arc<Reception>, stream: Stream, station: Station) {
        let peer = stream.peer();
        match tokio::time::timeout(self.login_timeout, Box::pin(self.admit(stream))).await {
            Ok(Ok(Some(Admitted::Operator(console)))) => {
                drop(self);
                Box::pin(console.run()).await;
            }
            Ok(Ok(Some(Admitted::Client(mut session, place)))) => {
                session.client.station = Some(station);
                session.database.metrics.clients.inc();
                // The reception of a client that has come in is not needed any more.
                drop(self);
                attend(session, place).await;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::info!(%peer, %error, "client was not let in"),
            Err(_) => tracing::info!(%peer, "client did not log in in time"),
        }
    }

    /// Lets a client in, or passes its cancel request on.
    async fn admit(&self, stream: Stream) -> Result<Option<Admitted>> {
        match accept(stream, &self.acceptor, self.max_startup_bytes).await? {
            Handshake::Closed => Ok(None),
            Handshake::Cancel {
                stream,
                process_id,
                secret,
            } => {
                if let Some(control) = self.sessions.find(process_id, &secret) {
                    control.cancel().await;
                }
                drop(stream);
                Ok(None)
            }
            Handshake::Startup(mut startup) => {
                let roles = self.roles(&startup.database);
                let Some(proof) = authenticate(&mut startup, &self.users, roles).await? else {
                    return Ok(None);
                };
                if startup.database == console::NAME {
                    return self.open_console(startup, &proof).await;
                }
                match self.open(&mut startup, &proof).await {
                    Ok((opening, place)) => {
                        let session = opening.greet(startup.stream, &startup.unsent).await?;
                        Ok(session.map(|session| Admitted::Client(session, place)))
                    }
                    Err(error) => {
                        startup.tell(&error).await;
                        Err(error)
                    }
                }
            }
        }
    }

    async fn open_console(
        &self,
        startup: Startup,
        proof: &Authenticated,
    ) -> Result<Option<Admitted>> {
        let bytes = secret_bytes(&startup);
        match Console::open(startup, proof.user(), &self.sessions, bytes) {
            Ok(console) => Ok(Some(Admitted::Operator(Box::new(console)))),
            Err(refused) => {
                let (mut startup, error) = *refused;
                startup.tell(&error).await;
                Err(error)
            }
        }
    }

    /// Whom to ask for users of a database. Whether there is such a database is nobody's business
    /// before the login: where there is none, any of the others answers.
    fn roles(&self, database: &str) -> Option<&Roles> {
        match self.databases.contains_key(database) {
            true => self.roles.get(database),
            // A database's servers can't make operators: those the file names.
            false if database == console::NAME => None,
            false => self.roles.values().next(),
        }
    }

    /// Who the client is on the servers, if not who all are.
    fn principal(
        &self,
        client: &Authenticated,
        backend: &config::Backend,
    ) -> Option<Arc<Principal>> {
        if let Some(role) = self.terms.roles.get(client.user()) {
            return Some(Arc::clone(role));
        }
        backend.per_user.then(|| {
            Arc::new(Principal {
                role: client.user().into(),
                proof: client.proof().clone(),
            })
        })
    }

    /// Checks what the client wants; nothing has been said to it yet.
    async fn open(&self, startup: &mut Startup, proof: &Authenticated) -> Result<(Opening, Place)> {
        let database = self.databases.get(&startup.database).ok_or_else(|| {
            Error::fatal(
                SqlState::INVALID_CATALOG_NAME,
                format!("database \"{}\" does not exist", startup.database),
            )
        })?;
        database.gate.admit(&startup.database)?;
        let bounds = self.terms.bounds(proof.user(), &database.config);
        let place = self
            .census
            .enter(proof.user(), &startup.database, &bounds)?;
        let database = Arc::clone(database);
        let registered = self.sessions.enter(secret_bytes(startup), &startup.user);
        let identity = Identity::new(proof.user(), &startup.database, &startup.stream);
        registered.control.activity.identify(identity);
        // Just after the start servers have yet to be seen; later this does not wait.
        let deadline = Instant::now() + self.connect_timeout;
        if !database.topology.ready(deadline).await {
            tracing::debug!("a client comes in while a shard is not ready");
        }
        let parameters = startup_parameters(&startup.parameters)?;
        let mut opening = Opening {
            principal: self.principal(proof, &database.config.backend),
            database,
            registered,
            settings: SessionSettings::default(),
            reported: Arc::default(),
            notices: Vec::new(),
        };
        opening.learn(parameters).await.map_err(Error::into_fatal)?;
        Ok((opening, place))
    }
}

/// Serves a client that has come in, until it leaves or moves to another core.
async fn attend(session: Box<Session>, place: Place) {
    let database = Arc::clone(&session.database);
    match session.run().await {
        None => database.metrics.clients.dec(),
        Some(session) => leave(session, place),
    }
}

/// Has another core serve the client from now on.
fn leave(mut session: Box<Session>, place: Place) {
    if let Some(station) = session.client.station.take() {
        station.leave(|station| {
            session.client.station = Some(station);
            Box::pin(attend(session, place))
        });
    }
}

/// Bytes of the secret in a client's cancel key.
fn secret_bytes(startup: &Startup) -> usize {
    match startup.minor {
        2.. => LONG_SECRET_BYTES,
        _ => SHORT_SECRET_BYTES,
    }
}

/// A session that is about to begin.
struct Opening {
    database: Arc<Database>,
    principal: Option<Arc<Principal>>,
    registered: crate::session::control::Registered,
    settings: SessionSettings,
    /// ParameterStatus for the client.
    reported: Arc<Parameters>,
    /// What the server remarked on the client's settings: whole messages.
    notices: Vec<u8>,
}

impl Opening {
    /// Learns from a server what it reports to new sessions, and has it check the client's parameters.
    async fn learn(&mut self, parameters: Parameters) -> Result<()> {
        if self.was_learned(&parameters) {
            return Ok(());
        }
        let mut lease = lease_for_login(&self.database, self.principal.as_ref()).await?;
        let whose = self.whose(&mut lease).await?;
        let mut reported = lease.parameters.to_vec();
        let mut wanted = differing(&reported, parameters.clone());
        self.know_isolation(&lease, &mut wanted);
        self.settings = SessionSettings::start(&wanted, whose)?;
        // The server reports its names and values as it understood them, but only those that change.
        let applied = match lease.apply(&Arc::default()).await {
            Ok(()) => lease.apply_reporting(self.settings.server()).await,
            Err(failed) => Err(failed),
        };
        match applied {
            Ok(said) => {
                self.notices = said.notices;
                for (name, value) in said.parameters {
                    match reported.iter_mut().find(|(known, _)| *known == name) {
                        Some(known) => known.1 = value,
                        None => reported.push((name, value)),
                    }
                }
                self.reported = Arc::new(reported);
                self.keep(parameters, &lease);
                lease.give_back();
                Ok(())
            }
            Err(Failed::Refused(error)) => {
                lease.give_back();
                Err(error)
            }
            Err(Failed::Lost(cause)) => Err(crate::backend::connection::lost(&cause)),
        }
    }

    /// Whether a server has just answered the same to another client.
    fn was_learned(&mut self, parameters: &Parameters) -> bool {
        let is_open = self.principal.is_none() && !self.database.gate.is_closed();
        let known = is_open.then(|| self.database.greetings().get(parameters));
        let Some((reported, settings)) = known.flatten() else {
            return false;
        };
        (self.reported, self.settings) = (reported, settings);
        true
    }

    /// Lets others know what the server has answered.
    fn keep(&self, parameters: Parameters, lease: &Lease) {
        if self.principal.is_none() && self.notices.is_empty() {
            let greetings = self.database.greetings();
            greetings.keep(parameters, lease, &self.reported, &self.settings);
        }
    }

    /// With several shards the proxy must know which transactions have a snapshot of their own. What the
    /// servers have for its role counts as named by the client.
    fn know_isolation(&self, lease: &Lease, parameters: &mut Vec<(String, String)>) {
        let level = lease.isolation.as_deref().unwrap_or_default();
        let is_given = parameters.iter().any(|(name, _)| name == ISOLATION);
        if !self.database.is_single() && !is_given && shares_snapshot(level) {
            parameters.push((ISOLATION.to_owned(), level.to_owned()));
        }
    }

    /// Finds out what the search path of a role of the client's own is.
    async fn whose(&self, lease: &mut Lease) -> Result<Whose> {
        // With one shard, names need not be resolved to route.
        if self.principal.is_none() || self.database.is_single() {
            return Ok(Whose::new(&lease.role, None));
        }
        let sql = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'";
        let path = lease.value(sql).await.map_err(|failed| match failed {
            Failed::Refused(error) => error,
            Failed::Lost(cause) => crate::backend::connection::lost(&cause),
        })?;
        let path = path.and_then(|path| {
            let end = u32::try_from(path.len()).unwrap_or(0);
            setting_values(&path, 0..end)
        });
        Ok(Whose::new(&lease.role, path))
    }

    /// Tells the client that it is in, behind what it is to be told before.
    async fn greet(self, stream: Stream, before: &[u8]) -> Result<Option<Box<Session>>> {
        let mut socket = Duplex::new(stream);
        let out = socket.output.tail();
        out.extend_from_slice(before);
        out.extend_from_slice(&self.notices);
        for (name, value) in self.reported.iter() {
            parameter_status(out, name, value);
        }
        let control = &self.registered.control;
        backend_key_data(out, control.process_id, control.secret());
        ready_for_query(out, Status::Idle);
        if socket.flush().await.is_err() {
            return Ok(None);
        }
        let shards = self.database.config.shards.len();
        let session = Session {
            client: Client {
                socket,
                copy_rest: 0,
                copy_passes: false,
                is_held_up: false,
                copying: None,
                at_hand: None,
                principal: self.principal,
                mail: Default::default(),
                station: None,
            },
            database: self.database,
            registered: self.registered,
            server: None,
            others: Others::default(),
            statements: Default::default(),
            transaction: Transaction::Idle,
            settings: self.settings,
            batch: Batch::default(),
            unit: Unit::default(),
            memory: Memory {
                wrote_at: vec![None; shards],
                draws: vec![Default::default(); shards],
                ..Memory::default()
            },
            shape: Shape::default(),
        };
        Ok(Some(Box::new(session)))
    }
}

/// The settings in a startup packet: those in `options` and its other parameters. Where a setting is
/// given twice the parameter wins, else the last.
///
/// # Errors
/// `0A000` for a replication connection, `22023` for options that can't be read.
fn startup_parameters(parameters: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let is_options = |(name, _): &&(String, String)| name == "options";
    let mut settings: Vec<(String, String)> = Vec::new();
    for (_, value) in parameters.iter().filter(is_options) {
        settings.extend(options(value)?);
    }
    settings.extend(parameters.iter().filter(|one| !is_options(one)).cloned());
    let mut last: Vec<(String, String)> = Vec::new();
    for (mut name, value) in settings {
        name.make_ascii_lowercase();
        last.retain(|(known, _)| *known != name);
        last.push((name, value));
    }
    Ok(last)
}

/// The parameters that are not what the server does anyway.
fn differing(
    reported: &[(String, String)],
    parameters: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let is_default = |(name, value): &(String, String)| {
        !is_own(name)
            && reported.iter().any(|(known, default)| {
                known.eq_ignore_ascii_case(name)
                    && (default == value
                        || (name == "client_encoding" && is_utf8(default) && is_utf8(value)))
            })
    };
    parameters
        .into_iter()
        .filter(|parameter| !is_default(parameter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_win_over_options() {
        let given = [
            ("WORK_MEM", "2MB"),
            ("options", "-c work_mem=1MB -c Geqo=off"),
        ];
        let given = given.map(|(n, v)| (n.to_owned(), v.to_owned()));
        let read = startup_parameters(&given).unwrap();
        let wanted = [("geqo", "off"), ("work_mem", "2MB")];
        assert_eq!(read, wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn parameters_that_change_nothing_are_left_out() {
        let reported =
            [("client_encoding", "UTF8"), ("TimeZone", "UTC")].map(|(n, v)| (n.into(), v.into()));
        let wanted = [
            ("client_encoding", "utf-8"),
            ("timezone", "UTC"),
            ("datestyle", "ISO"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
        let left = differing(&reported, wanted.to_vec());
        assert_eq!(left, [("datestyle".to_owned(), "ISO".to_owned())]);
    }
}
