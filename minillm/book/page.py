"""The model in the page: weights as a browser reads them, and the elements that it answers in.

``book/_static/minillm/minillm.js`` does in a browser what ``minillm.model`` does here. A page that
was opened from a file may load nothing but scripts, so weights are scripts too: one safetensors
file each, in base64, with its tokenizer in the header.

An element, such as ``<minillm-chat>``, holds what is to be seen without scripts: in print, on
GitHub, while they load. Stored notebooks hold it bare; the built page brings scripts and weights
(``book/_ext/minillm_page.py``), and JupyterLab gets them with the cell's output.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from IPython.display import HTML
from numpy.typing import NDArray
from safetensors.numpy import save

from minillm.book import lab
from minillm.config import ALL_STAGES
from minillm.errors import UserError
from minillm.files import write_atomically
from minillm.microworld import scoring, words
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer

Kind = Literal["F32", "F16", "I8"]

_WITH_VOCABULARIES = ("mask", "merges")
"""Widgets that need a tokenizer only."""
WITHOUT_MODEL = (*_WITH_VOCABULARIES, "ngram")
"""Widgets that need no model."""
EMBEDDING = "model.embed_tokens.weight"
_SCRIPTS = lab.ROOT / "book" / "_static" / "minillm"


# --- Weights --------------------------------------------------------------------------------------


def page_weights(model: Transformer, tokenizer: RustBPETokenizer, kind: Kind = "I8") -> bytes:
    """A model and its tokenizer as one safetensors file.

    Args:
        kind: of the numbers in matrices. I8: whole numbers of 8 bits; ``NAME.scale`` holds by what
            each row is to be multiplied. Those of the embedding have two more bits, four numbers'
            in each byte of ``NAME.low``: they decide which token is the likeliest.

    Raises:
        UserError: the tokenizer cuts text in another way than the page does, or the model has a
            part that the page does not compute.
    """
    if not model.config.tie_word_embeddings or model.config.attention_hidden_size:
        raise UserError(
            "a page can only run a model whose output layer is its embedding table and whose heads "
            "are hidden_size wide together"
        )
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # the same tensor as the embedding
            continue
        array = tensor.cpu().numpy()
        if array.ndim == 2 and kind == "F16":
            array = array.astype(np.float16)
        elif array.ndim == 2 and kind == "I8":
            array, tensors[f"{name}.scale"] = quantized(array, largest(name))
            if name == EMBEDDING:
                low = (array & 3).reshape(-1, 4) << np.arange(0, 8, 2)
                array, tensors[f"{name}.low"] = array >> 2, low.sum(axis=1).astype(np.uint8)
            array = array.astype(np.int8)
        tensors[name] = array
    about = {
        "model": vars(model.config),
        "tokenizer": _vocabulary(tokenizer),
    }
    return save(tensors, {"minillm": msgspec.json.encode(about).decode()})


def _vocabulary(tokenizer: RustBPETokenizer) -> dict[str, Any]:
    """A tokenizer as the page reads it. Raises UserError: the page cuts text in another way."""
    if tokenizer.pattern != SPLIT_PATTERN:
        raise UserError("a page can only use a tokenizer with minillm's own split pattern")
    return {
        "tokens": [base64.b64encode(token).decode() for token in tokenizer.mergeable_ranks],
        "special_tokens": tokenizer.special_tokens,
    }


def largest(name: str) -> int:
    """The whole numbers of a matrix go from minus this to this."""
    return 511 if name == EMBEDDING else 127


def quantized(
    matrix: NDArray[np.float32], largest: int
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """``[rows, columns]`` as whole numbers and the scale ``[rows]`` of each row: a row's largest
    number becomes ``largest`` or its negative."""
    scales = np.abs(matrix).max(axis=1) / largest
    scales[scales == 0] = 1
    return np.rint(matrix / scales[:, None]).astype(np.int16), scales


class PageModel(NamedTuple):
    """A model of the book, as the page lists it."""

    name: str
    """A stage at its end; ``sft-25``: at a step before."""
    stage: str
    """fresh, pretrain, sft, dpo, grpo or identity."""
    step: int
    model: Transformer
    window: int
    """Tokens that a chat with it looks back on."""


def models_of_the_book() -> Iterator[PageModel]:
    """Every model of the ladder that was kept, in the order of training; the persona's comes
    last."""
    fresh = lab.fresh()
    yield PageModel("fresh", "fresh", 0, fresh, fresh.config.max_position_embeddings // 2)
    for stage in ALL_STAGES:
        run = lab.ladder(stage)
        last = run.steps[-1]
        for step in run.steps:
            name = stage if step == last else f"{stage}-{step}"
            yield PageModel(name, stage, step, run.model(step), run.window)
    run = lab.identity()
    yield PageModel("identity", "identity", run.steps[-1], run.model(), run.window)


def write_site(folder: Path) -> list[str]:
    """Writes the models of the book into a folder of the built site, as scripts: one for each, and
    ``index.js``, which lists them; and what tells right answers. Returns the models' names.

    Raises:
        UserError: they have not been trained on this machine; says which command does.
    """
    tokenizer, index = lab.tokenizer(), {}
    for name, stage, step, model, window in list(models_of_the_book()):  # all, or none is written
        content = page_weights(model, tokenizer)
        index[name] = {"stage": stage, "step": step, "window": window, "bytes": len(content)}
        _write_script(folder / f"{name}.js", f"MiniLLM.models[{json.dumps(name)}].weights", content)
    write_index(folder, index)
    write_verifier(folder)
    return list(index)


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Writes which models the page has: name → {stage, step, window, bytes}."""
    _write_script(folder / "index.js", "MiniLLM.models", index)


def vocabularies() -> dict[str, Any]:
    """The tokenizers that widgets without a model use: the book's (``tiny``), unless it has to come
    from the cache and is not there, and the one that ships with the package (``shipped``)."""
    found = {"shipped": RustBPETokenizer.load()}
    with suppress(UserError):
        found = {"tiny": lab.tokenizer(), **found}
    return {name: _vocabulary(tokenizer) for name, tokenizer in found.items()}


def write_vocabularies(folder: Path) -> None:
    """Writes ``vocabularies`` into a folder of the built site, as a script."""
    _write_script(folder / "vocabularies.js", "MiniLLM.vocabularies", vocabularies())


def verifier() -> dict[str, Any]:
    """What ``Question.is_correct`` looks for in an answer, for the page to find the same right."""
    denial, word = scoring.DENIAL.pattern, scoring.WORD.pattern
    return {"closings": words.CLOSINGS, "denial": denial, "word": word}


def write_verifier(folder: Path) -> None:
    """Writes ``verifier`` into a folder of the built site, as a script."""
    _write_script(folder / "verifier.js", "MiniLLM.verifier", verifier())


def _write_script(path: Path, place: str, value: Any) -> None:
    write_atomically(path, _assignment(place, value).encode())


def _assignment(place: str, value: Any) -> str:
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    return f"{place} = {json.dumps(value, ensure_ascii=False)};\n"


# --- Elements -------------------------------------------------------------------------------------


def element(name: str, still: str, settings: Mapping[str, str]) -> str:
    """The widget ``name`` as HTML that needs no script: ``still`` is what it shows then.

    Raises:
        UserError: there is no such widget.
    """
    known = sorted(path.stem for path in (_SCRIPTS / "widgets").glob("*.js"))
    if name not in known:
        raise UserError(f"no widget {name}: choose from {', '.join(known)}")
    data = "".join(f' data-{key}="{escape(value)}"' for key, value in settings.items())
    return f'<minillm-{name} class="minillm"{data}>{still}</minillm-{name}>'


def picture_path(source: Path, name: str) -> Path:
    """Where the picture of a page's widget ``name`` is, which stands for it in print and where no
    script runs: ``scripts/screenshot.py`` takes it, and ``source`` is the page's file."""
    return source.parent / "images" / "widgets" / f"{source.stem}-{name}.png"


def widget(
    name: str,
    still: HTML | str = "",
    models: Mapping[str, Transformer] | None = None,
    tokenizer: RustBPETokenizer | None = None,
    **settings: str,
) -> HTML:
    """A widget of the book's pages, alive in JupyterLab on the reader's own weights.

    Args:
        name: chat, stages, …: a script in ``book/_static/minillm/widgets``.
        still: what is shown where no script runs.
        models: name → model; those of the book are named by their stage. None: all of the book's.
        tokenizer: theirs; None: the book's.
        settings: what the widget begins with, such as ``question="你是谁？"``.

    Raises:
        UserError: no such widget, or a tokenizer that no page can use.
    """
    if name in WITHOUT_MODEL:
        models = {}
    elif models is None:
        models = {m.name: m.model for m in models_of_the_book() if m.name in ("fresh", m.stage)}
    if models:
        settings["models"] = json.dumps(list(models), ensure_ascii=False)
    html = element(name, still if isinstance(still, str) else str(still.data), settings)
    if lab.QUIET:
        return HTML(html)  # type: ignore[no-untyped-call]
    shared = ("minillm.js", "widgets.js", "tokens.js")
    scripts = [(_SCRIPTS / file).read_text(encoding="utf-8") for file in shared]
    if name in _WITH_VOCABULARIES:
        scripts.append(_assignment("MiniLLM.vocabularies", vocabularies()))
    if name == "samples":
        scripts.append(_assignment("MiniLLM.verifier", verifier()))
    for stage, model in models.items():
        weights = base64.b64encode(page_weights(model, tokenizer or lab.tokenizer())).decode()
        value = {"stage": stage, "step": None, "weights": weights}
        scripts.append(_assignment(f"MiniLLM.models[{json.dumps(stage)}]", value))
    scripts.append((_SCRIPTS / "widgets" / f"{name}.js").read_text(encoding="utf-8"))
    style = (_SCRIPTS / "widgets.css").read_text(encoding="utf-8")
    parts = [f"<style>{style}</style>", html, *(f"<script>{code}</script>" for code in scripts)]
    return HTML("\n".join(parts))  # type: ignore[no-untyped-call]
