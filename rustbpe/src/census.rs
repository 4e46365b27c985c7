//! Counts all pairs, and notes where the frequent ones are.
//!
//! The text is read twice: once for the counts, and once for the places of the pairs that are
//! frequent enough, whose number is then known.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;

use crate::ablation::without;
use crate::arena::Arena;
use crate::token::Pair;

/// How often something was met: by the weights, and in how many places of the arena.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub weight: u64,
    pub places: u32,
}

impl Sum {
    #[inline(always)]
    pub fn add(&mut self, weight: u64) {
        self.weight += weight;
        self.places += 1;
    }
}

/// A pair's count and its places in ascending order.
#[derive(Debug)]
pub struct Tracked {
    pub count: u64,
    pub places: Vec<u32>,
}

/// The pairs that occur at least `threshold` times.
#[derive(Debug)]
pub struct Census {
    pub threshold: u64,
    pub pairs: FxHashMap<Pair, Tracked>,
}

/// Finds enough pairs for a good part of the next `n_merges` merges.
pub fn take(arena: &Arena, n_merges: usize) -> Census {
    let mut sums: FxHashMap<Pair, Sum> = FxHashMap::default();
    arena.for_each_pair(|_, pair, weight| sums.entry(pair).or_default().add(weight));
    let threshold = threshold(sums.values().map(|sum| sum.weight).collect(), n_merges);
    sums.retain(|_, sum| sum.weight >= threshold);
    let with_room = sums.into_iter().map(|(pair, sum)| {
        let places = Vec::with_capacity(sum.places as usize);
        let count = sum.weight;
        (pair, Tracked { count, places })
    });
    let mut pairs: FxHashMap<Pair, Tracked> = with_room.collect();
    arena.for_each_pair(|place, pair, _| {
        if let Some(tracked) = pairs.get_mut(&pair) {
            tracked.places.push(place);
        }
    });
    Census { threshold, pairs }
}

/// A pair that is so many times rarer than the most frequent one is not tracked.
const STEP: u64 = 128;
/// Nor are many more pairs than this for each merge that is still to be made.
const PAIRS_PER_MERGE: usize = 3;

/// The count from which on pairs are tracked. It decides about time and memory, not about merges.
fn threshold(mut counts: Vec<u64>, n_merges: usize) -> u64 {
    if without("threshold") {
        return 1;
    }
    let highest = counts.iter().copied().max().unwrap_or(1);
    let last = n_merges * PAIRS_PER_MERGE;
    if last >= counts.len() {
        return (highest / STEP).max(1);
    }
    let (_, &mut last, _) = counts.select_nth_unstable_by_key(last, |&count| Reverse(count));
    last.max(highest / STEP)
}
