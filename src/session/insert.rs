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
use std::sync::Arc;

use crate::backend::report;
use crate::error::{Error, Result};
use crate::exec::combine::request::{self, FIRST_USER_OID, Parameter};
use crate::exec::scatter::Scatter;
use crate::plan::{
    Arguments, Computed, Expressions, Parameters, PartParameter, Placed, Plan, RowsPart, Target,
    together,
};
use crate::pool::Lease;
use crate::session::kept::gives_rows;
use crate::session::prepared::Prepared;
use crate::session::scatter::{Answered, Joins, ScatterPortal, Way, tag};
use crate::session::simple::placed_back;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardIndex, ShardSet};
use crate::sql::encoding::Encoding;
use crate::sql::shape::Literal;
use crate::sql::shifts::Shifts;
use crate::sql::splice::edited;
use crate::sqlstate::SqlState;
use crate::wire::buffer::message;
use crate::wire::frame;
use crate::wire::frontend::Bind;

/// An execution.
struct Inserting<'a> {
    plan: &'a Plan,
    text: &'a str,
    literals: &'a [Literal],
    /// None if expressions have to be evaluated first.
    placed: Option<Arc<Placed>>,
    /// None for a simple Query.
    bound: Option<(&'a Prepared, Bind<'a>)>,
    is_described: bool,
    /// The client fetches the rows returned in parts.
    keeps_rows: bool,
}

/// A part of the rows, and all that its messages are made of.
struct Ready<'a> {
    placed: &'a Placed,
    /// The types of the client's parameters.
    types: &'a [u32],
    /// The values of expressions.
    computed: &'a [Computed],
}

/// Whether a server would accept a Bind of the statement: it has as many values as the statement has
/// parameters, and each of these has a type. If not, any server says so.
fn accepts(prepared: &Prepared, bind: &Bind<'_>) -> bool {
    let Some(insertion) = prepared.plan.insertion() else {
        return false;
    };
    let used = insertion.parameters(prepared.sql());
    let count = used.len().max(prepared.types.len());
    let is_known = |index: usize| {
        used.get(index) == Some(&true) || prepared.types.get(index).is_some_and(|oid| *oid != 0)
    };
    usize::from(bind.count) == count && (0..count).all(is_known)
}

/// Whether a simple Query names parameters: any server says that there are none.
pub(super) fn names_parameters(plan: &Plan, text: &str) -> bool {
    let insertion = plan.insertion();
    insertion.is_none_or(|insertion| !insertion.parameters(text).is_empty())
}

impl<'a> Inserting<'a> {
    fn declared(&self) -> &'a [u32] {
        match &self.bound {
            Some((prepared, _)) => &prepared.types,
            None => &[],
        }
    }

    fn arguments<'b>(&'b self, types: &'b [u32], encoding: Encoding) -> Arguments<'b> {
        Arguments {
            text: self.text,
            literals: self.literals,
            parameters: match &self.bound {
                Some((_, bind)) => Parameters::new(types, bind.formats, bind.values),
                None => Parameters::none(),
            },
            encoding,
        }
    }
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
            Target::Rows(placed) if accepts(prepared, bind) => {
                Err((placed.shards(), Way::Rows(Some(placed))))
            }
            // Any shard can describe it.
            Target::Computed if accepts(prepared, bind) => {
                Err((ShardSet::from_iter([0]), Way::Rows(None)))
            }
            Target::Feed => Err((ShardSet::from_iter([0]), Way::Feed)),
            Target::Staged => Err((ShardSet::from_iter([0]), Way::Staged)),
            Target::One(shard) => Ok(Some(shard)),
            Target::Any | Target::Rows(_) | Target::Computed | Target::Fill => Ok(None),
        }
    }

    /// Runs a simple Query that inserts rows on several shards.
    pub(super) async fn insert_query(
        &mut self,
        text: &str,
        plan: &Plan,
        target: Target,
    ) -> Result<(), Stop> {
        self.rest_pinned();
        let placed = match target {
            Target::Rows(placed) => Some(placed),
            _ => None,
        };
        let literals = std::mem::take(&mut self.shape.literals);
        let inserting = Inserting {
            plan,
            text,
            literals: &literals,
            placed,
            bound: None,
            is_described: true,
            keeps_rows: false,
        };
        let answered = self.insert(&inserting).await;
        self.shape.literals = literals;
        self.end_query(&tag(plan, &answered?)).await
    }

    /// Executes a kept portal that inserts rows on several shards.
    pub(super) async fn execute_insert(
        &mut self,
        portal: ScatterPortal,
        placed: Option<Arc<Placed>>,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        let inserting = Inserting {
            plan: &prepared.plan,
            text: prepared.sql(),
            literals: &prepared.literals,
            placed,
            bound: Some((prepared, Bind::read(frame::body(&portal.bind))?)),
            is_described: portal.is_described,
            keeps_rows: max_rows > 0,
        };
        let answered = self.insert(&inserting).await;
        let captured = self.captured();
        let answered = answered?;
        let tag = tag(&prepared.plan, &answered);
        if inserting.keeps_rows && gives_rows(&answered.descriptions) {
            let kept = captured.portal(&answered.descriptions, &tag);
            return self.execute_kept(&portal.portal, kept, max_rows).await;
        }
        self.conclude(captured.bytes().to_vec(), &tag);
        Ok(())
    }

    async fn insert(&mut self, inserting: &Inserting<'_>) -> Result<Answered, Stop> {
        self.note_temporary(inserting.plan);
        let mut types = inserting.declared().to_vec();
        let Some(placed) = &inserting.placed else {
            let insertion = inserting.plan.insertion().cloned();
            let insertion = insertion.ok_or_else(|| Stop::from(without_plan()))?;
            let encoding = self.settings.context().encoding;
            let expressions = insertion.expressions(&inserting.arguments(&types, encoding))?;
            if expressions.needs_types {
                types = self.inferred_types(inserting, Joins::Keeping, 0).await?;
            }
            let computed = self
                .computed_values(inserting, &expressions, &types)
                .await?;
            let arguments = inserting.arguments(&types, encoding);
            let placed = insertion.place(&arguments, &expressions, &computed)?;
            let ready = Ready {
                placed: &placed,
                types: &types,
                computed: &computed,
            };
            return self.insert_placed(inserting, &ready).await;
        };
        if placed.needs_types() {
            let first = placed.shards().iter().next().unwrap_or_default();
            let joins = self.check_several(inserting.plan, &placed.shards()).await?;
            types = self.inferred_types(inserting, joins, first).await?;
        }
        let ready = Ready {
            placed,
            types: &types,
            computed: &[],
        };
        self.insert_placed(inserting, &ready).await
    }

    /// What the expressions of the rows give.
    async fn computed_values(
        &mut self,
        inserting: &Inserting<'_>,
        expressions: &Expressions,
        types: &[u32],
    ) -> Result<Vec<Computed>, Stop> {
        let mut computed = Vec::with_capacity(expressions.list.len());
        let given = inserting.arguments(types, self.settings.context().encoding);
        for some in expressions.list.chunks(MOST_COLUMNS) {
            let (edits, indexes) = together(inserting.text, some);
            let shifts = Shifts::of(inserting.text, &edits);
            let text = edited(inserting.text, &edits);
            let parameters: Vec<Parameter<'_>> = indexes
                .iter()
                .map(|index| {
                    let format = given.parameters.format(*index).unwrap_or(Format::Text);
                    let value = given.parameters.value(*index).flatten();
                    (given.parameters.type_oid(*index), format, value)
                })
                .collect();
            let selected = self.select(&text, &parameters).await;
            let selected = selected.map_err(|stop| placed_back(stop, &shifts))?;
            let mut rows = 0;
            selected.each(|values| {
                rows += 1;
                let columns = selected.columns.iter().zip(values);
                computed.extend(columns.map(|((type_oid, format), value)| {
                    (*type_oid, *format, value.map(<[u8]>::to_vec))
                }));
                Ok(())
            })?;
            if rows != 1 {
                return Err(several_values().into());
            }
        }
        Ok(computed)
    }

    async fn insert_placed(
        &mut self,
        inserting: &Inserting<'_>,
        ready: &Ready<'_>,
    ) -> Result<Answered, Stop> {
        let placed = ready.placed;
        let parts = placed.parts(inserting.text);
        let shards = placed.shards();
        let joins = self.check_scatter(inserting.plan, &shards).await?;
        let mut requests = VecDeque::with_capacity(parts.len());
        for part in &parts {
            requests.push_back(self.part_request(part, inserting, ready)?);
        }
        let gathered = self.gather(&shards, joins, &[]).await?;
        self.acknowledge_bind();
        let requests = RefCell::new(requests);
        // Connections are in the order of shards, as the parts are.
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            requests.borrow_mut().pop_front().unwrap_or_default()
        };
        if inserting.keeps_rows {
            self.capture();
        }
        let high_water_bytes = self.high_water_bytes();
        let mut scatter =
            Scatter::start(gathered, request, inserting.is_described, high_water_bytes);
        if inserting.bound.is_none() {
            scatter = scatter.of_query();
        }
        let scatter = scatter.ordered(placed.order()).changing(true);
        let driven = self.drive(scatter).await;
        driven.map_err(|stop| match stop {
            Stop::Words(words) => {
                Stop::Words(self.restored(&words, (inserting.text, placed), &parts))
            }
            other => other,
        })
    }

    /// The messages by which a shard gets its part, up to its Sync.
    fn part_request(
        &self,
        part: &RowsPart,
        inserting: &Inserting<'_>,
        ready: &Ready<'_>,
    ) -> Result<Vec<u8>> {
        let text = self.encoded(&part.text)?;
        let given = inserting.arguments(ready.types, self.settings.context().encoding);
        let parameter = |parameter: &PartParameter| -> Parameter<'_> {
            match parameter {
                PartParameter::Client(index) => (
                    given.parameters.type_oid(*index),
                    given.parameters.format(*index).unwrap_or(Format::Text),
                    given.parameters.value(*index).flatten(),
                ),
                PartParameter::Computed(index) => match ready.computed.get(*index) {
                    Some((type_oid, format, value)) => (*type_oid, *format, value.as_deref()),
                    None => (0, Format::Text, None),
                },
            }
        };
        let parameters: Vec<Parameter<'_>> = part.parameters.iter().map(parameter).collect();
        let results = match &inserting.bound {
            Some((_, bind)) => bind.results.chunks(2).map(|code| code == [0, 1]).collect(),
            None => Vec::new(),
        };
        let mut out = Vec::with_capacity(part.text.len() + 256);
        request::write_select(&mut out, &text, &parameters, &results);
        Ok(out)
    }

    /// The types of the parameters of the whole statement, as a server infers them.
    async fn inferred_types(
        &mut self,
        inserting: &Inserting<'_>,
        joins: Joins,
        shard: ShardIndex,
    ) -> Result<Vec<u32>, Stop> {
        let first = ShardSet::from_iter([shard]);
        let statement = (inserting.text, inserting.declared());
        let described = self.described_on(statement, joins, &first).await?;
        // Types that users made have other numbers on other servers; there they are inferred alike.
        let of_all = |oid: u32| if oid < FIRST_USER_OID { oid } else { 0 };
        Ok(described.types.into_iter().map(of_all).collect())
    }

    /// A shard's error in terms of the client's text.
    fn restored(
        &self,
        error: &[u8],
        (text, placed): (&str, &Placed),
        parts: &[RowsPart],
    ) -> Vec<u8> {
        // The executor has named the shard at the end of CONTEXT.
        let part = parts.iter().find(|part| {
            let name = format!("shard {}\0", self.database.shard_name(part.shard));
            memchr::memmem::find(error, name.as_bytes()).is_some()
        });
        let Some(part) = part else {
            return error.to_vec();
        };
        let edits = placed.edits(text, part.shard);
        let shifts = Shifts::of(text, &edits);
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

/// The most expressions that are evaluated at once: PostgreSQL allows 1,664 columns.
const MOST_COLUMNS: usize = 1_000;

fn several_values() -> Error {
    Error::refused(
        "INSERT of a value that is not one value is not supported",
        "An expression of the rows that has to be evaluated first gives several rows, or none.",
        "Use INSERT … SELECT.",
    )
}

fn without_plan() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "an INSERT without a plan for its rows was taken apart",
    )
}
