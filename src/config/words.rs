//! The words that stand for the values of enumerations, in proxy.yaml, in SET and in SHOW.

use super::AuthMethod;
use super::BackendTlsMode;
use super::ClientCert;
use super::ClientName;
use super::ConnectionKind;
use super::Consistency;
use super::HashKind;
use super::LogFormat;
use super::PoolMode;
use super::ReadPreference;
use super::TlsMode;

/// An enumeration whose values have words.
pub trait Word: Copy + PartialEq + 'static {
    /// Every value with its word.
    const WORDS: &'static [(&'static str, Self)];

    /// The value of a word.
    fn from_word(word: &str) -> Option<Self> {
        let found = Self::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| *value)
    }

    /// The word of a value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.map_or("", |(word, _)| word)
    }
}

impl Word for bool {
    const WORDS: &'static [(&'static str, bool)] = &[("true", true), ("false", false)];
}

impl Word for AuthMethod {
    const WORDS: &'static [(&'static str, AuthMethod)] = &[
        ("trust", AuthMethod::Trust),
        ("password", AuthMethod::Password),
        ("md5", AuthMethod::Md5),
        ("scram-sha-256", AuthMethod::ScramSha256),
        ("cert", AuthMethod::Cert),
        ("reject", AuthMethod::Reject),
    ];
}

impl Word for ClientCert {
    const WORDS: &'static [(&'static str, ClientCert)] = &[
        ("verify-ca", ClientCert::VerifyCa),
        ("verify-full", ClientCert::VerifyFull),
    ];
}

impl Word for ClientName {
    const WORDS: &'static [(&'static str, ClientName)] = &[
        ("cn", ClientName::CommonName),
        ("san", ClientName::AlternativeName),
    ];
}

impl Word for ConnectionKind {
    const WORDS: &'static [(&'static str, ConnectionKind)] = &[
        ("local", ConnectionKind::Local),
        ("host", ConnectionKind::Host),
        ("hostssl", ConnectionKind::HostSsl),
        ("hostnossl", ConnectionKind::HostNoSsl),
    ];
}

impl Word for TlsMode {
    const WORDS: &'static [(&'static str, TlsMode)] = &[
        ("off", TlsMode::Off),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
    ];
}

impl Word for BackendTlsMode {
    const WORDS: &'static [(&'static str, BackendTlsMode)] = &[
        ("off", BackendTlsMode::Off),
        ("prefer", BackendTlsMode::Prefer),
        ("require", BackendTlsMode::Require),
        ("verify-ca", BackendTlsMode::VerifyCa),
        ("verify-full", BackendTlsMode::VerifyFull),
    ];
}

impl Word for PoolMode {
    const WORDS: &'static [(&'static str, PoolMode)] = &[
        ("transaction", PoolMode::Transaction),
        ("session", PoolMode::Session),
    ];
}

impl Word for ReadPreference {
    const WORDS: &'static [(&'static str, ReadPreference)] = &[
        ("primary", ReadPreference::Primary),
        ("primary_preferred", ReadPreference::PrimaryPreferred),
        ("secondary", ReadPreference::Secondary),
        ("secondary_preferred", ReadPreference::SecondaryPreferred),
        ("nearest", ReadPreference::Nearest),
    ];
}

impl Word for Consistency {
    const WORDS: &'static [(&'static str, Consistency)] = &[
        ("strong", Consistency::Strong),
        ("session", Consistency::Session),
        ("eventual", Consistency::Eventual),
    ];
}

impl Word for HashKind {
    const WORDS: &'static [(&'static str, HashKind)] =
        &[("postgres", HashKind::Postgres), ("xxh3", HashKind::Xxh3)];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, LogFormat)] =
        &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}
