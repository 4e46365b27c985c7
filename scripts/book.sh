#!/usr/bin/env bash
# Builds the book, a site of static pages that work without a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

usage() {
  cat <<'TEXT'
Usage: bash scripts/book.sh [--execute [--seed SEED] [PAGE...] | --serve [PORT]]

  (no argument)        builds the book from the stored outputs into _build/html: a few seconds
  --execute [PAGE...]  runs the chapters first (such as 03-rustbpe; default: all of them) and stores their outputs in
                       book/*.ipynb. The first time, models that the chapters share are trained, which takes some minutes
  --execute --seed SEED [PAGE...]
                       runs them with other random numbers, on models of their own, into a second book in
                       .cache/book-seed-SEED: every assertion must hold there too, and book/ stays as it is
  --serve [PORT]       builds the book, then serves it on this machine only: http://127.0.0.1:PORT (default: 8000)
  --help               this text

Environment variables: PYTHON, VENV_DIR, INSTALLER, as in scripts/run.sh.
TEXT
}

action=build
port=8000
pages=()
seed=
case ${1-} in
  "") ;;
  -h | --help)
    usage
    exit 0
    ;;
  --execute)
    action=execute
    shift
    if [ "${1-}" = --seed ]; then
      seed=${2-}
      [[ $seed =~ ^[0-9]{1,9}$ ]] || fail "--seed '$seed': a seed is a whole number, such as --seed 7"
      shift 2
    fi
    pages=("$@")
    # Before the models are trained, which may take minutes.
    for page in ${pages[@]+"${pages[@]}"}; do
      [ -e "book/$(basename "${page%.*}").py" ] || fail "no page $page: choose from $(cd book && echo *.py)"
    done
    ;;
  --serve)
    action=serve
    [ $# -le 2 ] || fail "--serve takes one port: see bash scripts/book.sh --help"
    port=${2-8000}
    [[ $port =~ ^[0-9]{1,5}$ ]] && [ "$port" -le 65535 ] || fail "--serve '$port': a port is a number up to 65535"
    # Before the long way to the server, not after it.
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null ||
      fail "--serve $port: another program uses this port; name another one: bash scripts/book.sh --serve PORT"
    ;;
  *) fail "unknown argument $1: see bash scripts/book.sh --help" ;;
esac

step "Environment"
prepare_environment

if [ "$action" = execute ]; then
  # The last chapters run the model in other programs, and look into poems.
  install_once .takeaway_installed -c constraints.txt -e '.[takeaway]'
  install_once .poetry_installed -c constraints.txt -e '.[poetry]'
  step "Shared models"
  MINILLM_SEED=$seed python -m minillm.book.lab
  step "Chapters"
  # ${...+...}: an empty list is an unset variable to the bash of macOS.
  python scripts/run_notebooks.py ${seed:+--seed "$seed"} ${pages[@]+"${pages[@]}"}
fi

step "Book"
if [ -n "$seed" ]; then
  MINILLM_SEED=$seed build_book ".cache/book-seed-$seed"
  echo "The second book: open .cache/book-seed-$seed/_build/html/index.html"
  exit
fi
build_book

if [ "$action" = serve ]; then
  echo "The book is at http://127.0.0.1:$port (Ctrl-C ends this)"
  python -m http.server --bind 127.0.0.1 --directory _build/html "$port"
else
  echo "The book: open _build/html/index.html, or run: bash scripts/book.sh --serve"
fi
