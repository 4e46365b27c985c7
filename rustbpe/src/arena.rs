//! Words → one long array of tokens, with a border after each word.
//!
//! At first every slot holds a byte. When two neighbours merge, the new token takes all their
//! slots: it stands in the first and in the last, so that a neighbour on either side can read it.
//! What stands between is of no use. Nothing is ever moved, and there are no links: the token to
//! the right of the one at `p` starts at `p + width`, the one to the left ends at `p - 1`.
//!
//! ```text
//! t h e | t h e n |
//! X X e | X X e n |        after (t, h) → X
//! Y - Y | Y - Y n |        after (X, e) → Y
//! ```
//!
//! Words that occur equally often lie together, so their count is stored once for all of them.

use crate::token::{Pair, Token, BYTES};
use crate::words::Words;

/// A stretch of the arena, from the end of the one before, whose words all occur `weight` times.
#[derive(Debug)]
pub struct Region {
    pub end: usize,
    pub weight: u64,
}

#[derive(Debug)]
pub struct Arena {
    /// A border, then each word and a border.
    pub slots: Vec<Token>,
    pub regions: Vec<Region>,
    /// By token: how many slots it takes.
    pub widths: Vec<u32>,
    /// The border, one more than the highest token there will be.
    pub border: Token,
}

impl Arena {
    pub fn new(words: &Words, vocab_size: usize) -> Self {
        let border = vocab_size as Token;
        let mut slots = Vec::with_capacity(words.n_slots());
        slots.push(border);
        let mut regions: Vec<Region> = Vec::new();
        for (word, weight) in words.by_count() {
            slots.extend(word.iter().map(|&byte| Token::from(byte)));
            slots.push(border);
            let end = slots.len();
            match regions.last_mut() {
                Some(region) if region.weight == weight => region.end = end,
                _ => regions.push(Region { end, weight }),
            }
        }
        let mut widths = vec![0; vocab_size + 1];
        widths[..BYTES].fill(1);
        widths[border as usize] = 1;
        Self {
            slots,
            regions,
            widths,
            border,
        }
    }

    /// Moves the tokens together: afterwards each takes one slot.
    pub fn compact(&mut self) {
        let (mut from, mut to) = (0, 0);
        for region in &mut self.regions {
            while from < region.end {
                let token = self.slots[from];
                self.slots[to] = token;
                from += self.widths[token as usize] as usize;
                to += 1;
            }
            region.end = to;
        }
        self.slots.truncate(to);
        self.slots.shrink_to_fit();
        for width in &mut self.widths {
            *width = 1.min(*width);
        }
    }

    /// Calls `visit` with the place, the pair and the weight of each two neighbours, from left to
    /// right. Only for an arena in which each token takes one slot.
    #[inline(always)]
    pub fn for_each_pair(&self, mut visit: impl FnMut(u32, Pair, u64)) {
        let mut left = self.border;
        let mut at = 0;
        for region in &self.regions {
            for &right in &self.slots[at..region.end] {
                if left != self.border && right != self.border {
                    visit(at as u32 - 1, (left, right), region.weight);
                }
                left = right;
                at += 1;
            }
        }
    }
}
