//! The status of a task, and which changes the server allows.

use serde::Serialize;

use super::error::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Created,
    Queued,
    InProgress,
    Stopped,
    Completed,
    Failed,
    Closed,
    Publishing,
    Published,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Closed => "closed",
            Self::Publishing => "publishing",
            Self::Published => "published",
        }
    }

    /// A change to the same status is always allowed: several calls may be repeated.
    pub(crate) fn check_change(self, to: Self) -> Result<(), ApiError> {
        if self == to || self.successors().contains(&to) {
            return Ok(());
        }
        Err(ApiError::new(
            400,
            110,
            format!(
                "Invalid task status (Invalid status change): current_status={}, new_status={}",
                self.as_str(),
                to.as_str()
            ),
        ))
    }

    fn successors(self) -> &'static [Self] {
        match self {
            Self::Created => &[Self::Queued, Self::InProgress],
            Self::Queued => &[Self::Created, Self::InProgress, Self::Stopped],
            Self::InProgress => &[Self::Stopped, Self::Failed, Self::Created, Self::Completed],
            Self::Stopped => &[
                Self::Closed,
                Self::Created,
                Self::Failed,
                Self::Queued,
                Self::InProgress,
                Self::Published,
                Self::Publishing,
                Self::Completed,
            ],
            Self::Closed => &[Self::Created, Self::Failed, Self::Published, Self::Publishing, Self::Stopped],
            Self::Failed => &[Self::Created, Self::Stopped, Self::Published, Self::Queued],
            Self::Publishing => &[Self::Published],
            Self::Published => &[],
            Self::Completed => &[Self::Published, Self::InProgress, Self::Created],
        }
    }
}
