//! One look at every server of a database, without changing anything: what `shardwire check` reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::catalog::Catalog;
use crate::catalog::Problem;
use crate::catalog::RawCatalog;
use crate::config::Address;
use crate::config::Database;
use crate::config::RoleHint;

use super::control::{ControlError, Dialer};
use super::identity::{Book, FirstContact, Record, store};
use super::loader;
use super::members::{Members, Report, Verdict};
use super::probe;
use super::selection::Role;
use super::server::{Facts, State};

/// For the questions to one server, beyond connecting.
const LIMIT: Duration = Duration::from_secs(30);

/// What may make servers answer the same query differently: the versions of extensions, and those of the collations that
/// columns of users have.
const TRAITS: &str = "\
SELECT 'extension ' || e.extname, e.extversion::text FROM pg_catalog.pg_extension e \
UNION ALL SELECT 'collation ' || k.collname, coalesce(pg_catalog.pg_collation_actual_version(k.oid), '') \
FROM pg_catalog.pg_collation k WHERE k.oid > 100 AND k.collprovider IN ('c', 'i') AND k.oid IN \
    (SELECT a.attcollation FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384) \
UNION ALL SELECT 'collation of the database', pg_catalog.concat_ws(' ', d.datcollate, d.datctype, \
    pg_catalog.to_jsonb(d)->>'daticulocale', pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'datcollversion') \
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    /// Of each shard, each server, in the order of the configuration.
    pub shards: Vec<Vec<Inspected>>,
    /// What is wrong with the tables.
    pub problems: Vec<Problem>,
    /// Why the tables could not be looked at, if so.
    pub unread: Option<ControlError>,
}

/// What was found at one server.
#[derive(Debug)]
pub struct Inspected {
    /// Where it listens.
    pub address: Address,
    /// The role that the configuration expects.
    pub hint: Option<RoleHint>,
    /// What it said, or why it said nothing.
    pub seen: Result<Seen, ControlError>,
}

/// What a server said.
#[derive(Debug)]
pub struct Seen {
    /// About itself.
    pub facts: Facts,
    /// The role it would have; none if it would be fenced off.
    pub role: Option<Role>,
    /// Why it would be fenced off.
    pub fence: Option<Arc<str>>,
    /// `server_encoding`.
    pub encoding: String,
    /// The versions of extensions and collations.
    pub traits: BTreeMap<String, String>,
    /// What its identity is worth.
    pub identity: Identity,
}

/// What a server's identity is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It is the shard that the configuration says it is.
    Confirmed,
    /// It has none yet; the proxy records it on first contact.
    Fresh,
    /// It has none, and the role may not record one; or may not read it.
    Denied(String),
    /// It is something else; with what to do about it.
    Wrong(String),
}

/// The answers of one server before they are held against the others'.
struct Heard {
    report: Report,
    encoding: String,
    traits: BTreeMap<String, String>,
    record: Result<Option<Record>, ControlError>,
    may_create: bool,
}

/// Looks at every server of a database.
pub async fn inspect(database: &Database, dialer: &Dialer) -> Inspection {
    let heard = join_all(database.shards.iter().map(|shard| {
        join_all(
            shard
                .servers
                .iter()
                .map(|server| hear(dialer, &server.address)),
        )
    }))
    .await;
    let book = Book::new(database);
    let states: Vec<Vec<State>> = database
        .shards
        .iter()
        .zip(&heard)
        .map(|(shard, heard)| elect(shard, heard, database.max_staleness))
        .collect();
    write_book(&book, &heard, &states);
    let (problems, unread) = tables(database, dialer, &states).await;
    let shards = heard
        .into_iter()
        .zip(states)
        .zip(&database.shards)
        .enumerate();
    let shards = shards.map(|(index, ((heard, states), shard))| {
        let servers = heard.into_iter().zip(states).zip(&shard.servers);
        let inspected = servers.map(|((heard, state), server)| Inspected {
            address: server.address.clone(),
            hint: server.hint,
            seen: heard.map(|heard| see(&book, index, heard, state)),
        });
        inspected.collect()
    });
    Inspection {
        shards: shards.collect(),
        problems,
        unread,
    }
}

async fn hear(dialer: &Dialer, address: &Address) -> Result<Heard, ControlError> {
    let control = dialer.connect(address).await?;
    match timeout(LIMIT, listen(control.client())).await {
        Ok(heard) => heard,
        Err(_) => Err(ControlError::timed_out("the inspection", LIMIT)),
    }
}

async fn listen(client: &Client) -> Result<Heard, ControlError> {
    probe::prepare(client, LIMIT).await?;
    let sent_at = Instant::now();
    let answer = probe::ask(client).await?;
    let rtt = sent_at.elapsed();
    let row = client
        .query_one(
            "SELECT current_setting('server_encoding'), \
                    has_database_privilege(current_database(), 'CREATE')",
            &[],
        )
        .await?;
    let mut traits = BTreeMap::new();
    for row in client.query(TRAITS, &[]).await? {
        traits.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let record = match answer.tables {
        0 => Ok(None),
        _ => store::read(client).await,
    };
    Ok(Heard {
        report: Report {
            facts: answer.facts,
            sent_at,
            rtt,
            verdict: Verdict::Unidentified("not judged yet".to_owned()),
        },
        encoding: row.try_get(0)?,
        traits,
        record,
        may_create: row.try_get(1)?,
    })
}

/// Roles and fences of one shard's servers.
fn elect(
    shard: &crate::config::Shard,
    heard: &[Result<Heard, ControlError>],
    max_staleness: Duration,
) -> Vec<State> {
    let hinted = shard
        .servers
        .iter()
        .map(|s| s.hint == Some(RoleHint::Primary));
    let mut members = Members::new(hinted.collect(), max_staleness);
    for (index, heard) in heard.iter().enumerate() {
        if let Ok(heard) = heard {
            members.answered(index, 0, &heard.report);
        }
    }
    members.states().to_vec()
}

/// Notes every row that was found, the primaries' over the secondaries'.
fn write_book(book: &Book, heard: &[Vec<Result<Heard, ControlError>>], states: &[Vec<State>]) {
    for (shard, (heard, states)) in heard.iter().zip(states).enumerate() {
        for (heard, state) in heard.iter().zip(states) {
            match heard.as_ref().map(|heard| &heard.record) {
                Ok(Ok(Some(record))) if state.role == Some(Role::Primary) => {
                    book.recorded(shard, record);
                }
                Ok(Ok(Some(record))) => book.replicated(shard, record),
                _ => {}
            }
        }
    }
}

fn see(book: &Book, shard: usize, heard: Heard, state: State) -> Seen {
    let identity = match &heard.record {
        Ok(Some(record)) => match book.judge(shard, record) {
            Verdict::Misplaced(why) => Identity::Wrong(why),
            _ => Identity::Confirmed,
        },
        Ok(None) => match book.first_contact(shard) {
            FirstContact::Refuse(why) => Identity::Wrong(why),
            _ if heard.may_create || state.role == Some(Role::Secondary) => Identity::Fresh,
            _ => Identity::Denied("the role may not create the schema \"shardwire\"".to_owned()),
        },
        Err(error) => Identity::Denied(format!("the schema \"shardwire\" can't be read: {error}")),
    };
    Seen {
        facts: heard.report.facts,
        role: state.role,
        fence: state.fence,
        encoding: heard.encoding,
        traits: heard.traits,
        identity,
    }
}

/// The catalogue of a database, as the proxy would read it now.
///
/// # Errors
/// Why it can't be read.
pub async fn catalog(database: &Database, dialer: &Dialer) -> Result<Catalog, ControlError> {
    let mut states = Vec::new();
    for shard in &database.shards {
        let heard = shard.servers.iter();
        let heard = join_all(heard.map(|server| hear(dialer, &server.address))).await;
        states.push(elect(shard, &heard, database.max_staleness));
    }
    let primaries = primaries(database, &states);
    match timeout(LIMIT, read_catalog(database, dialer, &primaries)).await {
        Ok(raw) => Ok(Catalog::build(1, &raw?, database).0),
        Err(_) => Err(ControlError::timed_out("reading the catalogue", LIMIT)),
    }
}

/// The primary of each shard that has one.
fn primaries<'a>(database: &'a Database, states: &[Vec<State>]) -> Vec<(usize, &'a Address)> {
    let mut primaries = Vec::new();
    for (index, (states, shard)) in states.iter().zip(&database.shards).enumerate() {
        let primary = states
            .iter()
            .position(|state| state.role == Some(Role::Primary));
        if let Some(server) = primary.and_then(|primary| shard.servers.get(primary)) {
            primaries.push((index, &server.address));
        }
    }
    primaries
}

/// What is wrong with the tables, by the configuration and between the primaries.
async fn tables(
    database: &Database,
    dialer: &Dialer,
    states: &[Vec<State>],
) -> (Vec<Problem>, Option<ControlError>) {
    let primaries = primaries(database, states);
    match timeout(LIMIT, read_tables(database, dialer, &primaries)).await {
        Ok(Ok(problems)) => (problems, None),
        Ok(Err(error)) => (Vec::new(), Some(error)),
        Err(_) => {
            let error = ControlError::timed_out("reading the catalogue", LIMIT);
            (Vec::new(), Some(error))
        }
    }
}

/// What the first primary says, with the home tables of the others.
async fn read_catalog(
    database: &Database,
    dialer: &Dialer,
    primaries: &[(usize, &Address)],
) -> Result<RawCatalog, ControlError> {
    let Some((read, first)) = primaries.first() else {
        return Err(ControlError::answer("no shard has a primary that answers"));
    };
    let control = dialer.connect(first).await?;
    let mut raw = loader::load(control.client(), database, &Arc::default()).await?;
    for home in loader::home_shards(database, &raw, *read) {
        if let Some((_, address)) = primaries.iter().find(|(shard, _)| *shard == home) {
            let control = dialer.connect(address).await?;
            let other = loader::load(control.client(), database, &raw.built_in).await?;
            loader::merge(&mut raw, database, home, &other);
        }
    }
    Ok(raw)
}

async fn read_tables(
    database: &Database,
    dialer: &Dialer,
    primaries: &[(usize, &Address)],
) -> Result<Vec<Problem>, ControlError> {
    let raw = read_catalog(database, dialer, primaries).await?;
    let (_, mut problems) = Catalog::build(0, &raw, database);
    let mut schemas = Vec::new();
    for (shard, address) in primaries {
        let control = dialer.connect(address).await?;
        let tables = loader::read_schema(control.client()).await?;
        schemas.push(loader::SchemaOf {
            shard: *shard,
            tables,
        });
    }
    problems.extend(loader::differences(database, &raw, &schemas));
    Ok(problems)
}
