//! Words → one long array of tokens, with a border after each word.
//!
//! At first every *slot* of the array holds a byte. When two neighbours merge, the new token takes
//! all their slots: it stands in the first and, flagged, in the last, so that a neighbour on either
//! side can read it. The slots between hold nothing of use. Nothing is ever moved, and there are no
//! links: the token to the right of the one at `p` starts at `p + width`, the one to the left ends
//! at `p - 1`.
//!
//! ```text
//! t h e | t h e n |        (t,h) → X, then (X,e) → Y (flagged: x, y):
//! X x e | X x e n |
//! Y - y | Y - y n |
//! ```
//!
//! Words that occur equally often lie together, so a count is stored once for a whole *region*.

use crate::token::{Token, BORDER};
use crate::words::Words;

/// A token that stands in more than one slot has this flag in the last of them.
pub const LAST: Token = 1 << 31;
/// The inside of a token.
pub const INSIDE: Token = Token::MAX;

/// A stretch of the arena, from the end of the one before, whose words all occur `weight` times.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub end: u32,
    pub weight: u64,
}

/// One thread's share of the words.
#[derive(Debug)]
pub struct Arena {
    /// A border, then each word and a border.
    pub slots: Vec<Token>,
    pub regions: Vec<Region>,
}

impl Arena {
    pub fn new(words: Words) -> Self {
        let mut slots = Vec::with_capacity(words.n_slots() + 1);
        slots.push(Token::from(BORDER));
        let mut regions: Vec<Region> = Vec::new();
        words.for_each_by_count(|word, weight| {
            slots.extend(word.iter().map(|&byte| Token::from(byte)));
            let end = u32::try_from(slots.len()).expect("words of 4 GB at most");
            match regions.last_mut() {
                Some(region) if region.weight == weight => region.end = end,
                _ => regions.push(Region { end, weight }),
            }
        });
        Self { slots, regions }
    }

    /// Squeezes out the slots in which no token starts: afterwards each token takes one slot.
    pub fn compact(&mut self) {
        let (mut start, mut end) = (0, 0);
        for region in &mut self.regions {
            for at in start..region.end as usize {
                let slot = self.slots[at];
                // Written in any case: a branch here could not be foreseen.
                self.slots[end] = slot;
                end += usize::from(slot < LAST);
            }
            start = region.end as usize;
            region.end = end as u32;
        }
        self.slots.truncate(end);
        self.slots.shrink_to_fit();
    }

    /// Calls `visit` with place, left token, right token and weight of each two neighbours, borders
    /// included: they are many, and a visit more is quicker than an unforeseeable branch. Only for
    /// an arena in which each token takes one slot.
    #[inline(always)]
    pub fn for_each_pair(&self, mut visit: impl FnMut(u32, Token, Token, u64)) {
        let mut left = self.slots[0];
        let mut start = 1;
        for region in &self.regions {
            let slots = &self.slots[start..region.end as usize];
            for (place, &right) in (start as u32 - 1..).zip(slots) {
                visit(place, left, right, region.weight);
                left = right;
            }
            start = region.end as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_with_places_and_weights() {
        let mut words = Words::default();
        for _ in 0..2 {
            words.add("cd", 0, 2);
        }
        words.add("abc", 0, 3);
        let mut pairs = Vec::new();
        let arena = Arena::new(words);
        arena.for_each_pair(|place, left, right, weight| pairs.push((place, left, right, weight)));
        let border = Token::from(BORDER);
        let [a, b, c, d] = [97, 98, 99, 100];
        let once = [
            (0, border, a, 1),
            (1, a, b, 1),
            (2, b, c, 1),
            (3, c, border, 1),
        ];
        let twice = [(4, border, c, 2), (5, c, d, 2), (6, d, border, 2)];
        assert_eq!(pairs, [&once[..], &twice[..]].concat());
    }
}
