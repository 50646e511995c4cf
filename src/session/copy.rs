//! COPY FROM STDIN over several shards: from the client's statement to its data and back.
//!
//! What holds:
//! - The shards take part in one transaction: the client's, or one for the statement alone. It is committed
//!   on all of them or on none.
//! - While the client sends data, nothing else of it is handled. A Sync that comes among the data means
//!   nothing, as with PostgreSQL; what comes behind an error is dropped as PostgreSQL drops it.

use std::sync::Arc;
use std::task::Poll;

use crate::error::Error;
use crate::exec::copy::{CopyIn as Copying, Outcome};
use crate::exec::scatter::Failure;
use crate::plan::{CopyIn, Plan, Route};
use crate::session::control::Signal;
use crate::session::copy_out::copy_out;
use crate::session::held::Held;
use crate::session::scatter::ScatterPortal;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::ShardSet;
use crate::sqlstate::SqlState;
use crate::wire::backend::{command_complete, no_data};
use crate::wire::buffer::message;
use crate::wire::frame;

/// A COPY whose data the client is about to send.
pub(super) struct CopyAtHand {
    copy: Arc<CopyIn>,
    copying: Copying<Held>,
    /// It is a Query, which ends with it.
    is_query: bool,
}

/// The plan's COPY FROM STDIN over several shards.
pub(super) fn copy_in(plan: &Plan) -> Option<&Arc<CopyIn>> {
    match &plan.route {
        Route::CopyIn(copy) => Some(copy),
        _ => None,
    }
}

impl Session {
    /// Runs or begins the COPY of a simple Query.
    pub(super) async fn copy_query(
        &mut self,
        text: &[u8],
        plan: &Plan,
        shards: &ShardSet,
    ) -> Result<(), Stop> {
        if let Some(frills) = copy_out(plan) {
            let rows = self.copy_from_shards(text, plan, (shards, frills)).await?;
            return self.end_query(&format!("COPY {rows}")).await;
        }
        let Some(copy) = copy_in(plan) else {
            return Err(unplanned().into());
        };
        let read = self.settings.context().encoding.read(text);
        let read = read.unwrap_or_default().into_owned();
        self.begin_copy((&read, plan), copy, None).await
    }

    /// Runs or begins the COPY of a bound portal.
    pub(super) async fn copy_portal(&mut self, portal: &ScatterPortal) -> Result<(), Stop> {
        let plan = &portal.prepared.plan;
        if let Some(frills) = copy_out(plan) {
            self.drain().await?;
            self.acknowledge_copy(portal);
            let text = &portal.prepared.text;
            let from = (&portal.shards, frills);
            let rows = self.copy_from_shards(text, plan, from).await?;
            let mut words = Vec::new();
            command_complete(&mut words, &format!("COPY {rows}"));
            self.say(words);
            return Ok(());
        }
        let Some(copy) = copy_in(plan) else {
            return Err(unplanned().into());
        };
        let statement = (portal.prepared.sql(), &**plan);
        self.begin_copy(statement, copy, Some(portal)).await
    }

    /// BindComplete, and that there are no rows.
    fn acknowledge_copy(&mut self, portal: &ScatterPortal) {
        self.pay_owed();
        if portal.is_described {
            let mut words = Vec::new();
            no_data(&mut words);
            self.say(words);
        }
    }

    async fn begin_copy(
        &mut self,
        (text, plan): (&str, &Plan),
        copy: &Arc<CopyIn>,
        portal: Option<&ScatterPortal>,
    ) -> Result<(), Stop> {
        self.check_supplied(copy)?;
        let joins = self.check_scatter(plan, &copy.shards).await?;
        let supplied = self.supply_first(copy).await?;
        let most_bytes = self.database.limits.max_message_bytes;
        let most_bytes = usize::try_from(most_bytes).unwrap_or(usize::MAX);
        let encoding = self.settings.context().encoding;
        let mut splitter = copy.splitter(encoding, most_bytes)?;
        if let Some(splitter) = &mut splitter {
            splitter.supply(supplied)?;
        }
        let text = copy.text(text);
        let text = self.encoded(&text)?.into_owned();
        let gathered = self.gather(&copy.shards, joins, &[]).await?;
        if let Some(portal) = portal {
            self.acknowledge_copy(portal);
        }
        self.unit.make_final();
        let statement = (&*text, copy.table.as_str());
        let mut copying = Copying::start(gathered, statement, splitter, HIGH_WATER_BYTES);
        let control = &self.registered.control;
        let client = &mut self.client.socket;
        let opened = std::future::poll_fn(|cx| {
            if control.poll_told(cx) == Signal::Terminate {
                return Poll::Ready(None);
            }
            copying.poll_open(cx, client).map(Some)
        });
        match opened.await {
            None => Err(Stop::Gone),
            Some(Err(failure)) => self.copy_failed(copying, failure),
            Some(Ok(response)) => {
                match &copy.doubt {
                    Some(doubt) => copying.refuse(doubt.clone()),
                    None => {
                        let response = without_first(&response, copy.supplied.len());
                        self.client.socket.output.push(&response);
                    }
                }
                self.client.copying = Some(Box::new(CopyAtHand {
                    copy: Arc::clone(copy),
                    copying,
                    is_query: portal.is_none(),
                }));
                Ok(())
            }
        }
    }

    /// Takes the data of the COPY that has begun, and ends it.
    pub(super) async fn run_copy(&mut self, at_hand: CopyAtHand) -> Result<(), Stop> {
        let CopyAtHand {
            copy,
            mut copying,
            is_query,
        } = at_hand;
        let outcome = loop {
            let control = &self.registered.control;
            let client = &mut self.client.socket;
            let outcome = std::future::poll_fn(|cx| {
                if control.poll_told(cx) == Signal::Terminate {
                    return Poll::Ready(Outcome::Gone);
                }
                copying.poll(cx, client)
            });
            match outcome.await {
                Outcome::Wants(rows) => match self.supply_rows(&copy, rows).await {
                    Ok(values) => copying.supply(values),
                    Err(error) => copying.exhaust(error),
                },
                other => break other,
            }
        };
        self.put_back(&copy, copying.left());
        match outcome {
            Outcome::Gone | Outcome::Wants(_) => Err(Stop::Gone),
            Outcome::OutOfPlace(error) => Err(Stop::Session(error)),
            Outcome::Failed(failure) => self.copy_failed(copying, failure),
            Outcome::Copied(rows) => {
                self.after_scatter(copying.end());
                let tag = format!("COPY {rows}");
                if is_query {
                    return self.end_query(&tag).await;
                }
                let mut words = Vec::new();
                command_complete(&mut words, &tag);
                self.say(words);
                Ok(())
            }
        }
    }

    fn copy_failed(&mut self, copying: Copying<Held>, failure: Failure) -> Result<(), Stop> {
        self.after_scatter(copying.end());
        self.scatter_failed(failure).map(drop)
    }
}

/// A CopyInResponse without its first columns.
fn without_first(response: &[u8], columns: usize) -> Vec<u8> {
    let body = frame::body(response);
    let (Some((head, rest)), true) = (body.split_first_chunk::<3>(), columns > 0) else {
        return response.to_vec();
    };
    let kept = rest.get(columns * 2..).unwrap_or_default();
    let count = u16::try_from(kept.len() / 2).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(response.len());
    message(&mut out, b'G', |out| {
        out.push(head[0]);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(kept);
    });
    out
}

fn unplanned() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "a COPY of one shard was sent to several",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_asked_for_its_own_columns() {
        let response = b"G\0\0\0\x0d\x01\0\x03\0\x01\0\x01\0\x01";
        assert_eq!(without_first(response, 2), b"G\0\0\0\x09\x01\0\x01\0\x01");
        assert_eq!(without_first(response, 0), response);
    }
}
