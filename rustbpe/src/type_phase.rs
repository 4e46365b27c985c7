//! The first merges, made on the alphabet instead of on the text.
//!
//! At the start every character beyond ASCII is two to four bytes, and in Chinese nearly all of
//! the first merges join bytes of one character: `E4 B8` is the beginning of 一, 上, 不, 中 and many
//! more. Such a pair occurs as often as the characters that hold it, so its count is a sum over the
//! alphabet, a few thousand characters, and merging it respells those characters. The text, a
//! thousand times as long, is not touched.
//!
//! This works because UTF-8 tells the first byte of a character from all others: a pair of tokens
//! within a character (*inner*) is never the same as a pair across the border of two characters
//! (*outer*), whose right token starts with a first byte. Only an outer pair that occurs more often
//! than the best inner one ends the phase. Outer pairs are counted from the text, seldom: inner
//! merges only make them finer, so the highest count of an outer pair, once measured, bounds all of
//! them from above until the next measurement.

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;

use crate::arena::{Meaning, Unit, Words};
use crate::trainer::{Pair, Token, BYTES};

/// A character in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    tokens: [Token; 4],
    length: u8,
}

impl Spelling {
    fn of_bytes(bytes: &[u8]) -> Self {
        let mut tokens = [0; 4];
        for (token, &byte) in tokens.iter_mut().zip(bytes) {
            *token = Token::from(byte);
        }
        let length = bytes.len() as u8;
        Self { tokens, length }
    }

    pub fn tokens(&self) -> &[Token] {
        &self.tokens[..self.length as usize]
    }

    fn pairs(&self) -> impl Iterator<Item = Pair> + '_ {
        self.tokens().windows(2).map(|pair| (pair[0], pair[1]))
    }

    fn merge(&mut self, pair: Pair, token: Token) {
        let old = *self;
        let old = old.tokens();
        let (mut read, mut write) = (0, 0);
        while read < old.len() {
            let is_pair = read + 1 < old.len() && (old[read], old[read + 1]) == pair;
            self.tokens[write] = if is_pair { token } else { old[read] };
            read += 1 + usize::from(is_pair);
            write += 1;
        }
        self.length = write as u8;
    }
}

/// How the characters are spelled after the phase.
#[derive(Debug, Default)]
pub struct Spellings(FxHashMap<char, (Spelling, u64)>);

impl Spellings {
    /// None: a unit that does not occur in these words.
    pub fn of(&self, words: &Words, unit: Unit) -> Option<Spelling> {
        match words.alphabet.meaning(unit)? {
            Meaning::Char(c) if c.is_ascii() => Some(Spelling::of_bytes(&[c as u8])),
            Meaning::Char(c) => self.0.get(&c).map(|&(spelling, _)| spelling),
            Meaning::Byte(byte) => Some(Spelling::of_bytes(&[byte])),
            Meaning::Separator => None,
        }
    }
}

/// Outer pairs are counted in a square table; the phase ends before it gets larger than this.
const MAX_TOKENS: usize = 1024;
/// A measurement that led to fewer merges than this is the last.
const WORTH_MEASURING: usize = 1;

/// Makes the first of up to `n_merges` merges: those that need no look at the text.
pub fn run(words: &[Words], n_merges: usize, merges: &mut Vec<Pair>) -> Spellings {
    let mut alphabet = alphabet(words);
    if words.iter().any(|share| share.alphabet.has_raw_bytes) {
        // Inner pairs that the alphabet does not know of: leave it all to the merge phase.
        return alphabet;
    }
    let mut inner: FxHashMap<Pair, u64> = FxHashMap::default();
    for (spelling, frequency) in alphabet.0.values() {
        for pair in spelling.pairs() {
            *inner.entry(pair).or_default() += frequency;
        }
    }
    let mut bound = u64::MAX;
    let mut since_measured = usize::MAX;
    while merges.len() < n_merges && BYTES + merges.len() < MAX_TOKENS {
        let best = inner
            .iter()
            .max_by_key(|&(&pair, &count)| (count, Reverse(pair)));
        let Some((&pair, &count)) = best else { break };
        if count <= bound {
            if since_measured < WORTH_MEASURING {
                break;
            }
            bound = highest_outer_count(words, &alphabet, BYTES + merges.len());
            since_measured = 0;
            if count <= bound {
                break;
            }
        }
        since_measured += 1;
        let token = (BYTES + merges.len()) as Token;
        merges.push(pair);
        for (spelling, frequency) in alphabet.0.values_mut() {
            if !spelling.pairs().any(|p| p == pair) {
                continue;
            }
            for pair in spelling.pairs() {
                *inner.get_mut(&pair).expect("counted") -= *frequency;
            }
            spelling.merge(pair, token);
            for pair in spelling.pairs() {
                *inner.entry(pair).or_default() += *frequency;
            }
        }
        inner.retain(|_, count| *count > 0);
    }
    alphabet
}

/// The characters beyond ASCII in bytes, with their frequencies.
fn alphabet(words: &[Words]) -> Spellings {
    let frequencies: Vec<Vec<u64>> = words.par_iter().map(unit_frequencies).collect();
    let mut alphabet = Spellings::default();
    for (share, frequencies) in words.iter().zip(frequencies) {
        for (unit, frequency) in (0..=Unit::MAX).zip(frequencies) {
            if frequency == 0 {
                continue;
            }
            if let Some(Meaning::Char(c)) = share.alphabet.meaning(unit) {
                if !c.is_ascii() {
                    let spelling = Spelling::of_bytes(c.encode_utf8(&mut [0; 4]).as_bytes());
                    alphabet.0.entry(c).or_insert((spelling, 0)).1 += frequency;
                }
            }
        }
    }
    alphabet
}

fn unit_frequencies(words: &Words) -> Vec<u64> {
    let mut frequencies = vec![0; Unit::MAX as usize + 1];
    let mut start = 0;
    for region in &words.regions {
        for &unit in &words.units[start..region.end as usize] {
            frequencies[unit as usize] += region.weight;
        }
        start = region.end as usize;
    }
    frequencies
}

/// The count of the most frequent pair (last token of a character, first token of the next).
fn highest_outer_count(words: &[Words], alphabet: &Spellings, n_tokens: usize) -> u64 {
    let counts = words
        .par_iter()
        .map(|share| outer_counts(share, alphabet, n_tokens));
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let counts = counts.reduce_with(sum).unwrap_or_default();
    // The last row and column count the borders of words, which are no pairs.
    let rows = counts.chunks_exact(n_tokens + 1).take(n_tokens);
    let cells = rows.flat_map(|row| &row[..n_tokens]);
    cells.copied().max().unwrap_or(0)
}

/// A table of left × right tokens; token `n_tokens` is the border of a word.
fn outer_counts(words: &Words, alphabet: &Spellings, n_tokens: usize) -> Vec<u64> {
    let border = n_tokens as u16;
    let mut ends = vec![(border, border); Unit::MAX as usize + 1];
    for (unit, ends) in (0..=Unit::MAX).zip(&mut ends) {
        if let Some(spelling) = alphabet.of(words, unit) {
            let tokens = spelling.tokens();
            *ends = (tokens[0] as u16, tokens[tokens.len() - 1] as u16);
        }
    }
    let side = n_tokens + 1;
    let mut counts = vec![0; side * side];
    let mut left = border;
    let mut start = 0;
    for region in &words.regions {
        for &unit in &words.units[start..region.end as usize] {
            let (first, last) = ends[unit as usize];
            counts[left as usize * side + first as usize] += region.weight;
            left = last;
        }
        start = region.end as usize;
    }
    counts
}
