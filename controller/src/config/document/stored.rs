//! A configuration on disk: readable by its owner alone from the first byte, whole or not there.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Document;

/// Writes the document as the script's YAML, in place of what was there.
///
/// # Errors
/// If the directory can't be written to. What was there stays then.
pub fn write_private(path: &Path, document: &Document) -> io::Result<()> {
    write_private_text(path, &document.to_yaml())
}

/// Writes a text, in place of what was there.
///
/// # Errors
/// As [`write_private`].
pub fn write_private_text(path: &Path, text: &str) -> io::Result<()> {
    let path = real(path)?;
    written(&path, text)?.persist(&path)?;
    sync_directory(&path)
}

/// Writes a text where nothing was.
///
/// # Errors
/// `AlreadyExists` if something is there; else as [`write_private`].
pub fn create_private(path: &Path, text: &str) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    written(&path, text)?.persist_noclobber(&path)?;
    sync_directory(&path)
}

/// The text on disk, in a file beside `path` that has no part in anything yet.
fn written(path: &Path, text: &str) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".clearml-autoscaler-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// What a link names is replaced, not the link.
fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
        found => found,
    }
}

/// The rename itself is to last.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}
