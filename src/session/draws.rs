//! Which server connection knows what the session has drawn from sequences; pure.
//!
//! `currval` and `lastval` answer from the connection's own memory. They mean what they would mean on a
//! connection of one's own only while everything that the session has written went over one connection
//! that nobody else has used meanwhile, and that knew nothing when the session came to it.

/// Where a session has drawn, on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draws {
    /// It has not written yet.
    #[default]
    Nowhere,
    /// All it has written went over the connection to this server process.
    On(i32),
    /// It has written over several connections, or others came between.
    Scattered,
}

impl Draws {
    /// The session will write over the connection to `process`, which it was the last to use or not.
    /// Returns whether the connection must forget what others have drawn.
    pub fn write(&mut self, process: i32, was_last: bool) -> bool {
        match *self {
            Draws::Nowhere => {
                *self = Draws::On(process);
                !was_last
            }
            Draws::On(known) if known == process && was_last => false,
            _ => {
                *self = Draws::Scattered;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_run_knows() {
        let mut draws = Draws::default();
        assert!(draws.write(7, false));
        assert!(!draws.write(7, true));
        assert_eq!(draws, Draws::On(7));
        assert!(!draws.write(8, false));
        assert!(!draws.write(7, true));
        assert_eq!(draws, Draws::Scattered);
        let mut draws = Draws::On(7);
        assert!(!draws.write(7, false));
        assert_eq!(draws, Draws::Scattered);
    }
}
