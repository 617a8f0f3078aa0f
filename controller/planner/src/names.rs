//! Names to their places, in constant time and always the same way: the standard library's hash map is
//! seeded at random, and a tree of ten thousand names compares dozens of strings for each that is sought.

/// A table of distinct names. A name's place is the order in which it came.
pub(crate) struct Names<'a> {
    names: Vec<&'a str>,
    /// The upper half of a name's hash, and below it its place plus one; 0 is free. A power of two, at
    /// least twice as many as names.
    slots: Vec<u64>,
}

impl<'a> Names<'a> {
    /// An empty table with room for so many.
    pub(crate) fn with_capacity(count: usize) -> Self {
        let slots = count.saturating_mul(2).next_power_of_two().max(8);
        Self { names: Vec::with_capacity(count), slots: vec![0; slots] }
    }

    /// The place of the name, which is new if it was not there.
    pub(crate) fn place(&mut self, name: &'a str) -> usize {
        let hash = hash(name);
        let slot = self.slot(name, hash);
        if let Some(place) = place_in(self.slots[slot]) {
            return place;
        }
        self.names.push(name);
        self.slots[slot] = entry(hash, self.names.len());
        if self.names.len() * 2 > self.slots.len() {
            self.grow();
        }
        self.names.len() - 1
    }

    /// The place of the name, if it is there.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        place_in(self.slots[self.slot(name, hash(name))])
    }

    /// The same for many: what one needs from memory is on its way while another is looked at.
    pub(crate) fn find_all(&self, names: &[&str]) -> Vec<Option<usize>> {
        let hashes: Vec<u64> = names.iter().map(|name| hash(name)).collect();
        let homes: Vec<u64> = hashes.iter().map(|hash| self.slots[self.home(*hash)]).collect();
        let likely: Vec<Option<(usize, &str)>> = homes
            .into_iter()
            .zip(hashes)
            .map(|(slot, hash)| place_in(slot).filter(|_| slot >> 32 == hash >> 32))
            .map(|place| place.map(|place| (place, self.names[place])))
            .collect();
        let found = names.iter().zip(likely).map(|(name, likely)| match likely {
            Some((place, known)) if known == *name => Some(place),
            Some(_) | None => self.find(name),
        });
        found.collect()
    }

    /// Where a name stands if no other was there before it.
    fn home(&self, hash: u64) -> usize {
        usize::try_from(hash >> 16).unwrap_or(usize::MAX) & (self.slots.len() - 1)
    }

    /// Where the name stands, or the free slot where it would.
    fn slot(&self, name: &str, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        while let Some(place) = place_in(self.slots[slot]) {
            if self.slots[slot] >> 32 == hash >> 32 && self.names[place] == name {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 2];
        for (place, name) in self.names.iter().enumerate() {
            let hash = hash(name);
            let slot = self.slot(name, hash);
            self.slots[slot] = entry(hash, place + 1);
        }
    }
}

fn entry(hash: u64, place_plus_one: usize) -> u64 {
    hash >> 32 << 32 | u64::from(u32::try_from(place_plus_one).unwrap_or(u32::MAX))
}

fn place_in(slot: u64) -> Option<usize> {
    let place_plus_one = slot & u64::from(u32::MAX);
    usize::try_from(place_plus_one).ok()?.checked_sub(1)
}

/// Multiplies and folds, eight bytes at a time. Quick and even; names are not chosen by an enemy.
fn hash(name: &str) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut chunks = name.as_bytes().chunks_exact(8);
    let mut hash = name.len() as u64;
    let mut fold = |word: u64| {
        hash = (hash ^ word).wrapping_mul(ODD);
        hash ^= hash >> 29;
    };
    for chunk in &mut chunks {
        fold(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    fold(chunks.remainder().iter().fold(1, |word, byte| word << 8 | u64::from(*byte)));
    hash
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn every_name_has_its_own_place_however_many_come() {
        let texts: Vec<String> = (0..5000).map(|number| format!("i-{number:x}")).collect();
        let mut names = Names::with_capacity(3);
        for (place, text) in texts.iter().enumerate() {
            assert_eq!(names.place(text), place);
        }
        for (place, text) in texts.iter().enumerate() {
            assert_eq!((names.place(text), names.find(text)), (place, Some(place)));
        }
        let asked = ["i-0", "", "i-", "i-1387", "i-1388"];
        assert_eq!(names.find_all(&asked), [Some(0), None, None, Some(4999), None]);
    }
}
