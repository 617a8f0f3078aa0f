//! Deliberate faults, so that the simulation can be seen to find them. Without the feature `faults`, which no
//! release has, [`fault!`](crate::fault) is the constant false and nothing else of this exists.

/// Whether this thread commits the fault of this name. `check-ignored` goes with each of them: what is to be
/// found is found in the world, not in the plan.
#[cfg(feature = "faults")]
#[macro_export]
macro_rules! fault {
    ($name:literal) => {
        $crate::faults::is($name)
    };
}

/// False: this build commits no faults.
#[cfg(not(feature = "faults"))]
#[macro_export]
macro_rules! fault {
    ($name:literal) => {
        false
    };
}

/// The faults of planner and engine.
#[cfg(feature = "faults")]
pub const NAMES: &[&str] = &[
    "adoption-skipped",
    "journal-forgotten",
    "lease-ignored",
    "lost-without-deadline",
    "maximum-ignored",
    "new-journal-ignored",
    "no-fresh-look",
    "no-intent",
    "pending-not-counted",
    "session-loss-is-gone",
    "stale-input-trusted",
    "token-per-attempt",
    "unregister-live-worker",
];

#[cfg(feature = "faults")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// This thread commits it from now on.
#[cfg(feature = "faults")]
pub fn choose(fault: Option<&'static str>) {
    CHOSEN.set(fault);
}

/// Whether this thread commits it.
#[cfg(feature = "faults")]
pub fn is(name: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == name || name == "check-ignored")
}
