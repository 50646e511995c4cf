//! Definitions on every shard: one atomic statement, one answer.
//!
//! What holds:
//! - A definition runs on the first shard first, then on the others. So whoever defines the same thing waits
//!   on the first shard, and most errors come before the others have done anything.
//! - It is one transaction on all shards, the client's or one of its own, with the placements in
//!   `shardwire.tables`: another session sees all of it or nothing.
//! - Only the first shard's notices and tag reach the client.
//! - What it does to placements is seen on the first shard, in its transaction ([`sight`]); what can't be
//!   kept fails it ([`crate::plan::follow`]).
//! - The session plans its next statement, in the same transaction too, with what it has defined.

mod apart;
mod rows;
mod sight;
mod stored;

use crate::backend::connection::Failed;
use crate::catalog::advice::{Advice, AdviceLevel};
use crate::error::{Error, Result};
use crate::exec::scatter::Scatter;
use crate::plan::follow::{Outcome, has_rows};
use crate::plan::{Access, Define, Filling, Plan};
use crate::pool::Lease;
use crate::session::announce::plain_bind;
use crate::session::effect::Effect;
use crate::session::route::Need;
use crate::session::scatter::{Answered, Joins, ScatterPortal, describe_and_execute};
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::literal::{quote_identifier, quote_literal};
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{command_complete, no_data, notice_response};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// Where definitions begin, and temporary tables are.
const FIRST_SHARD: ShardIndex = 0;

/// The declared types of a statement's parameters, and their values.
pub(super) type Given<'a> = (&'a [u32], Bind<'a>);

impl Session {
    /// Runs a definition that came as a Query.
    pub(super) async fn define_query(
        &mut self,
        text: &[u8],
        plan: &Plan,
        define: &Define,
    ) -> Result<(), Stop> {
        let tag = self.define(text, plan, define, None).await?;
        self.end_query(&tag).await
    }

    /// Runs a definition that was bound.
    pub(super) async fn execute_define(
        &mut self,
        portal: &ScatterPortal,
        define: &Define,
    ) -> Result<(), Stop> {
        let bind = Bind::read(frame::body(&portal.bind))?;
        if bind.count > 0 && define.filling.is_none() {
            return Err(Error::refused(
                "a definition with parameters is not supported on several shards",
                "Each shard would have to be told them.",
                "Write the values into the statement.",
            )
            .into());
        }
        self.drain().await?;
        self.pay_owed();
        if portal.is_described {
            let mut words = Vec::new();
            no_data(&mut words);
            self.say(words);
        }
        let plan = &portal.prepared.plan;
        let text = portal.prepared.sql().to_owned();
        let text = self.encoded(&text)?.into_owned();
        let given = (&*portal.prepared.types, bind);
        let tag = self.define(&text, plan, define, Some(given)).await?;
        let mut words = Vec::new();
        command_complete(&mut words, &tag);
        self.say(words);
        Ok(())
    }

    /// Runs a definition; its command tag.
    async fn define(
        &mut self,
        text: &[u8],
        plan: &Plan,
        define: &Define,
        given: Option<Given<'_>>,
    ) -> Result<String, Stop> {
        let encoding = self.settings.context().encoding;
        let text = encoding.read(text).ok_or_else(unreadable)?.into_owned();
        self.drain().await?;
        match &define.filling {
            Some(Filling::Temporary(rows)) => self.define_temporary(plan, rows, given).await,
            Some(Filling::View(view)) => {
                let written = (text.as_str(), given);
                self.define_view(plan, (define, view), written).await
            }
            Some(Filling::Refreshed(rows)) => {
                let written = (text.as_str(), given);
                self.define_refresh(plan, rows, written).await
            }
            _ => self.define_everywhere(&text, plan, define, given).await,
        }
    }

    /// Runs a definition as it is, on every shard; its command tag.
    async fn define_everywhere(
        &mut self,
        text: &str,
        plan: &Plan,
        define: &Define,
        given: Option<Given<'_>>,
    ) -> Result<String, Stop> {
        let is_alone =
            self.transaction == Transaction::Idle && !self.unit.is_script && !self.batch.is_sent();
        if is_alone && plan.statement == Statement::Lock {
            let message = "LOCK TABLE can only be used in transaction blocks";
            return Err(Error::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message).into());
        }
        let here = only(FIRST_SHARD);
        if self.is_about_temporary(define).await? {
            if define.is_new || self.is_about_another(define).await? {
                return Err(beside_temporary().into());
            }
            self.check_several(plan, &here).await?;
            let told = (text, given);
            let answered = self.run_on(&here, Joins::Writing, told, true).await?;
            self.note_definitions(&Effect::Pin);
            return Ok(answered.tag);
        }
        if is_alone && define.is_apart {
            return self.define_apart(text, define).await;
        }
        self.check_several(plan, &define.shards).await?;
        self.database.metrics.scatter.inc();
        let before = match define.is_tracked {
            true => Some(self.sight().await?),
            false => None,
        };
        let first = define.text(text, FIRST_SHARD);
        let told = (first.as_str(), given);
        let answered = self.run_on(&here, Joins::Writing, told, true).await?;
        let tag = answered.tag;
        let outcome = match before {
            Some(before) => Some(self.followed(define, &before).await?),
            None => None,
        };
        let mut tags = vec![tag];
        for (shards, text) in others(define, text) {
            let told = (text.as_str(), given);
            let answered = self.run_on(&shards, Joins::Writing, told, false).await?;
            tags.push(answered.tag);
        }
        let mut made = None;
        if let Some(outcome) = outcome {
            self.keep_placements(define, &outcome).await?;
            made = outcome.made;
            self.advise(&outcome.advice);
            self.memory
                .definitions
                .note_sight(std::sync::Arc::new(outcome.sight));
        }
        self.note_definitions(&Effect::Schema);
        self.note_schema();
        if let (Some(filling), Some(table)) = (&define.filling, made)
            && let Some(insert) = filling.insert(&table)?
        {
            let count = self.store_rows(&insert, given).await?;
            return Ok(format!("SELECT {count}"));
        }
        // A table that is filled has its rows on one shard.
        let counts = |tag: &String| tag.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
        let tag = tags.into_iter().max_by_key(|tag| counts(tag));
        Ok(tag.unwrap_or_default())
    }

    /// Runs a text on these shards.
    async fn run_on(
        &mut self,
        shards: &ShardSet,
        joins: Joins,
        (text, given): (&str, Option<Given<'_>>),
        is_told: bool,
    ) -> Result<Answered, Stop> {
        let gathered = self.gather(shards, joins, &[]).await?;
        let text = self.encoded(text)?.into_owned();
        let (types, bind) = given.unwrap_or((&[], plain_bind(b"", b"")));
        let bind = Bind {
            portal: b"",
            ..bind
        };
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", &text, types);
            frontend::write_bind(&mut out, &bind, b"");
            describe_and_execute(&mut out, b"");
            out
        };
        let scatter = Scatter::start(gathered, request, true, HIGH_WATER_BYTES);
        let scatter = match is_told {
            true => scatter.of_query(),
            false => scatter.silent(),
        };
        self.drive(scatter).await
    }

    /// Whether a definition names a temporary table of the session's.
    async fn is_about_temporary(&mut self, define: &Define) -> Result<bool, Stop> {
        let names = define.names.iter().filter(|name| {
            let schema = name.schema.as_deref();
            schema.is_none_or(|schema| schema.starts_with("pg_temp"))
        });
        let names: Vec<String> = names.map(|name| quote_literal(&name.name)).collect();
        if !self.memory.temporary_tables || names.is_empty() {
            return Ok(false);
        }
        let sql = format!(
            "SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
             AND relname = ANY (ARRAY[{}]::pg_catalog.name[])",
            names.join(", ")
        );
        self.hold_here(FIRST_SHARD, false).await?;
        match &mut self.server {
            Some(held) => held.lease.returns_row(&sql).await.map_err(stop),
            None => Ok(false),
        }
    }

    /// Whether a definition about a temporary table also names a relation that every shard has, or gives the
    /// temporary table its name. The first shard would then change it alone, or the session's statements that mean
    /// the temporary table would be planned as for the other.
    async fn is_about_another(&mut self, define: &Define) -> Result<bool, Stop> {
        let names = define.names.iter().map(|name| {
            let bare = quote_identifier(&name.name);
            quote_literal(&match &name.schema {
                Some(schema) => format!("{}.{bare}", quote_identifier(schema)),
                None => bare.to_string(),
            })
        });
        let sql = format!(
            "SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace <> pg_catalog.pg_my_temp_schema() \
             AND relnamespace <> 'pg_catalog'::pg_catalog.regnamespace AND relkind <> 'c' AND oid IN \
             (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(ARRAY[{}]::text[]) AS named(name))",
            names.collect::<Vec<_>>().join(", ")
        );
        match &mut self.server {
            Some(held) => held.lease.returns_row(&sql).await.map_err(stop),
            None => Ok(false),
        }
    }

    /// Holds the connection to a shard that takes part in the transaction, with nothing under way.
    async fn hold_here(&mut self, shard: ShardIndex, writes: bool) -> Result<(), Stop> {
        self.hold(Need {
            shard: Some(shard),
            access: Access::Write,
            writes,
            is_sticky: false,
            may_detach: false,
        })
        .await?;
        self.drain().await
    }

    /// Writes the placements on every shard, and makes sure that tables have no rows that must not.
    async fn keep_placements(&mut self, define: &Define, outcome: &Outcome) -> Result<(), Stop> {
        if outcome.changes.is_empty() && outcome.empty.is_empty() {
            return Ok(());
        }
        let changes = match outcome.changes.is_empty() {
            true => String::new(),
            false => sight::as_login_role(&outcome.changes.join("; ")),
        };
        for shard in define.shards.iter() {
            self.hold_here(shard, true).await?;
            let Some(held) = &mut self.server else {
                continue;
            };
            for (schema, table, why) in &outcome.empty {
                let (schema, name) = (quote_identifier(schema), quote_identifier(table));
                let sql = format!("SELECT 1 FROM {schema}.{name} LIMIT 1");
                if held.lease.returns_row(&sql).await.map_err(stop)? {
                    return Err(has_rows(table, why).into());
                }
            }
            if !changes.is_empty() {
                held.lease.run(&changes).await.map_err(stop)?;
            }
        }
        Ok(())
    }

    /// Tells the client what is unwise about what it has defined.
    fn advise(&mut self, advice: &[Advice]) {
        let least = self.settings.server().get("client_min_messages");
        let least = least.unwrap_or_default().to_ascii_lowercase();
        let mut words = Vec::new();
        for one in advice {
            let (severity, code) = match one.code.level() {
                AdviceLevel::Notice => ("NOTICE", SqlState::SUCCESSFUL_COMPLETION),
                _ => ("WARNING", SqlState::WARNING),
            };
            let is_hidden =
                least.contains("error") || (severity == "NOTICE" && least.contains("warning"));
            if is_hidden {
                continue;
            }
            let notice = Error::new(code, one.message.clone())
                .detail(format!("{} [{}]", one.detail, one.code.as_str()))
                .hint(one.hint);
            notice_response(&mut words, severity, &notice);
        }
        self.say(words);
    }
}

fn only(shard: ShardIndex) -> ShardSet {
    let mut set = ShardSet::new();
    set.insert(shard);
    set
}

/// The shards behind the first, by what they are told.
fn others(define: &Define, text: &str) -> Vec<(ShardSet, String)> {
    let mut groups: Vec<(ShardSet, String)> = Vec::new();
    for shard in define.shards.iter().filter(|shard| *shard != FIRST_SHARD) {
        let text = define.text(text, shard);
        match groups.iter_mut().find(|(_, known)| *known == text) {
            Some((shards, _)) => {
                shards.insert(shard);
            }
            None => groups.push((only(shard), text)),
        }
    }
    groups
}

/// A definition of what only the first shard has, and of what every shard has.
fn beside_temporary() -> Error {
    Error::refused(
        "a definition that names a temporary table beside another relation is not supported on several shards",
        "Temporary tables are on the first shard only, and would be all that the definition changes.",
        "Define the temporary table in a statement of its own, under a name that no other relation has.",
    )
}

/// Why the proxy's own statement did not run.
fn stop(failed: Failed) -> Stop {
    match failed {
        Failed::Refused(error) => Stop::Statement(error),
        Failed::Lost(cause) => Stop::Lost(cause),
    }
}

fn unreadable() -> Error {
    Error::refused(
        "definition that can't be read in its client encoding",
        "Its names must be known.",
        "SET client_encoding TO 'UTF8'.",
    )
}
