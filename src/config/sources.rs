//! Where each value of the configuration stands in its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the values of a file stand, by their paths.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    /// The line, and whether all of the value stands there: it is no map.
    places: BTreeMap<String, (usize, bool)>,
}

/// Two configurations are the same wherever their values stand.
impl PartialEq for Sources {
    fn eq(&self, _: &Sources) -> bool {
        true
    }
}

impl Eq for Sources {}

impl Sources {
    pub(super) fn note(&mut self, path: &str, line: usize, is_whole: bool) {
        self.places.insert(path.to_owned(), (line, is_whole));
    }

    pub(super) fn set_file(&mut self, file: &Path) {
        self.file = Some(file.to_owned());
    }

    /// The place of the value that a path names, or of the one that it was made from: `tls.mode` of
    /// `tls: prefer`. `is_default`: the value may come from nowhere.
    pub(super) fn of(&self, path: &str, is_default: bool) -> Option<String> {
        let mut at = path;
        loop {
            match self.places.get(at) {
                Some((line, is_whole)) if *is_whole || at == path || !is_default => {
                    return Some(self.shown(*line));
                }
                _ => {}
            }
            at = parent(at)?;
        }
    }

    fn shown(&self, line: usize) -> String {
        match self.file.as_deref().and_then(Path::file_name) {
            Some(name) => format!("{}:{line}", name.to_string_lossy()),
            None => format!("line {line}"),
        }
    }
}

/// The path of the map or list that holds a value.
fn parent(path: &str) -> Option<&str> {
    if path.ends_with('"') {
        let start = path.rfind(".\"")?;
        return path.get(..start);
    }
    path.rfind(['.', '[']).and_then(|at| path.get(..at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_where_what_it_was_made_from_stands() {
        let mut sources = Sources::default();
        sources.note("tls", 3, true);
        sources.note("pool", 5, false);
        sources.note("pool.max_size", 6, true);
        sources.note("tables.\"a.b\"", 8, false);
        assert_eq!(sources.of("tls.mode", true).as_deref(), Some("line 3"));
        assert_eq!(sources.of("pool.max_size", true).as_deref(), Some("line 6"));
        assert_eq!(sources.of("pool.mode", true), None);
        assert_eq!(sources.of("pool.zone", false).as_deref(), Some("line 5"));
        let rule = sources.of("tables.\"a.b\".hash", false);
        assert_eq!(rule.as_deref(), Some("line 8"));
        sources.set_file(Path::new("/etc/proxy.yaml"));
        assert_eq!(
            sources.of("tls.mode", true).as_deref(),
            Some("proxy.yaml:3")
        );
    }
}
