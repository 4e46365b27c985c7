//! How far training is, for another thread to read, and its way to say stop.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    merges: AtomicUsize,
    stop: AtomicBool,
}

/// Someone called [`Progress::stop`].
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

impl Progress {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub fn merges(&self) -> usize {
        self.merges.load(Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(crate) fn add_bytes(&self, n: usize) -> Result<(), Stopped> {
        self.bytes.fetch_add(n as u64, Relaxed);
        self.go_on()
    }

    pub(crate) fn check(&self, merges: usize) -> Result<(), Stopped> {
        self.merges.store(merges, Relaxed);
        self.go_on()
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if self.stop.load(Relaxed) {
            Err(Stopped)
        } else {
            Ok(())
        }
    }
}
