//! The ClearML task that a run of the autoscaler is.

/// The task that this run is.
#[derive(Clone, Debug)]
pub struct ServiceTask {
    /// ClearML's id.
    pub id: String,
    /// Logged in with the rights that the task is reported with.
    pub client: clearml::Client,
    /// The web page of its log.
    pub page: String,
    /// Who started it, and so who fills its console.
    pub started_by: StartedBy,
}

/// Who started the task's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    /// `--run`: the console is filled from here.
    Operator,
    /// An agent sends stdout to the console itself.
    Agent,
}
