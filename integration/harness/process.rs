//! The proxy as users run it: the binary, a file, signals, a log.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use shardwire::demo::postgres::Port;

use super::{DEADLINE, Endpoint, Raw, eventually};

/// What a proxy listens on.
pub struct Ports {
    /// For clients.
    pub clients: Port,
    /// For metrics.
    pub metrics: Port,
}

impl Ports {
    /// Ports that nobody uses.
    pub fn reserve() -> Arc<Ports> {
        Arc::new(Ports {
            clients: Port::reserve().unwrap(),
            metrics: Port::reserve().unwrap(),
        })
    }
}

/// A running proxy; dropping it kills it.
pub struct Proxy {
    process: Child,
    directory: PathBuf,
    /// Where its clients connect.
    pub endpoint: Endpoint,
    ports: Arc<Ports>,
}

/// The program under test, to be run in its own directory without the caller's variables.
pub fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardwire"));
    command.current_dir(directory).env_remove("RUST_LOG");
    command
}

impl Proxy {
    /// Starts it on `directory/proxy.yaml` and waits until a client can log in.
    pub fn start(directory: &Path, endpoint: Endpoint, ports: &Arc<Ports>) -> Proxy {
        let log = File::options();
        let log = log
            .clone()
            .create(true)
            .append(true)
            .open(directory.join("log"))
            .unwrap();
        let process = program(directory)
            .args(["--config", "proxy.yaml"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        // The scratch directory's guard ends it if this test dies.
        fs::write(directory.join("process.pid"), process.id().to_string()).unwrap();
        let mut proxy = Proxy {
            process,
            directory: directory.to_owned(),
            endpoint,
            ports: Arc::clone(ports),
        };
        eventually("accepts a login", || proxy.is_ready());
        proxy
    }

    fn is_ready(&mut self) -> Result<(), String> {
        if let Some(status) = self.process.try_wait().unwrap() {
            panic!("the proxy ended with {status}; its log:\n{}", self.log());
        }
        // Whoever else listens there may let clients in as well.
        if !listens(self.pid(), self.endpoint.port) {
            return Err(format!("it does not listen\n{}", self.log()));
        }
        match Raw::try_login(&self.endpoint) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:?}\n{}", self.log())),
        }
    }

    /// Starts it again, as it was, after its end.
    pub fn restart(&mut self) {
        let directory = self.directory.clone();
        *self = Proxy::start(&directory, self.endpoint.clone(), &self.ports);
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Sends a signal by name: `HUP`, `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let status = Command::new("/bin/sh")
            .args(["-c", &kill])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("ended", || {
            self.process.try_wait().unwrap().ok_or("it still runs")
        })
    }

    /// Memory that it holds, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let file = format!("/proc/{}/statm", self.pid());
        let text = fs::read_to_string(file).unwrap();
        let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    /// The body of an HTTP GET on the metrics port, and the status line.
    pub fn http(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.metrics.number())).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The value of a metric; zero when the line does not exist. `name` includes the labels as
    /// they are printed, or a part of them: `queries_total{database="app",route="single"}`.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, body) = self.http("/metrics");
        let line = body.lines().find(|line| line.starts_with(name));
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the program with arguments to its end in a directory.
pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    program(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether the process listens on the port.
fn listens(pid: u32, port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "0A")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let mut files = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    files.any(|file| sockets.iter().any(|socket| file.as_os_str() == &**socket))
}
