//! The beginning of a phase: which pairs are frequent, and where they are.
//!
//! Counts go into *buckets*. With few tokens every pair has a bucket of its own in a square table.
//! With many, several pairs share a bucket by their hash; its count is an upper bound for each of
//! them, which rules most pairs out, and the few that are left are counted one by one. Either way
//! memory has a limit that does not depend on the number of different pairs.

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;

use crate::slots::{Slot, Slots};
use crate::trainer::{Pair, Token};

/// How often something was met: by weight, and in how many places of the arena.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub weight: u64,
    pub places: u32,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.weight += other.weight;
        self.places += other.places;
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        let mut sum = Self::default();
        tallies.for_each(|tally| sum += tally);
        sum
    }
}

/// The pairs that occur at least `threshold` times.
pub(crate) struct Census {
    pub threshold: u64,
    pub pairs: Vec<(Pair, Tally)>,
    /// For each share, the places of the pairs.
    pub lists: Vec<Lists>,
}

/// The places of pairs in one share, list after list.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    places: Vec<u32>,
    ends: Vec<u32>,
}

impl Lists {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn of(&self, pair: usize) -> &[u32] {
        let start = if pair == 0 { 0 } else { self.ends[pair - 1] };
        &self.places[start as usize..self.ends[pair] as usize]
    }

    /// `lengths` has the number of places of each pair; `find` says which pair it is, or
    /// `lengths.len()` for one without a list.
    fn fill<S: Slot>(
        share: &Slots<S>,
        n_tokens: usize,
        lengths: &[u32],
        find: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let mut end = 0;
        let mut next: Vec<u32> = Vec::with_capacity(lengths.len() + 1);
        for length in lengths {
            next.push(end);
            end += length;
        }
        // Places of pairs without a list are written too, always to the same slot: a branch here
        // could not be foreseen.
        next.push(end);
        let none = lengths.len();
        let mut places = vec![0; end as usize + 1];
        share.for_each_pair(n_tokens, |at, left, right, _| {
            let pair = find(left, right);
            let to = next[pair];
            places[to as usize] = at as u32;
            next[pair] = to + u32::from(pair != none);
        });
        next.truncate(none);
        places.truncate(end as usize);
        Self { places, ends: next }
    }
}

/// Which bucket a pair belongs to.
#[derive(Clone, Copy)]
struct Bucketing {
    /// Tokens and the border.
    side: usize,
    exact: bool,
    /// Of the hash.
    bits: u32,
}

impl Bucketing {
    /// A table that has room for as many pairs as there are slots, within limits.
    fn new(n_tokens: usize, n_slots: usize) -> Self {
        let side = n_tokens + 1;
        let bits = n_slots.max(1).ilog2().clamp(14, 21);
        let exact = side * side <= 1 << bits;
        Self { side, exact, bits }
    }

    fn len(self) -> usize {
        if self.exact {
            self.side * self.side
        } else {
            1 << self.bits
        }
    }

    #[inline(always)]
    fn of(self, left: usize, right: usize) -> usize {
        if self.exact {
            left * self.side + right
        } else {
            let key = (left as u64) << 32 | right as u64;
            (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - self.bits)) as usize
        }
    }

    #[inline(always)]
    fn is_pair(self, left: usize, right: usize) -> bool {
        left + 1 != self.side && right + 1 != self.side
    }

    fn count<S: Slot>(self, share: &Slots<S>) -> Buckets {
        let mut buckets = Buckets {
            places: vec![0; self.len()],
            extra: vec![0; self.len()],
        };
        share.for_each_pair(self.side - 1, |_, left, right, weight| {
            if self.exact || self.is_pair(left, right) {
                let bucket = self.of(left, right);
                buckets.places[bucket] += 1;
                if weight > 1 {
                    buckets.extra[bucket] += weight - 1;
                }
            }
        });
        if self.exact {
            let border = self.side - 1;
            for token in 0..self.side {
                for bucket in [self.of(token, border), self.of(border, token)] {
                    buckets.places[bucket] = 0;
                    buckets.extra[bucket] = 0;
                }
            }
        }
        buckets
    }
}

/// Counts of one share by bucket.
struct Buckets {
    places: Vec<u32>,
    /// What the weights add to the places; most weights are 1.
    extra: Vec<u64>,
}

impl Buckets {
    fn tally(&self, bucket: usize) -> Tally {
        let places = self.places[bucket];
        Tally {
            weight: u64::from(places) + self.extra[bucket],
            places,
        }
    }
}

/// Counts all pairs and finds the places of the frequent ones: roughly enough pairs for `n_merges`
/// more merges, and at most `max_places` places. All counts are less than `below`. None: there are
/// no pairs.
pub(crate) fn take<S: Slot>(
    shares: &[Slots<S>],
    n_tokens: usize,
    n_merges: usize,
    max_places: usize,
    below: u64,
) -> Option<Census> {
    let n_slots = shares.iter().map(|share| share.slots.len()).sum();
    let bucketing = Bucketing::new(n_tokens, n_slots);
    let counted: Vec<Buckets> = shares.par_iter().map(|s| bucketing.count(s)).collect();
    let total = |bucket| counted.iter().map(|counted| counted.tally(bucket)).sum();
    let totals: Vec<Tally> = (0..bucketing.len()).map(total).collect();
    let mut threshold = threshold(&totals, n_merges, max_places)?;
    if bucketing.exact {
        return Some(by_table(shares, bucketing, &counted, &totals, threshold));
    }
    drop(counted);
    threshold = threshold.min((below - 1).max(1));
    loop {
        let census = by_hash(shares, bucketing, &totals, threshold);
        // The counts of buckets promised more pairs than there are.
        if threshold > 1 && census.pairs.len() < n_merges.min(FEW_PAIRS) {
            threshold /= 2;
        } else {
            return Some(census);
        }
    }
}

fn by_table<S: Slot>(
    shares: &[Slots<S>],
    bucketing: Bucketing,
    counted: &[Buckets],
    totals: &[Tally],
    threshold: u64,
) -> Census {
    let frequent: Vec<usize> = (0..totals.len())
        .filter(|&bucket| totals[bucket].weight >= threshold)
        .collect();
    let mut pair_of = vec![frequent.len() as u32; totals.len()];
    for (pair, &bucket) in frequent.iter().enumerate() {
        pair_of[bucket] = pair as u32;
    }
    let pairs = frequent.iter().map(|&bucket| {
        let pair = (bucket / bucketing.side, bucket % bucketing.side);
        ((pair.0 as Token, pair.1 as Token), totals[bucket])
    });
    let lists = shares.par_iter().zip(counted).map(|(share, counted)| {
        let lengths: Vec<u32> = frequent.iter().map(|&b| counted.places[b]).collect();
        Lists::fill(share, bucketing.side - 1, &lengths, |left, right| {
            pair_of[bucketing.of(left, right)] as usize
        })
    });
    Census {
        threshold,
        pairs: pairs.collect(),
        lists: lists.collect(),
    }
}

fn by_hash<S: Slot>(
    shares: &[Slots<S>],
    bucketing: Bucketing,
    totals: &[Tally],
    threshold: u64,
) -> Census {
    let n_tokens = bucketing.side - 1;
    // One bit for each bucket: small enough for the second-level cache.
    let mut candidates = vec![0u64; totals.len() / 64];
    for (bucket, total) in totals.iter().enumerate() {
        candidates[bucket / 64] |= u64::from(total.weight >= threshold) << (bucket % 64);
    }
    let is_candidate = |left, right| {
        let bucket = bucketing.of(left, right);
        candidates[bucket / 64] >> (bucket % 64) & 1 == 1 && bucketing.is_pair(left, right)
    };
    let key = |left: usize, right: usize| (left as Token, right as Token);
    let count = |share: &Slots<S>| {
        let mut counts: FxHashMap<Pair, Tally> = FxHashMap::default();
        share.for_each_pair(n_tokens, |_, left, right, weight| {
            if is_candidate(left, right) {
                *counts.entry(key(left, right)).or_default() += Tally { weight, places: 1 };
            }
        });
        counts
    };
    let counted: Vec<FxHashMap<Pair, Tally>> = shares.par_iter().map(count).collect();
    let mut sums: FxHashMap<Pair, Tally> = FxHashMap::default();
    for (&pair, &tally) in counted.iter().flatten() {
        *sums.entry(pair).or_default() += tally;
    }
    let pairs: Vec<(Pair, Tally)> = sums
        .into_iter()
        .filter(|(_, sum)| sum.weight >= threshold)
        .collect();
    let number: FxHashMap<Pair, usize> = (0..)
        .zip(&pairs)
        .map(|(number, &(pair, _))| (pair, number))
        .collect();
    let lists = shares.par_iter().zip(counted).map(|(share, counted)| {
        let length = |(pair, _): &(Pair, Tally)| counted.get(pair).map_or(0, |c| c.places);
        let lengths: Vec<u32> = pairs.iter().map(length).collect();
        drop(counted);
        Lists::fill(share, n_tokens, &lengths, |left, right| {
            let number = || number.get(&key(left, right)).copied();
            let found = is_candidate(left, right).then(number).flatten();
            found.unwrap_or(pairs.len())
        })
    });
    let lists = lists.collect();
    Census {
        threshold,
        pairs,
        lists,
    }
}

/// Pairs to track for each merge to make. Fewer, and another census is needed soon; more, and
/// there are lists that nobody reads.
pub(crate) const PAIRS_PER_MERGE: usize = 3;

/// So many pairs are always welcome; few in tests, whose short texts shall meet the limit.
pub(crate) const MIN_PAIRS: usize = if cfg!(test) { 16 } else { 4096 };
/// Not worth a phase, unless there are no more.
const FEW_PAIRS: usize = 256;

/// The count from which on pairs are tracked. None if there is no pair at all.
fn threshold(totals: &[Tally], n_merges: usize, max_places: usize) -> Option<u64> {
    let mut totals: Vec<Tally> = totals.iter().copied().filter(|t| t.places > 0).collect();
    let highest = totals.iter().map(|total| total.weight).max()?;
    // With all pairs there are, those that merges make would all be tracked as well.
    let wanted = (n_merges * PAIRS_PER_MERGE).min((totals.len() / 2).max(MIN_PAIRS));
    if wanted < totals.len() {
        totals.select_nth_unstable_by_key(wanted, |total| Reverse(total.weight));
        totals.truncate(wanted + 1);
    }
    totals.sort_unstable_by_key(|total| Reverse(total.weight));
    let mut places = 0;
    let within = totals.iter().take_while(|total| {
        places += total.places as usize;
        places <= max_places
    });
    let lowest = within.last().map_or(highest, |total| total.weight);
    Some(lowest.min(highest / 2).max(1))
}
