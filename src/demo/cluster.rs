//! The servers of the demo: for every shard a primary with the sample, and its secondaries.

use std::fs;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use super::postgres::Binaries;
use super::postgres::Options;
use super::postgres::Server;
use super::postgres::Template;
use super::sample;
use crate::config::Address;
use crate::config::Database;
use crate::config::Shard;
use crate::sharding::ShardIndex;

/// Who may log in where. Everybody in the private socket directory is trusted, which is how the
/// servers are set up and how secondaries reach their primary; over TCP only the proxy's role is.
const HBA: &str = "local all all trust\nlocal replication all trust\n";

/// Running servers, shard by shard. Dropping it ends them and removes their directories.
#[derive(Debug)]
pub struct Cluster {
    shards: Vec<ReplicaSet>,
}

#[derive(Debug)]
struct ReplicaSet {
    // Dropped in this order: a secondary that outlives its primary would log that it misses it.
    secondaries: Vec<Server>,
    primary: Server,
}

impl Cluster {
    /// Starts every server that the database's configuration names, on the port it names, and loads
    /// the sample. The first server of a shard becomes its primary. Blocks, for some seconds; when
    /// `interrupted` becomes true it gives up soon.
    ///
    /// # Errors
    /// When there is no PostgreSQL, a server does not start, the configuration does not fit the
    /// sample or names other addresses than TCP ports of 127.0.0.1; [`io::ErrorKind::Interrupted`]
    /// when interrupted. Everything started by then is gone.
    pub fn start(database: &Database, interrupted: &AtomicBool) -> io::Result<Cluster> {
        let work = Work {
            database,
            interrupted,
            template: template(database)?,
        };
        let shards = thread::scope(|scope| {
            // All are started before the first is waited for.
            let starting: Vec<_> = (0..database.shards.len())
                .map(|shard| {
                    scope.spawn({
                        let work = &work;
                        move || work.replica_set(shard)
                    })
                })
                .collect();
            starting
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(started) => started,
                    Err(_) => Err(io::Error::other("a thread of the demo panicked")),
                })
                .collect::<io::Result<Vec<_>>>()
        })?;
        Ok(Cluster { shards })
    }

    /// The servers of each shard, the one that was started as primary first.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.shards
            .iter()
            .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.secondaries))
    }
}

/// What the threads that start shards share.
struct Work<'a> {
    database: &'a Database,
    interrupted: &'a AtomicBool,
    template: Template,
}

impl Work<'_> {
    fn replica_set(&self, number: ShardIndex) -> io::Result<ReplicaSet> {
        let shard = self.database.shards.get(number);
        let shard = shard.ok_or_else(|| io::Error::other("no such shard"))?;
        let mut options = self.options(shard)?.into_iter();
        let first = options.next();
        let first = first.ok_or_else(|| io::Error::other("a shard without servers"))?;
        self.go_on()?;
        let primary = Server::primary(&self.template, &format!("{}-primary", shard.name), &first)?;
        self.go_on()?;
        self.load(&primary, number)?;
        let mut secondaries = Vec::new();
        for (count, options) in options.enumerate() {
            self.go_on()?;
            let name = match count {
                0 => format!("{}-secondary", shard.name),
                _ => format!("{}-secondary-{}", shard.name, count + 1),
            };
            secondaries.push(Server::secondary_of(&primary, &name, &options)?);
        }
        Ok(ReplicaSet {
            secondaries,
            primary,
        })
    }

    fn options(&self, shard: &Shard) -> io::Result<Vec<Options>> {
        let hba = self.template.directory().join("pg_hba.conf");
        shard
            .servers
            .iter()
            .map(|server| match &server.address {
                Address::Tcp { host, port } if host == "127.0.0.1" => Ok(Options {
                    port: Some(*port),
                    settings: vec![("hba_file".to_owned(), hba.display().to_string())],
                    ..Options::default()
                }),
                other => Err(io::Error::other(format!(
                    "{other} is not a TCP port of 127.0.0.1"
                ))),
            })
            .collect()
    }

    fn load(&self, primary: &Server, shard: ShardIndex) -> io::Result<()> {
        let role = identifier(&self.database.backend.user);
        let name = identifier(&self.database.backend.database);
        primary.psql("postgres", &format!("CREATE ROLE {role} LOGIN"))?;
        primary.psql("postgres", &format!("CREATE DATABASE {name} OWNER {role}"))?;
        let sample = sample::script(self.database, shard)?;
        let script = format!("SET ROLE {role};\n{sample}");
        primary.psql(&self.database.backend.database, &script)?;
        Ok(())
    }

    fn go_on(&self) -> io::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

/// The data directory that all servers are copies of, with the login rules beside it.
fn template(database: &Database) -> io::Result<Template> {
    let template = Template::initdb(&Binaries::find()?, "demo", &[])?;
    let name = identifier(&database.backend.database);
    let role = identifier(&database.backend.user);
    let rules = format!("{HBA}host {name} {role} 127.0.0.1/32 trust\n");
    fs::write(template.directory().join("pg_hba.conf"), rules)?;
    Ok(template)
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
