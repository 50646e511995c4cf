//! Who may come in, from where and with what proof: the checked types of `auth`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::Secret;

/// How clients prove who they are, and who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The proof that is asked for where there are no rules.
    pub method: AuthMethod,
    /// Who may log in. Empty where nobody proves anything, it means anybody.
    pub users: BTreeMap<String, User>,
    /// Which proof is asked of whom: the first that fits decides, and none refuses. Without rules
    /// `method` holds for all.
    pub rules: Option<Vec<Rule>>,
    /// By name, which names of certificates stand for which users.
    pub maps: BTreeMap<String, Vec<Mapping>>,
    /// Asked on a database's servers for users that `users` does not name, where the database has no
    /// query of its own: `$1` is the user; the answer is its name and its password.
    pub query: Option<String>,
    /// How long an answer holds.
    pub query_cache: Duration,
    /// Users for whom `limits.reserved_clients` are kept, whom the limits per user and per database do
    /// not bind, and who may do everything in the console.
    pub administrators: BTreeSet<String>,
    /// Users who may see everything in the console.
    pub stats_users: BTreeSet<String>,
}

impl Auth {
    /// Whether a user may see what is not its own.
    pub fn may_look(&self, user: &str) -> bool {
        self.may_change(user) || self.stats_users.contains(user)
    }

    /// Whether a user may pause, kill, reload and shut down.
    pub fn may_change(&self, user: &str) -> bool {
        self.administrators.contains(user)
    }
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            method: AuthMethod::default(),
            users: BTreeMap::new(),
            rules: None,
            maps: BTreeMap::new(),
            query: None,
            query_cache: Duration::from_secs(10),
            administrators: BTreeSet::new(),
            stats_users: BTreeSet::new(),
        }
    }
}

/// The proof that is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMethod {
    /// None.
    Trust,
    /// The password in clear text.
    Password,
    /// A hash of the password, of the user's name and of a salt, from users whose password is
    /// kept as an md5 hash; SCRAM-SHA-256 from all others.
    Md5,
    /// SCRAM-SHA-256 (RFC 7677), with channel binding when the client has TLS.
    #[default]
    ScramSha256,
    /// A certificate that names the user.
    Cert,
    /// Nobody is let in; in rules only.
    Reject,
}

impl AuthMethod {
    /// Whether a password is checked.
    pub fn asks_password(self) -> bool {
        match self {
            AuthMethod::Password | AuthMethod::Md5 | AuthMethod::ScramSha256 => true,
            AuthMethod::Trust | AuthMethod::Cert | AuthMethod::Reject => false,
        }
    }
}

/// A client user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// What the proof is checked against; present where every proof is a password.
    pub password: Option<Password>,
    /// Its role on the servers, instead of `backend.user` or, with `backend.per_user`, of the role
    /// of its own name.
    pub backend: Option<Role>,
    /// Its clients at once, instead of `limits.max_clients_per_user`.
    pub max_clients: Option<u32>,
}

/// A role on the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub user: String,
    /// Its password; none for servers that trust the proxy or take its certificate.
    pub password: Option<Secret>,
}

/// A client's password as the file gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// The password itself, not empty.
    Plain(Secret),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, of checked form, as
    /// `pg_authid.rolpassword` holds it.
    Verifier(Secret),
    /// `md5` and 32 hexadecimal digits, as `pg_authid.rolpassword` may still hold it.
    Md5(Secret),
}

/// One of `auth.rules`, as a line of pg_hba.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The connections it is for; none is all.
    pub kind: Option<ConnectionKind>,
    /// The databases it is for; none is all.
    pub databases: Option<Vec<DatabaseName>>,
    /// The users it is for; none is all.
    pub users: Option<Vec<String>>,
    /// The clients' addresses it is for; none is all, unix sockets included.
    pub addresses: Option<Vec<Network>>,
    /// What is asked of them.
    pub method: AuthMethod,
    /// The certificate that they need besides.
    pub client_cert: Option<ClientCert>,
    /// Which names of a certificate count.
    pub client_name: ClientName,
    /// Which of `auth.maps` says what users those names stand for; none is their own.
    pub map: Option<String>,
}

/// What a client's certificate must be, besides from a trusted authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCert {
    /// Nothing more.
    VerifyCa,
    /// The user's.
    VerifyFull,
}

/// Which names of a certificate count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientName {
    /// The common name of its subject.
    #[default]
    CommonName,
    /// Any of its alternative names: hosts, mail addresses and URIs.
    AlternativeName,
}

/// Users that a certificate's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The name, or a pattern of it with one `*`.
    pub certificate: String,
    /// The users; `*` in one is what that of the pattern stands for.
    pub users: Vec<String>,
}

/// The connections that a rule is for, as the first column of pg_hba.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Unix sockets.
    Local,
    /// TCP.
    Host,
    /// TCP with TLS.
    HostSsl,
    /// TCP without TLS.
    HostNoSsl,
}

/// A database in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseName {
    /// The one that is called as the user is.
    SameUser,
    /// The one of this name.
    Named(String),
}

/// Addresses with a prefix in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address.
    pub address: IpAddr,
    /// Bits in common.
    pub prefix: u8,
}

impl Network {
    /// Whether the address lies in it. IPv4 addresses in the disguise of IPv6 count as what they are.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (network.to_bits() ^ address.to_bits())
                    .checked_shr(shift)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                (network.to_bits() ^ address.to_bits())
                    .checked_shr(shift)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
