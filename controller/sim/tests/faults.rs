//! Every deliberate fault is found: `cargo test -p sim --features faults`.

#![cfg(feature = "faults")]

/// Seeds within which each has to be found.
const WITHIN: u64 = 1000;

#[test]
fn every_fault_is_found_within_a_thousand_seeds() {
    let searches: Vec<_> = sim::names()
        .map(|fault| {
            std::thread::spawn(move || {
                sim::choose(Some(fault));
                (fault, (1..=WITHIN).find(|seed| !sim::run_seed(*seed, false).broken.is_empty()))
            })
        })
        .collect();
    let found: Vec<_> = searches.into_iter().map(|search| search.join().unwrap()).collect();
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert!(found.len() >= 10);
}
