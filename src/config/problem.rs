//! What is wrong with a file, with the place of each problem.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// YAML path (`databases.shop.shards[1].primary`); empty when the file as a whole is meant.
    pub path: String,
    /// 1-based line; 0 when there is none.
    pub line: usize,
    /// 1-based column, in characters; 0 when there is none.
    pub column: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do, in whole sentences.
    pub hint: Option<String>,
}

/// Everything wrong with a configuration, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file, when the text came from one.
    pub file: Option<PathBuf>,
    /// The problems.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Puts problems into the order of the file.
    pub(super) fn new(file: Option<PathBuf>, mut list: Vec<Problem>) -> Problems {
        list.sort_by_key(|problem| (problem.line, problem.column));
        Problems { file, list }
    }
}

impl fmt::Display for Problem {
    /// `12:9: databases.shop.zone: message`, and the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    /// One problem after the other, each led by the file's name as compilers do it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(file) = &self.file {
                let colon = if problem.line > 0 { ":" } else { ": " };
                write!(f, "{}{colon}", file.display())?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
