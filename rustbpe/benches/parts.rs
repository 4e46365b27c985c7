//! `cargo bench`: how long each part takes on made-up Chinese text, with all threads.
//!
//! The comparison with other trainers is `benchmarks/bpe.py`.

use divan::{counter::BytesCount, Bencher};
use rayon::prelude::*;
use rustbpe::encoder::Encoder;
use rustbpe::ingest::Ingest;
use rustbpe::progress::Progress;
use rustbpe::random::Random;
use rustbpe::splitter::{Splitter, GPT4_PATTERN};
use rustbpe::token::{Pair, BYTES};
use rustbpe::trainer;

/// Lines of clauses of words; some words and characters are much more frequent than others.
fn texts() -> Vec<String> {
    let mut random = Random::new(1);
    let mut skewed = |n: usize| {
        let share = random.below(1 << 20) as f64 / f64::from(1 << 20);
        (share.powi(4) * n as f64) as usize
    };
    let words: Vec<String> = (0..50_000)
        .map(|i| {
            let letter = |_| char::from_u32(0x4E00 + skewed(5000) as u32 * 4).expect("a character");
            (0..1 + (i % 7).min(2)).map(letter).collect()
        })
        .collect();
    let mut line = || -> String {
        let clause = |i| {
            let words = (0..1 + i % 5).map(|_| words[skewed(words.len())].as_str());
            words.collect::<String>() + ","
        };
        (0..40).map(clause).collect()
    };
    (0..12_000).map(|_| line()).collect()
}

fn size(texts: &[String]) -> BytesCount {
    BytesCount::of_many::<u8>(texts.iter().map(String::len).sum())
}

fn train(texts: &[String], vocab_size: usize) -> Vec<Pair> {
    let splitter = Splitter::new(GPT4_PATTERN).expect("a valid pattern");
    let progress = Progress::default();
    let mut ingest = Ingest::new(&splitter, 1.0, &progress);
    ingest.add_texts(texts).expect("nothing to fail");
    trainer::train(ingest.finish(), vocab_size, &progress).expect("nobody stops it")
}

fn split(bencher: Bencher, splitter: &Splitter) {
    let texts = texts();
    bencher.counter(size(&texts)).bench(|| {
        let count = |text: &String| {
            let mut chunks = 0;
            splitter.split(text, |_, _| chunks += 1).expect("a match");
            chunks
        };
        texts.par_iter().map(count).sum::<usize>()
    });
}

#[divan::bench(sample_count = 10)]
fn split_by_hand(bencher: Bencher) {
    split(bencher, &Splitter::new(GPT4_PATTERN).expect("valid"));
}

#[divan::bench(sample_count = 3)]
fn split_by_regex(bencher: Bencher) {
    split(bencher, &Splitter::by_regex(GPT4_PATTERN).expect("valid"));
}

#[divan::bench(sample_count = 10)]
fn ingest(bencher: Bencher) {
    let texts = texts();
    bencher.counter(size(&texts)).bench(|| train(&texts, BYTES));
}

#[divan::bench(sample_count = 10, args = [1024, 6391, 65536])]
fn train_to(bencher: Bencher, vocab_size: usize) {
    let texts = texts();
    bencher
        .counter(size(&texts))
        .bench(|| train(&texts, vocab_size));
}

#[divan::bench(sample_count = 10)]
fn encode(bencher: Bencher) {
    let texts = texts();
    let encoder = Encoder::new(&train(&texts, 6391));
    let splitter = Splitter::new(GPT4_PATTERN).expect("valid");
    bencher.counter(size(&texts)).bench(|| {
        let encode = |text: &String| {
            let mut ids = Vec::new();
            let chunk = |start: usize, end: usize| {
                encoder.encode_chunk(&text.as_bytes()[start..end], &mut ids);
            };
            splitter.split(text, chunk).expect("a match");
            ids.len()
        };
        texts.par_iter().map(encode).sum::<usize>()
    });
}

fn main() {
    divan::main();
}
