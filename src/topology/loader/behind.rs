//! The questions about what PostgreSQL does behind a statement's back: triggers, rules, policies, foreign keys.

use crate::catalog::RawCode;
use crate::catalog::RawForeignKey;
use crate::catalog::RawRelation;
use crate::catalog::RawTrigger;
use crate::sql::body::BodyCall;

use crate::topology::control::ControlError;
use crate::topology::loader::queries::TextRow;
use crate::topology::loader::queries::letter;
use crate::topology::loader::queries::list;
use crate::topology::loader::queries::number;
use crate::topology::loader::queries::optional;
use crate::topology::loader::queries::text;

/// Notes a row of an answer with the relation that its first column names.
type Note = fn(&mut RawRelation, &TextRow) -> Result<(), ControlError>;

/// The questions, and what to do with the rows of their answers.
pub(super) const QUERIES: [(&str, Note); 4] = [
    (TRIGGERS, note_trigger),
    (RULES, note_rule),
    (POLICIES, note_policy),
    (CODE, note_code),
];

/// Triggers that partitions have from their parents count for internal ones before PostgreSQL 15. What an internal
/// function of a foreign key does is known.
const TRIGGERS: &str = "
SELECT t.tgrelid, t.tgtype, n.nspname, p.proname, EXISTS (
    SELECT FROM regexp_matches(t.tgqual::text, ':(?:op)?funcid ([0-9]+)', 'g') m
    LEFT JOIN pg_proc f ON f.oid = m[1]::oid LEFT JOIN pg_language l ON l.oid = f.prolang
    WHERE coalesce(f.provolatile = 'v' OR f.provolatile <> 'i' AND l.lanname NOT IN ('c', 'internal') AND f.oid >= 16384, true)),
    t.tgnewtable IS NOT NULL OR t.tgoldtable IS NOT NULL
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgenabled <> 'D' AND (NOT t.tgisinternal OR t.tgparentid <> 0 AND n.nspname <> 'pg_catalog')";

/// A function of users that is not immutable may read anything: 0 stands for that.
const RULES: &str = "
SELECT DISTINCT r.ev_class, CASE WHEN d.refclassid = 'pg_class'::regclass THEN d.refobjid ELSE 0 END
FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
LEFT JOIN pg_proc f ON d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid
LEFT JOIN pg_language l ON l.oid = f.prolang
WHERE r.rulename <> '_RETURN' AND (d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    OR f.provolatile <> 'i' AND l.lanname NOT IN ('c', 'internal'))";

/// What is declared immutable and may read tables none the less counts too.
const POLICIES: &str = "
SELECT DISTINCT y.polrelid, CASE WHEN d.refclassid = 'pg_class'::regclass THEN d.refobjid ELSE 0 END
FROM pg_policy y JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid
LEFT JOIN pg_proc f ON d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid
LEFT JOIN pg_language l ON l.oid = f.prolang
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> y.polrelid
    OR l.lanname NOT IN ('c', 'internal')
        AND (f.provolatile <> 'i' OR f.prosqlbody IS NOT NULL OR f.prosrc ~* '\\m(from|table|execute)\\M')";

/// What defaults, constraints, generated columns, indexes and types of tables call, and what views do. Functions of users
/// are found by the dependencies that PostgreSQL keeps, those of operators and of types' constraints among them; it keeps
/// none on what it comes with, which is found in expressions where it is called by name, unless it is immutable.
const CODE: &str = "
WITH RECURSIVE mine AS MATERIALIZED (
    SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'f', 'v') AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'shardwire')
), reached (relation, kind, part, class, object) AS (
    SELECT m.oid, 'c', '', 'pg_class'::regclass::oid, m.oid FROM mine m WHERE m.relkind <> 'v'
    UNION SELECT m.oid, 'c', '', 'pg_class'::regclass, i.indexrelid FROM mine m JOIN pg_index i ON i.indrelid = m.oid
    UNION SELECT m.oid, CASE a.attgenerated WHEN '' THEN 'd' ELSE 'c' END, a.attname::text, 'pg_attrdef'::regclass, d.oid
        FROM mine m JOIN pg_attrdef d ON d.adrelid = m.oid JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum = d.adnum
    UNION SELECT m.oid, 'c', '', 'pg_constraint'::regclass, k.oid
        FROM mine m JOIN pg_constraint k ON k.conrelid = m.oid AND k.contype IN ('c', 'x')
    UNION SELECT m.oid, 'v', '', 'pg_rewrite'::regclass, r.oid
        FROM mine m JOIN pg_rewrite r ON r.ev_class = m.oid AND r.rulename = '_RETURN'
    UNION SELECT r.relation, r.kind, r.part, n.class, n.object FROM reached r CROSS JOIN LATERAL (
        SELECT d.refclassid, d.refobjid FROM pg_depend d
        WHERE d.classid = r.class AND d.objid = r.object AND r.class <> 'pg_proc'::regclass AND d.refobjid >= 16384
            AND d.refclassid IN ('pg_type'::regclass, 'pg_operator'::regclass, 'pg_proc'::regclass)
            AND (r.class <> 'pg_type'::regclass OR d.refclassid <> 'pg_proc'::regclass)
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
        WHERE r.class = 'pg_type'::regclass AND k.contypid = r.object
        UNION ALL SELECT 'pg_proc'::regclass, a.castfunc FROM pg_cast a
        WHERE r.class = 'pg_type'::regclass AND a.casttarget = r.object AND a.castcontext <> 'e' AND a.castfunc >= 16384
        UNION ALL SELECT 'pg_class'::regclass, t.typrelid FROM pg_type t
        WHERE r.class = 'pg_type'::regclass AND t.oid = r.object AND t.typrelid <> 0) n (class, object)
), called (relation, kind, part, function) AS (
    SELECT relation, kind, part, object FROM reached WHERE class = 'pg_proc'::regclass
    UNION SELECT m.oid, 'd', a.attname::text, d.refobjid
        FROM mine m JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.atthasdef
        JOIN pg_type t ON t.oid = a.atttypid AND t.typdefaultbin IS NOT NULL
        JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_proc'::regclass
    UNION SELECT r.relation, r.kind, r.part, coalesce(f[1], f[2], f[3])::oid FROM reached r CROSS JOIN LATERAL (
        SELECT d.adbin::text FROM pg_attrdef d WHERE r.class = 'pg_attrdef'::regclass AND d.oid = r.object
        UNION ALL SELECT k.conbin::text FROM pg_constraint k WHERE r.class = 'pg_constraint'::regclass AND k.oid = r.object
        UNION ALL SELECT concat(i.indexprs, i.indpred) FROM pg_index i
            WHERE r.class = 'pg_class'::regclass AND i.indexrelid = r.object
        UNION ALL SELECT w.ev_action::text FROM pg_rewrite w WHERE r.class = 'pg_rewrite'::regclass AND w.oid = r.object
    ) e (value) CROSS JOIN LATERAL regexp_matches(e.value, '\\{FUNCEXPR :funcid ([0-9]+) :funcresulttype [0-9]+ '
        || ':funcretset \\w+ :funcvariadic \\w+ :funcformat [03] |:aggfnoid ([0-9]+) |:winfnoid ([0-9]+) ', 'g') f
)
SELECT c.relation, c.kind, CASE c.kind WHEN 'd' THEN c.part END, n.nspname, p.proname, p.pronargs
FROM called c JOIN pg_proc p ON p.oid = c.function JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid >= 16384 OR p.provolatile <> 'i'
UNION SELECT m.oid, 'v', NULL, 'pg_catalog', asked.name, 0 FROM mine m JOIN pg_rewrite r ON r.ev_class = m.oid
    CROSS JOIN (VALUES ('current_user'), ('current_timestamp')) asked (name)
WHERE r.rulename = '_RETURN' AND r.ev_action::text LIKE '%{SQLVALUEFUNCTION %'";

/// The foreign keys of users' tables, and what becomes of rows that refer to one that changes.
pub(super) const FOREIGN_KEYS: &str = "
SELECT f.oid, f.conrelid, f.conname, f.confrelid,
       array_to_string(ARRAY(SELECT a.attname FROM unnest(f.conkey) WITH ORDINALITY k (number, place)
           JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place), chr(1)),
       array_to_string(ARRAY(SELECT a.attname FROM unnest(f.confkey) WITH ORDINALITY k (number, place)
           JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place), chr(1)),
       f.confdeltype::text, f.confupdtype::text
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0 AND c.oid >= 16384 AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema'";

fn note_trigger(relation: &mut RawRelation, row: &TextRow) -> Result<(), ControlError> {
    relation.hazards.triggers.push(RawTrigger {
        kind: number(row, 1)?,
        schema: text(row, 2)?,
        function: text(row, 3)?,
        is_guarded: text(row, 4)? == "t",
        has_transitions: text(row, 5)? == "t",
    });
    Ok(())
}

fn note_rule(relation: &mut RawRelation, row: &TextRow) -> Result<(), ControlError> {
    relation.hazards.rules_read.push(number(row, 1)?);
    Ok(())
}

fn note_policy(relation: &mut RawRelation, row: &TextRow) -> Result<(), ControlError> {
    relation.hazards.policies_read.push(number(row, 1)?);
    Ok(())
}

fn note_code(relation: &mut RawRelation, row: &TextRow) -> Result<(), ControlError> {
    let call = BodyCall {
        schema: Some(text(row, 3)?),
        name: text(row, 4)?,
        arguments: number(row, 5)?,
    };
    match letter(row, 1)? {
        'v' => relation.hazards.calls.push(call),
        _ => relation.hazards.code.push(RawCode {
            column: optional(row, 2),
            call,
        }),
    }
    Ok(())
}

pub(super) fn foreign_key(row: &TextRow) -> Result<RawForeignKey, ControlError> {
    Ok(RawForeignKey {
        oid: number(row, 0)?,
        table: number(row, 1)?,
        name: text(row, 2)?,
        referenced: number(row, 3)?,
        columns: list(&text(row, 4)?),
        referenced_columns: list(&text(row, 5)?),
        actions: (letter(row, 6)?, letter(row, 7)?),
    })
}
