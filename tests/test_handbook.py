"""The handbook, row by row: each test runs the very command or default that its row names.

``test_2_5_...`` is row [2.5]. Stages are cut to smoke size; all run in copies of the project.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from conftest import (
    Project,
    borrowed_project,
    calls,
    record_calls,
    use_stub_requirements,
)
from filelock import FileLock

from minillm.errors import UserError
from minillm.tokenizer.vocabulary import SPECIAL_TOKENS, SPLIT_PATTERN, RustBPETokenizer

ROWS = {1: 5, 2: 7, 3: 5, 4: 5, 5: 2, 6: 6, 7: 3, 8: 3, 9: 4}
"""Rows in each of the handbook's sections."""

needs_cargo = pytest.mark.skipif(
    not shutil.which("cargo") and "CI" not in os.environ, reason="no cargo here"
)


def test_every_row_has_a_test() -> None:
    wanted = {f"{section}_{row}" for section, n in ROWS.items() for row in range(1, n + 1)}
    names = " ".join(name for name in globals() if name.startswith("test_"))
    assert set(re.findall(r"test_(\d_\d)_", names)) == wanted


# --- What the rows share --------------------------------------------------------------------------


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_json_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def chat(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    turns = [("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": text} for role, text in turns], **fields}


def default_of(flag: str, help_text: str) -> str:
    """The default that a command's --help gives for a flag."""
    flat = re.sub(r"[│\s]+", " ", help_text)
    found = re.search(rf"--{flag} [^\]\s]+ .*?\(default: (.*?)\)", flat)
    assert found, f"--{flag} is not in the help"
    return found[1]


Make = Callable[[Project], str]


def shared(factory: pytest.TempPathFactory, name: str, make: Make) -> tuple[Project, str]:
    """A project that ``make`` has run something in, and what that printed.

    Made once for all pytest processes; tests only read from it.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, log = base / name, base / f"{name}.log"
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            output = make(borrowed_project(folder))
            log.write_text(output, encoding="utf-8")
        if not log.exists():
            pytest.fail(f"{name}: failed in the other process")
    return Project(folder / "project"), log.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """`bash scripts/run.sh --smoke-test`, with one setting of each stage changed."""
    return shared(
        tmp_path_factory,
        "smoke",
        lambda project: (
            project.run(
                "bash scripts/run.sh --smoke-test",
                PRETRAIN_ARGS="--learning_rate 0.0011",
                SFT_ARGS="--learning_rate 0.0012",
                DPO_ARGS="--learning_rate 0.00013 --beta 0.2",
            ).stdout
        ),
    )


@pytest.fixture
def mixed(project: Project, smoke: tuple[Project, str]) -> Project:
    """A fresh copy of the project with the smoke run's mix in data/processed."""
    (project.root / "data").mkdir()
    source = smoke[0].root / "data" / "processed" / "smoke"
    (project.root / "data" / "processed").symlink_to(source)
    return project


@pytest.fixture(scope="session")
def rust(
    tmp_path_factory: pytest.TempPathFactory, smoke: tuple[Project, str]
) -> tuple[Project, str]:
    """`ENABLE_RUSTBPE=1 bash scripts/run_cn_pipeline.sh`, the training stages left out."""

    def make(project: Project) -> str:
        entry = project.root / "scripts" / "train_rustbpe_tokenizer.py"
        content = entry.read_bytes()
        record_calls(project)
        entry.write_bytes(content)
        shutil.copytree(smoke[0].root / "data", project.root / "data")
        command = "ENABLE_RUSTBPE=1 bash scripts/run_cn_pipeline.sh --smoke-test"
        return project.run(command).stdout

    return shared(tmp_path_factory, "rust", make)


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, smoke: tuple[Project, str]
) -> tuple[Project, str]:
    """`python scripts/export_embeddings.py` for each of the three formats, with its defaults."""

    def make(project: Project) -> str:
        source = smoke[0].root / "data" / "processed" / "smoke"
        shutil.copytree(source, project.root / "data" / "processed")
        command = "python scripts/export_embeddings.py --format"
        return "".join(project.activated(f"{command} {f}") for f in ("pretrain", "sft", "dpo"))

    return shared(tmp_path_factory, "exported", make)


def tensors(exported: tuple[Project, str], stage: str) -> dict[str, torch.Tensor]:
    path = exported[0].root / "data" / "processed" / f"{stage}_tensors.pt"
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return loaded


# --- 1 Environment --------------------------------------------------------------------------------


def test_1_1_python_chooses_the_interpreter_and_is_printed(recorder: Project) -> None:
    default = recorder.run("command -v python3").stdout.strip()
    text = recorder.run("bash scripts/run.sh --smoke-test").stdout
    assert f"Interpreter: {default} (Python {sys.version.split()[0]})" in text
    mine = recorder.root / "my-python"
    mine.symlink_to(recorder.python)
    text = recorder.run(f"PYTHON={mine} bash scripts/run.sh --smoke-test").stdout
    assert f"Interpreter: {mine} (Python " in text


def test_1_2_venv_dir_overrides_the_place_of_the_environment(recorder: Project) -> None:
    shutil.rmtree(recorder.root / ".venv")
    use_stub_requirements(recorder)
    recorder.run("VENV_DIR=elsewhere/env bash scripts/run.sh --smoke-test")
    assert (recorder.root / "elsewhere" / "env" / ".deps_installed").exists()
    assert not (recorder.root / ".venv").exists()
    recorder.run("bash scripts/run.sh --smoke-test")
    assert recorder.python.exists()


def test_1_3_requirements_are_installed_once(recorder: Project) -> None:
    use_stub_requirements(recorder)
    marker = recorder.root / ".venv" / ".deps_installed"
    marker.unlink()
    recorder.run("bash scripts/run.sh --smoke-test")
    assert marker.exists()
    assert "nothing to install" in recorder.run("bash scripts/run.sh --smoke-test").stdout
    with (recorder.root / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("# a comment is a change too\n")
    assert "nothing to install" not in recorder.run("bash scripts/run.sh --smoke-test").stdout


@needs_cargo
def test_1_4_rustbpe_is_optional(rust: tuple[Project, str], smoke: tuple[Project, str]) -> None:
    assert not (smoke[0].root / "out" / "smoke" / "tokenizer").exists()
    assert "The one that comes with the package is used" in smoke[1]
    assert (rust[0].root / "out" / "smoke" / "tokenizer" / "tokenizer_meta.json").exists()


def test_1_5_manual_installation(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(project.root / ".venv")
    # With the packages of the tests' environment in sight, pip finds all that requirements.txt asks
    # for and needs no network; only the project itself is new.
    text = project.run(
        "python3 -m venv .venv; source .venv/bin/activate; pip install --upgrade pip; "
        "pip install -r requirements.txt && cd / && "
        "env -u PYTHONPATH python -c 'import minillm; print(minillm.__file__)'",
        PYTHONPATH=sysconfig.get_path("purelib"),
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",  # sic: pip reads this as "no isolation"
    ).stdout
    assert text.splitlines()[-1] == str(project.root / "minillm" / "__init__.py")
    listed = project.activated("pip list", PYTHONPATH=sysconfig.get_path("purelib"))
    card = "torch, jupyter, jupytext, jupyter-book, tiktoken, regex, maturin, matplotlib, nbval"
    for name in card.split(", "):
        assert re.search(rf"^{name} ", listed, re.M)
        assert re.search(rf"already satisfied: {name}[^\n]*from minillm", text), name


# --- 2 Data ---------------------------------------------------------------------------------------

SMALL = "--general 40 --knowledge 20 --math 8 --identity 5 --preference 10 --built_in_text 30"
BUILD = f"python scripts/build_chinese_mix.py {SMALL}"


def test_2_1_proportions_by_default(project: Project) -> None:
    text = project.activated("python scripts/build_chinese_mix.py --help")
    for category, rows in {
        "general": 460_000,
        "knowledge": 100_000,
        "math": 8_000,
        "identity": 1_000,
        "preference": 60_000,
        "identity_repeat": 2,
    }.items():
        assert default_of(category, text) == str(rows)


def test_2_2_categories_without_a_file_get_built_in_rows(project: Project) -> None:
    rows = [chat(f"问题{i}？", f"回答{i}。") for i in range(60)]
    write_json_lines(project.root / "data" / "chinese" / "general_mine.jsonl", rows)
    project.activated(BUILD)
    processed = project.root / "data" / "processed"
    report = json.loads((processed / "mix_report.json").read_text(encoding="utf-8"))
    built_in = {name: category["built_in"] for name, category in report["categories"].items()}
    assert not built_in["general"]
    assert all(built_in[name] for name in ("knowledge", "math", "identity", "preference"))
    contents = {
        row["messages"][0]["content"] for row in json_lines(processed / "sft_chinese.jsonl")
    }
    assert len(contents & {f"问题{i}？" for i in range(60)}) == 40


def test_2_3_three_files(mixed: Project) -> None:
    processed = mixed.root / "data" / "processed"
    for row in json_lines(processed / "pretrain_chinese.jsonl"):
        assert isinstance(row["text"], str)
    for row in json_lines(processed / "sft_chinese.jsonl"):
        assert [set(message) for message in row["messages"]]
        assert row["messages"][-1]["role"] == "assistant"
    for row in json_lines(processed / "dpo_chinese.jsonl"):
        assert row["chosen"][:-1] == row["rejected"][:-1]
        assert row["chosen"][-1] != row["rejected"][-1]


def test_2_4_memory_does_not_grow_with_the_data(project: Project) -> None:
    """Forty times the data, the same peak of memory."""
    measure = "import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], check=True)\n"
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    path = project.root / "data" / "chinese" / "general_big.jsonl"
    path.parent.mkdir(parents=True)
    peaks = []
    for rows in (2_000, 80_000):
        with path.open("w", encoding="utf-8") as file:
            for i in range(rows):
                row = chat(f"第{i}个问题？" + "很长" * 50, f"第{i}个回答。" + "也长" * 50)
                print(json.dumps(row, ensure_ascii=False), file=file)
        peaks.append(int(project.activated(f"python -c '{measure}' {BUILD}").splitlines()[-1]))
    assert path.stat().st_size > 50e6
    assert peaks[1] - peaks[0] < 25_000  # KiB


def test_2_5_categories_are_sampled_down_or_repeated(project: Project) -> None:
    data = project.root / "data" / "chinese"
    few = [chat(f"少{i}？", f"答{i}。") for i in range(4)]
    many = [chat(f"多{i}？", f"答{i}。") for i in range(500)]
    write_json_lines(data / "math_few.jsonl", few)
    write_json_lines(data / "general_many.jsonl", many)
    project.activated(f"{BUILD} --val_fraction 0")
    rows = json_lines(project.root / "data" / "processed" / "sft_chinese.jsonl")
    found = Counter(row["messages"][0]["content"] for row in rows)
    assert [found[f"少{i}？"] for i in range(4)] == [2, 2, 2, 2]
    assert sorted(found[f"多{i}？"] for i in range(500)) == [0] * 460 + [1] * 40


def test_2_6_identity_comes_twice(project: Project) -> None:
    rows = [chat(f"你是谁{i}？", "我是小明。") for i in range(5)]
    write_json_lines(project.root / "data" / "chinese" / "identity_conversations.jsonl", rows)
    project.activated(f"{BUILD} --val_fraction 0")
    sft = json_lines(project.root / "data" / "processed" / "sft_chinese.jsonl")
    found = Counter(row["messages"][0]["content"] for row in sft)
    assert [found[f"你是谁{i}？"] for i in range(5)] == [2] * 5


def test_2_7_rows_keep_their_fields_and_have_a_source(project: Project) -> None:
    rows = [chat(f"问{i}？", f"答{i}。", id=i, tags=["甲", {"乙": i}]) for i in range(60)]
    write_json_lines(project.root / "data" / "chinese" / "general_mine.jsonl", rows)
    project.activated(BUILD)
    sft = json_lines(project.root / "data" / "processed" / "sft_chinese.jsonl")
    assert all(row["source"] for row in sft)
    mine = [row for row in sft if "id" in row]
    assert len(mine) == 40
    assert all(row["tags"] == ["甲", {"乙": row["id"]}] for row in mine)
    assert all("general_mine" in row["source"] for row in mine)


# --- 3 Tokenizer ----------------------------------------------------------------------------------

FILES = " ".join(f"data/processed/{stage}_chinese.jsonl" for stage in ("pretrain", "sft", "dpo"))


def test_3_1_learns_from_all_three_formats(mixed: Project) -> None:
    for path in FILES.split():
        text = mixed.activated(
            f"python scripts/train_rustbpe_tokenizer.py --data_path {path} --vocab_size 300 "
            f"--out_dir {Path(path).stem}"
        )
        assert "300 tokens" in text
    tokenizer = RustBPETokenizer.load(mixed.root / "dpo_chinese")
    assert tokenizer.decode(tokenizer.encode("您好，世界")) == "您好，世界"


def test_3_2_vocabulary_of_6400_and_no_less_than_the_bytes(mixed: Project) -> None:
    text = mixed.activated("python scripts/train_rustbpe_tokenizer.py --help")
    assert default_of("vocab_size", text) == "6400"
    command = "source .venv/bin/activate && python scripts/train_rustbpe_tokenizer.py"
    done = mixed.run(f"{command} --vocab_size 264", check=False)
    assert done.returncode == 2
    assert "--vocab_size 264" in done.stdout
    assert "256" in done.stdout.splitlines()[-1]
    assert not (mixed.root / "out").exists()
    smallest = mixed.activated("python scripts/train_rustbpe_tokenizer.py --vocab_size 265")
    assert "265 tokens" in smallest


def test_3_3_writes_pickle_and_meta(mixed: Project) -> None:
    mixed.activated("python scripts/train_rustbpe_tokenizer.py --vocab_size 300 --out_dir t")
    assert (mixed.root / "t" / "tokenizer.pkl").stat().st_size > 0
    meta = json.loads((mixed.root / "t" / "tokenizer_meta.json").read_text(encoding="utf-8"))
    assert meta["pattern"] == SPLIT_PATTERN
    assert set(meta["special_tokens"]) == set(SPECIAL_TOKENS)
    assert meta["statistics"]["mergeable_tokens"] == 300 - len(SPECIAL_TOKENS)


def test_3_4_gpt4_pattern_and_tiktoken(repo: Path) -> None:
    # The pattern of cl100k_base, as tiktoken's own source has it.
    assert SPLIT_PATTERN == (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"""
        r"""|\s*[\r\n]|\s+(?!\S)|\s+"""
    )
    tokenizer = RustBPETokenizer.load()
    lines = (repo / "minillm" / "assets" / "tokenizer.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    encoding = tiktoken.Encoding(
        "test", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    for text in ("三加四等于七。", "Hello's  world\r\n 12345", "<|bos|>", "混合 mixed 😀\t\n"):
        assert tokenizer.encode(text) == encoding.encode_ordinary(text)


def test_3_5_what_later_stages_need() -> None:
    tokenizer = RustBPETokenizer.load()
    assert tokenizer.vocab_size == 6400
    assert tokenizer.decode(tokenizer.encode("小明今天几岁？")) == "小明今天几岁？"
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}]
    ids, mask = tokenizer.render_conversation(messages)
    special = tokenizer.special_id
    user, reply = tokenizer.encode("你好"), tokenizer.encode("您好")
    assert ids == [
        *(special("<|bos|>"), special("<|user_start|>"), *user, special("<|user_end|>")),
        *(special("<|assistant_start|>"), *reply, special("<|assistant_end|>")),
    ]
    assert mask == [0] * (len(user) + 4) + [1] * (len(reply) + 1)


# --- 4 Tensors ------------------------------------------------------------------------------------


def test_4_1_one_command_for_all_three_formats(exported: tuple[Project, str]) -> None:
    processed = exported[0].root / "data" / "processed"
    for stage in ("pretrain", "sft", "dpo"):
        rows = len(json_lines(processed / f"{stage}_chinese.jsonl"))
        assert all(len(tensor) == rows for tensor in tensors(exported, stage).values())


def test_4_2_pretrain_begins_with_bos(exported: tuple[Project, str]) -> None:
    data = tensors(exported, "pretrain")
    tokenizer = RustBPETokenizer.load()
    assert set(data) == {"input_ids", "labels"}
    assert data["input_ids"].shape[1] == 2048
    assert (data["input_ids"][:, 0] == tokenizer.bos_id).all()
    text = json_lines(exported[0].root / "data" / "processed" / "pretrain_chinese.jsonl")[0]["text"]
    ids = tokenizer.encode(text)
    assert data["input_ids"][0, 1 : len(ids) + 1].tolist() == ids
    assert data["labels"][0, : len(ids)].tolist() == ids


def test_4_3_sft_counts_only_the_assistant(exported: tuple[Project, str]) -> None:
    data = tensors(exported, "sft")
    assert set(data) == {"input_ids", "loss_mask"}
    tokenizer = RustBPETokenizer.load()
    rows = json_lines(exported[0].root / "data" / "processed" / "sft_chinese.jsonl")
    for row, ids, mask in zip(rows, data["input_ids"], data["loss_mask"], strict=True):
        expected, expected_mask = tokenizer.render_conversation(row["messages"])
        assert ids[: len(expected)].tolist() == expected
        assert mask[: len(expected)].tolist() == expected_mask
        assert not mask[len(expected) :].any()
        replies = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        learned = [i for i in ids[mask.bool()].tolist() if i < 6391]
        assert tokenizer.decode(learned) == "".join(replies)


def test_4_4_dpo_saves_both_sides(exported: tuple[Project, str]) -> None:
    data = tensors(exported, "dpo")
    tokenizer = RustBPETokenizer.load()
    row = json_lines(exported[0].root / "data" / "processed" / "dpo_chinese.jsonl")[0]
    for side in ("chosen", "rejected"):
        ids, mask = tokenizer.render_conversation(row[side])
        assert data[f"{side}_input_ids"][0, : len(ids)].tolist() == ids
        assert data[f"{side}_loss_mask"][0, : len(ids)].tolist() == mask
    assert len(data) == 4


def test_4_5_types_length_and_special_tokens(exported: tuple[Project, str], mixed: Project) -> None:
    for stage in ("pretrain", "sft", "dpo"):
        for tensor in tensors(exported, stage).values():
            assert tensor.dtype in (torch.int32, torch.int64)
    text = mixed.activated(
        "python scripts/export_embeddings.py --data_path data/processed/pretrain_chinese.jsonl "
        "--max-length 8 --bos-token '<|user_start|>' --append-eos --output short.pt"
    )
    assert "cut to 8" in text
    data = torch.load(mixed.root / "short.pt", weights_only=True)["input_ids"]
    tokenizer = RustBPETokenizer.load()
    assert data.shape[1] == 8
    assert (data[:, 0] == tokenizer.special_id("<|user_start|>")).all()
    write_json_lines(mixed.root / "one.jsonl", [{"text": "你好"}])
    mixed.activated(
        "python scripts/export_embeddings.py --data_path one.jsonl --max_length 8 --append_eos "
        "--output one.pt"
    )
    end = tokenizer.special_id("<|assistant_end|>")
    assert torch.load(mixed.root / "one.pt", weights_only=True)["labels"][0].tolist()[
        : len(tokenizer.encode("你好")) + 1
    ] == [*tokenizer.encode("你好"), end]


# --- 5 Model --------------------------------------------------------------------------------------

ENTRIES = ("train_pretrain", "train_full_sft", "train_dpo")


def test_5_1_default_shape_of_every_stage(project: Project) -> None:
    for entry in ENTRIES:
        text = project.activated(f"python trainer/{entry}.py --help")
        for name, value in {
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "vocab_size": 6400,
        }.items():
            assert default_of(name, text) == str(value)


def test_5_2_parameters_are_printed(smoke: tuple[Project, str]) -> None:
    for stage in ("pretrain", "sft", "dpo"):
        assert f"{stage}: 25,829,888 trainable parameters" in smoke[1]


# --- 6 One click ----------------------------------------------------------------------------------


def test_6_1_the_whole_pipeline_in_order(smoke: tuple[Project, str], recorder: Project) -> None:
    project, log = smoke
    headings = ("Environment", "Data mix", "Tokenizer", "Pretrain", "SFT", "DPO", "Done")
    places = [log.index(f"\n== {heading}") for heading in headings]
    assert places == sorted(places)
    assert "sample from dataset/ was put there" in log
    identity = project.root / "data" / "chinese" / "identity_conversations.jsonl"
    sample = project.root / "dataset" / "identity_cn_sample.jsonl"
    assert identity.read_bytes() == sample.read_bytes()
    # The plain command leaves every stage at its defaults, and pretraining's are two epochs.
    recorder.run("bash scripts/run.sh")
    for call in calls(recorder):
        assert call[1:3] == ["--preset", "default"]
        assert call[3:] in ([], ["--stage", "pretrain"], ["--stage", "sft"], ["--stage", "dpo"])
    text = project.activated("python trainer/train_pretrain.py --help")
    assert default_of("epochs", text) == "2"


def test_6_2_each_stage_is_evaluated(smoke: tuple[Project, str]) -> None:
    project, log = smoke
    results = json_lines(project.tf_dir / "eval_results.jsonl")
    assert [result["stage"] for result in results] == ["pretrain", "sft", "dpo"]
    for result in results:
        assert result["val_loss"] > 0
        assert f"{result['bits_per_byte']:.3f}" in log
    assert log.count("eval_results.jsonl") >= 3


def test_6_3_extra_arguments_reach_the_stages(smoke: tuple[Project, str]) -> None:
    configs = [r["config"] for r in json_lines(smoke[0].tf_dir / "eval_results.jsonl")]
    assert [config["learning_rate"] for config in configs] == [0.0011, 0.0012, 0.00013]
    assert configs[2]["beta"] == 0.2


def test_6_4_weights_in_out_logs_in_tf_dir(smoke: tuple[Project, str], recorder: Project) -> None:
    for stage in ("pretrain", "sft", "dpo"):
        assert (smoke[0].root / "out" / "smoke" / f"{stage}.safetensors").exists()
        assert list((smoke[0].tf_dir / stage).glob("events.*"))
    recorder.run("TF_DIR=elsewhere bash scripts/run.sh --smoke-test")
    assert (recorder.root / "elsewhere").is_dir()
    assert not recorder.tf_dir.exists()
    made = json_lines(recorder.root / "calls.jsonl")
    assert {call["TF_DIR"] for call in made} == {"elsewhere"}


@needs_cargo
def test_6_5_uv_variant_builds_and_uses_rustbpe(rust: tuple[Project, str]) -> None:
    project, log = rust
    assert list(project.site_packages.glob("rustbpe*"))
    assert "by rustbpe" in log
    assert calls(project)[0][0] == "scripts/build_chinese_mix.py"
    meta = project.root / "out" / "smoke" / "tokenizer"
    learned = RustBPETokenizer.load(meta)
    assert learned.vocab_size > 265


def test_6_6_smoke_test_is_small_and_on_the_cpu(smoke: tuple[Project, str]) -> None:
    project, log = smoke
    for result in json_lines(project.tf_dir / "eval_results.jsonl"):
        assert result["step"] <= 10
        assert (result["config"]["device"], result["config"]["dtype"]) == ("cpu", "float32")
    rows = json_lines(project.root / "data" / "processed" / "smoke" / "pretrain_chinese.jsonl")
    assert len(rows) < 2_000
    for stage in ("pretrain", "sft", "dpo"):
        assert re.search(
            rf"^{stage}: loss \d.*; weights in out/smoke/{stage}\.safetensors, "
            rf"for transformers in out/smoke/{stage}$",
            log,
            re.M,
        )
    assert "\r" not in log  # no frames of a progress bar in a file
    assert "answer fact" not in log  # no rows of zeros
    assert log.splitlines()[-1] == "  bash scripts/run.sh --preset tiny"


# --- 7 Identity -----------------------------------------------------------------------------------


def test_7_1_sample_identity(repo: Path) -> None:
    rows = json_lines(repo / "dataset" / "identity_cn_sample.jsonl")
    assert len(rows) >= 100
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles[0] == "user"
        assert roles[-1] == "assistant"
    assert any("{{name}}" in row["messages"][-1]["content"] for row in rows)


def test_7_2_own_identity_is_taken_and_resampled_twice(project: Project) -> None:
    rows = [chat(f"你叫什么{i}？", "我是{{name}}，{{author}}做的。") for i in range(3)]
    write_json_lines(project.root / "data" / "chinese" / "identity_conversations.jsonl", rows)
    project.activated(f"{BUILD} --val_fraction 0 --persona_name 阿福 --persona_author 老王")
    sft = json_lines(project.root / "data" / "processed" / "sft_chinese.jsonl")
    replies = [
        r["messages"][1]["content"]
        for r in sft
        if r["messages"][0]["content"].startswith("你叫什么")
    ]
    assert replies.count("我是阿福，老王做的。") == 10  # --identity 5, twice


def test_7_3_identity_in_nanochats_format(project: Project) -> None:
    rows = [
        chat(f"你好{i}", "我是小北。")["messages"] for i in range(5)
    ]  # a bare list on each line
    write_json_lines(project.root / "data" / "chinese" / "identity_conversations.jsonl", rows)
    project.activated(f"{BUILD} --val_fraction 0")
    sft = json_lines(project.root / "data" / "processed" / "sft_chinese.jsonl")
    assert sum(row["messages"][-1]["content"] == "我是小北。" for row in sft) == 10


# --- 8 Stage by stage -----------------------------------------------------------------------------

ONE_STEP = "--max_steps 1 --batch_size 1 --accumulation_steps 1 --max_seq_len 64 --device cpu"


def trained(mixed: Project, smoke: tuple[Project, str], *stages: str) -> None:
    """Puts finished weights of earlier stages where the default settings look for them."""
    (mixed.root / "out").mkdir()
    for stage in stages:
        name = f"{stage}.safetensors"
        (mixed.root / "out" / name).symlink_to(smoke[0].root / "out" / "smoke" / name)


def test_8_1_pretrain(mixed: Project) -> None:
    command = "python trainer/train_pretrain.py --data_path data/processed/pretrain_chinese.jsonl"
    mixed.activated(f"{command} {ONE_STEP}")
    assert (mixed.root / "out" / "pretrain.safetensors").exists()


def test_8_2_sft(mixed: Project, smoke: tuple[Project, str]) -> None:
    command = (
        f"python trainer/train_full_sft.py --data_path data/processed/sft_chinese.jsonl {ONE_STEP}"
    )
    done = mixed.run(f"source .venv/bin/activate && {command}", check=False)
    assert done.returncode == 2
    assert "python trainer/train_pretrain.py" in done.stdout.splitlines()[-1]
    trained(mixed, smoke, "pretrain")
    assert "starting from out/pretrain.safetensors" in mixed.activated(command)
    assert (mixed.root / "out" / "sft.safetensors").exists()


def test_8_3_dpo_loads_the_newest_sft_weights(mixed: Project, smoke: tuple[Project, str]) -> None:
    trained(mixed, smoke, "pretrain", "sft")
    text = mixed.activated(
        f"python trainer/train_dpo.py --data_path data/processed/dpo_chinese.jsonl {ONE_STEP}"
    )
    assert "starting from out/sft.safetensors" in text
    assert (mixed.root / "out" / "dpo.safetensors").exists()


# --- 9 When things go wrong -----------------------------------------------------------------------


@needs_cargo
def test_9_1_rustbpe_that_cannot_be_imported(mixed: Project, tmp_path: Path) -> None:
    hidden = mixed.site_packages / "rustbpe.py"
    hidden.write_text("raise ImportError('not built')\n", encoding="utf-8")
    train = (
        "source .venv/bin/activate && ENABLE_RUSTBPE=1 python scripts/train_rustbpe_tokenizer.py"
    )
    done = mixed.run(f"{train} --vocab_size 300", check=False)
    assert done.returncode == 2
    install = "uv tool install maturin"
    build = "uv run maturin develop --release --manifest-path rustbpe/Cargo.toml"
    for advice in ("ENABLE_RUSTBPE=1", install, build):
        assert advice in done.stdout.splitlines()[-1]

    hidden.unlink()
    tools = str(tmp_path / "tools")
    mixed.environment |= {"UV_TOOL_DIR": str(tmp_path / "uv"), "UV_TOOL_BIN_DIR": tools}
    mixed.environment["PATH"] = os.pathsep.join(
        [tools, os.environ["PATH"], sysconfig.get_path("scripts")]
    )
    mixed.run(install)
    mixed.activated(build)
    assert list(mixed.site_packages.glob("rustbpe*"))
    assert "by rustbpe" in mixed.run(f"{train} --vocab_size 300").stdout


def test_9_2_too_little_data_is_repeated_with_advice(project: Project) -> None:
    write_json_lines(
        project.root / "data" / "chinese" / "general_one.jsonl", [chat("只有一行？", "是的。")]
    )
    text = project.activated(f"{BUILD} --val_fraction 0")
    assert re.search(r"general: 1 .*more data", text)
    rows = json_lines(project.root / "data" / "processed" / "sft_chinese.jsonl")
    assert sum(row["messages"][0]["content"] == "只有一行？" for row in rows) == 40


def test_9_3_truncation_says_how_to_avoid_it(project: Project) -> None:
    write_json_lines(project.root / "long.jsonl", [{"text": "一二三四五六七八九十" * 20}])
    command = "python scripts/export_embeddings.py --data_path long.jsonl --output long.pt"
    text = project.activated(f"{command} --max-length 16")
    assert "long.jsonl:1" in text
    assert "raise --max-length or cut the data" in text
    assert "cut" not in project.activated(f"{command} --max-length 512")


def test_9_4_out_of_memory_names_the_flags(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minillm.config import TRAINING
    from minillm.training import loop

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "Trainer", exhausted)
    config = TRAINING["default"]["pretrain"]
    with pytest.raises(UserError, match=r"lower --batch_size .* raise --accumulation_steps"):
        loop.train(config, "pretrain")
    for stage in ENTRIES:
        text = project.activated(f"python trainer/{stage}.py --help")
        assert int(default_of("batch_size", text)) > 1
        # Gradient accumulation is on by default.
        assert int(default_of("accumulation_steps", text)) > 1, stage
