//! How fresh a secondary is, from positions sampled at the primary: no clock of a server is trusted.
//!
//! The primary's WAL position is sampled at local time t. A secondary that has replayed up to it has
//! everything that was committed before t: it is "fresh as of t".

use std::collections::VecDeque;
use std::time::Instant;

/// How many distinct positions are remembered; at one a second a lag of about ten minutes is measured.
const CAPACITY: usize = 600;

/// A WAL page.
const PAGE: u64 = 8192;
/// Header of a WAL page, and of the first page of a segment.
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

/// The end of the last record before an insert position.
///
/// At a page's end the primary reports the position behind the next page's header, while a secondary
/// that has replayed everything reports the page's end (src/backend/access/transam/xlog.c,
/// XLogBytePosToRecPtr and XLogBytePosToEndRecPtr). Without this an idle secondary would look behind.
pub fn end_of_record(insert: u64, segment_bytes: u64) -> u64 {
    let header = if segment_bytes > 0 && insert % segment_bytes == LONG_HEADER {
        LONG_HEADER
    } else if insert % PAGE == SHORT_HEADER {
        SHORT_HEADER
    } else {
        0
    };
    insert - header
}

/// Positions of one server on one timeline, oldest first, each with the last time it was seen.
#[derive(Debug, Default)]
pub struct Samples {
    samples: VecDeque<(u64, Instant)>,
}

impl Samples {
    /// Remembers that the position was `lsn` (a byte position in the WAL) at `at`.
    pub fn record(&mut self, lsn: u64, at: Instant) {
        // Positions only grow on one timeline; anything else means the history starts anew.
        while self.samples.back().is_some_and(|(last, _)| *last >= lsn) {
            self.samples.pop_back();
        }
        self.samples.push_back((lsn, at));
        if self.samples.len() > CAPACITY {
            self.samples.pop_front();
        }
    }

    /// Forgets everything: another server or another timeline follows.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The newest position.
    pub fn latest(&self) -> Option<u64> {
        self.samples.back().map(|(lsn, _)| *lsn)
    }

    /// The last time at which everything up to then was covered by `replayed`.
    pub fn fresh_as_of(&self, replayed: u64) -> Option<Instant> {
        let covered = self.samples.partition_point(|(lsn, _)| *lsn <= replayed);
        let newest = covered.checked_sub(1)?;
        self.samples.get(newest).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_secondary_is_as_fresh_as_the_newest_position_it_replayed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut samples = Samples::default();
        samples.record(100, at(1));
        samples.record(200, at(2));
        samples.record(300, at(3));
        assert_eq!(samples.fresh_as_of(99), None);
        assert_eq!(samples.fresh_as_of(100), Some(at(1)));
        assert_eq!(samples.fresh_as_of(299), Some(at(2)));
        assert_eq!(samples.fresh_as_of(5000), Some(at(3)));
    }

    #[test]
    fn an_idle_primary_keeps_its_secondaries_fresh() {
        let start = Instant::now();
        let mut samples = Samples::default();
        for second in 0..10_000 {
            samples.record(100, start + Duration::from_secs(second));
        }
        assert_eq!(
            samples.fresh_as_of(100),
            Some(start + Duration::from_secs(9_999))
        );
        assert_eq!(samples.samples.len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let start = Instant::now();
        let mut samples = Samples::default();
        for lsn in 0..10_000 {
            samples.record(lsn, start);
        }
        assert_eq!(samples.samples.len(), CAPACITY);
        assert_eq!(samples.fresh_as_of(5), None);
    }

    #[test]
    fn page_headers_are_not_records() {
        const SEGMENT: u64 = 16 << 20;
        assert_eq!(end_of_record(SEGMENT + 40, SEGMENT), SEGMENT);
        assert_eq!(end_of_record(PAGE + 24, SEGMENT), PAGE);
        // 16 bytes of a continued record lie behind a short header.
        assert_eq!(end_of_record(PAGE + 40, SEGMENT), PAGE + 40);
        assert_eq!(end_of_record(PAGE + 32, SEGMENT), PAGE + 32);
        assert_eq!(end_of_record(12345, SEGMENT), 12345);
        // With 64 MiB segments, 16 MiB is no segment's start.
        assert_eq!(end_of_record(SEGMENT + 40, SEGMENT * 4), SEGMENT + 40);
    }
}
