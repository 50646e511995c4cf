//! EXPLAIN ANALYZE over several shards: what each has sent, found by running the query on all of them.
//!
//! What holds:
//! - The query runs as it would for a client, merge included, and its rows are dropped as they come.
//! - It only reads. Behind it EXPLAIN ANALYZE runs on one shard, whose plan is shown.

use std::sync::Arc;
use std::time::Duration;

use crate::exec::scatter::Scatter;
use crate::net::buffer::Buffer;
use crate::plan::{Access, Plan, Target};
use crate::pool::Lease;
use crate::session::explain::is_text;
use crate::session::prepared::Prepared;
use crate::session::scatter::describe_and_execute;
use crate::session::study::Study;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::statement::Statement;
use crate::sql::token::slice;
use crate::wire::frontend;
use crate::wire::frontend::Bind;

/// What a shard has sent.
#[derive(Debug)]
pub(super) struct Share {
    pub shard: ShardIndex,
    pub rows: u64,
    pub bytes: u64,
    /// From the question to the end of its rows.
    pub took: Duration,
}

/// What is known of a query that was run.
pub(super) enum Measured {
    /// A line for each shard; none if it was not run.
    Lines(Vec<String>),
    /// Its types are for a hub.
    OnHub,
}

impl Session {
    /// Runs what an EXPLAIN ANALYZE asks about, if that is a query over several shards.
    pub(super) async fn measured(
        &mut self,
        plan: &Plan,
        target: &Target,
        text: &str,
    ) -> Result<Measured, Stop> {
        let nothing = Measured::Lines(Vec::new());
        let (Statement::Explain(explain), Target::Many(shards)) = (&plan.statement, target) else {
            return Ok(nothing);
        };
        if !explain.analyze || plan.access == Access::Write || !is_text(explain) {
            return Ok(nothing);
        }
        let body = slice(text, explain.body.clone());
        let shape = std::mem::take(&mut self.shape);
        let studied = self.study(Some(body), &[]);
        let outcome = match studied {
            Ok(Study::One(inner)) if is_measurable(&inner) => {
                self.unit.captured = Some(Buffer::new());
                self.unit.measured = Some(Vec::new());
                let ran = self.run_measured(&inner, body, shards).await;
                self.unit.captured = None;
                let shares = self.unit.measured.take().unwrap_or_default();
                ran.map(|is_for_hub| match is_for_hub {
                    true => Measured::OnHub,
                    false => Measured::Lines(shares.iter().map(|one| self.line(one)).collect()),
                })
            }
            _ => Ok(nothing),
        };
        self.shape = shape;
        outcome
    }

    /// As [`Session::measured`], of a statement that is bound: where it runs, and the lines. A query with parameters is
    /// not run.
    pub(super) async fn bind_measured(
        &mut self,
        prepared: &Prepared,
        bind: &Bind<'_>,
        target: Target,
    ) -> Result<(Target, Vec<String>), Stop> {
        let Statement::Explain(explain) = &prepared.plan.statement else {
            return Ok((target, Vec::new()));
        };
        let has_parameters = !bind.values.is_empty();
        if !explain.analyze || has_parameters || !matches!(target, Target::Many(_)) {
            return Ok((target, Vec::new()));
        }
        // What stands before it may fail, or write what it reads.
        self.place_others(prepared.id).await?;
        self.drain().await?;
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        let text = prepared.sql();
        match Box::pin(self.measured(&prepared.plan, &target, text)).await? {
            Measured::Lines(lines) => Ok((target, lines)),
            Measured::OnHub => Ok((Target::Combine, Vec::new())),
        }
    }

    /// Takes note of what a shard has sent, if that is counted: rows, bytes, and how long it took.
    pub(super) fn note_share(
        &mut self,
        shard: ShardIndex,
        (rows, bytes, took): (u64, u64, Duration),
    ) {
        if let Some(shares) = &mut self.unit.measured {
            shares.push(Share {
                shard,
                rows,
                bytes,
                took,
            });
        }
    }

    fn line(&self, share: &Share) -> String {
        format!(
            "->  shard {} rows={} bytes={} time={:.3} ms",
            self.database.shard_name(share.shard),
            share.rows,
            share.bytes,
            share.took.as_secs_f64() * 1e3
        )
    }

    /// Runs a query, whose rows go nowhere; whether a hub has to instead.
    async fn run_measured(
        &mut self,
        plan: &Arc<Plan>,
        text: &str,
        shards: &ShardSet,
    ) -> Result<bool, Stop> {
        let joins = self.check_scatter(plan, shards).await?;
        let text = self.encoded(text)?.into_owned();
        if let Some(merge) = &plan.merge {
            let merged = self.merge_query(&text, merge, (shards, joins)).await;
            if self.is_for_hub(plan, joins, &merged) {
                return Ok(true);
            }
            return merged.map(|_| false);
        }
        let gathered = self.gather(shards, joins, &[]).await?;
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", &text, &[]);
            out.extend_from_slice(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0");
            describe_and_execute(&mut out, b"");
            out
        };
        let scatter = Scatter::start(gathered, request, true, HIGH_WATER_BYTES);
        self.drive(scatter).await.map(|_| false)
    }
}

/// Whether a query may be run as it stands.
fn is_measurable(inner: &Plan) -> bool {
    let is_query = matches!(inner.statement, Statement::Query(_));
    is_query && inner.own.is_empty() && inner.pseudo.is_empty()
}
