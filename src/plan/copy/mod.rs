//! COPY: which shards the rows of a table come from, and how its data finds theirs; pure.
//!
//! A COPY FROM of a sharded table goes to all shards of the table with the client's own text, but for a
//! list of the columns where the client has given none: so a shard whose table has changed meanwhile rejects
//! it rather than store rows where they don't belong. [`Splitter`] takes the data apart, and puts values in for
//! columns that the data leaves out and that shards can't find values for by themselves ([`supply`]): numbers of
//! sequences, the shard key, what is one value for the whole statement, and what varies in replicated tables.

mod field;
mod form;
mod lines;
mod scan;
mod split;
pub mod supply;
mod tuple;

use std::borrow::Cow;
use std::sync::Arc;

use field::Forced;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::catalog::Trigger;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Access;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::defaults::Form;
use crate::plan::effects;
use crate::plan::effects::Effects;
use crate::plan::hazards::check_called_defaults;
use crate::plan::hazards::check_hazards;
use crate::plan::hazards::check_home;
use crate::plan::hazards::check_spread;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::refusal;
use crate::plan::statement;
use crate::plan::statement::Part;
use crate::sharding::ColumnType;
use crate::sharding::KeyColumn;
use crate::sharding::Placement;
use crate::sharding::ShardSet;
use crate::sql::analysis;
use crate::sql::classify::classify;
use crate::sql::encoding::Encoding;
use crate::sql::lexer::tokenize;
use crate::sql::literal::quote_identifier;
use crate::sql::statement::Copy;
use crate::sql::statement::CopyDirection;
use crate::sql::statement::CopyEndpoint;
use crate::sql::statement::CopyFormat;
use crate::sql::statement::CopySource;
use crate::sql::token::slice;

pub use lines::Lines;
pub use split::Fault;
pub use split::Splitter;
pub use supply::Source;
pub use supply::Supplied;

/// A COPY FROM STDIN over several shards.
#[derive(Debug)]
pub struct CopyIn {
    /// The table's name, as PostgreSQL has it in messages.
    pub table: String,
    /// Where its rows are.
    pub shards: ShardSet,
    /// How the data is taken apart; none if every shard gets all of it.
    layout: Option<Arc<Layout>>,
    /// The table, as SQL.
    pub table_sql: String,
    /// Columns that are given values on the way, in their order before the client's.
    pub supplied: Vec<Supplied>,
    /// Whether the data is binary.
    pub form: Form,
    /// What is put into the text, and where.
    columns: Option<(usize, String)>,
    /// An option that PostgreSQL may reject. If it does not, this is the refusal.
    pub doubt: Option<Error>,
}

/// What the data looks like.
#[derive(Debug)]
struct Layout {
    is_binary: bool,
    marks: Marks,
    null: String,
    default: Option<String>,
    has_header: bool,
    has_condition: bool,
    /// The encoding that the statement names.
    encoding: Option<Encoding>,
    /// The columns in the order of the data.
    columns: Vec<String>,
    keys: Vec<KeyField>,
    /// None for a replicated table.
    placement: Option<Arc<Placement>>,
}

/// The bytes that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    delimiter: u8,
    /// Only CSV has one.
    quote: Option<u8>,
    /// None if it is the quote.
    escape: Option<u8>,
    /// `\.` must stand alone in text format, and means nothing in CSV.
    is_marker_alone: bool,
}

/// A column of the shard key.
#[derive(Clone, Debug)]
struct KeyField {
    name: String,
    at: At,
    column: ColumnType,
    not_null: bool,
    forced: Forced,
}

/// Where a column of the shard key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A field of the data.
    Field(usize),
    /// One of the columns that are supplied.
    Supplied(usize),
}

impl CopyIn {
    /// Whether every shard gets every row.
    pub fn is_replicated(&self) -> bool {
        self.layout
            .as_ref()
            .is_none_or(|layout| layout.placement.is_none())
    }

    /// The statement for the shards.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some((at, columns)) = &self.columns else {
            return Cow::Borrowed(text);
        };
        match text.split_at_checked(*at) {
            Some((before, behind)) => Cow::Owned(format!("{before}{columns}{behind}")),
            None => Cow::Borrowed(text),
        }
    }

    /// What takes the data apart; none if every shard gets all of it. `encoding` is the client's; a row may
    /// have `most_bytes` before its key.
    ///
    /// # Errors
    /// `0A000` if characters can't be told apart in the encoding.
    pub fn splitter(
        self: &Arc<CopyIn>,
        encoding: Encoding,
        most_bytes: usize,
    ) -> Result<Option<Splitter>> {
        let Some(layout) = &self.layout else {
            return Ok(None);
        };
        let encoding = layout.encoding.unwrap_or(encoding);
        if !encoding.is_exact() && !layout.is_binary {
            return Err(Error::refused(
                "COPY over several shards in this encoding is not supported",
                "Where its characters end decides where its fields end.",
                "Convert the data to UTF-8, and SET client_encoding to it.",
            ));
        }
        let layout = Arc::clone(layout);
        Ok(Some(Splitter::new(
            Arc::clone(self),
            layout,
            encoding,
            most_bytes,
        )))
    }
}

/// Plans a COPY.
pub(super) fn plan(part: Part<'_>, copy: &Copy) -> Planned {
    let mut planned = match &copy.source {
        CopySource::Query(range) => {
            let body = part.within(range);
            let mut planned = statement::plan(body, &classify(part.request.text, body.tokens));
            match planned.access {
                Access::Read => statement::finished_by_hub(&mut planned, "COPY"),
                Access::Write => statement::one_shard_only(&mut planned.route, "COPY"),
            }
            planned
        }
        CopySource::Relation { name, columns } => {
            let lookup = part.request.catalog.relation(
                name.schema.as_deref(),
                &name.name,
                part.request.search_path,
            );
            let route = match part.is_sharded() {
                true => route(part, copy, lookup, (&name.name, columns.as_deref())),
                false => Ok(Route::Shard(FIRST_SHARD)),
            };
            let temporary = match lookup {
                Lookup::Temporary => true,
                Lookup::Unknown { .. } => part.request.temporary_tables,
                _ => false,
            };
            let reads = copy.direction == CopyDirection::To;
            Planned {
                route: route.unwrap_or_else(Route::Refused),
                access: if reads && !temporary {
                    Access::Read
                } else {
                    Access::Write
                },
                session: match lookup {
                    Lookup::Unknown { .. } if part.is_sharded() => SessionUse::UNKNOWN_NAMES,
                    _ => SessionUse::NONE,
                },
                own: Box::default(),
                merge: None,
                fallback: None,
                pseudo: Box::default(),
                listed: Box::default(),
                moments: None,
            }
        }
    };
    if copy.endpoint != CopyEndpoint::Client {
        // A file is on one machine, a program may do anything.
        planned.access = Access::Write;
        if !matches!(planned.route, Route::Shard(_) | Route::Refused(_)) {
            planned.route = Route::Refused(refusal::choose_shard("COPY with a file or program"));
        }
    }
    planned
}

fn route(
    part: Part<'_>,
    copy: &Copy,
    lookup: Lookup<'_>,
    (name, columns): (&str, Option<&[String]>),
) -> Result<Route> {
    let reads = copy.direction == CopyDirection::To;
    match lookup {
        Lookup::System | Lookup::Temporary => Ok(Route::Shard(FIRST_SHARD)),
        Lookup::Unknown {
            configured,
            wildcard,
            home,
        } => {
            let temporary = part.request.temporary_tables;
            if configured || (wildcard && !temporary) {
                return Err(refusal::undefined(name));
            }
            Ok(Route::Shard(if temporary { FIRST_SHARD } else { home }))
        }
        Lookup::Relation(relation) => match &relation.location {
            Location::Home(shard) => {
                let events = if reads { 0 } else { Trigger::INSERT };
                check_home(part.request.catalog, relation, events)?;
                let is_left = |name: &str| {
                    columns.is_some_and(|listed| !listed.iter().any(|one| one == name))
                };
                let is_left = |name: &str| is_left(name) || copy.options.default.is_some();
                check_called_defaults(part.request.catalog, relation, events, is_left)?;
                Ok(Route::Shard(*shard))
            }
            Location::Replicated | Location::Sharded(_) if !reads => {
                copy_in(part, copy, relation, columns).map(|copy| Route::CopyIn(Arc::new(copy)))
            }
            Location::Replicated | Location::Sharded(_) if relation.hazards.policies_read => {
                Err(refusal::hazard(name, "row security policies"))
            }
            Location::Replicated => Ok(Route::Any),
            Location::Sharded(placement) => Ok(Route::Scatter(placement.shards().clone())),
            Location::Unserved(reason) => Err(refusal::unserved(name, reason)),
        },
    }
}

/// A COPY FROM of a sharded or replicated table.
fn copy_in(
    part: Part<'_>,
    copy: &Copy,
    relation: &Relation,
    listed: Option<&[String]>,
) -> Result<CopyIn> {
    let catalog = part.request.catalog;
    check_hazards(catalog, relation, Trigger::INSERT)?;
    check_spread(catalog, relation, Trigger::INSERT)?;
    let is_left = |name: &str| listed.is_some_and(|listed| !listed.iter().any(|one| one == name));
    let is_left = |name: &str| is_left(name) || copy.options.default.is_some();
    check_called_defaults(catalog, relation, Trigger::INSERT, is_left)?;
    if relation.hazards.row_security {
        return Err(refusal::hazard(&relation.name, "row security policies"));
    }
    check_condition(part, copy, relation)?;
    let columns: Vec<String> = match listed {
        Some(listed) => listed.to_vec(),
        None => {
            let stored = relation.columns.iter().filter(|column| !column.generated);
            stored.map(|column| column.name.clone()).collect()
        }
    };
    let is_binary = copy.options.format == CopyFormat::Binary;
    let supplied = supplied(relation, &columns, is_binary)?;
    check_marks(relation, copy, (&columns, &supplied))?;
    let server_version = part.request.catalog.server_version();
    let (form, doubt) = match form::read(&copy.options, server_version) {
        Ok(form) => (Some(form), None),
        Err(doubt) => (None, Some(doubt)),
    };
    let keys = keys(relation, copy, (&columns, &supplied))?;
    let inserted = inserted(part, (&columns, &supplied), listed.is_some())?;
    let placement = relation.placement();
    let is_split = placement.is_some() || !supplied.is_empty();
    let layout = form.filter(|_| is_split).map(|form| {
        Arc::new(Layout {
            is_binary: form.is_binary,
            marks: form.marks,
            null: form.null,
            default: form.default,
            has_header: form.has_header,
            has_condition: copy.condition.is_some(),
            encoding: copy.options.encoding.as_deref().map(Encoding::named),
            columns,
            keys,
            placement: placement.map(Arc::clone),
        })
    });
    let schema = quote_identifier(&relation.schema);
    Ok(CopyIn {
        table: relation.name.clone(),
        table_sql: format!("{schema}.{}", quote_identifier(&relation.name)),
        shards: match placement {
            Some(placement) => placement.shards().clone(),
            None => ShardSet::all(part.request.catalog.shards().len()),
        },
        doubt: doubt.filter(|_| is_split),
        form: match is_binary {
            true => Form::Binary,
            false => Form::Text,
        },
        supplied,
        layout,
        columns: inserted,
    })
}

/// Where the columns of the shard key are.
fn keys(
    relation: &Relation,
    copy: &Copy,
    (columns, supplied): (&[String], &[Supplied]),
) -> Result<Vec<KeyField>> {
    let placed = relation.placement().map_or(&[][..], |one| one.columns());
    let key = |key: &KeyColumn| {
        let field = columns.iter().position(|column| *column == key.name);
        let at = match field {
            Some(field) => At::Field(field),
            None => {
                let at = supplied.iter().position(|one| one.name == key.name);
                At::Supplied(at.ok_or_else(|| missing_key(&relation.name, &key.name))?)
            }
        };
        Ok(KeyField {
            at,
            column: key.column_type,
            not_null: relation
                .column(&key.name)
                .is_some_and(|(_, column)| column.not_null),
            forced: Forced {
                not_null: copy.options.force_not_null.has(&key.name),
                null: copy.options.force_null.has(&key.name),
            },
            name: key.name.clone(),
        })
    };
    placed.iter().map(key).collect()
}

/// What is put into the text so that all columns of the data are listed, and where.
fn inserted(
    part: Part<'_>,
    (columns, supplied): (&[String], &[Supplied]),
    is_listed: bool,
) -> Result<Option<(usize, String)>> {
    let mut names: Vec<String> = supplied
        .iter()
        .map(|one| quote_identifier(&one.name))
        .collect();
    if is_listed {
        return Ok(match supplied {
            [] => None,
            _ => Some((end_of_name(part, "(")?, format!("{}, ", names.join(", ")))),
        });
    }
    names.extend(columns.iter().map(|name| quote_identifier(name)));
    Ok(Some((
        end_of_name(part, "from")?,
        format!(" ({})", names.join(", ")),
    )))
}

/// The columns that rows leave out, and that are given values on the way.
fn supplied(relation: &Relation, columns: &[String], is_binary: bool) -> Result<Vec<Supplied>> {
    let placement = relation.placement();
    let mut supplied = Vec::new();
    for column in &relation.columns {
        if columns.contains(&column.name) || column.generated {
            continue;
        }
        let default = &column.default;
        let is_key =
            placement.is_some_and(|one| one.columns().iter().any(|key| key.name == column.name));
        let is_wanted = match placement {
            Some(_) => {
                column.sequence_default
                    || default.of_users
                    || default.of_statement
                    || (is_key && default.exists)
            }
            None => default.varies || column.sequence_default,
        };
        if !is_wanted {
            continue;
        }
        if default.of_users {
            return Err(users_default(&relation.name, &column.name));
        }
        let is_number = !is_binary || supply::is_integer(column.type_oid);
        let source = match &default.sequence {
            Some(sequence) if is_number => Source::Number(sequence.clone()),
            _ if default.of_statement || !default.varies && !column.sequence_default => {
                Source::Once
            }
            _ => Source::Each,
        };
        supplied.push(Supplied {
            name: column.name.clone(),
            source,
            type_oid: column.type_oid,
        });
    }
    Ok(supplied)
}

/// Refuses what would have a shard find a value by itself, or take a value for NULL.
fn check_marks(
    relation: &Relation,
    copy: &Copy,
    (columns, supplied): (&[String], &[Supplied]),
) -> Result<()> {
    let options = &copy.options;
    let forced = [&options.force_null, &options.force_not_null];
    if !supplied.is_empty() && forced.contains(&&crate::sql::statement::Forced::All) {
        return Err(Error::refused(
            "COPY with FORCE_NULL * or FORCE_NOT_NULL * and a column left out is not supported over several shards",
            "The columns that are left out are given values on the way, for which this is not meant.",
            "List the columns of the option, or all columns of the table.",
        ));
    }
    if options.default.is_none() {
        return Ok(());
    }
    let is_sharded = relation.placement().is_some();
    let listed = relation
        .columns
        .iter()
        .filter(|column| columns.contains(&column.name));
    for column in listed {
        let default = &column.default;
        let varies = match is_sharded {
            true => column.sequence_default || default.of_users || default.of_statement,
            false => default.varies || column.sequence_default,
        };
        if varies {
            return Err(Error::refused(
                format!(
                    "COPY with the option DEFAULT into column \"{}\" is not supported over several shards",
                    column.name
                ),
                "Each shard would compute its default for itself.",
                "Leave the column out, or give all its values.",
            ));
        }
    }
    Ok(())
}

fn users_default(table: &str, column: &str) -> Error {
    Error::refused(
        format!("COPY into \"{table}\" without column \"{column}\" is not supported"),
        "Its default calls functions that users have made, which may do anything.",
        format!("List \"{column}\", and give its values."),
    )
}

/// Refuses a condition that may look at other rows, or that differs between copies of a row.
fn check_condition(part: Part<'_>, copy: &Copy, relation: &Relation) -> Result<()> {
    let Some(range) = &copy.condition else {
        return Ok(());
    };
    let request = part.request;
    let text = format!("SELECT 1 WHERE {}", slice(request.text, range.clone()));
    let tokens = tokenize(text.as_bytes(), request.lex);
    let facts = tokens
        .ok()
        .and_then(|tokens| analysis::analyse(&text, &tokens).ok());
    let Some(facts) = facts else {
        return Err(Error::refused(
            "COPY with this condition is not supported over several shards",
            "What it reads is not known.",
            "Leave rows out before they are sent, or delete them afterwards.",
        ));
    };
    let beyond = Effects::WRITES
        | Effects::HOME
        | Effects::SET_CONFIG
        | Effects::READS_TABLES
        | Effects::USER_CODE
        | Effects::UNKNOWN;
    let differs = Effects::RANDOM | Effects::CLOCK | Effects::SERVER;
    for call in &facts.calls {
        let found = effects::of_call(
            request.catalog,
            request.search_path,
            &call.name,
            call.arguments,
        );
        if found.any(beyond) {
            return Err(refusal::user_code(&call.name.name));
        }
        if relation.placement().is_none() && found.any(differs) {
            return Err(refusal::differs(&format!(
                "function \"{}\"",
                call.name.name
            )));
        }
    }
    Ok(())
}

/// Where a list of columns stands in the statement: behind the table's name, or behind what opens it.
fn end_of_name(part: Part<'_>, next: &str) -> Result<usize> {
    let text = part.request.text;
    let mut tokens = part.tokens.iter().skip(1).peekable();
    tokens.next_if(|token| token.text(text).eq_ignore_ascii_case("binary"));
    let mut name = tokens.next();
    while tokens.next_if(|token| token.is_symbol(text, ".")).is_some() {
        name = tokens.next();
    }
    let followed = tokens
        .peek()
        .filter(|token| token.text(text).eq_ignore_ascii_case(next));
    match (name, followed) {
        (Some(_), Some(list)) if next == "(" => Ok(list.end as usize),
        (Some(name), Some(_)) => Ok(name.end as usize),
        _ => Err(Error::refused(
            "COPY with a name written in this way is not supported over several shards",
            "Where its list of columns would stand is not known.",
            "List the columns.",
        )),
    }
}

/// A COPY without its shard key.
fn missing_key(table: &str, column: &str) -> Error {
    Error::refused(
        format!("COPY into \"{table}\" without its shard key is not supported"),
        format!("Column \"{column}\" decides on which shard a row is stored."),
        format!("List \"{column}\", and give its values."),
    )
}
