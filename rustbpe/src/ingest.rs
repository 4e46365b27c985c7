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
use crate::words::Words;

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
                "there are more than 4 GB of different chunks; take a share of the texts by sample",
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
/// The place of a token is a number of 32 bits.
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
                        splitter.split(text, |start, end| {
                            words.add(&text.as_bytes()[start..end], 1);
                        })?;
                    }
                    progress.add_bytes(text.len())?;
                }
            }
            Ok::<_, IngestError>(())
        })?;
        if self.shares.iter().map(Words::n_slots).sum::<usize>() > MAX_SLOTS {
            return Err(IngestError::TooLarge);
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

    /// What each thread counted, for [`gather`](crate::words::gather).
    pub fn into_shares(self) -> Vec<Words> {
        self.shares
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

    #[test]
    fn more_chunks_than_there_are_places_for() {
        let splitter = Splitter::new(GPT4_PATTERN).unwrap();
        let progress = Progress::default();
        let mut ingest = Ingest::new(&splitter, 1.0, &progress);
        // The same chunk again takes no place.
        for _ in 0..3 {
            ingest.add_texts(&["a".repeat(MAX_SLOTS / 2)]).unwrap();
        }
        let result = ingest.add_texts(&["b".repeat(MAX_SLOTS / 2)]);
        assert!(matches!(result, Err(IngestError::TooLarge)));
    }
}
