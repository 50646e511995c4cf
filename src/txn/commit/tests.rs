//! The commit against shards that die, connections that break and proxies that recover, all at random.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Open,
    Failed,
    Prepared,
    Committed,
    RolledBack,
}

/// What the shards know, and the dice.
struct World {
    servers: Vec<Server>,
    decider: usize,
    /// The deciding shard's open transaction has inserted its row.
    has_inserted: bool,
    /// The row that stands.
    row: Option<bool>,
    /// Orders that reached a server although its connection has broken since.
    late: Vec<(usize, Order)>,
    /// The connections that are left.
    connected: Vec<bool>,
    dice: Vec<u8>,
}

impl World {
    fn new(writers: usize, decider: usize, dice: Vec<u8>) -> World {
        World {
            servers: vec![Server::Open; writers],
            decider,
            has_inserted: false,
            row: None,
            late: Vec::new(),
            connected: vec![true; writers],
            dice,
        }
    }

    fn roll(&mut self, below: u8) -> u8 {
        self.dice.pop().map_or(u8::MAX, |roll| roll % below)
    }

    /// A server carries an order out, or says no.
    fn execute(&mut self, at: usize, order: Order) -> Answer {
        let server = self.servers[at];
        let (after, answer) = match (order, server) {
            (Order::Prepare, Server::Open) => (Server::Prepared, Answer::Done),
            (Order::Decide, Server::Open) if self.row.is_none() => {
                self.has_inserted = true;
                (Server::Open, Answer::Done)
            }
            (Order::Decide, Server::Open) => (Server::Failed, Answer::Refused),
            (Order::Commit, Server::Open) => {
                assert!(at == self.decider && self.has_inserted);
                self.row = Some(true);
                (Server::Committed, Answer::Done)
            }
            (Order::CommitPrepared, Server::Prepared) => (Server::Committed, Answer::Done),
            (Order::RollbackPrepared, Server::Prepared) => (Server::RolledBack, Answer::Done),
            (Order::Rollback | Order::Commit, Server::Open | Server::Failed) => {
                (Server::RolledBack, Answer::Refused)
            }
            // Done already, by a proxy that recovers.
            (Order::CommitPrepared | Order::RollbackPrepared, other) => (other, Answer::Done),
            (_, other) => (other, Answer::Refused),
        };
        self.servers[at] = after;
        if at == self.decider && after != Server::Open {
            self.has_inserted = false;
        }
        answer
    }

    /// The server notices that its client is gone.
    fn hang_up(&mut self, at: usize) {
        self.connected[at] = false;
        let is_late = self.late.iter().any(|(late, _)| *late == at);
        if !is_late && matches!(self.servers[at], Server::Open | Server::Failed) {
            self.servers[at] = Server::RolledBack;
            if at == self.decider {
                self.has_inserted = false;
            }
        }
    }

    /// What arrived before a connection broke may be carried out after.
    fn run_late(&mut self, only: Option<usize>) {
        for (at, order) in std::mem::take(&mut self.late) {
            if only.is_some_and(|only| only != at) {
                self.late.push((at, order));
                continue;
            }
            self.execute(at, order);
            self.hang_up(at);
        }
    }

    /// An insert of 'abort' that does nothing if there is a row; none while it would have to wait.
    fn ask(&mut self) -> Option<bool> {
        if self.has_inserted {
            return None;
        }
        Some(*self.row.get_or_insert(false))
    }

    /// Any proxy ends what it finds prepared.
    fn recover(&mut self) {
        for at in 0..self.servers.len() {
            if self.servers[at] == Server::Prepared
                && let Some(is_committed) = self.ask()
            {
                self.servers[at] = match is_committed {
                    true => Server::Committed,
                    false => Server::RolledBack,
                };
            }
        }
    }

    fn give(&mut self, at: usize, order: Order) -> Answer {
        if order == Order::Ask {
            // It waits for whatever is under way there.
            self.run_late(Some(at));
            self.hang_up(at);
            return match (self.roll(4), self.ask()) {
                (0, _) | (_, None) => Answer::Lost,
                (_, Some(true)) => Answer::Done,
                (_, Some(false)) => Answer::Refused,
            };
        }
        // What is prepared can be ended over any connection.
        let needs_its_own = !matches!(order, Order::CommitPrepared | Order::RollbackPrepared);
        if needs_its_own && !self.connected[at] {
            return Answer::Lost;
        }
        match self.roll(8) {
            0 => {
                self.hang_up(at);
                Answer::Lost
            }
            1 => {
                self.execute(at, order);
                self.hang_up(at);
                Answer::Lost
            }
            2 => {
                self.late.push((at, order));
                self.connected[at] = false;
                Answer::Lost
            }
            3 if matches!(order, Order::Prepare | Order::Decide | Order::Commit) => {
                self.servers[at] = match order {
                    Order::Commit => Server::RolledBack,
                    _ => Server::Failed,
                };
                self.has_inserted &= at != self.decider;
                Answer::Refused
            }
            _ => self.execute(at, order),
        }
    }

    /// Chance acts between two orders; true if the coordinator dies.
    fn chance(&mut self) -> bool {
        match self.roll(12) {
            0 => self.recover(),
            1 => self.run_late(None),
            2 => return true,
            _ => {}
        }
        false
    }

    /// Until it dies; what it told the client.
    fn coordinate(&mut self, commit: &mut Commit) -> Option<Outcome> {
        let mut step = commit.start();
        loop {
            let orders = match step {
                Step::End(outcome) => return Some(outcome),
                Step::Round(orders) => orders,
            };
            let mut answers = Vec::new();
            for (at, order) in orders {
                if self.chance() {
                    return None;
                }
                answers.push((at, self.give(at, order)));
            }
            step = commit.take(&answers);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn all_or_nothing_and_the_truth(
        writers in 2usize..5, decider in 0usize..5,
        dice in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let decider = decider % writers;
        let mut world = World::new(writers, decider, dice);
        let mut commit = Commit::new(vec![Work::Writes; writers], decider, false);
        let told = world.coordinate(&mut commit);
        for at in 0..writers {
            if !world.late.iter().any(|(late, _)| *late == at) {
                world.hang_up(at);
            }
        }
        world.run_late(None);
        world.recover();
        let first = world.servers[0];
        prop_assert!(matches!(first, Server::Committed | Server::RolledBack));
        prop_assert!(world.servers.iter().all(|server| *server == first), "{:?}", world.servers);
        match told {
            Some(Outcome::Committed) => prop_assert_eq!(first, Server::Committed),
            Some(Outcome::RolledBack) => prop_assert_eq!(first, Server::RolledBack),
            Some(Outcome::Unknown) | None => {}
        }
    }
}

const W: Work = Work::Writes;
const L: Work = Work::Locks;
const R: Work = Work::Reads;

/// Runs a commit in which everything succeeds.
fn rounds(works: &[Work], decider: usize, readers_vote: bool) -> Vec<Vec<(usize, Order)>> {
    let mut commit = Commit::new(works.to_vec(), decider, readers_vote);
    let mut rounds = Vec::new();
    let mut step = commit.start();
    while let Step::Round(orders) = step {
        let answers: Vec<_> = orders.iter().map(|(of, _)| (*of, Answer::Done)).collect();
        rounds.push(orders);
        step = commit.take(&answers);
    }
    assert_eq!(step, Step::End(Outcome::Committed));
    rounds
}

#[test]
fn two_writers_prepare_one_and_decide_on_the_other() {
    assert_eq!(
        rounds(&[W, R, W], 2, false),
        [
            vec![(0, Order::Prepare), (1, Order::Commit), (2, Order::Decide)],
            vec![(2, Order::Commit)],
            vec![(0, Order::CommitPrepared)],
        ]
    );
}

#[test]
fn locks_are_kept_until_the_writes_are_to_be_seen() {
    assert_eq!(
        rounds(&[W, L], 0, false),
        [vec![(0, Order::Commit)], vec![(1, Order::Commit)]]
    );
    assert_eq!(
        rounds(&[W, L, W, R], 0, false).last(),
        Some(&vec![(1, Order::Commit), (2, Order::CommitPrepared)])
    );
}

#[test]
fn whoever_may_object_is_asked_first() {
    assert_eq!(
        rounds(&[W, L, R], 0, true),
        [
            vec![(1, Order::Commit), (2, Order::Commit)],
            vec![(0, Order::Commit)]
        ]
    );
    let mut commit = Commit::new(vec![W, R], 0, true);
    commit.start();
    let end = commit.take(&[(1, Answer::Refused)]);
    assert_eq!(
        end,
        Step::Round(vec![(0, Order::Rollback), (1, Order::Rollback)])
    );
    assert_eq!(commit.take(&[]), Step::End(Outcome::RolledBack));
}

#[test]
fn a_transaction_that_wrote_nothing_is_committed_too() {
    assert_eq!(rounds(&[R], 0, false), [vec![(0, Order::Commit)]]);
    assert_eq!(
        rounds(&[L, R], 0, false),
        [vec![(1, Order::Commit)], vec![(0, Order::Commit)]]
    );
}

#[test]
fn a_lost_commit_of_one_writer_is_not_known() {
    let mut commit = Commit::new(vec![W, L], 0, false);
    commit.start();
    let end = commit.take(&[(0, Answer::Lost)]);
    assert_eq!(end, Step::Round(vec![(1, Order::Rollback)]));
    assert_eq!(commit.take(&[]), Step::End(Outcome::Unknown));
}
