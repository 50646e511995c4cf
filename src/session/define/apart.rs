//! Statements that can't run in a transaction (VACUUM, CREATE INDEX CONCURRENTLY and their like): each shard
//! runs them by itself.
//!
//! What one shard has done stays, whatever the others say, so the client is told how far it came. Repeating
//! the statement is safe: an index that a failed attempt has left behind invalid is dropped first, and a
//! shard that has the index already is left alone.

use crate::error::Error;
use crate::plan::Define;
use crate::session::define::{only, stop};
use crate::session::effect::Effect;
use crate::session::scatter::Joins;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sql::definition::{ConcurrentIndex, concurrent_index};
use crate::sql::lexer::tokenize;
use crate::sql::literal::{quote_identifier, quote_literal};
use crate::sqlstate::SqlState;
use crate::wire::backend::notice_response;

/// What a shard has of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Invalid,
    Valid,
}

impl Session {
    /// Runs a statement on one shard after the other; its command tag.
    pub(super) async fn define_apart(
        &mut self,
        text: &str,
        define: &Define,
    ) -> Result<String, Stop> {
        let options = crate::session::database::Database::lex_options(self.settings.context());
        let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
        let index = concurrent_index(text, &tokens);
        let mut states = Vec::new();
        if let Some(index) = &index {
            for shard in define.shards.iter() {
                states.push(self.index_state(shard, index).await?);
            }
        }
        let wanted = match index.as_ref().map(|index| index.is_dropped) {
            Some(true) => State::Absent,
            _ => State::Valid,
        };
        // Where all are as they should be, the statement is no repetition.
        let is_partial = states.iter().any(|state| *state != wanted);
        let mut tag = String::new();
        let mut done: Vec<String> = Vec::new();
        for (at, shard) in define.shards.iter().enumerate() {
            let name = self.database.shard_name(shard).to_owned();
            let state = states.get(at).copied();
            if is_partial && state == Some(wanted) {
                self.tell_skipped(&name);
                done.push(name);
                continue;
            }
            if let (Some(State::Invalid), Some(index)) = (state, &index)
                && wanted == State::Valid
            {
                self.drop_invalid(shard, index).await?;
            }
            match self.define_one(shard, text, at == 0).await {
                Ok(said) => tag = said,
                Err(stop) => {
                    self.tell_partial(&done, &name, define.shards.len());
                    self.note_apart();
                    return Err(stop);
                }
            }
            done.push(name);
        }
        self.note_apart();
        if tag.is_empty() {
            tag = match wanted {
                State::Absent => "DROP INDEX".to_owned(),
                _ => "CREATE INDEX".to_owned(),
            };
        }
        Ok(tag)
    }

    async fn define_one(
        &mut self,
        shard: ShardIndex,
        text: &str,
        is_told: bool,
    ) -> Result<String, Stop> {
        let here = only(shard);
        let answered = self.run_on(&here, Joins::Keeping, (text, None), is_told);
        Ok(answered.await?.tag)
    }

    fn note_apart(&mut self) {
        self.note_definitions(&Effect::Schema);
        self.note_definitions(&Effect::End);
        self.note_schema();
    }

    async fn index_state(
        &mut self,
        shard: ShardIndex,
        index: &ConcurrentIndex,
    ) -> Result<State, Stop> {
        let sql = format!(
            "SELECT CASE WHEN indisvalid THEN 'v' ELSE 'i' END FROM pg_catalog.pg_index \
             WHERE indexrelid = pg_catalog.to_regclass({})",
            quote_literal(&index.written())
        );
        self.hold_here(shard, false).await?;
        let Some(held) = &mut self.server else {
            return Ok(State::Absent);
        };
        let value = held.lease.value(&sql).await.map_err(stop)?;
        Ok(match value.as_deref() {
            Some("v") => State::Valid,
            Some(_) => State::Invalid,
            None => State::Absent,
        })
    }

    async fn drop_invalid(
        &mut self,
        shard: ShardIndex,
        index: &ConcurrentIndex,
    ) -> Result<(), Stop> {
        let sql = format!("DROP INDEX CONCURRENTLY {}", index.written());
        self.define_one(shard, &sql, false).await.map(drop)
    }

    fn tell_skipped(&mut self, shard: &str) {
        let notice = Error::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!("shard {shard} has done this already, skipping"),
        );
        let mut words = Vec::new();
        notice_response(&mut words, "NOTICE", &notice);
        self.say(words);
    }

    /// Says how far a statement came that fails on a shard.
    fn tell_partial(&mut self, done: &[String], failed: &str, count: usize) {
        if done.is_empty() {
            return;
        }
        let notice = Error::new(
            SqlState::WARNING,
            format!("the statement is done on {} of {count} shards", done.len()),
        )
        .detail(format!("Done on {}; failed on {failed}.", done.join(", ")))
        .hint("Mend what the error says and repeat the statement: shards that have done it are skipped, or do it again.");
        let mut words = Vec::new();
        notice_response(&mut words, "WARNING", &notice);
        self.say(words);
    }
}

impl ConcurrentIndex {
    /// The index's name in SQL.
    fn written(&self) -> String {
        let name = quote_identifier(&self.name.name);
        match &self.name.schema {
            Some(schema) => format!("{}.{name}", quote_identifier(schema)),
            None => name,
        }
    }
}
