//! A few hundred seeds, and those that once found something.

use sim::{Totals, run_range, run_seed};

#[test]
fn two_hundred_seeds_break_no_invariant() {
    let halves =
        [(1, 100), (101, 200)].map(|(first, last)| std::thread::spawn(move || run_range(first, last)));
    let mut drains = 0;
    for half in halves {
        let Totals { seeds, drains: told, launches, violations } = half.join().unwrap();
        assert_eq!(violations, []);
        assert_eq!(seeds, 100);
        assert!(launches > 500, "{launches} launches are no test");
        drains += told;
    }
    assert!(drains > 500, "{drains} drains are no test");
}

/// The same seed is the same story, or a violation could not be looked at again.
#[test]
fn a_seed_repeats_itself() {
    let (one, other) = (run_seed(77, false), run_seed(77, false));
    assert_eq!((one.drains, one.launches, one.broken), (other.drains, other.launches, other.broken));
}
