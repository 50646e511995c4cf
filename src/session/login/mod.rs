//! Has a client prove who it is; the only maker of [`Authenticated`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::scram::{self, Exchange};
use crate::auth::users::Users;
use crate::config::AuthMethod;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::session::handshake::{Startup, tell};
use crate::sqlstate::SqlState;
use crate::wire::authentication::{self as messages, Request};

/// The longest proof that is read, in bytes.
const MAX_PROOF: usize = 8 * 1024;

/// The proof that a client is who it says. Nothing else makes one.
#[derive(Debug)]
pub struct Authenticated {
    user: String,
}

impl Authenticated {
    /// The user that the client has proved to be.
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// How far a client's proof came.
enum Proof {
    Right,
    Wrong,
    /// The client went away, as psql does to ask its user for the password.
    Gone,
}

/// Has a client prove who it is and tells it AuthenticationOk; none if it goes away.
///
/// The caller sets the time limit; dropping the future leaves the connection useless.
///
/// # Errors
/// Why it is not let in: `28P01` for a wrong password or no such user, `28000` for a user that
/// trust doesn't cover or a channel bound to something else, `08P01` for malformed messages. The
/// client has been told already and its connection is shut down.
pub async fn authenticate(startup: &mut Startup, users: &Users) -> Result<Option<Authenticated>> {
    let proof = match users.method() {
        AuthMethod::Trust => trust(startup, users).await,
        AuthMethod::Password => password(startup, users).await,
        AuthMethod::ScramSha256 => scram(startup, users).await,
    };
    let error = match proof {
        Ok(Proof::Gone) => return Ok(None),
        Ok(Proof::Right) => {
            let user = startup.user.clone();
            return Ok(Some(Authenticated { user }));
        }
        Ok(Proof::Wrong) => Error::fatal(
            SqlState::INVALID_PASSWORD,
            format!(
                "password authentication failed for user \"{}\"",
                startup.user
            ),
        ),
        // Before the login has ended there is no session to go on with.
        Err(error) => error.into_fatal(),
    };
    tell(&mut startup.stream, &error).await;
    Err(error)
}

async fn trust(startup: &mut Startup, users: &Users) -> Result<Proof> {
    if !users.trusts(&startup.user) {
        return Err(Error::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!("role \"{}\" does not exist", startup.user),
        ));
    }
    Ok(send(&mut startup.stream, &[Request::Ok]).await)
}

async fn password(startup: &mut Startup, users: &Users) -> Result<Proof> {
    let stream = &mut startup.stream;
    if let Proof::Gone = send(stream, &[Request::Cleartext]).await {
        return Ok(Proof::Gone);
    }
    let Some(body) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    let given = messages::parse_password(&body)?.to_vec();
    let credential = users.credential(&startup.user);
    // Thousands of hashes: not on a thread that serves others.
    let checked = tokio::task::spawn_blocking(move || {
        let proved = credential.verifier().matches(&given);
        credential.admits(proved)
    });
    match checked.await {
        Ok(true) => Ok(send(stream, &[Request::Ok]).await),
        Ok(false) => Ok(Proof::Wrong),
        Err(error) => Err(Error::fatal(SqlState::INTERNAL_ERROR, error.to_string())),
    }
}

async fn scram(startup: &mut Startup, users: &Users) -> Result<Proof> {
    let stream = &mut startup.stream;
    let binding = startup.binding.as_deref();
    let offer = Request::Sasl(scram::mechanisms(binding));
    if let Proof::Gone = send(stream, &[offer]).await {
        return Ok(Proof::Gone);
    }
    let Some(body) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    let (mechanism, first) = messages::parse_sasl_initial_response(&body)?;
    let credential = users.credential(&startup.user);
    let nonce = STANDARD.encode(rand::random::<[u8; 18]>());
    let verifier = credential.verifier().clone();
    let exchange = Exchange::begin(mechanism, first, binding, verifier, &nonce)?;
    let challenge = Request::SaslContinue(exchange.server_first().as_bytes());
    if let Proof::Gone = send(stream, &[challenge]).await {
        return Ok(Proof::Gone);
    }
    let Some(last) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    let signature = exchange.finish(&last)?;
    match signature {
        Some(signature) if credential.admits(true) => {
            let last = Request::SaslFinal(signature.as_bytes());
            Ok(send(stream, &[last, Request::Ok]).await)
        }
        _ => Ok(Proof::Wrong),
    }
}

/// Sends requests in one write; `Right` if the client was there to take them.
async fn send(stream: &mut Stream, requests: &[Request<'_>]) -> Proof {
    let mut out = Vec::new();
    for request in requests {
        messages::request(&mut out, request);
    }
    let sent = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    match sent.await {
        Ok(()) => Proof::Right,
        Err(_) => Proof::Gone,
    }
}

/// Reads the body of one message of type `p` and not a byte more; none if the client goes away.
async fn read_proof(stream: &mut Stream) -> Result<Option<Vec<u8>>> {
    let Ok(tag) = stream.read_u8().await else {
        return Ok(None);
    };
    match tag {
        b'p' => {}
        b'X' => return Ok(None),
        other => {
            return Err(Error::protocol(format!(
                "expected password response, got message type {other}"
            )));
        }
    }
    let Ok(length) = stream.read_u32().await else {
        return Ok(None);
    };
    let body = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_sub(4))
        .filter(|&body| body <= MAX_PROOF)
        .ok_or_else(|| Error::protocol("invalid message length"))?;
    let mut proof = vec![0; body];
    match stream.read_exact(&mut proof).await {
        Ok(_) => Ok(Some(proof)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
