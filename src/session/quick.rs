//! The fast lane: one read of one shard, by a session at rest, where nothing has to be waited for.
//!
//! Most requests are of one form: a session that holds no connection sends a Query or `[Parse] Bind
//! [Describe] Execute Sync` in one piece, its statement reads from one shard and leaves no state behind,
//! and a connection lies idle there that has the session's settings. Then every question that the general
//! way asks (`simple`, `extended`, `route`) has a known answer. This lane asks for exactly that in one
//! place, without `async`, and takes nothing upon itself before all of it is so: whatever does not fit,
//! refusals and errors among it, is left to the general way untouched. Its answer is the general way's to
//! pass on too, unless it has come whole and is of the expected form ([`Form`]).
//!
//! What it gave is in `integration/bench/README.md`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::PoolMode;
use crate::plan::{Access, Arguments, Parameters, Plan, Target};
use crate::pool::Lease;
use crate::session::held::{Held, Part, Seat, has};
use crate::session::lease::lease_now;
use crate::session::prepared::{Needs, Prepared};
use crate::session::replies::Expect;
use crate::session::study::Study;
use crate::session::{HIGH_WATER_BYTES, Session};
use crate::sharding::ShardIndex;
use crate::sql::statement::Statement;
use crate::topology::{Role, Server};
use crate::txn::Transaction;
use crate::txn::commit::Work;
use crate::wire::backend::Status;
use crate::wire::whole::{self, Batch, Form};
use crate::wire::{frame, frontend};

/// How the answer to a request of this lane will look if nothing goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    form: Form,
    /// How many answers are due for it.
    due: usize,
}

/// A connection for a request of this lane.
struct Place {
    lease: Lease,
    node: Arc<Server>,
    shard: ShardIndex,
}

impl Session {
    /// Sends the request at the start of `input` if it is one for this lane; how many bytes that took.
    pub(super) fn quick(&mut self, input: &[u8]) -> usize {
        self.memory.studied = None;
        let sent = match input.first() {
            _ if !self.is_at_rest() => None,
            Some(b'B' | b'P') => self.quick_batch(input),
            Some(b'Q') => self.quick_query(input),
            _ => None,
        };
        if sent.is_some() {
            self.memory.studied = None;
        }
        sent.unwrap_or(0)
    }

    /// The plan of a text that is one statement; kept for the general way, which studies the same text
    /// next if the request is none for this lane.
    fn quick_study(&mut self, text: &str, types: &[u32]) -> Option<Arc<Plan>> {
        let Ok(Study::One(plan)) = self.study(Some(text), types) else {
            return None;
        };
        self.memory.studied = Some(Arc::clone(&plan));
        Some(plan)
    }

    /// Whether a request of so many bytes may be sent at all.
    fn may_be_as_long(&self, bytes: usize) -> bool {
        bytes as u64 <= self.database.limits.max_message_bytes
    }

    /// Whether nothing is under way, and nothing has to be done before the next request.
    pub(super) fn is_at_rest(&self) -> bool {
        self.server.is_none()
            && self.client.copy_rest == 0
            && self.client.socket.output.len() < HIGH_WATER_BYTES
            && self.transaction == Transaction::Idle
            && self.others.is_idle()
            && !self.others.is_implicit
            && !self.batch.is_open()
            && !self.batch.has_turned
            && self.batch.rewrite.is_none()
            && self.unit.is_fresh()
            && !self.memory.schema_changed
            && !self.memory.temporary_tables
            && !self.client.mail.is_subscribed()
            && !self.database.hub.is_active()
            && !self.database.gate.is_closed()
            && self.database.config.pool.mode == PoolMode::Transaction
            && self.settings.context().shard.is_none()
    }

    fn quick_batch(&mut self, input: &[u8]) -> Option<usize> {
        let batch = Batch::read(input).filter(|batch| self.may_be_as_long(batch.frames.len()))?;
        let fresh = match &batch.parse {
            Some(parse) => Some(self.quick_parse(parse)?),
            None => None,
        };
        let prepared = match &fresh {
            Some(prepared) => prepared,
            None => self.statements.get(batch.bind.statement)?,
        };
        if !self.is_quick(prepared) {
            return None;
        }
        let arguments = Arguments {
            text: prepared.sql(),
            literals: &prepared.literals,
            parameters: Parameters::new(&prepared.types, batch.bind.formats, batch.bind.values),
            encoding: self.settings.context().encoding,
        };
        let target = self.quick_target(&prepared.plan, &arguments)?;
        let prepared = Arc::clone(prepared);
        let parses = fresh.is_some();
        let place = self.quick_place(target, Some(&*prepared).filter(|_| !parses))?;
        self.unit.note(batch.frames);
        self.batch.extended = true;
        if let Some(prepared) = fresh {
            self.statements.put(b"", prepared);
        }
        self.registered.tally.bound(batch.bind.statement);
        let held = self.take_place(place);
        if parses {
            held.announce(&prepared, Some(b""));
        }
        let is_plain = held.replies.len() == usize::from(parses);
        held.bind(batch.bind_frame, &batch.bind, &prepared);
        if batch.describes {
            held.replies.push(Expect::Describe);
        }
        held.replies.push(Expect::Execute(None));
        held.lease.socket.output.push(batch.rest);
        held.replies.push(Expect::Sync);
        let form = Form::Batch {
            parses,
            describes: batch.describes,
        };
        // A Parse of the proxy's own has an answer that the client does not get.
        held.replies.outlook = is_plain.then(|| Outlook {
            form,
            due: held.replies.len(),
        });
        Some(batch.frames.len())
    }

    /// The unnamed statement that a Parse makes.
    fn quick_parse(&mut self, parse: &frontend::Parse<'_>) -> Option<Arc<Prepared>> {
        if !parse.name.is_empty() || !self.settings.context().encoding.is_utf8() {
            return None;
        }
        let types: Vec<u32> = parse.types().collect();
        let text = std::str::from_utf8(parse.text).ok()?;
        let plan = self.quick_study(text, &types)?;
        Some(Arc::new(Prepared {
            id: self.identify(false, parse.text, &types),
            server_name: Box::default(),
            text: parse.text.into(),
            read: None,
            types: types.into(),
            literals: self.shape.literals.as_slice().into(),
            hint: self.hint_in(Some(text)),
            plan,
            context: self.reading(),
            made_at: SystemTime::now(),
            declared: None,
            needs: Needs::Nothing,
        }))
    }

    /// Whether a statement is one for this lane, planned against the present catalogue and settings.
    fn is_quick(&self, prepared: &Prepared) -> bool {
        prepared.context == self.reading()
            && prepared.plan.epoch == self.epoch()
            && prepared.hint.is_none()
            && prepared.declared.is_none()
            && matches!(prepared.needs, Needs::Nothing)
            && is_plain_read(&prepared.plan)
    }

    /// The shard of an execution; whether the plan names it.
    fn quick_target(&self, plan: &Plan, arguments: &Arguments<'_>) -> Option<(ShardIndex, bool)> {
        if self.is_unplaced() {
            return Some((0, true));
        }
        match plan.target(arguments).ok()? {
            Target::One(shard) => Some((shard, true)),
            Target::Any => Some((self.any_shard(Access::Read), false)),
            _ => None,
        }
    }

    /// An idle connection to the shard that has the session's settings, and this statement: what is to be
    /// prepared there first may have to be compared with what the client was told.
    fn quick_place(
        &mut self,
        (shard, is_planned): (ShardIndex, bool),
        prepared: Option<&Prepared>,
    ) -> Option<Place> {
        let want = self.want(shard, Access::Read);
        let now = Instant::now();
        let principal = self.client.principal.as_ref();
        let (mut lease, node) = lease_now(&self.database, shard, (&want, now), principal)?;
        let settings = self.settings.server();
        let is_same = Arc::ptr_eq(&lease.settings, settings) || *lease.settings == **settings;
        // Leased and then not used: whoever closed the gate waits for it to be given up.
        let is_there = prepared.is_none_or(|prepared| has(&mut lease, prepared));
        if !is_same || !is_there || self.database.gate.is_closed() {
            lease.give_back();
            return None;
        }
        lease.settings = Arc::clone(settings);
        self.unit.begin(now);
        self.count_route(is_planned.then_some(shard));
        Some(Place { lease, node, shard })
    }

    /// From here on the connection works for the client.
    fn take_place(&mut self, place: Place) -> &mut Held {
        let Place { lease, node, shard } = place;
        self.registered.control.begin(&lease);
        self.registered.tally.assigned(lease.waited);
        self.server.insert(Held {
            is_primary: node.state().role == Some(Role::Primary),
            seat: Seat::take(node),
            lease,
            shard,
            replies: std::mem::take(&mut self.memory.replies),
            rest: 0,
            work: Work::Reads,
            part: Part::Client,
            is_reset: false,
            is_pinned: false,
            is_lost: false,
            last_words: None,
        })
    }

    fn quick_query(&mut self, input: &[u8]) -> Option<usize> {
        let query = whole::query(input).filter(|query| self.may_be_as_long(query.len()))?;
        if !self.settings.context().encoding.is_utf8() {
            return None;
        }
        let text = std::str::from_utf8(frontend::query(frame::body(query)).ok()?).ok()?;
        let plan = self.quick_study(text, &[])?;
        if self.shape.hint.is_some() || !is_plain_read(&plan) {
            return None;
        }
        let arguments = Arguments {
            text,
            literals: &self.shape.literals,
            parameters: Parameters::none(),
            encoding: self.settings.context().encoding,
        };
        let target = self.quick_target(&plan, &arguments)?;
        let place = self.quick_place(target, None)?;
        self.batch.start_simple();
        self.statements.remove(b"");
        self.unit.note(query);
        let held = self.take_place(place);
        held.lease.unnamed = None;
        held.send(query, Expect::Query(None));
        held.replies.outlook = Some(Outlook {
            form: Form::Query,
            due: 1,
        });
        Some(query.len())
    }

    /// As [`Session::answered`] where nothing has to be waited for; else it does nothing and says so.
    pub(super) fn answered_now(&mut self) -> bool {
        let is_simple = self.may_let_go()
            && self.others.is_idle()
            && !self.memory.schema_changed
            && self
                .server
                .as_ref()
                .is_some_and(|held| !held.is_reset && !held.is_aside());
        if is_simple {
            self.let_go();
        }
        is_simple
    }

    /// Passes the answer on at once if it has come whole and is of the expected form.
    pub(super) fn quick_answer(&mut self) -> bool {
        let Some(held) = &mut self.server else {
            return false;
        };
        let Some(outlook) = held.replies.outlook.take() else {
            return false;
        };
        let input = &mut held.lease.socket.input;
        if held.replies.len() != outlook.due || !outlook.form.is_answer(input.bytes()) {
            return false;
        }
        input.move_to(input.len(), &mut self.client.socket.output);
        held.replies.finish();
        self.ready(Status::Idle);
        true
    }
}

/// Whether a statement reads and does nothing else, and no server needs to be told more than its text.
fn is_plain_read(plan: &Plan) -> bool {
    matches!(plan.statement, Statement::Query(_))
        && plan.access == Access::Read
        && plan.session.is_empty()
        && plan.own.is_empty()
}
