//! `cargo run --release --example train -- FILE VOCAB_SIZE [THREADS] [OUT]`: the merges of a file.

use rustbpe::{ingest::Ingest, progress::Progress, splitter, trainer};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let vocab_size = args[2].parse().expect("VOCAB_SIZE is a number");
    let threads = args
        .get(3)
        .map_or(0, |n| n.parse().expect("THREADS is a number"));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    let started = Instant::now();
    let merges = pool.build().expect("threads").install(|| {
        let splitter = splitter::Splitter::new(splitter::GPT4_PATTERN).expect("a valid pattern");
        let progress = Progress::default();
        let mut ingest = Ingest::new(&splitter, 1.0, &progress);
        ingest.add_file(args[1].as_ref()).expect("a text file");
        eprintln!("read {:?}", started.elapsed());
        let words = ingest.finish();
        eprintln!("gathered {:?}", started.elapsed());
        trainer::train(words, vocab_size, &progress).expect("nobody stops it")
    });
    eprintln!("{} merges in {:?}", merges.len(), started.elapsed());
    if let Some(out) = args.get(4) {
        let lines: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        std::fs::write(out, lines.concat()).expect("a place to write");
    }
}
