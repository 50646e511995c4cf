//! What operators ask in SQL: SHOW SHARDWIRE on any connection, and the virtual database `shardwire`.

use crate::harness::cluster::{Builder, PASSWORD, USER};
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};

mod virtual_database;

const SCHEMA: &str = "CREATE TABLE users (user_id bigint PRIMARY KEY, name text)";

/// Users 1 to 3 are on the first shard, 4 on the second.
const ROWS: &str = "INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i";

fn builder(shards: usize) -> Builder {
    let user = |name: &str| format!("{name}: {{ password: {PASSWORD} }}");
    let users = [USER, "ops", "grafana"].map(user).join(", ");
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema(SCHEMA)
        .rows(ROWS)
        .config(
            "auth",
            &format!(
                "{{ method: scram-sha-256, users: {{ {users} }}, administrators: [ops], \
                 stats_users: grafana }}"
            ),
        )
}

fn as_user(cluster: &Cluster, user: &str) -> Endpoint {
    Endpoint {
        user: user.to_owned(),
        ..cluster.proxy()
    }
}

/// The names and type OIDs of the columns, and the rows.
type Rows = (Vec<(String, u32)>, Vec<Vec<Option<String>>>);

/// The answer to a simple query; panics with its error if it has one.
fn ask(raw: &mut Raw, sql: &str) -> Rows {
    let frames = raw.query(sql);
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        panic!("{sql}: {:?}", error.field(b'M'));
    }
    let columns = frames.iter().find(|frame| frame.tag == b'T');
    let columns = columns
        .map(|frame| columns_of(&frame.body))
        .unwrap_or_default();
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    (columns, rows.map(|frame| values_of(&frame.body)).collect())
}

fn columns_of(body: &[u8]) -> Vec<(String, u32)> {
    let mut columns = Vec::new();
    let mut rest = &body[2..];
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let fixed = &rest[end + 1..];
        columns.push((name, u32::from_be_bytes(fixed[6..10].try_into().unwrap())));
        rest = &fixed[18..];
    }
    columns
}

fn values_of(body: &[u8]) -> Vec<Option<String>> {
    let mut values = Vec::new();
    let mut rest = &body[2..];
    while !rest.is_empty() {
        let (length, tail) = rest.split_at(4);
        let length = i32::from_be_bytes(length.try_into().unwrap());
        if length < 0 {
            values.push(None);
            rest = tail;
            continue;
        }
        let (value, tail) = tail.split_at(length as usize);
        values.push(Some(String::from_utf8(value.to_vec()).unwrap()));
        rest = tail;
    }
    values
}

/// The SQLSTATE, message and hint of a query's error.
fn error(raw: &mut Raw, sql: &str) -> (String, String, String) {
    let frames = raw.query(sql);
    let error = frames.iter().find(|frame| frame.tag == b'E');
    let error = error.unwrap_or_else(|| panic!("{sql} is no error"));
    let field = |code| error.field(code).unwrap_or_default();
    (field(b'C'), field(b'M'), field(b'H'))
}

/// The rows as one text per row, the columns named.
fn named(rows: &Rows, names: &[&str]) -> Vec<String> {
    let at = |name: &&str| {
        let found = rows.0.iter().position(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("there is no column {name} in {:?}", rows.0))
    };
    let places: Vec<usize> = names.iter().map(at).collect();
    let text = |row: &Vec<Option<String>>| {
        let values = places
            .iter()
            .map(|at| row[*at].as_deref().unwrap_or("NULL"));
        values.collect::<Vec<_>>().join("|")
    };
    rows.1.iter().map(text).collect()
}

#[test]
fn views_have_their_columns_in_both_protocols() {
    let cluster = builder(2).start();
    let mut raw = as_user(&cluster, "ops").raw();
    for (noun, columns) in [
        ("SHARDS", "shard:25 slots:25 servers:20 primary:25"),
        (
            "SERVERS",
            "shard:25 server:25 zone:25 role:25 state:25 rtt_us:20 lag_bytes:20 detail:25",
        ),
        (
            "POOLS",
            "shard:25 server:25 open:20 idle:20 in_use:20 waiting:20",
        ),
        (
            "CLIENTS",
            "pid:23 user:25 database:25 address:25 state:25 connected:1184 shards:25 servers:25 \
             transactions:20 queries:20 application_name:25 tls:16",
        ),
        ("TABLES", "table:25 placement:25 shard_key:25 method:25"),
        ("PLANS", "query:25 route:25 access:25 hits:20 epoch:20"),
        (
            "TRANSACTIONS",
            "gid:25 pid:23 user:25 database:25 state:25 shards:25 started:1184 age_ms:20",
        ),
        ("CONFIG", "name:25 value:25 default:25 source:25"),
    ] {
        let sql = format!("SHOW SHARDWIRE {noun}");
        let shown = |columns: Vec<(String, u32)>| {
            let columns = columns.iter().map(|(name, oid)| format!("{name}:{oid}"));
            columns.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(ask(&mut raw, &sql).0), columns, "{noun}");
        raw.send(
            &[
                message::parse("", &sql, &[]),
                message::describe(b'S', ""),
                message::bind("", "", &[], &[], &[1]),
                message::describe(b'P', ""),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        );
        let frames = raw.read_until(b'Z', 1);
        let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
        let rows = tags.matches('D').count();
        assert_eq!(tags, format!("1tT2T{}CZ", "D".repeat(rows)), "{noun}");
        let descriptions = frames.iter().filter(|frame| frame.tag == b'T');
        for (binary, frame) in descriptions.enumerate() {
            assert_eq!(shown(columns_of(&frame.body)), columns, "{noun}");
            assert_eq!(frame.body.last(), Some(&(binary as u8)), "{noun}");
        }
    }
}

#[test]
fn an_unknown_noun_gets_a_hint_in_both_protocols() {
    let cluster = builder(1).start();
    let mut raw = cluster.proxy().raw();
    let (code, _, hint) = error(&mut raw, "SHOW SHARDWIRE NONSENSE");
    assert_eq!(code, "42704");
    for noun in ["SHARDS", "CLIENTS", "PLANS", "TRANSACTIONS", "CONFIG"] {
        assert!(hint.contains(noun), "{hint}");
    }
    raw.send(
        &[
            message::parse("", "SHOW SHARDWIRE NONSENSE", &[]),
            message::describe(b'S', ""),
            message::sync(),
        ]
        .concat(),
    );
    let frames = raw.read_until(b'Z', 1);
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("42704"));
    assert!(error.field(b'H').unwrap().contains("CLIENTS"));
}

#[test]
fn clients_shows_what_sessions_do_and_hides_others_from_strangers() {
    let cluster = builder(2).start();
    let mut ops = as_user(&cluster, "ops").raw();
    let mut app = cluster.proxy().raw();
    app.query("SET application_name = 'the till'");
    app.query("BEGIN");
    app.query("SELECT name FROM users WHERE user_id = 4 -- secret");
    let rows = ask(&mut ops, "SHOW SHARDWIRE CLIENTS");
    let names = [
        "user",
        "state",
        "shards",
        "application_name",
        "transactions",
        "tls",
    ];
    let line = "app|idle in transaction|s1|the till|1|f".to_owned();
    // What a session does is shown when it waits for its client, a moment after its answer.
    eventually("shows the transaction", || {
        let rows = ask(&mut ops, "SHOW SHARDWIRE CLIENTS");
        let lines = named(&rows, &names);
        if lines.contains(&line) {
            Ok(())
        } else {
            Err(lines)
        }
    });
    assert!(!format!("{rows:?}").contains("secret"));
    let open = ask(&mut ops, "SHOW SHARDWIRE TRANSACTIONS");
    let open = named(&open, &["gid", "user", "database", "state", "shards"]);
    assert_eq!(open, ["NULL|app|app|idle in transaction|s1"]);
    app.query("SELECT name FROM users WHERE user_id = 1");
    eventually("shows both shards", || {
        let open = ask(&mut ops, "SHOW SHARDWIRE TRANSACTIONS");
        let lines = named(&open, &["user", "state", "shards"]);
        let line = "app|idle in transaction|s0, s1".to_owned();
        if lines == [line] { Ok(()) } else { Err(lines) }
    });
    app.query("COMMIT");
    eventually("counts the transaction", || {
        let rows = ask(&mut ops, "SHOW SHARDWIRE CLIENTS");
        let lines = named(
            &rows,
            &["user", "state", "shards", "transactions", "queries"],
        );
        let line = "app|idle||2|5".to_owned();
        if lines.contains(&line) {
            Ok(())
        } else {
            Err(lines)
        }
    });
    let rows = ask(&mut app, "SHOW SHARDWIRE CLIENTS");
    let lines = named(&rows, &["user", "database", "state", "address", "queries"]);
    assert!(
        lines.contains(&"ops|app|NULL|NULL|NULL".to_owned()),
        "{lines:?}"
    );
    let own = lines
        .iter()
        .find(|line| line.starts_with("app|app|active|127.0.0.1:"));
    assert!(own.is_some(), "{lines:?}");
}

#[test]
fn prepared_transactions_of_ours_are_listed() {
    let cluster = builder(2).setting("max_prepared_transactions", "5").start();
    let shard = &cluster.shards[1].primary;
    for gid in ["shardwire:1:2", "somebody else"] {
        let sql = format!("BEGIN; SELECT 1; PREPARE TRANSACTION '{gid}'");
        shard.psql("app", &sql).unwrap();
    }
    let mut ops = as_user(&cluster, "ops").raw();
    let rows = ask(&mut ops, "SHOW SHARDWIRE TRANSACTIONS");
    let lines = named(&rows, &["gid", "state", "shards", "database"]);
    assert_eq!(lines, ["shardwire:1:2|prepared|s1|app"]);
    for gid in ["shardwire:1:2", "somebody else"] {
        shard
            .psql("app", &format!("ROLLBACK PREPARED '{gid}'"))
            .unwrap();
    }
}

#[test]
fn plans_show_shapes_without_constants() {
    let cluster = builder(2).start();
    let mut app = cluster.proxy().raw();
    for id in [1, 2, 4] {
        let sql = format!("SELECT name FROM users WHERE user_id = {id} AND name <> 'secret'");
        app.query(&sql);
    }
    let mut ops = as_user(&cluster, "ops").raw();
    let rows = ask(&mut ops, "SHOW SHARDWIRE PLANS");
    let lines = named(&rows, &["query", "route", "access", "hits"]);
    let line = "SELECT name FROM users WHERE user_id = ? AND name <> ?|by key|read|2";
    assert!(lines.contains(&line.to_owned()), "{lines:?}");
    assert!(!format!("{rows:?}").contains("secret"));
    let rows = ask(&mut app, "SHOW SHARDWIRE PLANS");
    assert!(!format!("{rows:?}").contains("FROM users"), "{rows:?}");
}

#[test]
fn config_shows_defaults_and_sources_and_no_secrets() {
    let cluster = builder(1).start();
    let mut ops = as_user(&cluster, "ops").raw();
    let rows = ask(&mut ops, "SHOW SHARDWIRE CONFIG");
    let all = format!("{rows:?}");
    assert!(!all.contains(PASSWORD), "{all}");
    let lines = named(&rows, &["name", "value", "default", "source"]);
    for line in [
        "limits.max_clients|10000|10000|default",
        "timeouts.probe_interval|200ms|500ms|proxy.yaml:4",
        "auth.users.app.password|***|NULL|proxy.yaml:3",
        "auth.stats_users|grafana|NULL|proxy.yaml:3",
    ] {
        assert!(
            lines.contains(&line.to_owned()),
            "{line} is not in {lines:#?}"
        );
    }
    let mut app = cluster.proxy().raw();
    let rows = ask(&mut app, "SHOW SHARDWIRE CONFIG");
    let lines = named(&rows, &["name", "value"]);
    assert!(lines.contains(&"limits.max_clients|10000".to_owned()));
    assert!(lines.contains(&"databases.app.pool.mode|transaction".to_owned()));
    assert!(lines.contains(&"listen|<insufficient privilege>".to_owned()));
    assert!(!lines.iter().any(|line| line.starts_with("auth.users")));
}
