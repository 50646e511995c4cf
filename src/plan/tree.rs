//! The short indented tree of a plan, for EXPLAIN and golden files.

use std::fmt;

use crate::plan::Access;
use crate::plan::Change;
use crate::plan::Combine;
use crate::plan::Define;
use crate::plan::Filling;
use crate::plan::Insertion;
use crate::plan::Plan;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::insert::Origin;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Keyed;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::sharding::KeyUse;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::shape::Literal;
use crate::sql::token::slice;

/// A plan with the names of its shards, to be printed.
pub struct Tree<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shards: &'a [String],
}

/// A line of a plan, which serves all texts of a shape, with the literals of this text.
pub fn spell_out(line: &str, (text, literals): (&str, &[Literal])) -> String {
    let mut line = line.to_owned();
    for (index, literal) in literals.iter().enumerate().rev() {
        let written = slice(text, literal.start..literal.end);
        line = line.replace(&format!("literal {}", index + 1), written);
    }
    line
}

impl fmt::Display for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(merge) = self.plan.merge.as_ref().filter(|_| self.is_scatter()) {
            merge.write(f)?;
        }
        match &self.plan.route {
            Route::Any => write!(f, "Any")?,
            Route::Shard(shard) => write!(f, "Home {}", self.shard(*shard))?,
            Route::Keyed(keyed) => self.keyed(keyed, f)?,
            Route::Scatter(shards) => write!(f, "{} {}", self.scatter(), self.set(shards))?,
            Route::Combine(combine) => self.combine(combine, f)?,
            Route::Replicated(replicate) => write!(f, "{}", replicate.words())?,
            Route::Insert(insertion) => write_insertion(insertion, f)?,
            Route::CopyIn(copy) => write!(f, "Copy in {}", self.set(&copy.shards))?,
            Route::Change(change) => self.change(change, f)?,
            Route::Filled(fill) => write!(f, "{}", fill.words())?,
            Route::Feed(feed) => write!(f, "{}", feed.words())?,
            Route::Staged(staged) => write!(f, "{}", staged.words())?,
            Route::Define(define) => self.define(define, f)?,
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

    /// Whether it may go to several shards as a rule.
    fn is_scatter(&self) -> bool {
        match &self.plan.route {
            Route::Scatter(_) => true,
            Route::Keyed(keyed) => {
                let mut parts = keyed.proofs.iter().flat_map(|proof| &proof.parts);
                matches!(keyed.spread, Spread::Scatter(_))
                    && parts.any(|part| part.values.len() > 1)
            }
            Route::Any
            | Route::Shard(_)
            | Route::Combine(_)
            | Route::Replicated(_)
            | Route::Insert(_)
            | Route::CopyIn(_)
            | Route::Change(_)
            | Route::Filled(_)
            | Route::Feed(_)
            | Route::Staged(_)
            | Route::Define(_)
            | Route::Refused(_) => false,
        }
    }

    /// How the answers of shards become one, if not by the steps above.
    fn scatter(&self) -> &'static str {
        match self.plan.merge {
            None => "Scatter concat",
            Some(_) => "Scatter",
        }
    }

    /// What the session must take care of.
    fn flags(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plan.access == Access::Write {
            write!(f, ", write")?;
        }
        let session = self.plan.session.without(SessionUse::MAY_DRAW);
        if !session.is_empty() {
            write!(f, ", {session}")?;
        }
        Ok(())
    }

    fn keyed(&self, keyed: &Keyed, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}",
            if self.is_scatter() {
                self.scatter()
            } else {
                "Single"
            }
        )?;
        if let Some(home) = keyed.home {
            write!(f, " {}", self.shard(home))?;
        }
        if let [proof] = keyed.proofs.as_ref() {
            write!(f, " ")?;
            write_proof(proof, f)?;
        } else {
            for proof in &keyed.proofs {
                write!(f, "\n  ")?;
                write_proof(proof, f)?;
            }
        }
        Ok(())
    }

    fn define(&self, define: &Define, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match define.shards.single() {
            Some(shard) => write!(f, "On {}", self.shard(shard))?,
            None => write!(f, "Everywhere")?,
        }
        if define.is_apart {
            write!(f, ", one by one")?;
        }
        match (define.key(), &define.placed) {
            (Some(key), _) => write!(f, ", sharded by {}", key.join(", "))?,
            (None, Some(_)) => write!(f, ", replicated")?,
            (None, None) => {}
        }
        match &define.filling {
            Some(Filling::AtHome { shard, .. }) => write!(f, ", rows on {}", self.shard(*shard)),
            Some(Filling::Inserted { .. }) => write!(f, ", rows inserted"),
            Some(Filling::Temporary(_)) => write!(f, ", temporary, rows stored"),
            Some(Filling::View(_)) => write!(f, ", rows stored on the first shard"),
            Some(Filling::Refreshed(_)) => write!(f, ", rows stored anew"),
            None => Ok(()),
        }
    }

    fn combine(&self, combine: &Combine, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Combine")?;
        if let Some((words, shards, proof)) = combine.gathered() {
            write!(f, "\n  {words}, from {}", self.set(shards))?;
            if let Some(proof) = proof {
                write!(f, ", ")?;
                write_proof(proof, f)?;
            }
            return Ok(());
        }
        for part in combine.parts() {
            write!(f, "\n  {} (", part.relation)?;
            write!(f, "{})", part.columns.join(", "))?;
            match part.terms {
                0 => {}
                1 => write!(f, ", 1 condition")?,
                terms => write!(f, ", {terms} conditions")?,
            }
            match part.shards {
                Some(shards) => write!(f, ", from {}", self.set(shards))?,
                None => write!(f, ", read by the hub")?,
            }
            if let Some(proof) = part.proof {
                write!(f, ", ")?;
                write_proof(proof, f)?;
            }
        }
        if let Some(hub) = combine.hub() {
            write!(f, "\n  hub on {}", self.shard(hub))?;
        }
        Ok(())
    }
}

impl Tree<'_> {
    fn change(&self, change: &Change, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = change.shown();
        write!(f, "Change {} on {}", shown.table, self.set(&shown.shards))?;
        if let Some(proof) = shown.proof {
            write!(f, ", ")?;
            write_proof(proof, f)?;
        }
        for (relation, columns, terms, shards) in shown.relations {
            write!(f, "\n  ship {relation} ({})", columns.join(", "))?;
            match terms {
                0 => {}
                1 => write!(f, ", 1 condition")?,
                terms => write!(f, ", {terms} conditions")?,
            }
            write!(f, ", from {}", self.set(shards))?;
        }
        match shown.evaluated {
            0 => {}
            1 => write!(f, "\n  evaluate 1 subquery once")?,
            count => write!(f, "\n  evaluate {count} subqueries once")?,
        }
        if shown.moments > 0 {
            write!(f, "\n  ask for the time once")?;
        }
        if shown.moves {
            write!(f, "\n  move rows whose key changes")?;
        }
        Ok(())
    }
}

fn write_insertion(insertion: &Insertion, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "Insert rows by their shard,")?;
    let several = insertion.patterns.len() > 1;
    for known in &insertion.patterns {
        write!(f, "{}", if several { "\n  " } else { " " })?;
        for (index, (column, origin)) in columns(insertion).zip(&known.keys).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}.{column} = ", insertion.table)?;
            match origin {
                Origin::Atom { cell } => write!(f, "value {}", cell + 1)?,
                Origin::Cast { cell, .. } => write!(f, "value {}, cast", cell + 1)?,
                Origin::Evaluated { cell } => write!(f, "value {}, evaluated first", cell + 1)?,
            }
        }
    }
    Ok(())
}

fn columns(insertion: &Insertion) -> impl Iterator<Item = &str> {
    let columns = insertion.placement.columns().iter();
    columns.map(|column| column.name.as_str())
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
        KeySource::Session { .. } => write!(f, "shardwire.shard_key")?,
        KeySource::Null => write!(f, "NULL")?,
        KeySource::Bool(value) => write!(f, "{value}")?,
    }
    if value.shared {
        write!(f, " (if its type is declared)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::token::TokenKind;

    #[test]
    fn literals_are_spelled_out() {
        let text = "EXPLAIN SELECT 7, 42";
        let literal = |start, end| Literal {
            start,
            end,
            kind: TokenKind::Number,
            lifted: true,
        };
        let literals = [literal(15, 16), literal(18, 20)];
        assert_eq!(spell_out("key = literal 2", (text, &literals)), "key = 42");
        assert_eq!(spell_out("key = $1", (text, &literals)), "key = $1");
    }
}
