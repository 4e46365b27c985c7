//! The other merges, made on the text.
//!
//! **Slots.** Each thread holds its share of the words as an array of slots, one token a slot, with
//! a border after each word. When two neighbours merge, the new token takes all their slots: it
//! stands in the first and, flagged, in the last, so that a neighbour on either side can read it.
//! The slots between hold nothing of use. There are no links between slots: the token to the right
//! of the one at `p` starts at `p + width`, the one to the left ends at `p - 1`.
//!
//! ```text
//! slots   t h e | t h e n |        (t,h) → X, then (X,e) → Y (flagged: y):
//!         X x e | X x e n |
//!         Y - y | Y - y n |
//! ```
//!
//! **Places.** For each pair there is a list of its places, in ascending order. All places of a
//! pair come to be in one moment: when the merge is made that makes the newer of its tokens. So a
//! list is never added to, and a count never rises. Places may go out of date, when another merge
//! takes one of the tokens; that is seen when the list is used.
//!
//! **A merge** (a, b) → t walks the list of (a, b) twice. The first walk rewrites the slots and sums,
//! for each left neighbour x and right neighbour y, how often it was met. That is all that the counts
//! need: (x, a) loses and (x, t) gains the sum of x; (b, y) loses and (t, y) gains the sum of y. The
//! second walk writes the places of the new pairs that are frequent enough to be of interest.
//!
//! **Phases.** Lists for all pairs would take several times the memory of the text, and most pairs
//! are never merged. So only pairs that occur at least `threshold` times are tracked. When none is
//! left, the merged slots are squeezed out and the pairs counted anew ([`census`]), with a lower threshold. The
//! threshold decides about time and memory, never about the result.
//!
//! **Batches.** Threads work on their own shares and meet after each batch of merges, not after each
//! merge. A batch takes the best pairs in order as long as none shares a token with an earlier one in
//! a way that could change its count: its left token is no earlier right token and its right token
//! no earlier left token. And it ends after a pair of equal tokens (a, a) → t. Why no new pair can
//! belong between the pairs of a batch: (x, t) occurs at most as often as (x, a), which is no better
//! than the next pair of the batch, or it would have ended it. The same goes for (t, y). Only (t, t)
//! from (a, a) has no such bound.

use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;

use crate::arena::Region;
use crate::census::{self, Census, Lists, Tally, MIN_PAIRS, PAIRS_PER_MERGE};
use crate::progress::{Progress, Stopped};
use crate::slots::{Slot, Slots};
use crate::trainer::{Pair, Token, BYTES};

/// Sums by token, and which tokens have one.
#[derive(Debug)]
struct Tallies {
    by_token: Vec<Tally>,
    met: Vec<Token>,
}

impl Tallies {
    fn new(n_tokens: usize) -> Self {
        Self {
            by_token: vec![Tally::default(); n_tokens],
            met: Vec::new(),
        }
    }

    #[inline(always)]
    fn add(&mut self, token: usize, weight: u64, places: u32) {
        let tally = &mut self.by_token[token];
        if tally.places == 0 {
            self.met.push(token as Token);
        }
        tally.weight += weight;
        tally.places += places;
    }

    fn get(&self, token: Token) -> Tally {
        self.by_token[token as usize]
    }

    /// The sums so far; starts again.
    fn take(&mut self) -> Vec<(Token, Tally)> {
        let by_token = &mut self.by_token;
        let met = self.met.drain(..);
        met.map(|token| (token, std::mem::take(&mut by_token[token as usize])))
            .collect()
    }
}

/// Places that are looked up together.
const LOOK_AHEAD: usize = 256;

type PairId = u32;
const NO_PAIR: usize = usize::MAX;

/// One merge of a batch.
#[derive(Debug)]
struct Merge {
    id: PairId,
    pair: Pair,
    token: Token,
    /// (x, id of (x, token)) for the new pairs that are tracked
    left: Vec<(Token, PairId)>,
    /// (y, id of (token, y)) for the new pairs that are tracked
    right: Vec<(Token, PairId)>,
}

/// What one thread found while making one merge.
#[derive(Debug)]
struct Found<S> {
    /// Where, and the tokens to the left and right.
    places: Vec<(u32, S, S)>,
    left: Vec<(Token, Tally)>,
    right: Vec<(Token, Tally)>,
}

/// What one thread works on: its share of the words, and where the pairs are in it.
#[derive(Debug)]
struct Share<'a, S> {
    words: &'a mut Slots<S>,
    /// By pair: the places of the pairs that the phase began with...
    first: Lists,
    /// ...and of those that came later.
    later: Vec<Vec<u32>>,
    /// By merge of the batch.
    found: Vec<Found<S>>,
    left: Tallies,
    right: Tallies,
    /// By token: the later pair whose places are being noted.
    put_left: Vec<usize>,
    put_right: Vec<usize>,
}

impl<'a, S: Slot> Share<'a, S> {
    fn new(words: &'a mut Slots<S>, first: Lists, vocab_size: usize) -> Self {
        Self {
            words,
            first,
            later: Vec::new(),
            found: Vec::new(),
            left: Tallies::new(vocab_size + 1),
            right: Tallies::new(vocab_size + 1),
            put_left: vec![NO_PAIR; vocab_size + 1],
            put_right: vec![NO_PAIR; vocab_size + 1],
        }
    }

    /// Gives up the places of a pair.
    fn forget(&mut self, pair: PairId) {
        let later = (pair as usize).checked_sub(self.first.len());
        if let Some(list) = later.and_then(|at| self.later.get_mut(at)) {
            *list = Vec::new();
        }
    }

    /// Between two batches: notes the places of the pairs that the last one made, and makes the
    /// merges of the next one.
    fn step(&mut self, last: &[Merge], next: &[Merge], n_pairs: usize, widths: &[u32]) {
        let n_later = n_pairs - self.first.len();
        self.later.resize_with(n_later, Vec::new);
        let found = std::mem::take(&mut self.found);
        for (merge, found) in last.iter().zip(found) {
            self.note_places(merge, &found, widths);
        }
        self.found = next.iter().map(|merge| self.merge(merge, widths)).collect();
    }

    fn merge(&mut self, merge: &Merge, widths: &[u32]) -> Found<S> {
        let (a, b) = (merge.pair.0 as usize, merge.pair.1 as usize);
        let token = merge.token as usize;
        let (a_width, b_width) = (widths[a] as usize, widths[b] as usize);
        let (a, b) = (S::first(a), S::first(b));
        let later;
        let list = match (merge.id as usize).checked_sub(self.first.len()) {
            None => self.first.of(merge.id as usize),
            Some(at) => {
                later = std::mem::take(&mut self.later[at]);
                &later
            }
        };
        let mut places = Vec::with_capacity(list.len());
        let mut block = [(0, S::INSIDE, S::INSIDE); LOOK_AHEAD];
        let slots = &mut self.words.slots[..];
        let (left, right) = (&mut self.left, &mut self.right);
        let mut regions = self.words.regions.iter();
        let mut region = Region { end: 0, weight: 0 };
        let mut still = [0; LOOK_AHEAD];
        for list in list.chunks(LOOK_AHEAD) {
            // Most of the time goes into waiting for memory. This loop has no branches, so the
            // processor waits for many places at once; the next loop finds them in the cache.
            let mut n = 0;
            for &place in list {
                still[n] = place;
                n += usize::from(slots[place as usize] == a);
            }
            let mut merged = 0;
            for &place in &still[..n] {
                let at = place as usize;
                let middle = at + a_width;
                // Looks at the left token again: in "aaa" the first merge took it.
                if slots[at] != a || slots[middle] != b {
                    continue;
                }
                let end = middle + b_width;
                let (x, y) = (slots[at - 1].token(), slots[end].token());
                slots[at] = S::first(token);
                slots[middle] = S::INSIDE;
                slots[end - 1] = S::last(token);
                while place >= region.end {
                    region = *regions.next().expect("places are within the arena");
                }
                left.add(x, region.weight, 1);
                right.add(y, region.weight, 1);
                block[merged] = (place, S::first(x), S::first(y));
                merged += 1;
            }
            places.extend_from_slice(&block[..merged]);
        }
        Found {
            places,
            left: left.take(),
            right: right.take(),
        }
    }

    fn note_places(&mut self, merge: &Merge, found: &Found<S>, widths: &[u32]) {
        if merge.left.is_empty() && merge.right.is_empty() {
            return;
        }
        let a = merge.pair.0 as usize;
        let width = widths[merge.token as usize];
        for (new, put, tallies) in [
            (&merge.left, &mut self.put_left, &found.left),
            (&merge.right, &mut self.put_right, &found.right),
        ] {
            for &(token, id) in new {
                put[token as usize] = id as usize - self.first.len();
            }
            for &(token, tally) in tallies {
                let id = put[token as usize];
                if id != NO_PAIR {
                    self.later[id] = Vec::with_capacity(tally.places as usize);
                }
            }
        }
        for &(place, x, y) in &found.places {
            let (x, y) = (x.token(), y.token());
            let id = self.put_left[x];
            if id != NO_PAIR {
                self.later[id].push(place - widths[x]);
            }
            let id = self.put_right[y];
            // An `a` to the right may have been the next one to merge.
            if id != NO_PAIR
                && (y != a || self.words.slots[(place + width) as usize] == S::first(a))
            {
                self.later[id].push(place);
            }
        }
        for (new, put) in [
            (&merge.left, &mut self.put_left),
            (&merge.right, &mut self.put_right),
        ] {
            for &(token, _) in new {
                put[token as usize] = NO_PAIR;
            }
        }
    }
}

/// A tracked pair.
#[derive(Debug)]
struct Tracked {
    pair: Pair,
    count: u64,
    /// In all shares, when it came to be.
    places: u32,
    alive: bool,
}

/// What all threads have in common during a phase.
struct Phase {
    threshold: u64,
    pairs: Vec<Tracked>,
    /// By token: the pairs that start with it, and that end with it.
    starting: Vec<Vec<PairId>>,
    ending: Vec<Vec<PairId>>,
    /// How many pairs the last rise of the threshold could not part.
    equals: usize,
    /// Count, pair, id. The count was right when pushed, and may have fallen since.
    heap: BinaryHeap<(u64, Reverse<Pair>, PairId)>,
    /// By token, in slots.
    widths: Vec<u32>,
    left: Tallies,
    right: Tallies,
    /// By token: the last batch in which it was the left, or right, token of a pair.
    batch: u32,
    was_left: Vec<u32>,
    was_right: Vec<u32>,
}

/// Less work than this (in places) is done by one thread.
const WORTH_SHARING: usize = 4096;
/// So many places are no matter.
const MIN_PLACES: usize = 1 << 21;
/// So many merges may be in a batch.
const MAX_BATCH: usize = 256;

/// Makes merges until there are `vocab_size` tokens or nothing is left to merge.
pub fn run<S: Slot>(
    shares: &mut [Slots<S>],
    vocab_size: usize,
    merges: &mut Vec<Pair>,
    progress: &Progress,
) -> Result<(), Stopped> {
    assert!(vocab_size <= S::MAX);
    let count_slots = |shares: &[Slots<S>]| shares.iter().map(|share| share.slots.len()).sum();
    let slots_at_first: usize = count_slots(shares);
    let mut below = u64::MAX;
    while BYTES + merges.len() < vocab_size {
        // Slots and lists together take no more memory than in the first phase.
        let squeezed_out = slots_at_first - count_slots(shares);
        let max_places = slots_at_first / 2 + squeezed_out * size_of::<S>() / size_of::<u32>();
        let max_places = max_places.max(MIN_PLACES);
        let n_tokens = BYTES + merges.len();
        let n_merges = vocab_size - n_tokens;
        let census = census::take(shares, n_tokens, n_merges, max_places, below);
        let Some(census) = census else { break };
        let mut phase = Phase::new(&census, vocab_size);
        let mut working: Vec<Share<S>> = shares
            .iter_mut()
            .zip(census.lists)
            .map(|(words, lists)| Share::new(words, lists, vocab_size))
            .collect();
        phase.run(&mut working, vocab_size - BYTES, merges, progress)?;
        below = phase.threshold;
        drop(working);
        shares.par_iter_mut().for_each(Slots::compact);
    }
    Ok(())
}

impl Phase {
    /// Tracks the pairs of a census.
    fn new(census: &Census, vocab_size: usize) -> Self {
        let mut phase = Self {
            threshold: census.threshold,
            pairs: Vec::new(),
            starting: vec![Vec::new(); vocab_size],
            ending: vec![Vec::new(); vocab_size],
            equals: 0,
            heap: BinaryHeap::new(),
            widths: vec![1; vocab_size + 1],
            left: Tallies::new(vocab_size + 1),
            right: Tallies::new(vocab_size + 1),
            batch: 0,
            was_left: vec![0; vocab_size],
            was_right: vec![0; vocab_size],
        };
        for &(pair, tally) in &census.pairs {
            phase.track(pair, tally.weight, tally.places);
        }
        phase
    }

    fn track(&mut self, pair: Pair, count: u64, places: u32) -> PairId {
        let id = self.pairs.len() as PairId;
        self.pairs.push(Tracked {
            pair,
            count,
            places,
            alive: true,
        });
        self.starting[pair.0 as usize].push(id);
        self.ending[pair.1 as usize].push(id);
        self.heap.push((count, Reverse(pair), id));
        id
    }

    fn run<S: Slot>(
        &mut self,
        shares: &mut [Share<S>],
        n_merges: usize,
        merges: &mut Vec<Pair>,
        progress: &Progress,
    ) -> Result<(), Stopped> {
        let mut last: Vec<Merge> = Vec::new();
        loop {
            progress.check(merges.len())?;
            let mut next = self.next_batch(shares, n_merges, merges);
            if next.is_empty() {
                break;
            }
            let work = |merge: &Merge| self.pairs[merge.id as usize].places as usize;
            let work: usize = last.iter().chain(&next).map(work).sum();
            let n_pairs = self.pairs.len();
            let step = |share: &mut Share<S>| share.step(&last, &next, n_pairs, &self.widths);
            if work < WORTH_SHARING {
                shares.iter_mut().for_each(step);
            } else {
                shares.par_iter_mut().for_each(step);
            }
            for (at, merge) in next.iter_mut().enumerate() {
                self.update(merge, at, shares);
            }
            last = next;
            let wanted = MIN_PAIRS + (n_merges - merges.len()) * PAIRS_PER_MERGE;
            if self.heap.len() > 3 * wanted.max(self.equals) {
                self.raise_threshold(wanted, shares);
            }
        }
        Ok(())
    }

    /// Gives up the rarest pairs, now that there are so many more frequent ones: about `wanted` stay.
    fn raise_threshold<S: Slot>(&mut self, wanted: usize, shares: &mut [Share<S>]) {
        let pairs = &mut self.pairs;
        let mut counts: Vec<u64> = self.heap.iter().map(|entry| entry.0).collect();
        let (above, &mut lowest, _) =
            counts.select_nth_unstable_by_key(wanted, |&count| Reverse(count));
        // Pairs of equal count stay or go together.
        let higher = above.iter().filter(|&&count| count > lowest).count();
        let raise = u64::from(higher >= wanted / 2);
        self.threshold = self.threshold.max(lowest + raise);
        self.heap.retain(|&(_, _, id)| {
            let tracked = &mut pairs[id as usize];
            tracked.alive = tracked.count >= self.threshold;
            if !tracked.alive {
                shares.iter_mut().for_each(|share| share.forget(id));
            }
            tracked.alive
        });
        self.equals = self.heap.len();
    }

    /// The best pairs, in order, that can be merged before looking again.
    fn next_batch<S: Slot>(
        &mut self,
        shares: &mut [Share<S>],
        n_merges: usize,
        merges: &mut Vec<Pair>,
    ) -> Vec<Merge> {
        let mut batch = Vec::new();
        self.batch += 1;
        while merges.len() < n_merges && batch.len() < MAX_BATCH {
            let Some((count, order, id)) = self.heap.pop() else {
                break;
            };
            let tracked = &mut self.pairs[id as usize];
            if tracked.count < count {
                if tracked.count >= self.threshold {
                    self.heap.push((tracked.count, order, id));
                } else {
                    tracked.alive = false;
                    for share in shares.iter_mut() {
                        share.forget(id);
                    }
                }
                continue;
            }
            let (a, b) = tracked.pair;
            if self.was_left[b as usize] == self.batch || self.was_right[a as usize] == self.batch {
                self.heap.push((count, order, id));
                break;
            }
            self.was_left[a as usize] = self.batch;
            self.was_right[b as usize] = self.batch;
            tracked.alive = false;
            let token = (BYTES + merges.len()) as Token;
            self.widths[token as usize] = self.widths[a as usize] + self.widths[b as usize];
            merges.push((a, b));
            batch.push(Merge {
                id,
                pair: (a, b),
                token,
                left: Vec::new(),
                right: Vec::new(),
            });
            if a == b {
                break;
            }
        }
        batch
    }

    /// Brings the counts up to date after merge number `at` of the batch, and tracks its new pairs.
    fn update<S: Slot>(&mut self, merge: &mut Merge, at: usize, shares: &[Share<S>]) {
        for share in shares {
            for &(token, tally) in &share.found[at].left {
                self.left.add(token as usize, tally.weight, tally.places);
            }
            for &(token, tally) in &share.found[at].right {
                self.right.add(token as usize, tally.weight, tally.places);
            }
        }
        let (a, b) = merge.pair;
        let token = merge.token;
        let pairs = &mut self.pairs;
        self.ending[a as usize].retain(|&id| {
            let tracked = &mut pairs[id as usize];
            if tracked.alive {
                tracked.count -= self.left.get(tracked.pair.0).weight;
            }
            tracked.alive
        });
        self.starting[b as usize].retain(|&id| {
            let tracked = &mut pairs[id as usize];
            if tracked.alive {
                tracked.count -= self.right.get(tracked.pair.1).weight;
            }
            tracked.alive
        });
        // A right neighbour `a` that then merged itself is no neighbour any more.
        let merged_too = self.left.get(token).weight;
        for (x, tally) in self.left.take() {
            if tally.weight >= self.threshold && (x as usize) < self.starting.len() {
                let id = self.track((x, token), tally.weight, tally.places);
                merge.left.push((x, id));
            }
        }
        for (y, tally) in self.right.take() {
            let count = tally.weight - if y == a { merged_too } else { 0 };
            if count >= self.threshold && (y as usize) < self.starting.len() {
                let id = self.track((token, y), count, tally.places);
                merge.right.push((y, id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
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
            let mut words: Vec<Vec<usize>> = (0..20)
                .map(|_| {
                    let token = |_| {
                        let range = [TOKENS, TOKENS, frequent][random.below(3)];
                        random.below(range)
                    };
                    (0..length / 20).map(token).collect()
                })
                .collect();

            let mut slots = vec![u16::first(TOKENS + MERGES)];
            for word in &words {
                slots.extend(word.iter().map(|&token| u16::first(token)));
                slots.push(u16::first(TOKENS + MERGES));
            }
            let end = slots.len() as u32;
            let regions = vec![Region { end, weight: 1 }];
            let mut shares = [Slots { slots, regions }];
            let mut merges = vec![(0, 0); TOKENS - BYTES];
            run(
                &mut shares,
                TOKENS + MERGES,
                &mut merges,
                &Progress::default(),
            )
            .unwrap();

            for (token, &merge) in (TOKENS..).zip(&merges[TOKENS - BYTES..]) {
                let mut counts: HashMap<Pair, u32> = HashMap::new();
                for pair in words.iter().flat_map(|word| word.windows(2)) {
                    *counts
                        .entry((pair[0] as Token, pair[1] as Token))
                        .or_default() += 1;
                }
                let best = counts.iter().max_by_key(|&(&pair, &n)| (n, Reverse(pair)));
                assert_eq!(Some(&merge), best.map(|(pair, _)| pair), "token {token}");
                for word in &mut words {
                    let mut at = 0;
                    while at + 1 < word.len() {
                        if (word[at] as Token, word[at + 1] as Token) == merge {
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
