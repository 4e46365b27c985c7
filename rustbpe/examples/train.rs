//! `cargo run --release --example train -- FILE VOCAB_SIZE [THREADS] [OUT]`: the merges of a file.
//! Prints what it took as JSON, for `benchmarks/bpe.py --ablation`.

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
        trainer::train(ingest.finish(), vocab_size, &progress).expect("nobody stops it")
    });
    let seconds = started.elapsed().as_secs_f64();
    let megabytes = peak_memory().map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    println!(r#"{{"seconds": {seconds}, "megabytes": {megabytes}}}"#);
    if let Some(out) = args.get(4) {
        let lines: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        std::fs::write(out, lines.concat()).expect("a place to write");
    }
}

/// Known on Linux only.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
