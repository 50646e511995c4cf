//! `now()` in a transaction that uses several shards: all of them tell the moment of the one on which it was opened
//! first.
//!
//! Each server has a time of its own for a transaction: that at which it joined. What holds:
//! - What goes to the first shard is left as it is, so that a transaction on one shard costs nothing.
//! - Elsewhere, and over several shards, the first shard's time stands in the text in the place of the calls that name
//!   it, and of the defaults of the rows that are inserted. It is asked for once.
//! - What functions, triggers and views of users call is each server's own.

use std::ops::Range;
use std::sync::Arc;

use crate::plan::defaults::Form;
use crate::plan::{Access, Clock, Plan, Target};
use crate::session::change::MOMENT;
use crate::session::database::Database;
use crate::session::fill::{incomplete, written};
use crate::session::pseudo::Expanded;
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::shifts::Shifts;
use crate::sql::splice::splice;
use crate::txn::Transaction;

/// The shard whose time it is if none has been used yet.
const FIRST_SHARD: ShardIndex = 0;

impl Session {
    /// A statement that names the transaction's time, with that in its text; none if the shard that it goes to, or
    /// nobody, need be told.
    ///
    /// # Errors
    /// What keeps the first shard from telling.
    pub(super) async fn with_moment(
        &mut self,
        (text, plan): (&str, &Plan),
        target: &Target,
        types: &[u32],
    ) -> Result<Option<Expanded>, Stop> {
        let Some(moments) = &plan.moments else {
            return Ok(None);
        };
        // Rows of several shards get their defaults in another way.
        let clock = moments.defaults.as_ref();
        let clock = clock.filter(|_| matches!(target, Target::One(_) | Target::Replicated));
        if !(moments.are_named() || clock.is_some()) || !self.is_elsewhere(target) {
            return Ok(None);
        }
        Box::pin(self.told_moment((text, plan, clock), target, types)).await
    }

    async fn told_moment(
        &mut self,
        (text, plan, clock): (&str, &Plan, Option<&Clock>),
        target: &Target,
        types: &[u32],
    ) -> Result<Option<Expanded>, Stop> {
        self.drain().await?;
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        if self.is_elsewhere(target) {
            self.open_first().await?;
        }
        if !self.is_elsewhere(target) {
            return Ok(None);
        }
        let options = Database::lex_options(self.settings.context());
        let mut edits = Vec::new();
        if plan.moments.as_ref().is_some_and(|one| one.are_named()) {
            let moment = self.moment().await?;
            edits.extend(plan.at_moment(text, options, &moment)?);
        }
        if let Some(clock) = clock {
            let values = self.clock_values(clock).await?;
            edits.extend(clock.edits(text, options, &values)?);
        }
        let told = splice(text, options, &edits)?;
        Ok(Some(Expanded {
            study: self.study(Some(&told), types)?,
            shifts: Shifts::of(text, &edits),
            text: told,
        }))
    }

    /// Whether one of several statements for a shard must be told the transaction's time.
    pub(super) fn is_told_moments(
        &self,
        plans: &[(Range<u32>, Arc<Plan>)],
        shard: Option<ShardIndex>,
    ) -> bool {
        let target = shard.map_or(Target::Any, Target::One);
        let mut plans = plans.iter().map(|(_, plan)| plan);
        plans.any(|plan| plan.moments.is_some()) && self.is_elsewhere(&target)
    }

    /// Whether a statement runs, or may run, where the transaction has another time than its first shard.
    fn is_elsewhere(&self, target: &Target) -> bool {
        let at_work = self.server.as_ref().map(|held| held.shard);
        let first = match &self.transaction {
            // It joins then.
            Transaction::Begun(_) if !self.needs_snapshots() => match target {
                Target::One(_) | Target::Any => return false,
                _ => None,
            },
            Transaction::Begun(_) => None,
            Transaction::Open => self.others.first,
            Transaction::Idle if self.batch.is_sent() && !self.may_leave_batch() => at_work,
            _ => return false,
        };
        match target {
            Target::One(shard) => first != Some(*shard),
            Target::Any => first != at_work,
            _ => true,
        }
    }

    /// Has the transaction at hand be open on a shard, if it is on none.
    async fn open_first(&mut self) -> Result<(), Stop> {
        match &self.transaction {
            Transaction::Idle => self.begin_implicit().await,
            Transaction::Begun(_) => {
                let need = Need {
                    shard: Some(FIRST_SHARD),
                    access: Access::Read,
                    writes: false,
                    is_sticky: false,
                    may_detach: false,
                };
                self.hold(need).await
            }
            _ => Ok(()),
        }
    }

    /// The time of the transaction at hand.
    async fn moment(&mut self) -> Result<String, Stop> {
        if self.others.moment.is_none() {
            let asked = self.ask(&self.time_shard(), MOMENT).await?;
            let moment = asked.into_iter().next().flatten().ok_or_else(incomplete)?;
            self.others.moment = Some(moment.into_bytes().into());
        }
        let moment = self.others.moment.as_deref().unwrap_or_default();
        Ok(String::from_utf8_lossy(moment).into_owned())
    }

    /// The values of the defaults that all rows of a statement share, as SQL.
    pub(super) async fn clock_values(&mut self, clock: &Clock) -> Result<Vec<String>, Stop> {
        let mut values = Vec::new();
        for column in clock.columns() {
            let first = self.time_shard();
            let evaluated = self.evaluated_on(&first, (&clock.table, column), (1, Form::Text));
            values.extend(evaluated.await?.into_iter().map(written));
        }
        Ok(values)
    }

    /// The shard that tells the time.
    pub(super) fn time_shard(&self) -> ShardSet {
        let first = match self.transaction.is_on_shard() {
            true => self.others.first,
            false => None,
        };
        ShardSet::from_iter([first.unwrap_or(FIRST_SHARD)])
    }
}
