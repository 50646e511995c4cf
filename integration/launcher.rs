//! The launcher of throw-away servers: a primary and its secondary through stop, crash, promotion.

use shardwire::demo::postgres::{Binaries, Options, Server, Template};

fn template(name: &str) -> Template {
    let binaries = Binaries::find().unwrap();
    Template::initdb(&binaries, name, &[]).unwrap()
}

#[test]
fn a_secondary_streams_and_can_be_promoted() {
    let template = template("stream");
    let options = Options::default();
    let mut primary = Server::primary(&template, "p", &options).unwrap();
    let secondary = Server::secondary_of(&primary, "s", &options).unwrap();
    primary
        .psql("postgres", "CREATE TABLE t AS SELECT 42 AS a")
        .unwrap();
    secondary.catch_up(&primary).unwrap();
    assert_eq!(secondary.psql("postgres", "TABLE t").unwrap(), "42\n");
    let refused = secondary.psql("postgres", "DELETE FROM t").unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");

    primary.kill().unwrap();
    assert!(primary.psql("postgres", "TABLE t").is_err());
    secondary.promote().unwrap();
    secondary.psql("postgres", "DELETE FROM t").unwrap();
}

#[test]
fn a_crashed_and_a_stopped_server_start_again_on_their_port() {
    let template = template("restart");
    let mut server = Server::primary(&template, "p", &Options::default()).unwrap();
    let (port, pid) = (server.port(), server.pid());
    server.psql("postgres", "CREATE TABLE t()").unwrap();
    server.kill().unwrap();
    server.start().unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
    server.start().unwrap();
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.psql("postgres", "SELECT * FROM t").unwrap(), "");
}

#[test]
fn nothing_is_left_behind() {
    let template = template("clean");
    let directory = template.directory().to_owned();
    let server = Server::primary(&template, "p", &Options::default()).unwrap();
    let process = format!("/proc/{}", server.pid().unwrap());
    drop(template);
    assert!(directory.exists());
    drop(server);
    assert!(!directory.exists());
    assert!(!std::path::Path::new(&process).exists());
}

#[test]
fn a_setting_that_postgresql_refuses_is_shown_with_its_log() {
    let template = template("refused");
    let options = Options {
        settings: vec![("wal_level".into(), "nonsense".into())],
        ..Options::default()
    };
    let error = Server::primary(&template, "p", &options).unwrap_err();
    assert!(error.to_string().contains("wal_level"), "{error}");
}
