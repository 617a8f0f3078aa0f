//! `standing.json`: what the state machine wants back after a restart of the sidecar.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::{Saved, Standing};
use crate::gate::{read_small, replace};

#[derive(Serialize, Deserialize)]
struct File {
    standing: Word,
    epoch: u64,
    generation: u64,
    silent_idle_limit_ms: Option<u64>,
    disarmed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Open,
    Finishing,
    Drained,
    Retired,
}

/// What was saved; nothing at the first start.
///
/// # Errors
/// There is a file, and it cannot be understood: whether the machine was retired is not known.
pub(crate) fn read(path: &Path) -> io::Result<Saved> {
    let text = match read_small(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        text => text?,
    };
    let File { standing, epoch, generation, silent_idle_limit_ms, disarmed } = serde_json::from_str(&text)?;
    let standing = match standing {
        Word::Open => Standing::Open,
        Word::Finishing => Standing::Finishing,
        Word::Drained => Standing::Drained,
        Word::Retired => Standing::Retired,
    };
    let silent_idle_limit = silent_idle_limit_ms.map(Duration::from_millis);
    Ok(Saved { standing, epoch, generation, silent_idle_limit, disarmed })
}

/// Writes it so that it survives a loss of power.
///
/// # Errors
/// It may not survive one.
pub(crate) fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let Saved { standing, epoch, generation, silent_idle_limit, disarmed } = saved;
    let standing = match standing {
        Standing::Open => Word::Open,
        Standing::Finishing => Word::Finishing,
        Standing::Drained => Word::Drained,
        Standing::Retired => Word::Retired,
    };
    let file = File {
        standing,
        epoch: *epoch,
        generation: *generation,
        silent_idle_limit_ms: silent_idle_limit
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        disarmed: *disarmed,
    };
    replace(path, &serde_json::to_vec(&file)?, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retirement_is_read_back_and_a_torn_file_is_no_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("standing.json");
        assert_eq!(read(&path).unwrap(), Saved::default());
        let saved = Saved {
            standing: Standing::Retired,
            epoch: 7,
            generation: 3,
            silent_idle_limit: Some(Duration::from_millis(1500)),
            disarmed: true,
        };
        write(&path, &saved).unwrap();
        assert_eq!(read(&path).unwrap(), saved);
        std::fs::write(&path, "{\"standing\":").unwrap();
        assert!(read(&path).is_err());
    }
}
