//! RunInstances: checks, idempotency, limits, capacity, and what is launched in the end.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::catalog;
use super::error::ApiError;
use super::instance::{Instance, State, write_groups};
use super::options::{Market, Pool};
use super::params::Params;
use super::request::Launch;
use super::world::{Done, Launched, World, count};
use super::xml::Xml;
use crate::instances::Image;

impl World {
    /// The answer, with the ids that are new: a repeated call has none.
    pub(crate) fn run_instances(
        &mut self,
        params: &Params,
        now: Instant,
    ) -> Result<(Done, Vec<String>), ApiError> {
        let launch = self.read_launch(params)?;
        let identity = params.clone().without("DryRun");
        if let Some(token) = &launch.client_token
            && let Some(earlier) = self.token(token)
        {
            return self.repeat(earlier, &identity).map(|done| (done, Vec::new()));
        }
        if params.flag("DryRun")? {
            if launch.subnet.is_none() && !self.options.default_vpc {
                return Err(no_default_vpc());
            }
            return Err(ApiError::dry_run());
        }
        if let Some(rate) = self.options.launch_rate
            && !self.ledger.spend("instances launched", rate, f64::from(launch.max), now)
        {
            return Err(ApiError::throttled());
        }
        let (zone, subnet, number) = self.place(&launch)?;
        let reservation = random_id("r");
        let template = (reservation.as_str(), zone.as_str(), subnet.as_str());
        let ids: Vec<String> = (0..number)
            .map(|index| {
                let instance = self.build(&launch, template, index, now);
                let id = instance.id.clone();
                self.add(instance);
                id
            })
            .collect();
        if let Some(token) = launch.client_token {
            self.remember(token, Launched { params: identity, instances: ids.clone() });
        }
        let done = Done { xml: self.reservation(&ids), instances: ids.clone() };
        Ok((done, ids))
    }

    fn repeat(&self, earlier: &Launched, identity: &Params) -> Result<Done, ApiError> {
        if earlier.params != *identity {
            return Err(ApiError::bad(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            ));
        }
        let gone = |id: &String| self.get(id).is_none_or(|instance| instance.state == State::Terminated);
        if earlier.instances.iter().all(gone) {
            return Err(ApiError::bad(
                "IdempotentInstanceTerminated",
                "The request uses the same client token as a previous request, but the instance has been terminated.",
            ));
        }
        Ok(Done { xml: self.reservation(&earlier.instances), instances: earlier.instances.clone() })
    }

    fn reservation(&self, ids: &[String]) -> Xml {
        let mut xml = Xml::default();
        let instances: Vec<&Instance> = ids.iter().filter_map(|id| self.get(id)).collect();
        write_reservation(&mut xml, &instances, |instance| instance.state);
        xml
    }

    fn build(&self, launch: &Launch, of: (&str, &str, &str), index: u32, now: Instant) -> Instance {
        let (reservation, zone, subnet) = of;
        let [_, high, middle, low] = u32::try_from(self.next_place()).unwrap_or_default().to_be_bytes();
        Instance {
            id: random_id("i"),
            reservation: reservation.into(),
            launch_index: index,
            image_id: launch.image_id.clone(),
            image: launch.image.clone(),
            instance_type: launch.instance_type.clone(),
            zone: zone.into(),
            subnet: subnet.into(),
            market: launch.market,
            address: Ipv4Addr::new(10, high, middle, low),
            key_name: launch.key_name.clone(),
            groups: launch.groups.clone(),
            profile: launch.profile.clone(),
            monitoring: launch.monitoring,
            ebs_optimized: launch.ebs_optimized,
            metadata: launch.metadata,
            tags: launch.tags.clone(),
            client_token: launch.client_token.clone(),
            terminates_on_shutdown: launch.terminates_on_shutdown,
            user_data: launch.user_data.clone(),
            launched_at: Timestamp::now(),
            visible_at: now + self.options.visible_after,
            state: State::Pending,
            cause: None,
            cause_at: None,
            ended_at: None,
            interruption: None,
            rebalance: None,
            order: watch::Sender::new(None),
        }
    }

    /// Zone, subnet and how many there.
    fn place(&self, launch: &Launch) -> Result<(String, String, u32), ApiError> {
        let kind = &launch.instance_type;
        let offers = |zone: &String| !self.options.unsupported.contains(&(kind.clone(), zone.clone()));
        let mut zones: Vec<&String> = match &launch.zone {
            Some(zone) => vec![zone],
            None => self.options.zones.iter().collect(),
        };
        zones.retain(|zone| offers(zone));
        let spread = usize::try_from(self.next_place()).unwrap_or_default() % zones.len().max(1);
        zones.rotate_left(spread);
        let pool =
            |zone: &String| Pool { instance_type: kind.clone(), zone: zone.clone(), market: launch.market };
        let mut best: Option<(&String, u32)> = None;
        for zone in zones {
            let room = self.room(&pool(zone));
            if best.is_none_or(|(_, most)| room > most) {
                best = Some((zone, room));
            }
        }
        let Some((zone, room)) = best else {
            return Err(unsupported(kind, launch.zone.as_deref()));
        };
        if launch.subnet.is_none() && !self.options.default_vpc {
            return Err(no_default_vpc());
        }
        let subnet = match &launch.subnet {
            Some(subnet) => subnet.clone(),
            None => self
                .options
                .subnets
                .iter()
                .find(|(id, subnet)| subnet.zone == *zone && self.vpc(id) == catalog::VPC)
                .map(|(id, _)| id.clone())
                .ok_or_else(|| ApiError::bad("MissingInput", format!("No default subnet in '{zone}'")))?,
        };
        let limits = [
            (room, no_capacity(kind, zone, launch.market)),
            (self.room_for_vcpus(launch), vcpu_limit(launch.market)),
            (self.room_in_account(&launch.image), instance_limit()),
            (self.room_in_subnet(&subnet), subnet_full(&subnet)),
        ];
        let number = limits.iter().map(|(room, _)| *room).fold(launch.max, u32::min);
        match limits.into_iter().find(|(room, _)| *room < launch.min) {
            Some((_, error)) => Err(error),
            None => Ok((zone.clone(), subnet, number)),
        }
    }

    fn room_for_vcpus(&self, launch: &Launch) -> u32 {
        let Some(limit) = self.vcpu_limit(launch.market) else { return u32::MAX };
        let cost = |kind: &str| catalog::vcpus(kind).unwrap_or(1);
        let used: u32 = self
            .live()
            .filter(|instance| instance.market == launch.market)
            .map(|instance| cost(&instance.instance_type))
            .sum();
        limit.saturating_sub(used) / cost(&launch.instance_type)
    }

    fn room_in_account(&self, image: &Image) -> u32 {
        let room = self.options.max_instances.saturating_sub(count(self.live()));
        if !image.runs() {
            return room;
        }
        let running = count(self.live().filter(|instance| instance.image.runs()));
        room.min(self.options.machines.at_most.saturating_sub(running))
    }

    pub(super) fn room_in_subnet(&self, subnet: &str) -> u32 {
        let used = count(self.live().filter(|instance| instance.subnet == subnet));
        let addresses = self.options.subnets.get(subnet).map_or(0, |subnet| subnet.addresses);
        addresses.saturating_sub(used)
    }
}

/// A reservation's content, of instances that share one.
pub(crate) fn write_reservation(xml: &mut Xml, instances: &[&Instance], state: impl Fn(&Instance) -> State) {
    let Some(first) = instances.first() else { return };
    xml.leaf("reservationId", &first.reservation).leaf("ownerId", catalog::OWNER);
    write_groups(xml, &[]);
    xml.list("instancesSet", instances, |xml, instance| instance.write(xml, state(instance)));
}

/// `PREFIX-` and 17 hexadecimal digits.
fn random_id(prefix: &str) -> String {
    let digits = rand::random::<u128>() >> 60;
    format!("{prefix}-{digits:017x}")
}

fn no_capacity(kind: &str, zone: &str, market: Market) -> ApiError {
    match market {
        Market::Spot => {
            ApiError::no_capacity("There is no Spot capacity available that matches your request.")
        }
        Market::OnDemand => ApiError::no_capacity(format!(
            "We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). \
             Our system will be working on provisioning additional capacity."
        )),
    }
}

fn unsupported(kind: &str, zone: Option<&str>) -> ApiError {
    let place = zone
        .map_or("any Availability Zone".into(), |zone| format!("your requested Availability Zone ({zone})"));
    ApiError::bad(
        "Unsupported",
        format!("Your requested instance type ({kind}) is not supported in {place}."),
    )
}

fn no_default_vpc() -> ApiError {
    ApiError::bad("VPCIdNotSpecified", "No default VPC for this user.")
}

fn vcpu_limit(market: Market) -> ApiError {
    match market {
        Market::Spot => ApiError::bad("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"),
        Market::OnDemand => ApiError::bad(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit allows for the instance bucket \
             that the specified instance type belongs to.",
        ),
    }
}

fn instance_limit() -> ApiError {
    ApiError::bad(
        "InstanceLimitExceeded",
        "You have reached the limit of instances that the sandbox may run.",
    )
}

fn subnet_full(subnet: &str) -> ApiError {
    ApiError::bad(
        "InsufficientFreeAddressesInSubnet",
        format!(
            "There are not enough free addresses in subnet '{subnet}' to satisfy the requested number of instances."
        ),
    )
}
