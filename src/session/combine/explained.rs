//! EXPLAIN of what a hub finishes: what is copied, from where, and what each shard has sent.

use crate::plan::Execution;
use crate::session::Session;
use crate::session::combine::Asked;
use crate::session::combine::hub::Hub;
use crate::session::explain::is_text;
use crate::sql::statement::Statement;
use crate::wire::backend::data_row;

impl Session {
    /// The rows above the hub's own plan.
    pub(super) fn explained_by_hub(
        &self,
        hub: &Hub,
        execution: &Execution,
        asked: &Asked<'_>,
    ) -> Vec<u8> {
        let mut rows = Vec::new();
        let Statement::Explain(explain) = &asked.plan.statement else {
            return rows;
        };
        if !is_text(explain) {
            return rows;
        }
        let mut say = |line: &str| data_row(&mut rows, [Some(line.as_bytes())].into_iter());
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
        say("  ->  plan of the hub");
        rows
    }
}
