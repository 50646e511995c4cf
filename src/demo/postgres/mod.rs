//! Throw-away PostgreSQL servers: primaries and streaming secondaries, gone when dropped.
//!
//! Blocking and std only. [`Template::initdb`] runs initdb once; every primary is a copy of its
//! directory, every secondary a base backup. Servers listen on 127.0.0.1 and on a unix socket, on
//! which everybody who can reach it is trusted; over TCP passwords are SCRAM-SHA-256.

mod binaries;
mod port;
mod scratch;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use binaries::{Account, Binaries};
pub use port::Port;
pub use scratch::Scratch;

/// The superuser of every server; it has no password, so it can log in by the socket only.
pub const SUPERUSER: &str = "postgres";

/// Longest wait for a server to start, stop or catch up.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a file or process.
const POLL: Duration = Duration::from_millis(10);

/// What a server needs beyond the defaults for throw-away servers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether commits reach the disk; off is faster and safe against everything but power loss.
    pub durable: bool,
    /// PostgreSQL's `max_connections`.
    pub max_connections: u32,
    /// The TCP port; a free one when absent.
    pub port: Option<u16>,
    /// Further settings, which win over all others.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durable: false,
            max_connections: 100,
            port: None,
            settings: Vec::new(),
        }
    }
}

/// An initialised data directory from which servers are copied.
#[derive(Clone, Debug)]
pub struct Template {
    binaries: Binaries,
    scratch: Arc<Scratch>,
    data: PathBuf,
}

impl Template {
    /// Runs initdb in a new [`Scratch`] directory called after `name`, with further arguments
    /// such as `--locale=C.UTF-8`. Servers made from it live in the same directory.
    ///
    /// # Errors
    /// When the directory can't be made or initdb fails; then with what it said.
    pub fn initdb(binaries: &Binaries, name: &str, arguments: &[&str]) -> io::Result<Template> {
        let scratch = Scratch::new(name, binaries.account())?;
        let data = scratch.path().join("template");
        let mut initdb = binaries.command("initdb");
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", SUPERUSER, "-E", "UTF8", "--no-sync"])
            .args(["--no-instructions", "--auth-local=trust"])
            .arg("--auth-host=scram-sha-256")
            .args(arguments);
        run(initdb, "initdb")?;
        Ok(Template {
            binaries: binaries.clone(),
            scratch: Arc::new(scratch),
            data,
        })
    }

    /// Runs statements in the template, one after another, so that every server made from it
    /// later has their effects: roles, databases.
    ///
    /// # Errors
    /// What the server says about the first statement that fails; the ones before it stand.
    pub fn prepare(&self, database: &str, statements: &[&str]) -> io::Result<()> {
        let mut single = self.binaries.command("postgres");
        let mut child = single
            .args(["--single", "-j", "-c", "exit_on_error=on", "-D"])
            .arg(&self.data)
            .arg(database)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            for statement in statements {
                // With -j a semicolon and an empty line end a statement.
                let _ = write!(input, "{statement};\n\n");
            }
        }
        succeeded("postgres --single", &child.wait_with_output()?)
    }

    /// The programs it was made with.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The directory that holds the template and its servers.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }
}

/// A running or stopped PostgreSQL. Dropping it ends the processes and removes the directory.
#[derive(Debug)]
pub struct Server {
    template: Template,
    options: Options,
    name: String,
    /// Holds `data`, `log` and the socket.
    home: PathBuf,
    port: Port,
    process: Option<Child>,
}

impl Server {
    /// Starts a primary from the template; returns when it accepts connections. The name must be
    /// new to the template; it becomes `cluster_name`.
    ///
    /// # Errors
    /// When the server does not start within a minute; then with the end of its log.
    pub fn primary(template: &Template, name: &str, options: &Options) -> io::Result<Server> {
        let mut server = Server::place(template, name, options)?;
        let data = server.data_directory();
        template.scratch.copy_directory(&template.data, &data)?;
        server.start_new()?;
        Ok(server)
    }

    /// Starts a streaming secondary of a running server (a cascading one if that is a secondary
    /// itself); returns when it accepts reads.
    ///
    /// # Errors
    /// When the base backup fails or the server does not start within a minute.
    pub fn secondary_of(upstream: &Server, name: &str, options: &Options) -> io::Result<Server> {
        let mut server = Server::place(&upstream.template, name, options)?;
        let mut backup = upstream.command("pg_basebackup");
        backup.arg("-D").arg(server.data_directory()).args([
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        ]);
        run(backup, "pg_basebackup")?;
        server.start_new()?;
        Ok(server)
    }

    fn place(template: &Template, name: &str, options: &Options) -> io::Result<Server> {
        Ok(Server {
            template: template.clone(),
            options: options.clone(),
            name: name.to_owned(),
            home: template.scratch.make_directory(name)?,
            port: match options.port {
                Some(port) => Port::named(port),
                None => Port::reserve()?,
            },
            process: None,
        })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, of TCP on 127.0.0.1 and of the socket alike.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The directory of the unix socket.
    pub fn socket_directory(&self) -> &Path {
        &self.home
    }

    /// The data directory; `pg_hba.conf` is in it.
    pub fn data_directory(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The postmaster's process, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts it, again after [`Server::kill`] or [`Server::stop`], on the same port.
    ///
    /// # Errors
    /// When it runs already or does not accept connections within a minute.
    pub fn start(&mut self) -> io::Result<()> {
        if self.process.is_some() {
            let name = &self.name;
            return Err(io::Error::other(format!("server {name} runs already")));
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.try_start(deadline) {
                Ok(()) => return Ok(()),
                // The port, or the shared memory of a killed postmaster's children, frees soon.
                Err(failure) if failure.passing && Instant::now() < deadline => {
                    thread::sleep(POLL);
                }
                Err(failure) => return Err(io::Error::other(failure.message)),
            }
        }
    }

    /// Ends it at once, as a crash would (SIGKILL to the postmaster).
    ///
    /// # Errors
    /// As `kill(2)`.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Ends it in good order, disconnecting its clients (PostgreSQL's fast shutdown).
    ///
    /// # Errors
    /// When it takes over a minute; it is killed then.
    pub fn stop(&mut self) -> io::Result<()> {
        self.end("INT")
    }

    /// Sends the signal and waits for the end; kills when it does not come.
    fn end(&mut self, signal: &str) -> io::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let mut send = self.template.binaries.command("pg_ctl");
        send.args(["kill", signal, &process.id().to_string()]);
        let sent = run(send, "pg_ctl kill");
        let deadline = Instant::now() + DEADLINE;
        while sent.is_ok() && Instant::now() < deadline {
            if process.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        process.kill()?;
        process.wait()?;
        let name = &self.name;
        sent.and(Err(io::Error::other(format!("server {name} did not stop"))))
    }

    /// Makes a secondary a primary; returns when it accepts writes.
    ///
    /// # Errors
    /// When it is none, or takes over a minute.
    pub fn promote(&self) -> io::Result<()> {
        let mut promote = self.template.binaries.command("pg_ctl");
        promote
            .args(["promote", "-w", "-D"])
            .arg(self.data_directory());
        run(promote, "pg_ctl promote")
    }

    /// Makes a secondary stream from another server.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn follow(&self, upstream: &Server) -> io::Result<()> {
        let host = upstream.socket_directory().display();
        let port = upstream.port();
        self.psql(
            SUPERUSER,
            &format!(
                "ALTER SYSTEM SET primary_conninfo = \
                 'host={host} port={port} user={SUPERUSER}'; SELECT pg_reload_conf();"
            ),
        )?;
        Ok(())
    }

    /// Waits until this secondary has replayed what its upstream has written by now.
    ///
    /// # Errors
    /// When a server does not answer, or after a minute.
    pub fn catch_up(&self, upstream: &Server) -> io::Result<()> {
        let written = upstream.psql(SUPERUSER, "SELECT pg_current_wal_lsn()")?;
        let target = written.trim();
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let ask = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
            if self.psql(SUPERUSER, &ask)?.trim() == "t" {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        let name = &self.name;
        Err(io::Error::other(format!(
            "server {name} has not replayed {target} in a minute\n{}",
            self.log_since(0)
        )))
    }

    /// Runs a psql script as the superuser through the socket and returns what it printed
    /// (unaligned, without headers). The first error ends it.
    ///
    /// # Errors
    /// What psql wrote to standard error when it failed.
    pub fn psql(&self, database: &str, script: &str) -> io::Result<String> {
        let mut psql = self.command("psql");
        let mut child = psql
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-d", database, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take();
        let output = thread::scope(|scope| {
            // psql may print before it has read everything, so both directions go at once.
            scope.spawn(move || {
                if let Some(input) = input.as_mut() {
                    // A failed statement ends psql early; its own message says more than EPIPE.
                    let _ = input.write_all(script.as_bytes());
                }
            });
            child.wait_with_output()
        })?;
        succeeded("psql", &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A client program, to be run against this server through its socket as the superuser.
    fn command(&self, program: &str) -> Command {
        let mut command = self.template.binaries.command(program);
        command
            .arg("-h")
            .arg(&self.home)
            .args(["-p", &self.port().to_string(), "-U", SUPERUSER]);
        command
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("log")
    }

    /// The first start. A port that somebody has named is free now or the caller's fault.
    fn start_new(&mut self) -> io::Result<()> {
        if self.options.port.is_none() {
            return self.start();
        }
        let deadline = Instant::now() + DEADLINE;
        let started = self.try_start(deadline);
        started.map_err(|failure| io::Error::other(failure.message))
    }

    fn try_start(&mut self, deadline: Instant) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure {
            passing: false,
            message: format!("starting server {}: {error}", self.name),
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .map_err(failed)?;
        let log_start = log.metadata().map_err(failed)?.len();
        let mut process = self
            .postgres()
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let ended = loop {
            if self.is_ready(process.id()) {
                self.process = Some(process);
                return Ok(());
            }
            match process.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(Some(status)) => break format!("ended with {status}"),
                Ok(None) | Err(_) => {
                    let _ = process.kill();
                    let _ = process.wait();
                    break "was not ready in time".to_owned();
                }
            }
        };
        let said = self.log_since(log_start);
        Err(Failure {
            passing: said.contains("Address already in use")
                || said.contains("pre-existing shared memory block"),
            message: format!("server {} {ended}; its log says:\n{said}", self.name),
        })
    }

    fn postgres(&self) -> Command {
        let mut command = self.template.binaries.command("postgres");
        command.arg("-D").arg(self.data_directory());
        let port = self.port().to_string();
        let max_connections = self.options.max_connections.to_string();
        let home = self.home.display().to_string();
        let durable = if self.options.durable { "on" } else { "off" };
        let own: [(&str, &str); 20] = [
            ("port", &port),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &home),
            ("cluster_name", &self.name),
            ("max_connections", &max_connections),
            ("max_prepared_transactions", "64"),
            ("fsync", durable),
            ("full_page_writes", durable),
            ("shared_buffers", "32MB"),
            ("wal_level", "replica"),
            ("wal_log_hints", "on"),
            // Secondaries that were away for a while find what they missed.
            ("wal_keep_size", "256MB"),
            ("max_wal_senders", "10"),
            ("hot_standby", "on"),
            // A secondary reconnects at once, and tells its primary so.
            ("wal_retrieve_retry_interval", "100ms"),
            ("wal_receiver_status_interval", "1s"),
            ("logging_collector", "off"),
            ("lc_messages", "C"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        for (name, value) in own {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // A Ctrl-C in the terminal is for this process; it ends the servers in its own time.
        command.process_group(0);
        command
    }

    /// Whether the postmaster says it accepts connections: the eighth line of its pid file.
    fn is_ready(&self, pid: u32) -> bool {
        let file = self.data_directory().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(file) else {
            return false;
        };
        let mut lines = text.lines().map(str::trim);
        lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
    }

    fn log_since(&self, start: u64) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_file()) {
            let _ = file.seek(SeekFrom::Start(start));
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An immediate shutdown takes the children along; SIGKILL would leave them a moment.
        let _ = self.end("QUIT");
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Why a server did not start, and whether another attempt may succeed.
struct Failure {
    passing: bool,
    message: String,
}

fn run(mut command: Command, what: &str) -> io::Result<()> {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))?;
    succeeded(what, &output)
}

fn succeeded(what: &str, output: &Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    Err(io::Error::other(format!(
        "{what} ended with {status}: {}",
        said.trim_end()
    )))
}
