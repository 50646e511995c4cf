//! Appends to a list on each of two shards. An append is in both lists or in none, for every reader and in
//! the end; a reader's list is the beginning of every later one; no two appends stand in one order here and
//! in the other there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::Rng;

use crate::harness::Cluster;
use crate::survival::client::{Client, Failure, Told};

pub const SCHEMA: &str = "CREATE TABLE lists (id int PRIMARY KEY, list text NOT NULL)";

pub const ROWS: &str = "INSERT INTO lists SELECT i, '' FROM generate_series(1, 10) i";

/// The lists by their ids.
type Lists = HashMap<i32, Vec<usize>>;

/// What the workload has in common.
pub struct Appends {
    /// The lists of each shard.
    ids: [Vec<i32>; 2],
    next: AtomicUsize,
    acknowledged: Mutex<Vec<usize>>,
    outcomes: Mutex<HashMap<usize, Told>>,
    seen: Mutex<Vec<Lists>>,
}

impl Appends {
    pub fn new(cluster: &Cluster) -> Appends {
        let ids = [0, 1].map(|shard| {
            let rows = cluster.shard(shard).raw().rows("SELECT id FROM lists");
            rows.iter().map(|row| row[0].parse().unwrap()).collect()
        });
        Appends {
            ids,
            next: AtomicUsize::new(1),
            acknowledged: Mutex::default(),
            outcomes: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    pub fn write(&self, mut client: Client, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if !client.is_ready() {
                continue;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let told = self.append(&mut client, number);
            if told == Told::Committed {
                self.acknowledged.lock().unwrap().push(number);
            }
            self.outcomes.lock().unwrap().insert(number, told);
        }
    }

    fn append(&self, client: &mut Client, number: usize) -> Told {
        let mut pick = |ids: &[i32]| ids[client.random.random_range(0..ids.len())];
        let (near, far) = (pick(&self.ids[0]), pick(&self.ids[1]));
        let set = format!("UPDATE lists SET list = list || ',{number}'");
        match client.random.random_range(0..5) {
            0 => {
                let script = format!("{set} WHERE id = {near}; {set} WHERE id = {far}");
                let answer = client.ask(&script);
                client.told(answer, true)
            }
            1 => {
                let answer = client.ask(&format!("{set} WHERE id IN ({near}, {far})"));
                client.told(answer, true)
            }
            2 => {
                // The whole statement is an answer: its rows say nothing before its end.
                let sql = format!("{set} WHERE id IN ({near}, {far}) RETURNING id, list");
                let answer = client.ask(&sql);
                client.told(answer, true)
            }
            3 => match self.compute(client, [far, near], number) {
                Ok(statements) => client.transact(&statements),
                Err(failure) => {
                    client.recover();
                    Told::RolledBack(format!("{failure:?}"))
                }
            },
            _ => {
                let one = |id: i32| format!("{set} WHERE id = {id}");
                client.transact(&["BEGIN".into(), one(near), one(far)])
            }
        }
    }

    /// Reads both lists at REPEATABLE READ; the updates that replace them.
    fn compute(
        &self,
        client: &mut Client,
        ids: [i32; 2],
        number: usize,
    ) -> Result<Vec<String>, Failure> {
        client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        let mut statements = Vec::new();
        for id in ids {
            let rows = client.rows(&format!("SELECT list FROM lists WHERE id = {id}"))?;
            let list = &rows[0][0];
            statements.push(format!(
                "UPDATE lists SET list = '{list},{number}' WHERE id = {id}"
            ));
        }
        Ok(statements)
    }

    /// Reads until it is told to stop; how often it could.
    pub fn read(&self, mut client: Client, stop: &AtomicBool) -> usize {
        let mut reads = 0;
        while !stop.load(Ordering::Relaxed) {
            if !client.is_ready() {
                continue;
            }
            let known = self.acknowledged.lock().unwrap().len();
            match self.look(&mut client) {
                Ok(lists) => {
                    self.check(lists, known);
                    reads += 1;
                }
                Err(_) => client.recover(),
            }
        }
        reads
    }

    fn look(&self, client: &mut Client) -> Result<Lists, Failure> {
        client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        let mut rows = Vec::new();
        if client.random.random() {
            for id in self.ids.iter().flatten() {
                rows.extend(client.rows(&format!("SELECT id, list FROM lists WHERE id = {id}"))?);
            }
        } else {
            rows = client.rows("SELECT id, list FROM lists")?;
        }
        client.ask("COMMIT")?;
        Ok(lists(&rows))
    }

    fn check(&self, lists: Lists, known: usize) {
        let seen = count(&lists);
        for (number, times) in &seen {
            assert_eq!(
                *times, 2,
                "append {number} is to be seen in part: {lists:?}"
            );
        }
        for number in &self.acknowledged.lock().unwrap()[..known] {
            assert!(
                seen.contains_key(number),
                "append {number} is acknowledged and not seen"
            );
        }
        self.seen.lock().unwrap().push(lists);
    }

    /// Whether what stands in the end is what everybody was told and saw; how many were committed.
    pub fn audit(&self, cluster: &Cluster) -> usize {
        let on = |shard| {
            cluster
                .shard(shard)
                .raw()
                .rows("SELECT id, list FROM lists")
        };
        let last = lists(&[on(0), on(1)].concat());
        let stands = count(&last);
        let outcomes = self.outcomes.lock().unwrap();
        for (number, told) in outcomes.iter() {
            let times = stands.get(number).copied().unwrap_or(0);
            match told {
                Told::Committed => assert_eq!(times, 2, "append {number} is lost, or there twice"),
                Told::RolledBack(why) => assert_eq!(times, 0, "append {number} stands: {why}"),
                Told::Unknown(_) => assert!(matches!(times, 0 | 2), "append {number}: {times}"),
            }
        }
        for lists in self.seen.lock().unwrap().iter() {
            for (id, list) in lists {
                assert!(
                    last[id].starts_with(list),
                    "list {id} has changed behind its end"
                );
            }
        }
        assert!(
            have_one_order(&last),
            "appends stand in different orders on two lists"
        );
        outcomes
            .values()
            .filter(|told| **told == Told::Committed)
            .count()
    }
}

fn lists(rows: &[Vec<String>]) -> Lists {
    let numbers = |list: &str| -> Vec<usize> {
        let parts = list.split(',').skip(1);
        parts.map(|part| part.parse().unwrap()).collect()
    };
    let list = |row: &Vec<String>| (row[0].parse().unwrap(), numbers(&row[1]));
    rows.iter().map(list).collect()
}

/// How often each append is in the lists.
fn count(lists: &Lists) -> HashMap<usize, usize> {
    let mut seen = HashMap::new();
    for number in lists.values().flatten() {
        *seen.entry(*number).or_default() += 1;
    }
    seen
}

/// Whether there is one order of all appends that every list follows.
fn have_one_order(lists: &Lists) -> bool {
    let mut before: HashMap<usize, usize> = HashMap::new();
    let mut after: HashMap<usize, Vec<usize>> = HashMap::new();
    for list in lists.values() {
        for number in list {
            before.entry(*number).or_default();
        }
        for two in list.windows(2) {
            *before.entry(two[1]).or_default() += 1;
            after.entry(two[0]).or_default().push(two[1]);
        }
    }
    let free = before.iter().filter(|(_, count)| **count == 0);
    let mut free: Vec<usize> = free.map(|(number, _)| *number).collect();
    let mut placed = 0;
    while let Some(number) = free.pop() {
        placed += 1;
        for next in after.remove(&number).unwrap_or_default() {
            let left = before.get_mut(&next).unwrap();
            *left -= 1;
            if *left == 0 {
                free.push(next);
            }
        }
    }
    placed == before.len()
}

#[test]
fn lists_that_contradict_each_other_are_noticed() {
    let lists = |all: &[&[usize]]| -> Lists {
        let numbered = all.iter().enumerate();
        numbered
            .map(|(id, list)| (i32::try_from(id).unwrap(), list.to_vec()))
            .collect()
    };
    assert!(have_one_order(&lists(&[&[1, 2, 3], &[1, 3], &[4, 2]])));
    assert!(!have_one_order(&lists(&[&[1, 2, 3], &[3, 1]])));
}
