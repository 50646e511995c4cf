//! Which users a client's certificate speaks for.

use crate::auth::certificate;
use crate::config::ClientCert;
use crate::config::ClientName;
use crate::config::Mapping;

/// What a client's certificate must be, beyond coming from an authority that is trusted.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// How much is checked.
    pub cert: ClientCert,
    /// Which of its names count.
    pub name: ClientName,
    /// Which names stand for which users; without a map a name stands for the user that it is.
    pub map: Option<&'a [Mapping]>,
}

impl Demand<'_> {
    /// Whether a certificate in DER speaks for the user.
    pub fn is_met(&self, der: &[u8], user: &str) -> bool {
        if self.cert == ClientCert::VerifyCa {
            return true;
        }
        let names = match self.name {
            ClientName::CommonName => certificate::common_name(der).into_iter().collect(),
            ClientName::AlternativeName => certificate::alternative_names(der),
        };
        names.iter().any(|name| stands_for(name, user, self.map))
    }
}

/// Whether a certificate's name stands for a user.
fn stands_for(name: &str, user: &str, map: Option<&[Mapping]>) -> bool {
    let Some(map) = map else {
        return name == user;
    };
    map.iter().any(|mapping| {
        let Some(matched) = matched(&mapping.certificate, name) else {
            return false;
        };
        let is_user = |wanted: &String| match wanted.split_once('*') {
            Some((before, after)) => {
                let rest = user.strip_prefix(before);
                rest.and_then(|rest| rest.strip_suffix(after)) == Some(matched)
                    && !matched.is_empty()
            }
            None => wanted == user,
        };
        mapping.users.iter().any(is_user)
    })
}

/// What the `*` of a pattern stands for in a name that fits; empty where there is none.
fn matched<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    match pattern.split_once('*') {
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .filter(|matched| !matched.is_empty()),
        None => (pattern == name).then_some(""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(entries: &[(&str, &[&str])]) -> Vec<Mapping> {
        let mapping = |(certificate, users): &(&str, &[&str])| Mapping {
            certificate: (*certificate).to_owned(),
            users: users.iter().map(|&user| user.to_owned()).collect(),
        };
        entries.iter().map(mapping).collect()
    }

    #[test]
    fn names_stand_for_themselves_or_for_what_the_map_says() {
        assert!(stands_for("alice", "alice", None));
        assert!(!stands_for("Alice", "alice", None));
        let map = map(&[
            ("robot", &["ci", "cd"]),
            ("*@example.com", &["*"]),
            ("*.admin", &["admin_*", "root"]),
        ]);
        for (name, user, expected) in [
            ("robot", "ci", true),
            ("robot", "cd", true),
            ("robot", "robot", false),
            ("robots", "ci", false),
            ("alice@example.com", "alice", true),
            ("alice@example.com", "bob", false),
            ("@example.com", "", false),
            ("alice@example.com.evil", "alice", false),
            ("eve.admin", "admin_eve", true),
            ("eve.admin", "root", true),
            ("eve.admin", "admin_alice", false),
            ("eve.admin", "eve", false),
        ] {
            assert_eq!(
                stands_for(name, user, Some(&map)),
                expected,
                "{name} {user}"
            );
        }
        assert!(!stands_for("alice", "alice", Some(&[])));
    }

    #[test]
    fn an_authority_may_be_enough() {
        let demand = |cert| Demand {
            cert,
            name: ClientName::CommonName,
            map: None,
        };
        assert!(demand(ClientCert::VerifyCa).is_met(b"", "alice"));
        assert!(!demand(ClientCert::VerifyFull).is_met(b"", "alice"));
    }

    proptest! {
        /// A pattern and what its `*` stands for make the name again.
        #[test]
        fn patterns_take_names_apart(before in "[a-c.@]{0,4}", middle in "[a-c.@]{1,4}", after in "[a-c.@]{0,4}", other in "[a-c.@]{0,9}") {
            let pattern = format!("{before}*{after}");
            let name = format!("{before}{middle}{after}");
            prop_assert_eq!(matched(&pattern, &name), Some(middle.as_str()));
            if let Some(found) = matched(&pattern, &other) {
                prop_assert_eq!(format!("{before}{found}{after}"), other);
            }
        }
    }
}
