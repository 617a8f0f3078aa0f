//! A plan as text, and the difference of two texts.

use planner::{Action, Plan, TaskStep, Time};

/// A line for each action and hold, then when to wake and what to read.
pub(crate) fn show(plan: &Plan, now: Time) -> String {
    let Plan { actions, holds, wake_at, refresh, look_up } = plan;
    let mut lines: Vec<String> = actions.iter().map(show_action).collect();
    lines.extend(holds.iter().map(|hold| format!("hold {}", hold.describe(now))));
    lines.extend(wake_at.map(|at| format!("wake +{}", show_millis(at.0 - now.0))));
    if !refresh.is_empty() {
        let names: Vec<String> = refresh.iter().map(ToString::to_string).collect();
        lines.push(format!("refresh {}", names.join(", ")));
    }
    lines.extend(look_up.iter().map(|id| format!("look-up {id}")));
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    lines.join("\n") + "\n"
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Launch { intent, resource, queue, offering, count, token } => {
            let token: String = token.as_str().chars().take(12).collect();
            format!("launch {count} of {resource} for {queue}: {offering}, intent {intent}, token {token}")
        }
        Action::Settle { intent } => format!("settle {intent}"),
        Action::Send { instance, order } => {
            format!("send {instance} {} {}.{}", order.kind, order.epoch, order.generation)
        }
        Action::Terminate { instances, reason } => {
            let ids: Vec<&str> = instances.iter().map(planner::InstanceId::as_str).collect();
            format!("terminate {reason}: {}", ids.join(" "))
        }
        Action::Unregister { worker } => format!("unregister {worker}"),
        Action::Task { task, seen: _, step } => format!("task {task}: {}", show_step(step)),
    }
}

fn show_step(step: &TaskStep) -> String {
    match step {
        TaskStep::Note { cause, instance, aborting } => {
            let more = if *aborting { ", to be aborted" } else { "" };
            format!("note {cause} of {instance}{more}")
        }
        TaskStep::Abort => "abort".to_owned(),
        TaskStep::Stop { cause, instance, as_asked } => {
            let whose = if *as_asked { ", as its user asked" } else { "" };
            format!("stop: {}{whose}", cause.reason(instance))
        }
        TaskStep::Claim { attempt, stopped_at: _, reset } => {
            format!("claim attempt {attempt}{}", if *reset { ", by a reset" } else { "" })
        }
        TaskStep::Reset => "reset".to_owned(),
        TaskStep::Enqueue { queue, why } => format!("enqueue in {queue}: {why:?}"),
        TaskStep::Release { attempts } => format!("release, {attempts} attempts"),
    }
}

fn show_millis(millis: u64) -> String {
    match millis {
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Both texts' lines: common ones once, `-` before those of the first alone, `+` before those of the second.
pub(crate) fn difference(first: &str, second: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let (mark, line) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', old[i - 1])
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        text.push(mark);
        text.push_str(line);
        text.push('\n');
    }
    text
}
