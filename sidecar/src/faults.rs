//! Deliberate faults, so that the simulation can be seen to find them. Without the feature `faults`, which no
//! release has, `fault!` is the constant false and nothing else of this exists.

#[cfg(feature = "faults")]
macro_rules! fault {
    ($name:literal) => {
        $crate::faults::is($name)
    };
}

#[cfg(not(feature = "faults"))]
macro_rules! fault {
    ($name:literal) => {
        false
    };
}

/// The faults of the sidecar.
#[cfg(feature = "faults")]
pub const NAMES: &[&str] =
    &["generation-ignored", "no-gate", "retire-not-saved", "silent-end-while-busy", "undrain-after-retire"];

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
    CHOSEN.get() == Some(name)
}
