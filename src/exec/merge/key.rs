//! Values in binary to bytes that compare as PostgreSQL compares the values.
//!
//! The encoding of two values of one kind is equal exactly if PostgreSQL takes the values for equal,
//! and else its bytes are in the order of the values. No encoding is the beginning of another, so that
//! those of several columns can stand one behind the other.

use crate::error::{Error, Result};
use crate::wire::buffer::Reader;

/// How the values of a column compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signed integers: numbers, dates, times, timestamps, money.
    Signed,
    /// Unsigned integers, and what is compared byte by byte and has one length.
    Fixed,
    /// `real`, `double precision`.
    Float,
    /// `numeric`.
    Numeric,
    /// `interval`.
    Interval,
    /// `timetz`.
    TimeTz,
    /// `bytea`, `name`, and `text` and `varchar` where bytes decide.
    Bytes,
    /// `bpchar` where bytes decide: spaces at the end don't count.
    Padded,
}

/// Where a value stands among others of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// From the largest to the smallest.
    pub descending: bool,
    /// NULLs come first.
    pub nulls_first: bool,
}

impl Direction {
    /// Any order will do.
    pub const ANY: Direction = Direction {
        descending: false,
        nulls_first: false,
    };
}

impl Kind {
    /// How values of a built-in type compare, if that is known.
    pub fn of(type_oid: u32) -> Option<Kind> {
        Some(match type_oid {
            // smallint, integer, bigint, date, time, timestamp, timestamptz, money.
            21 | 23 | 20 | 1082 | 1083 | 1114 | 1184 | 790 => Kind::Signed,
            // boolean, oid, "char", uuid, pg_lsn.
            16 | 26 | 18 | 2950 | 3220 => Kind::Fixed,
            700 | 701 => Kind::Float,
            1700 => Kind::Numeric,
            1186 => Kind::Interval,
            1266 => Kind::TimeTz,
            // bytea, name, text, varchar.
            17 | 19 | 25 | 1043 => Kind::Bytes,
            1042 => Kind::Padded,
            _ => return None,
        })
    }
}

/// Whether the order of a type's values depends on a collation.
pub fn is_string(type_oid: u32) -> bool {
    matches!(type_oid, 25 | 1042 | 1043)
}

/// Appends the encoding of a value, or of NULL.
///
/// # Errors
/// `08P01` for bytes that are no value of the kind.
pub fn encode(
    kind: Kind,
    value: Option<&[u8]>,
    direction: Direction,
    out: &mut Vec<u8>,
) -> Result<()> {
    let Some(value) = value else {
        out.push(if direction.nulls_first { 0 } else { 2 });
        return Ok(());
    };
    out.push(1);
    let start = out.len();
    match kind {
        Kind::Signed => signed(value, out),
        Kind::Fixed => out.extend_from_slice(value),
        Kind::Float => float(value, out)?,
        Kind::Numeric => numeric(value, out)?,
        Kind::Interval => interval(value, out)?,
        Kind::TimeTz => time_with_zone(value, out)?,
        Kind::Bytes => bytes(value, out),
        Kind::Padded => bytes(without_spaces(value), out),
    }
    if direction.descending {
        for byte in out.iter_mut().skip(start) {
            *byte = !*byte;
        }
    }
    Ok(())
}

fn without_spaces(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| *byte != b' ');
    value.get(..end.map_or(0, |end| end + 1)).unwrap_or(&[])
}

fn signed(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(value);
    if let Some(first) = out.get_mut(start) {
        *first ^= 0x80;
    }
}

/// NaN is equal to itself and the largest; the zeros are equal.
fn float(value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let number = match (<[u8; 4]>::try_from(value), <[u8; 8]>::try_from(value)) {
        (Ok(four), _) => f64::from(f32::from_be_bytes(four)),
        (_, Ok(eight)) => f64::from_be_bytes(eight),
        _ => return Err(malformed()),
    };
    let number = match number {
        number if number.is_nan() => f64::NAN.copysign(1.0),
        0.0 => 0.0,
        number => number,
    };
    let bits = number.to_bits();
    let ordered = if bits >> 63 == 0 {
        bits | (1 << 63)
    } else {
        !bits
    };
    out.extend_from_slice(&ordered.to_be_bytes());
    Ok(())
}

/// -Infinity, negative, zero, positive, Infinity, NaN; then the weight and the digits.
fn numeric(value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(value);
    let count = usize::from(reader.u16()?);
    let weight = reader.i16()?;
    let sign = reader.u16()?;
    reader.u16()?;
    let digits = reader.bytes(count * 2)?;
    let class = match sign {
        0xF000 => 0,
        0x4000 => 1,
        0x0000 => 3,
        0xD000 => 4,
        0xC000 => 5,
        _ => return Err(malformed()),
    };
    let digits = digits.as_chunks::<2>().0;
    let zeros = digits.iter().take_while(|digit| **digit == [0, 0]).count();
    let digits = digits.get(zeros..).unwrap_or(&[]);
    let end = digits.iter().rposition(|digit| *digit != [0, 0]);
    let digits = digits.get(..end.map_or(0, |end| end + 1)).unwrap_or(&[]);
    if class == 0 || class > 3 {
        out.push(class);
        return Ok(());
    }
    if digits.is_empty() {
        out.push(2);
        return Ok(());
    }
    out.push(class);
    let start = out.len();
    let weight = i32::from(weight) - i32::try_from(zeros).unwrap_or(0) + (1 << 20);
    out.extend_from_slice(&weight.to_be_bytes());
    for digit in digits {
        let digit = u16::from_be_bytes(*digit).saturating_add(1);
        out.extend_from_slice(&digit.to_be_bytes());
    }
    out.extend_from_slice(&[0, 0]);
    if class == 1 {
        for byte in out.iter_mut().skip(start) {
            *byte = !*byte;
        }
    }
    Ok(())
}

/// A month is 30 days and a day 24 hours, as `interval_cmp` has it.
fn interval(value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(value);
    let high = i128::from(reader.i32()?);
    let low = i128::from(reader.u32()?);
    let time = (high << 32) | low;
    let days = i128::from(reader.i32()?) + 30 * i128::from(reader.i32()?);
    let total = time + days * 86_400_000_000;
    signed(&total.to_be_bytes(), out);
    Ok(())
}

/// By the moment in Greenwich, then by the zone.
fn time_with_zone(value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(value);
    let high = i64::from(reader.i32()?);
    let low = i64::from(reader.u32()?);
    let zone = reader.i32()?;
    let moment = ((high << 32) | low).wrapping_add(i64::from(zone) * 1_000_000);
    signed(&moment.to_be_bytes(), out);
    signed(&zone.to_be_bytes(), out);
    Ok(())
}

/// A zero byte is escaped, so that the end is less than any byte.
fn bytes(value: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr(0, value).is_none() {
        out.extend_from_slice(value);
    } else {
        for byte in value {
            out.push(*byte);
            if *byte == 0 {
                out.push(0xFF);
            }
        }
    }
    out.extend_from_slice(&[0, 1]);
}

fn malformed() -> Error {
    Error::protocol("a server's binary value is malformed")
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn key(kind: Kind, value: &[u8], direction: Direction) -> Vec<u8> {
        let mut out = Vec::new();
        encode(kind, Some(value), direction, &mut out).unwrap();
        out
    }

    fn compared(kind: Kind, a: &[u8], b: &[u8]) -> Ordering {
        let up = key(kind, a, Direction::ANY).cmp(&key(kind, b, Direction::ANY));
        let down = Direction {
            descending: true,
            nulls_first: true,
        };
        assert_eq!(up.reverse(), key(kind, a, down).cmp(&key(kind, b, down)));
        up
    }

    /// A numeric in binary from a sign, the weight of its first digit and its digits.
    fn numeric_bytes(sign: u16, weight: i16, digits: &[u16]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(u16::try_from(digits.len()).unwrap().to_be_bytes());
        out.extend(weight.to_be_bytes());
        out.extend(sign.to_be_bytes());
        out.extend([0, 3]);
        digits
            .iter()
            .for_each(|digit| out.extend(digit.to_be_bytes()));
        out
    }

    #[test]
    fn numerics_are_in_order() {
        let ordered = [
            numeric_bytes(0xF000, 0, &[]),
            numeric_bytes(0x4000, 1, &[1, 1]),
            numeric_bytes(0x4000, 1, &[1]),
            numeric_bytes(0x4000, 0, &[9999, 1]),
            numeric_bytes(0x4000, 0, &[9999]),
            numeric_bytes(0x4000, -1, &[1]),
            numeric_bytes(0, 0, &[]),
            numeric_bytes(0, -2, &[9999]),
            numeric_bytes(0, -1, &[1]),
            numeric_bytes(0, 0, &[1]),
            numeric_bytes(0, 0, &[1, 5000]),
            numeric_bytes(0, 0, &[1, 5000, 1]),
            numeric_bytes(0, 0, &[1, 5001]),
            numeric_bytes(0, 1, &[1]),
            numeric_bytes(0xD000, 0, &[]),
            numeric_bytes(0xC000, 0, &[]),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compared(Kind::Numeric, a, b), i.cmp(&j), "{i} {j}");
            }
        }
        let same = numeric_bytes(0, 1, &[0, 1, 5000, 0]);
        let equal = compared(Kind::Numeric, &same, &numeric_bytes(0, 0, &[1, 5000]));
        assert_eq!(equal, Ordering::Equal);
    }

    #[test]
    fn floats_are_in_order() {
        let ordered = [
            f64::NEG_INFINITY,
            -1e300,
            -1.0,
            -5e-324,
            0.0,
            5e-324,
            1.0,
            1e300,
            f64::INFINITY,
            f64::NAN,
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                let (a, b) = (a.to_be_bytes(), b.to_be_bytes());
                assert_eq!(compared(Kind::Float, &a, &b), i.cmp(&j));
            }
        }
        let zeros = compared(Kind::Float, &0.0f64.to_be_bytes(), &(-0.0f64).to_be_bytes());
        assert_eq!(zeros, Ordering::Equal);
        assert_eq!(
            compared(
                Kind::Float,
                &f32::NAN.to_be_bytes(),
                &(-f32::NAN).to_be_bytes()
            ),
            Ordering::Equal
        );
    }

    #[test]
    fn a_month_is_thirty_days() {
        let interval = |time: i64, days: i32, months: i32| {
            [
                &time.to_be_bytes()[..],
                &days.to_be_bytes(),
                &months.to_be_bytes(),
            ]
            .concat()
        };
        let compare = |a: &[u8], b: &[u8]| compared(Kind::Interval, a, b);
        assert_eq!(
            compare(&interval(0, 30, 0), &interval(0, 0, 1)),
            Ordering::Equal
        );
        assert_eq!(
            compare(&interval(86_400_000_000, 29, 0), &interval(0, 0, 1)),
            Ordering::Equal
        );
        assert_eq!(
            compare(&interval(-1, 0, 0), &interval(0, 0, 0)),
            Ordering::Less
        );
        assert_eq!(
            compare(&interval(-1, 0, 1), &interval(0, 0, 1)),
            Ordering::Less
        );
        let infinite = interval(i64::MAX, i32::MAX, i32::MAX);
        assert_eq!(
            compare(&interval(0, 0, 178_000_000 * 12), &infinite),
            Ordering::Less
        );
    }

    #[test]
    fn spaces_at_the_end_of_bpchar_do_not_count() {
        assert_eq!(compared(Kind::Padded, b"a  ", b"a"), Ordering::Equal);
        assert_eq!(compared(Kind::Padded, b" a", b"a"), Ordering::Less);
        assert_eq!(compared(Kind::Padded, b"   ", b""), Ordering::Equal);
    }

    #[test]
    fn nulls_stand_where_they_are_told_to() {
        for (nulls_first, expected) in [(true, Ordering::Less), (false, Ordering::Greater)] {
            for descending in [true, false] {
                let direction = Direction {
                    descending,
                    nulls_first,
                };
                let mut null = Vec::new();
                encode(Kind::Signed, None, direction, &mut null).unwrap();
                for value in [i64::MIN, 0, i64::MAX] {
                    let value = key(Kind::Signed, &value.to_be_bytes(), direction);
                    assert_eq!(null.cmp(&value), expected);
                }
            }
        }
    }

    #[test]
    fn torn_values_are_errors() {
        for kind in [Kind::Float, Kind::Numeric, Kind::Interval, Kind::TimeTz] {
            assert!(encode(kind, Some(b"\0\x05a"), Direction::ANY, &mut Vec::new()).is_err());
        }
    }

    proptest! {
        #[test]
        fn integers_and_bytes_are_in_order(
            a: i64, b: i64, x: Vec<u8>, y in prop::collection::vec(0u8..3, 0..5), z in prop::collection::vec(0u8..3, 0..5),
        ) {
            let (a_bytes, b_bytes) = (a.to_be_bytes(), b.to_be_bytes());
            prop_assert_eq!(compared(Kind::Signed, &a_bytes, &b_bytes), a.cmp(&b));
            prop_assert_eq!(compared(Kind::Bytes, &x, &y), x.cmp(&y));
            prop_assert_eq!(compared(Kind::Bytes, &z, &y), z.cmp(&y));
            let pair = |first: &[u8], second: i64| {
                let mut out = key(Kind::Bytes, first, Direction::ANY);
                encode(Kind::Signed, Some(&second.to_be_bytes()), Direction::ANY, &mut out).unwrap();
                out
            };
            prop_assert_eq!(pair(&y, a).cmp(&pair(&z, b)), (&y, a).cmp(&(&z, b)));
        }

        #[test]
        fn doubles_are_in_order(a: f64, b: f64) {
            let expected = a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
            prop_assert_eq!(compared(Kind::Float, &a.to_be_bytes(), &b.to_be_bytes()), expected);
        }
    }
}
