//! The untagged packets that open a connection: startup, cancel, and requests for encryption.
//!
//! Source: PostgreSQL documentation, 55.2.1 (Start-up), 55.2.10 (SSL), 55.7 (Message Formats).

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::buffer::{Reader, cstring, message, untagged};

/// The first byte of a TLS record of type handshake: direct TLS instead of SSLRequest.
pub const TLS_HANDSHAKE: u8 = 0x16;
/// The protocol's major version.
pub const MAJOR: u16 = 3;
/// The newest minor version that the proxy speaks.
pub const NEWEST_MINOR: u16 = 2;
/// The least and the most bytes of a cancel key's secret (protocol 3.0 has 4).
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;
/// A packet's length field and code, in bytes: what every packet has.
pub const HEADER_BYTES: usize = 8;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// One packet, before any message has a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// The client asks for TLS.
    SslRequest,
    /// The client asks for GSSAPI encryption.
    GssEncRequest,
    /// The client asks to cancel what another connection is doing.
    Cancel {
        /// The process id given in BackendKeyData.
        process_id: i32,
        /// The secret given in BackendKeyData, [`SECRET_BYTES`] long.
        secret: Vec<u8>,
    },
    /// The client starts a session.
    Startup {
        /// The protocol's major version; unless it is 3 the parameters are not read.
        major: u16,
        /// The protocol's minor version.
        minor: u16,
        /// The parameters in the order sent, repetitions included.
        parameters: Vec<(String, String)>,
    },
}

/// Reads a packet's first four bytes: how many bytes follow them.
///
/// # Errors
/// `08P01` if the packet is too short to be one, or longer than `limit` bytes.
pub fn rest_length(length: [u8; 4], limit: usize) -> Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if (HEADER_BYTES..=limit.max(HEADER_BYTES)).contains(&length) {
        Ok(length - 4)
    } else {
        Err(Error::protocol("invalid length of startup packet"))
    }
}

/// Reads a packet without its length field.
///
/// # Errors
/// `08P01` if it is malformed.
pub fn parse(packet: &[u8]) -> Result<StartupPacket> {
    let mut reader = Reader::new(packet);
    match reader.u32()? {
        SSL_REQUEST => reader.end().map(|()| StartupPacket::SslRequest),
        GSSENC_REQUEST => reader.end().map(|()| StartupPacket::GssEncRequest),
        CANCEL_REQUEST => cancel(reader),
        version => {
            let [a, b, c, d] = version.to_be_bytes();
            let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let parameters = if major == MAJOR {
                parameters(reader)?
            } else {
                Vec::new()
            };
            Ok(StartupPacket::Startup {
                major,
                minor,
                parameters,
            })
        }
    }
}

fn cancel(mut reader: Reader<'_>) -> Result<StartupPacket> {
    let process_id = reader.i32()?;
    let secret = reader.rest();
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err(Error::protocol("invalid length of cancel request packet"));
    }
    Ok(StartupPacket::Cancel {
        process_id,
        secret: secret.to_vec(),
    })
}

fn parameters(mut reader: Reader<'_>) -> Result<Vec<(String, String)>> {
    let layout = || Error::protocol("invalid startup packet layout");
    let terminator = || layout().detail("The packet's last byte is not its terminator.");
    let mut parameters = Vec::new();
    loop {
        let name = reader.cstring().map_err(|_| terminator())?;
        if name.is_empty() {
            reader.end().map_err(|_| terminator())?;
            return Ok(parameters);
        }
        let value = reader.cstring().map_err(|_| terminator())?;
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| layout().detail("A name or a value in it is not valid UTF-8."))
        };
        parameters.push((text(name)?, text(value)?));
    }
}

/// The value of a startup parameter; the last one counts if it is repeated.
pub fn parameter<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters
        .iter()
        .rev()
        .find(|(candidate, _)| candidate == name)
        .map(|(_, value)| value.as_str())
}

/// Splits the startup parameter `options` (`-c name=value --name=value`) into settings.
///
/// Blanks separate arguments and a backslash takes the next character as it is, as in
/// PostgreSQL's `pg_split_opts`; dashes in names given as `--name` become underscores.
///
/// # Errors
/// `42601` for an argument that is not a setting.
pub fn options(text: &str) -> Result<Vec<(String, String)>> {
    let mut arguments = split_options(text).into_iter();
    let mut settings = Vec::new();
    while let Some(argument) = arguments.next() {
        let refuse = || {
            Error::fatal(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {argument}"),
            )
            .hint("Write settings as `-c name=value`.")
        };
        let setting = match (argument.strip_prefix("--"), argument.strip_prefix("-c")) {
            (Some(long), _) => long.to_owned(),
            (None, Some("")) => arguments.next().ok_or_else(refuse)?,
            (None, Some(joined)) => joined.to_owned(),
            (None, None) => return Err(refuse()),
        };
        let (name, value) = setting.split_once('=').ok_or_else(refuse)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split_options(text: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(char::is_ascii_whitespace).is_some() {}
        if characters.peek().is_none() {
            return arguments;
        }
        let mut argument = String::new();
        while let Some(character) = characters.next_if(|c| !c.is_ascii_whitespace()) {
            if character != '\\' {
                argument.push(character);
            } else if let Some(escaped) = characters.next() {
                argument.push(escaped);
            }
        }
        arguments.push(argument);
    }
}

/// Appends SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    untagged(out, |body| {
        body.extend_from_slice(&SSL_REQUEST.to_be_bytes());
    });
}

/// Appends GSSENCRequest.
pub fn gssenc_request(out: &mut Vec<u8>) {
    untagged(out, |body| {
        body.extend_from_slice(&GSSENC_REQUEST.to_be_bytes());
    });
}

/// Appends CancelRequest.
pub fn cancel_request(out: &mut Vec<u8>, process_id: i32, secret: &[u8]) {
    untagged(out, |body| {
        body.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        body.extend_from_slice(&process_id.to_be_bytes());
        body.extend_from_slice(secret);
    });
}

/// Appends StartupMessage of protocol 3.`minor`.
pub fn startup<'a>(
    out: &mut Vec<u8>,
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    untagged(out, |body| {
        body.extend_from_slice(&MAJOR.to_be_bytes());
        body.extend_from_slice(&minor.to_be_bytes());
        for (name, value) in parameters {
            cstring(body, name.as_bytes());
            cstring(body, value.as_bytes());
        }
        body.push(0);
    });
}

/// Appends NegotiateProtocolVersion: the session goes on as 3.`minor`, without `unknown` options.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u16, unknown: &[&str]) {
    message(out, b'v', |body| {
        body.extend_from_slice(&MAJOR.to_be_bytes());
        body.extend_from_slice(&minor.to_be_bytes());
        let count = u32::try_from(unknown.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for option in unknown {
            cstring(body, option.as_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        let length = out.first_chunk().copied().unwrap();
        assert_eq!(rest_length(length, 10_000).unwrap(), out.len() - 4);
        out.split_off(4)
    }

    #[test]
    fn requests_read_back() {
        assert_eq!(
            parse(&packet(ssl_request)).unwrap(),
            StartupPacket::SslRequest
        );
        assert_eq!(
            parse(&packet(gssenc_request)).unwrap(),
            StartupPacket::GssEncRequest
        );
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        for length in [0, 4, 7, 10_001, u32::MAX, u32::from_be_bytes(*b"GET ")] {
            let error = rest_length(length.to_be_bytes(), 10_000).unwrap_err();
            assert_eq!(error.code(), SqlState::PROTOCOL_VIOLATION);
        }
        assert_eq!(rest_length(8_u32.to_be_bytes(), 10_000).unwrap(), 4);
        assert_eq!(
            rest_length(10_000_u32.to_be_bytes(), 10_000).unwrap(),
            9_996
        );
    }

    #[test]
    fn secrets_of_all_lengths_are_read() {
        for length in [4, 32, 256] {
            let secret = vec![7; length];
            let body = packet(|out| cancel_request(out, -3, &secret));
            assert_eq!(
                parse(&body).unwrap(),
                StartupPacket::Cancel {
                    process_id: -3,
                    secret
                }
            );
        }
        for length in [0, 3, 257] {
            let body = packet(|out| cancel_request(out, 1, &vec![7; length]));
            assert!(parse(&body).is_err(), "{length}");
        }
    }

    #[test]
    fn other_major_versions_are_left_to_the_caller() {
        let mut body = vec![0, 2, 0, 0];
        body.extend_from_slice(&[0xff; 292]);
        assert_eq!(
            parse(&body).unwrap(),
            StartupPacket::Startup {
                major: 2,
                minor: 0,
                parameters: Vec::new()
            }
        );
    }

    #[test]
    fn layouts_without_their_terminator_are_refused() {
        let bad: [&[u8]; 6] = [
            b"",
            b"user\0x\0",
            b"user\0",
            b"user",
            b"user\0x\0\0\0",
            b"user\0\xff\0\0",
        ];
        for tail in bad {
            let body = [&[0, 3, 0, 0], tail].concat();
            let error = parse(&body).unwrap_err();
            assert_eq!(error.code(), SqlState::PROTOCOL_VIOLATION, "{tail:?}");
            assert!(error.is_fatal());
        }
        assert!(parse(b"\0\x03\0\0\0").is_ok());
    }

    #[test]
    fn the_last_of_repeated_parameters_counts() {
        let parameters = [("user", "a"), ("user", "b"), ("database", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parameter(&parameters, "user"), Some("b"));
        assert_eq!(parameter(&parameters, "database"), Some(""));
        assert_eq!(parameter(&parameters, "options"), None);
    }

    #[test]
    fn options_are_split_as_postgresql_splits_them() {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            options(r"-c geqo=off -csearch_path=a\ b,c --statement-timeout=5min  -c x=\\").unwrap(),
            [
                setting("geqo", "off"),
                setting("search_path", "a b,c"),
                setting("statement_timeout", "5min"),
                setting("x", "\\"),
            ]
        );
        assert_eq!(options("  ").unwrap(), []);
        for bad in ["-c", "-c geqo", "geqo=off", "-x 1", "-"] {
            let error = options(bad).unwrap_err();
            assert_eq!(error.code(), SqlState::SYNTAX_ERROR, "{bad}");
        }
    }

    #[test]
    fn negotiation_names_the_version_and_the_options() {
        let mut out = Vec::new();
        negotiate_protocol_version(&mut out, 2, &["_pq_.a"]);
        assert_eq!(out, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
            let version_3 = [&[0, 3, 0, 0], body.as_slice()].concat();
            let _ = parse(&version_3);
            let cancel = [&CANCEL_REQUEST.to_be_bytes(), body.as_slice()].concat();
            let _ = parse(&cancel);
        }

        #[test]
        fn no_options_panic(text in ".*") {
            let _ = options(&text);
        }

        #[test]
        fn startups_read_back(
            minor in any::<u16>(),
            sent in proptest::collection::vec(("[^\0]{1,8}", "[^\0]{0,8}"), 0..6),
        ) {
            let pairs = sent.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let body = packet(|out| startup(out, minor, pairs));
            let expected = StartupPacket::Startup { major: 3, minor, parameters: sent };
            prop_assert_eq!(parse(&body).unwrap(), expected);
        }
    }
}
