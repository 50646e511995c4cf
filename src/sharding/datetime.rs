//! PostgreSQL's input of dates and timestamps, in the forms that no setting has a say in.
//!
//! Read are `infinity`, `-infinity` and ISO 8601 as PostgreSQL and drivers print it:
//! `2024-02-29[( |T)12:30[:59[.123456]][ ][Z|±hh[:mm[:ss]]|±hhmm]][ BC]`, the year with four digits at least,
//! which makes the order of the fields independent of DateStyle. Everything else (month names, other
//! orders, named zones, `now`) is unprovable.

use crate::sharding::KeyError;
use crate::sharding::input;

/// `infinity` as a date.
pub(super) const DATE_INFINITY: i32 = i32::MAX;
/// `-infinity` as a date.
pub(super) const DATE_MINUS_INFINITY: i32 = i32::MIN;
/// `infinity` as a timestamp.
pub(super) const TIMESTAMP_INFINITY: i64 = i64::MAX;
/// `-infinity` as a timestamp.
pub(super) const TIMESTAMP_MINUS_INFINITY: i64 = i64::MIN;

/// 4714-11-24 BC, Julian day 0, counted from 2000-01-01.
const FIRST_DAY: i64 = -2_451_545;
/// The day after the last date, 5874898-06-03.
const END_DATE: i64 = 2_147_483_494 - 2_451_545;
/// The day after the last timestamp, 294277-01-01.
const END_TIMESTAMP_DAY: i64 = 106_751_983;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

const NOT_ISO: KeyError =
    KeyError::Unprovable("the date or time is not in ISO form, so that settings may decide on it");
const NO_ZONE: KeyError =
    KeyError::Unprovable("the timestamp has no offset, so that the session's TimeZone decides");
const OUT_OF_RANGE: KeyError = KeyError::Rejected("date/time field value out of range");

/// What a text says.
enum Moment {
    Infinity,
    MinusInfinity,
    Local {
        /// Since 2000-01-01.
        day: i64,
        /// Since midnight, microseconds.
        time: i64,
        /// East of Greenwich, seconds.
        offset: Option<i64>,
    },
}

/// `date_in`; a time in the text is checked and ignored, as PostgreSQL does.
pub(super) fn parse_date(text: &[u8]) -> Result<i32, KeyError> {
    match parse(text)? {
        Moment::Infinity => Ok(DATE_INFINITY),
        Moment::MinusInfinity => Ok(DATE_MINUS_INFINITY),
        Moment::Local { day, .. } => i32::try_from(day)
            .map_err(|_| OUT_OF_RANGE)
            .and_then(check_date),
    }
}

/// `timestamp_in`; an offset in the text is checked and ignored, as PostgreSQL does.
pub(super) fn parse_timestamp(text: &[u8]) -> Result<i64, KeyError> {
    match parse(text)? {
        Moment::Infinity => Ok(TIMESTAMP_INFINITY),
        Moment::MinusInfinity => Ok(TIMESTAMP_MINUS_INFINITY),
        Moment::Local { day, time, .. } => timestamp(day, time),
    }
}

/// `timestamptz_in`; the text must have an offset.
pub(super) fn parse_timestamptz(text: &[u8]) -> Result<i64, KeyError> {
    match parse(text)? {
        Moment::Infinity => Ok(TIMESTAMP_INFINITY),
        Moment::MinusInfinity => Ok(TIMESTAMP_MINUS_INFINITY),
        Moment::Local { day, time, offset } => {
            timestamp(day, time - offset.ok_or(NO_ZONE)? * SECOND)
        }
    }
}

fn timestamp(day: i64, time: i64) -> Result<i64, KeyError> {
    let value = day
        .checked_mul(DAY)
        .and_then(|value| value.checked_add(time))
        .ok_or(OUT_OF_RANGE)?;
    if (FIRST_DAY * DAY..END_TIMESTAMP_DAY * DAY).contains(&value) {
        Ok(value)
    } else {
        Err(OUT_OF_RANGE)
    }
}

/// The date, if it is one.
pub(super) fn check_date(days: i32) -> Result<i32, KeyError> {
    let finite = (FIRST_DAY..END_DATE).contains(&i64::from(days));
    if finite || matches!(days, DATE_INFINITY | DATE_MINUS_INFINITY) {
        Ok(days)
    } else {
        Err(OUT_OF_RANGE)
    }
}

/// The timestamp, if it is one.
pub(super) fn check_timestamp(value: i64) -> Result<i64, KeyError> {
    match value {
        TIMESTAMP_INFINITY | TIMESTAMP_MINUS_INFINITY => Ok(value),
        _ => timestamp(0, value),
    }
}

/// Midnight of a date, if a timestamp can say it.
pub(super) fn date_to_timestamp(days: i32) -> Option<i64> {
    match days {
        DATE_INFINITY => Some(TIMESTAMP_INFINITY),
        DATE_MINUS_INFINITY => Some(TIMESTAMP_MINUS_INFINITY),
        _ => timestamp(i64::from(days), 0).ok(),
    }
}

/// The date of a timestamp at midnight.
pub(super) fn timestamp_to_date(value: i64) -> Option<i32> {
    match value {
        TIMESTAMP_INFINITY => Some(DATE_INFINITY),
        TIMESTAMP_MINUS_INFINITY => Some(DATE_MINUS_INFINITY),
        _ if value % DAY == 0 => i32::try_from(value / DAY).ok(),
        _ => None,
    }
}

fn parse(text: &[u8]) -> Result<Moment, KeyError> {
    let text = input::trim(text);
    if text.eq_ignore_ascii_case(b"infinity") {
        return Ok(Moment::Infinity);
    }
    if text.eq_ignore_ascii_case(b"-infinity") {
        return Ok(Moment::MinusInfinity);
    }
    let (text, before_christ) = match text {
        [start @ .., b' ', b'B' | b'b', b'C' | b'c'] => (input::trim(start), true),
        _ => (text, false),
    };
    let mut reader = Reader { rest: text };
    let (year, month, day) = reader.date()?;
    let (time, offset) = match reader.rest {
        [] => (0, None),
        [b' ' | b'T' | b't', rest @ ..] => {
            reader.rest = rest;
            (reader.time()?, reader.offset()?)
        }
        _ => return Err(NOT_ISO),
    };
    let day = day_number(year, month, day, before_christ).ok_or(OUT_OF_RANGE)?;
    Ok(Moment::Local { day, time, offset })
}

/// Takes fields off the front of a text.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// A number of so many digits.
    fn number(&mut self, least: usize, most: usize) -> Result<i64, KeyError> {
        let count = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(least..=most).contains(&count) {
            return Err(NOT_ISO);
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    }

    /// The byte if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), KeyError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(NOT_ISO)
        }
    }

    fn date(&mut self) -> Result<(i64, i64, i64), KeyError> {
        let year = self.number(4, 7)?;
        self.expect(b'-')?;
        let month = self.number(1, 2)?;
        self.expect(b'-')?;
        let day = self.number(1, 2)?;
        Ok((year, month, day))
    }

    /// Microseconds since midnight.
    fn time(&mut self) -> Result<i64, KeyError> {
        let hour = self.number(2, 2)?;
        self.expect(b':')?;
        let minute = self.number(2, 2)?;
        let mut second = 0;
        let mut fraction = 0;
        if self.take(b':') {
            second = self.number(2, 2)?;
            if self.take(b'.') {
                fraction = self.fraction()?;
            }
        }
        // PostgreSQL reads 24:00:00 and 60 seconds as the next day or minute, for some types.
        if hour > 23 || minute > 59 || second > 59 {
            return Err(KeyError::Unprovable("the time of day is unusual"));
        }
        Ok(((hour * 60 + minute) * 60 + second) * SECOND + fraction)
    }

    /// Microseconds of up to six digits; zeros may follow them.
    fn fraction(&mut self) -> Result<i64, KeyError> {
        let count = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (kept, excess) = self.rest.split_at(count.min(6));
        let (rounded, rest) = excess.split_at(count - kept.len());
        if rounded.iter().any(|digit| *digit != b'0') {
            return Err(KeyError::Unprovable(
                "the seconds are rounded to microseconds",
            ));
        }
        let value = Reader { rest: kept }.number(1, 6)?;
        self.rest = rest;
        Ok((kept.len()..6).fold(value, |value, _| value * 10))
    }

    /// Seconds east of Greenwich, if the text goes on; nothing may follow.
    fn offset(&mut self) -> Result<Option<i64>, KeyError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        while self.take(b' ') {}
        let offset = if self.take(b'Z') || self.take(b'z') {
            0
        } else if self.take(b'+') {
            self.distance()?
        } else {
            self.expect(b'-')?;
            -self.distance()?
        };
        if self.rest.is_empty() {
            Ok(Some(offset))
        } else {
            Err(NOT_ISO)
        }
    }

    /// `hh`, `hhmm`, `hh:mm` or `hh:mm:ss`, in seconds.
    fn distance(&mut self) -> Result<i64, KeyError> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let hour = self.number(2, 4)?;
        let (hour, minute, second) = match digits {
            2 if self.take(b':') => {
                let minute = self.number(2, 2)?;
                let second = if self.take(b':') {
                    self.number(2, 2)?
                } else {
                    0
                };
                (hour, minute, second)
            }
            2 => (hour, 0, 0),
            4 => (hour / 100, hour % 100, 0),
            _ => return Err(NOT_ISO),
        };
        // PostgreSQL's MAX_TZDISP_HOUR.
        if hour > 15 || minute > 59 || second > 59 {
            return Err(OUT_OF_RANGE);
        }
        Ok((hour * 60 + minute) * 60 + second)
    }
}

/// Days since 2000-01-01 in the Gregorian calendar, carried on into the past.
fn day_number(year: i64, month: i64, day: i64, before_christ: bool) -> Option<i64> {
    if year == 0 {
        return None;
    }
    // 1 BC is the year 0 of the sum below.
    let year = if before_christ { 1 - year } else { year };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 2000-03-01 is day 60, after 2000 such years with 485 leap days.
    Some((year - 2000) * 365 + leap_days - 485 + day_of_year + 60)
}
