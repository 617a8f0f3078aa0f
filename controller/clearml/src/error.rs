//! What a failed call means to its caller, and the server's subcodes that a caller may want to tell apart.

/// The server's `result_subcode`s, as far as they matter here.
pub mod subcode {
    /// 400: a request's fields are wrong.
    pub const VALIDATION: u32 = 12;
    /// 400: no such task.
    pub const NO_SUCH_TASK: u32 = 101;
    /// 400: the task's status does not allow it.
    pub const WRONG_STATUS: u32 = 110;
    /// 400: no such queue.
    pub const NO_SUCH_QUEUE: u32 = 701;
    /// 400: a value is not allowed, such as a name of fewer than 3 characters.
    pub const INVALID_DATA: u32 = 800;
    /// 400: something of that name exists already.
    pub const NOT_UNIQUE: u32 = 801;
}

/// A call failed, by what the caller does about it. The text names the endpoint and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not reached, cut off, too slow, or a fault of the server's own: it may work later. Unless the call is
    /// one that changes nothing, **it may have gone through**.
    #[error("clearml {endpoint}: {reason}")]
    Unavailable {
        /// `queues.get_all`.
        endpoint: &'static str,
        /// What happened.
        reason: String,
    },
    /// The credentials were not accepted, also not after a fresh login: an operator must act.
    #[error("clearml {endpoint}: unauthorized ({code}/{subcode}): {message}")]
    Unauthorized {
        /// `auth.login` if the keys themselves were refused.
        endpoint: &'static str,
        /// HTTP status, 401.
        code: u16,
        /// 20 no credentials, 22 bad credentials, 30 bad token; 0 if it was not the API server that answered.
        subcode: u32,
        /// The server's.
        message: String,
    },
    /// Understood and refused: the same call will be refused again.
    #[error("clearml {endpoint}: refused ({code}/{subcode}): {message}")]
    Refused {
        /// `tasks.enqueue`.
        endpoint: &'static str,
        /// HTTP status.
        code: u16,
        /// See [`subcode`].
        subcode: u32,
        /// The server's.
        message: String,
    },
    /// The answer is not one of a ClearML API server: most likely the address is that of something else.
    #[error("clearml {endpoint}: {reason}")]
    Malformed {
        /// `auth.login`.
        endpoint: &'static str,
        /// What came instead.
        reason: String,
    },
}

impl Error {
    /// The call that failed: `tasks.enqueue`, or `auth.login` on the way to it.
    pub fn endpoint(&self) -> &'static str {
        match self {
            Self::Unavailable { endpoint, .. }
            | Self::Unauthorized { endpoint, .. }
            | Self::Refused { endpoint, .. }
            | Self::Malformed { endpoint, .. } => endpoint,
        }
    }

    /// Whether it may work later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Unauthorized { .. } | Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }

    /// Whether the server refused with this [`subcode`].
    pub fn is_refusal(&self, wanted: u32) -> bool {
        match self {
            Self::Refused { subcode, .. } => *subcode == wanted,
            Self::Unavailable { .. } | Self::Unauthorized { .. } | Self::Malformed { .. } => false,
        }
    }
}
