//! The machine's power: what the stand-in `shutdown` writes, and how the supervisor understands it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Beside `bin/`: whole minutes until the power goes, absent if nothing is armed.
const FILE: &str = "power";

/// When the power goes, counted from the writing of the file.
pub(super) fn armed(dir: &Path) -> io::Result<Option<Duration>> {
    match fs::read_to_string(dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(minutes) => Ok(Some(Duration::from_secs(u64::from(minutes) * 60))),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        },
    }
}

/// A `shutdown` that speaks of the supervisor's machine: whole minutes, `now` and `-c`, as systemd's does.
pub(super) fn shutdown_script(dir: &Path, supervisor: u32) -> String {
    let power = quoted(&dir.join(FILE));
    format!(
        r#"#!/bin/sh
power={power}
when=1
case $0 in
    *shutdown) ;;
    *) when=0 ;;
esac
for argument; do
    case $argument in
        -c)
            rm -f "$power"
            kill -USR1 {supervisor} 2>/dev/null
            exit 0 ;;
        -P|-h|-H|-f|-p|--poweroff|--halt|--force|--no-wall) ;;
        now) when=0; break ;;
        -*)
            echo "shutdown: '$argument' is not supported here" >&2
            exit 1 ;;
        +*[!0-9]*|+|[!+]*)
            echo "Failed to parse time specification: $argument" >&2
            exit 1 ;;
        +*) when=${{argument#+}}; break ;;
    esac
done
echo "$when" >"$power.$$" && mv "$power.$$" "$power" && kill -USR1 {supervisor}
"#
    )
}

/// For a shell, whatever the path holds.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
