//! Certificates made on the spot for tests; `integration/` takes this file in as well.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate authority and a directory for what it issues.
pub struct Authority {
    directory: PathBuf,
    /// Removes the directory with the authority, if it is its own.
    _temporary: Option<TempDir>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a directory of its own.
    pub fn new() -> Authority {
        let temporary = tempfile::tempdir().unwrap();
        let mut authority = Authority::within(temporary.path());
        authority._temporary = Some(temporary);
        authority
    }

    /// A new authority that writes into a directory that is there; `ca.crt` first.
    pub fn within(directory: &Path) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(directory.join("ca.crt"), certificate.pem()).unwrap();
        Authority {
            directory: directory.to_owned(),
            _temporary: None,
            issuer: Issuer::new(parameters, key),
        }
    }

    /// The directory that everything is in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Issues a certificate with these alternative names: the files with it and with its key.
    pub fn issue(&self, common_name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let parameters = parameters(common_name, names);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        self.write(common_name, &certificate.pem(), &key)
    }

    /// A list that revokes a certificate of this authority: its file.
    pub fn revoke(&self, certificate: &Path) -> PathBuf {
        let pem = fs::read(certificate).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let serial = pem.parse_x509().unwrap().raw_serial().to_vec();
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.directory.join("revoked.crl");
        let list = list.signed_by(&self.issuer).unwrap();
        fs::write(&file, list.pem().unwrap()).unwrap();
        file
    }

    /// A certificate that vouches for itself, as `openssl req -x509` makes them.
    pub fn self_signed(&self, common_name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = parameters(common_name, &[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        self.write(common_name, &certificate.pem(), &key)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> (PathBuf, PathBuf) {
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        fs::write(file("crt"), certificate).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("crt"), file("key"))
    }
}

fn parameters(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    parameters
}
