//! Passwords kept as md5 hashes, and the proof that goes with them.
//!
//! Source: PostgreSQL documentation, 55.2.1 (AuthenticationMD5Password). The method is broken by
//! today's standards; it is here because `pg_authid` may still hold such hashes.

use std::fmt;

use md5::{Digest, Md5};
use subtle::{Choice, ConstantTimeEq};

/// The md5 hash of a password and its user's name: 32 lower-case hexadecimal digits.
///
/// Who has it can log in with it, so it is as secret as the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash(String);

impl Md5Hash {
    /// Reads `md5` and 32 hexadecimal digits, the form of `pg_authid.rolpassword`.
    pub fn parse(text: &str) -> Option<Md5Hash> {
        let digits = text.strip_prefix("md5")?;
        let is_hash = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| Md5Hash(digits.to_ascii_lowercase()))
    }

    /// The hash of a user's password.
    pub fn of(password: &[u8], user: &str) -> Md5Hash {
        Md5Hash(digits(&[password, user.as_bytes()]))
    }

    /// Whether it is the hash of this password of this user.
    pub fn matches(&self, password: &[u8], user: &str) -> bool {
        let given = Md5Hash::of(password, user);
        given.0.as_bytes().ct_eq(self.0.as_bytes()).into()
    }

    /// What proves that one knows the password, to whom has chosen the salt.
    pub fn proof(&self, salt: [u8; 4]) -> String {
        format!("md5{}", digits(&[self.0.as_bytes(), &salt]))
    }

    /// Whether this is the proof.
    pub fn is_proved(&self, salt: [u8; 4], proof: &[u8]) -> bool {
        let is_proof: Choice = self.proof(salt).as_bytes().ct_eq(proof);
        is_proof.into()
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(***)")
    }
}

fn digits(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_proofs_are_those_of_postgresql() {
        let hash = Md5Hash::of(b"secret", "alice");
        let theirs = postgres_protocol::password::md5(b"secret", "alice");
        assert_eq!(Md5Hash::parse(&theirs), Some(hash.clone()));
        let salt = [1, 2, 3, 4];
        let proof = postgres_protocol::authentication::md5_hash(b"alice", b"secret", salt);
        assert_eq!(hash.proof(salt), proof);
        assert!(hash.is_proved(salt, proof.as_bytes()));
        assert!(!hash.is_proved([1, 2, 3, 5], proof.as_bytes()));
        assert!(!hash.is_proved(salt, b""));
        assert!(hash.matches(b"secret", "alice"));
        assert!(!hash.matches(b"secret", "bob"));
        assert!(!hash.matches(b"secreT", "alice"));
    }

    #[test]
    fn only_whole_hashes_are_hashes() {
        assert_eq!(Md5Hash::parse("md5"), None);
        assert_eq!(Md5Hash::parse(&format!("md5{}", "0".repeat(31))), None);
        assert_eq!(Md5Hash::parse(&format!("md5{}", "g".repeat(32))), None);
        let upper = Md5Hash::parse(&format!("md5{}", "A".repeat(32)));
        assert_eq!(upper, Md5Hash::parse(&format!("md5{}", "a".repeat(32))));
        assert_eq!(format!("{upper:?}"), "Some(Md5Hash(***))");
    }
}
