//! EXPLAIN over shards in formats for programs: one document, of which PostgreSQL's own are parts.

use crate::harness::{Cluster, Raw, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE users (id int PRIMARY KEY, name text);
             CREATE TABLE codes (id int PRIMARY KEY, title text);",
        )
        .rows(
            "INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 40) i;
             INSERT INTO codes SELECT i, 't' || i FROM generate_series(1, 3) i",
        )
        .sharded("users", &["id"])
        .start()
}

/// The only value of the only row, by the extended protocol if it `is_bound`.
fn document(raw: &mut Raw, sql: &str, is_bound: bool) -> String {
    let frames = match is_bound {
        false => raw.query(sql),
        true => {
            let mut messages = message::parse("", sql, &[]);
            messages.extend(message::bind("", "", &[], &[], &[]));
            messages.extend(message::describe(b'P', ""));
            messages.extend(message::execute("", 0));
            messages.extend(message::sync());
            raw.send(&messages);
            raw.read_until(b'Z', 1)
        }
    };
    let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
    let wanted = if is_bound { "12TDCZ" } else { "TDCZ" };
    assert_eq!(tags, wanted, "{sql}: {frames:?}");
    assert_eq!(frames[tags.len() - 2].body, b"EXPLAIN\0", "{sql}");
    let row = &frames[tags.len() - 3].body;
    String::from_utf8(row.get(6..).unwrap().to_vec()).unwrap()
}

/// What a server makes of a document.
fn asked(oracle: &mut Raw, document: &str, expression: &str) -> String {
    let literal = format!("'{}'", document.replace('\'', "''"));
    let sql = format!("SELECT {}", expression.replace('@', &literal));
    oracle.rows(&sql).concat().concat()
}

#[test]
fn documents_of_shards_are_parts_of_one() {
    let cluster = cluster();
    let (mut raw, mut oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
    let plan = "(@::json -> 0 -> 'Plan')";
    for (sql, first, children) in [
        (
            "SELECT * FROM users WHERE name <> 'a\"\\'",
            "Scatter",
            "s0,s1",
        ),
        ("SELECT count(*) FROM users", "Aggregate", "s0,s1"),
        (
            "SELECT id FROM users ORDER BY id LIMIT 3",
            "Limit 3",
            "s0,s1",
        ),
        (
            "SELECT * FROM users u, codes c WHERE u.id = c.id",
            "Combine on s0",
            "s0",
        ),
        ("UPDATE users SET name = 'x'", "Scatter", "s0,s1"),
    ] {
        for (options, is_bound) in [
            ("", false),
            ("", true),
            (", ANALYZE", false),
            (", ANALYZE, VERBOSE, SETTINGS", true),
        ] {
            let explain = format!("EXPLAIN (FORMAT JSON{options}) {sql}");
            let document = document(&mut raw, &explain, is_bound);
            let expression = format!(
                "{plan} ->> 'Node Type', {plan} -> 'Shardwire Plan' ->> 0, (SELECT string_agg(one ->> 'Shard', ',') \
                 FROM json_array_elements({plan} -> 'Plans') one), (SELECT bool_and(one ->> 'Node Type' <> '') \
                 FROM json_array_elements({plan} -> 'Plans') one), @::json -> 0 -> 'Execution Time' IS NOT NULL"
            );
            let answer = asked(&mut oracle, &document, &expression);
            let ran = if options.is_empty() { "f" } else { "t" };
            assert!(answer.starts_with(&format!("Shardwire{first}")), "{answer}");
            assert!(answer.ends_with(&format!("{children}t{ran}")), "{answer}");
        }
    }
}

#[test]
fn rows_are_counted_and_other_formats_nest_too() {
    let cluster = cluster();
    let (mut raw, mut oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
    let sql = "SELECT * FROM users WHERE name <> '</Plan>'";
    let json = document(
        &mut raw,
        &format!("EXPLAIN (ANALYZE, FORMAT json) {sql}"),
        false,
    );
    let rows = "(@::json -> 0 -> 'Plan' ->> 'Actual Rows')::numeric::int";
    assert_eq!(asked(&mut oracle, &json, rows), "40");
    let xml = document(&mut raw, &format!("EXPLAIN (FORMAT 'xml') {sql}"), true);
    let shards = "xpath('/e:explain/e:Query/e:Plan/e:Plans/e:Plan/e:Shard/text()', @::xml, \
                  ARRAY[ARRAY['e', 'http://www.postgresql.org/2009/explain']])";
    assert_eq!(asked(&mut oracle, &xml, shards), "{s0,s1}");
    let yaml = document(&mut raw, &format!("EXPLAIN (FORMAT yaml) {sql}"), false);
    assert!(
        yaml.starts_with("- Plan: \n    Node Type: \"Shardwire\"\n"),
        "{yaml}"
    );
    let children = "    Plans: \n      - Shard: \"s0\"\n        Parent Relationship: \"Member\"\n        Node Type: ";
    assert!(yaml.contains(children), "{yaml}");
    assert!(yaml.contains("\n      - Shard: \"s1\"\n"), "{yaml}");
    // What stays on one shard is PostgreSQL's own document.
    let one = document(
        &mut raw,
        "EXPLAIN (FORMAT JSON) SELECT * FROM users WHERE id = 1",
        false,
    );
    let node = "@::json -> 0 -> 'Plan' ->> 'Node Type' <> 'Shardwire'";
    assert_eq!(asked(&mut oracle, &one, node), "t");
    raw.query("BEGIN");
    raw.query("INSERT INTO users VALUES (100, 'own')");
    let json = document(
        &mut raw,
        &format!("EXPLAIN (ANALYZE, FORMAT json) {sql}"),
        true,
    );
    assert_eq!(asked(&mut oracle, &json, rows), "41");
    assert_eq!(
        raw.code("EXPLAIN (ANALYZE, FORMAT json) SELECT 1 / (id - 5) FROM users"),
        "22012"
    );
    raw.query("ROLLBACK");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["40"]]);
}

#[test]
fn changes_that_are_explained_and_run_change_rows_on_all_shards() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let update = "UPDATE users SET name = name || '!' WHERE id <= 30";
    let plan: Vec<String> = raw
        .rows(&format!(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {update}"
        ))
        .concat();
    let shards: Vec<&String> = plan
        .iter()
        .filter(|line| line.starts_with("->  plan of shard"))
        .collect();
    assert_eq!(shards, ["->  plan of shard s0", "->  plan of shard s1"]);
    let starts = |words: &str| plan.iter().filter(|line| line.starts_with(words)).count();
    assert_eq!(
        (starts("Update on users"), starts("Execution Time")),
        (2, 2),
        "{plan:?}"
    );
    let changed = "SELECT count(*) FROM users WHERE name LIKE '%!'";
    assert_eq!(raw.rows(changed), [["30"]]);
    for sql in [
        "BEGIN",
        "EXPLAIN ANALYZE DELETE FROM users WHERE id > 30",
        "SAVEPOINT a",
        "EXPLAIN (ANALYZE, FORMAT JSON) DELETE FROM users WHERE name LIKE 'u1%' RETURNING id",
    ] {
        raw.query(sql);
    }
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["19"]]);
    raw.query("ROLLBACK TO a");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["30"]]);
    raw.query("ROLLBACK");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["40"]]);
    // What fails on one shard is undone on all.
    let fails = "EXPLAIN ANALYZE UPDATE users SET name = (1 / (id - 5))::text";
    assert_eq!(raw.code(fails), "22012");
    assert_eq!(raw.rows(changed), [["30"]]);
    document(
        &mut raw,
        "EXPLAIN (ANALYZE, FORMAT yaml) DELETE FROM users WHERE id < 11",
        true,
    );
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["30"]]);
    raw.query("PREPARE u AS UPDATE users SET name = 'x'");
    for sql in [
        "EXPLAIN ANALYZE EXECUTE u",
        "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE u",
        "EXPLAIN ANALYZE UPDATE users SET id = id + 100",
        "EXPLAIN ANALYZE INSERT INTO users VALUES (201, 'a'), (202, 'b')",
        "EXPLAIN ANALYZE DELETE FROM users USING codes WHERE codes.id = users.id",
    ] {
        assert_eq!(raw.code(sql), "0A000", "{sql}");
    }
    assert_eq!(
        raw.rows("SELECT count(*) FROM users WHERE name = 'x'"),
        [["0"]]
    );
    // A Bind says where it runs: on all.
    let bound = "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE u";
    document(&mut raw, bound, true);
    assert_eq!(
        raw.rows("SELECT count(*) FROM users WHERE name = 'x'"),
        [["30"]]
    );
}
