//! The words as arrays of tokens, one token a slot, with a border after each word.

use std::fmt::Debug;

use crate::arena::{Region, Unit, Words};
use crate::trainer::Token;
use crate::type_phase::{Spelling, Spellings};

/// A place for one token. Half the width is half the memory, so small vocabularies use `u16`.
pub trait Slot: Copy + Eq + Debug + Send + Sync + 'static {
    /// The highest token a slot can hold.
    const MAX: usize;
    /// Nothing: the inside of a token.
    const INSIDE: Self;
    fn first(token: usize) -> Self;
    fn last(token: usize) -> Self;
    /// The token that starts here, or ends here.
    fn token(self) -> usize;
    /// Whether a token starts here.
    fn is_first(self) -> bool;
}

macro_rules! impl_slot {
    ($int:ty) => {
        impl Slot for $int {
            const MAX: usize = (<$int>::MAX >> 1) as usize - 1;
            const INSIDE: Self = <$int>::MAX;
            #[inline(always)]
            fn first(token: usize) -> Self {
                token as $int
            }
            #[inline(always)]
            fn last(token: usize) -> Self {
                token as $int | !(<$int>::MAX >> 1)
            }
            #[inline(always)]
            fn token(self) -> usize {
                (self & (<$int>::MAX >> 1)) as usize
            }
            #[inline(always)]
            fn is_first(self) -> bool {
                self <= <$int>::MAX >> 1
            }
        }
    };
}
impl_slot!(u16);
impl_slot!(u32);

/// One thread's share of the words in tokens.
#[derive(Debug)]
pub struct Slots<S> {
    pub(crate) slots: Vec<S>,
    pub(crate) regions: Vec<Region>,
}

impl<S: Slot> Slots<S> {
    /// The border of a word is token `vocab_size`, one more than the last.
    pub fn new(words: Words, spellings: &Spellings, vocab_size: usize) -> Self {
        let mut spelled = vec![[S::first(0); 4]; Unit::MAX as usize + 1];
        let mut lengths = vec![0u8; Unit::MAX as usize + 1];
        let mut n_slots = 0;
        for &unit in &words.units {
            let length = &mut lengths[unit as usize];
            if *length == 0 {
                let border = [vocab_size as Token];
                let spelling = spellings.of(&words, unit);
                let tokens = spelling.as_ref().map_or(&border[..], Spelling::tokens);
                for (slot, &token) in spelled[unit as usize].iter_mut().zip(tokens) {
                    *slot = S::first(token as usize);
                }
                *length = tokens.len() as u8;
            }
            n_slots += *length as usize;
        }
        let mut slots = vec![S::first(0); n_slots + 4];
        let mut regions = words.regions;
        let (mut start, mut end) = (0, 0);
        for region in &mut regions {
            for &unit in &words.units[start..region.end as usize] {
                // All four, so that the copy has a fixed length; the next ones overwrite the excess.
                slots[end..end + 4].copy_from_slice(&spelled[unit as usize]);
                end += lengths[unit as usize] as usize;
            }
            start = region.end as usize;
            region.end = u32::try_from(end).expect("at most four slots for each unit");
        }
        slots.truncate(end);
        Self { slots, regions }
    }

    /// The same in wider slots, and with another number for the border. All tokens are one slot wide.
    pub fn widen(self, border: usize, new_border: usize) -> Slots<u32> {
        let widen = |slot: S| match slot.token() {
            token if token == border => u32::first(new_border),
            token => u32::first(token),
        };
        Slots {
            slots: self.slots.into_iter().map(widen).collect(),
            regions: self.regions,
        }
    }

    /// Squeezes out the slots in which no token starts.
    pub(crate) fn compact(&mut self) {
        let (mut start, mut end) = (0, 0);
        for region in &mut self.regions {
            for at in start..region.end as usize {
                let slot = self.slots[at];
                self.slots[end] = slot;
                end += usize::from(slot.is_first());
            }
            start = region.end as usize;
            region.end = end as u32;
        }
        self.slots.truncate(end);
        self.slots.shrink_to_fit();
    }

    /// Calls `visit` with place, left token, right token and weight of each two neighbours, while
    /// all tokens are one slot wide. The border of a word counts as token `n_tokens`; there are
    /// many of them, and a visit more is quicker than an unforeseeable branch.
    #[inline(always)]
    pub(crate) fn for_each_pair(
        &self,
        n_tokens: usize,
        mut visit: impl FnMut(usize, usize, usize, u64),
    ) {
        let mut left = n_tokens;
        let mut start = 0;
        for region in &self.regions {
            let slots = &self.slots[start..region.end as usize];
            for (at, slot) in (start..).zip(slots) {
                let right = slot.token().min(n_tokens);
                visit(at.wrapping_sub(1), left, right, region.weight);
                left = right;
            }
            start = region.end as usize;
        }
    }
}
