//! The HTTP endpoint: /metrics for Prometheus, /healthz, /readyz, and the status page at /.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::admin::page;
use crate::error::{Error, Result};
use crate::metrics::{self, Metrics};
use crate::sqlstate::SqlState;
use crate::topology::Topology;

/// Connections served at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection, however many requests it carries.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of a request's head (hyper's smallest is 8 KiB).
const MAX_HEAD: usize = 16 << 10;
/// Pause after a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A table of the status page.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// The columns' names.
    pub columns: Vec<&'static str>,
    /// The rows; each as long as `columns`.
    pub rows: Vec<Vec<String>>,
}

/// What the endpoint shows of the running proxy.
pub trait Overview: Send + Sync + 'static {
    /// The databases served now.
    fn topologies(&self) -> Vec<Arc<Topology>>;

    /// Further tables for the status page: pools, clients.
    fn tables(&self) -> Vec<Table> {
        Vec::new()
    }
}

/// A bound endpoint.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
}

impl Endpoint {
    /// Binds the address.
    ///
    /// # Errors
    /// `58000` with what to change, when the address can't be bound.
    pub async fn bind(address: SocketAddr) -> Result<Endpoint> {
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Endpoint { listener }),
            Err(error) => Err(cannot_bind(address, &error)),
        }
    }

    /// The address, with the port that the system chose if it was 0.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until the task is dropped; its connections end with it.
    pub async fn serve(self, metrics: Metrics, overview: Arc<dyn Overview>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    let (metrics, overview) = (metrics.clone(), Arc::clone(&overview));
                    connections.spawn(async move {
                        let serving = connection(socket, metrics, overview);
                        // A peer that stays too long is cut off without further ado.
                        let _ = timeout(CONNECTION_TIMEOUT, serving).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics endpoint can't accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn cannot_bind(address: SocketAddr, error: &io::Error) -> Error {
    let message = format!("could not listen on {address} for metrics");
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Another process listens there, perhaps another shardwire: stop it, or change `metrics` in the configuration."
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need privileges: choose a higher one for `metrics` in the configuration."
        }
        _ => "Change `metrics` in the configuration to an address of this machine.",
    };
    Error::new(SqlState::SYSTEM_ERROR, message)
        .detail(format!("Reason: {error}."))
        .hint(hint)
}

async fn connection(socket: TcpStream, metrics: Metrics, overview: Arc<dyn Overview>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &metrics, &*overview);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "metrics connection ended");
    }
}

fn respond(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    overview: &dyn Overview,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    const HTML: &str = "text/html; charset=utf-8";
    if method != Method::GET && method != Method::HEAD {
        let mut response = reply(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "method not allowed\n".into(),
        );
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    match path {
        "/metrics" => reply(StatusCode::OK, metrics::CONTENT_TYPE, metrics.render()),
        "/healthz" => reply(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => match missing(&overview.topologies()) {
            reasons if reasons.is_empty() => reply(StatusCode::OK, TEXT, "ok\n".into()),
            reasons => reply(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                reasons.join("\n") + "\n",
            ),
        },
        "/" => {
            let page = page::render(&overview.topologies(), &overview.tables());
            reply(StatusCode::OK, HTML, page)
        }
        _ => reply(
            StatusCode::NOT_FOUND,
            TEXT,
            "not found; there are /, /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

/// What keeps the proxy from serving; nothing if it is ready.
fn missing(topologies: &[Arc<Topology>]) -> Vec<String> {
    let mut reasons = Vec::new();
    for topology in topologies {
        let database = &topology.database().name;
        for set in topology.shards().iter().filter(|set| !set.is_usable()) {
            reasons.push(format!(
                "database {database}: shard {} has no server in service",
                set.name
            ));
        }
        if topology.epoch() == 0 {
            reasons.push(format!(
                "database {database}: its catalogue has not been read yet"
            ));
        }
    }
    reasons
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let set = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Nothing;

    impl Overview for Nothing {
        fn topologies(&self) -> Vec<Arc<Topology>> {
            Vec::new()
        }

        fn tables(&self) -> Vec<Table> {
            vec![Table {
                title: "Pools".into(),
                columns: vec!["server"],
                rows: vec![vec!["<a&b>".into()]],
            }]
        }
    }

    async fn get(request: &str) -> String {
        let metrics = Metrics::new();
        metrics
            .integers("x", "X.", &[])
            .unwrap()
            .with_label_values::<&str>(&[])
            .set(7);
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = endpoint.local_address().unwrap();
        let server = tokio::spawn(endpoint.serve(metrics, Arc::new(Nothing)));
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        server.abort();
        String::from_utf8(answer).unwrap()
    }

    fn request(method: &str, path: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        let answer = get(&request("GET", "/metrics")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("shardwire_x 7"), "{answer}");
        assert!(get(&request("GET", "/healthz")).await.ends_with("ok\n"));
        assert!(get(&request("GET", "/readyz")).await.ends_with("ok\n"));
        let page = get(&request("GET", "/")).await;
        assert!(page.contains("&lt;a&amp;b&gt;"), "{page}");
        assert!(
            get(&request("GET", "/nope"))
                .await
                .starts_with("HTTP/1.1 404")
        );
        assert!(
            get(&request("POST", "/metrics"))
                .await
                .starts_with("HTTP/1.1 405")
        );
    }

    #[tokio::test]
    async fn oversized_and_malformed_requests_are_refused() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        let answer = get(&long).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        let answer = get("\0\0\0\x08\x04\x16\r\n\r\n").await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn a_port_in_use_says_what_to_do() {
        let first = Endpoint::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let error = Endpoint::bind(first.local_address().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.code(), SqlState::SYSTEM_ERROR);
        let hint = error.fields().hint.clone().unwrap();
        assert!(hint.contains("change `metrics`"), "{hint}");
    }
}
