//! What every module speaks of.

/// The number of a token: 0 to 255 are the bytes, and merge `i` makes token `BYTES + i`.
pub type Token = u32;

/// Two neighbouring tokens, left and right.
pub type Pair = (Token, Token);

/// How many tokens there are before any merge.
pub const BYTES: usize = 256;
