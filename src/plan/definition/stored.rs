//! Temporary tables and materialised views with the rows of a query over several shards.
//!
//! What holds:
//! - A temporary table is on the first shard, as all are. Its query is asked before it is made, so that it hides
//!   nothing from its query.
//! - A materialised view over several shards takes its rows from a table in the schema `shardwire` which is empty
//!   but in a transaction that fills it and then has the first shard refresh the view. Its rows are read there.
//!   So it is one of PostgreSQL's own in every other way: with its columns, indexes, rights and REFRESH
//!   CONCURRENTLY.
//! - The definition of such a view holds its query in a condition that is always true (no row of it is ever looked
//!   for), so that what the query depends on stays known to PostgreSQL, and every proxy finds the query there.
//! - A REFRESH on the server itself, or by a proxy that does not know what the view is, fails: the view asks for a
//!   setting that is made while its rows are there. So it never loses them.
//! - On the other shards the view is there, and has no rows.

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Request;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::by_key;
use crate::plan::names;
use crate::plan::query::FIRST_SHARD;
use crate::plan::refusal;
use crate::plan::statement;
use crate::plan::statement::Part;
use crate::plan::views;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::classify::classify;
use crate::sql::definition::Creation;
use crate::sql::definition::blanked;
use crate::sql::definition::creation;
use crate::sql::definition::refresh;
use crate::sql::lexer::tokenize;
use crate::sql::literal::quote_identifier;
use crate::sql::literal::quote_literal;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::statement::Statement;
use crate::sql::statement::TokenRelation;
use crate::sql::token::LexOptions;

use super::Define;
use super::Filling;
use super::filling::check_names;
use super::filling::replacements;

/// How the query is known in a view's definition.
const QUERY: &str = "shardwire_query";

/// The setting that names the table whose rows are to be taken.
pub const ROWS_SETTING: &str = "shardwire.rows";

/// A temporary table with the rows of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryRows {
    /// Its name.
    pub name: String,
    /// It may be there already.
    pub if_not_exists: bool,
    /// The text that makes it.
    pub empty: String,
    /// The query.
    pub query: String,
}

/// A materialised view over several shards that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRows {
    /// Its name, as SQL.
    pub name: String,
    /// It may be there already.
    pub if_not_exists: bool,
    /// The text that makes it of its query alone, without rows.
    pub empty: String,
    /// What its definition begins with, up to `AS`.
    head: String,
    /// Its query as written.
    written: String,
    /// The query that gives its rows; none if it is to have none.
    pub query: Option<String>,
}

impl ViewRows {
    /// The text that makes it so that it takes its rows from this table of the schema `shardwire`.
    pub fn definition(&self, table: &str) -> String {
        format!(
            "{} SELECT shardwire_rows.* FROM shardwire.{} AS shardwire_rows \
             WHERE CASE pg_catalog.current_setting({}, true) WHEN {} THEN true \
             ELSE pg_catalog.current_setting('shardwire.to_be_refreshed_through_the_proxy')::bool END \
             AND NOT EXISTS (SELECT FROM ({}) AS {QUERY} WHERE false) WITH NO DATA",
            self.head,
            quote_identifier(table),
            quote_literal(ROWS_SETTING),
            quote_literal(table),
            self.written
        )
    }
}

/// A materialised view over several shards that gets new rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshedRows {
    /// The table that it takes them from, in the schema `shardwire`.
    pub table: String,
    /// The view, as SQL.
    pub name: String,
    /// The query; none if it has to be asked for, because the view's definition is not known yet.
    pub query: Option<String>,
}

impl RefreshedRows {
    /// The query in the view's definition as a server prints it.
    ///
    /// # Errors
    /// `0A000` if it is not there.
    pub fn query_in(&self, definition: &str) -> Result<String> {
        let query = inner(definition).map(str::to_owned);
        query.ok_or_else(|| without_query(&self.name))
    }
}

/// A query that is to be asked, and what was found out about it.
struct Asked {
    text: String,
    /// The shard that can answer it alone; the inner none if any can.
    home: Option<Option<ShardIndex>>,
}

/// How a temporary table gets the rows of a query that the first shard can't answer.
///
/// # Errors
/// `why` if it is no such table; else why it can't be filled.
pub(super) fn temporary(part: Part<'_>, why: Error) -> Result<Define> {
    let text = part.request.text;
    let Some(creation) = creation(text, part.tokens)? else {
        return Err(why);
    };
    let Some(query) = creation.query.clone() else {
        return Err(why);
    };
    // That is no clause of a temporary table's: PostgreSQL says so.
    let is_placed = creation.clause.is_some();
    let Request {
        catalog,
        search_path,
        ..
    } = part.request;
    let name = &creation.name;
    let is_hidden = match catalog.relation(None, &name.name, search_path) {
        Lookup::Relation(hidden) => !matches!(hidden.location, Location::Home(FIRST_SHARD)),
        Lookup::Unknown {
            configured,
            wildcard,
            home,
        } => configured || wildcard || home != FIRST_SHARD,
        Lookup::System | Lookup::Temporary => false,
    };
    if is_hidden {
        // Statements that mean the temporary table would be planned as for the other.
        return Err(refusal::everywhere(&names::command(part)));
    }
    let mut define = Define::new(part, false);
    define.shards = ShardSet::from_iter([FIRST_SHARD]);
    if creation.is_empty || is_placed {
        return Ok(define);
    }
    let asked = asked(part, &creation, |_| true)?.ok_or(why)?;
    define.filling = Some(Filling::Temporary(TemporaryRows {
        name: creation.name.name,
        if_not_exists: creation.if_not_exists.is_some(),
        empty: format!("{} WITH NO DATA", upto(text, query.end)),
        query: asked.text,
    }));
    Ok(define)
}

/// How a new materialised view gets its rows; none if a shard can answer its query alone.
pub(super) fn view(part: Part<'_>, creation: &Creation) -> Result<Option<Filling>> {
    let Some(query) = creation.query.clone() else {
        return Ok(None);
    };
    let text = part.request.text;
    let refused = || refusal::filled(&names::command(part));
    let asked = asked(part, creation, |is_view| is_view)?.ok_or_else(refused)?;
    if asked.home.is_some() {
        return Ok(None);
    }
    check_names(part.within(&query), &creation.name)?;
    let plain = match &creation.if_not_exists {
        Some(range) => blanked(text, range),
        None => text.to_owned(),
    };
    Ok(Some(Filling::View(ViewRows {
        name: as_sql(&creation.name),
        if_not_exists: creation.if_not_exists.is_some(),
        empty: format!("{} WITH NO DATA", upto(&plain, query.end)),
        head: upto(&plain, query.start).to_owned(),
        written: text
            .get(query.start as usize..query.end as usize)
            .unwrap_or_default()
            .to_owned(),
        query: (!creation.is_empty).then_some(asked.text),
    })))
}

fn upto(text: &str, end: u32) -> &str {
    text.get(..end as usize).unwrap_or(text)
}

/// The query of a definition in the words in which it is asked, views in it by their definitions; none if it is
/// none that can be asked.
fn asked(
    part: Part<'_>,
    creation: &Creation,
    is_replaced: impl Fn(bool) -> bool,
) -> Result<Option<Asked>> {
    let Some(query) = &creation.query else {
        return Ok(None);
    };
    let lex = part.request.lex;
    let edits: Vec<Edit> = replacements(part, creation)
        .iter()
        .filter(|one| is_replaced(one.is_view))
        .filter_map(|one| one.edit(part.all))
        .map(|edit| Edit {
            range: edit.range.start - query.start..edit.range.end - query.start,
            ..edit
        })
        .collect();
    let written = part.request.text;
    let written = written.get(query.start as usize..query.end as usize);
    let text = splice(written.unwrap_or_default(), lex, &edits)?;
    let tokens = tokenize(text.as_bytes(), lex).map_err(|error| error.to_error(text.as_bytes()))?;
    let request = Request {
        text: &text,
        ..*part.request
    };
    let body = Part {
        request: &request,
        all: &tokens,
        tokens: &tokens,
    };
    let kind = classify(&text, &tokens);
    let Statement::Query(facts) = &kind else {
        return Ok(None);
    };
    let planned = statement::plan(body, &kind);
    let home = match &planned.route {
        Route::Any => Some(None),
        Route::Shard(shard) => Some(Some(*shard)),
        Route::Refused(error) => return Err(error.clone()),
        _ => None,
    };
    let draws = planned.session.contains(SessionUse::READS_SEQUENCE);
    if draws || facts.modifies || !planned.own.is_empty() {
        return Ok(None);
    }
    if home.is_none() && request.by_key {
        return Err(by_key::beyond());
    }
    Ok(Some(Asked { text, home }))
}

/// What a REFRESH does: for a view over several shards its first shard is filled; of any other only the shard that
/// is read does it concurrently, which makes a temporary table that not every participant may have.
pub(super) fn refreshed(part: Part<'_>, define: &mut Define) -> Result<()> {
    let text = part.request.text;
    let Some(refresh) = refresh(text, part.tokens) else {
        return Ok(());
    };
    let Request {
        catalog,
        search_path,
        ..
    } = part.request;
    let TokenRelation { schema, name } = &refresh.name;
    let Lookup::Relation(view) = catalog.relation(schema.as_deref(), name, search_path) else {
        return Ok(());
    };
    if let Some(table) = &view.rows_table {
        if !refresh.is_empty {
            define.shards = ShardSet::from_iter([FIRST_SHARD]);
            define.filling = Some(Filling::Refreshed(RefreshedRows {
                table: table.to_string(),
                name: as_sql(&refresh.name),
                query: query_of(part, view)?,
            }));
        }
        return Ok(());
    }
    if let (Some(range), Location::Home(shard)) = (&refresh.concurrently, &view.location) {
        define.filling = Some(Filling::AtHome {
            shard: *shard,
            empty: blanked(text, range),
        });
    }
    Ok(())
}

/// Whether a REFRESH names a view that is not known.
pub(super) fn is_unknown(part: Part<'_>) -> bool {
    let Some(refresh) = refresh(part.request.text, part.tokens) else {
        return false;
    };
    let TokenRelation { schema, name } = &refresh.name;
    let path = part.request.search_path;
    let lookup = part.request.catalog.relation(schema.as_deref(), name, path);
    matches!(lookup, Lookup::Unknown { .. })
}

/// The query of a materialised view over several shards; none if its definition is not known.
fn query_of(part: Part<'_>, view: &Relation) -> Result<Option<String>> {
    let Some(definition) = view.definition.as_deref() else {
        return Ok(None);
    };
    let query = inner(definition).ok_or_else(|| without_query(&view.name))?;
    views::expanded(part.request, (view, query), 0).map(Some)
}

fn without_query(view: &str) -> Error {
    Error::refused(
        format!("materialized view {view} can't be refreshed"),
        "Its query is not where it was when the view was made.",
        "DROP it and CREATE it again.",
    )
}

/// A name as SQL.
fn as_sql(name: &TokenRelation) -> String {
    let schema = name.schema.as_ref();
    let schema = schema.map(|schema| format!("{}.", quote_identifier(schema)));
    let name = quote_identifier(&name.name);
    format!("{}{name}", schema.unwrap_or_default())
}

/// What stands between the parentheses before the last `shardwire_query`.
fn inner(definition: &str) -> Option<&str> {
    let tokens = tokenize(definition.as_bytes(), LexOptions::default()).ok()?;
    let name = tokens
        .iter()
        .rposition(|token| token.is_word(definition, QUERY))?;
    let mut depth = 0_usize;
    for (at, token) in tokens.get(..name)?.iter().enumerate().rev() {
        if token.is_symbol(definition, ")") {
            depth += 1;
        } else if token.is_symbol(definition, "(") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 {
            return None;
        }
        if depth == 0 {
            let last = tokens.get(name - 1)?;
            let first = tokens.get(at)?;
            return definition.get(first.end as usize..last.start as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_found_in_the_definition() {
        let definition = " SELECT shardwire_rows.a\n   FROM shardwire.rows_1 shardwire_rows\n  WHERE (NOT (EXISTS ( SELECT\n\
             FROM ( SELECT x.a FROM ( SELECT 1 AS a) shardwire_query) shardwire_query\n WHERE false)));";
        assert_eq!(
            inner(definition),
            Some(" SELECT x.a FROM ( SELECT 1 AS a) shardwire_query")
        );
        for none in [
            "",
            "SELECT 1",
            "shardwire_query",
            ") shardwire_query",
            "a shardwire_query",
        ] {
            assert_eq!(inner(none), None, "{none}");
        }
    }
}
