//! Parsers of single values: durations, sizes, addresses, slots, names, verifiers.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Address;
use super::ListenAddress;
use super::Network;
use super::SLOTS;

/// PostgreSQL's own port, for server addresses without one.
const SERVER_PORT: u16 = 5432;
/// Shardwire's port, for socket directories without one.
const LISTEN_PORT: u16 = 6432;
/// Longer socket paths do not fit into `sockaddr_un`.
const MAX_SOCKET_PATH: usize = 107;
/// PostgreSQL cuts longer names off (`NAMEDATALEN` - 1).
const MAX_NAME: usize = 63;
/// Keeps `Instant + Duration` from overflowing anywhere in the program.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a value is wrong: the end of a sentence that begins with the value, and what to write. Neither
/// quotes the value, which may be a secret that came from the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) hint: &'static str,
}

fn fault<T>(what: &'static str, hint: &'static str) -> Result<T, Fault> {
    Err(Fault { what, hint })
}

/// A duration with its unit: `500ms`, `5s`, `10m`, `1h`, `1d`. Neither zero nor above a year.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    const HINT: &str = "Write a whole number and a unit: 500ms, 5s, 10m, 1h or 1d.";
    let (number, unit) = number_and_unit(text, "is not a duration", HINT)?;
    let microseconds: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        "" => return fault("has no unit", HINT),
        _ => return fault("has an unknown unit", HINT),
    };
    let total = number.checked_mul(microseconds).map(Duration::from_micros);
    match total {
        Some(Duration::ZERO) => fault("is zero", "Write a duration above zero."),
        Some(total) if total <= MAX_DURATION => Ok(total),
        _ => fault("is longer than a year", "Write at most 365d."),
    }
}

/// A duration as [`duration`] reads it, in the largest unit that divides it.
pub(super) fn format_duration(duration: Duration) -> String {
    let microseconds = duration.as_micros();
    let units = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ];
    let divides = |unit: &&(u128, &str)| microseconds > 0 && microseconds.is_multiple_of(unit.0);
    let (unit, name) = units.iter().find(divides).unwrap_or(&(1, "us"));
    format!("{}{name}", microseconds / unit)
}

/// A size in bytes with its unit. As in PostgreSQL, kB, MB and GB count in steps of 1024, like KiB,
/// MiB and GiB.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    const HINT: &str = "Write a whole number and a unit: 512B, 64KiB, 16MiB or 1GiB.";
    let (number, unit) = number_and_unit(text, "is not a size", HINT)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "kB" | "KB" | "KiB" => 1 << 10,
        "MB" | "MiB" => 1 << 20,
        "GB" | "GiB" => 1 << 30,
        "TB" | "TiB" => 1 << 40,
        "" => return fault("has no unit", HINT),
        _ => return fault("has an unknown unit", HINT),
    };
    match number.checked_mul(bytes) {
        Some(total) => Ok(total),
        None => fault("is too large", HINT),
    }
}

/// A size as [`size`] reads it, in the largest unit that divides it.
pub(super) fn format_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let divides = |unit: &&(u32, &str)| bytes > 0 && bytes.is_multiple_of(1 << unit.0);
    let (shift, name) = units.iter().find(divides).unwrap_or(&(0, "B"));
    format!("{}{name}", bytes >> shift)
}

fn number_and_unit<'a>(
    text: &'a str,
    what: &'static str,
    hint: &'static str,
) -> Result<(u64, &'a str), Fault> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    match number.parse() {
        Ok(number) => Ok((number, unit.trim_start())),
        Err(_) => fault(what, hint),
    }
}

/// Where to listen: an IP address with a port, or a socket directory with or without one.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, Fault> {
    if !text.starts_with('/') {
        return tcp_listen_address(text).map(ListenAddress::Tcp);
    }
    let (directory, port) = directory_and_port(text, LISTEN_PORT)?;
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return fault(
            "is too long for a socket",
            "The path of a socket has at most 107 bytes; choose a shorter directory.",
        );
    }
    Ok(ListenAddress::Unix(socket))
}

/// An IP address with a port.
pub(super) fn tcp_listen_address(text: &str) -> Result<SocketAddr, Fault> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => fault(
            "is not an IP address with a port",
            "Write an address of this machine and a port: 127.0.0.1:6432, 0.0.0.0:6432 for all \
             interfaces, or \"[::]:6432\" with IPv6.",
        ),
    }
}

/// Where a server listens: host or IP address, or socket directory, each with or without a port.
pub(super) fn server_address(text: &str) -> Result<Address, Fault> {
    const HINT: &str = "Write a host and a port (10.0.0.1:5432, \"[::1]:5432\") or the directory of a unix \
         socket and a port (/run/postgresql:5432).";
    if text.contains("://") {
        return fault("is a URL", HINT);
    }
    if text.starts_with('/') {
        let (directory, port) = directory_and_port(text, SERVER_PORT)?;
        return Ok(Address::Unix { directory, port });
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return fault("has no closing bracket", HINT);
        };
        let Ok(host) = host.parse::<Ipv6Addr>() else {
            return fault("is not an IPv6 address", HINT);
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port_number(port)?,
            None if port.is_empty() => SERVER_PORT,
            None => return fault("is not an address", HINT),
        };
        let host = host.to_string();
        return Ok(Address::Tcp { host, port });
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return fault("is an IPv6 address without brackets", HINT);
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port_number(port)?),
        None => (text, SERVER_PORT),
    };
    if !is_host(host) {
        return fault("is not an address", HINT);
    }
    let host = host.to_ascii_lowercase();
    Ok(Address::Tcp { host, port })
}

/// Names of hosts, and IPv4 addresses. Four numbers that are no IPv4 address are a typing error.
fn is_host(host: &str) -> bool {
    let mut characters = host.chars();
    let allowed = characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let labels = host.trim_end_matches('.').split('.');
    allowed
        && host.len() <= 253
        && labels.into_iter().all(|label| !label.is_empty())
        && (!numeric || host.parse::<IpAddr>().is_ok())
}

fn directory_and_port(text: &str, default: u16) -> Result<(PathBuf, u16), Fault> {
    let (directory, port) = match text.rsplit_once(':') {
        Some((directory, port)) => (directory, port_number(port)?),
        None => (text, default),
    };
    if Path::new(directory)
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(".s.PGSQL."))
    {
        return fault(
            "names a socket file",
            "Name the directory of the socket and the port: /run/postgresql:5432.",
        );
    }
    Ok((directory.into(), port))
}

fn port_number(text: &str) -> Result<u16, Fault> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => fault("has no valid port", "Ports are numbers from 1 to 65535."),
    }
}

/// One slot or a run of them: `0`, `0-8191`.
pub(super) fn slots(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    const HINT: &str = "Write slots from 0 to 16383: \"0-8191\" or \"42\".";
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let slot = |text: &str| text.trim().parse::<u16>().ok().filter(|slot| *slot < SLOTS);
    match (slot(first), slot(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => fault("runs backwards", HINT),
        _ => fault("is not a run of slots", HINT),
    }
}

/// A name as PostgreSQL's catalogs may hold one.
pub(super) fn name(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return fault("is empty", "Write a name.");
    }
    if text.len() > MAX_NAME {
        return fault("is too long", "PostgreSQL's names have at most 63 bytes.");
    }
    if text.chars().any(char::is_control) {
        return fault("holds a control character", "Write a printable name.");
    }
    Ok(())
}

/// A name that also stands in metrics, comments and file names without quotes.
pub(super) fn simple_name(text: &str) -> Result<(), Fault> {
    name(text)?;
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.chars().all(simple) {
        return Ok(());
    }
    fault(
        "is not a simple name",
        "Use letters, digits, \"_\", \"-\" and \".\".",
    )
}

/// The form that a password is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasswordForm {
    /// The password itself.
    Plain,
    /// A SCRAM verifier, as `pg_authid.rolpassword` holds it.
    Verifier,
    /// An md5 hash, as `pg_authid.rolpassword` may hold it.
    Md5,
}

/// The form of a password.
pub(super) fn password_form(text: &str) -> Result<PasswordForm, Fault> {
    const HINT: &str = "Write the password itself, or a verifier as pg_authid.rolpassword holds it: \
         SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>.";
    if text.is_empty() {
        return fault("is empty", "Leave it out, or write a password.");
    }
    if text.contains('\0') {
        return fault("holds a zero byte", "PostgreSQL allows none in passwords.");
    }
    if let Some(hash) = text.strip_prefix("md5").filter(|hash| hash.len() == 32)
        && hash.bytes().all(is_hex)
    {
        return Ok(PasswordForm::Md5);
    }
    let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") else {
        return Ok(PasswordForm::Plain);
    };
    let key = |text: &str| BASE64.decode(text).is_ok_and(|key| key.len() == 32);
    let (iterations, salt, keys) = match rest.split_once('$').map(|(a, b)| (a.split_once(':'), b)) {
        Some((Some((iterations, salt)), keys)) => (iterations, salt, keys),
        _ => return fault("is a broken SCRAM verifier", HINT),
    };
    let salted = iterations.parse::<u32>().is_ok_and(|count| count > 0)
        && BASE64.decode(salt).is_ok_and(|salt| !salt.is_empty());
    match keys.split_once(':') {
        Some((stored, server)) if salted && key(stored) && key(server) => {
            Ok(PasswordForm::Verifier)
        }
        _ => fault("is a broken SCRAM verifier", HINT),
    }
}

/// A network: an address, with or without the number of bits that count.
pub(super) fn network(text: &str) -> Result<Network, Fault> {
    const HINT: &str =
        "Write an IP address, alone or with a prefix: 10.0.0.0/8, 10.1.2.3, \"fd00::/8\", or all.";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return fault("is not a network", HINT);
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix.map(str::parse::<u8>) {
        None => most,
        Some(Ok(prefix)) if prefix <= most => prefix,
        Some(_) => return fault("has no valid prefix", HINT),
    };
    let shift = u32::from(prefix);
    let beyond = match address {
        IpAddr::V4(address) => u128::from(address.to_bits().checked_shl(shift).unwrap_or(0)),
        IpAddr::V6(address) => address.to_bits().checked_shl(shift).unwrap_or(0),
    };
    if beyond != 0 {
        return fault("has bits beyond its prefix", HINT);
    }
    Ok(Network { address, prefix })
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// A log filter: a level, or directives such as `info,shardwire::pool=debug`.
pub(super) fn log_level(text: &str) -> Result<(), Fault> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |directive: &str| {
        let (target, level) = directive.rsplit_once('=').unwrap_or(("all", directive));
        let target_ok = target
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'));
        !target.is_empty() && target_ok && LEVELS.contains(&level)
    };
    if text.split(',').map(str::trim).all(known) {
        return Ok(());
    }
    fault(
        "is not a log level",
        "Use off, error, warn, info, debug or trace, alone or for a part of the program: \
         info,shardwire::pool=debug.",
    )
}

/// The text with every `${NAME}` replaced and `$$` made `$`; any other `$` stays.
///
/// # Errors
/// What is wrong with each reference.
pub(super) fn expand(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<(String, &'static str)>> {
    let mut expanded = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}') else {
                const HINT: &str = "Write ${NAME}, or $${ for the two characters themselves.";
                faults.push(("\"${\" without \"}\"".to_owned(), HINT));
                break;
            };
            match variable(name, env) {
                Ok(value) => expanded.push_str(&value),
                Err(fault) => faults.push(fault),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    if faults.is_empty() {
        Ok(expanded)
    } else {
        Err(faults)
    }
}

fn variable(
    name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, (String, &'static str)> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let reads_well = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !starts_well || !reads_well {
        const HINT: &str = "Names of variables hold letters, digits and \"_\" only.";
        return Err((format!("\"${{{name}}}\" names no variable"), HINT));
    }
    const HINT: &str = "Set it before starting shardwire, or write $${ for the characters.";
    env(name).ok_or_else(|| (format!("environment variable {name} is not set"), HINT))
}
