//! Triggers and functions of users over shards, against one PostgreSQL: right, or refused.

use crate::harness::compare::{MODES, Pair};
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
