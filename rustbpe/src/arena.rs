//! Chunks → words in an arena.
//!
//! Millions of small vectors would cost more than the text itself. So all words lie end to end in
//! one long array, the *arena*, with a separator after each; and words that occur equally often lie
//! together, so that a word's count is stored once for a whole *region* of the arena.
//!
//! Before any merge a character is one [`Unit`] of 16 bits, half or a third of its bytes: Chinese
//! text is read, stored and compared at one unit a character.
//!
//! Equal chunks are one word with a count. Short chunks are found again in a hash table with
//! their bytes inside. Long ones (in Chinese a whole clause is one chunk, and seldom comes twice)
//! just pile up, and are compared with each other only when that is worthwhile.

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::Hasher;
use std::ops::Range;

/// A character of the Basic Multilingual Plane is its own code point. The surrogates, which are no
/// characters, stand for everything else.
pub type Unit = u16;

/// Ends a word.
pub const SEPARATOR: Unit = 0xD800;
/// Characters beyond U+FFFF are numbered from here as they are met...
const FIRST_ASTRAL: Unit = 0xD801;
/// ...up to here, and spelled in bytes when the numbers are used up.
const RAW_BYTE: Unit = 0xDF00;
/// How many characters beyond U+FFFF have a unit of their own.
const MAX_ASTRAL: usize = (RAW_BYTE + 0x80 - FIRST_ASTRAL) as usize;

/// A stretch of the arena, from the end of the one before, whose words all occur `weight` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub end: u32,
    pub weight: u64,
}

/// One thread's share of the words.
#[derive(Debug, Default)]
pub struct Words {
    /// A separator, then each word and a separator.
    pub units: Vec<Unit>,
    pub regions: Vec<Region>,
    pub alphabet: Alphabet,
}

/// What the units from [`FIRST_ASTRAL`] on mean.
#[derive(Debug, Default)]
pub struct Alphabet {
    numbers: FxHashMap<char, Unit>,
    chars: Vec<char>,
    /// Some characters are spelled in bytes.
    pub has_raw_bytes: bool,
}

/// The meaning of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Separator,
    Char(char),
    Byte(u8),
}

impl Alphabet {
    fn push(&mut self, text: &str, units: &mut Vec<Unit>) {
        units.reserve(text.len());
        for c in text.chars() {
            match Unit::try_from(u32::from(c)) {
                Ok(unit) => units.push(unit),
                Err(_) => self.push_astral(c, units),
            }
        }
    }

    #[cold]
    fn push_astral(&mut self, c: char, units: &mut Vec<Unit>) {
        if let Some(&unit) = self.numbers.get(&c) {
            units.push(unit);
        } else if self.chars.len() < MAX_ASTRAL {
            let unit = FIRST_ASTRAL + self.chars.len() as Unit;
            self.numbers.insert(c, unit);
            self.chars.push(c);
            units.push(unit);
        } else {
            self.has_raw_bytes = true;
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).bytes();
            units.extend(bytes.map(|byte| RAW_BYTE + Unit::from(byte)));
        }
    }

    /// None: a unit that stands for nothing here.
    pub fn meaning(&self, unit: Unit) -> Option<Meaning> {
        Some(match unit {
            SEPARATOR => Meaning::Separator,
            FIRST_ASTRAL..=0xDF7F => {
                Meaning::Char(*self.chars.get((unit - FIRST_ASTRAL) as usize)?)
            }
            0xDF80..=0xDFFF => Meaning::Byte((unit - RAW_BYTE) as u8),
            _ => Meaning::Char(char::from_u32(u32::from(unit))?),
        })
    }
}

/// A chunk of at most [`ShortWord::MAX`] bytes: the bytes from the low end up, the length on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShortWord([u64; 2]);

impl ShortWord {
    const MAX: usize = 15;

    #[inline(always)]
    fn new(text: &[u8], start: usize, end: usize) -> Self {
        let length = end - start;
        let bytes = match text.get(start..start + 16) {
            Some(bytes) => u128::from_le_bytes(bytes.try_into().expect("16 bytes")),
            None => {
                let mut bytes = [0; 16];
                bytes[..length].copy_from_slice(&text[start..end]);
                u128::from_le_bytes(bytes)
            }
        };
        let bytes = bytes & ((1 << (8 * length)) - 1) | (length as u128) << 120;
        Self([bytes as u64, (bytes >> 64) as u64])
    }

    fn with_text<R>(self, f: impl FnOnce(&str) -> R) -> R {
        let bytes = (u128::from(self.0[1]) << 64 | u128::from(self.0[0])).to_le_bytes();
        let text = &bytes[..bytes[15] as usize];
        f(std::str::from_utf8(text).expect("chunks end at characters"))
    }

    /// Well mixed in its upper half.
    #[inline(always)]
    fn hash(self) -> u64 {
        let [low, high] = self.0;
        let product =
            u128::from(low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xA076_1D64_78BD_642F);
        product as u64 ^ (product >> 64) as u64
    }
}

/// Counts of short words: a hash table with open addressing. A count of 0 marks a free entry.
#[derive(Debug)]
struct ShortCounts {
    /// A power of two of them.
    entries: Vec<(ShortWord, u64)>,
    used: usize,
}

impl ShortCounts {
    const FREE: (ShortWord, u64) = (ShortWord([0; 2]), 0);

    fn with_room_for(words: usize) -> Self {
        let size = (words + words / 2).next_power_of_two().max(1 << 12);
        Self {
            entries: vec![Self::FREE; size],
            used: 0,
        }
    }

    #[inline(always)]
    fn add(&mut self, word: ShortWord, n: u64) {
        let mask = self.entries.len() - 1;
        let mut at = word.hash() as usize & mask;
        loop {
            let entry = &mut self.entries[at];
            if entry.0 == word {
                entry.1 += n;
                return;
            }
            if entry.1 == 0 {
                *entry = (word, n);
                break;
            }
            at = (at + 1) & mask;
        }
        self.used += 1;
        if self.used * 4 > self.entries.len() * 3 {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::with_room_for(self.entries.len());
        for &(word, n) in self.iter() {
            larger.add(word, n);
        }
        *self = larger;
    }

    fn iter(&self) -> impl Iterator<Item = &(ShortWord, u64)> {
        self.entries.iter().filter(|entry| entry.1 > 0)
    }
}

/// How many units of long chunks pile up before they are compared.
const COLLAPSE_AT: usize = 1 << 25;
/// A piece of arena holds no more units than this: at four tokens each, a place fits in 32 bits.
const MAX_UNITS: usize = 1 << 29;

/// Takes chunks in and makes words of them; each thread has its own.
#[derive(Debug)]
pub struct Collector {
    short: ShortCounts,
    /// A separator, then each long word and a separator.
    long: Vec<Unit>,
    /// The counts of the first long words; the others count 1.
    long_counts: Vec<u64>,
    collapse_at: usize,
    alphabet: Alphabet,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            short: ShortCounts::with_room_for(0),
            long: vec![SEPARATOR],
            long_counts: Vec::new(),
            collapse_at: COLLAPSE_AT,
            alphabet: Alphabet::default(),
        }
    }
}

impl Collector {
    /// Adds the chunk `text[start..end]`.
    #[inline(always)]
    pub fn add(&mut self, text: &str, start: usize, end: usize) {
        if end - start <= ShortWord::MAX {
            self.short
                .add(ShortWord::new(text.as_bytes(), start, end), 1);
        } else {
            self.alphabet.push(&text[start..end], &mut self.long);
            self.long.push(SEPARATOR);
        }
    }

    /// To be called now and then. Memory stays within a constant factor of the distinct chunks.
    pub fn tidy(&mut self) {
        if self.long.len() >= self.collapse_at {
            self.collapse();
            self.collapse_at = self.long.len().max(COLLAPSE_AT / 2) * 2;
        }
    }

    /// No more chunks should be added: the rest belongs into another collector.
    pub fn is_full(&self) -> bool {
        self.long.len() > MAX_UNITS
    }

    fn is_empty(&self) -> bool {
        self.short.used == 0 && self.long.len() == 1
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.short.entries.len() * size_of::<(ShortWord, u64)>()
            + self.long.capacity() * size_of::<Unit>()
            + self.long_counts.capacity() * size_of::<u64>()
    }

    /// Makes equal long words one.
    fn collapse(&mut self) {
        let mut counts = Vec::new();
        let mut kept_end = 1;
        // hash → the last word kept with it, and so on through `before`
        let mut kept: Vec<Range<usize>> = Vec::new();
        let mut by_hash: FxHashMap<u64, u32> = FxHashMap::default();
        let mut before: Vec<Option<u32>> = Vec::new();
        let mut old_counts = std::mem::take(&mut self.long_counts).into_iter();
        let mut start = 1;
        while start < self.long.len() {
            let length = word_length(&self.long[start..]);
            let n = old_counts.next().unwrap_or(1);
            let hash = hash(&self.long[start..start + length]);
            let first = by_hash.get(&hash).copied();
            let mut same = first;
            while let Some(at) = same {
                if self.long[kept[at as usize].clone()] == self.long[start..start + length] {
                    break;
                }
                same = before[at as usize];
            }
            match same {
                Some(at) => counts[at as usize] += n,
                None => {
                    by_hash.insert(hash, kept.len() as u32);
                    before.push(first);
                    kept.push(kept_end..kept_end + length);
                    counts.push(n);
                    self.long.copy_within(start..start + length + 1, kept_end);
                    kept_end += length + 1;
                }
            }
            start += length + 1;
        }
        self.long.truncate(kept_end);
        self.long.shrink_to_fit();
        self.long_counts = counts;
    }

    /// Whether at least an eighth of the long words are repeats, judged by a sample: those whose
    /// hash happens to end in six zeros, so that equal words are all in it or none.
    fn is_repetitive(&self) -> bool {
        let mut sample = Vec::new();
        let mut start = 1;
        while start < self.long.len() {
            let length = word_length(&self.long[start..]);
            let hash = hash(&self.long[start..start + length]);
            if hash % 64 == 0 {
                sample.push(hash);
            }
            start += length + 1;
        }
        let all = sample.len();
        sample.sort_unstable();
        sample.dedup();
        // Few different words may all miss the sample.
        all == 0 || sample.len() * 8 < all * 7
    }

    /// The long words of this collector and these short ones, by count.
    fn into_words(mut self, short: ShortCounts) -> Words {
        if self.is_repetitive() {
            self.collapse();
        }
        let mut units = self.long;
        let mut alphabet = self.alphabet;

        // Words that occur once stay where they are or come next; the others wait in `frequent`.
        enum Frequent {
            Short(ShortWord),
            Long(Range<usize>),
        }
        let mut frequent: Vec<(u64, Frequent)> = Vec::new();
        let mut moved: Vec<Unit> = Vec::new();
        let (mut start, mut end) = (1, 1);
        for &count in &self.long_counts {
            let length = word_length(&units[start..]);
            if count == 1 {
                units.copy_within(start..start + length + 1, end);
                end += length + 1;
            } else {
                let at = moved.len();
                moved.extend_from_slice(&units[start..start + length]);
                frequent.push((count, Frequent::Long(at..moved.len())));
            }
            start += length + 1;
        }
        units.drain(end..start);
        for &(word, count) in short.iter() {
            if count == 1 {
                word.with_text(|text| alphabet.push(text, &mut units));
                units.push(SEPARATOR);
            } else {
                frequent.push((count, Frequent::Short(word)));
            }
        }
        drop(short);
        let end_of = |units: &Vec<Unit>| u32::try_from(units.len()).expect("MAX_UNITS is less");
        let mut regions = vec![Region {
            end: end_of(&units),
            weight: 1,
        }];
        frequent.sort_unstable_by_key(|&(count, _)| count);
        for (weight, word) in frequent {
            match word {
                Frequent::Short(word) => word.with_text(|text| alphabet.push(text, &mut units)),
                Frequent::Long(range) => units.extend_from_slice(&moved[range]),
            }
            units.push(SEPARATOR);
            let end = end_of(&units);
            match regions.last_mut() {
                Some(region) if region.weight == weight => region.end = end,
                _ => regions.push(Region { end, weight }),
            }
        }
        Words {
            units,
            regions,
            alphabet,
        }
    }
}

fn word_length(units: &[Unit]) -> usize {
    let length = units.iter().position(|&unit| unit == SEPARATOR);
    length.expect("a separator after each word")
}

fn hash(word: &[Unit]) -> u64 {
    let mut hasher = FxHasher::default();
    let mut pieces = word.chunks_exact(4);
    for piece in &mut pieces {
        let [a, b, c, d] = [piece[0], piece[1], piece[2], piece[3]].map(u64::from);
        hasher.write_u64(a | b << 16 | c << 32 | d << 48);
    }
    for &unit in pieces.remainder() {
        hasher.write_u16(unit);
    }
    hasher.finish()
}

/// The words of all collectors, in as many shares; none for a collector that met no text.
///
/// Two threads have met much the same short words. So these are dealt out anew by their hash, and
/// each share sums the counts of its own.
pub fn gather(mut collectors: Vec<Collector>) -> Vec<Words> {
    collectors.retain(|collector| !collector.is_empty());
    let shares = collectors.len();
    if shares == 1 {
        let only = collectors.into_iter().map(|mut collector| {
            let short = std::mem::replace(&mut collector.short, ShortCounts::with_room_for(0));
            collector.into_words(short)
        });
        return only.collect();
    }
    let (rest, dealt): (Vec<Collector>, Vec<Vec<Vec<_>>>) = collectors
        .into_par_iter()
        .map(|mut collector| {
            let short = std::mem::replace(&mut collector.short, ShortCounts::with_room_for(0));
            let mut hands = vec![Vec::with_capacity(short.used / shares * 9 / 8); shares];
            for &(word, n) in short.iter() {
                hands[(word.hash() >> 40) as usize % shares].push((word, n));
            }
            (collector, hands)
        })
        .unzip();
    let mut dealt: Vec<_> = dealt.into_iter().map(Vec::into_iter).collect();
    let hands: Vec<Vec<Vec<(ShortWord, u64)>>> = (0..shares)
        .map(|_| dealt.iter_mut().filter_map(Iterator::next).collect())
        .collect();
    rest.into_par_iter()
        .zip(hands)
        .map(|(collector, hands)| {
            let most = hands.iter().map(Vec::len).max().unwrap_or(0);
            let mut short = ShortCounts::with_room_for(most);
            for (word, n) in hands.into_iter().flatten() {
                short.add(word, n);
            }
            collector.into_words(short)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    fn counts(words: &[Words]) -> BTreeMap<Vec<u8>, u64> {
        let mut counts = BTreeMap::new();
        for share in words {
            let mut start = 1;
            assert_eq!(share.units[0], SEPARATOR);
            for region in &share.regions {
                while start < region.end as usize {
                    let length = word_length(&share.units[start..]);
                    let mut word = Vec::new();
                    for &unit in &share.units[start..start + length] {
                        match share.alphabet.meaning(unit).unwrap() {
                            Meaning::Char(c) => word.extend(c.to_string().bytes()),
                            Meaning::Byte(byte) => word.push(byte),
                            Meaning::Separator => unreachable!(),
                        }
                    }
                    *counts.entry(word).or_default() += region.weight;
                    start += length + 1;
                }
            }
            assert_eq!(start, share.units.len());
        }
        counts
    }

    /// Whatever the shares, collapses and lengths: the words are the chunks, counted.
    #[test]
    fn words_are_the_counted_chunks() {
        let mut random = Random::new(1);
        for shares in 1..4 {
            let mut collectors: Vec<Collector> =
                (0..shares).map(|_| Collector::default()).collect();
            let mut expected = BTreeMap::new();
            for round in 0..2000 {
                let chunk: String = match random.below(3) {
                    0 => (0..1 + random.below(3))
                        .map(|_| ['a', '好', '👍'][random.below(3)])
                        .collect(),
                    1 => "long chunk number ".to_owned() + &random.below(300).to_string(),
                    _ => "长".repeat(5 + random.below(40)),
                };
                let text = format!("<{chunk}>");
                collectors[round % shares].add(&text, 1, 1 + chunk.len());
                *expected.entry(chunk.into_bytes()).or_default() += 1;
                if random.below(500) == 0 {
                    collectors[random.below(shares)].collapse();
                }
            }
            assert_eq!(counts(&gather(collectors)), expected);
        }
    }

    #[test]
    fn more_characters_than_units() {
        let text: String = ('\u{20000}'..'\u{21000}').collect();
        let mut collector = Collector::default();
        collector.add(&text, 0, text.len());
        let words = gather(vec![collector]);
        assert!(words[0].alphabet.has_raw_bytes);
        assert_eq!(counts(&words), [(text.into_bytes(), 1)].into());
    }

    #[test]
    fn repeats_of_long_words_take_no_memory() {
        let mut collector = Collector::default();
        let text = "这是一行很长很长的文字".repeat(9);
        for _ in 0..(3 * COLLAPSE_AT / text.chars().count()) {
            collector.add(&text, 0, text.len());
            collector.tidy();
        }
        assert!(collector.memory() < 6 * COLLAPSE_AT);
        assert_eq!(
            gather(vec![collector])[0].units.len(),
            text.chars().count() + 2
        );
    }
}
