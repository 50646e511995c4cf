//! SQL-level PREPARE, EXECUTE and DEALLOCATE.
//!
//! A client's names, of whichever level, mean nothing on servers, which know all statements under names
//! of the proxy's. So the name in the text is replaced, and a server that is to run `EXECUTE` is made to
//! have the statement first. Where `EXECUTE` runs is decided by the plan of the statement that it names,
//! its arguments standing for the parameters. PREPARE is checked by a server like any statement.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::plan::own;
use crate::plan::{Access, Arguments, Parameters, Plan, Route, SessionUse, Target};
use crate::session::arguments::{Carried, carried, type_oid};
use crate::session::database::{Database, Question};
use crate::session::hint::Hint;
use crate::session::prepared::{Declared, Needs, Prepared, server_name, statement_id};
use crate::session::wording::Rewrite;
use crate::session::{Session, Stop};
use crate::sql::classify::{Executed, executed};
use crate::sql::lexer::tokenize;
use crate::sql::shape::{self, Shape};
use crate::sql::splice::Edit;
use crate::sql::statement::{DdlObject, Statement};
use crate::sql::token::slice;
use crate::sqlstate::SqlState;

/// A statement of the client's in which one name must be replaced.
pub(super) struct Named {
    /// The name and what stands for it.
    pub edit: Edit,
    /// The client's name.
    pub name: String,
    /// The statement of this name.
    pub prepared: Arc<Prepared>,
    /// What the statement needs of the server.
    pub needs: Needs,
    /// As what it runs.
    pub plan: Arc<Plan>,
    /// Where the arguments of an EXECUTE stand.
    pub arguments: Vec<Range<u32>>,
    /// As what those that are not constants would run by themselves.
    pub computed: Option<Arc<Plan>>,
    /// Arguments need a certain shard, and the statement may need another.
    is_apart: bool,
    /// The arguments, if it is an EXECUTE.
    carried: Option<Carried>,
}

impl Named {
    /// The names in it for errors: the server's with the client's.
    pub fn names(&self) -> (String, String) {
        let server = String::from_utf8_lossy(&self.prepared.server_name);
        (server.into_owned(), self.name.clone())
    }
}

/// Whether a statement may name a prepared one.
pub(super) fn may_name(statement: &Statement) -> bool {
    match statement {
        Statement::Prepare { .. } | Statement::Execute { .. } | Statement::Explain(_) => true,
        Statement::Ddl(ddl) => ddl.object == DdlObject::TableAs || ddl.object == DdlObject::Table,
        _ => false,
    }
}

/// A name that no statement on any server has.
pub(super) fn missing() -> String {
    server_name(0)
}

/// That there is no statement of this name (`26000`).
pub(super) fn no_statement(name: &str) -> Error {
    Error::new(
        SqlState::INVALID_SQL_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

/// That an EXECUTE can't be explained, or stored, that takes several steps.
fn combined() -> Error {
    Error::refused(
        "EXPLAIN of an EXECUTE that takes more than to send it to shards is not supported",
        "Its arguments would have to be evaluated, and its rows taken apart or merged.",
        "EXPLAIN the statement itself.",
    )
}

impl Session {
    /// What must be replaced in a statement of `text` that names a prepared one; none if it names none,
    /// or one that only the server knows. `message` is all that the client sent with it.
    ///
    /// # Errors
    /// `26000` for a name that does not exist, `0A000` for what can't be executed by its name.
    pub(super) fn named(
        &mut self,
        (text, message): (&str, &str),
        plan: &Arc<Plan>,
    ) -> Result<Option<Named>> {
        if !may_name(&plan.statement) {
            return Ok(None);
        }
        if let Statement::Prepare { name, .. } = &plan.statement {
            return self.named_prepare((text, message), name, plan).map(Some);
        }
        let options = Database::lex_options(self.settings.context());
        let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
        let Some(executed) = executed(text, &tokens) else {
            return Ok(None);
        };
        if self.is_of_server(executed.name.as_bytes()) {
            return Ok(None);
        }
        if self.statements.get(executed.name.as_bytes()).is_none() {
            return Err(no_statement(&executed.name));
        }
        let prepared = self.prepared(executed.name.as_bytes())?;
        self.named_execute(text, executed, prepared, plan).map(Some)
    }

    /// The edit by which a server rejects a statement that names one that does not exist, and the name.
    pub(super) fn unknown(&self, text: &str, plan: &Plan) -> Option<(Edit, String)> {
        if !may_name(&plan.statement) || matches!(plan.statement, Statement::Prepare { .. }) {
            return None;
        }
        let options = Database::lex_options(self.settings.context());
        let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
        let executed = executed(text, &tokens)?;
        let name = executed.name.as_bytes();
        let is_unknown = self.statements.get(name).is_none() && !self.is_of_server(name);
        let edit = Edit {
            range: executed.name_range,
            text: missing(),
        };
        is_unknown.then_some((edit, executed.name))
    }

    fn named_prepare(
        &mut self,
        (text, message): (&str, &str),
        name: &str,
        plan: &Arc<Plan>,
    ) -> Result<Named> {
        // The server is to say that the name exists, once it has found nothing else to say.
        let (prepared, needs) = match self.statements.get(name.as_bytes()).is_some() {
            true => {
                let prepared = self.prepared(name.as_bytes())?;
                (Arc::clone(&prepared), Needs::Present(prepared))
            }
            false => {
                self.check_new_name(name.as_bytes())?;
                let prepared = self.declare((text, message), plan)?;
                let needs = Needs::Absent(prepared.id);
                (prepared, needs)
            }
        };
        let Statement::Prepare { name_range, .. } = &plan.statement else {
            return Err(no_statement(name));
        };
        Ok(Named {
            edit: rename(name_range.clone(), &prepared),
            name: name.to_owned(),
            prepared,
            needs,
            plan: Arc::clone(plan),
            arguments: Vec::new(),
            computed: None,
            is_apart: false,
            carried: None,
        })
    }

    /// The statement that a PREPARE makes.
    fn declare(&mut self, (text, message): (&str, &str), plan: &Plan) -> Result<Arc<Prepared>> {
        let Statement::Prepare {
            name,
            name_range,
            types,
            body,
        } = &plan.statement
        else {
            return Err(no_statement(""));
        };
        let head = slice(text, name_range.end..body.start);
        let types: Vec<u32> = types
            .iter()
            .map(|range| type_oid(slice(text, range.clone())))
            .collect();
        let body = slice(text, body.clone());
        let (plan, shape) = self.plan_of(body, &types)?;
        let declared = Declared {
            name: name.clone(),
            declaration: format!("{head}{}", self.lasting_answers(&plan, body)?),
            source: message.to_owned(),
        };
        let id = self.identify_declared(&declared);
        Ok(Arc::new(Prepared {
            id,
            server_name: server_name(id).into_bytes().into(),
            text: body.as_bytes().into(),
            read: None,
            types: types.into(),
            literals: shape.literals.into(),
            hint: None,
            plan,
            context: self.reading(),
            made_at: SystemTime::now(),
            declared: Some(Arc::new(declared)),
            needs: Needs::Nothing,
        }))
    }

    /// Identifies what SQL declares.
    pub(super) fn identify_declared(&self, declared: &Declared) -> u128 {
        self.identify(true, declared.key().as_bytes(), &[])
    }

    pub(super) fn plan_of(&self, text: &str, types: &[u32]) -> Result<(Arc<Plan>, Shape)> {
        let context = Arc::clone(self.settings.context());
        let mut shape = Shape::default();
        shape::scan(text.as_bytes(), Database::lex_options(&context), &mut shape)
            .map_err(|error| error.to_error(text.as_bytes()))?;
        let plan = self.database.plan(&Question {
            text,
            shape: &shape,
            types,
            context: &context,
            temporary_tables: self.memory.temporary_tables,
            by_key: context.shard_key.is_some(),
            sight: self.own_sight(),
        })?;
        Ok((plan, shape))
    }

    fn named_execute(
        &mut self,
        text: &str,
        executed: Executed,
        prepared: Arc<Prepared>,
        plan: &Arc<Plan>,
    ) -> Result<Named> {
        if !matches!(prepared.plan.statement, Statement::Query(_)) {
            return Err(Error::refused(
                format!(
                    "prepared statement \"{}\" can't be run by EXECUTE",
                    executed.name
                ),
                "It is not a SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE.",
                "Send it as it is.",
            ));
        }
        let carried = carried(text, &executed.arguments, &prepared.types);
        let mut whole = match &plan.statement {
            Statement::Execute { .. } => Arc::clone(&prepared.plan),
            _ => Arc::new(wrapped(plan, &prepared.plan, self.is_plain())?),
        };
        if !whole.own.is_empty() {
            // Its calls stand in the statement that is named.
            let mut plan = (*whole).clone();
            if plan
                .own
                .iter()
                .any(|call| call.question == own::Question::SetConfig)
            {
                // What it sets is not known here.
                plan.session |= SessionUse::SET_CONFIG;
            }
            plan.own = Box::default();
            whole = Arc::new(plan);
        }
        let (mut computed, mut is_apart) = (None, false);
        if !carried.computed.is_empty() {
            let (plan, _) = self.plan_of(&format!("SELECT {}", carried.computed), &[])?;
            let (both, agree) = with_computed(&whole, &plan)?;
            (whole, is_apart) = (Arc::new(both), !agree);
            computed = Some(plan);
        }
        Ok(Named {
            edit: rename(executed.name_range, &prepared),
            name: executed.name,
            needs: Needs::Present(Arc::clone(&prepared)),
            prepared,
            plan: whole,
            arguments: executed.arguments,
            computed,
            is_apart,
            carried: Some(carried),
        })
    }

    /// The shards that a statement with a name runs on as it is; [`Target::Combine`] for an EXECUTE that takes
    /// more than that (`session/executed.rs`).
    ///
    /// # Errors
    /// The refusal of the statement that it names.
    pub(super) fn target_of_named(&self, named: &Named, hint: Option<&str>) -> Result<Target> {
        let prepared = &named.prepared;
        let Some(carried) = &named.carried else {
            return Ok(match self.need_to_prepare(&prepared.plan).shard {
                Some(shard) => Target::One(shard),
                None => Target::Any,
            });
        };
        if self.database.is_single() || (hint.is_none() && self.is_plain()) {
            return Ok(Target::One(0));
        }
        let has_key = |hint: Option<&str>| hint.is_some_and(Hint::is_key);
        let is_by_key = self.settings.context().shard_key.is_some();
        if has_key(hint) && !has_key(prepared.hint.as_deref()) && !is_by_key {
            return Err(planned_without_key());
        }
        let text = prepared.sql();
        if !self.counts_agree(named, carried, text) {
            // Any server says so.
            return Ok(Target::Any);
        }
        let arguments = Arguments {
            text,
            literals: &prepared.literals,
            parameters: Parameters::new(&carried.types, &[], &carried.values),
            encoding: self.settings.context().encoding,
        };
        let target = self.target(&named.plan, &arguments, hint.or(prepared.hint.as_deref()));
        let is_query = matches!(named.plan.statement, Statement::Query(_));
        let is_refused = matches!(named.plan.route, Route::Refused(_));
        let target = match target {
            // The arguments that are not known yet may say where it runs.
            Err(_) if is_query && !is_refused && !carried.is_known() => Target::Combine,
            other => other?,
        };
        let is_merged = named.plan.merge.is_some() || prepared.plan.merge.is_some();
        match target {
            Target::One(_) | Target::Any if !named.is_apart => Ok(target),
            Target::Many(_) if !is_merged && carried.computed.is_empty() => Ok(target),
            _ if is_query => Ok(Target::Combine),
            _ => Err(combined()),
        }
    }

    /// Whether an EXECUTE has as many arguments as its statement has parameters.
    fn counts_agree(&self, named: &Named, carried: &Carried, text: &str) -> bool {
        let options = Database::lex_options(self.settings.context());
        let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
        let used = tokens
            .iter()
            .filter_map(|token| token.text(text).strip_prefix('$')?.parse().ok())
            .max()
            .unwrap_or(0);
        carried.count == used.max(named.prepared.types.len())
    }

    /// The statement that stands for one of the extended protocol that names another, and where it runs;
    /// none if it names none.
    ///
    /// # Errors
    /// As for [`Session::named`] and [`Session::target_of_named`].
    pub(super) fn derive(
        &mut self,
        prepared: &Arc<Prepared>,
    ) -> Result<Option<(Arc<Prepared>, Target)>> {
        if !may_name(&prepared.plan.statement) {
            return Ok(None);
        }
        let text = prepared.sql();
        let Some(named) = self.named((text, text), &prepared.plan)? else {
            return Ok(None);
        };
        let target = self.target_of_named(&named, prepared.hint.as_deref())?;
        let options = Database::lex_options(self.settings.context());
        let edits = std::slice::from_ref(&named.edit);
        let (sent, rewrite) = Rewrite::apply(text, options, edits, vec![named.names()])?;
        self.batch.rewrite = Some(rewrite);
        if let Needs::Absent(_) = named.needs {
            self.statements
                .propose(named.name.as_bytes(), Arc::clone(&named.prepared));
        }
        let is_named = !prepared.is_unnamed();
        let id = statement_id(is_named, sent.as_bytes(), &prepared.types, self.reading());
        let derived = Prepared {
            id,
            server_name: match is_named {
                true => server_name(id).into_bytes().into(),
                false => Box::default(),
            },
            text: sent.into_bytes().into(),
            read: None,
            types: prepared.types.clone(),
            literals: Box::default(),
            hint: prepared.hint.clone(),
            plan: named.plan,
            context: prepared.context,
            made_at: prepared.made_at,
            declared: None,
            needs: named.needs,
        };
        Ok(Some((Arc::new(derived), target)))
    }

    /// Waits for what was rewritten: its errors must not be taken for those of what comes behind it.
    pub(super) async fn forget_rewrite(&mut self) -> Result<(), Stop> {
        if self.batch.rewrite.is_some() {
            self.drain().await?;
            self.batch.rewrite = None;
            self.batch.executes = None;
            self.statements.drop_proposals();
        }
        Ok(())
    }

    /// A PREPARE has completed.
    pub(super) fn note_prepared(&mut self, name: &str) {
        if let Some(prepared) = self.statements.accept(name.as_bytes())
            && let Some(held) = &mut self.server
            && let Some(evicted) = held.lease.learn(prepared.id)
        {
            // Room was made for it, so this does not happen; the server keeps what is not known here.
            held.is_lost = true;
            tracing::debug!(evicted = %server_name(evicted), "a prepared statement was left behind");
        }
    }

    /// A DEALLOCATE has completed on the server.
    pub(super) fn note_deallocated(&mut self, name: &str) {
        if let Some(prepared) = self.statements.get(name.as_bytes())
            && let Some(held) = &mut self.server
        {
            held.lease.unlearn(prepared.id);
        }
        self.statements.remove(name.as_bytes());
    }
}

/// The edit that puts the name which servers know in place of the client's.
pub(super) fn rename(range: std::ops::Range<u32>, prepared: &Prepared) -> Edit {
    let name = String::from_utf8_lossy(&prepared.server_name).into_owned();
    Edit { range, text: name }
}

/// The plan of EXPLAIN or CREATE TABLE AS of a statement with this plan.
fn wrapped(outer: &Plan, inner: &Plan, is_single: bool) -> Result<Plan> {
    let mut plan = outer.clone();
    match &outer.statement {
        Statement::Explain(explain) => {
            plan.route = inner.route.clone();
            (plan.access, plan.session) = match explain.analyze {
                true => (inner.access, inner.session),
                false => (Access::Read, SessionUse::NONE),
            };
        }
        _ => {
            plan.access = Access::Write;
            plan.session |= inner.session;
            let is_one = match (&outer.route, &inner.route) {
                (Route::Shard(outer), Route::Shard(inner)) => outer == inner,
                (Route::Shard(_), Route::Any) => true,
                _ => false,
            };
            if !is_one && !is_single {
                return Err(Error::refused(
                    "CREATE TABLE AS EXECUTE is not supported on several shards",
                    "The table and the rows that fill it are not on one shard for certain.",
                    "SET shardwire.shard to the shard that has both.",
                ));
            }
        }
    }
    Ok(plan)
}

/// A plan whose execution has arguments that are computed as `computed` says, and whether one shard can do both.
fn with_computed(plan: &Plan, computed: &Plan) -> Result<(Plan, bool)> {
    let mut plan = plan.clone();
    plan.session |= computed.session;
    if computed.access == Access::Write {
        plan.access = Access::Write;
    }
    let agree = match (&plan.route, &computed.route) {
        (_, Route::Refused(error)) => return Err(error.clone()),
        (_, Route::Any) => true,
        (Route::Any, Route::Shard(shard)) => {
            plan.route = Route::Shard(*shard);
            true
        }
        (Route::Shard(one), Route::Shard(other)) => one == other,
        (_, Route::Shard(_)) => false,
        // PostgreSQL has no subqueries there.
        _ => return Err(subquery()),
    };
    Ok((plan, agree))
}

fn subquery() -> Error {
    Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cannot use subquery in EXECUTE parameter",
    )
}

/// A key in a comment before EXECUTE comes after the statement has been planned.
fn planned_without_key() -> Error {
    Error::refused(
        "EXECUTE with a shard_key in a comment is not supported",
        "The statement that it names was planned without a key.",
        "SET shardwire.shard_key, or send the statement itself behind the comment.",
    )
}
