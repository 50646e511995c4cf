//! What a session's prepared statements are called, what they mean, and when they are planned anew.

use std::borrow::Cow;
use std::sync::Arc;

use crate::backend::connection::StatementId;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::prepared::{Needs, Prepared, server_name, statement_id};
use crate::session::simple::aborted;
use crate::session::study::{Study, converted, effect_of};
use crate::session::{Session, Stop};
use crate::sql::statement::Statement;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;

/// A text as servers get it, and as it is to be understood if that is another.
type Texts = (Box<[u8]>, Option<Box<str>>);

impl Session {
    /// The text that servers get, and the one to understand if that is another.
    pub(super) fn parsed_text(
        &self,
        text: &[u8],
        read: &Option<Cow<'_, str>>,
        plan: &Plan,
    ) -> Result<Texts> {
        let placed = plan.define().filter(|define| define.placed.is_some());
        match (placed, read) {
            (Some(define), Some(read)) => {
                let sent = define.text(read, 0);
                Ok((self.encoded(&sent)?.into(), Some((&**read).into())))
            }
            _ => Ok((text.into(), converted(read))),
        }
    }

    /// The hint in the text that was just scanned.
    pub(super) fn hint_in(&self, text: Option<&str>) -> Option<Box<str>> {
        let range = self.shape.hint.clone()?;
        text.map(|text| slice(text, range).into())
    }

    /// Distinguishes what a prepared statement may mean: by the settings under which servers read it
    /// and those that planning depends on.
    pub(super) fn reading(&self) -> u64 {
        self.settings.reading() ^ self.settings.context().fingerprint().rotate_left(17)
    }

    /// Changes with every change of definitions that the session can see.
    fn definitions(&self) -> u64 {
        let client = self.registered.control.process_id;
        let shared = self.database.definitions().rotate_left(41);
        shared ^ self.memory.definitions.private(client)
    }

    /// Changes when a text may have other results: with definitions, and with what its names stand for.
    pub(super) fn meaning(&self) -> u64 {
        let context = self.settings.context().fingerprint();
        self.definitions() ^ context.rotate_left(17)
    }

    /// Identifies a statement that is prepared now. What has changed the definitions is in it, so that
    /// whoever prepares a statement after that does not get an older one.
    pub(super) fn identify(&self, is_named: bool, text: &[u8], types: &[u32]) -> StatementId {
        statement_id(is_named, text, types, self.reading() ^ self.definitions())
    }

    /// Whether a text may be parsed in a transaction that has failed: a server that has read it before is not
    /// going to be asked.
    ///
    /// # Errors
    /// `25P02`.
    pub(super) fn check_known(&mut self, plan: &Plan, id: StatementId) -> Result<()> {
        let may_run = may_end_broken(plan);
        let is_known = |held: &mut Held| held.lease.knows(id);
        let is_failed = self.transaction == Transaction::Failed && !may_run;
        match is_failed && self.server.as_mut().is_some_and(is_known) {
            true => Err(aborted()),
            false => Ok(()),
        }
    }

    /// Before a text is parsed that the server at work has or is about to have, so that it is not asked: what is
    /// under way may yet say that the text is wrong, or have the transaction fail.
    pub(super) async fn settle_parse(&mut self, id: StatementId) -> Result<(), Stop> {
        let is_in_block = self.transaction != Transaction::Idle;
        let is_parsed =
            |held: &mut Held| held.lease.knows(id) && (is_in_block || held.replies.is_parsing(id));
        if self.server.as_mut().is_some_and(is_parsed) {
            self.drain().await?;
            if self.is_skipping() {
                return Err(Stop::Skip);
            }
        }
        Ok(())
    }

    /// Forgets the statements whose Parse stood behind an error and was not sent.
    pub(super) fn forget_unsent(&mut self) {
        if self.is_skipping() {
            for (name, prepared) in self.batch.pending.drain(..) {
                self.statements.reject(&name, prepared.id);
            }
        }
    }

    pub(super) fn check_new_name(&self, name: &[u8]) -> Result<()> {
        if self.statements.get(name).is_some() {
            let name = String::from_utf8_lossy(name);
            return Err(Error::new(
                SqlState::DUPLICATE_PSTATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let limit = self.database.limits.prepared_statements_per_client;
        if self.statements.count() >= limit as usize {
            return Err(Error::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "too many prepared statements",
            )
            .detail(format!(
                "The session has {limit}, limits.prepared_statements_per_client."
            ))
            .hint("Close statements that are not used any more."));
        }
        Ok(())
    }

    /// Whether a statement of this name, if there is one, was made by SQL on the connection that the
    /// session keeps.
    pub(super) fn is_of_server(&self, name: &[u8]) -> bool {
        self.is_pinned() && self.server.is_some() && self.statements.get(name).is_none()
    }

    /// The statement of this name, planned against the present catalogue and settings.
    pub(super) fn prepared(&mut self, name: &[u8]) -> Result<Arc<Prepared>> {
        let Some(prepared) = self.statements.get(name) else {
            return Err(Error::new(
                SqlState::INVALID_SQL_STATEMENT_NAME,
                match name {
                    b"" => "unnamed prepared statement does not exist".to_owned(),
                    name => format!(
                        "prepared statement \"{}\" does not exist",
                        String::from_utf8_lossy(name)
                    ),
                },
            ));
        };
        let context = self.reading();
        let is_same = prepared.context == context;
        let is_planned = prepared.plan.epoch == self.epoch()
            || matches!(prepared.plan.statement, Statement::Empty | Statement::Other);
        if is_same && is_planned {
            return Ok(Arc::clone(prepared));
        }
        let old = Arc::clone(prepared);
        if let Some(written) = self.statements.written(name) {
            return self.expanded_anew(name, &old, &written);
        }
        let read = match old.plan.define().is_some() {
            // Servers have another text.
            true => Some(Cow::Borrowed(old.sql())),
            false => self.settings.context().encoding.read(&old.text),
        };
        let Study::One(plan) = self.study(read.as_deref(), &old.types)? else {
            return Ok(old);
        };
        // A definition that has changed is for the server to notice: the client knows the old one.
        let id = match (is_same, &old.declared) {
            (true, _) => old.id,
            (false, Some(declared)) => self.identify_declared(declared),
            (false, None) => self.identify(!old.is_unnamed(), &old.text, &old.types),
        };
        let renewed = Arc::new(Prepared {
            id,
            server_name: match old.is_unnamed() {
                true => Box::default(),
                false => server_name(id).into_bytes().into(),
            },
            text: old.text.clone(),
            read: match plan.define().is_some() {
                true => read.map(|read| read.as_ref().into()),
                false => converted(&read),
            },
            types: old.types.clone(),
            literals: self.shape.literals.as_slice().into(),
            hint: old.hint.clone(),
            plan,
            context,
            made_at: old.made_at,
            declared: old.declared.clone(),
            needs: Needs::Nothing,
        });
        self.statements.renew(name, Arc::clone(&renewed));
        Ok(renewed)
    }
}

/// Whether a statement may run in a transaction that has failed.
pub(super) fn may_end_broken(plan: &Plan) -> bool {
    let effect = effect_of(&plan.statement);
    matches!(effect, Effect::End | Effect::RollbackTo(_)) || plan.statement == Statement::Empty
}
