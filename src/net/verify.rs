//! How far a server's certificate is trusted, by the rules of libpq's `sslmode`.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::auth::certificate::{common_name_matches, is_current};
use crate::config::BackendTlsMode;
use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// Checks the certificate that a server shows.
///
/// The handshake's signature is checked in every mode: even with a certificate that nobody vouches
/// for, channel binding rests on the peer owning its key.
#[derive(Debug)]
pub struct ServerVerifier {
    chain: bool,
    name: bool,
    authorities: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// A verifier for `mode`. As in libpq, `require` with an authority means `verify-ca`.
    ///
    /// # Errors
    /// `F0000` if none of the authorities can be used.
    pub fn new(
        mode: BackendTlsMode,
        authorities: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<ServerVerifier> {
        let chain = match mode {
            BackendTlsMode::Off | BackendTlsMode::Prefer => false,
            BackendTlsMode::Require => !authorities.is_empty(),
            BackendTlsMode::VerifyCa | BackendTlsMode::VerifyFull => true,
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(authorities.iter().cloned());
        if chain && usable == 0 {
            return Err(Error::new(
                SqlState::CONFIG_FILE_ERROR,
                "none of the certificate authorities can be used to verify servers",
            )
            .hint("Certificates must be X.509 version 3."));
        }
        Ok(ServerVerifier {
            chain,
            name: mode == BackendTlsMode::VerifyFull,
            authorities,
            roots,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<(), rustls::Error> {
        // A self-signed server certificate that is its own authority: PostgreSQL's documentation
        // shows how to make one. It is no certificate chain, so the chain builder refuses it.
        if self.authorities.contains(end_entity) {
            return match is_current(end_entity, now.as_secs()) {
                true => Ok(()),
                false => Err(CertificateError::Expired.into()),
            };
        }
        verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.chain {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            self.verify_chain(end_entity, &parsed, intermediates, now)?;
            if self.name && !common_name_matches(end_entity, &server_name.to_str()) {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
