//! Writes to replicated tables: the first shard, then the others in parallel (`plan/replicate`).
//!
//! The client sees the first shard's rows and tag. All shards take part in one transaction, which the
//! session begins if there is none; whatever fails on one of them fails the statement on all.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::replicate::{Evaluated, evaluate, write_evaluation, write_images};
use crate::exec::scatter::{Failure, Scatter};
use crate::net::buffer::Buffer;
use crate::plan::{Arguments, Carried, Images, Parameters, Plan};
use crate::pool::Lease;
use crate::session::announce::{needed, plain_bind};
use crate::session::control::Signal;
use crate::session::database::Database;
use crate::session::held::Held;
use crate::session::prepared::Prepared;
use crate::session::refusal::sequence_elsewhere;
use crate::session::scatter::{
    Answered, Joins, LARGEST_SETTLING, ScatterPortal, describe_and_execute, portal_request, tag,
};
use crate::session::{Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::shape::Literal;
use crate::sqlstate::SqlState;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// The shard whose answer counts.
const FIRST_SHARD: ShardIndex = 0;

/// A statement that writes to a replicated table.
pub(super) struct Written<'a> {
    pub plan: &'a Plan,
    pub text: &'a str,
    pub literals: &'a [Literal],
    /// Its statement and Bind, if it has parameters.
    pub portal: Option<(&'a Arc<Prepared>, Bind<'a>)>,
    /// It answers a Query.
    pub is_query: bool,
    /// The client wants the rows described.
    pub is_described: bool,
}

impl Written<'_> {
    fn arguments(&self, encoding: crate::sql::encoding::Encoding) -> Arguments<'_> {
        Arguments {
            text: self.text,
            literals: self.literals,
            parameters: match &self.portal {
                Some((prepared, bind)) => {
                    Parameters::new(&prepared.types, bind.formats, bind.values)
                }
                None => Parameters::none(),
            },
            encoding,
        }
    }

    /// The client's own messages for a shard.
    fn request(&self, lease: &mut Lease, text: &[u8]) -> Vec<u8> {
        if let Some((prepared, bind)) = &self.portal {
            // It runs to its end at once: no portal of the client's name is left there.
            let bind = Bind {
                portal: b"",
                ..*bind
            };
            return portal_request(lease, prepared, &bind);
        }
        lease.unnamed = None;
        let mut out = Vec::new();
        frontend::write_parse(&mut out, b"", text, &[]);
        frontend::write_bind(&mut out, &plain_bind(b"", b""), b"");
        describe_and_execute(&mut out, b"");
        out
    }
}

impl Session {
    /// Runs a simple Query that writes to a replicated table.
    pub(super) async fn replicate_query(&mut self, text: &str, plan: &Plan) -> Result<(), Stop> {
        self.rest_pinned();
        let literals = std::mem::take(&mut self.shape.literals);
        let written = Written {
            plan,
            text,
            literals: &literals,
            portal: None,
            is_query: true,
            is_described: true,
        };
        let answered = self.write_replicated(&written).await;
        self.shape.literals = literals;
        self.end_query(&tag(plan, &answered?)).await
    }

    /// Runs a bound statement that writes to a replicated table.
    pub(super) async fn execute_replicated(
        &mut self,
        portal: &ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        let bind = Bind::read(frame::body(&portal.bind))?;
        let written = Written {
            plan: &prepared.plan,
            text: prepared.sql(),
            literals: &prepared.literals,
            portal: Some((prepared, bind)),
            is_query: self.batch.execution.is_some(),
            is_described: portal.is_described,
        };
        self.note_temporary(&prepared.plan);
        let answered = self.write_replicated(&written).await?;
        if u64::try_from(max_rows).is_ok_and(|most| most > 0 && answered.rows > most) {
            return Err(in_parts().into());
        }
        self.conclude(Vec::new(), &tag(&prepared.plan, &answered));
        Ok(())
    }

    pub(super) async fn write_replicated(
        &mut self,
        written: &Written<'_>,
    ) -> Result<Answered, Stop> {
        let Some(replicate) = written.plan.replicate() else {
            return Err(Stop::Gone);
        };
        if self.is_sticky(written.plan) {
            return Err(sequence_elsewhere().into());
        }
        let encoding = self.settings.context().encoding;
        let carried = replicate.carried(&written.arguments(encoding))?;
        let all = ShardSet::all(self.database.config.shards.len());
        let joins = self.check_scatter(written.plan, &all).await?;
        let first = ShardSet::from_iter([FIRST_SHARD]);
        let others: ShardSet = all.iter().filter(|shard| *shard != FIRST_SHARD).collect();
        match carried {
            Carried::Same => {
                let lock = replicate.lock.as_deref();
                let changed = self.write_same(written, (&first, joins), lock).await?;
                let behind = self.follow_same(written, (&others, joins), lock).await?;
                self.check_alike(&replicate.table, changed.affected, &behind)?;
                Ok(changed)
            }
            Carried::Once(images) => {
                let (changed, evaluated) =
                    self.write_once(written, (&first, joins), &images).await?;
                let count = evaluated.images.len() as u64;
                if count != changed.affected {
                    return Err(diverging(&replicate.table).into());
                }
                if count > 0 {
                    let behind = self
                        .follow_images((&others, joins), &images, &evaluated)
                        .await?;
                    self.check_alike(&replicate.table, count, &behind)?;
                }
                Ok(self.tell_evaluated(written, evaluated, changed))
            }
        }
    }

    /// Runs the client's own messages on the first shard, whose answer is the client's.
    async fn write_same(
        &mut self,
        written: &Written<'_>,
        (shards, joins): (&ShardSet, Joins),
        lock: Option<&str>,
    ) -> Result<Answered, Stop> {
        self.lock_tables((shards, joins), lock).await?;
        let text = self.encoded(written.text)?.into_owned();
        let needed = written
            .portal
            .as_ref()
            .map(|(prepared, _)| needed(prepared));
        let gathered = self
            .gather(shards, joins, &needed.unwrap_or_default())
            .await?;
        self.acknowledge_bind();
        let request = |lease: &mut Lease| written.request(lease, &text);
        let mut scatter = Scatter::start(
            gathered,
            request,
            written.is_described,
            self.high_water_bytes(),
        );
        if written.is_query {
            scatter = scatter.of_query();
        }
        self.drive(scatter.changing(true)).await
    }

    /// Runs the same on the other shards.
    async fn follow_same(
        &mut self,
        written: &Written<'_>,
        (shards, joins): (&ShardSet, Joins),
        lock: Option<&str>,
    ) -> Result<Answered, Stop> {
        self.lock_tables((shards, joins), lock).await?;
        let text = self.encoded(written.text)?.into_owned();
        let needed = written
            .portal
            .as_ref()
            .map(|(prepared, _)| needed(prepared));
        let gathered = self
            .gather(shards, joins, &needed.unwrap_or_default())
            .await?;
        let request = |lease: &mut Lease| written.request(lease, &text);
        let scatter = Scatter::start(gathered, request, false, self.high_water_bytes());
        self.drive(scatter.silent()).await
    }

    /// Keeps other writers out of tables until the transaction has ended.
    pub(super) async fn lock_tables(
        &mut self,
        (shards, joins): (&ShardSet, Joins),
        lock: Option<&str>,
    ) -> Result<(), Stop> {
        let Some(lock) = lock else {
            return Ok(());
        };
        let text = self.encoded(lock)?.into_owned();
        let gathered = self.gather(shards, joins, &[]).await?;
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", &text, &[]);
            frontend::write_bind(&mut out, &plain_bind(b"", b""), b"");
            describe_and_execute(&mut out, b"");
            out
        };
        let scatter = Scatter::start(gathered, request, false, self.high_water_bytes());
        self.drive(scatter.silent()).await.map(drop)
    }

    /// Evaluates the statement on the first shard.
    async fn write_once(
        &mut self,
        written: &Written<'_>,
        (shards, joins): (&ShardSet, Joins),
        images: &Images,
    ) -> Result<(Answered, Evaluated), Stop> {
        let lex = Database::lex_options(self.settings.context());
        let text = images.text(written.text, lex)?;
        let text = self.encoded(&text)?.into_owned();
        let mut request = Vec::new();
        let no_bind = plain_bind(b"", b"");
        let (types, bind) = match &written.portal {
            Some((prepared, bind)) => (&*prepared.types, bind),
            None => (&[][..], &no_bind),
        };
        write_evaluation(&mut request, (&text, types), bind, images)?;
        let gathered = self.gather(shards, joins, &[]).await?;
        self.acknowledge_bind();
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            request.clone()
        };
        let scatter = Scatter::start(gathered, send, true, usize::MAX);
        let (answered, frames) = self.collect(scatter).await?;
        let evaluated = evaluate(&frames, images)?;
        Ok((answered, evaluated))
    }

    /// Applies images to the other shards.
    async fn follow_images(
        &mut self,
        (shards, joins): (&ShardSet, Joins),
        images: &Images,
        evaluated: &Evaluated,
    ) -> Result<Answered, Stop> {
        let apply = self.encoded(&images.apply)?;
        let mut request = Vec::new();
        write_images(&mut request, images, &evaluated.images, &apply);
        let gathered = self.gather(shards, joins, &[]).await?;
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            request.clone()
        };
        let scatter = Scatter::start(gathered, send, false, self.high_water_bytes());
        self.drive(scatter.silent()).await
    }

    /// Runs a scatter to its end and keeps what it says, which must fit into the memory of a query.
    pub(super) async fn collect(
        &mut self,
        mut scatter: Scatter<Held>,
    ) -> Result<(Answered, Vec<u8>), Stop> {
        self.unit.make_final();
        let most = usize::try_from(self.database.limits.query_memory_bytes).unwrap_or(usize::MAX);
        let mut out = Buffer::new();
        let control = &self.registered.control;
        let end = std::future::poll_fn(|cx| {
            let polled = scatter.poll(cx, &mut out);
            if control.poll_told(cx) == Signal::Terminate {
                return std::task::Poll::Ready(None);
            }
            if out.len() > most {
                let error = Error::refused(
                    "the rows of this change of a replicated table are too large",
                    "They are evaluated on one shard and kept until the others have them.",
                    "Change fewer rows at once, or raise limits.query_memory.",
                );
                return std::task::Poll::Ready(Some(Err(Failure::Own(error))));
            }
            polled.map(Some)
        })
        .await;
        match end {
            Some(Ok(rows)) => {
                let answered = self.after_scatter(scatter.end());
                let answered = Answered { rows, ..answered };
                Ok((answered, out.bytes().to_vec()))
            }
            Some(Err(failure)) => {
                scatter.stop(LARGEST_SETTLING).await;
                self.after_scatter(scatter.end());
                self.scatter_failed(failure)
                    .map(|answered| (answered, Vec::new()))
            }
            None => {
                scatter.stop(std::time::Duration::ZERO).await;
                Err(Stop::Gone)
            }
        }
    }

    /// Tells the client what the first shard has answered.
    fn tell_evaluated(
        &mut self,
        written: &Written<'_>,
        evaluated: Evaluated,
        changed: Answered,
    ) -> Answered {
        let mut words = evaluated.notices;
        let has_rows = !evaluated.rows.is_empty() || evaluated.description.first() == Some(&b'T');
        if written.is_described && (has_rows || !written.is_query) {
            words.extend_from_slice(&evaluated.description);
        }
        words.extend_from_slice(&evaluated.rows);
        self.say(words);
        changed
    }

    /// Every shard must have changed as many rows as the first.
    pub(super) fn check_alike(&self, table: &str, first: u64, others: &Answered) -> Result<()> {
        match others.each.iter().all(|count| *count == first) {
            true => Ok(()),
            false => Err(diverging(table)),
        }
    }
}

/// That shards have changed different rows, because of others that wrote meanwhile, or before.
fn diverging(table: &str) -> Error {
    Error::new(
        SqlState::T_R_SERIALIZATION_FAILURE,
        format!("the shards changed different rows of the replicated table \"{table}\""),
    )
    .detail("Nothing was changed. Another transaction may have changed the same rows meanwhile.")
    .hint("Try again. If it stays so, the shards' copies of the table differ.")
}

fn in_parts() -> Error {
    Error::refused(
        "the rows of a change of a replicated table can't be fetched in parts",
        "They are more than its Execute asked for.",
        "Execute it without a limit of rows.",
    )
}
