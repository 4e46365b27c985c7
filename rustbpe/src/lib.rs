//! Byte-level BPE: learn a vocabulary from text, and encode text with it.
//!
//! The idea in one breath: split the text into chunks (roughly words) by a regular expression,
//! write each chunk as bytes, then merge the most frequent adjacent pair of tokens into a new
//! token, again and again, until the vocabulary is full.
//!
//! Read the first page of [`trainer`]: it states the rule exactly. Then the modules in order, each
//! of which imports only from those before it:
//!
//! 1. [`token`]: what a token and a pair are;
//! 2. [`random`]: random numbers for tests;
//! 3. [`ablation`]: training without one of the tricks, to measure what it buys;
//! 4. [`progress`]: how far training is, and its way to stop;
//! 5. [`splitter`]: text → chunks;
//! 6. [`words`]: chunks → distinct words with counts;
//! 7. [`ingest`]: texts and files → words, with all threads;
//! 8. [`arena`]: words → one long array of tokens for each thread;
//! 9. [`census`]: the frequent pairs and their places;
//! 10. [`share`]: merges in one thread's array;
//! 11. [`phase`]: the merges of the frequent pairs, with all threads;
//! 12. [`trainer`]: words → merges, by census and phase in turn;
//! 13. [`encoder`]: merges → token ids, and back;
//! 14. [`python`]: the Python class, and nothing else.

mod ablation;
pub mod arena;
pub mod census;
pub mod encoder;
pub mod ingest;
pub mod phase;
pub mod progress;
#[doc(hidden)]
pub mod random;
pub mod share;
pub mod splitter;
pub mod token;
pub mod trainer;
pub mod words;

#[cfg(feature = "python")]
mod python;
