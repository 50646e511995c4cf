//! Tables that are made with the rows of a query: `CREATE TABLE … AS`, and what `SELECT … INTO` is.
//!
//! What holds:
//! - A table that is at home where its query's rows are is made and filled there by the text as it is; the
//!   other shards make it empty.
//! - Any other table is made empty on every shard, with the columns that the query gives, and is then filled by
//!   an INSERT of the query's rows. That is planned once the table is there, with its placement, and is part
//!   of the same transaction.
//! - The query means the same behind the making of the table as before: where the table would hide another of
//!   its name, the statement is refused.

use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Replacement;
use crate::plan::Request;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::by_key;
use crate::plan::names;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::plan::statement;
use crate::plan::statement::Part;
use crate::sharding::ShardIndex;
use crate::sql::classify::classify;
use crate::sql::definition::Creation;
use crate::sql::definition::into_clause;
use crate::sql::literal::identifier_value;
use crate::sql::literal::quote_identifier;
use crate::sql::statement::Statement;
use crate::sql::statement::TokenRelation;

use super::stored::RefreshedRows;
use super::stored::TemporaryRows;
use super::stored::ViewRows;

/// How a new table gets the rows of its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filling {
    /// One shard runs the text as it is.
    AtHome {
        /// The shard.
        shard: ShardIndex,
        /// The text for the others.
        empty: String,
    },
    /// Every shard makes it empty, and then the rows are inserted.
    Inserted {
        /// The table.
        table: TokenRelation,
        /// The text that makes it.
        empty: String,
        /// The query.
        query: String,
    },
    /// A temporary table gets rows that the first shard can't find by itself.
    Temporary(TemporaryRows),
    /// A materialised view over several shards is made.
    View(ViewRows),
    /// A materialised view over several shards gets new rows.
    Refreshed(RefreshedRows),
}

impl Filling {
    /// The text for a shard, if it is not the client's.
    pub(super) fn text(&self, shard: ShardIndex) -> Option<&str> {
        match self {
            Filling::AtHome { shard: home, .. } if *home == shard => None,
            Filling::AtHome { empty, .. } | Filling::Inserted { empty, .. } => Some(empty),
            Filling::Temporary(_) | Filling::View(_) | Filling::Refreshed(_) => None,
        }
    }

    /// The statement that fills a table, if that is still to be done.
    ///
    /// # Errors
    /// `0A000` for a table without columns.
    pub fn insert(&self, table: &Relation) -> Result<Option<String>> {
        let Filling::Inserted { query, .. } = self else {
            return Ok(None);
        };
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| quote_identifier(&column.name))
            .collect();
        if columns.is_empty() {
            return Err(Error::refused(
                "a table without columns can't get the rows of a query on several shards",
                "Rows without columns can't be told apart.",
                "Give the query a column.",
            ));
        }
        Ok(Some(format!(
            "INSERT INTO {}.{} ({}) {query}",
            quote_identifier(&table.schema),
            quote_identifier(&table.name),
            columns.join(", ")
        )))
    }
}

/// What the query of a definition asks for first: that other words stand in its place.
pub(super) fn replacements(part: Part<'_>, creation: &Creation) -> Vec<Replacement> {
    let Some(query) = &creation.query else {
        return Vec::new();
    };
    let body = part.within(query);
    let kind = classify(part.request.text, body.tokens);
    match kind {
        Statement::Query(_) => statement::plan(body, &kind).pseudo.into_vec(),
        _ => Vec::new(),
    }
}

/// How a table gets the rows of its query; none if it has none.
pub(super) fn filling(part: Part<'_>, creation: &Creation) -> Result<Option<Filling>> {
    let Some(query) = creation.query.as_ref().filter(|_| !creation.is_empty) else {
        return Ok(None);
    };
    let text = part.request.text;
    let body = part.within(query);
    let what = names::command(part);
    let kind = classify(text, body.tokens);
    let Statement::Query(facts) = &kind else {
        return Err(refusal::filled(&what));
    };
    let planned = statement::plan(body, &kind);
    let home = match &planned.route {
        Route::Any => Some(None),
        Route::Shard(shard) => Some(Some(*shard)),
        Route::Refused(error) => return Err(error.clone()),
        _ => None,
    };
    let upto = |end: u32| text.get(..end as usize).unwrap_or(text);
    let empty = format!("{} WITH NO DATA", upto(query.end));
    let target = new_home(part, &creation.name).filter(|_| creation.clause.is_none());
    // It would go past what the proxy knows of numbers drawn.
    if planned.session.contains(SessionUse::READS_SEQUENCE) {
        return Err(refusal::filled(&what));
    }
    if let (Some(home), Some(shard)) = (home, target)
        && home.is_none_or(|home| home == shard)
    {
        return Ok(Some(Filling::AtHome { shard, empty }));
    }
    if facts.modifies || !planned.own.is_empty() {
        return Err(refusal::filled(&what));
    }
    if part.request.by_key {
        return Err(by_key::beyond());
    }
    check_names(body, &creation.name)?;
    let written = text
        .get(query.start as usize..query.end as usize)
        .unwrap_or_default();
    let is_values = body.tokens.first();
    let is_values = is_values.is_some_and(|token| token.is_word(text, "values"));
    Ok(Some(Filling::Inserted {
        table: creation.name.clone(),
        empty,
        query: match is_values {
            // As rows of an INSERT its values would take the types of the columns one by one.
            true => format!("SELECT * FROM ({written}) AS shardwire_rows"),
            false => written.to_owned(),
        },
    }))
}

/// Where a new table without a clause is at home; none if it might be anywhere else.
fn new_home(part: Part<'_>, name: &TokenRelation) -> Option<ShardIndex> {
    let lookup =
        part.request
            .catalog
            .relation(name.schema.as_deref(), &name.name, part.request.search_path);
    match lookup {
        Lookup::Unknown {
            configured: false,
            wildcard: false,
            home,
        } => Some(home),
        // PostgreSQL says that it exists, or that its schema can't be written.
        Lookup::Relation(_) | Lookup::System | Lookup::Temporary => Some(FIRST_SHARD),
        Lookup::Unknown { .. } => None,
    }
}

/// The new table must not take the place of another relation that the query means by the same name: a bare
/// name is looked for in the schema of the new table first.
pub(super) fn check_names(body: Part<'_>, new: &TokenRelation) -> Result<()> {
    let text = body.request.text;
    let token = |at: Option<usize>| at.and_then(|at| body.tokens.get(at));
    let mut mentions = body.tokens.iter().enumerate().filter(|(at, one)| {
        let is_name = identifier_value(text, one).is_some_and(|name| name == new.name);
        let is_after =
            |symbol| token(at.checked_sub(1)).is_some_and(|one| one.is_symbol(text, symbol));
        let is_call = token(at.checked_add(1)).is_some_and(|one| one.is_symbol(text, "("));
        is_name && !is_after(".") && !is_call
    });
    let Request {
        catalog,
        search_path,
        ..
    } = body.request;
    let is_elsewhere = |schema: &String| !search_path.contains(schema);
    if new.schema.as_ref().is_some_and(is_elsewhere) {
        return Ok(());
    }
    let is_hidden = match catalog.relation(None, &new.name, search_path) {
        // If it is in the new table's schema, PostgreSQL says that there is one.
        Lookup::Relation(relation) => {
            let schema = new.schema.as_ref().or(search_path.first());
            schema != Some(&relation.schema)
        }
        Lookup::System | Lookup::Temporary => true,
        Lookup::Unknown { .. } => body.request.temporary_tables,
    };
    let is_type = |at: usize| token(at.checked_sub(1)).is_some_and(|one| one.is_symbol(text, "::"));
    match mentions.any(|(at, _)| is_hidden || is_type(at)) {
        true => Err(hides(&new.name)),
        // Nothing else has the name: it is an alias, a column or a query of the statement's own.
        false => Ok(()),
    }
}

fn hides(name: &str) -> Error {
    Error::refused(
        format!(
            "CREATE TABLE \"{name}\" with the rows of such a query is not supported on several shards"
        ),
        format!("Its query may name another relation \"{name}\", which the new table would hide."),
        "Write the schema before the other relation's name, or give the new table another name.",
    )
}

/// The words that make a CREATE TABLE AS of a SELECT INTO; none for any other query.
///
/// # Errors
/// `0A000` if its INTO can't be read.
pub(in crate::plan) fn into(query: &Query<'_>) -> Result<Vec<Replacement>> {
    let is_sharded = query.request.catalog.shards().len() > 1;
    if query.facts.created.is_empty() || !is_sharded {
        return Ok(Vec::new());
    }
    let text = query.request.text;
    let first = query.body.first().map_or(0, |token| token.start);
    let base = query.tokens.partition_point(|token| token.start < first);
    let clause = into_clause(text, query.body);
    let (Some(clause), Some(first)) = (clause, query.body.first()) else {
        return Err(refusal::everywhere("SELECT INTO"));
    };
    let verb = format!(
        "CREATE {} TABLE {} AS {}",
        clause.kind,
        clause.name,
        first.text(text)
    );
    Ok(vec![
        Replacement {
            tokens: base..base + 1,
            text: verb.into(),
            is_view: false,
        },
        Replacement {
            tokens: base + clause.tokens.start..base + clause.tokens.end,
            text: Box::default(),
            is_view: false,
        },
    ])
}

/// What the plan of a definition is whose text is to be planned anew.
pub(super) fn reworded(planned: Planned, replacements: Vec<Replacement>) -> Planned {
    Planned {
        route: Route::Refused(refusal::pseudo()),
        pseudo: replacements.into(),
        ..planned
    }
}
