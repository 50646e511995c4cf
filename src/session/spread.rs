//! Portals over several shards whose rows the client fetches in parts.
//!
//! Inside a transaction such a portal is one portal on each shard, under a name of the proxy's; its rows
//! are the first shard's, then the second's, and so on. Outside a transaction a portal ends with its
//! batch, so the first part is all that is served.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::scatter::Scatter;
use crate::pool::Lease;
use crate::session::announce::needed;
use crate::session::kept::gives_rows;
use crate::session::prepared::Portal;
use crate::session::requests::portal_request;
use crate::session::scatter::{Answered, Joins, ScatterPortal, statement_and_bind, tag};
use crate::session::simple::aborted;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::txn::Transaction;
use crate::wire::backend::{command_complete, portal_suspended};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Subject};

/// A portal that is open on several shards.
#[derive(Clone, Debug)]
pub struct SpreadPortal {
    /// The name under which the shards know it.
    name: Arc<str>,
    shards: Arc<[ShardIndex]>,
    /// Which of the shards is read.
    at: usize,
}

impl Session {
    /// Serves the first part of a kept portal's rows.
    pub(super) async fn execute_in_parts(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        if self.writes(&portal.prepared.plan) {
            return self.execute_and_keep(portal, max_rows).await;
        }
        if self.transaction == Transaction::Idle {
            return self.execute_once(portal, max_rows).await;
        }
        let plan = &portal.prepared.plan;
        self.check_scatter(plan, &portal.shards).await?;
        let gathered = self
            .gather(&portal.shards, Joins::Reading, &needed(&portal.prepared))
            .await?;
        self.acknowledge_bind();
        let bind = Bind::read(frame::body(&portal.bind))?;
        let name = self.statements.next_portal();
        let renamed = Bind {
            portal: name.as_bytes(),
            ..bind
        };
        let request = |lease: &mut Lease| {
            let mut out = statement_and_bind(lease, &portal.prepared, &renamed);
            frontend::write_subject(&mut out, b'D', Subject::Portal, renamed.portal);
            frontend::write_sync(&mut out);
            out
        };
        let scatter = Scatter::start(gathered, request, portal.is_described, HIGH_WATER_BYTES);
        let scatter = scatter.expecting(self.expected(bind.statement));
        self.drive(scatter).await?;
        let spread = SpreadPortal {
            name: name.as_str().into(),
            shards: portal.shards.iter().collect(),
            at: 0,
        };
        self.execute_spread(&portal.portal, spread, max_rows).await
    }

    /// Runs a statement that changes rows to its end on every shard, whatever part of what it returns
    /// is fetched.
    async fn execute_and_keep(&mut self, portal: ScatterPortal, max_rows: i32) -> Result<(), Stop> {
        let plan = &portal.prepared.plan;
        let joins = self.check_scatter(plan, &portal.shards).await?;
        let needed = needed(&portal.prepared);
        let gathered = self.gather(&portal.shards, joins, &needed).await?;
        self.acknowledge_bind();
        let bind = Bind::read(frame::body(&portal.bind))?;
        let request = |lease: &mut Lease| portal_request(lease, &portal.prepared, &bind);
        let scatter = Scatter::start(gathered, request, portal.is_described, HIGH_WATER_BYTES);
        let scatter = scatter.expecting(self.expected(bind.statement));
        self.capture();
        let answered = self.drive(scatter).await;
        let captured = self.captured();
        let answered = answered?;
        let tag = tag(plan, &answered);
        if !gives_rows(&answered.descriptions) {
            let mut words = captured.bytes().to_vec();
            command_complete(&mut words, &tag);
            self.say(words);
            return Ok(());
        }
        let kept = captured.portal(&answered.descriptions, &tag);
        self.execute_kept(&portal.portal, kept, max_rows).await
    }

    /// Serves a part of a portal that ends with it.
    async fn execute_once(&mut self, portal: ScatterPortal, max_rows: i32) -> Result<(), Stop> {
        let plan = &portal.prepared.plan;
        let joins = self.check_scatter(plan, &portal.shards).await?;
        let gathered = self
            .gather(&portal.shards, joins, &needed(&portal.prepared))
            .await?;
        self.acknowledge_bind();
        let bind = Bind::read(frame::body(&portal.bind))?;
        let request = |lease: &mut Lease| {
            let mut out = statement_and_bind(lease, &portal.prepared, &bind);
            frontend::write_subject(&mut out, b'D', Subject::Portal, bind.portal);
            frontend::write_execute(&mut out, bind.portal, max_rows);
            frontend::write_sync(&mut out);
            out
        };
        let limit = u64::from(max_rows.unsigned_abs());
        let scatter = Scatter::start(gathered, request, portal.is_described, HIGH_WATER_BYTES);
        let scatter = scatter.expecting(self.expected(bind.statement));
        let rows = self.drive(scatter.limited(limit)).await?.rows;
        self.statements.put_portal(&portal.portal, Portal::Partial);
        self.say_part(rows, rows == limit);
        Ok(())
    }

    /// Serves the next part of a portal's rows.
    pub(super) async fn execute_spread(
        &mut self,
        name: &[u8],
        mut portal: SpreadPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        if !self.transaction.is_on_shard() || self.transaction == Transaction::Failed {
            return Err(aborted().into());
        }
        let wanted = u64::try_from(max_rows).ok().filter(|rows| *rows > 0);
        let mut passed = 0;
        let is_suspended = loop {
            let limit = wanted.map_or(0, |wanted| wanted - passed);
            let answered = self.part_on(&portal, limit).await?;
            passed += answered.rows;
            if answered.is_suspended {
                break true;
            }
            if portal.at + 1 >= portal.shards.len() {
                break false;
            }
            portal.at += 1;
        };
        self.statements.put_portal(name, Portal::Spread(portal));
        self.say_part(passed, is_suspended);
        Ok(())
    }

    async fn part_on(&mut self, portal: &SpreadPortal, limit: u64) -> Result<Answered, Stop> {
        let gathered = self
            .gather(&portal.on_shard()?, Joins::Reading, &[])
            .await?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let request = |_: &mut Lease| {
            let mut out = Vec::new();
            frontend::write_execute(&mut out, portal.name.as_bytes(), limit);
            frontend::write_sync(&mut out);
            out
        };
        let scatter = Scatter::start(gathered, request, false, HIGH_WATER_BYTES).described();
        self.drive(scatter).await
    }

    /// Describes a portal that is open on several shards.
    pub(super) async fn describe_spread(&mut self, portal: &SpreadPortal) -> Result<(), Stop> {
        let gathered = self
            .gather(&portal.on_shard()?, Joins::Reading, &[])
            .await?;
        let request = |_: &mut Lease| {
            let mut out = Vec::new();
            frontend::write_subject(&mut out, b'D', Subject::Portal, portal.name.as_bytes());
            frontend::write_sync(&mut out);
            out
        };
        let scatter = Scatter::start(gathered, request, true, HIGH_WATER_BYTES);
        self.drive(scatter).await.map(drop)
    }

    pub(super) fn say_part(&mut self, rows: u64, is_suspended: bool) {
        if !is_suspended {
            return self.conclude(Vec::new(), &format!("SELECT {rows}"));
        }
        let mut words = Vec::new();
        portal_suspended(&mut words);
        self.say(words);
    }
}

impl SpreadPortal {
    /// The shard that is read.
    fn on_shard(&self) -> Result<ShardSet> {
        let shard = self.shards.get(self.at).copied();
        let shard = shard.ok_or_else(|| Error::protocol("a portal stands on no shard"))?;
        Ok(ShardSet::from_iter([shard]))
    }
}
