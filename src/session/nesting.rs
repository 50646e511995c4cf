//! The savepoints of a transaction, for what ends when it goes back to one of them: cursors and portals; pure.

use crate::session::effect::Effect;

/// The savepoints that stand, oldest first.
#[derive(Debug, Default)]
pub struct Nesting {
    names: Vec<String>,
}

/// What becomes of what was made at a depth: how many savepoints stood then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// What is deeper than this has ended.
    Ends(usize),
    /// What is deeper than this is now as deep as this.
    Rises(usize),
}

impl Nesting {
    /// How many savepoints stand.
    pub fn depth(&self) -> usize {
        self.names.len()
    }

    /// A statement has completed; what that does to what was made before.
    pub fn note(&mut self, effect: &Effect) -> Option<Turn> {
        match effect {
            Effect::Savepoint(name) => {
                self.names.push(name.clone());
                None
            }
            Effect::RollbackTo(name) => {
                let at = self.position(name)?;
                // The savepoint itself stands.
                self.names.truncate(at + 1);
                Some(Turn::Ends(at))
            }
            Effect::Release(name) => {
                let at = self.position(name)?;
                self.names.truncate(at);
                Some(Turn::Rises(at))
            }
            _ => None,
        }
    }

    /// The transaction has ended.
    pub fn clear(&mut self) {
        self.names.clear();
    }

    /// Where the latest savepoint of this name stands.
    fn position(&self, wanted: &str) -> Option<usize> {
        self.names.iter().rposition(|name| name == wanted)
    }
}

impl Turn {
    /// Whether what was made at this depth stands, and then how deep it is now.
    pub fn stands(self, depth: usize) -> Option<usize> {
        match self {
            Turn::Ends(most) => (depth <= most).then_some(depth),
            Turn::Rises(most) => Some(depth.min(most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_behind_a_savepoint_ends_with_it() {
        let mut nesting = Nesting::default();
        let before = nesting.depth();
        nesting.note(&Effect::Savepoint("s".into()));
        let within = nesting.depth();
        let turn = nesting.note(&Effect::RollbackTo("s".into())).unwrap();
        assert_eq!((turn.stands(before), turn.stands(within)), (Some(0), None));
        // It stands, so there is a next time.
        let turn = nesting.note(&Effect::RollbackTo("s".into())).unwrap();
        assert_eq!(turn.stands(nesting.depth()), None);
        assert_eq!(nesting.note(&Effect::RollbackTo("none".into())), None);
    }

    #[test]
    fn what_was_made_behind_a_released_savepoint_is_of_the_one_before() {
        let mut nesting = Nesting::default();
        nesting.note(&Effect::Savepoint("outer".into()));
        nesting.note(&Effect::Savepoint("inner".into()));
        let turn = nesting.note(&Effect::Release("inner".into())).unwrap();
        assert_eq!((turn.stands(2), turn.stands(1)), (Some(1), Some(1)));
        let turn = nesting.note(&Effect::RollbackTo("outer".into())).unwrap();
        assert_eq!(turn.stands(1), None);
    }

    #[test]
    fn a_name_is_that_of_its_latest_savepoint() {
        let mut nesting = Nesting::default();
        nesting.note(&Effect::Savepoint("s".into()));
        nesting.note(&Effect::Savepoint("s".into()));
        assert_eq!(
            nesting.note(&Effect::RollbackTo("s".into())),
            Some(Turn::Ends(1))
        );
        nesting.note(&Effect::Release("s".into()));
        assert_eq!(nesting.depth(), 1);
    }
}
