//! COPY TO STDOUT of rows of several shards: their own data one behind the other, or a hub's.

use std::borrow::BorrowMut;
use std::task::Poll;
use std::time::Duration;

use crate::error::Error;
use crate::exec::scatter::Failure;
use crate::exec::scatter::copying::{CopyOut, Frills};
use crate::plan::Plan;
use crate::pool::Lease;
use crate::session::control::Signal;
use crate::session::scatter::LARGEST_SETTLING;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::ShardSet;
use crate::sql::statement::{Copy, CopyDirection, CopyFormat, CopyHeader, CopySource, Statement};
use crate::sql::token::slice;
use crate::sqlstate::SqlState;
use crate::wire::backend::Status;

/// What the data of a COPY TO has beside rows; none if the plan is no COPY TO.
pub(super) fn copy_out(plan: &Plan) -> Option<Frills> {
    let Statement::Copy(copy) = &plan.statement else {
        return None;
    };
    if copy.direction == CopyDirection::From {
        return None;
    }
    Some(match (copy.options.format, copy.options.header) {
        (CopyFormat::Binary, _) => Frills::Binary,
        (_, CopyHeader::Absent) => Frills::None,
        _ => Frills::Header,
    })
}

/// The part of a statement that a server can describe, in its text as the client wrote it and as it is now.
pub(super) fn describable<'a>(plan: &Plan, text: &str, now: &'a str) -> &'a str {
    let range = match &plan.statement {
        Statement::Declare { body, .. } => body,
        Statement::Copy(copy) => match &**copy {
            Copy {
                source: CopySource::Query(range),
                ..
            } => range,
            _ => return now,
        },
        _ => return now,
    };
    // What stands around the query is the same.
    let behind = text.len().saturating_sub(range.end as usize);
    let end = u32::try_from(now.len().saturating_sub(behind)).unwrap_or(u32::MAX);
    slice(now, range.start..end)
}

impl Session {
    /// Sends the client the data of all shards; the number of rows.
    pub(super) async fn copy_from_shards(
        &mut self,
        text: &[u8],
        plan: &Plan,
        (shards, frills): (&ShardSet, Frills),
    ) -> Result<u64, Stop> {
        let joins = self.check_scatter(plan, shards).await?;
        let gathered = self.gather(shards, joins, &[]).await?;
        let mut copying = CopyOut::start(gathered, text, frills, HIGH_WATER_BYTES);
        let end = self.pump_copy(&mut copying).await;
        let is_mid_row = copying.is_mid_row();
        match end {
            Ok(Ok(rows)) => {
                self.after_scatter(copying.end());
                Ok(rows)
            }
            Ok(Err(_)) if is_mid_row => Err(Stop::Gone),
            Ok(Err(failure)) => {
                copying.stop(LARGEST_SETTLING).await;
                self.after_scatter(copying.end());
                match self.scatter_failed(failure) {
                    Err(stop) => Err(stop),
                    Ok(_) => Err(Stop::Gone),
                }
            }
            Err(()) => {
                copying.stop(Duration::ZERO).await;
                Err(Stop::Gone)
            }
        }
    }

    /// Sends the client the data of a hub; the number of rows, and whether the hub is in order.
    pub(super) async fn copy_from_hub(
        &mut self,
        text: &[u8],
        (shard, hub): (String, &mut Lease),
        frills: Frills,
    ) -> (Result<u64, Stop>, bool) {
        let mut copying = CopyOut::start(vec![(shard, hub)], text, frills, HIGH_WATER_BYTES);
        let end = self.pump_copy(&mut copying).await;
        let is_mid_row = copying.is_mid_row();
        if !matches!(end, Ok(Ok(_))) {
            copying.stop(LARGEST_SETTLING).await;
        }
        let status: Option<Status> = copying.end().pop().and_then(|one| one.status);
        let end = match end {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(_)) if is_mid_row => Err(Stop::Gone),
            Ok(Err(failure)) => match self.scatter_failed(failure) {
                Err(stop) => Err(stop),
                Ok(_) => Err(Stop::Gone),
            },
            Err(()) => Err(Stop::Gone),
        };
        (end, status.is_some())
    }

    /// Moves data to the client; fails if it or its session has gone.
    async fn pump_copy<C: BorrowMut<Lease>>(
        &mut self,
        copying: &mut CopyOut<C>,
    ) -> Result<Result<u64, Failure>, ()> {
        if self.unit.captured.is_some() {
            let error = Error::new(SqlState::INTERNAL_ERROR, "the data of a COPY can't be kept");
            return Ok(Err(Failure::Own(error)));
        }
        self.unit.make_final();
        let control = &self.registered.control;
        let client = &mut self.client.socket;
        let end = std::future::poll_fn(|cx| {
            loop {
                let polled = copying.poll(cx, &mut client.output);
                if polled.is_ready() {
                    return polled.map(Ok);
                }
                if control.poll_told(cx) == Signal::Terminate {
                    return Poll::Ready(Err(()));
                }
                let before = client.output.len();
                match client.poll_flush(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                    // Room again for data that had to wait for it.
                    _ if before >= HIGH_WATER_BYTES && client.output.len() < HIGH_WATER_BYTES => {}
                    _ => return Poll::Pending,
                }
            }
        })
        .await;
        if let Some(began) = self.unit.latest() {
            let is_done = self.transaction == crate::txn::Transaction::Idle;
            let tally = &mut self.registered.tally;
            tally.served(began, began.elapsed(), is_done);
        }
        end
    }
}
