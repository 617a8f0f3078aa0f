//! Names and instants as types of their own, so that none is passed where another is meant.

use std::borrow::Borrow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as it is written on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        // Maps keyed by names can be asked, and searched in ranges, by plain text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// An EC2 instance id, `i-0123456789abcdef0`.
    InstanceId
}
name! {
    /// An EC2 instance type, `g4dn.xlarge`.
    InstanceType
}
name! {
    /// A key of `resource_configurations`. A resource stands in one queue only, so it also names its pool.
    ResourceName
}
name! {
    /// A ClearML queue's name.
    QueueName
}
name! {
    /// A ClearML task's id.
    TaskId
}
name! {
    /// A ClearML worker's id, `PREFIX:RESOURCE:INSTANCE_TYPE:INSTANCE_ID`.
    WorkerId
}
name! {
    /// The id of the durable note "about to launch this"; also a tag of the instances that come of it.
    IntentId
}
name! {
    /// What EC2 calls a client token: the same token with the same request gives the same instances. ASCII, at most 64 characters.
    ClientToken
}
name! {
    /// The value of the tag by which a fleet knows its instances: a hash of the ClearML project DevOps's id and the prefix.
    FleetId
}

impl WorkerId {
    /// The worker id of the agent on an instance.
    pub fn of(prefix: &str, resource: &ResourceName, kind: &InstanceType, instance: &InstanceId) -> Self {
        Self(format!("{prefix}:{resource}:{kind}:{instance}"))
    }

    /// Whether `other` is this worker or a child of it (`W` or `W:*`, as services mode and multi-GPU agents name theirs).
    pub fn covers(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// The instance that a worker id of this prefix names: its fourth part. `None` for another prefix or another shape.
    pub fn instance(&self, prefix: &str) -> Option<InstanceId> {
        self.instance_text(prefix).map(InstanceId::from)
    }

    /// The same, without a copy.
    pub(crate) fn instance_text(&self, prefix: &str) -> Option<&str> {
        let rest = self.0.strip_prefix(prefix)?.strip_prefix(':')?;
        let mut colons = rest.bytes().enumerate().filter(|(_, byte)| *byte == b':').map(|(at, _)| at);
        let start = colons.nth(1)? + 1;
        let end = colons.next().unwrap_or(rest.len());
        rest.get(start..end).filter(|id| id.starts_with("i-"))
    }

    /// The bounds, the second one excluded, between which all children of this worker sort: `W:` and `W;`.
    pub(crate) fn children(&self) -> (String, String) {
        (format!("{}:", self.0), format!("{};", self.0))
    }
}

/// Milliseconds since the Unix epoch on the controller's steady clock: set from the wall clock at
/// start, then advanced monotonically, so that a jump of the host's clock moves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This instant, `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}
