//! Chance, from a seed. Written out, so that a seed means the same whatever crate is updated.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x2545_f491_4f6c_dd1d);
        rng.next();
        rng
    }

    /// A stream of its own: what it is asked for changes nothing here.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From `low` to below `high`; `low` if that is nothing.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        let width = high.saturating_sub(low);
        if width == 0 { low } else { low + self.next() % width }
    }

    /// True once in `1 / probability` times.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.range(0, of.len() as u64)).unwrap_or(0))
    }
}
