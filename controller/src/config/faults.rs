//! What is wrong with a configuration file: collected while it is read, printed all at once.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Line and column, both from 1, where they are known.
    pub at: Option<(usize, usize)>,
    /// The key's path, `configurations.resource_configurations.aws4gpu.ebs_volume_size`; empty for the whole file.
    pub key: String,
    /// What is wrong and what is allowed. Holds no secret.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        if self.key.is_empty() {
            write!(f, ": {}", self.message)
        } else {
            write!(f, ": {}: {}", self.key, self.message)
        }
    }
}

/// Everything that is wrong, in the file's order. Displayed one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Of the file as a whole.
    pub fn whole_file(file: &Path, message: impl Into<String>) -> Self {
        let file = file.to_path_buf();
        Self(vec![Fault { file, at: None, key: String::new(), message: message.into() }])
    }

    /// At a position of the file.
    pub(super) fn one(file: &Path, at: (usize, usize), message: String) -> Self {
        Self(vec![Fault { file: file.to_path_buf(), at: Some(at), key: String::new(), message }])
    }

    /// These; `None` if there are none.
    pub(super) fn of(mut faults: Vec<Fault>) -> Option<Self> {
        faults.sort_by_key(|fault| fault.at);
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl Error for Faults {}

/// Where a reader leaves what it finds.
#[derive(Debug)]
pub(super) struct Findings {
    file: PathBuf,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<String>>,
}

impl Findings {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), faults: RefCell::default(), warnings: RefCell::default() }
    }

    /// Something that makes the file unusable.
    pub(super) fn fault(&self, at: (usize, usize), key: &str, message: impl Into<String>) {
        let fault =
            Fault { file: self.file.clone(), at: Some(at), key: key.to_owned(), message: message.into() };
        self.faults.borrow_mut().push(fault);
    }

    /// Something that an operator should know.
    pub(super) fn warn(&self, key: &str, message: impl fmt::Display) {
        self.warnings.borrow_mut().push(format!("{key}: {message}"));
    }

    /// The warnings, unless there are faults.
    pub(super) fn settle(self) -> Result<Vec<String>, Faults> {
        match Faults::of(self.faults.into_inner()) {
            Some(faults) => Err(faults),
            None => Ok(self.warnings.into_inner()),
        }
    }

    /// How many faults there are by now.
    pub(super) fn count(&self) -> usize {
        self.faults.borrow().len()
    }
}
