//! Several statements in one message of the simple protocol.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::backend::connection::StatementId;
use crate::error::{Error, Result};
use crate::plan::{Access, Arguments, Parameters, Plan, SessionUse, Target};
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::named::{Named, missing};
use crate::session::prepared::{Needs, Prepared};
use crate::session::replies::{Effects, Expect};
use crate::session::route::Need;
use crate::session::script;
use crate::session::stored;
use crate::session::study::{effect_of, is_query};
use crate::session::wording::Rewrite;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sql::lexer::tokenize;
use crate::sql::shape::{self, Shape};
use crate::sql::splice::Edit;
use crate::sql::statement::{ResetTarget, Statement};
use crate::sql::token::slice;
use crate::txn::Transaction;

/// What is survey of the statements of one message.
#[derive(Default)]
struct Survey {
    need: Option<Need>,
    effects: VecDeque<Effect>,
    edits: Vec<Edit>,
    /// The names in the edits: the server's with the client's.
    names: Vec<(String, String)>,
    /// What the server must have before.
    present: Vec<Arc<Prepared>>,
    /// What the message itself prepares.
    absent: Vec<StatementId>,
    /// A statement before has drawn from a sequence.
    drew: bool,
    /// Statements run from here on: the transaction has not failed, or what failed of it has ended.
    is_live: bool,
    /// One of them ends the transaction.
    ends: bool,
    /// They need several shards.
    is_spread: bool,
}

impl Survey {
    /// Notes a name of a prepared statement; only its first mention says what the server must have.
    fn mention(&mut self, needs: Needs) {
        let id = match &needs {
            Needs::Nothing => return,
            Needs::Present(prepared) => prepared.id,
            Needs::Absent(id) => *id,
        };
        let is_known = self.absent.contains(&id) || self.present.iter().any(|one| one.id == id);
        match needs {
            _ if is_known => {}
            Needs::Present(prepared) => self.present.push(prepared),
            _ => self.absent.push(id),
        }
    }
}

impl Session {
    /// Several statements in one message are one transaction, so they must agree on a shard.
    pub(super) async fn query_many(
        &mut self,
        frame: &[u8],
        text: &str,
        plans: &[(Range<u32>, Arc<Plan>)],
    ) -> Result<(), Stop> {
        if self.transaction.is_broken() || self.must_be_scripted(plans) {
            return self.query_script(text, plans).await;
        }
        // The names as they will be, for the statements behind those that change them.
        let names = self.statements.names();
        let survey = self.survey(text, plans);
        self.statements.set_names(names);
        let mut survey = survey?;
        let need = survey.need.take().unwrap_or(ANYWHERE);
        let is_told = || self.is_told_moments(plans, need.shard);
        if survey.is_spread || (survey.ends && self.ends_elsewhere(&need)) || is_told() {
            return self.query_script(text, plans).await;
        }
        if plans.iter().any(|(_, plan)| stored::asks(plan)) {
            self.hold_for_stored(need).await?;
        }
        self.answer_in_many(&mut survey.edits, text, plans, need.shard)
            .await?;
        self.unit.make_final();
        self.count_route(need.shard);
        let effects: Effects = survey
            .effects
            .iter()
            .any(|effect| *effect != Effect::None)
            .then(|| Box::new(survey.effects));
        if survey.edits.is_empty() {
            return self.send_query(frame, need, effects).await;
        }
        let options = Database::lex_options(self.settings.context());
        let (sent, rewrite) = Rewrite::apply(text, options, &survey.edits, survey.names)?;
        let effects = self.foresee(effects).await?;
        self.drain().await?;
        self.hold(need).await?;
        self.ensure_held(&survey.present, &survey.absent).await?;
        self.note_pins(&effects);
        self.batch.rewrite = Some(rewrite);
        let sent = self.encoded(&sent)?;
        self.dispatch(&sent, need, Expect::Query(effects));
        Ok(())
    }

    /// Adds the edits that put the proxy's own answers into the statements.
    async fn answer_in_many(
        &mut self,
        edits: &mut Vec<Edit>,
        text: &str,
        plans: &[(Range<u32>, Arc<Plan>)],
        shard: Option<ShardIndex>,
    ) -> Result<(), Stop> {
        let shard = shard.filter(|_| self.shape.hint.is_none());
        for (range, plan) in plans {
            let is_listen = matches!(plan.statement, Statement::Listen(_));
            if self.transaction == Transaction::Failed && !is_listen {
                continue;
            }
            let statement = slice(text, range.clone());
            let answers = self.own_answers(plan, statement, Parameters::none(), (shard, false));
            edits.extend(answers.await?.into_iter().map(|edit| moved(edit, range)));
        }
        Ok(())
    }

    /// Looks at every statement of a message.
    fn survey(&mut self, text: &str, plans: &[(Range<u32>, Arc<Plan>)]) -> Result<Survey> {
        let mut all = Survey {
            is_live: self.transaction != Transaction::Failed,
            ..Survey::default()
        };
        // A hint before the first statement is for the whole message.
        let hint = self.shape.hint.clone().map(|range| slice(text, range));
        for (number, (range, plan)) in plans.iter().enumerate() {
            let is_last = number + 1 == plans.len();
            self.survey_one(&mut all, (text, hint, is_last), range, plan)?;
        }
        Ok(all)
    }

    fn survey_one(
        &mut self,
        all: &mut Survey,
        (text, hint, is_last): (&str, Option<&str>, bool),
        range: &Range<u32>,
        plan: &Arc<Plan>,
    ) -> Result<()> {
        let statement = slice(text, range.clone());
        let named = self.name_in_many(all, (text, range), plan)?;
        let plan = named.as_ref().map_or(plan, |named| &named.plan);
        let mut need = all.need.unwrap_or(ANYWHERE);
        let effect = effect_of(&plan.statement);
        all.ends |= effect == Effect::End;
        let was_live = all.is_live;
        all.is_live |= matches!(effect, Effect::End | Effect::RollbackTo(_));
        if all.is_live {
            self.check_in_many(plan, is_last)?;
        }
        if was_live {
            let target = match &named {
                Some(named) => self.target_of_named(named, hint)?,
                None => self.target_in_many(plan, statement, hint)?,
            };
            match agree(need.shard, &target) {
                Some(shard) => need.shard = shard,
                None => all.is_spread = true,
            }
            // Its COMMIT is one of several shards.
            all.is_spread |= self.others.has_joined() && effect_of(&plan.statement) == Effect::End;
        }
        if plan.access == Access::Write || !is_query(plan) {
            need.access = Access::Write;
            need.writes |= self.writes(plan);
        }
        // What was drawn in this very message is on the right connection anyway.
        all.drew |= plan.session.contains(SessionUse::DRAWS_SEQUENCE);
        need.is_sticky |= !all.drew && self.is_sticky(plan);
        all.need = Some(need);
        self.note_temporary(plan);
        if let Some((revert, effect)) = self.revert_in_many(plan) {
            all.edits.push(Edit {
                range: range.clone(),
                text: revert,
            });
            all.effects.push_back(effect);
        } else {
            let effect = self.effects_now(plan, statement)?;
            let effect = effect.and_then(|mut one| one.pop_front());
            all.effects.push_back(effect.unwrap_or(Effect::None));
        }
        Ok(())
    }

    /// Puts names that servers know in place of the client's; the statement as it runs if it is
    /// PREPARE or EXECUTE.
    fn name_in_many(
        &mut self,
        all: &mut Survey,
        (text, range): (&str, &Range<u32>),
        plan: &Arc<Plan>,
    ) -> Result<Option<Named>> {
        let statement = slice(text, range.clone());
        if let Statement::Deallocate(name) = &plan.statement {
            let Some(name) = name else {
                self.statements.clear_named();
                return Ok(None);
            };
            let options = Database::lex_options(self.settings.context());
            let tokens = tokenize(statement.as_bytes(), options).unwrap_or_default();
            if let Some(last) = tokens.last()
                && !self.is_of_server(name.as_bytes())
            {
                let server = match self.statements.get(name.as_bytes()).cloned() {
                    Some(prepared) => {
                        all.mention(Needs::Present(Arc::clone(&prepared)));
                        self.statements.remove(name.as_bytes());
                        String::from_utf8_lossy(&prepared.server_name).into_owned()
                    }
                    None => missing(),
                };
                all.names.push((server.clone(), name.clone()));
                let edit = Edit {
                    range: last.range(),
                    text: server,
                };
                all.edits.push(moved(edit, range));
            }
            return Ok(None);
        }
        if let Some((edit, name)) = self.unknown(statement, plan) {
            all.names.push((edit.text.clone(), name));
            all.edits.push(moved(edit, range));
            return Ok(None);
        }
        let Some(named) = self.named((statement, text), plan)? else {
            return Ok(None);
        };
        all.names.push(named.names());
        all.edits.push(moved(named.edit.clone(), range));
        all.mention(named.needs.clone());
        if let Needs::Absent(_) = named.needs {
            let name = named.name.as_bytes();
            self.statements.propose(name, Arc::clone(&named.prepared));
            self.statements.put(name, Arc::clone(&named.prepared));
        }
        Ok(Some(named))
    }

    /// The shards of one statement among several.
    fn target_in_many(&self, plan: &Plan, statement: &str, hint: Option<&str>) -> Result<Target> {
        let mut shape = Shape::default();
        let options = Database::lex_options(self.settings.context());
        shape::scan(statement.as_bytes(), options, &mut shape)
            .map_err(|error| error.to_error(statement.as_bytes()))?;
        let arguments = Arguments {
            text: statement,
            literals: &shape.literals,
            parameters: Parameters::none(),
            encoding: self.settings.context().encoding,
        };
        self.target(plan, &arguments, hint)
    }

    /// The SET that stands for a RESET of a setting that the startup packet named, and what it does.
    fn revert_in_many(&self, plan: &Plan) -> Option<(String, Effect)> {
        if !self.reverts(plan) {
            return None;
        }
        match &plan.statement {
            Statement::Reset(ResetTarget::Name(name)) => Some((
                self.settings.revert_statement(name)?,
                Effect::Reverted(name.clone()),
            )),
            Statement::Set { name, .. } => {
                let effect = Effect::Reset {
                    local: false,
                    name: name.clone(),
                };
                Some((self.settings.revert_statement(name)?, effect))
            }
            _ => None,
        }
    }

    /// Whether a transaction is open on another shard than what may end it runs on.
    fn ends_elsewhere(&self, need: &Need) -> bool {
        let mut at_work = self.server.iter().filter(|held| self.takes_part(held));
        at_work.any(|held| need.shard.is_some_and(|shard| shard != held.shard))
    }

    /// Whether the proxy has to see a statement of a message through before the next one is sent.
    fn must_be_scripted(&self, plans: &[(Range<u32>, Arc<Plan>)]) -> bool {
        let (is_plain, has_defaults) = (self.is_plain(), self.settings.has_defaults());
        // What the next one is planned for, and what the startup packet named, is given back behind it.
        let is_turn = |plan: &Plan| {
            (!is_plain && script::turns_planning(&plan.statement))
                || (has_defaults && matches!(plan.statement, Statement::Reset(ResetTarget::All)))
        };
        let is_own = |plan: &Plan| {
            self.is_own_statement(plan)
                || self.reverts_by_several(plan)
                || self.is_about_kept(&plan.statement)
        };
        // Of a transaction that goes on behind the message other shards must know how it began.
        let leaves_open = plans.iter().fold(false, |is_open, (_, plan)| {
            let effect = effect_of(&plan.statement);
            effect == Effect::Begin || (is_open && effect != Effect::End)
        });
        // A definition may make another shard join.
        if leaves_open && !self.database.is_single() {
            return true;
        }
        // Whether a cursor may be declared depends on what stands before it.
        let declares = |plan: &Plan| matches!(plan.statement, Statement::Declare { .. });
        let is_placed = !is_plain && !self.database.is_single();
        if plans
            .iter()
            .any(|(_, plan)| plan.define().is_some() || (is_placed && declares(plan)))
        {
            return true;
        }
        let last = plans.len().saturating_sub(1);
        let mut numbered = plans.iter().enumerate();
        numbered.any(|(number, (_, plan))| (number < last && is_turn(plan)) || is_own(plan))
    }

    /// What can't stand among several statements of one message.
    fn check_in_many(&self, plan: &Plan, is_last: bool) -> Result<()> {
        // The statements behind it were planned as if it were not there.
        if !self.is_plain() && !is_last && changes_planning(&plan.statement) {
            return Err(Error::refused(
                "this statement can't be sent together with others",
                "The proxy has to see it through before it can tell where the next one runs.",
                "Send it as a message of its own.",
            ));
        }
        Ok(())
    }
}

/// The need of nothing in particular.
const ANYWHERE: Need = Need {
    shard: None,
    access: Access::Read,
    writes: false,
    is_sticky: false,
    may_detach: false,
};

/// An edit of a statement as one of its message.
fn moved(edit: Edit, statement: &Range<u32>) -> Edit {
    let start = statement.start;
    Edit {
        range: edit.range.start + start..edit.range.end + start,
        ..edit
    }
}

/// The shard that both a statement and those before it need; none if there is no such shard.
fn agree(shard: Option<usize>, target: &Target) -> Option<Option<usize>> {
    match (shard, target) {
        (shard, Target::Any) => Some(shard),
        (None, Target::One(one)) => Some(Some(*one)),
        (Some(shard), Target::One(one)) if shard == *one => Some(Some(shard)),
        _ => None,
    }
}

/// Whether statements are planned differently once this one has run, in a way that is not followed within
/// a message.
fn changes_planning(statement: &Statement) -> bool {
    match statement {
        // PostgreSQL reads the whole message before any of it runs.
        Statement::Set { name, .. } | Statement::Reset(ResetTarget::Name(name)) => {
            name == "standard_conforming_strings"
        }
        Statement::Discard(_) | Statement::Ddl(_) => true,
        _ => false,
    }
}
