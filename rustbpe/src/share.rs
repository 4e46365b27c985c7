//! Merges in one thread's share of the words.
//!
//! **Places.** For each tracked pair there is a list of its places, in ascending order. All places of
//! a pair come to be in one moment: when the merge is made that makes the newer of its tokens. So a
//! list is never added to, and a count never rises. Places may go out of date, when another merge
//! takes one of the two tokens; that is seen when the list is used.
//!
//! **A merge** (a, b) → t walks the list of (a, b) and writes t. For each left neighbour x and right
//! neighbour y it sums how often it was met. That is all that the counts need: (x, a) loses and
//! (x, t) gains the sum of x; (b, y) loses and (t, y) gains the sum of y. A second walk notes the
//! places of those new pairs that are tracked.

use crate::ablation::without;
use crate::arena::{Arena, Region, INSIDE, LAST};
use crate::census::{Places, Tally};
use crate::token::{Pair, Token};

/// One merge of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Merge {
    pub pair: Pair,
    pub token: Token,
}

/// How often each token was met on one side of a merge.
#[derive(Debug)]
pub struct Tallies {
    by_token: Vec<Tally>,
    /// Those that are not zero.
    met: Vec<Token>,
}

impl Tallies {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            by_token: vec![Tally::default(); n_tokens],
            met: Vec::new(),
        }
    }

    #[inline(always)]
    pub fn add(&mut self, token: Token, tally: Tally) {
        let sum = &mut self.by_token[token as usize];
        if sum.places == 0 {
            self.met.push(token);
        }
        *sum += tally;
    }

    pub fn weight(&self, token: Token) -> u64 {
        self.by_token[token as usize].weight
    }

    /// The tallies so far; starts again.
    pub fn take(&mut self) -> Vec<(Token, Tally)> {
        let by_token = &mut self.by_token;
        let met = self.met.drain(..);
        met.map(|token| (token, std::mem::take(&mut by_token[token as usize])))
            .collect()
    }
}

/// By token: the places of its new pair. Those of a pair that is not tracked have no capacity.
#[derive(Debug)]
struct NewPlaces(Vec<Vec<u32>>);

impl NewPlaces {
    fn reserve(&mut self, tracked: &[(Token, Tally)]) {
        for &(token, tally) in tracked {
            self.0[token as usize].reserve_exact(tally.places as usize);
        }
    }

    #[inline(always)]
    fn push(&mut self, token: Token, place: u32) {
        let places = &mut self.0[token as usize];
        if places.capacity() > 0 {
            places.push(place);
        }
    }

    /// What was pushed; starts again.
    fn take<'a>(
        &'a mut self,
        tracked: &'a [(Token, Tally)],
    ) -> impl Iterator<Item = (Token, Vec<u32>)> + 'a {
        let tokens = tracked.iter().map(|&(token, _)| token);
        tokens.map(|token| (token, std::mem::take(&mut self.0[token as usize])))
    }
}

/// Where a merge was made, and between which tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Merged {
    place: u32,
    left: Token,
    right: Token,
}

/// What one thread found while making one merge.
#[derive(Debug)]
pub struct Found {
    merged: Vec<Merged>,
    /// The neighbours; later only those whose pairs with the new token are tracked.
    pub left: Vec<(Token, Tally)>,
    pub right: Vec<(Token, Tally)>,
}

/// Places that are looked up together.
const LOOK_AHEAD: usize = 256;

/// What one thread works on: its share of the words, and where the pairs are in it.
#[derive(Debug)]
pub struct Share<'a> {
    arena: &'a mut Arena,
    places: Places,
    /// By merge of the batch.
    pub found: Vec<Found>,
    left: Tallies,
    right: Tallies,
    new_left: NewPlaces,
    new_right: NewPlaces,
}

impl<'a> Share<'a> {
    pub fn new(arena: &'a mut Arena, places: Places, vocab_size: usize) -> Self {
        Self {
            arena,
            places,
            found: Vec::new(),
            left: Tallies::new(vocab_size),
            right: Tallies::new(vocab_size),
            new_left: NewPlaces(vec![Vec::new(); vocab_size]),
            new_right: NewPlaces(vec![Vec::new(); vocab_size]),
        }
    }

    /// How many places the merges have to look at.
    pub fn work(&self, batch: &[Merge]) -> usize {
        let places = batch
            .iter()
            .filter_map(|merge| self.places.get(&merge.pair));
        places.map(Vec::len).sum()
    }

    /// Gives up the places of a pair.
    pub fn forget(&mut self, pair: Pair) {
        self.places.remove(&pair);
    }

    /// Makes the merges of a batch.
    pub fn merge(&mut self, batch: &[Merge], widths: &[u32]) {
        self.found.clear();
        for merge in batch {
            let found = self.rewrite(merge, widths);
            self.found.push(found);
        }
    }

    /// Writes the new token at the places of the pair, and sums up the neighbours.
    fn rewrite(&mut self, merge: &Merge, widths: &[u32]) -> Found {
        let ((a, b), token) = (merge.pair, merge.token);
        let (a_width, b_width) = (widths[a as usize] as usize, widths[b as usize] as usize);
        let places = self.places.remove(&merge.pair).unwrap_or_default();
        let slots = &mut self.arena.slots[..];
        let mut regions = self.arena.regions.iter();
        let mut region = Region { end: 0, weight: 0 };
        let mut merged = Vec::with_capacity(places.len());
        let mut still = [0; LOOK_AHEAD];
        let mut block = [Merged::default(); LOOK_AHEAD];
        let at_a_time = if without("look-ahead") { 1 } else { LOOK_AHEAD };
        for places in places.chunks(at_a_time) {
            // Most of the time goes into waiting for memory. This loop has no branches, so the
            // processor waits for many places at once; the next loop finds them in the cache.
            let mut n_still = 0;
            for &place in places {
                still[n_still] = place;
                n_still += usize::from(slots[place as usize] == a);
            }
            let mut n_merged = 0;
            for &place in &still[..n_still] {
                let start = place as usize;
                let middle = start + a_width;
                // Looks at the left token again: in "aaa" the first merge took it.
                if slots[start] != a || slots[middle] != b {
                    continue;
                }
                let end = middle + b_width;
                let (left, right) = (slots[start - 1] & !LAST, slots[end]);
                slots[start] = token;
                slots[middle] = INSIDE;
                slots[end - 1] = token | LAST;
                while place >= region.end {
                    region = *regions.next().expect("places are within the arena");
                }
                let weight = region.weight;
                self.left.add(left, Tally { weight, places: 1 });
                self.right.add(right, Tally { weight, places: 1 });
                block[n_merged] = Merged { place, left, right };
                n_merged += 1;
            }
            merged.extend_from_slice(&block[..n_merged]);
        }
        Found {
            merged,
            left: self.left.take(),
            right: self.right.take(),
        }
    }

    /// Notes the places of the new pairs of a batch, those that are left in `found`.
    pub fn note(&mut self, batch: &[Merge], widths: &[u32]) {
        for (&Merge { token, .. }, found) in batch.iter().zip(self.found.drain(..)) {
            if found.left.is_empty() && found.right.is_empty() {
                continue;
            }
            self.new_left.reserve(&found.left);
            self.new_right.reserve(&found.right);
            for Merged { place, left, right } in found.merged {
                self.new_left.push(left, place - widths[left as usize]);
                // Out of date already, if it is an `a` that merged in its turn.
                self.new_right.push(right, place);
            }
            let left = self.new_left.take(&found.left);
            let right = self.new_right.take(&found.right);
            let left = left.map(|(x, places)| ((x, token), places));
            let right = right.map(|(y, places)| ((token, y), places));
            self.places.extend(left.chain(right));
        }
    }
}
