//! Statements that define things.

use super::cursor::Cursor;
use super::query;
use crate::sql::statement::Ddl;
use crate::sql::statement::DdlObject;
use crate::sql::statement::DdlVerb;

/// The words that name a kind of object; the first entry that fits counts.
const OBJECTS: &[(&[&str], DdlObject)] = &[
    (&["table"], DdlObject::Table),
    (&["foreign", "table"], DdlObject::Table),
    (&["view"], DdlObject::View),
    (&["materialized", "view"], DdlObject::MaterializedView),
    (&["index"], DdlObject::Index),
    (&["unique", "index"], DdlObject::Index),
    (&["sequence"], DdlObject::Sequence),
    (&["schema"], DdlObject::Schema),
    (&["function"], DdlObject::Routine),
    (&["procedure"], DdlObject::Routine),
    (&["routine"], DdlObject::Routine),
    (&["aggregate"], DdlObject::Routine),
    (&["type"], DdlObject::Type),
    (&["domain"], DdlObject::Type),
    (&["trigger"], DdlObject::Trigger),
    (&["constraint", "trigger"], DdlObject::Trigger),
    (&["event", "trigger"], DdlObject::Trigger),
    (&["rule"], DdlObject::Trigger),
    (&["policy"], DdlObject::Trigger),
    (&["extension"], DdlObject::Extension),
    (&["user", "mapping"], DdlObject::Other),
    (&["statistics"], DdlObject::Other),
    (&["collation"], DdlObject::Other),
    (&["conversion"], DdlObject::Other),
    (&["text", "search", "configuration"], DdlObject::Other),
    (&["text", "search", "dictionary"], DdlObject::Other),
    (&["role"], DdlObject::Role),
    (&["user"], DdlObject::Role),
    (&["group"], DdlObject::Role),
    (&["owned"], DdlObject::Role),
    (&["database"], DdlObject::Database),
    (&["tablespace"], DdlObject::Tablespace),
    (&["publication"], DdlObject::Replication),
    (&["subscription"], DdlObject::Replication),
    (&["system"], DdlObject::System),
];

/// Behind `CREATE`.
pub(super) fn create(mut rest: Cursor) -> Ddl {
    rest.eat(&["or", "replace"]);
    let mut temporary = query::temporary(&mut rest);
    rest.eat(&["unlogged"]);
    rest.eat(&["recursive"]);
    let mut object = object(&mut rest);
    let concurrently = rest.is(0, "concurrently");
    let mut name = rest;
    name.eat(&["if", "not", "exists"]);
    temporary |= query::in_temporary_schema(&name);
    if object == DdlObject::Table && rest.seek(|rest| rest.is(0, "as")) {
        object = DdlObject::TableAs;
    }
    let outside = matches!(object, DdlObject::Database | DdlObject::Tablespace);
    Ddl {
        verb: DdlVerb::Create,
        object,
        temporary,
        outside_transaction: outside || concurrently,
    }
}

/// Behind `ALTER`.
pub(super) fn alter(mut rest: Cursor) -> Ddl {
    let object = object(&mut rest);
    let concurrently = rest.seek(|rest| rest.is(0, "concurrently"));
    ddl(
        DdlVerb::Alter,
        object,
        object == DdlObject::System || concurrently,
    )
}

/// Behind `DROP`.
pub(super) fn drop(mut rest: Cursor) -> Ddl {
    let object = object(&mut rest);
    let outside =
        matches!(object, DdlObject::Database | DdlObject::Tablespace) || rest.is(0, "concurrently");
    ddl(DdlVerb::Drop, object, outside)
}

/// Behind `COMMENT`, `SECURITY LABEL`, `REFRESH`, `REASSIGN`: `[FOR …] ON object` or the object.
pub(super) fn about(verb: DdlVerb, mut rest: Cursor) -> Ddl {
    if matches!(verb, DdlVerb::Comment | DdlVerb::SecurityLabel) {
        rest.seek(|rest| rest.is(0, "on"));
    }
    ddl(verb, object(&mut rest), false)
}

/// A definition that is about no single kind of object.
pub(super) fn other(verb: DdlVerb) -> Ddl {
    ddl(verb, DdlObject::Other, false)
}

fn ddl(verb: DdlVerb, object: DdlObject, outside_transaction: bool) -> Ddl {
    Ddl {
        verb,
        object,
        temporary: false,
        outside_transaction,
    }
}

/// Reads the words that name a kind of object.
fn object(rest: &mut Cursor) -> DdlObject {
    let found = OBJECTS.iter().find(|(words, _)| rest.eat(words));
    found.map_or(DdlObject::Other, |(_, object)| *object)
}
