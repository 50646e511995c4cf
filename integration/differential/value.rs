//! Constants and parameters: values of every type, spelt in every way.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::schema::Kind;

/// A parameter of a statement in the extended protocol.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The declared type; 0 leaves it to the server.
    pub oid: u32,
    /// 0 text, 1 binary.
    pub format: i16,
    pub bytes: Option<Vec<u8>>,
    /// For reports.
    pub text: String,
}

impl Kind {
    /// OID of the type.
    pub fn oid(self) -> u32 {
        match self {
            Kind::Int2 => 21,
            Kind::Int4 => 23,
            Kind::Int8 => 20,
            Kind::Numeric => 1700,
            Kind::Text => 25,
            Kind::Varchar => 1043,
            Kind::Bpchar => 1042,
            Kind::Date => 1082,
            Kind::Timestamp => 1114,
            Kind::Timestamptz => 1184,
            Kind::Bool => 16,
            Kind::Uuid => 2950,
        }
    }

    pub fn is_number(self) -> bool {
        self.is_integer() || self == Kind::Numeric
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Kind::Int2 | Kind::Int4 | Kind::Int8)
    }

    pub fn is_text(self) -> bool {
        matches!(self, Kind::Text | Kind::Varchar | Kind::Bpchar)
    }

    /// Whether `=` between them is a thing of everyday.
    pub fn comparable(self, other: Kind) -> bool {
        let dates = |kind| matches!(kind, Kind::Date | Kind::Timestamp | Kind::Timestamptz);
        self == other
            || (self.is_number() && other.is_number())
            || (self.is_text() && other.is_text())
            || (dates(self) && dates(other))
    }

    /// The text of value `index` of the type.
    pub fn text(self, index: i32) -> String {
        match self {
            Kind::Int2 | Kind::Int4 | Kind::Int8 => index.to_string(),
            Kind::Numeric if index % 2 == 0 => index.to_string(),
            Kind::Numeric => format!("{}", f64::from(index) * 1.25),
            Kind::Text | Kind::Varchar | Kind::Bpchar => match index {
                0 => String::new(),
                17 => "größe €".to_owned(),
                _ => format!("key {index}"),
            },
            Kind::Date => format!("2024-03-{:02}", index.clamp(0, 30) + 1),
            Kind::Timestamp => format!("2024-03-{:02} 12:00:00", index.clamp(0, 30) + 1),
            Kind::Timestamptz => format!("2024-03-{:02} 12:00:00+00", index.clamp(0, 30) + 1),
            Kind::Bool => (index % 2 == 0).to_string(),
            Kind::Uuid => format!("00000000-0000-4000-8000-{:012}", index.unsigned_abs()),
        }
    }
}

/// A constant of the type, spelt so that PostgreSQL reads it as the value, or as something near it.
/// `shape` decides how it is spelt, `value` what it is.
pub fn spell(kind: Kind, text: &str, shape: &mut StdRng) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if shape.random_range(0..10) < 6 {
        return match kind {
            _ if kind.is_number() => text.to_owned(),
            Kind::Bool => text.to_owned(),
            _ => quoted,
        };
    }
    let form = forms(kind).choose(shape).unwrap();
    form.replace("{q}", &quoted).replace("{v}", text)
}

/// Ways to write a constant: `{v}` is its text, `{q}` that in quotes.
#[allow(clippy::too_many_lines, reason = "a table")]
fn forms(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Int2 | Kind::Int4 | Kind::Int8 => &[
            "{q}",
            "{v}::int",
            "{v}::bigint",
            "{q}::int8",
            "{v}.0",
            "{v}::smallint",
            "bigint {q}",
            "CAST({v} AS int)",
            "({v})",
            "+{v}",
            "-(-{v})",
            "{v} + 0",
            "{v}::numeric",
            "{v}::float8",
            "(SELECT {v})",
            "{v}.5",
            "NULL",
            "' {v} '",
            "{v}::int4::int8",
            "{q}::text::int",
            "1 * {v}",
            "abs({v})",
            "E{q}",
            "$${v}$$",
            "U&{q}",
            "{v}e0",
            "{v}.",
            "'{v}'::numeric",
            "{v}.4::int",
            "'{v}.4'::numeric::int8",
            "- - {v}",
            "{v} | 0",
            "{v} # 0",
            "{v} % 100",
            "int '{v}'",
            "NULL::bigint",
            "'{v}.0'",
            "0{v}",
            "{v}::int8::int2",
            "(({v})::bigint)",
        ],
        Kind::Numeric => &[
            "{q}",
            "{v}::numeric",
            "{v}0",
            "{q}::numeric(12,3)",
            "{v}::numeric(4,0)",
            "'{v}0'",
            "({v})",
            "+{v}",
            "{v} + 0",
            "{v}::float8",
            "{v}e0",
            "NULL",
            "' {v}'",
            "numeric {q}",
            "{v}::text::numeric",
            "'NaN'",
            "{v}::int",
            "{v}::decimal",
        ],
        Kind::Text | Kind::Varchar | Kind::Bpchar => &[
            "{q}",
            "E{q}",
            "U&{q}",
            "$${v}$$",
            "$a${v}$a$",
            "{q}::text",
            "{q}::varchar",
            "{q}::char(8)",
            "{q}::varchar(3)",
            "{q}::bpchar",
            "{q} || ''",
            "'' || {q}",
            "{q} COLLATE \"C\"",
            "NULL",
            "lower({q})",
            "'{v} '",
            "'{v}  '::text",
            "'{v} '::bpchar",
            "text {q}",
            "varchar {q}",
            "CAST({q} AS text)",
            "{q}::name",
            "{q}::char",
            "({q})",
            "N{q}",
            "{q}::text::varchar",
            "'{v} '::varchar(20)",
            "concat({q}, '')",
            "(SELECT {q})",
            "''\n{q}",
            "upper({q})",
        ],
        Kind::Date | Kind::Timestamp | Kind::Timestamptz => &[
            "{q}",
            "date {q}",
            "{q}::date",
            "{q}::timestamp",
            "timestamp {q}",
            "{q}::timestamptz",
            "timestamptz {q}",
            "{q}::date + 1",
            "CAST({q} AS date)",
            "NULL",
            "' {v} '",
            "'{v} BC'",
            "'{v}'::timestamp(0)",
            "{q}::text::date",
            "E{q}",
            "'infinity'",
            "date({q})",
            "'{v}'::date - 0",
            "timestamp with time zone {q}",
            "'{v}'::timestamp::date",
        ],
        Kind::Bool => &[
            "{q}",
            "{q}::bool",
            "NOT {v}",
            "'t'",
            "'yes'",
            "'off'",
            "1::bool",
            "NULL",
            "({v})",
            "bool {q}",
            "{v} IS TRUE",
            "NOT NOT {v}",
            "{v} AND true",
        ],
        Kind::Uuid => &[
            "{q}",
            "{q}::uuid",
            "uuid {q}",
            "'{{v}}'",
            "upper({q})::uuid",
            "NULL",
            "{q}::text::uuid",
        ],
    }
}

/// A parameter with the value: of the column's type, of another, or of none.
pub fn parameter(kind: Kind, text: &str, shape: &mut StdRng) -> Parameter {
    let declared = match shape.random_range(0..10) {
        0..6 => None,
        6..8 => Some(kind),
        _ => Some(match kind {
            _ if kind.is_number() => *[
                Kind::Int2,
                Kind::Int4,
                Kind::Int8,
                Kind::Numeric,
                Kind::Text,
            ]
            .choose(shape)
            .unwrap(),
            _ if kind.is_text() => *[Kind::Text, Kind::Varchar, Kind::Bpchar]
                .choose(shape)
                .unwrap(),
            Kind::Date | Kind::Timestamp | Kind::Timestamptz => {
                *[Kind::Date, Kind::Timestamp, Kind::Timestamptz]
                    .choose(shape)
                    .unwrap()
            }
            other => other,
        }),
    };
    let null = shape.random_bool(0.03);
    let binary = shape
        .random_bool(0.4)
        .then(|| binary(declared.unwrap_or(kind), text));
    let (format, bytes) = match binary.flatten() {
        Some(bytes) => (1, bytes),
        None => (0, text.as_bytes().to_vec()),
    };
    Parameter {
        oid: declared.map_or(0, Kind::oid),
        format,
        bytes: (!null).then_some(bytes),
        text: if null { "NULL".into() } else { text.into() },
    }
}

/// The value in the binary format of the type; none where that is too much work.
fn binary(kind: Kind, text: &str) -> Option<Vec<u8>> {
    Some(match kind {
        Kind::Int2 => text.parse::<i16>().ok()?.to_be_bytes().to_vec(),
        Kind::Int4 => text.parse::<i32>().ok()?.to_be_bytes().to_vec(),
        Kind::Int8 => text.parse::<i64>().ok()?.to_be_bytes().to_vec(),
        Kind::Text | Kind::Varchar | Kind::Bpchar => text.as_bytes().to_vec(),
        Kind::Bool => vec![u8::from(text == "true")],
        Kind::Date => days(text)?.to_be_bytes().to_vec(),
        Kind::Timestamp | Kind::Timestamptz => {
            let noon = text.contains("12:00").then_some(12)?;
            let hours = i64::from(days(text.get(..10)?)?) * 24 + noon;
            (hours * 3_600_000_000).to_be_bytes().to_vec()
        }
        Kind::Uuid => {
            let digits = text.replace('-', "");
            let byte = |at: usize| u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok();
            (0..16).map(byte).collect::<Option<Vec<u8>>>()?
        }
        Kind::Numeric => return None,
    })
}

/// Days since 2000-01-01 of a day in March 2024.
fn days(text: &str) -> Option<i32> {
    let day: i32 = text.strip_prefix("2024-03-")?.parse().ok()?;
    Some(8826 - 1 + day)
}
