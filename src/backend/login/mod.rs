//! Logs in to a server: answers its authentication and reads its greeting.

mod scram;

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::md5::Md5Hash;
use crate::auth::scram::Binding;
use crate::backend::dial::{Dialed, Target, broken, lost};
use crate::backend::principal::Proof;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::sqlstate::SqlState;
use crate::wire::authentication::{self as messages, Request, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use crate::wire::backend::Status;
use crate::wire::buffer::Reader;
use crate::wire::startup;
use scram::{Halt, Scram};

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
        ("user", &*target.principal.role),
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
    FirstSent(Scram),
    FinalSent(Scram),
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
            self.target.address, self.target.principal.role
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
                    let proof = self.md5()?.proof(salt);
                    self.prove(proof.as_bytes()).await?;
                    Sasl::NotAsked
                }
                (Request::Sasl(offer), Sasl::NotAsked) => {
                    self.scram_first(&offer, binding.clone()).await?
                }
                (Request::SaslContinue(challenge), Sasl::FirstSent(scram)) => {
                    self.scram_final(scram, challenge).await?
                }
                (Request::SaslFinal(proof), Sasl::FinalSent(mut scram)) => {
                    if !scram.is_server(proof) {
                        return Err(self.unproved("Its SCRAM signature is wrong."));
                    }
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
        match &self.target.principal.proof {
            Proof::Password(password) => Ok(password.expose()),
            _ => Err(self.without("a password")),
        }
    }

    fn md5(&self) -> Result<Md5Hash> {
        match &self.target.principal.proof {
            Proof::Password(password) => {
                let role = &self.target.principal.role;
                Ok(Md5Hash::of(password.expose().as_bytes(), role))
            }
            Proof::Md5(hash) => Ok(hash.clone()),
            _ => Err(self.without("a password")),
        }
    }

    /// The server asks for a proof that there is none of.
    fn without(&self, what: &str) -> Error {
        let Target {
            address, principal, ..
        } = self.target;
        Error::new(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!("server \"{address}\" asks for {what} and there is none"),
        )
        .detail(format!("The proxy logs in there as \"{}\".", principal.role))
        .hint(
            "Set `backend.password` in the proxy's configuration. With `backend.per_user`, the \
             client must prove itself in a way that the server takes too, or `auth.users` must hold \
             its password.",
        )
    }

    async fn prove(&mut self, password: &[u8]) -> Result<()> {
        let mut message = Vec::new();
        messages::password(&mut message, password);
        self.send(&message).await
    }

    async fn scram_first(&mut self, offer: &[&str], binding: Option<Vec<u8>>) -> Result<Sasl> {
        let (mechanism, binding) = match binding {
            Some(hash) if offer.contains(&SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, Binding::Bound(hash))
            }
            Some(_) => (SCRAM_SHA_256, Binding::Unrequested),
            None => (SCRAM_SHA_256, Binding::Unsupported),
        };
        if !offer.contains(&mechanism) {
            return Err(self.unsupported(10));
        }
        let scram = match &self.target.principal.proof {
            Proof::Keys(keys) => Scram::with_keys(keys, binding),
            _ => Scram::with_password(self.password()?, binding),
        };
        let mut message = Vec::new();
        messages::sasl_initial_response(&mut message, mechanism, scram.message());
        self.send(&message).await?;
        Ok(Sasl::FirstSent(scram))
    }

    async fn scram_final(&mut self, scram: Scram, challenge: &[u8]) -> Result<Sasl> {
        let scram = scram.answer(challenge).await.map_err(|halt| match halt {
            Halt::Challenge => self.broken("Its SCRAM challenge is unacceptable."),
            Halt::OtherVerifier => self.other_verifier(),
            Halt::Internal(error) => Error::new(SqlState::INTERNAL_ERROR, error),
        })?;
        let mut message = Vec::new();
        messages::sasl_response(&mut message, scram.message());
        self.send(&message).await?;
        Ok(Sasl::FinalSent(scram))
    }

    fn other_verifier(&self) -> Error {
        let Target {
            address, principal, ..
        } = self.target;
        Error::new(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!(
                "server \"{address}\" keeps another SCRAM verifier of role \"{}\" than the proxy",
                principal.role
            ),
        )
        .detail("What the client has proved to the proxy proves nothing to that server.")
        .hint(
            "Give the role the same verifier on every server: ALTER ROLE … PASSWORD \
             'SCRAM-SHA-256$…', as pg_authid.rolpassword holds it on one of them.",
        )
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
