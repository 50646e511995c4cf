//! Triggers and functions of users over shards, against one PostgreSQL: right, or refused.

use crate::harness::compare::{MODES, Mode, Pair};
use crate::harness::{Cluster, message};

const SCHEMA: &str = "
CREATE TABLE users (user_id int PRIMARY KEY, name text, n int DEFAULT 0, at timestamptz);
CREATE TABLE timed (user_id int PRIMARY KEY, name text, at timestamptz);
CREATE TABLE moved (user_id int PRIMARY KEY, name text);
CREATE TABLE parts (user_id int, day date, name text, PRIMARY KEY (user_id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE codes (code text PRIMARY KEY, name text);
CREATE TABLE home (id int PRIMARY KEY, name text);
CREATE TABLE audit (id serial PRIMARY KEY, what text, of int);
CREATE TABLE leaking (id int PRIMARY KEY, name text);
CREATE TABLE above (id int PRIMARY KEY);
CREATE TABLE below (id int PRIMARY KEY, above int REFERENCES above ON DELETE CASCADE);
CREATE TABLE guarded (id int PRIMARY KEY, name text);
CREATE TABLE ruled (id int PRIMARY KEY, name text);
CREATE VIEW shown AS SELECT id, name FROM leaking;
CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.name := upper(trim(both FROM NEW.name));
    IF NEW.name = 'BAD' THEN RAISE EXCEPTION 'bad name %', NEW.name USING ERRCODE = '22023'; END IF;
    RETURN NEW; END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$;
CREATE FUNCTION move_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := NEW.user_id + 1; RETURN NEW; END $$;
CREATE FUNCTION to_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (what, of) VALUES (TG_OP, coalesce(NEW.id, OLD.id)); RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION to_users() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO users (user_id, name) VALUES (1000 + OLD.id, 'of a trigger'); RETURN NULL; END $$;
CREATE FUNCTION plain(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN lower($1) || '!'; END $$;
CREATE FUNCTION audits() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM audit';
CREATE FUNCTION note(text) RETURNS int LANGUAGE plpgsql AS $$ DECLARE number int; BEGIN
    INSERT INTO audit (what) VALUES ($1) RETURNING id INTO number; RETURN number; END $$;
CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM users';
CREATE FUNCTION any_count(text) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN
    EXECUTE 'SELECT count(*) FROM ' || $1 INTO n; RETURN n; END $$;
CREATE TRIGGER clean BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION clean();
CREATE TRIGGER clean BEFORE INSERT OR UPDATE ON codes FOR EACH ROW EXECUTE FUNCTION clean();
CREATE TRIGGER clean BEFORE INSERT ON parts_b FOR EACH ROW EXECUTE FUNCTION clean();
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON timed FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER move_key BEFORE INSERT ON moved FOR EACH ROW EXECUTE FUNCTION move_key();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON home FOR EACH ROW EXECUTE FUNCTION to_audit();
CREATE TRIGGER leak AFTER UPDATE OR DELETE ON leaking FOR EACH ROW EXECUTE FUNCTION to_users();
CREATE TRIGGER leak AFTER DELETE ON below FOR EACH ROW EXECUTE FUNCTION to_users();
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY known ON guarded USING (id IN (SELECT user_id FROM users));
CREATE RULE ruled AS ON INSERT TO ruled DO ALSO INSERT INTO users (user_id) VALUES (new.id)";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows("INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, 20) i")
        .rows("INSERT INTO home SELECT i, 'n' || i FROM generate_series(1, 3) i; TRUNCATE audit RESTART IDENTITY")
        .rows("INSERT INTO leaking VALUES (1, 'a'); INSERT INTO above VALUES (1); INSERT INTO below VALUES (1, 1)")
        .sharded("users", &["user_id"])
        .sharded("timed", &["user_id"])
        .sharded("moved", &["user_id"])
        .sharded("parts", &["user_id"])
        .replicated("codes")
        .home("home", 0)
        .home("audit", 0)
        .home("leaking", 0)
        .home("above", 0)
        .home("below", 0)
        .start()
}

#[test]
fn triggers_that_look_at_their_row_are_right_everywhere() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for mode in MODES {
        for sql in [
            "INSERT INTO users VALUES (31, ' a ') ON CONFLICT (user_id) DO UPDATE SET name = excluded.name || 'x' RETURNING *",
            "INSERT INTO users VALUES (32, ' a '), (33, 'b'), (34, 'c'), (35, 'd') ON CONFLICT DO NOTHING",
            "INSERT INTO users VALUES (42, ' a '), (43, 'b'), (44, 'bad'), (45, 'd')",
            "INSERT INTO users (user_id, name) SELECT user_id + 100, 'fed ' || name FROM users WHERE user_id < 9 \
             ON CONFLICT (user_id) DO UPDATE SET name = 'again'",
            "UPDATE users SET name = name || 'x'",
            "UPDATE users SET name = 'bad' WHERE user_id IN (3, 4, 5)",
            "DELETE FROM users WHERE user_id = 34 RETURNING name",
            "INSERT INTO parts VALUES (1, '2026-01-05', ' a '), (2, '2026-02-05', ' b ') ON CONFLICT DO NOTHING RETURNING *",
            "INSERT INTO codes VALUES ('a', ' x '), ('b', 'y') ON CONFLICT (code) DO UPDATE SET name = codes.name || 'z'",
            "UPDATE codes SET name = name || 'q'",
        ] {
            pair.compare(mode, sql, &[], false);
        }
    }
    cluster.same_data();
    pair.refused("UPDATE users SET user_id = user_id + 1 WHERE user_id = 1");
    pair.refused("UPDATE codes SET name = random()::text");
    pair.refused("INSERT INTO moved VALUES (1, 'a')");
    cluster.same_data();
}

#[test]
fn rows_of_copies_fire_triggers() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for raw in [&mut pair.proxy, &mut pair.oracle] {
        let mut out = message::query("COPY users (user_id, name) FROM STDIN");
        out.extend(message::copy_data(b"51\t a\n52\tb\n53\tc\n"));
        out.extend(message::copy_done());
        raw.send(&out);
        raw.read_until(b'Z', 1);
    }
    pair.same("SELECT * FROM users ORDER BY user_id");
    cluster.same_data();
    pair.refused("COPY timed (user_id, name) FROM STDIN");
    pair.refused("COPY moved FROM STDIN");
}

#[test]
fn the_time_of_triggers_is_of_one_shard() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for id in 1..=8 {
        let rows = pair.proxy.rows(&format!(
            "INSERT INTO timed VALUES ({id}, 'a') RETURNING at = now()"
        ));
        assert_eq!(rows, [["t"]]);
    }
    pair.proxy
        .rows("UPDATE timed SET name = 'b' WHERE user_id = 1");
    pair.proxy.rows("DELETE FROM timed WHERE user_id > 4");
    pair.refused("UPDATE timed SET name = 'b'");
    pair.refused("INSERT INTO timed VALUES (11, 'a'), (12, 'b'), (13, 'c'), (14, 'd')");
    pair.refused("INSERT INTO timed SELECT user_id, name FROM users");
}

#[test]
fn at_home_triggers_do_what_stays_there() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "INSERT INTO home VALUES (11, 'a'), (12, 'b')",
        "UPDATE home SET name = name || 'x' WHERE id < 3",
        "DELETE FROM home WHERE id = 3",
        "WITH new AS (INSERT INTO home VALUES (13, 'c') RETURNING id) SELECT * FROM new",
        "INSERT INTO home SELECT user_id + 100, name FROM users WHERE user_id < 5 ORDER BY 1",
        "INSERT INTO leaking VALUES (2, 'b')",
        "SELECT what, of FROM audit ORDER BY id",
    ] {
        pair.once(sql);
    }
    for sql in [
        "UPDATE leaking SET name = 'x'",
        "UPDATE shown SET name = 'x'",
        "INSERT INTO leaking VALUES (1, 'b') ON CONFLICT (id) DO UPDATE SET name = 'x'",
        "DELETE FROM above WHERE id = 1",
        "WITH gone AS (DELETE FROM leaking RETURNING id) SELECT * FROM gone",
        "SELECT * FROM guarded",
        "INSERT INTO guarded VALUES (1, 'a')",
        "INSERT INTO ruled VALUES (2000, 'a')",
    ] {
        pair.refused(sql);
    }
    cluster.same_data();
}

#[test]
fn functions_are_what_their_bodies_do() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT user_id, plain(name) FROM users ORDER BY user_id",
        "SELECT plain(name), count(*) FROM users GROUP BY 1 ORDER BY 1",
        "SELECT count(*) FROM users WHERE plain(name) LIKE 'n1%'",
        "SELECT audits()",
        "SELECT audits(), name FROM home ORDER BY 2",
    ] {
        pair.same(sql);
    }
    for sql in [
        "UPDATE users SET name = plain(name)",
        "SELECT note('x')",
        "INSERT INTO users (user_id, n) VALUES (71, note('a')), (72, note('b')), (73, note('c')) RETURNING *",
        "INSERT INTO home VALUES (100 + note('d'), 'x')",
        "SELECT what, of FROM audit ORDER BY id",
    ] {
        pair.once(sql);
    }
    for sql in [
        "SELECT how_many()",
        "SELECT any_count('users')",
        "INSERT INTO home VALUES (how_many(), 'x')",
        "SELECT user_id, audits() FROM users",
    ] {
        pair.refused(sql);
    }
    // What a function does is what its newest body says.
    for raw in [&mut pair.proxy, &mut pair.oracle] {
        raw.query("CREATE OR REPLACE FUNCTION plain(text) RETURNS text LANGUAGE sql AS 'SELECT $1 || count(*) FROM users'");
    }
    pair.refused("SELECT plain('x')");
    cluster.same_data();
}

const CODE: &str = "
CREATE TABLE counted (user_id int PRIMARY KEY);
CREATE TABLE codes (code text PRIMARY KEY);
CREATE TABLE local (id int PRIMARY KEY);
CREATE SEQUENCE numbers;
CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM counted';
CREATE FUNCTION how_many_fixed(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + count(*)::int FROM counted';
CREATE FUNCTION locals() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM local';
CREATE FUNCTION is_code(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN EXISTS (SELECT FROM codes WHERE code = $1); END $$;
CREATE FUNCTION is_plain(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN $1 !~ '[^a-z]'; END $$;
CREATE FUNCTION fresh() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN nextval('numbers') * 10; END $$;
CREATE FUNCTION below(int, int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 < (SELECT count(*) FROM counted) + $2';
CREATE OPERATOR <<<< (FUNCTION = below, LEFTARG = int, RIGHTARG = int);
CREATE DOMAIN few AS int CHECK (value < how_many() + 1000);
CREATE DOMAIN numbered AS bigint DEFAULT nextval('numbers');
CREATE DOMAIN counting AS bigint DEFAULT how_many();
CREATE TYPE few_and_more AS (few few, more int);
CREATE TABLE checked (user_id int PRIMARY KEY, n int CHECK (n < how_many() + 1000));
CREATE TABLE operated (user_id int PRIMARY KEY, n int CHECK (n <<<< 1000));
CREATE TABLE defaulted (user_id int PRIMARY KEY, n bigint DEFAULT how_many());
CREATE TABLE by_domain (user_id int PRIMARY KEY, n counting);
CREATE TABLE computed (user_id int PRIMARY KEY, n int GENERATED ALWAYS AS (how_many_fixed(user_id)) STORED);
CREATE TABLE indexed (user_id int PRIMARY KEY, n int);
CREATE INDEX ON indexed (user_id) WHERE how_many_fixed(n) > 0;
CREATE TABLE domains (user_id int PRIMARY KEY, n few);
CREATE TABLE composed (user_id int PRIMARY KEY, n few_and_more[]);
CREATE TABLE parted (user_id int, n int, PRIMARY KEY (user_id, n)) PARTITION BY RANGE (n);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_b PARTITION OF parted (CHECK (n < how_many() + 1000)) FOR VALUES FROM (10) TO (20);
CREATE TABLE shared (id int PRIMARY KEY, n bigint DEFAULT how_many());
CREATE TABLE shared_local (id int PRIMARY KEY, n bigint CHECK (n < locals() + 1000));
CREATE TABLE home (id int PRIMARY KEY, n bigint DEFAULT how_many());
CREATE TABLE home_checked (id int PRIMARY KEY, n bigint CHECK (n < how_many() + 1000));
CREATE TABLE printed (user_id int PRIMARY KEY,
    n text CHECK (query_to_xml('SELECT count(*) FROM counted', true, false, '') IS NOT NULL));
CREATE TABLE harmless (user_id int PRIMARY KEY, id serial, code text CHECK (is_code(code)), name text CHECK (is_plain(name)),
    at timestamptz DEFAULT now() CHECK (at <= now()), u uuid DEFAULT gen_random_uuid(), f bigint DEFAULT fresh(), d numbered,
    l text GENERATED ALWAYS AS (lower(name)) STORED, n bigint DEFAULT locals());
CREATE INDEX ON harmless (lower(name)) WHERE length(code) > 0;
CREATE TABLE home_harmless (id int PRIMARY KEY, n bigint DEFAULT locals() CHECK (n <= locals()));
CREATE TABLE late (user_id int PRIMARY KEY, n int)";

/// What would have to read rows of other shards.
const READING: &[&str] = &[
    "INSERT INTO checked VALUES (1, 1)",
    "INSERT INTO checked SELECT user_id, 1 FROM counted",
    "UPDATE checked SET n = 2",
    "UPDATE checked SET n = 2 WHERE user_id = 1",
    "COPY checked FROM STDIN",
    "INSERT INTO operated VALUES (1, 1), (2, 2)",
    "INSERT INTO defaulted VALUES (1)",
    "INSERT INTO defaulted (user_id) VALUES (1), (2), (3)",
    "INSERT INTO defaulted (user_id) SELECT user_id FROM counted",
    "INSERT INTO defaulted VALUES (1, DEFAULT)",
    "UPDATE defaulted SET n = DEFAULT",
    "COPY defaulted (user_id) FROM STDIN",
    "MERGE INTO defaulted d USING counted c ON d.user_id = c.user_id WHEN NOT MATCHED THEN INSERT (user_id) VALUES (c.user_id)",
    "INSERT INTO by_domain (user_id) VALUES (1)",
    "INSERT INTO computed VALUES (1)",
    "INSERT INTO indexed VALUES (1, 1)",
    "UPDATE indexed SET n = 1",
    "INSERT INTO domains VALUES (1, 1)",
    "INSERT INTO composed VALUES (1, ARRAY[(1, 2)::few_and_more])",
    "INSERT INTO parted VALUES (1, 1), (2, 11)",
    "INSERT INTO parted_b VALUES (2, 11)",
    "INSERT INTO shared VALUES (1)",
    "INSERT INTO shared_local VALUES (1, 1)",
    "INSERT INTO home (id) VALUES (1)",
    "INSERT INTO home DEFAULT VALUES",
    "COPY home (id) FROM STDIN",
    "INSERT INTO home_checked VALUES (1, 1)",
    "WITH x AS (INSERT INTO home_checked VALUES (1, 1) RETURNING id) SELECT * FROM x",
    "INSERT INTO printed VALUES (1, 'a')",
    "ALTER TABLE late ADD CHECK (n < how_many() + 1000)",
    "CREATE INDEX ON late (how_many_fixed(n))",
    "ALTER TABLE late ADD COLUMN m few",
    "ALTER TABLE late ADD COLUMN m int GENERATED ALWAYS AS (how_many_fixed(n)) STORED",
];

/// Two shards with tables behind which code is called.
fn with_code() -> Cluster {
    let mut builder = Cluster::new().shards(2).schema(CODE);
    for table in [
        "counted",
        "checked",
        "operated",
        "defaulted",
        "by_domain",
        "computed",
        "indexed",
        "domains",
        "composed",
        "parted",
        "printed",
        "harmless",
        "late",
    ] {
        builder = builder.sharded(table, &["user_id"]);
    }
    builder
        .replicated("codes")
        .replicated("shared")
        .replicated("shared_local")
        .home("local", 0)
        .rows("INSERT INTO counted SELECT generate_series(1, 20); INSERT INTO codes VALUES ('a'), ('b')")
        .rows("INSERT INTO local VALUES (1), (2); INSERT INTO late SELECT i, i FROM generate_series(1, 8) i")
        .start()
}

#[test]
fn code_behind_columns_that_reads_other_rows_is_refused() {
    let cluster = with_code();
    let mut pair = Pair::new(&cluster);
    for sql in READING {
        pair.refused(sql);
    }
    for sql in [
        "INSERT INTO defaulted VALUES (1, 7), (2, 8), (3, 9)",
        "INSERT INTO defaulted (user_id, n) SELECT user_id, 1 FROM counted WHERE user_id > 3",
        "UPDATE defaulted SET n = n + 1",
        "DELETE FROM checked",
        "INSERT INTO parted_a VALUES (1, 1)",
        "INSERT INTO shared VALUES (1, 1), (2, 2)",
        "INSERT INTO home VALUES (1, 2)",
        "INSERT INTO home_harmless (id) VALUES (1), (2)",
        "INSERT INTO harmless (user_id, code, name) VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'a', 'z'), (4, 'b', 'X')",
        "INSERT INTO harmless (user_id, code, name) VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'a', 'z'), (4, 'c', 'x')",
        "SELECT * FROM harmless",
        "CREATE INDEX ON late (user_id, lower(n::text))",
        "ALTER TABLE late ADD CHECK (n > 0)",
        "UPDATE late SET n = n + 1",
    ] {
        pair.compare(Mode::Simple, sql, &[], false);
    }
    let rows = "INSERT INTO harmless (user_id, code, name) SELECT user_id, 'a', 'b' FROM counted WHERE user_id > $1";
    pair.compare(Mode::Binary, rows, &[Some("10")], false);
    pair.same("SELECT user_id, code, name, l, n FROM harmless ORDER BY user_id");
    pair.same("SELECT count(DISTINCT id), count(DISTINCT u), count(DISTINCT f), count(DISTINCT d) FROM harmless");
    // What a table calls is what the newest body does.
    pair.once("CREATE OR REPLACE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 5::bigint'");
    pair.once("INSERT INTO checked VALUES (1, 1), (2, 2), (3, 3)");
    pair.once("INSERT INTO by_domain VALUES (1, 1), (2, 2), (3, 3)");
    pair.refused("ALTER DOMAIN counting ADD CHECK (value < how_many_fixed(1) + 1000)");
    pair.once("TRUNCATE by_domain");
    pair.once("ALTER DOMAIN counting ADD CHECK (value < how_many_fixed(1) + 1000)");
    pair.refused("INSERT INTO by_domain VALUES (1, 1)");
}

#[test]
fn calls_in_views_count_in_transactions_that_define_things() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE users (user_id int PRIMARY KEY); CREATE TABLE codes (code text PRIMARY KEY); \
             CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM users'; \
             CREATE VIEW counted AS SELECT how_many() AS n; CREATE VIEW on_counted AS SELECT n + 1 AS m FROM counted; \
             CREATE VIEW coded AS SELECT code, how_many() AS n FROM codes; \
             CREATE VIEW plain AS SELECT code, lower(code) AS l, max(code) OVER () AS m FROM codes",
        )
        .rows("INSERT INTO users SELECT generate_series(1, 20); INSERT INTO codes VALUES ('A'), ('B')")
        .sharded("users", &["user_id"])
        .replicated("codes")
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT * FROM counted",
        "SELECT * FROM on_counted",
        "SELECT * FROM coded",
    ] {
        pair.proxy.query("BEGIN");
        pair.proxy.query("CREATE TABLE fresh (id int)");
        let frames = pair.proxy.query(sql);
        let error = frames.iter().find(|frame| frame.tag == b'E');
        let code = error.and_then(|error| error.field(b'C'));
        assert_eq!(code.as_deref(), Some("0A000"), "{sql}: {frames:?}");
        pair.proxy.query("ROLLBACK");
    }
    for sql in [
        "BEGIN",
        "CREATE TABLE fresh (id int)",
        "SELECT * FROM plain ORDER BY 1",
        "SELECT user_id, p.l FROM users JOIN plain p ON p.code = 'A' ORDER BY 1",
        "ROLLBACK",
    ] {
        pair.once(sql);
    }
}
