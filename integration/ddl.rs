//! Definitions over several shards: every shard has what one PostgreSQL would have.

use crate::harness::compare::{Mode, Pair, frames, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, message};
use crate::listen::another_proxy;

fn cluster() -> Cluster {
    Cluster::new().shards(2).start()
}

/// Everything that a schema is made of, in words that say the same on every server.
const SCHEMA: &[&str] = &[
    "SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.relispartition, c.relrowsecurity, \
            pg_get_userbyid(c.relowner), c.reloptions::text, c.relacl::text, \
            pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), obj_description(c.oid, 'pg_class') \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname !~ '^pg_|^information_schema$|^shardwire$' ORDER BY 1, 2",
    "SELECT c.oid::regclass::text, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
            a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum) \
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname !~ '^pg_|^information_schema$|^shardwire$' \
     ORDER BY 1, 2",
    "SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE connamespace::regnamespace::text !~ '^pg_|^information_schema$|^shardwire$' ORDER BY 1, 2",
    "SELECT schemaname, tablename, indexname, indexdef FROM pg_indexes \
     WHERE schemaname !~ '^pg_|^shardwire$' ORDER BY 1, 2, 3",
    "SELECT schemaname, viewname, definition FROM pg_views \
     WHERE schemaname !~ '^pg_|^information_schema$|^shardwire$' ORDER BY 1, 2",
    "SELECT matviewname, definition FROM pg_matviews ORDER BY 1",
    "SELECT p.oid::regprocedure::text, prosrc, provolatile, proacl::text FROM pg_proc p \
     JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname !~ '^pg_|^information_schema$|^shardwire$' ORDER BY 1",
    "SELECT t.typname, t.typtype, array(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)::text \
     FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace \
     WHERE n.nspname !~ '^pg_|^information_schema$|^shardwire$' ORDER BY 1",
    "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    "SELECT tablename, rulename, definition FROM pg_rules WHERE schemaname !~ '^pg_' ORDER BY 1, 2",
    "SELECT tablename, policyname, qual FROM pg_policies WHERE schemaname <> 'shardwire' ORDER BY 1, 2",
    "SELECT sequencename, data_type::text, start_value, increment_by, cycle FROM pg_sequences ORDER BY 1",
    "SELECT nspname, nspacl::text, obj_description(oid) FROM pg_namespace WHERE nspname !~ '^pg_|^shardwire$' ORDER BY 1",
    "SELECT defaclobjtype, defaclacl::text FROM pg_default_acl ORDER BY 1, 2",
    "SELECT stxname, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext ORDER BY 1",
];

/// Sessions past the proxy: with the oracle and with every shard.
struct Direct {
    oracle: Raw,
    shards: Vec<Raw>,
}

impl Direct {
    fn new(cluster: &Cluster) -> Direct {
        let shards = 0..cluster.shards.len();
        Direct {
            oracle: cluster.oracle().raw(),
            shards: shards.map(|shard| cluster.shard(shard).raw()).collect(),
        }
    }

    /// Every shard has the oracle's schema, and nothing is under way.
    fn same_schema(&mut self, what: &str) {
        for sql in SCHEMA {
            let wanted = self.oracle.rows(sql);
            for (number, shard) in self.shards.iter_mut().enumerate() {
                assert_eq!(
                    shard.rows(sql),
                    wanted,
                    "shard {number} after {what}\n{sql}"
                );
            }
        }
        for shard in &mut self.shards {
            assert!(shard.rows("SELECT gid FROM pg_prepared_xacts").is_empty());
        }
    }

    /// What every shard says of placements.
    fn placements(&mut self) -> Vec<String> {
        let sql = "SELECT schema_name, table_name, placement, shard_key::text FROM shardwire.tables ORDER BY 1, 2";
        let mut all: Vec<_> = self
            .shards
            .iter_mut()
            .map(|shard| shard.rows(sql))
            .collect();
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).iter().map(|row| row.join(" ")).collect()
    }
}

/// SQLSTATE and message of the error among these messages.
fn error(frames: &[Frame]) -> Option<(String, String)> {
    let error = frames.iter().find(|frame| frame.tag == b'E')?;
    Some((error.field(b'C')?, error.field(b'M')?))
}

/// Runs a statement on both sides, in every mode where it can be repeated by undoing it.
fn both(pair: &mut Pair, mode: Mode, sql: &str) {
    let got = outcome(&frames(&mut pair.proxy, mode, sql, &[]));
    let wanted = outcome(&frames(&mut pair.oracle, mode, sql, &[]));
    assert_eq!(got, wanted, "{sql}\n{mode:?}");
}

/// One statement of every kind, each on what those before have made.
const EVERY_KIND: &[&str] = &[
    "CREATE SCHEMA app",
    "CREATE SCHEMA IF NOT EXISTS app",
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "ALTER TYPE mood ADD VALUE 'happy' AFTER 'ok'",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "CREATE TYPE app.pair AS (a int, b text)",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE SEQUENCE app.numbers START 10 INCREMENT 5",
    "CREATE TABLE app.people (id bigserial PRIMARY KEY, name text NOT NULL DEFAULT 'x', age positive, m mood, \
     born timestamptz DEFAULT now(), CONSTRAINT named CHECK (name <> ''))",
    "CREATE TABLE app.people (id int)",
    "CREATE TABLE IF NOT EXISTS app.people (id int)",
    "CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person bigint REFERENCES app.people, \
     body text, size int GENERATED ALWAYS AS (length(body)) STORED)",
    "CREATE TABLE copy_of_notes (LIKE notes INCLUDING ALL)",
    "CREATE TABLE more_notes (extra int) INHERITS (notes)",
    "CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at)",
    "CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2026-01-01')",
    "CREATE TABLE parts_new PARTITION OF parts DEFAULT",
    "ALTER TABLE parts DETACH PARTITION parts_new",
    "ALTER TABLE parts ATTACH PARTITION parts_new DEFAULT",
    "ALTER TABLE notes ADD COLUMN tags text[], ADD COLUMN extra jsonb DEFAULT '{}'",
    "ALTER TABLE notes ALTER COLUMN extra SET NOT NULL, ALTER COLUMN body SET DEFAULT 'empty'",
    "ALTER TABLE notes RENAME COLUMN extra TO details",
    "ALTER TABLE notes DROP COLUMN tags CASCADE",
    "ALTER TABLE notes ADD CONSTRAINT short CHECK (length(body) < 100) NOT VALID",
    "ALTER TABLE notes VALIDATE CONSTRAINT short",
    "ALTER TABLE notes SET (fillfactor = 70)",
    "ALTER TABLE copy_of_notes RENAME TO copied",
    "ALTER TABLE copied SET SCHEMA app",
    "CREATE INDEX notes_body ON notes (lower(body)) WHERE size > 3",
    "CREATE UNIQUE INDEX ON app.people USING btree (name DESC) INCLUDE (age)",
    "ALTER INDEX notes_body RENAME TO notes_lower",
    "CREATE STATISTICS app.s (dependencies) ON id, body FROM notes",
    "CREATE VIEW adults AS SELECT id, name FROM app.people WHERE age > 17",
    "CREATE OR REPLACE VIEW adults AS SELECT id, name, age FROM app.people WHERE age > 17",
    "ALTER VIEW adults RENAME COLUMN name TO called",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM notes",
    "REFRESH MATERIALIZED VIEW counted",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.body := NEW.body || '!'; RETURN NEW; END $$",
    "CREATE OR REPLACE FUNCTION app.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'",
    "CREATE PROCEDURE app.nothing() LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
    "CREATE AGGREGATE app.total (int) (sfunc = int4pl, stype = int, initcond = '0')",
    "CREATE OPERATOR app.+++ (leftarg = int, rightarg = int, function = int4pl)",
    "ALTER FUNCTION app.twice(int) STABLE",
    "CREATE TRIGGER touching BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION touch()",
    "ALTER TABLE notes DISABLE TRIGGER touching",
    "CREATE RULE quiet AS ON DELETE TO notes DO INSTEAD NOTHING",
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON notes USING (person > 0)",
    "ALTER POLICY own ON notes USING (person > 1)",
    "CREATE COLLATION app.german (provider = icu, locale = 'de')",
    "CREATE TEXT SEARCH CONFIGURATION app.search (COPY = simple)",
    "GRANT SELECT, INSERT ON notes TO PUBLIC",
    "GRANT USAGE ON SCHEMA app TO PUBLIC",
    "REVOKE INSERT ON notes FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC",
    "COMMENT ON TABLE notes IS 'It''s a comment'",
    "COMMENT ON COLUMN notes.body IS 'text'",
    "ALTER SEQUENCE app.numbers INCREMENT 7 CYCLE",
    "ALTER TABLE notes OWNER TO CURRENT_USER",
    "CREATE TABLE counted_notes AS SELECT 1 AS one, 'two' AS two",
    "CREATE TABLE empty_notes AS SELECT * FROM notes WITH NO DATA",
    "ANALYZE notes",
    "REINDEX TABLE notes",
    "CLUSTER notes USING notes_pkey",
    "DROP TABLE missing",
    "DROP TABLE IF EXISTS missing",
    "SELECT nonsense FROM notes",
    "ALTER TABLE notes ADD COLUMN body int",
    "CREATE INDEX broken ON notes (missing)",
    "CREATE TABLE broken (a int,, b int)",
    "DROP VIEW adults",
    "DROP POLICY own ON notes",
    "DROP RULE quiet ON notes",
    "DROP TRIGGER touching ON notes",
    "DROP TYPE mood",
    "DROP TYPE mood CASCADE",
    "DROP MATERIALIZED VIEW counted",
    "DROP TABLE parts, more_notes",
    "DROP FUNCTION touch, app.twice(int)",
    "DROP SCHEMA app",
    "DROP SCHEMA app CASCADE",
    "DROP TABLE notes",
];

#[test]
fn every_kind_of_definition_runs_on_every_shard() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    let mut direct = Direct::new(&cluster);
    for (number, sql) in EVERY_KIND.iter().enumerate() {
        let mode = [Mode::Simple, Mode::Text][number % 2];
        both(&mut pair, mode, sql);
        direct.same_schema(sql);
    }
}

/// A cluster with the rows of a shop, sharded by what the statements say.
fn shop(cluster: &Cluster) -> Raw {
    let mut raw = cluster.proxy().raw();
    for sql in [
        "CREATE TABLE users (user_id bigint PRIMARY KEY, name text) SHARD KEY (user_id)",
        "CREATE TABLE products (id int PRIMARY KEY, name text) REPLICATED WITH (fillfactor = 90)",
        "CREATE TABLE notes (id int PRIMARY KEY, body text)",
    ] {
        done(&mut raw, sql);
    }
    raw
}

/// Runs a statement that must not fail.
fn done(raw: &mut Raw, sql: &str) -> Vec<Frame> {
    let frames = raw.query(sql);
    assert_eq!(error(&frames), None, "{sql}");
    frames
}

/// SQLSTATE of a statement that must fail.
fn fails(raw: &mut Raw, sql: &str) -> (String, String) {
    error(&raw.query(sql)).unwrap_or_else(|| panic!("{sql}\ndoes not fail"))
}

/// The codes of advice among these messages.
fn codes(frames: &[Frame]) -> Vec<String> {
    let notices = frames.iter().filter(|frame| frame.tag == b'N');
    let detail = notices.filter_map(|frame| frame.field(b'D'));
    detail
        .filter_map(|detail| Some(detail.rsplit_once('[')?.1.trim_end_matches(']').to_owned()))
        .collect()
}

fn count_on(cluster: &Cluster, table: &str) -> Vec<String> {
    let sql = format!("SELECT count(*) FROM {table}");
    (0..cluster.shards.len())
        .map(|shard| cluster.shard(shard).raw().rows(&sql)[0][0].clone())
        .collect()
}

#[test]
fn the_clause_places_a_table_for_every_proxy_at_once() {
    let cluster = cluster();
    let mut raw = shop(&cluster);
    let mut direct = Direct::new(&cluster);
    assert_eq!(
        direct.placements(),
        [
            "public products replicated ",
            "public users sharded {user_id}"
        ]
    );
    for id in 1..=40 {
        done(&mut raw, &format!("INSERT INTO users VALUES ({id}, 'x')"));
    }
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["40"]]);
    let counts = count_on(&cluster, "users");
    assert!(counts.iter().all(|count| count != "0"), "{counts:?}");
    // In the transaction that makes the table, too, and in the extended protocol.
    for mode in [Mode::Simple, Mode::Text] {
        let mut run = |sql: &str| {
            let frames = frames(&mut raw, mode, sql, &[]);
            assert_eq!(error(&frames), None, "{sql}");
        };
        run("BEGIN");
        run("CREATE TABLE carts (id int, user_id bigint REFERENCES users) SHARD KEY (user_id)");
        run("SAVEPOINT a");
        run("CREATE TABLE gone (id int) SHARD KEY (id)");
        run("ROLLBACK TO a");
        for id in 1..=20 {
            run(&format!("INSERT INTO carts VALUES (1, {id})"));
        }
        run("UPDATE carts SET id = 2");
        run("COMMIT");
        let counts = count_on(&cluster, "carts");
        assert!(counts.iter().all(|count| count != "0"), "{counts:?}");
        let frames = frames(&mut raw, mode, "SELECT * FROM gone", &[]);
        assert_eq!(
            error(&frames).map(|error| error.0).as_deref(),
            Some("42P01")
        );
        assert_eq!(direct.placements().len(), 3);
        done(&mut raw, "DROP TABLE carts");
        assert_eq!(direct.placements().len(), 2);
    }
    done(
        &mut raw,
        "BEGIN; CREATE TABLE t (a int) SHARD KEY (a); INSERT INTO t VALUES (1); ROLLBACK",
    );
    assert_eq!(direct.placements().len(), 2);
    done(
        &mut raw,
        "CREATE TABLE t (a int) SHARD KEY (a); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)",
    );
    assert_eq!(direct.placements().len(), 3);
    assert_eq!(raw.rows("SELECT count(*) FROM t"), [["3"]]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn placements_follow_names_and_columns() {
    let cluster = cluster();
    let mut raw = shop(&cluster);
    let mut direct = Direct::new(&cluster);
    for id in 1..=10 {
        done(&mut raw, &format!("INSERT INTO users VALUES ({id}, 'x')"));
    }
    for (sql, placement) in [
        (
            "ALTER TABLE users RENAME TO people",
            "public people sharded {user_id}",
        ),
        (
            "ALTER TABLE people RENAME user_id TO id",
            "public people sharded {id}",
        ),
        ("CREATE SCHEMA app", "public people sharded {id}"),
        (
            "ALTER TABLE people SET SCHEMA app",
            "app people sharded {id}",
        ),
        (
            "ALTER SCHEMA app RENAME TO other",
            "other people sharded {id}",
        ),
        (
            "ALTER TABLE other.people ALTER id TYPE int",
            "other people sharded {id}",
        ),
    ] {
        done(&mut raw, sql);
        assert!(
            direct.placements().contains(&placement.to_owned()),
            "{sql}: {:?}",
            direct.placements()
        );
        let table = placement.split(' ').take(2).collect::<Vec<_>>().join(".");
        assert_eq!(
            raw.rows(&format!("SELECT count(*) FROM {table}")),
            [["10"]],
            "{sql}"
        );
    }
    for sql in [
        "ALTER TABLE other.people DROP COLUMN id",
        "ALTER TABLE other.people ALTER id TYPE text",
        "ALTER TABLE other.people ALTER id TYPE bigint USING id + 1",
        "ALTER TABLE other.people ADD COLUMN made timestamptz DEFAULT now()",
        "ALTER TABLE other.people ADD COLUMN number serial",
        "CREATE TABLE IF NOT EXISTS other.people (id int) REPLICATED",
        "CREATE TABLE t (a float) SHARD KEY (a)",
        "CREATE TABLE t (a jsonb) SHARD KEY (a)",
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a) STORED) SHARD KEY (b)",
        "CREATE TABLE t (a int REFERENCES notes) SHARD KEY (a)",
        "CREATE TABLE t (a int REFERENCES other.people)",
        "CREATE TABLE t (a int REFERENCES other.people) REPLICATED",
        "CREATE TABLE t (a int, b int REFERENCES other.people) SHARD KEY (a)",
        "ALTER TABLE notes ADD FOREIGN KEY (id) REFERENCES other.people",
    ] {
        assert_eq!(fails(&mut raw, sql).0, "0A000", "{sql}");
    }
    assert_eq!(
        fails(&mut raw, "CREATE TABLE t (a int) SHARD KEY (b)").0,
        "42703"
    );
    assert_eq!(
        fails(&mut raw, "CREATE TABLE t (a int) SHARD KEY a").0,
        "42601"
    );
    done(
        &mut raw,
        "CREATE TABLE IF NOT EXISTS other.people (id int) SHARD KEY (id)",
    );
    done(
        &mut raw,
        "ALTER TABLE other.people ADD COLUMN made timestamptz, ALTER made SET DEFAULT now()",
    );
    done(
        &mut raw,
        "CREATE TABLE t (a int REFERENCES other.people, b int REFERENCES products) SHARD KEY (a)",
    );
    done(&mut raw, "DROP SCHEMA other CASCADE");
    assert_eq!(
        direct.placements(),
        ["public products replicated ", "public t sharded {a}"]
    );
}

#[test]
fn advice_comes_with_its_code() {
    let cluster = cluster();
    let mut raw = shop(&cluster);
    let told = |raw: &mut Raw, sql: &str| codes(&done(raw, sql));
    for (sql, wanted) in [
        (
            "CREATE TABLE a (id int PRIMARY KEY, user_id int, b bool) SHARD KEY (user_id)",
            vec!["SW104"],
        ),
        ("CREATE INDEX ON a (b)", vec!["SW103"]),
        ("CREATE INDEX ON a (b, user_id)", vec![]),
        ("CREATE UNIQUE INDEX ON a (b)", vec!["SW104"]),
        ("ALTER TABLE a ADD UNIQUE (user_id, b)", vec![]),
        ("ALTER TABLE a ADD COLUMN c int UNIQUE", vec!["SW104"]),
        ("CREATE TABLE b (f bool) SHARD KEY (f)", vec!["SW102"]),
        ("CREATE TABLE c (a int PRIMARY KEY) REPLICATED", vec![]),
        ("CREATE INDEX ON notes (body)", vec![]),
        ("SET client_min_messages = 'error'", vec![]),
        ("CREATE INDEX ON a (c)", vec![]),
    ] {
        assert_eq!(told(&mut raw, sql), wanted, "{sql}");
    }
}

#[test]
fn what_fails_on_one_shard_is_undone_on_all() {
    let cluster = cluster();
    let mut raw = shop(&cluster);
    let mut direct = Direct::new(&cluster);
    cluster
        .shard(1)
        .raw()
        .rows("CREATE TABLE in_the_way (id int)");
    cluster
        .shard(1)
        .raw()
        .rows("INSERT INTO users VALUES (-1, 'odd')");
    let before = direct.placements();
    for sql in [
        "CREATE TABLE in_the_way (id int) SHARD KEY (id)",
        "ALTER TABLE users ADD CHECK (user_id > 0)",
    ] {
        let schema = direct.shards[0].rows(SCHEMA[2]);
        let (_, message) = fails(&mut raw, sql);
        assert!(!message.is_empty());
        assert_eq!(direct.shards[0].rows(SCHEMA[2]), schema, "{sql}");
        assert_eq!(direct.placements(), before, "{sql}");
        done(&mut raw, "BEGIN");
        fails(&mut raw, sql);
        assert_eq!(fails(&mut raw, "SELECT 1").0, "25P02");
        done(&mut raw, "ROLLBACK");
        done(&mut raw, "BEGIN; SAVEPOINT a");
        fails(&mut raw, sql);
        done(&mut raw, "ROLLBACK TO a");
        done(&mut raw, "CREATE TABLE fine (id int)");
        done(&mut raw, "COMMIT");
        done(&mut raw, "DROP TABLE fine");
    }
    for shard in &mut direct.shards {
        assert!(shard.rows("SELECT gid FROM pg_prepared_xacts").is_empty());
    }
}

#[test]
fn what_can_t_run_in_a_transaction_runs_on_each_shard_and_can_be_repeated() {
    let cluster = cluster();
    let mut raw = shop(&cluster);
    let mut direct = Direct::new(&cluster);
    done(&mut raw, "VACUUM users");
    done(&mut raw, "VACUUM (ANALYZE)");
    done(&mut raw, "REINDEX TABLE CONCURRENTLY users");
    done(
        &mut raw,
        "CREATE INDEX CONCURRENTLY users_name ON users (name)",
    );
    assert_eq!(
        fails(
            &mut raw,
            "CREATE INDEX CONCURRENTLY users_name ON users (name)"
        )
        .0,
        "42P07"
    );
    for shard in &mut direct.shards {
        shard.rows("INSERT INTO users VALUES (-1, 'same')");
    }
    direct.shards[1].rows("INSERT INTO users VALUES (-2, 'same')");
    let unique = "CREATE UNIQUE INDEX CONCURRENTLY names ON users (name)";
    let frames = raw.query(unique);
    assert_eq!(error(&frames).unwrap().0, "23505");
    let warning = frames.iter().find(|frame| frame.tag == b'N').unwrap();
    assert_eq!(warning.field(b'D').unwrap(), "Done on s0; failed on s1.");
    direct.shards[1].rows("DELETE FROM users WHERE user_id = -2");
    done(&mut raw, unique);
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'names'::regclass";
    for shard in &mut direct.shards {
        assert_eq!(shard.rows(valid), [["t"]]);
    }
    direct.shards[0].rows("DROP INDEX names");
    done(&mut raw, "DROP INDEX CONCURRENTLY names");
    assert_eq!(fails(&mut raw, "BEGIN; VACUUM users").0, "25001");
    done(&mut raw, "ROLLBACK");
    assert_eq!(fails(&mut raw, "CREATE DATABASE x").0, "0A000");
}

#[test]
fn another_proxy_knows_a_new_table_at_once() {
    let cluster = cluster();
    let other = another_proxy(Cluster::new().shards(2), &cluster);
    let mut raw = shop(&cluster);
    let mut second = other.proxy().raw();
    for number in 0..5 {
        done(
            &mut raw,
            &format!("CREATE TABLE t{number} (id int) SHARD KEY (id)"),
        );
        for id in 0..10 {
            done(&mut second, &format!("INSERT INTO t{number} VALUES ({id})"));
        }
        let counts = count_on(&cluster, &format!("t{number}"));
        assert!(
            counts.iter().all(|count| count != "0" && count != "10"),
            "{counts:?}"
        );
    }
}

#[test]
fn a_temporary_table_is_defined_by_itself() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.proxy
        .rows("CREATE TABLE users (id bigint PRIMARY KEY, mine int) SHARD KEY (id)");
    pair.oracle
        .rows("CREATE TABLE users (id bigint PRIMARY KEY, mine int)");
    for sql in [
        "CREATE TABLE notes (id int)",
        "CREATE VIEW ids AS SELECT id FROM notes",
        "CREATE SEQUENCE numbers",
        "CREATE INDEX users_mine ON users (mine, id)",
        "CREATE TEMP TABLE mine (id int)",
        "CREATE TEMP VIEW my_view AS SELECT 1 AS n",
        "CREATE TEMP SEQUENCE my_numbers",
        "CREATE INDEX my_index ON mine (id)",
        "INSERT INTO users SELECT i FROM generate_series(1, 20) i",
    ] {
        pair.once(sql);
    }
    for sql in [
        "DROP TABLE mine, users",
        "DROP TABLE IF EXISTS users, pg_temp.mine CASCADE",
        "DROP TABLE mine, notes",
        "DROP VIEW my_view, ids",
        "DROP SEQUENCE numbers, my_numbers",
        "DROP INDEX my_index, users_mine",
        "CREATE TABLE yours (LIKE mine)",
        "CREATE VIEW both_ids AS SELECT u.id FROM users u JOIN mine USING (id)",
        "ALTER TABLE mine RENAME TO users",
        "ALTER TABLE pg_temp.mine RENAME TO users",
        "ALTER VIEW my_view RENAME TO users",
    ] {
        pair.refused(sql);
    }
    for sql in [
        "CREATE INDEX users_too ON users (mine, id)",
        "ALTER TABLE mine RENAME TO my_own",
        "ALTER TABLE my_own ADD COLUMN name text",
        "CREATE INDEX ON my_own (name)",
        "ANALYZE my_own",
        "CREATE TEMP TABLE other (id int)",
        "SELECT count(*) FROM users",
        "SELECT * FROM my_own",
        "DROP INDEX my_index",
        "DROP TABLE IF EXISTS my_own, other, nothing",
        "DROP VIEW my_view",
        "DROP SEQUENCE my_numbers",
        "DROP TABLE users, notes CASCADE",
    ] {
        pair.once(sql);
    }
    for shard in 0..2 {
        let left = cluster
            .shard(shard)
            .raw()
            .rows("SELECT to_regclass('users') IS NULL");
        assert_eq!(left, [["t"]], "on shard {shard}");
    }
}

#[test]
fn clauses_say_nothing_on_one_shard() {
    let cluster = Cluster::new().shards(1).start();
    let mut raw = cluster.proxy().raw();
    for sql in [
        "CREATE TABLE users (user_id bigint PRIMARY KEY, at date) SHARD KEY (user_id, at)",
        "CREATE TABLE countries (code text) REPLICATED",
        "BEGIN",
        "CREATE TABLE parts (user_id bigint, at date) SHARD KEY (user_id) PARTITION BY RANGE (at)",
        "COMMIT",
        "CREATE TABLE one (id int) SHARD KEY (id); INSERT INTO one VALUES (1)",
        "CREATE TABLE copied SHARD KEY (id) AS SELECT * FROM one",
    ] {
        let frames = raw.query(sql);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{sql}");
    }
    raw.send(&message::parse(
        "",
        "CREATE TABLE bound (id int) REPLICATED",
        &[],
    ));
    raw.send(&message::bind("", "", &[], &[], &[]));
    raw.send(&message::execute("", 0));
    raw.send(&message::sync());
    let frames = raw.read_until(b'Z', 1);
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class \
                  WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace";
    let there = "bound copied countries one parts users";
    assert_eq!(raw.rows(tables), [[there]]);
    assert_eq!(raw.rows("SELECT id FROM copied"), [["1"]]);
}
