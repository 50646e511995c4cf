//! Values of every key type: a fixed list, random ones, and damaged ones.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Values of every type, good and bad, typed by whoever reads them.
pub const TEXTS: [&str; 118] = [
    "",
    " ",
    "0",
    "1",
    "-1",
    "+5",
    " 42 ",
    "042",
    "42",
    "42.0",
    "42.00",
    "42.5",
    "-0",
    "-0.0",
    "0.000",
    "127",
    "999",
    "999.5",
    "1000",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "123456789012345678901234567890",
    "1e3",
    "1.5e-3",
    "1e-400",
    "1e400",
    ".5",
    "5.",
    "1.005",
    "1234.56",
    "9999.99",
    "9999.995",
    "NaN",
    "nan",
    "infinity",
    "-infinity",
    "inf",
    "+Infinity",
    "1e",
    "1e 5",
    "0x1F",
    "1_000",
    "--1",
    "4 2",
    "abc",
    "abc  ",
    "abc   x",
    "abcde",
    "abcde   ",
    "abcdef",
    "  abc",
    "äöüß",
    "äöüßé",
    "äöüßé  ",
    "äöüßéx",
    "日本語",
    "t",
    "true",
    "TRUE",
    "yes",
    "off",
    "o",
    "on",
    "n",
    "tru",
    "truex",
    "2024-02-29",
    "2023-02-29",
    "2024-2-9",
    " 2024-02-29 ",
    "2024-02-29 00:00:00",
    "2024-02-29 12:30:59.123456",
    "2024-02-29 12:30:59.1234567",
    "2024-02-29 12:30:59.1234560",
    "2024-02-29T12:30",
    "2024-02-29T12:30:59Z",
    "2024-02-29 12:30:59+02",
    "2024-02-29 00:00:00+00",
    "2024-02-29 12:30:59 -05:30",
    "2024-02-29 12:30:59+0545",
    "2024-02-29 12:30:59+05:45:30",
    "2024-02-29 12:30:59+16",
    "2024-02-29 12:30:59 UTC",
    "2024-02-29 24:00:00",
    "2024-02-29 12:30:60",
    "0044-03-15 BC",
    "0044-03-15 12:00:00+01 BC",
    "0001-01-01",
    "0000-01-01",
    "4714-11-24 BC",
    "4714-11-23 BC",
    "4714-11-24 00:00:00+01 BC",
    "294276-12-31 23:59:59.999999",
    "294277-01-01",
    "294276-12-31 23:59:59-01",
    "5874897-12-31",
    "5874898-06-03",
    "01/02/2024",
    "today",
    "2024-02-29 12:30:59 America/New_York",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
    "a0eebc999c0b4ef8bb6d6bb9bd380a11",
    "a0eebc99-9c0b",
    "\\x00ff",
    "\\x 00 FF",
    "\\000\\377",
    "a\\\\b",
];

fn random_uuid(random: &mut StdRng) -> String {
    let hex = format!("{:032x}", random.random::<u128>());
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn random_text(random: &mut StdRng) -> String {
    let length = random.random_range(0..40);
    (0..length)
        .map(|_| {
            *['a', 'b', 'Z', '0', ' ', '\'', '\\', 'ä', '日', '🦀']
                .choose(random)
                .unwrap()
        })
        .collect()
}

fn random_date(random: &mut StdRng, last_year: i32) -> (String, &'static str) {
    let year = match random.random_range(0..4) {
        0 => random.random_range(1..last_year),
        _ => random.random_range(1900..2100),
    };
    let date = format!(
        "{year:04}-{:02}-{:02}",
        random.random_range(1..13),
        random.random_range(1..29)
    );
    let era = if year < 4000 && random.random_range(0..8) == 0 {
        " BC"
    } else {
        ""
    };
    (date, era)
}

fn random_time(random: &mut StdRng) -> String {
    let (hour, minute, second) = (
        random.random_range(0..24),
        random.random_range(0..60),
        random.random_range(0..60),
    );
    let digits = random.random_range(0..7_usize);
    let fraction = format!("{:06}", random.random_range(0..1_000_000));
    let point = if digits > 0 { "." } else { "" };
    format!(
        "{hour:02}:{minute:02}:{second:02}{point}{}",
        &fraction[..digits]
    )
}

fn random_integer(random: &mut StdRng, bits: u32) -> i64 {
    let shift = random.random_range(64 - bits..64);
    random.random::<i64>() >> shift
}

fn random_numeric(random: &mut StdRng) -> String {
    let digits = |random: &mut StdRng, most| -> String {
        let count = random.random_range(0..most);
        (0..count)
            .map(|_| *['0', '0', '0', '1', '5', '9'].choose(random).unwrap())
            .collect()
    };
    let sign = ["", "-", "+"].choose(random).unwrap();
    let most = if random.random_range(0..20) == 0 {
        300
    } else {
        15
    };
    let integer = digits(random, most);
    let fraction = digits(random, most);
    let exponent = match random.random_range(0..5) {
        0 => format!("e{}", random.random_range(-40..40)),
        _ => String::new(),
    };
    format!("{sign}0{integer}.{fraction}{exponent}")
}

/// A value that the proxy must be able to read.
pub fn random_value(random: &mut StdRng, type_name: &str) -> String {
    match type_name {
        "int2" => random_integer(random, 16).to_string(),
        "int4" => random_integer(random, 32).to_string(),
        "int8" => random_integer(random, 64).to_string(),
        "numeric" => random_numeric(random),
        "uuid" => random_uuid(random),
        "date" => {
            let (date, era) = random_date(random, 5_000_000);
            format!("{date}{era}")
        }
        "timestamp" => {
            let (date, era) = random_date(random, 294_000);
            format!("{date} {}{era}", random_time(random))
        }
        "timestamptz" => {
            let (date, era) = random_date(random, 294_000);
            let offset = ["+00", "Z", "-07", "+05:45", "-0330", "+01:23:45", "+15"]
                .choose(random)
                .unwrap();
            format!("{date}T{}{offset}{era}", random_time(random))
        }
        "bytea" => random_text(random)
            .bytes()
            .fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
        "bool" => ["t", "f", "true", "false", "on", "off", "1", "0"]
            .choose(random)
            .unwrap()
            .to_string(),
        _ => random_text(random),
    }
}

/// A text near a value: characters dropped, doubled or replaced.
pub fn mutate(random: &mut StdRng, value: &str) -> String {
    let mut characters: Vec<char> = value.chars().collect();
    for _ in 0..random.random_range(0..3) {
        let position = random.random_range(0..=characters.len());
        let other = *[
            ' ', '0', '1', '9', '-', '+', ':', '.', 'T', 'Z', 'e', 'a', '{', '}', '\\', 'x', '/',
            '_', 'B', 'C',
        ]
        .choose(random)
        .unwrap();
        match random.random_range(0..3) {
            0 => characters.insert(position, other),
            1 if position < characters.len() => {
                characters.remove(position);
            }
            _ if position < characters.len() => characters[position] = other,
            _ => {}
        }
    }
    characters.into_iter().collect()
}
