//! Faults on demand: how a server, or what stands before it, lets its clients down.

use std::time::Duration;

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error in the server's own envelope; nothing was done.
    Refuse { code: u16, subcode: u16, message: String },
    /// A page of HTML with this status, as a proxy answers; nothing was done.
    Html { code: u16 },
    /// The work is done and the answer is late.
    Delay(Duration),
    /// The work is done and half of the answer arrives before the connection ends.
    HalfBody,
    /// The connection ends without an answer; nothing was done.
    Drop,
    /// The connection ends without an answer, though the work was done.
    DropReply,
}

struct Planned {
    endpoint: String,
    fault: Fault,
    /// None: until the faults are cleared.
    left: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Faults(Vec<Planned>);

impl Faults {
    /// `endpoint` is a full name, a service with `.*`, or `*` for all.
    pub(crate) fn plan(&mut self, endpoint: &str, fault: Fault, times: Option<u32>) {
        self.0.push(Planned { endpoint: endpoint.to_owned(), fault, left: times });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The first fault planned for this endpoint, used up by one.
    pub(crate) fn take(&mut self, endpoint: &str) -> Option<Fault> {
        let place = self.0.iter().position(|planned| matches(&planned.endpoint, endpoint))?;
        let planned = &mut self.0[place];
        let fault = planned.fault.clone();
        if let Some(left) = &mut planned.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.0.remove(place);
            }
        }
        Some(fault)
    }
}

fn matches(pattern: &str, endpoint: &str) -> bool {
    pattern == "*"
        || pattern == endpoint
        || pattern.strip_suffix('*').is_some_and(|head| head.ends_with('.') && endpoint.starts_with(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_its_endpoint_as_often_as_planned() {
        let mut faults = Faults::default();
        faults.plan("queues.*", Fault::Drop, Some(1));
        faults.plan("tasks.started", Fault::HalfBody, None);
        assert_eq!(faults.take("workers.get_all"), None);
        assert_eq!(faults.take("queues.get_all"), Some(Fault::Drop));
        assert_eq!(faults.take("queues.get_all"), None);
        assert_eq!(faults.take("tasks.started"), Some(Fault::HalfBody));
        assert_eq!(faults.take("tasks.started"), Some(Fault::HalfBody));
    }
}
