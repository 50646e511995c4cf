//! PostgreSQL's extended hash functions, so that anyone can verify a placement in SQL.
//!
//! The results are those of `hashint8extended`, `hashtextextended`, `hash_numeric_extended` and so on
//! of PostgreSQL 14 to 18 on little-endian machines (`src/common/hashfn.c`: Bob Jenkins' lookup3).

use crate::sharding::numeric::Numeric;

/// The three words of lookup3's state.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: usize, seed: u64) -> State {
        // PostgreSQL adds the length as an int of 32 bits.
        let start = 0x9e37_79b9_u32
            .wrapping_add(length as u32)
            .wrapping_add(3_923_095);
        let mut state = State {
            a: start,
            b: start,
            c: start,
        };
        if seed != 0 {
            state.a = state.a.wrapping_add((seed >> 32) as u32);
            state.b = state.b.wrapping_add(seed as u32);
            state.mix();
        }
        state
    }

    fn add(&mut self, a: u32, b: u32, c: u32) {
        self.a = self.a.wrapping_add(a);
        self.b = self.b.wrapping_add(b);
        self.c = self.c.wrapping_add(c);
    }

    fn mix(&mut self) {
        let State { a, b, c } = self;
        *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
        *b = b.wrapping_add(*a);
        *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
        *b = b.wrapping_add(*a);
    }

    fn finish(mut self) -> u64 {
        let State { a, b, c } = &mut self;
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(14));
        *a = (*a ^ *c).wrapping_sub(c.rotate_left(11));
        *b = (*b ^ *a).wrapping_sub(a.rotate_left(25));
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(16));
        *a = (*a ^ *c).wrapping_sub(c.rotate_left(4));
        *b = (*b ^ *a).wrapping_sub(a.rotate_left(14));
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(24));
        (u64::from(*b) << 32) | u64::from(*c)
    }
}

/// `hash_bytes_extended`: text, varchar, bpchar (without trailing blanks), uuid and bytea.
pub(super) fn bytes(value: &[u8], seed: u64) -> u64 {
    let mut state = State::new(value.len(), seed);
    let (blocks, tail) = value.as_chunks::<12>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        if let [a, b, c] = words {
            state.add(
                u32::from_le_bytes(*a),
                u32::from_le_bytes(*b),
                u32::from_le_bytes(*c),
            );
        }
        state.mix();
    }
    let (mut a, mut b, mut c) = (0, 0, 0);
    for (position, &byte) in tail.iter().enumerate() {
        let byte = u32::from(byte);
        match position {
            0..4 => a |= byte << (8 * position),
            4..8 => b |= byte << (8 * (position - 4)),
            // The lowest byte of c is the length's.
            _ => c |= byte << (8 * (position - 7)),
        }
    }
    state.add(a, b, c);
    state.finish()
}

/// `hash_bytes_uint32_extended`: date, and bool as 0 or 1.
pub(super) fn uint32(value: u32, seed: u64) -> u64 {
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(value);
    state.finish()
}

/// `hashint8extended`: integers of every width, timestamps. The upper half is folded in so that a
/// value that fits 32 bits hashes as it does there.
pub(super) fn int8(value: i64, seed: u64) -> u64 {
    let low = value as u32;
    let high = (value >> 32) as u32;
    uint32(low ^ if value >= 0 { high } else { !high }, seed)
}

/// `hash_numeric_extended`: the digits without leading and trailing zeros, and the weight. The sign
/// takes no part, and NaN and the infinities are the seed itself.
pub(super) fn numeric(value: &Numeric, seed: u64) -> u64 {
    if value.is_special() {
        return seed;
    }
    let digits = value.digit_bytes();
    if digits.is_empty() {
        return seed.wrapping_sub(1);
    }
    bytes(&digits, seed) ^ i64::from(value.weight()).cast_unsigned()
}
