//! Which clients the home shard's server processes work for; pure.
//!
//! A process is passed from client to client, and a notification is heard some time after its commit.
//! A *round* on the shared connection tells what has been heard: whatever was committed before it was
//! sent has been heard once it has passed. So a process that changes hands is in doubt until a round
//! has passed that began later.

use std::collections::HashMap;

/// Entries at which those that tell nothing any more are removed.
const MANY: usize = 4_096;

/// The clients by server process.
#[derive(Debug, Default)]
pub struct Holders {
    by_process: HashMap<i32, Holder>,
    /// The last round that has passed.
    passed: u64,
}

#[derive(Debug)]
struct Holder {
    client: i32,
    /// The round with which doubt ends.
    certain: u64,
    /// Once it is given back: the round with which everything of it has been heard.
    settled: Option<u64>,
}

impl Holders {
    /// A process works for a client from now on; `last` used it before, 0 if nobody has, and `next` is
    /// the next round to begin. Returns the round with which it is certain whose notifications are
    /// heard.
    pub fn take(&mut self, process: i32, client: i32, last: i32, next: u64) -> u64 {
        let certain = match self.by_process.get(&process) {
            Some(holder) if holder.client == client => holder.certain,
            Some(holder) if holder.settled.is_some_and(|round| round <= self.passed) => 0,
            None if last == 0 || last == client => 0,
            _ => next,
        };
        if self.by_process.len() >= MANY {
            let passed = self.passed;
            self.by_process
                .retain(|_, holder| holder.settled.is_none_or(|round| round > passed));
        }
        let settled = None;
        let holder = Holder {
            client,
            certain,
            settled,
        };
        self.by_process.insert(process, holder);
        certain
    }

    /// The process has been given back by the client.
    pub fn give_back(&mut self, process: i32, client: i32, next: u64) {
        if let Some(holder) = self.by_process.get_mut(&process)
            && holder.client == client
        {
            holder.settled = Some(next);
        }
    }

    /// A round has passed.
    pub fn pass(&mut self, round: u64) {
        self.passed = round;
    }

    /// The last round that has passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Whom a notification is from that is heard now: the client's id, else the process's own.
    pub fn notifier(&self, process: i32) -> i32 {
        let known = self.by_process.get(&process).filter(|holder| {
            holder.certain <= self.passed && holder.settled.is_none_or(|round| round > self.passed)
        });
        known.map_or(process, |holder| holder.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: i32 = 7;

    #[test]
    fn a_process_that_changes_hands_is_in_doubt_until_a_later_round() {
        let mut holders = Holders::default();
        assert_eq!(holders.take(PROCESS, 1, 0, 1), 0);
        assert_eq!(holders.notifier(PROCESS), 1);
        holders.give_back(PROCESS, 1, 1);
        assert_eq!(holders.notifier(PROCESS), 1, "heard late");
        assert_eq!(holders.take(PROCESS, 2, 1, 1), 1);
        assert_eq!(holders.notifier(PROCESS), PROCESS);
        holders.pass(1);
        assert_eq!(holders.notifier(PROCESS), 2);
    }

    #[test]
    fn a_process_whose_last_client_has_been_heard_changes_hands_without_doubt() {
        let mut holders = Holders::default();
        holders.take(PROCESS, 1, 0, 1);
        holders.give_back(PROCESS, 1, 1);
        holders.pass(1);
        assert_eq!(holders.notifier(PROCESS), PROCESS, "nobody's");
        assert_eq!(holders.take(PROCESS, 2, 1, 2), 0);
        // What the one before did late is not his any more.
        holders.give_back(PROCESS, 1, 2);
        assert_eq!(holders.notifier(PROCESS), 2);
    }

    #[test]
    fn a_process_used_before_anybody_listened_is_in_doubt() {
        let mut holders = Holders::default();
        assert_eq!(holders.take(PROCESS, 2, 1, 1), 1);
        assert_eq!(holders.take(8, 2, 2, 1), 0);
        assert_eq!(holders.notifier(9), 9, "another's");
    }
}
