//! Blocks and procedures over several shards, beside one PostgreSQL.

use crate::harness::Cluster;
use crate::harness::compare::Pair;

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE users (id bigint PRIMARY KEY, name text);\n\
             CREATE TABLE countries (code text PRIMARY KEY, title text);\n\
             CREATE TABLE log (id serial PRIMARY KEY, line text);",
        )
        .rows(
            "INSERT INTO users SELECT i, 'name ' || i FROM generate_series(1, 20) i;\n\
             INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France');",
        )
        .sharded("users", &["id"])
        .replicated("countries")
        .start()
}

#[test]
fn blocks_that_define_run_on_every_shard() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for _ in 0..2 {
        for sql in [
            "DO $$ BEGIN CREATE TYPE mood AS ENUM ('sad', 'ok'); EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'shade') THEN \
             CREATE DOMAIN shade AS text CHECK (VALUE <> ''); END IF; END $$",
            "DO LANGUAGE plpgsql $$ BEGIN IF NOT EXISTS (SELECT FROM information_schema.columns \
             WHERE table_name = 'users' AND column_name = 'felt') THEN \
             ALTER TABLE users ADD COLUMN felt mood DEFAULT 'ok'; CREATE INDEX ON users (id, felt); END IF; END $$",
        ] {
            pair.once(sql);
        }
    }
    pair.same("SELECT id, felt FROM users ORDER BY id");
    pair.once("UPDATE users SET felt = 'sad' WHERE id < 5");
    pair.same("SELECT felt, count(*) FROM users GROUP BY felt ORDER BY felt");
    for sql in [
        "DO $$ DECLARE c text; BEGIN FOR c IN SELECT indexname FROM pg_indexes WHERE tablename = 'users' \
         AND indexname ~ 'felt' LOOP EXECUTE format('DROP INDEX %I', c); END LOOP; END $$",
        "DO $$ BEGIN ALTER TABLE users ADD CONSTRAINT felt_well CHECK (felt <> 'sad'); END $$",
        "DO $$ BEGIN CREATE TABLE users (); END $$",
        "DO $$ BEGIN CREATE TYPE half AS ENUM ('a'); RAISE EXCEPTION 'no'; END $$",
        "SELECT 'half'::regtype",
        "BEGIN",
        "DO $$ BEGIN ALTER TABLE users ADD COLUMN more int DEFAULT 7; END $$",
        "SELECT sum(more) FROM users",
        "ROLLBACK",
        "SELECT more FROM users",
    ] {
        pair.once(sql);
    }
    for shard in 0..2 {
        let mut raw = cluster.shard(shard).raw();
        let indexes = raw.rows("SELECT count(*) FROM pg_indexes WHERE indexname ~ 'felt'");
        assert_eq!(indexes, [["0"]], "on shard {shard}");
        assert_eq!(
            raw.code("SELECT 'half'::regtype"),
            "42704",
            "on shard {shard}"
        );
    }
}

#[test]
fn code_that_stays_at_home_runs_there() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "CREATE PROCEDURE note(line text) LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO log (line) VALUES (line); COMMIT; INSERT INTO log (line) VALUES ('done'); END $$",
        "CREATE PROCEDURE twice(INOUT n int) LANGUAGE plpgsql AS 'BEGIN n := n * 2; END'",
        "CREATE PROCEDURE rename_all() LANGUAGE sql AS $$ UPDATE users SET name = 'x' $$",
        "CREATE PROCEDURE through() LANGUAGE plpgsql AS 'BEGIN CALL rename_all(); END'",
        "DO $$ BEGIN INSERT INTO log (line) VALUES ('a'), ('b'); END $$",
        "CALL note('c')",
        "CALL twice(21)",
        "DO $$ BEGIN RAISE NOTICE 'told %', (SELECT count(*) FROM log); END $$",
        "DO $$ BEGIN RAISE NOTICE 'told %', (SELECT title FROM countries WHERE code = 'de'); END $$",
        "BEGIN",
        "DO $$ BEGIN DELETE FROM log; END $$",
        "ROLLBACK",
        "DO $$ BEGIN INSERT INTO log VALUES (1, 'twice'); END $$",
        "SELECT id, line FROM log ORDER BY id",
    ] {
        pair.once(sql);
    }
    for sql in [
        "CALL rename_all()",
        "CALL through()",
        "DO $$ BEGIN UPDATE users SET name = 'x'; END $$",
        "DO $$ BEGIN UPDATE countries SET title = 'x'; END $$",
        "DO $$ BEGIN EXECUTE 'UPDATE users SET name = ''x'''; END $$",
        "DO $$ BEGIN IF (SELECT count(*) FROM users) > 3 THEN DROP TABLE users; END IF; END $$",
    ] {
        pair.refused(sql);
    }
    pair.same("SELECT id, name FROM users ORDER BY id");
    pair.same("SELECT * FROM countries ORDER BY code");
}
