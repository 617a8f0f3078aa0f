//! The book: from passes to stretches of instances' lives, each at one price. Pure.
//!
//! An instance is paid for from when it runs until it is told to end. Of one that went while nobody looked, EC2's
//! word counts, and without that the last time at which it was surely there. A price that is not known is
//! counted as such, and never taken for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::Published;
use engine::ports::CloudInstance;
use planner::{Instance, InstanceId, Source, State, Time};

use super::Hourly;
use crate::journal::{EndedBy, LedgerState, PricePaid, Spent, Stretch};
use crate::prices::{self, Price};

/// Everything that is remembered between two passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    open: BTreeMap<InstanceId, Stretch>,
    /// The last stretches of what ended in this run and is still listed.
    over: BTreeMap<InstanceId, Stretch>,
    /// What ended before this run.
    ended_before: BTreeSet<InstanceId>,
    /// Seen while EC2 was still starting it.
    coming: BTreeSet<InstanceId>,
    /// Of what is over.
    spent: Spent,
    seen: Option<Time>,
}

/// Whether an instance is paid for.
enum Charge {
    NotYet,
    Now,
    NoMore,
}

impl Charge {
    fn of(state: &State) -> Self {
        match state {
            State::Requested | State::Pending => Self::NotYet,
            State::Booting { .. }
            | State::Idle
            | State::Busy { .. }
            | State::Draining
            | State::Drained
            | State::Retiring
            | State::Retired
            | State::Lost { .. } => Self::Now,
            State::Terminating | State::Gone => Self::NoMore,
        }
    }
}

impl Book {
    /// Goes on where an earlier run ended.
    pub(super) fn resume(state: LedgerState) -> Self {
        let LedgerState { open, ended, spent, seen } = state;
        let open = open.into_iter().map(|stretch| (stretch.instance.clone(), stretch)).collect();
        Self { open, ended_before: ended, spent, seen, ..Self::default() }
    }

    /// Takes a pass in; the stretches that it changed.
    pub(crate) fn observe(&mut self, published: &Published, prices: &dyn Hourly) -> Vec<Stretch> {
        let snapshot = &published.snapshot;
        let now = snapshot.now;
        let mut changed = Vec::new();
        let mut known = BTreeMap::new();
        for (id, instance) in &snapshot.instances {
            match Charge::of(&instance.state) {
                Charge::NotYet => {
                    if !self.open.contains_key(id) {
                        self.coming.insert(id.clone());
                    }
                }
                Charge::Now => {
                    let zone = instance.zone.as_deref();
                    let market = instance.offering.market;
                    let price = known
                        .entry((instance.instance_type(), zone, market))
                        .or_insert_with(|| usable(prices.price(instance.instance_type(), zone, market)));
                    self.go_on(id, instance, price.as_ref(), now, &mut changed);
                }
                Charge::NoMore => {
                    let end = match published.ended.get(id).and_then(|seen| seen.ended_at) {
                        Some(at) => (at, EndedBy::Ec2),
                        None => (instance.since, EndedBy::Seen),
                    };
                    self.end(id, end, &mut changed);
                }
            }
        }
        let listed = snapshot.freshness.get(&Source::Cloud);
        if listed.is_some_and(|age| age.read_began_at >= snapshot.started_at) {
            self.end_unlisted(published, &mut changed);
            self.add_unknown(published, prices, &mut changed);
            self.seen = Some(now);
        }
        self.coming.retain(|id| snapshot.instances.contains_key(id));
        self.over.retain(|id, _| snapshot.instances.contains_key(id) || published.ended.contains_key(id));
        changed
    }

    /// Everything ever spent, until now.
    pub(crate) fn spent(&self, now: Time) -> Spent {
        let open = self.open.values().map(|stretch| Spent::of(now.since(stretch.from), usd(stretch)));
        open.fold(self.spent, Spent::and)
    }

    fn go_on(
        &mut self,
        id: &InstanceId,
        instance: &Instance,
        price: Option<&Price>,
        now: Time,
        changed: &mut Vec<Stretch>,
    ) {
        let Some(stretch) = self.open.get_mut(id) else {
            let new = self.begin(id, instance, price, now);
            changed.push(new.clone());
            self.open.insert(id.clone(), new);
            return;
        };
        if stretch.zone.is_none() && instance.zone.is_some() {
            stretch.zone.clone_from(&instance.zone);
            changed.push(stretch.clone());
        }
        if is_news(stretch.price.as_ref(), price) && now > stretch.from {
            let next = Stretch { from: now, price: price.map(paid), ..stretch.clone() };
            let mut ended = std::mem::replace(stretch, next.clone());
            ended.end = Some((now, EndedBy::Price));
            self.spent = self.spent.and(cost(&ended));
            changed.extend([ended, next]);
        }
    }

    fn begin(&mut self, id: &InstanceId, instance: &Instance, price: Option<&Price>, now: Time) -> Stretch {
        let came = self.coming.remove(id);
        let from = match (self.over.remove(id).and_then(|over| over.end), &instance.state) {
            // Told to end, and it runs on.
            (Some((until, _)), _) => until,
            (None, _) if self.ended_before.contains(id) => now,
            (None, State::Booting { .. }) if came => instance.since.min(now),
            (None, _) => instance.launched_at.min(now),
        };
        Stretch {
            instance: id.clone(),
            from,
            end: None,
            resource: instance.resource.clone(),
            queue: instance.queue.clone(),
            instance_type: instance.instance_type().clone(),
            zone: instance.zone.clone(),
            market: instance.offering.market,
            launched_at: instance.launched_at,
            price: price.map(paid),
        }
    }

    fn end(&mut self, id: &InstanceId, (at, by): (Time, EndedBy), changed: &mut Vec<Stretch>) {
        if let Some(mut stretch) = self.open.remove(id) {
            stretch.end = Some((at.max(stretch.from), by));
            self.spent = self.spent.and(cost(&stretch));
            changed.push(stretch.clone());
            self.over.insert(id.clone(), stretch);
        } else if let Some(stretch) = self.over.get_mut(id)
            && by == EndedBy::Ec2
            && stretch.end.is_some_and(|(_, known)| known == EndedBy::Seen)
        {
            // EC2's word comes after our first sight of it.
            let before = cost(stretch);
            stretch.end = Some((at.max(stretch.from), by));
            let after = cost(stretch);
            self.spent.usd += after.usd - before.usd;
            self.spent.unpriced_ms =
                (self.spent.unpriced_ms + after.unpriced_ms).saturating_sub(before.unpriced_ms);
            changed.push(stretch.clone());
        }
    }

    /// What an earlier run left open and went while nobody looked.
    fn end_unlisted(&mut self, published: &Published, changed: &mut Vec<Stretch>) {
        let instances = &published.snapshot.instances;
        let missing: Vec<InstanceId> =
            self.open.keys().filter(|id| !instances.contains_key(*id)).cloned().collect();
        for id in missing {
            let end = match published.ended.get(&id).and_then(|seen| seen.ended_at) {
                Some(at) => (at, EndedBy::Ec2),
                None => (self.seen.unwrap_or_default(), EndedBy::LastSeen),
            };
            self.end(&id, end, changed);
        }
    }

    /// What ran and ended, by EC2's list, and no run has written down.
    fn add_unknown(&mut self, published: &Published, prices: &dyn Hourly, changed: &mut Vec<Stretch>) {
        for (id, seen) in &*published.ended {
            let is_known = self.over.contains_key(id)
                || self.ended_before.contains(id)
                || self.coming.contains(id)
                || published.snapshot.instances.contains_key(id);
            let Some(at) = seen.ended_at.filter(|_| !is_known) else { continue };
            let CloudInstance {
                resource,
                queue,
                intent: _,
                offering,
                zone,
                state: _,
                launched_at,
                kept: _,
                ended_at: _,
            } = seen;
            let price = usable(prices.price(&offering.instance_type, zone.as_deref(), offering.market));
            let stretch = Stretch {
                instance: id.clone(),
                from: *launched_at,
                end: Some((at.max(*launched_at), EndedBy::Ec2)),
                resource: resource.clone(),
                queue: queue.clone(),
                instance_type: offering.instance_type.clone(),
                zone: zone.clone(),
                market: offering.market,
                launched_at: *launched_at,
                price: price.as_ref().map(paid),
            };
            self.spent = self.spent.and(cost(&stretch));
            changed.push(stretch.clone());
            self.over.insert(id.clone(), stretch);
        }
    }
}

/// A price that is no price is not known.
fn usable(price: Option<Price>) -> Option<Price> {
    price.filter(|price| price.usd_per_hour.is_finite() && price.usd_per_hour >= 0.0)
}

/// Whether a new stretch begins. After a restart the spot price is not known for a moment: its upper bound does
/// not take the place of what was known.
fn is_news(known: Option<&PricePaid>, now: Option<&Price>) -> bool {
    match (known, now) {
        (None, None) | (Some(_), None) => false,
        (None, Some(_)) => true,
        (Some(known), Some(now)) => {
            let bound = match now.source {
                prices::Source::FileCeiling | prices::Source::BuiltInCeiling => true,
                prices::Source::File | prices::Source::SpotHistory | prices::Source::BuiltIn => false,
            };
            (known.usd_per_hour - now.usd_per_hour).abs() > 1e-9
                && !(bound && known.source == prices::Source::SpotHistory.to_string())
        }
    }
}

fn paid(price: &Price) -> PricePaid {
    let Price { usd_per_hour, as_of, source } = price;
    PricePaid { usd_per_hour: *usd_per_hour, source: source.to_string(), date: as_of.to_string() }
}

fn usd(stretch: &Stretch) -> Option<f64> {
    stretch.price.as_ref().map(|price| price.usd_per_hour)
}

fn cost(stretch: &Stretch) -> Spent {
    let length = stretch.end.map_or(Duration::ZERO, |(until, _)| until.since(stretch.from));
    Spent::of(length, usd(stretch))
}
