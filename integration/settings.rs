//! The proxy's own settings, and those that nobody has defined.

use crate::harness::cluster::Builder;
use crate::harness::compare::Pair;
use crate::harness::{Cluster, Raw, message};

/// Users 1 to 3 are on the first shard, 4 on the second.
const SCHEMA: &str = "CREATE TABLE users (user_id bigint PRIMARY KEY, name text); \
     CREATE TABLE pairs (a int, b text, v int); CREATE TABLE home (id int); \
     CREATE TABLE regions (code text)";

fn builder() -> Builder {
    Cluster::new()
        .shards(2)
        .sharded("users", &["user_id"])
        .sharded("pairs", &["a", "b"])
        .replicated("regions")
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i")
        .setting("max_prepared_transactions", "20")
}

fn one(raw: &mut Raw, sql: &str) -> String {
    let rows = raw.rows(sql);
    assert_eq!(rows.len(), 1, "{sql}");
    rows[0].join("|")
}

/// How many users each shard has.
fn counts(cluster: &Cluster) -> [String; 2] {
    [0, 1].map(|shard| {
        let mut raw = cluster.shard(shard).raw();
        one(&mut raw, "SELECT count(*) FROM users")
    })
}

#[test]
fn statements_run_on_the_shard_of_the_sessions_key() {
    let cluster = builder().start();
    let [first, second] = counts(&cluster);
    assert!(first != "0" && second != "0");
    let mut raw = cluster.proxy().raw();
    let count = "SELECT count(*) FROM users";
    assert_eq!(one(&mut raw, count), "8");
    for (key, wanted) in [("1", &first), ("4", &second)] {
        raw.query(&format!("SET shardwire.shard_key = '{key}'"));
        assert_eq!(&one(&mut raw, count), wanted);
        assert_eq!(one(&mut raw, "SHOW shardwire.shard_key"), key);
    }
    // What restricts itself goes where its own key is.
    assert_eq!(
        one(&mut raw, "SELECT name FROM users WHERE user_id = 1"),
        "user 1"
    );
    assert_eq!(one(&mut raw, "SELECT count(*) FROM regions"), "0");
    assert_eq!(one(&mut raw, "SELECT count(*) FROM home"), "0");
    raw.query("SET shardwire.shard_key = 1");
    assert_eq!(one(&mut raw, count), first);
    raw.query("RESET shardwire.shard_key");
    assert_eq!(one(&mut raw, count), "8");
    // A comment is for its statement alone, and comes before the setting.
    raw.query("SET shardwire.shard_key = '4'");
    let hinted = format!("/* shardwire: shard_key=1 */ {count}");
    assert_eq!(one(&mut raw, &hinted), first);
    assert_eq!(one(&mut raw, count), second);
    raw.query("SET shardwire.shard_key = ''");
    assert_eq!(one(&mut raw, count), "8");
}

#[test]
fn a_prepared_statement_follows_the_sessions_key() {
    let cluster = builder().start();
    let [first, second] = counts(&cluster);
    let mut raw = cluster.proxy().raw();
    raw.send(
        &[
            message::parse("p", "SELECT count(*) FROM users", &[]),
            message::sync(),
        ]
        .concat(),
    );
    raw.read_until(b'Z', 1);
    raw.query("PREPARE q AS SELECT count(*) FROM users");
    let counted = |raw: &mut Raw, wanted: &str| {
        let run = [
            message::bind("", "p", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ];
        raw.send(&run.concat());
        let frames = raw.read_until(b'Z', 1);
        let row = frames.iter().find(|frame| frame.tag == b'D').unwrap();
        assert!(row.body.ends_with(wanted.as_bytes()));
        if wanted != "8" {
            assert_eq!(one(raw, "EXECUTE q"), wanted);
        }
    };
    counted(&mut raw, "8");
    raw.query("BEGIN");
    raw.query("SET LOCAL shardwire.shard_key = '4'");
    counted(&mut raw, &second);
    raw.query("COMMIT");
    counted(&mut raw, "8");
    raw.query("SET shardwire.shard_key = '2'");
    counted(&mut raw, &first);
}

#[test]
fn what_a_key_can_not_confine_is_refused() {
    let cluster = builder().start();
    let before = counts(&cluster);
    let mut raw = cluster.proxy().raw();
    raw.query("SET shardwire.shard_key = '4'");
    for sql in [
        "UPDATE users SET user_id = 5",
        "INSERT INTO regions SELECT name FROM users",
        "SELECT * FROM users, home",
        "SELECT * FROM pairs",
    ] {
        assert_eq!(raw.code(sql), "0A000", "{sql}");
    }
    raw.query("SET shardwire.shard_key = 'nobody'");
    assert_eq!(raw.code("SELECT * FROM users"), "0A000");
    raw.query("SET shardwire.shard_key = '7', 'x'");
    assert_eq!(raw.code("SELECT * FROM users"), "0A000");
    assert_eq!(one(&mut raw, "SELECT count(*) FROM pairs"), "0");
    assert_eq!(one(&mut raw, "SHOW shardwire.shard_key"), "'7', 'x'");
    assert_eq!(counts(&cluster), before);
    // Rows of other keys there are the session's as well.
    raw.query("SET shardwire.shard_key = '4'");
    raw.query("UPDATE users SET name = 'changed'");
    let mut other = cluster.proxy().raw();
    let changed = "SELECT count(*) FROM users WHERE name = 'changed'";
    assert_eq!(one(&mut other, changed), before[1]);
}

#[test]
fn a_key_may_be_named_at_login() {
    let cluster = builder().start();
    let [_, second] = counts(&cluster);
    let options = [("options", "-c shardwire.shard_key=4")];
    let mut raw = Raw::login_with(&cluster.proxy(), &options).unwrap();
    assert_eq!(one(&mut raw, "SELECT count(*) FROM users"), second);
    raw.query("SET shardwire.shard_key = '1'");
    raw.query("RESET ALL");
    assert_eq!(one(&mut raw, "SELECT count(*) FROM users"), second);
}

#[test]
fn show_all_has_the_proxys_own_settings() {
    for shards in [1, 2] {
        let cluster = Cluster::new().shards(shards).start();
        let (mut raw, mut oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
        raw.query("SET shardwire.read_preference = 'primary'");
        let is_own = |row: &Vec<String>| row[0].starts_with("shardwire.");
        let (own, servers): (Vec<_>, Vec<_>) = raw.rows("SHOW ALL").into_iter().partition(is_own);
        let names = |rows: Vec<Vec<String>>| rows.into_iter().map(|mut row| row.swap_remove(0));
        let wanted: Vec<String> = names(oracle.rows("SHOW ALL")).collect();
        assert_eq!(names(servers).collect::<Vec<_>>(), wanted);
        let shown: Vec<_> = own.iter().map(|row| (&*row[0], &*row[1])).collect();
        let wanted = [
            ("shardwire.consistency", "session"),
            ("shardwire.max_staleness", "10s"),
            ("shardwire.read_preference", "primary"),
            ("shardwire.serializable", "one_shard"),
            ("shardwire.shard", ""),
            ("shardwire.shard_key", ""),
        ];
        assert_eq!(shown, wanted);
        for (name, value) in wanted {
            assert_eq!(one(&mut raw, &format!("SHOW {name}")), value);
            assert_eq!(
                one(&mut raw, &format!("SELECT current_setting('{name}')")),
                value
            );
        }
        let prepared = [
            message::parse("", "SHOW ALL", &[]),
            message::bind("", "", &[], &[], &[]),
            message::describe(b'P', ""),
            message::execute("", 0),
            message::sync(),
        ];
        raw.send(&prepared.concat());
        let frames = raw.read_until(b'Z', 1);
        let own = frames.iter().filter(|frame| {
            let text = String::from_utf8_lossy(&frame.body).into_owned();
            frame.tag == b'D' && text.contains("shardwire.")
        });
        assert_eq!(own.count(), 6);
    }
}

/// One server connection, on which somebody else has made the settings.
#[test]
fn settings_that_others_have_made_do_not_exist() {
    for shards in [1, 2] {
        let cluster = Cluster::new()
            .shards(shards)
            .database("pool", "{ mode: transaction, max_size: 1 }")
            .schema("RESET ROLE; ALTER ROLE app SET app.of_role = 'role'")
            .start();
        let mut other = cluster.proxy().raw();
        for name in ["app.tenant", "app.mine", "app.local", "app.of_role"] {
            other.query(&format!("SET {name} = 'other'; SELECT 1"));
        }
        other.query("RESET ALL");
        let (mut raw, mut oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
        let mut same = |sql: &str| {
            let [got, wanted] = [&mut raw, &mut oracle].map(|raw| {
                let frames = raw.query(sql);
                let row = |frame: &crate::harness::raw::Frame| match frame.tag {
                    b'E' => frame.field(b'C').unwrap() + &frame.field(b'M').unwrap(),
                    _ => crate::harness::transcript::line(frame),
                };
                // An error may come before the columns are told.
                let fails = frames.iter().any(|frame| frame.tag == b'E');
                let frames = frames.iter().filter(|frame| !fails || frame.tag != b'T');
                frames.map(row).collect::<Vec<_>>()
            });
            assert_eq!(got, wanted, "{sql} on {shards}");
        };
        for sql in [
            "SHOW app.tenant",
            "SELECT current_setting('app.tenant')",
            "SELECT current_setting('app.tenant', true)",
            "SELECT current_setting('App.Tenant', true) IS NULL, current_setting('work_mem')",
            "SELECT pg_catalog.current_setting('app.tenant', true) FROM generate_series(1, 2)",
            "SHOW app.of_role",
            "SELECT current_setting('app.of_role', true)",
            "SHOW plpgsql.variable_conflict",
            "SHOW app.never",
            "SELECT current_setting('app.never')",
            "BEGIN",
            "SELECT current_setting('app.tenant', true)",
            "SHOW app.tenant",
            "SELECT 1",
            "ROLLBACK",
            "SET app.mine = 'me'",
            "SHOW app.mine",
            "SELECT current_setting('app.mine')",
            "RESET app.mine",
            "SHOW app.mine",
            "SELECT current_setting('app.mine', true)",
            "BEGIN",
            "SET LOCAL app.local = 'here'",
            "SELECT current_setting('app.local', true)",
            "COMMIT",
            "SHOW app.local",
            "SELECT current_setting('app.local')",
            "SELECT set_config('app.called', 'x', true)",
            "SELECT current_setting('app.called', true)",
            "SHOW app.called",
            "RESET app.first",
            "SHOW app.first",
            "SELECT set_config('app.both', 'y', false), current_setting('app.both')",
            "SHOW app.both",
            "SELECT set_config('app.one', 'y', false), current_setting('App.One'), current_setting('app.other', true)",
            "SELECT set_config('app.one', 'y', false), current_setting('app.other')",
        ] {
            same(sql);
        }
    }
}

/// Made, and then read on a connection that has never heard of it.
#[test]
fn settings_that_a_client_has_made_exist_on_every_connection() {
    let cluster = Cluster::new().shards(1).start();
    let mut raw = cluster.proxy().raw();
    raw.query("SET app.mine = 'x'");
    raw.query("RESET app.mine");
    let mut holder = cluster.proxy().raw();
    // It takes the connection on which the name is.
    holder.query("BEGIN");
    holder.query("SELECT 1");
    assert_eq!(one(&mut raw, "SHOW app.mine"), "");
    assert_eq!(one(&mut raw, "SELECT current_setting('app.mine')"), "");
    let run = [
        message::parse("", "SELECT current_setting($1, true) IS NULL", &[]),
        message::bind("", "", &[], &[Some(b"app.mine".to_vec())], &[]),
        message::execute("", 0),
        message::bind("", "", &[], &[Some(b"app.none".to_vec())], &[]),
        message::execute("", 0),
        message::sync(),
    ];
    raw.send(&run.concat());
    let frames = raw.read_until(b'Z', 1);
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    let values: Vec<_> = rows.map(|row| row.body.last().copied().unwrap()).collect();
    assert_eq!(values, [b'f', b't']);
}

/// Each server answers for the session, if that has made the setting.
#[test]
fn settings_of_the_session_are_read_beside_rows_of_several_shards() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int, owner int, name text COLLATE \"de-x-icu\")")
        .rows("INSERT INTO t SELECT i, i % 4, 'n' || i % 3 FROM generate_series(1, 40) i")
        .sharded("t", &["id"])
        .start();
    let mut pair = Pair::new(&cluster);
    const QUERIES: [&str; 4] = [
        "SELECT id, current_setting('app.owner') FROM t WHERE owner = current_setting('app.owner')::int ORDER BY id",
        "SELECT id FROM t WHERE id = current_setting('app.owner', true)::int ORDER BY id",
        "SELECT name, current_setting('APP.owner'), count(DISTINCT owner) FROM t GROUP BY name ORDER BY name",
        "SELECT current_setting('TimeZone'), max(owner) FROM t",
    ];
    for sql in &QUERIES[..3] {
        pair.refused(sql);
    }
    pair.same(QUERIES[3]);
    pair.refused("SELECT id FROM t WHERE name = current_setting('port')");
    pair.refused("SELECT id, current_setting(name, true) FROM t");
    for setting in [
        "SET app.owner = '3'",
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT set_config('app.owner', '2', false)",
        "BEGIN",
        "SET LOCAL app.owner = '1'",
        "UPDATE t SET owner = 1 WHERE id = 7",
        "ROLLBACK",
    ] {
        pair.once(setting);
        if setting != "BEGIN" && !setting.starts_with("SET Time") {
            QUERIES.iter().for_each(|sql| pair.same(sql));
        }
    }
    pair.once("RESET app.owner");
    pair.refused(QUERIES[1]);
}
