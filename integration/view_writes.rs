//! Rows that are written through views on sharded tables, beside one PostgreSQL with all rows.

use crate::harness::Cluster;
use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};

const SCHEMA: &str = "
    CREATE TABLE acc (id bigserial PRIMARY KEY, name text NOT NULL, kind text DEFAULT 'basic', active bool DEFAULT true,
        made timestamptz DEFAULT '2020-01-01 00:00Z', n int, double int GENERATED ALWAYS AS (n * 2) STORED);
    CREATE TABLE stamped (id int PRIMARY KEY, at timestamptz DEFAULT now(), note text);
    CREATE VIEW whole AS SELECT * FROM acc;
    CREATE VIEW checked AS SELECT id, name, active, n FROM acc WHERE active WITH CHECK OPTION;
    CREATE VIEW labels AS SELECT id, name AS label, upper(name) AS big, kind FROM acc WHERE n > 0 ORDER BY id;
    CREATE VIEW below AS SELECT id, name, n FROM checked WHERE n < 100 WITH LOCAL CHECK OPTION;
    CREATE VIEW cascaded AS SELECT id, name, n FROM checked WHERE n < 100 WITH CASCADED CHECK OPTION;
    CREATE VIEW invoked WITH (security_barrier) AS SELECT id, name FROM acc;
    ALTER VIEW invoked ALTER COLUMN name SET DEFAULT 'of the view';
    CREATE VIEW keyless AS SELECT name, n FROM acc;
    CREATE VIEW renamed AS SELECT id AS key, name FROM acc;
    CREATE VIEW swapped AS SELECT id, n AS id2, name AS kind, kind AS name FROM acc;
    CREATE VIEW of_now AS SELECT id, name, n FROM acc WHERE made < now();
    CREATE VIEW of_itself AS SELECT id, name, n FROM acc WHERE n IN (SELECT n FROM acc);
    CREATE VIEW unstamped AS SELECT id, note FROM stamped;
    CREATE VIEW triggered AS SELECT id, name FROM acc;
    CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER instead INSTEAD OF DELETE ON triggered FOR EACH ROW EXECUTE FUNCTION instead();
    CREATE VIEW ruled AS SELECT id, name FROM acc;
    CREATE RULE ruled AS ON DELETE TO ruled DO INSTEAD NOTHING;
    CREATE FUNCTION starred() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.kind = NEW.kind || ''*''; RETURN NEW; END';
    CREATE TRIGGER starred BEFORE INSERT OR UPDATE ON acc FOR EACH ROW EXECUTE FUNCTION starred()";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .sharded("acc", &["id"])
        .sharded("stamped", &["id"])
        .start()
}

/// Rows that a change over shards returns have no order.
fn compare(pair: &mut Pair, mode: Mode, sql: &str) {
    let mut got = outcome(&frames(&mut pair.proxy, mode, sql, &[]));
    let mut wanted = outcome(&frames(&mut pair.oracle, mode, sql, &[]));
    got.rows.sort();
    wanted.rows.sort();
    // Whether columns are told before an error is another matter.
    if got
        .reports
        .iter()
        .any(|(code, _)| code.starts_with(['2', '4']))
    {
        got.columns.clear();
        wanted.columns.clear();
    }
    assert_eq!(got, wanted, "{mode:?}: {sql}");
}

const WRITES: &[&str] = &[
    "INSERT INTO whole (name, n) VALUES ('a', 1), ('b', 2), ('c', 3), ('d', -4) RETURNING *",
    "INSERT INTO whole VALUES (50, 'x', 'k', true, '2021-01-01 00:00Z', 5) RETURNING id, double",
    "INSERT INTO whole VALUES (DEFAULT, 'y', DEFAULT, DEFAULT, DEFAULT, 6, DEFAULT) RETURNING *",
    "INSERT INTO checked VALUES (60, 'xx', false, 1)",
    "INSERT INTO checked VALUES (60, 'xx', true, 1), (61, 'yy', true, 2) RETURNING *",
    "INSERT INTO checked (name) VALUES ('nn') RETURNING *",
    "INSERT INTO labels (id, label) VALUES (70, 'lab')",
    "INSERT INTO labels (id, label, big) VALUES (71, 'lab', 'LAB')",
    "INSERT INTO labels VALUES (72, 'lab')",
    "INSERT INTO swapped VALUES (75, 4, 'its name', 'its kind') RETURNING *",
    "UPDATE swapped SET id2 = 5, name = 'another kind' WHERE id = 75 RETURNING *",
    "UPDATE swapped SET id2 = 6 WHERE id2 = 5 RETURNING *",
    "UPDATE labels SET label = label || '!' WHERE id = 1 RETURNING *",
    "UPDATE labels SET label = label || '?' RETURNING id, label, big",
    "UPDATE labels SET big = 'x' WHERE id = 1",
    "UPDATE checked SET active = false WHERE id = 60",
    "UPDATE checked SET active = false WHERE name = 'yy?'",
    "UPDATE checked SET n = n + 1 RETURNING *",
    "INSERT INTO below VALUES (80, 'd', 200)",
    "INSERT INTO below VALUES (81, 'd', 20)",
    "INSERT INTO cascaded VALUES (82, 'd', 20), (83, 'e', 30)",
    "INSERT INTO cascaded VALUES (84, 'd', 200)",
    "UPDATE cascaded SET n = 500 WHERE id = 82",
    "UPDATE below SET n = n + 1",
    "DELETE FROM below WHERE id = 81 RETURNING *",
    "DELETE FROM cascaded WHERE name = 'e'",
    "INSERT INTO invoked (id) VALUES (90) RETURNING *",
    "INSERT INTO invoked (id) VALUES (91), (92), (93) RETURNING *",
    "INSERT INTO invoked VALUES (94, DEFAULT) RETURNING *",
    "INSERT INTO invoked VALUES (95, NULL) RETURNING *",
    "INSERT INTO invoked (name) SELECT 'sel' || i FROM generate_series(1, 4) i RETURNING name",
    "INSERT INTO invoked (id, name) SELECT id + 1000, name FROM acc WHERE id < 10",
    "INSERT INTO invoked (id, name) SELECT id + 2000, name FROM invoked WHERE id < 10",
    "INSERT INTO whole (id, name) VALUES (1, 'dup') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name || '+' RETURNING *",
    "INSERT INTO whole (id, name) VALUES (1, 'dup'), (2, 'dup'), (300, 'new') ON CONFLICT (id) DO NOTHING",
    "INSERT INTO whole (id, name) VALUES (1, 'dup')",
    "UPDATE invoked SET name = acc.kind FROM acc WHERE invoked.id = acc.id AND acc.n > 3",
    "UPDATE invoked SET name = (SELECT max(name) FROM acc) WHERE id < 3",
    "UPDATE invoked v SET name = v.name || to_char(now() - now(), 'SS') WHERE v.id > 3 RETURNING v.*",
    "UPDATE public.invoked SET name = 'pub' WHERE public.invoked.id = 3 RETURNING public.invoked.name",
    "UPDATE checked SET n = 5 WHERE id IN (SELECT id FROM checked WHERE n > 50)",
    "DELETE FROM checked USING invoked WHERE invoked.id = checked.id AND invoked.name LIKE 'sel%'",
    "DELETE FROM whole WHERE id = ANY('{90,91}')",
    "WITH d AS (DELETE FROM whole WHERE id IN (92, 93) RETURNING id, name) INSERT INTO invoked SELECT id + 5000, name FROM d",
    "WITH up AS (UPDATE invoked SET name = 'w' WHERE id = 94 RETURNING *) SELECT * FROM up",
    "UPDATE whole SET double = 5 WHERE id = 1",
    "UPDATE checked SET nosuch = 5 WHERE id = 1",
    "INSERT INTO unstamped VALUES (1, 'x')",
    "INSERT INTO unstamped (id) VALUES (2) ON CONFLICT (id) DO UPDATE SET note = 'y' RETURNING *",
    "WITH one AS (INSERT INTO unstamped VALUES (3, 'z') RETURNING id) SELECT id FROM one",
    "SELECT count(*), count(at), count(DISTINCT at) > 0 FROM stamped",
    "UPDATE unstamped SET note = 'x' WHERE id = 1",
    "DELETE FROM unstamped",
    "SELECT * FROM acc",
];

#[test]
fn rows_are_written_through_views() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for mode in MODES {
        for sql in WRITES {
            compare(&mut pair, mode, sql);
        }
        for sql in [
            "BEGIN",
            "UPDATE whole SET n = 1 WHERE id = 50",
            "SAVEPOINT s",
            "INSERT INTO checked VALUES (600, 'x', false, 1), (601, 'x', false, 1)",
            "ROLLBACK TO s",
            "DELETE FROM labels",
            "COMMIT",
            "DELETE FROM acc",
            "ALTER SEQUENCE acc_id_seq RESTART",
        ] {
            compare(&mut pair, mode, sql);
        }
    }
    let values = [Some("700"), Some("p"), Some("701")];
    let insert = "INSERT INTO checked (id, name, active, n) VALUES ($1, $2, true, 3), ($3, 'z', true, 3) RETURNING *";
    pair.same_with("DELETE FROM whole WHERE id = $1", &[Some("1")]);
    let mut answers = [&mut pair.proxy, &mut pair.oracle].map(|raw| {
        let mut got = outcome(&frames(raw, Mode::Binary, insert, &values));
        got.rows.sort();
        got
    });
    answers[0].columns.clear();
    answers[1].columns.clear();
    assert_eq!(answers[0], answers[1]);
    pair.same_with(
        "UPDATE checked SET n = 5 WHERE id = $1 RETURNING *",
        &[Some("701")],
    );
    // Each row is where its key says.
    for shard in 0..2 {
        let sql = "SELECT count(*) FROM acc WHERE (hashint8extended(id, 0) & 16383) / 8192 <>";
        let rows = cluster.shard(shard).raw().rows(&format!("{sql} {shard}"));
        assert_eq!(rows, [["0"]]);
    }
}

#[test]
fn views_that_say_more_are_not_written() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "INSERT INTO keyless VALUES ('x', 5)",
        "UPDATE keyless SET n = 6 WHERE name = 'x'",
        "UPDATE renamed SET name = 'h' WHERE key = 1",
        "UPDATE of_now SET n = 1",
        "UPDATE of_itself SET n = 1",
        "INSERT INTO unstamped VALUES (1, 'x'), (2, 'y'), (3, 'z')",
        "INSERT INTO unstamped SELECT id, name FROM acc",
        "DELETE FROM triggered WHERE id = 1",
        "UPDATE triggered SET name = 'x' WHERE id = 1",
        "DELETE FROM ruled WHERE id = 1",
        "UPDATE invoked SET id = id + 1 WHERE id = 95",
    ] {
        pair.refused(sql);
    }
    for sql in [
        "INSERT INTO whole (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "DROP TRIGGER instead ON triggered",
        "DELETE FROM triggered WHERE id = 1",
        "DROP RULE ruled ON ruled",
        "DELETE FROM ruled WHERE name = 'b'",
        "ALTER VIEW whole RENAME COLUMN name TO called",
        "UPDATE whole SET called = 'new' WHERE id = 3",
        "SELECT id, name FROM acc ORDER BY id",
    ] {
        pair.once(sql);
    }
}
