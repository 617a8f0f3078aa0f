//! What a machine finds on its disk when it starts.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::power;

/// The root below an instance's directory.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("root")
}

/// What the image adds to a bare machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    Nothing,
    StandIn,
    Venv(PathBuf),
}

/// Makes the directories, the stand-ins for system commands, and what the image holds.
pub(super) fn fill(dir: &Path, installed: &Installed, supervisor: u32, executable: &Path) -> io::Result<()> {
    let root = path(dir);
    for (name, mode) in [
        ("var/lib", 0o755),
        ("var/lib/clearml-autoscaler", 0o700),
        ("run/clearml-autoscaler", 0o755),
        ("root", 0o700),
        ("tmp", 0o700),
        ("etc", 0o755),
    ] {
        fs::DirBuilder::new().recursive(true).mode(mode).create(root.join(name))?;
    }
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    let shutdown = power::shutdown_script(dir, supervisor);
    for name in ["shutdown", "poweroff", "halt"] {
        script(&bin.join(name), &shutdown)?;
    }
    let log = power::quoted(&dir.join("apt.log"));
    for name in ["apt-get", "apt", "yum", "dnf"] {
        script(&bin.join(name), &format!("#!/bin/sh\necho \"{name} $*\" >>{log}\n"))?;
    }
    let venv = root.join("var/lib/clearml-autoscaler/venv");
    match installed {
        Installed::Nothing => Ok(()),
        Installed::Venv(real) => symlink(real, venv),
        Installed::StandIn => {
            let bin = venv.join("bin");
            fs::create_dir_all(&bin)?;
            let executable = power::quoted(executable);
            script(&bin.join("python"), &format!("#!/bin/sh\nexec {executable} sandbox-agent \"$@\"\n"))?;
            script(&bin.join("pip"), "#!/bin/sh\nexit 0\n")?;
            symlink("python", bin.join("python3"))
        }
    }
}

fn script(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
