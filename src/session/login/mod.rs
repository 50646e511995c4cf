//! Has a client prove who it is; the only maker of [`Authenticated`].

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::maps::Demand;
use crate::auth::md5::Md5Hash;
use crate::auth::scram::{self, Exchange};
use crate::auth::users::{Account, Credential, Users};
use crate::backend::principal::Proof as ServerProof;
use crate::config::AuthMethod;
use crate::config::Secret;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::session::handshake::Startup;
use crate::session::roles::Roles;
use crate::sqlstate::SqlState;
use crate::wire::authentication::{self as messages, Request};

/// The longest proof that is read, in bytes.
const MAX_PROOF: usize = 8 * 1024;

/// The proof that a client is who it says. Nothing else makes one.
#[derive(Debug)]
pub struct Authenticated {
    user: String,
    proof: ServerProof,
}

impl Authenticated {
    /// The user that the client has proved to be.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the proxy can prove to servers that it comes for this user: what the client has given away,
    /// or the password if that is known.
    pub fn proof(&self) -> &ServerProof {
        &self.proof
    }
}

/// How far a client's proof came.
enum Proof {
    Right(ServerProof),
    Wrong,
    /// The client went away, as psql does to ask its user for the password.
    Gone,
}

/// Has a client prove who it is; none if it goes away. AuthenticationOk is left in [`Startup::unsent`], as
/// PostgreSQL sends it with what follows: each write wakes the client.
///
/// `roles` is asked for users that the configuration does not name. The caller sets the time limit;
/// dropping the future leaves the connection useless.
///
/// # Errors
/// Why it is not let in: `28P01` for a wrong password or no such user, `28000` for a user that
/// trust doesn't cover, whom no rule lets in, or a channel bound to something else, `08P01` for
/// malformed messages. The client has been told already and its connection is shut down.
pub async fn authenticate(
    startup: &mut Startup,
    users: &Users,
    roles: Option<&Roles>,
) -> Result<Option<Authenticated>> {
    let error = match prove(startup, users, roles).await {
        Ok(Proof::Gone) => return Ok(None),
        Ok(Proof::Right(proof)) => {
            let user = startup.user.clone();
            return Ok(Some(Authenticated { user, proof }));
        }
        Ok(Proof::Wrong) => {
            if let Some(roles) = roles {
                roles.doubt(&startup.user);
            }
            Error::fatal(
                SqlState::INVALID_PASSWORD,
                format!(
                    "password authentication failed for user \"{}\"",
                    startup.user
                ),
            )
        }
        // Before the login has ended there is no session to go on with.
        Err(error) => error.into_fatal(),
    };
    startup.tell(&error).await;
    Err(error)
}

/// Finds out what is asked of the client and asks for it.
async fn prove(startup: &mut Startup, users: &Users, roles: Option<&Roles>) -> Result<Proof> {
    let Some(visitor) = startup.visitor() else {
        return Ok(Proof::Gone);
    };
    let (method, demand) = users.asked(&visitor)?;
    if let Some(demand) = demand {
        certify(startup, &demand)?;
    }
    let mut account = users.account(&startup.user).cloned();
    if let Some(roles) = roles.filter(|_| account.is_none()) {
        account = roles.account(&startup.user).await;
    }
    let account = account.as_ref();
    let plain = account.and_then(Account::plain).cloned();
    let proof = match method {
        AuthMethod::Trust | AuthMethod::Cert => {
            trust(startup, users.trusts(account, roles.is_some()))?
        }
        AuthMethod::Reject => Proof::Wrong,
        AuthMethod::Password | AuthMethod::Md5 | AuthMethod::ScramSha256 => {
            let credential = users.credential(&startup.user, account);
            match (method, credential.md5()) {
                (AuthMethod::Password, _) => password(startup, credential).await?,
                (AuthMethod::Md5, Some(hash)) => md5(startup, hash).await?,
                _ => scram(startup, &credential).await?,
            }
        }
    };
    // The password itself opens every server, whatever it asks for.
    Ok(match (proof, plain) {
        (Proof::Right(_), Some(plain)) => Proof::Right(ServerProof::Password(plain)),
        (proof, _) => proof,
    })
}

/// Checks that the client has shown the certificate that it needs.
///
/// # Errors
/// `28000` if it has not.
fn certify(startup: &Startup, demand: &Demand<'_>) -> Result<()> {
    let refused = |message| {
        Err(Error::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            message,
        ))
    };
    let Some(certificate) = startup.stream.client_certificate() else {
        return refused("connection requires a valid client certificate".to_owned());
    };
    if !demand.is_met(certificate, &startup.user) {
        let user = &startup.user;
        return refused(format!(
            "certificate authentication failed for user \"{user}\""
        ));
    }
    Ok(())
}

fn trust(startup: &mut Startup, exists: bool) -> Result<Proof> {
    if !exists {
        return Err(Error::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!("role \"{}\" does not exist", startup.user),
        ));
    }
    Ok(admit(startup, &[Request::Ok], ServerProof::None))
}

async fn password(startup: &mut Startup, credential: Credential) -> Result<Proof> {
    let stream = &mut startup.stream;
    if !send(stream, &[Request::Cleartext]).await {
        return Ok(Proof::Gone);
    }
    let Some(body) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    let given = messages::parse_password(&body)?.to_vec();
    let password = String::from_utf8(given.clone()).ok().map(Secret::new);
    // Thousands of hashes: not on a thread that serves others.
    let checked = tokio::task::spawn_blocking(move || credential.is_password(&given));
    match checked.await {
        Ok(true) => {
            let proof = password.map_or(ServerProof::None, ServerProof::Password);
            Ok(admit(startup, &[Request::Ok], proof))
        }
        Ok(false) => Ok(Proof::Wrong),
        Err(error) => Err(Error::fatal(SqlState::INTERNAL_ERROR, error.to_string())),
    }
}

async fn md5(startup: &mut Startup, hash: &Md5Hash) -> Result<Proof> {
    let stream = &mut startup.stream;
    let salt = rand::random();
    if !send(stream, &[Request::Md5(salt)]).await {
        return Ok(Proof::Gone);
    }
    let Some(body) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    Ok(
        match hash.is_proved(salt, messages::parse_password(&body)?) {
            true => admit(startup, &[Request::Ok], ServerProof::Md5(hash.clone())),
            false => Proof::Wrong,
        },
    )
}

async fn scram(startup: &mut Startup, credential: &Credential) -> Result<Proof> {
    let stream = &mut startup.stream;
    let binding = startup.binding.as_deref();
    let offer = Request::Sasl(scram::mechanisms(binding));
    if !send(stream, &[offer]).await {
        return Ok(Proof::Gone);
    }
    let Some(body) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    let (mechanism, first) = messages::parse_sasl_initial_response(&body)?;
    let nonce = STANDARD.encode(rand::random::<[u8; 18]>());
    let verifier = credential.verifier().clone();
    let exchange = Exchange::begin(mechanism, first, binding, verifier, &nonce)?;
    let challenge = Request::SaslContinue(exchange.server_first().as_bytes());
    if !send(stream, &[challenge]).await {
        return Ok(Proof::Gone);
    }
    let Some(last) = read_proof(stream).await? else {
        return Ok(Proof::Gone);
    };
    Ok(match exchange.finish(&last)? {
        Some(proved) if credential.admits(true) => {
            let last = Request::SaslFinal(proved.signature.as_bytes());
            let proof = ServerProof::Keys(Arc::new(proved.keys));
            admit(startup, &[last, Request::Ok], proof)
        }
        _ => Proof::Wrong,
    })
}

/// The client is in, and is told so with whatever it is told next.
fn admit(startup: &mut Startup, requests: &[Request<'_>], proof: ServerProof) -> Proof {
    for request in requests {
        messages::request(&mut startup.unsent, request);
    }
    Proof::Right(proof)
}

/// Sends requests in one write; false if the client is not there to take them.
async fn send(stream: &mut Stream, requests: &[Request<'_>]) -> bool {
    let mut out = Vec::new();
    for request in requests {
        messages::request(&mut out, request);
    }
    let sent = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    sent.await.is_ok()
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
