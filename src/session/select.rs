//! Queries of the proxy's own that a client's statement needs answered first: values to be stored.
//!
//! What holds:
//! - The query is planned like any other, and may need any number of shards and a hub.
//! - It is asked where writes are made, in the client's transaction if there is one.
//! - Its rows are kept in no more memory than a query may use. Values are as servers send them: in binary
//!   format, or as text if their type was made by a user, because its number differs between servers.

use crate::error::{Error, Result};
use crate::exec::array::{TEXT, array_of};
use crate::exec::combine::request::{self, Described, FIRST_USER_OID, Parameter};
use crate::exec::description;
use crate::exec::merge::row::{self, described};
use crate::exec::scatter::{Ended, Scatter};
use crate::plan::{Arguments, Parameters, Plan, Target, collation};
use crate::pool::Lease;
use crate::session::combine::failed;
use crate::session::database::{Database, Question};
use crate::session::held::Held;
use crate::session::kept::Captured;
use crate::session::scatter::Joins;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::shape::{self, Shape};
use crate::wire::backend::Status;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// The answer to a query of the proxy's own.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// Type and format of each column.
    pub columns: Vec<(u32, Format)>,
    /// The name of each column.
    pub names: Vec<String>,
    /// The name of each column's type, if that was asked for and values are texts.
    pub type_names: Vec<Option<String>>,
    /// The type and collation of each column as it was, if that was asked for ([`Session::learn_kinds`]).
    kinds: Vec<Option<String>>,
    rows: Captured,
}

/// What the values of a query are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Parameters of their own.
    Values,
    /// Elements of arrays.
    Elements,
}

impl Use {
    /// The format in which values of a type are asked for.
    fn format(self, type_oid: u32) -> Format {
        let is_binary = match self {
            Use::Values => type_oid < FIRST_USER_OID,
            Use::Elements => array_of(type_oid).is_some(),
        };
        match is_binary {
            true => Format::Binary,
            false => Format::Text,
        }
    }
}

impl Selected {
    /// The same columns, with the rows of an answer.
    pub(super) fn filled(&mut self, rows: Captured) {
        self.rows = rows;
    }

    /// Of each column that type, with its collation, that its values have to be given.
    pub(super) fn text_types(&self) -> Vec<Option<String>> {
        if !self.kinds.is_empty() {
            return self.kinds.clone();
        }
        let columns = self.columns.iter().enumerate();
        let name = |(at, (_, format)): (usize, &(u32, Format))| match format {
            Format::Text => self.type_names.get(at).cloned().flatten(),
            Format::Binary => None,
        };
        columns.map(name).collect()
    }

    /// Calls `see` with the values of each row.
    ///
    /// # Errors
    /// `08P01` for what is no row, and those of `see`.
    pub(super) fn each(&self, see: impl FnMut(&[Option<&[u8]>]) -> Result<()>) -> Result<()> {
        self.part(0, usize::MAX, see).map(|_| ())
    }

    /// Calls `see` with the values of each row from the byte `start` on, until these are at least `bytes`; where
    /// the next part starts.
    ///
    /// # Errors
    /// As for [`Selected::each`].
    pub(super) fn part(
        &self,
        start: usize,
        bytes: usize,
        mut see: impl FnMut(&[Option<&[u8]>]) -> Result<()>,
    ) -> Result<usize> {
        let all = self.rows.bytes();
        let mut rest = all.get(start..).unwrap_or_default();
        let end = rest.len().saturating_sub(bytes);
        let mut values = Vec::with_capacity(self.columns.len());
        while let Some(header) = frame::header(rest)?
            && (rest.len() > end)
        {
            let (frame, behind) = rest
                .split_at_checked(header.frame_bytes)
                .unwrap_or_default();
            rest = behind;
            if header.tag != b'D' {
                continue;
            }
            values.clear();
            row::walk(frame::body(frame), self.columns.len(), |_, value, _| {
                values.push(value);
                Ok(())
            })?;
            see(&values)?;
        }
        Ok(all.len() - rest.len())
    }
}

impl Session {
    /// Answers a query of the proxy's own.
    ///
    /// # Errors
    /// Its refusal, or the error of a server.
    pub(super) async fn select(
        &mut self,
        text: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Selected, Stop> {
        self.select_for(Use::Values, text, parameters).await
    }

    /// As [`Session::select`].
    pub(super) async fn select_for(
        &mut self,
        use_: Use,
        text: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Selected, Stop> {
        let types: Vec<u32> = parameters.iter().map(|(oid, _, _)| *oid).collect();
        let mut shape = Shape::default();
        let plan = {
            let context = self.settings.context();
            shape::scan(text.as_bytes(), Database::lex_options(context), &mut shape)
                .map_err(|error| error.to_error(text.as_bytes()))?;
            self.database.plan(&Question {
                text,
                shape: &shape,
                types: &types,
                context,
                temporary_tables: self.memory.temporary_tables,
                by_key: context.shard_key.is_some(),
                sight: self.own_sight(),
            })?
        };
        let mut bound = Vec::new();
        request::write_bind(&mut bound, parameters, &[]);
        let bind = Bind::read(frame::body(&bound))?;
        let target = self.target(
            &plan,
            &Arguments {
                text,
                literals: &shape.literals,
                parameters: Parameters::new(&types, bind.formats, bind.values),
                encoding: self.settings.context().encoding,
            },
            None,
        )?;
        self.note_asked(&plan)?;
        let shards = match target {
            _ if !plan.own.is_empty() || !plan.pseudo.is_empty() => return Err(not_inside().into()),
            Target::One(shard) => ShardSet::from_iter([shard]),
            Target::Any => {
                let at_work = self.server.as_ref().map_or(0, |held| held.shard);
                ShardSet::from_iter([at_work])
            }
            Target::Many(shards) if plan.merge.is_none() => shards,
            Target::Many(_) | Target::Combine if plan.combine().is_some() => ShardSet::new(),
            Target::Staged => {
                return Box::pin(self.select_staged((&plan, use_), text, parameters)).await;
            }
            _ => return Err(not_inside().into()),
        };
        if shards.is_empty() {
            let hub = plan.combine().and_then(|combine| combine.hub());
            let first = ShardSet::from_iter([hub.unwrap_or(0)]);
            let described = self
                .columns_of((&plan, use_), (text, &types), &first)
                .await?;
            bound.clear();
            request::write_bind(&mut bound, parameters, &binary(&described.columns));
            let bind = Bind::read(frame::body(&bound))?;
            self.capture();
            let written = (text, &*shape.literals);
            let ran = Box::pin(self.combine_captured(&plan, written, (&types, bind))).await;
            let rows = self.captured();
            return ran.map(|_| Selected { rows, ..described });
        }
        let described = self
            .columns_of((&plan, use_), (text, &types), &shards)
            .await?;
        let formats = binary(&described.columns);
        let rows = self.select_on(&plan, (text, parameters), &shards, &formats);
        Ok(Selected {
            rows: rows.await?,
            ..described
        })
    }

    /// As [`Session::select_for`], for a query whose parts run one behind the other.
    async fn select_staged(
        &mut self,
        planned: (&Plan, Use),
        text: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Selected, Stop> {
        let types: Vec<u32> = parameters.iter().map(|(oid, _, _)| *oid).collect();
        let first = ShardSet::from_iter([0]);
        let described = self.columns_of(planned, (text, &types), &first).await?;
        let formats = binary(&described.columns);
        let rows = self.staged_rows(text, parameters, &formats).await?;
        Ok(Selected { rows, ..described })
    }

    async fn select_on(
        &mut self,
        plan: &Plan,
        (text, parameters): (&str, &[Parameter<'_>]),
        shards: &ShardSet,
        formats: &[bool],
    ) -> Result<Captured, Stop> {
        let joins = self.joins_for(plan, shards).await?;
        self.select_by(joins, (text, parameters), shards, formats)
            .await
    }

    async fn select_by(
        &mut self,
        joins: Joins,
        (text, parameters): (&str, &[Parameter<'_>]),
        shards: &ShardSet,
        formats: &[bool],
    ) -> Result<Captured, Stop> {
        let text = self.encoded(text)?.into_owned();
        let mut request = Vec::new();
        request::write_select(&mut request, &text, parameters, formats);
        let gathered = self.gather(shards, joins, &[]).await?;
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            request.clone()
        };
        self.capture();
        let scatter = Scatter::start(gathered, send, false, self.high_water_bytes());
        let driven = self.drive(scatter).await;
        let rows = self.captured();
        driven.map(|_| rows)
    }

    /// Sets the types of a query's columns, of which descriptions say nothing of domains, with their collations, as a
    /// shard takes them.
    pub(super) async fn learn_kinds(
        &mut self,
        (text, parameters): (&str, &[Parameter<'_>]),
        selected: &mut Selected,
    ) -> Result<(), Stop> {
        let ask = kinds_of(text, selected.columns.len());
        let first = ShardSet::from_iter([0]);
        let formats = vec![false; selected.columns.len()];
        let asked = self.select_by(Joins::Keeping, (&ask, parameters), &first, &formats);
        let answer = Selected {
            columns: vec![(TEXT, Format::Text); selected.columns.len()],
            rows: asked.await?,
            ..Selected::default()
        };
        let encoding = self.settings.context().encoding;
        answer.each(|values| {
            let read = |value: &Option<&[u8]>| Some(encoding.read((*value)?)?.into_owned());
            selected.kinds = values.iter().map(read).collect();
            Ok(())
        })?;
        Ok(())
    }

    async fn joins_for(&mut self, plan: &Plan, shards: &ShardSet) -> Result<Joins, Stop> {
        Ok(match self.check_several(plan, shards).await? {
            Joins::Writing => Joins::Writing,
            _ => Joins::Keeping,
        })
    }

    /// The columns of a query, as one of the shards describes them, without rows.
    async fn columns_of(
        &mut self,
        (plan, use_): (&Plan, Use),
        statement: (&str, &[u32]),
        shards: &ShardSet,
    ) -> Result<Selected, Stop> {
        let first: ShardSet = shards.iter().take(1).collect();
        let joins = self.joins_for(plan, &first).await?;
        let described = self.described_on(statement, joins, &first).await?;
        self.columns_in(use_, &described, &first).await
    }

    /// The columns that a shard has described, without rows.
    pub(super) async fn columns_in(
        &mut self,
        use_: Use,
        described: &Described,
        first: &ShardSet,
    ) -> Result<Selected, Stop> {
        let Some(frame) = described.rows.first() else {
            return Ok(Selected::default());
        };
        let mut selected = Selected {
            columns: described_columns(frame, use_)?,
            names: self.names_in(frame)?,
            ..Selected::default()
        };
        let is_text = |(_, format): &(u32, Format)| *format == Format::Text;
        if use_ == Use::Values || !selected.columns.iter().any(is_text) {
            return Ok(selected);
        }
        let names = self.ask(first, &names_of(&selected.columns)).await?;
        let mut named = selected.columns.iter().zip(&names);
        match named.find(|(column, name)| is_text(column) && name.is_none()) {
            Some(_) => Err(inexact().into()),
            None => {
                selected.type_names = names;
                Ok(selected)
            }
        }
    }

    /// The names of the columns in a RowDescription.
    fn names_in(&self, frame: &[u8]) -> Result<Vec<String>> {
        let encoding = self.settings.context().encoding;
        let names = description::names(frame::body(frame))?;
        // A name that can't be read is no name that a statement can mean.
        let name = |name: &[u8]| encoding.read(name).unwrap_or_default().into_owned();
        Ok(names.into_iter().map(name).collect())
    }

    /// What a shard says of a statement.
    pub(super) async fn described_on(
        &mut self,
        (text, types): (&str, &[u32]),
        joins: Joins,
        shard: &ShardSet,
    ) -> Result<Described, Stop> {
        let mut messages = Vec::new();
        let text = self.encoded(text)?.into_owned();
        request::write_describe(&mut messages, &text, types);
        frontend::write_sync(&mut messages);
        let mut gathered = self.gather(shard, joins, &[]).await?;
        let Some((_, mut held)) = gathered.pop() else {
            return Err(Stop::Gone);
        };
        let mut described = Described::default();
        let mut note = |tag, body: &[u8]| described.note(tag, body);
        let asked = held.lease.ask(&messages, &mut note).await;
        use crate::backend::connection::Failed;
        let status = match (&asked, self.transaction.is_on_shard()) {
            (Err(Failed::Lost(_)), _) => None,
            (Err(Failed::Refused(_)), true) => Some(Status::Failed),
            (Ok(()), true) => Some(Status::Transaction),
            (_, false) => Some(Status::Idle),
        };
        self.after_scatter(vec![ended(held, status)]);
        asked.map_err(failed)?;
        Ok(described)
    }
}

/// A connection that has been asked something.
fn ended(connection: Held, status: Option<Status>) -> Ended<Held> {
    Ended {
        connection,
        status,
        is_bound: true,
        affected: 0,
        tag: String::new(),
        is_suspended: false,
        description: None,
        bytes: 0,
        took: std::time::Duration::ZERO,
    }
}

/// The columns of a RowDescription, in the formats in which they are asked for.
fn described_columns(frame: &[u8], use_: Use) -> Result<Vec<(u32, Format)>> {
    let (columns, _) = described(frame::body(frame), usize::MAX)?;
    let columns = columns
        .iter()
        .map(|one| (one.type_oid, use_.format(one.type_oid)));
    Ok(columns.collect())
}

/// Asks for the names of types whose values travel as texts (of any length: `character` alone would be of one);
/// NULL for one whose value another server may not read back from its text.
fn names_of(columns: &[(u32, Format)]) -> String {
    let oids: Vec<String> = columns.iter().map(|(oid, _)| oid.to_string()).collect();
    format!(
        "SELECT CASE WHEN pg_catalog.current_setting('datestyle') LIKE 'ISO%' \
         AND pg_catalog.current_setting('extra_float_digits')::pg_catalog.int4 > 0 \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_cast c WHERE c.castsource = 25 \
         AND c.casttarget = t.o AND c.castmethod = 'f') \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_type p WHERE p.oid = t.o AND p.typtype = 'p') \
         THEN pg_catalog.format_type(t.o, -1) END \
         FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) WITH ORDINALITY AS t(o, n) ORDER BY t.n",
        oids.join(",")
    )
}

/// Asks for the types of a query's columns and their collations, as what stands behind a value to give it both. No
/// row is read.
fn kinds_of(query: &str, columns: usize) -> String {
    let names: Vec<String> = (1..=columns).map(|number| format!("c{number}")).collect();
    let kinds = names.iter().map(|name| {
        let column = format!("s.{name}");
        format!(
            "pg_catalog.format_type(pg_catalog.pg_typeof({column}), -1) || \
             coalesce(' COLLATE ' || nullif({}, '\"default\"'), '')",
            collation::of(&column)
        )
    });
    let kinds: Vec<String> = kinds.collect();
    let (kinds, names) = (kinds.join(", "), names.join(", "));
    format!(
        "SELECT {kinds} FROM (VALUES (1)) AS one LEFT JOIN (SELECT * FROM ({query}\n) AS q LIMIT 0) AS s({names}) ON true"
    )
}

/// That values can't travel as texts (`0A000`).
fn inexact() -> Error {
    Error::refused(
        "values of this type can't be stored from a query over several shards",
        "They travel as texts, which may not mean the same again: by the settings DateStyle and \
         extra_float_digits, by a cast from text that somebody has made, or because they are rows of no type.",
        "RESET datestyle and extra_float_digits, or cast the column to text and back.",
    )
}

fn binary(columns: &[(u32, Format)]) -> Vec<bool> {
    let formats = columns.iter().map(|(_, format)| *format == Format::Binary);
    formats.collect()
}

fn not_inside() -> Error {
    Error::refused(
        "a query whose rows are to be stored can't be served",
        "It needs a merge that is for clients only, or a function that the proxy answers itself.",
        "Run the query first, and store its rows with a statement of their own.",
    )
}
