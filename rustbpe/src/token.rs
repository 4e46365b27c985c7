//! What every module speaks of.

/// The number of a token: 0 to 255 are the bytes, and merge `i` makes token `BYTES + i`.
pub type Token = u32;

/// Two neighbouring tokens, left and right.
pub type Pair = (Token, Token);

/// How many tokens there are before any merge.
pub const BYTES: usize = 256;

/// What stands between two words: the byte 0xFF, which no UTF-8 text contains.
pub const BORDER: u8 = 0xFF;

/// Whether neither of two neighbours is a border.
#[inline(always)]
pub fn is_pair((left, right): Pair) -> bool {
    left != Token::from(BORDER) && right != Token::from(BORDER)
}
