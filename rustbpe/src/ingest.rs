//! Texts and files → words, with all threads.
//!
//! Memory grows with the distinct chunks, not with the text: a file is read block by block, and
//! each thread counts its chunks into [`Words`] of its own.

use rayon::prelude::*;
use rustc_hash::FxBuildHasher;
use std::fmt;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::progress::{Progress, Stopped};
use crate::splitter::{SplitError, Splitter};
use crate::words::{gather, Words};

/// Why a text could not be taken in.
#[derive(Debug)]
pub enum IngestError {
    Split(SplitError),
    Io(PathBuf, io::Error),
    NotUtf8 { path: PathBuf, line: usize },
    TooLarge,
    Stopped,
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split(error) => error.fmt(f),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NotUtf8 { path, line } => {
                write!(f, "{}:{line}: not valid UTF-8", path.display())
            }
            Self::TooLarge => f.write_str(
                "a buffer of texts, or a line, is longer than 2 GB: make buffer_size smaller, or the lines shorter",
            ),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for IngestError {}

impl From<SplitError> for IngestError {
    fn from(error: SplitError) -> Self {
        Self::Split(error)
    }
}

impl From<Stopped> for IngestError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Bytes of texts that a thread takes at a time.
const TEXTS_AT_A_TIME: usize = 1 << 16;
/// Bytes of a file that are read at a time.
const BLOCK: u64 = 1 << 23;
/// More bytes than a share of the words may hold: a place in it is a number of 32 bits.
const MAX_SLOTS: usize = if cfg!(test) {
    1 << 16
} else {
    u32::MAX as usize
};

/// Counts chunks. Which thread meets which text makes no difference to the words.
pub struct Ingest<'a> {
    splitter: &'a Splitter,
    sample: f64,
    progress: &'a Progress,
    /// One for each thread.
    shares: Vec<Words>,
    /// Those that are half full are set aside.
    full: Vec<Words>,
}

impl<'a> Ingest<'a> {
    /// For the threads of the current rayon pool. Of the texts only the share `sample` is taken:
    /// those with a small hash, so that it does not matter when, where and by whom they are met.
    pub fn new(splitter: &'a Splitter, sample: f64, progress: &'a Progress) -> Self {
        let threads = rayon::current_num_threads();
        Self {
            splitter,
            sample,
            progress,
            shares: (0..threads).map(|_| Words::default()).collect(),
            full: Vec::new(),
        }
    }

    pub fn add_texts<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<(), IngestError> {
        let taken = AtomicUsize::new(0);
        let blocks = blocks(texts);
        let (splitter, sample, progress) = (self.splitter, self.sample, self.progress);
        self.shares.par_iter_mut().try_for_each(|words| {
            while let Some(block) = blocks.get(taken.fetch_add(1, Relaxed)) {
                for text in block.iter().map(AsRef::as_ref) {
                    if sample == 1.0 || hash(text) < sample {
                        splitter.split(text, |start, end| words.add(text, start, end))?;
                    }
                    progress.add_bytes(text.len())?;
                }
                words.tidy();
            }
            Ok::<_, IngestError>(())
        })?;
        for words in &mut self.shares {
            if words.n_slots() >= MAX_SLOTS {
                return Err(IngestError::TooLarge);
            }
            if words.n_slots() >= MAX_SLOTS / 2 {
                self.full.push(std::mem::take(words));
            }
        }
        Ok(())
    }

    /// Adds a file of UTF-8 text. Each line, with its line end, is a text.
    pub fn add_file(&mut self, path: &Path) -> Result<(), IngestError> {
        let io_error = |error| IngestError::Io(path.to_owned(), error);
        let mut file = BufReader::new(File::open(path).map_err(io_error)?);
        let mut lines_before = 0;
        let mut block = Vec::new();
        loop {
            block.clear();
            let read = file.by_ref().take(BLOCK).read_to_end(&mut block);
            // To the end of the line.
            let read = read.and_then(|_| file.read_until(b'\n', &mut block));
            read.map_err(io_error)?;
            if block.is_empty() {
                return Ok(());
            }
            let text = std::str::from_utf8(&block).map_err(|error| {
                let valid = &block[..error.valid_up_to()];
                let line_ends = valid.iter().filter(|&&byte| byte == b'\n').count();
                IngestError::NotUtf8 {
                    path: path.to_owned(),
                    line: lines_before + line_ends + 1,
                }
            })?;
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            self.add_texts(&lines)?;
            lines_before += lines.len();
        }
    }

    /// The words, in a share for each thread, or more if there are many.
    pub fn finish(mut self) -> Vec<Words> {
        self.shares.append(&mut self.full);
        gather(self.shares)
    }
}

/// From 0 to 1.
fn hash(text: &str) -> f64 {
    let hash = FxBuildHasher.hash_one(text);
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// Neighbouring texts together, `TEXTS_AT_A_TIME` bytes or a little more.
fn blocks<T: AsRef<str>>(texts: &[T]) -> Vec<&[T]> {
    let mut bytes = 0;
    let mut is_same_block = |text: &T, _: &T| {
        bytes += text.as_ref().len();
        let goes_on = bytes < TEXTS_AT_A_TIME;
        bytes *= usize::from(goes_on);
        goes_on
    };
    texts.chunk_by(&mut is_same_block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splitter::GPT4_PATTERN;

    fn words(lines: &[String]) -> Result<Vec<Words>, IngestError> {
        let splitter = Splitter::new(GPT4_PATTERN).unwrap();
        let progress = Progress::default();
        let mut ingest = Ingest::new(&splitter, 1.0, &progress);
        for line in lines {
            ingest.add_texts(&[line])?;
        }
        Ok(ingest.finish())
    }

    #[test]
    fn more_words_than_a_share_holds() {
        let lines: Vec<String> = (0..100)
            .map(|i| char::from(b'a' + i % 26).to_string().repeat(MAX_SLOTS / 8))
            .collect();
        let shares = words(&lines).unwrap();
        assert!(shares.len() > rayon::current_num_threads());
        let mut found = 0;
        for share in shares {
            assert!(share.n_slots() < MAX_SLOTS);
            share.for_each_by_count(|_, n| found += n);
        }
        assert_eq!(found, 100);
    }

    #[test]
    fn a_line_that_no_share_holds() {
        let result = words(&["a".repeat(MAX_SLOTS)]);
        assert!(matches!(result, Err(IngestError::TooLarge)));
    }
}
