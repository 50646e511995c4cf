//! SHOW STATS and its kin: what the sessions of each database have done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::admin::table::{Kind, Value};
use crate::session::activity::Totals;
use crate::session::control::Sessions;
use crate::session::operations::Serving;

use Kind::{Numeric, Text};

/// The averages are of this long, once the process has run that long.
const PERIOD: Duration = Duration::from_secs(60);

/// The columns of STATS.
pub const BOTH: &[(&str, Kind)] = &[
    ("database", Text),
    ("total_server_assignment_count", Numeric),
    ("total_xact_count", Numeric),
    ("total_query_count", Numeric),
    ("total_received", Numeric),
    ("total_sent", Numeric),
    ("total_xact_time", Numeric),
    ("total_query_time", Numeric),
    ("total_wait_time", Numeric),
    ("total_client_parse_count", Numeric),
    ("total_server_parse_count", Numeric),
    ("total_bind_count", Numeric),
    ("avg_server_assignment_count", Numeric),
    ("avg_xact_count", Numeric),
    ("avg_query_count", Numeric),
    ("avg_recv", Numeric),
    ("avg_sent", Numeric),
    ("avg_xact_time", Numeric),
    ("avg_query_time", Numeric),
    ("avg_wait_time", Numeric),
    ("avg_client_parse_count", Numeric),
    ("avg_server_parse_count", Numeric),
    ("avg_bind_count", Numeric),
];

/// The columns of STATS_TOTALS and STATS_AVERAGES.
pub const EITHER: &[(&str, Kind)] = &[
    ("database", Text),
    ("server_assignment_count", Numeric),
    ("xact_count", Numeric),
    ("query_count", Numeric),
    ("bytes_received", Numeric),
    ("bytes_sent", Numeric),
    ("xact_time", Numeric),
    ("query_time", Numeric),
    ("wait_time", Numeric),
    ("client_parse_count", Numeric),
    ("server_parse_count", Numeric),
    ("bind_count", Numeric),
];

/// Totals by database, as they stood at some moments.
pub type Samples = Vec<(Instant, BTreeMap<String, Totals>)>;

/// Adds a sample and drops those that are too old to be needed.
pub fn sample(samples: &mut Samples, now: Instant, totals: BTreeMap<String, Totals>) {
    let is_old = |(at, _): &(Instant, _)| now.saturating_duration_since(*at) >= PERIOD;
    // The youngest of the old ones is where the period begins.
    let old = samples.iter().take_while(|one| is_old(one)).count();
    samples.drain(..old.saturating_sub(1));
    samples.push((now, totals));
}

/// What a database has done in all, and lately in how long.
struct Stats {
    database: String,
    totals: Totals,
    lately: Totals,
    period: Duration,
}

fn all(sessions: &Sessions, serving: &Serving) -> Vec<Stats> {
    let totals = sessions.totals();
    let now = Instant::now();
    let before = sessions.earliest_sample();
    let mut stats = Vec::new();
    for database in serving.databases.keys() {
        let total = totals.get(database).copied().unwrap_or_default();
        let (at, earlier) = match &before {
            Some((at, totals)) => (*at, totals.get(database).copied().unwrap_or_default()),
            None => (now, total),
        };
        stats.push(Stats {
            database: database.clone(),
            totals: total,
            lately: total.since(earlier),
            period: now.saturating_duration_since(at),
        });
    }
    stats
}

impl Stats {
    fn totals(&self) -> [u64; 11] {
        let of = &self.totals;
        [
            of.assignments,
            of.transactions,
            of.queries,
            of.received,
            of.sent,
            of.transaction_us,
            of.query_us,
            of.wait_us,
            of.parses,
            of.server_parses,
            of.binds,
        ]
    }

    /// Counts and bytes by the second, times by what they are the times of.
    fn averages(&self) -> [u64; 11] {
        let of = &self.lately;
        let seconds = self.period.as_secs_f64().max(1.0);
        let by_second = |count: u64| (count as f64 / seconds) as u64;
        let each = |time: u64, count: u64| time.checked_div(count).unwrap_or(0);
        [
            by_second(of.assignments),
            by_second(of.transactions),
            by_second(of.queries),
            by_second(of.received),
            by_second(of.sent),
            each(of.transaction_us, of.transactions),
            each(of.query_us, of.queries),
            each(of.wait_us, of.assignments),
            by_second(of.parses),
            by_second(of.server_parses),
            by_second(of.binds),
        ]
    }
}

fn row(name: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<Value> {
    let mut row: Vec<Value> = vec![name.into()];
    row.extend(numbers.into_iter().map(Value::from));
    row
}

/// The rows of STATS.
pub fn both(sessions: &Sessions, serving: &Serving) -> Vec<Vec<Value>> {
    let all = all(sessions, serving).into_iter();
    all.map(|one| {
        row(
            &one.database,
            one.totals().into_iter().chain(one.averages()),
        )
    })
    .collect()
}

/// The rows of STATS_TOTALS.
pub fn totals(sessions: &Sessions, serving: &Serving) -> Vec<Vec<Value>> {
    let all = all(sessions, serving).into_iter();
    all.map(|one| row(&one.database, one.totals())).collect()
}

/// The rows of STATS_AVERAGES.
pub fn averages(sessions: &Sessions, serving: &Serving) -> Vec<Vec<Value>> {
    let all = all(sessions, serving).into_iter();
    all.map(|one| row(&one.database, one.averages())).collect()
}

/// The rows of TOTALS.
pub fn sums(sessions: &Sessions, serving: &Serving) -> Vec<Vec<Value>> {
    let mut sum = Stats {
        database: String::new(),
        totals: Totals::default(),
        lately: Totals::default(),
        period: Duration::ZERO,
    };
    for one in all(sessions, serving) {
        sum.totals += one.totals;
        sum.lately += one.lately;
        sum.period = sum.period.max(one.period);
    }
    let names = BOTH.iter().skip(1).map(|(name, _)| *name);
    let numbers = sum.totals().into_iter().chain(sum.averages());
    names
        .zip(numbers)
        .map(|(name, number)| row(name, [number]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_the_last_period() {
        let mut samples = Samples::new();
        let start = Instant::now();
        for second in 0..30 {
            sample(&mut samples, start + second * PERIOD / 12, BTreeMap::new());
        }
        let (first, last) = (samples[0].0, samples[samples.len() - 1].0);
        assert_eq!(last - first, PERIOD);
    }

    #[test]
    fn counts_are_by_the_second_and_times_by_the_piece() {
        let lately = Totals {
            transactions: 120,
            transaction_us: 1_200,
            ..Totals::default()
        };
        let stats = Stats {
            database: "shop".into(),
            totals: lately,
            lately,
            period: PERIOD,
        };
        let averages = stats.averages();
        assert_eq!((averages[1], averages[5], averages[6]), (2, 10, 0));
    }
}
