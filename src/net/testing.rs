//! Certificates made on the spot for tests; `integration/` takes this file in as well.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
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
