//! Who may log in, with what each user's proof is checked against.

use std::collections::BTreeMap;
use std::fmt;

use crate::auth::maps::Demand;
use crate::auth::md5::Md5Hash;
use crate::auth::rules::{self, Visitor};
use crate::auth::scram::{self, Verifier};
use crate::config::Auth;
use crate::config::AuthMethod;
use crate::config::ClientCert;
use crate::config::ClientName;
use crate::config::Mapping;
use crate::config::Password;
use crate::config::Rule;
use crate::config::Secret;
use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// The users of a configuration, ready to log in.
#[derive(Clone, Debug)]
pub struct Users {
    method: AuthMethod,
    rules: Option<Vec<Rule>>,
    maps: BTreeMap<String, Vec<Mapping>>,
    accounts: BTreeMap<String, Account>,
    maker: Maker,
}

/// Makes verifiers: of passwords that are known in clear, and of users who don't exist.
#[derive(Clone, Copy)]
pub struct Maker {
    seed: [u8; 32],
    iterations: u32,
}

/// A user that exists.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// None for a user without a password, whom no proof of one lets in.
    stored: Option<Stored>,
    /// The password itself, if it is known.
    plain: Option<Secret>,
}

impl Account {
    /// The password itself, if it is known.
    pub fn plain(&self) -> Option<&Secret> {
        self.plain.as_ref()
    }
}

/// The form in which a password is kept.
#[derive(Clone, Debug)]
enum Stored {
    Scram(Verifier),
    Md5(Md5Hash),
}

/// What a login is checked against. Users who don't exist have one too.
#[derive(Clone, Debug)]
pub struct Credential {
    user: String,
    verifier: Verifier,
    exists: bool,
    md5: Option<Md5Hash>,
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
        let mut users = Users {
            method: auth.method,
            rules: auth.rules.clone(),
            maps: auth.maps.clone(),
            accounts: BTreeMap::new(),
            maker: Maker {
                seed,
                iterations: scram::ITERATIONS,
            },
        };
        let mut iterations = None;
        for (name, user) in &auth.users {
            let mut plain = None;
            let stored = match &user.password {
                Some(Password::Verifier(text)) => {
                    let verifier = Verifier::parse(text.expose())
                        .ok_or_else(|| malformed(name, "SCRAM verifier"))?;
                    iterations = iterations.max(Some(verifier.iterations()));
                    Some(Stored::Scram(verifier))
                }
                Some(Password::Md5(text)) => {
                    let hash =
                        Md5Hash::parse(text.expose()).ok_or_else(|| malformed(name, "md5 hash"))?;
                    Some(Stored::Md5(hash))
                }
                Some(Password::Plain(text)) => {
                    plain = Some(text.clone());
                    None
                }
                None => None,
            };
            users
                .accounts
                .insert(name.clone(), Account { stored, plain });
        }
        // Made-up and derived verifiers look like the stored ones.
        users.maker.iterations = iterations.unwrap_or(scram::ITERATIONS);
        let asks_passwords = match &auth.rules {
            None => auth.method.asks_password(),
            Some(rules) => rules.iter().any(|rule| rule.method.asks_password()),
        };
        let maker = users.maker;
        for (name, account) in users.accounts.iter_mut().filter(|_| asks_passwords) {
            if let Some(text) = &account.plain {
                let verifier = maker.derive(name, text.expose());
                account.stored = Some(Stored::Scram(verifier));
            }
        }
        Ok(users)
    }

    /// What makes accounts of what servers say.
    pub fn maker(&self) -> Maker {
        self.maker
    }

    /// What is asked of a visitor: a proof, and perhaps a certificate.
    ///
    /// # Errors
    /// `28000` if no rule lets it try.
    pub fn asked(&self, visitor: &Visitor<'_>) -> Result<(AuthMethod, Option<Demand<'_>>)> {
        let rule = match &self.rules {
            None => None,
            Some(rules) => Some(rules::decide(rules, visitor)?),
        };
        let method = rule.map_or(self.method, |rule| rule.method);
        let cert = match method {
            AuthMethod::Cert => Some(ClientCert::VerifyFull),
            _ => rule.and_then(|rule| rule.client_cert),
        };
        let map = rule.and_then(|rule| rule.map.as_ref());
        let demand = cert.map(|cert| Demand {
            cert,
            name: rule.map_or(ClientName::default(), |rule| rule.client_name),
            // A map that is not there lets nobody in.
            map: map.map(|map| self.maps.get(map).map_or(&[][..], Vec::as_slice)),
        });
        Ok((method, demand))
    }

    /// The account of a user, if the configuration names it.
    pub fn account(&self, user: &str) -> Option<&Account> {
        self.accounts.get(user)
    }

    /// Whether a user comes in where no proof is asked: if it exists, or if nobody says who does.
    /// `asks_servers` tells whether servers were asked for users that are not named.
    pub fn trusts(&self, account: Option<&Account>, asks_servers: bool) -> bool {
        account.is_some() || (self.accounts.is_empty() && !asks_servers)
    }

    /// What a user's proof is checked against.
    pub fn credential(&self, user: &str, account: Option<&Account>) -> Credential {
        // Made for everybody, so that existing users take as long.
        let mock = Verifier::mock(&self.maker.seed, user, self.maker.iterations);
        let (verifier, md5) = match account.and_then(|account| account.stored.clone()) {
            Some(Stored::Scram(verifier)) => (Some(verifier), None),
            Some(Stored::Md5(hash)) => (None, Some(hash)),
            None => (None, None),
        };
        Credential {
            user: user.to_owned(),
            exists: verifier.is_some(),
            verifier: verifier.unwrap_or(mock),
            md5,
        }
    }
}

fn malformed(user: &str, what: &str) -> Error {
    Error::new(
        SqlState::CONFIG_FILE_ERROR,
        format!("the {what} of user \"{user}\" is malformed"),
    )
}

impl Maker {
    fn derive(&self, user: &str, password: &str) -> Verifier {
        Verifier::derive(password, &scram::salt(&self.seed, user), self.iterations)
    }

    /// The account of a user whose password a server has told in any of the forms of
    /// `pg_authid.rolpassword`, or in clear; takes about a millisecond for those in clear.
    pub fn account(&self, user: &str, password: Option<&str>) -> Account {
        let Some(text) = password.filter(|text| !text.is_empty()) else {
            return Account::default();
        };
        let mut plain = None;
        let stored = if let Some(verifier) = Verifier::parse(text) {
            Stored::Scram(verifier)
        } else if let Some(hash) = Md5Hash::parse(text) {
            Stored::Md5(hash)
        } else {
            plain = Some(Secret::new(text));
            Stored::Scram(self.derive(user, text))
        };
        Account {
            stored: Some(stored),
            plain,
        }
    }
}

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maker(***)")
    }
}

impl Credential {
    /// What SCRAM is done with.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The md5 hash, for a user whose password is kept as one.
    pub fn md5(&self) -> Option<&Md5Hash> {
        self.md5.as_ref()
    }

    /// Whether a SCRAM proof that holds lets the user in: never, if there is no such user.
    pub fn admits(&self, proved: bool) -> bool {
        self.exists & proved
    }

    /// Whether this is the user's password; takes as long for users who don't exist.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let by_scram = self.admits(self.verifier.matches(password));
        let by_md5 = match &self.md5 {
            Some(hash) => hash.matches(password, &self.user),
            None => false,
        };
        by_scram | by_md5
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::User;

    const SEED: [u8; 32] = [1; 32];

    fn users(method: AuthMethod, passwords: &[(&str, Option<Password>)]) -> Users {
        let users = passwords
            .iter()
            .map(|(name, password)| {
                let user = User {
                    password: password.clone(),
                    ..User::default()
                };
                ((*name).to_owned(), user)
            })
            .collect();
        let auth = Auth {
            method,
            users,
            ..Auth::default()
        };
        Users::new(&auth, SEED).unwrap()
    }

    fn credential(users: &Users, user: &str) -> Credential {
        users.credential(user, users.account(user))
    }

    fn trusts(users: &Users, user: &str) -> bool {
        users.trusts(users.account(user), false)
    }

    fn plain(text: &str) -> Option<Password> {
        Some(Password::Plain(Secret::new(text)))
    }

    fn md5(password: &str, user: &str) -> Option<Password> {
        let text = postgres_protocol::password::md5(password.as_bytes(), user);
        Some(Password::Md5(Secret::new(text)))
    }

    fn stored(password: &str) -> Option<Password> {
        let text = postgres_protocol::password::scram_sha_256(password.as_bytes());
        Some(Password::Verifier(Secret::new(text)))
    }

    #[test]
    fn every_form_of_password_is_checked() {
        let users = users(
            AuthMethod::ScramSha256,
            &[
                ("clear", plain("a")),
                ("kept", stored("b")),
                ("old", md5("c", "old")),
            ],
        );
        for (user, password, right) in [
            ("clear", "a", true),
            ("clear", "b", false),
            ("kept", "b", true),
            ("kept", "a", false),
            ("old", "c", true),
            ("old", "a", false),
            ("nobody", "", false),
        ] {
            let credential = credential(&users, user);
            let proved = credential.verifier().matches(password.as_bytes());
            assert_eq!(
                credential.admits(proved),
                right && user != "old",
                "{user} {password}"
            );
            let is_password = credential.is_password(password.as_bytes());
            assert_eq!(is_password, right, "{user} {password}");
        }
    }

    #[test]
    fn nobody_is_let_in_as_a_user_who_does_not_exist() {
        let users = users(AuthMethod::Password, &[("a", plain("a"))]);
        assert!(!credential(&users, "nobody").admits(true));
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
            assert_eq!(credential(&users, user).verifier().iterations(), 5000);
        }
    }

    #[test]
    fn trust_means_anybody_or_those_who_are_named() {
        assert!(trusts(&users(AuthMethod::Trust, &[]), "anybody"));
        let named = users(AuthMethod::Trust, &[("a", None), ("b", plain("x"))]);
        assert!(trusts(&named, "a") && trusts(&named, "b"));
        assert!(!trusts(&named, "c"));
    }

    #[test]
    fn servers_may_tell_a_password_in_any_form() {
        let users = users(AuthMethod::ScramSha256, &[]);
        let scram = postgres_protocol::password::scram_sha_256(b"x");
        let md5 = postgres_protocol::password::md5(b"x", "alice");
        for (told, is_scram, is_password) in [
            (Some(scram.as_str()), true, true),
            (Some(&md5), false, true),
            (Some("x"), true, true),
            (Some("y"), false, false),
            (Some(""), false, false),
            (None, false, false),
            // What looks like a verifier and is none is a password in clear, as in PostgreSQL.
            (Some("SCRAM-SHA-256$0:abc$x:y"), false, false),
        ] {
            let account = users.maker().account("alice", told);
            let credential = users.credential("alice", Some(&account));
            let proved = credential.admits(credential.verifier().matches(b"x"));
            assert_eq!(proved, is_scram, "{told:?}");
            assert_eq!(credential.is_password(b"x"), is_password, "{told:?}");
            assert!(users.trusts(Some(&account), true));
        }
        assert!(!users.trusts(None, true));
    }

    proptest! {
        /// Whatever a server tells lets nobody in without the password, and breaks nothing.
        #[test]
        fn no_answer_lets_everybody_in(told in "(SCRAM-SHA-256[$])?[0-9]{0,2}:?[A-Za-z0-9+/=$:]{0,40}|md5[0-9a-g]{30,34}|\\PC{0,20}", given in "\\PC{0,12}") {
            // Few rounds: the test is not about them.
            let maker = Maker { seed: SEED, iterations: 1 };
            let account = maker.account("alice", Some(&told));
            let mut users = users(AuthMethod::ScramSha256, &[]);
            users.maker = maker;
            let credential = users.credential("alice", Some(&account));
            if credential.verifier().iterations() < 100 {
                prop_assert_eq!(credential.is_password(given.as_bytes()), !told.is_empty() && given == told);
            }
        }
    }
}
