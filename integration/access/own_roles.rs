//! What clients with roles of their own do on several shards.

use super::{endpoint, rows, with_people};
use crate::harness::cluster::{DATABASE, PASSWORD, USER, run_as_superuser};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, eventually};

/// The tag of a statement, or its SQLSTATE.
fn end(client: &mut Raw, sql: &str) -> String {
    let frames = client.query(sql);
    let is_end = |frame: &&Frame| matches!(frame.tag, b'C' | b'E');
    let last = frames.iter().rfind(is_end).unwrap();
    match last.tag {
        b'E' => {
            println!("{sql}: {}", String::from_utf8_lossy(&last.body));
            last.field(b'C').unwrap()
        }
        _ => String::from_utf8_lossy(&last.body[..last.body.len() - 1]).into_owned(),
    }
}

/// Two shards on which the proxy may act for alice, and not for bob.
fn with_members() -> Cluster {
    let cluster = with_people("{ max_size: 20 }");
    for shard in &cluster.shards {
        let grants = format!(
            "GRANT alice TO {USER}; GRANT UPDATE ON orders TO alice, bob; GRANT CREATE ON SCHEMA public TO alice"
        );
        run_as_superuser(&shard.primary, &grants);
    }
    // What others granted is noticed with the next definition.
    let mut own = super::endpoint(&cluster, USER, PASSWORD).raw();
    assert_eq!(
        end(&mut own, "CREATE TABLE noticed (id int)"),
        "CREATE TABLE"
    );
    cluster
}

#[test]
fn roles_of_clients_write_on_several_shards() {
    let cluster = with_members();
    let mut alice = endpoint(&cluster, "alice", "alice-secret").raw();
    for (sql, tag) in [
        ("SET search_path TO public", "SET"),
        ("UPDATE orders SET name = 'all'", "UPDATE 4"),
        ("BEGIN", "BEGIN"),
        ("UPDATE orders SET name = 'one' WHERE id = 1", "UPDATE 1"),
        ("UPDATE orders SET name = 'rest' WHERE id > 1", "UPDATE 3"),
        ("COMMIT", "COMMIT"),
    ] {
        assert_eq!(end(&mut alice, sql), tag, "{sql}");
    }
    let names = "SELECT name, count(*) FROM orders GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&mut alice, names), ["one|1", "rest|3"]);
    // Nobody could end what bob had prepared.
    let mut bob = endpoint(&cluster, "bob", "bob-secret").raw();
    for (sql, tag) in [
        ("UPDATE orders SET name = 'bob'", "0A000"),
        ("BEGIN", "BEGIN"),
        ("UPDATE orders SET name = 'bob' WHERE id = 1", "UPDATE 1"),
        ("UPDATE orders SET name = 'bob'", "0A000"),
        ("ROLLBACK", "ROLLBACK"),
    ] {
        assert_eq!(end(&mut bob, sql), tag, "{sql}");
    }
    assert_eq!(rows(&mut bob, names), ["one|1", "rest|3"]);
}

#[test]
fn roles_of_clients_define_their_own_tables() {
    let cluster = with_members();
    let mut alice = endpoint(&cluster, "alice", "alice-secret").raw();
    for (sql, tag) in [
        (
            "CREATE TABLE mine (id int PRIMARY KEY) SHARD KEY (id)",
            "CREATE TABLE",
        ),
        (
            "INSERT INTO mine SELECT generate_series(1, 100)",
            "INSERT 0 100",
        ),
        ("ALTER TABLE mine RENAME TO still_mine", "ALTER TABLE"),
    ] {
        assert_eq!(end(&mut alice, sql), tag, "{sql}");
    }
    assert_eq!(rows(&mut alice, "SELECT count(*) FROM still_mine"), ["100"]);
    let placed = "SELECT schema_name || '.' || table_name FROM shardwire.tables WHERE table_name LIKE '%mine'";
    for shard in &cluster.shards {
        let some = "SELECT count(*) BETWEEN 1 AND 99 FROM alice.still_mine";
        assert_eq!(run_as_superuser(&shard.primary, some).trim(), "t");
        assert_eq!(
            run_as_superuser(&shard.primary, placed).trim(),
            "alice.still_mine"
        );
        // Where alice's rows are is not bob's to say.
        let as_bob = |sql: &str| {
            let script = format!(
                "SET SESSION AUTHORIZATION bob; WITH one AS ({sql} RETURNING 1) SELECT count(*) FROM one"
            );
            shard.primary.psql(DATABASE, &script)
        };
        let insert = "INSERT INTO shardwire.tables VALUES ('alice', 'orders', 'replicated', NULL, NULL, NULL)";
        assert!(
            as_bob(insert)
                .unwrap_err()
                .to_string()
                .contains("row-level security")
        );
        assert_eq!(as_bob("DELETE FROM shardwire.tables").unwrap().trim(), "0");
    }
    assert_eq!(end(&mut alice, "DROP TABLE still_mine"), "DROP TABLE");
    assert_eq!(
        run_as_superuser(&cluster.shards[1].primary, placed).trim(),
        ""
    );
}

#[test]
fn what_roles_of_clients_have_prepared_is_ended() {
    let cluster = with_members();
    let id = run_as_superuser(
        &cluster.shards[0].primary,
        "SELECT cluster_id FROM shardwire.shard",
    );
    let mark = run_as_superuser(&cluster.shards[0].primary, "SELECT left(md5('alice'), 8)");
    let gid = |number: u8| format!("shardwire_{}_{}{number:024x}", id.trim(), mark.trim());
    let decide = |who: &str| {
        let gid = gid(1);
        let script = format!(
            "SET SESSION AUTHORIZATION {who}; INSERT INTO shardwire.decisions VALUES ('{gid}', 'commit')"
        );
        cluster.shards[0].primary.psql(DATABASE, &script)
    };
    assert!(
        decide("bob")
            .unwrap_err()
            .to_string()
            .contains("row-level security")
    );
    decide("alice").unwrap();
    for number in 1..=2 {
        let prepare = format!(
            "SET SESSION AUTHORIZATION alice; BEGIN; INSERT INTO orders VALUES (100 + {number}, 'prepared {number}'); \
             PREPARE TRANSACTION '{}_1_s0'",
            gid(number)
        );
        run_as_superuser(&cluster.shards[1].primary, &prepare);
    }
    eventually("both are ended", || {
        let left = run_as_superuser(
            &cluster.shards[1].primary,
            "SELECT gid FROM pg_prepared_xacts",
        );
        if left.trim().is_empty() {
            Ok(())
        } else {
            Err(left)
        }
    });
    let names = "SELECT name FROM alice.orders WHERE name LIKE 'prepared%'";
    assert_eq!(
        run_as_superuser(&cluster.shards[1].primary, names).trim(),
        "prepared 1"
    );
}
