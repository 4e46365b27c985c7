//! One phase of training: the merges of the pairs that a census found frequent.
//!
//! **Places.** For each tracked pair there is a list of its places, in ascending order. All places of
//! a pair come to be in one moment: when the newer of its tokens is made. So a list is never added
//! to, and a count never rises. Places may go out of date, when another merge takes one of the two
//! tokens; that is seen when the list is used.
//!
//! **A merge** (a, b) → t goes through the list of (a, b), writes t, and sums, for each left
//! neighbour x and right neighbour y, how often it was met. That is all that the counts need:
//! (x, a) loses and (x, t) gains the sum of x; (b, y) loses and (t, y) gains the sum of y. A second
//! walk notes the places of those new pairs that are frequent.
//!
//! **The threshold.** Lists for all pairs would take several times the memory of the text, and most
//! pairs are never merged. So pairs that occur less than `threshold` times are not tracked. When no
//! other is left, the phase is over.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::arena::Arena;
use crate::census::{Census, Sum, Tracked};
use crate::token::{Pair, Token};

/// The neighbours on one side of the places of a merge.
#[derive(Debug)]
struct Neighbours {
    met: Vec<Token>,
    /// By token: how often it was met.
    sums: Vec<Sum>,
    /// By token: places of its pair with the new token; without capacity if that is too rare.
    places: Vec<Vec<u32>>,
}

impl Neighbours {
    fn new(n_tokens: usize) -> Self {
        Self {
            met: Vec::new(),
            sums: vec![Sum::default(); n_tokens],
            places: vec![Vec::new(); n_tokens],
        }
    }

    #[inline(always)]
    fn add(&mut self, token: Token, weight: u64) {
        let sum = &mut self.sums[token as usize];
        if sum.places == 0 {
            self.met.push(token);
        }
        sum.add(weight);
    }

    /// Makes room for the places of the frequent ones.
    fn reserve(&mut self, threshold: u64, border: Token) {
        for &token in &self.met {
            let sum = self.sums[token as usize];
            if sum.weight >= threshold && token != border {
                self.places[token as usize].reserve_exact(sum.places as usize);
            }
        }
    }

    #[inline(always)]
    fn note(&mut self, token: Token, place: u32) {
        let places = &mut self.places[token as usize];
        if places.capacity() > 0 {
            places.push(place);
        }
    }

    /// The frequent ones; starts again.
    fn take(&mut self) -> Vec<(Token, Tracked)> {
        let mut frequent = Vec::new();
        for token in self.met.drain(..) {
            let count = std::mem::take(&mut self.sums[token as usize]).weight;
            let places = std::mem::take(&mut self.places[token as usize]);
            if places.capacity() > 0 {
                frequent.push((token, Tracked { count, places }));
            }
        }
        frequent
    }
}

/// Where a merge was made, and between which tokens.
#[derive(Debug)]
struct Merged {
    place: u32,
    left: Token,
    right: Token,
}

#[derive(Debug)]
pub struct Phase<'a> {
    arena: &'a mut Arena,
    threshold: u64,
    pairs: FxHashMap<Pair, Tracked>,
    /// Each tracked pair once, with a count that was right when pushed and may have fallen since.
    heap: BinaryHeap<(u64, Reverse<Pair>)>,
    /// Of the merge in hand.
    merged: Vec<Merged>,
    left: Neighbours,
    right: Neighbours,
}

impl<'a> Phase<'a> {
    pub fn new(arena: &'a mut Arena, census: Census) -> Self {
        let n_tokens = arena.border as usize + 1;
        let counts = census.pairs.iter();
        Self {
            arena,
            threshold: census.threshold,
            heap: counts
                .map(|(&pair, now)| (now.count, Reverse(pair)))
                .collect(),
            pairs: census.pairs,
            merged: Vec::new(),
            left: Neighbours::new(n_tokens),
            right: Neighbours::new(n_tokens),
        }
    }

    /// The pair to merge next. None: those that are left are below the threshold.
    pub fn best_pair(&mut self) -> Option<Pair> {
        loop {
            let (count, Reverse(pair)) = self.heap.pop()?;
            let now = self.pairs[&pair].count;
            if now == count {
                return Some(pair);
            }
            if now >= self.threshold {
                self.heap.push((now, Reverse(pair)));
            } else {
                self.pairs.remove(&pair);
            }
        }
    }

    /// Makes `pair`, the best one, the token `token` everywhere.
    pub fn merge(&mut self, pair: Pair, token: Token) {
        self.rewrite(pair, token);
        let (a, b) = pair;
        for &x in &self.left.met {
            if let Some(tracked) = self.pairs.get_mut(&(x, a)) {
                tracked.count -= self.left.sums[x as usize].weight;
            }
        }
        for &y in &self.right.met {
            if let Some(tracked) = self.pairs.get_mut(&(b, y)) {
                tracked.count -= self.right.sums[y as usize].weight;
            }
        }
        self.note_new_pairs(a, token);
        for (x, tracked) in self.left.take() {
            self.track((x, token), tracked);
        }
        for (y, tracked) in self.right.take() {
            self.track((token, y), tracked);
        }
    }

    fn track(&mut self, pair: Pair, tracked: Tracked) {
        self.heap.push((tracked.count, Reverse(pair)));
        self.pairs.insert(pair, tracked);
    }

    /// Writes the new token at the places of the pair, and sums up the neighbours.
    fn rewrite(&mut self, (a, b): Pair, token: Token) {
        let tracked = self
            .pairs
            .remove(&(a, b))
            .expect("the best pair is tracked");
        let slots = &mut self.arena.slots;
        let widths = &mut self.arena.widths;
        let (a_width, b_width) = (widths[a as usize], widths[b as usize]);
        widths[token as usize] = a_width + b_width;
        let mut regions = self.arena.regions.iter();
        let mut region = regions.next().expect("a region for each place");
        self.merged.clear();
        for place in tracked.places {
            let start = place as usize;
            let middle = start + a_width as usize;
            // Out of date, if another merge took one of the two: in `aaa` the merge before this.
            if slots[start] != a || slots[middle] != b {
                continue;
            }
            let end = middle + b_width as usize;
            let (left, right) = (slots[start - 1], slots[end]);
            slots[middle] = self.arena.border; // No place of b any more.
            slots[start] = token;
            slots[end - 1] = token;
            while start >= region.end {
                region = regions.next().expect("a region for each place");
            }
            self.left.add(left, region.weight);
            self.right.add(right, region.weight);
            self.merged.push(Merged { place, left, right });
        }
    }

    /// Finds the places of the new pairs that are frequent. `a` is the left one of the merged pair.
    fn note_new_pairs(&mut self, a: Token, token: Token) {
        // A right neighbour `a` may have merged in its turn. Then it is a `token`, whose left
        // neighbour has been counted.
        let merged_in_its_turn = self.left.sums[token as usize].weight;
        self.right.sums[a as usize].weight -= merged_in_its_turn;
        self.left.reserve(self.threshold, self.arena.border);
        self.right.reserve(self.threshold, self.arena.border);
        let Arena { slots, widths, .. } = &*self.arena;
        let width = widths[token as usize];
        for &Merged { place, left, right } in &self.merged {
            self.left.note(left, place - widths[left as usize]);
            if right != a || slots[(place + width) as usize] == a {
                self.right.note(right, place);
            }
        }
    }
}
