//! Merges → token ids, and back.
//!
//! A chunk is encoded as tiktoken does it: start from its bytes and merge, again and again, the two
//! neighbours whose merge was learned first, the leftmost of equals, until none can be merged.
//!
//! tiktoken looks neighbours up by their joined bytes, here they are looked up as a pair of tokens,
//! which is quicker. That makes no difference for merges that were learned: on the way from its
//! bytes to a token there is only one state of two pieces, so no token is made in two ways.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::token::{Pair, Token, BYTES};

/// Chunks up to this many bytes search the best pair by scanning; longer ones keep a heap, so that
/// a chunk of n bytes never costs n² steps.
const SCAN_LIMIT: usize = 128;

/// A token that does not exist; as a rank, worse than all others.
const NONE: Token = Token::MAX;

/// The tokens, their bytes, and the merges.
#[derive(Debug)]
pub struct Encoder {
    tokens: Vec<Box<[u8]>>,
    /// Tokens by their bytes: many chunks are one token.
    by_bytes: FxHashMap<Box<[u8]>, Token>,
    merges: FxHashMap<Pair, Token>,
    /// The merges of two bytes again, by `left * 256 + right`: all chunks begin with these.
    byte_merges: Vec<Token>,
}

/// An id that is not in the vocabulary.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownToken(pub Token);

impl fmt::Display for UnknownToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown token id: {}", self.0)
    }
}

impl std::error::Error for UnknownToken {}

impl Encoder {
    /// The 256 bytes and one token for each merge, which may use only tokens before it.
    pub fn new(merges: &[Pair]) -> Self {
        let mut tokens: Vec<Box<[u8]>> = (0..BYTES).map(|byte| [byte as u8].into()).collect();
        let mut byte_merges = vec![NONE; BYTES * BYTES];
        for (&(left, right), token) in merges.iter().zip(BYTES as Token..) {
            let joined = [&*tokens[left as usize], &*tokens[right as usize]].concat();
            tokens.push(joined.into());
            if (left as usize) < BYTES && (right as usize) < BYTES {
                byte_merges[left as usize * BYTES + right as usize] = token;
            }
        }
        Self {
            by_bytes: tokens.iter().cloned().zip(0..).collect(),
            merges: merges.iter().copied().zip(BYTES as Token..).collect(),
            tokens,
            byte_merges,
        }
    }

    /// The bytes of each token, by id.
    pub fn tokens(&self) -> &[Box<[u8]>] {
        &self.tokens
    }

    /// The bytes of the tokens, joined; not always valid UTF-8.
    pub fn decode(&self, ids: &[Token]) -> Result<Vec<u8>, UnknownToken> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let token = self.tokens.get(id as usize).ok_or(UnknownToken(id))?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }

    /// Appends the tokens of one chunk to `out`.
    pub fn encode_chunk(&self, chunk: &[u8], out: &mut Vec<Token>) {
        if let Some(&token) = self.by_bytes.get(chunk) {
            out.push(token);
        } else if chunk.len() <= SCAN_LIMIT {
            self.encode_by_scan(chunk, out);
        } else {
            self.encode_by_heap(chunk, out);
        }
    }

    fn merge_of(&self, left: Token, right: Token) -> Token {
        if (left | right) < BYTES as Token {
            self.byte_merges[left as usize * BYTES + right as usize]
        } else {
            self.merges.get(&(left, right)).copied().unwrap_or(NONE)
        }
    }

    fn encode_by_scan(&self, chunk: &[u8], out: &mut Vec<Token>) {
        let mut pieces = [0; SCAN_LIMIT];
        // What each piece and the next one merge to.
        let mut merged = [NONE; SCAN_LIMIT];
        let mut n = chunk.len();
        for (piece, &byte) in pieces.iter_mut().zip(chunk) {
            *piece = Token::from(byte);
        }
        for i in 0..n - 1 {
            merged[i] = self.merge_of(pieces[i], pieces[i + 1]);
        }
        loop {
            let best = merged[..n].iter().copied().min().unwrap_or(NONE);
            if best == NONE {
                break;
            }
            let first = merged[..n].iter().position(|&token| token == best);
            let at = first.expect("just found");
            pieces[at] = best;
            pieces.copy_within(at + 2..n, at + 1);
            merged.copy_within(at + 1..n, at);
            n -= 1;
            merged[n - 1] = NONE;
            if at + 1 < n {
                merged[at] = self.merge_of(best, pieces[at + 1]);
            }
            if at > 0 {
                merged[at - 1] = self.merge_of(pieces[at - 1], best);
            }
        }
        out.extend_from_slice(&pieces[..n]);
    }

    fn encode_by_heap(&self, chunk: &[u8], out: &mut Vec<Token>) {
        // A linked list over the bytes of the chunk: the piece at i is tokens[i], the next one
        // starts at next[i], and the one before at prev[i].
        let n = chunk.len();
        let mut tokens: Vec<Token> = chunk.iter().map(|&byte| Token::from(byte)).collect();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut prev: Vec<usize> = (0..=n).map(|i| i.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::new();
        let push = |heap: &mut BinaryHeap<_>, tokens: &[Token], left: usize, right: usize| {
            let token = self.merge_of(tokens[left], tokens[right]);
            if token != NONE {
                heap.push(Reverse((token, left, tokens[left], tokens[right])));
            }
        };
        for i in 0..n - 1 {
            push(&mut heap, &tokens, i, i + 1);
        }
        while let Some(Reverse((token, at, left, right))) = heap.pop() {
            let middle = next[at];
            // Out of date, if one of the two has merged with another.
            if tokens[at] != left || middle >= n || tokens[middle] != right {
                continue;
            }
            let end = next[middle];
            tokens[at] = token;
            tokens[middle] = NONE;
            next[at] = end;
            prev[end] = at;
            if end < n {
                push(&mut heap, &tokens, at, end);
            }
            if at > 0 {
                push(&mut heap, &tokens, prev[at], at);
            }
        }
        let mut at = 0;
        while at < n {
            out.push(tokens[at]);
            at = next[at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(encoder: &Encoder, chunk: &[u8]) -> Vec<Token> {
        let mut ids = Vec::new();
        encoder.encode_chunk(chunk, &mut ids);
        ids
    }

    #[test]
    fn no_merges_gives_bytes() {
        assert_eq!(
            encode(&Encoder::new(&[]), "é!".as_bytes()),
            [0xC3, 0xA9, 33]
        );
    }

    #[test]
    fn lowest_token_first_then_leftmost() {
        // 256 = bc, 257 = ab, 258 = aa
        let encoder = Encoder::new(&[(98, 99), (97, 98), (97, 97)]);
        assert_eq!(encode(&encoder, b"abc"), [97, 256]);
        assert_eq!(encode(&encoder, b"aaab"), [258, 257]);
        assert_eq!(encode(&encoder, b"aaa"), [258, 97]);
    }

    #[test]
    fn scan_and_heap_agree() {
        let encoder = Encoder::new(&[(97, 97), (97, 98), (256, 256), (258, 257), (98, 97)]);
        let mut random = crate::random::Random::new(7);
        for case in 0..2000 {
            let chunk: Vec<u8> = (0..2 + case % (SCAN_LIMIT - 1))
                .map(|_| b'a' + u8::from(random.below(4) == 0))
                .collect();
            let (mut scan, mut heap) = (Vec::new(), Vec::new());
            encoder.encode_by_scan(&chunk, &mut scan);
            encoder.encode_by_heap(&chunk, &mut heap);
            assert_eq!(scan, heap);
            assert_eq!(encoder.decode(&heap).unwrap(), chunk);
        }
    }

    #[test]
    fn unknown_token() {
        assert_eq!(Encoder::new(&[]).decode(&[256]), Err(UnknownToken(256)));
    }
}
