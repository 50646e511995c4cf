//! EXECUTE of what takes more than to send its text to one shard: as if the statement that it names had come
//! by the extended protocol.
//!
//! What holds:
//! - The arguments are evaluated once, by a server, as PostgreSQL does it: by EXECUTE of a statement of the
//!   proxy's own that returns its parameters, which have the types of the client's. So conversions, rounding
//!   and errors are PostgreSQL's.
//! - The statement is then planned anew, with the types that its parameters really have, and bound to the
//!   values.
//! - In the simple protocol no message of the extended one reaches the client ([`Execution`]), and the command
//!   tag comes when all is committed.
//! - Types that users made have other numbers on other servers. A parameter of one is left to inference, if
//!   that finds the same type.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::combine::request::{self, FIRST_USER_OID, Parameter};
use crate::exec::merge::row;
use crate::exec::scatter::Scatter;
use crate::net::buffer::Buffer;
use crate::plan::{Arguments, Parameters, Plan, Route, Target};
use crate::pool::Lease;
use crate::session::database::Database;
use crate::session::named::Named;
use crate::session::prepared::{Declared, Needs, Prepared, server_name, statement_id};
use crate::session::refusal::sequence_elsewhere;
use crate::session::scatter::{Joins, ScatterPortal, Way};
use crate::session::wording::Rewrite;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::literal::quote_literal;
use crate::sql::shape::Literal;
use crate::sql::splice::Edit;
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::wire::backend::command_complete;
use crate::wire::buffer::{cstring, message};
use crate::wire::frame;
use crate::wire::frontend::Bind;

/// The most arguments that are evaluated at once: PostgreSQL allows 1,664 columns.
const MOST_COLUMNS: usize = 1_000;

/// An EXECUTE of the simple protocol whose statement runs as if it were of the extended one.
#[derive(Debug, Default)]
pub struct Execution {
    /// What ends its answer.
    pub(super) tag: String,
    /// Where its answer goes if the client is not to get it.
    pub(super) answer: Option<Buffer>,
}

/// The value of a parameter: its type, its format, and what stands for it; none is NULL.
type Value = (u32, Format, Option<Vec<u8>>);

/// A parameter's type on the server that evaluates the arguments.
struct ParameterType {
    oid: u32,
    /// As SQL.
    name: String,
}

impl Session {
    /// Runs an EXECUTE of the simple protocol in several steps.
    pub(super) async fn execute_in_steps(
        &mut self,
        text: &str,
        named: &Named,
        hint: Option<&str>,
    ) -> Result<(), Stop> {
        self.rest_pinned();
        self.batch.execution = Some(Execution::default());
        let ran = self.run_named(text, named, hint).await;
        let execution = self.batch.execution.take().unwrap_or_default();
        self.statements.remove_portal(b"");
        ran?;
        self.end_query(&execution.tag).await
    }

    async fn run_named(
        &mut self,
        text: &str,
        named: &Named,
        hint: Option<&str>,
    ) -> Result<(), Stop> {
        let mut bound = Vec::new();
        request::write_bind(&mut bound, &[], &[]);
        let bind = Bind::read(frame::body(&bound))?;
        let portal = self.portal_of((text, hint), named, &bind).await?;
        let portal = ScatterPortal {
            is_described: true,
            ..portal
        };
        Box::pin(self.run_portal(portal, 0)).await
    }

    /// The portal of an EXECUTE that takes several steps; none if a statement is no such thing.
    ///
    /// # Errors
    /// As for [`Session::portal_of`].
    pub(super) async fn bind_execute(
        &mut self,
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
    ) -> Result<Option<ScatterPortal>, Stop> {
        // Of parameters any server says that there are none.
        if !matches!(prepared.plan.statement, Statement::Execute { .. }) || bind.count > 0 {
            return Ok(None);
        }
        let text = prepared.sql();
        let Some(named) = self.named((text, text), &prepared.plan)? else {
            return Ok(None);
        };
        let hint = prepared.hint.as_deref();
        match self.target_of_named(&named, hint)? {
            Target::Combine => Box::pin(self.portal_of((text, hint), &named, bind))
                .await
                .map(Some),
            _ => Ok(None),
        }
    }

    /// Ends the answer of a statement of the extended protocol.
    pub(super) fn conclude(&mut self, mut words: Vec<u8>, tag: &str) {
        match &mut self.batch.execution {
            // Its end is said when all is committed.
            Some(execution) => tag.clone_into(&mut execution.tag),
            None => command_complete(&mut words, tag),
        }
        self.say(words);
    }

    /// The portal of the statement that an EXECUTE of `text` names, with its arguments evaluated; `bind` is the
    /// client's Bind of the EXECUTE.
    ///
    /// # Errors
    /// Those of the arguments, and the refusal of the statement.
    pub(super) async fn portal_of(
        &mut self,
        (text, hint): (&str, Option<&str>),
        named: &Named,
        bind: &Bind<'_>,
    ) -> Result<ScatterPortal, Stop> {
        self.check_evaluated(named)?;
        self.note_temporary(&named.plan);
        let at_work = self.server.as_ref().map_or(0, |held| held.shard);
        let shard = match named.computed.as_ref().map(|plan| &plan.route) {
            Some(Route::Shard(shard)) => *shard,
            _ => at_work,
        };
        let first = ShardSet::from_iter([shard]);
        self.check_several(&named.plan, &first).await?;
        let mut types = match named.arguments.is_empty() {
            true => Vec::new(),
            false => self.parameter_types(named, &first).await?,
        };
        let values = self
            .evaluate_arguments((text, named), &mut types, &first)
            .await?;
        let mut prepared = self.as_of_protocol(named, (&types, &first)).await?;
        let portal = bind.portal.into();
        let unnamed = Bind {
            portal: b"",
            ..*bind
        };
        let bound = write_portal(&unnamed, &values);
        let bind = Bind::read(frame::body(&bound))?;
        let target = {
            let arguments = Arguments {
                text: prepared.sql(),
                literals: &prepared.literals,
                parameters: Parameters::new(&prepared.types, bind.formats, bind.values),
                encoding: self.settings.context().encoding,
            };
            let hint = hint.or(prepared.hint.as_deref());
            self.target(&prepared.plan, &arguments, hint)?
        };
        let mut target = target;
        if target == Target::Fill {
            (prepared, target) = self.bind_filled(&prepared, &bind).await?;
        }
        let (shards, way) = match self.on_several(target, &prepared, &bind) {
            Ok(Some(shard)) => (ShardSet::from_iter([shard]), Way::Scatter),
            Ok(None) => (first, Way::Scatter),
            Err(several) => several,
        };
        Ok(ScatterPortal {
            portal,
            is_described: false,
            prepared,
            bind: bound.into(),
            shards,
            way,
            is_acknowledged: false,
        })
    }

    /// Fails for arguments that a server can't be asked for by themselves.
    fn check_evaluated(&self, named: &Named) -> Result<()> {
        let Some(computed) = &named.computed else {
            return Ok(());
        };
        if !computed.own.is_empty() {
            return Err(Error::refused(
                "EXECUTE over several shards with this argument is not supported",
                "The proxy itself answers a function in it.",
                "Call the function first.",
            ));
        }
        match self.is_sticky(computed) {
            true => Err(sequence_elsewhere()),
            false => Ok(()),
        }
    }

    /// The types that a server has found for the parameters of a statement.
    async fn parameter_types(
        &mut self,
        named: &Named,
        first: &ShardSet,
    ) -> Result<Vec<ParameterType>, Stop> {
        let name = String::from_utf8_lossy(&named.prepared.server_name).into_owned();
        let ask = format!(
            "SELECT u.t::pg_catalog.oid::pg_catalog.text || ' ' || u.t::pg_catalog.text \
             FROM pg_catalog.pg_prepared_statements p, \
             pg_catalog.unnest(p.parameter_types) WITH ORDINALITY u (t, n) \
             WHERE p.name = {} ORDER BY u.n",
            quote_literal(&name)
        );
        let needed = std::slice::from_ref(&named.prepared);
        let found = self.ask_having(first, &ask, needed).await?;
        let read = |one: Option<String>| {
            let one = one?;
            let (oid, name) = one.split_once(' ')?;
            Some(ParameterType {
                oid: oid.parse().ok()?,
                name: name.to_owned(),
            })
        };
        let types: Option<Vec<ParameterType>> = found.into_iter().map(read).collect();
        let types = types.filter(|types| types.len() == named.arguments.len());
        types.ok_or_else(|| unknown_types().into())
    }

    /// The values of the arguments. A parameter of a domain has the type below it from now on: its value has
    /// been checked.
    async fn evaluate_arguments(
        &mut self,
        (text, named): (&str, &Named),
        types: &mut [ParameterType],
        first: &ShardSet,
    ) -> Result<Vec<Value>, Stop> {
        let mut values = Vec::with_capacity(types.len());
        let options = Database::lex_options(self.settings.context());
        for (at, some) in types.chunks_mut(MOST_COLUMNS).enumerate() {
            let echo = Arc::new(self.echo(some, &named.plan));
            let edits = edits(named, (at * MOST_COLUMNS, some.len()), &echo.server_name);
            let (server, _) = named.names();
            let echoed = String::from_utf8_lossy(&echo.server_name).into_owned();
            let names = vec![(echoed, named.name.clone()), (server, named.name.clone())];
            let (sent, rewrite) = Rewrite::apply(text, options, &edits, names)?;
            let sent = self.encoded(&sent)?.into_owned();
            let formats: Vec<Format> = some.iter().map(|one| format_of(one.oid)).collect();
            let binary: Vec<bool> = formats.iter().map(|one| *one == Format::Binary).collect();
            let mut request = Vec::new();
            request::write_select(&mut request, &sent, &[], &binary);
            let needed = std::slice::from_ref(&echo);
            let gathered = self.gather(first, Joins::Keeping, needed).await?;
            let send = |lease: &mut Lease| {
                lease.unnamed = None;
                request.clone()
            };
            let scatter = Scatter::start(gathered, send, true, usize::MAX);
            let collected = self.collect(scatter).await;
            let (_, frames) = collected.map_err(|stop| match stop {
                Stop::Words(words) => Stop::Words(rewrite.restore(&words)),
                other => other,
            })?;
            let description = body_of(&frames, b'T')?.ok_or_else(unknown_types)?;
            let (columns, _) = row::described(description, usize::MAX)?;
            for (one, column) in some.iter_mut().zip(columns) {
                one.oid = column.type_oid;
            }
            let body = body_of(&frames, b'D')?.ok_or_else(unknown_types)?;
            row::walk(body, some.len(), |index, value, _| {
                let oid = some.get(index).map_or(0, |one| one.oid);
                let format = formats.get(index).copied().unwrap_or(Format::Text);
                values.push((oid, format, value.map(<[u8]>::to_vec)));
                Ok(())
            })?;
        }
        Ok(values)
    }

    /// A statement that returns its parameters, which have these types.
    fn echo(&self, types: &[ParameterType], plan: &Arc<Plan>) -> Prepared {
        let names: Vec<&str> = types.iter().map(|one| one.name.as_str()).collect();
        let parameters: Vec<String> = (1..=types.len()).map(|n| format!("${n}")).collect();
        let declared = Declared {
            name: "shardwire_arguments".to_owned(),
            declaration: format!("({}) AS SELECT {}", names.join(", "), parameters.join(", ")),
            source: String::new(),
        };
        let id = self.identify_declared(&declared);
        Prepared {
            id,
            server_name: server_name(id).into_bytes().into(),
            text: Box::default(),
            read: None,
            types: Box::default(),
            literals: Box::default(),
            hint: None,
            plan: Arc::clone(plan),
            context: self.reading(),
            made_at: std::time::SystemTime::now(),
            declared: Some(Arc::new(declared)),
            needs: Needs::Nothing,
        }
    }

    /// The statement that an EXECUTE names as one of the protocol.
    async fn as_of_protocol(
        &mut self,
        named: &Named,
        (types, first): (&[ParameterType], &ShardSet),
    ) -> Result<Arc<Prepared>, Stop> {
        let of_all = |one: &ParameterType| if one.oid < FIRST_USER_OID { one.oid } else { 0 };
        let oids: Vec<u32> = types.iter().map(of_all).collect();
        let mut body = named.prepared.sql().to_owned();
        if oids.contains(&0) {
            let described = self
                .described_on((&body, &oids), Joins::Keeping, first)
                .await?;
            let mut pairs = described.types.iter().zip(types);
            if described.types.len() != types.len() || !pairs.all(|(oid, one)| *oid == one.oid) {
                return Err(other_type().into());
            }
        }
        let (mut plan, mut shape) = self.plan_of(&body, &oids)?;
        if !plan.own.is_empty() {
            // As servers were told to prepare it.
            body = self.lasting_answers(&plan, &body)?;
            (plan, shape) = self.plan_of(&body, &oids)?;
            let mut known = (*plan).clone();
            known.own = Box::default();
            plan = Arc::new(known);
        }
        let literals: Box<[Literal]> = shape.literals.into();
        let encoded = self.encoded(&body)?.into_owned();
        let reading = self.reading();
        let is_utf8 = self.settings.context().encoding.is_utf8();
        Ok(Arc::new(Prepared {
            id: statement_id(false, &encoded, &oids, reading),
            server_name: Box::default(),
            text: encoded.into(),
            read: (!is_utf8).then(|| body.as_str().into()),
            types: oids.into(),
            literals,
            hint: named.prepared.hint.clone(),
            plan,
            context: reading,
            made_at: std::time::SystemTime::now(),
            declared: None,
            needs: Needs::Nothing,
        }))
    }
}

/// The edits that make an EXECUTE one of another name with `count` of its arguments.
fn edits(named: &Named, (start, count): (usize, usize), name: &[u8]) -> Vec<Edit> {
    let mut edits = vec![Edit {
        range: named.edit.range.clone(),
        text: String::from_utf8_lossy(name).into_owned(),
    }];
    let all = &named.arguments;
    let end = start + count;
    let mut remove = |from: Option<u32>, to: Option<u32>| {
        if let (Some(from), Some(to)) = (from, to)
            && from < to
        {
            edits.push(Edit {
                range: from..to,
                text: String::new(),
            });
        }
    };
    let first = all.get(start).map(|one| one.start);
    remove(all.first().map(|one| one.start), first);
    let last = end.checked_sub(1).and_then(|at| all.get(at));
    remove(last.map(|one| one.end), all.last().map(|one| one.end));
    edits
}

/// In which format values of a type are asked for: one of a user's has another number elsewhere, and so may
/// what the types hold that name objects.
fn format_of(oid: u32) -> Format {
    let names_object = matches!(oid, 24 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191);
    match oid < FIRST_USER_OID && !names_object {
        true => Format::Binary,
        false => Format::Text,
    }
}

/// The body of the frame with this tag.
fn body_of(mut frames: &[u8], tag: u8) -> Result<Option<&[u8]>> {
    while let Some(header) = frame::header(frames)? {
        let Some((one, rest)) = frames.split_at_checked(header.frame_bytes) else {
            break;
        };
        if header.tag == tag {
            return Ok(Some(frame::body(one)));
        }
        frames = rest;
    }
    Ok(None)
}

/// A Bind of the client's portal with these values as its parameters.
fn write_portal(bind: &Bind<'_>, values: &[Value]) -> Vec<u8> {
    let parameters: Vec<Parameter<'_>> = values
        .iter()
        .map(|(oid, format, value)| -> Parameter<'_> { (*oid, *format, value.as_deref()) })
        .collect();
    let mut own = Vec::new();
    request::write_bind(&mut own, &parameters, &[]);
    // Behind two empty names, and before no formats of results.
    let body = frame::body(&own);
    let kept = body.len().saturating_sub(2);
    let middle = body.get(2..kept).unwrap_or_default();
    let mut out = Vec::with_capacity(own.len() + 64);
    message(&mut out, b'B', |out| {
        cstring(out, bind.portal);
        cstring(out, bind.statement);
        out.extend_from_slice(middle);
        let count = u16::try_from(bind.results.len() / 2).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(bind.results);
    });
    out
}

fn unknown_types() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the arguments of an EXECUTE could not be found out",
    )
    .hint("The definitions that it needs may have just changed: try again.")
}

fn other_type() -> Error {
    Error::refused(
        "EXECUTE over several shards with a parameter of this type is not supported",
        "It was declared of a type that a user made, and its use suggests another one.",
        "Declare it of the type of the column that it is for, or leave the type out.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_keeps_its_name_and_its_formats() {
        let mut sent = Vec::new();
        message(&mut sent, b'B', |out| {
            cstring(out, b"p");
            cstring(out, b"e");
            out.extend_from_slice(&[0, 0, 0, 0, 0, 1, 0, 1]);
        });
        let bind = Bind::read(frame::body(&sent)).unwrap();
        let values = [
            (23, Format::Binary, Some(vec![0, 0, 0, 7])),
            (90_000, Format::Text, None),
        ];
        let out = write_portal(&bind, &values);
        let bound = Bind::read(frame::body(&out)).unwrap();
        assert_eq!((bound.portal, bound.statement), (&b"p"[..], &b"e"[..]));
        assert_eq!((bound.count, bound.results), (2, &[0, 1][..]));
        let parameters = Parameters::new(&[23, 0], bound.formats, bound.values);
        assert_eq!(parameters.value(0), Some(Some(&[0, 0, 0, 7][..])));
        assert_eq!(parameters.value(1), Some(None));
    }
}
