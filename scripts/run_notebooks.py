"""Runs the book's chapters and stores their outputs.

    python scripts/run_notebooks.py [PAGE...]   PAGE: 03-rustbpe, book/03-rustbpe.py (default: all)
    python scripts/run_notebooks.py --seed 7    runs them with other random numbers
    python scripts/run_notebooks.py --count     says what nbval compares

People edit book/PAGE.py; this takes its cells into book/PAGE.ipynb, runs them and stores the
outputs, in such a way that a second run changes no byte. Where a cell fails, the old notebook stays
as it was.

With another seed the book is a second one, in .cache/book-seed-SEED; book/ stays as it is. Every
assertion must hold there too, and an output that differs from the stored one must be that of a cell
with the tag nbval-ignore-output: it belongs to one run, and no typed word may rest on it.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"
CELL_TIMEOUT = 1800
"""Seconds."""
PICTURES = ("image/png", "image/jpeg")
"""What nbval does not compare; the words beside it, it does."""


class PageError(Exception):
    """What is wrong with a page, in one line."""


def find_pages(names: list[str]) -> list[Path]:
    """The pages' .py files: those named, else all of the book's."""
    known = {path.stem: path for path in sorted(BOOK.glob("*.py"))}
    unknown = [name for name in names if Path(name).stem not in known]
    if unknown:
        raise PageError(f"no page {unknown[0]} in {BOOK.name}/: choose from {', '.join(known)}")
    return [known[Path(name).stem] for name in names] if names else list(known.values())


def tidy(source: Path) -> None:
    """Undoes what JupyterLab does to a page when it saves the notebook.

    It writes the Chinese of a caption as \\uXXXX, and settings of jupytext.toml once more.
    """
    text = source.read_text(encoding="utf-8")
    lines = [
        re.sub(r"(?:\\u[0-9a-f]{4})+", lambda m: json.loads(f'"{m[0]}"'), line)
        if line.startswith("# %%")
        else line
        for line in text.splitlines(keepends=True)
        if not line.startswith(("#     cell_metadata_filter:", "#     notebook_metadata_filter:"))
    ]
    if "".join(lines) != text:
        source.write_text("".join(lines), encoding="utf-8")


def run(source: Path, folder: Path) -> tuple[int, float]:
    """Runs one page and stores its outputs in a .ipynb in ``folder``.

    Returns: number of code cells, seconds.

    Raises: PageError, which names the page and the cell that failed.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    tidy(source)
    try:
        notebook: Any = jupytext.read(source)
    except Exception as error:
        raise PageError(f"{source.name}: jupytext cannot read it: {error}") from error
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number:03d}"

    started: list[Any] = []
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(source.parent)}},
        on_cell_start=lambda cell, cell_index: started.append(cell),
    )
    start = time.perf_counter()
    try:
        client.execute()
    except CellTimeoutError as error:
        raise PageError(f"{at(source, started)}: over {CELL_TIMEOUT} s") from error
    except DeadKernelError as error:
        what = "the kernel died; is memory short?"
        raise PageError(f"{at(source, started)}: {what}") from error
    except CellExecutionError as error:
        what = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
        raise PageError(f"{at(source, started)}: {what}") from error
    seconds = time.perf_counter() - start

    notebook.metadata.get("language_info", {}).pop("version", None)
    target = folder / f"{source.stem}.ipynb"
    again = target.exists() and folder == source.parent
    old: Any = nbformat.read(target, as_version=4).cells if again else []
    stored = {c.source: c.outputs for c in old if c.cell_type == "code"}
    patterns = sanitizers()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell["outputs"] = [tidy_output(output) for output in merge_streams(cell.outputs)]
        before = stored.get(cell.source)
        if before and same(before, cell.outputs, patterns):
            # Apart from a time or a version, which would change with every run.
            renumbered = [dict(output) for output in before]
            for output in renumbered:
                if "execution_count" in output:
                    output["execution_count"] = cell.execution_count
            cell["outputs"] = [nbformat.from_dict(output) for output in renumbered]
    beside = target.with_suffix(".ipynb.tmp")
    nbformat.write(notebook, beside)
    os.replace(beside, target)
    return len(code), seconds


def second_book(seed: int) -> Path:
    """A copy of the book for the outputs of another seed; its folder of pages.

    A page that was run there before stays as it is until its source changes.
    """
    home = ROOT / ".cache" / f"book-seed-{seed}"
    pages = home / BOOK.name
    kept = {
        source.with_suffix(".ipynb").name
        for source in find_pages([])
        if (copy := pages / source.name).exists() and copy.read_bytes() == source.read_bytes()
    }
    ignore = shutil.ignore_patterns("__pycache__", *kept)
    shutil.copytree(BOOK, pages, ignore=ignore, dirs_exist_ok=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, home)
    return pages


def check_same(source: Path, folder: Path) -> int:
    """Compares a page's outputs with those stored in book/, where no tag says that they may differ.

    Returns: number of assertions in the page's cells; all of them held, since the page ran.

    Raises: PageError: some output depends on the seed.
    """
    import nbformat

    before, after = (
        [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        for path in (source.with_suffix(".ipynb"), folder / f"{source.stem}.ipynb")
    )
    if [c.source for c in before] != [c.source for c in after]:
        raise PageError(f"{source.name}: its stored outputs are of other cells: run it first")
    patterns = sanitizers()
    asserts = 0
    for old, new in zip(before, after, strict=True):
        nodes = ast.walk(ast.parse(new.source))
        asserts += sum(isinstance(node, ast.Assert) for node in nodes)
        if "nbval-ignore-output" in new.metadata.get("tags", []):
            continue
        if not same(without_pictures(old), without_pictures(new), patterns):
            raise PageError(
                f"{at(source, after[: after.index(new) + 1])}: its output depends on the seed: "
                "give it the tag nbval-ignore-output, and let code write what is said of it"
            )
    return asserts


def without_pictures(cell: Any) -> list[dict[str, Any]]:
    """A cell's outputs as nbval compares them: of a figure what it says in words."""
    return [
        {
            **output,
            "data": {k: v for k, v in output["data"].items() if k not in PICTURES},
        }
        if "data" in output
        else dict(output)
        for output in cell.outputs
    ]


def at(source: Path, started: list[Any]) -> str:
    """`PAGE.py, code cell 3 (assert x == 1)`: the cell that was started last."""
    lines = [line.strip() for cell in started[-1:] for line in cell.source.splitlines()]
    return f"{source.name}, code cell {len(started)} ({next(filter(None, lines), '')[:60]})"


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Joins the pieces of each stream, as nbval does: how a kernel cuts them differs from run to
    run."""
    merged: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged.append(output)
        elif output.name in streams:
            streams[output.name]["text"] += output.text
        else:
            streams[output.name] = output
            merged.append(output)
    return merged


def tidy_output(output: Any) -> Any:
    """A progress bar as it ended, without its clock; a traceback without this machine's folders."""
    if output.output_type == "stream" and output.name == "stderr":
        lines = [re.split(r"\r(?=.)", line)[-1] for line in output.text.rstrip().split("\n")]
        lines = [re.sub(r"(\d+%\|.*\| \S+) \[.*\]$", r"\1", line.strip("\r")) for line in lines]
        output["text"] = "\n".join(lines) + "\n"
    if output.output_type == "error":
        folders = [f"{ROOT}/", f"{sys.prefix}/", f"{sys.base_prefix}/", f"{Path.home()}/"]
        for folder in folders:
            output["traceback"] = [line.replace(folder, "") for line in output.traceback]
    return output


def sanitizers() -> list[tuple[re.Pattern[str], str]]:
    """Patterns and replacements of tests/nbval_sanitize.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(SANITIZE, encoding="utf-8")
    return [(re.compile(parser[s]["regex"]), parser[s]["replace"]) for s in parser.sections()]


def same(old: list[Any], new: list[Any], patterns: list[tuple[re.Pattern[str], str]]) -> bool:
    """Whether two lists of outputs differ only in what the sanitizers take out."""

    def plain(outputs: list[Any]) -> str:
        text = json.dumps(
            [{k: v for k, v in output.items() if k != "execution_count"} for output in outputs],
            ensure_ascii=False,
            sort_keys=True,
            indent=0,
        )
        for pattern, replacement in patterns:
            # JSON holds a line break as two characters.
            text = re.sub(pattern, replacement, text.replace("\\n", "\n"))
        return text

    return plain(old) == plain(new)


def count() -> str:
    """How many code cells nbval compares, and how many it only runs."""
    kinds: Counter[str] = Counter()
    for path in sorted(BOOK.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
                continue
            tags = cell["metadata"].get("tags", [])
            if {"nbval-ignore-output", "nbval-skip"} & set(tags):
                kinds["ignored"] += 1
            elif not cell["outputs"]:
                kinds["without output"] += 1
            else:
                kinds["compared"] += 1
    return (
        f"{sum(kinds.values())} code cells run: the output of {kinds['compared']} compared, "
        f"{kinds['without output']} have none, {kinds['ignored']} ignored by tag"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Runs the book's chapters and stores their outputs."
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as 03-rustbpe; default: all")
    parser.add_argument("--count", action="store_true", help="only say what nbval compares")
    parser.add_argument("--seed", type=int, help="run a second book with other random numbers")
    options = parser.parse_args(arguments)
    if options.count:
        print(count())
        return 0
    # What the kernels inherit: sets of strings come in the same order in every run.
    os.environ.setdefault("PYTHONHASHSEED", "0")
    # Whether a model was trained just now or came from the cache must not show.
    os.environ["MINILLM_QUIET"] = "1"
    folder = BOOK
    failed = 0
    try:
        pages = find_pages(options.pages)
        if options.seed is not None:
            os.environ["MINILLM_SEED"] = str(options.seed)
            folder = second_book(options.seed)
    except PageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for source in pages:
        print(f"{source.stem:<20}", end=" ", flush=True)
        try:
            cells, seconds = run(source, folder)
            said = f"{cells:3d} cells {seconds:7.1f} s"
            if options.seed is not None:
                said += f", {check_same(source, folder)} assertions hold"
            print(said, flush=True)
        except PageError as error:
            print(f"\nerror: {error}", file=sys.stderr, flush=True)
            failed += 1
            if options.seed is None:
                break
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
