//! Finds PostgreSQL's programs and the account they may run under.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The account that the servers run as when this process is root, which PostgreSQL refuses to be.
const ACCOUNT: &str = "postgres";

/// User and group of the servers' processes and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// PostgreSQL's server programs of one version.
#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
    account: Option<Account>,
}

impl Binaries {
    /// Looks in `PG_BIN`, the PATH, `pg_config --bindir` and Debian's directories (newest first).
    ///
    /// # Errors
    /// When there is no PostgreSQL server here, or this process is root and there is no `postgres`
    /// account; the message names the command that helps.
    pub fn find() -> io::Result<Binaries> {
        let directory = match env::var_os("PG_BIN") {
            Some(named) => complete(Path::new(&named)).ok_or_else(|| {
                let shown = named.to_string_lossy();
                io::Error::other(format!("PG_BIN={shown} holds no postgres and initdb"))
            })?,
            None => on_path()
                .or_else(from_pg_config)
                .or_else(newest_packaged)
                .ok_or_else(|| {
                    io::Error::other(
                        "no PostgreSQL server found: install one with \
                         \"apt-get install postgresql\", or name its directory in PG_BIN",
                    )
                })?,
        };
        Ok(Binaries {
            directory,
            account: account()?,
        })
    }

    /// The directory of the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The account that the servers run as; none when it is this process's own.
    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// A command for one of the programs, run as the servers' account, in English and silent.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.directory.join(program));
        // A connection must go where its arguments say, whatever PGHOST and the like hold.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// The major version, as `postgres --version` tells it.
    ///
    /// # Errors
    /// When the program can't be run or says something else.
    pub fn major_version(&self) -> io::Result<u32> {
        let output = self
            .command("postgres")
            .arg("--version")
            .stdout(Stdio::piped())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace()
            .find_map(leading_number)
            .ok_or_else(|| io::Error::other(format!("postgres --version says {text:?}")))
    }
}

/// The directory behind links, when it holds a server.
fn complete(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let has = |program| directory.join(program).is_file();
    (has("postgres") && has("initdb")).then_some(directory)
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    for directory in env::split_paths(&path) {
        for program in ["postgres", "pg_ctl", "initdb"] {
            // Debian's /usr/bin holds wrappers; a link leads to the real directory.
            let Ok(real) = directory.join(program).canonicalize() else {
                continue;
            };
            if let Some(found) = real.parent().and_then(complete) {
                return Some(found);
            }
        }
    }
    None
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config")
        .arg("--bindir")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    complete(Path::new(String::from_utf8(output.stdout).ok()?.trim()))
}

fn newest_packaged() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = leading_number(&entry.file_name().to_string_lossy())?;
            Some((version, complete(&entry.path().join("bin"))?))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, directory)| directory)
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..digits)?.parse().ok()
}

/// The servers' account: none unless this process is root.
fn account() -> io::Result<Option<Account>> {
    // std has no geteuid; a process owns its own /proc entry, else ask id.
    let own = match fs::metadata("/proc/self") {
        Ok(metadata) => metadata.uid(),
        Err(_) => id("-u", None)?,
    };
    if own != 0 {
        return Ok(None);
    }
    let missing = |_| {
        io::Error::other(format!(
            "PostgreSQL does not run as root and there is no account \"{ACCOUNT}\": \
             install the server's package or run \"useradd --system {ACCOUNT}\""
        ))
    };
    Ok(Some(Account {
        uid: id("-u", Some(ACCOUNT)).map_err(missing)?,
        gid: id("-g", Some(ACCOUNT)).map_err(missing)?,
    }))
}

fn id(what: &str, account: Option<&str>) -> io::Result<u32> {
    let output = Command::new("id").arg(what).args(account).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| io::Error::other(format!("id {what} says {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_lead_their_words() {
        assert_eq!(leading_number("15.17"), Some(15));
        assert_eq!(leading_number("18beta1"), Some(18));
        assert_eq!(leading_number("postgres"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_not_taken() {
        assert_eq!(complete(Path::new("/")), None);
        assert_eq!(complete(Path::new("/nowhere/at/all")), None);
    }
}
