//! Result formats, and values in PostgreSQL's binary formats.

use std::time::Duration;

use crate::wire::buffer::Reader;

/// From 1970-01-01 to the epoch of PostgreSQL's timestamps, 2000-01-01.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// The result formats that a Bind message asks for; none means text everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats(Box<[i16]>);

impl Formats {
    /// From the format codes of a Bind message, two bytes each.
    pub fn new(codes: &[u8]) -> Formats {
        let codes = codes.as_chunks::<2>().0.iter();
        Formats(codes.map(|code| i16::from_be_bytes(*code)).collect())
    }

    /// Whether a column is wanted in binary format.
    pub fn is_binary(&self, column: usize) -> bool {
        match &*self.0 {
            [] => false,
            [all] => *all == 1,
            each => each.get(column) == Some(&1),
        }
    }

    /// Whether there are as many as `columns`, or one for all, or none; PostgreSQL refuses others.
    pub fn fit(&self, columns: usize) -> bool {
        self.0.len() < 2 || self.0.len() == columns
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The result format codes behind a Bind message's values.
pub(super) fn codes<'a>(reader: &mut Reader<'a>) -> crate::error::Result<&'a [u8]> {
    let count = usize::from(reader.u16()?);
    reader.bytes(count * 2)
}

/// A `numeric` that is a whole number, in binary: its digits to the base 10,000.
pub fn numeric(value: i64) -> Vec<u8> {
    let (mut rest, mut digits) = (value.unsigned_abs(), Vec::new());
    while rest > 0 {
        digits.push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    let weight = (digits.len() as u16).wrapping_sub(u16::from(!digits.is_empty()));
    let sign = if value < 0 { 0x4000 } else { 0 };
    let skipped = digits.iter().take_while(|digit| **digit == 0).count();
    let kept = digits.get(skipped..).unwrap_or(&[]);
    let mut out = Vec::new();
    for word in [kept.len() as u16, weight, sign, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for digit in kept.iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
    out
}

/// A `timestamptz` so long after 1970-01-01 UTC, in binary: microseconds since 2000-01-01 UTC.
pub fn timestamptz(since: Duration) -> [u8; 8] {
    let micros = since.as_micros() as i64 - EPOCH.as_micros() as i64;
    micros.to_be_bytes()
}

/// The time so long after 1970-01-01 UTC as ISO 8601 has it: `2026-01-31 12:34:56.123456+00`.
pub fn iso(since: Duration) -> String {
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}+00",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let of_era = days % ERA;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = days / ERA * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_code_is_for_all_columns() {
        let formats = Formats::new(&[0, 1]);
        assert!(formats.is_binary(0) && formats.is_binary(9) && formats.fit(3));
        let formats = Formats::new(&[0, 0, 0, 1]);
        assert!(!formats.is_binary(0) && formats.is_binary(1) && !formats.is_binary(2));
        assert!(formats.fit(2) && !formats.fit(3));
        assert!(!Formats::default().is_binary(0) && Formats::default().fit(3));
    }

    #[test]
    fn times_are_written_as_postgresql_does() {
        let at = Duration::from_secs;
        assert_eq!(iso(at(0)), "1970-01-01 00:00:00.000000+00");
        assert_eq!(iso(at(951_782_399)), "2000-02-28 23:59:59.000000+00");
        assert_eq!(iso(at(951_782_400)), "2000-02-29 00:00:00.000000+00");
        assert_eq!(iso(at(1_798_675_200)), "2026-12-31 00:00:00.000000+00");
        assert_eq!(timestamptz(at(946_684_800)), [0; 8]);
    }

    proptest! {
        #[test]
        fn numeric_agrees_with_postgresqls_own_reader(value in any::<i64>()) {
            let bytes = numeric(value);
            let word = |at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let (count, weight) = (word(0), word(2));
            prop_assert_eq!(bytes.len(), 8 + 2 * count as usize);
            let mut total = 0_i128;
            for index in 0..count {
                let digit = i128::from(word(8 + 2 * index as usize));
                prop_assert!((0..10_000).contains(&digit));
                total += digit * 10_000_i128.pow((weight - index) as u32);
            }
            prop_assert_eq!(if word(4) == 0 { total } else { -total }, i128::from(value));
        }

        #[test]
        fn dates_follow_each_other(day in 0_u64..200_000) {
            let (today, tomorrow) = (date(day), date(day + 1));
            prop_assert!(tomorrow > today);
            prop_assert!((1..=12).contains(&today.1) && (1..=31).contains(&today.2));
        }
    }
}
