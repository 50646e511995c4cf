//! EXPLAIN over shards: the proxy's plan above one shard's.

use crate::error::{Error, Result};
use crate::plan::{Plan, Target};
use crate::session::Session;
use crate::sharding::ShardIndex;
use crate::sql::statement::{Explain, Statement};
use crate::wire::backend::data_row;

/// Where an EXPLAIN runs, and the rows that stand above its server's.
pub(super) struct Explained {
    /// The shard whose plan is shown.
    pub shard: Option<ShardIndex>,
    /// DataRows.
    pub rows: Box<[u8]>,
}

impl Session {
    /// Whether a plan is an EXPLAIN that the proxy has something to say about.
    pub(super) fn explains(&self, plan: &Plan) -> bool {
        !self.database.is_single() && matches!(plan.statement, Statement::Explain(_))
    }

    /// What the proxy says about an EXPLAIN of a statement with this target.
    ///
    /// # Errors
    /// `0A000` for several shards' plan in a format other than text.
    pub(super) fn explain(&self, plan: &Plan, target: &Target) -> Result<Explained> {
        let Statement::Explain(explain) = &plan.statement else {
            return Ok(Explained {
                shard: None,
                rows: Box::default(),
            });
        };
        let shard = match target {
            Target::Any => None,
            Target::One(shard) => Some(*shard),
            Target::Many(shards) => shards.iter().next(),
        };
        if !is_text(explain) {
            if matches!(target, Target::Many(_)) {
                return Err(Error::refused(
                    "EXPLAIN over several shards is shown as text only",
                    "The other formats have no place for the proxy's own plan yet.",
                    "Use EXPLAIN (FORMAT TEXT), or SET shardwire.shard to one shard.",
                ));
            }
            return Ok(Explained {
                shard,
                rows: Box::default(),
            });
        }
        let mut rows = Vec::new();
        let names: Vec<String> = self
            .database
            .config
            .shards
            .iter()
            .map(|shard| shard.name.clone())
            .collect();
        for line in plan.tree(&names).to_string().lines() {
            data_row(&mut rows, [Some(line.as_bytes())].into_iter());
        }
        if let Some(shard) = shard {
            let line = format!("->  plan of shard {}", self.database.shard_name(shard));
            data_row(&mut rows, [Some(line.as_bytes())].into_iter());
        }
        Ok(Explained {
            shard,
            rows: rows.into(),
        })
    }
}

fn is_text(explain: &Explain) -> bool {
    explain
        .options
        .iter()
        .filter(|(name, _)| name == "format")
        .all(|(_, value)| {
            value
                .as_deref()
                .is_none_or(|value| value.eq_ignore_ascii_case("text"))
        })
}
