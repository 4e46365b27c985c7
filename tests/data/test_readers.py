"""Files as people have them: every kind, every way to be broken, and memory that does not grow."""

from __future__ import annotations

import csv
import decimal
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.data import readers
from minillm.data.formats import BESIDE, canonical
from minillm.data.readers import MAX_ROW_BYTES, Quarantined, Record, entries, parse_line, read
from minillm.data.rows import BadRow, Chat, Pair, Text, plain_text
from minillm.errors import UserError

Write = Callable[[str, str | bytes], Path]
GOOD = '{"text": "第一行"}'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read_all(path: Path) -> tuple[list[Record], list[Quarantined]]:
    bad: list[Quarantined] = []
    return list(read(path, bad.append)), bad


def texts(path: Path) -> list[tuple[int, str]]:
    """(line, text) of a file in which every row is a good text."""
    records, bad = read_all(path)
    assert not bad
    assert all(isinstance(record.row, Text) for record in records)
    return [(record.line, record.raw["text"]) for record in records]


# --- JSON Lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        '{"text":"一"}\n\n{"text":"二"}\n',
        '{"text":"一"}\r\n\r\n{"text":"二"}\r\n',
        '\ufeff{"text":"一"}\n   \n {"text":"二"} ',
        '{"text":"\\u4e00"}\n\t\n{ "text" : "\\u4e8c" }',
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.JSONL"])
def test_bom_crlf_blank_lines_and_a_wrong_name_are_no_trouble(
    write: Write, name: str, content: str
) -> None:
    assert texts(write(name, content)) == [(1, "一"), (3, "二")]


def test_jsonl_is_read_line_by_line(write: Write) -> None:  # [2.4]
    rows = read(write("a.jsonl", f"{GOOD}\nbroken\n"))
    assert next(rows).line == 1
    with pytest.raises(UserError, match=r"a\.jsonl:2: broken JSON"):
        next(rows)


def test_memory_does_not_grow_with_a_jsonl_file(write: Write) -> None:  # [2.4]
    path = write("a.jsonl", (json.dumps({"text": "长" * 1000}) + "\n") * 2000)
    assert path.stat().st_size > 8e6
    tracemalloc.start()
    rows = sum(1 for _ in read(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 2000
    assert peak < 500_000


def test_a_line_of_50_mb_costs_no_more_than_the_limit(write: Write) -> None:
    path = write("a.jsonl", b'{"text": "' + b"x" * 50_000_000 + b'"}\n' + GOOD.encode() + b"\n")
    tracemalloc.start()
    records, bad = read_all(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record.line for record in records] == [2]
    assert str(bad[0]) == f"{path}:1: the row is longer than 16 MiB"
    assert len(bad[0].raw) == 200
    assert peak < 2.2 * MAX_ROW_BYTES  # once in pieces, once whole


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "broken JSON: Input data was truncated"),
        (b'{"text": "a"} {"text": "b"}', "broken JSON"),
        (b"{'text': 'a'}", "broken JSON"),
        (b'{"text": NaN}', "broken JSON"),
        (b'{"text": "a", "n": 1e999}', "broken JSON"),
        (b'{"text": "\\ud800 alone"}', "broken JSON"),  # half of a character
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8 (byte 0xed)"),  # the same, encoded
        ('{"text": "中文"}'.encode("gbk"), "not UTF-8 (byte 0xd6)"),
        (b"\x1f\x8b\x08\x00", "broken JSON"),
        (b"[" * 100_000, "broken JSON: nested too deeply"),
        (b'"text"', "a row must be an object, not a string"),
        (b"12", "a row must be an object, not a number"),
        (b"null", "a row must be an object, not null"),
        (b"[]", "there are no rows in it"),
        (b'{"data": []}', "there are no rows in it"),
        (b'{"paragraphs": []}', "there are no rows in it"),
        (b'{"data": [{"paragraphs": [{"context": "x", "qas": []}]}]}', "there are no rows in it"),
        (b'[["x"], [], "3-1"]', "there are no rows in it"),
        (b'{"text": 7}', "text must be a string, not a number"),
    ],
)
def test_a_bad_line_is_reported_and_the_others_are_read(
    write: Write, line: bytes, reason: str
) -> None:
    path = write("a.jsonl", GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode())
    records, bad = read_all(path)
    assert [record.line for record in records] == [1, 3]
    assert [entry.line for entry in bad] == [2]
    assert reason in bad[0].reason
    if bad[0].reason.startswith(("broken", "not")):
        assert bad[0].raw == line.decode(errors="replace")[:200]
    else:
        assert json.loads(bad[0].raw) == json.loads(line)
    assert "\n" not in str(bad[0])
    with pytest.raises(UserError) as error:
        list(read(path))
    assert str(error.value) == f"{path}:2: {bad[0].reason}"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


NESTING = st.recursive(
    JSON,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["text", "data", "paragraphs", "qas", "context", "title", "messages", "role"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
ANY_LINE = NESTING.map(json.dumps) | st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\ufeff"), max_size=9
)
"""A line of JSON that may hold rows, or of anything."""


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.text(min_size=1), st.booleans())
def test_any_json_object_is_kept_as_it_is(
    extra: dict[str, Any], text: str, ascii_only: bool
) -> None:  # [2.7]
    document = {
        **extra,
        "messages": [
            {"role": "user", "content": "问" + text},
            {"role": "assistant", "content": text + "答"},
        ],
    }
    document = {key: value for key, value in document.items() if key not in ("chosen", *BESIDE)}
    raw, row = parse_line(json.dumps(document, ensure_ascii=ascii_only).encode())
    assert raw == document
    assert isinstance(row, Chat)
    assert json.loads(msgspec.json.encode(canonical(raw, row))) == document


@settings(deadline=None)
@given(st.one_of(st.binary(), JSON.map(json.dumps).map(str.encode)))
def test_any_other_line_is_a_bad_row_and_nothing_worse(line: bytes) -> None:
    with pytest.raises(BadRow):
        parse_line(line)


# --- JSON documents -------------------------------------------------------------------------------

ROWS = [{"text": "一"}, {"text": "二", "more": [1, {"a": "]"}]}, {"text": "三"}]


@pytest.mark.parametrize(("indent", "lines"), [(None, [1, 1, 1]), (2, [2, 5, 14])])
def test_arrays_are_read_with_the_lines_their_rows_begin_on(
    write: Write, indent: int | None, lines: list[int]
) -> None:
    content = json.dumps(ROWS, ensure_ascii=False, indent=indent)
    assert texts(write("a.json", content)) == list(zip(lines, "一二三", strict=True))
    assert texts(write("b.json", "\ufeff\n" + content)) == [
        (line + 1, text) for line, text in zip(lines, "一二三", strict=True)
    ]


def test_a_bad_row_in_an_array_spoils_no_other(write: Write) -> None:
    items = [b'{"text": "a"}', b'{"text": "\xff"}', b"5", b'{"text": 1}', b'{"text": "b"}']
    path = write("a.json", b"[\n" + b",\n".join(items) + b"\n]")
    records, bad = read_all(path)
    assert [record.line for record in records] == [2, 6]
    assert [(entry.line, entry.reason) for entry in bad] == [
        (3, "not UTF-8 (byte 0xff)"),
        (4, "a row must be an object, not a number"),
        (5, "text must be a string, not a number"),
    ]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ('[\n{"text": "a"},\n{"text": "b"}', 3, "Input data was truncated"),
        ('[\n{"text": "a"},\n{"text": "b', 3, "Input data was truncated"),
        ('[\n{"text": "a"},\n{"text" "b"}\n]', 3, "expected ':' (byte 25)"),
        ('[\n{"text": "a"},\n{"text": NaN}\n]', 3, "invalid character (byte 26)"),
        ('[\n{"text": "a"}]\n[{"text": "b"}]', 3, "trailing characters (byte 18)"),
        ('[{"text": "a"},\n,{"text": "b"}]', 2, "invalid character (byte 16)"),
        ('{\n"text": "a",\n"b" 1}', 3, "expected ':' (byte 19)"),
        ('{\n"text":\n', 3, "Input data was truncated"),
    ],
)
def test_a_broken_document_is_reported_with_the_line(
    write: Write, content: str, line: int, problem: str
) -> None:
    path = write("a.json", content)
    records, bad = read_all(path)
    assert not records
    assert [entry.line for entry in bad] == [line]
    assert bad[0].reason.startswith("broken JSON: ")
    assert problem in bad[0].reason
    # Rows before the broken place were good ones: it must be said that they are lost.
    assert bad[0].reason.endswith("; no row of the array is read") == content.startswith("[")


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_any_array_falls_into_its_items(
    items: list[Any], indent: int | None, ascii_only: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_text(json.dumps(items, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        found = list(entries(path))
    if items:
        assert [entry.raw for entry in found] == items
    else:
        assert [entry.problem for entry in found] == ["there are no rows in this file"]


def test_one_object_and_one_line_are_one_row(write: Write) -> None:
    assert texts(write("a.json", '{"text": "一"}')) == [(1, "一")]
    assert texts(write("b.json", '{\n  "text": "一"\n}\n')) == [(1, "一")]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (json.dumps(ROWS, ensure_ascii=False), [1, 1, 1]),
        (json.dumps(ROWS, ensure_ascii=False, indent=2), [2, 5, 14]),
        ("[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "]", [1, 2, 3]),
        (json.dumps({"data": ROWS}, ensure_ascii=False), [1, 1, 1]),
        (json.dumps({"version": 1, "data": ROWS}, ensure_ascii=False, indent=2), [1, 1, 1]),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_array_of_rows_is_read_whatever_the_file_is_called(
    write: Write, name: str, content: str, lines: list[int]
) -> None:
    assert texts(write(name, content)) == list(zip(lines, "一二三", strict=True))


def test_an_array_in_one_long_line_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 60)
    content = json.dumps([*ROWS, {"text": "长" * 60}], ensure_ascii=False)
    for name in ("a.json", "a.jsonl"):
        records, bad = read_all(write(name, content))
        assert [record.raw["text"] for record in records] == ["一", "二", "三"]
        assert [entry.reason for entry in bad] == [readers.TOO_LONG]


def test_a_row_that_is_cut_off_is_not_the_beginning_of_a_document(write: Write) -> None:
    for line in ('{"text": "a', '[{"role": "user", "content": "a"}', '[{"role": "user"', "[1"):
        records, bad = read_all(write("a.jsonl", f"{line}\n{GOOD}\n{GOOD}\n"))
        assert [record.line for record in records] == [2, 3]
        assert [entry.line for entry in bad] == [1]


def test_one_line_of_several_rows_says_what_to_do() -> None:
    for value in ([{"text": "一"}, {"text": "二"}], {"data": [{"text": "一"}, {"text": "二"}]}):
        with pytest.raises(BadRow, match="2 rows in one line: `minillm import` gives each its own"):
            parse_line(json.dumps(value).encode())
    for line in (b"[\n", b" {\r\n"):
        with pytest.raises(BadRow, match="a JSON document of many lines: `minillm import` reads"):
            parse_line(line)


def test_fields_named_like_a_container_stay_fields() -> None:
    for row in (
        {"text": "一", "data": []},
        {"text": "一", "data": [1]},
        {"text": "一", "paragraphs": 2},
    ):
        assert parse_line(json.dumps(row).encode()) == (row, Text("一"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ANY_LINE, max_size=6), st.sampled_from(["a.jsonl", "a.json"]))
def test_every_line_is_a_row_or_is_reported(write: Write, lines: list[str], name: str) -> None:
    path = write(name, "".join(line + "\n" for line in [GOOD, *lines, GOOD]))
    records, bad = read_all(path)
    assert len(records) + len(bad) == sum(1 for _ in entries(path))
    filled = [
        number for number, line in enumerate([GOOD, *lines, GOOD], 1) if line.encode().strip()
    ]
    assert sorted({entry.line for entry in [*records, *bad]}) == filled


def test_nanochat_writes_bare_lists_of_messages(write: Write) -> None:
    line = '[{"role":"user","content":"你好"},{"role":"assistant","content":"你好！"}]\n'
    for name in ("a.jsonl", "a.json"):
        records, bad = read_all(write(name, line * 2))
        assert not bad
        assert [record.line for record in records] == [1, 2]
        assert all(isinstance(record.row, Chat) for record in records)


SQUAD = {
    "version": "v1.0",
    "data": [
        {
            "title": "小河",
            "paragraphs": [
                {
                    "id": "p1",
                    "context": "小河流到湖里。河上有两座桥。",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "流到哪里？",
                            "answers": [{"text": "湖里", "answer_start": 4}],
                        },
                        {
                            "id": "q2",
                            "question": "",
                            "answers": [{"text": "两座", "answer_start": 10}],
                        },
                        {
                            "id": "q3",
                            "question": "几座桥？",
                            "answers": [{"text": "两座", "answer_start": 10}],
                        },
                    ],
                }
            ],
        }
    ],
}


@pytest.mark.parametrize("indent", [None, 1])
def test_squad_has_a_row_for_each_question(write: Write, indent: int | None) -> None:
    records, bad = read_all(write("a.json", json.dumps(SQUAD, ensure_ascii=False, indent=indent)))
    assert [record.raw["id"] for record in records] == ["q1", "q3"]
    assert [entry.reason for entry in bad] == ["question is empty"]
    assert '"id":"q2"' in bad[0].raw
    assert canonical(records[0].raw, records[0].row).keys() == {
        "messages",
        "id",
        "answers",
        "title",
    }
    articles = "\n".join(json.dumps(article) for article in SQUAD["data"])
    assert [record.raw["id"] for record in read_all(write("b.jsonl", articles))[0]] == ["q1", "q3"]


def test_c3_has_a_row_for_each_question(write: Write) -> None:
    question = {"question": "去哪儿？", "choice": ["湖边", "山上"], "answer": "山上"}
    document = [
        [["男：去湖边吗？", "女：去山上。"], [question, {**question, "answer": "海边"}], "3-1"]
    ]
    records, bad = read_all(write("a.json", json.dumps(document, indent=1)))
    assert [(record.line, record.raw["id"]) for record in records] == [(2, "3-1")]
    assert isinstance(records[0].row, Chat)
    assert records[0].row.messages[1].content == "B. 山上"
    assert [entry.reason for entry in bad] == ["answer is '海边', not one of A, B"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (
            {"data": [{"paragraphs": [{"context": 1, "qas": []}]}]},
            "not an article of SQuAD: Expected `str`, got `int` - at `$.paragraphs[0].context`",
        ),
        ({"paragraphs": {}}, "not an article of SQuAD: Expected `array`, got `object`"),
        ({"data": ["x"]}, "data[0] must be an object, not a string"),
        ([["文"], "问"], "C3's questions must be an array, not a string"),
        ([["文"], [1]], "C3's questions[0] must be an object, not a number"),
        ([{"text": "一"}, 5], "the array[1] must be an object, not a number"),
    ],
)
def test_nested_files_with_wrong_types_are_bad_rows(document: Any, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        parse_line(json.dumps(document).encode())
    assert str(caught.value).startswith(reason)


# --- CSV ------------------------------------------------------------------------------------------

CMMLU = ["", "Question", "A", "B", "C", "D", "Answer"]


def write_csv(path: Path, rows: list[list[str]], **how: Any) -> Path:
    with path.open("w", encoding=how.pop("encoding", "utf-8"), newline="") as file:
        csv.writer(file, **how).writerows(rows)
    return path


@pytest.mark.parametrize(
    "how", [{}, {"lineterminator": "\n"}, {"encoding": "utf-8-sig"}, {"quoting": csv.QUOTE_ALL}]
)
def test_csv_as_the_csv_module_writes_it(tmp_path: Path, how: dict[str, Any]) -> None:
    odd = '哪个是"引号"，\n哪个不是？'
    rows = [["0", odd, *"甲乙丙丁", "B"], ["1", "第二题", *"甲乙丙丁", "D"]]
    records, bad = read_all(write_csv(tmp_path / "arts.csv", [CMMLU, *rows], **how))
    assert not bad
    assert [record.line for record in records] == [2, 4]
    assert [record.raw["id"] for record in records] == ["0", "1"]
    assert {record.raw["subject"] for record in records} == {"arts"}
    assert isinstance(records[0].row, Chat)
    question, answer = records[0].row.messages
    assert question.content == f"{odd}\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n请选出正确的选项。"
    assert answer.content == "B. 乙"


def test_a_bad_line_of_csv_spoils_no_other(write: Write) -> None:
    good = "7,问,甲,乙,丙,丁,A\r\n".encode()
    bad_lines = [
        ("8,问,甲\r\n".encode(), "3 fields, the header has 7"),
        ("8,问,甲,乙,丙,丁,A,B\r\n".encode(), "8 fields, the header has 7"),
        ("8,问,甲,乙,丙,丁,A\r\n".encode("gbk"), "not UTF-8"),
        ("8,问,甲,乙,丙,丁,戊\r\n".encode(), "Answer is '戊', not one of A, B, C, D"),
        (b"8," + b"x" * 200_000 + b"\r\n", "2 fields, the header has 7"),
    ]
    content = ",".join(CMMLU).encode() + b"\r\n" + good
    path = write("a.csv", content + b"".join(line + good for line, _ in bad_lines) + b"\r\n")
    records, bad = read_all(path)
    assert [record.line for record in records] == [2, 4, 6, 8, 10, 12]
    assert [(entry.line, entry.reason) for entry in bad] == [
        (3 + 2 * i, reason) for i, (_, reason) in enumerate(bad_lines)
    ]
    assert '"id":"8"' in bad[0].raw


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_long_cell_of_csv_is_a_cell(tmp_path: Path, quoting: int) -> None:
    long = "第一行，\n“第二行”，\n" * 40_000  # beyond the csv module's own limit
    rows = [["question", "answer"], ["甲", "一"], ["乙", long], ["丙", "三"]]
    records, bad = read_all(write_csv(tmp_path / "a.csv", rows, quoting=quoting))
    assert not bad
    assert [record.raw["answer"] for record in records] == ["一", long, "三"]
    assert [record.line for record in records] == [2, 3, 80_004]


@pytest.mark.parametrize(
    "long",
    [
        "x" * 900,
        '"' + 'x,y ""z"", \n' * 90 + '"',
        '"' + "x\n" * 500 + '"',
        '"' + ',""' * 300 + "\n" * 300 + '"',
        "x" * 700 + ',"' + 'a""\n' * 300 + '"',
    ],
)
@pytest.mark.parametrize("limit", [50, 64, 65, 66, 67])
def test_a_row_of_csv_that_is_too_long_is_one_bad_row(
    write: Write, monkeypatch: pytest.MonkeyPatch, long: str, limit: int
) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", limit)
    path = write("a.csv", f"question,answer\n甲,一\n乙,{long}\n丙,三\n")
    records, bad = read_all(path)
    assert [record.raw["question"] for record in records] == ["甲", "丙"]
    assert [(entry.line, entry.reason) for entry in bad] == [(3, readers.TOO_LONG)]
    assert records[1].line == 4 + long.count("\n")


def test_a_quote_that_is_never_closed_is_reported_and_fills_no_memory(write: Write) -> None:
    good = "问,答\n".encode()
    path = write("a.csv", b"question,answer\n" + good + '问,"答\n'.encode() + good * 10)
    records, bad = read_all(path)
    assert [record.line for record in records] == [2]
    assert [(entry.line, entry.reason) for entry in bad] == [
        (3, "broken CSV: a quote that is opened here is never closed")
    ]
    with path.open("ab") as file:
        for _ in range(6):
            file.write((b"x" * 999 + b"\n") * 16_000)
    tracemalloc.start()
    records, bad = read_all(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [entry.line for entry in bad] == [3]
    assert peak < 16 * MAX_ROW_BYTES  # the csv module holds 4 bytes a character, and twice


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    turns = [{"role": "user", "content": "早"}, {"role": "assistant", "content": "您早。"}]
    rejected = [turns[0], {"role": "assistant", "content": "哼"}]
    pairs = [{"prompt": "早", "chosen": turns, "rejected": rejected, "score_chosen": 8.5}] * 3
    path = tmp_path / "pairs.parquet"
    datasets.Dataset.from_list(pairs).to_parquet(path)
    records, bad = read_all(path)
    assert not bad
    assert [record.line for record in records] == [1, 2, 3]
    assert [record.raw for record in records] == pairs
    assert isinstance(records[0].row, Pair)

    # Labels are stored as numbers that mean nothing without the words beside them.
    string = datasets.Value("string")
    label = datasets.ClassLabel(names=["neutral", "entailment", "contradiction"])
    features = datasets.Features({"sentence1": string, "sentence2": string, "label": label})
    columns = {"sentence1": ["甲"] * 3, "sentence2": ["乙"] * 3, "label": [1, 0, -1]}  # -1: none
    path = tmp_path / "ocnli.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    records, bad = read_all(path)
    assert [record.raw["label"] for record in records] == ["entailment", "neutral"]
    assert [plain_text(record.row)[-2:] for record in records] == ["蕴含", "无关"]
    assert [str(entry) for entry in bad] == [f"{path}:3: label must be a string, not a number"]


def test_null_columns_of_parquet_are_missing_fields(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(
        pyarrow.table({"text": ["甲", None], "query": [None, "1+1="], "response": [None, "2"]}),
        path,
    )
    records, bad = read_all(path)
    assert not bad
    assert [type(record.row) for record in records] == [Text, Chat]


def test_every_type_of_parquet_becomes_json(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nano = 1_700_000_000_123_456_789
    columns = {
        "text": pa.array(["甲".encode()], pa.binary()),
        "nano": pa.array([nano], pa.timestamp("ns")),
        "zone": pa.array([nano], pa.timestamp("ns", "UTC")),
        "micro": pa.array([nano // 1000], pa.timestamp("us")),
        "nested": pa.array([[{"at": nano, "bytes": b"ab"}]]).cast(
            pa.list_(pa.struct([("at", pa.timestamp("ns")), ("bytes", pa.binary())]))
        ),
        "map": pa.array([[("a", nano)]], pa.map_(pa.string(), pa.timestamp("ns"))),
        "day": pa.array([19_000], pa.date32()),
        "time": pa.array([5], pa.time64("ns")),
        "span": pa.array([5_000_000], pa.duration("us")),
        "price": pa.array([decimal.Decimal("1.50")]),
        "nan": pa.array([float("nan")]),
        "word": pa.array(["乙"]).dictionary_encode(),
        "list": pa.array([[1, None]]),
        "big": pa.array([2**64 - 1], pa.uint64()),
        "none": pa.nulls(1),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(columns), path)
    records, bad = read_all(path)
    assert not bad
    raw = records[0].raw
    assert json.loads(msgspec.json.encode(canonical(raw, records[0].row))) == raw
    assert raw == {
        "text": "甲",
        "nano": "2023-11-14 22:13:20.123456789",
        "zone": "2023-11-14 22:13:20.123456789Z",
        "micro": "2023-11-14T22:13:20.123456",
        "nested": [{"at": "2023-11-14 22:13:20.123456789", "bytes": "ab"}],
        "map": [["a", "2023-11-14 22:13:20.123456789"]],
        "day": "2022-01-08",
        "time": "00:00:00.000000005",
        "span": "PT5S",
        "price": "1.50",
        "nan": None,
        "word": "乙",
        "list": [1, None],
        "big": 2**64 - 1,
    }


def test_a_row_of_parquet_that_json_cannot_hold_spoils_no_other(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "text": ["甲", "乙", "丙", "丁"],
        "bytes": pa.array([b"ab", b"\xff\xfe", b"", None], pa.binary()),
        "when": pa.array([0, 0, 2**62, 0], pa.timestamp("us")),  # after the year 9999
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(columns), path)
    records, bad = read_all(path)
    assert [record.row for record in records] == [Text("甲"), Text("丁")]
    assert [(entry.line, entry.reason.split(":")[0]) for entry in bad] == [
        (2, "bytes"),
        (3, "when"),
    ]
    assert bad[0].raw.startswith('{"text":"乙"')


def test_a_number_that_is_none_is_no_answer(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"question": ["一", "二"], "answer": [1.5, float("nan")]}), path)
    records, bad = read_all(path)
    assert [plain_text(record.row) for record in records] == ["一\n1.5"]
    assert [entry.line for entry in bad] == [2]


def test_notes_about_labels_that_are_broken_do_no_harm(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for note in (
        b"{",
        b"[]",
        b'{"info": 1}',
        b'{"info": {"features": {"text": {"_type": "ClassLabel"}}}}',
    ):
        path = tmp_path / "a.parquet"
        table = pa.table({"text": ["甲"]}).replace_schema_metadata({"huggingface": note})
        parquet.write_table(table, path)
        assert texts(path) == [(1, "甲")]


def test_broken_parquet_and_parquet_without_pyarrow(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    path = write("a.parquet", b"PAR1 is not enough")
    assert [entry.reason[:14] for entry in read_all(path)[1]] == ["broken parquet"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"a\.parquet: parquet needs pyarrow: pip install -e '\.\[hub\]'"
    ):
        list(read(path))


# --- Any file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
def test_an_empty_file_is_said_to_be_empty(write: Write, name: str, content: str) -> None:
    path = write(name, content)
    assert [str(entry) for entry in read_all(path)[1]] == [
        f"{path}:1: there are no rows in this file"
    ]


def test_files_that_cannot_be_opened(tmp_path: Path, write: Write) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for path, reason in [
        (tmp_path / "none.jsonl", "No such file or directory"),
        (tmp_path / "no" / "folder.csv", "No such file or directory"),
        (tmp_path / "folder.jsonl", "Is a directory"),
        (write("a.txt", "x"), "unknown kind of file, not one of .jsonl, .json, .csv, .parquet"),
    ]:
        with pytest.raises(UserError) as error:
            list(read(path))
        assert str(error.value) == f"{path}: {reason}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.parquet"]), st.binary(max_size=200))
def test_no_bytes_break_a_reader(write: Write, name: str, content: bytes) -> None:
    path = write(name, content)
    records, bad = read_all(path)
    assert not records
    assert len(bad) == sum(1 for _ in entries(path)) > 0
