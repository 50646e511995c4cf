//! Cycles of transactions that wait for each other on different shards, and how proxies tell each other
//! whose processes wait; pure.
//!
//! A server knows which of its processes waits for which, and since when. That two processes on two shards
//! work for one transaction is known to its proxy alone, which *claims* them: the text by which it asks a
//! server who waits begins with a comment that holds its claims, and every proxy finds the others' in
//! `pg_stat_activity`. Nothing is stored, and what a dead proxy has claimed goes with its connection.
//!
//! What holds:
//! - A claim counts as long as the session still waits as it did when the claim was made: the wait's start,
//!   by the server's clock, is part of it. So it does not matter how old a claim is.
//! - A cycle of waits that is seen twice, with the same starts, stood all the time between: it can't end by
//!   itself.
//! - All proxies choose the same victim of a cycle, the transaction that began last. Its own proxy ends it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;

use crate::sharding::ShardIndex;

/// What a text with claims begins with.
pub const MARK: &str = "/* shardwire waits: ";

/// Bytes of the claims in one text at most: servers show the first 1024 bytes of a statement.
const LARGEST_TEXT: usize = 900;

/// Who waits, or is waited for. The latest session is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A server's process that nobody has claimed.
    Process(ShardIndex, i32),
    /// A session of a proxy.
    Session {
        /// When its transaction began, in microseconds since 1970-01-01 UTC.
        begun: u64,
        /// The proxy.
        proxy: u64,
        /// The process id that its client knows.
        session: i32,
    },
}

/// A server's process waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub shard: ShardIndex,
    /// The process.
    pub process: i32,
    /// Since when, in microseconds since 1970-01-01 UTC by the server's clock.
    pub since: u64,
    /// The processes that it waits for; 0 is a prepared transaction.
    pub holders: Vec<i32>,
    /// The transaction over several shards, if it waits for what that has prepared.
    pub prepared: Option<u128>,
}

/// A server's process works for a session that waits, there or on another shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When the session's transaction began, in microseconds since 1970-01-01 UTC.
    pub begun: u64,
    /// The process id that its client knows.
    pub session: i32,
    /// Since when the session waits, as [`Seen::since`].
    pub since: u64,
    /// The server's process.
    pub process: i32,
    /// The transaction that the session is about to commit.
    pub commits: Option<u128>,
}

/// A claim, with the proxy that makes it and the shard that it is about.
pub type Claimed = (u64, ShardIndex, Claim);

/// One transaction waits for another on a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who waits.
    pub waiter: Party,
    /// For whom.
    pub holder: Party,
    /// Where.
    pub shard: ShardIndex,
    /// Since when.
    pub since: u64,
}

/// The comment by which a proxy claims processes of one server; as many as it has room for.
pub fn write_claims(proxy: u64, claims: &[Claim]) -> String {
    let mut text = format!("{MARK}{proxy:x};");
    for claim in claims {
        let Claim {
            begun,
            session,
            since,
            process,
            commits,
        } = claim;
        let mut one = format!("{begun:x}.{session}.{since:x}.{process}");
        if let Some(id) = commits {
            let _ = write!(one, ".{id:x}");
        }
        if text.len() + one.len() >= LARGEST_TEXT {
            break;
        }
        text.push_str(&one);
        text.push(';');
    }
    text.push_str(" */");
    text
}

/// Reads such a comment, which may be cut off anywhere; none if it is none.
pub fn read_claims(text: &str) -> Option<(u64, Vec<Claim>)> {
    let mut parts = text.strip_prefix(MARK)?.split(';');
    let proxy = u64::from_str_radix(parts.next()?, 16).ok()?;
    // What stands behind the last semicolon is the end, or not whole.
    let mut claims = Vec::new();
    let mut next = parts.next();
    while let Some(part) = next {
        next = parts.next();
        if next.is_some() {
            claims.extend(read_claim(part));
        }
    }
    Some((proxy, claims))
}

fn read_claim(text: &str) -> Option<Claim> {
    let mut parts = text.split('.');
    let claim = Claim {
        begun: u64::from_str_radix(parts.next()?, 16).ok()?,
        session: parts.next()?.parse().ok()?,
        since: u64::from_str_radix(parts.next()?, 16).ok()?,
        process: parts.next()?.parse().ok()?,
        commits: match parts.next() {
            Some(id) => Some(u128::from_str_radix(id, 16).ok()?),
            None => None,
        },
    };
    parts.next().is_none().then_some(claim)
}

/// Who waits for whom, as far as claims tell whose processes they are.
pub fn waits(seen: &[Seen], claimed: &[Claimed]) -> Vec<Wait> {
    let waiting: HashSet<(ShardIndex, i32, u64)> = seen
        .iter()
        .map(|seen| (seen.shard, seen.process, seen.since))
        .collect();
    // The sessions that still wait as they did.
    let session = |(proxy, _, claim): &Claimed| Party::Session {
        begun: claim.begun,
        proxy: *proxy,
        session: claim.session,
    };
    let stands =
        |(_, shard, claim): &&Claimed| waiting.contains(&(*shard, claim.process, claim.since));
    let standing: BTreeSet<(Party, u64)> = claimed
        .iter()
        .filter(stands)
        .map(|claimed| (session(claimed), claimed.2.since))
        .collect();
    let mut owners: HashMap<(ShardIndex, i32), BTreeSet<Party>> = HashMap::new();
    let mut committing: HashMap<u128, Party> = HashMap::new();
    for one in claimed {
        let (party, (_, shard, claim)) = (session(one), one);
        if standing.contains(&(party, claim.since)) {
            owners
                .entry((*shard, claim.process))
                .or_default()
                .insert(party);
            committing.extend(claim.commits.map(|id| (id, party)));
        }
    }
    let party = |shard, process| match owners.get(&(shard, process)) {
        Some(all) if all.len() == 1 => all.first().copied(),
        _ => None,
    };
    let mut waits = Vec::new();
    for one in seen {
        let named =
            |process| party(one.shard, process).unwrap_or(Party::Process(one.shard, process));
        let holders = one.holders.iter().filter(|process| **process != 0);
        let prepared = one.prepared.and_then(|id| committing.get(&id).copied());
        for holder in holders.map(|process| named(*process)).chain(prepared) {
            waits.push(Wait {
                waiter: named(one.process),
                holder,
                shard: one.shard,
                since: one.since,
            });
        }
    }
    waits
}

/// A cycle of waits that no shard sees whole; PostgreSQL itself ends those within one shard.
pub fn cycle(waits: &[Wait]) -> Option<Vec<Wait>> {
    let mut done = Vec::new();
    for first in waits {
        let mut path = vec![*first];
        if let Some(found) = follow(waits, &mut path, &mut done) {
            return Some(found);
        }
    }
    None
}

/// Goes on from the end of a path; `done` holds parties from which no cycle was found.
fn follow(waits: &[Wait], path: &mut Vec<Wait>, done: &mut Vec<Party>) -> Option<Vec<Wait>> {
    let here = path.last()?.holder;
    if let Some(start) = path.iter().position(|wait| wait.waiter == here) {
        let found = path.get(start..)?;
        let first = found.first()?.shard;
        let is_spread = found.iter().any(|wait| wait.shard != first);
        return is_spread.then(|| found.to_vec());
    }
    if done.contains(&here) {
        return None;
    }
    for next in waits.iter().filter(|wait| wait.waiter == here) {
        path.push(*next);
        if let Some(found) = follow(waits, path, done) {
            return Some(found);
        }
        path.pop();
    }
    done.push(here);
    None
}

/// The transaction of a cycle that is to be ended.
pub fn victim(cycle: &[Wait]) -> Option<Party> {
    cycle.iter().map(|wait| wait.waiter).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(number: i32) -> Party {
        Party::Session {
            begun: 100 - u64::try_from(number).unwrap(),
            proxy: 7,
            session: number,
        }
    }

    fn wait(waiter: i32, holder: i32, shard: ShardIndex) -> Wait {
        Wait {
            waiter: session(waiter),
            holder: session(holder),
            shard,
            since: 5,
        }
    }

    fn waits_of(all: &[(i32, i32, ShardIndex)]) -> Vec<Wait> {
        let wait = |&(waiter, holder, shard)| wait(waiter, holder, shard);
        all.iter().map(wait).collect()
    }

    /// Sessions 1 and 2, of two proxies, each with one process on each of two shards.
    fn two_proxies() -> (Vec<Seen>, Vec<Claimed>) {
        let seen = |shard, process, since, holder| Seen {
            shard,
            process,
            since,
            holders: vec![holder],
            prepared: None,
        };
        let claim = |session, since, process| Claim {
            begun: 100,
            session,
            since,
            process,
            commits: None,
        };
        let seen = vec![seen(0, 11, 1_000, 12), seen(1, 22, 2_000, 21)];
        let claimed = vec![
            (7, 0, claim(1, 1_000, 11)),
            (7, 1, claim(1, 1_000, 21)),
            (8, 0, claim(2, 2_000, 12)),
            (8, 1, claim(2, 2_000, 22)),
        ];
        (seen, claimed)
    }

    #[test]
    fn only_cycles_over_several_shards_are_found() {
        assert_eq!(cycle(&waits_of(&[(1, 2, 0), (2, 3, 1)])), None);
        assert_eq!(cycle(&waits_of(&[(1, 2, 0), (2, 1, 0)])), None);
        let two = waits_of(&[(1, 2, 0), (2, 1, 1)]);
        assert_eq!(victim(&two), Some(session(1)));
        assert_eq!(cycle(&two), Some(two));
        let three = waits_of(&[(9, 1, 0), (1, 2, 0), (2, 3, 0), (3, 1, 1), (2, 8, 0)]);
        assert_eq!(cycle(&three).map(|found| found.len()), Some(3));
    }

    #[test]
    fn claims_of_two_proxies_make_a_cycle() {
        let (seen, claimed) = two_proxies();
        let found = cycle(&waits(&seen, &claimed)).unwrap();
        let last = Party::Session {
            begun: 100,
            proxy: 8,
            session: 2,
        };
        assert_eq!(victim(&found), Some(last));
        assert_eq!(cycle(&waits(&seen, &claimed[..2])), None);
    }

    #[test]
    fn a_claim_of_a_wait_that_is_over_counts_no_more() {
        let (mut seen, claimed) = two_proxies();
        seen[1].since += 1;
        assert_eq!(cycle(&waits(&seen, &claimed)), None);
    }

    #[test]
    fn a_process_that_two_claim_is_nobodys() {
        let (seen, mut claimed) = two_proxies();
        claimed.push((8, 0, claimed[0].2.clone()));
        assert_eq!(cycle(&waits(&seen, &claimed)), None);
    }

    #[test]
    fn who_waits_for_a_prepared_transaction_waits_for_its_session() {
        let (mut seen, mut claimed) = two_proxies();
        seen[1].holders = vec![0];
        seen[1].prepared = Some(9);
        assert_eq!(cycle(&waits(&seen, &claimed)), None);
        claimed[0].2.commits = Some(9);
        assert!(cycle(&waits(&seen, &claimed)).is_some());
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let claim = (
            any::<u64>(),
            any::<i32>(),
            any::<u64>(),
            any::<i32>(),
            any::<Option<u128>>(),
        );
        let claim = claim.prop_map(|(begun, session, since, process, commits)| Claim {
            begun,
            session,
            since,
            process,
            commits,
        });
        proptest::collection::vec(claim, 0..30)
    }

    proptest! {
        #[test]
        fn claims_are_read_as_they_were_written_wherever_they_are_cut(
            proxy in any::<u64>(), claims in claims(), end in 0usize..1000,
        ) {
            let text = write_claims(proxy, &claims);
            prop_assert!(text.len() <= LARGEST_TEXT + 3);
            let (read_proxy, read) = read_claims(&text).unwrap();
            prop_assert_eq!(read_proxy, proxy);
            prop_assert!(claims.starts_with(&read));
            prop_assert!(read.len() == claims.len() || read.len() > 5);
            let cut = &text[..end.min(text.len())];
            if let Some((_, some)) = read_claims(cut) {
                prop_assert!(claims.starts_with(&some));
            }
        }

        #[test]
        fn anything_is_read_or_not(text in ".{0,60}") {
            let _ = read_claims(&format!("{MARK}{text}"));
        }

        #[test]
        fn what_is_found_is_a_cycle(
            all in proptest::collection::vec((0i32..6, 0i32..6, 0usize..3), 0..14),
        ) {
            let all = waits_of(&all);
            if let Some(found) = cycle(&all) {
                for (at, wait) in found.iter().enumerate() {
                    prop_assert!(all.contains(wait));
                    prop_assert_eq!(wait.holder, found[(at + 1) % found.len()].waiter);
                }
            }
        }
    }
}
