//! The table of sessions: what each sidecar said last, and the way to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::ports::{Admission, Session, Sessions};
use planner::{Answer, InstanceId, IntentId, Order, Time};
use proto::v1;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use super::report::{self, Malformed};

/// Orders that may wait for a slow stream.
const ORDERS: usize = 16;
/// A session that ended is remembered as long as its instance is admitted, and this much longer.
const REMEMBER: Duration = Duration::from_secs(600);

/// Every session, live or ended lately. Shared by the streams and the loop.
pub struct SessionTable {
    inner: Mutex<Inner>,
    changed: Notify,
    admissions: watch::Sender<u64>,
    now: Box<dyn Fn() -> Time + Send + Sync>,
}

#[derive(Default)]
struct Inner {
    admission: Admission,
    entries: BTreeMap<InstanceId, Entry>,
    attaching: BTreeSet<InstanceId>,
    live: usize,
    serials: u64,
}

struct Entry {
    /// Unknown until the first report.
    session: Option<Session>,
    /// Which stream this is, of all that there were.
    serial: u64,
    orders: Option<mpsc::Sender<v1::ToSidecar>>,
    last_heard: Time,
    /// The stream's first report is still to come.
    fresh: bool,
    detail: Detail,
}

/// What is known of an instance beyond what decisions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The sidecar's own version.
    pub sidecar_version: String,
    /// The machine's boot.
    pub boot_id: String,
    /// Agents whose version could not be gated.
    pub ungated: bool,
    /// Where the sidecar's files are.
    pub free_disk_bytes: u64,
    /// Where NVML is present.
    pub gpus: Vec<GpuUse>,
    /// The phase that failed, if one did, with the end of its log.
    pub boot_failure: Option<String>,
}

/// A GPU as of the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuUse {
    /// Its number on the machine.
    pub index: u32,
    /// Its model.
    pub name: String,
    /// 0 to 100.
    pub utilisation_percent: u32,
    /// In bytes.
    pub memory_used: u64,
    /// In bytes.
    pub memory_total: u64,
}

/// A stream's place at the table; leaving is dropping it.
pub(super) struct Seat {
    table: Arc<SessionTable>,
    instance: InstanceId,
    serial: u64,
}

/// The right to attach an instance: one at a time.
pub(super) struct Turn {
    table: Arc<SessionTable>,
    instance: InstanceId,
}

impl SessionTable {
    /// An empty table; `now` gives the steady clock's time.
    pub fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            admissions: watch::Sender::new(0),
            now: Box::new(now),
        }
    }

    /// What is known of an instance beyond its session. `None` if it never attached.
    pub fn detail(&self, instance: &InstanceId) -> Option<Detail> {
        self.lock().entries.get(instance).map(|entry| entry.detail.clone())
    }

    /// Streams that stand.
    pub fn live(&self) -> usize {
        self.lock().live
    }

    /// The launch of an admitted instance; waits for the admission, which may be on its way, until `limit`.
    pub(super) async fn admitted(&self, instance: &InstanceId, limit: Duration) -> Option<Option<IntentId>> {
        let mut admissions = self.admissions.subscribe();
        let wait = async {
            loop {
                if let Some(intent) = self.lock().admission.instances.get(instance) {
                    return Some(intent.clone());
                }
                if admissions.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.ok().flatten()
    }

    /// Whether a sidecar of this instance has ever reported to this run.
    pub(super) fn has_reported(&self, instance: &InstanceId) -> bool {
        self.lock().entries.get(instance).is_some_and(|entry| entry.session.is_some())
    }

    /// Begins an attach. `None` if another of the same instance is under way.
    pub(super) fn turn(self: &Arc<Self>, instance: &InstanceId) -> Option<Turn> {
        self.lock()
            .attaching
            .insert(instance.clone())
            .then(|| Turn { table: Arc::clone(self), instance: instance.clone() })
    }

    /// Seats a stream in place of an older one of the instance, which ends.
    pub(super) fn seat(
        self: &Arc<Self>,
        hello: v1::Hello,
        limit: usize,
    ) -> Option<(Seat, mpsc::Receiver<v1::ToSidecar>)> {
        let instance = InstanceId(hello.instance_id);
        let (sender, receiver) = mpsc::channel(ORDERS);
        let now = (self.now)();
        let mut inner = self.lock();
        let replaced = inner.entries.get(&instance).is_some_and(|entry| entry.orders.is_some());
        if !replaced {
            if inner.live >= limit {
                return None;
            }
            inner.live += 1;
        }
        inner.serials += 1;
        let serial = inner.serials;
        let entry = inner.entries.entry(instance.clone()).or_insert_with(|| Entry {
            session: None,
            serial,
            orders: None,
            last_heard: now,
            fresh: true,
            detail: Detail::default(),
        });
        // The older stream's seat is no longer its own: its serial is not the entry's.
        entry.orders = Some(sender);
        let rebooted = !entry.detail.boot_id.is_empty() && entry.detail.boot_id != hello.boot_id;
        entry.serial = serial;
        entry.last_heard = now;
        entry.fresh = true;
        entry.detail.boot_id = hello.boot_id;
        entry.detail.sidecar_version = hello.sidecar_version;
        drop(inner);
        info!(%instance, replaced, rebooted, "sidecar attached");
        Some((Seat { table: Arc::clone(self), instance, serial }, receiver))
    }

    /// Ends the streams that have been silent for longer than `silence`, and forgets old sessions.
    pub(super) fn sweep(&self, silence: Duration) {
        let now = (self.now)();
        let mut silent = Vec::new();
        let mut inner = self.lock();
        let Inner { admission, entries, live, .. } = &mut *inner;
        entries.retain(|instance, entry| {
            if entry.orders.is_some() && now.since(entry.last_heard) > silence {
                silent.push(instance.clone());
                entry.end(now);
                *live -= 1;
            }
            entry.orders.is_some()
                || admission.instances.contains_key(instance)
                || now.since(entry.last_heard) < REMEMBER
        });
        drop(inner);
        for instance in &silent {
            warn!(%instance, "sidecar silent: session ended");
        }
        if !silent.is_empty() {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock holds a table that is whole: each change to it is made at the end of its check.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions for SessionTable {
    fn sessions(&self) -> BTreeMap<InstanceId, Session> {
        let inner = self.lock();
        let known = inner.entries.iter();
        known.filter_map(|(id, entry)| Some((id.clone(), entry.session.clone()?))).collect()
    }

    fn send(&self, instance: &InstanceId, order: Order) -> bool {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(instance) else { return false };
        let (Some(orders), Some(session)) = (&entry.orders, &mut entry.session) else { return false };
        let sent = session.connected && orders.try_send(report::order(order)).is_ok();
        if sent {
            session.last_answer = Some((order, Answer::Awaited));
        }
        sent
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn admit(&self, admission: Admission) {
        let mut inner = self.lock();
        if inner.admission == admission {
            return;
        }
        inner.admission = admission;
        drop(inner);
        self.admissions.send_modify(|count| *count += 1);
    }
}

impl Entry {
    fn end(&mut self, now: Time) {
        self.orders = None;
        self.last_heard = now;
        if let Some(session) = &mut self.session {
            session.connected = false;
            session.last_seen = now;
        }
    }

    fn report(&mut self, report: v1::Report, now: Time) -> Result<bool, Malformed> {
        self.last_heard = now;
        let first_of_stream = std::mem::take(&mut self.fresh);
        let news = match &mut self.session {
            Some(session) => {
                let mut news = report::update(session, &report, now)?;
                if first_of_stream
                    && let Some((order, answer @ Answer::Awaited)) = &mut session.last_answer
                    && report::shows_obeyed(&report, order)
                {
                    *answer = Answer::Done;
                    news = true;
                }
                news
            }
            none => {
                let mut session = report::session(&report, now)?;
                session.boot_failure.clone_from(&self.detail.boot_failure);
                *none = Some(session);
                true
            }
        };
        self.detail.ungated = report.agents.iter().any(|agent| agent.ungated);
        self.detail.free_disk_bytes = report.free_disk_bytes;
        self.detail.gpus.clear();
        self.detail.gpus.extend(report.gpus.into_iter().map(GpuUse::from));
        Ok(news)
    }
}

impl Seat {
    pub(super) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Takes a report in.
    pub(super) fn report(&self, report: v1::Report) -> Result<(), Malformed> {
        self.change(|entry, now| entry.report(report, now))
    }

    /// Takes the answer to an order in, if that order is the newest.
    pub(super) fn answer(&self, answer: &v1::OrderAnswer) -> Result<(), Malformed> {
        let (order, answer) = report::answer(answer)?;
        self.change(|entry, now| {
            entry.last_heard = now;
            let newest = entry.session.as_mut().and_then(|session| session.last_answer.as_mut());
            Ok(match newest {
                Some((sent, known)) if *sent == order => {
                    *known = answer;
                    true
                }
                Some(_) | None => false,
            })
        })
    }

    /// Keeps the phase that failed and the end of its log.
    pub(super) fn boot_failed(&self, failure: String) -> Result<(), Malformed> {
        self.change(|entry, now| {
            entry.last_heard = now;
            if let Some(session) = &mut entry.session {
                session.boot_failure = Some(failure.clone());
            }
            entry.detail.boot_failure = Some(failure);
            Ok(true)
        })
    }

    /// A stream that was replaced changes nothing any more.
    fn change(
        &self,
        apply: impl FnOnce(&mut Entry, Time) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let now = (self.table.now)();
        let mut inner = self.table.lock();
        let news = match inner.entries.get_mut(&self.instance) {
            Some(entry) if entry.serial == self.serial && entry.orders.is_some() => apply(entry, now)?,
            Some(_) | None => false,
        };
        drop(inner);
        if news {
            self.table.changed.notify_one();
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = (self.table.now)();
        let mut inner = self.table.lock();
        let Inner { entries, live, .. } = &mut *inner;
        match entries.get_mut(&self.instance) {
            Some(entry) if entry.serial == self.serial && entry.orders.is_some() => {
                entry.end(now);
                *live -= 1;
            }
            Some(_) | None => return,
        }
        drop(inner);
        info!(instance = %self.instance, "sidecar's session ended");
        self.table.changed.notify_one();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.table.lock().attaching.remove(&self.instance);
    }
}

impl From<v1::Gpu> for GpuUse {
    fn from(gpu: v1::Gpu) -> Self {
        let v1::Gpu { index, name, utilisation_percent, memory_used_bytes, memory_total_bytes } = gpu;
        Self {
            index,
            name,
            utilisation_percent,
            memory_used: memory_used_bytes,
            memory_total: memory_total_bytes,
        }
    }
}
