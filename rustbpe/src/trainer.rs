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
//! **The way.** Taken literally that reads the whole corpus for every merge. Here it goes
//! through four rooms, each with a page of its own:
//!
//! 1. [`splitter`](crate::splitter): text → chunks;
//! 2. [`arena`](crate::arena): chunks → distinct words with counts, one character a unit, end to end;
//! 3. [`type_phase`](crate::type_phase): the first merges, made on the alphabet;
//! 4. [`merge_phase`](crate::merge_phase): the other merges, made on the words, by lists of places.

use rayon::prelude::*;

use crate::arena::Words;
use crate::merge_phase;
use crate::progress::{Progress, Stopped};
use crate::slots::{Slot, Slots};
use crate::type_phase;

pub type Token = u32;
/// Two neighbouring tokens, left and right.
pub type Pair = (Token, Token);

/// The bytes: tokens 0 to 255, there before any merge.
pub const BYTES: usize = 256;

/// Learns the merges for a vocabulary of `vocab_size` tokens, fewer if nothing is left to merge.
/// Merge `i` makes token `BYTES + i`.
pub fn train(
    words: Vec<Words>,
    vocab_size: usize,
    progress: &Progress,
) -> Result<Vec<Pair>, Stopped> {
    train_widening_at(<u16 as Slot>::MAX, words, vocab_size, progress)
}

/// The slots hold 16 bits until there are `narrow` tokens, and 32 from then on: a large vocabulary
/// needs wide slots only when most of them are merged away.
#[doc(hidden)]
pub fn train_widening_at(
    narrow: usize,
    words: Vec<Words>,
    vocab_size: usize,
    progress: &Progress,
) -> Result<Vec<Pair>, Stopped> {
    let mut merges = Vec::new();
    let narrow = narrow.min(vocab_size);
    let spellings = type_phase::run(&words, narrow - BYTES, &mut merges);
    progress.check(merges.len())?;
    let mut shares: Vec<Slots<u16>> = words
        .into_par_iter()
        .map(|words| Slots::new(words, &spellings, narrow))
        .collect();
    merge_phase::run(&mut shares, narrow, &mut merges, progress)?;
    if BYTES + merges.len() == narrow && narrow < vocab_size {
        let mut shares: Vec<Slots<u32>> = shares
            .into_par_iter()
            .map(|share| share.widen(narrow, vocab_size))
            .collect();
        merge_phase::run(&mut shares, vocab_size, &mut merges, progress)?;
    }
    Ok(merges)
}
