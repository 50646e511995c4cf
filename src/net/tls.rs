//! TLS on both sides: certificates and keys from PEM files, and the handshakes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::auth::certificate::server_end_point;
use crate::config::BackendTls;
use crate::config::BackendTlsMode;
use crate::config::ClientTls;
use crate::config::TlsMode;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::net::verify::ServerVerifier;
use crate::sqlstate::SqlState;

/// The protocol's name in ALPN (PostgreSQL documentation, 55.2.11).
pub const ALPN: &[u8] = b"postgresql";

/// TLS towards clients. Cheap to clone; load another one to change certificates.
#[derive(Clone, Debug)]
pub struct Acceptor {
    mode: TlsMode,
    identity: Option<Identity>,
}

#[derive(Clone, Debug)]
struct Identity {
    config: Arc<ServerConfig>,
    binding: Option<Arc<[u8]>>,
}

impl Acceptor {
    /// An acceptor that refuses TLS.
    pub fn off() -> Acceptor {
        Acceptor {
            mode: TlsMode::Off,
            identity: None,
        }
    }

    /// Loads the certificate chain and its key. Blocks on the files.
    ///
    /// # Errors
    /// `F0000` if a file is missing, unreadable or not what it should be.
    pub fn load(tls: &ClientTls) -> Result<Acceptor> {
        if tls.mode == TlsMode::Off {
            return Ok(Acceptor::off());
        }
        let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
            return Err(Error::new(
                SqlState::CONFIG_FILE_ERROR,
                "TLS needs both a certificate and its key",
            ));
        };
        let chain = certificates(cert)?;
        let binding = chain.first().and_then(|leaf| server_end_point(leaf));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(cert, &error))?
            .with_client_cert_verifier(client_verifier(tls)?)
            .with_single_cert(chain, private_key(key)?)
            .map_err(|error| unusable(cert, &error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions live long and resume nothing: no tickets, as in PostgreSQL.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Acceptor {
            mode: tls.mode,
            identity: Some(Identity {
                config: Arc::new(config),
                binding: binding.map(Arc::from),
            }),
        })
    }

    /// Whether clients may or must use TLS.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Channel binding data of our certificate, if its kind allows any.
    pub fn binding(&self) -> Option<Arc<[u8]>> {
        self.identity.as_ref()?.binding.clone()
    }

    /// Does the server's part of the handshake.
    ///
    /// # Errors
    /// What the system or the peer did wrong; `Unsupported` if TLS is off.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        let identity = self
            .identity
            .as_ref()
            .ok_or(io::ErrorKind::Unsupported)?
            .clone();
        let stream = TlsAcceptor::from(identity.config).accept(socket).await?;
        Ok(Stream::TlsServerSide(Box::new(stream)))
    }
}

/// TLS towards the servers of a database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    mode: BackendTlsMode,
    config: Option<Arc<ClientConfig>>,
}

impl Connector {
    /// A connector that never asks for TLS.
    pub fn off() -> Connector {
        Connector {
            mode: BackendTlsMode::Off,
            config: None,
        }
    }

    /// Loads the trusted authorities and the proxy's own certificate. Blocks on the files.
    ///
    /// # Errors
    /// `F0000` if a file is missing, unreadable or not what it should be, or if authorities are
    /// needed and the system has none.
    pub fn load(tls: &BackendTls) -> Result<Connector> {
        if tls.mode == BackendTlsMode::Off {
            return Ok(Connector::off());
        }
        let provider = provider();
        let verifier = ServerVerifier::new(tls.mode, authorities(tls)?, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(SqlState::INTERNAL_ERROR, error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| unusable(cert, &error))?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Connector {
            mode: tls.mode,
            config: Some(Arc::new(config)),
        })
    }

    /// How much the proxy insists on TLS.
    pub fn mode(&self) -> BackendTlsMode {
        self.mode
    }

    /// Does the client's part of the handshake with the server that is called `host`.
    ///
    /// # Errors
    /// What the system or the peer did wrong; `InvalidInput` if `host` is no name or address,
    /// `Unsupported` if TLS is off.
    pub async fn connect(&self, host: &str, socket: TcpStream) -> io::Result<Stream> {
        let config = self.config.clone().ok_or(io::ErrorKind::Unsupported)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        Ok(Stream::TlsClientSide(Box::new(stream)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates to trust, or none where the mode verifies nothing.
fn authorities(tls: &BackendTls) -> Result<Vec<CertificateDer<'static>>> {
    match (&tls.ca, tls.mode) {
        (Some(ca), _) => certificates(ca),
        (None, BackendTlsMode::VerifyCa | BackendTlsMode::VerifyFull) => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(Error::new(
                    SqlState::CONFIG_FILE_ERROR,
                    "this system has no certificate authorities to verify servers with",
                )
                .hint("Name a file with `ca`."));
            }
            Ok(found.certs)
        }
        (None, _) => Ok(Vec::new()),
    }
}

/// Checks the certificates of clients that show one; nobody is asked for one without an authority.
/// As with PostgreSQL's `ssl_crl_file`, lists must cover the whole chain and not be out of date.
fn client_verifier(tls: &ClientTls) -> Result<Arc<dyn ClientCertVerifier>> {
    let Some(ca) = &tls.client_ca else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|error| unusable(ca, &error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match &tls.client_crl {
        None => builder,
        Some(crl) => {
            let lists: Vec<_> = CertificateRevocationListDer::pem_file_iter(crl)
                .and_then(Iterator::collect)
                .map_err(|error| unreadable(crl, &error))?;
            if lists.is_empty() {
                return Err(unreadable(crl, &PemError::NoItemsFound));
            }
            builder.with_crls(lists).enforce_revocation_expiration()
        }
    };
    let built = builder.allow_unauthenticated().build();
    built.map_err(|error| {
        Error::new(
            SqlState::CONFIG_FILE_ERROR,
            format!("clients' certificates can't be checked: {error}"),
        )
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error))?;
    if chain.is_empty() {
        return Err(unreadable(path, &PemError::NoItemsFound));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let error = unreadable(path, &error);
        match std::fs::read_to_string(path) {
            Ok(text) if text.contains("ENCRYPTED") => {
                error.hint("The key is encrypted: store it without a passphrase.")
            }
            _ => error,
        }
    })
}

fn unreadable(path: &Path, error: &PemError) -> Error {
    let reason = match error {
        PemError::NoItemsFound => "no PEM section of the wanted kind is in it".to_owned(),
        PemError::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    could_not_load(path, &reason)
}

fn unusable(path: &Path, error: &rustls::Error) -> Error {
    could_not_load(path, &error.to_string())
}

fn could_not_load(path: &Path, reason: &str) -> Error {
    Error::new(
        SqlState::CONFIG_FILE_ERROR,
        format!("could not load \"{}\": {reason}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::auth::certificate::common_name;
    use crate::net::testing::Authority;

    fn client(mode: TlsMode, cert: PathBuf, key: PathBuf) -> Result<Acceptor> {
        Acceptor::load(&ClientTls {
            mode,
            cert: Some(cert),
            key: Some(key),
            ..ClientTls::default()
        })
    }

    #[test]
    fn what_cannot_be_loaded_is_named_with_the_reason() {
        let authority = Authority::new();
        let (cert, key) = authority.issue("db", &["db"]);
        let (_, other_key) = authority.issue("other", &["other"]);
        let missing = authority.directory().join("missing.crt");
        let encrypted = authority.directory().join("encrypted.key");
        fs::write(&encrypted, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        for (cert, key, words) in [
            (&missing, &key, "missing.crt\": No such file"),
            (&key, &key, "db.key\": no PEM section"),
            (&cert, &cert, "db.crt\": no PEM section"),
            (&cert, &other_key, "db.crt\": "),
            (&cert, &encrypted, "encrypted.key\": "),
        ] {
            let error = client(TlsMode::Prefer, cert.clone(), key.clone()).unwrap_err();
            assert_eq!(error.code(), SqlState::CONFIG_FILE_ERROR);
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = client(TlsMode::Prefer, cert.clone(), encrypted).unwrap_err();
        assert!(error.fields().hint.is_some());
        assert!(client(TlsMode::Off, missing.clone(), missing).is_ok());
        let loaded = client(TlsMode::Require, cert, key).unwrap();
        assert_eq!(loaded.mode(), TlsMode::Require);
        assert_eq!(loaded.binding().unwrap().len(), 32);
    }

    #[test]
    fn authorities_that_verify_nothing_are_refused() {
        let authority = Authority::new();
        let load = |name: &str, text: &[u8]| {
            let path = authority.directory().join(name);
            fs::write(&path, text).unwrap();
            Connector::load(&BackendTls {
                mode: BackendTlsMode::VerifyCa,
                ca: Some(path),
                cert: None,
                key: None,
            })
        };
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [garbage.as_slice(), b"", b"\xff\xfe"] {
            let error = load("bad.crt", text).unwrap_err();
            assert_eq!(error.code(), SqlState::CONFIG_FILE_ERROR, "{error}");
        }
        assert!(load("good.crt", &fs::read(authority.ca()).unwrap()).is_ok());
    }

    /// What the acceptor says of a client that shows this certificate, and the name that it has then.
    async fn shown(
        acceptor: &Acceptor,
        certificate: Option<&(PathBuf, PathBuf)>,
    ) -> io::Result<Option<String>> {
        let connector = Connector::load(&BackendTls {
            mode: BackendTlsMode::Require,
            ca: None,
            cert: certificate.map(|(cert, _)| cert.clone()),
            key: certificate.map(|(_, key)| key.clone()),
        });
        let connector = connector.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let client = async {
            let socket = TcpStream::connect(address).await.unwrap();
            connector.connect("db", socket).await
        };
        let (accepted, _client) = tokio::join!(server, client);
        let certificate = accepted?.client_certificate().map(<[u8]>::to_vec);
        Ok(certificate.and_then(|der| common_name(&der)))
    }

    #[tokio::test]
    async fn certificates_of_clients_are_verified_where_they_are_shown() {
        let authority = Authority::new();
        let (cert, key) = authority.issue("db", &["db"]);
        let good = authority.issue("alice", &[]);
        let revoked = authority.issue("bob", &[]);
        let stranger = Authority::new();
        let foreign = stranger.issue("alice", &[]);
        let crl = authority.revoke(&revoked.0);
        let tls = |client_ca, client_crl| ClientTls {
            mode: TlsMode::Prefer,
            cert: Some(cert.clone()),
            key: Some(key.clone()),
            client_ca,
            client_crl,
        };
        let asking = Acceptor::load(&tls(Some(authority.ca()), None)).unwrap();
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(shown(&asking, Some(&good)).await.unwrap(), named("alice"));
        assert_eq!(shown(&asking, Some(&revoked)).await.unwrap(), named("bob"));
        assert_eq!(shown(&asking, None).await.unwrap(), None);
        assert!(shown(&asking, Some(&foreign)).await.is_err());
        let strict = Acceptor::load(&tls(Some(authority.ca()), Some(crl))).unwrap();
        assert_eq!(shown(&strict, Some(&good)).await.unwrap(), named("alice"));
        assert!(shown(&strict, Some(&revoked)).await.is_err());
        // Nobody is asked: nobody shows any.
        let silent = Acceptor::load(&tls(None, None)).unwrap();
        assert_eq!(shown(&silent, Some(&good)).await.unwrap(), None);
        for (ca, crl) in [
            (Some(key.clone()), None),
            (Some(authority.ca()), Some(cert.clone())),
        ] {
            let error = Acceptor::load(&tls(ca, crl)).unwrap_err();
            assert_eq!(error.code(), SqlState::CONFIG_FILE_ERROR);
        }
    }
}
