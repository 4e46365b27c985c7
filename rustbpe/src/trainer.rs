//! Words → merges.
//!
//! **The rule.** Split the texts into chunks; write each chunk in bytes, tokens 0 to 255. Then, again
//! and again: count all pairs of neighbouring tokens in all chunks, and join the most frequent pair
//! to a new token wherever it stands, from left to right. **Ties**: among pairs that occur equally
//! often the numerically smallest `(left, right)` wins. So the merges depend on the chunks alone,
//! not on the order of the texts, on buffers or on threads.
//!
//! Example, the chunk `aab` twice and `ab` once:
//!
//! | chunks | counts | merge |
//! | --- | --- | --- |
//! | `a a b` ×2, `a b` ×1 | (a,b) 3, (a,a) 2 | (a,b) → 256 |
//! | `a 256` ×2, `256` ×1 | (a,256) 2 | (a,256) → 257 |
//! | `257` ×2, `256` ×1 | none | |
//!
//! **The way.** Taken literally that reads the whole corpus for every merge. Here it is read a few
//! times only: a [`census`] notes the places of the frequent pairs, and the merges of a
//! [phase](crate::phase) go from place to place, as long as one of these pairs is the best. Then
//! the merged tokens are moved together, and the next census looks for rarer pairs.

use rayon::prelude::*;

use crate::arena::Arena;
use crate::census;
use crate::phase::Phase;
use crate::progress::{Progress, Stopped};
use crate::token::{Pair, BYTES};
use crate::words::Words;

/// So many places are no matter.
const MIN_PLACES: usize = 1 << 21;

/// Learns the merges for a vocabulary of `vocab_size` tokens, fewer if nothing is left to merge.
/// Merge `i` makes token `BYTES + i`. Each thread works on a share of the words.
pub fn train(
    words: Vec<Words>,
    vocab_size: usize,
    progress: &Progress,
) -> Result<Vec<Pair>, Stopped> {
    let mut shares: Vec<Arena> = words.into_par_iter().map(Arena::new).collect();
    let mut merges = Vec::new();
    run(&mut shares, vocab_size, &mut merges, progress)?;
    Ok(merges)
}

fn run(
    shares: &mut [Arena],
    vocab_size: usize,
    merges: &mut Vec<Pair>,
    progress: &Progress,
) -> Result<(), Stopped> {
    let count_slots = |shares: &[Arena]| shares.iter().map(|share| share.slots.len()).sum();
    let slots_at_first: usize = count_slots(shares);
    let mut below = u64::MAX;
    while BYTES + merges.len() < vocab_size {
        // Slots and places together take no more memory than in the first phase.
        let max_places = slots_at_first / 2 + (slots_at_first - count_slots(shares));
        let max_places = max_places.max(MIN_PLACES);
        let n_tokens = BYTES + merges.len();
        let n_merges = vocab_size - n_tokens;
        let census = census::take(shares, n_tokens, n_merges, max_places, below);
        let Some(census) = census else { break };
        let phase = Phase::new(shares, census, vocab_size);
        below = phase.run(vocab_size - BYTES, merges, progress)?;
        shares.par_iter_mut().for_each(Arena::compact);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Region;
    use crate::random::Random;
    use crate::token::{Token, BORDER};
    use std::cmp::Reverse;
    use std::collections::HashMap;

    /// Many tokens from the start, so that a short text has tens of thousands of rare pairs: the
    /// hashed census then promises pairs that are not there, and a phase meets more pairs than it
    /// wants to track.
    #[test]
    fn many_rare_pairs() {
        const TOKENS: usize = 3000;
        const MERGES: usize = 60;
        let mut random = Random::new(5);
        for (length, frequent) in [(40_000, TOKENS), (60_000, 400), (60_000, 60)] {
            let mut words: Vec<Vec<Token>> = (0..20)
                .map(|_| {
                    let token = |_| {
                        let range = [TOKENS, TOKENS, frequent][random.below(3)];
                        let token = random.below(range) as Token;
                        token + Token::from(token == Token::from(BORDER))
                    };
                    (0..length / 20).map(token).collect()
                })
                .collect();

            let mut slots = vec![Token::from(BORDER)];
            for word in &words {
                slots.extend(word);
                slots.push(Token::from(BORDER));
            }
            let end = slots.len() as u32;
            let regions = vec![Region { end, weight: 1 }];
            let mut shares = [Arena { slots, regions }];
            let mut merges = vec![(0, 0); TOKENS - BYTES];
            let progress = Progress::default();
            run(&mut shares, TOKENS + MERGES, &mut merges, &progress).unwrap();

            for (token, &merge) in (TOKENS as Token..).zip(&merges[TOKENS - BYTES..]) {
                let mut counts: HashMap<Pair, u32> = HashMap::new();
                for pair in words.iter().flat_map(|word| word.windows(2)) {
                    *counts.entry((pair[0], pair[1])).or_default() += 1;
                }
                let best = counts.iter().max_by_key(|&(&pair, &n)| (n, Reverse(pair)));
                assert_eq!(Some(&merge), best.map(|(pair, _)| pair), "token {token}");
                for word in &mut words {
                    let mut at = 0;
                    while at + 1 < word.len() {
                        if (word[at], word[at + 1]) == merge {
                            word.splice(at..at + 2, [token]);
                        }
                        at += 1;
                    }
                }
            }
            assert_eq!(merges.len(), TOKENS + MERGES - BYTES);
        }
    }
}
