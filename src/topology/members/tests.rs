//! Tests of the replica set's bookkeeping.

use super::*;

const STALENESS: Duration = Duration::from_secs(10);
const RTT: Duration = Duration::from_millis(1);

fn facts(writable: bool, timeline: u32, lsn: u64) -> Facts {
    Facts {
        writable,
        timeline,
        system: 1,
        lsn,
        version: 150_000,
        max_prepared_transactions: 10,
        replay_age: None,
        streaming: None,
    }
}

/// Members and a clock that starts at an instant and is moved by hand.
struct Set {
    members: Members,
    start: Instant,
}

impl Set {
    fn of(count: usize) -> Set {
        Set {
            members: Members::new(vec![false; count], STALENESS),
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn report(&self, seconds: u64, facts: Facts) -> Report {
        Report {
            facts,
            sent_at: self.at(seconds),
            rtt: RTT,
            verdict: Verdict::Identified("c".into()),
        }
    }

    fn hear(&mut self, index: usize, seconds: u64, facts: Facts) -> Vec<Event> {
        let ticket = self.members.ticket(index);
        let report = self.report(seconds, facts);
        self.members.answered(index, ticket, &report)
    }

    fn state(&self, index: usize) -> &State {
        &self.members.states()[index]
    }
}

fn lost(reason: &str) -> Failure {
    Failure {
        reason: reason.to_owned(),
        passing: false,
    }
}

#[test]
fn the_first_answers_make_the_roles() {
    let mut set = Set::of(2);
    assert_eq!(set.hear(0, 0, facts(false, 1, 100)), [Event::Up(0)]);
    assert_eq!(set.members.primary(), None);
    assert_eq!(
        set.hear(1, 0, facts(true, 1, 100)),
        [Event::Up(1), Event::Primary(1, 1)]
    );
    assert_eq!(set.state(0).role, Some(Role::Secondary));
    assert_eq!(set.state(0).fresh_as_of, Some(set.at(0)));
    assert_eq!(set.state(0).lag.bytes, Some(0));
}

#[test]
fn a_pending_or_misplaced_server_is_not_in_service() {
    let mut set = Set::of(1);
    let mut report = set.report(0, facts(true, 1, 100));
    report.verdict = Verdict::Pending("waits".into());
    let events = set.members.answered(0, 0, &report);
    assert_eq!(events, [Event::Primary(0, 1)]);
    assert!(!set.state(0).usable());
    report.verdict = Verdict::Misplaced("swapped".into());
    let events = set.members.answered(0, 0, &report);
    assert_eq!(events, [Event::Refused(0, "swapped".into())]);
    assert!(set.members.answered(0, 0, &report).is_empty());
    assert!(!set.state(0).usable());
}

#[test]
fn a_probe_that_began_before_the_failure_does_not_bring_a_server_back() {
    let mut set = Set::of(1);
    set.hear(0, 0, facts(true, 1, 100));
    let ticket = set.members.ticket(0);
    let events = set.members.doubt(0, "reset");
    assert_eq!(events, [Event::Down(0, "reset".into())]);
    let report = set.report(1, facts(true, 1, 100));
    assert!(set.members.answered(0, ticket, &report).is_empty());
    assert_eq!(set.state(0).health, Health::Doubtful("reset".into()));
    assert_eq!(set.hear(0, 2, facts(true, 1, 100)), [Event::Up(0)]);
}

#[test]
fn doubt_does_not_soften_what_a_probe_found() {
    let mut set = Set::of(1);
    set.hear(0, 0, facts(true, 1, 100));
    set.members.failed(0, &lost("refused"));
    assert!(set.members.doubt(0, "reset").is_empty());
    assert_eq!(set.state(0).health, Health::Down("refused".into()));
}

#[test]
fn an_overloaded_server_is_doubted_and_not_given_up() {
    let mut set = Set::of(1);
    let slow = Failure {
        reason: "slow".into(),
        passing: true,
    };
    // Of a server that never answered nothing is known to hope for.
    set.members.failed(0, &slow);
    assert_eq!(set.state(0).health, Health::Down("slow".into()));
    set.hear(0, 0, facts(true, 1, 100));
    set.members.failed(0, &slow);
    assert_eq!(set.state(0).health, Health::Doubtful("slow".into()));
    // From doubt to certainty is no news.
    assert!(set.members.failed(0, &lost("refused")).is_empty());
}

#[test]
fn a_failover_starts_freshness_anew() {
    let mut set = Set::of(3);
    set.hear(0, 0, facts(true, 1, 1000));
    set.hear(1, 0, facts(false, 1, 1000));
    set.hear(2, 0, facts(false, 1, 1000));
    set.members.failed(0, &lost("refused"));
    assert_eq!(set.members.primary(), Some(0));
    let events = set.hear(1, 1, facts(true, 2, 1100));
    assert!(events.contains(&Event::Primary(1, 2)), "{events:?}");
    // The old primary is known to have missed it.
    assert!(set.state(0).fence.is_some());
    // The third is ahead in bytes, but of the old timeline: perhaps another history.
    set.hear(2, 2, facts(false, 1, 5000));
    assert_eq!(set.state(2).fresh_as_of, None);
    set.hear(1, 3, facts(true, 2, 1200));
    set.hear(2, 3, facts(false, 2, 1200));
    assert_eq!(set.state(2).fresh_as_of, Some(set.at(3)));
    // The old one comes back, still believing.
    let events = set.hear(0, 4, facts(true, 1, 1000));
    assert!(!events.contains(&Event::Up(0)), "{events:?}");
    assert_eq!(set.members.primary(), Some(1));
    // And follows at last.
    let events = set.hear(0, 5, facts(false, 2, 1200));
    assert_eq!(events, [Event::Up(0)]);
}

#[test]
fn without_a_primary_the_most_advanced_secondary_is_the_measure() {
    let mut set = Set::of(3);
    set.hear(0, 0, facts(true, 1, 1000));
    set.hear(1, 0, facts(false, 1, 900));
    set.hear(2, 0, facts(false, 1, 950));
    assert_eq!(set.state(2).level_as_of, None);
    set.members.failed(0, &lost("refused"));
    set.hear(2, 60, facts(false, 1, 1000));
    set.hear(1, 60, facts(false, 1, 950));
    assert_eq!(set.state(2).level_as_of, Some(set.at(60)));
    assert_eq!(set.state(1).level_as_of, None);
    set.hear(1, 61, facts(false, 1, 1000));
    assert_eq!(set.state(1).level_as_of, Some(set.at(61)));
    // With the primary back, it alone is the measure again.
    set.hear(0, 62, facts(true, 1, 1000));
    assert_eq!(set.state(1).level_as_of, None);
    assert_eq!(set.state(1).fresh_as_of, Some(set.at(62)));
}

#[test]
fn a_secondary_that_stops_replaying_is_told_once() {
    let mut set = Set::of(2);
    let mut told = Vec::new();
    for second in 0..40 {
        let replayed = if second < 30 { 1000 } else { 2000 };
        let mut events = set.hear(0, second, facts(true, 1, 1000 + second));
        events.extend(set.hear(1, second, facts(false, 1, replayed)));
        told.extend(events.into_iter().map(|event| (second, event)));
    }
    assert_eq!(
        told,
        [
            (0, Event::Up(0)),
            (0, Event::Primary(0, 1)),
            (0, Event::Up(1)),
            (11, Event::StoppedReplaying(1)),
            (30, Event::CaughtUp(1)),
        ]
    );
    assert_eq!(set.state(1).lag.time, Some(Duration::ZERO));
}

#[test]
fn lag_is_the_time_since_it_had_everything() {
    let mut set = Set::of(2);
    set.hear(0, 0, facts(true, 1, 1000));
    set.hear(1, 0, facts(false, 1, 1000));
    set.hear(0, 5, facts(true, 1, 1500));
    set.hear(1, 5, facts(false, 1, 1400));
    assert_eq!(set.state(1).lag.bytes, Some(100));
    assert_eq!(set.state(1).lag.time, Some(Duration::from_secs(5) + RTT));
}

#[test]
fn a_replica_of_a_stranger_is_fenced() {
    let mut set = Set::of(2);
    set.hear(0, 0, facts(true, 1, 1000));
    let foreign = Facts {
        system: 2,
        ..facts(false, 1, 1000)
    };
    let events = set.hear(1, 0, foreign);
    assert!(
        matches!(
            events.as_slice(),
            [Event::Fenced {
                index: 1,
                was_up: false,
                ..
            }]
        ),
        "{events:?}"
    );
    assert!(!set.state(1).usable());
}

#[test]
fn round_trips_are_smoothed() {
    let mut set = Set::of(1);
    set.hear(0, 0, facts(true, 1, 1));
    let mut report = set.report(1, facts(true, 1, 1));
    report.rtt = Duration::from_millis(6);
    set.members.answered(0, 0, &report);
    assert_eq!(set.state(0).rtt, Duration::from_millis(2));
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Hear(usize, bool, u32, u64),
        Fail(usize, bool),
        Doubt(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3usize, any::<bool>(), 1..4u32, 0..50u64)
                .prop_map(|(i, writable, timeline, lsn)| Step::Hear(i, writable, timeline, lsn)),
            1 => (0..3usize, any::<bool>()).prop_map(|(i, passing)| Step::Fail(i, passing)),
            1 => (0..3usize).prop_map(Step::Doubt),
        ]
    }

    proptest! {
        /// Up and Down alternate, so that counting them counts the servers in service; no two primaries.
        #[test]
        fn events_tell_what_is_in_service(steps in proptest::collection::vec(step(), 0..60)) {
            let mut set = Set::of(3);
            let mut up = [false; 3];
            for (second, step) in steps.into_iter().enumerate() {
                let events = match step {
                    Step::Hear(index, writable, timeline, lsn) => {
                        set.hear(index, second as u64, facts(writable, timeline, lsn))
                    }
                    Step::Fail(index, passing) => {
                        set.members.failed(index, &Failure { reason: "x".into(), passing })
                    }
                    Step::Doubt(index) => set.members.doubt(index, "y"),
                };
                for event in events {
                    match event {
                        Event::Up(index) => {
                            prop_assert!(!up[index]);
                            up[index] = true;
                        }
                        Event::Down(index, _) => {
                            prop_assert!(up[index]);
                            up[index] = false;
                        }
                        Event::Fenced { index, was_up, .. } => {
                            prop_assert_eq!(up[index], was_up);
                            up[index] = false;
                        }
                        _ => {}
                    }
                }
                let states = set.members.states();
                for (index, state) in states.iter().enumerate() {
                    prop_assert_eq!(up[index], state.usable());
                }
                let primaries = states.iter().filter(|s| s.role == Some(Role::Primary));
                prop_assert!(primaries.count() <= 1);
            }
        }
    }
}
