//! Who the proxy is on a server, and how it proves that.

use std::sync::Arc;

use crate::auth::md5::Md5Hash;
use crate::auth::scram::Keys;
use crate::config::Secret;

/// A role on the servers and the proof of it. Lives in memory only.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The role's name.
    pub role: Arc<str>,
    /// What the servers may ask for.
    pub proof: Proof,
}

/// What the proxy can prove itself with.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Nothing: for servers that trust the proxy or take its certificate.
    None,
    /// The password.
    Password(Secret),
    /// The md5 hash of the password: for servers that ask for md5.
    Md5(Md5Hash),
    /// What a client's own proof gave away: for servers that keep the same SCRAM verifier.
    Keys(Arc<Keys>),
}

impl Principal {
    /// A role with its password, if it has one.
    pub fn new(role: &str, password: Option<Secret>) -> Arc<Principal> {
        Arc::new(Principal {
            role: role.into(),
            proof: password.map_or(Proof::None, Proof::Password),
        })
    }
}
