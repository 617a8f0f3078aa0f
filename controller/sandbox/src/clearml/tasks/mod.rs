//! `tasks.*`: documents, the life from `created` to its end, and what a run leaves behind.

pub(super) mod create;
pub(super) mod edit;
pub(super) mod life;
pub(super) mod many;
pub(super) mod outputs;
pub(super) mod params;
pub(super) mod read;

use super::call::Call;
use super::error::ApiError;
use super::state::Task;
use super::status::Status;

/// An edit wants a task that has not run, unless it is forced.
fn check_editable(task: &Task, allowed: &[Status]) -> Result<(), ApiError> {
    if allowed.contains(&task.status) {
        return Ok(());
    }
    let message = format!("Invalid task status: expected=created, status={}", task.status.as_str());
    Err(ApiError::new(400, 110, message))
}

/// What hyperparameters, configuration objects and artifacts want: force helps with a running task, but
/// not with one that waits in a queue or has ended.
fn check_forcible(task: &Task, call: &Call) -> Result<(), ApiError> {
    if call.flag("force") {
        check_editable(task, &[Status::Created, Status::InProgress])
    } else {
        check_editable(task, &[Status::Created])
    }
}
