//! Statements that SQL prepares: they follow their client to any server of any shard, under names of
//! their own, over one server connection that several clients share.

use crate::harness::{Cluster, Pair, Raw, message, transcript};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text);
    CREATE TABLE texts (k text PRIMARY KEY, v int);
    CREATE TABLE notes (id int PRIMARY KEY, body text);
    CREATE TABLE products (product_id int PRIMARY KEY, name text);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 20) i;
    INSERT INTO texts SELECT i, i FROM generate_series(1, 20) i;
    INSERT INTO texts VALUES ('007', 7), ('1.5', 8), ('a''b', 9);
    INSERT INTO notes VALUES (1, 'on the first shard');
    INSERT INTO products VALUES (1, 'everywhere');
";

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .sharded("texts", &["k"])
        .replicated("products")
        .home("notes", 0)
        .schema(SCHEMA)
        .rows(ROWS)
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
        .start()
}

/// The values of a query's rows, or the SQLSTATE and message of its error.
fn answer(raw: &mut Raw, sql: &str) -> String {
    let frames = raw.query(sql);
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        let field = |code| error.field(code).unwrap_or_default();
        return format!("{} {}", field(b'C'), field(b'M'));
    }
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default()).unwrap();
    let row = |row| {
        let values = crate::harness::raw::values(row).into_iter();
        values.map(text).collect::<Vec<_>>().join("|")
    };
    let mut rows: Vec<String> = rows.map(row).collect();
    rows.sort();
    rows.join(" ")
}

#[test]
fn executes_run_where_their_arguments_say() {
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    for statement in [
        "PREPARE byid AS SELECT name FROM users WHERE user_id = $1",
        "PREPARE byint (int) AS SELECT name FROM users WHERE user_id = $1",
        "PREPARE bytext AS SELECT v FROM texts WHERE k = $1",
        "PREPARE everyone AS SELECT user_id FROM users",
        "PREPARE note AS SELECT body FROM notes WHERE id = $1",
        "PREPARE product AS SELECT name FROM products WHERE product_id = $1",
        "PREPARE rename (bigint, text) AS UPDATE users SET name = $2 WHERE user_id = $1",
        "PREPARE \"add\" AS INSERT INTO users VALUES ($1, $2) RETURNING user_id",
        "PREPARE byid AS SELECT 1",
    ] {
        pair.same(statement);
    }
    for id in 1..=8 {
        pair.same(&format!("EXECUTE byid({id})"));
        pair.same(&format!("EXECUTE byid('{id}')"));
        pair.same(&format!("EXECUTE byint({id})"));
        pair.same(&format!("EXECUTE bytext('{id}')"));
        pair.same(&format!("EXECUTE bytext({id})"));
        pair.same(&format!("EXECUTE rename({id}, 'new name ' || {id})"));
        pair.same(&format!("EXECUTE byid({id})"));
        pair.same(&format!("EXECUTE add({}, 'added')", id + 100));
        pair.same(&format!(
            "SELECT name FROM users WHERE user_id = {}",
            id + 100
        ));
    }
    for statement in [
        "EXECUTE bytext(007)",
        "EXECUTE bytext('007')",
        "EXECUTE bytext('a''b')",
        "EXECUTE note(1)",
        "EXECUTE product(1)",
        "EXECUTE byid(NULL)",
        "EXECUTE byid",
        "EXECUTE byid(1, 2)",
        "EXECUTE nosuch(1)",
        "PREPARE wrong AS SELECT nothing FROM users WHERE user_id = $1",
        "DEALLOCATE byid",
        "EXECUTE byid(1)",
        "BEGIN",
        "EXECUTE byint(2)",
        "EXECUTE rename(2, 'within')",
        "EXECUTE byint(2)",
        "ROLLBACK",
        "EXECUTE byint(2)",
        "PREPARE late AS SELECT 1; EXECUTE late; DEALLOCATE late",
        "EXECUTE late",
    ] {
        pair.same(statement);
    }
    for statement in [
        "EXECUTE everyone",
        // Asked of every shard, since the value is rounded or printed first.
        "EXECUTE byint(2.5)",
        "EXECUTE bytext(1.5)",
        "EXECUTE bytext(true)",
    ] {
        pair.same_rows(statement);
    }
}

#[test]
fn what_is_made_of_an_execute_over_shards_is_refused() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    for statement in [
        "PREPARE byid (int) AS SELECT name FROM users WHERE user_id = $1",
        "PREPARE rename (bpchar) AS SELECT count(*) FROM texts WHERE k = $1",
        "PREPARE everyone AS SELECT $1::int FROM users",
        "PREPARE counted AS SELECT count(*) FROM users",
    ] {
        assert_eq!(answer(&mut raw, statement), "");
    }
    for statement in [
        "EXPLAIN EXECUTE counted",
        "CREATE TABLE copied AS EXECUTE counted",
    ] {
        let answer = answer(&mut raw, statement);
        assert!(answer.contains("0A000"), "{statement}: {answer}");
        let lines = lines(&mut raw, &afresh("", statement));
        let refused = |line: &String| line.contains("0A000") || line.contains("42601");
        assert!(lines.iter().any(refused), "{statement}: {lines:?}");
    }
    raw.query("ROLLBACK");
    assert_eq!(answer(&mut raw, "EXECUTE byid(1)"), "user 1");
    assert_eq!(answer(&mut raw, "EXECUTE byid(1 + 1)"), "user 2");
    assert_eq!(answer(&mut raw, "EXECUTE rename('1')"), "1");
    let error = answer(&mut raw, "EXECUTE byid('x')");
    assert_eq!(error, "22P02 invalid input syntax for type integer: \"x\"");
}

#[test]
fn clients_of_one_connection_have_names_of_their_own() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
        let ask = |raw: &mut Raw| answer(raw, "EXECUTE s(3)");
        answer(
            &mut a,
            "PREPARE s AS SELECT name FROM users WHERE user_id = $1",
        );
        assert_eq!(ask(&mut b), "26000 prepared statement \"s\" does not exist");
        answer(
            &mut b,
            "PREPARE s AS SELECT user_id FROM users WHERE user_id = $1",
        );
        assert_eq!((ask(&mut a), ask(&mut b)), ("user 3".into(), "3".into()));
        // The same statement of both, and then of one.
        answer(
            &mut b,
            "DEALLOCATE s; PREPARE s AS SELECT name FROM users WHERE user_id = $1",
        );
        assert_eq!(
            (ask(&mut a), ask(&mut b)),
            ("user 3".into(), "user 3".into())
        );
        answer(&mut a, "SELECT 1; DEALLOCATE s");
        assert_eq!(ask(&mut a), "26000 prepared statement \"s\" does not exist");
        assert_eq!(ask(&mut b), "user 3");
        answer(&mut a, "DISCARD ALL");
        assert_eq!(ask(&mut b), "user 3");
    }
}

#[test]
fn both_levels_share_their_names_over_shards() {
    let cluster = cluster(2);
    let mut raw = cluster.proxy().raw();
    answer(
        &mut raw,
        "PREPARE s (bigint) AS SELECT name FROM users WHERE user_id = $1",
    );
    answer(&mut raw, "PREPARE everyone AS SELECT user_id FROM users");
    raw.send(
        &[
            message::parse("p", "SELECT name FROM users WHERE user_id = $1", &[]),
            message::sync(),
        ]
        .concat(),
    );
    raw.read_until(b'Z', 1);
    for id in 1..=8 {
        assert_eq!(
            answer(&mut raw, &format!("EXECUTE p({id})")),
            format!("user {id}")
        );
        let key = [Some(id.to_string().into_bytes())];
        let messages = [
            message::describe(b'S', "s"),
            message::bind("", "s", &[], &key, &[]),
            message::execute("", 0),
            message::bind("", "p", &[], &key, &[]),
            message::execute("", 0),
            message::sync(),
        ];
        raw.send(&messages.concat());
        let frames = raw.read_until(b'Z', 1);
        let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
        assert_eq!(tags, "tT2DC2DCZ");
    }
    let messages = [
        message::bind("", "everyone", &[], &[], &[]),
        message::describe(b'P', ""),
        message::execute("", 0),
        message::parse("e", "EXECUTE everyone", &[]),
        message::describe(b'S', "e"),
        message::bind("", "e", &[], &[], &[]),
        message::execute("", 0),
        message::sync(),
    ];
    raw.send(&messages.concat());
    let frames = raw.read_until(b'Z', 1);
    let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
    let rows = "D".repeat(20);
    assert_eq!(tags, format!("2T{rows}C1tT2{rows}CZ"));
}

#[test]
fn a_server_keeps_only_so_many_statements() {
    let cluster = Cluster::new()
        .config("limits", "{ prepared_statements_per_server: 4 }")
        .database("pool", "{ max_size: 1, queue_timeout: 5s }")
        .start();
    let mut raw = cluster.proxy().raw();
    for number in 0..12 {
        answer(&mut raw, &format!("PREPARE s{number} AS SELECT {number}"));
        let parse = message::parse(&format!("p{number}"), &format!("SELECT -{number}"), &[]);
        raw.send(&[parse, message::sync()].concat());
        raw.read_until(b'Z', 1);
    }
    // A function's body is not the client's text: it sees what the server has.
    let count = "SELECT kept() <= 5";
    let function = "CREATE FUNCTION kept() RETURNS bigint LANGUAGE sql AS \
                    'SELECT count(*) FROM pg_catalog.pg_prepared_statement()'";
    answer(&mut raw, function);
    for number in 0..12 {
        assert_eq!(answer(&mut raw, count), "t");
        assert_eq!(
            answer(&mut raw, &format!("EXECUTE s{number}")),
            number.to_string()
        );
        let bind = message::bind("", &format!("p{number}"), &[], &[], &[]);
        raw.send(&[bind, message::execute("", 0), message::sync()].concat());
        let frames = raw.read_until(b'Z', 1);
        assert!(frames.iter().any(|frame| frame.tag == b'D'));
    }
}

/// What the server says to a batch of messages, one line each.
fn lines(raw: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    raw.send(&messages.concat());
    let frames = raw.read_until(b'Z', 1);
    frames.iter().map(transcript::line).collect()
}

/// Prepares a text under a name that was not used before and runs it.
fn afresh(name: &str, sql: &str) -> Vec<Vec<u8>> {
    vec![
        message::parse(name, sql, &[]),
        message::describe(b'S', name),
        message::bind("", name, &[], &[], &[]),
        message::execute("", 0),
        message::sync(),
    ]
}

#[test]
fn a_text_is_read_anew_when_its_names_have_changed() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut a, mut b) = (Pair::new(&cluster), Pair::new(&cluster));
        let read = "SELECT * FROM notes";
        // Every client prepares it once before the names change and once after each change.
        let names = ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"];
        let mut names = names.iter();
        let mut both = |pair: &mut Pair| {
            let name = names.next().unwrap();
            let messages = afresh(name, read);
            let got = lines(&mut pair.proxy, &messages);
            assert_eq!(got, lines(&mut pair.oracle, &messages), "{name}");
        };
        both(&mut a);
        // Hidden by a temporary table, in and after transactions.
        a.once("BEGIN");
        a.once("CREATE TEMP TABLE notes (x text, y text) ON COMMIT DROP");
        both(&mut a);
        a.once("COMMIT");
        both(&mut a);
        a.once("DISCARD ALL");
        b.once("CREATE TEMP TABLE notes (z int)");
        b.once("BEGIN");
        both(&mut b);
        b.once("SAVEPOINT s");
        b.once("DROP TABLE notes");
        both(&mut b);
        b.once("ROLLBACK TO s");
        both(&mut b);
        b.once("COMMIT");
        b.once("DISCARD TEMP");
        both(&mut b);
        b.once("DISCARD ALL");
        both(&mut a);
    }
}

#[test]
fn a_text_is_read_anew_when_a_change_was_undone() {
    let cluster = cluster(1);
    let (mut a, mut b) = (Pair::new(&cluster), Pair::new(&cluster));
    let both = |pair: &mut Pair, name: &str| {
        let messages = afresh(name, "SELECT * FROM notes");
        let got = lines(&mut pair.proxy, &messages);
        assert_eq!(got, lines(&mut pair.oracle, &messages), "{name}");
    };
    b.once("BEGIN");
    b.once("SAVEPOINT s");
    b.once("ALTER TABLE notes ADD COLUMN more int");
    both(&mut b, "p1");
    b.once("ROLLBACK TO s");
    both(&mut b, "p2");
    b.once("ALTER TABLE notes ADD COLUMN other text");
    both(&mut b, "p3");
    b.once("ROLLBACK");
    a.once("BEGIN");
    both(&mut a, "p1");
    a.once("COMMIT");
}

/// What `pg_prepared_statements` shows of a session, but for times.
const STORED: &str = "SELECT name, statement, parameter_types, from_sql, \
    prepare_time <= now() AND prepare_time > now() - interval '1 minute' AS is_recent \
    FROM pg_prepared_statements ORDER BY name";

/// Prepares a text on both sides by the protocol.
fn prepare(pair: &mut Pair, name: &str, sql: &str, types: &[u32]) {
    let messages = [message::parse(name, sql, types), message::sync()];
    let got = lines(&mut pair.proxy, &messages);
    assert_eq!(got, lines(&mut pair.oracle, &messages), "{sql}");
}

#[test]
fn a_client_sees_the_statements_that_it_has_prepared() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut other = cluster.proxy().raw();
        answer(&mut other, "PREPARE theirs AS SELECT 'secret'");
        let mut pair = Pair::new(&cluster);
        pair.same(STORED);
        for statement in [
            "PREPARE byid AS SELECT name FROM users WHERE user_id = $1;",
            "  PREPARE \"By Text\" (text) AS SELECT v FROM texts WHERE k = $1",
            "PREPARE quoted AS SELECT 'it''s', E'\\\\', '\\', $a$'$a$",
            "PREPARE typed (int, date) AS SELECT $1",
            "PREPARE one AS SELECT 1; PREPARE two AS SELECT $1::money",
        ] {
            pair.once(statement);
        }
        prepare(
            &mut pair,
            "p1",
            "SELECT name FROM users WHERE user_id = $1",
            &[],
        );
        prepare(&mut pair, "p2", "SELECT $1, $2::date -- ü", &[23]);
        prepare(
            &mut pair,
            "p3",
            "INSERT INTO notes VALUES ($1, $2)",
            &[0, 25],
        );
        prepare(&mut pair, "p4", "SELECT 1", &[]);
        prepare(&mut pair, "", "SELECT 'unnamed'", &[]);
        pair.same(STORED);
        for statement in [
            "SELECT * FROM pg_prepared_statements WHERE false",
            "SELECT p.name FROM pg_catalog.pg_prepared_statements AS p WHERE p.from_sql ORDER BY 1",
            "SELECT a, b FROM pg_prepared_statements s (a, b, c) WHERE a LIKE 'p%' ORDER BY a",
            "SELECT pg_prepared_statements.name FROM ONLY pg_prepared_statements ORDER BY 1",
            "SELECT count(*), bool_and(statement LIKE 'PREPARE%') FROM \"pg_prepared_statements\" \
             WHERE from_sql",
            "SELECT name FROM pg_prepared_statement() ORDER BY name",
            "SELECT f.name FROM pg_catalog.pg_prepared_statement() f ORDER BY 1",
            "SELECT count(*) FROM (TABLE pg_catalog.pg_prepared_statements) t",
            "SELECT a.name FROM pg_prepared_statements a JOIN pg_prepared_statements b USING (name) \
             WHERE b.name IN (SELECT name FROM pg_prepared_statements WHERE NOT from_sql) ORDER BY 1",
            "SELECT n.body, s.name FROM notes n JOIN pg_prepared_statements s ON s.name = 'p' || n.id",
            "SELECT u.name, s.name FROM users u, pg_prepared_statements s \
             WHERE u.user_id = 3 ORDER BY 2",
            "WITH s AS (SELECT * FROM pg_prepared_statements) SELECT name FROM s ORDER BY 1",
            "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'p1'), \
             EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'theirs')",
            "SELECT name, nosuch FROM pg_prepared_statements",
        ] {
            pair.same(statement);
        }
        let by_name =
            "SELECT statement, parameter_types::text FROM pg_prepared_statements WHERE name = $1";
        pair.same_with(by_name, &[Some("p2")]);
        pair.once("COPY (SELECT name FROM pg_prepared_statements ORDER BY 1) TO STDOUT");
        pair.once("DEALLOCATE p1");
        pair.same(STORED);
        pair.once("DEALLOCATE ALL");
        pair.same(STORED);
    }
}

#[test]
fn the_statements_of_a_session_are_shown_in_its_transactions() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut other = cluster.proxy().raw();
        let mut pair = Pair::new(&cluster);
        pair.once("CREATE TABLE passing (a int)");
        pair.once("PREPARE s AS SELECT body FROM notes WHERE id = $1");
        prepare(&mut pair, "open", "SELECT $1 + 1, $2::text", &[]);
        prepare(
            &mut pair,
            "lost",
            "SELECT a FROM passing WHERE a = $1",
            &[23],
        );
        pair.once("DROP TABLE passing");
        // Now the server has forgotten them.
        answer(&mut other, "DEALLOCATE ALL; DISCARD ALL");
        pair.once("BEGIN ISOLATION LEVEL REPEATABLE READ");
        pair.same(STORED);
        pair.once("UPDATE notes SET body = 'changed'");
        prepare(
            &mut pair,
            "late",
            "SELECT body FROM notes WHERE id = $1",
            &[],
        );
        pair.same(STORED);
        pair.once("DECLARE c CURSOR FOR SELECT name FROM pg_prepared_statements ORDER BY 1");
        pair.once("FETCH ALL FROM c");
        pair.once("ROLLBACK");
        pair.same(STORED);
        // In one batch with what is prepared and asked before.
        let asks = "SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name";
        let batch = [
            message::parse("early", "INSERT INTO notes VALUES (7, 'seven')", &[]),
            message::bind("", "early", &[], &[], &[]),
            message::execute("", 0),
            message::parse("asks", asks, &[]),
            message::describe(b'S', "asks"),
            message::bind("", "asks", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ];
        answer(&mut other, "DEALLOCATE ALL; DISCARD ALL");
        let rows = |raw: &mut Raw| {
            let all = lines(raw, &batch);
            all.into_iter()
                .filter(|line| line.starts_with("DataRow"))
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(&mut pair.proxy), rows(&mut pair.oracle));
    }
}

#[test]
fn statements_that_cannot_be_shown_are_not_those_of_others() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let mut pair = Pair::new(&cluster);
        pair.once("PREPARE s AS SELECT 1");
        for statement in [
            "SELECT pg_prepared_statement()",
            "SELECT (pg_prepared_statement()).name",
            "SELECT * FROM pg_prepared_statement() WITH ORDINALITY",
            "SELECT * FROM ONLY (pg_prepared_statements)",
            "CREATE TABLE kept AS SELECT name FROM pg_prepared_statements",
            "PREPARE asks AS SELECT name FROM pg_prepared_statements",
        ] {
            pair.refused(statement);
        }
        pair.same("SELECT name FROM pg_prepared_statements");
    }
    let cluster = cluster(2);
    let mut pair = Pair::new(&cluster);
    pair.refused("SELECT u.user_id, s.name FROM users u, pg_prepared_statements s");
    prepare(&mut pair, "lost", "SELECT a FROM nosuch WHERE a = $1", &[]);
}
