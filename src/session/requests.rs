//! The messages that run a client's statement on a shard.

use std::sync::Arc;

use crate::plan::{Placed, Plan};
use crate::pool::Lease;
use crate::session::prepared::Prepared;
use crate::session::scatter::Answered;
use crate::sharding::ShardSet;
use crate::sql::lexer::tokenize;
use crate::sql::statement::{QueryKind, Statement};
use crate::sql::token::LexOptions;
use crate::wire::frontend::{self, Bind, Subject};

/// How a statement runs over several shards.
#[derive(Clone, Debug)]
pub enum Way {
    /// As it is on each, or merged as its plan says.
    Scatter,
    /// A hub finishes it.
    Combine,
    /// Each row on its shard; none before that is known.
    Rows(Option<Arc<Placed>>),
    /// The rows of its query are asked for first.
    Feed,
    /// Its parts run one behind the other.
    Staged,
}

/// A bound statement over several shards that waits for its Execute.
#[derive(Clone, Debug)]
pub struct ScatterPortal {
    /// The portal's name.
    pub portal: Box<[u8]>,
    /// Whether the client wants its description.
    pub is_described: bool,
    /// Its statement.
    pub prepared: Arc<Prepared>,
    /// The client's Bind, without the portal's name, which servers need not know.
    pub bind: Box<[u8]>,
    /// Where it runs; where it is described if a hub finishes it.
    pub shards: ShardSet,
    /// How it is run.
    pub way: Way,
    /// The client has heard that it is bound.
    pub is_acknowledged: bool,
}

impl ScatterPortal {
    /// The verb of its command tag if it gives rows.
    pub fn verb(&self, options: LexOptions) -> Option<&'static str> {
        let query = match &self.prepared.plan.statement {
            Statement::Query(query) => query,
            Statement::Fetch(_) => return Some("FETCH"),
            Statement::Explain(_) => return Some("EXPLAIN"),
            _ => return None,
        };
        let verb = match query.kind {
            QueryKind::Insert => "INSERT 0",
            QueryKind::Update => "UPDATE",
            QueryKind::Delete => "DELETE",
            QueryKind::Merge => "MERGE",
            _ => return Some("SELECT"),
        };
        let text = self.prepared.sql();
        let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
        let mut tokens = tokens.iter();
        // A reserved word.
        let returns = tokens.any(|token| token.is_word(text, "returning"));
        returns.then_some(verb)
    }
}

/// Parse if the server does not know the statement, then Bind, Describe, Execute and Sync.
pub(super) fn portal_request(lease: &mut Lease, prepared: &Prepared, bind: &Bind<'_>) -> Vec<u8> {
    let mut out = statement_and_bind(lease, prepared, bind);
    describe_and_execute(&mut out, bind.portal);
    out
}

/// Parse if the server does not know the statement, then Bind.
pub(super) fn statement_and_bind(
    lease: &mut Lease,
    prepared: &Prepared,
    bind: &Bind<'_>,
) -> Vec<u8> {
    let mut out = Vec::new();
    if prepared.is_unnamed() {
        lease.unnamed = Some(prepared.id);
        frontend::write_parse(&mut out, b"", &prepared.text, &prepared.types);
    } else if !lease.knows(prepared.id) {
        if let Some(evicted) = lease.learn(prepared.id) {
            let name = crate::session::prepared::server_name(evicted);
            frontend::write_subject(&mut out, b'C', Subject::Statement, name.as_bytes());
        }
        frontend::write_parse(
            &mut out,
            &prepared.server_name,
            &prepared.text,
            &prepared.types,
        );
    }
    frontend::write_bind(&mut out, bind, &prepared.server_name);
    out
}

pub(super) fn describe_and_execute(out: &mut Vec<u8>, portal: &[u8]) {
    frontend::write_subject(out, b'D', Subject::Portal, portal);
    frontend::write_execute(out, portal, 0);
    frontend::write_sync(out);
}

/// The command tag of a statement over several shards.
pub(super) fn tag(plan: &Plan, answered: &Answered) -> String {
    let query = match &plan.statement {
        Statement::Query(query) => query,
        Statement::Truncate => return "TRUNCATE TABLE".to_owned(),
        Statement::Lock => return "LOCK TABLE".to_owned(),
        Statement::Explain(_) => return "EXPLAIN".to_owned(),
        _ => return format!("SELECT {}", answered.rows),
    };
    let word = match query.kind {
        QueryKind::Insert => "INSERT 0",
        QueryKind::Update => "UPDATE",
        QueryKind::Delete => "DELETE",
        QueryKind::Merge => "MERGE",
        _ => return format!("SELECT {}", answered.rows),
    };
    format!("{word} {}", answered.affected)
}

/// Whether a statement changes rows, which it may return.
pub(super) fn changes_rows(plan: &Plan) -> bool {
    matches!(&plan.statement, Statement::Query(query) if query.modifies)
}
