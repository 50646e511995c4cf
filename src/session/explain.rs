//! EXPLAIN over shards: the proxy's plan above one shard's; and SHOW ALL, with the proxy's own settings.

use crate::error::{Error, Result};
use crate::plan::{Plan, Target, spell_out};
use crate::session::Session;
use crate::session::own_values;
use crate::sharding::ShardIndex;
use crate::sql::shape::Literal;
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
    /// Whether a plan is an EXPLAIN that the proxy has something to say about, or SHOW ALL.
    pub(super) fn explains(&self, plan: &Plan) -> bool {
        match &plan.statement {
            Statement::Explain(_) => !self.is_plain(),
            statement => shows_all(statement),
        }
    }

    /// Where a statement runs that may be an EXPLAIN, and the rows that stand above its server's.
    ///
    /// # Errors
    /// As for [`Session::explain`].
    pub(super) fn explained(
        &self,
        plan: &Plan,
        (target, measured): (Target, Vec<String>),
        written: (&str, &[Literal]),
    ) -> Result<(Target, Box<[u8]>)> {
        // A hub explains by itself.
        if target == Target::Combine || !self.explains(plan) {
            return Ok((target, Box::default()));
        }
        let explained = self.explain(plan, &target, written, &measured)?;
        let target = explained.shard.map_or(Target::Any, Target::One);
        Ok((target, explained.rows))
    }

    /// What the proxy says about an EXPLAIN of a statement with this target; `written` is its text and
    /// the literals in it, `measured` are lines of what each shard has sent.
    ///
    /// # Errors
    /// `0A000` for several shards' plan in a format other than text.
    pub(super) fn explain(
        &self,
        plan: &Plan,
        target: &Target,
        written: (&str, &[Literal]),
        measured: &[String],
    ) -> Result<Explained> {
        let Statement::Explain(explain) = &plan.statement else {
            let shard = match target {
                Target::One(shard) => Some(*shard),
                _ => None,
            };
            let rows = match shows_all(&plan.statement) {
                true => own_values::rows(self.settings.context(), &self.database.config),
                false => Vec::new(),
            };
            return Ok(Explained {
                shard,
                rows: rows.into(),
            });
        };
        let shard = match target {
            Target::Any
            | Target::Combine
            | Target::Computed
            | Target::Replicated
            | Target::Feed
            | Target::Staged
            | Target::Fill => None,
            Target::Change => plan
                .change()
                .and_then(|change| change.all_shards().iter().next()),
            Target::One(shard) => Some(*shard),
            Target::Many(shards) => shards.iter().next(),
            Target::Rows(placed) => placed.shards().iter().next(),
        };
        if !is_text(explain) {
            if matches!(target, Target::Many(_) | Target::Rows(_) | Target::Computed) {
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
            let line = spell_out(line, written);
            data_row(&mut rows, [Some(line.as_bytes())].into_iter());
        }
        for line in measured {
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

/// Whether it is SHOW ALL.
fn shows_all(statement: &Statement) -> bool {
    matches!(statement, Statement::Show(name) if name.eq_ignore_ascii_case("all"))
}

pub(super) fn is_text(explain: &Explain) -> bool {
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
