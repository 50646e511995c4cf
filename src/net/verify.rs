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

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use tokio::net::{TcpListener, TcpStream};

    use crate::config::{BackendTls, BackendTlsMode, ClientTls, TlsMode};
    use crate::net::stream::Stream;
    use crate::net::testing::Authority;
    use crate::net::tls::{Acceptor, Connector};

    /// Whether a proxy that trusts `ca` in `mode` accepts the server's certificate as `host`'s.
    async fn accepts(
        (cert, key): &(PathBuf, PathBuf),
        mode: BackendTlsMode,
        ca: Option<PathBuf>,
        host: &str,
    ) -> io::Result<Stream> {
        let acceptor = Acceptor::load(&ClientTls {
            mode: TlsMode::Prefer,
            cert: Some(cert.clone()),
            key: Some(key.clone()),
            ..ClientTls::default()
        })
        .unwrap();
        let connector = Connector::load(&BackendTls {
            mode,
            ca,
            cert: None,
            key: None,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let client = async {
            let socket = TcpStream::connect(address).await.unwrap();
            connector.connect(host, socket).await
        };
        let (_, connected) = tokio::join!(server, client);
        connected
    }

    #[tokio::test]
    async fn each_mode_trusts_as_far_as_it_says() {
        use BackendTlsMode::{Prefer, Require, VerifyCa, VerifyFull};
        let ours = Authority::new();
        let theirs = Authority::new();
        let good = ours.issue("db", &["db.example", "127.0.0.1"]);
        let foreign = theirs.issue("db", &["db.example"]);
        let ca = || Some(ours.ca());
        for (certificate, mode, ca, host, accepted) in [
            (&good, VerifyFull, ca(), "db.example", true),
            (&good, VerifyFull, ca(), "127.0.0.1", true),
            (&good, VerifyFull, ca(), "other.example", false),
            (&good, VerifyFull, ca(), "127.0.0.2", false),
            // The common name doesn't count beside alternative names.
            (&good, VerifyFull, ca(), "db", false),
            (&good, VerifyCa, ca(), "other.example", true),
            (&foreign, VerifyFull, ca(), "db.example", false),
            (&foreign, VerifyCa, ca(), "db.example", false),
            (&foreign, Require, ca(), "db.example", false),
            (&foreign, Require, None, "other.example", true),
            (&foreign, Prefer, ca(), "other.example", true),
        ] {
            let connected = accepts(certificate, mode, ca, host).await;
            assert_eq!(connected.is_ok(), accepted, "{mode:?} {host}");
        }
    }

    #[tokio::test]
    async fn certificates_as_postgresql_documents_them_are_trusted() {
        use BackendTlsMode::VerifyFull;
        let authority = Authority::new();
        let own = authority.self_signed("db.example");
        let ca = Some(own.0.clone());
        assert!(
            accepts(&own, VerifyFull, ca.clone(), "db.example")
                .await
                .is_ok()
        );
        assert!(accepts(&own, VerifyFull, ca, "other").await.is_err());
        let ca = Some(authority.ca());
        assert!(
            accepts(&own, VerifyFull, ca.clone(), "db.example")
                .await
                .is_err()
        );
        let named = authority.issue("*.db.example", &[]);
        assert!(
            accepts(&named, VerifyFull, ca, "s0.db.example")
                .await
                .is_ok()
        );
    }
}
