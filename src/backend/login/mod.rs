//! Logs in to a server: answers its authentication and reads its greeting.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::dial::{Dialed, Target, broken, lost};
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::sqlstate::SqlState;
use crate::wire::authentication::{self as messages, Request, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use crate::wire::backend::Status;
use crate::wire::buffer::Reader;
use crate::wire::startup;

/// The longest message that a server may send during login, in bytes, as in libpq.
const MAX_MESSAGE: usize = 30_000;
/// The most that a server may send during login, in bytes.
const MAX_LOGIN: usize = 256 * 1024;

/// Logs in on a fresh connection and waits until the server is ready.
pub(super) async fn login(stream: Stream, target: &Target) -> Result<Dialed> {
    let binding = stream.server_binding();
    let mut server = Server {
        target,
        stream,
        unread: BytesMut::new(),
        allowance: MAX_LOGIN,
    };
    let mut packet = Vec::new();
    let own = [
        ("user", target.user.as_str()),
        ("database", target.database.as_str()),
        ("application_name", target.application_name.as_str()),
    ];
    let more = target.parameters.iter();
    let more = more.map(|(name, value)| (name.as_str(), value.as_str()));
    startup::startup(&mut packet, 0, own.into_iter().chain(more));
    server.send(&packet).await?;
    server.authenticate(binding).await?;
    server.greeting().await
}

/// How far SCRAM came.
enum Sasl {
    NotAsked,
    FirstSent(Box<ScramSha256>),
    FinalSent(Box<ScramSha256>),
    ServerProved,
}

struct Server<'a> {
    target: &'a Target,
    stream: Stream,
    unread: BytesMut,
    /// Bytes it may still send.
    allowance: usize,
}

impl<'a> Server<'a> {
    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await
            .map_err(|error| lost(&self.target.address, &error))
    }

    fn broken(&self, detail: &str) -> Error {
        broken(&self.target.address, detail)
    }

    /// The next message that isn't a notice; an ErrorResponse ends the login.
    async fn next(&mut self) -> Result<(u8, Bytes)> {
        loop {
            if let Some((tag, body)) = self.take()? {
                match tag {
                    b'N' => continue,
                    b'E' => return Err(self.reported(&body)),
                    _ => return Ok((tag, body)),
                }
            }
            let read = self.stream.read_buf(&mut self.unread).await;
            let gone = match read {
                Ok(1..) => continue,
                Ok(0) => io::Error::other("the server closed the connection"),
                Err(error) => error,
            };
            return Err(lost(&self.target.address, &gone));
        }
    }

    /// Takes one whole message out of what has arrived.
    fn take(&mut self) -> Result<Option<(u8, Bytes)>> {
        let Some(&[tag, a, b, c, d]) = self.unread.first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if !(4..=MAX_MESSAGE).contains(&length) {
            return Err(self.broken("A message has an impossible length."));
        }
        if self.unread.len() <= length {
            return Ok(None);
        }
        self.allowance = self
            .allowance
            .checked_sub(length)
            .ok_or_else(|| self.broken("It sent too much."))?;
        let mut message = self.unread.split_to(length + 1).freeze();
        message.advance(5);
        Ok(Some((tag, message)))
    }

    /// The server's own error, with its address added.
    fn reported(&self, body: &[u8]) -> Error {
        let error = match messages::parse_report(body) {
            Ok(error) => error,
            Err(_) => return self.broken("Its error message is malformed."),
        };
        let whence = format!(
            "Server \"{}\" said this when the proxy logged in as \"{}\".",
            self.target.address, self.target.user
        );
        let detail = match &error.fields().detail {
            Some(detail) => format!("{detail} {whence}"),
            None => whence,
        };
        error.detail(detail)
    }

    /// Proves who we are until the server says AuthenticationOk.
    async fn authenticate(&mut self, binding: Option<Vec<u8>>) -> Result<()> {
        let mut sasl = Sasl::NotAsked;
        loop {
            let (tag, body) = self.next().await?;
            if tag != b'R' {
                return Err(self.broken("It sent something else than an authentication request."));
            }
            let request = messages::parse_request(&body)
                .map_err(|_| self.broken("Its authentication request is malformed."))?;
            sasl = match (request, sasl) {
                (Request::Ok, Sasl::NotAsked | Sasl::ServerProved) => return Ok(()),
                (Request::Cleartext, Sasl::NotAsked) => {
                    let password = self.password()?;
                    self.prove(password.as_bytes()).await?;
                    Sasl::NotAsked
                }
                (Request::Md5(salt), Sasl::NotAsked) => {
                    let password = self.password()?;
                    let user = self.target.user.as_bytes();
                    let hash = md5_hash(user, password.as_bytes(), salt);
                    self.prove(hash.as_bytes()).await?;
                    Sasl::NotAsked
                }
                (Request::Sasl(offer), Sasl::NotAsked) => {
                    self.scram_first(&offer, binding.clone()).await?
                }
                (Request::SaslContinue(challenge), Sasl::FirstSent(scram)) => {
                    self.scram_final(scram, challenge).await?
                }
                (Request::SaslFinal(proof), Sasl::FinalSent(mut scram)) => {
                    scram
                        .finish(proof)
                        .map_err(|_| self.unproved("Its SCRAM signature is wrong."))?;
                    Sasl::ServerProved
                }
                (Request::Other(code), Sasl::NotAsked) => return Err(self.unsupported(code)),
                (Request::Ok, _) => {
                    return Err(self.unproved("It broke off SCRAM and let the proxy in."));
                }
                _ => return Err(self.broken("Its authentication requests are out of order.")),
            };
        }
    }

    fn password(&self) -> Result<&'a str> {
        match &self.target.password {
            Some(password) => Ok(password.expose()),
            None => Err(Error::new(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                format!(
                    "server \"{}\" asks for a password and there is none",
                    self.target.address
                ),
            )
            .hint("Set `backend.password` in the proxy's configuration.")),
        }
    }

    async fn prove(&mut self, password: &[u8]) -> Result<()> {
        let mut message = Vec::new();
        messages::password(&mut message, password);
        self.send(&message).await
    }

    async fn scram_first(&mut self, offer: &[&str], binding: Option<Vec<u8>>) -> Result<Sasl> {
        let (mechanism, binding) = match binding {
            Some(hash) if offer.contains(&SCRAM_SHA_256_PLUS) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(hash),
            ),
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if !offer.contains(&mechanism) {
            return Err(self.unsupported(10));
        }
        let scram = ScramSha256::new(self.password()?.as_bytes(), binding);
        let mut message = Vec::new();
        messages::sasl_initial_response(&mut message, mechanism, scram.message());
        self.send(&message).await?;
        Ok(Sasl::FirstSent(Box::new(scram)))
    }

    async fn scram_final(&mut self, mut scram: Box<ScramSha256>, challenge: &[u8]) -> Result<Sasl> {
        let challenge = challenge.to_vec();
        // Thousands of hashes: not on a thread that serves clients.
        let proved = tokio::task::spawn_blocking(move || {
            let updated = scram.update(&challenge);
            updated.map(|()| scram)
        });
        let scram = match proved.await {
            Ok(Ok(scram)) => scram,
            Ok(Err(_)) => return Err(self.broken("Its SCRAM challenge is unacceptable.")),
            Err(error) => {
                return Err(Error::new(SqlState::INTERNAL_ERROR, error.to_string()));
            }
        };
        let mut message = Vec::new();
        messages::sasl_response(&mut message, scram.message());
        self.send(&message).await?;
        Ok(Sasl::FinalSent(scram))
    }

    fn unproved(&self, detail: &'static str) -> Error {
        Error::new(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!(
                "server \"{}\" could not prove that it knows the password",
                self.target.address
            ),
        )
        .detail(detail)
    }

    fn unsupported(&self, code: i32) -> Error {
        Error::new(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!(
                "server \"{}\" asks for an authentication method that is not supported",
                self.target.address
            ),
        )
        .detail(format!("Its authentication request has code {code}."))
        .hint("Use scram-sha-256, md5, password, cert or trust in its pg_hba.conf.")
    }

    /// Reads what the server says of itself until it is ready.
    async fn greeting(mut self) -> Result<Dialed> {
        let mut parameters = Vec::new();
        let mut process_id = 0;
        let mut secret = Vec::new();
        let mut ready = false;
        // What arrived together with ReadyForQuery is read too, so that nothing stays behind.
        while !ready || !self.unread.is_empty() {
            let (tag, body) = self.next().await?;
            let read = match tag {
                b'S' => set(&mut parameters, &body),
                b'K' if !ready => key(&body).map(|(id, key)| {
                    process_id = id;
                    secret = key;
                }),
                b'Z' if !ready && *body == [Status::Idle.byte()] => {
                    ready = true;
                    Ok(())
                }
                b'A' if ready => Ok(()),
                _ => return Err(self.broken("A message of its greeting is out of order.")),
            };
            read.map_err(|_| self.broken("A message of its greeting is malformed."))?;
        }
        Ok(Dialed {
            stream: self.stream,
            parameters,
            process_id,
            secret,
        })
    }
}

/// Reads ParameterStatus.
fn set(parameters: &mut Vec<(String, String)>, body: &[u8]) -> Result<()> {
    let mut reader = Reader::new(body);
    let name = String::from_utf8_lossy(reader.cstring()?);
    let value = String::from_utf8_lossy(reader.cstring()?).into_owned();
    reader.end()?;
    match parameters.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => parameters.push((name.into_owned(), value)),
    }
    Ok(())
}

/// Reads BackendKeyData.
fn key(body: &[u8]) -> Result<(i32, Vec<u8>)> {
    let mut reader = Reader::new(body);
    let process_id = reader.i32()?;
    let secret = reader.rest();
    if startup::SECRET_BYTES.contains(&secret.len()) {
        Ok((process_id, secret.to_vec()))
    } else {
        Err(Error::protocol("invalid cancel key"))
    }
}

#[cfg(test)]
mod tests;
