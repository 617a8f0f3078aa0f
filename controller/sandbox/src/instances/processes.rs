//! Finding and ending processes by way of /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Kills what `find` finds until it finds nothing; `false` if something was left at the limit.
pub(super) async fn end_all(find: impl Fn() -> BTreeSet<i32>, reap: impl Fn()) -> bool {
    let limit = Instant::now() + LIMIT;
    loop {
        reap();
        let left = find();
        if left.is_empty() {
            return true;
        }
        if Instant::now() > limit {
            tracing::warn!(?left, "processes of an instance are left");
            return false;
        }
        for pid in left.into_iter().filter_map(Pid::from_raw) {
            // One that has ended meanwhile is as good as killed.
            let _ = kill_process(pid, Signal::KILL);
        }
        sleep(PAUSE).await;
    }
}

/// All processes below the given one.
pub(super) fn descendants(of: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// All processes that were started with this root in their environment.
pub(super) fn of_root(root: &Path) -> BTreeSet<i32> {
    let mut wanted = b"CLEARML_AUTOSCALER_ROOT=".to_vec();
    wanted.extend_from_slice(root.as_os_str().as_bytes());
    let has_it = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == wanted))
    };
    all().filter(has_it).collect()
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The field after the state; the name before it may hold anything, brackets included.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_parent_and_by_environment() {
        let root = Path::new("/nowhere/at/all");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("CLEARML_AUTOSCALER_ROOT", root)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(descendants(own).contains(&pid));
        // A process that was just started may not show its environment yet.
        let shows = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            of_root(root).contains(&pid)
        });
        assert!(shows);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants(own).contains(&pid));
    }
}
