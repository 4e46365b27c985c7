//! The Python class `rustbpe.Tokenizer`, and nothing else.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyIterator};
use rayon::prelude::*;
use std::sync::{Arc, RwLock};

use crate::encoder::Encoder;
use crate::splitter::{SplitError, Splitter, GPT4_PATTERN};
use crate::trainer::{self, ChunkCounts, Token, BYTES};

/// Ctrl-C is looked for once in this many merges.
const MERGES_PER_SIGNAL_CHECK: usize = 64;

/// What training makes, and encoding reads.
struct Trained {
    splitter: Splitter,
    encoder: Encoder,
}

impl Trained {
    fn encode(&self, text: &str) -> Result<Vec<Token>, SplitError> {
        let mut ids = Vec::new();
        self.splitter.split(text, |chunk| {
            self.encoder.encode_chunk(chunk.as_bytes(), &mut ids);
        })?;
        Ok(ids)
    }
}

impl From<SplitError> for PyErr {
    fn from(error: SplitError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

/// A byte-level BPE tokenizer. Fresh, it holds the 256 bytes and GPT-4's split pattern.
#[pyclass(frozen, module = "rustbpe")]
struct Tokenizer {
    trained: RwLock<Arc<Trained>>,
}

impl Tokenizer {
    fn trained(&self) -> Arc<Trained> {
        Arc::clone(&self.trained.read().expect("no writer panics"))
    }
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new() -> PyResult<Self> {
        let trained = Trained {
            splitter: Splitter::new(GPT4_PATTERN)?,
            encoder: Encoder::new(&[]),
        };
        Ok(Self {
            trained: RwLock::new(Arc::new(trained)),
        })
    }

    /// Learn a vocabulary of `vocab_size` tokens (256 bytes and `vocab_size - 256` merges; fewer
    /// if the text is used up). Texts are taken `buffer_size` at a time, split and counted in
    /// parallel. `pattern` is the split pattern, GPT-4's if None.
    ///
    /// On any error the tokenizer stays as it was.
    #[pyo3(signature = (iterator, vocab_size, buffer_size=8192, pattern=None))]
    fn train_from_iterator(
        &self,
        py: Python<'_>,
        iterator: &Bound<'_, PyAny>,
        vocab_size: usize,
        buffer_size: usize,
        pattern: Option<&str>,
    ) -> PyResult<()> {
        let n_merges = vocab_size.checked_sub(BYTES).ok_or_else(|| {
            PyValueError::new_err(format!(
                "vocab_size must be at least {BYTES} (the bytes), got {vocab_size}"
            ))
        })?;
        if buffer_size == 0 {
            return Err(PyValueError::new_err("buffer_size must be at least 1"));
        }
        let splitter = Splitter::new(pattern.unwrap_or(GPT4_PATTERN))?;
        let mut counts = ChunkCounts::default();
        let mut texts = PyIterator::from_object(iterator)?;
        loop {
            let buffer: Vec<PyBackedStr> = texts
                .by_ref()
                .take(buffer_size)
                .map(|text| text?.extract())
                .collect::<PyResult<_>>()?;
            if buffer.is_empty() {
                break;
            }
            py.detach(|| counts.add_texts(&splitter, &buffer))?;
            py.check_signals()?;
        }
        let trained = py.detach(|| -> PyResult<Trained> {
            let merges = trainer::train(counts, n_merges, |done| {
                if done % MERGES_PER_SIGNAL_CHECK == 0 {
                    Python::attach(|py| py.check_signals())
                } else {
                    Ok(())
                }
            })?;
            let encoder = Encoder::new(&merges);
            Ok(Trained { splitter, encoder })
        })?;
        *self.trained.write().expect("no writer panics") = Arc::new(trained);
        Ok(())
    }

    /// The split pattern.
    fn get_pattern(&self) -> String {
        self.trained().splitter.pattern().to_owned()
    }

    /// The tokens as `(bytes, rank)`, by rank: what tiktoken wants as `mergeable_ranks`, once it
    /// is a dict.
    fn get_mergeable_ranks<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Token)> {
        let trained = self.trained();
        let tokens = trained.encoder.tokens().iter();
        tokens.map(|t| PyBytes::new(py, t)).zip(0..).collect()
    }

    /// The number of tokens: 256 bytes and the merges.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.trained().encoder.tokens().len()
    }

    /// The token ids of a text.
    fn encode(&self, py: Python<'_>, text: PyBackedStr) -> PyResult<Vec<Token>> {
        let trained = self.trained();
        Ok(py.detach(|| trained.encode(&text))?)
    }

    /// The token ids of each text, in parallel.
    fn batch_encode(&self, py: Python<'_>, texts: Vec<PyBackedStr>) -> PyResult<Vec<Vec<Token>>> {
        let trained = self.trained();
        py.detach(|| {
            let ids = texts.par_iter().map(|text| Ok(trained.encode(text)?));
            ids.collect()
        })
    }

    /// The text of token ids. Bytes that are not valid UTF-8 become U+FFFD, as in tiktoken.
    fn decode(&self, ids: Vec<Token>) -> PyResult<String> {
        let bytes = self.trained().encoder.decode(&ids);
        let bytes = bytes.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Exact byte-level BPE training and encoding.
#[pymodule]
mod rustbpe {
    #[pymodule_export]
    use super::Tokenizer;

    #[pymodule_export]
    #[expect(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
