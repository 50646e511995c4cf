//! Vectors taken from PostgreSQL 15, and properties; `integration/sharding.rs` asks a real server.

use std::ops::RangeInclusive;

use proptest::prelude::*;

use crate::config::HashKind;
use crate::config::Method;
use crate::config::RangePart;
use crate::config::Shard;
use crate::config::TableRule;
use crate::sharding::*;

const TYPES: [KeyType; 13] = [
    KeyType::Int2,
    KeyType::Int4,
    KeyType::Int8,
    KeyType::Numeric,
    KeyType::Text,
    KeyType::Varchar,
    KeyType::Bpchar,
    KeyType::Uuid,
    KeyType::Date,
    KeyType::Timestamp,
    KeyType::Timestamptz,
    KeyType::Bytea,
    KeyType::Bool,
];

const KEY_OIDS: [u32; 16] = [
    0, 705, 16, 17, 20, 21, 23, 25, 701, 1042, 1043, 1082, 1114, 1184, 1700, 2950,
];

fn compare(text: &str, key_type: KeyType) -> Result<Key, KeyError> {
    let column = ColumnType::plain(key_type);
    Key::from_literal(text, LiteralKind::String, &column, KeyUse::Compare)
}

fn key(text: &str, key_type: KeyType) -> Key {
    compare(text, key_type).unwrap()
}

fn number(text: &str, key_type: KeyType, use_: KeyUse) -> Result<Key, KeyError> {
    let column = ColumnType::plain(key_type);
    Key::from_literal(text, LiteralKind::Number, &column, use_)
}

fn store(text: &str, key_type: KeyType, typmod: i32) -> Result<Key, KeyError> {
    let column = ColumnType { key_type, typmod };
    Key::from_literal(text, LiteralKind::String, &column, KeyUse::Store)
}

fn parameter(
    oid: u32,
    format: Format,
    bytes: &[u8],
    key_type: KeyType,
    use_: KeyUse,
) -> Result<Key, KeyError> {
    Key::from_parameter(oid, format, Some(bytes), &ColumnType::plain(key_type), use_)
}

fn text_key(text: &str) -> Key {
    Key::Text(KeyBytes::from_slice(text.as_bytes()))
}

const SEED: u64 = 8_824_738_284_939;

/// Text, type, seed and what PostgreSQL's extended hash function of the type returns.
const VECTORS: [(&str, KeyType, u64, i64); 31] = [
    ("42", KeyType::Int8, 0, 8_010_225_493_015_854_792),
    ("42", KeyType::Int2, SEED, -632_923_230_377_203_980),
    ("-1", KeyType::Int4, 0, -1_888_257_769_727_981_238),
    (
        "-5000000000",
        KeyType::Int8,
        SEED,
        -3_783_234_841_506_800_629,
    ),
    ("", KeyType::Text, 0, -6_939_563_903_564_495_251),
    ("hello", KeyType::Text, 0, 3_449_563_369_152_288_809),
    ("hello", KeyType::Varchar, SEED, 422_152_681_661_671_859),
    ("exactly 12 b", KeyType::Text, 0, 3_728_373_950_248_614_595),
    (
        "grüße an alle, die hier lesen",
        KeyType::Text,
        u64::MAX - 6,
        -5_597_771_320_525_008_382,
    ),
    ("abc   ", KeyType::Bpchar, 0, -6_747_756_470_228_489_321),
    ("abc", KeyType::Text, 0, -6_747_756_470_228_489_321),
    (
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        KeyType::Uuid,
        0,
        7_543_054_272_012_930_821,
    ),
    (
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        KeyType::Uuid,
        99,
        6_124_917_397_840_352_371,
    ),
    ("0", KeyType::Numeric, 7, 6),
    ("NaN", KeyType::Numeric, 7, 7),
    ("1.50", KeyType::Numeric, 0, -8_828_336_294_488_843_818),
    ("-1.5", KeyType::Numeric, 0, -8_828_336_294_488_843_818),
    ("1e100", KeyType::Numeric, 0, -7_507_508_252_608_306_351),
    ("0.00001234", KeyType::Numeric, 0, 754_595_273_787_784_294),
    (
        "123456789012345678901234567890.123",
        KeyType::Numeric,
        7,
        -6_751_082_386_311_655_250,
    ),
    (
        "2024-02-29 12:30:59.123456",
        KeyType::Timestamp,
        0,
        -8_037_957_093_393_922_430,
    ),
    (
        "2024-02-29 14:30:59.123456+02",
        KeyType::Timestamptz,
        0,
        -8_037_957_093_393_922_430,
    ),
    ("infinity", KeyType::Timestamp, 0, 1_977_219_185_673_256_887),
    (
        "-infinity",
        KeyType::Timestamp,
        0,
        -9_109_110_466_470_504_941,
    ),
    (
        "0044-03-15 BC",
        KeyType::Timestamp,
        0,
        7_734_199_420_611_653_865,
    ),
    ("2024-02-29", KeyType::Date, 0, 8_051_018_284_886_573_209),
    ("1999-12-31", KeyType::Date, 0, -1_888_257_769_727_981_238),
    ("infinity", KeyType::Date, 5, -920_827_284_911_570_408),
    ("true", KeyType::Bool, 0, -3_670_598_878_359_251_130),
    ("off", KeyType::Bool, 3, 1_039_157_755_263_240_601),
    ("\\x00ff", KeyType::Bytea, 0, -9_220_388_254_744_200_614),
];

#[test]
fn hashes_are_postgresqls() {
    for (text, key_type, seed, hash) in VECTORS {
        let found = hash_extended(&key(text, key_type), seed).cast_signed();
        assert_eq!(found, hash, "{key_type:?} {text:?}");
    }
}

#[test]
fn xxh3_hashes_the_canonical_bytes() {
    assert_eq!(
        key("42", KeyType::Int4).hash_xxh3(0),
        0x2e4f_e982_b689_10ac_u64
    );
    assert_eq!(
        key("hello", KeyType::Text).hash_xxh3(0),
        0x9555_e855_5c62_dcfd
    );
    assert_eq!(
        key("hello  ", KeyType::Bpchar).hash_xxh3(0),
        0x9555_e855_5c62_dcfd
    );
    let bytes = |text| {
        let Key::Numeric(value) = key(text, KeyType::Numeric) else {
            panic!("not numeric")
        };
        value.canonical_bytes().to_vec()
    };
    assert_eq!(bytes("-12345.50"), [1, 0, 0, 0, 1, 0, 1, 9, 41, 19, 136]);
    assert_eq!(bytes("0.00"), [2]);
    assert_eq!(bytes("nan"), [5]);
}

#[test]
fn common_forms_are_read() {
    for text in ["42", " 42 ", "+42", "042", "\t42\n"] {
        assert_eq!(compare(text, KeyType::Int8), Ok(Key::Int(42)), "{text:?}");
    }
    for text in [
        "1", "1.0", "1.00", "+1", "10e-1", ".01e2", "1.", "0001", " 1 ",
    ] {
        assert_eq!(
            key(text, KeyType::Numeric),
            key("1", KeyType::Numeric),
            "{text:?}"
        );
    }
    for text in ["0", "-0", "0.000", "-0.0", "0e5"] {
        assert_eq!(
            key(text, KeyType::Numeric),
            key("0", KeyType::Numeric),
            "{text:?}"
        );
    }
    for text in [
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
    ] {
        let plain = key("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", KeyType::Uuid);
        assert_eq!(key(text, KeyType::Uuid), plain, "{text:?}");
    }
    for text in [
        "2024-02-29T12:30:59.5Z",
        "2024-02-29 12:30:59.500000+00",
        "2024-02-29 14:30:59.5 +0200",
        "2024-02-29 07:00:59.5000000-05:30",
    ] {
        let plain = key("2024-02-29 12:30:59.5+00", KeyType::Timestamptz);
        assert_eq!(key(text, KeyType::Timestamptz), plain, "{text:?}");
    }
    for text in [
        "2024-02-29",
        "2024-02-29T12:30:59.5Z",
        " 2024-2-29 23:59:59-12 ",
    ] {
        assert_eq!(
            key(text, KeyType::Date),
            key("2024-02-29", KeyType::Date),
            "{text:?}"
        );
    }
    for text in ["t", "TRUE", " yes ", "on", "1", "tru"] {
        assert_eq!(
            compare(text, KeyType::Bool),
            Ok(Key::Bool(true)),
            "{text:?}"
        );
    }
    for text in ["f", "fal", "N", "of", "off", "0"] {
        assert_eq!(
            compare(text, KeyType::Bool),
            Ok(Key::Bool(false)),
            "{text:?}"
        );
    }
    for text in ["\\x5C61", "\\x 5c 61", "\\\\a", "\\134\\141"] {
        assert_eq!(
            compare(text, KeyType::Bytea),
            Ok(Key::Bytea(KeyBytes::from_slice(b"\\a"))),
            "{text:?}"
        );
    }
}

#[test]
fn what_settings_and_versions_decide_is_unprovable() {
    let cases = [
        ("01/02/2024", KeyType::Date),
        ("24-01-02", KeyType::Date),
        ("20240102", KeyType::Date),
        ("January 2, 2024", KeyType::Date),
        ("today", KeyType::Date),
        ("now", KeyType::Timestamp),
        ("2024-01-02 10:00:00.1234567", KeyType::Timestamp),
        ("2024-01-02 24:00:00", KeyType::Timestamp),
        ("2024-01-02 10:00:60", KeyType::Timestamp),
        ("2024-01-02 10:00 PM", KeyType::Timestamp),
        ("2024-01-02 10:00:00", KeyType::Timestamptz),
        ("2024-01-02", KeyType::Timestamptz),
        ("2024-01-02 10:00:00 Europe/Berlin", KeyType::Timestamptz),
        ("2024-01-02 10:00:00 CET", KeyType::Timestamptz),
        ("0x2A", KeyType::Int8),
        ("1_000", KeyType::Int4),
        ("0x2A", KeyType::Numeric),
        ("1e-99999999", KeyType::Numeric),
        ("1e200000", KeyType::Numeric),
        ("ü", KeyType::Bytea),
    ];
    for (text, key_type) in cases {
        for use_ in [KeyUse::Compare, KeyUse::Store] {
            let column = ColumnType::plain(key_type);
            let found = Key::from_literal(text, LiteralKind::String, &column, use_);
            assert!(
                matches!(found, Err(KeyError::Unprovable(_))),
                "{key_type:?} {text:?} {found:?}"
            );
        }
    }
}

#[test]
fn what_postgresql_rejects_is_rejected_only_when_the_type_is_certain() {
    let cases = [
        ("", KeyType::Int4, 23),
        ("4 2", KeyType::Int4, 23),
        ("32768", KeyType::Int2, 21),
        ("9223372036854775808", KeyType::Int8, 20),
        ("1.2.3", KeyType::Numeric, 1700),
        ("2024-02-30", KeyType::Date, 1082),
        ("0000-01-01", KeyType::Date, 1082),
        ("294277-01-01", KeyType::Timestamp, 1114),
        ("2024-01-01 00:00:00+16", KeyType::Timestamptz, 1184),
        ("a0eebc99", KeyType::Uuid, 2950),
        ("o", KeyType::Bool, 16),
        ("\\x0", KeyType::Bytea, 17),
        ("a\\", KeyType::Bytea, 17),
    ];
    for (text, key_type, oid) in cases {
        let rejected = |found| matches!(found, Err(KeyError::Rejected(_)));
        let declared = |oid| {
            parameter(
                oid,
                Format::Text,
                text.as_bytes(),
                key_type,
                KeyUse::Compare,
            )
        };
        assert!(rejected(declared(oid)), "{text:?}");
        assert!(
            matches!(declared(0), Err(KeyError::Unprovable(_))),
            "{text:?}"
        );
        assert!(
            matches!(compare(text, key_type), Err(KeyError::Unprovable(_))),
            "{text:?}"
        );
        assert!(rejected(store(text, key_type, -1)), "{text:?}");
    }
    let short = |oid| {
        parameter(
            oid,
            Format::Binary,
            &[1, 2, 3],
            KeyType::Int8,
            KeyUse::Store,
        )
    };
    assert!(matches!(short(20), Err(KeyError::Rejected(_))));
    assert!(matches!(short(0), Err(KeyError::Unprovable(_))));
}

#[test]
fn numbers_compare_across_their_types() {
    for (text, found) in [
        ("42", Ok(Key::Int(42))),
        ("-42", Ok(Key::Int(-42))),
        ("42.00", Ok(Key::Int(42))),
        ("4.2e1", Ok(Key::Int(42))),
        ("42.5", Err(KeyError::OutOfRange)),
        ("-9223372036854775808", Ok(Key::Int(i64::MIN))),
        ("9223372036854775808", Err(KeyError::OutOfRange)),
        ("1e30", Err(KeyError::OutOfRange)),
    ] {
        assert_eq!(
            number(text, KeyType::Int8, KeyUse::Compare),
            found,
            "{text}"
        );
    }
    // An integer column compared with a bigint beyond it matches nothing, wherever one looks.
    assert_eq!(
        number("5000000000", KeyType::Int4, KeyUse::Compare),
        Ok(Key::Int(5_000_000_000))
    );
    assert!(matches!(
        number("5000000000", KeyType::Int4, KeyUse::Store),
        Err(KeyError::Rejected(_))
    ));
    assert!(matches!(
        number("42.5", KeyType::Int4, KeyUse::Store),
        Err(KeyError::Unprovable(_))
    ));
    assert!(matches!(
        number("5", KeyType::Text, KeyUse::Store),
        Err(KeyError::Unprovable(_))
    ));
    let bigint = 42_i64.to_be_bytes();
    assert_eq!(
        parameter(20, Format::Binary, &bigint, KeyType::Int2, KeyUse::Store),
        Ok(Key::Int(42))
    );
    assert_eq!(
        parameter(
            20,
            Format::Binary,
            &bigint,
            KeyType::Numeric,
            KeyUse::Compare
        ),
        compare("42", KeyType::Numeric)
    );
    assert!(matches!(
        parameter(701, Format::Binary, &bigint, KeyType::Int8, KeyUse::Compare),
        Err(KeyError::Unprovable(_))
    ));
}

#[test]
fn storing_cuts_and_rounds_only_provably() {
    // varchar(3), char(3), numeric(4,2), numeric(4,-2), timestamp(3)
    let numeric_4_2 = (4 << 16 | 2) + 4;
    let numeric_4_minus_2 = (4 << 16 | (-2 & 0x7ff)) + 4;
    assert_eq!(store("äöü", KeyType::Varchar, 7), Ok(text_key("äöü")));
    assert_eq!(store("äöü  ", KeyType::Varchar, 7), Ok(text_key("äöü")));
    assert_eq!(store("a    ", KeyType::Varchar, 7), Ok(text_key("a  ")));
    assert_eq!(store("a    ", KeyType::Bpchar, 7), Ok(text_key("a")));
    assert_eq!(store("  ", KeyType::Bpchar, 5), Ok(text_key("")));
    for text in ["abcd", "abc d", "äöüx"] {
        for key_type in [KeyType::Varchar, KeyType::Bpchar] {
            assert!(
                matches!(store(text, key_type, 7), Err(KeyError::Rejected(_))),
                "{text}"
            );
        }
    }
    let fits = |text, typmod| store(text, KeyType::Numeric, typmod).map(|_| ());
    assert_eq!(fits("12.34", numeric_4_2), Ok(()));
    assert_eq!(fits("-99.990", numeric_4_2), Ok(()));
    assert_eq!(fits("NaN", numeric_4_2), Ok(()));
    assert!(matches!(
        fits("1.005", numeric_4_2),
        Err(KeyError::Unprovable(_))
    ));
    assert!(matches!(
        fits("100", numeric_4_2),
        Err(KeyError::Rejected(_))
    ));
    assert!(matches!(
        fits("inf", numeric_4_2),
        Err(KeyError::Rejected(_))
    ));
    assert_eq!(fits("123400", numeric_4_minus_2), Ok(()));
    assert!(matches!(
        fits("12340", numeric_4_minus_2),
        Err(KeyError::Unprovable(_))
    ));
    let stamp = |text| store(text, KeyType::Timestamp, 3).map(|_| ());
    assert_eq!(stamp("2024-01-01 00:00:00.123"), Ok(()));
    assert_eq!(stamp("infinity"), Ok(()));
    assert!(matches!(
        stamp("2024-01-01 00:00:00.1234"),
        Err(KeyError::Unprovable(_))
    ));
    // A comparison never rounds.
    let column = ColumnType {
        key_type: KeyType::Varchar,
        typmod: 7,
    };
    assert_eq!(
        Key::from_literal("abcdef", LiteralKind::String, &column, KeyUse::Compare),
        Ok(text_key("abcdef"))
    );
}

#[test]
fn dates_and_timestamps_compare_at_midnight() {
    let midnight = key("2024-02-29 00:00:00", KeyType::Timestamp);
    let noon = key("2024-02-29 12:00:00", KeyType::Timestamp);
    let date = key("2024-02-29", KeyType::Date);
    let ask = |oid, text: &str, key_type, use_| {
        parameter(oid, Format::Text, text.as_bytes(), key_type, use_)
    };
    let (compare, store) = (KeyUse::Compare, KeyUse::Store);
    assert_eq!(
        ask(1082, "2024-02-29", KeyType::Timestamp, compare),
        Ok(midnight)
    );
    assert_ne!(
        ask(1082, "2024-02-29", KeyType::Timestamp, compare),
        Ok(noon)
    );
    assert_eq!(
        ask(1114, "2024-02-29 00:00:00", KeyType::Date, compare),
        Ok(date)
    );
    assert_eq!(
        ask(1114, "2024-02-29 12:00:00", KeyType::Date, compare),
        Err(KeyError::OutOfRange)
    );
    assert!(matches!(
        ask(1114, "2024-02-29 12:00:00", KeyType::Date, store),
        Err(KeyError::Unprovable(_))
    ));
    assert_eq!(
        ask(1082, "infinity", KeyType::Timestamp, compare),
        Ok(Key::Timestamp(i64::MAX))
    );
    assert_eq!(
        ask(1082, "300000-01-01", KeyType::Timestamp, compare),
        Err(KeyError::OutOfRange)
    );
    for (oid, key_type) in [
        (1184, KeyType::Timestamp),
        (1184, KeyType::Date),
        (1114, KeyType::Timestamptz),
        (1082, KeyType::Timestamptz),
    ] {
        let text = if oid == 1082 {
            "2024-02-29"
        } else {
            "2024-02-29 00:00:00+00"
        };
        assert!(matches!(
            ask(oid, text, key_type, compare),
            Err(KeyError::Unprovable(_))
        ));
    }
}

#[test]
fn days_follow_the_calendar() {
    // Every day from the first one to the year 6000, counted by hand.
    let (mut year, mut month, mut day) = (-4713_i64, 11, 24);
    let mut days = -2_451_545_i32;
    while year < 6000 {
        let text = if year > 0 {
            format!("{year:04}-{month:02}-{day:02}")
        } else {
            format!("{:04}-{month:02}-{day:02} BC", 1 - year)
        };
        assert_eq!(compare(&text, KeyType::Date), Ok(Key::Date(days)), "{text}");
        let leap =
            year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
        let length = match month {
            2 => 28 + i32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        days += 1;
        day += 1;
        if day > length {
            (month, day) = (month + 1, 1);
        }
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
    let column = ColumnType::plain(KeyType::Date);
    assert_eq!(
        Key::from_literal("4714-11-23 BC", LiteralKind::String, &column, KeyUse::Store),
        Err(KeyError::Rejected("date/time field value out of range"))
    );
}

#[test]
fn text_encodings_are_flagged() {
    assert!(!key("abc", KeyType::Text).requires_utf8());
    assert!(key("äbc", KeyType::Text).requires_utf8());
    assert!(!key("\\xff", KeyType::Bytea).requires_utf8());
    assert!(matches!(
        parameter(25, Format::Text, b"\xff", KeyType::Text, KeyUse::Compare),
        Err(KeyError::Unprovable(_))
    ));
}

#[test]
fn null_has_no_key() {
    let column = ColumnType::plain(KeyType::Int8);
    assert_eq!(
        Key::from_parameter(20, Format::Binary, None, &column, KeyUse::Store),
        Err(KeyError::Null)
    );
    assert_eq!(
        KeyError::Null.store_error("t", "k").code().as_str(),
        "23502"
    );
    assert_eq!(
        KeyError::OutOfRange.store_error("t", "k").code().as_str(),
        "23514"
    );
}

fn shards(slots: &[&[RangeInclusive<u16>]]) -> Vec<Shard> {
    slots
        .iter()
        .enumerate()
        .map(|(index, slots)| Shard {
            name: format!("s{index}"),
            servers: Vec::new(),
            slots: slots.to_vec(),
        })
        .collect()
}

fn sharded(columns: &[&str], method: Method) -> TableRule {
    TableRule::Sharded {
        key: columns.iter().map(|name| (*name).to_owned()).collect(),
        method,
    }
}

fn columns(types: &[(&str, KeyType)]) -> Vec<(String, ColumnType)> {
    types
        .iter()
        .map(|(name, key_type)| ((*name).to_owned(), ColumnType::plain(*key_type)))
        .collect()
}

fn two_shards() -> Vec<Shard> {
    shards(&[&[0..=99, 8192..=16383], &[100..=8191]])
}

fn one_column(key_type: KeyType, method: Method) -> Result<Placement, crate::error::Error> {
    Placement::new(
        &sharded(&["k"], method),
        columns(&[("k", key_type)]),
        &two_shards(),
    )
}

#[test]
fn a_slot_is_on_the_shard_that_owns_it() {
    let placement = Placement::new(
        &sharded(&["a", "b"], Method::Hash(HashKind::Postgres)),
        columns(&[("a", KeyType::Int4), ("b", KeyType::Text)]),
        &two_shards(),
    )
    .unwrap();
    let keys = [key("42", KeyType::Int4), key("hello", KeyType::Text)];
    assert_eq!(placement.slot(&keys), Some(12009));
    assert_eq!(placement.shard(&keys), Ok(0));
    assert_eq!(placement.slot(&keys[..1]), None);
    assert!(placement.shard(&keys[..1]).is_err());
    assert_eq!(placement.shards().len(), 2);
    assert_eq!(
        placement.slot_sql().unwrap(),
        "(hashtextextended(\"b\"::text, hashint8extended(\"a\"::int8, 0)) & 16383)"
    );
    let single = one_column(KeyType::Int8, Method::Hash(HashKind::Postgres)).unwrap();
    for value in 0..5000 {
        let key = [Key::Int(value)];
        let slot = single.slot(&key).unwrap();
        let owner = usize::from((100..=8191).contains(&slot));
        assert_eq!(single.shard(&key), Ok(owner));
    }
}

#[test]
fn slots_must_be_covered_once() {
    for slots in [
        shards(&[&[0..=100], &[102..=16383]]),
        shards(&[&[0..=100], &[100..=16383]]),
        shards(&[&[0..=100], &[101..=16382]]),
        shards(&[&[0..=16383, 16384..=16384]]),
        shards(&[&[]]),
    ] {
        let rule = sharded(&["k"], Method::Hash(HashKind::Postgres));
        assert!(Placement::new(&rule, columns(&[("k", KeyType::Int8)]), &slots).is_err());
    }
}

fn range(shard: usize, from: Option<&str>, to: Option<&str>) -> RangePart {
    RangePart {
        shard,
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    }
}

#[test]
fn ranges_include_their_beginning_only() {
    let placement = one_column(
        KeyType::Timestamptz,
        Method::Range(vec![
            range(1, Some("2026-01-01T00:00:00Z"), None),
            range(
                0,
                Some("2024-01-01 01:00:00+01"),
                Some("2025-01-01 00:00:00+00"),
            ),
        ]),
    )
    .unwrap();
    for (text, shard) in [
        ("2023-12-31 23:59:59.999999+00", Err(KeyError::OutOfRange)),
        ("2024-01-01 00:00:00+00", Ok(0)),
        ("2024-12-31 23:59:59.999999+00", Ok(0)),
        ("2025-01-01 00:00:00+00", Err(KeyError::OutOfRange)),
        ("2026-01-01 00:00:00+00", Ok(1)),
        ("infinity", Ok(1)),
        ("-infinity", Err(KeyError::OutOfRange)),
    ] {
        assert_eq!(
            placement.shard(&[key(text, KeyType::Timestamptz)]),
            shard,
            "{text}"
        );
    }
    assert_eq!(placement.slot_sql(), None);
}

#[test]
fn wrong_ranges_and_lists_are_errors() {
    let ranges = [
        vec![range(0, None, Some("5")), range(1, Some("4"), None)],
        vec![range(0, None, None), range(1, Some("4"), None)],
        vec![range(0, None, Some("5")), range(1, None, Some("3"))],
        vec![range(0, Some("5"), Some("5"))],
        vec![range(0, Some("five"), None)],
        vec![range(7, Some("5"), None)],
    ];
    for parts in ranges {
        assert!(
            one_column(KeyType::Int4, Method::Range(parts.clone())).is_err(),
            "{parts:?}"
        );
    }
    let list = |values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        one_column(KeyType::Numeric, Method::List(vec![(1, values)]))
    };
    assert!(list(&["1", "1.0"]).is_err());
    assert!(list(&["x"]).is_err());
    let placement = list(&["1.50"]).unwrap();
    assert_eq!(placement.shard(&[key("1.5", KeyType::Numeric)]), Ok(1));
    assert_eq!(
        placement.shard(&[key("1.51", KeyType::Numeric)]),
        Err(KeyError::OutOfRange)
    );
    assert_eq!(placement.shards().single(), Some(1));
    let zoneless = vec![range(0, None, Some("2026-01-01"))];
    assert!(one_column(KeyType::Timestamptz, Method::Range(zoneless)).is_err());
}

#[test]
fn tables_are_colocated_when_equal_keys_meet() {
    let hash = |key_type| one_column(key_type, Method::Hash(HashKind::Postgres)).unwrap();
    let int8 = hash(KeyType::Int8);
    assert!(int8.colocated_with(&hash(KeyType::Int2)));
    assert!(hash(KeyType::Text).colocated_with(&hash(KeyType::Varchar)));
    assert!(!int8.colocated_with(&hash(KeyType::Numeric)));
    assert!(!hash(KeyType::Text).colocated_with(&hash(KeyType::Bpchar)));
    assert!(!hash(KeyType::Timestamp).colocated_with(&hash(KeyType::Timestamptz)));
    let xxh3 = one_column(KeyType::Int8, Method::Hash(HashKind::Xxh3)).unwrap();
    assert!(!int8.colocated_with(&xxh3));
    let split = shards(&[
        &[0..=99, 8192..=9000, 9001..=16383],
        &[100..=200, 201..=8191],
    ]);
    let rule = sharded(&["other"], Method::Hash(HashKind::Postgres));
    let same_map = Placement::new(&rule, columns(&[("other", KeyType::Int4)]), &split).unwrap();
    assert!(int8.colocated_with(&same_map));
    let other_map = shards(&[&[0..=8191], &[8192..=16383]]);
    let other_map =
        Placement::new(&rule, columns(&[("other", KeyType::Int4)]), &other_map).unwrap();
    assert!(!int8.colocated_with(&other_map));
    let both = |from: &str| {
        let parts = vec![range(0, Some(from), Some("10"))];
        one_column(KeyType::Int4, Method::Range(parts)).unwrap()
    };
    assert!(both("1").colocated_with(&both("01")));
    assert!(!both("1").colocated_with(&both("2")));
}

fn any_type() -> impl Strategy<Value = KeyType> {
    prop::sample::select(TYPES.to_vec())
}

fn any_use() -> impl Strategy<Value = KeyUse> {
    prop::sample::select(vec![KeyUse::Compare, KeyUse::Store])
}

fn any_typmod() -> impl Strategy<Value = i32> {
    prop_oneof![Just(-1), 0..20_i32, any::<i32>()]
}

/// Texts that look like values.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[ +-]?[0-9]{0,25}\\.?[0-9]{0,20}(e[+-]?[0-9]{0,8})?",
        "[0-9]{3,7}-[0-9]{1,2}-[0-9]{1,2}([ T][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{0,8})?)?( ?[Z+-][0-9:]{0,8})?)?( BC)?",
        "\\{?[0-9a-f]{4,8}(-?[0-9A-F]{4}){2,7}\\}?",
        "\\\\x([0-9a-f ]{0,12})",
    ]
}

/// A numeric as text and as binary parameter: digits of base 10,000 around a point.
fn numeric_forms(negative: bool, digits: &[u16], weight: i16) -> (String, Vec<u8>) {
    let mut text = String::from(if negative { "-" } else { "" });
    let mut scale = 0_u16;
    for place in (0..=weight.max(0)).rev() {
        let digit = usize::try_from(weight - place).ok();
        let digit = digit.and_then(|digit| digits.get(digit)).unwrap_or(&0);
        text.push_str(&format!("{digit:04}"));
    }
    let last = weight - i16::try_from(digits.len()).unwrap() + 1;
    if last < 0 {
        text.push('.');
        for place in (last..0).rev() {
            let digit = usize::try_from(weight - place).ok();
            let digit = digit.and_then(|digit| digits.get(digit)).unwrap_or(&0);
            text.push_str(&format!("{digit:04}"));
            scale += 4;
        }
    }
    let mut binary = Vec::new();
    binary.extend(u16::try_from(digits.len()).unwrap().to_be_bytes());
    binary.extend(weight.to_be_bytes());
    binary.extend(if negative { 0x4000_u16 } else { 0 }.to_be_bytes());
    binary.extend(scale.to_be_bytes());
    binary.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
    (text, binary)
}

proptest! {
    #[test]
    fn no_literal_panics(text in any_text(), key_type in any_type(), typmod in any_typmod(), use_ in any_use()) {
        let column = ColumnType { key_type, typmod };
        for kind in [LiteralKind::Number, LiteralKind::String, LiteralKind::Bool] {
            if let Ok(key) = Key::from_literal(&text, kind, &column, use_) {
                key.hash_extended(0);
                key.hash_xxh3(0);
            }
        }
    }

    #[test]
    fn no_parameter_panics(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), any_text().prop_map(String::into_bytes)],
        oid in prop::sample::select(KEY_OIDS.to_vec()),
        key_type in any_type(),
        typmod in any_typmod(),
        use_ in any_use(),
    ) {
        let column = ColumnType { key_type, typmod };
        for format in [Format::Text, Format::Binary] {
            if let Ok(key) = Key::from_parameter(oid, format, Some(&bytes), &column, use_) {
                key.hash_extended(1);
                key.hash_xxh3(1);
            }
        }
    }

    #[test]
    fn a_numeric_is_the_same_in_text_and_binary(
        negative: bool,
        digits in prop::collection::vec(prop_oneof![Just(0_u16), 0..10_000_u16], 0..8),
        weight in -4..6_i16,
    ) {
        let (text, binary) = numeric_forms(negative, &digits, weight);
        let from_text = compare(&text, KeyType::Numeric);
        let from_binary = parameter(1700, Format::Binary, &binary, KeyType::Numeric, KeyUse::Compare);
        prop_assert!(from_text.is_ok());
        prop_assert_eq!(&from_text, &from_binary, "{}", text);
        // More zeros and an exponent change nothing.
        let shifted = format!("{}0e-0", if text.contains('.') { text.clone() } else { format!("{text}.") });
        prop_assert_eq!(&from_text, &compare(&shifted, KeyType::Numeric));
        let leading = text.strip_prefix('-').map_or(format!("00{text}"), |rest| format!("-0{rest}"));
        prop_assert_eq!(&from_text, &compare(&leading, KeyType::Numeric));
    }

    #[test]
    fn numerics_order_as_numbers(left in -1_000_000..1_000_000_i64, right in -1_000_000..1_000_000_i64, scale in 0..9_u32) {
        let numeric = |value: i64| key(&format!("{value}e-{scale}"), KeyType::Numeric);
        prop_assert_eq!(numeric(left).cmp(&numeric(right)), left.cmp(&right));
        prop_assert!(numeric(left) < key("infinity", KeyType::Numeric));
        prop_assert!(numeric(left) > key("-infinity", KeyType::Numeric));
        prop_assert!(key("infinity", KeyType::Numeric) < key("NaN", KeyType::Numeric));
    }

    #[test]
    fn an_integer_is_the_same_in_every_form(value: i64) {
        let text = value.to_string();
        let expected = Ok(Key::Int(value));
        prop_assert_eq!(&compare(&text, KeyType::Int8), &expected);
        prop_assert_eq!(&number(&text, KeyType::Int8, KeyUse::Store), &expected);
        let binary = parameter(20, Format::Binary, &value.to_be_bytes(), KeyType::Int8, KeyUse::Compare);
        prop_assert_eq!(&binary, &expected);
        let numeric = parameter(1700, Format::Text, text.as_bytes(), KeyType::Int8, KeyUse::Compare);
        prop_assert_eq!(&numeric, &expected);
        let back = parameter(20, Format::Text, text.as_bytes(), KeyType::Numeric, KeyUse::Compare);
        prop_assert_eq!(&back, &compare(&text, KeyType::Numeric));
    }

    #[test]
    fn a_uuid_is_the_same_in_every_form(bytes: [u8; 16]) {
        let text: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        prop_assert_eq!(compare(&text, KeyType::Uuid), Ok(Key::Uuid(bytes)));
        prop_assert_eq!(parameter(2950, Format::Binary, &bytes, KeyType::Uuid, KeyUse::Store), Ok(Key::Uuid(bytes)));
    }

    #[test]
    fn bytes_are_the_same_in_every_form(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        let expected = Ok(Key::Bytea(KeyBytes::from_slice(&bytes)));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let escape: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
        prop_assert_eq!(&compare(&format!("\\x{hex}"), KeyType::Bytea), &expected);
        prop_assert_eq!(&compare(&escape, KeyType::Bytea), &expected);
        prop_assert_eq!(&parameter(17, Format::Binary, &bytes, KeyType::Bytea, KeyUse::Store), &expected);
    }

    #[test]
    fn a_bpchar_ignores_trailing_blanks(text in "[a-zäß ]{0,12}", blanks in 0..5_usize) {
        let padded = format!("{text}{}", " ".repeat(blanks));
        prop_assert_eq!(compare(&text, KeyType::Bpchar), compare(&padded, KeyType::Bpchar));
        prop_assert_eq!(compare(&text, KeyType::Text) == compare(&padded, KeyType::Text), blanks == 0);
    }
}
