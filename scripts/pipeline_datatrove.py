"""Raw files of rows → filters → no near duplicates → shards to train on, by datatrove, in as many
processes as there are, or on a cluster.

    python scripts/pipeline_datatrove.py --raw_dir raw/ --out_dir data/sharded
    python trainer/train_pretrain.py --data_path data/sharded/shards

Needs the extra ``pipeline``: ``pip install -e '.[pipeline]'``. Tasks share the files of RAW_DIR, in
any format that `minillm import` reads, so a large one is cut first (``split -l 100000``). A task
that was completed is not done again: after a crash, give the same command. What is taken away lies
in ``removed``, with the reason.

The steps are datatrove's; only what reads, what splits Chinese into words, and what is Chinese is
defined here. For a cluster, ``run`` makes a ``SlurmPipelineExecutor`` or ``RayPipelineExecutor`` in
the place of the local one: see chapter 12 of the book. All machines must see the two folders.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import regex
import tyro
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import GopherRepetitionFilter, LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from minillm.config import Count, Range, Share, check_ranges
from minillm.data.readers import SUFFIXES, Quarantined, read
from minillm.data.rows import plain_text
from minillm.errors import UserError
from minillm.files import write_atomically
from minillm.text_table import aligned

LEAST = 16
"""Fewest Chinese characters of a text."""
LEAST_SHARE = 0.5
"""Fewest of a text's characters that are Chinese, spaces not counted."""
LONG_RUN, LARGEST_SHARE_REPEATED = 10, 0.15
"""Characters in a run, as long as 5 to 7 words, for which Gopher allows 0.13 to 0.15, and how much
of a text may lie in runs that came before."""
MINHASH = MinhashConfig(
    n_grams=3,
    num_buckets=14,
    hashes_per_bucket=8,
    # datatrove's own would make one of all numbers, and so of all sums the same.
    norm_config=TextNormConfig(norm_numbers=False),
    hash_config=HashConfig(precision=64, hash_fc="sha1"),  # in Python's own library
)
"""Runs of 3 characters; texts with a share of s in common count as one with probability
1 - (1 - s⁸)¹⁴: 0.36 for 0.65, 0.77 for 0.75, 0.92 for 0.8, 0.9996 for 0.9."""
_HAN = regex.compile(r"\p{Han}")
_SPACE = regex.compile(r"\s")


@dataclass(frozen=True)
class Options:
    """Filter raw rows, take near duplicates away, write shards."""

    raw_dir: Path
    """Files of rows (.jsonl, .json, .csv, .parquet), also in folders below it."""
    out_dir: Path
    """Gets ``shards``, ``removed``, ``report.json``, and ``work``, which may be deleted then."""
    tasks: Annotated[int, Range(1, 10_000)] = 4
    """Parts that the work is done in; as many shards come out, at most."""
    workers: Count = 2
    """Tasks at the same time."""
    val_fraction: Share = 0.01
    """Share of the rows that are held out, in files that end in _val."""

    def __post_init__(self) -> None:
        check_ranges(self)


# --- What datatrove does not know of -------------------------------------------------------------


class Characters(WordTokenizer):  # type: ignore[misc]
    """Chinese words without a dictionary: each character is one."""

    def word_tokenize(self, text: str) -> list[str]:
        return [character for character in text if not character.isspace()]

    def sent_tokenize(self, text: str) -> list[str]:
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i, character in enumerate(text) if not character.isspace()]


class RowReader(PipelineStep):  # type: ignore[misc]
    """Rows in any of minillm's formats as documents. One that cannot be read goes to ``removed``;
    datatrove's reader would pass it over with a word in the log."""

    name = "rows"
    type = "📖 - READER"

    def __init__(self, files: list[str], removed: JsonlWriter) -> None:
        super().__init__()
        self.files, self.removed = files, removed

    def run(self, data: None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with self.removed as removed:

            def set_aside(bad: Quarantined) -> None:
                self.stat_update("unreadable")
                source = {"source": f"{bad.path}:{bad.line}", "filter_reason": bad.reason}
                removed.write(Document(bad.raw or " ", source["source"], metadata=source), rank)

            for file in self.files[rank::world_size]:
                path = Path(file)
                for line, row, raw in read(path, set_aside):
                    self.stat_update("read")
                    source = str(raw.get("source") or path.stem)
                    yield Document(plain_text(row), f"{file}:{line}", metadata={"source": source})


def is_chinese(document: Document) -> bool | tuple[bool, str]:
    """Whether a text is long enough and mostly Chinese; else also why not."""
    han = len(_HAN.findall(document.text))
    if han < LEAST:
        return False, "short"
    if han < LEAST_SHARE * len(_SPACE.sub("", document.text)):
        return False, "not_chinese"
    return True


class HoldOut(PipelineStep):  # type: ignore[misc]
    """Marks for validation what its own hash chooses: the same texts in every run."""

    name = "held out"
    type = "✂️ - SPLIT"

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.below = fraction * 2**64

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        for document in data:
            digest = hashlib.blake2b(document.text.encode(), digest_size=8).digest()
            held_out = int.from_bytes(digest, "big") < self.below
            document.metadata["part"] = "_val" if held_out else ""
            self.stat_update("held_out" if held_out else "written")
            yield document


def as_row(_: JsonlWriter, document: Document) -> dict[str, Any]:
    """A document as a row of ours."""
    return {"text": document.text, "source": document.metadata["source"]}


def as_removed(_: JsonlWriter, document: Document) -> dict[str, Any]:
    """The same, with the reason for which a filter took it away."""
    reason = document.metadata.get("filter_reason")
    row = {"text": document.text, "source": document.metadata["source"], "id": document.id}
    return row | ({"reason": reason} if reason else {})


# --- The pipeline ---------------------------------------------------------------------------------


def stages(options: Options, files: list[str]) -> dict[str, tuple[list[PipelineStep], int]]:
    """datatrove's stages by name: the steps of each, and how many tasks do them."""
    out = options.out_dir
    work, tasks = out / "work", options.tasks

    def removed(step: str) -> JsonlWriter:
        return JsonlWriter(str(out / "removed" / step), compression=None, adapter=as_removed)

    def filtered() -> JsonlReader:  # the last stage must read in the order of the second
        return JsonlReader(str(work / "filtered"), add_file_path=False)

    characters = Characters()
    # Gopher's thresholds are for English words. Its top_n_grams also count the spaces that join
    # words, and Chinese has none: by them, each poem of 40 characters would be all repetition.
    repetition = GopherRepetitionFilter(
        top_n_grams=(),
        dup_n_grams=((LONG_RUN, LARGEST_SHARE_REPEATED),),
        language=characters,
        exclusion_writer=removed("repetition"),
    )
    signatures, buckets, clusters = (str(work / name) for name in ("sigs", "buckets", "clusters"))
    return {
        "filter": (
            [
                RowReader(files, removed("unreadable")),
                LambdaFilter(is_chinese, removed("language")),
                repetition,
                JsonlWriter(str(work / "filtered"), compression=None),
            ],
            tasks,
        ),
        "signatures": ([filtered(), MinhashDedupSignature(signatures, MINHASH, characters)], tasks),
        "buckets": (
            [MinhashDedupBuckets(signatures, buckets, config=MINHASH)],
            MINHASH.num_buckets,
        ),
        "clusters": ([MinhashDedupCluster(buckets, clusters, MINHASH)], 1),
        "shards": (
            [
                filtered(),
                MinhashDedupFilter(clusters, removed("near_duplicates")),
                HoldOut(options.val_fraction),
                JsonlWriter(
                    str(out / "shards"), "${rank}${part}.jsonl", compression=None, adapter=as_row
                ),
            ],
            tasks,
        ),
    }


def run(options: Options) -> dict[str, int]:
    """All stages, one after the other; returns and writes how many rows each step took away. With
    an executor that only submits them (Slurm's), that is nothing until they are done: run again.

    Raises:
        UserError: no files of rows, or OUT_DIR holds the work of others.
    """
    files = raw_files(options.raw_dir)
    claim(options, files)
    logs = options.out_dir / "work" / "logs"
    last = None
    for name, (steps, tasks) in stages(options, files).items():
        last = LocalPipelineExecutor(
            steps,
            tasks=tasks,
            workers=min(tasks, options.workers),
            logging_dir=str(logs / name),
            depends=last,
        )
    assert last is not None
    last.run()
    if not (logs / "shards" / "stats.json").exists():
        print("submitted; the same command reports on it when all is done")
        return {}
    counts = counted_by_datatrove(logs)
    write_atomically(options.out_dir / "report.json", msgspec.json.encode(counts) + b"\n")
    print(aligned([["rows", "number"], *([name, f"{n:,}"] for name, n in counts.items())]))
    return counts


def raw_files(folder: Path) -> list[str]:
    """Files of rows in a folder and below it, by name. Raises UserError if there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder}: no file of rows in it ({', '.join(SUFFIXES)})")
    return [str(path.resolve()) for path in found]


def claim(options: Options, files: list[str]) -> None:
    """Notes in OUT_DIR what its work is made from: done tasks are never done again, not even with
    other rows. Raises UserError if that was something else."""
    place = options.out_dir / "work" / "made_from.json"
    settings = {k: v for k, v in asdict(options).items() if k in ("tasks", "val_fraction")}
    sizes = [[file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns] for file in files]
    content = msgspec.json.encode({**settings, "minhash": str(MINHASH), "files": sizes})
    if place.exists() and place.read_bytes() != content:
        raise UserError(
            f"{options.out_dir}: holds the work on other files or with other flags: delete it, or "
            "choose another --out_dir"
        )
    write_atomically(place, content)


def counted_by_datatrove(logs: Path) -> dict[str, int]:
    """Rows read and taken away, out of the statistics that each stage wrote."""

    def total(stage: str, step: int, name: str) -> int:
        steps = msgspec.json.decode((logs / stage / "stats.json").read_bytes())
        value = steps[step]["stats"].get(name, 0)
        return int(value["total"] if isinstance(value, dict) else value)

    return {
        "read": total("filter", 0, "read") + total("filter", 0, "unreadable"),
        "unreadable": total("filter", 0, "unreadable"),
        "short": total("filter", 1, "dropped_short"),
        "not Chinese": total("filter", 1, "dropped_not_chinese"),
        "repetition": total("filter", 2, "dropped"),
        "near duplicates": total("shards", 1, "dropped"),
        "written": total("shards", 2, "written"),
        "held out": total("shards", 2, "held_out"),
    }


if __name__ == "__main__":
    try:
        run(tyro.cli(Options, use_underscores=True))
    except UserError as error:
        sys.exit(f"error: {error}")
