//! The parameters of a Bind message, found in its bytes without copying them.

use std::cell::Cell;

use crate::sharding::Format;

/// The parameters of one execution. Made from a Bind message that has been checked; on bytes that
/// have not, every look-up is merely `None`.
#[derive(Clone, Debug, Default)]
pub struct Parameters<'a> {
    /// The types that the Parse message declares; 0 and missing ones are unknown.
    pub types: &'a [u32],
    /// The session's own key (`shardwire.shard_key`), which plans may ask for; empty if it has none.
    pub session_key: &'a [String],
    /// The format codes, two bytes each: none means all text, one is for all parameters.
    formats: &'a [u8],
    /// The values: four bytes of length (-1 is NULL), then the bytes, one after the other.
    values: &'a [u8],
    /// The parameter last looked up and its offset in `values`, so that ascending look-ups take
    /// one step each.
    cursor: Cell<(usize, usize)>,
}

impl<'a> Parameters<'a> {
    /// From the parts of a Bind message: the body of its format codes and the body of its values,
    /// both without their counts.
    pub fn new(types: &'a [u32], formats: &'a [u8], values: &'a [u8]) -> Parameters<'a> {
        Parameters {
            types,
            session_key: &[],
            formats,
            values,
            cursor: Cell::new((0, 0)),
        }
    }

    /// No parameters: a simple Query message.
    pub fn none() -> Parameters<'static> {
        Parameters::default()
    }

    /// The declared type of parameter `index` (from 0); 0 if it is for PostgreSQL to infer.
    pub fn type_oid(&self, index: usize) -> u32 {
        self.types.get(index).copied().unwrap_or(0)
    }

    /// The format of parameter `index` (from 0).
    pub fn format(&self, index: usize) -> Option<Format> {
        let codes = match self.formats.len() {
            0 => return Some(Format::Text),
            2 => self.formats,
            _ => self.formats.get(2 * index..2 * index + 2)?,
        };
        match codes {
            [0, 0] => Some(Format::Text),
            [0, 1] => Some(Format::Binary),
            _ => None,
        }
    }

    /// The value of parameter `index` (from 0), `Some(None)` for NULL; `None` if there is no such
    /// parameter.
    pub fn value(&self, index: usize) -> Option<Option<&'a [u8]>> {
        let (mut at, mut offset) = self.cursor.get();
        if at > index {
            (at, offset) = (0, 0);
        }
        loop {
            let length = self.values.get(offset..offset.checked_add(4)?)?;
            let length = i32::from_be_bytes(length.try_into().ok()?);
            let start = offset + 4;
            let end = start.checked_add(usize::try_from(length).unwrap_or(0))?;
            let bytes = self.values.get(start..end)?;
            if at == index {
                self.cursor.set((at, offset));
                return Some((length >= 0).then_some(bytes));
            }
            (at, offset) = (at + 1, end);
        }
    }

    /// The values in text format that are not NULL.
    pub fn texts(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..)
            .map_while(|index| Some((self.value(index)?, self.format(index))))
            .filter_map(|(value, format)| value.filter(|_| format == Some(Format::Text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            bytes.extend(length.to_be_bytes());
            bytes.extend(value.unwrap_or_default());
        }
        bytes
    }

    #[test]
    fn values_are_found_in_any_order() {
        let bytes = values(&[Some(b"a"), None, Some(b""), Some(b"bcd")]);
        let parameters = Parameters::new(&[20], &[], &bytes);
        for index in [0, 3, 1, 2, 2, 0] {
            let expected = [Some(&b"a"[..]), None, Some(b""), Some(b"bcd")][index];
            assert_eq!(parameters.value(index), Some(expected));
        }
        assert_eq!(parameters.value(4), None);
        assert_eq!((parameters.type_oid(0), parameters.type_oid(1)), (20, 0));
        assert_eq!(
            parameters.texts().collect::<Vec<_>>(),
            [&b"a"[..], b"", b"bcd"]
        );
    }

    #[test]
    fn one_format_is_for_all() {
        let format = |codes: &'static [u8], index| Parameters::new(&[], codes, &[]).format(index);
        assert_eq!(format(&[], 7), Some(Format::Text));
        assert_eq!(format(&[0, 1], 7), Some(Format::Binary));
        assert_eq!(format(&[0, 0, 0, 1], 1), Some(Format::Binary));
        assert_eq!(format(&[0, 0, 0, 1], 2), None);
        assert_eq!(format(&[0, 9], 0), None);
    }

    #[test]
    fn torn_bytes_have_no_values() {
        let bytes = values(&[Some(b"abc")]);
        for end in 0..bytes.len() {
            assert_eq!(Parameters::new(&[], &[], &bytes[..end]).value(0), None);
        }
        let long = i32::MAX.to_be_bytes();
        assert_eq!(Parameters::new(&[], &[], &long).value(0), None);
    }
}
