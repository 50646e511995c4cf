//! EXPLAIN of what a hub finishes: what is copied, from where, and what each shard has sent.

use crate::plan::Execution;
use crate::session::combine::hub::Hub;
use crate::session::combine::{Asked, Finished};
use crate::session::explain::{document_of, nested};
use crate::session::{Session, Stop};
use crate::sql::statement::Statement;
use crate::wire::backend::data_row;

impl Session {
    /// As [`Session::combine`]: a document of EXPLAIN becomes a part of one.
    pub(super) async fn combine_shown(&mut self, asked: &Asked<'_>) -> Result<Finished, Stop> {
        let Some(format) = document_of(asked.plan) else {
            return self.combine(asked).await;
        };
        self.capture();
        let finished = self.combine(asked).await;
        let captured = self.captured();
        let finished = finished?;
        let shown = (finished.lines.as_slice(), &[finished.hub.as_str()][..]);
        let words = nested(format, shown, captured.bytes())?;
        self.say(words);
        Ok(finished)
    }

    /// The lines above the hub's own plan.
    pub(super) fn explained_by_hub(
        &self,
        hub: &Hub,
        execution: &Execution,
        asked: &Asked<'_>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if !matches!(asked.plan.statement, Statement::Explain(_)) {
            return lines;
        }
        let mut say = |line: &str| lines.push(line.to_owned());
        say(&format!(
            "Combine on {}",
            self.database.shard_name(hub.shard)
        ));
        for (index, relation) in execution.relations.iter().enumerate() {
            let names = relation.shards.iter();
            let names: Vec<&str> = names.map(|shard| self.database.shard_name(shard)).collect();
            let counts = match hub.filled.get(index) {
                Some(Some((rows, bytes))) => format!(" (rows={rows} bytes={bytes})"),
                _ => String::new(),
            };
            let from = match names.as_slice() {
                [] => "no shard".to_owned(),
                names => names.join(", "),
            };
            say(&format!(
                "  ->  Copy {} to {} from {from}{counts}",
                relation.of, relation.name
            ));
            for line in relation.query.lines() {
                say(&format!("        {}", line.trim()));
            }
            match hub.shares.get(index) {
                Some(shares) if !shares.is_empty() => {
                    say(&format!("        {}", shares.join(", ")));
                }
                _ => {}
            }
        }
        lines
    }
}

/// The rows that stand above the hub's own plan, unless that is a document.
pub(super) fn rows_above(lines: &[String], asked: &Asked<'_>) -> Vec<u8> {
    let mut rows = Vec::new();
    if lines.is_empty() || document_of(asked.plan).is_some() {
        return rows;
    }
    let lines = lines.iter().map(String::as_str);
    for line in lines.chain(["  ->  plan of the hub"]) {
        data_row(&mut rows, [Some(line.as_bytes())].into_iter());
    }
    rows
}
