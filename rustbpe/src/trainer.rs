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
use crate::type_phase::{self, Spellings};

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
    let narrow = vocab_size <= <u16 as Slot>::MAX;
    train_with_slots(words, vocab_size, progress, narrow)
}

#[doc(hidden)]
pub fn train_with_slots(
    words: Vec<Words>,
    vocab_size: usize,
    progress: &Progress,
    narrow: bool,
) -> Result<Vec<Pair>, Stopped> {
    let mut merges = Vec::new();
    let spellings = type_phase::run(&words, vocab_size - BYTES, &mut merges);
    progress.check(merges.len())?;
    if narrow {
        on_slots::<u16>(words, &spellings, vocab_size, &mut merges, progress)?;
    } else {
        on_slots::<u32>(words, &spellings, vocab_size, &mut merges, progress)?;
    }
    Ok(merges)
}

fn on_slots<S: Slot>(
    words: Vec<Words>,
    spellings: &Spellings,
    vocab_size: usize,
    merges: &mut Vec<Pair>,
    progress: &Progress,
) -> Result<(), Stopped> {
    let mut shares: Vec<Slots<S>> = words
        .into_par_iter()
        .map(|words| Slots::new(words, spellings, vocab_size))
        .collect();
    merge_phase::run(&mut shares, vocab_size, merges, progress)
}
