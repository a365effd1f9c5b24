//! Mistakes in a configuration: all of them at once, each with its place and the next step.

use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it; never empty.
    pub mistakes: Vec<Mistake>,
}

/// One mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// Line and column, from 1, where the parser knows them.
    pub position: Option<(usize, usize)>,
    /// The key path, such as `banks[0].routes[1].path`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and what was expected. Never the value of what may be a secret.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Mistake {
    /// A mistake at a key path.
    #[must_use]
    pub fn at(
        path: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            position: None,
            path: path.into(),
            message: message.into(),
            help: help.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some((line, column)) = mistake.position {
                write!(f, ":{line}:{column}")?;
            }
            if !mistake.path.is_empty() {
                write!(f, ": {}", mistake.path)?;
            }
            write!(f, ": {}", mistake.message)?;
            if !mistake.help.is_empty() {
                write!(f, "\n  help: {}", mistake.help)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
