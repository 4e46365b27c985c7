//! Text → chunks. A merge never crosses the border between two chunks.
//!
//! GPT-4's pattern, and nanochat's, which differs in one number, are matched by hand-written code:
//! each character is of one of five classes, and the class of one character, seldom of two, says
//! which alternative of the pattern matches. That is about twenty times as fast as a regex engine,
//! and needs no backtracking, so no text is too long for it. Every other pattern goes to
//! `fancy-regex`.
//!
//! The classes come from the tables of the very regex engine that stands behind `fancy-regex`, so
//! the two ways cannot disagree about Unicode; the tests compare them over all of it.

use fancy_regex::Regex;
use rustc_hash::FxHashMap;
use std::fmt;
use std::sync::OnceLock;

use crate::ablation::without;

/// The split pattern of GPT-4, the default.
///
/// Contractions; a word with at most one leading character that is no letter; up to three digits;
/// punctuation with one leading space; line ends; other white space.
pub const GPT4_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);

/// nanochat's: at most two digits in a chunk.
pub const NANOCHAT_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}|",
    r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);

/// A compiled split pattern.
#[derive(Debug)]
pub struct Splitter {
    pattern: String,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    ByHand {
        classes: &'static Classes,
        max_digits: usize,
    },
    Regex(Box<Regex>),
}

/// The pattern does not compile, or gave up on a text.
#[derive(Debug)]
pub enum SplitError {
    Invalid(Box<fancy_regex::Error>),
    /// Raised while matching, near this byte of the text: the backtracking limit, usually.
    Failed {
        at: usize,
        error: Box<fancy_regex::Error>,
    },
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => write!(f, "invalid split pattern: {error}"),
            Self::Failed { at, error } => {
                write!(
                    f,
                    "the split pattern failed near byte {at} of a text: {error}"
                )
            }
        }
    }
}

impl std::error::Error for SplitError {}

impl Splitter {
    pub fn new(pattern: &str) -> Result<Self, SplitError> {
        let max_digits = match pattern {
            _ if without("splitter") => return Self::by_regex(pattern),
            GPT4_PATTERN => 3,
            NANOCHAT_PATTERN => 2,
            _ => return Self::by_regex(pattern),
        };
        Ok(Self {
            pattern: pattern.to_owned(),
            engine: Engine::ByHand {
                classes: Classes::get(),
                max_digits,
            },
        })
    }

    /// A splitter that uses the regex engine whatever the pattern.
    pub fn by_regex(pattern: &str) -> Result<Self, SplitError> {
        let regex = Regex::new(pattern).map_err(|error| SplitError::Invalid(Box::new(error)))?;
        Ok(Self {
            pattern: pattern.to_owned(),
            engine: Engine::Regex(Box::new(regex)),
        })
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Calls `visit` with the start and end of each chunk of `text`, in order. Characters that the
    /// pattern does not match are in no chunk, as with tiktoken.
    pub fn split(&self, text: &str, mut visit: impl FnMut(usize, usize)) -> Result<(), SplitError> {
        match &self.engine {
            Engine::ByHand {
                classes,
                max_digits,
            } => {
                let scanner = Scanner {
                    text: text.as_bytes(),
                    classes,
                };
                let mut start = 0;
                while start < text.len() {
                    let end = scanner.chunk_end(start, *max_digits);
                    visit(start, end);
                    start = end;
                }
            }
            Engine::Regex(regex) => {
                let mut at = 0;
                for found in regex.find_iter(text) {
                    let found = found.map_err(|error| SplitError::Failed {
                        at,
                        error: Box::new(error),
                    })?;
                    at = found.end();
                    if found.start() < found.end() {
                        visit(found.start(), found.end());
                    }
                }
            }
        }
        Ok(())
    }
}

type Class = u8;
/// None of the others: punctuation, symbols, marks, controls.
const OTHER: Class = 0;
/// `\p{L}`
const LETTER: Class = 1;
/// `\p{N}`
const NUMBER: Class = 2;
/// `\s`, less the two below
const SPACE: Class = 3;
/// `[\r\n]`
const LINE_END: Class = 4;

/// Characters to a block of the two-level table.
const BLOCK: usize = 128;

/// The class of every character: `blocks[index[c / BLOCK]][c % BLOCK]`. Equal blocks are stored
/// once, which makes it small enough for the first-level cache.
#[derive(Debug)]
struct Classes {
    index: Vec<u8>,
    blocks: Vec<[Class; BLOCK]>,
}

impl Classes {
    fn get() -> &'static Self {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(Self::from_regex_engine)
    }

    fn from_regex_engine() -> Self {
        let mut flat = vec![OTHER; char::MAX as usize + 1];
        for (pattern, class) in [
            (r"\p{L}", LETTER),
            (r"\p{N}", NUMBER),
            (r"\s", SPACE),
            (r"[\r\n]", LINE_END),
        ] {
            let hir = regex_syntax::parse(pattern).expect("a valid class");
            let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class_set)) =
                hir.kind()
            else {
                unreachable!("{pattern} is a class of characters");
            };
            for range in class_set.ranges() {
                flat[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        let mut classes = Self {
            index: Vec::new(),
            blocks: Vec::new(),
        };
        let mut numbers: FxHashMap<&[Class], u8> = FxHashMap::default();
        for block in flat.chunks_exact(BLOCK) {
            let number = *numbers.entry(block).or_insert_with(|| {
                let block = block.try_into().expect("BLOCK characters");
                classes.blocks.push(block);
                u8::try_from(classes.blocks.len() - 1).expect("at most 256 different blocks")
            });
            classes.index.push(number);
        }
        classes
    }

    #[inline(always)]
    fn of(&self, c: u32) -> Class {
        let c = c as usize;
        self.blocks[self.index[c / BLOCK] as usize][c % BLOCK]
    }
}

/// Matches the pattern at a place in a text.
struct Scanner<'a> {
    /// UTF-8; places are always borders of characters.
    text: &'a [u8],
    classes: &'a Classes,
}

impl Scanner<'_> {
    /// The class and the length in bytes of the character at `at`.
    #[inline(always)]
    fn class_at(&self, at: usize) -> (Class, usize) {
        let byte = |i: usize| u32::from(self.text[at + i] & 0x3F);
        match self.text[at] {
            ascii @ 0..=0x7F => (self.classes.of(u32::from(ascii)), 1),
            lead @ 0x80..=0xDF => (self.classes.of(u32::from(lead & 0x1F) << 6 | byte(1)), 2),
            // U+5000 to U+9FFF: Chinese characters, all letters
            0xE5..=0xE9 => (LETTER, 3),
            lead @ 0xE0..=0xEF => {
                let c = u32::from(lead & 0x0F) << 12 | byte(1) << 6 | byte(2);
                (self.classes.of(c), 3)
            }
            lead => {
                let c = u32::from(lead & 0x07) << 18 | byte(1) << 12 | byte(2) << 6 | byte(3);
                (self.classes.of(c), 4)
            }
        }
    }

    /// The end of the run of characters of `class` that starts at `at`.
    #[inline(always)]
    fn run_end(&self, mut at: usize, class: Class) -> usize {
        while at < self.text.len() {
            let (found, length) = self.class_at(at);
            if found != class {
                break;
            }
            at += length;
        }
        at
    }

    /// The end of the chunk that starts at `start`.
    #[inline(always)]
    fn chunk_end(&self, start: usize, max_digits: usize) -> usize {
        let (class, length) = self.class_at(start);
        let next = start + length;
        match class {
            // [^\r\n\p{L}\p{N}]?+\p{L}+ without its first part
            LETTER => self.run_end(next, LETTER),
            // \p{N}{1,3}
            NUMBER => self.number_end(next, max_digits - 1),
            OTHER => {
                if let Some(end) = self.contraction_end(start) {
                    return end;
                }
                match self.class_after(next) {
                    // [^\r\n\p{L}\p{N}]?+\p{L}+
                    LETTER => self.run_end(next, LETTER),
                    _ => self.punctuation_end(next),
                }
            }
            SPACE => match self.class_after(next) {
                // [^\r\n\p{L}\p{N}]?+\p{L}+
                LETTER => self.run_end(next, LETTER),
                //  ?[^\s\p{L}\p{N}]++[\r\n]*
                OTHER if self.text[start] == b' ' && next < self.text.len() => {
                    self.punctuation_end(next)
                }
                _ => self.white_space_end(start),
            },
            _ => self.white_space_end(start),
        }
    }

    /// The class of the character at `at`, `OTHER` at the end of the text.
    #[inline(always)]
    fn class_after(&self, at: usize) -> Class {
        if at < self.text.len() {
            self.class_at(at).0
        } else {
            OTHER
        }
    }

    #[inline(always)]
    fn number_end(&self, mut at: usize, max_more: usize) -> usize {
        for _ in 0..max_more {
            if at == self.text.len() {
                break;
            }
            let (class, length) = self.class_at(at);
            if class != NUMBER {
                break;
            }
            at += length;
        }
        at
    }

    /// `'(?i:[sdmt]|ll|ve|re)`. Without regard to case, `ſ` (U+017F) is an `s` too.
    fn contraction_end(&self, start: usize) -> Option<usize> {
        let rest = self.text[start..].strip_prefix(b"'")?;
        let lower = |i: usize| rest.get(i).map(u8::to_ascii_lowercase);
        let length = match (lower(0)?, lower(1)) {
            (b's' | b'd' | b'm' | b't', _) => 1,
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => 2,
            (0xC5, Some(0xBF)) => 2,
            _ => return None,
        };
        Some(start + 1 + length)
    }

    /// `[^\s\p{L}\p{N}]*[\r\n]*`
    fn punctuation_end(&self, at: usize) -> usize {
        let mut end = self.run_end(at, OTHER);
        while matches!(self.text.get(end), Some(b'\r' | b'\n')) {
            end += 1;
        }
        end
    }

    /// `\s*[\r\n]|\s+(?!\S)|\s+`
    fn white_space_end(&self, start: usize) -> usize {
        let mut at = start;
        let mut last = start;
        let mut after_line_end = None;
        while at < self.text.len() {
            let (class, length) = self.class_at(at);
            if class < SPACE {
                break;
            }
            last = at;
            at += length;
            if class == LINE_END {
                after_line_end = Some(at);
            }
        }
        if let Some(end) = after_line_end {
            end
        } else if at == self.text.len() || last == start {
            at
        } else {
            // What follows takes the last space along.
            last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn chunks<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let mut out = Vec::new();
        splitter
            .split(text, |start, end| out.push(&text[start..end]))
            .unwrap();
        out
    }

    #[test]
    fn gpt4_pattern_keeps_every_character() {
        let text = "It's 12345 o'clock,  你好,世界!\n\n  fin ";
        let found = chunks(&Splitter::new(GPT4_PATTERN).unwrap(), text);
        assert_eq!(
            found,
            [
                "It", "'s", " ", "123", "45", " o", "'clock", ",", " ", " 你好", ",世界", "!\n\n",
                " ", " fin", " "
            ]
        );
        assert_eq!(found.concat(), text);
    }

    #[test]
    fn classes_equal_the_engine_on_every_character() {
        let of_class = [r"\p{L}", r"\p{N}", r"[\s--\r\n]", r"[\r\n]"]
            .map(|pattern| Regex::new(&format!("^{pattern}$")).unwrap());
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            let scanner = Scanner {
                text: text.as_bytes(),
                classes: Classes::get(),
            };
            let expected = of_class.iter().position(|r| r.is_match(&text).unwrap());
            let expected = expected.map_or(OTHER, |at| at as Class + 1);
            assert_eq!(scanner.class_at(0), (expected, text.len()), "{c:?}");
        }
    }

    /// Both ways agree on every character in company that makes it matter.
    #[test]
    fn both_ways_agree_over_unicode() {
        for pattern in [GPT4_PATTERN, NANOCHAT_PATTERN] {
            let by_hand = Splitter::new(pattern).unwrap();
            let by_regex = Splitter::by_regex(pattern).unwrap();
            let mut text = String::new();
            for c in '\0'..=char::MAX {
                text.extend([' ', c, 'a', '\'', c, ' ', c, '1', c, '\n', '.', c]);
                if text.len() > 10_000 {
                    assert_eq!(chunks(&by_hand, &text), chunks(&by_regex, &text));
                    text.clear();
                }
            }
        }
    }

    #[test]
    fn both_ways_agree_on_random_text() {
        let alphabet: Vec<char> = "aZsſtdmlverLVE'' \t\r\n\u{85}\u{a0}\u{3000}01٣Ⅷ.,!_👍好的。́"
            .chars()
            .collect();
        let mut random = Random::new(3);
        for pattern in [GPT4_PATTERN, NANOCHAT_PATTERN] {
            let by_hand = Splitter::new(pattern).unwrap();
            let by_regex = Splitter::by_regex(pattern).unwrap();
            for _ in 0..20_000 {
                let text: String = (0..random.below(24))
                    .map(|_| alphabet[random.below(alphabet.len())])
                    .collect();
                let (hand, regex) = (chunks(&by_hand, &text), chunks(&by_regex, &text));
                assert_eq!(hand, regex, "{text:?}");
                assert_eq!(hand.concat(), text);
            }
        }
    }

    #[test]
    fn unmatched_text_is_in_no_chunk() {
        let splitter = Splitter::new("[a-z]+").unwrap();
        assert_eq!(chunks(&splitter, "ab1cd"), ["ab", "cd"]);
    }

    #[test]
    fn bad_pattern_is_an_error() {
        assert!(matches!(Splitter::new("("), Err(SplitError::Invalid(_))));
    }

    #[test]
    fn failing_pattern_is_an_error() {
        let splitter = Splitter::new(r"(?:a|aa)+(?=c)|b").unwrap();
        let text = "a".repeat(60) + "b";
        let result = splitter.split(&text, |_, _| ());
        assert!(matches!(result, Err(SplitError::Failed { .. })));
    }
}
