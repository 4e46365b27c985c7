//! Chunks → merges.
//!
//! A *word* is a distinct chunk and how often it occurs. Training keeps, for each pair of adjacent
//! tokens, its count over all words and the words that hold it, and a heap of pairs by count.
//! A merge rewrites only the words that hold the pair, and adjusts only the counts of neighbours.
//!
//! **Tie rule**: the highest count wins; among equals, the numerically smallest pair
//! `(left, right)`. So merges depend on the text alone, not on its order or on threads.
//!
//! Example, the word `aab` twice and `ab` once:
//!
//! | step | words | counts | merge |
//! | --- | --- | --- | --- |
//! | 1 | `a a b` ×2, `a b` ×1 | (a,b) 3, (a,a) 2 | (a,b) → 256 |
//! | 2 | `a 256` ×2, `256` ×1 | (a,256) 2 | (a,256) → 257 |
//! | 3 | `257` ×2, `256` ×1 | none | |

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::splitter::{SplitError, Splitter};

pub type Token = u32;
/// Two adjacent tokens, left and right.
pub type Pair = (Token, Token);

/// The bytes: tokens 0 to 255, there before any merge.
pub const BYTES: usize = 256;

/// How often each distinct chunk occurs.
#[derive(Debug, Default)]
pub struct ChunkCounts(FxHashMap<Box<str>, u64>);

impl ChunkCounts {
    /// Splits the texts in parallel and adds their chunks.
    pub fn add_texts<T: AsRef<str> + Sync>(
        &mut self,
        splitter: &Splitter,
        texts: &[T],
    ) -> Result<(), SplitError> {
        let counted = texts
            .par_iter()
            .try_fold(Self::default, |mut counts, text| {
                splitter.split(text.as_ref(), |chunk| counts.add(chunk, 1))?;
                Ok(counts)
            })
            .try_reduce(Self::default, |a, b| Ok(a.merge(b)))?;
        *self = std::mem::take(self).merge(counted);
        Ok(())
    }

    fn add(&mut self, chunk: &str, n: u64) {
        match self.0.get_mut(chunk) {
            Some(count) => *count += n,
            None => {
                self.0.insert(chunk.into(), n);
            }
        }
    }

    fn merge(self, other: Self) -> Self {
        let (mut large, small) = if self.0.len() >= other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        for (chunk, n) in small.0 {
            *large.0.entry(chunk).or_insert(0) += n;
        }
        large
    }
}

struct Word {
    tokens: Vec<Token>,
    count: u64,
}

#[derive(Default)]
struct PairEntry {
    count: u64,
    /// Indices of words that hold the pair, or held it. Ascending while new, with repeats.
    words: Vec<u32>,
}

/// Learns up to `n_merges` merges, fewer if the words are used up. Merge `i` makes token
/// `BYTES + i`.
///
/// `progress` is called with the number of merges made so far; an error from it stops training.
pub fn train<E>(
    counts: ChunkCounts,
    n_merges: usize,
    mut progress: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    let mut words: Vec<Word> = counts
        .0
        .into_iter()
        .map(|(chunk, count)| Word {
            tokens: chunk.bytes().map(Token::from).collect(),
            count,
        })
        .collect();
    let mut pairs: FxHashMap<Pair, PairEntry> = FxHashMap::default();
    for (index, word) in words.iter().enumerate() {
        for pair in word.tokens.windows(2) {
            let entry = pairs.entry((pair[0], pair[1])).or_default();
            entry.count += word.count;
            if entry.words.last() != Some(&(index as u32)) {
                entry.words.push(index as u32);
            }
        }
    }

    // Once a pair exists, its count can only fall: a merge makes new neighbours only for its own
    // new token. So an entry of the heap is an upper bound, corrected when it comes to the top.
    let mut heap: BinaryHeap<(u64, Reverse<Pair>)> = pairs
        .iter()
        .map(|(&pair, entry)| (entry.count, Reverse(pair)))
        .collect();
    let mut merges = Vec::new();
    while merges.len() < n_merges {
        let Some((claimed, Reverse(pair))) = heap.pop() else {
            break;
        };
        let entry = pairs.get_mut(&pair).expect("every pair in the heap");
        if entry.count != claimed {
            if entry.count > 0 {
                heap.push((entry.count, Reverse(pair)));
            } else {
                pairs.remove(&pair);
            }
            continue;
        }
        let token = (BYTES + merges.len()) as Token;
        merges.push(pair);
        let mut holders = std::mem::take(&mut entry.words);
        // A later merge of a run ("aaaa") may list a word again, and not next to its first entry.
        holders.sort_unstable();
        holders.dedup();
        let mut gained: FxHashMap<Pair, PairEntry> = FxHashMap::default();
        for index in holders {
            let word = &mut words[index as usize];
            let n = word.count;
            merge_word(&mut word.tokens, pair, token, |neighbours, change| {
                if neighbours.0 == token || neighbours.1 == token {
                    let entry = gained.entry(neighbours).or_default();
                    match change {
                        Change::Gone => entry.count -= n,
                        Change::Made => {
                            entry.count += n;
                            if entry.words.last() != Some(&index) {
                                entry.words.push(index);
                            }
                        }
                    }
                } else if let Some(entry) = pairs.get_mut(&neighbours) {
                    entry.count -= n;
                }
            });
        }
        pairs.remove(&pair);
        for (pair, entry) in gained {
            if entry.count > 0 {
                heap.push((entry.count, Reverse(pair)));
                pairs.insert(pair, entry);
            }
        }
        progress(merges.len())?;
    }
    Ok(merges)
}

enum Change {
    Gone,
    Made,
}

/// Replaces each `pair` in `tokens` by `merged`, left to right and without overlaps, and reports
/// each pair of neighbours that goes or comes.
fn merge_word(
    tokens: &mut Vec<Token>,
    pair: Pair,
    merged: Token,
    mut report: impl FnMut(Pair, Change),
) {
    let (mut read, mut write) = (0, 0);
    while read < tokens.len() {
        if read + 1 < tokens.len() && (tokens[read], tokens[read + 1]) == pair {
            report(pair, Change::Gone);
            if write > 0 {
                let left = tokens[write - 1];
                report((left, pair.0), Change::Gone);
                report((left, merged), Change::Made);
            }
            if let Some(&right) = tokens.get(read + 2) {
                report((pair.1, right), Change::Gone);
                // If `right` is merged next, this one goes again and (merged, merged) comes.
                report((merged, right), Change::Made);
            }
            tokens[write] = merged;
            read += 2;
        } else {
            tokens[write] = tokens[read];
            read += 1;
        }
        write += 1;
    }
    tokens.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn counts(words: &[(&str, u64)]) -> ChunkCounts {
        ChunkCounts(words.iter().map(|&(w, n)| (w.into(), n)).collect())
    }

    fn fast(words: &[(&str, u64)], n_merges: usize) -> Vec<Pair> {
        train(counts(words), n_merges, |_| Ok::<_, Infallible>(())).unwrap()
    }

    /// The definition, word for word: count every pair, merge the best, start again.
    fn slow(words: &[(&str, u64)], n_merges: usize) -> Vec<Pair> {
        let mut words: Vec<(Vec<Token>, u64)> = words
            .iter()
            .map(|&(w, n)| (w.bytes().map(Token::from).collect(), n))
            .collect();
        let mut merges = Vec::new();
        while merges.len() < n_merges {
            let mut pairs: FxHashMap<Pair, u64> = FxHashMap::default();
            for (tokens, n) in &words {
                for pair in tokens.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += n;
                }
            }
            let Some((&pair, _)) = pairs.iter().max_by_key(|(&pair, &n)| (n, Reverse(pair))) else {
                break;
            };
            let token = (BYTES + merges.len()) as Token;
            merges.push(pair);
            for (tokens, _) in &mut words {
                let mut i = 0;
                while i + 1 < tokens.len() {
                    if (tokens[i], tokens[i + 1]) == pair {
                        tokens.splice(i..i + 2, [token]);
                    }
                    i += 1;
                }
            }
        }
        merges
    }

    #[test]
    fn worked_example() {
        let merges = fast(&[("aab", 2), ("ab", 1)], 10);
        assert_eq!(merges, [(97, 98), (97, 256)]);
    }

    #[test]
    fn ties_go_to_the_smallest_pair() {
        assert_eq!(fast(&[("dc", 1), ("ba", 1), ("bc", 1)], 1), [(98, 97)]);
    }

    #[test]
    fn runs_merge_from_the_left() {
        assert_eq!(fast(&[("aaaaa", 1)], 9), slow(&[("aaaaa", 1)], 9));
    }

    #[test]
    fn counts_do_not_wrap() {
        let big = u64::from(u32::MAX) * 4;
        assert_eq!(fast(&[("ab", big), ("cd", big + 1)], 1), [(99, 100)]);
    }

    #[test]
    fn an_error_from_progress_stops_training() {
        let stop = |n| if n == 2 { Err("stopped") } else { Ok(()) };
        assert_eq!(train(counts(&[("abcdef", 1)]), 9, stop), Err("stopped"));
    }

    #[test]
    fn equals_the_definition_on_random_words() {
        let mut state = 1u64;
        let mut random = move |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % n
        };
        for case in 0..500 {
            let letters = 1 + random(4);
            let words: Vec<(String, u64)> = (0..1 + random(12))
                .map(|_| {
                    let length = 1 + random(20);
                    let word = (0..length).map(|_| (b'a' + random(letters) as u8) as char);
                    (word.collect(), 1 + random(3))
                })
                .collect::<std::collections::BTreeMap<_, _>>()
                .into_iter()
                .collect();
            let words: Vec<(&str, u64)> = words.iter().map(|(w, n)| (w.as_str(), *n)).collect();
            assert_eq!(fast(&words, 40), slow(&words, 40), "case {case}: {words:?}");
        }
    }
}
