//! Queries that a hub finishes: shards to hub, hub to client.
//!
//! What holds:
//! - The hub's connection has no part in the client's transaction, and its own transaction is rolled back:
//!   nothing of it stays.
//! - The settings of the session hold on it as on every shard.
//! - The client's statement is described by the hub as the client wrote it, before anything is copied: its
//!   errors are PostgreSQL's, the types of its parameters are those that PostgreSQL infers, and its columns
//!   must have the same types over the copies.
//! - Outside a transaction, all that one shard sends for a statement is of one snapshot.
//! - Where each shard can do a part of the work itself, the hub gets its groups or rows. Whether the types allow
//!   that is known once the hub has made a table for them; if not, whole relations are copied.
//! - Shards are leased in their order, the hub after them. So many statements at most do so at once that
//!   there is a second connection to a server for each; further ones wait before they lease any.

mod explained;
mod hub;
mod keys;
mod texts;

use std::time::Instant;

use futures_util::future::join_all;

use crate::backend::connection::{Failed, lost};
use crate::error::Result;
use crate::exec::combine::load::{Load, Trouble};
use crate::exec::combine::request::{self, Described, Parameter};
use crate::exec::scatter::{Ended, Failure, Scatter};
use crate::plan::{Execution, Intermediate, Parameters, Plan};
use crate::pool::Lease;
use crate::session::combine::explained::rows_above;
use crate::session::combine::hub::Hub;
use crate::session::combine::keys::next_to_fill;
use crate::session::control::{Signal, shutdown};
use crate::session::copy_out::{copy_out, describable};
use crate::session::held::Held;
use crate::session::prepared::Portal;
use crate::session::scatter::{Joins, LARGEST_SETTLING, ScatterPortal};
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::shape::Literal;
use crate::sql::statement::Statement;
use crate::wire::backend::{Status, no_data, portal_suspended};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Subject};

/// Intermediate relations with fewer rows are not analysed.
const FEWEST_ANALYSED: u64 = 1_000;

/// A statement to be finished on a hub.
struct Asked<'a> {
    plan: &'a Plan,
    text: &'a str,
    literals: &'a [Literal],
    /// The declared types of its parameters.
    types: &'a [u32],
    /// None for a simple Query.
    bind: Option<Bind<'a>>,
    is_described: bool,
    /// 0 is all.
    max_rows: i32,
}

/// What a hub has answered.
#[derive(Default)]
pub(super) struct Finished {
    rows: u64,
    is_suspended: bool,
    /// The hub's shard.
    hub: String,
    /// What EXPLAIN says above the hub's own plan.
    lines: Vec<String>,
}

impl<'a> Asked<'a> {
    fn parameters(&self) -> Parameters<'a> {
        match &self.bind {
            Some(bind) => Parameters::new(self.types, bind.formats, bind.values),
            None => Parameters::none(),
        }
    }

    /// Those of the client's parameters that one of the proxy's own statements has.
    fn given(&self, indexes: &[usize], described: &Described) -> Vec<Parameter<'a>> {
        let parameters = self.parameters();
        let given = |index: &usize| {
            let type_oid = described.types.get(*index).copied().unwrap_or(0);
            let format = parameters.format(*index).unwrap_or(Format::Text);
            (type_oid, format, parameters.value(*index).flatten())
        };
        indexes.iter().map(given).collect()
    }
}

impl Session {
    /// The shards of which any one can describe a statement that a hub finishes; none if all can.
    pub(super) fn described_by(&self, plan: &Plan) -> ShardSet {
        if plan.change().is_some() {
            return self.changed_by(plan);
        }
        let hub = plan.combine().and_then(|combine| combine.hub());
        hub.into_iter().collect()
    }

    /// Runs a simple Query that a hub finishes.
    pub(super) async fn combine_query(&mut self, text: &str, plan: &Plan) -> Result<(), Stop> {
        self.rest_pinned();
        let literals = std::mem::take(&mut self.shape.literals);
        if let Statement::Declare { .. } = plan.statement {
            let nothing = (&[][..], Parameters::none());
            self.declare_whole(plan, (text, &literals), nothing).await?;
            return self.end_query("DECLARE CURSOR").await;
        }
        let asked = Asked {
            plan,
            text,
            literals: &literals,
            types: &[],
            bind: None,
            is_described: true,
            max_rows: 0,
        };
        let finished = self.combine_shown(&asked).await?;
        self.end_query(&tag_of(plan, finished.rows)).await
    }

    /// Runs a bound statement that a hub finishes.
    pub(super) async fn execute_combined(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        if let Statement::Declare { .. } = prepared.plan.statement {
            return self.execute_declare(&portal).await;
        }
        let finished = self.combine_portal(&portal, max_rows).await?;
        if !finished.is_suspended {
            self.conclude(Vec::new(), &tag_of(&prepared.plan, finished.rows));
            return Ok(());
        }
        self.statements.put_portal(&portal.portal, Portal::Partial);
        let mut words = Vec::new();
        portal_suspended(&mut words);
        self.say(words);
        Ok(())
    }

    /// The rows of a kept portal that a hub finishes.
    pub(super) async fn combine_portal(
        &mut self,
        portal: &ScatterPortal,
        max_rows: i32,
    ) -> Result<Finished, Stop> {
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
        self.combine_shown(&asked).await
    }

    /// Has a hub finish a query of these parameters; how many rows there were.
    pub(super) async fn combine_captured(
        &mut self,
        plan: &Plan,
        (text, literals): (&str, &[Literal]),
        (types, bind): (&[u32], Bind<'_>),
    ) -> Result<u64, Stop> {
        let asked = Asked {
            plan,
            text,
            literals,
            types,
            bind: Some(bind),
            is_described: true,
            max_rows: 0,
        };
        Ok(self.combine(&asked).await?.rows)
    }

    async fn combine(&mut self, asked: &Asked<'_>) -> Result<Finished, Stop> {
        let joins = self.check_several(asked.plan, &ShardSet::new()).await?;
        let is_joined = joins != Joins::Not;
        self.database.metrics.combine.inc();
        let mut execution = self.execution(asked, is_joined)?;
        let gathering = self.gathering(asked)?;
        let mut shards = ShardSet::new();
        let relations = gathering.iter().flat_map(|gathering| &gathering.relations);
        for relation in execution.relations.iter().chain(relations) {
            shards.union(&relation.shards);
        }
        let _turn = self.take_turn().await?;
        let gathered = self.gather(&shards, joins, &[]).await?;
        let mut shards: Vec<Ended<Held>> = gathered.into_iter().map(unused).collect();
        let (mut hub, mut filled, mut begins) = (None, Ok(()), false);
        match self.open_either(&mut execution, gathering, asked).await {
            Ok(opened) => {
                begins = !is_joined && execution.relations.len() > 1;
                if begins {
                    filled = run_on_each(&mut shards, SNAPSHOT).await;
                }
                let hub = hub.insert(opened);
                if filled.is_ok() {
                    filled = self.fill(hub, &mut shards, &mut execution, asked).await;
                }
            }
            Err(stop) => filled = Err(stop),
        }
        if begins {
            // One that fails is closed.
            let _ = run_on_each(&mut shards, "COMMIT").await;
        }
        let undisturbed = self.registered.control.end();
        for one in &mut shards {
            one.connection.is_lost |= !undisturbed;
        }
        self.after_scatter(shards);
        let Some(mut hub) = hub else {
            return Err(filled.err().unwrap_or(Stop::Gone));
        };
        hub.is_lost |= !undisturbed;
        if filled.is_ok() && execution.is_unread {
            filled = hub.read_only().await;
        }
        let finished = match filled {
            Ok(()) => self.finish(&mut hub, &execution, asked).await,
            Err(stop) => Err(stop),
        };
        self.close_hub(hub).await;
        finished
    }

    /// Fills the intermediate relations.
    async fn fill(
        &mut self,
        hub: &mut Hub,
        shards: &mut [Ended<Held>],
        execution: &mut Execution,
        asked: &Asked<'_>,
    ) -> Result<(), Stop> {
        let is_plan_only = match &asked.plan.statement {
            Statement::Explain(explain) => !explain.analyze,
            _ => false,
        };
        if is_plan_only {
            return Ok(());
        }
        let mut analyse = String::new();
        let mut left = self.database.limits.intermediate_bytes;
        hub.filled = vec![None; execution.relations.len()];
        hub.shares = vec![Vec::new(); execution.relations.len()];
        let estimates = self.estimates(hub, execution, asked).await?;
        while let Some(at) = next_to_fill(execution, &hub.filled, &estimates) {
            self.restrict(hub, execution, (at, asked)).await?;
            let Some(relation) = execution.relations.get(at) else {
                break;
            };
            let began = Instant::now();
            let (rows, bytes, mut shares) =
                self.fill_one(hub, shards, (relation, left), asked).await?;
            shares.push(format!("{:.3} ms", began.elapsed().as_secs_f64() * 1e3));
            if let Some(known) = hub.shares.get_mut(at) {
                *known = shares;
            }
            left = left.saturating_sub(bytes);
            if let Some(filled) = hub.filled.get_mut(at) {
                *filled = Some((rows, bytes));
            }
            if rows >= FEWEST_ANALYSED {
                analyse.push_str(&format!("ANALYZE pg_temp.{};\n", relation.name));
            }
        }
        if analyse.is_empty() {
            return Ok(());
        }
        hub.lease.run(&analyse).await.map_err(failed)
    }

    /// Fills one intermediate relation; the rows and bytes that were copied.
    async fn fill_one(
        &mut self,
        hub: &mut Hub,
        shards: &mut [Ended<Held>],
        (relation, most_bytes): (&Intermediate, u64),
        asked: &Asked<'_>,
    ) -> Result<(u64, u64, Vec<String>), Stop> {
        if relation.shards.is_empty() {
            return Ok((0, 0, Vec::new()));
        }
        let mut columns = Described::default();
        let text = self.encoded(&relation.columns)?;
        self.describe_on(hub, (&text, &[]), &mut columns).await?;
        let columns = columns.rows.pop().unwrap_or_default();
        let parameters = asked.given(&relation.parameters, &hub.described);
        let text = self.encoded(&relation.query)?;
        let mut request = Vec::new();
        request::write_fragment(&mut request, &text, &parameters);
        let mut working: Vec<&mut Ended<Held>> = shards
            .iter_mut()
            .filter(|one| relation.shards.contains(one.connection.shard))
            .collect();
        let database = &self.database;
        let connections = working.iter_mut().map(|one| {
            let name = database.shard_name(one.connection.shard).to_owned();
            (name, &mut one.connection.lease)
        });
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            request.clone()
        };
        let mut scatter = Scatter::start(connections.collect(), send, false, HIGH_WATER_BYTES)
            .copied_into(columns);
        let control = &self.registered.control;
        let loaded = {
            let bounds = (most_bytes, HIGH_WATER_BYTES);
            let mut load = Load::start(&mut scatter, &mut hub.lease, &relation.name, bounds);
            std::future::poll_fn(|cx| {
                if control.poll_told(cx) == Signal::Terminate {
                    return std::task::Poll::Ready(None);
                }
                load.poll(cx).map(Some)
            })
            .await
        };
        if !matches!(loaded, Some(Ok(_))) {
            hub.is_lost = true;
            scatter.stop(LARGEST_SETTLING).await;
        }
        let bytes = scatter.bytes();
        let ended: Vec<_> = scatter.end().into_iter().map(|one| one.account()).collect();
        let mut shares = Vec::new();
        for (one, account) in working.into_iter().zip(ended) {
            (one.status, one.is_bound) = (account.status, account.is_bound);
            let shard = database.shard_name(one.connection.shard);
            let (rows, bytes) = (account.rows, account.bytes);
            shares.push(format!("{shard} rows={rows} bytes={bytes}"));
        }
        match loaded {
            Some(Ok(rows)) => Ok((rows, bytes, shares)),
            Some(Err(Trouble::Shards(failure))) => Err(self.told_by_shard(failure)),
            Some(Err(Trouble::Hub(words))) => Err(Stop::Words(words)),
            Some(Err(Trouble::HubLost(cause))) => Err(Stop::Statement(lost(&cause))),
            None => Err(Stop::Session(shutdown())),
        }
    }

    /// BindComplete for a COPY, and that it has no rows.
    fn acknowledge_described(&mut self, asked: &Asked<'_>) {
        if asked.bind.is_none() {
            return;
        }
        self.pay_owed();
        if asked.is_described {
            let mut words = Vec::new();
            no_data(&mut words);
            self.say(words);
        }
    }

    pub(super) fn told_by_shard(&mut self, failure: Failure) -> Stop {
        match self.scatter_failed(failure) {
            Err(stop) => stop,
            Ok(_) => Stop::Gone,
        }
    }

    /// Has the hub answer the client.
    async fn finish(
        &mut self,
        hub: &mut Hub,
        execution: &Execution,
        asked: &Asked<'_>,
    ) -> Result<Finished, Stop> {
        let name = self.database.shard_name(hub.shard).to_owned();
        let text = self.encoded(&execution.text)?;
        if let Some(frills) = copy_out(asked.plan) {
            self.acknowledge_described(asked);
            self.registered.control.begin(&hub.lease);
            let from = (name, &mut hub.lease);
            let (rows, is_in_order) = self.copy_from_hub(&text, from, frills).await;
            let undisturbed = self.registered.control.end();
            hub.is_lost |= !is_in_order || !undisturbed;
            return rows.map(|rows| Finished {
                rows,
                ..Finished::default()
            });
        }
        let text = self.encoded(describable(asked.plan, asked.text, &execution.text))?;
        let mut messages = Vec::new();
        frontend::write_parse(&mut messages, b"", &text, &hub.described.types);
        match &asked.bind {
            Some(bind) => frontend::write_bind(
                &mut messages,
                &Bind {
                    portal: b"",
                    ..*bind
                },
                b"",
            ),
            None => messages.extend_from_slice(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0"),
        }
        frontend::write_subject(&mut messages, b'D', Subject::Portal, b"");
        frontend::write_execute(&mut messages, b"", asked.max_rows);
        frontend::write_sync(&mut messages);
        self.acknowledge_bind();
        self.registered.control.begin(&hub.lease);
        let lines = self.explained_by_hub(hub, execution, asked);
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            messages.clone()
        };
        let connections = vec![(name.clone(), &mut hub.lease)];
        let limit = self.high_water_bytes();
        let mut scatter = Scatter::start(connections, send, asked.is_described, limit);
        if let Some(original) = hub.described.rows.first() {
            scatter = scatter.described_as(original.clone());
        }
        let known = asked.bind.as_ref();
        let known = known.and_then(|bind| self.expected(bind.statement));
        scatter = scatter.headed(rows_above(&lines, asked)).expecting(known);
        let end = self.pump(&mut scatter).await;
        let is_mid_row = scatter.is_mid_row();
        if !matches!(end, Ok(Ok(_))) {
            scatter.stop(LARGEST_SETTLING).await;
        }
        let ended = scatter.end().pop();
        let (status, is_suspended) =
            ended.map_or((None, false), |one| (one.status, one.is_suspended));
        let undisturbed = self.registered.control.end();
        hub.is_lost |= status.is_none() || !undisturbed;
        match end {
            Ok(Ok(rows)) => Ok(Finished {
                rows,
                is_suspended,
                hub: name,
                lines,
            }),
            Ok(Err(_)) | Err(_) if is_mid_row => Err(Stop::Gone),
            Ok(Err(failure)) => Err(self.told_by_shard(failure)),
            Err(stop) => Err(stop),
        }
    }
}

/// Begins what gives all queries on a shard one snapshot.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A connection that has done nothing yet.
pub(super) fn unused((_, connection): (String, Held)) -> Ended<Held> {
    Ended {
        connection,
        status: Some(Status::Idle),
        is_bound: true,
        affected: 0,
        tag: String::new(),
        is_suspended: false,
        description: None,
        bytes: 0,
        took: std::time::Duration::ZERO,
    }
}

/// Runs a statement of the proxy's own on each connection that is in order.
pub(super) async fn run_on_each(shards: &mut [Ended<Held>], sql: &str) -> Result<(), Stop> {
    let in_order = shards.iter_mut().filter(|one| one.status.is_some());
    let runs = in_order.map(|one| async {
        let outcome = one.connection.lease.run(sql).await;
        if outcome.is_err() {
            one.status = None;
        }
        outcome
    });
    let outcomes = join_all(runs).await;
    outcomes
        .into_iter()
        .collect::<Result<Vec<()>, Failed>>()
        .map(drop)
        .map_err(failed)
}

/// What the client is told of a statement of the proxy's own that failed on the hub.
pub(super) fn failed(failed: Failed) -> Stop {
    Stop::Statement(match failed {
        Failed::Refused(error) => error,
        Failed::Lost(cause) => lost(&cause),
    })
}

/// The command tag of an answer.
fn tag_of(plan: &Plan, rows: u64) -> String {
    match &plan.statement {
        Statement::Explain(_) => "EXPLAIN".to_owned(),
        Statement::Copy(_) => format!("COPY {rows}"),
        _ => format!("SELECT {rows}"),
    }
}
