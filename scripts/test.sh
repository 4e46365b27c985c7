#!/usr/bin/env bash
# Sets up what the checks need, then runs all of them: formatting, lint, types and tests, of Python and of Rust; then the
# book: every chapter is run and its outputs are compared with the stored ones, the site is built and tried in a browser.
# Arguments go to the pytest of the step "Tests". With CI set, a check that cannot run is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

# left_out WHAT HOW: a check cannot run here; HOW says how to get what it needs.
left_out() {
  echo "Left out: $1. $2" >&2
  [ -z "${CI-}" ] || exit 1
}

# system_package VERSION NAME...: as root on Debian or Ubuntu, installs the first of the packages that is offered in at
# least that version.
system_package() {
  local wanted=$1 name offered
  shift
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  apt-get update -qq || return 1
  for name in "$@"; do
    offered=$(apt-cache policy "$name" | sed -n 's/^  Candidate: //p')
    if dpkg --compare-versions "${offered:-0}" ge "$wanted"; then
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$name" >/dev/null
      return
    fi
  done
  return 1
}

# Whether there is a browser for the book's tests.
browser() {
  PYTHONPATH=scripts "$PYTHON" -c 'import screenshot, sys; sys.exit(screenshot.find_browser() is None)'
}

step "System packages"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || system_package 3.10 python3-venv || true
if ! command -v cargo >/dev/null; then
  rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' rustbpe/Cargo.toml)
  # Debian 12 has a recent Rust under the second name.
  system_package "$rust" cargo cargo-web ||
    left_out "the checks of RustBPE" "Install Rust $rust or newer, by rustup or your system's packages."
fi
if ! browser; then
  system_package 100 chromium ||
    left_out "the book's tests in a browser" "Install Chromium or Chrome, or set CHROMIUM to one."
fi

# Without Python: these run while its packages are fetched.
rust_checks() {
  if cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --check --manifest-path rustbpe/Cargo.toml
    cargo clippy --quiet --all-targets --manifest-path rustbpe/Cargo.toml -- -D warnings
  else
    echo "Left out: cargo fmt and clippy, which this Rust comes without." >&2
  fi
  cargo test --quiet --manifest-path rustbpe/Cargo.toml
}

step "Environment"
if command -v cargo >/dev/null; then
  rust_log=$(mktemp)
  (rust_checks) >"$rust_log" 2>&1 &
  rust=$!
fi
prepare_environment
install_once .dev_installed -c constraints.txt -e '.[dev]'

step "Python: ruff, mypy"
python -m ruff format --check .
python -m ruff check .
python -m mypy

if command -v cargo >/dev/null; then
  step "Rust: fmt, clippy, test"
  failed=0
  wait "$rust" || failed=$?
  cat "$rust_log"
  rm "$rust_log"
  [ "$failed" = 0 ] || exit "$failed"
  build_rustbpe
fi

# Each of two processes would start as many threads as there are cores.
step "Tests"
OMP_NUM_THREADS=1 python -m pytest -n 2 --ignore=tests/test_site.py --ignore=tests/test_golden.py "$@"

# With the seed of the book, and with the one that a page is tried with below. One thread each: such small models gain less
# from a second one.
step "Book: the models that its chapters share"
printf '%s\n' 42 7 | OMP_NUM_THREADS=1 MINILLM_QUIET=1 xargs -P 2 -I {} env MINILLM_SEED={} python -m minillm.book.lab

step "Golden losses"
python -m pytest -q tests/test_golden.py

step "Book: chapters"
OMP_NUM_THREADS=1 PYTHONHASHSEED=0 python -m pytest -q -n 2 --dist loadfile book/*.ipynb \
  --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 1800
python scripts/run_notebooks.py --count

# Other pages each time: all of them would take longer than all other checks. The site is built beside them, on the other
# core.
step "Book: its site; one page with other random numbers, another as a script"
pages=(book/*.py)
commit=$(git rev-parse --short=7 HEAD 2>/dev/null || date +%Y%m%d)
number=$((0x$commit % ${#pages[@]}))
build_book &
site=$!
OMP_NUM_THREADS=1 python scripts/run_notebooks.py --seed 7 "${pages[number]}"
OMP_NUM_THREADS=1 python "${pages[(number + 1) % ${#pages[@]}]}" >/dev/null
wait "$site"

step "Book: the site in a browser"
MINILLM_SITE=_build/html python -m pytest -q -rs tests/test_site.py

step "All checks passed"
