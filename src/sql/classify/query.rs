//! Queries: what they do, whether they make a table, whether they lock rows.

use super::cursor::Cursor;
use crate::sql::statement::IntoTable;
use crate::sql::statement::Query;
use crate::sql::statement::QueryKind;
use crate::sql::token::Token;

/// The query that starts where `whole` does; `None` if none does.
pub(super) fn classify(whole: Cursor) -> Option<Query> {
    let kind = kind_of(whole)?;
    let changes = matches!(
        kind,
        QueryKind::Insert | QueryKind::Update | QueryKind::Delete | QueryKind::Merge
    );
    let mut query = Query {
        kind,
        modifies: changes,
        into: None,
        locks_rows: false,
    };
    let mut rest = whole;
    let mut before = Before::Other;
    while let Some(token) = rest.next() {
        let behind = Before::of(rest.text, token);
        match (before, behind) {
            (Before::Parenthesis, Before::Change) => query.modifies = true,
            // Not where a query may start: a name.
            (_, Before::Change) => {
                before = Before::Other;
                continue;
            }
            (Before::Label | Before::Change, Before::Into) => {}
            (_, Before::Into) if !changes => query.into = Some(into(rest)),
            (_, Before::For) => query.locks_rows |= locks(rest),
            _ => {}
        }
        before = behind;
    }
    Some(query)
}

/// What a token is to the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// `(` or `)`, behind which a query may start.
    Parenthesis,
    /// `.` or `AS`, behind which every word is a name.
    Label,
    /// `INSERT`, `UPDATE`, `DELETE` or `MERGE`.
    Change,
    Into,
    For,
    Other,
}

impl Before {
    fn of(text: &str, token: &Token) -> Before {
        if token.is_symbol(text, "(") || token.is_symbol(text, ")") {
            return Before::Parenthesis;
        }
        if token.is_symbol(text, ".") || token.is_word(text, "as") {
            return Before::Label;
        }
        if token.is_word(text, "into") {
            return Before::Into;
        }
        if token.is_word(text, "for") {
            return Before::For;
        }
        let changes = ["insert", "update", "delete", "merge"];
        if changes.iter().any(|word| token.is_word(text, word)) {
            return Before::Change;
        }
        Before::Other
    }
}

fn kind_of(mut rest: Cursor) -> Option<QueryKind> {
    while rest.eat_symbol("(") {}
    if rest.eat(&["with"]) {
        return kind_behind_with(rest);
    }
    kind_at(&rest)
}

/// The kind whose keyword comes next.
fn kind_at(rest: &Cursor) -> Option<QueryKind> {
    let kinds = [
        ("select", QueryKind::Select),
        ("values", QueryKind::Values),
        ("table", QueryKind::Table),
        ("insert", QueryKind::Insert),
        ("update", QueryKind::Update),
        ("delete", QueryKind::Delete),
        ("merge", QueryKind::Merge),
    ];
    let (_, kind) = kinds.iter().find(|(word, _)| rest.is(0, word))?;
    Some(*kind)
}

/// The kind of the query behind the list of common table expressions.
fn kind_behind_with(mut rest: Cursor) -> Option<QueryKind> {
    rest.eat(&["recursive"]);
    loop {
        rest.name()?;
        if rest.is_symbol(0, "(") {
            rest.parentheses()?;
        }
        if !rest.eat(&["as"]) {
            return None;
        }
        rest.eat(&["not"]);
        rest.eat(&["materialized"]);
        rest.parentheses()?;
        search_clause(&mut rest)?;
        cycle_clause(&mut rest)?;
        if !rest.eat_symbol(",") {
            break;
        }
    }
    while rest.eat_symbol("(") {}
    kind_at(&rest).or_else(|| rest.is(0, "with").then_some(QueryKind::Select))
}

/// `SEARCH DEPTH FIRST BY a, b SET c`.
fn search_clause(rest: &mut Cursor) -> Option<()> {
    if rest.eat(&["search"]) {
        rest.eat_any(&["depth", "breadth"]);
        rest.eat(&["first", "by"]);
        names(rest)?;
        rest.eat(&["set"]);
        rest.name()?;
    }
    Some(())
}

/// `CYCLE a, b SET c [TO value DEFAULT value] USING d`.
fn cycle_clause(rest: &mut Cursor) -> Option<()> {
    if rest.eat(&["cycle"]) {
        names(rest)?;
        if !rest.seek(|rest| rest.is(0, "using")) {
            return None;
        }
        rest.name()?;
    }
    Some(())
}

fn names(rest: &mut Cursor) -> Option<()> {
    rest.name()?;
    while rest.eat_symbol(",") {
        rest.name()?;
    }
    Some(())
}

/// Behind `FOR`: whether it is a locking clause.
fn locks(mut rest: Cursor) -> bool {
    rest.eat(&["no"]);
    rest.eat(&["key"]);
    rest.eat_any(&["update", "share"])
}

/// Behind `INTO` (`OptTempTableName`).
fn into(mut rest: Cursor) -> IntoTable {
    IntoTable {
        temporary: temporary(&mut rest) || {
            rest.eat(&["unlogged"]);
            rest.eat(&["table"]);
            in_temporary_schema(&rest)
        },
    }
}

/// Reads `[GLOBAL|LOCAL] TEMP|TEMPORARY` if that comes next.
pub(super) fn temporary(rest: &mut Cursor) -> bool {
    let scoped = usize::from(rest.is_any(0, &["global", "local"]));
    if !rest.is_any(scoped, &["temp", "temporary"]) {
        return false;
    }
    // In `INTO temp FROM`, `INTO temp.t` and at the end it is a name.
    let mut behind = *rest;
    behind.skip(scoped + 1);
    if { behind }.name().is_none() && !behind.is(0, "table") {
        return false;
    }
    *rest = behind;
    true
}

/// Whether the name that comes next lies in the schema of temporary objects.
pub(super) fn in_temporary_schema(rest: &Cursor) -> bool {
    let mut name = *rest;
    name.relation()
        .and_then(|relation| relation.schema)
        .is_some_and(|schema| schema.starts_with("pg_temp"))
}
