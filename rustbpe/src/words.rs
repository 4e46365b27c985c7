//! Chunks → distinct words, each with a count.
//!
//! Equal chunks are one word. Millions of little strings would take more memory than the text, so
//! the bytes of all words lie end to end in one vector, and the hash table that finds a word again
//! holds only its number.

use hashbrown::hash_table::{Entry, HashTable};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

/// Words, numbered as they were first met.
#[derive(Debug, Default)]
pub struct Words {
    bytes: Vec<u8>,
    words: Vec<Word>,
    /// The numbers, by the hashes of the words' bytes.
    numbers: HashTable<u32>,
}

#[derive(Debug)]
struct Word {
    /// Where its bytes start; they end where the next word's start.
    start: usize,
    count: u64,
}

fn bytes_of<'a>(bytes: &'a [u8], words: &[Word], number: u32) -> &'a [u8] {
    let number = number as usize;
    let end = words.get(number + 1).map_or(bytes.len(), |next| next.start);
    &bytes[words[number].start..end]
}

impl Words {
    /// Counts a word `n` times more.
    pub fn add(&mut self, word: &[u8], n: u64) {
        let hash = |word: &[u8]| FxBuildHasher.hash_one(word);
        let bytes_of = |&number: &u32| bytes_of(&self.bytes, &self.words, number);
        let entry = self.numbers.entry(
            hash(word),
            |number| bytes_of(number) == word,
            |number| hash(bytes_of(number)),
        );
        match entry {
            Entry::Occupied(number) => self.words[*number.get() as usize].count += n,
            Entry::Vacant(place) => {
                place.insert(self.words.len() as u32);
                self.words.push(Word {
                    start: self.bytes.len(),
                    count: n,
                });
                self.bytes.extend_from_slice(word);
            }
        }
    }

    /// How many slots of an [`Arena`](crate::arena::Arena) the words take: their bytes, and a
    /// border after each and before the first.
    pub fn n_slots(&self) -> usize {
        self.bytes.len() + self.words.len() + 1
    }

    fn word(&self, number: u32) -> (&[u8], u64) {
        let bytes = bytes_of(&self.bytes, &self.words, number);
        (bytes, self.words[number as usize].count)
    }

    /// The words with their counts, the rare ones first.
    pub fn by_count(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut numbers: Vec<u32> = (0..self.words.len() as u32).collect();
        numbers.sort_unstable_by_key(|&number| self.words[number as usize].count);
        numbers.into_iter().map(|number| self.word(number))
    }
}

/// The words of all threads together.
pub fn gather(shares: Vec<Words>) -> Words {
    let mut shares = shares.into_iter();
    let mut all = shares.next().unwrap_or_default();
    for share in shares {
        for number in 0..share.words.len() as u32 {
            let (word, n) = share.word(number);
            all.add(word, n);
        }
    }
    // No more words come.
    all.numbers = HashTable::new();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    #[test]
    fn words_are_the_counted_chunks() {
        let mut random = Random::new(1);
        for n_shares in 1..4 {
            let mut shares: Vec<Words> = (0..n_shares).map(|_| Words::default()).collect();
            let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            for round in 0..2000 {
                let word = "长a".repeat(1 + random.below(300)).into_bytes();
                shares[round % n_shares].add(&word, 1);
                *expected.entry(word).or_default() += 1;
            }
            let words = gather(shares);
            let found: Vec<(&[u8], u64)> = words.by_count().collect();
            assert!(found.is_sorted_by_key(|&(_, count)| count));
            assert_eq!(found.len(), expected.len());
            for (word, count) in found {
                assert_eq!(expected[word], count);
            }
            let n_bytes: usize = expected.keys().map(Vec::len).sum();
            assert_eq!(words.n_slots(), n_bytes + expected.len() + 1);
        }
    }
}
