//! Queries of the simple protocol that name prepared statements.

use std::sync::Arc;

use crate::error::Result;
use crate::exec::scatter::Scatter;
use crate::plan::{Access, Plan, Target};
use crate::pool::Lease;
use crate::session::announce::plain_bind;
use crate::session::database::Database;
use crate::session::named::Named;
use crate::session::prepared::Needs;
use crate::session::replies::Expect;
use crate::session::route::Need;
use crate::session::scatter::{changes_rows, tag};
use crate::session::study::effects;
use crate::session::wording::Rewrite;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::ShardSet;
use crate::sql::statement::Statement;
use crate::sql::token::slice;
use crate::wire::frontend::{self, Subject};

impl Session {
    /// Handles a Query of one statement that names a prepared one; false if it names none.
    pub(super) async fn query_named(&mut self, text: &str, plan: &Arc<Plan>) -> Result<bool, Stop> {
        let hint = self.shape.hint.clone().map(|range| slice(text, range));
        let options = Database::lex_options(self.settings.context());
        if self.database.is_single()
            && let Some((edit, name)) = self.unknown(text, plan)
        {
            // Something else may be wrong with it, and comes first.
            let names = vec![(edit.text.clone(), name)];
            let (sent, rewrite) = Rewrite::apply(text, options, &[edit], names)?;
            self.drain().await?;
            let need = self.need(plan, Some(0), text);
            self.hold(need).await?;
            self.batch.rewrite = Some(rewrite);
            self.dispatch(sent.as_bytes(), need, Expect::Query(None));
            return Ok(true);
        }
        let Some(named) = self.named((text, text), plan)? else {
            return Ok(false);
        };
        let target = self.target_of_named(&named, hint)?;
        let edits = std::slice::from_ref(&named.edit);
        let (sent, rewrite) = Rewrite::apply(text, options, edits, vec![named.names()])?;
        let mut shard = match &target {
            Target::One(shard) => Some(*shard),
            _ => None,
        };
        let mut rows = None;
        if self.explains(&named.plan) {
            let body = named.prepared.sql();
            let explained =
                self.explain(&named.plan, &target, (body, &named.prepared.literals), &[])?;
            (shard, rows) = (explained.shard, Some(explained.rows));
        } else if target == Target::Combine {
            return Box::pin(self.execute_in_steps(text, &named, hint))
                .await
                .map(|()| true);
        } else if let Target::Many(shards) = target {
            return self
                .scatter_named(&sent, &named, (shards, rewrite))
                .await
                .map(|()| true);
        }
        self.drain().await?;
        self.note_temporary(&named.plan);
        self.count_route(shard);
        let need = self.need_of_named(&named, shard);
        self.hold(need).await?;
        match &named.needs {
            Needs::Present(prepared) => {
                self.ensure_held(std::slice::from_ref(prepared), &[])
                    .await?;
            }
            Needs::Absent(id) => {
                self.ensure_held(&[], &[*id]).await?;
                self.statements
                    .propose(named.name.as_bytes(), Arc::clone(&named.prepared));
            }
            Needs::Nothing => {}
        }
        let effects = effects(&named.plan, text);
        self.note_pins(&effects);
        let expect = match rows {
            Some(rows) => Expect::Explain(rows),
            None => Expect::Query(effects),
        };
        self.batch.rewrite = Some(rewrite);
        self.batch.executes = matches!(named.needs, Needs::Present(_)).then_some(named.name);
        self.dispatch(sent.as_bytes(), need, expect);
        Ok(true)
    }

    /// What a statement with a name needs of a server connection.
    fn need_of_named(&self, named: &Named, shard: Option<usize>) -> Need {
        if let Statement::Prepare { .. } = named.plan.statement {
            return self.need_to_prepare(&named.prepared.plan);
        }
        let body = named.prepared.sql();
        self.need(&named.plan, shard, body)
    }

    /// Sends a rewritten Query to the server that is held.
    pub(super) fn dispatch(&mut self, text: &[u8], need: Need, expect: Expect) {
        if need.access == Access::Write {
            self.unit.make_final();
        }
        if let Some(held) = &mut self.server {
            held.note(need.work());
            held.lease.unnamed = None;
            frontend::write_query(held.lease.socket.output.tail(), text);
            held.replies.push(expect);
            self.batch.end_by_query();
        }
    }

    /// Runs an EXECUTE over several shards.
    async fn scatter_named(
        &mut self,
        sent: &str,
        named: &Named,
        (shards, rewrite): (ShardSet, Rewrite),
    ) -> Result<(), Stop> {
        self.rest_pinned();
        let joins = self.check_scatter(&named.plan, &shards).await?;
        let needed: &[_] = match &named.needs {
            Needs::Present(prepared) => std::slice::from_ref(prepared),
            _ => &[],
        };
        let gathered = self.gather(&shards, joins, needed).await?;
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", sent.as_bytes(), &[]);
            frontend::write_bind(&mut out, &plain_bind(b"", b""), b"");
            frontend::write_subject(&mut out, b'D', Subject::Portal, b"");
            frontend::write_execute(&mut out, b"", 0);
            frontend::write_sync(&mut out);
            out
        };
        let scatter = Scatter::start(gathered, request, true, HIGH_WATER_BYTES).of_query();
        let scatter = scatter.changing(changes_rows(&named.prepared.plan));
        let answered = self.drive(scatter).await.map_err(|stop| match stop {
            Stop::Words(words) => Stop::Words(rewrite.restore(&words)),
            other => other,
        })?;
        self.end_query(&tag(&named.prepared.plan, &answered)).await
    }
}
