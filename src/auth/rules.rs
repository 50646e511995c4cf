//! Which proof is asked of whom: `auth.rules`, matched as PostgreSQL matches pg_hba.conf.

use std::net::IpAddr;

use crate::config::AuthMethod;
use crate::config::ConnectionKind;
use crate::config::DatabaseName;
use crate::config::Rule;
use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// A client that has said who it is and where it wants to go.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Where it comes from; none is a unix socket.
    pub address: Option<IpAddr>,
    /// Whether it has TLS.
    pub is_encrypted: bool,
    /// The user it claims to be.
    pub user: &'a str,
    /// The database it names.
    pub database: &'a str,
}

/// The first rule that fits decides.
///
/// # Errors
/// `28000` if none fits, or if it says reject.
pub fn decide<'r>(rules: &'r [Rule], visitor: &Visitor<'_>) -> Result<&'r Rule> {
    match rules.iter().find(|rule| fits(rule, visitor)) {
        Some(rule) if rule.method == AuthMethod::Reject => {
            Err(turned_away("auth.rules rejects connection for", visitor))
        }
        Some(rule) => Ok(rule),
        None => Err(turned_away("no auth.rules entry for", visitor)),
    }
}

fn fits(rule: &Rule, visitor: &Visitor<'_>) -> bool {
    let is_kind = match rule.kind {
        None => true,
        Some(ConnectionKind::Local) => visitor.address.is_none(),
        Some(ConnectionKind::Host) => visitor.address.is_some(),
        Some(ConnectionKind::HostSsl) => visitor.address.is_some() && visitor.is_encrypted,
        Some(ConnectionKind::HostNoSsl) => visitor.address.is_some() && !visitor.is_encrypted,
    };
    let is_database = |name: &DatabaseName| match name {
        DatabaseName::SameUser => visitor.database == visitor.user,
        DatabaseName::Named(name) => name == visitor.database,
    };
    is_kind
        && rule
            .databases
            .as_ref()
            .is_none_or(|names| names.iter().any(is_database))
        && rule
            .users
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == visitor.user))
        && rule.addresses.as_ref().is_none_or(|networks| {
            visitor
                .address
                .is_some_and(|address| networks.iter().any(|network| network.contains(address)))
        })
}

/// As PostgreSQL words it, so that logs are understood by who knows those of PostgreSQL.
fn turned_away(what: &str, visitor: &Visitor<'_>) -> Error {
    let Visitor { user, database, .. } = visitor;
    let host = match visitor.address {
        Some(address) => address.to_canonical().to_string(),
        None => "[local]".to_owned(),
    };
    let encryption = match visitor.is_encrypted {
        true => "SSL encryption",
        false => "no encryption",
    };
    Error::fatal(
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        format!("{what} host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::config::ClientName;
    use crate::config::Network;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    fn rule(method: AuthMethod) -> Rule {
        Rule {
            kind: None,
            databases: None,
            users: None,
            addresses: None,
            method,
            client_cert: None,
            client_name: ClientName::default(),
            map: None,
        }
    }

    fn visitor(address: Option<&str>) -> Visitor<'static> {
        Visitor {
            address: address.map(|address| address.parse().unwrap()),
            is_encrypted: false,
            user: "alice",
            database: "shop",
        }
    }

    #[test]
    fn kinds_are_those_of_pg_hba() {
        use ConnectionKind::{Host, HostNoSsl, HostSsl, Local};
        let tcp = visitor(Some("10.0.0.1"));
        let tls = Visitor {
            is_encrypted: true,
            ..tcp
        };
        let local = visitor(None);
        for (kind, expected) in [
            (None, [true, true, true]),
            (Some(Local), [false, false, true]),
            (Some(Host), [true, true, false]),
            (Some(HostSsl), [false, true, false]),
            (Some(HostNoSsl), [true, false, false]),
        ] {
            let rule = Rule {
                kind,
                ..rule(AuthMethod::Trust)
            };
            let found = [tcp, tls, local].map(|visitor| fits(&rule, &visitor));
            assert_eq!(found, expected, "{kind:?}");
        }
    }

    #[test]
    fn names_and_addresses_narrow_a_rule() {
        let named = |name: &str| Some(vec![DatabaseName::Named(name.to_owned())]);
        let all = rule(AuthMethod::Trust);
        let alice = visitor(Some("10.1.2.3"));
        let at_home = Visitor {
            database: "alice",
            ..alice
        };
        let local = visitor(None);
        let databases = |databases| Rule {
            databases,
            ..all.clone()
        };
        assert!(fits(&databases(named("shop")), &alice));
        assert!(!fits(&databases(named("other")), &alice));
        let own = databases(Some(vec![DatabaseName::SameUser]));
        assert!(fits(&own, &at_home) && !fits(&own, &alice));
        let users = |name: &str| Rule {
            users: Some(vec!["bob".to_owned(), name.to_owned()]),
            ..all.clone()
        };
        assert!(fits(&users("alice"), &alice));
        assert!(!fits(&users("Alice"), &alice));
        let from = |text: &str| Rule {
            addresses: Some(vec![network("192.168.0.0/16"), network(text)]),
            ..all.clone()
        };
        assert!(fits(&from("10.0.0.0/8"), &alice));
        assert!(!fits(&from("10.2.0.0/16"), &alice));
        assert!(!fits(&from("::/0"), &alice));
        assert!(!fits(&from("0.0.0.0/0"), &local));
        assert!(fits(&from("10.0.0.0/8"), &visitor(Some("::ffff:10.0.0.1"))));
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_none_refuses() {
        let from = |text: &str, method| Rule {
            addresses: Some(vec![network(text)]),
            ..rule(method)
        };
        let rules = [
            from("10.1.0.0/16", AuthMethod::Reject),
            from("10.0.0.0/8", AuthMethod::ScramSha256),
            from("10.0.0.1/32", AuthMethod::Trust),
        ];
        let found = decide(&rules, &visitor(Some("10.0.0.1"))).unwrap();
        assert_eq!(found.method, AuthMethod::ScramSha256);
        for (address, message) in [
            (
                Some("10.1.0.1"),
                "auth.rules rejects connection for host \"10.1.0.1\", user \"alice\", database \
                 \"shop\", no encryption",
            ),
            (
                None,
                "no auth.rules entry for host \"[local]\", user \"alice\", database \"shop\", no \
                 encryption",
            ),
        ] {
            let error = decide(&rules, &visitor(address)).unwrap_err();
            assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
            assert_eq!(error.fields().message, message);
            assert!(error.is_fatal());
        }
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        ]
    }

    fn bits(address: IpAddr) -> Vec<bool> {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let bit = |at: usize| octets[at / 8] & (128 >> (at % 8)) != 0;
        (0..octets.len() * 8).map(bit).collect()
    }

    proptest! {
        /// An address lies in a network when it has the network's first bits, one by one.
        #[test]
        fn networks_compare_prefixes(address in addresses(), other in addresses(), cut in 0.0..=1.0_f64, near in any::<bool>()) {
            let length = bits(address).len();
            let prefix = (cut * length as f64) as u8;
            let other = if near { address } else { other };
            let network = Network { address, prefix };
            let canonical = other.to_canonical();
            let same_family = address.is_ipv4() == canonical.is_ipv4();
            let expected = same_family && bits(address)[..prefix.into()] == bits(canonical)[..prefix.into()];
            prop_assert_eq!(network.contains(other), expected);
        }

        /// The decision is that of the first rule that fits, whatever stands behind it.
        #[test]
        fn later_rules_do_not_count(kinds in prop::collection::vec(0_usize..5, 0..6), address in prop::option::of(addresses()), is_encrypted in any::<bool>()) {
            use ConnectionKind::{Host, HostNoSsl, HostSsl, Local};
            let methods = [AuthMethod::Trust, AuthMethod::Password, AuthMethod::Md5, AuthMethod::ScramSha256, AuthMethod::Reject];
            let rules: Vec<Rule> = kinds.iter().enumerate().map(|(at, kind)| Rule {
                kind: [None, Some(Local), Some(Host), Some(HostSsl), Some(HostNoSsl)][*kind],
                ..rule(methods[at % methods.len()])
            }).collect();
            let visitor = Visitor { address, is_encrypted, user: "a", database: "b" };
            let first = rules.iter().find(|rule| fits(rule, &visitor));
            let decided = decide(&rules, &visitor);
            match first {
                Some(rule) if rule.method != AuthMethod::Reject => prop_assert_eq!(decided.unwrap(), rule),
                _ => prop_assert!(decided.is_err()),
            }
        }
    }
}
