//! Texts → merges.
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
//! **The way.** Taken literally that reads the whole corpus for every merge. Here the corpus is read
//! a few times only: a [`census`] notes the places of the frequent pairs, and the
//! [merges](crate::merge) go from place to place, as long as one of these pairs is the best. Then
//! the merged tokens are moved together, and the next census looks for rarer pairs.

use crate::arena::Arena;
use crate::census;
use crate::merge::Phase;
use crate::progress::{Progress, Stopped};
use crate::token::{Pair, Token, BYTES};
use crate::words::Words;

/// Learns the merges for a vocabulary of `vocab_size` tokens, fewer if nothing is left to merge.
/// Merge `i` makes token `BYTES + i`.
pub fn train(words: Words, vocab_size: usize, progress: &Progress) -> Result<Vec<Pair>, Stopped> {
    let mut arena = Arena::new(&words, vocab_size);
    drop(words);
    let mut merges = Vec::new();
    run(&mut arena, vocab_size, &mut merges, progress)?;
    Ok(merges)
}

fn run(
    arena: &mut Arena,
    vocab_size: usize,
    merges: &mut Vec<Pair>,
    progress: &Progress,
) -> Result<(), Stopped> {
    while BYTES + merges.len() < vocab_size {
        let census = census::take(arena, vocab_size - BYTES - merges.len());
        if census.pairs.is_empty() {
            break;
        }
        let mut phase = Phase::new(arena, census);
        while BYTES + merges.len() < vocab_size {
            progress.check(merges.len())?;
            let Some(pair) = phase.best_pair() else { break };
            phase.merge(pair, (BYTES + merges.len()) as Token);
            merges.push(pair);
        }
        arena.compact();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Region;
    use crate::random::Random;
    use std::cmp::Reverse;
    use std::collections::HashMap;

    /// Many tokens from the start, so that a short text has tens of thousands of rare pairs: too
    /// many for one phase.
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
                        random.below(range) as Token
                    };
                    (0..length / 20).map(token).collect()
                })
                .collect();
            let border = (TOKENS + MERGES) as Token;
            let mut slots = vec![border];
            for word in &words {
                slots.extend(word);
                slots.push(border);
            }
            let end = slots.len();
            let mut arena = Arena {
                slots,
                regions: vec![Region { end, weight: 1 }],
                widths: vec![1; TOKENS + MERGES + 1],
                border,
            };
            let mut merges = vec![(0, 0); TOKENS - BYTES];
            let progress = Progress::default();
            run(&mut arena, TOKENS + MERGES, &mut merges, &progress).unwrap();

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
