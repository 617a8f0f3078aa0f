//! Python virtual environments for what we did not write: ClearML's SDK, its agents, moto.
//!
//! They are made once per requirements file under the target directory, by whichever test process comes
//! first; a lock file keeps the others waiting. Only Python 3 with `venv` and pip's own configuration are
//! needed on the machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// For a download of some tens of megabytes on a slow line, and for waiting until another process did it.
const LIMIT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);

/// A virtual environment called `name` with exactly what the file `requirements` (pip's format) pins.
///
/// Returns its directory; the interpreter is `bin/python` in it. The first call takes as long as pip does,
/// later ones some milliseconds. Blocks; at most ten minutes for each step.
pub fn venv(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let home = target_dir()?.join("python");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    // Whichever way a test comes by it, it has one name: the stamp tells another one for outdated.
    let home = home.canonicalize().with_context(|| format!("find {}", home.display()))?;
    let venv = home.join(name);
    let _lock = lock(&home.join(format!("{name}.lock")))?;

    let pins =
        fs::read_to_string(requirements).with_context(|| format!("read {}", requirements.display()))?;
    // The directory is part of the stamp, since a virtual environment can't be moved.
    let stamp = format!("{}\n{pins}", venv.display());
    let stamp_file = venv.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) && starts(&venv) {
        return Ok(venv);
    }

    if venv.exists() {
        fs::remove_dir_all(&venv).with_context(|| format!("remove the outdated {}", venv.display()))?;
    }
    let log = home.join(format!("{name}.log"));
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    run(create, &log).context(
        "make a virtual environment with `python3 -m venv` (Python 3.11 or later with its venv module)",
    )?;
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--no-input", "--requirement"]).arg(requirements);
    run(install, &log).with_context(|| format!("install what {} pins", requirements.display()))?;
    fs::write(&stamp_file, stamp).with_context(|| format!("write {}", stamp_file.display()))?;
    Ok(venv)
}

/// The file `name` of `tests/python`, where scripts and requirements lie.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Cargo's target directory, told by the tag that Cargo puts there.
fn target_dir() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("find this test's executable")?;
    let tagged = me.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    Ok(match tagged {
        Some(dir) => dir.to_path_buf(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    })
}

/// A lock that ends with the file's handle, so a killed process leaves none behind.
fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        ensure!(started.elapsed() < LIMIT, "another process has held {} for too long", path.display());
        std::thread::sleep(POLL);
    }
}

/// False if the interpreter that the environment was made from has gone.
fn starts(venv: &Path) -> bool {
    let probe = Command::new(venv.join("bin/python"))
        .args(["-c", "import pip"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    probe.is_ok_and(|status| status.success())
}

fn run(mut command: Command, log: &Path) -> anyhow::Result<()> {
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = output.try_clone().context("share the log")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for the command")? {
            break status;
        }
        if started.elapsed() > LIMIT {
            child.kill().context("end the command")?;
            child.wait().context("wait for the command")?;
            bail!("no end within {} s; {}", LIMIT.as_secs(), tail(log));
        }
        std::thread::sleep(POLL);
    };
    ensure!(status.success(), "{status}; {}", tail(log));
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(15);
    format!("the end of {}:\n{}", log.display(), lines[last..].join("\n"))
}
