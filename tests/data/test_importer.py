"""Imports account for every row and damage nothing that is there; local folders play the hubs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from zipfile import ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.data import hubs, importer
from minillm.data.categories import CATEGORIES
from minillm.data.hubs import DATA_SETS, DownloadOptions, run_download
from minillm.data.importer import Category, ImportOptions, run_import
from minillm.data.mix import stage_rows
from minillm.data.readers import MAX_ROW_BYTES, TOO_LONG, parse_line, read
from minillm.data.rows import Chat, Pair, Text
from minillm.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "A", "好"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "text",
                    "data",
                    "paragraphs",
                    "qas",
                    "messages",
                    "role",
                    "content",
                    "label",
                    "images",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
ANY_LINE = JSON.map(json.dumps) | st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), max_size=9
)
ROW_LINE = st.dictionaries(
    st.sampled_from(
        [
            "text",
            "instruction",
            "output",
            "question",
            "answer",
            "choices",
            "system",
            "history",
            "data",
        ]
    ),
    JSON,
).map(json.dumps)
QA = [{"instruction": f"{i}加{i}等于几？", "input": "", "output": str(2 * i)} for i in range(5)]
PAIR = {"prompt": "早", "chosen": "您早。", "rejected": "哼"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a current folder of its own: the default paths are relative."""
    monkeypatch.chdir(tmp_path)


def write(path: str, *rows: Any) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return Path(path)


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def written() -> list[str]:
    """Every file below data/."""
    return sorted(str(path) for path in Path("data").rglob("*") if path.is_file())


def import_(*paths: Path, category: Category = "general", **options: Any) -> list[importer.Counts]:
    return run_import(ImportOptions(paths, category, **options))


# --- Import ---------------------------------------------------------------------------------------


def test_rows_keep_their_fields_and_say_where_they_come_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(
        "raw/belle.json",
        *[{**row, "id": i} for i, row in enumerate(QA)],
        {"text": "文", "source": "书"},
    )
    assert import_(path) == [(path, 6, 6, 0)]
    rows = rows_of("data/chinese/general_belle.jsonl")
    assert rows[3] == {
        "messages": [
            {"role": "user", "content": "3加3等于几？"},
            {"role": "assistant", "content": "6"},
        ],
        **QA[3],
        "id": 3,
        "source": "belle",
    }  # [2.7]
    assert rows[5] == {"text": "文", "source": "书"}
    assert written() == ["data/chinese/general_belle.jsonl"]
    assert capsys.readouterr().out.split("\n")[1:3] == [
        f"{'raw/belle.json':<34}            6            6            0",
        f"{'→ data/chinese/general_belle.jsonl':<34}            6            6            0",
    ]


def test_a_folder_becomes_one_file_and_tags_tell_its_parts() -> None:
    for subject in ("arts", "law"):
        write(f"raw/cmmlu/dev/{subject}.csv", ",Question,A,B,C,D,Answer", "0,问,甲,乙,丙,丁,A")
    write("raw/cmmlu/README.md", "not data")
    write("raw/cmmlu/.cache/state.json", {"hidden": 1})
    table = import_(Path("raw/cmmlu"), category="knowledge")
    assert [counts[1:] for counts in table] == [(1, 1, 0), (1, 1, 0)]
    rows = rows_of("data/chinese/knowledge_cmmlu.jsonl")
    assert [row["source"] for row in rows] == ["cmmlu/dev/arts", "cmmlu/dev/law"]
    assert rows[0].keys() == {"messages", "subject", "id", "Answer", "source"}


def test_bad_rows_go_to_the_quarantine_with_their_reason() -> None:
    path = write("raw/a.jsonl", QA[0], "broken", {**QA[1], "output": ""}, PAIR, QA[2])
    assert import_(path) == [(path, 5, 2, 3)]
    bad = rows_of("data/processed/import_quarantine.jsonl")
    assert [(row["path"], row["line"]) for row in bad] == [
        ("raw/a.jsonl", line) for line in (2, 3, 4)
    ]
    assert [row["reason"] for row in bad] == [
        "broken JSON: JSON is malformed: invalid character (byte 0)",
        "output is empty",
        "general rows are plain text or a conversation, this is a preference pair",
    ]
    assert bad[0]["raw"] == "broken"


def test_the_quarantine_holds_every_file_once() -> None:
    first, second = write("raw/a.jsonl", QA[0], "1"), write("raw/b.jsonl", QA[1], "2")
    Path("data/processed").mkdir(parents=True)
    quarantine = write("data/processed/import_quarantine.jsonl", "a line of someone else")
    import_(first)
    import_(second)
    import_(first)
    lines = quarantine.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "a line of someone else"
    assert [json.loads(line)["path"] for line in lines[1:]] == ["raw/b.jsonl", "raw/a.jsonl"]
    write("raw/a.jsonl", QA[0])
    import_(first)
    assert len(quarantine.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("category", "fits"),
    [
        ("text", [Text]),
        ("preference", [Pair]),
        *((category, [Text, Chat]) for category in ("general", "knowledge", "math", "identity")),
    ],
)
def test_a_category_takes_its_kind_of_rows_only(category: Category, fits: list[type]) -> None:
    path = write("raw/mixed.jsonl", {"text": "文"}, QA[0], PAIR)
    [counts] = import_(path, category=category)
    assert counts[1:] == (3, len(fits), 3 - len(fits))
    rows = list(read(Path(f"data/chinese/{category}_mixed.jsonl")))
    assert [type(record.row) for record in rows] == fits


def test_categories_are_those_of_the_mix() -> None:
    assert get_args(Category) == CATEGORIES


def test_placeholders_of_the_persona_are_left_to_the_mix() -> None:
    rows = [
        {"query": "你是谁？", "response": answer}
        for answer in ("我是{{name}}。", "我是{{NAME}}，{{AUTHOR}}写的。")
    ]
    import_(write("raw/self.jsonl", *rows), category="identity", name="conversations")
    answers = [
        row["messages"][1]["content"]
        for row in rows_of("data/chinese/identity_conversations.jsonl")
    ]
    assert answers == ["我是{{name}}。", "我是{{name}}，{{author}}写的。"]


def test_a_row_that_the_mix_would_not_read_is_refused() -> None:
    long = "长" * (MAX_ROW_BYTES // 3 // 2)
    rows = [{"text": long}, {"instruction": long, "output": "短"}, {"text": "短"}]
    path = write("raw/a.jsonl", *rows)  # the second holds its question twice when it is written
    assert import_(path, category="general") == [(path, 3, 2, 1)]
    assert [row["reason"] for row in rows_of("data/processed/import_quarantine.jsonl")] == [
        TOO_LONG
    ]
    for line in Path("data/chinese/general_a.jsonl").read_bytes().splitlines(keepends=True):
        parse_line(line)


def test_a_long_row_of_any_kind_of_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("minillm.data.readers.MAX_ROW_BYTES", 300)
    monkeypatch.setattr("minillm.data.importer.MAX_ROW_BYTES", 300)
    texts = ["短", "长" * 200, "短"]
    rows = [{"text": text} for text in texts]
    article = {"context": "长" * 80, "qas": [{"question": "问", "answers": [{"text": "答"}]}]}
    document = json.dumps({"data": [{"paragraphs": [article]}, {"text": "短"}]}, ensure_ascii=False)
    write("raw/a.jsonl", *rows)
    write("raw/b.json", json.dumps(rows, ensure_ascii=False))
    write("raw/c.csv", "text", *texts)
    write("raw/e.json", document)
    parquet.write_table(pyarrow.table({"text": texts}), "raw/d.parquet")
    table = import_(Path("raw"), category="general")
    assert [counts[1:] for counts in table] == [(3, 2, 1)] * 4 + [(2, 1, 1)]
    assert {row["reason"] for row in rows_of("data/processed/import_quarantine.jsonl")} == {
        TOO_LONG
    }


def test_a_source_that_is_null_is_none() -> None:
    import_(write("raw/a.jsonl", {"text": "一", "source": None, "note": None}))
    assert rows_of("data/chinese/general_a.jsonl") == [{"text": "一", "source": "a", "note": None}]


def test_an_array_under_the_name_of_json_lines_is_imported() -> None:
    for number, content in enumerate(
        [json.dumps(QA), json.dumps(QA, indent=1), json.dumps({"data": QA})]
    ):
        path = write(f"raw/{number}.jsonl", content)
        assert import_(path) == [(path, 5, 5, 0)]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
@given(st.lists(st.one_of(ANY_LINE, ROW_LINE), max_size=8), st.sampled_from(["jsonl", "json"]))
def test_rows_in_are_rows_out_and_quarantined(lines: list[str], suffix: str) -> None:
    shutil.rmtree("data", ignore_errors=True)
    path = write(f"raw/a.{suffix}", json.dumps(QA[0]), *lines, json.dumps({"text": "末"}))
    [counts] = import_(path)
    assert counts.rows_in == counts.rows_out + counts.quarantined
    quarantine = Path("data/processed/import_quarantine.jsonl")
    bad = rows_of(quarantine) if quarantine.exists() else []
    assert len(bad) == counts.quarantined
    assert len(rows_of("data/chinese/general_a.jsonl")) == counts.rows_out
    # Every line is accounted for, those that hold no row or several too.
    assert counts.rows_in >= sum(1 for line in lines if line.encode().strip()) + 2


def test_null_columns_do_not_send_a_row_to_another_stage() -> None:
    turns = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]
    nulls = dict.fromkeys(["text", "messages", "chosen", "rejected"])
    rows = [
        ({"text": "一"}, ["pretrain"]),
        ({"messages": turns}, ["sft", "pretrain"]),
        ({"chosen": turns, "rejected": [turns[0], {**turns[1], "content": "哼"}]}, ["dpo"]),
    ]
    for fields, stages in rows:
        assert [stage for stage, _ in stage_rows({**nulls, **fields})] == stages


def test_strict_stops_at_the_first_bad_row_and_writes_nothing() -> None:
    good, bad = write("raw/a.jsonl", *QA), write("raw/b.jsonl", QA[0], "{", "{")
    with pytest.raises(UserError) as error:
        import_(good, bad, strict=True)
    assert str(error.value) == "raw/b.jsonl:2: broken JSON: Input data was truncated"
    assert written() == []
    assert import_(good, strict=True) == [(good, 5, 5, 0)]


def test_another_file_of_the_same_name_is_not_overwritten() -> None:
    path, other = write("raw/a.jsonl", *QA), write("new/a.jsonl", *QA[:2])
    import_(path)
    before = rows_of("data/chinese/general_a.jsonl")
    import_(path)  # the same rows again: nothing to object to
    with pytest.raises(
        UserError,
        match=r"general_a\.jsonl exists, with other rows: remove it, or choose another --name",
    ):
        import_(other)
    assert rows_of("data/chinese/general_a.jsonl") == before
    import_(other, name="new a")
    assert len(rows_of("data/chinese/general_new_a.jsonl")) == 2
    with pytest.raises(
        UserError, match=r"new/a\.jsonl: there is an output .*general_a\.jsonl already"
    ):
        import_(path, other)


def test_an_error_on_the_way_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("raw/a.jsonl", *QA)
    import_(path)
    before = {name: Path(name).read_bytes() for name in written()}

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"import_quarantine\.jsonl: cannot write: No space left"):
        import_(path)
    assert {name: Path(name).read_bytes() for name in written()} == before


def test_a_file_without_a_usable_row_makes_no_output() -> None:
    path = write("raw/empty.jsonl")
    with pytest.raises(
        UserError,
        match=r"general_empty\.jsonl: not written, no row can be used; see data/processed/import_",
    ):
        import_(path)
    assert written() == ["data/processed/import_quarantine.jsonl"]


def test_what_cannot_be_imported_is_one_line() -> None:
    Path("raw").mkdir()
    for options, message in [
        (ImportOptions(), "no PATH: minillm import PATH... --category CATEGORY"),
        (ImportOptions((Path("raw"),)), f"--category is missing: {', '.join(CATEGORIES)}"),
        (ImportOptions((Path("none"),), "math"), "none: no such file or folder"),
        (
            ImportOptions((Path("raw"),), "math"),
            "raw: no .jsonl, .json, .csv, .parquet files in this folder",
        ),
    ]:
        with pytest.raises(UserError) as error:
            run_import(options)
        assert str(error.value) == message
    path = write("raw/a.txt", "x")
    with pytest.raises(UserError, match=r"raw/a\.txt: unknown kind of file"):
        import_(path)
    assert written() == []


# --- Download -------------------------------------------------------------------------------------

Snapshot = Callable[..., str]


def test_every_known_data_set_names_files_that_can_be_read() -> None:
    for name, known in DATA_SETS.items():
        assert known.category in CATEGORIES, name
        for hub in filter(None, (known.hf, known.modelscope)):
            assert hub.repository.count("/") == 1
            assert hub.files
            for pattern in hub.files:
                assert pattern.endswith((".jsonl", ".json", ".json*", ".parquet", ".zip")), pattern


def test_download_from_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **how: Any) -> str:
        asked.update(how, repo_id=repo_id)
        write(f"{how['local_dir']}/cmath_dev.jsonl", {"grade": 1, "input": "1+1=", "golden": "2"})
        return str(how["local_dir"])

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert run_download(DownloadOptions("cmath")) == [
        (Path("data/raw/cmath/cmath_dev.jsonl"), 1, 1, 0)
    ]
    assert asked == {
        "repo_id": "weitianwen/cmath",
        "repo_type": "dataset",
        "revision": None,
        "allow_patterns": ["*.jsonl"],
        "local_dir": Path("data/raw/cmath"),
    }
    assert rows_of("data/chinese/math_cmath.jsonl")[0]["source"] == "cmath/cmath_dev"


def test_download_from_modelscope_unpacks_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def dataset_snapshot_download(dataset_id: str, **how: Any) -> None:
        asked.update(how, dataset_id=dataset_id)
        with ZipFile(Path(how["local_dir"], "cmmlu_v1.zip"), "w") as archive:
            archive.writestr("dev/arts.csv", ",Question,A,B,C,D,Answer\n0,问,甲,乙,丙,丁,A\n")
            archive.writestr("../outside.csv", "x\n")

    module = types.ModuleType("modelscope.hub.snapshot_download")
    monkeypatch.setattr(
        module, "dataset_snapshot_download", dataset_snapshot_download, raising=False
    )
    for name in ("modelscope", "modelscope.hub", "modelscope.hub.snapshot_download"):
        monkeypatch.setitem(sys.modules, name, module)
    table = run_download(DownloadOptions("cmmlu", "modelscope"))
    assert (Path("data/raw/cmmlu/cmmlu_v1/dev/arts.csv"), 1, 1, 0) in table
    assert asked == {
        "dataset_id": "modelscope/cmmlu",
        "local_dir": "data/raw/cmmlu",
        "allow_file_pattern": ["*.zip"],
    }
    assert not Path("data/raw/cmmlu/outside.csv").exists()


def test_download_without_a_network_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's real code, pointed at an address where nobody listens."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as error:
        run_download(DownloadOptions("belle"))
    message = str(error.value)
    assert message.startswith("BelleGroup/train_0.5M_CN cannot be fetched from hf: ")
    assert message.endswith("minillm import data/raw/belle --category general --name belle")
    assert "\n" not in message


@pytest.mark.parametrize(("name", "package"), [("hf", "-e '.[hub]'"), ("modelscope", "modelscope")])
def test_download_without_the_library(
    monkeypatch: pytest.MonkeyPatch, name: hubs.HubName, package: str
) -> None:
    for module in ("huggingface_hub", "modelscope", "modelscope.hub.snapshot_download"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        run_download(DownloadOptions("belle", name))
    assert str(error.value).startswith(f"--hub {name}: pip install {package} (")


def test_download_of_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_download(DownloadOptions()) == []
    assert len(capsys.readouterr().out.splitlines()) == len(DATA_SETS)
    with pytest.raises(UserError, match=r"no data set 'bell'; there are .*belle"):
        run_download(DownloadOptions("bell"))
    with pytest.raises(UserError, match="cmath is not known on modelscope: --hub hf"):
        run_download(DownloadOptions("cmath", "modelscope"))


# --- Real data ------------------------------------------------------------------------------------


def count_rows(path: Path) -> int:
    """Rows of a file of the real data, counted without any of the project's code."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return sum(1 for _ in csv.DictReader(file))
    text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return len([json.loads(line) for line in text.splitlines()])
    if isinstance(document, dict):
        return sum(len(p["qas"]) for article in document["data"] for p in article["paragraphs"])
    return len(document)


BAD = {
    "sharegpt_zh_1K_format.jsonl": [59, 780],
    "cmrc2018_trial_squad.json": [1, 1],
    "minimind_dpo.jsonl": [1],  # its sides ask different second questions
}


@pytest.mark.parametrize(
    ("path", "category"),
    [
        ("general", "general"),
        ("knowledge/cmmlu", "knowledge"),
        ("knowledge/clue_tnews", "knowledge"),
        ("knowledge/cmrc2018_trial_squad.json", "knowledge"),
        ("math", "math"),
        ("identity", "identity"),
        ("preference", "preference"),
        ("formats/minimind_sft.jsonl", "general"),
        ("formats/minimind_dpo.jsonl", "preference"),
    ],
)
def test_every_row_of_the_real_data_is_accounted_for(
    real_data: Path, path: str, category: Category
) -> None:
    table = import_(real_data / "raw" / path, category=category)
    for counts in table:
        assert counts.rows_in == count_rows(counts.file) == counts.rows_out + counts.quarantined
        assert counts.quarantined == len(BAD.get(counts.file.name, []))
    [output] = Path("data/chinese").iterdir()
    lines = output.read_bytes().splitlines()
    assert len(lines) == sum(counts.rows_out for counts in table)
    for line in lines:
        raw, row = parse_line(line)
        assert isinstance(row, Pair if category == "preference" else Chat)
        assert raw["source"]
    quarantine = Path("data/processed/import_quarantine.jsonl")
    bad = rows_of(quarantine) if quarantine.exists() else []
    assert [(Path(row["path"]).name, row["line"]) for row in bad] == [
        (counts.file.name, line) for counts in table for line in BAD.get(counts.file.name, [])
    ]


def test_all_files_of_the_real_data_are_covered(real_data: Path) -> None:
    folders = {path.name for path in (real_data / "raw").iterdir()}
    assert folders == {"general", "knowledge", "math", "identity", "preference", "formats"}
