//! Byte-level BPE: learn a vocabulary from text, and encode text with it.
//!
//! The idea in one breath: split the text into chunks (roughly words) by a regular expression,
//! write each chunk as bytes, then merge the most frequent adjacent pair of tokens into a new
//! token, again and again, until the vocabulary is full.
//!
//! Read [`trainer`] first: it states the rule exactly and shows the way through the other modules.
//! None of them knows of Python; the bindings (`src/python.rs`, feature `python`) do.

pub mod arena;
mod census;
pub mod encoder;
pub mod ingest;
pub mod merge_phase;
pub mod progress;
#[doc(hidden)]
pub mod random;
pub mod slots;
pub mod splitter;
pub mod trainer;
pub mod type_phase;

#[cfg(feature = "python")]
mod python;
