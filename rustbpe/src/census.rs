//! Which pairs are frequent, and where they are.
//!
//! The arena is read twice: for the counts, and for the places of the pairs that are frequent
//! enough to be of interest.
//!
//! Counts go into *buckets*. With few tokens every pair has a bucket of its own in a square table.
//! With many, several pairs share a bucket by their hash; its count is an upper bound for each of
//! them, which rules most pairs out, and the few that are left are counted one by one. Either way
//! memory has a limit that does not depend on the number of different pairs.

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::ops::AddAssign;

use crate::ablation::without;
use crate::arena::Arena;
use crate::token::{is_pair, Pair, Token, BORDER};

/// How often something was met: by weight, and in how many places of the arena.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub weight: u64,
    pub places: u32,
}

impl AddAssign for Tally {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        self.weight += other.weight;
        self.places += other.places;
    }
}

/// For each pair its places in ascending order.
pub type Places = FxHashMap<Pair, Vec<u32>>;

/// The pairs that occur at least `threshold` times.
pub struct Census {
    pub threshold: u64,
    pub counts: FxHashMap<Pair, u64>,
    /// Share by share.
    pub places: Vec<Places>,
}

/// Counts all pairs and finds the places of the frequent ones: roughly enough pairs for `n_merges`
/// more merges, and at most `max_places` places. All counts are less than `below`. None: there are
/// no pairs.
pub fn take(
    shares: &[Arena],
    n_tokens: usize,
    n_merges: usize,
    max_places: usize,
    below: u64,
) -> Option<Census> {
    let n_slots = shares.iter().map(|share| share.slots.len()).sum();
    let buckets = Buckets::new(n_tokens, n_slots);
    let counted: Vec<Counts> = shares
        .par_iter()
        .map(|share| buckets.count(share))
        .collect();
    let totals: Vec<Tally> = (0..buckets.len())
        .map(|bucket| {
            let mut total = Tally::default();
            for counts in &counted {
                total += counts.tally(bucket);
            }
            total
        })
        .collect();
    let mut threshold = threshold(&totals, n_merges, max_places)?;
    if buckets.is_table {
        return Some(by_table(shares, buckets, &counted, &totals, threshold));
    }
    drop(counted);
    threshold = threshold.min((below - 1).max(1));
    loop {
        let census = by_hash(shares, buckets, &totals, threshold);
        // The counts of buckets promised more pairs than there are.
        if threshold > 1 && census.counts.len() < n_merges.min(FEW_PAIRS) {
            threshold /= 2;
        } else {
            return Some(census);
        }
    }
}

/// Which bucket a pair belongs to.
#[derive(Clone, Copy)]
struct Buckets {
    n_tokens: usize,
    /// A bucket for each pair; otherwise by a hash of so many bits.
    is_table: bool,
    bits: u32,
}

impl Buckets {
    /// Room for as many pairs as there are slots, within limits.
    fn new(n_tokens: usize, n_slots: usize) -> Self {
        let bits = n_slots.max(1).ilog2().clamp(14, 21);
        Self {
            n_tokens,
            is_table: n_tokens * n_tokens <= 1 << bits && !without("table"),
            bits,
        }
    }

    fn len(self) -> usize {
        if self.is_table {
            self.n_tokens * self.n_tokens
        } else {
            1 << self.bits
        }
    }

    #[inline(always)]
    fn of(self, left: Token, right: Token) -> usize {
        if self.is_table {
            left as usize * self.n_tokens + right as usize
        } else {
            let pair = u64::from(left) << 32 | u64::from(right);
            (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - self.bits)) as usize
        }
    }

    fn count(self, share: &Arena) -> Counts {
        let mut counts = Counts {
            places: vec![0; self.len()],
            extra: vec![0; self.len()],
        };
        share.for_each_pair(|_, left, right, weight| {
            if self.is_table || is_pair((left, right)) {
                let bucket = self.of(left, right);
                counts.places[bucket] += 1;
                if weight > 1 {
                    counts.extra[bucket] += weight - 1;
                }
            }
        });
        if self.is_table {
            for token in 0..self.n_tokens as Token {
                let border = Token::from(BORDER);
                for bucket in [self.of(token, border), self.of(border, token)] {
                    counts.places[bucket] = 0;
                    counts.extra[bucket] = 0;
                }
            }
        }
        counts
    }
}

/// Counts of one share by bucket.
struct Counts {
    places: Vec<u32>,
    /// What the weights add to the places; most weights are 1.
    extra: Vec<u64>,
}

impl Counts {
    fn tally(&self, bucket: usize) -> Tally {
        let places = self.places[bucket];
        let weight = u64::from(places) + self.extra[bucket];
        Tally { weight, places }
    }
}

fn by_table(
    shares: &[Arena],
    buckets: Buckets,
    counted: &[Counts],
    totals: &[Tally],
    threshold: u64,
) -> Census {
    let frequent: Vec<usize> = (0..totals.len())
        .filter(|&bucket| totals[bucket].weight >= threshold)
        .collect();
    let mut number = vec![frequent.len() as u32; totals.len()];
    for (n, &bucket) in (0..).zip(&frequent) {
        number[bucket] = n;
    }
    let n_tokens = buckets.n_tokens;
    let pair = |&bucket: &usize| ((bucket / n_tokens) as Token, (bucket % n_tokens) as Token);
    let pairs: Vec<Pair> = frequent.iter().map(pair).collect();
    let places = shares.par_iter().zip(counted).map(|(share, counts)| {
        let lengths: Vec<u32> = frequent.iter().map(|&b| counts.places[b]).collect();
        let number = |left, right| number[buckets.of(left, right)] as usize;
        places(share, &pairs, &lengths, number)
    });
    let counts = frequent.iter().map(|&bucket| totals[bucket].weight);
    Census {
        threshold,
        counts: pairs.iter().copied().zip(counts).collect(),
        places: places.collect(),
    }
}

fn by_hash(shares: &[Arena], buckets: Buckets, totals: &[Tally], threshold: u64) -> Census {
    // One bit for each bucket: small enough for the second-level cache.
    let mut candidates = vec![0u64; totals.len() / 64];
    let all = without("buckets");
    for (bucket, total) in totals.iter().enumerate() {
        candidates[bucket / 64] |= u64::from(all || total.weight >= threshold) << (bucket % 64);
    }
    let is_candidate = |left, right| {
        let bucket = buckets.of(left, right);
        candidates[bucket / 64] >> (bucket % 64) & 1 == 1 && is_pair((left, right))
    };
    let count = |share: &Arena| {
        let mut counts: FxHashMap<Pair, Tally> = FxHashMap::default();
        share.for_each_pair(|_, left, right, weight| {
            if is_candidate(left, right) {
                *counts.entry((left, right)).or_default() += Tally { weight, places: 1 };
            }
        });
        counts
    };
    let counted: Vec<FxHashMap<Pair, Tally>> = shares.par_iter().map(count).collect();
    let mut counts: FxHashMap<Pair, u64> = FxHashMap::default();
    for (&pair, tally) in counted.iter().flatten() {
        *counts.entry(pair).or_default() += tally.weight;
    }
    counts.retain(|_, count| *count >= threshold);
    let pairs: Vec<Pair> = counts.keys().copied().collect();
    let number: FxHashMap<Pair, usize> = pairs.iter().copied().zip(0..).collect();
    let places = shares.par_iter().zip(counted).map(|(share, counted)| {
        let length = |pair| counted.get(pair).map_or(0, |tally| tally.places);
        let lengths: Vec<u32> = pairs.iter().map(length).collect();
        drop(counted);
        places(share, &pairs, &lengths, |left, right| {
            let number = || number.get(&(left, right)).copied();
            let found = is_candidate(left, right).then(number).flatten();
            found.unwrap_or(pairs.len())
        })
    });
    Census {
        threshold,
        places: places.collect(),
        counts,
    }
}

/// The places of `pairs`, of which there are `lengths`. `number` says which of these a pair is, or
/// `pairs.len()` for another.
fn places(
    share: &Arena,
    pairs: &[Pair],
    lengths: &[u32],
    number: impl Fn(Token, Token) -> usize,
) -> Places {
    let mut lists: Vec<Vec<u32>> = lengths.iter().map(|&n| vec![0; n as usize]).collect();
    // Places of other pairs are written too, over each other: a branch here could not be foreseen.
    lists.push(vec![0]);
    let mut next = vec![0u32; lists.len()];
    share.for_each_pair(|place, left, right, _| {
        let number = number(left, right);
        let next = &mut next[number];
        lists[number][*next as usize] = place;
        *next += u32::from(number != pairs.len());
    });
    pairs.iter().copied().zip(lists).collect()
}

/// Pairs to track for each merge to make. Fewer, and another census is needed soon; more, and
/// there are lists that nobody reads.
pub const PAIRS_PER_MERGE: usize = 3;

/// So many pairs are always welcome; few in tests, whose short texts shall meet the limit.
pub const MIN_PAIRS: usize = if cfg!(test) { 16 } else { 4096 };
/// Not worth a phase, unless there are no more.
const FEW_PAIRS: usize = 256;

/// The count from which on pairs are tracked. None if there is no pair at all.
fn threshold(totals: &[Tally], n_merges: usize, max_places: usize) -> Option<u64> {
    let mut totals: Vec<Tally> = totals.iter().copied().filter(|t| t.places > 0).collect();
    let highest = totals.iter().map(|total| total.weight).max()?;
    if without("threshold") {
        return Some(1);
    }
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
