//! Tests of the server selection: one rule each, then the whole by property.

use super::*;

const NEAR: Duration = Duration::from_millis(1);

fn primary() -> Candidate {
    Candidate {
        role: Role::Primary,
        standing: Standing::Good,
        local: false,
        rtt: NEAR,
        fresh_as_of: None,
        level_as_of: None,
    }
}

fn secondary(fresh_as_of: Instant) -> Candidate {
    Candidate {
        role: Role::Secondary,
        fresh_as_of: Some(fresh_as_of),
        ..primary()
    }
}

fn read(preference: ReadPreference) -> Want {
    Want {
        access: Access::Read,
        preference,
        max_staleness: Duration::from_secs(10),
        wrote_at: None,
    }
}

/// Every candidate that some random picks lead to.
fn reachable(candidates: &[Candidate], want: &Want, now: Instant) -> Vec<usize> {
    let mut found: Vec<usize> = (0..64)
        .filter_map(|seed: usize| {
            let mut left = seed;
            choose(
                candidates,
                want,
                now,
                |_| 0,
                |n| {
                    let pick = left % n;
                    left /= n;
                    pick
                },
            )
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn writes_go_to_the_primary_whatever_the_preference() {
    let now = Instant::now();
    let set = [secondary(now), primary(), secondary(now)];
    assert_eq!(reachable(&set, &Want::primary(), now), [1]);
    let strong = Want {
        access: Access::Primary,
        ..read(ReadPreference::Secondary)
    };
    assert_eq!(reachable(&set, &strong, now), [1]);
}

#[test]
fn each_mode_names_its_candidates() {
    let now = Instant::now();
    let set = [primary(), secondary(now), secondary(now)];
    let of = |mode| reachable(&set, &read(mode), now);
    assert_eq!(of(ReadPreference::Primary), [0]);
    assert_eq!(of(ReadPreference::PrimaryPreferred), [0]);
    assert_eq!(of(ReadPreference::Secondary), [1, 2]);
    assert_eq!(of(ReadPreference::SecondaryPreferred), [1, 2]);
    assert_eq!(of(ReadPreference::Nearest), [0, 1, 2]);
}

#[test]
fn preferred_modes_fall_back_and_strict_ones_do_not() {
    let now = Instant::now();
    let alone = [primary()];
    assert_eq!(
        reachable(&alone, &read(ReadPreference::SecondaryPreferred), now),
        [0]
    );
    assert!(reachable(&alone, &read(ReadPreference::Secondary), now).is_empty());
    let orphan = [secondary(now)];
    assert_eq!(
        reachable(&orphan, &read(ReadPreference::PrimaryPreferred), now),
        [0]
    );
    assert!(reachable(&orphan, &read(ReadPreference::Primary), now).is_empty());
    assert!(reachable(&orphan, &Want::primary(), now).is_empty());
}

#[test]
fn stale_secondaries_serve_no_reads() {
    let now = Instant::now() + Duration::from_secs(100);
    let stale = secondary(now - Duration::from_secs(11));
    let fresh = secondary(now - Duration::from_secs(10));
    let unknown = Candidate {
        fresh_as_of: None,
        ..fresh
    };
    let of = |set: &[Candidate], mode| reachable(set, &read(mode), now);
    assert_eq!(
        of(&[primary(), stale, unknown], ReadPreference::Nearest),
        [0]
    );
    assert_eq!(
        of(&[primary(), stale, fresh], ReadPreference::Nearest),
        [0, 2]
    );
    assert_eq!(
        of(&[primary(), stale], ReadPreference::SecondaryPreferred),
        [0]
    );
    assert!(of(&[primary(), stale], ReadPreference::Secondary).is_empty());
}

#[test]
fn a_session_reads_its_own_writes() {
    let now = Instant::now() + Duration::from_secs(100);
    let wrote_at = now - Duration::from_secs(2);
    let want = |preference| Want {
        wrote_at: Some(wrote_at),
        ..read(preference)
    };
    let before = secondary(wrote_at);
    let after = secondary(wrote_at + Duration::from_millis(1));
    let set = [primary(), before, after];
    assert_eq!(reachable(&set, &want(ReadPreference::Secondary), now), [2]);
    assert_eq!(reachable(&set, &want(ReadPreference::Nearest), now), [0, 2]);
    // Nobody has replayed the write: the primary, even for `secondary`.
    let set = [primary(), before];
    assert_eq!(reachable(&set, &want(ReadPreference::Secondary), now), [0]);
    // The most advanced secondary may still lack it.
    let level = Candidate {
        level_as_of: Some(now),
        ..before
    };
    assert!(reachable(&[level], &want(ReadPreference::Nearest), now).is_empty());
}

#[test]
fn without_a_primary_the_most_advanced_secondaries_count_as_fresh() {
    let now = Instant::now() + Duration::from_secs(100);
    let old = secondary(now - Duration::from_secs(60));
    let level = Candidate {
        level_as_of: Some(now),
        ..old
    };
    assert_eq!(
        reachable(&[old, level], &read(ReadPreference::Secondary), now),
        [1]
    );
}

#[test]
fn the_own_zone_comes_before_the_fastest() {
    let now = Instant::now();
    let local = Candidate {
        local: true,
        rtt: Duration::from_millis(40),
        ..secondary(now)
    };
    let set = [primary(), secondary(now), local];
    assert_eq!(reachable(&set, &read(ReadPreference::Nearest), now), [2]);
    // A local server that is not eligible does not draw reads.
    let stale = Candidate {
        fresh_as_of: None,
        ..local
    };
    let set = [primary(), secondary(now), stale];
    assert_eq!(reachable(&set, &read(ReadPreference::Nearest), now), [0, 1]);
}

#[test]
fn the_latency_window_is_measured_from_the_fastest_eligible() {
    let now = Instant::now();
    let at = |millis| Candidate {
        rtt: Duration::from_millis(millis),
        ..secondary(now)
    };
    let set = [at(1), at(16), at(17)];
    assert_eq!(reachable(&set, &read(ReadPreference::Nearest), now), [0, 1]);
    let out = Candidate {
        standing: Standing::Out,
        ..at(1)
    };
    let set = [out, at(16), at(17)];
    assert_eq!(reachable(&set, &read(ReadPreference::Nearest), now), [1, 2]);
}

#[test]
fn of_two_picks_the_less_busy_wins() {
    let now = Instant::now();
    let set = [secondary(now), secondary(now), secondary(now)];
    let want = read(ReadPreference::Nearest);
    let busy = [5, 3, 9];
    let with = |picks: [usize; 2]| {
        let mut picks = picks.into_iter();
        choose(&set, &want, now, |i| busy[i], |_| picks.next().unwrap())
    };
    assert_eq!(with([0, 0]), Some(1)); // 0 and 1
    assert_eq!(with([0, 1]), Some(0)); // 0 and 2
    assert_eq!(with([2, 1]), Some(1)); // 2 and 1
}

#[test]
fn a_doubtful_server_is_used_only_when_it_is_the_last() {
    let now = Instant::now();
    let doubtful = Candidate {
        standing: Standing::LastResort,
        ..primary()
    };
    assert_eq!(reachable(&[doubtful], &Want::primary(), now), [0]);
    let set = [doubtful, secondary(now)];
    assert_eq!(reachable(&set, &read(ReadPreference::Nearest), now), [1]);
    assert_eq!(
        reachable(&set, &read(ReadPreference::PrimaryPreferred), now),
        [1]
    );
    let out = Candidate {
        standing: Standing::Out,
        ..primary()
    };
    assert!(reachable(&[out], &Want::primary(), now).is_empty());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn candidate(start: Instant) -> impl Strategy<Value = Candidate> {
        (
            0..3u8,
            any::<bool>(),
            any::<bool>(),
            0..40u64,
            proptest::option::of(0..30u64),
        )
            .prop_map(move |(standing, is_primary, local, rtt, fresh)| Candidate {
                role: if is_primary {
                    Role::Primary
                } else {
                    Role::Secondary
                },
                standing: match standing {
                    0 => Standing::Good,
                    1 => Standing::LastResort,
                    _ => Standing::Out,
                },
                local,
                rtt: Duration::from_millis(rtt),
                fresh_as_of: fresh.map(|s| start + Duration::from_secs(s)),
                level_as_of: None,
            })
    }

    fn preference() -> impl Strategy<Value = ReadPreference> {
        prop_oneof![
            Just(ReadPreference::Primary),
            Just(ReadPreference::PrimaryPreferred),
            Just(ReadPreference::Secondary),
            Just(ReadPreference::SecondaryPreferred),
            Just(ReadPreference::Nearest),
        ]
    }

    proptest! {
        #[test]
        fn what_is_picked_may_serve(
            (set, wrote) in {
                let start = Instant::now();
                (proptest::collection::vec(candidate(start), 0..6),
                 proptest::option::of((0..30u64).prop_map(move |s| start + Duration::from_secs(s))))
            },
            preference in preference(),
            seed in any::<usize>(),
        ) {
            let now = Instant::now() + Duration::from_secs(30);
            let want = Want { wrote_at: wrote, ..read(preference) };
            if let Some(index) = choose(&set, &want, now, |_| 0, |n| seed % n) {
                let picked = set[index];
                prop_assert!(picked.standing != Standing::Out);
                prop_assert!(is_fresh(&picked, &want, now));
                prop_assert!(preference != ReadPreference::Primary || picked.role == Role::Primary);
            } else if preference != ReadPreference::Secondary {
                prop_assert!(!set.iter().any(|c| c.role == Role::Primary && c.standing != Standing::Out));
            }
        }
    }
}
