//! Deliberate faults by name: committed in planner, engine and sidecar, where the feature `faults` has them.

/// What a build with faults can be told.
#[cfg(feature = "faults")]
pub fn names() -> impl Iterator<Item = &'static str> {
    planner::faults::NAMES.iter().chain(sidecar::faults::NAMES).copied()
}

/// The fault of this name.
///
/// # Errors
/// There is none of this name, or this build has none at all.
#[cfg(feature = "faults")]
pub(crate) fn named(name: &str) -> anyhow::Result<&'static str> {
    names().find(|known| *known == name).ok_or_else(|| {
        let known: Vec<&str> = names().collect();
        anyhow::anyhow!("there is no fault {name}; there are: {}", known.join(", "))
    })
}

/// The fault of this name.
///
/// # Errors
/// This build has none.
#[cfg(not(feature = "faults"))]
pub(crate) fn named(name: &str) -> anyhow::Result<&'static str> {
    anyhow::bail!("no fault {name} in this build: build it with --features faults")
}

/// This thread commits it from now on.
#[cfg(feature = "faults")]
pub fn choose(fault: Option<&'static str>) {
    planner::faults::choose(fault);
    sidecar::faults::choose(fault);
}

#[cfg(not(feature = "faults"))]
pub(crate) fn choose(_fault: Option<&'static str>) {}
