//! Tables and views that are made with the rows of a query, against one PostgreSQL; the rows of every shard are
//! looked at there.

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::{Cluster, Raw};

const SCHEMA: &str = "
CREATE SCHEMA later;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE users (id int PRIMARY KEY, name text, n numeric(8, 2), m mood, tags text[], at timestamptz);
CREATE TABLE orders (id int, user_id int, total numeric, PRIMARY KEY (user_id, id));
CREATE TABLE products (id int PRIMARY KEY, name text);
CREATE TABLE notes (id int, line text);
CREATE TABLE far (id int, line text);
CREATE TABLE later.shadow (id int, line text);
CREATE TABLE configured (id int);
CREATE VIEW named AS SELECT id, name FROM users WHERE name IS NOT NULL";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(4)
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, CASE WHEN i % 7 > 0 THEN 'name ' || i END, i / 4.0, (ARRAY['sad', 'ok', NULL])[i % 3 + 1]::mood, \
               ARRAY['a' || i, NULL], timestamptz '2026-01-01 00:00:00.123456Z' + i * interval '1 hour' FROM generate_series(1, 60) i")
        .rows("INSERT INTO orders SELECT i, i % 20 + 1, i * 1.5 FROM generate_series(1, 90) i")
        .rows("INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 10) i")
        .rows("INSERT INTO far SELECT i, 'far ' || i FROM generate_series(1, 10) i")
        .sharded("users", &["id"])
        .sharded("orders", &["user_id"])
        .replicated("products")
        .home("notes", 0)
        .home("far", 1)
        .sharded("configured", &["id"])
        .start()
}

/// Where the rows of a table are to be.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// By this hash of a row.
    By(&'static str),
    Everywhere,
    Home(usize),
}

const ID: Place = Place::By("hashint8extended(id, 0)");

struct Shards {
    shards: Vec<Raw>,
    oracle: Raw,
}

impl Shards {
    fn new(cluster: &Cluster) -> Shards {
        let shards = 0..cluster.shards.len();
        Shards {
            shards: shards.map(|shard| cluster.shard(shard).raw()).collect(),
            oracle: cluster.oracle().raw(),
        }
    }

    /// Each shard has those of the oracle's rows that belong there, in the same columns.
    fn check(&mut self, table: &str, place: Place) {
        let columns = format!(
            "SELECT attname, format_type(atttypid, atttypmod), attcollation::regcollation::text FROM pg_attribute \
             WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
        );
        let kind =
            format!("SELECT relkind, relpersistence FROM pg_class WHERE oid = '{table}'::regclass");
        for (number, shard) in self.shards.iter_mut().enumerate() {
            for sql in [&columns, &kind] {
                assert_eq!(shard.rows(sql), self.oracle.rows(sql), "{table}");
            }
            let condition = match place {
                Place::By(hash) => format!("(({hash}) & 16383) / 4096 = {number}"),
                Place::Everywhere => "true".to_owned(),
                Place::Home(home) => (home == number).to_string(),
            };
            let rows = |condition: &str| {
                format!("SELECT x::text FROM {table} x WHERE {condition} ORDER BY 1")
            };
            let wanted = self.oracle.rows(&rows(&condition));
            assert_eq!(shard.rows(&rows("true")), wanted, "{table} on {number}");
            let open = shard.rows("SELECT gid FROM pg_prepared_xacts");
            assert!(open.is_empty(), "{open:?}");
        }
    }

    /// No server has it.
    fn check_none(&mut self, table: &str) {
        let sql = format!("SELECT to_regclass('{table}')");
        for raw in self.shards.iter_mut().chain([&mut self.oracle]) {
            assert_eq!(raw.rows(&sql), [[""]], "{table}");
        }
    }
}

/// Runs a statement on both sides; what stands between braces is for the proxy alone.
fn run(pair: &mut Pair, mode: Mode, sql: &str, parameters: &[Option<&str>]) {
    let written = sql.replace(['{', '}'], "");
    let mut plain = sql.to_owned();
    while let (Some(start), Some(end)) = (plain.find('{'), plain.find('}')) {
        plain.replace_range(start..=end, "");
    }
    let got = outcome(&frames(&mut pair.proxy, mode, &written, parameters));
    let wanted = outcome(&frames(&mut pair.oracle, mode, &plain, parameters));
    assert_eq!(got, wanted, "{sql}\n{mode:?}");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn tables_are_filled_where_their_rows_belong() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut shards = Shards::new(&cluster);
    let word = Place::By("hashtextextended(word, 0)");
    let mut modes = MODES.into_iter().cycle();
    for (sql, place) in [
        // At home.
        ("CREATE TABLE t AS SELECT * FROM notes", Place::Home(0)),
        ("CREATE TABLE t AS SELECT * FROM users", Place::Home(0)),
        (
            "CREATE UNLOGGED TABLE t (a, b) WITH (fillfactor = 50) AS SELECT id, name FROM users ORDER BY id WITH DATA",
            Place::Home(0),
        ),
        (
            "CREATE TABLE t AS SELECT user_id, sum(total) AS sum, count(*) FROM orders GROUP BY user_id",
            Place::Home(0),
        ),
        (
            "CREATE TABLE t AS SELECT p.name, sum(o.total) FROM orders o JOIN products p ON p.id = o.id % 10 GROUP BY p.name",
            Place::Home(0),
        ),
        ("CREATE TABLE t AS SELECT * FROM far", Place::Home(0)),
        (
            "CREATE TABLE t AS SELECT id, tags, m, at FROM users WHERE id = 7",
            Place::Home(0),
        ),
        (
            "CREATE TABLE t AS WITH x AS (SELECT * FROM users) SELECT x.id, y.name FROM x JOIN users y ON y.id = x.id + 1",
            Place::Home(0),
        ),
        ("CREATE TABLE t AS SELECT * FROM named", Place::Home(0)),
        ("CREATE TABLE t AS TABLE orders", Place::Home(0)),
        (
            "CREATE TABLE t AS SELECT id FROM users UNION SELECT id FROM products",
            Place::Home(0),
        ),
        (
            "CREATE TABLE later.t AS SELECT 'constant', NULL AS none, id FROM users",
            Place::Home(0),
        ),
        (
            "CREATE TABLE t AS SELECT * FROM users WHERE false",
            Place::Home(0),
        ),
        (
            "CREATE TABLE t AS SELECT id + 1 AS id FROM users WITH NO DATA",
            Place::Home(0),
        ),
        // By a clause.
        ("CREATE TABLE t {SHARD KEY (id)} AS SELECT * FROM users", ID),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT id + 100 AS id, name FROM users",
            ID,
        ),
        (
            "CREATE TABLE t (id, word) {SHARD KEY (word)} AS SELECT id, name FROM users WHERE name IS NOT NULL",
            word,
        ),
        ("CREATE TABLE t {SHARD KEY (id)} AS SELECT * FROM notes", ID),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT * FROM far ORDER BY id LIMIT 5",
            ID,
        ),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT * FROM products",
            ID,
        ),
        (
            "CREATE TABLE t {SHARD KEY (user_id, id)} AS SELECT id, user_id, total FROM orders",
            Place::By("hashint8extended(id, hashint8extended(user_id, 0))"),
        ),
        (
            "CREATE TABLE t (id, line) {SHARD KEY (id)} AS VALUES (1, 'one'), (2, NULL), (3, 'three')",
            ID,
        ),
        (
            "CREATE TABLE t (id, line) {SHARD KEY (id)} AS (VALUES (1, 1.5), (2, 3))",
            ID,
        ),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT generate_series(1, 20) AS id",
            ID,
        ),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT * FROM users WITH NO DATA",
            ID,
        ),
        (
            "CREATE TABLE t {REPLICATED} AS SELECT * FROM users",
            Place::Everywhere,
        ),
        (
            "CREATE TABLE t {REPLICATED} AS SELECT name, id FROM products",
            Place::Everywhere,
        ),
        (
            "CREATE TABLE t {REPLICATED} AS SELECT * FROM far",
            Place::Everywhere,
        ),
        // SELECT INTO.
        ("SELECT * INTO t FROM users", Place::Home(0)),
        (
            "SELECT count(*), max(name) AS name INTO UNLOGGED TABLE t FROM users",
            Place::Home(0),
        ),
        (
            "WITH x AS (SELECT id, name FROM users) SELECT x.* INTO TABLE t FROM x ORDER BY id LIMIT 3",
            Place::Home(0),
        ),
        (
            "SELECT id INTO later.t FROM users UNION ALL SELECT id FROM orders",
            Place::Home(0),
        ),
        ("SELECT 1 AS one INTO t", Place::Home(0)),
    ] {
        run(&mut pair, modes.next().unwrap(), sql, &[]);
        let table = if sql.contains("later.t") {
            "later.t"
        } else {
            "t"
        };
        shards.check(table, place);
        pair.once(&format!("SELECT count(*) FROM {table}"));
        pair.once(&format!("DROP TABLE {table}"));
    }
    shards.check_none("t");
}

#[test]
fn the_file_places_new_tables_too() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut shards = Shards::new(&cluster);
    pair.once("DROP TABLE configured");
    for sql in [
        "CREATE TABLE configured AS SELECT id, name FROM users",
        "CREATE TABLE configured AS SELECT id + 7 AS id, line FROM notes",
        "SELECT id, total INTO configured FROM orders",
    ] {
        run(&mut pair, Mode::Simple, sql, &[]);
        shards.check("configured", ID);
        pair.same_rows("SELECT * FROM configured WHERE id < 20");
        pair.once("DROP TABLE configured");
    }
}

#[test]
fn names_errors_and_repetitions_are_postgresqls() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut shards = Shards::new(&cluster);
    pair.once("CREATE TABLE here AS SELECT 1 AS a");
    for mode in MODES {
        for sql in [
            "CREATE TABLE IF NOT EXISTS here AS SELECT * FROM users",
            "CREATE TABLE here AS SELECT * FROM users",
            "CREATE TABLE here {SHARD KEY (id)} AS SELECT * FROM users",
            "SELECT * INTO here FROM users",
            "CREATE TABLE t AS SELECT nothing FROM users",
            "CREATE TABLE t AS SELECT * FROM nowhere",
            "CREATE TABLE t (a, b, c) AS SELECT id FROM users",
            "CREATE TABLE t AS SELECT id, id FROM users",
            "CREATE TABLE t AS SELECT 1 / (id - 5) FROM users",
            "CREATE TABLE nowhere.t AS SELECT id FROM users",
            "SELECT * INTO nowhere.t FROM users",
        ] {
            run(&mut pair, mode, sql, &[]);
        }
    }
    shards.check_none("t");
    shards.check("here", Place::Home(0));
    // A NULL key belongs nowhere.
    let code = pair
        .proxy
        .code("CREATE TABLE t SHARD KEY (name) AS SELECT name FROM users");
    assert_eq!(code, "23502");
    shards.check_none("t");
    // The new table would hide what the query means.
    pair.once("INSERT INTO later.shadow SELECT i, 'shadow ' || i FROM generate_series(1, 10) i");
    pair.once("SET search_path = public, later");
    pair.refused("CREATE TABLE shadow AS SELECT users.id, shadow.line FROM users JOIN shadow ON users.id = shadow.id");
    pair.refused("SELECT shadow.* INTO shadow FROM users JOIN shadow ON users.id = shadow.id");
    shards.check_none("public.shadow");
    pair.once("CREATE TABLE shadow AS SELECT users.id, s.line FROM users JOIN later.shadow AS s ON users.id = s.id");
    shards.check("public.shadow", Place::Home(0));
    pair.refused("CREATE TABLE t AS SELECT FROM users");
    shards.check_none("t");
}

#[test]
fn it_is_part_of_its_transaction() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut shards = Shards::new(&cluster);
    for sql in [
        "BEGIN",
        "INSERT INTO users (id, name) VALUES (100, 'own'), (101, 'own'), (102, 'own')",
        "CREATE TABLE t {SHARD KEY (id)} AS SELECT id, name FROM users",
        "SELECT count(*) FROM t",
        "INSERT INTO t SELECT id + 1000, name FROM t",
        "SELECT * INTO u FROM t WHERE id > 1000",
        "SAVEPOINT s",
        "CREATE TABLE v AS SELECT * FROM t",
        "ROLLBACK TO s",
        "CREATE TABLE IF NOT EXISTS v {REPLICATED} AS SELECT id FROM u",
        "COMMIT",
        "BEGIN",
        "CREATE TABLE w AS SELECT * FROM users",
        "ROLLBACK",
        "BEGIN",
        "CREATE TABLE w AS SELECT 1 / (id - 5) FROM users",
        "SELECT 1",
        "COMMIT",
        "CREATE TABLE w AS SELECT * FROM users; SELECT count(*) FROM w; DROP TABLE w",
        "CREATE TABLE w AS SELECT * FROM users; SELECT 1 / 0",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT count(*) FROM users",
        "CREATE TABLE x {SHARD KEY (id)} AS SELECT * FROM users",
        "SELECT count(*) FROM x",
        "COMMIT",
        "BEGIN READ ONLY",
        "CREATE TABLE w AS SELECT * FROM users",
        "ROLLBACK",
    ] {
        run(&mut pair, Mode::Simple, sql, &[]);
    }
    shards.check("t", ID);
    shards.check("u", Place::Home(0));
    shards.check("v", Place::Everywhere);
    shards.check("x", ID);
    shards.check_none("w");
    cluster.same_data();
}

#[test]
fn parameters_stand_in_the_query() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut shards = Shards::new(&cluster);
    for (sql, parameters, place) in [
        (
            "CREATE TABLE t AS SELECT id, $1 AS word FROM users WHERE id < $2",
            vec![Some("w"), Some("20")],
            Place::Home(0),
        ),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT id, name || $1 AS word FROM users WHERE id < $2",
            vec![None, Some("20")],
            ID,
        ),
        (
            "CREATE TABLE t {REPLICATED} AS SELECT id + $1 AS id FROM products",
            vec![Some("5")],
            Place::Everywhere,
        ),
        (
            "CREATE TABLE t AS SELECT line || $1 AS line FROM notes",
            vec![Some("!")],
            Place::Home(0),
        ),
        (
            "CREATE TABLE t {SHARD KEY (id)} AS SELECT * FROM users WHERE id = $1",
            vec![Some("3")],
            ID,
        ),
        (
            "SELECT id, $1 AS word INTO t FROM users",
            vec![Some("w")],
            Place::Home(0),
        ),
    ] {
        for mode in [Mode::Text, Mode::Binary] {
            run(&mut pair, mode, sql, &parameters);
            shards.check("t", place);
            pair.once("DROP TABLE t");
        }
    }
}

#[test]
fn values_that_vary_are_found_once() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let mut shards = Shards::new(&cluster);
    for sql in [
        "CREATE TABLE t REPLICATED AS SELECT id, random() AS r, clock_timestamp() AS c, now() AS n FROM users",
        "CREATE TABLE t REPLICATED AS SELECT id, random() AS r, clock_timestamp() AS c, now() AS n FROM products",
    ] {
        let frames = raw.query(sql);
        assert!(!frames.iter().any(|frame| frame.tag == b'E'), "{frames:?}");
        let rows = "SELECT t::text FROM t ORDER BY 1";
        let first = shards.shards[0].rows(rows);
        assert!(first.len() >= 10);
        for shard in &mut shards.shards {
            assert_eq!(shard.rows(rows), first);
        }
        raw.rows("DROP TABLE t");
    }
    // The shards' names stay what they are.
    raw.rows("CREATE TABLE t AS SELECT shard_id, count(*) FROM users GROUP BY shard_id");
    let wanted = raw.rows("SELECT shard_id, count(*) FROM users GROUP BY shard_id ORDER BY 1");
    assert_eq!(raw.rows("SELECT * FROM t ORDER BY 1"), wanted);
    assert_eq!(wanted.len(), 4);
}
