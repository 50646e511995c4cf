//! PostgreSQL's `numeric` in canonical form: equal numbers have equal digits whatever their scale.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::sharding::KeyError;
use crate::sharding::input;

/// Digits of a numeric, base 10,000; up to 16 (64 decimal digits) need no allocation.
type Digits = SmallVec<[u16; 16]>;

/// A value of type `numeric`: zero has no digits, other numbers neither begin nor end with a zero digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numeric {
    kind: Kind,
    /// Power of 10,000 of the first digit; 0 when there is none.
    weight: i32,
    digits: Digits,
}

/// In PostgreSQL's order, where NaN is above everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    MinusInfinity,
    Negative,
    Zero,
    Positive,
    Infinity,
    NotANumber,
}

/// What a column's precision and scale do to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Nothing.
    Exact,
    /// It has digits below the scale.
    Rounds,
    /// It has more digits above the point than precision minus scale (`22003`).
    Overflows,
}

/// Most decimal digits above the point that a numeric has (`NUMERIC_WEIGHT_MAX`).
const MAX_INTEGER_DIGITS: i64 = 131_072;
/// Most decimal digits below the point that a numeric has (`NUMERIC_DSCALE_MAX`).
const MAX_SCALE: i64 = 16_383;
/// Longest exponent that is read, in digits.
const MAX_EXPONENT_DIGITS: usize = 6;

const INVALID: KeyError = KeyError::Rejected("invalid input syntax for a numeric");
const INVALID_BINARY: KeyError = KeyError::Rejected("invalid binary format of a numeric");
const BEYOND_LIMITS: KeyError = KeyError::Unprovable("the number is near the limits of numeric");

impl Numeric {
    fn special(kind: Kind) -> Numeric {
        Numeric {
            kind,
            weight: 0,
            digits: Digits::new(),
        }
    }

    /// From digits as they come: zeros at both ends are cut off.
    fn new(negative: bool, mut weight: i32, mut digits: Digits) -> Numeric {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        weight = weight.saturating_sub(i32::try_from(zeros).unwrap_or(i32::MAX));
        match (digits.is_empty(), negative) {
            (true, _) => Numeric::special(Kind::Zero),
            (false, true) => Numeric {
                kind: Kind::Negative,
                weight,
                digits,
            },
            (false, false) => Numeric {
                kind: Kind::Positive,
                weight,
                digits,
            },
        }
    }

    /// `numeric_in`: a decimal number with white space around it, point and exponent allowed, or the
    /// words for NaN and the infinities.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] for what no version reads, [`KeyError::Unprovable`] for forms that
    /// depend on the version and for numbers near the type's limits.
    pub fn parse(text: &[u8]) -> Result<Numeric, KeyError> {
        let text = input::trim(text);
        if let Some(kind) = parse_word(text) {
            return Ok(Numeric::special(kind));
        }
        let decimal = Decimal::split(text)?;
        decimal.check_limits()?;
        Ok(decimal.to_numeric())
    }

    /// `numeric_recv`: number of digits, weight, sign, scale, digits.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] for bytes that are no numeric, [`KeyError::Unprovable`] for digits below
    /// the scale, which PostgreSQL cuts off.
    pub fn from_binary(bytes: &[u8]) -> Result<Numeric, KeyError> {
        let (words, []) = bytes.as_chunks::<2>() else {
            return Err(INVALID_BINARY);
        };
        let [count, weight, sign, scale, digits @ ..] = words else {
            return Err(INVALID_BINARY);
        };
        let (count, sign) = (u16::from_be_bytes(*count), u16::from_be_bytes(*sign));
        let (weight, scale) = (i16::from_be_bytes(*weight), u16::from_be_bytes(*scale));
        let digits: Digits = digits
            .iter()
            .map(|digit| u16::from_be_bytes(*digit))
            .collect();
        if digits.len() != usize::from(count)
            || i64::from(scale) > MAX_SCALE
            || digits.iter().any(|digit| *digit > 9_999)
        {
            return Err(INVALID_BINARY);
        }
        let negative = match sign {
            0x0000 => false,
            0x4000 => true,
            0xc000 => return Ok(Numeric::special(Kind::NotANumber)),
            0xd000 => return Ok(Numeric::special(Kind::Infinity)),
            0xf000 => return Ok(Numeric::special(Kind::MinusInfinity)),
            _ => return Err(INVALID_BINARY),
        };
        let number = Numeric::new(negative, i32::from(weight), digits);
        if number.lowest_place() < -i64::from(scale) {
            return Err(KeyError::Unprovable(
                "the binary numeric has digits below its scale",
            ));
        }
        Ok(number)
    }

    /// Whether it is NaN or infinite.
    pub fn is_special(&self) -> bool {
        matches!(
            self.kind,
            Kind::MinusInfinity | Kind::Infinity | Kind::NotANumber
        )
    }

    /// Whether it is finite and has no digits below the point.
    pub fn is_integral(&self) -> bool {
        !self.is_special() && self.lowest_place() >= 0
    }

    /// The number as an integer, if it is one that fits.
    pub fn to_i64(&self) -> Option<i64> {
        // 19 decimal digits are at most five digits of base 10,000.
        if !self.is_integral() || self.weight > 4 {
            return None;
        }
        let mut value = 0_i128;
        for place in 0..=usize::try_from(self.weight).ok()? {
            value = value * 10_000 + i128::from(self.digits.get(place).copied().unwrap_or(0));
        }
        i64::try_from(if self.kind == Kind::Negative {
            -value
        } else {
            value
        })
        .ok()
    }

    /// The bytes that `hash: xxh3` hashes: one byte 0 to 5 for -infinity, negative, zero, positive,
    /// infinity, NaN; for numbers but zero then the power of 10,000 of the first digit (4 bytes,
    /// big-endian two's complement) and the digits of base 10,000 without zeros at either end (2
    /// bytes each, big-endian).
    pub fn canonical_bytes(&self) -> SmallVec<[u8; 64]> {
        let mut bytes = SmallVec::new();
        bytes.push(self.kind as u8);
        if !self.digits.is_empty() {
            bytes.extend_from_slice(&self.weight.to_be_bytes());
            bytes.extend(self.digits.iter().flat_map(|digit| digit.to_be_bytes()));
        }
        bytes
    }

    pub(super) fn weight(&self) -> i32 {
        self.weight
    }

    /// The digits as PostgreSQL keeps them in memory on little-endian machines.
    pub(super) fn digit_bytes(&self) -> SmallVec<[u8; 32]> {
        self.digits
            .iter()
            .flat_map(|digit| digit.to_le_bytes())
            .collect()
    }

    /// What `numeric(precision, scale)` does to it.
    pub(super) fn fit(&self, precision: i32, scale: i32) -> Fit {
        match self.kind {
            Kind::NotANumber | Kind::Zero => return Fit::Exact,
            Kind::Infinity | Kind::MinusInfinity => return Fit::Overflows,
            Kind::Positive | Kind::Negative => {}
        }
        if self.lowest_place() < -i64::from(scale) {
            return Fit::Rounds;
        }
        let first = self.digits.first().copied().unwrap_or(1);
        let highest = 4 * i64::from(self.weight) + i64::from(first.max(1).ilog10());
        if highest < i64::from(precision) - i64::from(scale) {
            Fit::Exact
        } else {
            Fit::Overflows
        }
    }

    /// The power of ten of the last decimal digit that is not zero; 0 for zero.
    fn lowest_place(&self) -> i64 {
        let Some(&last) = self.digits.last() else {
            return 0;
        };
        let zeros = match last {
            last if last % 1000 == 0 => 3,
            last if last % 100 == 0 => 2,
            last if last % 10 == 0 => 1,
            _ => 0,
        };
        let groups = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        4 * (i64::from(self.weight) + 1 - groups) + zeros
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Numeric {
        let mut rest = value.unsigned_abs();
        let mut digits: Digits = [0_u16; 5].into_iter().collect();
        for digit in digits.iter_mut().rev() {
            // The remainder is below 10,000.
            *digit = (rest % 10_000) as u16;
            rest /= 10_000;
        }
        Numeric::new(value < 0, 4, digits)
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        let size = |left: &Numeric, right: &Numeric| {
            (left.weight, &left.digits).cmp(&(right.weight, &right.digits))
        };
        self.kind.cmp(&other.kind).then_with(|| match self.kind {
            Kind::Negative => size(other, self),
            _ => size(self, other),
        })
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn parse_word(text: &[u8]) -> Option<Kind> {
    const WORDS: [(&[u8], Kind); 7] = [
        (b"nan", Kind::NotANumber),
        (b"infinity", Kind::Infinity),
        (b"+infinity", Kind::Infinity),
        (b"-infinity", Kind::MinusInfinity),
        (b"inf", Kind::Infinity),
        (b"+inf", Kind::Infinity),
        (b"-inf", Kind::MinusInfinity),
    ];
    WORDS
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text))
        .map(|(_, kind)| *kind)
}

/// The parts of a decimal number's text.
struct Decimal<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn split(text: &'a [u8]) -> Result<Decimal<'a>, KeyError> {
        if input::is_modern_number(text) {
            return Err(KeyError::Unprovable(
                "the number's form depends on PostgreSQL's version",
            ));
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let (integer, rest) = leading_digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => leading_digits(rest),
            _ => (&rest[..0], rest),
        };
        if integer.is_empty() && fraction.is_empty() {
            return Err(INVALID);
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', exponent @ ..] => parse_exponent(exponent)?,
            _ => return Err(INVALID),
        };
        Ok(Decimal {
            negative,
            integer,
            fraction,
            exponent,
        })
    }

    /// Power of ten of the first written digit.
    fn highest_place(&self) -> i64 {
        i64::try_from(self.integer.len()).unwrap_or(i64::MAX / 2) - 1 + self.exponent
    }

    fn check_limits(&self) -> Result<(), KeyError> {
        let scale = i64::try_from(self.fraction.len()).unwrap_or(i64::MAX / 2) - self.exponent;
        if self.highest_place() >= MAX_INTEGER_DIGITS || scale > MAX_SCALE {
            return Err(BEYOND_LIMITS);
        }
        Ok(())
    }

    fn to_numeric(&self) -> Numeric {
        let mut place = self.highest_place();
        let weight = place.div_euclid(4);
        let mut digits = Digits::new();
        let mut group = 0;
        for byte in self.integer.iter().chain(self.fraction) {
            group = group * 10 + u16::from(byte - b'0');
            if place.rem_euclid(4) == 0 {
                digits.push(group);
                group = 0;
            }
            place -= 1;
        }
        // Fill the last group up with zeros.
        let missing = (place + 1).rem_euclid(4);
        if missing != 0 {
            digits.push((0..missing).fold(group, |group, _| group * 10));
        }
        // The limits keep the weight far inside i32.
        Numeric::new(self.negative, weight as i32, digits)
    }
}

fn leading_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(count)
}

fn parse_exponent(text: &[u8]) -> Result<i64, KeyError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    // Old versions skip white space here, others do not.
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(KeyError::Unprovable("the number's exponent is not plain"));
    }
    if digits.len() > MAX_EXPONENT_DIGITS {
        return Err(BEYOND_LIMITS);
    }
    let value = digits
        .iter()
        .fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}
