//! The questions about what PostgreSQL does behind a statement's back: triggers, rules, policies, foreign keys.

use crate::catalog::RawForeignKey;
use crate::catalog::RawRelation;
use crate::catalog::RawTrigger;

use crate::topology::control::ControlError;
use crate::topology::loader::queries::TextRow;
use crate::topology::loader::queries::letter;
use crate::topology::loader::queries::list;
use crate::topology::loader::queries::number;
use crate::topology::loader::queries::text;

/// Notes a row of an answer with the relation that its first column names.
type Note = fn(&mut RawRelation, &TextRow) -> Result<(), ControlError>;

/// The questions, and what to do with the rows of their answers.
pub(super) const QUERIES: [(&str, Note); 3] = [
    (TRIGGERS, note_trigger),
    (RULES, note_rule),
    (POLICIES, note_policy),
];

/// Triggers that partitions have from their parents count for internal ones before PostgreSQL 15. What an internal
/// function of a foreign key does is known.
const TRIGGERS: &str = "
SELECT t.tgrelid, t.tgtype, n.nspname, p.proname, EXISTS (
    SELECT FROM regexp_matches(t.tgqual::text, ':(?:op)?funcid ([0-9]+)', 'g') m
    LEFT JOIN pg_proc f ON f.oid = m[1]::oid LEFT JOIN pg_language l ON l.oid = f.prolang
    WHERE coalesce(f.provolatile = 'v' OR f.provolatile <> 'i' AND l.lanname NOT IN ('c', 'internal') AND f.oid >= 16384, true))
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
