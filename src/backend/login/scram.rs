//! The proxy's side of SCRAM towards a server: with the password, or with the keys of a client.

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::auth::scram::{Binding, Client, Keys, Stuck};

/// Why a login can't go on.
pub(super) enum Halt {
    /// The server's challenge is unacceptable.
    Challenge,
    /// The server keeps another verifier than the one that the keys belong to.
    OtherVerifier,
    /// Something in the proxy.
    Internal(String),
}

/// A login under way.
pub(super) enum Scram {
    Password(Box<ScramSha256>),
    Keys { client: Box<Client>, last: String },
}

impl Scram {
    pub(super) fn with_password(password: &str, binding: Binding) -> Scram {
        let binding = match binding {
            Binding::Unsupported => ChannelBinding::unsupported(),
            Binding::Unrequested => ChannelBinding::unrequested(),
            Binding::Bound(hash) => ChannelBinding::tls_server_end_point(hash),
        };
        Scram::Password(Box::new(ScramSha256::new(password.as_bytes(), binding)))
    }

    pub(super) fn with_keys(keys: &Arc<Keys>, binding: Binding) -> Scram {
        let nonce = STANDARD.encode(rand::random::<[u8; 18]>());
        let client = Client::new(Arc::clone(keys), binding, nonce);
        Scram::Keys {
            last: client.first(),
            client: Box::new(client),
        }
    }

    /// The message to send.
    pub(super) fn message(&self) -> &[u8] {
        match self {
            Scram::Password(scram) => scram.message(),
            Scram::Keys { last, .. } => last.as_bytes(),
        }
    }

    /// Answers the server's challenge.
    pub(super) async fn answer(self, challenge: &[u8]) -> Result<Scram, Halt> {
        match self {
            Scram::Password(mut scram) => {
                let challenge = challenge.to_vec();
                // Thousands of hashes: not on a thread that serves clients.
                let proved = tokio::task::spawn_blocking(move || -> io::Result<_> {
                    scram.update(&challenge)?;
                    Ok(scram)
                });
                match proved.await {
                    Ok(Ok(scram)) => Ok(Scram::Password(scram)),
                    Ok(Err(_)) => Err(Halt::Challenge),
                    Err(error) => Err(Halt::Internal(error.to_string())),
                }
            }
            Scram::Keys { mut client, .. } => match client.last(challenge) {
                Ok(last) => Ok(Scram::Keys { client, last }),
                Err(Stuck::Malformed) => Err(Halt::Challenge),
                Err(Stuck::OtherVerifier) => Err(Halt::OtherVerifier),
            },
        }
    }

    /// Whether the server has proved that it knows the password too.
    pub(super) fn is_server(&mut self, last: &[u8]) -> bool {
        match self {
            Scram::Password(scram) => scram.finish(last).is_ok(),
            Scram::Keys { client, .. } => client.is_server(last),
        }
    }
}
