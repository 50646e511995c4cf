//! Functions, procedures and triggers that stay on the shard of a key, beside one PostgreSQL.

use crate::harness::Cluster;
use crate::harness::compare::{MODES, Pair};

const SCHEMA: &str = "
CREATE TABLE users (id bigint PRIMARY KEY, name text, n int DEFAULT 0);
CREATE TABLE orders (user_id bigint, number int, total int, PRIMARY KEY (user_id, number));
CREATE TABLE audit (user_id bigint NOT NULL, what text, at date DEFAULT '2020-01-01');
CREATE TABLE notes (user_id bigint, what text);
CREATE TABLE named (name text PRIMARY KEY, n int);
CREATE TABLE rates (code int PRIMARY KEY, rate int);
CREATE TABLE home (id int PRIMARY KEY, name text);
CREATE FUNCTION get_user(uid bigint) RETURNS SETOF users LANGUAGE sql STABLE AS 'SELECT * FROM users WHERE id = uid';
CREATE FUNCTION name_of(int) RETURNS text LANGUAGE sql AS 'SELECT name FROM users WHERE id = $1';
CREATE FUNCTION count_of(uid bigint, OUT many bigint, OUT spent bigint) LANGUAGE plpgsql AS $$
    BEGIN SELECT count(*), sum(o.total) INTO many, spent FROM orders o JOIN users u ON u.id = o.user_id WHERE u.id = uid; END $$;
CREATE FUNCTION spend(p_user bigint, p_total int) RETURNS int LANGUAGE plpgsql AS $$
    DECLARE fresh int; r rates%ROWTYPE; BEGIN
    PERFORM 1 FROM users WHERE id = p_user FOR UPDATE;
    IF NOT FOUND THEN RAISE EXCEPTION 'no user %', p_user USING ERRCODE = 'P0002'; END IF;
    fresh := coalesce((SELECT max(number) FROM orders WHERE user_id = p_user), 0) + 1;
    SELECT * INTO r FROM rates WHERE code = 1;
    INSERT INTO orders (user_id, number, total) VALUES (p_user, fresh, p_total * r.rate);
    IF p_total > 1000 THEN RAISE EXCEPTION 'too much'; END IF;
    RETURN fresh; END $$;
CREATE FUNCTION find(wanted text) RETURNS int LANGUAGE sql AS 'SELECT n FROM named WHERE name = wanted';
CREATE FUNCTION sum_of(a bigint, b bigint) RETURNS bigint LANGUAGE sql AS
    'SELECT sum(n) FROM (SELECT n FROM users WHERE id = $1 UNION ALL SELECT n FROM users WHERE id = $2) s';
CREATE PROCEDURE bump(uid bigint, by int DEFAULT 1) LANGUAGE plpgsql AS $$
    BEGIN UPDATE users SET n = n + by WHERE id = uid; END $$;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN INSERT INTO audit VALUES (OLD.user_id, 'gone'); RETURN OLD; END IF;
    INSERT INTO audit (user_id, what) SELECT NEW.user_id, TG_OP || ' ' || NEW.total || ' ' || r.rate FROM rates r WHERE r.code = 1;
    UPDATE users SET n = n + 1 WHERE id = NEW.user_id;
    IF (SELECT count(*) FROM orders o WHERE o.user_id = NEW.user_id) > 5 THEN RAISE EXCEPTION 'too many'; END IF;
    RETURN NEW; END $$;
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO notes VALUES (coalesce(NEW.id, OLD.id), to_jsonb(NEW)::text); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION noted();
CREATE TRIGGER told AFTER UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION told();";

/// Functions that must not be taken for what stays on one shard, and calls of them.
const REFUSED: [(&str, &str); 20] = [
    (
        "f(p bigint DEFAULT name_of(1)::bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT p'",
        "SELECT f()",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = p OR true'",
        "SELECT f(1)",
    ),
    (
        "f(id bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = id'",
        "SELECT f(1)",
    ),
    (
        "f(n bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = n'",
        "SELECT f(1)",
    ),
    (
        "f(column1 bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users, (VALUES (1), (2)) v WHERE id = column1'",
        "SELECT f(1)",
    ),
    (
        "f(count bigint) RETURNS bigint LANGUAGE sql AS 'SELECT sum(id) FROM users, (SELECT count(*) FROM rates) s WHERE id = count'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users LEFT JOIN orders ON user_id = id AND id = p'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN p := 2; RETURN (SELECT count(*) FROM users WHERE id = p); END $$",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE p int := 2; BEGIN RETURN (SELECT count(*) FROM users WHERE id = p); END $$",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN FOR p IN 1..3 LOOP PERFORM 1 FROM users WHERE id = p; END LOOP; RETURN 1; END $$",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE r bigint; BEGIN EXECUTE 'SELECT count(*) FROM users' INTO r; RETURN r; END $$",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS text LANGUAGE sql AS 'SELECT u.name || h.name FROM users u, home h WHERE u.id = p'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS void LANGUAGE sql AS 'UPDATE rates SET rate = 2; SELECT 1 FROM users WHERE id = p'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS void LANGUAGE sql AS 'UPDATE users SET id = id + 1 WHERE id = p'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS void LANGUAGE sql AS 'INSERT INTO notes VALUES (p, 1), (p + 1, 2)'",
        "SELECT f(1)",
    ),
    (
        "f(p bigint) RETURNS void LANGUAGE sql AS 'INSERT INTO notes VALUES (p, 1)'",
        "SELECT f(NULL)",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = p'",
        "SELECT f(id) FROM users",
    ),
    (
        "f(p bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = p'",
        "INSERT INTO rates SELECT 7, f(1)",
    ),
    (
        "f(p anyelement) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = p'",
        "SELECT f(1)",
    ),
];

fn cluster() -> Cluster {
    Cluster::new()
        .shards(3)
        .schema(SCHEMA)
        .rows(
            "INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, 30) i;\n\
             INSERT INTO named SELECT 'n' || i, i FROM generate_series(1, 30) i;\n\
             INSERT INTO rates VALUES (1, 2), (2, 3); INSERT INTO home VALUES (1, 'h')",
        )
        .sharded("users", &["id"])
        .sharded("orders", &["user_id"])
        .sharded("audit", &["user_id"])
        .sharded("notes", &["user_id"])
        .sharded("named", &["name"])
        .replicated("rates")
        .start()
}

#[test]
fn calls_run_on_the_shard_of_their_arguments() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for mode in MODES {
        for key in [1, 2, 3, 4, 5] {
            for sql in [
                format!("SELECT * FROM get_user({key})"),
                format!(
                    "SELECT g.name, u.n FROM get_user('{key}') g JOIN users u USING (id) WHERE u.id = {key}"
                ),
                format!("SELECT name_of({key}), name_of({key}::int)"),
                format!("SELECT spend({key}, 7), count(*) FROM rates"),
                format!("SELECT spend({key}, 7000)"),
                format!("SELECT * FROM count_of({key})"),
                format!("SELECT spend({key} + 0, 1) WHERE false"),
                format!("SELECT find('n{key}')"),
                format!("SELECT sum_of({key}, {key})"),
            ] {
                if sql.contains("+ 0") {
                    pair.refused(&sql);
                } else {
                    pair.compare(mode, &sql, &[], false);
                }
            }
            pair.compare(mode, &format!("CALL bump({key})"), &[], false);
            pair.compare(mode, &format!("CALL bump({key}, -2)"), &[], false);
        }
        pair.compare(mode, "SELECT spend(999, 1)", &[], false);
        pair.compare(
            mode,
            "SELECT name_of(NULL), * FROM get_user(NULL)",
            &[],
            false,
        );
    }
    cluster.same_data();
    for sql in [
        "BEGIN",
        "SELECT spend(7, 1)",
        "CALL bump(8)",
        "SELECT spend(9, 1)",
        "ROLLBACK",
    ] {
        pair.once(sql);
    }
    for sql in [
        "BEGIN",
        "SELECT spend(7, 1)",
        "CALL bump(8)",
        "SELECT spend(9, 1)",
        "COMMIT",
    ] {
        pair.once(sql);
    }
    pair.same("SELECT * FROM orders ORDER BY 1, 2");
    cluster.same_data();
}

#[test]
fn what_may_stand_for_something_else_is_no_argument() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for (name, sql) in [
        (
            "f1",
            "(uid bigint) RETURNS text LANGUAGE plpgsql AS 'BEGIN f1.uid := uid + 1; RETURN (SELECT name FROM users WHERE id = uid); END'",
        ),
        (
            "f2",
            "(uid bigint) RETURNS text LANGUAGE plpgsql AS 'BEGIN uid := uid + 1; RETURN (SELECT name FROM users WHERE id = $1); END'",
        ),
        (
            "f3",
            "(uid bigint) RETURNS text LANGUAGE sql AS 'SELECT u.name FROM (SELECT 1 + 1 AS uid) c, users u WHERE u.id = uid'",
        ),
        (
            "f4",
            "(uid bigint) RETURNS text LANGUAGE sql AS $$SELECT name FROM users WHERE name <> '\\' AND id = uid --'$$",
        ),
        (
            "f5",
            "(\"current_user\" bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id::text = current_user'",
        ),
    ] {
        pair.once(&format!("CREATE FUNCTION {name} {sql}"));
        pair.refused(&format!("SELECT {name}(3)"));
    }
}

#[test]
fn keys_of_different_shards_are_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    // With three shards some two of these are apart.
    let mut refused = 0;
    for key in 2..12 {
        let sql = format!("SELECT sum_of(1, {key})");
        let answer = pair.proxy.query(&sql);
        refused += usize::from(answer.iter().any(|frame| frame.tag == b'E'));
    }
    assert!(refused > 0 && refused < 10, "{refused} of 10 are refused");
    for key in 2..12 {
        pair.once(&format!("CALL bump({key})"));
    }
    cluster.same_data();
}

#[test]
fn what_might_leave_the_shard_is_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for (function, call) in REFUSED {
        pair.once(&format!("CREATE FUNCTION {function}"));
        pair.refused(call);
        pair.once("DROP FUNCTION f");
    }
    pair.once("CREATE FUNCTION f(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users WHERE id = $1'");
    pair.same("SELECT f(1)");
    pair.once(
        "CREATE FUNCTION f(text) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users'",
    );
    pair.refused("SELECT f(1)");
    pair.once("CREATE PROCEDURE g(p bigint) LANGUAGE plpgsql AS $$ BEGIN UPDATE users SET n = 9 WHERE id = p; COMMIT; END $$");
    pair.refused("CALL g(1)");
    pair.once("CREATE FUNCTION plain(a bigint DEFAULT 0) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT a + 1'");
    pair.once(
        "CREATE FUNCTION atomic(a bigint) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN a + 2",
    );
    pair.same("SELECT id, plain(), plain(id), atomic(id) FROM users ORDER BY id");
    cluster.same_data();
}

#[test]
fn triggers_write_other_tables_by_the_key_of_their_row() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for mode in MODES {
        for sql in [
            "INSERT INTO orders VALUES (1, 1, 5) RETURNING total",
            "INSERT INTO orders SELECT id, 2, n FROM users",
            "INSERT INTO orders VALUES (1, 3, 5), (2, 3, 5), (3, 3, 5), (4, 3, 5) ON CONFLICT (user_id, number) DO UPDATE SET total = 0",
            "INSERT INTO orders VALUES (1, 4, 5), (1, 5, 5), (1, 6, 5), (2, 4, 5), (3, 4, 1)",
            "UPDATE orders SET total = total + 1",
            "UPDATE orders SET total = total + 1 WHERE user_id = 3",
            "UPDATE users SET name = name || 'x' WHERE id > 25",
            "DELETE FROM orders WHERE number > 2",
            "DELETE FROM users WHERE id = 30",
            "INSERT INTO users VALUES (30, 'again')",
            "DELETE FROM orders",
        ] {
            pair.compare(mode, sql, &[], false);
            cluster.same_data();
        }
    }
    pair.refused("UPDATE users SET id = id + 1");
}

#[test]
fn triggers_that_might_leave_the_shard_are_refused() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for body in [
        "INSERT INTO audit VALUES (NEW.id + 1, 'x'); RETURN NULL;",
        "INSERT INTO audit VALUES (NEW.n, 'x'); RETURN NULL;",
        "UPDATE orders SET total = 0; RETURN NULL;",
        "UPDATE rates SET rate = 0; RETURN NULL;",
        "INSERT INTO home VALUES (NEW.id); RETURN NULL;",
        "INSERT INTO named VALUES (NEW.id::text, 1); RETURN NULL;",
        "NEW.id := 7; INSERT INTO audit VALUES (NEW.id, 'x'); RETURN NULL;",
        "SELECT 7 INTO NEW.id; INSERT INTO audit VALUES (NEW.id, 'x'); RETURN NULL;",
        "OLD := NULL; INSERT INTO audit VALUES (OLD.id, 'x'); RETURN NULL;",
    ] {
        pair.once(&format!(
            "CREATE OR REPLACE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
        ));
        pair.once("DROP TRIGGER IF EXISTS leak ON users");
        pair.once("CREATE TRIGGER leak AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION leak()");
        pair.refused("INSERT INTO users VALUES (50, 'x')");
        pair.refused("INSERT INTO users VALUES (50, 'x'), (56, 'y'), (58, 'z')");
    }
    for (body, events) in [
        // No row: once for a statement, not once for a shard.
        (
            "INSERT INTO audit VALUES (1, 'x'); RETURN NULL;",
            "INSERT ON users FOR EACH STATEMENT",
        ),
        // A key that is NULL where a row is deleted.
        (
            "INSERT INTO notes VALUES (NEW.id, 'x'); RETURN NULL;",
            "INSERT OR DELETE ON users FOR EACH ROW",
        ),
    ] {
        pair.once("DROP TRIGGER leak ON users");
        pair.once(&format!(
            "CREATE OR REPLACE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
        ));
        pair.once(&format!(
            "CREATE TRIGGER leak AFTER {events} EXECUTE FUNCTION leak()"
        ));
        pair.refused("INSERT INTO users VALUES (50, 'x')");
    }
    // What is called like a replicated table is all rows of the statement.
    pair.once("DROP TRIGGER leak ON users");
    pair.once(
        "CREATE OR REPLACE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO audit SELECT NEW.id, count(*)::text FROM rates; RETURN NULL; END $$",
    );
    pair.once(
        "CREATE TRIGGER leak AFTER INSERT ON users REFERENCING NEW TABLE AS rates \
         FOR EACH ROW EXECUTE FUNCTION leak()",
    );
    pair.refused("INSERT INTO users VALUES (50, 'x'), (56, 'y'), (58, 'z')");
    // The time would be another on each shard.
    pair.once("DROP TRIGGER leak ON users");
    pair.once(
        "CREATE OR REPLACE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO audit VALUES (NEW.id, now()::text); RETURN NULL; END $$",
    );
    pair.once("CREATE TRIGGER leak AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION leak()");
    pair.refused("INSERT INTO users VALUES (50, 'x'), (56, 'y'), (58, 'z')");
    pair.once("INSERT INTO users VALUES (60, 'x')");
    pair.same("SELECT count(*) FROM audit WHERE user_id = 60");
}
