//! Statements whose results change under way: "cached plan must not change result type", which a client
//! must get where it might take rows for what they are not, and nowhere else.

use crate::harness::{Cluster, Pair, Raw, message, transcript};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text);
    CREATE TABLE notes (id int PRIMARY KEY, body text);
    CREATE TABLE other (id int);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 20) i;
    INSERT INTO notes VALUES (1, 'on the first shard');
";

const READ: &str = "SELECT * FROM notes ORDER BY id";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .home("notes", 0)
        .home("other", 0)
        .schema(SCHEMA)
        .rows(ROWS)
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
        .start()
}

/// Changes definitions on every server, so that no proxy notices.
fn define(cluster: &Cluster, shards: usize, sql: &str) {
    let mut servers: Vec<Raw> = (0..shards)
        .map(|shard| cluster.shard(shard).raw())
        .collect();
    servers.push(cluster.oracle().raw());
    for server in &mut servers {
        let frames = server.query(sql);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    }
}

/// What a server says to a batch of messages, one line each.
fn lines(raw: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    raw.send(&messages.concat());
    let frames = raw.read_until(b'Z', 1);
    frames.iter().map(transcript::line).collect()
}

fn same(pair: &mut Pair, messages: &[Vec<u8>]) -> Vec<String> {
    let got = lines(&mut pair.proxy, messages);
    assert_eq!(got, lines(&mut pair.oracle, messages));
    got
}

fn parse(name: &str, sql: &str) -> [Vec<u8>; 2] {
    [message::parse(name, sql, &[]), message::sync()]
}

/// A statement is run, its portal described or not.
fn run(name: &str, shown: bool) -> Vec<Vec<u8>> {
    let mut messages = vec![message::bind("", name, &[], &[], &[])];
    if shown {
        messages.push(message::describe(b'P', ""));
    }
    messages.extend([message::execute("", 0), message::sync()]);
    messages
}

const STALE: &str = "cached plan must not change result type";

fn is_stale(lines: &[String]) -> bool {
    lines.iter().any(|line| line.contains(STALE))
}

#[test]
fn a_client_that_was_told_no_columns_does_not_notice() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut a = cluster.proxy().raw();
        lines(&mut a, &parse("read", READ));
        lines(&mut a, &run("read", true));
        let insert = "INSERT INTO notes VALUES ((SELECT max(id) + 1 FROM notes)) RETURNING *";
        lines(&mut a, &parse("insert", insert));
        lines(&mut a, &run("insert", true));
        a.query(&format!("PREPARE s AS {READ}"));
        a.query("EXECUTE s");
        define(
            &cluster,
            shards,
            "ALTER TABLE notes ADD COLUMN more int DEFAULT 7",
        );
        for name in ["read", "insert"] {
            let got = lines(&mut a, &run(name, true));
            let all = got.join("\n");
            assert!(!is_stale(&got) && all.contains("more"), "{name}: {all}");
            assert_eq!(all.matches("BindComplete").count(), 1, "{all}");
        }
        let count = a.rows("SELECT count(*) FROM notes");
        assert_eq!(count, [["3"]]);
        let rows = a.rows("EXECUTE s");
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].len(), 3, "{rows:?}");
        // Not within a transaction.
        define(&cluster, shards, "ALTER TABLE notes DROP COLUMN more");
        a.query("BEGIN");
        assert!(is_stale(&lines(&mut a, &run("read", true))));
        assert_eq!(a.code("SELECT 1"), "25P02");
        a.query("ROLLBACK");
        // Nor for rows that the client has not been told the columns of at all.
        assert!(is_stale(&lines(&mut a, &run("read", false))));
        assert!(!is_stale(&lines(&mut a, &run("read", true))));
        assert!(!is_stale(&lines(&mut a, &run("read", false))));
    }
}

#[test]
fn a_client_that_was_told_other_columns_gets_the_error() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        let told = [
            message::parse("s", READ, &[]),
            message::describe(b'S', "s"),
            message::sync(),
        ];
        same(&mut pair, &told);
        same(&mut pair, &run("s", false));
        define(&cluster, shards, "ALTER TABLE notes ADD COLUMN more int");
        for shown in [true, false, true] {
            assert!(is_stale(&same(&mut pair, &run("s", shown))));
        }
        pair.once("BEGIN");
        assert!(is_stale(&same(&mut pair, &run("s", true))));
        pair.once("ROLLBACK");
        same(&mut pair, &[message::close(b'S', "s"), message::sync()]);
        same(&mut pair, &told);
        same(&mut pair, &run("s", false));
        // With the columns back, the statement is what it was.
        define(&cluster, shards, "ALTER TABLE notes DROP COLUMN more");
        assert!(is_stale(&same(&mut pair, &run("s", true))));
        define(&cluster, shards, "ALTER TABLE notes ADD COLUMN more int");
        same(&mut pair, &run("s", false));
    }
}

#[test]
fn a_client_that_prepares_after_a_change_succeeds() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut early = cluster.proxy().raw();
        let mut pair = Pair::new(&cluster);
        let fresh = |name: &str, messages: &[Vec<u8>]| {
            let mut all = vec![message::parse(name, READ, &[])];
            all.extend_from_slice(messages);
            all
        };
        let mut change = true;
        let mut early_number = 0;
        for (number, messages) in [
            vec![message::describe(b'S', "n0"), message::sync()],
            run("n1", false),
            run("n2", true),
            [
                &[message::flush(), message::describe(b'S', "n3")],
                &run("n3", false)[..],
            ]
            .concat(),
        ]
        .iter()
        .enumerate()
        {
            early_number += 1;
            let early_name = format!("e{early_number}");
            lines(&mut early, &parse(&early_name, READ));
            lines(&mut early, &run(&early_name, true));
            let verb = if change {
                "ADD COLUMN more int"
            } else {
                "DROP COLUMN more"
            };
            change = !change;
            define(&cluster, shards, &format!("ALTER TABLE notes {verb}"));
            let name = format!("n{number}");
            assert!(!is_stale(&same(&mut pair, &fresh(&name, messages))));
            assert!(!is_stale(&same(&mut pair, &run(&name, false))));
        }
    }
}

#[test]
fn columns_that_were_told_are_compared_on_another_server() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    let sql = "SELECT * FROM users WHERE user_id = $1";
    let told = [
        message::parse("s", sql, &[]),
        message::describe(b'S', "s"),
        message::sync(),
    ];
    let run = |id: i32| {
        let key = [Some(id.to_string().into_bytes())];
        [
            message::bind("", "s", &[], &key, &[]),
            message::execute("", 0),
            message::sync(),
        ]
    };
    // Keys of both shards; each shard is to be met for the first time after a change.
    let place = |id: i32| {
        let sql =
            format!("/* shardwire: shard=s0 */ SELECT count(*) FROM users WHERE user_id = {id}");
        cluster.proxy().raw().rows(&sql)[0][0] == "1"
    };
    let (first, second): (Vec<i32>, Vec<i32>) = (1..=20).partition(|id| place(*id));
    for (harmless, change) in [
        (true, "CREATE INDEX ON users (name)"),
        (false, "ALTER TABLE users ADD COLUMN more int"),
    ] {
        same(&mut pair, &told);
        // Known on one shard, perhaps on both: the text is new to the other after each round.
        same(&mut pair, &run(first[0]));
        define(&cluster, 2, change);
        // The proxy hears of a change.
        pair.proxy
            .query("/* shardwire: shard=s0 */ ALTER TABLE other ADD COLUMN IF NOT EXISTS b int");
        for id in [second[0], first[0], second[1]] {
            let got = same(&mut pair, &run(id));
            assert_eq!(is_stale(&got), !harmless, "{id}: {got:?}");
        }
        same(&mut pair, &[message::close(b'S', "s"), message::sync()]);
    }
}
