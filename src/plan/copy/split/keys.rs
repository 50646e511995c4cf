//! The shard key of a row.

use super::Splitter;
use super::To;
use super::Way;
use super::faults::malformed;
use crate::error::Error;
use crate::plan::copy::KeyField;
use crate::plan::copy::field;
use crate::plan::copy::field::Field;
use crate::plan::copy::missing_key;
use crate::plan::copy::supply::Value;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyUse;
use crate::sharding::LiteralKind;

impl Splitter {
    /// The key of a column that the data leaves out.
    pub(super) fn supplied_key(&self, field: &KeyField, value: Value) -> Result<Key, Way> {
        let store_error = |error: KeyError| error.store_error(&self.copy.table, &field.name);
        let Some(value) = value else {
            return Err(self.null(field, store_error(KeyError::Null)));
        };
        let (column, oid) = (&field.column, field.column.key_type.oid());
        let key = match (self.layout.is_binary, std::str::from_utf8(&value)) {
            (true, _) => {
                Key::from_parameter(oid, Format::Binary, Some(&value), column, KeyUse::Store)
            }
            (false, Ok(text)) => {
                Key::from_literal(text, LiteralKind::String, column, KeyUse::Store)
            }
            (false, Err(_)) => return Err(Way::Rejected(malformed("invalid characters"))),
        };
        key.map_err(|error| match error {
            KeyError::Rejected(_) => Way::Rejected(store_error(error)),
            error => Way::Nowhere(store_error(error)),
        })
    }

    /// The value of one column of the key.
    pub(super) fn key(&self, field: &KeyField, bytes: Option<&[u8]>) -> Result<Key, Way> {
        let store_error = |error: KeyError| error.store_error(&self.copy.table, &field.name);
        let null = || self.null(field, store_error(KeyError::Null));
        let key = match (self.layout.is_binary, bytes) {
            (true, None) => return Err(null()),
            (true, Some(bytes)) => {
                let (column, oid) = (&field.column, field.column.key_type.oid());
                Key::from_parameter(oid, Format::Binary, Some(bytes), column, KeyUse::Store)
            }
            // The row ends before the field.
            (false, None) => return Err(Way::Rejected(malformed("a row without its shard key"))),
            (false, Some(bytes)) => {
                match field::read(bytes, &self.layout, self.encoding, field.forced) {
                    Field::Null => return Err(null()),
                    Field::Default => {
                        let error = missing_key(&self.copy.table, &field.name);
                        return Err(Way::Nowhere(error));
                    }
                    Field::Invalid => return Err(Way::Rejected(malformed("invalid characters"))),
                    Field::Text(text) => {
                        Key::from_literal(&text, LiteralKind::String, &field.column, KeyUse::Store)
                    }
                }
            }
        };
        key.map_err(|error| match error {
            KeyError::Rejected(_) => Way::Rejected(store_error(error)),
            error => Way::Nowhere(store_error(error)),
        })
    }

    /// A row without a key: PostgreSQL rejects it if the column says so, unless a condition leaves it out.
    pub(super) fn null(&self, field: &KeyField, error: Error) -> Way {
        match (field.not_null, self.layout.has_condition) {
            (true, true) => Way::To(To::Part(0)),
            (true, false) => Way::Rejected(error),
            (false, _) => Way::Nowhere(error),
        }
    }
}
