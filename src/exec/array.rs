//! One-dimensional arrays in binary format, made of values in binary format; pure.

/// The type of arrays of a type of PostgreSQL's own whose values travel in binary format; none of others: such
/// as name objects of one server, and arrays, which don't nest.
pub fn array_of(type_oid: u32) -> Option<u32> {
    let found = ARRAYS.binary_search_by_key(&type_oid, |(element, _)| *element);
    let (_, array) = ARRAYS.get(found.ok()?)?;
    Some(*array)
}

/// `pg_type.oid` and `typarray` (pg_type.dat), by the first.
const ARRAYS: [(u32, u32); 53] = [
    (16, 1000),
    (17, 1001),
    (18, 1002),
    (19, 1003),
    (20, 1016),
    (21, 1005),
    (23, 1007),
    (25, 1009),
    (26, 1028),
    (28, 1011),
    (114, 199),
    (600, 1017),
    (601, 1018),
    (602, 1019),
    (603, 1020),
    (604, 1027),
    (628, 629),
    (650, 651),
    (700, 1021),
    (701, 1022),
    (718, 719),
    (774, 775),
    (790, 791),
    (829, 1040),
    (869, 1041),
    (1042, 1014),
    (1043, 1015),
    (1082, 1182),
    (1083, 1183),
    (1114, 1115),
    (1184, 1185),
    (1186, 1187),
    (1266, 1270),
    (1560, 1561),
    (1562, 1563),
    (1700, 1231),
    (2950, 2951),
    (3220, 3221),
    (3614, 3643),
    (3615, 3645),
    (3802, 3807),
    (3904, 3905),
    (3906, 3907),
    (3908, 3909),
    (3910, 3911),
    (3912, 3913),
    (3926, 3927),
    (4072, 4073),
    (4451, 6150),
    (4532, 6151),
    (4533, 6152),
    (4534, 6153),
    (5069, 271),
];

/// The type of arrays of texts, and of texts.
pub const TEXT: u32 = 25;

/// An array that is being made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Array {
    count: u32,
    has_nulls: bool,
    elements: Vec<u8>,
}

impl Array {
    /// Adds a value; none is NULL.
    pub fn push(&mut self, value: Option<&[u8]>) {
        self.count += 1;
        let length = value.map(|value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.elements
            .extend_from_slice(&length.unwrap_or(-1).to_be_bytes());
        self.elements.extend_from_slice(value.unwrap_or_default());
        self.has_nulls |= value.is_none();
    }

    /// It, as an array of this type.
    pub fn bytes(&self, type_oid: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.elements.len() + 20);
        let dimensions = u32::from(self.count > 0);
        for word in [dimensions, u32::from(self.has_nulls), type_oid] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        if self.count > 0 {
            out.extend_from_slice(&self.count.to_be_bytes());
            out.extend_from_slice(&1_u32.to_be_bytes());
        }
        out.extend_from_slice(&self.elements);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_in_order() {
        assert!(ARRAYS.is_sorted_by(|one, next| one.0 < next.0));
        assert_eq!(array_of(23), Some(1007));
        assert_eq!(array_of(1007), None);
        assert_eq!(array_of(2205), None);
    }

    #[test]
    fn arrays_are_as_postgresql_sends_them() {
        let mut array = Array::default();
        assert_eq!(array.bytes(23), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23]);
        array.push(Some(&[0, 0, 0, 7]));
        array.push(None);
        let wanted: [u8; 32] = [
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7,
            255, 255, 255, 255,
        ];
        assert_eq!(array.bytes(23), wanted);
    }
}
