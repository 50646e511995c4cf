//! `shardwire check`: everything wrong with the configuration and the servers at once, with advice.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::catalog::Problem;
use crate::config::Config;
use crate::config::Database;
use crate::config::RoleHint;
use crate::config::Shard;
use crate::error::Error;
use crate::topology::ControlError;
use crate::topology::Dialer;
use crate::topology::Identity;
use crate::topology::Inspected;
use crate::topology::Inspection;
use crate::topology::Role;
use crate::topology::Seen;
use crate::topology::inspect;

/// PostgreSQL versions that the program is made for.
const VERSIONS: std::ops::RangeInclusive<u32> = 14..=18;

/// Exit codes of `shardwire check`.
const FINE: u8 = 0;
const WRONG: u8 = 1;
const UNREADABLE: u8 = 2;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// All is well, or as expected.
    Note,
    /// It works, with less than one could wish.
    Warning,
    /// Something does not work.
    Error,
}

/// One thing found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// Where: a database, shard, server or table.
    pub place: String,
    /// What: lower case, no full stop.
    pub message: String,
    /// What to do, in whole sentences.
    pub hint: Option<String>,
}

/// Everything found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// In the order of the configuration.
    pub list: Vec<Finding>,
}

/// What the command prints, and its exit code.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// 0: fine, perhaps with warnings. 1: something on the servers is wrong. 2: the file is.
    pub code: u8,
}

/// The whole command: reads the file, then looks at every server it names.
pub async fn command(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    match Config::load(path, env) {
        Ok(config) => {
            let findings = check(&config).await;
            Outcome {
                text: findings.to_string(),
                code: if findings.count(Weight::Error) == 0 {
                    FINE
                } else {
                    WRONG
                },
            }
        }
        Err(problems) => Outcome {
            text: format!("{problems}\n"),
            code: UNREADABLE,
        },
    }
}

/// Looks at every server of a configuration. Changes nothing.
pub async fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    for database in config.databases.values() {
        match Dialer::new(&database.backend, config.timeouts.connect) {
            Ok(dialer) => {
                let inspection = inspect(database, &dialer).await;
                findings.database(database, &inspection);
            }
            Err(error) => findings.unusable(database, &error),
        }
    }
    findings
}

impl Findings {
    /// How many there are of a weight.
    pub fn count(&self, weight: Weight) -> usize {
        self.list.iter().filter(|f| f.weight == weight).count()
    }

    fn add(&mut self, weight: Weight, place: &str, message: impl Into<String>, hint: &str) {
        self.list.push(Finding {
            weight,
            place: place.to_owned(),
            message: message.into(),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        });
    }

    fn unusable(&mut self, database: &Database, error: &Error) {
        let place = format!("database {}", database.name);
        let fields = error.fields();
        let message = match &fields.detail {
            Some(detail) => format!("{}: {detail}", fields.message),
            None => fields.message.to_string(),
        };
        self.add(
            Weight::Error,
            &place,
            message,
            fields.hint.as_deref().unwrap_or(""),
        );
    }

    fn database(&mut self, database: &Database, inspection: &Inspection) {
        for (shard, servers) in database.shards.iter().zip(&inspection.shards) {
            for server in servers {
                self.server(database, shard, server);
            }
            self.shard(database, shard, servers);
        }
        self.unlike(database, inspection);
        for Problem { table, message } in &inspection.problems {
            let place = format!("database {}, table {table}", database.name);
            self.add(Weight::Error, &place, message.clone(), "");
        }
        if let Some(error) = &inspection.unread {
            let place = format!("database {}", database.name);
            let message = format!("its tables could not be checked: {error}");
            self.add(Weight::Error, &place, message, "");
        }
    }

    fn shard(&mut self, database: &Database, shard: &Shard, servers: &[Inspected]) {
        let roles = servers
            .iter()
            .filter_map(|server| server.seen.as_ref().ok()?.role);
        if !roles.into_iter().any(|role| role == Role::Primary) {
            let place = format!("database {}, shard {}", database.name, shard.name);
            let hint = "Start its primary, or promote a secondary (pg_ctl promote).";
            self.add(
                Weight::Error,
                &place,
                "it has no primary: writes fail",
                hint,
            );
        }
    }

    /// Servers that may answer the same query differently than the first one: any of them finishes queries of all.
    fn unlike(&mut self, database: &Database, inspection: &Inspection) {
        let servers = database.shards.iter().zip(&inspection.shards);
        let servers = servers.flat_map(|(shard, servers)| {
            let servers = servers.iter();
            servers.filter_map(move |one| Some((shard, one, one.seen.as_ref().ok()?)))
        });
        let mut servers = servers.collect::<Vec<_>>().into_iter();
        let Some((_, first, known)) = servers.next() else {
            return;
        };
        for (shard, server, seen) in servers {
            let place = format!(
                "database {}, shard {}, server {}",
                database.name, shard.name, server.address
            );
            for what in unlike(known, seen) {
                let message = format!("{what} on {}", first.address);
                let hint = "Queries over several shards may be answered differently from one time to the next until they are alike.";
                self.add(Weight::Warning, &place, message, hint);
            }
        }
    }

    fn server(&mut self, database: &Database, shard: &Shard, server: &Inspected) {
        let place = format!(
            "database {}, shard {}, server {}",
            database.name, shard.name, server.address
        );
        let seen = match &server.seen {
            Ok(seen) => seen,
            Err(error) => {
                let hint = advice(error, database);
                return self.add(Weight::Error, &place, error.to_string(), &hint);
            }
        };
        let before = self.list.len();
        if let Some(fence) = &seen.fence {
            self.add(Weight::Error, &place, format!("it {fence}"), "");
        }
        self.version(&place, seen.facts.version);
        self.role(&place, server.hint, seen.role);
        self.settings(&place, database, seen);
        self.identity(&place, database, &seen.identity);
        let wrong = |finding: &Finding| finding.weight != Weight::Note;
        if !self.list.iter().skip(before).any(wrong) {
            let role = match seen.role {
                Some(Role::Primary) => "primary",
                _ => "secondary",
            };
            let version = version_text(seen.facts.version);
            self.add(
                Weight::Note,
                &place,
                format!("{role}, PostgreSQL {version}"),
                "",
            );
        }
    }

    fn version(&mut self, place: &str, version: u32) {
        let major = version / 10_000;
        if VERSIONS.contains(&major) {
            return;
        }
        let (low, high) = (VERSIONS.start(), VERSIONS.end());
        let message = format!("it runs PostgreSQL {}", version_text(version));
        if major < *low {
            let hint = format!("Upgrade it to a version from {low} to {high}.");
            self.add(Weight::Error, place, message, &hint);
        } else {
            let hint = format!(
                "This Shardwire was tested with the versions {low} to {high}; look for a newer one."
            );
            self.add(Weight::Warning, place, message, &hint);
        }
    }

    fn role(&mut self, place: &str, hint: Option<RoleHint>, role: Option<Role>) {
        let message = match (hint, role) {
            (Some(RoleHint::Primary), Some(Role::Secondary)) => {
                "it is a secondary, though the configuration names it as the primary"
            }
            (Some(RoleHint::Secondary), Some(Role::Primary)) => {
                "it is the primary, though the configuration names it as a secondary"
            }
            _ => return,
        };
        let advice = "The server's word counts. After a failover, bring the configuration up to date when it suits.";
        self.add(Weight::Warning, place, message, advice);
    }

    fn settings(&mut self, place: &str, database: &Database, seen: &Seen) {
        if database.shards.len() > 1 && seen.facts.max_prepared_transactions == 0 {
            self.add(
                Weight::Warning,
                place,
                "max_prepared_transactions is 0: transactions over several shards fail",
                "Set it to at least max_connections on every server and restart them, secondaries first.",
            );
        }
        if database.shards.len() > 1 && seen.encoding != "UTF8" {
            self.add(
                Weight::Warning,
                place,
                format!(
                    "its encoding is {}: text can't be a shard key",
                    seen.encoding
                ),
                "Create the database with ENCODING 'UTF8'.",
            );
        }
    }

    fn identity(&mut self, place: &str, database: &Database, identity: &Identity) {
        match identity {
            Identity::Confirmed => {}
            Identity::Fresh => self.add(
                Weight::Note,
                place,
                "it is new: the proxy records its identity (schema \"shardwire\") on first contact",
                "",
            ),
            Identity::Denied(why) => {
                let grant = format!(
                    "Without it swapped addresses go unnoticed, and SHARD KEY clauses and transactions over several shards fail. Run there: GRANT CREATE ON DATABASE {} TO {}; and GRANT what exists of the schema.",
                    quoted(&database.backend.database),
                    quoted(&database.backend.user),
                );
                self.add(Weight::Warning, place, why.clone(), &grant);
            }
            Identity::Wrong(why) => self.add(
                Weight::Error,
                place,
                why.clone(),
                "Until then the proxy sends it nothing, so that no row gets into the wrong place.",
            ),
        }
    }
}

/// What one server has that another, which is known, has not, or otherwise.
fn unlike(known: &Seen, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    let majors = (seen.facts.version / 10_000, known.facts.version / 10_000);
    if majors.0 != majors.1 {
        found.push(format!(
            "it runs PostgreSQL {}, but it is PostgreSQL {}",
            majors.0, majors.1
        ));
    }
    let names: BTreeSet<&String> = known.traits.keys().chain(seen.traits.keys()).collect();
    let version = |of: &Seen, name: &str| match of.traits.get(name).map(String::as_str) {
        None => "missing".to_owned(),
        Some("") => "of no version".to_owned(),
        Some(version) => format!("\"{version}\""),
    };
    for name in names {
        let (here, there) = (version(seen, name), version(known, name));
        if here != there {
            found.push(format!("the {name} is {here}, but {there}"));
        }
    }
    found
}

/// What to do about a server that could not be asked.
fn advice(error: &ControlError, database: &Database) -> String {
    let section = format!("`databases.{}.backend`", database.name);
    match error.code() {
        Some("28P01") => format!("Correct the user or the password in {section}."),
        Some("28000") => format!(
            "Let role {} in from this machine (pg_hba.conf), or correct {section}.",
            database.backend.user
        ),
        Some("3D000") => format!(
            "Create the database {} there, or correct {section}.",
            database.backend.database
        ),
        Some("53300") => "Raise max_connections there, or lower `pool.max_size`.".to_owned(),
        Some("57P03") => "It is starting up or shutting down: try again in a moment.".to_owned(),
        Some(_) => String::new(),
        None => "Is the server running, is the address right, and does a firewall let this machine through?".to_owned(),
    }
}

fn version_text(version: u32) -> String {
    format!("{}.{}", version / 10_000, version % 10_000)
}

/// An SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for Findings {
    /// One finding a line, its hint below, and the sum at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.list {
            let weight = match finding.weight {
                Weight::Note => "ok",
                Weight::Warning => "warning",
                Weight::Error => "error",
            };
            writeln!(f, "{weight}: {}: {}", finding.place, finding.message)?;
            if let Some(hint) = &finding.hint {
                writeln!(f, "    hint: {hint}")?;
            }
        }
        let count = |weight, word: &str| match self.count(weight) {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        };
        let (errors, warnings) = (
            count(Weight::Error, "error"),
            count(Weight::Warning, "warning"),
        );
        writeln!(f, "{errors}, {warnings}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_read_as_lines_with_a_sum() {
        let mut findings = Findings::default();
        findings.version("server a", 130_004);
        findings.version("server b", 150_004);
        findings.version("server c", 190_000);
        assert_eq!(
            findings.to_string(),
            "error: server a: it runs PostgreSQL 13.4\n    \
             hint: Upgrade it to a version from 14 to 18.\n\
             warning: server c: it runs PostgreSQL 19.0\n    \
             hint: This Shardwire was tested with the versions 14 to 18; look for a newer one.\n\
             1 error, 1 warning\n"
        );
    }

    #[test]
    fn names_are_quoted_for_sql() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
