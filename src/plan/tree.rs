//! The short indented tree of a plan, for EXPLAIN and golden files.

use std::fmt;

use crate::plan::Access;
use crate::plan::Plan;
use crate::plan::Route;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Keyed;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::sharding::KeyUse;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;

/// A plan with the names of its shards, to be printed.
pub struct Tree<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shards: &'a [String],
}

impl fmt::Display for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plan.route {
            Route::Any => write!(f, "Any")?,
            Route::Shard(shard) => write!(f, "Home {}", self.shard(*shard))?,
            Route::Keyed(keyed) => self.keyed(keyed, f)?,
            Route::Scatter(shards) => write!(f, "Scatter concat {}", self.set(shards))?,
            Route::Refused(error) => {
                let fields = error.fields();
                write!(f, "Refused {}: {}", fields.code, fields.message)?;
                if let Some(detail) = &fields.detail {
                    write!(f, "\n  DETAIL: {detail}")?;
                }
                if let Some(hint) = &fields.hint {
                    write!(f, "\n  HINT: {hint}")?;
                }
                return Ok(());
            }
        }
        self.flags(f)
    }
}

impl Tree<'_> {
    fn shard(&self, shard: ShardIndex) -> String {
        match self.shards.get(shard) {
            Some(name) => name.clone(),
            None => format!("shard {shard}"),
        }
    }

    fn set(&self, shards: &ShardSet) -> String {
        if !self.shards.is_empty() && shards.len() == self.shards.len() {
            return "(all shards)".to_owned();
        }
        let names: Vec<String> = shards.iter().map(|shard| self.shard(shard)).collect();
        format!("({})", names.join(", "))
    }

    /// What the session must take care of.
    fn flags(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plan.access == Access::Write {
            write!(f, ", write")?;
        }
        if !self.plan.session.is_empty() {
            write!(f, ", {}", self.plan.session)?;
        }
        Ok(())
    }

    fn keyed(&self, keyed: &Keyed, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = matches!(keyed.spread, Spread::Scatter(_))
            && keyed
                .proofs
                .iter()
                .any(|proof| proof.parts.iter().any(|part| part.values.len() > 1));
        write!(f, "{}", if several { "Scatter concat" } else { "Single" })?;
        if let Some(home) = keyed.home {
            write!(f, " {}", self.shard(home))?;
        }
        if let [proof] = keyed.proofs.as_ref() {
            write!(f, " ")?;
            return write_proof(proof, f);
        }
        for proof in &keyed.proofs {
            write!(f, "\n  ")?;
            write_proof(proof, f)?;
        }
        Ok(())
    }
}

fn write_proof(proof: &Proof, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let verb = match proof.use_ {
        KeyUse::Compare => "key",
        KeyUse::Store => "row",
    };
    write!(f, "{verb} ")?;
    let columns = proof.placement.columns().iter();
    for (index, (column, part)) in columns.zip(&proof.parts).enumerate() {
        if index > 0 {
            write!(f, ", ")?;
        }
        write!(f, "{}.{}", proof.table, column.name)?;
        match part.values.as_ref() {
            [value] => {
                write!(f, " = ")?;
                write_value(*value, f)?;
            }
            values => write!(f, " in {} values", values.len())?,
        }
    }
    Ok(())
}

fn write_value(value: KeyValue, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value.source {
        KeySource::Literal { index, negative } => {
            let sign = if negative { "-" } else { "" };
            write!(f, "{sign}literal {}", index + 1)?;
        }
        KeySource::Parameter(index) => write!(f, "${}", index + 1)?,
        KeySource::Null => write!(f, "NULL")?,
        KeySource::Bool(value) => write!(f, "{value}")?,
    }
    if value.shared {
        write!(f, " (if its type is declared)")?;
    }
    Ok(())
}
