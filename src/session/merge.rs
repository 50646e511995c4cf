//! Statements whose rows of several shards are merged: what the shards are sent, and what merges it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::merge::{Bounds, Merger};
use crate::exec::scatter::{Failure, Scatter};
use crate::plan::{Arguments, Merge, Parameters, Plan};
use crate::pool::Lease;
use crate::session::announce::needed;
use crate::session::database::Database;
use crate::session::held::Held;
use crate::session::prepared::{Needs, Portal, Prepared, server_name, statement_id};
use crate::session::scatter::{
    Answered, Gathered, Joins, ScatterPortal, describe_and_execute, portal_request,
};
use crate::session::wording::Rewrite;
use crate::session::{Session, Stop};
use crate::sharding::ShardSet;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::buffer::message;
use crate::wire::format::Formats;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// The codes of binary results.
const BINARY: [u8; 2] = [0, 1];

/// A merge that is about to run.
struct Merging {
    merger: Merger,
    /// The shards' statement.
    text: String,
    rewrite: Rewrite,
}

impl Session {
    /// Runs a simple Query whose rows are merged; how many there were.
    pub(super) async fn merge_query(
        &mut self,
        text: &[u8],
        merge: &Arc<Merge>,
        (shards, joins): (&ShardSet, Joins),
    ) -> Result<u64, Stop> {
        let read = self.settings.context().encoding.read(text);
        let read = read.unwrap_or_default().into_owned();
        let literals = std::mem::take(&mut self.shape.literals);
        let arguments = Arguments {
            text: &read,
            literals: &literals,
            parameters: Parameters::none(),
            encoding: self.settings.context().encoding,
        };
        let merging = self.merging(merge, &arguments, (shards, 0));
        self.shape.literals = literals;
        let merging = merging?;
        let sent = self.encoded(&merging.text)?.into_owned();
        let formats = formats(merge, &[])?;
        let gathered = self.gather(shards, joins, &[]).await?;
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", &sent, &[]);
            message(&mut out, b'B', |body| {
                body.extend_from_slice(&[0; 6]);
                body.extend_from_slice(&formats);
            });
            describe_and_execute(&mut out, b"");
            out
        };
        let scatter = Scatter::start(gathered, request, true, self.high_water_bytes());
        let scatter = scatter.merged(Some(merging.merger));
        Ok(self.drive_rewritten(scatter, &merging.rewrite).await?.rows)
    }

    /// Executes a kept portal whose rows are merged; of those the first `max_rows` if that is not 0, and
    /// no others follow.
    pub(super) async fn merge_portal(
        &mut self,
        portal: &ScatterPortal,
        merge: &Arc<Merge>,
        (joins, max_rows): (Joins, i32),
    ) -> Result<(), Stop> {
        let rows = self.merge_rows(portal, merge, (joins, max_rows)).await?;
        let limit = u64::try_from(max_rows).ok().filter(|rows| *rows > 0);
        if limit.is_some() {
            self.statements.put_portal(&portal.portal, Portal::Partial);
        }
        self.say_part(rows, limit == Some(rows));
        Ok(())
    }

    /// The rows of a kept portal, and how many there were.
    pub(super) async fn merge_rows(
        &mut self,
        portal: &ScatterPortal,
        merge: &Arc<Merge>,
        (joins, max_rows): (Joins, i32),
    ) -> Result<u64, Stop> {
        let bind = Bind::read(frame::body(&portal.bind))?;
        let arguments = Arguments {
            text: portal.prepared.sql(),
            literals: &portal.prepared.literals,
            parameters: Parameters::new(&portal.prepared.types, bind.formats, bind.values),
            encoding: self.settings.context().encoding,
        };
        let formats = formats(merge, bind.results)?;
        let merging = self.merging(merge, &arguments, (&portal.shards, max_rows))?;
        let prepared = Arc::new(self.rewritten(&portal.prepared, &merging.text)?);
        let needed = needed(&prepared);
        let gathered: Gathered = self.gather(&portal.shards, joins, &needed).await?;
        self.acknowledge_bind();
        let kept = bind.rest.len().saturating_sub(2 + bind.results.len());
        let mut rest = bind.rest.get(..kept).unwrap_or(&[]).to_vec();
        rest.extend_from_slice(&formats);
        // It runs to its end at once: no portal of the client's name is left on the shards.
        let bind = Bind {
            portal: b"",
            rest: &rest,
            ..bind
        };
        let request = |lease: &mut Lease| portal_request(lease, &prepared, &bind);
        let limit = self.high_water_bytes();
        let scatter = Scatter::start(gathered, request, portal.is_described, limit);
        let scatter = scatter.expecting(self.expected(bind.statement));
        let scatter = scatter.merged(Some(merging.merger));
        Ok(self.drive_rewritten(scatter, &merging.rewrite).await?.rows)
    }

    /// Whether a hub has to finish what could not be merged because of its types. Nothing has been said to
    /// the client then.
    pub(super) fn is_for_hub<T>(
        &self,
        plan: &Plan,
        joins: Joins,
        merged: &Result<T, Stop>,
    ) -> bool {
        let is_refused = matches!(
            merged,
            Err(Stop::Statement(error)) if error.code() == SqlState::FEATURE_NOT_SUPPORTED
        );
        let is_alive = self.transaction != Transaction::Failed && !self.transaction.is_broken();
        let reads = matches!(joins, Joins::Not | Joins::Reading);
        is_refused && reads && is_alive && plan.fallback.is_some()
    }

    /// Whether a failure inside a transaction may be for a hub to mend: its shards are then not stopped,
    /// which the transaction would not survive.
    pub(super) fn may_be_merged_by_hub(&self, failure: &Failure) -> bool {
        let is_refused = matches!(
            failure,
            Failure::Own(error) if error.code() == SqlState::FEATURE_NOT_SUPPORTED
        );
        is_refused && self.transaction.is_on_shard()
    }

    fn merging(
        &self,
        merge: &Arc<Merge>,
        arguments: &Arguments<'_>,
        (shards, max_rows): (&ShardSet, i32),
    ) -> Result<Merging> {
        let options = Database::lex_options(self.settings.context());
        let edits = merge.edits(arguments.text, options)?;
        let numbers = merge.numbers(arguments.text, options)?;
        let (text, rewrite) = Rewrite::apply(arguments.text, options, &edits, Vec::new())?;
        let mut window = merge.cut.window(arguments)?;
        if let Some(rows) = u64::try_from(max_rows).ok().filter(|rows| *rows > 0) {
            window.take = window.take.min(rows);
        }
        let bounds = Bounds {
            window,
            memory_bytes: self.database.limits.query_memory_bytes,
            is_utf8: arguments.encoding.is_utf8(),
        };
        Ok(Merging {
            merger: Merger::new(Arc::clone(merge), bounds, shards.len()).comparing(numbers),
            text,
            rewrite,
        })
    }

    /// Runs a scatter; errors of shards speak of the client's text.
    async fn drive_rewritten(
        &mut self,
        scatter: Scatter<Held>,
        rewrite: &Rewrite,
    ) -> Result<Answered, Stop> {
        match self.drive(scatter).await {
            Err(Stop::Words(frame)) if frame.first() == Some(&b'E') => {
                Err(Stop::Words(rewrite.restore(&frame)))
            }
            other => other,
        }
    }

    /// The statement that shards get in place of the client's. They keep it as they would keep that.
    fn rewritten(&self, prepared: &Prepared, text: &str) -> Result<Prepared> {
        let text = self.encoded(text)?.into_owned();
        let is_named = !prepared.is_unnamed();
        let id = statement_id(is_named, &text, &prepared.types, prepared.context);
        Ok(Prepared {
            id,
            server_name: match is_named {
                true => server_name(id).into_bytes().into(),
                false => Box::default(),
            },
            text: text.into(),
            read: None,
            types: prepared.types.clone(),
            literals: Box::default(),
            hint: None,
            plan: Arc::clone(&prepared.plan),
            context: prepared.context,
            made_at: prepared.made_at,
            declared: None,
            needs: Needs::Nothing,
        })
    }
}

/// The result formats of the shards' statement, counted: the client's, and binary for the hidden columns.
fn formats(merge: &Merge, wanted: &[u8]) -> Result<Vec<u8>> {
    let known = Formats::new(wanted);
    if !known.fit(merge.visible) {
        return Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "bind message has {} result formats but query has {} columns",
                known.count(),
                merge.visible
            ),
        ));
    }
    let mut out = Vec::new();
    if merge.hidden == 0 {
        out.extend_from_slice(
            &u16::try_from(known.count())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        out.extend_from_slice(wanted);
        return Ok(out);
    }
    let count = u16::try_from(merge.visible + merge.hidden).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for column in 0..merge.visible {
        out.extend_from_slice(&[0, u8::from(known.is_binary(column))]);
    }
    for _ in 0..merge.hidden {
        out.extend_from_slice(&BINARY);
    }
    Ok(out)
}
