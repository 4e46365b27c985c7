//! One phase of training: the merges of the pairs that a census found frequent.
//!
//! **The threshold.** Lists of places for all pairs would take several times the memory of the text,
//! and most pairs are never merged. So pairs that occur less than `threshold` times are not tracked.
//! When no other is left, the phase is over. The threshold decides about time and memory, never
//! about the merges.
//!
//! **Batches.** Each thread works on its own [`Share`], and all meet after each batch of merges, not
//! after each merge. A batch takes the best pairs in order as long as none shares a token with an
//! earlier one in a way that could change its count: its left token is no earlier right token and
//! its right token no earlier left token. And it ends after a pair of equal tokens (a, a) → t. Why no
//! new pair can belong between the pairs of a batch: (x, t) occurs at most as often as (x, a), which
//! is no better than the next pair of the batch, or it would have ended it. The same goes for (t, y).
//! Only (t, t) from (a, a) has no such bound.

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ablation::without;
use crate::arena::Arena;
use crate::census::{Census, MIN_PAIRS, PAIRS_PER_MERGE};
use crate::progress::{Progress, Stopped};
use crate::share::{Merge, Share, Tallies};
use crate::token::{Pair, Token, BORDER, BYTES};

/// Less work than this (in places) is done by one thread.
const WORTH_SHARING: usize = 4096;
/// So many merges may be in a batch.
const MAX_BATCH: usize = 256;

/// What all threads have in common.
#[derive(Debug)]
pub struct Phase<'a> {
    shares: Vec<Share<'a>>,
    threshold: u64,
    /// The tracked pairs, less those of the batch in hand.
    counts: FxHashMap<Pair, u64>,
    /// The same pairs. A count was right when pushed, and may have fallen since.
    heap: BinaryHeap<(u64, Reverse<Pair>)>,
    /// How many pairs the last rise of the threshold could not part.
    equals: usize,
    /// By token, in slots.
    widths: Vec<u32>,
    left: Tallies,
    right: Tallies,
}

impl<'a> Phase<'a> {
    /// Tracks the pairs of a census.
    pub fn new(arenas: &'a mut [Arena], census: Census, vocab_size: usize) -> Self {
        let counts = census.counts.iter();
        let shares = arenas.iter_mut().zip(census.places);
        Self {
            shares: shares
                .map(|(arena, places)| Share::new(arena, places, vocab_size))
                .collect(),
            threshold: census.threshold,
            heap: counts
                .map(|(&pair, &count)| (count, Reverse(pair)))
                .collect(),
            counts: census.counts,
            equals: 0,
            widths: vec![1; vocab_size],
            left: Tallies::new(vocab_size),
            right: Tallies::new(vocab_size),
        }
    }

    /// Makes merges until there are `n_merges`, or no pair is left that is frequent enough. Returns
    /// the threshold, which no count reaches any more.
    pub fn run(
        mut self,
        n_merges: usize,
        merges: &mut Vec<Pair>,
        progress: &Progress,
    ) -> Result<u64, Stopped> {
        loop {
            progress.check(merges.len())?;
            let batch = self.next_batch(n_merges, merges);
            if batch.is_empty() {
                return Ok(self.threshold);
            }
            let works = self.shares.iter().map(|share| share.work(&batch));
            let is_shared = works.sum::<usize>() >= WORTH_SHARING;
            for_each(is_shared, &mut self.shares, |share| {
                share.merge(&batch, &self.widths)
            });
            for (number, merge) in batch.iter().enumerate() {
                self.update(merge, number);
            }
            for_each(is_shared, &mut self.shares, |share| {
                share.note(&batch, &self.widths)
            });
            let wanted = MIN_PAIRS + (n_merges - merges.len()) * PAIRS_PER_MERGE;
            if self.heap.len() > 3 * wanted.max(self.equals) {
                self.raise_threshold(wanted);
            }
        }
    }

    /// The best pairs, in order, that can be merged before looking again.
    fn next_batch(&mut self, n_merges: usize, merges: &mut Vec<Pair>) -> Vec<Merge> {
        let mut batch = Vec::new();
        let mut lefts: FxHashSet<Token> = FxHashSet::default();
        let mut rights: FxHashSet<Token> = FxHashSet::default();
        let max = if without("batches") { 1 } else { MAX_BATCH };
        while merges.len() < n_merges && batch.len() < max {
            let Some((count, Reverse(pair))) = self.heap.pop() else {
                break;
            };
            let now = self.counts[&pair];
            if now < self.threshold {
                self.forget(pair);
                continue;
            }
            if now < count {
                self.heap.push((now, Reverse(pair)));
                continue;
            }
            let (a, b) = pair;
            if lefts.contains(&b) || rights.contains(&a) {
                self.heap.push((count, Reverse(pair)));
                break;
            }
            lefts.insert(a);
            rights.insert(b);
            self.counts.remove(&pair);
            let token = (BYTES + merges.len()) as Token;
            self.widths[token as usize] = self.widths[a as usize] + self.widths[b as usize];
            merges.push(pair);
            batch.push(Merge { pair, token });
            if a == b {
                break;
            }
        }
        batch
    }

    fn forget(&mut self, pair: Pair) {
        self.counts.remove(&pair);
        for share in &mut self.shares {
            share.forget(pair);
        }
    }

    /// Brings the counts up to date after merge `number` of the batch, and tracks its new pairs.
    fn update(&mut self, merge: &Merge, number: usize) {
        for share in &self.shares {
            for &(token, tally) in &share.found[number].left {
                self.left.add(token, tally);
            }
            for &(token, tally) in &share.found[number].right {
                self.right.add(token, tally);
            }
        }
        let ((a, b), token) = (merge.pair, merge.token);
        // A right neighbour `a` that then merged itself is no neighbour any more.
        let merged_too = self.left.weight(token);
        let gained = |y, weight| if y == a { weight - merged_too } else { weight };
        let threshold = self.threshold;
        let is_tracked = |token, count| token != Token::from(BORDER) && count >= threshold;
        for share in &mut self.shares {
            let found = &mut share.found[number];
            let (left, right) = (&self.left, &self.right);
            found.left.retain(|&(x, _)| is_tracked(x, left.weight(x)));
            found
                .right
                .retain(|&(y, _)| is_tracked(y, gained(y, right.weight(y))));
        }
        for (x, tally) in self.left.take() {
            self.lose((x, a), tally.weight);
            if is_tracked(x, tally.weight) {
                self.track((x, token), tally.weight);
            }
        }
        for (y, tally) in self.right.take() {
            self.lose((b, y), tally.weight);
            let count = gained(y, tally.weight);
            if is_tracked(y, count) {
                self.track((token, y), count);
            }
        }
    }

    fn lose(&mut self, pair: Pair, n: u64) {
        if let Some(count) = self.counts.get_mut(&pair) {
            *count -= n;
        }
    }

    fn track(&mut self, pair: Pair, count: u64) {
        self.counts.insert(pair, count);
        self.heap.push((count, Reverse(pair)));
    }

    /// Gives up the rarest pairs, now that there are so many more frequent ones: about `wanted` stay.
    fn raise_threshold(&mut self, wanted: usize) {
        let mut counts: Vec<u64> = self.heap.iter().map(|entry| entry.0).collect();
        let (above, &mut lowest, _) =
            counts.select_nth_unstable_by_key(wanted, |&count| Reverse(count));
        // Pairs of equal count stay or go together.
        let higher = above.iter().filter(|&&count| count > lowest).count();
        let raise = u64::from(higher >= wanted / 2);
        self.threshold = self.threshold.max(lowest + raise);
        for (_, Reverse(pair)) in std::mem::take(&mut self.heap) {
            let count = self.counts[&pair];
            if count >= self.threshold {
                self.heap.push((count, Reverse(pair)));
            } else {
                self.forget(pair);
            }
        }
        self.equals = self.heap.len();
    }
}

fn for_each<'a>(
    is_shared: bool,
    shares: &mut [Share<'a>],
    work: impl Fn(&mut Share<'a>) + Sync + Send,
) {
    if is_shared {
        shares.par_iter_mut().for_each(work);
    } else {
        shares.iter_mut().for_each(work);
    }
}
