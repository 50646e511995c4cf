//! Transfers between accounts on two shards, each noted in a ledger on any. Whatever dies: what a reader at
//! REPEATABLE READ sees adds up, holds all that was acknowledged before it began, and is more or less than
//! what any other reader saw, never something else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::Rng;

use crate::harness::{Cluster, message};
use crate::survival::client::{Client, Failure, Told};

/// What every account holds at first.
const BALANCE: i64 = 100;

pub const SCHEMA: &str = "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);\n\
     CREATE TABLE ledger (n int PRIMARY KEY, payer int, payee int, amount int)";

pub const ROWS: &str = "INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 24) i";

/// What the workload has in common.
pub struct Transfers {
    /// The accounts of each shard.
    accounts: [Vec<i32>; 2],
    next: AtomicUsize,
    /// The numbers of transfers that are acknowledged, in that order.
    acknowledged: Mutex<Vec<i32>>,
    outcomes: Mutex<HashMap<i32, Told>>,
    /// What each reader saw.
    seen: Mutex<Vec<BTreeSet<i32>>>,
}

/// What one snapshot shows.
struct View {
    balances: HashMap<i32, i64>,
    /// Number, payer, payee, amount.
    ledger: Vec<[i32; 4]>,
}

impl Transfers {
    pub fn new(cluster: &Cluster) -> Transfers {
        let accounts = [0, 1].map(|shard| {
            let rows = cluster.shard(shard).raw().rows("SELECT id FROM accounts");
            rows.iter().map(|row| row[0].parse().unwrap()).collect()
        });
        Transfers {
            accounts,
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
            let number = i32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let told = self.transfer(&mut client, number);
            if told == Told::Committed {
                self.acknowledged.lock().unwrap().push(number);
            }
            self.outcomes.lock().unwrap().insert(number, told);
        }
    }

    fn transfer(&self, client: &mut Client, number: i32) -> Told {
        let side = client.random.random_range(0..2);
        let pick = |client: &mut Client, shard: usize| {
            let all = &self.accounts[shard];
            all[client.random.random_range(0..all.len())]
        };
        let (payer, payee) = (pick(client, side), pick(client, 1 - side));
        let amount = client.random.random_range(1..20);
        let change = |id: i32, by: i32| {
            format!("UPDATE accounts SET balance = balance + ({by}) WHERE id = {id}")
        };
        let note = format!("INSERT INTO ledger VALUES ({number}, {payer}, {payee}, {amount})");
        let statements = [change(payer, -amount), change(payee, amount), note.clone()];
        match client.random.random_range(0..5) {
            0 => {
                let answer = client.ask(&statements.join("; "));
                client.told(answer, true)
            }
            1 => {
                let mut batch = Vec::new();
                for sql in &statements {
                    batch.extend(message::parse("", sql, &[]));
                    batch.extend(message::bind("", "", &[], &[], &[]));
                    batch.extend(message::execute("", 0));
                }
                batch.extend(message::sync());
                let answer = client.exchange(&batch);
                client.told(answer, true)
            }
            2 => {
                let both = format!(
                    "UPDATE accounts SET balance = balance + CASE id WHEN {payee} THEN {amount} \
                     ELSE -{amount} END WHERE id IN ({payer}, {payee})"
                );
                client.transact(&["BEGIN".into(), both, note])
            }
            3 => match self.compute(client, [payer, payee], amount) {
                Ok(mut computed) => {
                    computed.push(note);
                    client.transact(&computed)
                }
                Err(failure) => {
                    client.recover();
                    Told::RolledBack(format!("{failure:?}"))
                }
            },
            _ => {
                let [first, second, third] = statements;
                client.transact(&["BEGIN".into(), first, second, third])
            }
        }
    }

    /// Reads both accounts at REPEATABLE READ; the updates to what they are to hold.
    fn compute(
        &self,
        client: &mut Client,
        [payer, payee]: [i32; 2],
        amount: i32,
    ) -> Result<Vec<String>, Failure> {
        client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        let mut statements = Vec::new();
        for (id, by) in [(payer, -amount), (payee, amount)] {
            let rows = client.rows(&format!("SELECT balance FROM accounts WHERE id = {id}"))?;
            let balance: i64 = rows[0][0].parse().unwrap();
            let new = balance + i64::from(by);
            statements.push(format!(
                "UPDATE accounts SET balance = {new} WHERE id = {id}"
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
                Ok(view) => {
                    self.check(view, known);
                    reads += 1;
                }
                Err(_) => client.recover(),
            }
        }
        reads
    }

    fn look(&self, client: &mut Client) -> Result<View, Failure> {
        let mode = ["", " READ ONLY"][client.random.random_range(0..2)];
        client.ask(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ{mode}"))?;
        let sum = client.rows("SELECT sum(balance), count(*) FROM accounts")?;
        let count = self.accounts.iter().map(Vec::len).sum::<usize>();
        let count = i64::try_from(count).unwrap();
        assert_eq!(sum, [[(count * BALANCE).to_string(), count.to_string()]]);
        let balances = client.rows("SELECT id, balance FROM accounts")?;
        let ledger = client.rows("SELECT n, payer, payee, amount FROM ledger")?;
        client.ask("COMMIT")?;
        Ok(view(&balances, &ledger))
    }

    /// `known`: so many transfers had been acknowledged before the reader began.
    fn check(&self, view: View, known: usize) {
        adds_up(&view);
        let seen: BTreeSet<i32> = view.ledger.iter().map(|entry| entry[0]).collect();
        for number in &self.acknowledged.lock().unwrap()[..known] {
            assert!(
                seen.contains(number),
                "transfer {number} is acknowledged and not to be seen"
            );
        }
        self.seen.lock().unwrap().push(seen);
    }

    /// Whether what stands in the end is what everybody was told and saw; how many were committed.
    pub fn audit(&self, cluster: &Cluster) -> usize {
        let all = |sql: &str| -> Vec<Vec<String>> {
            let on = |shard| cluster.shard(shard).raw().rows(sql);
            [on(0), on(1)].concat()
        };
        let balances = all("SELECT id, balance FROM accounts");
        let ledger = all("SELECT n, payer, payee, amount FROM ledger");
        let view = view(&balances, &ledger);
        adds_up(&view);
        let decided = all("SELECT gid FROM shardwire.decisions WHERE decision = 'commit'");
        let decided: HashSet<String> = decided.into_iter().flatten().collect();
        let stands: BTreeSet<i32> = view.ledger.iter().map(|entry| entry[0]).collect();
        let outcomes = self.outcomes.lock().unwrap();
        for (number, told) in outcomes.iter() {
            let is_there = stands.contains(number);
            match told {
                Told::Committed => assert!(is_there, "transfer {number} is lost"),
                Told::RolledBack(why) => assert!(!is_there, "transfer {number} stands: {why}"),
                Told::Unknown(Some(name)) => assert_eq!(decided.contains(name), is_there, "{name}"),
                Told::Unknown(None) => {}
            }
        }
        assert!(stands.iter().all(|number| outcomes.contains_key(number)));
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.sort_by_key(BTreeSet::len);
        seen.push(stands);
        for two in seen.windows(2) {
            assert!(
                two[0].is_subset(&two[1]),
                "two readers saw different transfers"
            );
        }
        outcomes
            .values()
            .filter(|told| **told == Told::Committed)
            .count()
    }
}

fn view(balances: &[Vec<String>], ledger: &[Vec<String>]) -> View {
    let number = |text: &String| text.parse::<i32>().unwrap();
    let balance = |row: &Vec<String>| (number(&row[0]), row[1].parse().unwrap());
    let entry = |row: &Vec<String>| [0, 1, 2, 3].map(|column: usize| number(&row[column]));
    View {
        balances: balances.iter().map(balance).collect(),
        ledger: ledger.iter().map(entry).collect(),
    }
}

fn adds_up(view: &View) {
    let mut wanted: HashMap<i32, i64> = view.balances.keys().map(|id| (*id, BALANCE)).collect();
    let mut numbers = HashSet::new();
    for [number, payer, payee, amount] in &view.ledger {
        assert!(numbers.insert(number), "transfer {number} is there twice");
        *wanted.get_mut(payer).unwrap() -= i64::from(*amount);
        *wanted.get_mut(payee).unwrap() += i64::from(*amount);
    }
    assert_eq!(view.balances, wanted);
}
