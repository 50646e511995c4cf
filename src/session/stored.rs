//! `pg_prepared_statements` as a client's session has it.
//!
//! Servers know the statements of all clients, under names of the proxy's. So a query that names the
//! view or its function gets a table of the session's own statements in its place
//! ([`crate::plan::own::stored`]): names, texts and times as the client gave them; types and the counts
//! of plans from the server that runs the query, which is made to have the statements first. The counts
//! are that connection's, whoever of the clients that share a statement has run it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::backend::connection::Failed;
use crate::error::{Error, Result};
use crate::plan::own::stored::refused;
use crate::plan::{Plan, Target};
use crate::session::announce::ensure_one;
use crate::session::prepared::{Prepared, SERVER_NAME_PREFIX};
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sql::literal::quote_literal;
use crate::sqlstate::SqlState;

/// The first version that shows the types of results.
const RESULT_TYPES: u32 = 16;

/// Around every statement that a server may refuse within the client's transaction.
const GUARD: &str = "SAVEPOINT shardwire_prepared";
const UNGUARD: &str = "RELEASE SAVEPOINT shardwire_prepared";
const UNDO: &str = "ROLLBACK TO SAVEPOINT shardwire_prepared; RELEASE SAVEPOINT shardwire_prepared";

/// Whether a statement asks for the session's prepared statements.
pub(super) fn asks(plan: &Plan) -> bool {
    plan.own.iter().any(|call| call.asks_prepared())
}

/// The one shard that a statement with such a question runs on; none if any will do.
///
/// # Errors
/// `0A000` for several.
pub(super) fn shard(target: &Target) -> Result<Option<ShardIndex>> {
    match target {
        Target::One(shard) => Ok(Some(*shard)),
        Target::Any => Ok(None),
        Target::Many(_)
        | Target::Combine
        | Target::Replicated
        | Target::Change
        | Target::Fill
        | Target::Feed
        | Target::Staged
        | Target::Computed
        | Target::Rows(_) => Err(of_several_shards()),
    }
}

/// That each shard would answer for itself (`0A000`).
pub(super) fn of_several_shards() -> Error {
    refused("together with rows of several shards")
}

/// A statement of the client's under its name.
struct Stored {
    name: String,
    prepared: Arc<Prepared>,
}

impl Session {
    /// Before statements are rewritten that ask for the session's prepared statements: the server that is
    /// going to run them must be at work, to be asked as well.
    ///
    /// # Errors
    /// As for [`Session::hold`].
    pub(super) async fn hold_for_stored(&mut self, need: Need) -> Result<(), Stop> {
        self.drain().await?;
        self.hold(need).await
    }

    /// The query, in parentheses, whose rows are the session's prepared statements.
    ///
    /// # Errors
    /// `0A000` if what only a server knows of a statement can't be known, `54000` for too much text.
    pub(super) async fn stored_table(&mut self) -> Result<String, Stop> {
        let stored = self.stored()?;
        let version = self.server_version();
        let has_results = version >= RESULT_TYPES;
        self.have(&stored, has_results).await?;
        let limit = self.database.limits.max_message_bytes;
        let bytes: usize = stored.iter().map(|one| shown(&one.prepared).len()).sum();
        if bytes as u64 > limit {
            let message = "the texts of the session's prepared statements are too long";
            return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message).into());
        }
        Ok(table(&stored, has_results, self.is_pinned()))
    }

    /// The client's named statements, oldest first.
    fn stored(&mut self) -> Result<Vec<Stored>> {
        let shape = std::mem::take(&mut self.shape);
        let encoding = self.settings.context().encoding;
        let mut all = Vec::new();
        for (name, prepared) in self.statements.names() {
            let Some(read) = encoding.read(&name).map(|name| name.into_owned()) else {
                self.shape = shape;
                return Err(refused(
                    "with names that are not valid in the client's encoding",
                ));
            };
            // As it would be bound now; what can't be planned any more is shown as it was.
            let prepared = self.prepared(&name).unwrap_or(prepared);
            all.push(Stored {
                name: read,
                prepared,
            });
        }
        self.shape = shape;
        all.sort_by(|a, b| (a.prepared.made_at, &a.name).cmp(&(b.prepared.made_at, &b.name)));
        Ok(all)
    }

    fn server_version(&self) -> u32 {
        let parameters = self.server.iter().flat_map(|held| &*held.lease.parameters);
        let version = parameters
            .filter(|(name, _)| name == "server_version")
            .find_map(|(_, value)| {
                let digits = value.split(|c: char| !c.is_ascii_digit()).next()?;
                digits.parse().ok()
            });
        version.unwrap_or(0)
    }

    /// Makes the server at work have the statements of which only a server knows enough.
    async fn have(&mut self, stored: &[Stored], has_results: bool) -> Result<(), Stop> {
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        let lacks = |one: &Stored| has_results || !has_types(&one.prepared);
        let is_missing = stored
            .iter()
            .any(|one| lacks(one) && !held.lease.knows(one.prepared.id));
        if is_missing && self.batch.is_sent() && !self.transaction.is_on_shard() {
            // The batch at hand is a transaction of its own, and must stay one.
            for one in stored.iter().filter(|one| lacks(one)) {
                held.announce(&one.prepared, None);
            }
        } else if is_missing {
            self.drain().await?;
            for one in stored.iter().filter(|one| lacks(one)) {
                self.have_one(&one.prepared).await?;
            }
        }
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        for one in stored {
            if lacks(one) && !held.lease.knows(one.prepared.id) {
                return Err(unknown(&one.name).into());
            }
        }
        Ok(())
    }

    /// Makes the server at work have a statement, unless it refuses it.
    async fn have_one(&mut self, prepared: &Prepared) -> Result<(), Stop> {
        let is_within = self.transaction.is_on_shard();
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        if held.lease.knows(prepared.id) {
            return Ok(());
        }
        let is_guarded = held.is_aside() || (is_within && !held.is_detached());
        let lease = &mut held.lease;
        if is_guarded {
            lease.run(GUARD).await.map_err(stop)?;
        }
        let made = ensure_one(lease, prepared).await;
        let end = match made {
            Ok(()) => UNGUARD,
            Err(Failed::Refused(_)) => UNDO,
            Err(lost) => return Err(stop(lost)),
        };
        if is_guarded {
            lease.run(end).await.map_err(stop)?;
        }
        Ok(())
    }
}

fn stop(failed: Failed) -> Stop {
    match failed {
        Failed::Refused(error) => Stop::Statement(error),
        Failed::Lost(cause) => Stop::Lost(cause),
    }
}

fn unknown(name: &str) -> Error {
    Error::refused(
        format!("what prepared statement \"{name}\" takes and gives can't be known"),
        "Only a server that has it prepared knows, and it can't be prepared there now: its tables are \
         gone, or there are more statements than limits.prepared_statements_per_server.",
        "Ask for the others once it is deallocated, or raise the limit.",
    )
}

/// The text that the view shows.
fn shown(prepared: &Prepared) -> &str {
    match &prepared.declared {
        Some(declared) => &declared.source,
        None => prepared.sql(),
    }
}

/// Whether the client has said the types of all parameters, or there are none.
fn has_types(prepared: &Prepared) -> bool {
    let is_said = prepared.declared.is_none() && !prepared.types.contains(&0);
    let used = parameters(prepared.sql());
    match is_said {
        true => used <= prepared.types.len(),
        false => used == 0 && prepared.types.is_empty(),
    }
}

/// At least the number of the highest parameter of a text: in constants they count as well.
fn parameters(text: &str) -> usize {
    let behind_dollars = text.split('$').skip(1);
    let numbers = behind_dollars.map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        match digits.unwrap_or_default() {
            "" => 0,
            digits => digits.parse().unwrap_or(usize::MAX),
        }
    });
    numbers.max().unwrap_or(0)
}

fn table(stored: &[Stored], has_results: bool, is_pinned: bool) -> String {
    const SERVERS: &str = "pg_catalog.pg_prepared_statement()";
    let mut sql = String::from("(");
    if stored.is_empty() {
        let _ = write!(sql, "SELECT * FROM {SERVERS} WHERE false");
    } else {
        let results = match has_results {
            true => "s.result_types, ",
            false => "",
        };
        let _ = write!(
            sql,
            "SELECT c.name, c.statement, c.prepare_time, \
             COALESCE(s.parameter_types, c.parameter_types) AS parameter_types, {results}c.from_sql, \
             COALESCE(s.generic_plans, 0) AS generic_plans, COALESCE(s.custom_plans, 0) AS custom_plans \
             FROM (VALUES "
        );
        for (number, one) in stored.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            let server_name = String::from_utf8_lossy(&one.prepared.server_name);
            let _ = write!(
                sql,
                "{comma}({}::pg_catalog.text, {}::pg_catalog.text, {}::pg_catalog.text, \
                 '{}'::pg_catalog.timestamptz, {}::pg_catalog.regtype[], {})",
                quote_literal(&server_name),
                quote_literal(&one.name),
                quote_literal(shown(&one.prepared)),
                written(one.prepared.made_at),
                types(one),
                one.prepared.declared.is_some()
            );
        }
        let _ = write!(
            sql,
            ") AS c(key, name, statement, prepare_time, parameter_types, from_sql) \
             LEFT JOIN {SERVERS} AS s ON s.name OPERATOR(pg_catalog.=) c.key"
        );
    }
    if is_pinned {
        // What only the server has understood is under the client's own name.
        let prefix = String::from_utf8_lossy(SERVER_NAME_PREFIX);
        let _ = write!(
            sql,
            " UNION ALL SELECT * FROM {SERVERS} \
             WHERE NOT pg_catalog.starts_with(name, '{prefix}')"
        );
    }
    sql.push(')');
    sql
}

/// The types that the client has said, where the server need not be asked.
fn types(one: &Stored) -> String {
    if !has_types(&one.prepared) {
        return "NULL".to_owned();
    }
    let oids: Vec<String> = one.prepared.types.iter().map(u32::to_string).collect();
    format!("'{{{}}}'", oids.join(","))
}

/// A moment as every server reads it.
fn written(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_written_as_dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01 00:00:00.000001+00"),
            (951_782_399, "2000-02-28 23:59:59.000001+00"),
            (951_782_400, "2000-02-29 00:00:00.000001+00"),
            (1_798_761_599, "2026-12-31 23:59:59.000001+00"),
            (4_107_542_400, "2100-03-01 00:00:00.000001+00"),
        ] {
            let at = UNIX_EPOCH + Duration::new(seconds, 1000);
            assert_eq!(written(at), wanted);
        }
    }

    #[test]
    fn no_parameter_is_overlooked() {
        for (text, wanted) in [
            ("SELECT 1", 0),
            ("SELECT $2, $10, $1", 10),
            ("SELECT '$3'", 3),
            ("SELECT $$x$$, $a$1$a$", 0),
            ("SELECT $99999999999999999999", usize::MAX),
        ] {
            assert!(parameters(text) >= wanted, "{text}");
        }
        assert_eq!(parameters("SELECT $2, $10, $1"), 10);
    }
}
