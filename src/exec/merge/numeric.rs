//! PostgreSQL's `numeric` as far as sums and averages need it: exact, with its display scale.
//!
//! A sum has the largest display scale of what was added. A quotient has at least 16 significant
//! digits, by the same estimate as PostgreSQL's, and is rounded half away from zero.

use crate::error::{Error, Result};
use crate::wire::buffer::Reader;

/// The base of the digits.
const BASE: i64 = 10_000;

/// Decimal digits in one of ours.
const DECIMALS: i32 = 4;

/// A quotient has so many significant digits at least.
const SIGNIFICANT: i32 = 16;

/// The largest display scale of a quotient.
const LARGEST_SCALE: i32 = 1000;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

/// A number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numeric {
    /// As on the wire.
    sign: u16,
    /// The power of [`BASE`] of the first digit.
    weight: i32,
    /// Without zeros at either end.
    digits: Vec<u16>,
    scale: i32,
}

impl Numeric {
    /// A whole number.
    pub fn integer(value: i128) -> Numeric {
        let mut rest = value.unsigned_abs();
        let mut digits = Vec::new();
        while rest > 0 {
            digits.push((rest % BASE.unsigned_abs() as u128) as u16);
            rest /= BASE.unsigned_abs() as u128;
        }
        digits.reverse();
        let weight = i32::try_from(digits.len()).unwrap_or(0) - 1;
        let sign = if value < 0 { NEGATIVE } else { POSITIVE };
        Numeric::new(sign, weight, digits, 0)
    }

    /// From digits, a point and a sign; none for anything else.
    pub fn decimal(text: &str) -> Option<Numeric> {
        let (sign, text) = match text.strip_prefix('-') {
            Some(text) => (NEGATIVE, text),
            None => (POSITIVE, text),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || whole.len() + fraction.len() == 0 {
            return None;
        }
        let width = DECIMALS as usize;
        let mut padded = "0".repeat((width - whole.len() % width) % width);
        padded.push_str(whole);
        let weight = i32::try_from(padded.len() / width).ok()? - 1;
        padded.push_str(fraction);
        let missing = (width - padded.len() % width) % width;
        padded.push_str(&"0".repeat(missing));
        let digits = padded.as_bytes().chunks(width).map(|chunk| {
            let digit = |all: u16, byte: &u8| all * 10 + u16::from(byte - b'0');
            chunk.iter().fold(0, digit)
        });
        let scale = i32::try_from(fraction.len()).ok()?;
        Some(Numeric::new(sign, weight, digits.collect(), scale))
    }

    /// From binary.
    ///
    /// # Errors
    /// `08P01` for what is none.
    pub fn read(value: &[u8]) -> Result<Numeric> {
        let mut reader = Reader::new(value);
        let count = usize::from(reader.u16()?);
        let weight = i32::from(reader.i16()?);
        let sign = reader.u16()?;
        let scale = i32::from(reader.u16()?);
        let bytes = reader.bytes(count * 2)?;
        let digits = bytes.as_chunks::<2>().0.iter();
        let digits: Vec<u16> = digits.map(|digit| u16::from_be_bytes(*digit)).collect();
        let is_known = [POSITIVE, NEGATIVE, NAN, INFINITY, MINUS_INFINITY].contains(&sign);
        if !is_known || digits.iter().any(|digit| i64::from(*digit) >= BASE) {
            return Err(Error::protocol("a server's numeric is malformed"));
        }
        Ok(Numeric::new(sign, weight, digits, scale))
    }

    fn new(sign: u16, weight: i32, digits: Vec<u16>, scale: i32) -> Numeric {
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let end = digits.iter().rposition(|digit| *digit != 0);
        let kept = digits.get(zeros..end.map_or(zeros, |end| end + 1));
        let digits = kept.unwrap_or_default().to_vec();
        let is_zero = digits.is_empty() && matches!(sign, POSITIVE | NEGATIVE);
        Numeric {
            sign: if is_zero { POSITIVE } else { sign },
            weight: match digits.is_empty() {
                true => 0,
                false => weight - i32::try_from(zeros).unwrap_or(0),
            },
            digits,
            scale,
        }
    }

    fn is_finite(&self) -> bool {
        matches!(self.sign, POSITIVE | NEGATIVE)
    }

    /// The quotient by a positive number, as PostgreSQL gives it.
    pub fn divided(&self, by: u64) -> Numeric {
        if !self.is_finite() || by == 0 {
            return self.clone();
        }
        let divisor = Numeric::integer(i128::from(by));
        let first = |number: &Numeric| i32::from(number.digits.first().copied().unwrap_or(0));
        let mut weight = self.weight - divisor.weight;
        if first(self) <= first(&divisor) {
            weight -= 1;
        }
        let scale = (SIGNIFICANT - weight * DECIMALS)
            .max(self.scale)
            .clamp(0, LARGEST_SCALE);
        // One digit more than is shown decides how the last is rounded.
        let fraction = (scale / DECIMALS) + 1;
        let count = self.weight.max(-1) + 1 + fraction;
        let start = self.weight.max(-1);
        let mut quotient = Vec::new();
        let mut rest: u128 = 0;
        for position in 0..count {
            let index = usize::try_from(self.weight - start + position).ok();
            let digit = index
                .and_then(|index| self.digits.get(index))
                .copied()
                .unwrap_or(0);
            rest = rest * BASE.unsigned_abs() as u128 + u128::from(digit);
            quotient.push((rest / u128::from(by)) as u16);
            rest %= u128::from(by);
        }
        Numeric::rounded(self.sign, start, quotient, scale)
    }

    /// With the digits behind `scale` rounded half away from zero.
    fn rounded(sign: u16, mut weight: i32, mut digits: Vec<u16>, scale: i32) -> Numeric {
        // Decimal digits that are kept, from the first of ours.
        let kept = (weight + 1) * DECIMALS + scale;
        let whole = usize::try_from(kept / DECIMALS).unwrap_or(0);
        let part = u32::try_from(kept % DECIMALS).unwrap_or(0);
        let unit = 10_u16.pow(u32::try_from(DECIMALS).unwrap_or(4) - part);
        let mut carry = 0;
        if let Some(digit) = digits.get_mut(whole) {
            let dropped = *digit % unit;
            *digit -= dropped;
            if dropped >= unit / 2 {
                if part == 0 {
                    carry = 1;
                } else {
                    *digit += unit;
                }
            }
        }
        digits.truncate(whole + usize::from(part > 0));
        for digit in digits.iter_mut().rev() {
            *digit += carry;
            carry = u16::from(i64::from(*digit) >= BASE);
            if carry == 1 {
                *digit -= BASE as u16;
            }
        }
        if carry == 1 {
            digits.insert(0, 1);
            weight += 1;
        }
        Numeric::new(sign, weight, digits, scale)
    }

    /// As text.
    pub fn text(&self) -> String {
        match self.sign {
            NAN => return "NaN".to_owned(),
            INFINITY => return "Infinity".to_owned(),
            MINUS_INFINITY => return "-Infinity".to_owned(),
            _ => {}
        }
        let mut out = String::new();
        if self.sign == NEGATIVE {
            out.push('-');
        }
        let digit = |power: i32| {
            let index = usize::try_from(self.weight - power).ok();
            index
                .and_then(|index| self.digits.get(index))
                .copied()
                .unwrap_or(0)
        };
        if self.weight < 0 || self.digits.is_empty() {
            out.push('0');
        } else {
            out.push_str(&digit(self.weight).to_string());
            for power in (0..self.weight).rev() {
                out.push_str(&format!("{:04}", digit(power)));
            }
        }
        if self.scale > 0 {
            out.push('.');
            let end = out.len() + usize::try_from(self.scale).unwrap_or(0);
            let mut power = -1;
            while out.len() < end {
                out.push_str(&format!("{:04}", digit(power)));
                power -= 1;
            }
            out.truncate(end);
        }
        out
    }

    /// In binary.
    pub fn binary(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.digits.len() * 2);
        let count = u16::try_from(self.digits.len()).unwrap_or(u16::MAX);
        let weight = i16::try_from(self.weight).unwrap_or(i16::MAX);
        let scale = u16::try_from(self.scale).unwrap_or(0);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&self.sign.to_be_bytes());
        out.extend_from_slice(&scale.to_be_bytes());
        for digit in &self.digits {
            out.extend_from_slice(&digit.to_be_bytes());
        }
        out
    }
}

/// A sum that grows.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// The digits' sums, from the power `top` of [`BASE`] down.
    digits: Vec<i64>,
    top: i32,
    scale: i32,
    is_nan: bool,
    infinite: bool,
    minus_infinite: bool,
}

impl Sum {
    /// Adds a number.
    pub fn add(&mut self, number: &Numeric) {
        self.scale = self.scale.max(number.scale);
        match number.sign {
            NAN => self.is_nan = true,
            INFINITY => self.infinite = true,
            MINUS_INFINITY => self.minus_infinite = true,
            _ => {}
        }
        if number.digits.is_empty() {
            return;
        }
        if self.digits.is_empty() {
            self.top = number.weight;
        }
        if number.weight > self.top {
            let more = usize::try_from(number.weight - self.top).unwrap_or(0);
            self.digits.splice(0..0, std::iter::repeat_n(0, more));
            self.top = number.weight;
        }
        let first = usize::try_from(self.top - number.weight).unwrap_or(0);
        let needed = first + number.digits.len();
        if self.digits.len() < needed {
            self.digits.resize(needed, 0);
        }
        let places = self.digits.iter_mut().skip(first);
        for (place, digit) in places.zip(&number.digits) {
            let digit = i64::from(*digit);
            *place += if number.sign == NEGATIVE {
                -digit
            } else {
                digit
            };
        }
    }

    /// What the sum is.
    pub fn total(&self) -> Numeric {
        let special = match (self.is_nan, self.infinite, self.minus_infinite) {
            (true, ..) | (_, true, true) => Some(NAN),
            (_, true, false) => Some(INFINITY),
            (_, false, true) => Some(MINUS_INFINITY),
            _ => None,
        };
        if let Some(sign) = special {
            return Numeric::new(sign, 0, Vec::new(), 0);
        }
        let (mut digits, carry) = carried(self.digits.iter().copied());
        let sign = if carry < 0 { NEGATIVE } else { POSITIVE };
        let mut rest = carry;
        if carry < 0 {
            (digits, rest) = carried(self.digits.iter().map(|digit| -digit));
        }
        let mut weight = self.top;
        while rest > 0 {
            digits.insert(0, u16::try_from(rest % BASE).unwrap_or(0));
            rest /= BASE;
            weight += 1;
        }
        Numeric::new(sign, weight, digits, self.scale)
    }
}

/// Digits below [`BASE`], and what is left above them.
fn carried(digits: impl DoubleEndedIterator<Item = i64>) -> (Vec<u16>, i64) {
    let mut carry = 0;
    let mut out: Vec<u16> = digits
        .rev()
        .map(|digit| {
            let digit = digit + carry;
            carry = digit.div_euclid(BASE);
            u16::try_from(digit.rem_euclid(BASE)).unwrap_or(0)
        })
        .collect();
    out.reverse();
    (out, carry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Numeric {
        Numeric::decimal(text).unwrap()
    }

    fn sum(texts: &[&str]) -> String {
        let mut sum = Sum::default();
        texts.iter().for_each(|text| sum.add(&number(text)));
        sum.total().text()
    }

    #[test]
    fn sums_keep_the_largest_scale() {
        assert_eq!(sum(&["1.5", "2.25", "3"]), "6.75");
        assert_eq!(sum(&["1.50", "-1.5"]), "0.00");
        assert_eq!(sum(&["0.001", "-100000000.1"]), "-100000000.099");
        assert_eq!(sum(&["99999999", "1"]), "100000000");
        assert_eq!(sum(&["-0.0001", "0.00005"]), "-0.00005");
        assert_eq!(sum(&[]), "0");
    }

    #[test]
    fn quotients_are_postgresqls() {
        // SELECT a::numeric / b::numeric on PostgreSQL 15.
        for (a, b, expected) in [
            ("1", 3, "0.33333333333333333333"),
            ("2", 3, "0.66666666666666666667"),
            ("10", 4, "2.5000000000000000"),
            ("-10", 4, "-2.5000000000000000"),
            ("100", 3, "33.3333333333333333"),
            ("1000000", 7, "142857.142857142857"),
            ("0", 5, "0.00000000000000000000"),
            ("6.75", 3, "2.2500000000000000"),
            ("99999999999999999999", 7, "14285714285714285714"),
            ("1", 9999999999, "0.0000000001000000000100000000"),
            (
                "0.000000000000000000001",
                3,
                "0.0000000000000000000003333333333333333333",
            ),
        ] {
            assert_eq!(number(a).divided(b).text(), expected, "{a} / {b}");
        }
    }

    #[test]
    fn special_numbers_stay() {
        let special = |sign: u16| Numeric::new(sign, 0, Vec::new(), 0);
        let mut sum = Sum::default();
        sum.add(&special(INFINITY));
        sum.add(&number("5"));
        assert_eq!(sum.total().text(), "Infinity");
        assert_eq!(sum.total().divided(3).text(), "Infinity");
        sum.add(&special(MINUS_INFINITY));
        assert_eq!(sum.total().text(), "NaN");
    }

    proptest! {
        #[test]
        fn whole_numbers_add_up(numbers in prop::collection::vec(-1_000_000_000_000i64..1_000_000_000_000, 0..20)) {
            let mut sum = Sum::default();
            for number in &numbers {
                sum.add(&Numeric::integer(i128::from(*number)));
            }
            let expected: i64 = numbers.iter().sum();
            prop_assert_eq!(sum.total().text(), expected.to_string());
            prop_assert_eq!(Numeric::read(&sum.total().binary()).unwrap(), sum.total());
            prop_assert_eq!(number(&expected.to_string()), sum.total());
        }

        #[test]
        fn quotients_are_the_nearest(a in -1_000_000_000_000i64..1_000_000_000_000, by in 1u64..100_000) {
            let quotient = Numeric::integer(i128::from(a)).divided(by);
            let (whole, fraction) = {
                let text = quotient.text();
                let (whole, fraction) = text.split_once('.').unwrap();
                (whole.replace('-', ""), fraction.to_owned())
            };
            let scale = u32::try_from(fraction.len()).unwrap();
            let got: u128 = format!("{whole}{fraction}").parse().unwrap();
            let scaled = u128::from(a.unsigned_abs()) * 10_u128.pow(scale);
            let expected = (scaled * 2 + u128::from(by)) / (2 * u128::from(by));
            prop_assert_eq!(got, expected);
        }
    }
}
