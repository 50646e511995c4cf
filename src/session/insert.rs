//! `INSERT` of rows of several shards: each shard gets the statement with its own rows, all at once.
//!
//! What holds:
//! - The shards take part in one transaction, the client's or one of the statement alone: all rows are
//!   stored or none.
//! - A row's text and parameters go to its shard as they came. Types that PostgreSQL infers from the whole
//!   statement are asked for where a part of it might be read otherwise.
//! - `RETURNING` gives rows in the order of the client's rows. Where `ON CONFLICT` passes rows over, which
//!   ones is not known: then rows of one shard keep their order.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::backend::connection::Failed;
use crate::backend::report;
use crate::error::Result;
use crate::exec::combine::request::{self, Described};
use crate::exec::scatter::{Ended, Scatter};
use crate::plan::{Parameters, Placed, Plan, RowsPart, Target};
use crate::pool::Lease;
use crate::session::combine::failed;
use crate::session::prepared::{Portal, Prepared};
use crate::session::scatter::{Answered, Joins, ScatterPortal, Way, describe_and_execute, tag};
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardIndex, ShardSet};
use crate::sql::shifts::Shifts;
use crate::wire::backend::{Status, command_complete};
use crate::wire::buffer::{cstring, message};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// An execution.
struct Inserting<'a> {
    plan: &'a Plan,
    text: &'a str,
    placed: &'a Placed,
    /// None for a simple Query.
    bound: Option<(&'a Prepared, Bind<'a>)>,
    is_described: bool,
}

/// Whether a server would accept a Bind of the statement: it has as many values as the statement has
/// parameters, and each of these has a type. If not, any server says so.
fn accepts(placed: &Placed, prepared: &Prepared, bind: &Bind<'_>) -> bool {
    let used = placed.parameters(prepared.sql());
    let is_known = |(index, used): (usize, &bool)| {
        *used || prepared.types.get(index).is_some_and(|oid| *oid != 0)
    };
    usize::from(bind.count) == used.len().max(prepared.types.len())
        && used.iter().enumerate().all(is_known)
}

/// Whether a simple Query can be taken apart. Of parameters any server says that there are none.
pub(super) fn may_be_taken_apart(placed: &Placed, text: &str) -> bool {
    placed.parameters(text).is_empty()
}

impl Session {
    /// The shard that a bound statement goes to as it is, if it matters; else how it runs on several.
    pub(super) fn on_several(
        &self,
        target: Target,
        prepared: &Prepared,
        bind: &Bind<'_>,
    ) -> std::result::Result<Option<ShardIndex>, (ShardSet, Way)> {
        match target {
            Target::Many(shards) => Err((shards, Way::Scatter)),
            Target::Replicated => {
                let all = ShardSet::all(self.database.config.shards.len());
                Err((all, Way::Scatter))
            }
            Target::Combine | Target::Change => {
                Err((self.described_by(&prepared.plan), Way::Combine))
            }
            Target::Rows(placed) if accepts(&placed, prepared, bind) => {
                Err((placed.shards(), Way::Rows(placed)))
            }
            Target::One(shard) => Ok(Some(shard)),
            Target::Any | Target::Rows(_) | Target::Fill => Ok(None),
        }
    }

    /// Runs a simple Query that inserts rows on several shards.
    pub(super) async fn insert_query(
        &mut self,
        text: &str,
        plan: &Plan,
        placed: &Placed,
    ) -> Result<(), Stop> {
        self.rest_pinned();
        let inserting = Inserting {
            plan,
            text,
            placed,
            bound: None,
            is_described: true,
        };
        let answered = self.insert(&inserting).await?;
        self.end_query(&tag(plan, &answered)).await
    }

    /// Executes a kept portal that inserts rows on several shards.
    pub(super) async fn execute_insert(
        &mut self,
        portal: ScatterPortal,
        placed: &Placed,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        let inserting = Inserting {
            plan: &prepared.plan,
            text: prepared.sql(),
            placed,
            bound: Some((prepared, Bind::read(frame::body(&portal.bind))?)),
            is_described: portal.is_described,
        };
        if max_rows > 0 {
            self.capture();
            let answered = self.insert(&inserting).await;
            let captured = self.captured();
            let answered = answered?;
            let tag = tag(&prepared.plan, &answered);
            let kept = captured.portal(&answered.descriptions, &tag);
            return self.execute_kept(&portal.portal, kept, max_rows).await;
        }
        let answered = self.insert(&inserting).await?;
        // It has run: what is left of its answer is its end.
        self.statements.put_portal(&portal.portal, Portal::Partial);
        let mut words = Vec::new();
        command_complete(&mut words, &tag(&prepared.plan, &answered));
        self.say(words);
        Ok(())
    }

    async fn insert(&mut self, inserting: &Inserting<'_>) -> Result<Answered, Stop> {
        let (text, placed) = (inserting.text, inserting.placed);
        let parts = placed.parts(text);
        let shards = placed.shards();
        let joins = self.check_scatter(inserting.plan, &shards).await?;
        self.note_temporary(inserting.plan);
        let types = match placed.needs_types() {
            true => self.inferred_types(inserting, joins, &shards).await?,
            false => match &inserting.bound {
                Some((prepared, _)) => prepared.types.to_vec(),
                None => Vec::new(),
            },
        };
        let mut requests = VecDeque::with_capacity(parts.len());
        for part in &parts {
            requests.push_back(self.part_request(part, inserting, &types)?);
        }
        let gathered = self.gather(&shards, joins, &[]).await?;
        if inserting.bound.is_some() {
            self.acknowledge_bind();
        }
        let requests = RefCell::new(requests);
        // Connections are in the order of shards, as the parts are.
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            requests.borrow_mut().pop_front().unwrap_or_default()
        };
        let high_water_bytes = self.high_water_bytes();
        let mut scatter =
            Scatter::start(gathered, request, inserting.is_described, high_water_bytes);
        if inserting.bound.is_none() {
            scatter = scatter.of_query();
        }
        let scatter = scatter.ordered(placed.order());
        let driven = self.drive(scatter).await;
        driven.map_err(|stop| match stop {
            Stop::Words(words) => Stop::Words(self.restored(&words, inserting, &parts)),
            other => other,
        })
    }

    /// The messages by which a shard gets its part, up to its Sync.
    fn part_request(
        &self,
        part: &RowsPart,
        inserting: &Inserting<'_>,
        types: &[u32],
    ) -> Result<Vec<u8>> {
        let text = self.encoded(&part.text)?;
        let kept = part.parameters.iter();
        let types: Vec<u32> = kept
            .map(|index| types.get(*index).copied().unwrap_or(0))
            .collect();
        let mut out = Vec::with_capacity(part.text.len() + 256);
        frontend::write_parse(&mut out, b"", &text, &types);
        match &inserting.bound {
            Some((_, bind)) => write_part_bind(&mut out, part, bind),
            None => out.extend_from_slice(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0"),
        }
        describe_and_execute(&mut out, b"");
        Ok(out)
    }

    /// The types of the parameters of the whole statement, as a server infers them.
    async fn inferred_types(
        &mut self,
        inserting: &Inserting<'_>,
        joins: Joins,
        shards: &ShardSet,
    ) -> Result<Vec<u32>, Stop> {
        let first: ShardSet = shards.iter().take(1).collect();
        let mut gathered = self.gather(&first, joins, &[]).await?;
        let Some((_, mut held)) = gathered.pop() else {
            return Err(Stop::Gone);
        };
        let declared = match &inserting.bound {
            Some((prepared, _)) => &*prepared.types,
            None => &[],
        };
        let mut described = Described::default();
        let mut messages = Vec::new();
        let text = self.encoded(inserting.text)?;
        request::write_describe(&mut messages, &text, declared);
        frontend::write_sync(&mut messages);
        let mut note = |tag, body: &[u8]| described.note(tag, body);
        let asked = held.lease.ask(&messages, &mut note).await;
        let is_open = self.transaction.is_on_shard();
        let status = match &asked {
            Ok(()) if is_open => Some(Status::Transaction),
            Ok(()) => Some(Status::Idle),
            Err(Failed::Refused(_)) if is_open => Some(Status::Failed),
            Err(Failed::Refused(_)) => Some(Status::Idle),
            Err(Failed::Lost(_)) => None,
        };
        self.after_scatter(vec![Ended {
            connection: held,
            status,
            is_bound: true,
            affected: 0,
            is_suspended: false,
            description: None,
        }]);
        asked.map_err(failed)?;
        // Types that users made have other numbers on other servers; there they are inferred alike.
        let of_all = |oid: u32| if oid < FIRST_USER_OID { oid } else { 0 };
        Ok(described.types.into_iter().map(of_all).collect())
    }

    /// A shard's error in terms of the client's text.
    fn restored(&self, error: &[u8], inserting: &Inserting<'_>, parts: &[RowsPart]) -> Vec<u8> {
        // The executor has named the shard at the end of CONTEXT.
        let part = parts.iter().find(|part| {
            let name = format!("shard {}\0", self.database.shard_name(part.shard));
            memchr::memmem::find(error, name.as_bytes()).is_some()
        });
        let Some(part) = part else {
            return error.to_vec();
        };
        let edits = inserting.placed.edits(inserting.text, part.shard);
        let shifts = Shifts::of(inserting.text, &edits);
        let body = frame::body(error);
        let original = |position| shifts.original(position);
        match report::moved(body, original) {
            Some(body) => {
                let mut out = Vec::with_capacity(body.len() + 5);
                message(&mut out, b'E', |out| out.extend_from_slice(&body));
                out
            }
            None => error.to_vec(),
        }
    }
}

/// The first OID of types that users made.
const FIRST_USER_OID: u32 = 16_384;

/// Appends a Bind with the parameters of a part.
fn write_part_bind(out: &mut Vec<u8>, part: &RowsPart, bind: &Bind<'_>) {
    let parameters = Parameters::new(&[], bind.formats, bind.values);
    let count = u16::try_from(part.parameters.len()).unwrap_or(u16::MAX);
    message(out, b'B', |body| {
        cstring(body, b"");
        cstring(body, b"");
        body.extend_from_slice(&count.to_be_bytes());
        for index in &part.parameters {
            let code: i16 = match parameters.format(*index) {
                Some(Format::Binary) => 1,
                _ => 0,
            };
            body.extend_from_slice(&code.to_be_bytes());
        }
        body.extend_from_slice(&count.to_be_bytes());
        for index in &part.parameters {
            match parameters.value(*index).flatten() {
                None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
                    body.extend_from_slice(&length.to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        let formats = u16::try_from(bind.results.len() / 2).unwrap_or(u16::MAX);
        body.extend_from_slice(&formats.to_be_bytes());
        body.extend_from_slice(bind.results);
    });
}
