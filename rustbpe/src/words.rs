//! Chunks → distinct words, each with a count.
//!
//! Equal chunks are one word. Short ones are found again in a hash table, with their bytes inside:
//! millions of little strings would take more memory than the text. Long ones (in Chinese a whole
//! clause is one chunk, and seldom comes twice) just pile up, end to end, and are compared with each
//! other only when that is worthwhile.

use memchr::memchr_iter;
use rayon::prelude::*;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::{BuildHasher, Hash};
use std::iter::repeat;

use crate::token::BORDER;

/// A word of at most [`ShortWord::MAX`] bytes: the bytes from the low end up, the length on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ShortWord(u128);

impl ShortWord {
    const MAX: usize = 15;

    /// The word `text[start..end]`.
    #[inline(always)]
    fn new(text: &[u8], start: usize, end: usize) -> Self {
        let length = end - start;
        let bytes = match text.get(start..start + 16) {
            Some(bytes) => u128::from_le_bytes(bytes.try_into().expect("16 bytes")),
            None => {
                let mut bytes = [0; 16];
                bytes[..length].copy_from_slice(&text[start..end]);
                u128::from_le_bytes(bytes)
            }
        };
        Self(bytes & ((1 << (8 * length)) - 1) | (length as u128) << 120)
    }

    fn length(self) -> usize {
        (self.0 >> 120) as usize
    }

    fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// How many bytes of long words pile up before they are compared.
const COLLAPSE_AT: usize = 1 << 26;

/// Words with their counts; each thread has its own.
#[derive(Debug)]
pub struct Words {
    short: FxHashMap<ShortWord, u64>,
    /// Each long word, followed by a border.
    long: Vec<u8>,
    /// The counts of the first long words; the others count 1.
    long_counts: Vec<u64>,
    collapse_at: usize,
    n_slots: usize,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            short: FxHashMap::default(),
            long: Vec::new(),
            long_counts: Vec::new(),
            collapse_at: COLLAPSE_AT,
            n_slots: 0,
        }
    }
}

impl Words {
    /// Counts the chunk `text[start..end]`.
    #[inline(always)]
    pub fn add(&mut self, text: &str, start: usize, end: usize) {
        let text = text.as_bytes();
        if end - start <= ShortWord::MAX {
            self.add_short(ShortWord::new(text, start, end), 1);
        } else {
            self.long.extend_from_slice(&text[start..end]);
            self.long.push(BORDER);
            self.n_slots += end - start + 1;
        }
    }

    #[inline(always)]
    fn add_short(&mut self, word: ShortWord, n: u64) {
        let count = self.short.entry(word).or_insert(0);
        if *count == 0 {
            self.n_slots += word.length() + 1;
        }
        *count += n;
    }

    /// How many bytes the words have, a border after each included. Equal long words that have not
    /// been compared yet are so many words.
    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// To be called now and then. Memory stays within a constant factor of the distinct chunks.
    pub fn tidy(&mut self) {
        if self.long.len() >= self.collapse_at {
            self.collapse();
            self.collapse_at = self.long.len().max(COLLAPSE_AT / 2) * 2;
        }
    }

    /// The long words with their counts, and a border after each.
    fn long_words(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut start = 0;
        let words = memchr_iter(BORDER, &self.long).map(move |end| {
            let word = &self.long[start..=end];
            start = end + 1;
            word
        });
        words.zip(self.long_counts.iter().copied().chain(repeat(1)))
    }

    /// Makes equal long words one.
    pub fn collapse(&mut self) {
        let mut counts: FxHashMap<&[u8], u64> = FxHashMap::default();
        for (word, n) in self.long_words() {
            *counts.entry(word).or_default() += n;
        }
        let long: Vec<u8> = counts.keys().copied().flatten().copied().collect();
        self.long_counts = counts.into_values().collect();
        self.n_slots -= self.long.len() - long.len();
        self.long = long;
    }

    /// Whether at least an eighth of the long words are repeats, judged by a sample: those whose
    /// hash happens to end in six zeros, so that equal words are all in it or none.
    fn is_repetitive(&self) -> bool {
        let hashes = self.long_words().map(|(word, _)| hash(&word));
        let mut sample: Vec<u64> = hashes.filter(|hash| hash % 64 == 0).collect();
        let all = sample.len();
        sample.sort_unstable();
        sample.dedup();
        // Few different words may all miss the sample.
        all == 0 || sample.len() * 8 < all * 7
    }

    /// Calls `visit` with each word, a border included, and its count: the rare words first.
    pub fn for_each_by_count(self, mut visit: impl FnMut(&[u8], u64)) {
        let mut repeated: Vec<u8> = Vec::new();
        let mut repeats = Vec::new();
        let mut sort_out = |word: &[u8], n| {
            if n == 1 {
                visit(word, n);
            } else {
                let start = repeated.len();
                repeated.extend_from_slice(word);
                repeats.push((n, start..repeated.len()));
            }
        };
        for (word, n) in self.long_words() {
            sort_out(word, n);
        }
        for (word, &n) in &self.short {
            let mut bytes = word.bytes();
            bytes[word.length()] = BORDER;
            sort_out(&bytes[..=word.length()], n);
        }
        repeats.sort_unstable_by_key(|&(n, _)| n);
        for (n, word) in repeats {
            visit(&repeated[word], n);
        }
    }
}

fn hash(word: &impl Hash) -> u64 {
    FxBuildHasher.hash_one(word)
}

/// Two threads have met much the same short words. So these are dealt out anew by their hash, and
/// each share sums the counts of its own. Returns as many shares as there are, or fewer.
pub fn gather(mut shares: Vec<Words>) -> Vec<Words> {
    shares.retain(|share| share.n_slots > 0);
    let n_shares = shares.len();
    let take_short = |share: &mut Words| {
        let short = std::mem::take(&mut share.short);
        share.n_slots = share.long.len();
        short
    };
    let dealt: Vec<FxHashMap<ShortWord, u64>> = shares.iter_mut().map(take_short).collect();
    shares
        .par_iter_mut()
        .enumerate()
        .for_each(|(number, share)| {
            for (&word, &n) in dealt.iter().flatten() {
                if (hash(&word) >> 40) as usize % n_shares == number {
                    share.add_short(word, n);
                }
            }
            if share.is_repetitive() {
                share.collapse();
            }
        });
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    fn counts(shares: Vec<Words>) -> BTreeMap<Vec<u8>, u64> {
        let mut counts = BTreeMap::new();
        for share in shares {
            let (mut n_slots, mut rarest) = (share.n_slots(), 1);
            share.for_each_by_count(|word, n| {
                assert!(n >= rarest);
                rarest = n;
                n_slots -= word.len();
                let word = word.strip_suffix(&[BORDER]).unwrap();
                *counts.entry(word.to_vec()).or_default() += n;
            });
            assert_eq!(n_slots, 0);
        }
        counts
    }

    /// Whatever the shares, collapses and lengths: the words are the chunks, counted.
    #[test]
    fn words_are_the_counted_chunks() {
        let mut random = Random::new(1);
        for n_shares in 1..4 {
            let mut shares: Vec<Words> = (0..n_shares).map(|_| Words::default()).collect();
            let mut expected = BTreeMap::new();
            for round in 0..2000 {
                let chunk: String = match random.below(3) {
                    0 => (0..1 + random.below(3))
                        .map(|_| ['a', '好', '👍'][random.below(3)])
                        .collect(),
                    1 => "long chunk number ".to_owned() + &random.below(300).to_string(),
                    _ => "长".repeat(5 + random.below(40)),
                };
                let text = format!("<{chunk}>");
                shares[round % n_shares].add(&text, 1, 1 + chunk.len());
                *expected.entry(chunk.into_bytes()).or_default() += 1;
                if random.below(500) == 0 {
                    shares[random.below(n_shares)].collapse();
                }
            }
            assert_eq!(counts(gather(shares)), expected);
        }
    }

    #[test]
    fn repeats_of_long_words_take_no_memory() {
        let mut words = Words::default();
        let text = "这是一行很长很长的文字".repeat(9);
        for _ in 0..(3 * COLLAPSE_AT / text.len()) {
            words.add(&text, 0, text.len());
            words.tidy();
        }
        assert!(words.long.capacity() <= 2 * COLLAPSE_AT);
        assert_eq!(gather(vec![words])[0].n_slots(), text.len() + 1);
    }
}
