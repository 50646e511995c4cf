//! Logins with real peers: the proxy's to PostgreSQL servers, libpq's to the proxy's front door.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Output;
use std::sync::OnceLock;
use std::time::Duration;

use shardwire::auth::users::Users;
use shardwire::backend::cancel::cancel;
use shardwire::backend::dial::{Dialed, Target, dial};
use shardwire::backend::principal::Principal;
use shardwire::config::{
    Address, Auth, AuthMethod, BackendTls, BackendTlsMode, ClientTls, ListenAddress, Password,
    Secret, TlsMode, User,
};
use shardwire::demo::postgres::{Binaries, Options, Server, Template};
use shardwire::error::Result;
use shardwire::net::listener::Listener;
use shardwire::net::tls::{Acceptor, Connector};
use shardwire::session::handshake::{Handshake, accept};
use shardwire::session::login::{Authenticated, authenticate};
use shardwire::sqlstate::SqlState;
use shardwire::wire::backend::{self, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use self::certificates::Authority;

#[path = "../src/net/testing.rs"]
#[allow(dead_code, reason = "the unit tests use all of it")]
pub mod certificates;

/// One role for each way to log in; the password of each is its name.
const HBA: &str = "\
local all postgres trust
local all trusted trust
local all scram scram-sha-256
host all trusted 127.0.0.1/32 trust
host all clear 127.0.0.1/32 password
host all md5 127.0.0.1/32 md5
host all scram 127.0.0.1/32 scram-sha-256
hostssl all encrypted 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
";

const ROLES: &str = "
CREATE ROLE trusted LOGIN;
CREATE ROLE clear LOGIN PASSWORD 'clear';
CREATE ROLE scram LOGIN PASSWORD 'scram';
CREATE ROLE encrypted LOGIN PASSWORD 'encrypted';
CREATE ROLE certified LOGIN;
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD 'md5';
";

/// A server with TLS, made out to 127.0.0.1, and the authority that vouches for it.
struct Postgres {
    server: Server,
    authority: Authority,
}

impl Postgres {
    fn start(name: &str) -> Postgres {
        let binaries = Binaries::find().unwrap();
        let template = Template::initdb(&binaries, name, &[]).unwrap();
        let directory = template.directory();
        let authority = Authority::within(directory);
        let (cert, key) = authority.issue("server", &["127.0.0.1"]);
        // PostgreSQL insists that its key belongs to it and is its secret.
        fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        if let Some(account) = binaries.account() {
            chown(&key, Some(account.uid), Some(account.gid)).unwrap();
        }
        let hba = directory.join("pg_hba.conf");
        fs::write(&hba, HBA).unwrap();
        let settings = [
            ("hba_file", hba),
            ("ssl_cert_file", cert),
            ("ssl_key_file", key),
            ("ssl_ca_file", authority.ca()),
        ]
        .map(|(name, path)| (name.to_owned(), path.display().to_string()));
        let mut settings = Vec::from(settings);
        settings.push(("ssl".to_owned(), "on".to_owned()));
        let options = Options {
            settings,
            ..Options::default()
        };
        let server = Server::primary(&template, "p", &options).unwrap();
        server.psql("postgres", ROLES).unwrap();
        Postgres { server, authority }
    }

    fn tcp(&self, host: &str) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port: self.server.port(),
        }
    }

    fn unix(&self) -> Address {
        Address::Unix {
            directory: self.server.socket_directory().to_owned(),
            port: self.server.port(),
        }
    }

    fn connector(&self, mode: BackendTlsMode) -> Connector {
        connector(mode, &self.authority)
    }

    /// `encrypted` or not, as the server sees the connection.
    fn encryption(&self, dialed: &Dialed) -> String {
        let ask = format!(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = {}",
            dialed.process_id
        );
        self.server
            .psql("postgres", &ask)
            .unwrap()
            .trim()
            .to_owned()
    }
}

/// The server that all tests of this module share: none of them changes it.
fn postgres() -> &'static Postgres {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    POSTGRES.get_or_init(|| Postgres::start("login"))
}

fn connector(mode: BackendTlsMode, authority: &Authority) -> Connector {
    Connector::load(&BackendTls {
        mode,
        ca: Some(authority.ca()),
        cert: None,
        key: None,
    })
    .unwrap()
}

fn target(address: Address, user: &str, password: &str) -> Target {
    Target {
        address,
        database: "postgres".to_owned(),
        principal: Principal::new(user, Some(Secret::new(password))),
        application_name: "shardwire test".to_owned(),
        parameters: vec![("extra_float_digits".to_owned(), "2".to_owned())],
        connect_timeout: Duration::from_secs(60),
    }
}

fn parameter<'a>(dialed: &'a Dialed, name: &str) -> Option<&'a str> {
    let found = dialed.parameters.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn every_method_of_postgresql_lets_the_proxy_in() {
    let postgres = postgres();
    for (address, user) in [
        (postgres.tcp("127.0.0.1"), "trusted"),
        (postgres.tcp("localhost"), "clear"),
        (postgres.tcp("127.0.0.1"), "md5"),
        (postgres.tcp("127.0.0.1"), "scram"),
        (postgres.unix(), "trusted"),
        (postgres.unix(), "scram"),
    ] {
        let target = target(address, user, user);
        let dialed = dial(&target, &Connector::off()).await.unwrap();
        assert!(parameter(&dialed, "server_version").is_some());
        assert_eq!(
            parameter(&dialed, "application_name"),
            Some("shardwire test")
        );
        assert_eq!(parameter(&dialed, "session_authorization"), Some(user));
        assert_ne!(dialed.process_id, 0);
        assert_eq!(dialed.secret.len(), 4);
        assert!(dialed.stream.is_quiet());
        assert_eq!(postgres.encryption(&dialed), "f");
    }
}

#[tokio::test]
async fn what_postgresql_refuses_is_passed_on() {
    let postgres = postgres();
    let tcp = || postgres.tcp("127.0.0.1");
    let nowhere = Target {
        database: "nowhere".to_owned(),
        ..target(tcp(), "scram", "scram")
    };
    let silent = Target {
        principal: Principal::new("scram", None),
        ..target(tcp(), "scram", "")
    };
    for (target, code, message) in [
        (target(tcp(), "scram", "x"), "28P01", "password authenti"),
        (target(tcp(), "md5", "x"), "28P01", "password authenti"),
        (target(tcp(), "clear", "x"), "28P01", "password authenti"),
        (
            target(tcp(), "nobody", "x"),
            "28000",
            "no pg_hba.conf entry",
        ),
        // Its entry wants TLS.
        (
            target(tcp(), "encrypted", "x"),
            "28000",
            "no pg_hba.conf entry",
        ),
        (nowhere, "3D000", "database \"nowhere\" does not exist"),
        (silent, "28000", "server \"127.0.0.1"),
    ] {
        let error = dial(&target, &Connector::off()).await.unwrap_err();
        assert_eq!(error.code().as_str(), code, "{error}");
        let fields = error.fields();
        assert!(fields.message.starts_with(message), "{error}");
        let whole = error.to_string();
        assert!(whole.contains(&target.address.to_string()), "{whole}");
    }
}

#[tokio::test]
async fn tls_goes_as_far_as_its_mode() {
    use BackendTlsMode::{Off, Prefer, Require, VerifyCa, VerifyFull};
    let postgres = postgres();
    let stranger = Authority::new();
    let ours = &postgres.authority;
    for (mode, authority, host, user, encrypted) in [
        (Off, ours, "127.0.0.1", "scram", Some("f")),
        (Prefer, ours, "127.0.0.1", "encrypted", Some("t")),
        (Require, ours, "127.0.0.1", "encrypted", Some("t")),
        (VerifyCa, ours, "localhost", "encrypted", Some("t")),
        (VerifyFull, ours, "127.0.0.1", "encrypted", Some("t")),
        (VerifyFull, ours, "localhost", "encrypted", None),
        (VerifyCa, &stranger, "127.0.0.1", "encrypted", None),
        (VerifyFull, &stranger, "127.0.0.1", "encrypted", None),
    ] {
        let target = target(postgres.tcp(host), user, user);
        match dial(&target, &connector(mode, authority)).await {
            Ok(dialed) => {
                assert_eq!(Some(postgres.encryption(&dialed).as_str()), encrypted);
            }
            Err(error) => {
                assert_eq!(encrypted, None, "{mode:?} {host}: {error}");
                let code = SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
                assert_eq!(error.code(), code);
            }
        }
    }
    // A unix socket has no TLS, whatever the mode.
    let target = target(postgres.unix(), "scram", "scram");
    let dialed = dial(&target, &postgres.connector(VerifyFull)).await;
    assert_eq!(postgres.encryption(&dialed.unwrap()), "f");
}

#[tokio::test]
async fn the_proxy_can_show_a_certificate_of_its_own() {
    let postgres = postgres();
    let authority = &postgres.authority;
    let (cert, key) = authority.issue("certified", &["certified"]);
    let connector = Connector::load(&BackendTls {
        mode: BackendTlsMode::VerifyFull,
        ca: Some(authority.ca()),
        cert: Some(cert),
        key: Some(key),
    })
    .unwrap();
    let mut target = target(postgres.tcp("127.0.0.1"), "certified", "");
    target.principal = Principal::new("certified", None);
    let dialed = dial(&target, &connector).await.unwrap();
    assert_eq!(postgres.encryption(&dialed), "t");
    let error = dial(&target, &postgres.connector(BackendTlsMode::VerifyFull)).await;
    assert!(error.is_err());
}

#[tokio::test]
async fn a_running_statement_is_cancelled() {
    let postgres = postgres();
    for mode in [BackendTlsMode::Off, BackendTlsMode::VerifyFull] {
        let target = target(postgres.tcp("127.0.0.1"), "scram", "scram");
        let connector = postgres.connector(mode);
        let mut dialed = dial(&target, &connector).await.unwrap();
        let sql = b"Q\0\0\0\x1aSELECT pg_sleep(3600)\0";
        dialed.stream.write_all(sql).await.unwrap();
        dialed.stream.flush().await.unwrap();
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state = 'active'",
            dialed.process_id
        );
        // A cancellation of an idle session does nothing, so wait until it works.
        while postgres.server.psql("postgres", &running).unwrap().trim() != "1" {
            tokio::task::yield_now().await;
        }
        cancel(&target, &connector, dialed.process_id, &dialed.secret)
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"Z\0\0\0\x05I") {
            assert_ne!(dialed.stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("57014"), "{answer}");
        // A wrong secret is no error: nobody may learn from it.
        cancel(&target, &connector, dialed.process_id, &[0; 4])
            .await
            .unwrap();
    }
}

/// Where one client is let in, and what became of it.
type Door = JoinHandle<Result<Option<Authenticated>>>;

/// A front door that logs one client in and stays with it until it goes.
async fn door(listen: &ListenAddress, users: Users, acceptor: Acceptor) -> (u16, Door) {
    let listener = Listener::bind(listen).await.unwrap();
    let port = listener.local_address().map_or(7, |address| address.port());
    let door = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap();
        let mut startup = match accept(stream, &acceptor, 10_000).await? {
            Handshake::Startup(startup) => startup,
            other => panic!("{other:?}"),
        };
        let authenticated = authenticate(&mut startup, &users, None).await?;
        if authenticated.is_some() {
            let mut greeting = std::mem::take(&mut startup.unsent);
            backend::parameter_status(&mut greeting, "server_version", "15.0");
            backend::parameter_status(&mut greeting, "client_encoding", "UTF8");
            backend::backend_key_data(&mut greeting, 7, &[1, 2, 3, 4]);
            backend::ready_for_query(&mut greeting, Status::Idle);
            startup.stream.write_all(&greeting).await.unwrap();
            startup.stream.flush().await.unwrap();
            let _ = startup.stream.read_u8().await;
        }
        Ok(authenticated)
    });
    (port, door)
}

/// `clear` is given in clear, `scram` by the verifier that PostgreSQL has made for it.
fn users(method: AuthMethod) -> Users {
    let ask = "SELECT rolpassword FROM pg_authid WHERE rolname = 'scram'";
    let verifier = postgres().server.psql("postgres", ask).unwrap();
    let passwords = [
        ("clear", Password::Plain(Secret::new("clear"))),
        ("scram", Password::Verifier(Secret::new(verifier.trim()))),
    ];
    let users: BTreeMap<_, _> = passwords
        .map(|(name, password)| {
            let user = User {
                password: Some(password),
                ..User::default()
            };
            (name.to_owned(), user)
        })
        .into();
    let auth = Auth {
        method,
        users,
        ..Auth::default()
    };
    Users::new(&auth, [9; 32]).unwrap()
}

async fn psql(connection: &str, password: &str) -> Output {
    let mut command = Binaries::find().unwrap().command("psql");
    command
        .env("PGPASSWORD", password)
        // libpq looks for certificates there.
        .env("HOME", "/nonexistent")
        .args(["-X", "-w", "-d", connection, "-c", r"\echo in"]);
    tokio::process::Command::from(command)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn libpq_is_let_in_by_password_and_by_scram() {
    let local = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    for method in [AuthMethod::Password, AuthMethod::ScramSha256] {
        for (user, password, admitted) in [
            ("clear", "clear", true),
            ("scram", "scram", true),
            ("scram", "wrong", false),
            ("nobody", "scram", false),
        ] {
            let (port, door) = door(&local, users(method), Acceptor::off()).await;
            let connection = format!("host=127.0.0.1 port={port} user={user} dbname=shop");
            let output = psql(&connection, password).await;
            assert_eq!(output.status.success(), admitted, "{user} {output:?}");
            match door.await.unwrap() {
                Ok(authenticated) => assert_eq!(authenticated.unwrap().user(), user),
                Err(error) => {
                    assert_eq!(error.code(), SqlState::INVALID_PASSWORD);
                    let said = String::from_utf8_lossy(&output.stderr);
                    assert!(said.contains(&*error.fields().message), "{said}");
                }
            }
        }
    }
}

#[tokio::test]
async fn libpq_binds_the_channel() {
    // libpq, which runs as PostgreSQL's account, can read what is in its directory.
    let authority = &postgres().authority;
    let (cert, key) = authority.issue("localhost", &["localhost"]);
    let local = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    for more in [
        "sslmode=verify-full channel_binding=require",
        "sslmode=verify-full channel_binding=disable",
        "sslmode=require channel_binding=prefer",
        "sslmode=require ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2",
    ] {
        let acceptor = Acceptor::load(&ClientTls {
            mode: TlsMode::Require,
            cert: Some(cert.clone()),
            key: Some(key.clone()),
            ..ClientTls::default()
        })
        .unwrap();
        let (port, door) = door(&local, users(AuthMethod::ScramSha256), acceptor).await;
        let ca = authority.ca().display().to_string();
        let connection = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user=scram dbname=shop \
             sslrootcert={ca} {more}"
        );
        let output = psql(&connection, "scram").await;
        assert!(output.status.success(), "{more} {output:?}");
        assert!(door.await.unwrap().unwrap().is_some());
    }
}

#[tokio::test]
async fn libpq_finds_the_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let listen = ListenAddress::Unix(directory.path().join(".s.PGSQL.7"));
    let (port, door) = door(&listen, users(AuthMethod::ScramSha256), Acceptor::off()).await;
    let directory = directory.path().display();
    let connection = format!("host={directory} port={port} user=clear dbname=shop");
    let output = psql(&connection, "clear").await;
    assert!(output.status.success(), "{output:?}");
    assert!(door.await.unwrap().unwrap().is_some());
}
