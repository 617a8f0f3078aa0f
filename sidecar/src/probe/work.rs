//! What runs on the machine for tasks, whatever the gates say: found by the environment that the agent gives
//! each task's processes, in containers or not; and its end, when AWS takes the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::Proc;

/// The agent gives it to each process of a task, and as an argument to the container's client.
const VARIABLE: &str = "CLEARML_TASK_ID=";
/// A task's id is short; what follows the variable in a command line may be anything.
const LONGEST_ID: usize = 64;
/// Processes that begin while others are killed are found by another look.
const LOOKS: u32 = 5;

impl Proc {
    /// Tasks of which processes run, zombies excepted. Reads all of `/proc`.
    pub fn tasks(&self) -> BTreeSet<String> {
        let processes = self.processes();
        processes.keys().filter_map(|pid| self.task_of(*pid)).collect()
    }

    /// Freezes these daemons, so that none writes another word on its task, and kills what they have started
    /// and whatever else runs for these tasks. Whether nothing of it is left.
    pub fn kill_work(&self, daemons: &[i32], tasks: &BTreeSet<String>) -> bool {
        for daemon in daemons {
            signal(*daemon, Signal::STOP);
        }
        for _ in 0..LOOKS {
            let victims = self.victims(daemons, tasks);
            if victims.is_empty() {
                return true;
            }
            for pid in victims {
                signal(pid, Signal::KILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        self.victims(daemons, tasks).is_empty()
    }

    /// Descendants of the daemons, and processes of the tasks. Never a daemon, and never this process.
    fn victims(&self, daemons: &[i32], tasks: &BTreeSet<String>) -> BTreeSet<i32> {
        let processes = self.processes();
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let descends = |pid: i32| {
            let mut at = pid;
            for _ in 0..processes.len() {
                match processes.get(&at) {
                    Some(parent) if daemons.contains(parent) => return true,
                    Some(parent) => at = *parent,
                    None => return false,
                }
            }
            false
        };
        let works = |pid: i32| self.task_of(pid).is_some_and(|task| tasks.contains(&task));
        let candidates = processes.keys().copied().filter(|pid| *pid != own && !daemons.contains(pid));
        candidates.filter(|pid| descends(*pid) || works(*pid)).collect()
    }

    /// Living processes with their parents.
    fn processes(&self) -> BTreeMap<i32, i32> {
        let Ok(entries) = std::fs::read_dir(self.root()) else { return BTreeMap::new() };
        let pids =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<i32>().ok());
        pids.filter_map(|pid| Some((pid, self.living_parent(pid)?))).collect()
    }

    fn task_of(&self, pid: i32) -> Option<String> {
        let directory = self.root().join(pid.to_string());
        ["environ", "cmdline"].iter().find_map(|name| task_in(&directory, name))
    }
}

/// The first task that a file of words, each ended by a zero, names.
fn task_in(directory: &Path, name: &str) -> Option<String> {
    let content = std::fs::read(PathBuf::from(directory).join(name)).ok()?;
    let named = content.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(VARIABLE.as_bytes()))?;
    let id = std::str::from_utf8(named).ok()?;
    let usable =
        !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    usable.then(|| id.to_owned())
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended just now.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn process(root: &Path, pid: i32, parent: i32, state: char, environ: &str, cmdline: &str) {
        let directory = root.join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("stat"), format!("{pid} (x) {state} {parent} 1 1 0")).unwrap();
        std::fs::write(directory.join("environ"), environ.replace(' ', "\0")).unwrap();
        std::fs::write(directory.join("cmdline"), cmdline.replace(' ', "\0")).unwrap();
    }

    #[test]
    fn tasks_are_found_in_environments_and_in_the_clients_arguments() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 10, 1, 'S', "PATH=/bin CLEARML_TASK_ID=t1 A=b", "python");
        process(root.path(), 11, 1, 'S', "PATH=/bin", "docker run -e CLEARML_TASK_ID=t2 image");
        process(root.path(), 12, 1, 'Z', "CLEARML_TASK_ID=t3", "");
        process(root.path(), 13, 1, 'S', "CLEARML_TASK_ID=", "x CLEARML_TASK_ID=../../etc");
        let seen = Proc::new(root.path()).tasks();
        assert_eq!(seen, ["t1".to_owned(), "t2".to_owned()].into());
    }

    /// A shell with a child of its own, in a task's environment or not.
    fn shell(task: Option<&str>) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]);
        if let Some(task) = task {
            command.env("CLEARML_TASK_ID", task);
        }
        command.spawn().unwrap()
    }

    #[test]
    fn the_daemon_is_frozen_its_children_and_its_tasks_are_killed_and_nobody_else() {
        let proc = Proc::default();
        let (mut daemon, mut container, mut other) =
            (shell(None), shell(Some("t9mine")), shell(Some("t9other")));
        let pid = |child: &Child| i32::try_from(child.id()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(proc.kill_work(&[pid(&daemon)], &["t9mine".to_owned()].into()));
        assert!(!proc.has_children(pid(&daemon)), "its child is gone");
        assert!(proc.is_alive(pid(&daemon)), "and itself frozen, not ended");
        assert!(proc.tasks().contains("t9other") && !proc.tasks().contains("t9mine"));
        // Killed in their groups' stead: the shell and what it waits for.
        assert!(proc.kill_work(&[], &["t9other".to_owned()].into()));
        for child in [&mut daemon, &mut container, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
