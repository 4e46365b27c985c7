//! Text → chunks. A merge never crosses the border between two chunks.

use fancy_regex::Regex;
use std::fmt;

/// The split pattern of GPT-4, the default.
///
/// Contractions; a word with at most one leading character that is no letter; up to three digits;
/// punctuation with one leading space; line ends; other white space.
pub const GPT4_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);

/// A compiled split pattern.
#[derive(Debug)]
pub struct Splitter {
    regex: Regex,
}

/// The pattern does not compile, or gave up on a text.
#[derive(Debug)]
pub enum SplitError {
    Invalid(Box<fancy_regex::Error>),
    /// Raised while matching, at about this byte of the text: the backtracking limit, usually.
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
        let regex = Regex::new(pattern).map_err(|error| SplitError::Invalid(Box::new(error)))?;
        Ok(Self { regex })
    }

    pub fn pattern(&self) -> &str {
        self.regex.as_str()
    }

    /// Calls `visit` with each chunk of `text`, in order. Characters that the pattern does not
    /// match are in no chunk, as with tiktoken.
    pub fn split<'t>(
        &self,
        text: &'t str,
        mut visit: impl FnMut(&'t str),
    ) -> Result<(), SplitError> {
        let mut at = 0;
        for found in self.regex.find_iter(text) {
            let found = found.map_err(|error| SplitError::Failed {
                at,
                error: Box::new(error),
            })?;
            at = found.end();
            if !found.as_str().is_empty() {
                visit(found.as_str());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        let mut out = Vec::new();
        Splitter::new(pattern)
            .unwrap()
            .split(text, |chunk| out.push(chunk))
            .unwrap();
        out
    }

    #[test]
    fn gpt4_pattern_keeps_every_character() {
        let text = "It's 12345 o'clock,  你好,世界!\n\n  fin ";
        let found = chunks(GPT4_PATTERN, text);
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
    fn unmatched_text_is_in_no_chunk() {
        assert_eq!(chunks("[a-z]+", "ab1cd"), ["ab", "cd"]);
    }

    #[test]
    fn bad_pattern_is_an_error() {
        assert!(matches!(Splitter::new("("), Err(SplitError::Invalid(_))));
    }

    #[test]
    fn failing_pattern_is_an_error() {
        let splitter = Splitter::new(r"(?:a|aa)+(?=c)|b").unwrap();
        let text = "a".repeat(60) + "b";
        let result = splitter.split(&text, |_| ());
        assert!(matches!(result, Err(SplitError::Failed { .. })));
    }
}
