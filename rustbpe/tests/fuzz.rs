//! Differential fuzzing: the trainer beside the definition, on random texts.
//!
//! `cargo test` runs a few hundred cases; a long run is
//! `FUZZ_CASES=1000000 cargo test --release --test fuzz`. `FUZZ_SEED` starts elsewhere.

use rustbpe::ingest::Ingest;
use rustbpe::progress::Progress;
use rustbpe::random::Random;
use rustbpe::splitter::{Splitter, GPT4_PATTERN, NANOCHAT_PATTERN};
use rustbpe::token::{Pair, Token, BYTES};
use rustbpe::trainer;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// The definition, word for word: count every pair, merge the best, start again.
fn reference(texts: &[String], splitter: &Splitter, n_merges: usize) -> Vec<Pair> {
    let mut chunks: BTreeMap<&str, u64> = BTreeMap::new();
    for text in texts {
        splitter
            .split(text, |start, end| {
                *chunks.entry(&text[start..end]).or_default() += 1
            })
            .unwrap();
    }
    let mut words: Vec<(Vec<Token>, u64)> = chunks
        .iter()
        .map(|(chunk, &n)| (chunk.bytes().map(Token::from).collect(), n))
        .collect();
    let mut merges = Vec::new();
    while merges.len() < n_merges {
        let mut counts: HashMap<Pair, u64> = HashMap::new();
        for (tokens, n) in &words {
            for pair in tokens.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += n;
            }
        }
        let best = counts
            .iter()
            .max_by_key(|&(&pair, &count)| (count, Reverse(pair)));
        let Some((&pair, _)) = best else { break };
        let token = (BYTES + merges.len()) as Token;
        merges.push(pair);
        for (tokens, _) in &mut words {
            let mut at = 0;
            while at + 1 < tokens.len() {
                if (tokens[at], tokens[at + 1]) == pair {
                    tokens.splice(at..at + 2, [token]);
                }
                at += 1;
            }
        }
    }
    merges
}

const ALPHABETS: &[&str] = &[
    "a",
    "ab",
    "aab ",
    "abc ABC'1\n",
    "一丁七万丈三上下",
    "的一是不了在人有我他这中大来上个国。,",
    "aé好👍",
    "👍👎👏🙏😀😁🎉🎊𠀀𠀁",
    "\0\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
    "'sS ſ'll've're 123\r\n\t",
];

fn random_texts(random: &mut Random) -> Vec<String> {
    let alphabet: Vec<char> = ALPHABETS[random.below(ALPHABETS.len())].chars().collect();
    let used = 1 + random.below(alphabet.len());
    let longest = [4, 20, 100, 400][random.below(4)];
    let pick = |random: &mut Random| {
        // The product of two makes some characters frequent and some rare.
        alphabet[random.below(used) * random.below(used) / used]
    };
    let mut texts: Vec<String> = (0..1 + random.below(12))
        .map(|_| {
            let length = random.below(longest);
            if random.below(4) == 0 {
                pick(random).to_string().repeat(length)
            } else {
                (0..length).map(|_| pick(random)).collect()
            }
        })
        .collect();
    // Repeats give words that are counted more than once.
    for _ in 0..random.below(8) {
        let text = texts[random.below(texts.len())].clone();
        texts.push(text);
    }
    texts
}

#[test]
fn merges_equal_the_definition() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect(name))
    };
    let (cases, seed) = (number("FUZZ_CASES", 300), number("FUZZ_SEED", 0));
    let splitters = [GPT4_PATTERN, NANOCHAT_PATTERN, r"[^\n]+", r"\S+|\s+"]
        .map(|pattern| Splitter::new(pattern).unwrap());
    let pools = [1, 2, 3].map(|n| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n);
        pool.build().unwrap()
    });
    for case in seed..seed + cases {
        let mut random = Random::new(case);
        let texts = random_texts(&mut random);
        let splitter = &splitters[random.below(splitters.len())];
        let n_merges = random.below(80);
        let threads = random.below(pools.len());
        let merges = pools[threads].install(|| {
            let progress = Progress::default();
            let mut ingest = Ingest::new(splitter, 1.0, &progress);
            ingest.add_texts(&texts).unwrap();
            trainer::train(ingest.finish(), BYTES + n_merges, &progress).unwrap()
        });
        assert_eq!(
            merges,
            reference(&texts, splitter, n_merges),
            "case {case}: {texts:?}"
        );
    }
}
