//! The commit of a transaction on several shards, as rounds of orders and answers; pure.
//!
//! ```text
//! round     deciding shard        others that wrote        that locked   that only read
//! Voting    INSERT the decision   PREPARE TRANSACTION                    COMMIT
//! Deciding  COMMIT
//! (Asking   whose row stands?     only if the answer to that COMMIT was lost)
//! Ending                          COMMIT PREPARED, or      COMMIT, or
//!           ROLLBACK              ROLLBACK PREPARED        ROLLBACK      ROLLBACK
//! ```
//!
//! What holds, whatever is lost and whoever dies:
//! - The transaction is committed when, and only when, the deciding shard's COMMIT is: the row
//!   `(gid, 'commit')` in its `shardwire.decisions` is committed with it, or not at all.
//! - That COMMIT is sent only after every other writer has said that it is prepared.
//! - Whoever wants a prepared transaction gone asks for that row first, with an insert of `'abort'` that
//!   does nothing if there is a row. If the COMMIT is under way, the insert waits for it; if the insert
//!   comes first, the COMMIT can't happen, because the row's key is taken. So nobody needs a clock, a
//!   lease or a leader, and a coordinator that comes back late does no harm.
//! - A shard that has only been read says so before the decision; one that holds locks keeps them until
//!   the writes are to be seen, because they may be what guards them.
//! - With one writer there is nothing to decide: it gets a plain COMMIT.

/// What a participant has done in the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// It has been read.
    #[default]
    Reads,
    /// It holds locks for the transaction.
    Locks,
    /// It has, or may have, been written.
    Writes,
}

/// What a participant is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `PREPARE TRANSACTION`, behind whatever may still fail.
    Prepare,
    /// Insert the decision, behind whatever may still fail.
    Decide,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`, if there is a transaction.
    Rollback,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`, if it is prepared.
    RollbackPrepared,
    /// Over another connection: make sure that there is a decision.
    Ask,
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out; the answer to [`Order::Ask`] is that the transaction is committed.
    Done,
    /// It was not; the answer to [`Order::Ask`] is that it is rolled back.
    Refused,
    /// That is not known.
    Lost,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Committed,
    /// It is rolled back.
    RolledBack,
    /// That can't be known now; what is prepared waits for whoever can know.
    Unknown,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give these orders, all before any is waited for.
    Round(Vec<(usize, Order)>),
    /// Nothing: tell the client.
    End(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Voting,
    Deciding,
    Asking,
    Ending(Outcome),
}

/// A commit under way.
#[derive(Clone, Debug)]
pub struct Commit {
    works: Vec<Work>,
    decider: usize,
    /// A shard that was only read may find that the transaction must not commit (SERIALIZABLE).
    readers_vote: bool,
    phase: Phase,
    /// Who has refused, whose transaction has failed, or whose connection is gone.
    votes: Vec<Option<Answer>>,
}

impl Commit {
    /// A commit of participants that have done this; `decider` must have written if any has, and `readers_vote` says
    /// that a failure to commit what was only read must be one of the whole.
    pub fn new(works: Vec<Work>, decider: usize, readers_vote: bool) -> Commit {
        Commit {
            votes: vec![None; works.len()],
            works,
            decider,
            readers_vote,
            phase: Phase::Voting,
        }
    }

    /// Whether several have written, so that a decision must be kept.
    pub fn is_several(&self) -> bool {
        let writers = self.works.iter().filter(|work| **work == Work::Writes);
        writers.count() > 1
    }

    /// The first round.
    pub fn start(&mut self) -> Step {
        let orders: Vec<_> = self.voters().collect();
        if orders.is_empty() {
            return self.decide();
        }
        Step::Round(orders)
    }

    /// Takes the answers of a round.
    pub fn take(&mut self, answers: &[(usize, Answer)]) -> Step {
        let first = answers.first().map_or(Answer::Lost, |(_, answer)| *answer);
        match self.phase {
            Phase::Voting => {
                for (participant, answer) in answers {
                    if let Some(vote) = self.votes.get_mut(*participant) {
                        *vote = Some(*answer);
                    }
                }
                match answers.iter().all(|(of, answer)| self.agrees(*of, *answer)) {
                    true => self.decide(),
                    false => self.end(Outcome::RolledBack),
                }
            }
            Phase::Deciding => match first {
                Answer::Done => self.end(Outcome::Committed),
                Answer::Refused => self.end(Outcome::RolledBack),
                // With one writer there is no row to ask for.
                Answer::Lost if !self.is_several() => self.end(Outcome::Unknown),
                Answer::Lost => {
                    self.phase = Phase::Asking;
                    Step::Round(vec![(self.decider, Order::Ask)])
                }
            },
            Phase::Asking => match first {
                Answer::Done => self.end(Outcome::Committed),
                Answer::Refused => self.end(Outcome::RolledBack),
                Answer::Lost => self.end(Outcome::Unknown),
            },
            Phase::Ending(outcome) => Step::End(outcome),
        }
    }

    fn voters(&self) -> impl Iterator<Item = (usize, Order)> {
        let several = self.is_several();
        let order = move |(participant, work): (usize, &Work)| {
            let order = match work {
                Work::Writes if !several => return None,
                Work::Writes if participant == self.decider => Order::Decide,
                Work::Writes => Order::Prepare,
                _ if participant == self.decider => return None,
                Work::Locks if !self.readers_vote => return None,
                Work::Locks | Work::Reads => Order::Commit,
            };
            Some((participant, order))
        };
        self.works.iter().enumerate().filter_map(order)
    }

    /// Whether the transaction may be committed after this answer of a voter.
    fn agrees(&self, participant: usize, answer: Answer) -> bool {
        let wrote = self.works.get(participant) == Some(&Work::Writes);
        match answer {
            Answer::Done => true,
            Answer::Refused => false,
            // What was read without locks and stood then, stands.
            Answer::Lost => !wrote && !self.readers_vote,
        }
    }

    fn decide(&mut self) -> Step {
        self.phase = Phase::Deciding;
        Step::Round(vec![(self.decider, Order::Commit)])
    }

    fn end(&mut self, outcome: Outcome) -> Step {
        let was_deciding = self.phase != Phase::Voting;
        self.phase = Phase::Ending(outcome);
        let order = |(participant, work): (usize, &Work)| {
            let vote = self.votes.get(participant).copied().flatten();
            let is_decider = participant == self.decider;
            let order = match (outcome, work) {
                _ if is_decider && was_deciding => return None,
                // Whoever can know ends what is prepared; locks guard nothing that is prepared.
                (Outcome::Unknown, Work::Locks) => Order::Rollback,
                (Outcome::Unknown, _) => return None,
                (Outcome::Committed, Work::Writes) => Order::CommitPrepared,
                (Outcome::Committed, Work::Locks) if vote.is_none() => Order::Commit,
                (Outcome::Committed, _) => return None,
                (Outcome::RolledBack, Work::Writes) if is_decider => Order::Rollback,
                (Outcome::RolledBack, Work::Writes) => match vote {
                    // A PREPARE that failed leaves a transaction that has failed.
                    Some(Answer::Refused) | None => Order::Rollback,
                    Some(Answer::Done | Answer::Lost) => Order::RollbackPrepared,
                },
                (Outcome::RolledBack, _) if vote == Some(Answer::Done) => return None,
                (Outcome::RolledBack, _) => Order::Rollback,
            };
            Some((participant, order))
        };
        let orders: Vec<_> = self.works.iter().enumerate().filter_map(order).collect();
        match orders.is_empty() {
            true => Step::End(outcome),
            false => Step::Round(orders),
        }
    }
}

#[cfg(test)]
mod tests;
