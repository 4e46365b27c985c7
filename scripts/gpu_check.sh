#!/usr/bin/env bash
# Checks a CUDA GPU in at most 8 minutes, without a network, and writes what it found to book/results/gpu.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
Usage: bash scripts/gpu_check.sh [--device cpu --quick] [--out FILE]

  (no argument)         losses and gradients beside the CPU's, which attention kernels run, peak memory at 32 x 512, tokens
                        a second at 128 x 512 with and without --compile, the stages of the default preset cut short:
                        at most 8 minutes, into book/results/gpu.json
  --device cpu --quick  the same code at toy sizes on the CPU: proves that it runs, measures nothing
  --out FILE            the file to write
  --help                this text

Nothing is installed. It needs a Python with PyTorch and the packages that MiniLLM needs; it names those that are missing.
Exit code 0: all is well; 1: something failed, and the file says what; 2: nothing could be checked here.

Environment variables:
  PYTHON  the interpreter (default: .venv/bin/python where there is one, else python3)
TEXT
}

fail() {
  echo "error: $*" >&2
  exit 2
}

for argument in "$@"; do
  case $argument in
    -h | --help)
      usage
      exit 0
      ;;
  esac
done

if [ -z "${PYTHON-}" ]; then
  PYTHON=python3
  [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is no command here: set PYTHON to one with PyTorch"
# The names under which packages are imported are those under which they are installed.
missing=$("$PYTHON" -c '
import importlib.util, sys

names = "torch numpy msgspec regex safetensors tensorboard tiktoken tqdm tyro filelock psutil"
print(*(name for name in names.split() if importlib.util.find_spec(name) is None))
') || fail "$PYTHON does not run"
[ -z "$missing" ] || fail "$PYTHON lacks $missing: install them by its pip, or set PYTHON to one that has them"

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" benchmarks/gpu_check.py "$@"
