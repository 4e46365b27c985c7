//! Merges → token ids, and back.
//!
//! A chunk is encoded as tiktoken does it: a chunk that is itself a token is that token; otherwise
//! start from its bytes and join the two neighbours whose joined bytes are the lowest-numbered
//! token, the leftmost of equals, until none can be joined.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::trainer::{Pair, Token, BYTES};

/// Chunks up to this many bytes search the best pair by scanning; longer ones keep a heap, so that
/// a chunk of n bytes never costs n² steps.
const SCAN_LIMIT: usize = 64;

/// The tokens, their bytes, and the way from bytes to token.
#[derive(Debug)]
pub struct Encoder {
    tokens: Vec<Box<[u8]>>,
    ranks: FxHashMap<Box<[u8]>, Token>,
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
        for &(left, right) in merges {
            let joined = [&*tokens[left as usize], &*tokens[right as usize]].concat();
            tokens.push(joined.into());
        }
        let ranks = tokens.iter().cloned().zip(0..).collect();
        Self { tokens, ranks }
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
        if let Some(&token) = self.ranks.get(chunk) {
            out.push(token);
        } else if chunk.len() <= SCAN_LIMIT {
            self.encode_by_scan(chunk, out);
        } else {
            self.encode_by_heap(chunk, out);
        }
    }

    fn encode_by_scan(&self, chunk: &[u8], out: &mut Vec<Token>) {
        // Piece i is chunk[starts[i].0..starts[i + 1].0]; beside it the rank of it and the next.
        let mut starts: Vec<(usize, Option<Token>)> = (0..=chunk.len())
            .map(|i| (i, chunk.get(i..i + 2).and_then(|pair| self.rank(pair))))
            .collect();
        let joined = |starts: &[(usize, Option<Token>)], i: usize| {
            let end = starts.get(i + 2)?.0;
            self.rank(&chunk[starts[i].0..end])
        };
        while let Some((_, i)) = starts
            .iter()
            .enumerate()
            .filter_map(|(i, start)| start.1.map(|rank| (rank, i)))
            .min()
        {
            starts.remove(i + 1);
            starts[i].1 = joined(&starts, i);
            if i > 0 {
                starts[i - 1].1 = joined(&starts, i - 1);
            }
        }
        out.extend(
            starts
                .windows(2)
                .map(|s| self.ranks[&chunk[s[0].0..s[1].0]]),
        );
    }

    fn encode_by_heap(&self, chunk: &[u8], out: &mut Vec<Token>) {
        // A linked list over the positions of the chunk: the piece at i ends at next[i], and the
        // piece before it starts at prev[i]. Position i is alive while a piece starts there.
        let n = chunk.len();
        let mut next: Vec<usize> = (1..=n + 1).collect();
        let mut prev: Vec<usize> = (0..=n).map(|i| i.wrapping_sub(1)).collect();
        let mut heap: BinaryHeap<Reverse<(Token, usize, usize)>> = (0..n - 1)
            .filter_map(|i| Some(Reverse((self.rank(&chunk[i..i + 2])?, i, i + 2))))
            .collect();
        const DEAD: usize = usize::MAX;
        while let Some(Reverse((_, start, end))) = heap.pop() {
            // Stale unless two pieces still fill exactly chunk[start..end].
            let middle = next[start];
            if middle == DEAD || middle >= n || next[middle] != end {
                continue;
            }
            next[start] = end;
            next[middle] = DEAD;
            prev[end] = start;
            if end < n {
                let after = next[end];
                if let Some(rank) = self.rank(&chunk[start..after]) {
                    heap.push(Reverse((rank, start, after)));
                }
            }
            if start > 0 {
                let before = prev[start];
                if let Some(rank) = self.rank(&chunk[before..end]) {
                    heap.push(Reverse((rank, before, end)));
                }
            }
        }
        let mut start = 0;
        while start < n {
            out.push(self.ranks[&chunk[start..next[start]]]);
            start = next[start];
        }
    }

    fn rank(&self, bytes: &[u8]) -> Option<Token> {
        self.ranks.get(bytes).copied()
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
        assert_eq!(encode(&encoder, b"aaab"), [258, 257][..].to_vec());
        assert_eq!(encode(&encoder, b"aaa"), [258, 97]);
    }

    #[test]
    fn scan_and_heap_agree() {
        let encoder = Encoder::new(&[(97, 97), (97, 98), (256, 256), (258, 257), (98, 97)]);
        let mut state = 7u32;
        for length in 2..400 {
            let chunk: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    b'a' + u8::from(state >> 16 & 3 == 0)
                })
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
