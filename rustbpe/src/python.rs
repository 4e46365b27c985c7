//! The Python class `rustbpe.Tokenizer`, and nothing else.

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyIterator};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::encoder::Encoder;
use crate::ingest::{Ingest, IngestError};
use crate::progress::{Progress, Stopped};
use crate::splitter::{SplitError, Splitter, GPT4_PATTERN};
use crate::token::{Token, BYTES};
use crate::trainer;
use crate::words::Words;

/// How often a running training looks for Ctrl-C and calls `progress`.
const LOOK_UP: Duration = Duration::from_millis(50);

/// What training makes, and encoding reads.
struct Trained {
    splitter: Splitter,
    encoder: Encoder,
}

impl Trained {
    fn encode(&self, text: &str) -> Result<Vec<Token>, SplitError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.splitter.split(text, |start, end| {
            self.encoder
                .encode_chunk(&text.as_bytes()[start..end], &mut ids);
        })?;
        Ok(ids)
    }
}

impl From<SplitError> for PyErr {
    fn from(error: SplitError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<IngestError> for PyErr {
    fn from(error: IngestError) -> Self {
        match error {
            // With these arguments Python makes it a FileNotFoundError and so on.
            IngestError::Io(path, error) => {
                let message = error.to_string();
                // The number follows in the exception itself.
                let message = message.split(" (os error").next().unwrap_or_default();
                let path = path.to_string_lossy().into_owned();
                PyOSError::new_err((error.raw_os_error(), message.to_owned(), path))
            }
            IngestError::Stopped => Stopped.into(),
            error => PyValueError::new_err(error.to_string()),
        }
    }
}

impl From<Stopped> for PyErr {
    /// Not seen by anyone: whatever made training stop is raised instead.
    fn from(_: Stopped) -> Self {
        PyRuntimeError::new_err("stopped")
    }
}

/// One training: its options, checked, and how far it is.
struct Run {
    vocab_size: usize,
    splitter: Splitter,
    sample: f64,
    pool: ThreadPool,
    progress: Progress,
    callback: Option<Py<PyAny>>,
}

impl Run {
    fn new(
        vocab_size: usize,
        pattern: Option<&str>,
        sample: f64,
        num_threads: Option<usize>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        if vocab_size < BYTES {
            return Err(PyValueError::new_err(format!(
                "vocab_size must be at least {BYTES} (the bytes), got {vocab_size}"
            )));
        }
        if num_threads == Some(0) {
            return Err(PyValueError::new_err("num_threads must be at least 1"));
        }
        if !(sample > 0.0 && sample <= 1.0) {
            return Err(PyValueError::new_err(format!(
                "sample must be more than 0 and at most 1, got {sample}"
            )));
        }
        let pool = ThreadPoolBuilder::new().num_threads(num_threads.unwrap_or(0));
        let pool = pool.build();
        Ok(Self {
            vocab_size,
            splitter: Splitter::new(pattern.unwrap_or(GPT4_PATTERN))?,
            sample,
            pool: pool.map_err(|error| PyRuntimeError::new_err(error.to_string()))?,
            progress: Progress::default(),
            callback,
        })
    }

    /// Does `work` on the pool, while this thread looks for Ctrl-C and reports progress.
    fn watch<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> PyResult<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            std::thread::scope(|scope| {
                let (done, wait) = mpsc::sync_channel::<()>(0);
                let worker = scope.spawn(move || {
                    let result = self.pool.install(work);
                    drop(done);
                    result
                });
                let mut interrupted = Ok(());
                while wait.recv_timeout(LOOK_UP) == Err(RecvTimeoutError::Timeout) {
                    if interrupted.is_ok() {
                        interrupted = Python::attach(|py| self.look_up(py));
                        if interrupted.is_err() {
                            self.progress.stop();
                        }
                    }
                }
                let result = worker.join();
                interrupted?;
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn look_up(&self, py: Python<'_>) -> PyResult<()> {
        py.check_signals()?;
        if let Some(callback) = &self.callback {
            callback.call1(py, (self.progress.bytes(), self.progress.merges()))?;
        }
        Ok(())
    }

    /// Learns from what was taken in.
    fn finish(self, py: Python<'_>, words: Vec<Words>) -> PyResult<Trained> {
        let encoder = self.watch(py, || {
            let merges = trainer::train(words, self.vocab_size, &self.progress)?;
            self.progress.check(merges.len())?;
            Ok(Encoder::new(&merges))
        })?;
        self.look_up(py)?;
        let splitter = self.splitter;
        Ok(Trained { splitter, encoder })
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

    fn set(&self, trained: Trained) {
        *self.trained.write().expect("no writer panics") = Arc::new(trained);
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
    /// parallel. `pattern` is the split pattern, GPT-4's if None. Memory grows with the different
    /// chunks: if they are too many, `sample` takes only this share of the texts, chosen by their
    /// hash. `progress` is called now and then with the bytes read and the merges made.
    ///
    /// On any error the tokenizer stays as it was.
    #[pyo3(signature = (
        iterator, vocab_size, buffer_size=8192, pattern=None, *, sample=1.0, num_threads=None, progress=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments, in Python")]
    fn train_from_iterator(
        &self,
        py: Python<'_>,
        iterator: &Bound<'_, PyAny>,
        vocab_size: usize,
        buffer_size: usize,
        pattern: Option<&str>,
        sample: f64,
        num_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        if buffer_size == 0 {
            return Err(PyValueError::new_err("buffer_size must be at least 1"));
        }
        let run = Run::new(vocab_size, pattern, sample, num_threads, progress)?;
        let words = {
            let mut ingest = run
                .pool
                .install(|| Ingest::new(&run.splitter, run.sample, &run.progress));
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
                py.detach(|| run.pool.install(|| ingest.add_texts(&buffer)))?;
                run.look_up(py)?;
            }
            py.detach(|| run.pool.install(|| ingest.finish()))
        };
        self.set(run.finish(py, words)?);
        Ok(())
    }

    /// Learn from text files in UTF-8; each line, with its line end, is a text. The same as
    /// `train_from_iterator` with `open(path, encoding="utf-8", newline="\n")`, but no line
    /// becomes a Python object.
    #[pyo3(signature = (paths, vocab_size, pattern=None, *, sample=1.0, num_threads=None, progress=None))]
    fn train_from_files(
        &self,
        py: Python<'_>,
        paths: Vec<PathBuf>,
        vocab_size: usize,
        pattern: Option<&str>,
        sample: f64,
        num_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let run = Run::new(vocab_size, pattern, sample, num_threads, progress)?;
        let words = run.watch(py, || {
            let mut ingest = Ingest::new(&run.splitter, run.sample, &run.progress);
            for path in &paths {
                ingest.add_file(path)?;
            }
            Ok(ingest.finish())
        })?;
        self.set(run.finish(py, words)?);
        Ok(())
    }

    /// `train_from_files` with one file.
    #[pyo3(signature = (path, vocab_size, pattern=None, *, sample=1.0, num_threads=None, progress=None))]
    fn train_from_file(
        &self,
        py: Python<'_>,
        path: PathBuf,
        vocab_size: usize,
        pattern: Option<&str>,
        sample: f64,
        num_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        self.train_from_files(
            py,
            vec![path],
            vocab_size,
            pattern,
            sample,
            num_threads,
            progress,
        )
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
