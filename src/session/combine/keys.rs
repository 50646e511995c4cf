//! The order in which copies are filled, and the keys by which small relations restrict others.

use crate::backend::connection::first_value;
use crate::exec::combine::request;
use crate::plan::{Execution, Intermediate, KeyLink, KeySource};
use crate::session::combine::hub::Hub;
use crate::session::combine::{Asked, failed};
use crate::session::{Session, Stop};
use crate::sharding::ShardSet;
use crate::sql::literal::quote_literal;

/// Relations with more rows restrict nothing.
const MOST_KEYS: u64 = 10_000;

/// Types whose values are the same in text, whatever is set.
const KEY_TYPES: [&str; 8] = [
    "smallint",
    "integer",
    "bigint",
    "text",
    "character varying",
    "uuid",
    "date",
    "numeric",
];

/// Longer lists of keys are not sent.
const LARGEST_KEYS_BYTES: usize = 1 << 20;

/// The values of a column of a relation.
enum Keys {
    /// None at all.
    None,
    /// These, an array as SQL.
    These(String),
    /// What may be any, because there are too many or their type has no exact text.
    Any,
}

impl Session {
    /// How many rows each relation may have, as the hub would plan for its own part of it; nothing where that
    /// decides nothing.
    pub(super) async fn estimates(
        &self,
        hub: &mut Hub,
        execution: &Execution,
        asked: &Asked<'_>,
    ) -> Result<Vec<u64>, Stop> {
        let mut estimates = Vec::new();
        let is_linked = |one: &Intermediate| {
            let mut links = one.links.iter();
            links.any(|link| matches!(link.other, KeySource::Copy(_)))
        };
        if !execution.relations.iter().any(is_linked) {
            return Ok(estimates);
        }
        for relation in &execution.relations {
            estimates.push(match relation.shards.is_empty() {
                true => 0,
                false => self.estimate(hub, relation, asked).await?,
            });
        }
        Ok(estimates)
    }

    /// What the hub's planner expects; of a table without statistics it counts, as far as that matters.
    async fn estimate(
        &self,
        hub: &mut Hub,
        relation: &Intermediate,
        asked: &Asked<'_>,
    ) -> Result<u64, Stop> {
        let (source, query) = (quote_literal(&relation.source), &relation.query);
        let known = format!(
            "SELECT (c.reltuples >= 0)::text FROM pg_catalog.pg_class c WHERE c.oid = {source}::pg_catalog.regclass"
        );
        let is_known = self.ask_hub(hub, (&known, &[]), asked).await?;
        if is_known.as_deref() == Some("true") {
            let sql = format!("EXPLAIN {query}");
            let plan = self
                .ask_hub(hub, (&sql, &relation.parameters), asked)
                .await?;
            return Ok(plan.as_deref().and_then(planned_rows).unwrap_or_default());
        }
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM ({query} LIMIT {}) AS own",
            MOST_KEYS + 1
        );
        let count = self
            .ask_hub(hub, (&sql, &relation.parameters), asked)
            .await?;
        Ok(count
            .and_then(|count| count.parse().ok())
            .unwrap_or_default())
    }

    /// Restricts what is about to be copied by the keys of small relations that are there.
    pub(super) async fn restrict(
        &self,
        hub: &mut Hub,
        execution: &mut Execution,
        (at, asked): (usize, &Asked<'_>),
    ) -> Result<(), Stop> {
        if !self.settings.context().encoding.is_utf8() {
            return Ok(());
        }
        let links = execution.relations.get(at).map(|one| one.links.clone());
        for link in links.unwrap_or_default() {
            let keys = match link.other {
                KeySource::Copy(other) => {
                    let Some(Some((rows, _))) = hub.filled.get(other) else {
                        continue;
                    };
                    let Some(other) = execution.relations.get(other) else {
                        continue;
                    };
                    if *rows > MOST_KEYS {
                        continue;
                    }
                    let relation = format!("pg_temp.{}", other.name);
                    self.keys(hub, (&relation, &[]), (&link, asked)).await?
                }
                KeySource::Local(other) => {
                    let Some(other) = execution.locals.get(other) else {
                        continue;
                    };
                    let relation = format!("({} LIMIT {}) AS own", other.query, MOST_KEYS + 1);
                    let own = (relation.as_str(), other.parameters.as_slice());
                    self.keys(hub, own, (&link, asked)).await?
                }
            };
            let Some(relation) = execution.relations.get_mut(at) else {
                continue;
            };
            match keys {
                Keys::These(keys) => relation.restricted(&link, &keys),
                Keys::None => relation.shards = ShardSet::new(),
                Keys::Any => {}
            }
        }
        Ok(())
    }

    /// The values of a column of a relation on the hub, written as in FROM.
    async fn keys(
        &self,
        hub: &mut Hub,
        (relation, parameters): (&str, &[usize]),
        (link, asked): (&KeyLink, &Asked<'_>),
    ) -> Result<Keys, Stop> {
        let column = &link.other_column;
        // Arrays of arrays are not made of what differs in length.
        let sql =
            format!("SELECT pg_catalog.pg_typeof((SELECT {column} FROM {relation} LIMIT 0))::text");
        let name = self.ask_hub(hub, (&sql, parameters), asked).await?;
        let name = name.unwrap_or_default();
        if !KEY_TYPES.contains(&name.as_str()) {
            return Ok(Keys::Any);
        }
        let sql = format!(
            "SELECT pg_catalog.count(*) || ' ' || coalesce(pg_catalog.array_agg(DISTINCT {column}) \
             FILTER (WHERE {column} IS NOT NULL)::text, '') FROM {relation}"
        );
        let found = self.ask_hub(hub, (&sql, parameters), asked).await?;
        let found = found.unwrap_or_default();
        let (count, keys) = found.split_once(' ').unwrap_or_default();
        let is_few = count.parse().is_ok_and(|count: u64| count <= MOST_KEYS);
        Ok(match keys {
            _ if !is_few || keys.len() > LARGEST_KEYS_BYTES => Keys::Any,
            // A database without an encoding may have had other bytes.
            keys if keys.contains(char::REPLACEMENT_CHARACTER) => Keys::Any,
            "" => Keys::None,
            keys => Keys::These(format!("{}::{name}[]", quote_literal(keys))),
        })
    }

    /// The first value that the hub answers a statement with some of the client's parameters.
    async fn ask_hub(
        &self,
        hub: &mut Hub,
        (sql, parameters): (&str, &[usize]),
        asked: &Asked<'_>,
    ) -> Result<Option<String>, Stop> {
        let parameters = asked.given(parameters, &hub.described);
        let text = self.encoded(sql)?;
        let mut messages = Vec::new();
        request::write_select(&mut messages, &text, &parameters, &[false]);
        let mut value = None;
        let mut note = |tag, body: &[u8]| {
            if tag == b'D' && value.is_none() {
                value = first_value(body);
            }
        };
        hub.lease.unnamed = None;
        let answered = hub.lease.ask(&messages, &mut note).await;
        answered.map_err(failed)?;
        Ok(value)
    }
}

/// The number of rows in the first line of a plan.
fn planned_rows(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" rows=")?;
    let (rows, _) = rest.split_once(' ')?;
    rows.parse().ok()
}

/// The next intermediate relation to fill: one that a small one restricts, else the one that seems to have the
/// fewest rows, or the most conditions.
pub(super) fn next_to_fill(
    execution: &Execution,
    filled: &[Option<(u64, u64)>],
    estimates: &[u64],
) -> Option<usize> {
    let is_small = |other: KeySource| {
        let KeySource::Copy(other) = other else {
            return false;
        };
        let filled = filled.get(other).copied().flatten();
        filled.is_some_and(|(rows, _)| rows <= MOST_KEYS)
    };
    let left = execution.relations.iter().enumerate();
    let left = left.filter(|(at, _)| filled.get(*at).is_some_and(Option::is_none));
    let rank = |at: usize, relation: &Intermediate| {
        let links = relation.links.iter().filter(|link| is_small(link.other));
        let estimate = estimates.get(at).copied().unwrap_or_default();
        (
            links.count(),
            std::cmp::Reverse(estimate),
            relation.conditions,
            std::cmp::Reverse(at),
        )
    };
    left.max_by_key(|(at, relation)| rank(*at, relation))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::planned_rows;

    #[test]
    fn plans_tell_rows() {
        let line = "Seq Scan on big  (cost=0.00..4.85 rows=250345 width=8)";
        assert_eq!(planned_rows(line), Some(250_345));
        assert_eq!(planned_rows("Result"), None);
    }
}
