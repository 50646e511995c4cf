//! The types of shard keys as SQL names them.

use crate::sharding::KeyType;

/// The name in `pg_catalog` and the OID of a key's type.
pub(super) fn type_of(key_type: KeyType) -> (&'static str, u32) {
    match key_type {
        KeyType::Int2 => ("int2", 21),
        KeyType::Int4 => ("int4", 23),
        KeyType::Int8 => ("int8", 20),
        KeyType::Numeric => ("numeric", 1700),
        KeyType::Text => ("text", 25),
        KeyType::Varchar => ("varchar", 1043),
        KeyType::Bpchar => ("bpchar", 1042),
        KeyType::Uuid => ("uuid", 2950),
        KeyType::Date => ("date", 1082),
        KeyType::Timestamp => ("timestamp", 1114),
        KeyType::Timestamptz => ("timestamptz", 1184),
        KeyType::Bytea => ("bytea", 17),
        KeyType::Bool => ("bool", 16),
    }
}
