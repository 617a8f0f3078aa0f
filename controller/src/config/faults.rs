//! What is wrong with a configuration file: collected while it is read, printed all at once.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// The position of what stands in no file.
pub(super) const NOWHERE: (usize, usize) = (0, 0);

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

/// How the origin of a configuration begins that a task holds; its id follows. Its faults name parameters
/// where those of a file name keys.
const TASK: &str = "task ";

/// What stands in place of a file's name for the configuration of a task.
pub fn task_origin(id: &str) -> PathBuf {
    PathBuf::from(format!("{TASK}{id}"))
}

/// A key's path as the operator finds it: in a file as it is, in a task by parameter and configuration object.
pub(super) fn located(origin: &Path, key: &str) -> String {
    let within = |section: &str| match key.strip_prefix(section) {
        Some("") => Some(""),
        Some(rest) => rest.strip_prefix('.'),
        None => None,
    };
    let origin = origin.as_os_str().as_encoded_bytes();
    if !origin.starts_with(TASK.as_bytes()) && origin != TASK.trim_end().as_bytes() {
        return key.to_owned();
    }
    match (within("hyper_params"), within("configurations")) {
        (Some(""), _) => "General".to_owned(),
        (Some(name), _) => format!("General/{name}"),
        (None, Some("")) => "configuration object General".to_owned(),
        (None, Some(path)) => format!("configuration object General: {path}"),
        (None, None) => key.to_owned(),
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

    /// At a key of a configuration that has no lines.
    pub(super) fn at_key(origin: &Path, key: &str, message: impl Into<String>) -> Self {
        let key = located(origin, key);
        Self(vec![Fault { file: origin.to_path_buf(), at: None, key, message: message.into() }])
    }

    /// The same, of what `origin` names.
    #[must_use]
    pub fn named(mut self, origin: &Path) -> Self {
        for fault in &mut self.0 {
            fault.file = origin.to_path_buf();
        }
        self
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
        let at = (at != NOWHERE).then_some(at);
        let key = located(&self.file, key);
        let fault = Fault { file: self.file.clone(), at, key, message: message.into() };
        self.faults.borrow_mut().push(fault);
    }

    /// Something that an operator should know.
    pub(super) fn warn(&self, key: &str, message: impl fmt::Display) {
        self.warnings.borrow_mut().push(format!("{}: {message}", located(&self.file, key)));
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
