//! Texts and files → words, with all threads.
//!
//! Memory grows with the distinct chunks, not with the text: a file is read block by block, and
//! each thread counts its chunks into a [`Collector`] of its own.

use rayon::prelude::*;
use rustc_hash::FxBuildHasher;
use std::fmt;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;

use crate::arena::{gather, Collector, Words};
use crate::progress::{Progress, Stopped};
use crate::splitter::{SplitError, Splitter};

/// Why a text could not be taken in.
#[derive(Debug)]
pub enum IngestError {
    Split(SplitError),
    Io(PathBuf, io::Error),
    NotUtf8 { path: PathBuf, line: u64 },
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
/// Bytes of a file that a thread takes at a time.
const BLOCK: usize = 1 << 19;

/// Counts chunks. Which thread meets which text makes no difference to the words.
pub struct Ingest<'a> {
    splitter: &'a Splitter,
    sample: f64,
    progress: &'a Progress,
    /// One for each thread.
    collectors: Vec<Collector>,
    full: Vec<Collector>,
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
            collectors: (0..threads).map(|_| Collector::default()).collect(),
            full: Vec::new(),
        }
    }

    pub fn add_texts<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<(), IngestError> {
        let taken = AtomicUsize::new(0);
        let blocks = blocks(texts);
        let (splitter, sample, progress) = (self.splitter, self.sample, self.progress);
        self.collectors.par_iter_mut().try_for_each(|collector| {
            while let Some(block) = blocks.get(taken.fetch_add(1, Relaxed)) {
                for text in *block {
                    add(collector, splitter, sample, text.as_ref())?;
                    progress.add_bytes(text.as_ref().len())?;
                }
                collector.tidy();
            }
            Ok::<_, IngestError>(())
        })?;
        self.set_full_aside();
        Ok(())
    }

    /// Adds a file of UTF-8 text. Each line, with its line end, is a text.
    pub fn add_file(&mut self, path: &Path) -> Result<(), IngestError> {
        let io_error = |error| IngestError::Io(path.to_owned(), error);
        let blocks = Mutex::new(Blocks::new(File::open(path).map_err(io_error)?));
        let (splitter, sample, progress) = (self.splitter, self.sample, self.progress);
        loop {
            let reached_the_end = AtomicUsize::new(0);
            self.collectors.par_iter_mut().try_for_each(|collector| {
                let mut block = Vec::new();
                while !collector.is_full() {
                    let lines_before = {
                        let mut blocks = blocks.lock().expect("no panic while reading");
                        blocks.read(&mut block).map_err(io_error)?
                    };
                    if block.is_empty() {
                        reached_the_end.store(1, Relaxed);
                        break;
                    }
                    let text = std::str::from_utf8(&block).map_err(|error| {
                        let lines = count_lines(&block[..error.valid_up_to()]);
                        IngestError::NotUtf8 {
                            path: path.to_owned(),
                            line: lines_before + lines + 1,
                        }
                    })?;
                    for line in text.split_inclusive('\n') {
                        add(collector, splitter, sample, line)?;
                    }
                    collector.tidy();
                    progress.add_bytes(block.len())?;
                }
                Ok::<_, IngestError>(())
            })?;
            self.set_full_aside();
            if reached_the_end.into_inner() > 0 {
                return Ok(());
            }
        }
    }

    fn set_full_aside(&mut self) {
        for collector in &mut self.collectors {
            if collector.is_full() {
                self.full.push(std::mem::take(collector));
            }
        }
    }

    pub fn into_collectors(mut self) -> Vec<Collector> {
        self.collectors.append(&mut self.full);
        self.collectors
    }

    pub fn finish(self) -> Vec<Words> {
        gather(self.into_collectors())
    }
}

#[inline(always)]
fn add(
    collector: &mut Collector,
    splitter: &Splitter,
    sample: f64,
    text: &str,
) -> Result<(), SplitError> {
    if sample < 1.0 && hash(text) >= sample {
        return Ok(());
    }
    splitter.split(text, |start, end| collector.add(text, start, end))
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

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// A file in blocks of whole lines.
struct Blocks {
    file: File,
    /// The beginning of a line whose end is not read yet.
    rest: Vec<u8>,
    lines: u64,
}

impl Blocks {
    fn new(file: File) -> Self {
        Self {
            file,
            rest: Vec::new(),
            lines: 0,
        }
    }

    /// Fills `block`; it is empty at the end of the file. Returns the number of lines before it.
    fn read(&mut self, block: &mut Vec<u8>) -> io::Result<u64> {
        block.clear();
        block.append(&mut self.rest);
        loop {
            // A line longer than a block: read as much again, so that it is not searched n² times.
            let before = block.len();
            let n = BLOCK.max(before) as u64;
            block.reserve(n as usize);
            let read = self.file.by_ref().take(n).read_to_end(block)?;
            if read == 0 {
                break;
            }
            if let Some(at) = block[before..].iter().rposition(|&byte| byte == b'\n') {
                self.rest.extend_from_slice(&block[before + at + 1..]);
                block.truncate(before + at + 1);
                break;
            }
        }
        let lines_before = self.lines;
        self.lines += count_lines(block);
        Ok(lines_before)
    }
}
