//! How many clients there are, of which user and in which database, and whether one more may come in.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// Counts the clients that are logged in. It outlives reloads.
#[derive(Debug, Default)]
pub struct Census {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: u32,
    by_user: HashMap<Box<str>, u32>,
    by_database: HashMap<Box<str>, u32>,
}

/// How many clients there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At all.
    pub all: u32,
    /// How many of those are kept for administrators.
    pub reserved: u32,
    /// Of this user; none is no limit.
    pub user: Option<u32>,
    /// In this database; none is no limit.
    pub database: Option<u32>,
    /// The user is an administrator: only the limit on all binds it.
    pub is_administrator: bool,
}

/// A client's place among those that are counted; left when dropped.
#[derive(Debug)]
pub struct Place {
    census: Arc<Census>,
    user: Box<str>,
    database: Box<str>,
}

impl Census {
    /// Counts a client in, if that keeps within the bounds.
    ///
    /// # Errors
    /// `53300` if it does not, in PostgreSQL's words.
    pub fn enter(self: &Arc<Census>, user: &str, database: &str, bounds: &Bounds) -> Result<Place> {
        let mut counts = self.counts.lock();
        let of_user = counts.by_user.get(user).copied().unwrap_or(0);
        let of_database = counts.by_database.get(database).copied().unwrap_or(0);
        let is_bound = !bounds.is_administrator;
        let is_full =
            |limit: Option<u32>, count| is_bound && limit.is_some_and(|most| count >= most);
        if counts.all >= bounds.all {
            return Err(too_many("sorry, too many clients already".to_owned())
                .detail(format!("limits.max_clients is {}.", bounds.all)));
        }
        if is_bound && counts.all >= bounds.all.saturating_sub(bounds.reserved) {
            let message = "remaining connection slots are reserved for administrators";
            return Err(too_many(message.to_owned()).detail(format!(
                "limits.reserved_clients keeps {} of {} for auth.administrators.",
                bounds.reserved, bounds.all
            )));
        }
        if is_full(bounds.user, of_user) {
            return Err(too_many(format!(
                "too many connections for role \"{user}\""
            )));
        }
        if is_full(bounds.database, of_database) {
            return Err(too_many(format!(
                "too many connections for database \"{database}\""
            )));
        }
        counts.all += 1;
        counts.by_user.insert(user.into(), of_user + 1);
        counts.by_database.insert(database.into(), of_database + 1);
        Ok(Place {
            census: Arc::clone(self),
            user: user.into(),
            database: database.into(),
        })
    }
}

fn too_many(message: String) -> Error {
    Error::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.census.counts.lock();
        counts.all -= 1;
        leave(&mut counts.by_user, &self.user);
        leave(&mut counts.by_database, &self.database);
    }
}

/// Counts one less; a name without clients is not kept.
fn leave(counts: &mut HashMap<Box<str>, u32>, name: &str) {
    match counts.get_mut(name) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Bounds = Bounds {
        all: 10,
        reserved: 0,
        user: None,
        database: None,
        is_administrator: false,
    };

    fn message(entered: Result<Place>) -> String {
        let error = entered.unwrap_err();
        assert_eq!(error.code(), SqlState::TOO_MANY_CONNECTIONS);
        assert!(error.is_fatal());
        error.fields().message.to_string()
    }

    #[test]
    fn every_limit_binds_by_itself() {
        let census = Arc::new(Census::default());
        let _alice = census.enter("alice", "shop", &WIDE).unwrap();
        let _bob = census.enter("bob", "shop", &WIDE).unwrap();
        let user = Bounds {
            user: Some(1),
            ..WIDE
        };
        assert_eq!(
            message(census.enter("alice", "other", &user)),
            "too many connections for role \"alice\""
        );
        let database = Bounds {
            database: Some(2),
            ..WIDE
        };
        assert_eq!(
            message(census.enter("carol", "shop", &database)),
            "too many connections for database \"shop\""
        );
        let all = Bounds { all: 2, ..WIDE };
        assert_eq!(
            message(census.enter("carol", "other", &all)),
            "sorry, too many clients already"
        );
        let _carol = census.enter("carol", "other", &user).unwrap();
        let _dave = census.enter("dave", "third", &database).unwrap();
    }

    #[test]
    fn administrators_have_places_of_their_own() {
        let census = Arc::new(Census::default());
        let tight = Bounds {
            all: 3,
            reserved: 2,
            user: Some(1),
            database: Some(1),
            is_administrator: false,
        };
        let _alice = census.enter("alice", "shop", &tight).unwrap();
        assert_eq!(
            message(census.enter("bob", "other", &tight)),
            "remaining connection slots are reserved for administrators"
        );
        let administrator = Bounds {
            is_administrator: true,
            ..tight
        };
        let _first = census.enter("root", "shop", &administrator).unwrap();
        let second = census.enter("root", "shop", &administrator).unwrap();
        assert_eq!(
            message(census.enter("root", "shop", &administrator)),
            "sorry, too many clients already"
        );
        drop(second);
        census.enter("root", "shop", &administrator).unwrap();
    }

    #[test]
    fn who_leaves_is_not_counted_and_not_remembered() {
        let census = Arc::new(Census::default());
        let first = census.enter("alice", "shop", &WIDE).unwrap();
        let second = census.enter("alice", "shop", &WIDE).unwrap();
        drop(first);
        assert_eq!(census.counts.lock().by_user.get("alice"), Some(&1));
        drop(second);
        let counts = census.counts.lock();
        assert_eq!(counts.all, 0);
        assert!(counts.by_user.is_empty() && counts.by_database.is_empty());
    }
}
