//! Readers of a tree that note what is wrong and go on, so that every problem of a file is found.
//!
//! Every reader answers `None` after noting a problem; the caller goes on with a default, which is
//! never used because a file with problems gives no configuration.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::path;
use super::problem::Problem;
use super::sources::Sources;
use super::value;
use super::value::Fault;
use super::words::Word;
use super::yaml::Entry;
use super::yaml::Node;
use super::yaml::Position;
use super::yaml::Value;

/// What every reader needs, and where problems gather.
pub(super) struct Context<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Directory that relative paths start from; none leaves them alone and unchecked.
    base: Option<&'a Path>,
    problems: RefCell<Vec<Problem>>,
    sources: RefCell<Sources>,
}

/// A value in the tree, its path, and where a problem with it is shown.
#[derive(Clone)]
pub(super) struct Field<'a> {
    context: &'a Context<'a>,
    node: &'a Node,
    pub(super) path: String,
    /// Where the value's key stands, or the value itself in a list.
    anchor: Position,
}

/// A map whose keys are known beforehand.
pub(super) struct Fields<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        env: &'a dyn Fn(&str) -> Option<String>,
        base: Option<&'a Path>,
        problems: Vec<Problem>,
    ) -> Context<'a> {
        Context {
            env,
            base,
            problems: RefCell::new(problems),
            sources: RefCell::default(),
        }
    }

    pub(super) fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field {
            context: self,
            node,
            path: String::new(),
            anchor: node.position,
        }
    }

    /// What is wrong, and where the values stand.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Sources) {
        (self.problems.into_inner(), self.sources.into_inner())
    }

    fn note(&self, path: &str, at: Position, node: &Node) {
        let is_whole = !matches!(node.value, Value::Map(_));
        self.sources.borrow_mut().note(path, at.line, is_whole);
    }
}

impl<'a> Field<'a> {
    /// Notes a problem with the value.
    pub(super) fn problem(&self, message: impl Into<String>, hint: impl Into<Option<String>>) {
        let at = match self.node.value {
            Value::Null => self.anchor,
            _ => self.node.position,
        };
        self.problem_at(at, self.path.clone(), message.into(), hint.into());
    }

    /// Notes a problem where the value's key stands.
    pub(super) fn key_problem(&self, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.problem_at(self.anchor, self.path.clone(), message.into(), hint.into());
    }

    fn problem_at(&self, at: Position, path: String, message: String, hint: Option<String>) {
        self.context.problems.borrow_mut().push(Problem {
            path,
            line: at.line,
            column: at.column,
            message,
            hint,
        });
    }

    fn child(&self, entry: &'a Entry) -> Field<'a> {
        let path = path::key(&self.path, &entry.key);
        self.context.note(&path, entry.position, &entry.node);
        Field {
            context: self.context,
            node: &entry.node,
            path,
            anchor: entry.position,
        }
    }

    /// The value as the file writes it, for messages: variables are not replaced, because what they
    /// hold may be secret.
    pub(super) fn shown(&self) -> String {
        const LONGEST: usize = 60;
        match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(text) if text.chars().count() <= LONGEST => format!("{text:?}"),
            Value::Scalar(text) => {
                let start: String = text.chars().take(LONGEST).collect();
                format!("{start:?}…")
            }
        }
    }

    pub(super) fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar(_))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// A text, with its variables replaced. `what` says what was wanted: `a duration such as 5s`.
    pub(super) fn text(&self, what: &str) -> Option<String> {
        let Value::Scalar(text) = &self.node.value else {
            self.problem(format!("expected {what}, found {}", self.shown()), None);
            return None;
        };
        match value::expand(text, self.context.env) {
            Ok(text) => Some(text),
            Err(faults) => {
                for (message, hint) in faults {
                    self.problem(message, hint.to_owned());
                }
                None
            }
        }
    }

    /// A value that one of the parsers in `value` understands.
    pub(super) fn parsed<T>(
        &self,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let parsed = parse(&self.text(what)?);
        parsed
            .inspect_err(|fault| {
                let message = format!("{} {}", self.shown(), fault.what);
                self.problem(message, fault.hint.to_owned());
            })
            .ok()
    }

    /// A name that PostgreSQL's catalogs may hold.
    pub(super) fn name(&self, what: &str) -> Option<String> {
        let text = self.text(what)?;
        self.parsed(what, value::name).map(|()| text)
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.parsed("a duration such as 5s", value::duration)
    }

    /// A size in bytes within bounds, which the message repeats as `bounds`.
    pub(super) fn size(&self, range: RangeInclusive<u64>, bounds: &str) -> Option<u64> {
        let size = self.parsed("a size such as 16MiB", value::size)?;
        if range.contains(&size) {
            return Some(size);
        }
        let message = format!("{} is out of range", self.shown());
        self.problem(message, format!("Write a size from {bounds}."));
        None
    }

    /// A count from 1 up to a million.
    pub(super) fn count(&self) -> Option<u32> {
        const MOST: u32 = 1_000_000;
        let text = self.text("a number")?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(count) if digits && (1..=MOST).contains(&count) => Some(count),
            _ => {
                let message = format!("{} is not a number from 1 to {MOST}", self.shown());
                self.problem(message, None);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Word>(&self) -> Option<T> {
        let all: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        let text = self.text(&format!("one of {}", all.join(", ")))?;
        let found = T::from_word(&text);
        if found.is_none() {
            let hint = match nearest(&text, &all) {
                Some(word) => format!("Did you mean {word:?}?"),
                None => format!("Write one of {}.", all.join(", ")),
            };
            self.problem(format!("{} is not known here", self.shown()), hint);
        }
        found
    }

    /// The path of a file that can be read, from the directory of the configuration.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let text = self.text("the path of a file")?;
        if text.is_empty() || text.contains('\0') {
            self.problem(format!("{} is not the path of a file", self.shown()), None);
            return None;
        }
        let Some(base) = self.context.base else {
            return Some(text.into());
        };
        let path = base.join(text);
        let readable = std::fs::File::open(&path).and_then(|file| file.metadata());
        match readable {
            Ok(metadata) if metadata.is_file() => Some(path),
            Ok(_) => {
                self.problem(format!("{} is not a file", self.shown()), None);
                None
            }
            Err(error) => {
                let message = format!("could not read {}: {error}", self.shown());
                let hint = "Relative paths start from the directory of the configuration file.";
                self.problem(message, hint.to_owned());
                None
            }
        }
    }

    /// The elements of a list.
    pub(super) fn items(&self, what: &str) -> Option<Vec<Field<'a>>> {
        let Value::List(nodes) = &self.node.value else {
            self.problem(format!("expected {what}, found {}", self.shown()), None);
            return None;
        };
        let field = |(index, node): (usize, &'a Node)| {
            let path = path::index(&self.path, index);
            self.context.note(&path, node.position, node);
            Field {
                context: self.context,
                node,
                path,
                anchor: node.position,
            }
        };
        Some(nodes.iter().enumerate().map(field).collect())
    }

    /// The elements of a list, or the one value that stands for a list of one.
    pub(super) fn one_or_more(&self, what: &str) -> Option<Vec<Field<'a>>> {
        match self.node.value {
            Value::List(_) => self.items(what),
            _ => Some(vec![self.clone()]),
        }
    }

    /// A map whose keys the operator chooses. A key that stands twice is given once.
    pub(super) fn entries(&self, what: &str) -> Option<Vec<(&'a str, Field<'a>)>> {
        let entries = self.map_entries(what)?;
        let mut seen = HashSet::new();
        let first = |entry: &&'a Entry| seen.insert(entry.key.as_str());
        let pair = |entry: &'a Entry| (entry.key.as_str(), self.child(entry));
        Some(entries.iter().filter(first).map(pair).collect())
    }

    /// A map whose keys are known. Nothing stands for an empty map.
    pub(super) fn fields(&self, what: &str) -> Option<Fields<'a>> {
        Some(Fields {
            field: self.clone(),
            entries: self.map_entries(what)?,
            known: Vec::new(),
        })
    }

    fn map_entries(&self, what: &str) -> Option<&'a [Entry]> {
        match &self.node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => {
                self.problem(format!("expected {what}, found {}", self.shown()), None);
                None
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// The value of a key, if it has one. A key asked for is a known key.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match entry.node.value {
            Value::Null => None,
            _ => Some(self.field.child(entry)),
        }
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, key: &'static str, hint: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        let entry = self.entries.iter().find(|entry| entry.key == key);
        match (&field, entry) {
            (Some(_), _) => {}
            (None, Some(entry)) => {
                let child = self.field.child(entry);
                child.key_problem("there is nothing here", hint.to_owned());
            }
            (None, None) => {
                let message = format!("missing {key:?}");
                self.field.key_problem(message, hint.to_owned());
            }
        }
        field
    }

    /// The value of a key that must not be left empty where it stands.
    pub(super) fn filled(&mut self, key: &'static str, hint: &str) -> Option<Field<'a>> {
        match self.entries.iter().any(|entry| entry.key == key) {
            true => self.required(key, hint),
            false => self.get(key),
        }
    }

    /// Reads the value of a key into its place, which holds the default.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        place: &mut T,
        read: impl FnOnce(&Field<'a>) -> Option<T>,
    ) {
        if let Some(value) = self.get(key).and_then(|field| read(&field)) {
            *place = value;
        }
    }

    /// The map itself.
    pub(super) fn whole(&self) -> &Field<'a> {
        &self.field
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.known.contains(&key) {
                continue;
            }
            let hint = if key == "<<" {
                "Merge keys are not supported; repeat the keys, or use an alias for a whole value."
                    .to_owned()
            } else {
                match nearest(key, &self.known) {
                    Some(known) => format!("Did you mean {known:?}?"),
                    None => format!("Known here: {}.", self.known.join(", ")),
                }
            };
            self.field
                .child(entry)
                .key_problem("unknown key", Some(hint));
        }
    }
}

/// The known word that a typing error most likely stands for.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = word.to_lowercase().replace('-', "_");
    let length = folded.chars().count();
    let tolerance = (length / 3).clamp(1, 3);
    let distance = |known: &str| {
        let known = known.replace('-', "_");
        let begun = length > 2 && known.starts_with(&folded);
        if begun || sorted(&known) == sorted(&folded) {
            1
        } else {
            edits(&folded, &known)
        }
    };
    let distances = known.iter().map(|known| (distance(known), *known));
    distances
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

fn sorted(word: &str) -> Vec<char> {
    let mut characters: Vec<char> = word.chars().collect();
    characters.sort_unstable();
    characters
}

/// Levenshtein's distance. Long words, which no key resembles, are infinitely far.
fn edits(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let changed = diagonal + usize::from(from != *to);
            diagonal = *above;
            left = changed.min(left + 1).min(diagonal + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
