//! ParseComplete and BindComplete of a statement over several shards.
//!
//! It is bound on its shards when the client executes it. So what the client is told of its Parse and Bind
//! comes with what it is told of that, in PostgreSQL's order: once every shard has bound the statement, or
//! before the error, as far as the shard had come that gave it.

use std::borrow::BorrowMut;
use std::sync::Arc;

use crate::backend::report;
use crate::exec::scatter::{Reached, Scatter};
use crate::pool::Lease;
use crate::session::Session;
use crate::session::prepared::Prepared;
use crate::session::scatter::ScatterPortal;
use crate::sqlstate::SqlState;
use crate::wire::backend::{bind_complete, parse_complete};
use crate::wire::frame;

/// What the client has yet to hear.
#[derive(Debug, Default)]
pub struct Owed {
    /// The Parses.
    parses: Vec<(Box<[u8]>, Arc<Prepared>)>,
    /// The answer that is next brings it.
    is_next: bool,
    /// How far a shard had come that has failed, if one has.
    reached: Option<Reached>,
}

impl Owed {
    /// What is said when this much is certain.
    fn words(&self, reached: Reached) -> Vec<u8> {
        let mut words = Vec::new();
        if reached != Reached::Nothing {
            self.parses.iter().for_each(|_| parse_complete(&mut words));
        }
        if reached == Reached::Bound {
            bind_complete(&mut words);
        }
        words
    }
}

/// How far a statement comes that fails with this error, where only the error tells.
pub(super) fn reached_before(code: SqlState) -> Reached {
    match code {
        SqlState::FEATURE_NOT_SUPPORTED => Reached::Parsed,
        SqlState::INVALID_TEXT_REPRESENTATION | SqlState::INVALID_BINARY_REPRESENTATION => {
            Reached::Parsed
        }
        // Found when it is executed.
        SqlState::INSUFFICIENT_PRIVILEGE | SqlState::DUPLICATE_CURSOR => Reached::Bound,
        SqlState::IN_FAILED_SQL_TRANSACTION => Reached::Nothing,
        code if code.as_str().starts_with("42") => Reached::Nothing,
        _ => Reached::Bound,
    }
}

impl Session {
    /// A portal over several shards runs: its Parse and Bind have yet to be answered.
    pub(super) fn owe_bind(&mut self, portal: &ScatterPortal) {
        if portal.is_acknowledged {
            return;
        }
        self.batch.owed = Some(Owed {
            parses: std::mem::take(&mut self.batch.pending),
            is_next: false,
            reached: None,
        });
    }

    /// What is sent next brings the answer to the Bind.
    pub(super) fn acknowledge_bind(&mut self) {
        if let Some(owed) = &mut self.batch.owed {
            owed.is_next = true;
        }
    }

    /// Answers Parse and Bind, where nothing that the statement does decides on them.
    pub(super) fn pay_owed(&mut self) {
        self.say(Vec::new());
    }

    /// The answers to Parse and Bind, if they are due.
    pub(super) fn take_owed(&mut self) -> Vec<u8> {
        let owed = self.batch.owed.take();
        owed.map_or_else(Vec::new, |owed| owed.words(Reached::Bound))
    }

    /// The answers to Parse and Bind that go before this error, as a frame.
    pub(super) fn take_owed_before(&mut self, error: &[u8]) -> Vec<u8> {
        let Some(owed) = self.batch.owed.take() else {
            return Vec::new();
        };
        let code = report::read(frame::body(error)).code();
        let reached = owed.reached.unwrap_or_else(|| reached_before(code));
        if reached == Reached::Nothing {
            for (name, prepared) in &owed.parses {
                self.statements.reject(name, prepared.id);
            }
        }
        owed.words(reached)
    }

    /// Has a scatter bring the answers, if they are due with it; whether it does.
    pub(super) fn lend_owed<C: BorrowMut<Lease>>(&self, scatter: &mut Scatter<C>) -> bool {
        let is_possible = self.unit.captured.is_none() && !scatter.is_released();
        let owed = self.batch.owed.as_ref();
        let Some(owed) = owed.filter(|owed| is_possible && owed.is_next) else {
            return false;
        };
        scatter.acknowledge(owed.words(Reached::Bound));
        true
    }

    /// A scatter has ended that may have brought the answers.
    pub(super) fn note_owed<C: BorrowMut<Lease>>(
        &mut self,
        scatter: &Scatter<C>,
        (is_lent, is_of_shard): (bool, bool),
    ) {
        let Some(owed) = self.batch.owed.as_mut().filter(|owed| owed.is_next) else {
            return;
        };
        match (scatter.is_released(), is_lent) {
            (true, true) => self.batch.owed = None,
            (true, false) => owed.reached = Some(Reached::Bound),
            // What the proxy has to say against it comes of no shard.
            (false, _) if is_of_shard => owed.reached = Some(scatter.reached()),
            (false, _) => owed.is_next = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_hears_of_as_much_as_was_accepted() {
        let owed = Owed::default();
        let tags =
            |reached| -> Vec<u8> { owed.words(reached).chunks(5).map(|one| one[0]).collect() };
        assert_eq!(tags(Reached::Nothing), b"");
        assert_eq!(tags(Reached::Parsed), b"");
        assert_eq!(tags(Reached::Bound), b"2");
    }

    #[test]
    fn errors_of_analysis_come_before_anything_is_accepted() {
        assert_eq!(reached_before(SqlState::UNDEFINED_TABLE), Reached::Nothing);
        assert_eq!(
            reached_before(SqlState::INVALID_TEXT_REPRESENTATION),
            Reached::Parsed
        );
        assert_eq!(
            reached_before(SqlState::INSUFFICIENT_PRIVILEGE),
            Reached::Bound
        );
        assert_eq!(reached_before(SqlState::QUERY_CANCELED), Reached::Bound);
    }
}
