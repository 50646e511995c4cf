//! Rows that pass in an order that is known before they come: which shard gives the next one.

/// The branches in the order in which they give rows. A branch that ends with fewer rows than it has turns
/// loses the turns that are left.
#[derive(Debug)]
pub(super) struct Order {
    /// Indexes of branches, one for each row.
    turns: Vec<usize>,
    /// The turn at hand.
    at: usize,
    /// Branches without further rows.
    ended: Vec<bool>,
}

impl Order {
    pub(super) fn new(turns: Vec<usize>, branches: usize) -> Order {
        Order {
            turns,
            at: 0,
            ended: vec![false; branches],
        }
    }

    /// Whether a row of this branch may pass now. Rows beyond all turns pass as they come.
    pub(super) fn may_pass(&self, branch: usize) -> bool {
        self.turns.get(self.at).is_none_or(|turn| *turn == branch)
    }

    /// A row of the branch whose turn it was has begun to pass.
    pub(super) fn pass(&mut self) {
        self.at += 1;
        self.skip();
    }

    /// A branch has no further row.
    pub(super) fn end(&mut self, branch: usize) {
        if let Some(ended) = self.ended.get_mut(branch) {
            *ended = true;
        }
        self.skip();
    }

    /// Changes with whatever is learned.
    pub(super) fn progress(&self) -> u64 {
        let ended = self.ended.iter().filter(|ended| **ended).count();
        (self.at + ended) as u64
    }

    fn skip(&mut self) {
        while let Some(turn) = self.turns.get(self.at)
            && self.ended.get(*turn) == Some(&true)
        {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_take_turns_and_those_that_do_not_come_lose_theirs() {
        let mut order = Order::new(vec![0, 1, 1, 0, 1], 2);
        assert!(order.may_pass(0) && !order.may_pass(1));
        order.pass();
        assert!(!order.may_pass(0) && order.may_pass(1));
        let before = order.progress();
        order.end(1);
        assert!(order.may_pass(0) && order.progress() > before);
        order.pass();
        assert!(order.may_pass(0) && order.may_pass(1));
    }
}
