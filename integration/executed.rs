//! EXECUTE of statements that a plan splits, fills, spreads or finishes elsewhere, against one PostgreSQL; the
//! rows of every shard are looked at there.

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::{Cluster, message};

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN small AS int CHECK (value < 1000);
CREATE FUNCTION fuzzy(mood) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'mood' $$;
CREATE FUNCTION fuzzy(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'text' $$;
CREATE TABLE t (id int PRIMARY KEY, name text CHECK (name <> 'bad'), n numeric(8, 2), m mood, f float8, ok bool,
    day date, late int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE users (id serial PRIMARY KEY, name varchar(20), n smallint DEFAULT 3);
CREATE TABLE products (id int PRIMARY KEY, name text, n int DEFAULT 5, at date DEFAULT current_date);
CREATE TABLE words (word text PRIMARY KEY, id int);
CREATE TABLE notes (id int PRIMARY KEY, body text);
CREATE SEQUENCE numbered";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(3)
        .schema(SCHEMA)
        .rows("INSERT INTO products SELECT i, 'product ' || i, i, '2026-01-01' FROM generate_series(1, 8) i")
        .rows("INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 8) i")
        .sharded("t", &["id"])
        .sharded("users", &["id"])
        .sharded("words", &["word"])
        .replicated("products")
        .home("notes", 1)
        .start()
}

/// Runs each line on both.
fn script(pair: &mut Pair, mode: Mode, lines: &str) {
    for sql in lines.lines().map(str::trim).filter(|sql| !sql.is_empty()) {
        let [got, wanted] = [&mut pair.proxy, &mut pair.oracle].map(|raw| {
            let mut outcome = outcome(&frames(raw, mode, sql, &[]));
            if !sql.contains("ordered") {
                outcome.rows.sort();
            }
            if !outcome.reports.is_empty() {
                // PostgreSQL describes rows when it has all of them.
                outcome.columns.clear();
                outcome.rows.clear();
            }
            outcome
        });
        assert_eq!(got, wanted, "{mode:?}: {sql}");
    }
}

const PREPARED: &str = "
PREPARE three AS INSERT INTO t (id, name, n) VALUES ($1, $2, $3), ($1 + 1, $2, $3), ($1 + 2, upper($2), -$3) RETURNING id, name, n
PREPARE two (int, text, int, text) AS INSERT INTO t (id, name) VALUES ($1, $2), ($3, $4) ON CONFLICT (id) DO UPDATE SET name = excluded.name || t.name
PREPARE typed (bigint, mood, double precision, boolean, date) AS INSERT INTO t (id, m, f, ok, day) VALUES ($1, $2, $3, $4, $5), ($1 + 1, $2, $3, $4, $5)
PREPARE named AS INSERT INTO users (name) VALUES ($1) RETURNING id, name, n
PREPARE several AS INSERT INTO users (name, n) VALUES ($1, $2), ($1 || '!', DEFAULT), ('x', $2) RETURNING id
PREPARE product AS INSERT INTO products (id, name) VALUES ($1, $2) RETURNING id, name, n
PREPARE cheaper AS UPDATE products SET n = n - $1 WHERE id > $2 RETURNING id, n
PREPARE dropped AS DELETE FROM products WHERE id = $1
PREPARE copied AS INSERT INTO words SELECT name || $1, id FROM t WHERE id > $2 AND name IS NOT NULL
PREPARE moved AS UPDATE t SET id = id + $1 WHERE id < $2
PREPARE all_of AS UPDATE t SET n = $1 WHERE name LIKE $2 RETURNING id
PREPARE gone AS DELETE FROM t WHERE id IN (SELECT id FROM notes WHERE body < $1)
PREPARE counted (int) AS SELECT count(*), sum(n) FROM t WHERE id > $1
PREPARE \"Or dered\" AS SELECT id, name FROM t WHERE id > $1 ORDER BY name, id
PREPARE late AS INSERT INTO t (id, late) VALUES ($1, $2), ($1 + 1, $3), ($1 + 2, $3), ($1 + 3, $3)
PREPARE computed AS INSERT INTO t (id, name) VALUES ($1::int * 2, 'computed')
PREPARE plain AS INSERT INTO t VALUES ($1, $2)
PREPARE home AS INSERT INTO notes VALUES ($1, $2)";

const EXECUTED: &str = "
EXECUTE three(1, 'a', 1.005)
EXECUTE three('10', 'b', '2')
EXECUTE three(20.4, 'c', 3)
EXECUTE three(1 + 39, lower('D'), NULL)
EXECUTE three(1, 'a', 1)
EXECUTE three(NULL, 'a', 1)
EXECUTE three(50, 'bad', 1)
EXECUTE three(60, 'a', 'x')
EXECUTE three(70, 'a', true)
EXECUTE three(3000000000, 'a', 1)
EXECUTE three(1, 'a')
EXECUTE three
EXECUTE two(1, 'x', 81, 'y')
EXECUTE two(1, 'x', 1, 'y')
EXECUTE two(1, 'x', 'z', 'y')
EXECUTE typed(100, 'ok', 1.5, true, '2026-01-01')
EXECUTE typed(110, 'ok', '1e300', 't', DATE '2026-01-01' + 1)
EXECUTE typed(120, 'glad', 1, true, NULL)
EXECUTE typed(130, 'ok', 1, 1, NULL)
EXECUTE typed(2 ^ 7, 'sad', 1, 'yes', 'today')
EXECUTE named('first')
EXECUTE named('sec' || 'ond')
EXECUTE named(3)
EXECUTE several('a', 2)
EXECUTE product(100, 'hundred')
EXECUTE product(101, 'x' || 1)
EXECUTE product(101, 'again')
EXECUTE cheaper(1, 4)
EXECUTE cheaper(2 - 1, 6)
EXECUTE dropped(2)
EXECUTE dropped(2 + 1)
EXECUTE copied('!', 5)
EXECUTE copied('!', 5)
EXECUTE moved(1000, 3)
EXECUTE all_of(7, '%a%')
EXECUTE all_of(random() < 2, '%a%')
EXECUTE gone('note 5')
EXECUTE counted(5)
EXECUTE counted(2 + 3)
EXECUTE counted(nextval('numbered')::int - 1)
EXECUTE \"Or dered\"(0) /* ordered */
EXECUTE \"Or dered\"(length('abc')) /* ordered */
EXECUTE late(200, 5, 5)
EXECUTE late(210, 6, NULL)
EXECUTE computed(300)
EXECUTE plain(400 + 1, 'plain')
EXECUTE plain(length('four'), 'home' || nextval('numbered'))
EXECUTE home(50, 'computed' || 1)
EXECUTE home(nextval('numbered') + 100, 'drawn')
EXECUTE plain((SELECT 1), 'x')
EXECUTE plain(nothing, 'x')
EXECUTE plain($1, 'x')
SELECT count(*) FROM t
EXECUTE named('much too long for its column')
EXECUTE several('b', 40000)
SELECT setval('users_id_seq', 100)";

#[test]
fn an_execute_is_its_statement() {
    for mode in MODES {
        let cluster = cluster();
        let mut pair = Pair::new(&cluster);
        script(&mut pair, Mode::Simple, PREPARED);
        script(&mut pair, mode, EXECUTED);
        let lines = "
            BEGIN
            EXECUTE three(500, 'in', 1)
            EXECUTE named('in')
            EXECUTE product(500, 'in')
            SAVEPOINT s
            EXECUTE moved(1, 502)
            EXECUTE three(500, 'bad', 1)
            ROLLBACK TO s
            EXECUTE late(510, 8, NULL)
            EXECUTE counted(400 + 0)
            COMMIT
            EXECUTE named('behind')
            BEGIN
            EXECUTE three(600, 'undone', 1)
            EXECUTE product(600, 'undone')
            ROLLBACK
            DEALLOCATE three
            EXECUTE three(1, 'a', 1)";
        script(&mut pair, mode, lines);
        let several = "EXECUTE named('one'); EXECUTE two(700, 'a', 701, 'b'); EXECUTE product(700, 'of many')";
        script(&mut pair, Mode::Simple, several);
        cluster.same_data();
    }
}

#[test]
fn columns_of_users_types_are_stored_or_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let lines = "
        PREPARE m AS INSERT INTO t (id, m) VALUES (1, $1), (2, $1), (3, 'ok')
        EXECUTE m('sad')
        PREPARE d (small) AS INSERT INTO t (id, name) VALUES ($1, 'd')
        EXECUTE d(10)
        EXECUTE d(1000)
        PREPARE e (small) AS INSERT INTO t (id, name) VALUES ($1, 'd'), ($1 + 1, 'd')
        EXECUTE e(30)";
    script(&mut pair, Mode::Simple, lines);
    pair.proxy
        .query("PREPARE f (mood) AS INSERT INTO t (id, name) VALUES (20, fuzzy($1)), (21, 'x'), (22, 'x'), (23, 'x'), (24, 'x')");
    pair.refused("EXECUTE f('sad')");
    cluster.same_data();
}

/// A statement of more parameters than a SELECT may have columns.
#[test]
fn many_arguments_are_evaluated() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let rows: Vec<String> = (0..1_200)
        .map(|row| format!("(${}, ${})", 2 * row + 1, 2 * row + 2))
        .collect();
    let arguments: Vec<String> = (0..1_200)
        .map(|row| format!("{row} + 1, 'n{row}'"))
        .collect();
    pair.once(&format!(
        "PREPARE wide AS INSERT INTO t (id, name) VALUES {}",
        rows.join(", ")
    ));
    pair.once(&format!("EXECUTE wide({})", arguments.join(", ")));
    cluster.same_data();
}

/// Messages of the extended protocol come as they do from one PostgreSQL.
#[test]
fn pipelines_of_executes_keep_their_order() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    script(&mut pair, Mode::Simple, PREPARED);
    let sent = |sql: &str, described: bool| {
        let mut out = message::parse("", sql, &[]);
        if described {
            out.extend(message::describe(b'S', ""));
        }
        out.extend(message::bind("p", "", &[], &[], &[1]));
        out.extend(message::describe(b'P', "p"));
        out.extend(message::execute("p", 0));
        out.extend(message::close(b'P', "p"));
        out
    };
    for described in [false, true] {
        for list in [
            &[
                "EXECUTE named('a')",
                "EXECUTE product(900, 'a')",
                "EXECUTE dropped(900)",
            ][..],
            &[
                "EXECUTE counted(1)",
                "EXECUTE moved(0, 1)",
                "EXECUTE named('b' || 'c')",
            ],
            &[
                "EXECUTE named('d')",
                "EXECUTE counted('x')",
                "EXECUTE named('never')",
            ],
            &[
                "EXECUTE named('e')",
                "EXECUTE three(1, 'bad', 1)",
                "EXECUTE named('never')",
            ],
        ] {
            let mut all: Vec<u8> = list.iter().flat_map(|sql| sent(sql, described)).collect();
            all.extend(message::sync());
            let answers = [&mut pair.proxy, &mut pair.oracle].map(|raw| {
                raw.send(&all);
                let frames = raw.read_until(b'Z', 1);
                let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
                let mut outcome = outcome(&frames);
                outcome.rows.sort();
                match tags.contains('E') {
                    // Arguments are evaluated when it is bound: nothing is described before an error.
                    true => {
                        outcome.columns.clear();
                        (String::new(), outcome)
                    }
                    false => (tags, outcome),
                }
            });
            assert_eq!(answers[0], answers[1], "{list:?}");
        }
    }
    let mut raw = cluster.proxy().raw();
    let got = outcome(&frames(
        &mut raw,
        Mode::Simple,
        "EXECUTE named('none')",
        &[],
    ));
    assert_eq!(got.reports[0].0, "26000");
    cluster.same_data();
}
