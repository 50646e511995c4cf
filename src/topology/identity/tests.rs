//! Tests of the identity rules.

use super::*;

fn expected(names: &[&str]) -> Vec<Expected> {
    names
        .iter()
        .enumerate()
        .map(|(index, name)| Expected {
            shard: (*name).to_owned(),
            slots: format!("{index}-{index}"),
        })
        .collect()
}

fn record(cluster: &str, index: usize, of: usize) -> Record {
    Record {
        cluster: cluster.to_owned(),
        shard: format!("s{index}"),
        shard_count: of,
        slots: format!("{index}-{index}"),
        epoch: 1,
        complete: false,
        timeline: 1,
    }
}

fn recorded(cluster: &str, index: usize) -> Entry {
    Entry::Recorded(record(cluster, index, 2))
}

fn complete(cluster: &str, index: usize) -> Entry {
    Entry::Recorded(Record {
        complete: true,
        ..record(cluster, index, 2)
    })
}

#[test]
fn slots_are_written_as_ranges() {
    assert_eq!(slots_text(&[0..=8191]), "0-8191");
    assert_eq!(slots_text(&[0..=9, 20..=20]), "0-9,20-20");
}

#[test]
fn the_first_row_waits_until_every_shard_was_heard() {
    let expected = expected(&["s0", "s1"]);
    let step = first_contact(&[Entry::Empty, Entry::Unknown], &expected, 0);
    assert!(
        matches!(&step, FirstContact::Wait(why) if why.contains("\"s1\"")),
        "{step:?}"
    );
    let both = [Entry::Empty, Entry::Empty];
    assert_eq!(
        first_contact(&both, &expected, 0),
        FirstContact::Record { cluster: None }
    );
    let step = first_contact(&both, &expected, 1);
    assert!(
        matches!(&step, FirstContact::Wait(why) if why.contains("\"s0\"")),
        "{step:?}"
    );
}

#[test]
fn a_shard_that_can_hold_no_row_does_not_hold_up_the_others() {
    let expected = expected(&["s0", "s1"]);
    let entries = [Entry::Without("denied".into()), Entry::Empty];
    assert_eq!(
        first_contact(&entries, &expected, 1),
        FirstContact::Record { cluster: None }
    );
}

#[test]
fn later_shards_take_the_cluster_of_the_first() {
    let expected = expected(&["s0", "s1"]);
    let entries = [recorded("c", 0), Entry::Empty];
    assert_eq!(
        first_contact(&entries, &expected, 1),
        FirstContact::Record {
            cluster: Some("c".into())
        }
    );
}

#[test]
fn an_empty_server_does_not_replace_a_shard() {
    let expected = expected(&["s0", "s1"]);
    let step = first_contact(&[complete("c", 0), Entry::Empty], &expected, 1);
    assert!(
        matches!(&step, FirstContact::Refuse(why) if why.contains("empty server")),
        "{step:?}"
    );
}

#[test]
fn a_shard_does_not_join_by_being_named() {
    let expected = expected(&["s0", "s1", "s2"]);
    let entries = [recorded("c", 0), recorded("c", 1), Entry::Empty];
    let step = first_contact(&entries, &expected, 2);
    assert!(
        matches!(&step, FirstContact::Refuse(why) if why.contains("set up with 2 shards")),
        "{step:?}"
    );
}

#[test]
fn a_row_must_fit_the_configuration() {
    let expected = expected(&["s0", "s1"]);
    let entries = [complete("c", 0), complete("c", 1)];
    let judged = |shard: usize, record: &Record| judge(&entries, &expected, shard, record);
    assert_eq!(judged(0, &record("c", 0, 2)), Ok(()));
    for (shard, row, reason) in [
        (0, record("c", 1, 2), "swapped"),
        (
            1,
            record("d", 1, 2),
            "belongs to cluster d, but shard \"s0\" to cluster c",
        ),
        (
            1,
            record("c", 1, 3),
            "placed for 3 shards, but the configuration has 2",
        ),
        (
            1,
            Record {
                slots: "5-9".into(),
                ..record("c", 1, 2)
            },
            "holds the slots 5-9",
        ),
        (
            1,
            Record {
                shard: "old".into(),
                ..record("c", 1, 2)
            },
            "SET shard_name = 's1'",
        ),
    ] {
        let why = judged(shard, &row).unwrap_err();
        assert!(why.contains(reason), "{why}");
    }
}

#[test]
fn a_cluster_is_complete_when_every_shard_has_its_row() {
    let book = |entries: Vec<Entry>| Book {
        expected: expected(&["s0", "s1"]),
        entries: Mutex::new(entries),
    };
    assert!(book(vec![recorded("c", 0), recorded("c", 1)]).completes(0));
    assert!(!book(vec![recorded("c", 0), recorded("c", 1)]).completes(1));
    assert!(!book(vec![recorded("c", 0), recorded("d", 1)]).completes(0));
    assert!(!book(vec![recorded("c", 0), Entry::Empty]).completes(0));
    assert!(!book(vec![complete("c", 0), recorded("c", 1)]).completes(0));
}

#[test]
fn the_primary_overrules_its_secondary() {
    let book = Book {
        expected: expected(&["s0"]),
        entries: Mutex::new(vec![Entry::Unknown]),
    };
    assert!(matches!(book.judge_unrecorded(0), Verdict::Pending(_)));
    book.replicated(0, &record("foreign", 0, 1));
    book.recorded(0, &record("c", 0, 1));
    book.replicated(0, &record("foreign", 0, 1));
    assert_eq!(
        book.judge(0, &record("c", 0, 1)),
        Verdict::Identified("c".into())
    );
    assert!(matches!(
        book.judge(0, &record("foreign", 0, 1)),
        Verdict::Misplaced(_)
    ));
    book.without(0, "denied");
    assert_eq!(
        book.judge_unrecorded(0),
        Verdict::Unidentified("denied".into())
    );
}
