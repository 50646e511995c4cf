//! What random writes have found, or can't: each a case of its own.

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(3)
        .trust()
        .schema(
            "CREATE TABLE stamped (id int PRIMARY KEY, v text, at timestamptz DEFAULT now(), day date DEFAULT current_date);\n\
             CREATE TABLE numbered (id serial PRIMARY KEY, at timestamptz DEFAULT now());\n\
             CREATE SEQUENCE codes;\n\
             CREATE FUNCTION next_code() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'c' || nextval('codes'); END $$;\n\
             CREATE TABLE coded (id int PRIMARY KEY, code text DEFAULT next_code());\n\
             CREATE TABLE moments (at timestamptz DEFAULT now(), v int);\n\
             CREATE TABLE ordered (a int, k int, b int);\n\
             CREATE TABLE flags (k boolean NOT NULL, v text)",
        )
        .sharded("stamped", &["id"])
        .sharded("numbered", &["id"])
        .sharded("coded", &["id"])
        .sharded("moments", &["at"])
        .sharded("ordered", &["k"])
        .sharded("flags", &["k"])
        .start()
}

fn rows(count: usize, row: &str) -> String {
    let rows: Vec<String> = (1..=count)
        .map(|id| row.replace('#', &id.to_string()))
        .collect();
    rows.join(", ")
}

fn position(frames: &[Frame]) -> Option<String> {
    frames.iter().find_map(|frame| frame.field(b'P'))
}

#[test]
fn a_default_that_is_a_moment_is_one_for_all_rows() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    let statements = [
        format!("INSERT INTO stamped (id) VALUES {}", rows(20, "(#)")),
        format!("INSERT INTO stamped VALUES {}", rows(20, "(#, 'x', DEFAULT)")),
        format!("INSERT INTO stamped AS s (day, id, at) VALUES {} RETURNING s.at", rows(20, "(DEFAULT, # + 0, DEFAULT)")),
        format!("INSERT INTO stamped (id) VALUES {} ON CONFLICT DO NOTHING", rows(20, "(#)")),
        "INSERT INTO stamped (id, v) OVERRIDING SYSTEM VALUE VALUES (1, lower('X')), (2, NULL), (3, 'y'), (4, 'z')".to_owned(),
    ];
    for style in ["ISO", "Postgres, DMY", "SQL"] {
        proxy.query(&format!("SET datestyle = '{style}'"));
        proxy.query("SET timezone = 'Asia/Kolkata'");
        for sql in &statements {
            for mode in MODES {
                proxy.rows("DELETE FROM stamped");
                let answer = frames(&mut proxy, mode, sql, &[]);
                assert!(
                    answer.iter().all(|frame| frame.tag != b'E'),
                    "{sql} {answer:?}"
                );
                let looks = "SELECT count(*) > 3, count(DISTINCT at), bool_and(at BETWEEN now() - interval '1 h' AND now()) FROM stamped";
                assert_eq!(proxy.rows(looks), [["t", "1", "t"]], "{sql} {mode:?}");
            }
        }
    }
    proxy.rows(&format!(
        "INSERT INTO numbered (at) VALUES {}",
        rows(20, "(DEFAULT)")
    ));
    assert_eq!(
        proxy.rows("SELECT count(*), count(DISTINCT id), count(DISTINCT at) FROM numbered"),
        [["20", "20", "1"]]
    );
}

#[test]
fn a_key_that_is_a_moment_is_read_as_it_was_written() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    // IST is another time zone to PostgreSQL than the one it stands for here.
    proxy.query("SET datestyle = 'Postgres, DMY'");
    proxy.query("SET timezone = 'Asia/Kolkata'");
    proxy.rows("INSERT INTO moments (v) VALUES (1)");
    let looks = "SELECT at BETWEEN now() - interval '1 h' AND now() FROM moments";
    assert_eq!(proxy.rows(looks), [["t"]]);
}

#[test]
fn a_default_of_users_is_evaluated_in_one_place() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    for id in 1..10 {
        proxy.rows(&format!("INSERT INTO coded VALUES ({id})"));
    }
    proxy.rows(&format!(
        "INSERT INTO coded (id, code) VALUES {}",
        rows(9, "(# + 10, DEFAULT)")
    ));
    let looks = "SELECT count(*), count(DISTINCT code) FROM coded";
    assert_eq!(proxy.rows(looks), [["18", "18"]]);
    for sql in [
        "UPDATE coded SET code = DEFAULT WHERE id = 1",
        "UPDATE stamped SET at = DEFAULT",
    ] {
        assert_eq!(proxy.code(sql), "0A000");
    }
}

#[test]
fn columns_that_have_changed_meanwhile_misplace_no_row() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    pair.once("INSERT INTO ordered VALUES (1, 2, 3)");
    for shard in 0..3 {
        cluster
            .shard(shard)
            .raw()
            .rows("ALTER TABLE ordered DROP COLUMN a, ADD COLUMN c int");
    }
    pair.oracle
        .rows("ALTER TABLE ordered DROP COLUMN a, ADD COLUMN c int");
    for id in 4..12 {
        let sql = format!("INSERT INTO ordered VALUES ({id}, {}, 0)", id + 1);
        let got = outcome(&pair.proxy.query(&sql));
        match got.reports.first() {
            Some((code, _)) => assert_eq!(code, "42703"),
            None => {
                pair.oracle.query(&sql);
            }
        }
    }
    cluster.same_data();
}

#[test]
fn parameters_without_a_type_are_rejected() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "INSERT INTO stamped (id) VALUES ($1), (2), (3), (4)",
        "INSERT INTO stamped (id) VALUES (1 + 1), ($1)",
        "UPDATE flags SET k = NOT k WHERE v = $1",
        "UPDATE stamped SET v = now()::text WHERE v = $1",
    ] {
        let send = |raw: &mut crate::harness::Raw| {
            let mut out = message::parse("", sql, &[0, 0]);
            let value = Some(b"7".to_vec());
            out.extend(message::bind("", "", &[], &[value.clone(), value], &[]));
            out.extend(message::execute("", 0));
            out.extend(message::sync());
            raw.send(&out);
            outcome(&raw.read_until(b'Z', 1))
        };
        let (got, wanted) = (send(&mut pair.proxy), send(&mut pair.oracle));
        assert_eq!(got, wanted, "{sql}");
    }
}

#[test]
fn errors_in_values_name_their_place() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "INSERT INTO stamped (id, v) VALUES (1, 'ä'), (2 + nonsense, 'b'), (3, 'c')",
        "INSERT INTO stamped (id, v) VALUES (1 + 1, 'ä'), (2 + 2, nosuch('b')), (3, 'c')",
        "INSERT INTO stamped (id) VALUES (abs(1)), (abs(2, 3))",
        "INSERT INTO stamped VALUES (1, 'ä'), (2, nonsense), (3, 'c')",
        "INSERT INTO stamped VALUES (1, nonsense)",
    ] {
        let mode = Mode::Simple;
        let got = frames(&mut pair.proxy, mode, sql, &[]);
        let wanted = frames(&mut pair.oracle, mode, sql, &[]);
        assert_eq!(outcome(&got), outcome(&wanted), "{sql}");
        assert_eq!(position(&got), position(&wanted), "{sql}");
    }
}
