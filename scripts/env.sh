# Sourced by the other scripts, from the project's root: what they share. It reads
#
#   PYTHON     interpreter that makes the environment, 3.10 or newer (default: python3)
#   VENV_DIR   where the environment lives (default: .venv)
#   INSTALLER  pip, or uv, which is fetched by pip where it is missing (default: pip)

PYTHON=${PYTHON:-python3}
VENV_DIR=${VENV_DIR:-.venv}
INSTALLER=${INSTALLER:-pip}

fail() {
  echo "error: $*" >&2
  exit 2
}

# step TITLE: a heading with the minutes and seconds since the start.
step() { printf '\n== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

# What the environment is made from: changes with a requirement, with Python, and when the project is moved (it is
# installed in editable form, so the environment knows its folder).
requirements_state() {
  python -c '
import hashlib, os, sys
files = b"".join(open(path, "rb").read() for path in sys.argv[1:])
print(hashlib.sha256(files).hexdigest(), "Python %d.%d" % sys.version_info[:2], os.getcwd())
' requirements.txt constraints.txt pyproject.toml
}

# install_once MARKER ARGUMENT...: `pip install ARGUMENT...`, unless the environment's file MARKER says that it was done
# for these very requirements. The marker is written last, so that an interrupted installation leaves none.
install_once() {
  local marker=$VIRTUAL_ENV/$1 state
  shift
  state=$(requirements_state) || fail "requirements.txt, constraints.txt or pyproject.toml cannot be read"
  if [ "$(cat "$marker" 2>/dev/null)" = "$state" ]; then
    echo "Packages: nothing to install ($marker)"
    return
  fi
  rm -f "$marker"
  if [ "$INSTALLER" = uv ]; then
    local uv=(uv)
    if ! command -v uv >/dev/null; then
      python -m pip install -c constraints.txt uv || fail "pip could not install uv: see its message above"
      uv=(python -m uv)
    fi
    "${uv[@]}" pip install "$@" || fail "uv could not install the packages: see its message above, then run this again"
  else
    python -m pip install "$@" || fail "pip could not install the packages: see its message above, then run this again"
  fi
  echo "$state" >"$marker"
}

# The optional Rust tokenizer trainer, built into the environment.
build_rustbpe() {
  command -v maturin >/dev/null || fail "RustBPE is built by maturin, which is missing: pip install maturin"
  command -v cargo >/dev/null || fail "RustBPE is built by Rust's cargo, which is missing: install Rust, or leave ENABLE_RUSTBPE unset"
  maturin develop --release --manifest-path rustbpe/Cargo.toml || fail "RustBPE did not build: see the message above"
}

# build_book [FOLDER]: the book's pages, from the outputs that the notebooks hold, with the models that are in the cache.
# A warning is an error; what Sphinx says of its progress is shown only then.
build_book() {
  local log site=${1:+$1/}_build
  # Sphinx warns of a page only when it reads it: a second build would pass where the first one failed.
  rm -rf "$site"
  log=$(jupyter-book build "${1-.}" -W --keep-going -n 2>&1) || {
    echo "$log" >&2
    fail "the book did not build: see the warnings above"
  }
  grep '^Note: ' <<<"$log" || true
  echo "Built $(find "$site/html" -name '*.html' | wc -l | tr -d ' ') pages in $site/html"
}

# Finds Python, makes the virtual environment once, installs requirements.txt once; from then on `python` is the
# environment's.
prepare_environment() {
  local interpreter version
  case $INSTALLER in
    pip | uv) ;;
    *) fail "INSTALLER=$INSTALLER: choose pip or uv" ;;
  esac
  interpreter=$(command -v "$PYTHON") || fail "PYTHON=$PYTHON is no command here: set PYTHON to a Python 3.10 or newer"
  version=$("$PYTHON" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') || fail "$interpreter does not run"
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$interpreter is Python $version: set PYTHON to a Python 3.10 or newer"
  echo "Interpreter: $interpreter (Python $version)"

  if ! "$VENV_DIR/bin/python" -c "" 2>/dev/null; then
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "$interpreter has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv) or set PYTHON"
    echo "Making the virtual environment $VENV_DIR"
    "$PYTHON" -m venv "$VENV_DIR" || fail "could not make $VENV_DIR: see the message above"
  fi
  # Not `source activate`, whose paths are wrong once the project's folder has been moved.
  VIRTUAL_ENV=$(cd "$VENV_DIR" && pwd)
  PATH=$VIRTUAL_ENV/bin:$PATH
  export VIRTUAL_ENV PATH
  unset PYTHONHOME
  [ "$(python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')" = "$version" ] ||
    echo "Note: $VENV_DIR was made with $(python --version) and is used as it is; to use Python $version, delete it or set VENV_DIR"
  # Missing when the run that made the environment was interrupted.
  python -c 'import pip' 2>/dev/null || python -m ensurepip || fail "$VENV_DIR has no pip: delete it and run this again"

  install_once .deps_installed -r requirements.txt
}
