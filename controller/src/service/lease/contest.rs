//! Who of those that are listed has the lease. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use clearml::Timestamp;
use tokio::time::Instant;

use super::{Entry, SILENCE};

/// How things stand for this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every older rival is dead.
    Won,
    /// This older rival lives.
    Lost(String),
    /// This older rival is listed; it has shown no sign of life so far.
    Undecided(String),
    /// Too early to tell.
    Unsettled,
}

/// What has been seen of everybody.
#[derive(Debug)]
pub(super) struct Contest {
    own: String,
    /// Our entry's register time, once it was seen.
    registered: Option<Timestamp>,
    /// After the server took our last report.
    reported: Option<Instant>,
    rivals: BTreeMap<String, Sighting>,
}

#[derive(Debug)]
struct Sighting {
    active: Option<Timestamp>,
    /// Since when it has been seen with just this activity.
    since: Instant,
    /// It reported while we watched.
    lively: bool,
}

impl Contest {
    pub(super) fn new(own: String) -> Self {
        Self { own, registered: None, reported: None, rivals: BTreeMap::new() }
    }

    /// The server has taken a registration, at the latest now.
    pub(super) fn entered(&mut self, now: Instant) {
        self.registered = None;
        self.reported = Some(now);
    }

    /// The server has taken a report, at the latest now.
    pub(super) fn reported(&mut self, now: Instant) {
        self.reported = Some(now);
    }

    /// Whether our entry is there, and is still the one that we registered: a late report makes a new one
    /// of an expired one, with another life time.
    pub(super) fn is_listed(&mut self, entries: &[Entry]) -> bool {
        let Some(own) = entries.iter().find(|entry| entry.id == self.own) else { return false };
        let registered = *self.registered.get_or_insert(own.registered.unwrap_or_default());
        registered == own.registered.unwrap_or_default()
    }

    /// Judges by a list whose reading began at `looked`.
    pub(super) fn judge(&mut self, entries: &[Entry], looked: Instant) -> Verdict {
        let (own, rivals): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.id == self.own);
        let Some(own) = own.first() else { return Verdict::Unsettled };
        self.rivals.retain(|id, _| rivals.iter().any(|rival| rival.id == *id));
        // The server's clock when the reading began, or somewhat less.
        let now = own.active.zip(self.reported).map(|(active, reported)| (active, looked - reported));
        let mut older: Vec<&Entry> =
            rivals.into_iter().filter(|rival| seniority(rival) < seniority(own)).collect();
        older.sort_by_key(|rival| seniority(rival));
        let mut undecided = None;
        for rival in older {
            let sighting = self.rivals.entry(rival.id.clone()).or_insert_with(|| Sighting {
                active: rival.active,
                since: looked,
                lively: false,
            });
            if sighting.active != rival.active {
                *sighting = Sighting { active: rival.active, since: looked, lively: true };
            }
            let told = now.zip(rival.active).map(|((own, since), rival)| silence(own, rival) + since);
            if told.unwrap_or_default().max(looked - sighting.since) >= SILENCE {
                continue;
            }
            if sighting.lively {
                return Verdict::Lost(rival.id.clone());
            }
            undecided.get_or_insert_with(|| rival.id.clone());
        }
        undecided.map_or(Verdict::Won, Verdict::Undecided)
    }
}

fn seniority(entry: &Entry) -> (Option<Timestamp>, &str) {
    (entry.registered, &entry.id)
}

/// By how much the rival's last report is older than ours.
fn silence(own: Timestamp, rival: Timestamp) -> Duration {
    Duration::try_from(own.duration_since(rival)).unwrap_or_default()
}
