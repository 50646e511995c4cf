//! A directory that vanishes, with the servers in it, when its owner is dropped or dies.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::binaries::Account;

/// Longest directory that leaves room for a socket's name in the 107 bytes of a unix address.
const MAX_PATH_BYTES: usize = 64;

/// Waits for the end of its input, which comes when the owner closes the pipe or dies in whatever
/// way, then ends the servers whose data directories are below `$1`, and other processes that left
/// a `process.pid`, and removes it. A process is ended only if the directory that its pid file is
/// in is the one it works in.
const GUARD: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for file in "$1"/*/data/postmaster.pid "$1"/*/process.pid; do
  [ -f "$file" ] || continue
  pid=$(head -n 1 "$file")
  if [ "/proc/$pid/cwd" -ef "${file%/*}" ]; then
    kill -QUIT "$pid"
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
  fi
done
tries=0
while ! rm -rf -- "$1" 2>/dev/null && [ $tries -lt 40 ]; do sleep 0.05; tries=$((tries + 1)); done
"#;

/// A private directory under the system's temporary one.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    account: Option<Account>,
    guard: Child,
}

impl Scratch {
    /// Makes `TMPDIR/shardwire-NAME-PID-N`, readable by the servers' account only.
    ///
    /// # Errors
    /// When the directory can't be made or the guard (a `/bin/sh`) not be started.
    pub fn new(name: &str, account: Option<Account>) -> io::Result<Scratch> {
        let path = make(name)?;
        if let Some(account) = account {
            chown(&path, Some(account.uid), Some(account.gid))?;
        }
        // Its own process group: a Ctrl-C in the terminal must not reach it before its time.
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Scratch {
            path,
            account,
            guard,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it (mode 0700), owned by the servers' account.
    ///
    /// # Errors
    /// When the directory exists or can't be made.
    pub fn make_directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        self.give(&path)?;
        Ok(path)
    }

    /// Hands a file or directory to the servers' account.
    ///
    /// # Errors
    /// As `chown(2)`.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }

    /// Copies a whole directory, with its permissions, to a new one.
    ///
    /// # Errors
    /// As the underlying file operations.
    pub fn copy_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(to)?;
        self.give(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.copy_directory(&entry.path(), &target)?;
            } else {
                fs::copy(entry.path(), &target)?;
                self.give(&target)?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The guard does the work, so that there is one way of cleaning up; here it is awaited.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn make(name: &str) -> io::Result<PathBuf> {
    let mut parent = env::temp_dir();
    if parent.as_os_str().len() + name.len() > MAX_PATH_BYTES {
        parent = PathBuf::from("/tmp");
    }
    for number in 0.. {
        let path = parent.join(format!("shardwire-{name}-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => {
                let shown = path.display();
                return Err(io::Error::new(
                    error.kind(),
                    format!("mkdir {shown}: {error}"),
                ));
            }
            Ok(()) => return Ok(path),
        }
    }
    Err(io::Error::other("no free name for a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_directory_is_gone_with_its_contents() {
        let scratch = Scratch::new("unit", None).unwrap();
        let path = scratch.path().to_owned();
        let inner = scratch.make_directory("a").unwrap();
        fs::write(inner.join("file"), "text").unwrap();
        scratch
            .copy_directory(&inner, &scratch.path().join("b"))
            .unwrap();
        assert_eq!(fs::read(path.join("b/file")).unwrap(), b"text");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn two_directories_of_one_process_differ() {
        let first = Scratch::new("unit", None).unwrap();
        let second = Scratch::new("unit", None).unwrap();
        assert_ne!(first.path(), second.path());
    }
}
