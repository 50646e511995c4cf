//! The section `auth` of proxy.yaml: users, and the rules that say what is asked of whom.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::ClientTls;
use super::TlsMode;
use super::auth::Auth;
use super::auth::AuthMethod;
use super::auth::ConnectionKind;
use super::auth::DatabaseName;
use super::auth::Mapping;
use super::auth::Network;
use super::auth::Password;
use super::auth::Role;
use super::auth::Rule;
use super::auth::User;
use super::decode::Field;
use super::secret::Secret;
use super::value;
use super::value::PasswordForm;

/// In a rule, every database, user or address, as in pg_hba.conf.
const ALL: &str = "all";
/// In a rule, the database that is called as the user is.
const SAME_USER: &str = "sameuser";

/// Reads the section; `whole` is the file. Nobody may log in, unless servers are asked for users, if
/// there comes a place to say so.
pub(super) fn read<'a>(field: Option<&Field<'a>>, whole: &Field<'a>) -> (Auth, Option<Field<'a>>) {
    let mut auth = Auth::default();
    let mut users = None;
    if let Some(mut fields) = field.and_then(|field| field.fields("a map with method and users")) {
        fields.read("method", &mut auth.method, method);
        users = fields.get("users");
        fields.read("rules", &mut auth.rules, |field| rules(field).map(Some));
        fields.read("maps", &mut auth.maps, maps);
        fields.read("auth_query", &mut auth.query, query);
        let cache = &mut auth.query_cache;
        fields.read("auth_query_cache", cache, Field::duration);
        let set = |field: &Field<'_>| {
            let names = names(field, "the names of users")?;
            Some(BTreeSet::from_iter(names))
        };
        fields.read("administrators", &mut auth.administrators, set);
        fields.read("stats_users", &mut auth.stats_users, set);
        fields.finish();
    }
    let entries = users
        .as_ref()
        .and_then(|users| users.entries("a map of users"));
    let nobody = entries.as_ref().is_none_or(Vec::is_empty);
    let malformed = users.is_some() && entries.is_none();
    let methods = methods(&auth);
    for (name, field) in entries.unwrap_or_default() {
        if let Err(fault) = value::name(name) {
            let message = format!("the user's name {}", fault.what);
            field.key_problem(message, fault.hint.to_owned());
        }
        let user = user(&field, &methods);
        auth.users.insert(name.to_owned(), user);
    }
    let proves_all = methods.iter().all(|method| method.asks_password());
    let has_rules = auth.rules.as_ref().is_none_or(|rules| !rules.is_empty());
    let is_wrong = nobody && !malformed && proves_all && has_rules;
    let place = users.as_ref().or(field).unwrap_or(whole);
    (auth, is_wrong.then(|| place.clone()))
}

/// Notes that nobody may log in.
pub(super) fn nobody(field: &Field<'_>) {
    field.key_problem(
        "nobody may log in",
        "Add users under auth.users, ask the servers with auth.auth_query, or set auth.method to \
         trust."
            .to_owned(),
    );
}

/// A query that answers what a user's password is.
pub(super) fn query(field: &Field<'_>) -> Option<Option<String>> {
    let text = field.text("a query")?;
    if !text.contains("$1") {
        let hint = "Write SELECT usename, passwd FROM pg_shadow WHERE usename = $1.";
        field.problem("the query has no $1 for the user", hint.to_owned());
        return None;
    }
    Some(Some(text))
}

/// The proofs that may be asked for.
fn methods(auth: &Auth) -> Vec<AuthMethod> {
    match &auth.rules {
        None => vec![auth.method],
        Some(rules) => {
            let methods = rules.iter().map(|rule| rule.method);
            methods
                .filter(|method| *method != AuthMethod::Reject)
                .collect()
        }
    }
}

fn method(field: &Field<'_>) -> Option<AuthMethod> {
    let method = field.word()?;
    if method == AuthMethod::Reject {
        let hint = "Write it in auth.rules, for those who are not let in.".to_owned();
        field.problem("nobody would be let in", hint);
        return None;
    }
    Some(method)
}

fn user(field: &Field<'_>, methods: &[AuthMethod]) -> User {
    let mut user = User::default();
    let Some(mut fields) = field.fields("a map such as { password: \"${SHOP_PASSWORD}\" }") else {
        return user;
    };
    let hint = "Write { password: \"${NAME}\" }, or set auth.method to trust.";
    let password = if methods.iter().all(|method| method.asks_password()) {
        fields.required("password", hint)
    } else {
        fields.get("password")
    };
    fields.read("backend", &mut user.backend, |field| role(field).map(Some));
    fields.read("max_clients", &mut user.max_clients, limit);
    fields.finish();
    let takes_md5 = methods
        .iter()
        .any(|method| matches!(method, AuthMethod::Md5 | AuthMethod::Password));
    user.password = password.and_then(|field| {
        let (text, form) = secret(&field)?;
        if form == PasswordForm::Md5 && !takes_md5 {
            field.problem(
                "the password is an md5 hash",
                "SCRAM can't use it: write the password itself or its SCRAM-SHA-256$… verifier, or \
                 set the method to md5."
                    .to_owned(),
            );
        }
        Some(match form {
            PasswordForm::Plain => Password::Plain(text),
            PasswordForm::Verifier => Password::Verifier(text),
            PasswordForm::Md5 => Password::Md5(text),
        })
    });
    user
}

fn role(field: &Field<'_>) -> Option<Role> {
    let mut fields = field.fields("a map with user and password")?;
    let user = fields
        .required("user", "Name the role to use on the servers.")
        .and_then(|field| field.name("the name of a role"));
    let password = fields.get("password");
    let password = password.and_then(|field| server_password(&field));
    fields.finish();
    Some(Role {
        user: user?,
        password,
    })
}

/// A password for servers, which is of use only in clear.
pub(super) fn server_password(field: &Field<'_>) -> Option<Secret> {
    let (secret, form) = secret(field)?;
    let hashed = match form {
        PasswordForm::Plain => return Some(secret),
        PasswordForm::Verifier => "the password is a verifier",
        PasswordForm::Md5 => "the password is an md5 hash",
    };
    let hint = "Servers are logged in to with the password itself.".to_owned();
    field.problem(hashed, hint);
    None
}

/// A password, and the form that it has. Its text never enters a message.
pub(super) fn secret(field: &Field<'_>) -> Option<(Secret, PasswordForm)> {
    let text = field.text("a password")?;
    match value::password_form(&text) {
        Ok(form) => Some((Secret::new(text), form)),
        Err(fault) => {
            let message = format!("the password {}", fault.what);
            field.problem(message, fault.hint.to_owned());
            None
        }
    }
}

/// A number of clients; `off` is no limit.
pub(super) fn limit(field: &Field<'_>) -> Option<Option<u32>> {
    match field.text("a number, or off")?.as_str() {
        "off" => Some(None),
        _ => field.count().map(Some),
    }
}

fn rules(field: &Field<'_>) -> Option<Vec<Rule>> {
    let items = field.items("a list of rules")?;
    if items.is_empty() {
        let hint = "Write at least one, or leave rules out and set auth.method.".to_owned();
        field.problem("nobody may log in", hint);
    }
    Some(items.iter().filter_map(rule).collect())
}

fn rule(field: &Field<'_>) -> Option<Rule> {
    let mut fields = field.fields("a map such as { type: host, method: scram-sha-256 }")?;
    // A name that was forgotten must not make the rule hold for everybody.
    let empty = "Write all, or leave the key out.";
    let kind = fields.filled("type", empty).and_then(|field| field.word());
    let databases = fields
        .filled("database", empty)
        .and_then(|field| all_or(names(&field, "the name of a database, or all")?));
    let users = fields
        .filled("user", empty)
        .and_then(|field| all_or(names(&field, "the name of a user, or all")?));
    let address = fields.filled("address", empty);
    let networks = address.as_ref().and_then(addresses);
    let hint = "Say what is asked: method: scram-sha-256.";
    let method = fields.required("method", hint).and_then(|f| f.word());
    let unnamed = "Say which, or leave the key out.";
    let client_cert = fields.filled("clientcert", unnamed);
    let client_name = fields.filled("clientname", unnamed);
    let map = fields.filled("map", unnamed);
    fields.finish();
    let checks = client_cert.is_some() || method == Some(AuthMethod::Cert);
    if checks && kind != Some(ConnectionKind::HostSsl) {
        let hint = "Set type to hostssl.".to_owned();
        field.problem("certificates come with TLS only", hint);
    }
    for field in [&client_name, &map].into_iter().flatten() {
        if !checks {
            let hint = "Set method to cert, or clientcert to verify-full.".to_owned();
            field.key_problem("no certificate is asked for", hint);
        }
    }
    if let Some(address) = address.filter(|_| kind == Some(ConnectionKind::Local)) {
        let hint = "Leave address out, or set type to host.".to_owned();
        address.key_problem("clients of a unix socket have no address", hint);
    }
    let same_user = |name: String| match name.as_str() {
        SAME_USER => DatabaseName::SameUser,
        _ => DatabaseName::Named(name),
    };
    Some(Rule {
        kind,
        databases: databases.map(|names| names.into_iter().map(same_user).collect()),
        users,
        addresses: networks,
        method: method?,
        client_cert: client_cert.and_then(|field| field.word()),
        client_name: client_name.and_then(|f| f.word()).unwrap_or_default(),
        map: map.and_then(|field| field.name("the name of one of auth.maps")),
    })
}

/// One name or a list of them.
fn names(field: &Field<'_>, what: &str) -> Option<Vec<String>> {
    let items = field.one_or_more(what)?;
    Some(items.iter().filter_map(|item| item.name(what)).collect())
}

/// The names, or none if one of them stands for all.
fn all_or(names: Vec<String>) -> Option<Vec<String>> {
    let all = names.iter().any(|name| name == ALL);
    (!all).then_some(names)
}

/// Networks; none is all.
fn addresses(field: &Field<'_>) -> Option<Vec<Network>> {
    const WHAT: &str = "an address such as 10.0.0.0/8, or all";
    let mut networks = Vec::new();
    let mut all = false;
    for item in field.one_or_more(WHAT)? {
        match item.text(WHAT) {
            Some(text) if text == ALL => all = true,
            Some(_) => networks.extend(item.parsed(WHAT, value::network)),
            None => {}
        }
    }
    (!all).then_some(networks)
}

/// Maps by name: names of certificates, and the users that they stand for.
fn maps(field: &Field<'_>) -> Option<BTreeMap<String, Vec<Mapping>>> {
    let mut maps = BTreeMap::new();
    for (name, field) in field.entries("a map of maps")? {
        let entries = field.entries("a map such as { \"*@example.com\": \"*\" }");
        let mut map = Vec::new();
        for (certificate, field) in entries.unwrap_or_default() {
            if certificate.matches('*').count() > 1 {
                let hint = "Write names, or patterns with one \"*\".".to_owned();
                field.key_problem("the pattern has more than one \"*\"", hint);
            }
            let users = names(&field, "the name of a user").unwrap_or_default();
            let has_star = certificate.contains('*');
            if users.iter().any(|user| user.contains('*')) && !has_star {
                let hint = "Put a \"*\" into the name of the certificate too.".to_owned();
                field.problem("there is nothing that \"*\" stands for", hint);
            }
            map.push(Mapping {
                certificate: certificate.to_owned(),
                users,
            });
        }
        maps.insert(name.to_owned(), map);
    }
    Some(maps)
}

/// Notes what rules want of TLS that it can't give, and maps that are not there.
pub(super) fn check_tls(auth: &Auth, tls: &ClientTls, field: Option<&Field<'_>>) {
    let Some(field) = field else { return };
    let rules = || auth.rules.iter().flatten();
    let has_tls = tls.mode != TlsMode::Off;
    if !has_tls && rules().any(|rule| rule.kind == Some(ConnectionKind::HostSsl)) {
        let hint = "Set tls.mode to prefer or require, with a certificate and its key.".to_owned();
        field.key_problem("rules of type hostssl never hold while tls is off", hint);
    }
    let certs = |rule: &Rule| rule.method == AuthMethod::Cert || rule.client_cert.is_some();
    let is_method = auth.rules.is_none() && auth.method == AuthMethod::Cert;
    if (is_method || (has_tls && rules().any(certs))) && tls.client_ca.is_none() {
        let hint = "Name the authorities with tls.client_ca.".to_owned();
        field.key_problem("clients are not asked for certificates", hint);
    }
    for name in rules().filter_map(|rule| rule.map.as_ref()) {
        if !auth.maps.contains_key(name) {
            let hint = format!("Write it under auth.maps.{name}.");
            field.key_problem(format!("there is no map \"{name}\""), hint);
        }
    }
}
