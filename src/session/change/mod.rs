//! Changes of rows that take several steps on the shards.
//!
//! What holds:
//! - The shards that are read and those that are written take part in the client's transaction, which is
//!   one of the statement's own if the client has begun none: an error of any step undoes all.
//! - The client's statement is described by a shard as the client wrote it, before anything else: its
//!   errors are PostgreSQL's, and the types of its parameters are those that PostgreSQL infers.
//! - Rows travel as texts that mean the same whatever the session's settings are; they are at most
//!   `limits.intermediate` bytes (`53400`).

mod collect;
mod moves;
pub(super) mod request;

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::backend::connection::Failed;
use crate::error::{Error, Result};
use crate::exec::combine::request::{Described, write_describe};
use crate::exec::scatter::{Ended, Scatter};
use crate::plan::{Arguments, Change, ChangeColumn, Extra, Parameters, Plan, Steps, Written};
use crate::pool::Lease;
use crate::session::change::request::Request;
use crate::session::combine::{failed, run_on_each, unused};
use crate::session::database::Database;
use crate::session::held::Held;
use crate::session::prepared::Portal;
use crate::session::scatter::{Answered, Joins, LARGEST_SETTLING, ScatterPortal, tag};
use crate::session::{Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::shape::Literal;
use crate::sqlstate::SqlState;
use crate::wire::backend::{Status, portal_suspended};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// Has rows leave as texts that mean the same whatever is set.
const EXACT: &str = "SAVEPOINT shardwire_exact;\n\
    SET LOCAL datestyle = 'ISO, YMD';\n\
    SET LOCAL intervalstyle = 'iso_8601';\n\
    SET LOCAL extra_float_digits = 1;\n\
    SET LOCAL bytea_output = 'hex'";

/// Ends that.
const AS_BEFORE: &str = "ROLLBACK TO SAVEPOINT shardwire_exact;\nRELEASE SAVEPOINT shardwire_exact";

/// The transaction's time, in a text that means the same whatever is set.
pub(super) const MOMENT: &str = "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', \
    'YYYY-MM-DD HH24:MI:SS.US') || '+00'";

/// The statement's time.
pub(super) const OF_STATEMENT: &str = "SELECT pg_catalog.to_char(pg_catalog.statement_timestamp() \
    AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";

/// A statement of the client's.
pub(super) struct Asked<'a> {
    pub plan: &'a Plan,
    pub text: &'a str,
    pub literals: &'a [Literal],
    /// The declared types of its parameters.
    pub types: &'a [u32],
    /// None for a simple Query.
    pub bind: Option<Bind<'a>>,
    pub is_described: bool,
    /// 0 is all.
    pub max_rows: i32,
}

/// What was learned on the way to the statement.
#[derive(Default)]
struct Learned {
    described: Described,
    /// The transaction's time and the statement's.
    moments: [Vec<u8>; 2],
    /// The rows of each shipment, an array as text.
    rows: Vec<Vec<u8>>,
    /// For each subquery the number of its rows, then its columns, each an array as text.
    values: Vec<Vec<Vec<u8>>>,
    columns: Vec<Vec<ChangeColumn>>,
    bytes: u64,
}

impl<'a> Asked<'a> {
    pub fn parameters(&self) -> Parameters<'a> {
        match &self.bind {
            Some(bind) => Parameters::new(self.types, bind.formats, bind.values),
            None => Parameters::none(),
        }
    }

    /// The formats of its results.
    pub fn results(&self) -> &'a [u8] {
        self.bind
            .as_ref()
            .map(|bind| bind.results)
            .unwrap_or_default()
    }

    /// How many parameters it has.
    pub fn count(&self) -> usize {
        self.bind.as_ref().map_or(0, |bind| usize::from(bind.count))
    }
}

impl Learned {
    /// What a shard says of the client's own statement.
    fn original(&self) -> Option<&Vec<u8>> {
        self.described.rows.first()
    }

    /// The value of a parameter that is added.
    fn value(&self, extra: Extra) -> &[u8] {
        let found = match extra {
            Extra::Moment(of_statement) => self.moments.get(usize::from(of_statement)),
            Extra::Rows(at) => self.rows.get(at),
            Extra::Value(at, column) => self.values.get(at).and_then(|one| one.get(column)),
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

impl Session {
    /// The shards of which any one can describe a statement that takes several steps.
    pub(super) fn changed_by(&self, plan: &Plan) -> ShardSet {
        plan.change()
            .map(|change| change.all_shards())
            .unwrap_or_default()
    }

    /// Runs a simple Query that takes several steps.
    pub(super) async fn change_query(&mut self, text: &str, plan: &Plan) -> Result<(), Stop> {
        self.rest_pinned();
        let literals = std::mem::take(&mut self.shape.literals);
        let asked = Asked {
            plan,
            text,
            literals: &literals,
            types: &[],
            bind: None,
            is_described: true,
            max_rows: 0,
        };
        let answered = self.change(&asked).await?;
        self.end_query(&tag(plan, &answered)).await
    }

    /// Runs a bound statement that takes several steps.
    pub(super) async fn execute_change(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        let asked = Asked {
            plan: &prepared.plan,
            text: prepared.sql(),
            literals: &prepared.literals,
            types: &prepared.types,
            bind: Some(Bind::read(frame::body(&portal.bind))?),
            is_described: portal.is_described,
            max_rows: max_rows.max(0),
        };
        let answered = self.change(&asked).await?;
        if !answered.is_suspended {
            self.conclude(Vec::new(), &tag(&prepared.plan, &answered));
            return Ok(());
        }
        self.statements.put_portal(&portal.portal, Portal::Partial);
        let mut words = Vec::new();
        portal_suspended(&mut words);
        self.say(words);
        Ok(())
    }

    async fn change(&mut self, asked: &Asked<'_>) -> Result<Answered, Stop> {
        let Some(change) = asked.plan.change() else {
            return Err(Stop::Statement(Error::new(
                SqlState::INTERNAL_ERROR,
                "a statement without steps was to be changed in steps",
            )));
        };
        let arguments = Arguments {
            text: asked.text,
            literals: asked.literals,
            parameters: asked.parameters(),
            encoding: self.settings.context().encoding,
        };
        let lex = Database::lex_options(self.settings.context());
        let steps = change.steps(&arguments, lex, asked.count())?;
        let mut shards = steps.shards.clone();
        if steps.moves() {
            shards.union(&change.all_shards());
        }
        let joins = self.check_scatter(asked.plan, &shards).await?;
        for shipment in &steps.shipments {
            shards.union(&shipment.shards);
        }
        if change.needs_moments().0 && self.others.moment.is_none() {
            shards.extend(self.others.first);
        }
        let written = steps.shards.clone();
        let by = move |shard: ShardIndex| match written.contains(shard) {
            true => joins,
            false => Joins::Reading,
        };
        let gathered = self.gather_by(&shards, by, &[]).await?;
        let mut work: Vec<Ended<Held>> = gathered.into_iter().map(unused).collect();
        let outcome = self.run_steps(&mut work, change, &steps, asked).await;
        self.after_scatter(work);
        outcome
    }

    async fn run_steps(
        &mut self,
        work: &mut [Ended<Held>],
        change: &Change,
        steps: &Steps<'_>,
        asked: &Asked<'_>,
    ) -> Result<Answered, Stop> {
        let mut learned = Learned::default();
        let has_rows = !steps.shipments.is_empty() || change.evaluated() > 0;
        if has_rows || steps.moves() || self.has_untyped(asked)? {
            let text = self.encoded(asked.text)?;
            let asked_for = (&*text, asked.types);
            learned.described = describe(writer(work, steps)?, asked_for).await?;
        }
        self.learn_moments(work, change, steps, &mut learned)
            .await?;
        if has_rows {
            run_on_each(work, EXACT).await?;
            for shipment in &steps.shipments {
                let request = self.request(&shipment.query, asked, &learned)?;
                let found = self.collect_rows(work, &shipment.shards, &request, &mut learned.bytes);
                let rows = found.await?;
                learned.rows.push(collect::joined(&rows));
            }
            for index in 0..change.evaluated() {
                self.evaluate(work, (steps, index), asked, &mut learned)
                    .await?;
            }
            run_on_each(work, AS_BEFORE).await?;
        }
        if steps.moves() {
            return self.run_move(work, steps, asked, &mut learned).await;
        }
        let statement = steps.statement(&learned.columns)?;
        let request = self.request(&statement, asked, &learned)?;
        let messages = request.messages(asked.results());
        let parts = steps.shards.iter().map(|shard| (shard, messages.clone()));
        let parts = parts.collect();
        self.answer(work, parts, learned.original(), (asked, true))
            .await
    }

    /// Whether a parameter that the statement does not use has no type: a server says so.
    fn has_untyped(&self, asked: &Asked<'_>) -> Result<bool> {
        let lex = Database::lex_options(self.settings.context());
        let used = request::used(asked.text, lex, asked.count())?;
        let is_typed = |index: usize| asked.types.get(index).is_some_and(|oid| *oid != 0);
        Ok((0..asked.count()).any(|index| used.get(index) != Some(&true) && !is_typed(index)))
    }

    /// Asks for the times that the statement names.
    async fn learn_moments(
        &mut self,
        work: &mut [Ended<Held>],
        change: &Change,
        steps: &Steps<'_>,
        learned: &mut Learned,
    ) -> Result<(), Stop> {
        let (of_transaction, of_statement) = change.needs_moments();
        if of_transaction {
            let known = self.others.moment.clone();
            let moment = match known {
                Some(moment) => moment.into_vec(),
                None => {
                    let first = self.others.first;
                    let at = work
                        .iter()
                        .position(|one| Some(one.connection.shard) == first);
                    let one = match work.get_mut(at.unwrap_or_default()) {
                        Some(one) => one,
                        None => return Err(Stop::Gone),
                    };
                    value(one, MOMENT).await?.unwrap_or_default().into_bytes()
                }
            };
            self.others.moment = Some(moment.clone().into());
            learned.moments[0] = moment;
        }
        if of_statement {
            let one = writer(work, steps)?;
            learned.moments[1] = value(one, OF_STATEMENT)
                .await?
                .unwrap_or_default()
                .into_bytes();
        }
        Ok(())
    }

    /// Evaluates a subquery on one shard.
    async fn evaluate(
        &mut self,
        work: &mut [Ended<Held>],
        (steps, index): (&Steps<'_>, usize),
        asked: &Asked<'_>,
        learned: &mut Learned,
    ) -> Result<(), Stop> {
        let subquery = steps.subquery(index)?;
        let text = self.encoded(&subquery.text)?.into_owned();
        let types = self.request(&subquery, asked, learned)?.types;
        let one = writer(work, steps)?;
        let shard = one.connection.shard;
        let described = describe(one, (&text, &types)).await.map_err(dependent)?;
        let columns = described.rows.first().map(|frame| frame::body(frame));
        let columns = collect::columns(columns.unwrap_or_default())?;
        let types: Vec<(u32, i32)> = columns
            .iter()
            .map(|(_, oid, typmod)| (*oid, *typmod))
            .collect();
        let evaluation = Steps::evaluation(subquery, &types);
        let request = self.request(&evaluation, asked, learned)?;
        let only = ShardSet::from_iter([shard]);
        let found = self
            .collect_rows(work, &only, &request, &mut learned.bytes)
            .await?;
        let mut values = found.into_iter().next().unwrap_or_default().into_iter();
        let mut arrays = vec![values.next().flatten().unwrap_or_default()];
        let mut named = Vec::new();
        for (name, _, _) in columns {
            arrays.push(values.next().flatten().unwrap_or_else(|| b"{}".to_vec()));
            let type_name = values.next().flatten().unwrap_or_default();
            let collation = values.next().flatten();
            named.push(ChangeColumn {
                name,
                type_name: String::from_utf8_lossy(&type_name).into_owned(),
                collation: collation.map(|sql| String::from_utf8_lossy(&sql).into_owned()),
            });
        }
        learned.values.push(arrays);
        learned.columns.push(named);
        Ok(())
    }

    /// A text with its parameters.
    fn request(&self, written: &Written, asked: &Asked<'_>, learned: &Learned) -> Result<Request> {
        let lex = Database::lex_options(self.settings.context());
        let used = request::used(&written.text, lex, asked.count())?;
        let text = self.encoded(&written.text)?.into_owned();
        let extras = written
            .extras
            .iter()
            .map(|extra| learned.value(*extra).to_vec());
        Ok(Request::new(
            text,
            &used,
            (asked, &learned.described.types),
            extras.collect(),
        ))
    }

    /// Has shards answer the client, each with its messages. They are described as the frame `original` does;
    /// only the first answer of several is described at all.
    async fn answer(
        &mut self,
        work: &mut [Ended<Held>],
        parts: Vec<(ShardIndex, Vec<u8>)>,
        original: Option<&Vec<u8>>,
        (asked, is_first): (&Asked<'_>, bool),
    ) -> Result<Answered, Stop> {
        if asked.bind.is_some() && is_first {
            self.acknowledge_bind();
        }
        let mut working: Vec<&mut Ended<Held>> = work
            .iter_mut()
            .filter(|one| {
                parts
                    .iter()
                    .any(|(shard, _)| *shard == one.connection.shard)
            })
            .collect();
        let high_water_bytes = self.high_water_bytes();
        let database = &self.database;
        let mut queue = VecDeque::new();
        let mut connections = Vec::new();
        for one in &mut working {
            let shard = one.connection.shard;
            let mut parts = parts.iter().filter(|(at, _)| *at == shard);
            queue.extend(parts.next().map(|(_, messages)| messages.as_slice()));
            let name = database.shard_name(shard).to_owned();
            connections.push((name, &mut one.connection.lease));
        }
        // Connections are taken in their order.
        let queue = RefCell::new(queue);
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            let next = queue.borrow_mut().pop_front();
            next.unwrap_or_default().to_vec()
        };
        let is_described = asked.is_described && is_first;
        let mut scatter = Scatter::start(connections, send, is_described, high_water_bytes);
        drop(queue);
        if asked.bind.is_none() && is_first {
            scatter = scatter.of_query();
        }
        if let Some(original) = original {
            scatter = scatter.described_as(original.clone());
        }
        let limit = u64::try_from(asked.max_rows).ok().filter(|rows| *rows > 0);
        if let Some(rows) = limit {
            scatter = scatter.limited(rows);
        }
        let mut scatter = scatter.changing(true);
        let end = self.pump(&mut scatter).await;
        let is_mid_row = scatter.is_mid_row();
        if !matches!(end, Ok(Ok(_))) {
            scatter.stop(LARGEST_SETTLING).await;
        }
        let mut answered = Answered::default();
        let ended = scatter.end().into_iter();
        let ended: Vec<_> = ended.map(|one| (one.status, one.affected)).collect();
        for (one, (status, affected)) in working.into_iter().zip(ended) {
            one.status = status;
            answered.affected += affected;
        }
        match end {
            Ok(Ok(rows)) => Ok(Answered {
                rows,
                is_suspended: limit == Some(rows),
                ..answered
            }),
            Ok(Err(_)) if is_mid_row => Err(Stop::Gone),
            Ok(Err(failure)) => Err(self.told_by_shard(failure)),
            Err(stop) => Err(stop),
        }
    }
}

/// The first of the shards that are written.
fn writer<'a>(work: &'a mut [Ended<Held>], steps: &Steps<'_>) -> Result<&'a mut Ended<Held>, Stop> {
    let mut work = work.iter_mut();
    work.find(|one| steps.shards.contains(one.connection.shard))
        .ok_or(Stop::Gone)
}

/// Asks a shard about a statement.
async fn describe(
    one: &mut Ended<Held>,
    (text, types): (&[u8], &[u32]),
) -> Result<Described, Stop> {
    let mut messages = Vec::new();
    write_describe(&mut messages, text, types);
    frontend::write_sync(&mut messages);
    let mut described = Described::default();
    let mut note = |tag, body: &[u8]| described.note(tag, body);
    let outcome = one.connection.lease.ask(&messages, &mut note).await;
    one.status = status(&outcome);
    outcome.map_err(failed)?;
    Ok(described)
}

/// The value of a query of the proxy's own.
async fn value(one: &mut Ended<Held>, sql: &str) -> Result<Option<String>, Stop> {
    let outcome = one.connection.lease.value(sql).await;
    one.status = status(&outcome);
    outcome.map_err(failed)
}

/// What a statement of the proxy's own has made of a transaction.
fn status<T>(outcome: &Result<T, Failed>) -> Option<Status> {
    match outcome {
        Ok(_) => Some(Status::Transaction),
        Err(Failed::Refused(_)) => Some(Status::Failed),
        Err(Failed::Lost(_)) => None,
    }
}

/// A subquery that can't stand by itself.
fn dependent(stop: Stop) -> Stop {
    let Stop::Statement(error) = stop else {
        return stop;
    };
    Stop::Statement(Error::refused(
        "a subquery of a change on several shards cannot be evaluated by itself",
        format!("A shard said: {}.", error.fields().message),
        "Qualify its columns, or run it first and send its rows as a parameter.",
    ))
}
