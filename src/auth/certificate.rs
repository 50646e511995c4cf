//! What a login needs to know of a certificate: its channel binding, its common name, its dates.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// The channel binding data `tls-server-end-point` of a server's certificate in DER.
///
/// It is the certificate's hash, with the hash function of its own signature, or SHA-256 where
/// that is MD5 or SHA-1 (RFC 5929, section 4.1). None if the signature has no hash function of its
/// own (Ed25519): then neither we nor libpq can bind to it.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm;
    let oid = match algorithm.algorithm.to_id_string().as_str() {
        RSASSA_PSS => match SignatureAlgorithm::try_from(algorithm).ok()? {
            SignatureAlgorithm::RSASSA_PSS(parameters) => {
                parameters.hash_algorithm_oid().to_id_string()
            }
            _ => return None,
        },
        other => other.to_owned(),
    };
    let hash = HASHES.iter().find(|(oids, _)| oids.contains(&&*oid))?.1;
    Some(match hash {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";

#[derive(Clone, Copy)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Signature algorithms (RSA PKCS #1, ECDSA, DSA) and bare hash functions (of RSASSA-PSS).
const HASHES: &[(&[&str], Hash)] = &[
    (
        &[
            "1.2.840.113549.1.1.4",
            "1.2.840.113549.1.1.5",
            "1.2.840.113549.1.1.11",
            "1.2.840.10045.4.1",
            "1.2.840.10045.4.3.2",
            "1.2.840.10040.4.3",
            "2.16.840.1.101.3.4.3.2",
            "1.3.14.3.2.26",
            "2.16.840.1.101.3.4.2.1",
        ],
        Hash::Sha256,
    ),
    (
        &[
            "1.2.840.113549.1.1.12",
            "1.2.840.10045.4.3.3",
            "2.16.840.1.101.3.4.2.2",
        ],
        Hash::Sha384,
    ),
    (
        &[
            "1.2.840.113549.1.1.13",
            "1.2.840.10045.4.3.4",
            "2.16.840.1.101.3.4.2.3",
        ],
        Hash::Sha512,
    ),
    (
        &[
            "1.2.840.113549.1.1.14",
            "1.2.840.10045.4.3.1",
            "2.16.840.1.101.3.4.2.4",
        ],
        Hash::Sha224,
    ),
];

/// Whether a certificate in DER without any subject alternative name has a common name that
/// stands for `host`, as libpq accepts it (a first label `*` stands for any one label).
pub fn common_name_matches(certificate: &[u8], host: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let mut names = parsed.subject().iter_common_name();
    match (names.next().map(|name| name.as_str()), names.next()) {
        (Some(Ok(name)), None) => name_matches(name, host),
        _ => false,
    }
}

fn name_matches(name: &str, host: &str) -> bool {
    if name.is_empty() || name.contains('\0') {
        return false;
    }
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    // An address is never matched by a pattern.
    if host.parse::<std::net::IpAddr>().is_ok() {
        return false;
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => {
            !label.is_empty() && domain.contains('.') && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

/// The one common name of a certificate in DER; none if it has several, or one that could be read in
/// two ways.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    match (names.next()?.as_str(), names.next()) {
        (Ok(name), None) => is_plain(name).then(|| name.to_owned()),
        _ => None,
    }
}

/// The alternative names of a certificate in DER that are text: hosts, mail addresses and URIs.
pub fn alternative_names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    let text = names.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            is_plain(name).then(|| (*name).to_owned())
        }
        _ => None,
    });
    text.collect()
}

/// A zero byte would let one name pass for another.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

/// Whether `now`, in seconds since 1970, lies within the certificate's dates.
pub fn is_current(certificate: &[u8], now: u64) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let validity = parsed.validity();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm, names: &[&str]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "*.db.example");
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &[]);
        assert_eq!(
            server_end_point(&der).unwrap(),
            Sha256::digest(&der).to_vec()
        );
        let der = certificate(&rcgen::PKCS_ECDSA_P384_SHA384, &[]);
        assert_eq!(
            server_end_point(&der).unwrap(),
            Sha384::digest(&der).to_vec()
        );
        let der = certificate(&rcgen::PKCS_ED25519, &[]);
        assert_eq!(server_end_point(&der), None);
        assert_eq!(server_end_point(b"not a certificate"), None);
    }

    #[test]
    fn common_names_count_only_without_alternative_names() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &[]);
        assert!(common_name_matches(&der, "s0.db.example"));
        assert!(common_name_matches(&der, "S0.DB.EXAMPLE"));
        for host in ["db.example", "a.s0.db.example", ".db.example", "s0.db.test"] {
            assert!(!common_name_matches(&der, host), "{host}");
        }
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["other"]);
        assert!(!common_name_matches(&der, "s0.db.example"));
    }

    #[test]
    fn wildcards_stand_for_one_label_of_a_name() {
        assert!(!name_matches("*.0.0.1", "127.0.0.1"));
        assert!(name_matches("127.0.0.1", "127.0.0.1"));
        assert!(!name_matches("*.com", "example.com"));
        assert!(!name_matches("", ""));
        assert!(!name_matches("db\0.evil", "db"));
    }

    #[test]
    fn clients_are_called_by_common_or_alternative_names() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["alice.example", "bob"]);
        assert_eq!(common_name(&der).as_deref(), Some("*.db.example"));
        assert_eq!(alternative_names(&der), ["alice.example", "bob"]);
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &[]);
        assert!(alternative_names(&der).is_empty());
        assert_eq!(common_name(b"none"), None);
        assert!(alternative_names(b"none").is_empty());
        assert!(!is_plain("alice\0.evil"));
    }

    #[test]
    fn dates_are_checked_at_both_ends() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &[]);
        assert!(is_current(&der, 1_800_000_000));
        assert!(!is_current(&der, 0));
        assert!(!is_current(&der, u64::MAX));
    }
}
