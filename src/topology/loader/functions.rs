//! The questions about functions.

use std::sync::Arc;

use crate::catalog::BuiltIn;
use crate::catalog::RawArgument;
use crate::catalog::RawFunction;
use crate::sql::body::BodyCall;
use crate::topology::control::ControlError;
use crate::topology::loader::queries::{
    BETWEEN, RowSource, TextRow, flag, letter, number, optional, text,
};

/// What a server comes with has OIDs below this (PostgreSQL source, `FirstNormalObjectId`).
macro_rules! first_of_users {
    () => {
        "16384"
    };
}

const BUILT_IN: &str = concat!(
    "SELECT n.nspname, p.proname, p.provolatile::text, p.prokind::text, l.lanname, p.proretset, NULL, false, NULL, false \
     FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang \
     WHERE p.oid < ",
    first_of_users!()
);

/// What stands for a body that is no text: what its parse tree names, as PostgreSQL has resolved it, in words of which a
/// reader of bodies makes the same. Casts and operators are functions in it; those that a server comes with are harmless.
/// The codes are those of `CmdType`, `RTEKind` and `SQLValueFunctionOp`, and the types those that number objects.
macro_rules! named_in_tree {
    () => {
        "(SELECT concat_ws(' ', CASE WHEN t.tree ~ ':rtekind 0 ' THEN 'TABLE' END,
              (SELECT string_agg(quote_ident(c.relname), ' ') FROM pg_class c WHERE c.oid IN
                  (SELECT m[1]::oid FROM regexp_matches(t.tree, ':relid ([0-9]+)', 'g') m)),
              (SELECT string_agg(quote_ident(m.nspname) || '.' || quote_ident(f.proname)
                      || '(' || rtrim(repeat('0,', f.pronargs), ',') || ')', ' ')
               FROM pg_proc f JOIN pg_namespace m ON m.oid = f.pronamespace WHERE f.oid IN
                  (SELECT m[1]::oid FROM regexp_matches(t.tree, ':(?:funcid|aggfnoid|winfnoid) ([0-9]+)', 'g') m
                   UNION ALL SELECT m[1]::oid FROM regexp_matches(t.tree, ':opfuncid ([0-9]+)', 'g') m WHERE m[1]::oid >= 16384)),
              CASE WHEN t.tree ~ ':commandType [2-9]|:hasForUpdate true' THEN 'UPDATE' END,
              CASE WHEN t.tree ~ ':op [0-8] :type' THEN 'current_timestamp' END,
              CASE WHEN t.tree ~ ':op (9|1[0-4]) :type' THEN 'current_user' END,
              CASE WHEN t.tree ~ 'type (26|24|2202|2203|2204|2205|2206|3734|3769|4089|4096|4191)[ )}]' OR t.tree ~ ':varattno -' THEN 'oid' END)
          FROM (SELECT p.prosqlbody::text AS tree) t)"
    };
}

/// There is no source where it does not tell all, which is where the default of an argument does more than compute.
/// Code in other languages is not read: if it names what runs queries, it is one that makes them of strings.
const OWN: &str = concat!(
    "
SELECT n.nspname, p.proname, p.provolatile::text, p.prokind::text, l.lanname, p.proretset,
       CASE WHEN l.lanname IN ('sql', 'plpgsql') AND (p.proargdefaults::text LIKE '%{SUBLINK%' OR EXISTS (
                SELECT FROM regexp_matches(p.proargdefaults::text, ':(?:op)?funcid ([0-9]+)', 'g') m
                LEFT JOIN pg_proc q ON q.oid = m[1]::oid WHERE q.provolatile IS DISTINCT FROM 'i' OR q.oid >= 16384)) THEN NULL
            WHEN p.prosqlbody IS NOT NULL THEN ",
    named_in_tree!(),
    "
            WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc
            WHEN p.prokind = 'a' THEN
                (SELECT string_agg(quote_ident(m.nspname) || '.' || quote_ident(f.proname) || '()', ' ')
                 FROM pg_aggregate a JOIN pg_namespace m ON true JOIN pg_proc f ON m.oid = f.pronamespace
                     AND f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
                 WHERE a.aggfnoid = p.oid)
            WHEN l.lanname NOT IN ('c', 'internal') AND p.prosrc ~* 'spi|execute|prepare|cursor|query|connect|psql' THEN 'EXECUTE' END,
       p.prokind = 'f' AND (SELECT a.typtype IN ('c', 'p') FROM pg_type a WHERE a.oid = p.proargtypes[0]),
       CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN
           array_to_string(ARRAY(SELECT coalesce(p.proargmodes[k.place], 'i')::text || k.type || ' ' || coalesce(p.proargnames[k.place], '')
               FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY k (type, place) ORDER BY k.place), chr(1)) END,
       p.prosqlbody IS NOT NULL
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE p.oid >= ",
    first_of_users!()
);

/// What calls functions of users where their names don't stand: operators; casts, by whatever the type that they are to
/// may be called; and types with domains in them, whose constraints hold for each value. What is written in C reads no
/// tables by itself.
const HIDDEN: &str = concat!(
    "
WITH RECURSIVE reached (type, class, object) AS (
    SELECT t.oid, 'pg_type'::regclass::oid, t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.oid >= 16384 AND t.typtype IN ('d', 'c', 'r', 'm') AND coalesce(c.relkind, 'c') = 'c'
    UNION SELECT r.type, n.class, n.object FROM reached r CROSS JOIN LATERAL (
        SELECT d.refclassid, d.refobjid FROM pg_depend d
        WHERE d.classid = r.class AND d.objid = r.object AND r.class <> 'pg_proc'::regclass AND d.refobjid >= 16384
            AND d.refclassid IN ('pg_type'::regclass, 'pg_operator'::regclass, 'pg_proc'::regclass)
            AND (r.class <> 'pg_type'::regclass OR d.refclassid <> 'pg_proc'::regclass)
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
        WHERE r.class = 'pg_type'::regclass AND k.contypid = r.object
        UNION ALL SELECT 'pg_class'::regclass, t.typrelid FROM pg_type t
        WHERE r.class = 'pg_type'::regclass AND t.oid = r.object AND t.typrelid <> 0) n (class, object)
), hidden (mark, function) AS (
    SELECT t.typname::text, r.object FROM reached r JOIN pg_type t ON t.oid = r.type WHERE r.class = 'pg_proc'::regclass
    UNION SELECT o.oprname::text, o.oprcode::oid FROM pg_operator o WHERE o.oid >= 16384
    UNION SELECT m.mark, c.castfunc FROM pg_cast c JOIN pg_type t ON t.oid = c.casttarget CROSS JOIN LATERAL (
        SELECT t.typname::text UNION SELECT regexp_split_to_table(format_type(t.oid, NULL), '\\W+')
        UNION SELECT a.mark FROM (VALUES ('int4', 'int'), ('float8', 'float'), ('numeric', 'decimal'), ('numeric', 'dec'),
            ('bpchar', 'char'), ('bpchar', 'nchar')) a (name, mark) WHERE a.name = t.typname) m (mark)
    WHERE c.castfunc >= 16384
)
SELECT h.mark, n.nspname, p.proname, p.pronargs FROM hidden h JOIN pg_proc p ON p.oid = h.function
JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname NOT IN ('c', 'internal') AND p.oid >= ",
    first_of_users!()
);

/// The functions that a server of this version came with: those that are known, if they are of it.
pub(super) async fn built_in(
    source: &mut impl RowSource,
    version: u32,
    known: &Arc<BuiltIn>,
) -> Result<Arc<BuiltIn>, ControlError> {
    if known.is_of(version) {
        return Ok(Arc::clone(known));
    }
    let rows = read(source, BUILT_IN).await?;
    Ok(Arc::new(BuiltIn::new(version, &rows)))
}

/// The functions that users have made.
pub(super) async fn own(source: &mut impl RowSource) -> Result<Vec<RawFunction>, ControlError> {
    read(source, OWN).await
}

/// Whom operators and types of users call.
pub(super) async fn hidden_calls(
    source: &mut impl RowSource,
) -> Result<Vec<(String, BodyCall)>, ControlError> {
    let rows = source.rows(HIDDEN).await?;
    let calls = rows.iter().map(|row| {
        let call = BodyCall {
            schema: Some(text(row, 1)?),
            name: text(row, 2)?,
            arguments: number(row, 3)?,
        };
        Ok((text(row, 0)?, call))
    });
    calls.collect()
}

async fn read(source: &mut impl RowSource, sql: &str) -> Result<Vec<RawFunction>, ControlError> {
    source.rows(sql).await?.iter().map(function).collect()
}

fn function(row: &TextRow) -> Result<RawFunction, ControlError> {
    Ok(RawFunction {
        schema: text(row, 0)?,
        name: text(row, 1)?,
        volatility: letter(row, 2)?,
        kind: letter(row, 3)?,
        language: text(row, 4)?,
        returns_set: flag(row, 5),
        source: optional(row, 6),
        takes_row: flag(row, 7),
        is_tree: flag(row, 9),
        arguments: optional(row, 8).map_or(Vec::new(), |written| {
            let all = written.split(BETWEEN).filter(|one| !one.is_empty());
            all.map(argument).collect()
        }),
    })
}

/// An argument: its mode and type, and its name behind a space.
fn argument(written: &str) -> RawArgument {
    let mut mode = written.chars();
    let first = mode.next().unwrap_or(' ');
    let (type_oid, name) = mode.as_str().split_once(' ').unwrap_or_default();
    RawArgument {
        name: name.to_owned(),
        mode: first,
        // A type that can't be read is none that a key can have.
        type_oid: type_oid.parse().unwrap_or_default(),
    }
}
