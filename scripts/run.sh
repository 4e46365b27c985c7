#!/usr/bin/env bash
# From an empty machine to a model that you can talk to: environment, data, tokenizer, then three stages of training,
# each of them evaluated.
set -euf -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

usage() {
  cat <<'TEXT'
Usage: bash scripts/run.sh [--smoke-test | --preset NAME] [--with-grpo]

  --smoke-test   every stage for a few steps on the CPU in float32: proves the whole pipeline in two minutes,
                 and teaches a model nothing
  --preset NAME  default  the 25.8M-parameter model, for a GPU (the default)
                 small    a 3.6M-parameter model that writes classical poems by their titles, after an hour on two
                          CPU cores; fetches the poems by npm (85 MB)
                 tiny     a 1M-parameter model that learns the built-in data on two CPU cores in some minutes
                 smoke    the same as --smoke-test
  --with-grpo    a fourth stage: reinforcement learning, from right and wrong answers alone
  --help         this text

Default writes data/processed/ and out/; the others write data/processed/NAME/ and out/NAME/. Small reads data/poetry/
instead of data/chinese/: the poems, and the persona of data/chinese/identity_conversations.jsonl.

Environment variables (relative folders count from the project's root):
  PYTHON         interpreter that makes the virtual environment, 3.10 or newer (default: python3)
  VENV_DIR       the virtual environment (default: .venv)
  INSTALLER      pip or uv (default: pip; scripts/run_cn_pipeline.sh sets uv)
  TF_DIR         TensorBoard logs and eval_results.jsonl (default: ../tf_dir)
  ENABLE_RUSTBPE 1: build RustBPE and train the tokenizer with it (default: off, Rust is not needed)
  MIX_ARGS       more arguments for the data mix, such as "--built_in none" for your own rows alone
  PRETRAIN_ARGS  more arguments for the pretraining stage, such as "--batch_size 16 --learning_rate 5e-4"
  SFT_ARGS       the same for supervised fine-tuning
  DPO_ARGS       the same for preference learning
  GRPO_ARGS      the same for reinforcement learning
TEXT
}

preset=default with_grpo=
while [ $# -gt 0 ]; do
  case $1 in
    --smoke-test) preset=smoke ;;
    --with-grpo) with_grpo=1 ;;
    --preset=*) preset=${1#*=} ;;
    --preset)
      preset=${2-}
      [ $# -eq 1 ] || shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown argument $1: see bash scripts/run.sh --help" ;;
  esac
  shift
done
case $preset in
  default) out=out data=data/processed ;;
  small | tiny | smoke) out=out/$preset data=data/processed/$preset ;;
  *) fail "--preset '$preset': choose default, small, tiny or smoke" ;;
esac
[ "$preset$with_grpo" != small1 ] || fail "--with-grpo: no poem is right or wrong, so leave it out with --preset small"

step "Environment"
prepare_environment
export TF_DIR=${TF_DIR:-../tf_dir}
mkdir -p "$TF_DIR"
[ "${ENABLE_RUSTBPE:-0}" != 1 ] || build_rustbpe

has_gpu='import sys, torch; sys.exit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))'
if [ "$preset" = default ] && ! python -c "$has_gpu"; then
  cat <<'TEXT'
No GPU found. Three runs are made for a machine without one:
  bash scripts/run.sh --preset tiny    five minutes: a very small model that answers questions about a world of its own
  bash scripts/run.sh --preset small   an hour: a small model that writes classical poems
  bash scripts/run.sh --smoke-test     two minutes: proves that every stage works
This one, the default, takes about 20 hours on 2 cores with the built-in data (48 million tokens at some 700 a second),
and more with your own; a CPU with AMX or AVX512_BF16 (see lscpu) is faster with
PRETRAIN_ARGS="--dtype bfloat16 --compile". It starts now; Ctrl-C stops it.
TEXT
fi

poems=data/poetry
if [ "$preset" = small ]; then
  step "Poems"
  if [ -e "$poems/text_poetry.jsonl" ] && [ -e "$poems/general_poetry.jsonl" ]; then
    echo "Those in $poems are used."
  else
    install_once .poetry_installed -c constraints.txt -e '.[poetry]'
    python -c 'from minillm.cli import main; main()' download poetry --out_dir "$poems" ||
      fail "there are no poems: see the message above, and then run this again"
  fi
fi

step "Data mix"
identity=data/chinese/identity_conversations.jsonl
if [ ! -e "$identity" ]; then
  mkdir -p data/chinese
  cp dataset/identity_cn_sample.jsonl "$identity"
  echo "No $identity, so the sample from dataset/ was put there: replace it by your own persona's conversations."
fi
if [ "$preset" = small ] && [ ! -e "$poems/${identity##*/}" ]; then
  ln -sf "../chinese/${identity##*/}" "$poems/" # one persona for all presets
fi
# The *_ARGS are left unquoted to be split into words; set -f above keeps * and ? in them as they are.
python scripts/build_chinese_mix.py --preset "$preset" ${MIX_ARGS-}

step "Tokenizer"
if [ "${ENABLE_RUSTBPE:-0}" = 1 ] || [ "$preset" = tiny ]; then
  python scripts/train_rustbpe_tokenizer.py --preset "$preset"
elif [ -e "$out/tokenizer" ]; then
  echo "The one in $out/tokenizer is used, which an earlier run trained."
else
  echo "The one that comes with the package is used; ENABLE_RUSTBPE=1 trains one on your own data."
fi

# evaluate STAGE. A few steps teach no skill: of the smoke test's scores only the loss says something.
evaluate() {
  local shown=p
  [ "$preset" != smoke ] || shown='/^(val_loss|bits_per_byte|appended)/p'
  python scripts/evaluate_stage.py --preset "$preset" --stage "$1" | sed -nE "$shown"
}

step "Pretrain: learn the language by guessing the next token"
python trainer/train_pretrain.py --preset "$preset" ${PRETRAIN_ARGS-}
evaluate pretrain

step "SFT: learn to answer"
python trainer/train_full_sft.py --preset "$preset" ${SFT_ARGS-}
evaluate sft

step "DPO: learn which of two answers people prefer"
stages=3 newest=dpo
pairs=$data/dpo_chinese.jsonl
if [ -e "$pairs" ] && [ ! -s "$pairs" ]; then
  if [ "$preset" = small ]; then
    echo "Left out: of poems there are no pairs of a better and a worse one."
  else
    echo "Left out, since $pairs is empty: data/chinese/preference_*.jsonl would be the place for pairs."
  fi
  stages=2 newest=sft except=" but DPO"
else
  python trainer/train_dpo.py --preset "$preset" ${DPO_ARGS-}
  evaluate dpo
fi

if [ -n "$with_grpo" ]; then
  step "GRPO: learn to think, from right and wrong alone"
  python trainer/train_grpo.py --preset "$preset" --init_from "$out/$newest.safetensors" ${GRPO_ARGS-}
  evaluate grpo
  stages=$((stages + 1)) newest=grpo
fi

step "Done"
if [ "$preset" = smoke ]; then
  cat <<TEXT
Every stage${except-} ran, so the pipeline works on this machine. A few steps teach a model nothing; in some minutes on two CPU cores,
this trains a small one that answers questions:

  bash scripts/run.sh --preset tiny
TEXT
  exit
fi
echo "The scores on held-out data, after each stage:"
tail -n $stages "$TF_DIR/eval_results.jsonl" | python -c '
import json, sys
from minillm.evaluate import score_table

print(score_table([json.loads(line) for line in sys.stdin]))
'
[ "$preset" = default ] || choice=" --preset $preset"
# Not what an earlier run may have left there.
if [ $newest = sft ] || { [ $newest = dpo ] && [ -e "$out/grpo.safetensors" ]; }; then
  choice="${choice-} --stage $newest"
fi
echo
[ "$preset" != small ] || echo "It was taught to answer questions such as 写一首五言绝句《春夜》 or 李白《静夜思》."
echo "Talk to the model:  $VENV_DIR/bin/minillm chat${choice-}"
