//! Byte-level BPE: learn a vocabulary from text, and encode text with it.
//!
//! The idea in one breath: split the text into chunks (roughly words) by a regular expression,
//! write each chunk as bytes, then merge the most frequent adjacent pair of tokens into a new
//! token, again and again, until the vocabulary is full.
//!
//! - [`splitter`]: text → chunks
//! - [`trainer`]: chunks → merges
//! - [`encoder`]: merges → token ids, and back
//!
//! These three know nothing of Python; the bindings (`src/python.rs`, feature `python`) do.

pub mod encoder;
pub mod splitter;
pub mod trainer;

#[cfg(feature = "python")]
mod python;
