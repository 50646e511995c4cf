//! Statements with `WITH` whose parts run one behind the other (`plan/staged`, which has what holds).
//!
//! The client's statement is described by a shard as the client wrote it, before anything else: its errors are
//! PostgreSQL's, and so are the types of its parameters and columns. Then every part is planned. Each runs as if
//! it had come by the extended protocol, and its answer is kept, in no more memory than a query may use
//! (`53400`); the client gets that of the statement behind `WITH` when all have run.

mod known;

use std::sync::Arc;

use crate::backend::report;
use crate::error::{Error, Result};
use crate::exec::combine::request::{self, Described, Parameter};
use crate::exec::description;
use crate::exec::merge::row::described;
use crate::exec::scatter::Reached;
use crate::net::buffer::Buffer;
use crate::plan::{Arguments, Parameters, Plan, Route, Staged, Target};
use crate::session::change::request::used;
use crate::session::change::{MOMENT, OF_STATEMENT};
use crate::session::database::{Database, Question};
use crate::session::executed::Execution;
use crate::session::heal::changed;
use crate::session::kept::Captured;
use crate::session::owed::reached_before;
use crate::session::prepared::{Needs, Prepared, statement_id};
use crate::session::scatter::{Joins, ScatterPortal, Way};
use crate::session::select::{Selected, Use};
use crate::session::staged::known::{Common, Extra, Extras, Running};
use crate::session::stored;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::shape::{self, Shape};
use crate::sql::splice::splice;
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::wire::backend::no_data;
use crate::wire::buffer::message;
use crate::wire::frame;
use crate::wire::frontend::Bind;

/// Whether there are domains with a collation of their own, or one of several functions of a name or operators is for a
/// domain: no description of columns tells of domains.
const DOMAINS_MATTER: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_type t \
     JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' \
     AND (t.typcollation NOT IN (0, 100) AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
     OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND t.oid = ANY (p.proargtypes) \
     AND EXISTS (SELECT FROM pg_catalog.pg_proc o WHERE o.proname = p.proname AND o.oid <> p.oid)) \
     OR EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE t.oid IN (o.oprleft, o.oprright))))";

/// A part that is to run.
struct Ready {
    part: usize,
    prepared: Arc<Prepared>,
    extras: Vec<Extra>,
    /// Which of the client's parameters it uses.
    used: Vec<bool>,
}

/// The answer of a part.
struct Answer {
    rows: Captured,
    tag: String,
}

impl Session {
    /// Runs a simple Query.
    pub(super) async fn staged_query(&mut self, text: &str, plan: &Plan) -> Result<(), Stop> {
        self.rest_pinned();
        let running = Running {
            plan,
            text,
            types: &[],
            bind: None,
        };
        let (mut common, ready) = self.plan_parts(&running).await?;
        let ran = self.run_parts(&mut common, &ready, &running).await;
        let mut words = Vec::new();
        if let Some(told) = common.described.rows.first() {
            words.extend_from_slice(told);
        }
        let answer = match ran {
            // A query tells its columns before its first row fails; a change has all rows before.
            Err(stop) if is_read(plan) && is_bound(&stop) => {
                self.say(words);
                return Err(stop);
            }
            ran => ran?,
        };
        words.extend_from_slice(answer.rows.bytes());
        self.say(words);
        self.end_query(&answer.tag).await
    }

    /// Executes a kept portal.
    pub(super) async fn execute_staged(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        let running = Running {
            plan: &prepared.plan,
            text: prepared.sql(),
            types: &prepared.types,
            bind: Some(Bind::read(frame::body(&portal.bind))?),
        };
        // The parts have no Bind of the client's to answer.
        let owed = self.batch.owed.take();
        let planned = self.plan_parts(&running).await;
        let (mut common, ready) = match planned {
            Ok(planned) => planned,
            Err(stop) => {
                self.batch.owed = owed;
                return Err(stop);
            }
        };
        let ran = self.run_parts(&mut common, &ready, &running).await;
        self.batch.owed = owed;
        let told = common.described.rows.first();
        let told = told.map(|told| frame::body(told));
        let statement = running
            .bind
            .as_ref()
            .map_or(&b""[..], |bind| bind.statement);
        let known = self.expected(statement).filter(|_| !portal.is_described);
        if known.is_some() && told.and_then(description::digest) != known {
            return Err(changed());
        }
        let mut description = Vec::new();
        if let Some(told) = told {
            let told = description::in_formats(told, &running.results()).ok_or_else(other)?;
            message(&mut description, b'T', |out| out.extend_from_slice(&told));
        }
        let answer = match ran {
            Ok(answer) => answer,
            Err(stop) => {
                if is_bound(&stop) && portal.is_described && self.batch.execution.is_none() {
                    // It was described before it ran.
                    self.acknowledge_bind();
                    self.say(description);
                }
                return Err(stop);
            }
        };
        self.acknowledge_bind();
        let is_query = self.batch.execution.is_some();
        let mut words = Vec::new();
        match (portal.is_described, told) {
            (true, Some(_)) => words.extend_from_slice(&description),
            (true, None) if !is_query => no_data(&mut words),
            _ => {}
        }
        if max_rows > 0 && told.is_some() {
            self.say(words);
            let kept = answer.rows.portal(&[description], &answer.tag);
            return self.execute_kept(&portal.portal, kept, max_rows).await;
        }
        words.extend_from_slice(answer.rows.bytes());
        self.conclude(words, &answer.tag);
        Ok(())
    }

    /// Finds out what the parts need, and plans them.
    async fn plan_parts(&mut self, running: &Running<'_>) -> Result<(Common, Vec<Ready>), Stop> {
        self.note_temporary(running.plan);
        let staged = running.plan.staged().cloned().ok_or_else(other)?;
        let first = ShardSet::from_iter([0]);
        self.check_several(running.plan, &first).await?;
        let asked = (running.text, running.types);
        let mut common = Common {
            described: self.described_on(asked, Joins::Keeping, &first).await?,
            ..Common::default()
        };
        running.check_count(common.described.types.len())?;
        self.learn_columns(&mut common, (&staged, running)).await?;
        if common.told.iter().any(Option::is_some) {
            let found = self.ask(&first, DOMAINS_MATTER).await?;
            if found.first().cloned().flatten().as_deref() == Some("t") {
                return Err(otherwise("Its parts would lose that values are of a domain.").into());
            }
        }
        self.learn_times(&mut common, &staged).await?;
        let mut ready = Vec::new();
        for part in staged.order() {
            ready.push(
                self.planned_part(&common, (&staged, *part), running)
                    .await?,
            );
        }
        // What is not run would not reject its value.
        let is_used = |at: usize| {
            let mut parts = ready.iter();
            parts.any(|one: &Ready| one.used.get(at) == Some(&true))
        };
        if !(0..running.count()).all(is_used) {
            return Err(otherwise("A parameter stands in what need not be run only.").into());
        }
        Ok((common, ready))
    }

    /// Runs all parts: the answer of the client's.
    async fn run_parts(
        &mut self,
        common: &mut Common,
        ready: &[Ready],
        running: &Running<'_>,
    ) -> Result<Answer, Stop> {
        let main = running.plan.staged().map(|staged| staged.main());
        let (mut answer, mut bytes) = (None, 0);
        for one in ready {
            let is_main = Some(one.part) == main;
            let formats = match (is_main, common.rows.get(one.part)) {
                (false, Some(selected)) => binary(selected),
                _ => running.results(),
            };
            let ran = self.run_part(one, (common, running), &formats).await?;
            bytes += ran.rows.bytes().len();
            self.check_bytes(bytes)?;
            if is_main {
                answer = Some(ran);
            } else if let Some(selected) = common.rows.get_mut(one.part) {
                selected.filled(ran.rows);
            }
        }
        Ok(answer.ok_or_else(other)?)
    }

    /// Finds the columns of all parts whose rows others use.
    async fn learn_columns(
        &mut self,
        common: &mut Common,
        (staged, running): (&Staged, &Running<'_>),
    ) -> Result<(), Stop> {
        let first = ShardSet::from_iter([0]);
        let lex = Database::lex_options(self.settings.context());
        let parts = staged.order().iter().max().map_or(0, |most| most + 1);
        for part in 0..parts {
            let mut selected = Selected::default();
            common.told.push(None);
            if staged.is_kept(part) {
                let text = staged.columns_of(part, running.text, lex)?;
                let used = used(&text, lex, common.described.types.len())?;
                let parameters = running.parameters(&used, &common.described);
                let types: Vec<u32> = parameters.iter().map(|(oid, _, _)| *oid).collect();
                let described = self.described_on((&text, &types), Joins::Keeping, &first);
                let described = described.await?;
                selected = self.columns_in(Use::Elements, &described, &first).await?;
                if selected.columns.is_empty() {
                    return Err(without_columns().into());
                }
                if let Some(told) = common.told.last_mut() {
                    *told = Some(columns(&described)?);
                }
            }
            common.rows.push(selected);
        }
        Ok(())
    }

    /// Asks for the times that several parts name.
    async fn learn_times(&mut self, common: &mut Common, staged: &Staged) -> Result<(), Stop> {
        let (of_transaction, of_statement) = staged.needs_moments();
        let first = ShardSet::from_iter([self.others.first.unwrap_or(0)]);
        // What the client has not begun begins with the statement.
        let is_one = self.others.is_implicit;
        if of_transaction || (of_statement && is_one) {
            if self.others.moment.is_none() {
                let moment = self.ask(&first, MOMENT).await?.pop().flatten();
                let moment = moment.ok_or_else(other)?;
                self.others.moment = Some(moment.into_bytes().into());
            }
            let moment = self.others.moment.clone();
            common.moments[0] = moment.map(<[u8]>::into_vec);
        }
        if of_statement && is_one {
            common.moments[1] = common.moments[0].clone();
        } else if of_statement {
            let moment = self.ask(&first, OF_STATEMENT).await?.pop().flatten();
            common.moments[1] = moment.map(String::into_bytes);
        }
        Ok(())
    }

    /// Plans a part. That whose answer is the client's must have the columns that the client was told.
    async fn planned_part(
        &mut self,
        common: &Common,
        (staged, part): (&Staged, usize),
        running: &Running<'_>,
    ) -> Result<Ready, Stop> {
        let lex = Database::lex_options(self.settings.context());
        let count = running.count();
        let mut extras = Extras {
            common,
            count,
            list: Vec::new(),
        };
        let text = staged.text(part, (running.text, lex), &mut extras)?;
        let extras = extras.list;
        let mut used = used(&text, lex, count + extras.len())?;
        used.truncate(count);
        let parameters = running.parameters(&used, &common.described);
        let mut types: Vec<u32> = parameters.iter().map(|(oid, _, _)| *oid).collect();
        types.extend(extras.iter().map(|extra| common.extra_type(*extra)));
        let prepared = self.prepared_part(text, types)?;
        let first = ShardSet::from_iter([0]);
        let asked = (prepared.sql(), &*prepared.types);
        let described = self.described_on(asked, Joins::Keeping, &first).await;
        let described = described.map_err(unlike)?;
        let wanted = match part == staged.main() {
            true => Some(columns(&common.described)?),
            false => common.told.get(part).cloned().flatten(),
        };
        if wanted.is_some_and(|wanted| columns(&described).ok() != Some(wanted)) {
            return Err(otherwise("Its columns would have other types.").into());
        }
        let types = described.types.iter().zip(&common.described.types);
        if types
            .zip(&used)
            .any(|((of_part, of_whole), used)| *used && of_part != of_whole)
        {
            return Err(otherwise("Its parameters would have other types.").into());
        }
        Ok(Ready {
            part,
            prepared,
            extras,
            used,
        })
    }

    /// A part as a statement that was bound.
    fn prepared_part(&mut self, mut text: String, types: Vec<u32>) -> Result<Arc<Prepared>, Stop> {
        let context = Arc::clone(self.settings.context());
        let lex = Database::lex_options(&context);
        let mut rewords = true;
        let (plan, literals) = loop {
            let mut shape = Shape::default();
            shape::scan(text.as_bytes(), lex, &mut shape)
                .map_err(|error| error.to_error(text.as_bytes()))?;
            let plan = self.database.plan(&Question {
                text: &text,
                shape: &shape,
                types: &types,
                context: &context,
                temporary_tables: self.memory.temporary_tables,
                by_key: context.shard_key.is_some(),
                sight: self.own_sight(),
            })?;
            let edits = plan.rewording(&text, lex)?;
            if edits.is_empty() || !std::mem::take(&mut rewords) {
                break (plan, shape.literals);
            }
            text = splice(&text, lex, &edits)?;
        };
        if let Route::Refused(error) = &plan.route {
            return Err(error.clone().into());
        }
        if !plan.own.is_empty() || stored::asks(&plan) {
            return Err(otherwise("The proxy itself answers a function in it.").into());
        }
        let encoded = self.encoded(&text)?.into_owned();
        let reading = self.reading();
        Ok(Arc::new(Prepared {
            id: statement_id(false, &encoded, &types, reading),
            server_name: Box::default(),
            text: encoded.into(),
            read: (!context.encoding.is_utf8()).then(|| text.into()),
            types: types.into(),
            literals: literals.into(),
            hint: None,
            plan,
            context: reading,
            made_at: std::time::SystemTime::now(),
            declared: None,
            needs: Needs::Nothing,
        }))
    }

    /// Runs a part.
    async fn run_part(
        &mut self,
        ready: &Ready,
        (common, running): (&Common, &Running<'_>),
        formats: &[bool],
    ) -> Result<Answer, Stop> {
        let lex = Database::lex_options(self.settings.context());
        let mut prepared = Arc::clone(&ready.prepared);
        let count = running.count();
        let mut used = used(prepared.sql(), lex, count + ready.extras.len())?;
        used.truncate(count);
        let mut parameters = running.parameters(&used, &common.described);
        let extras = ready.extras.iter().map(|extra| common.extra(*extra));
        let extras: Vec<(u32, Format, Vec<u8>)> = extras.collect();
        parameters.extend(
            extras
                .iter()
                .map(|(oid, format, bytes)| -> Parameter<'_> { (*oid, *format, Some(bytes)) }),
        );
        let mut bound = Vec::new();
        request::write_bind(&mut bound, &parameters, formats);
        let bind = Bind::read(frame::body(&bound))?;
        let arguments = Arguments {
            text: prepared.sql(),
            literals: &prepared.literals,
            parameters: Parameters::new(&prepared.types, bind.formats, bind.values),
            encoding: self.settings.context().encoding,
        };
        let mut target = self.target(&prepared.plan, &arguments, None)?;
        if target == Target::Fill {
            (prepared, target) = self.bind_filled(&prepared, &bind).await?;
        }
        let at_work = self.server.as_ref().map_or(0, |held| held.shard);
        let (shards, way) = match self.on_several(target, &prepared, &bind) {
            Ok(shard) => {
                let shard = shard.unwrap_or(at_work);
                (ShardSet::from_iter([shard]), Way::Scatter)
            }
            Err(several) => several,
        };
        let portal = ScatterPortal {
            portal: Box::default(),
            is_described: false,
            prepared,
            bind: bound.into(),
            shards,
            way,
            is_acknowledged: true,
        };
        self.run_aside(portal).await
    }

    /// Runs a portal whose answer is kept.
    async fn run_aside(&mut self, portal: ScatterPortal) -> Result<Answer, Stop> {
        let outer = self.batch.execution.replace(Execution {
            answer: Some(Buffer::new()),
            ..Execution::default()
        });
        let ran = Box::pin(self.run_portal(portal, 0)).await;
        let execution = std::mem::replace(&mut self.batch.execution, outer);
        ran?;
        let execution = execution.unwrap_or_default();
        let rows = self.without_notices(execution.answer.unwrap_or_default())?;
        Ok(Answer {
            rows,
            tag: execution.tag,
        })
    }

    /// The rows of a query whose parts run one behind the other.
    pub(super) async fn staged_rows(
        &mut self,
        text: &str,
        parameters: &[Parameter<'_>],
        formats: &[bool],
    ) -> Result<Captured, Stop> {
        let types = parameters.iter().map(|(oid, _, _)| *oid).collect();
        let prepared = self.prepared_part(text.to_owned(), types)?;
        let mut bound = Vec::new();
        request::write_bind(&mut bound, parameters, formats);
        let portal = ScatterPortal {
            portal: Box::default(),
            is_described: false,
            prepared,
            bind: bound.into(),
            shards: ShardSet::from_iter([0]),
            way: Way::Staged,
            is_acknowledged: true,
        };
        Ok(self.run_aside(portal).await?.rows)
    }

    /// The rows of an answer; what else shards have said goes to the client.
    fn without_notices(&mut self, answer: Buffer) -> Result<Captured> {
        let mut rest = answer.bytes();
        let (mut rows, mut words) = (Buffer::new(), Vec::new());
        while let Some(header) = frame::header(rest)? {
            let Some((one, behind)) = rest.split_at_checked(header.frame_bytes) else {
                break;
            };
            match header.tag {
                b'D' => rows.push(one),
                b'N' => words.extend_from_slice(one),
                _ => {}
            }
            rest = behind;
        }
        if !words.is_empty() {
            self.say(words);
        }
        Ok(Captured::of(rows))
    }
}

/// Which columns of a part are asked for in binary format.
fn binary(selected: &Selected) -> Vec<bool> {
    let columns = selected.columns.iter();
    columns
        .map(|(_, format)| *format == Format::Binary)
        .collect()
}

/// The types of what is described.
fn columns(of: &Described) -> Result<Vec<u32>> {
    let Some(frame) = of.rows.first() else {
        return Ok(Vec::new());
    };
    let (columns, _) = described(frame::body(frame), usize::MAX)?;
    Ok(columns.iter().map(|column| column.type_oid).collect())
}

/// A part that a shard does not take, though it took the whole.
fn unlike(stop: Stop) -> Stop {
    match code(&stop) {
        Some(code) if code.as_str().starts_with("42") => {
            otherwise("A shard reads a part of it in another way than the whole.").into()
        }
        _ => stop,
    }
}

/// Whether an error comes of rows, behind the beginning of an execution.
fn is_bound(stop: &Stop) -> bool {
    code(stop).is_some_and(|code| reached_before(code) == Reached::Bound)
}

fn is_read(plan: &Plan) -> bool {
    matches!(&plan.statement, Statement::Query(query) if !query.modifies)
}

fn code(stop: &Stop) -> Option<SqlState> {
    match stop {
        Stop::Statement(error) => Some(error.code()),
        Stop::Words(words) => Some(report::read(frame::body(words)).code()),
        _ => None,
    }
}

fn without_columns() -> Error {
    otherwise("A part of it gives rows that have no columns.")
}

fn otherwise(why: &'static str) -> Error {
    Error::refused(
        "this statement with WITH that changes rows is not supported over several shards",
        why,
        "Send its parts as statements of their own, in a transaction.",
    )
}

fn other() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the parts of a statement could not be told apart",
    )
    .hint("A table's definition may have just changed: try again.")
}
