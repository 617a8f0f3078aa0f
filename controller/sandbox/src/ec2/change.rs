//! Calls that change instances: TerminateInstances, StopInstances, CreateTags.

use super::error::ApiError;
use super::instance::{Cause, Instance, State, write_state};
use super::params::Params;
use super::request::check_tags;
use super::world::{Done, World};
use super::xml::Xml;

impl World {
    /// All or none: one unknown id and nothing is terminated.
    pub(crate) fn terminate_instances(&mut self, params: &Params) -> Result<Done, ApiError> {
        let ids = self.named(params)?;
        let mut xml = Xml::default();
        xml.list("instancesSet", &ids, |xml, id| {
            let before = self.get(id).map_or(State::Terminated, |instance| instance.state);
            self.end(id, Cause::Terminated);
            self.write_change(xml, id, before);
        });
        Ok(Done { xml, instances: ids })
    }

    /// On-demand instances only, as long as they run.
    pub(crate) fn stop_instances(&mut self, params: &Params) -> Result<Done, ApiError> {
        let ids = self.named(params)?;
        let stoppable = |id: &&String| {
            self.get(id).is_some_and(|instance| {
                instance.market == super::Market::OnDemand
                    && matches!(instance.state, State::Running | State::Stopping | State::Stopped)
            })
        };
        if let Some(bad) = ids.iter().find(|id| !stoppable(id)) {
            let message = format!("The instance '{bad}' is not in a state from which it can be stopped.");
            return Err(ApiError::bad("IncorrectInstanceState", message));
        }
        let mut xml = Xml::default();
        xml.list("instancesSet", &ids, |xml, id| {
            let before = self.get(id).map_or(State::Stopped, |instance| instance.state);
            self.end(id, Cause::Stopped);
            self.write_change(xml, id, before);
        });
        Ok(Done { xml, instances: ids })
    }

    pub(crate) fn create_tags(&mut self, params: &Params) -> Result<Done, ApiError> {
        let ids: Vec<String> = params.list("ResourceId").into_iter().map(str::to_owned).collect();
        let named: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.check_ids(&named, |_| true)?;
        let tags = params.pairs("Tag");
        check_tags(&tags)?;
        dry_run(params)?;
        for id in &ids {
            if let Some(instance) = self.get_mut(id) {
                instance.tags.extend(tags.iter().cloned());
            }
        }
        let mut xml = Xml::default();
        xml.leaf("return", true);
        Ok(Done { xml, instances: ids })
    }

    /// Puts an instance on its way out. What is on its way already stays there.
    pub(crate) fn end(&mut self, id: &str, cause: Cause) {
        let Some(instance) = self.get(id) else { return };
        let state = match (instance.state, cause) {
            (State::Terminated | State::ShuttingDown, _) => return,
            (State::Stopping | State::Stopped, Cause::Stopped | Cause::PoweredOff) => return,
            (State::Stopped, _) => State::Terminated,
            (State::Pending | State::Running, Cause::Stopped) => State::Stopping,
            (State::Pending | State::Running, Cause::PoweredOff) => power_off_state(instance),
            (
                State::Pending | State::Running | State::Stopping,
                Cause::Terminated | Cause::Interrupted | Cause::Failed,
            ) => State::ShuttingDown,
        };
        let order = instance.order.clone();
        self.set_state(id, state, Some(cause));
        order.send_replace(Some(cause));
    }

    fn named(&self, params: &Params) -> Result<Vec<String>, ApiError> {
        let ids = params.list("InstanceId");
        if ids.is_empty() {
            return Err(ApiError::missing("InstanceId"));
        }
        self.check_ids(&ids, |_| true)?;
        dry_run(params)?;
        Ok(ids.into_iter().map(str::to_owned).collect())
    }

    fn write_change(&self, xml: &mut Xml, id: &str, before: State) {
        let now = self.get(id).map_or(before, |instance| instance.state);
        xml.leaf("instanceId", id);
        xml.node("currentState", |xml| write_state(xml, now));
        xml.node("previousState", |xml| write_state(xml, before));
    }
}

fn power_off_state(instance: &Instance) -> State {
    if instance.terminates_on_shutdown { State::ShuttingDown } else { State::Stopping }
}

fn dry_run(params: &Params) -> Result<(), ApiError> {
    if params.flag("DryRun")? { Err(ApiError::dry_run()) } else { Ok(()) }
}
