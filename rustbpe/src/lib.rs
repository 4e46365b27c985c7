//! Byte-level BPE: learn a vocabulary from text, and encode text with it.
//!
//! The idea in one breath: split the text into chunks (roughly words) by a regular expression,
//! write each chunk as bytes, then merge the most frequent adjacent pair of tokens into a new
//! token, again and again, until the vocabulary is full.
//!
//! Read [`trainer`] first: it states the rule exactly. The modules in order, each of which imports
//! only from those before it:
//!
//! 1. [`token`]: what a token and a pair are;
//! 2. [`random`]: random numbers for tests;
//! 3. [`ablation`]: training without one of the tricks, to measure what it buys;
//! 4. [`progress`]: how far training is, and its way to stop;
//! 5. [`splitter`]: text → chunks;
//! 6. [`words`]: chunks → distinct words with counts;
//! 7. [`ingest`]: texts and files → words, with all threads;
//! 8. [`arena`]: words → one long array of tokens;
//! 9. [`census`]: the frequent pairs and their places;
//! 10. [`merge`]: the merges of these;
//! 11. [`trainer`]: words → merges, by census and merges in turn;
//! 12. [`encoder`]: merges → token ids, and back;
//! 13. [`python`]: the Python class, and nothing else.

mod ablation;
pub mod arena;
pub mod census;
pub mod encoder;
pub mod ingest;
pub mod merge;
pub mod progress;
#[doc(hidden)]
pub mod random;
pub mod splitter;
pub mod token;
pub mod trainer;
pub mod words;

#[cfg(feature = "python")]
mod python;
