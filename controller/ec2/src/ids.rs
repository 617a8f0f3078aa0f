//! Many ids in few calls, when EC2 refuses a whole call for one id that it does not know.

use std::collections::BTreeSet;

/// Alike in size, at most `size` each.
pub(crate) fn batches(ids: &BTreeSet<String>, size: usize) -> Vec<Vec<String>> {
    let ids: Vec<String> = ids.iter().cloned().collect();
    ids.chunks(size).map(<[String]>::to_vec).collect()
}

/// What EC2's message calls unknown, and the rest in the batches to ask for next. A message that names none of the
/// batch halves it; alone in its batch, an id is the unknown one.
pub(crate) fn without_unknown(batch: Vec<String>, message: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let named: BTreeSet<&str> = message
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("i-"))
        .collect();
    let (unknown, rest): (Vec<String>, Vec<String>) =
        batch.into_iter().partition(|id| named.contains(id.as_str()));
    match (unknown.is_empty(), rest.len()) {
        (true, 0 | 1) => (rest, Vec::new()),
        (true, _) => (unknown, halves(rest)),
        (false, 0) => (unknown, Vec::new()),
        (false, _) => (unknown, vec![rest]),
    }
}

pub(crate) fn halves(mut batch: Vec<String>) -> Vec<Vec<String>> {
    let second = batch.split_off(batch.len() / 2);
    vec![batch, second]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_message_names_the_unknown_ones() {
        let message = "the instance IDs 'i-0a, i-0c' do not exist";
        let (unknown, rest) = without_unknown(ids(&["i-0a", "i-0b", "i-0c"]), message);
        assert_eq!(unknown, ids(&["i-0a", "i-0c"]));
        assert_eq!(rest, vec![ids(&["i-0b"])]);
    }

    #[test]
    fn a_message_that_names_none_halves_the_batch() {
        let (unknown, rest) = without_unknown(ids(&["i-0a", "i-0b", "i-0c"]), "some do not exist");
        assert!(unknown.is_empty());
        assert_eq!(rest, vec![ids(&["i-0a"]), ids(&["i-0b", "i-0c"])]);
    }

    #[test]
    fn alone_in_its_batch_an_id_is_the_unknown_one() {
        let (unknown, rest) = without_unknown(ids(&["i-0a"]), "it does not exist");
        assert_eq!(unknown, ids(&["i-0a"]));
        assert!(rest.is_empty());
    }
}
