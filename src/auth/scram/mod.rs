//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, and the verifiers it checks against.
//!
//! Source: RFC 5802, RFC 7677; PostgreSQL documentation, 55.3.1. pgwire's `ScramServerAuth` is not
//! used, only its key derivation: it does not tie the mechanism that the client chose to the
//! channel binding flag that it sends (a client may name PLUS and bind nothing), it compares
//! proofs byte by byte, and it wants the certificate as PEM for every login.

mod client;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use pgwire::api::auth::sasl::scram::gen_salted_password;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::authentication::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

pub use client::{Binding, Client, Keys, Stuck};

/// Iterations of a verifier that we make, as PostgreSQL's `scram_iterations` has it.
pub const ITERATIONS: u32 = 4096;

type Key = [u8; 32];

/// What a password is checked against, and from which it can't be computed.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, the form of
    /// `pg_authid.rolpassword`.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| -> Option<Key> { STANDARD.decode(text).ok()?.try_into().ok() };
        Some(Verifier {
            iterations: iterations.parse().ok().filter(|&count| count > 0)?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Makes the verifier of a password; takes about a millisecond for [`ITERATIONS`].
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
        // The key derivation can't do zero rounds.
        let iterations = iterations.max(1);
        let rounds = usize::try_from(iterations).unwrap_or(usize::MAX);
        let salted = gen_salted_password(password, salt, rounds);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// A verifier that no password fits, for a user who doesn't exist: stable for a seed, so that
    /// it can't be told from a real one by asking twice.
    pub fn mock(seed: &[u8; 32], user: &str, iterations: u32) -> Verifier {
        Verifier {
            iterations,
            salt: salt(seed, user),
            stored_key: keyed(seed, b"stored", user),
            server_key: keyed(seed, b"server", user),
        }
    }

    /// How often its password was hashed.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Whether it is the verifier of this password; takes as long as [`Verifier::derive`].
    pub fn matches(&self, password: &[u8]) -> bool {
        let text = String::from_utf8_lossy(password);
        let given = Verifier::derive(&text, &self.salt, self.iterations);
        // What is no text is no password, even where it decodes to the same replacement characters.
        let intact = Choice::from(u8::from(text.as_bytes() == password));
        bool::from(given.stored_key.ct_eq(&self.stored_key) & intact)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(***)")
    }
}

/// The salt that goes with a user whose password is known in clear: derived like a mock's, so that
/// the two look alike.
pub fn salt(seed: &[u8; 32], user: &str) -> Vec<u8> {
    let [salt @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = keyed(seed, b"salt", user);
    salt.to_vec()
}

fn keyed(seed: &[u8; 32], purpose: &[u8], user: &str) -> Key {
    hmac(seed, &[purpose, b"\0", user.as_bytes()].concat())
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    // HMAC takes keys of any length: `new_from_slice` can't fail.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| mac.chain_update(message).finalize().into_bytes().into())
        .unwrap_or_default()
}

/// The mechanisms to offer, best first.
pub fn mechanisms(binding: Option<&[u8]>) -> Vec<&'static str> {
    match binding {
        Some(_) => vec![SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
        None => vec![SCRAM_SHA_256],
    }
}

/// A login that has succeeded.
#[derive(Debug)]
pub struct Proved {
    /// The message that proves to the client who we are.
    pub signature: String,
    /// What the client has given away: enough to log in as it, where the same verifier is kept.
    pub keys: Keys,
}

/// A login between the client's first and its final message.
pub struct Exchange {
    verifier: Verifier,
    /// What `c=` of the final message must decode to.
    bound: Vec<u8>,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    /// Answers the client's first message.
    ///
    /// `binding` is what we offered to bind to, `server_nonce` fresh random printable text.
    ///
    /// # Errors
    /// `08P01` for a malformed message or an unknown mechanism, `28000` for a downgrade,
    /// `0A000` for parts of SCRAM that PostgreSQL doesn't have either.
    pub fn begin(
        mechanism: &str,
        client_first: &[u8],
        binding: Option<&[u8]>,
        verifier: Verifier,
        server_nonce: &str,
    ) -> Result<Exchange> {
        let plus = match (mechanism, binding) {
            (SCRAM_SHA_256, _) => false,
            (SCRAM_SHA_256_PLUS, Some(_)) => true,
            _ => {
                return Err(Error::protocol(
                    "client selected an invalid SASL authentication mechanism",
                ));
            }
        };
        let message = text(client_first)?;
        let (flag, rest) = message
            .split_once(',')
            .ok_or_else(|| malformed("It has no channel binding flag."))?;
        let mut bound = channel_binding(flag, plus, binding)?;
        let (authorization, bare) = rest
            .split_once(',')
            .ok_or_else(|| malformed("It has no authorization identity field."))?;
        if !authorization.is_empty() {
            return Err(Error::fatal(
                SqlState::FEATURE_NOT_SUPPORTED,
                "client uses authorization identity, but it is not supported",
            ));
        }
        let header = format!("{flag},,");
        bound.splice(0..0, header.bytes());
        let nonce = format!("{}{server_nonce}", client_nonce(bare)?);
        Ok(Exchange {
            bound,
            client_first_bare: bare.to_owned(),
            server_first: format!(
                "r={nonce},s={},i={}",
                STANDARD.encode(&verifier.salt),
                verifier.iterations
            ),
            nonce,
            verifier,
        })
    }

    /// The message to send.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Checks the client's final message; none if the password is wrong.
    ///
    /// # Errors
    /// `08P01` for a malformed message, `28000` if the channel is bound to something else.
    pub fn finish(self, client_final: &[u8]) -> Result<Option<Proved>> {
        let message = text(client_final)?;
        let (without_proof, proof) = message
            .rsplit_once(",p=")
            .ok_or_else(|| malformed("It has no proof."))?;
        let proof: Key = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or_else(|| malformed("Its proof is malformed."))?;
        let mut attributes = without_proof.split(',');
        let bound = attribute(attributes.next(), 'c')?;
        if STANDARD.decode(bound).ok().as_deref() != Some(&self.bound) {
            return Err(Error::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                "SCRAM channel binding check failed",
            ));
        }
        if attribute(attributes.next(), 'r')? != self.nonce {
            return Err(
                Error::protocol("invalid SCRAM response").detail("The nonce does not match.")
            );
        }
        let signed = format!(
            "{},{},{without_proof}",
            self.client_first_bare, self.server_first
        );
        let mut client_key = hmac(&self.verifier.stored_key, signed.as_bytes());
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        let stored_key: Key = Sha256::digest(client_key).into();
        let signature = hmac(&self.verifier.server_key, signed.as_bytes());
        let right = bool::from(stored_key.ct_eq(&self.verifier.stored_key));
        Ok(right.then(|| Proved {
            signature: format!("v={}", STANDARD.encode(signature)),
            keys: Keys::new(&self.verifier, client_key),
        }))
    }
}

/// Checks the flag of the client's first message: the data that the channel must be bound to.
fn channel_binding(flag: &str, plus: bool, binding: Option<&[u8]>) -> Result<Vec<u8>> {
    match (flag, plus, binding) {
        ("n", false, _) | ("y", false, None) => Ok(Vec::new()),
        // The client could bind and believes that we can't: somebody took our offer away.
        ("y", false, Some(_)) => Err(Error::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "SCRAM channel binding negotiation error",
        )
        .detail(
            "The client supports SCRAM channel binding but thinks the server does not. However, \
             this server does support channel binding.",
        )),
        ("n" | "y", true, _) => Err(malformed(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include \
             channel binding data.",
        )),
        ("p=tls-server-end-point", true, Some(binding)) => Ok(binding.to_vec()),
        (flag, true, _) if flag.starts_with("p=") => {
            Err(Error::protocol("unsupported SCRAM channel-binding type"))
        }
        (flag, false, _) if flag.starts_with("p=") => Err(malformed(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message \
             includes channel binding data.",
        )),
        _ => Err(malformed("Its channel binding flag is unknown.")),
    }
}

fn client_nonce(bare: &str) -> Result<&str> {
    let mut attributes = bare.split(',');
    let name = attributes.next();
    if name.is_some_and(|name| name.starts_with("m=")) {
        return Err(Error::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            "client requires an unsupported SCRAM extension",
        ));
    }
    // The user is the one of the startup message; what is said here doesn't count.
    attribute(name, 'n')?;
    let nonce = attribute(attributes.next(), 'r')?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("Its nonce is not printable."));
    }
    Ok(nonce)
}

fn attribute(attribute: Option<&str>, name: char) -> Result<&str> {
    attribute
        .and_then(|attribute| attribute.strip_prefix(name)?.strip_prefix('='))
        .ok_or_else(|| malformed(&format!("Attribute \"{name}\" was expected.")))
}

fn text(message: &[u8]) -> Result<&str> {
    std::str::from_utf8(message)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| malformed("It is not text."))
}

fn malformed(detail: &str) -> Error {
    Error::protocol("malformed SCRAM message").detail(detail.to_owned())
}

#[cfg(test)]
mod tests;
