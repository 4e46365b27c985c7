"""`minillm evaluate --questions FILE` and `--text FILE`: loads the models, prints tables, and
appends one JSON line to TF_DIR/eval_results.jsonl, like `minillm evaluate` without them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from minillm.config import ALL_STAGES
from minillm.data.readers import SUFFIXES
from minillm.errors import UserError
from minillm.evaluate import EvaluateOptions, Evaluator, finite, provenance
from minillm.files import appending, atomic_file, encode_line, file_sha256
from minillm.own.files import own_files
from minillm.own.questions import (
    SCORES,
    Asked,
    Verdict,
    ask_questions,
    compared,
    question_scores,
    read_questions,
)
from minillm.own.text import (
    MANY_SPLIT,
    TEXT_SUFFIXES,
    Bits,
    OwnText,
    compared_texts,
    measure,
    read_texts,
    text_scores,
)
from minillm.text_table import aligned
from minillm.tokenizer.vocabulary import RustBPETokenizer, find_tokenizer
from minillm.training.checkpoint import (
    check_matches,
    find_weights,
    load,
    load_checkpoint,
    load_for_inference,
)
from minillm.training.devices import choose_device
from minillm.training.llama_folder import CONFIG_FILE

SAMPLES = 3
"""Right answers that are shown, and as many wrong ones."""


class Contender(NamedTuple):
    """A model that is scored."""

    name: str
    evaluator: Evaluator

    @property
    def room(self) -> int:
        return self.evaluator.model.config.max_position_embeddings


def run_own(options: EvaluateOptions) -> None:
    """Scores what ``options`` name by --questions and --text."""
    questions = own_files(options.questions or (), SUFFIXES, "questions")
    texts = own_files(options.text or (), TEXT_SUFFIXES, "text")
    asked, documents = read_questions(questions), read_texts(texts)
    path = options.tf_dir / "eval_results.jsonl"
    with ExitStack() as stack:
        results = stack.enter_context(appending(path))
        lines = None
        if options.predictions is not None:
            lines = stack.enter_context(atomic_file(options.predictions))
        started = time.monotonic()
        model, tokenizer, metadata = load_for_inference(
            options.out_dir, options.stage, options.tokenizer_path, options.device
        )
        models = [Contender(options.stage, Evaluator(model, tokenizer, options.max_new_tokens))]
        if options.against is not None:
            models.append(opponent(options, options.against, tokenizer))
        result: dict[str, Any] = {"stage": options.stage, "step": metadata.step}
        if len(models) > 1:
            result["against"] = models[1].name
        predictions: list[dict[str, Any]] = []  # and what is said of each document
        if asked:
            result["questions"] = _questions(questions, asked, models, predictions)
        if documents:
            result["text"] = _text(texts, documents, models, options.max_seq_len, predictions)
        results.write(encode_line(result | provenance(model, metadata, started)))
        if lines is not None:
            lines.writelines(map(encode_line, predictions))
    print(f"appended to {path}")


def opponent(options: EvaluateOptions, path: Path, first: RustBPETokenizer) -> Contender:
    """The model that ``--against`` names: a stage of OUT_DIR, a file of weights, an OUT_DIR with
    the same stage, or a folder in Hugging Face's format. Its tokenizer is the first model's if it
    was trained with that, else the one beside it.

    Raises:
        UserError: no weights, or a tokenizer that they were not trained with.
    """
    name = str(path)
    stage = next((stage for stage in ALL_STAGES if stage == name), None)
    if stage and not path.exists():
        path = find_weights(options.out_dir, stage)
    elif path.is_dir() and not (path / CONFIG_FILE).exists():
        path = find_weights(path, options.stage)
    elif not path.exists():
        raise UserError(
            f"--against: {path}: no such file or folder, nor a stage of {options.out_dir}"
        )
    if path.is_dir():
        model, tokenizer = load(path, device=options.device)
        return Contender(name, Evaluator(model, tokenizer, options.max_new_tokens))
    model, metadata = load_checkpoint(path)
    is_same = metadata.tokenizer == first.fingerprint
    tokenizer = first if is_same else find_tokenizer(None, path.parent)
    check_matches(path, metadata, metadata.model, tokenizer)
    model = model.to(choose_device(options.device)[0]).eval()
    return Contender(name, Evaluator(model, tokenizer, options.max_new_tokens))


def _about(file: Path) -> dict[str, Any]:
    return {"file": str(file), "sha256": file_sha256(file)}


# --- Questions ------------------------------------------------------------------------------------


def _questions(
    files: dict[Path, str],
    asked: Sequence[Asked],
    models: Sequence[Contender],
    predictions: list[dict[str, Any]],
) -> dict[str, Any]:
    """Asks the questions and prints what came of it; returns what the JSON line says, and adds a
    line on each question to ``predictions``."""
    verdicts = [ask_questions(model.evaluator, asked) for model in models]
    for model, given in zip(models, verdicts, strict=True):
        _warn_of_long(model, given)
    of_file = []
    for file in files:
        mine = [i for i, one in enumerate(asked) if one.file == file]
        scores = question_scores([asked[i] for i in mine], [verdicts[0][i] for i in mine])
        of_file.append((file, scores))
    total = question_scores(asked, verdicts[0])
    for names in (SCORES[:1], SCORES[1:]):
        if names[0] in total:
            parts = [(files[file], s) for file, s in of_file if names[0] in s]
            print(question_table(parts, total, names), end="\n\n")
    if choice := total.get("accuracy"):
        print(f"letters chosen: {_counted(choice['chosen'])}; right: {_counted(choice['answers'])}")
    _show_samples(asked, verdicts[0])
    result = {"files": [_about(file) | scores for file, scores in of_file], **total}
    if len(models) > 1:
        found = compared(*verdicts)
        theirs = question_scores(asked, verdicts[1])
        print()
        print(comparison_table([model.name for model in models], total, theirs, found))
        result["against"] = {"scores": theirs, **found}
    predictions += [_prediction(one, *given) for one, *given in zip(asked, *verdicts, strict=True)]
    return result


def _warn_of_long(model: Contender, verdicts: Sequence[Verdict]) -> None:
    if number := sum(verdict.too_long for verdict in verdicts):
        print(
            f"warning: {model.name}: {number:,} of {len(verdicts):,} questions leave no room for "
            f"an answer in the model's {model.room} positions, and count as wrong",
            file=sys.stderr,
        )


def question_table(
    files: Sequence[tuple[str, dict[str, Any]]], total: dict[str, Any], names: Sequence[str]
) -> str:
    """Scores of each file, and of all of them where there are several."""
    header = ["", "questions"]
    for name in names:
        header += [name, "95% interval"]
    has_chance = "chance" in total[names[0]]
    rows = [header + ["chance"] * has_chance]
    for label, scores in [*files, ("all", total)] if len(files) > 1 else files:
        row = [label, f"{scores[names[0]]['n']:,}"]
        for name in names:
            row += [f"{scores[name]['share']:.3f}", interval(scores[name]["interval"])]
        rows.append(row + [f"{scores[names[0]]['chance']:.3f}"] * has_chance if has_chance else row)
    return aligned(rows, least=8)


def interval(ends: Sequence[float], sign: str = "") -> str:
    """An interval as a table shows it."""
    return "[" + ", ".join(f"{end:{sign}.3f}" for end in ends) + "]"


def _counted(counts: dict[str, int]) -> str:
    return " ".join(f"{letter} {count:,}" for letter, count in counts.items())


def _show_samples(asked: Sequence[Asked], verdicts: Sequence[Verdict]) -> None:
    for is_right in (True, False):
        shown = [
            (one, verdict)
            for one, verdict in zip(asked, verdicts, strict=True)
            if _is_right(verdict) == is_right
        ][:SAMPLES]
        for one, verdict in shown:
            line = f"{_short(one.question)} → {_short(one.said(verdict.reply)) or '(nothing)'}"
            aside = "" if is_right else f" (right: {_short(one.said(one.answer))})"
            print(f"  {'right' if is_right else 'wrong'}: {line}{aside}")


def _is_right(verdict: Verdict) -> bool:
    return any(verdict.right.values())


def _short(text: str, longest: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def comparison_table(
    names: Sequence[str], ours: dict[str, Any], theirs: dict[str, Any], found: dict[str, Any]
) -> str:
    """Two models on the same questions: a table, and a line for each score that says how sure the
    difference is."""
    header, rows = [""], [[name] for name in names]
    for name in found:
        header += [name, "only this one right"]
        for row, scores, only in zip(
            rows, (ours, theirs), ("only_this", "only_against"), strict=True
        ):
            row += [f"{scores[name]['share']:.3f}", f"{found[name][only]:,}"]
    lines = [aligned([header, *rows], least=8)]
    for name, one in found.items():
        lines.append(
            f"{name}: difference {one['difference']:+.3f}, 95% interval "
            f"{interval(one['interval'], '+')}; exact McNemar test: p = {one['p']:.2g}"
        )
    return "\n".join(lines)


def _prediction(one: Asked, verdict: Verdict, other: Verdict | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "file": str(one.file),
        "line": one.line,
        "question": one.question,
        "answer": one.answer,
        "reply": verdict.reply,
        **verdict.right,
    }
    if one.options:
        line |= {"options": dict(one.options), "log_probs": verdict.log_probs}
    if verdict.too_long:
        line["too_long"] = True
    if other is not None:
        line["against"] = {"reply": other.reply, **other.right}
    return line


# --- Texts ----------------------------------------------------------------------------------------


def _text(
    files: dict[Path, str],
    documents: Sequence[OwnText],
    models: Sequence[Contender],
    max_seq_len: int,
    predictions: list[dict[str, Any]],
) -> dict[str, Any]:
    """Reads the texts and prints how well they were predicted; returns what the JSON line says,
    and adds a line on each document to ``predictions``."""
    longest = min(max_seq_len, *(model.room for model in models))
    measured = [measure(model.evaluator, documents, longest) for model in models]
    of_file = []
    for file in files:
        mine = [i for i, one in enumerate(documents) if one.file == file]
        of_file.append((file, text_scores([measured[0][i] for i in mine])))
    total = text_scores(measured[0])
    print(text_table([(files[file], scores) for file, scores in of_file], total))
    print(
        f"each token predicted once, from at most {longest} before it, and from all of them or at "
        f"least {longest // 2}"
    )
    for model, given in zip(models, measured, strict=True):
        _warn_of_split(model, text_scores(given))
    result = {
        "files": [_about(file) | finite(scores) for file, scores in of_file],
        "window": longest,
        **finite(total),
    }
    if len(models) > 1:
        theirs, found = text_scores(measured[1]), compared_texts(*measured)
        print()
        print(text_comparison([model.name for model in models], total, theirs, found))
        result["against"] = {"scores": finite(theirs), **finite(found)}
    for one, *given in zip(documents, *measured, strict=True):
        predictions.append(_document(one, *given))
    return result


def _warn_of_split(model: Contender, scores: dict[str, Any]) -> None:
    if scores["split_characters"] > MANY_SPLIT:
        print(
            f"warning: {model.name}: {scores['split_characters']:.0%} of the characters are "
            f"spelled in several tokens each ({scores['tokens_per_character']:.2f} tokens per "
            "character in all): its tokenizer has not learned this kind of text",
            file=sys.stderr,
        )


def text_table(files: Sequence[tuple[str, dict[str, Any]]], total: dict[str, Any]) -> str:
    """Scores of each file, and of all of them where there are several."""
    header = ["", "documents", "characters", "bits/character", "std. error", "bits/byte"]
    rows = [[*header, "tokens/character", "perplexity/token"]]
    for label, one in [*files, ("all", total)] if len(files) > 1 else files:
        error = one["standard_error"]
        rows.append(
            [
                label,
                f"{one['documents']:,}",
                f"{one['characters']:,}",
                f"{one['bits_per_character']:.3f}",
                "-" if one["documents"] < 2 else f"{error:.3f}",
                f"{one['bits_per_byte']:.3f}",
                f"{one['tokens_per_character']:.3f}",
                f"{one['perplexity']:.4g}",
            ]
        )
    return aligned(rows)


def text_comparison(
    names: Sequence[str], ours: dict[str, Any], theirs: dict[str, Any], found: dict[str, Any]
) -> str:
    """Two models on the same documents: a table, and a line that says how sure the difference
    is."""
    rows = [["", "bits/character", "bits/byte"]]
    for name, one in zip(names, (ours, theirs), strict=True):
        rows.append([name, f"{one['bits_per_character']:.3f}", f"{one['bits_per_byte']:.3f}"])
    line = f"bits/character: difference {found['difference']:+.4f}"
    if "interval" in found:
        line += (
            f", standard error {found['standard_error']:.4f}, 95% interval "
            f"{interval(found['interval'], '+')}; fewer bits in {found['fewer_bits']:,} of "
            f"{ours['documents']:,} documents"
        )
    else:
        line += "; how sure that is, one document cannot tell"
    return f"{aligned(rows, least=8)}\n{line}"


def _document(one: OwnText, measured: Bits, other: Bits | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {"file": str(one.file), "line": one.line, **measured._asdict()}
    if other is not None:
        line["against"] = {"tokens": other.tokens, "bits": other.bits}
    return line
