//! The client's side of SCRAM-SHA-256 for who has keys in place of the password.
//!
//! A client that proves to the proxy that it knows its password gives its ClientKey away (RFC 5802,
//! section 3): with it, and with the verifier's salt and ServerKey, the proxy logs in as the client to
//! every server that keeps the same verifier.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Key, Verifier, attribute, hmac};

/// What stands in for a password that the proxy has never seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    iterations: u32,
    salt: Vec<u8>,
    client_key: Key,
    server_key: Key,
}

impl Keys {
    pub(super) fn new(verifier: &Verifier, client_key: Key) -> Keys {
        Keys {
            iterations: verifier.iterations,
            salt: verifier.salt.clone(),
            client_key,
            server_key: verifier.server_key,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

/// What the login is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Nothing, and we could not.
    Unsupported,
    /// Nothing, because the server offers none.
    Unrequested,
    /// `tls-server-end-point` of the server's certificate.
    Bound(Vec<u8>),
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Binding::Unsupported => "n,,",
            Binding::Unrequested => "y,,",
            Binding::Bound(_) => "p=tls-server-end-point,,",
        }
    }
}

/// Why a login can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The server's message is malformed, or not for us.
    Malformed,
    /// The server keeps another verifier than the one that the keys belong to.
    OtherVerifier,
}

/// A login under way.
pub struct Client {
    keys: std::sync::Arc<Keys>,
    binding: Binding,
    nonce: String,
    /// What both sides sign, once it is known.
    signed: String,
}

impl Client {
    /// Begins a login. `nonce` is fresh random printable text without commas.
    pub fn new(keys: std::sync::Arc<Keys>, binding: Binding, nonce: String) -> Client {
        Client {
            keys,
            binding,
            nonce,
            signed: String::new(),
        }
    }

    /// The first message.
    pub fn first(&self) -> String {
        format!("{}{}", self.binding.header(), self.bare())
    }

    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The final message, in answer to the server's challenge.
    ///
    /// # Errors
    /// Why there is none.
    pub fn last(&mut self, challenge: &[u8]) -> Result<String, Stuck> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| Stuck::Malformed)?;
        let mut attributes = challenge.split(',');
        let mut next = |name| attribute(attributes.next(), name).map_err(|_| Stuck::Malformed);
        let (nonce, salt, iterations) = (next('r')?, next('s')?, next('i')?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Stuck::Malformed);
        }
        let salt = STANDARD.decode(salt).map_err(|_| Stuck::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| Stuck::Malformed)?;
        if salt != self.keys.salt || iterations != self.keys.iterations {
            return Err(Stuck::OtherVerifier);
        }
        let mut bound = self.binding.header().as_bytes().to_vec();
        if let Binding::Bound(data) = &self.binding {
            bound.extend_from_slice(data);
        }
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        self.signed = format!("{},{challenge},{without_proof}", self.bare());
        let stored_key: Key = Sha256::digest(self.keys.client_key).into();
        let mut proof = hmac(&stored_key, self.signed.as_bytes());
        for (byte, key) in proof.iter_mut().zip(self.keys.client_key) {
            *byte ^= key;
        }
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server's last message proves that it knows the verifier.
    pub fn is_server(&self, last: &[u8]) -> bool {
        let signature = hmac(&self.keys.server_key, self.signed.as_bytes());
        let expected = format!("v={}", STANDARD.encode(signature));
        !self.signed.is_empty() && bool::from(expected.as_bytes().ct_eq(last))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::super::Exchange;
    use super::*;
    use crate::wire::authentication::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

    const HASH: &[u8] = b"hash of the certificate";

    fn verifier(password: &str, salt: &[u8]) -> Verifier {
        Verifier::derive(password, salt, 8)
    }

    /// What a server learns when a client with the password logs in.
    fn learn(password: &str, verifier: Verifier) -> Arc<Keys> {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let exchange =
            Exchange::begin(SCRAM_SHA_256, client.message(), None, verifier, "nonce").unwrap();
        client.update(exchange.server_first().as_bytes()).unwrap();
        let proved = exchange.finish(client.message()).unwrap().unwrap();
        Arc::new(proved.keys)
    }

    /// A login with keys to a server that keeps `verifier`.
    fn log_in(keys: &Arc<Keys>, verifier: Verifier, binding: Binding) -> Result<bool, Stuck> {
        let (mechanism, ours) = match &binding {
            Binding::Bound(_) => (SCRAM_SHA_256_PLUS, Some(HASH)),
            _ => (SCRAM_SHA_256, None),
        };
        let mut client = Client::new(Arc::clone(keys), binding, "abc".to_owned());
        let first = client.first();
        let exchange = Exchange::begin(mechanism, first.as_bytes(), ours, verifier, "xyz").unwrap();
        let last = client.last(exchange.server_first().as_bytes())?;
        let Ok(Some(proved)) = exchange.finish(last.as_bytes()) else {
            return Ok(false);
        };
        assert!(client.is_server(proved.signature.as_bytes()));
        assert!(!client.is_server(b"v=AAAA"));
        Ok(true)
    }

    #[test]
    fn keys_open_every_server_with_the_same_verifier() {
        let keys = learn("pencil", verifier("pencil", b"salt"));
        for binding in [
            Binding::Unsupported,
            Binding::Unrequested,
            Binding::Bound(HASH.to_vec()),
        ] {
            assert_eq!(
                log_in(&keys, verifier("pencil", b"salt"), binding),
                Ok(true)
            );
        }
        let unbound = || Binding::Unsupported;
        assert_eq!(
            log_in(&keys, verifier("pen", b"salt"), unbound()),
            Ok(false)
        );
        let other = log_in(&keys, verifier("pencil", b"other"), unbound());
        assert_eq!(other, Err(Stuck::OtherVerifier));
        let other = Binding::Bound(b"another".to_vec());
        assert_eq!(log_in(&keys, verifier("pencil", b"salt"), other), Ok(false));
    }

    #[test]
    fn a_server_that_proves_nothing_is_none() {
        let keys = learn("pencil", verifier("pencil", b"salt"));
        let client = Client::new(keys, Binding::Unsupported, "abc".to_owned());
        assert!(!client.is_server(b""));
    }

    proptest! {
        #[test]
        fn no_challenge_panics(challenge in "(r=abc[a-z]{0,3}|\\PC{0,5}),(s=[A-Za-z0-9+/=]{0,8}),(i=[0-9]{0,12})|\\PC{0,30}") {
            let keys = learn("pencil", verifier("pencil", b"salt"));
            let mut client = Client::new(keys, Binding::Unsupported, "abc".to_owned());
            let _ = client.last(challenge.as_bytes());
        }
    }
}
