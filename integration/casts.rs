//! Operators, casts and types of users call functions that no statement names, beside one PostgreSQL.

use crate::harness::Cluster;
use crate::harness::compare::Pair;

const SCHEMA: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE TABLE codes (id int PRIMARY KEY, title text);
    CREATE TYPE whole AS (n int);
    CREATE FUNCTION counted(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int + $1 * 0 FROM users';
    CREATE FUNCTION counted(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN RETURN (SELECT count(*) + $1 * 0 + $2 * 0 FROM users); END';
    CREATE FUNCTION packed(int) RETURNS whole LANGUAGE sql STABLE AS 'SELECT ROW(count(*)::int)::whole FROM users';
    CREATE FUNCTION is_full(int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT count(*) = 40 FROM users';
    CREATE FUNCTION added(int, int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 + $2; END';
    CREATE FUNCTION is_even(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = 0';
    CREATE FUNCTION labelled(whole) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.n';
    CREATE OPERATOR ### (RIGHTARG = int, FUNCTION = counted);
    CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = counted);
    CREATE OPERATOR |+| (LEFTARG = int, RIGHTARG = int, FUNCTION = added);
    CREATE CAST (int AS whole) WITH FUNCTION packed(int) AS ASSIGNMENT;
    CREATE CAST (whole AS int) WITH FUNCTION labelled(whole);
    CREATE DOMAIN seat AS int CHECK (is_full(VALUE));
    CREATE DOMAIN pair AS int CHECK (is_even(VALUE));
    CREATE TYPE bench AS (a seat);
    CREATE VIEW seen AS SELECT id, id === 1 AS n FROM users;
    CREATE VIEW coded AS SELECT id, ### id AS n FROM codes;
    CREATE FUNCTION through(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 === 2';
    CREATE FUNCTION around(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1::seat; END';
    CREATE TABLE wholes (id int PRIMARY KEY, w whole)";

#[test]
fn what_operators_casts_and_types_call_is_called() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(
            "INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 40) i;
             INSERT INTO codes SELECT i, 't' || i FROM generate_series(1, 3) i",
        )
        .sharded("users", &["id"])
        .sharded("wholes", &["id"])
        .replicated("codes")
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in [
        "SELECT ### 1",
        "SELECT id === 2 FROM users WHERE id < 9",
        "SELECT id OPERATOR(public.===) 2 FROM users WHERE id = 9",
        "SELECT title FROM codes WHERE id === 2 = 40",
        "SELECT (5::whole).n",
        "SELECT CAST(id AS whole) FROM users",
        "SELECT id::seat FROM users",
        "SELECT seat '3'",
        "SELECT ARRAY[1, 2]::\"seat\"[]",
        "SELECT ROW(1)::bench",
        "SELECT n FROM seen WHERE id = 3",
        "SELECT n FROM coded",
        "SELECT through(id) FROM users",
        "SELECT around(7)",
        "INSERT INTO wholes VALUES (1, 3)",
    ] {
        pair.refused(sql);
    }
    for sql in [
        "SELECT id |+| 2 FROM users WHERE id < 9 ORDER BY id",
        "SELECT sum(id |+| 1) FROM users",
        "SELECT id::pair FROM users WHERE id % 2 = 0 ORDER BY id",
        "SELECT 3::pair",
        "SELECT name FROM users WHERE id = 7",
    ] {
        pair.same(sql);
    }
}
