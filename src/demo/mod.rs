//! Throw-away PostgreSQL clusters on this machine, and the e-commerce sample in one.
//!
//! `shardwire demo` reads the `proxy.yaml` that this program was built with, starts the servers
//! which that file names, loads the sample, and serves. Everything is gone when it ends.

mod cluster;
mod guide;
pub mod postgres;
mod sample;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::spawn_blocking;

pub use cluster::Cluster;

use crate::config::Address;
use crate::config::Config;
use crate::config::Database;
use crate::config::ListenAddress;
use crate::error::Result;

/// The annotated default configuration, which fits the demo.
const CONFIGURATION: &str = include_str!("../../proxy.yaml");

/// What clients get after Ctrl-C. The servers are about to vanish; nobody wants to wait for a psql
/// that is still open in another window.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the demo until SIGINT or SIGTERM, then removes it. `serve` is the proxy, which stands above
/// this layer: it serves a configuration (which comes from no file) and returns on those signals.
///
/// # Errors
/// When an address is in use, there is no PostgreSQL, a server does not start or the proxy does not;
/// nothing is left behind then either.
pub async fn run<S, F>(serve: S) -> io::Result<()>
where
    S: FnOnce(Config, Option<PathBuf>) -> F,
    F: Future<Output = Result<()>>,
{
    let mut config = configuration()?;
    config.timeouts.shutdown = PATIENCE;
    check_addresses(&config)?;
    let mut end = End::new()?;
    println!("Starting PostgreSQL servers (Ctrl-C ends the demo and removes everything) …");
    let Some(cluster) = start(database(&config)?, &mut end).await? else {
        return Ok(());
    };
    print!("{}", guide::text(&config, &cluster));
    let served = serve(config, None).await;
    println!("Removing the demo's servers …");
    spawn_blocking(move || drop(cluster)).await?;
    served.map_err(io::Error::other)
}

/// The configuration of the demo, which is the default one.
///
/// # Errors
/// Never in a program whose tests passed.
pub fn configuration() -> io::Result<Config> {
    Config::parse(CONFIGURATION, &|_| None).map_err(io::Error::other)
}

fn database(config: &Config) -> io::Result<Arc<Database>> {
    let first = config.databases.values().next();
    first
        .cloned()
        .ok_or_else(|| io::Error::other("no database"))
}

/// Starts the servers; none when the demo is to end before they run.
async fn start(database: Arc<Database>, end: &mut End) -> io::Result<Option<Cluster>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&interrupted);
    let mut starting = spawn_blocking(move || Cluster::start(&database, &seen));
    tokio::select! {
        started = &mut starting => return started?.map(Some),
        () = end.come() => {}
    }
    println!("Removing the demo's servers …");
    interrupted.store(true, Ordering::Relaxed);
    // Waited for, so that the servers are gone when the demo is; how far it came does not matter.
    let started = starting.await?;
    spawn_blocking(move || drop(started)).await?;
    Ok(None)
}

/// The wish of the terminal or the system that the program end.
struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    fn new() -> io::Result<End> {
        Ok(End {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Tells all addresses at once that can't be had.
fn check_addresses(config: &Config) -> io::Result<()> {
    let mut taken = Vec::new();
    for listen in &config.listen {
        if let ListenAddress::Tcp(address) = listen {
            taken.extend(why_not("clients", *address));
        }
    }
    if let Some(address) = config.metrics {
        taken.extend(why_not("metrics", address));
    }
    for shard in config
        .databases
        .values()
        .flat_map(|database| &database.shards)
    {
        for server in &shard.servers {
            if let Address::Tcp { host, port } = &server.address {
                let purpose = format!("a server of shard {}", shard.name);
                taken.extend(why_not(&purpose, (host.as_str(), *port)));
            }
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    let list = taken.join("\n  ");
    Err(io::Error::other(format!(
        "the demo can't have these addresses:\n  {list}\n\
         Another demo may be running; \"ss -ltnp\" tells which program uses a port. End it and try again."
    )))
}

/// The line about an address that can't be bound.
fn why_not(purpose: &str, address: impl ToSocketAddrs + Copy) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    let shown = address.to_socket_addrs().ok()?.next()?;
    Some(format!("{shown} for {purpose}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_taken_address_is_named_with_its_purpose() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = other.local_addr().unwrap();
        drop(other);
        let text = format!(
            "listen: {taken}\nmetrics: {free}\nauth: {{ method: trust }}\ndatabases:\n  shop:\n    \
             backend: {{ user: shop }}\n    shards: [{{ name: s7, primary: \"{taken}\" }}]\n"
        );
        let config = Config::parse(&text, &|_| None).unwrap();
        let message = check_addresses(&config).unwrap_err().to_string();
        for part in [
            format!("{taken} for clients"),
            format!("{taken} for a server of shard s7"),
        ] {
            assert!(message.contains(&part), "{message}");
        }
        assert!(!message.contains(&format!("{free} ")), "{message}");
        drop(holder);
        check_addresses(&config).unwrap();
    }
}
