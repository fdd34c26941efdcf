//! What is wrong with a configuration, as its author is told.

use std::{fmt, io};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{file}: {source}")]
    Read {
        /// The file's name as it was given.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The text is no configuration: all that is wrong with it, in the order of its lines.
    #[error("{}", one_a_line(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// What is wrong with the text; empty when it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

fn one_a_line(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong: `file:line: key: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// The key with all those above it, joined by `::` as the Collector does; empty for a fault of
    /// the YAML itself.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
