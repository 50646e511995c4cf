//! The fast lane: one statement for one shard, where nothing has to be waited for.
//!
//! Most requests are of one form: a Query or `[Parse] Bind [Describe] Execute Sync` comes in one piece, its
//! statement reads or writes rows of one shard and leaves no state behind, and nothing is under way. Then
//! every question that the general way asks (`simple`, `extended`, `route`) has a known answer, if the
//! session stands in one of three ways ([`Stand`]): it holds nothing, and a connection lies idle that has its
//! settings; or it has said BEGIN, of which no shard knows yet, and the same; or its transaction is open on
//! that very shard and no other. This lane asks for exactly that in one place, without `async`, and takes
//! nothing upon itself before all of it is so: whatever does not fit, refusals and errors among it, is left
//! to the general way untouched. Its answer is the general way's to pass on too, unless it has come whole
//! and is of the expected form ([`Form`]).
//!
//! What it gave is in `integration/bench/README.md`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::PoolMode;
use crate::plan::{Access, Arguments, Parameters, Plan, SessionUse, Target};
use crate::pool::Lease;
use crate::session::definitions::View;
use crate::session::held::{Held, Part, Seat, has};
use crate::session::lease::lease_now;
use crate::session::line::Line;
use crate::session::local::lazy_begin;
use crate::session::portals;
use crate::session::prepared::{Needs, Portal, Prepared};
use crate::session::replies::Expect;
use crate::session::study::{Study, effects, is_query};
use crate::session::{HIGH_WATER_BYTES, Session};
use crate::sharding::ShardIndex;
use crate::sql::statement::{Begin, Statement};
use crate::topology::{Role, Server};
use crate::txn::Transaction;
use crate::txn::commit::Work;
use crate::wire::backend::{Status, command_complete, ready_for_query};
use crate::wire::whole::{self, Batch, Form};
use crate::wire::{frame, frontend};

/// How the answer to a request of this lane will look if nothing goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    form: Form,
    /// How many answers are due for it.
    due: usize,
}

/// Where the session stands when a request comes that may be one for this lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It holds nothing, and is in no transaction.
    Rest,
    /// It has said a plain BEGIN, of which no shard knows.
    Begun,
    /// Its transaction is open on the shard at work, and on no other.
    Open,
}

/// What a statement of this lane needs.
#[derive(Clone, Copy, Debug)]
struct Want {
    shard: ShardIndex,
    /// Whether the plan names the shard.
    is_planned: bool,
    access: Access,
    work: Work,
}

/// A connection for a request of this lane.
struct Place {
    lease: Lease,
    node: Arc<Server>,
    want: Want,
}

impl Session {
    /// Sends the request at the start of `input` if it is one for this lane; how many bytes that took.
    pub(super) fn quick(&mut self, input: &[u8]) -> usize {
        let epoch = self.epoch();
        let has_waited = self.memory.line.is_some();
        // Whose request has waited in line has studied it before.
        let studied = &mut self.memory.studied;
        studied.take_if(|plan| !has_waited || plan.epoch != epoch);
        let sent = match (self.stand(), input.first()) {
            (None, _) => None,
            (Some(stand), Some(b'B' | b'P')) => self.quick_batch(stand, input),
            (Some(stand), Some(b'Q')) => self.quick_query(stand, input),
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
        self.stand() == Some(Stand::Rest)
    }

    /// Where the session stands; none if that is not for this lane.
    fn stand(&self) -> Option<Stand> {
        if !self.is_calm() {
            return None;
        }
        match (&self.transaction, &self.server) {
            (Transaction::Idle, None) => Some(Stand::Rest),
            (Transaction::Begun(opening), None) => {
                let is_plain = opening.is_bare() && opening.is_certain();
                let has_snapshot = opening.shares_snapshot() || self.has_snapshot_by_default();
                (is_plain && !has_snapshot).then_some(Stand::Begun)
            }
            (Transaction::Open, Some(held)) => held.may_go_on().then_some(Stand::Open),
            _ => None,
        }
    }

    /// Whether nothing but the client's transaction is under way.
    fn is_calm(&self) -> bool {
        self.client.copy_rest == 0
            && self.client.socket.output.len() < HIGH_WATER_BYTES
            && self.others.is_idle()
            && !self.others.is_implicit
            && !self.others.is_everywhere
            && self.others.broken_by.is_none()
            && !self.batch.is_open()
            && !self.batch.has_turned
            && self.batch.rewrite.is_none()
            && self.unit.is_fresh()
            && !self.memory.schema_changed
            && !self.memory.temporary_tables
            && !self.memory.cursors.is_spread()
            && matches!(self.memory.definitions.view(), View::Shared)
            && !self.client.mail.is_subscribed()
            && !self.database.hub.is_active()
            && self.database.config.pool.mode == PoolMode::Transaction
            && self.settings.context().shard.is_none()
    }

    fn quick_batch(&mut self, stand: Stand, input: &[u8]) -> Option<usize> {
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
        let want = self.quick_want(&prepared.plan, &arguments)?;
        let prepared = Arc::clone(prepared);
        let parses = fresh.is_some();
        self.take_server(stand, want, Some(&*prepared).filter(|_| !parses))?;
        self.note_quick(&prepared.plan, batch.frames);
        self.batch.extended = true;
        if let Some(prepared) = fresh {
            self.statements.put(b"", prepared);
        }
        self.registered.tally.bound(batch.bind.statement);
        let held = self.server.as_mut()?;
        if stand != Stand::Rest {
            // It lives as long as the transaction.
            let portal = Portal::OnServer(Arc::clone(&prepared), None, portals::Place::on(held));
            self.statements.put_portal(b"", portal);
        }
        if parses {
            held.announce(&prepared, Some(b""));
        }
        let is_plain = held.replies.len() == usize::from(parses);
        held.bind(batch.bind_frame, &batch.bind, &prepared, true);
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
        // A Parse of the proxy's own has an answer that the client does not get, and so has a BEGIN.
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
            && is_plain(&prepared.plan)
    }

    /// What an execution needs.
    fn quick_want(&self, plan: &Plan, arguments: &Arguments<'_>) -> Option<Want> {
        let (shard, is_planned) = match self.is_unplaced() {
            true => (0, true),
            false => match plan.target(arguments).ok()? {
                Target::One(shard) => (shard, true),
                // Inside a transaction it may run beside that.
                Target::Any if self.transaction == Transaction::Idle => {
                    (self.any_shard(plan.access), false)
                }
                _ => return None,
            },
        };
        Some(Want {
            shard,
            is_planned,
            access: plan.access,
            work: self.work(plan),
        })
    }

    /// Has a connection work for the client that meets the want, if nothing has to be waited for. It has
    /// this statement: what is to be prepared there first may have to be compared with what the client was
    /// told.
    fn take_server(&mut self, stand: Stand, want: Want, prepared: Option<&Prepared>) -> Option<()> {
        if stand == Stand::Open {
            let held = self.server.as_mut()?;
            let is_it = held.shard == want.shard
                && (held.is_primary || want.access == Access::Read)
                && prepared.is_none_or(|prepared| held.has(prepared));
            if !is_it {
                return None;
            }
        } else {
            let place = self.quick_place(stand, want, prepared)?;
            self.take_place(place);
            if stand == Stand::Begun {
                self.open_now();
            }
        }
        self.count_route(want.is_planned.then_some(want.shard));
        if let Some(held) = &mut self.server {
            held.note(want.work);
        }
        Some(())
    }

    /// An idle connection to the shard that has the session's settings, and this statement.
    fn quick_place(
        &mut self,
        stand: Stand,
        want: Want,
        prepared: Option<&Prepared>,
    ) -> Option<Place> {
        // A transaction may yet write, unless it has said that it won't.
        let is_to_write = match &self.transaction {
            Transaction::Begun(opening) => !opening.is_read_only(),
            _ => false,
        };
        let access = if is_to_write {
            Access::Write
        } else {
            want.access
        };
        let now = Instant::now();
        let (mut lease, node) = self.quick_lease((want.shard, access), now)?;
        let settings = Arc::clone(self.settings.server());
        let is_same = Arc::ptr_eq(&lease.settings, &settings) || *lease.settings == *settings;
        let is_there = match prepared {
            // BEGIN takes the unnamed statement's place.
            Some(prepared) if stand == Stand::Begun && prepared.is_unnamed() => false,
            Some(prepared) => has(&mut lease, prepared),
            None => true,
        };
        // Leased and then not used: whoever closed the gate waits for it to be given up.
        let is_fit = is_same
            && is_there
            && !self.database.gate.is_closed()
            && (access == Access::Read || self.may_draw(want.shard, &lease));
        if !is_fit {
            match &mut self.memory.line {
                Some(line) => line.put_back(lease, node),
                None => lease.give_back(),
            }
            return None;
        }
        lease.settings = settings;
        let line = self.memory.line.take();
        self.unit.begin(line.map_or(now, |line| line.since()));
        Some(Place {
            lease,
            node,
            want: Want { access, ..want },
        })
    }

    /// A connection for which nothing has to be waited for. If there is none the request stands in line.
    fn quick_lease(
        &mut self,
        (shard, access): (ShardIndex, Access),
        now: Instant,
    ) -> Option<(Lease, Arc<Server>)> {
        if let Some(line) = &self.memory.line {
            // The error is the general way's to tell.
            return match line.has_failed() {
                true => None,
                false => self.waited(shard, access)?.ok(),
            };
        }
        let want = self.want(shard, access);
        let principal = self.client.principal.as_ref();
        let leased = lease_now(&self.database, shard, (&want, now), principal);
        if leased.is_none() {
            self.memory.line = Some(Box::new(Line::new(shard, access, now)));
        }
        leased
    }

    /// From here on the connection works for the client.
    fn take_place(&mut self, place: Place) {
        let Place { lease, node, want } = place;
        self.registered.control.begin(&lease);
        self.registered.tally.assigned(lease.waited);
        self.server = Some(Held {
            is_primary: want.access == Access::Write || node.state().role == Some(Role::Primary),
            seat: Seat::take(node),
            lease,
            shard: want.shard,
            replies: std::mem::take(&mut self.memory.replies),
            rest: 0,
            work: Work::Reads,
            part: Part::Client,
            is_reset: false,
            is_pinned: false,
            is_lost: false,
            last_words: None,
        });
    }

    /// Opens the client's transaction on the shard that has just been taken, ahead of its statement.
    fn open_now(&mut self) {
        if let (Transaction::Begun(opening), Some(held)) = (&self.transaction, &mut self.server) {
            held.open(&opening.sql());
            self.opened();
        }
    }

    /// Notes a request whose statement is about to be sent.
    fn note_quick(&mut self, plan: &Plan, frames: &[u8]) {
        self.unit.note(frames);
        self.note_temporary(plan);
        if is_query(plan) && plan.access == Access::Write {
            self.unit.make_final();
        }
    }

    fn quick_query(&mut self, stand: Stand, input: &[u8]) -> Option<usize> {
        let query = whole::query(input).filter(|query| self.may_be_as_long(query.len()))?;
        if !self.settings.context().encoding.is_utf8() {
            return None;
        }
        let text = std::str::from_utf8(frontend::query(frame::body(query)).ok()?).ok()?;
        let plan = self.quick_study(text, &[])?;
        if self.shape.hint.is_some() {
            return None;
        }
        match &plan.statement {
            Statement::Begin(begin) if stand == Stand::Rest => {
                return self.quick_begin(begin, text, query);
            }
            Statement::Commit { chain: false } | Statement::Rollback { chain: false }
                if stand == Stand::Open =>
            {
                return self.quick_end(&plan, text, query);
            }
            _ if !is_plain(&plan) => return None,
            _ => {}
        }
        let arguments = Arguments {
            text,
            literals: &self.shape.literals,
            parameters: Parameters::none(),
            encoding: self.settings.context().encoding,
        };
        let want = self.quick_want(&plan, &arguments)?;
        self.take_server(stand, want, None)?;
        self.batch.start_simple();
        self.statements.remove_unnamed();
        self.note_quick(&plan, query);
        let held = self.server.as_mut()?;
        let is_only = held.replies.is_empty();
        held.lease.unnamed = None;
        held.send(query, Expect::Query(None));
        held.replies.outlook = is_only.then_some(Outlook {
            form: Form::Query,
            due: 1,
        });
        Some(query.len())
    }

    /// BEGIN: no shard need know of it yet.
    fn quick_begin(&mut self, begin: &Begin, text: &str, query: &[u8]) -> Option<usize> {
        let (opening, tag) = lazy_begin(begin, text);
        self.batch.start_simple();
        self.statements.remove(b"");
        self.unit.note(query);
        self.transaction = Transaction::Begun(opening);
        self.database.metrics.local.inc();
        let out = self.client.socket.output.tail();
        command_complete(out, tag);
        ready_for_query(out, Status::Transaction);
        self.unit.end();
        Some(query.len())
    }

    /// COMMIT and ROLLBACK of a transaction that is open on one shard.
    fn quick_end(&mut self, plan: &Plan, text: &str, query: &[u8]) -> Option<usize> {
        let work = self.work(plan);
        let effects = effects(plan, text);
        self.note_quick(plan, query);
        self.count_route(None);
        self.batch.start_simple();
        self.statements.remove(b"");
        let held = self.server.as_mut()?;
        held.note(work);
        held.lease.unnamed = None;
        held.send(query, Expect::Query(effects));
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
        // A transaction that is open stays so, and one that is not is none.
        let status = self.transaction.status();
        let input = &mut held.lease.socket.input;
        if held.replies.len() != outlook.due || !outlook.form.is_answer(input.bytes(), status) {
            return false;
        }
        input.move_to(input.len(), &mut self.client.socket.output);
        held.replies.finish();
        self.ready(status);
        true
    }
}

/// Whether a statement reads, locks or writes rows and does nothing else, and no server needs to be told
/// more than its text.
fn is_plain(plan: &Plan) -> bool {
    matches!(plan.statement, Statement::Query(_))
        && plan
            .session
            .without(SessionUse::ONLY_LOCKS | SessionUse::MAY_DRAW)
            .is_empty()
        && plan.own.is_empty()
        && plan.pseudo.is_empty()
        && plan.listed.is_empty()
}
