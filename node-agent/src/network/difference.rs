//! What has to be done to a table for it to be as it should. Pure.

use std::collections::BTreeMap;

/// Steps from what stands to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference<K, V> {
    /// What is missing.
    pub(super) add: Vec<(K, V)>,
    /// What takes the place of something with the same key.
    pub(super) replace: Vec<(K, V)>,
    /// What should not be.
    pub(super) remove: Vec<(K, V)>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Difference<K, V> {
    pub(super) fn between(standing: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Self {
        let entry = |(key, value): (&K, &V)| (key.clone(), value.clone());
        let strange = standing.iter().filter(|(key, _)| !wanted.contains_key(key));
        let missing = wanted.iter().filter(|(key, _)| !standing.contains_key(key));
        let differs = |(key, value): &(&K, &V)| standing.get(key).is_some_and(|there| there != *value);
        Self {
            add: missing.map(entry).collect(),
            replace: wanted.iter().filter(differs).map(entry).collect(),
            remove: strange.map(entry).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(difference: Difference<u8, u8>, table: &mut BTreeMap<u8, u8>) {
        for (key, value) in difference.add {
            assert_eq!(table.insert(key, value), None, "only what is missing is added");
        }
        for (key, value) in difference.replace {
            assert!(table.insert(key, value).is_some_and(|before| before != value));
        }
        for (key, value) in difference.remove {
            assert_eq!(table.remove(&key), Some(value));
        }
    }

    proptest! {
        #[test]
        fn the_difference_applied_to_what_stands_gives_what_is_wanted_and_then_nothing_is_left_to_do(
            standing: BTreeMap<u8, u8>,
            wanted: BTreeMap<u8, u8>,
        ) {
            let mut table = standing;
            apply(Difference::between(&table, &wanted), &mut table);
            prop_assert_eq!(&table, &wanted);
            let rest = Difference::between(&table, &wanted);
            prop_assert_eq!(rest, Difference { add: vec![], replace: vec![], remove: vec![] });
        }
    }
}
