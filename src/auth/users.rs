//! Who may log in, with what each user's proof is checked against.

use std::collections::BTreeMap;

use crate::auth::scram::{self, Verifier};
use crate::config::Auth;
use crate::config::AuthMethod;
use crate::config::Password;
use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// The users of a configuration, ready to log in.
#[derive(Clone, Debug)]
pub struct Users {
    method: AuthMethod,
    /// None for a user without a password, who can come in by trust only.
    verifiers: BTreeMap<String, Option<Verifier>>,
    seed: [u8; 32],
    iterations: u32,
}

/// What a login is checked against. Users who don't exist have one too.
#[derive(Clone, Debug)]
pub struct Credential {
    verifier: Verifier,
    exists: bool,
}

impl Users {
    /// Prepares the users: about a millisecond for each password that is given in clear, so that
    /// logins cost the same whatever form the password has.
    ///
    /// `seed` is random, secret, and should be the same after a reload: users who don't exist get
    /// their salts from it.
    ///
    /// # Errors
    /// `F0000` if a verifier is not one (the configuration has checked its form).
    pub fn new(auth: &Auth, seed: [u8; 32]) -> Result<Users> {
        let mut iterations = None;
        let mut verifiers = BTreeMap::new();
        for (name, user) in &auth.users {
            if let Some(Password::Verifier(text)) = &user.password {
                let verifier = Verifier::parse(text.expose()).ok_or_else(|| {
                    Error::new(
                        SqlState::CONFIG_FILE_ERROR,
                        format!("the SCRAM verifier of user \"{name}\" is malformed"),
                    )
                })?;
                iterations = iterations.max(Some(verifier.iterations()));
                verifiers.insert(name.clone(), Some(verifier));
            }
        }
        // Made-up and derived verifiers look like the stored ones.
        let iterations = iterations.unwrap_or(scram::ITERATIONS);
        for (name, user) in &auth.users {
            let verifier = match &user.password {
                Some(Password::Verifier(_)) => continue,
                Some(Password::Plain(text)) if auth.method != AuthMethod::Trust => {
                    let salt = scram::salt(&seed, name);
                    Some(Verifier::derive(text.expose(), &salt, iterations))
                }
                _ => None,
            };
            verifiers.insert(name.clone(), verifier);
        }
        Ok(Users {
            method: auth.method,
            verifiers,
            seed,
            iterations,
        })
    }

    /// The proof that is asked for.
    pub fn method(&self) -> AuthMethod {
        self.method
    }

    /// Whether a user comes in without any proof.
    pub fn trusts(&self, user: &str) -> bool {
        let anybody = self.verifiers.is_empty();
        self.method == AuthMethod::Trust && (anybody || self.verifiers.contains_key(user))
    }

    /// What a user's proof is checked against.
    pub fn credential(&self, user: &str) -> Credential {
        // Made for everybody, so that existing users take as long.
        let mock = Verifier::mock(&self.seed, user, self.iterations);
        let known = self.verifiers.get(user).cloned().flatten();
        Credential {
            exists: known.is_some(),
            verifier: known.unwrap_or(mock),
        }
    }
}

impl Credential {
    /// What SCRAM is done with.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Whether a proof that holds lets the user in: never, if there is no such user.
    pub fn admits(&self, proved: bool) -> bool {
        self.exists & proved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::config::User;

    const SEED: [u8; 32] = [1; 32];

    fn users(method: AuthMethod, passwords: &[(&str, Option<Password>)]) -> Users {
        let users = passwords
            .iter()
            .map(|(name, password)| {
                let password = password.clone();
                ((*name).to_owned(), User { password })
            })
            .collect();
        Users::new(&Auth { method, users }, SEED).unwrap()
    }

    fn plain(text: &str) -> Option<Password> {
        Some(Password::Plain(Secret::new(text)))
    }

    fn stored(password: &str) -> Option<Password> {
        let text = postgres_protocol::password::scram_sha_256(password.as_bytes());
        Some(Password::Verifier(Secret::new(text)))
    }

    #[test]
    fn both_forms_of_password_are_checked() {
        let users = users(
            AuthMethod::ScramSha256,
            &[("clear", plain("a")), ("kept", stored("b"))],
        );
        for (user, password, right) in [
            ("clear", "a", true),
            ("clear", "b", false),
            ("kept", "b", true),
            ("kept", "a", false),
            ("nobody", "", false),
        ] {
            let credential = users.credential(user);
            let proved = credential.verifier().matches(password.as_bytes());
            assert_eq!(credential.admits(proved), right, "{user} {password}");
        }
        assert!(!users.trusts("clear"));
    }

    #[test]
    fn nobody_is_let_in_as_a_user_who_does_not_exist() {
        let users = users(AuthMethod::Password, &[("a", plain("a"))]);
        assert!(!users.credential("nobody").admits(true));
    }

    #[test]
    fn users_who_do_not_exist_have_the_iterations_of_those_who_do() {
        let text = postgres_protocol::password::scram_sha_256(b"x").replace("4096", "5000");
        let users = users(
            AuthMethod::ScramSha256,
            &[
                ("kept", Some(Password::Verifier(Secret::new(text)))),
                ("clear", plain("y")),
            ],
        );
        for user in ["kept", "clear", "nobody"] {
            assert_eq!(users.credential(user).verifier().iterations(), 5000);
        }
    }

    #[test]
    fn trust_means_anybody_or_those_who_are_named() {
        assert!(users(AuthMethod::Trust, &[]).trusts("anybody"));
        let named = users(AuthMethod::Trust, &[("a", None), ("b", plain("x"))]);
        assert!(named.trusts("a") && named.trusts("b"));
        assert!(!named.trusts("c"));
    }
}
