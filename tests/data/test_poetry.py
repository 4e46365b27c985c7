"""The poems: a tiny archive in the package's own layout, with every kind of dirt that it has."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import regex
from conftest import Project, calls
from hypothesis import given
from hypothesis import strategies as st

from minillm.data import classical, mix, poetry, verse
from minillm.data.hubs import DownloadOptions, run_download
from minillm.data.near import (
    PERMUTATIONS,
    candidates,
    jaccard,
    near_duplicates,
    shingles,
    signatures,
)
from minillm.data.readers import parse_line
from minillm.errors import UserError

pytest.importorskip("opencc")
datasketch = pytest.importorskip("datasketch")

LINES = ["山前小雨過橋西，", "燕子低飛柳色齊。", "一片春雲行不到，", "夜深燈火讀書樓。"]
POEM = ["山前小雨過橋西，燕子低飛柳色齊。", "一片春雲行不到，夜深燈火讀書樓。"]
PLAIN = "山前小雨过桥西，燕子低飞柳色齐。\n一片春云行不到，夜深灯火读书楼。"
HEAD = ["山前", "水邊", "雲中", "江上", "城南", "竹外", "村頭", "花下", "溪北", "月底"]


def poem(i: int) -> list[str]:
    """A poem of 28 characters that has little in common with those of other numbers."""
    signs = "風花雪月江山春秋日夜星雲松竹梅蘭菊柳橋舟鳥魚馬羊酒茶琴棋書畫詩劍燈火樓臺亭閣"
    letters = [signs[(i * 7919 + j * j * (i + 3) + j) % len(signs)] for j in range(28)]
    lines = ["".join(letters[k : k + 7]) for k in range(0, 28, 7)]
    return [f"{lines[0]}，{lines[1]}。", f"{lines[2]}，{lines[3]}。"]


def tang(title: str, lines: list[str], **fields: Any) -> dict[str, Any]:
    return {"title": title, "author": "無名", "paragraphs": lines, "id": "x", **fields}


FILES: dict[str, Any] = {
    "quantangshi/poet.tang.0.json": [
        tang("橋西", POEM, tags=["七言绝句"]),
        tang("橋西又", [POEM[0].replace("小", "微"), POEM[1]]),  # a near copy
        tang("缺", [POEM[0].replace("小", "□"), POEM[1]]),
        tang("構", [POEM[0].replace("小", "{馬羊}"), POEM[1]]),
        tang("怪", [POEM[0].replace("小", "x"), POEM[1]]),
        tang("〔一〕", [POEM[0].replace("小", "〔小"), POEM[1]]),
        tang("句", POEM),
        tang("句 其一", [POEM[0]]),
        tang("短", [POEM[0]]),
        tang("無", []),
        tang(
            "注",
            [
                "城南（一作北〖見《集》。",
                "〗）風急雁行斜，誰在高樓望歲華。（見《集》）。",
                "江水無情東去遠，白頭人對白頭花。",
            ],
        ),
        {"author": "無題人", "paragraphs": poem(1)},
        *(tang(f"第{i}", poem(i)) for i in range(2, 40)),
    ],
    "quantangshi/poet.song.0.json": [tang("問", [POEM[0].replace("小", "？"), POEM[1]])],
    "quantangshi/唐诗三百首.json": [tang("橋西名篇", POEM)],
    "quantangshi/authors.tang.json": [{"name": "無名", "desc": "。"}],
    "quantangshi/error/poet.tang.0.json": [tang("錯", poem(90))],
    "songci/ci.song.1000.json": [
        {
            "rhythmic": "如夢令",
            "author": "甲",
            "paragraphs": [
                f"{line}。"
                for line in ("昨夜雨疏風驟", "濃睡不消殘酒", "試問卷簾人", "卻道海棠依舊")
            ],
        },
    ],
    "yuanqu/yuanqu.json": [
        {"title": "尾・對着盞孤燈，冷清清", "author": "乙", "paragraphs": poem(91)},
        {
            "title": "雙調・折桂令",
            "author": "乙",
            "paragraphs": ["(云)行到水窮處，坐看雲起時。", '他道是"功名半紙"，風雪千山。'],
        },
    ],
    "mengxue/dizigui.json": {
        "title": "弟子規",
        "author": "李毓秀",
        "content": [
            {
                "chapter": "總敘",
                "paragraphs": ["弟子規 聖人訓 首孝弟 次謹信", "泛愛眾 而親仁 有餘力 則學文"],
            },
        ],
    },
    "mengxue/guwen.json": {
        "title": "古文觀止",
        "content": [
            {
                "title": "卷一",
                "content": [
                    {
                        "chapter": "短文",
                        "author": "先秦：左丘明 ",
                        "paragraphs": [
                            "初，鄭武公娶於申?曰「武姜」。",
                            "生莊公及共叔段，莊公寤生，驚姜氏。",
                        ],
                    }
                ],
            }
        ],
    },
    "mengxue/wenzimengqiu.json": {"title": "文字蒙求", "content": [{"paragraphs": ["日", "月"]}]},
    "rank/poet/poet.song.rank.0.json": [{"title": "x", "baidu": 1}],
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a current folder of its own: the default paths are relative."""
    monkeypatch.chdir(tmp_path)


def pack(files: dict[str, Any], path: Path) -> str:
    """Writes an archive as npm does; its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = content if type(content) is bytes else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


ARCHIVE = Path("data/raw/poetry", poetry.PACKAGE.archive)
ROWS = Path("data/chinese/text_poetry.jsonl")
CONVERSATIONS = Path("data/chinese/general_poetry.jsonl")


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny archive in its place, known by its checksum."""
    known = poetry.PACKAGE._replace(integrity=pack(FILES, ARCHIVE))
    monkeypatch.setattr(poetry, "PACKAGE", known)
    return ARCHIVE


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def download() -> None:
    assert run_download(DownloadOptions("poetry")) == []


# --- From the archive to rows ---------------------------------------------------------------------


def test_rows_keep_what_the_archive_says(archive: Path) -> None:
    download()
    first = rows_of(ROWS)[0]
    assert first == {
        "text": f"《桥西名篇》无名\n{PLAIN}",
        "title": "桥西名篇",
        "author": "无名",
        "dynasty": "唐",
        "collection": "唐诗三百首",
        "paragraphs": PLAIN.split("\n"),
        "copies": 3,
        "split": first["split"],
        "source": "poetry/唐诗三百首",
        "id": "x",
    }
    for line in ROWS.read_bytes().splitlines():
        parse_line(line)


def test_each_kind_of_dirt_is_found_and_nothing_is_lost(archive: Path) -> None:
    download()
    rows, dropped = rows_of(ROWS), rows_of(archive.with_name("dropped.jsonl"))
    reasons = {row["title"]: row["reason"] for row in dropped if row["title"]}
    assert reasons == {
        "桥西": "copy",
        "桥西又": "near copy",
        "缺": "missing",
        "构": "missing",
        "问": "missing",
        "怪": "signs",
        "句": "fragment",
        "句 其一": "fragment",
        "短": "fragment",
        "无": "fragment",
        "尾·对着盏孤灯，冷清清": "fragment",
    }
    read = (
        sum(
            map(
                len,
                (
                    FILES[f"quantangshi/{name}.json"]
                    for name in ("poet.tang.0", "poet.song.0", "唐诗三百首")
                ),
            )
        )
        + 1
        + 2
        + 1
        + 1
    )
    assert len(rows) + len(dropped) == read
    report = json.loads(archive.with_name("report.json").read_bytes())
    assert report["total"]["read"] == read
    for counts in [report["total"], *report["collections"].values()]:
        assert counts["read"] == counts["rows"] + sum(counts[reason] for reason in poetry.REASONS)
    assert report["total"]["rows"] == len(rows)
    assert report["total"]["held out"] == sum(row["split"] == "held out" for row in rows)
    assert report["total"]["characters"] == sum(len("".join(row["paragraphs"])) for row in rows)
    characters = {letter for row in rows for letter in "".join(row["paragraphs"])}
    assert report["distinct_characters"] == len(characters)
    assert sum(row["copies"] for row in rows) == read - sum(
        report["total"][reason] for reason in ("missing", "signs", "fragment")
    )


def test_texts_become_tidy(archive: Path) -> None:
    download()
    by_title = {row["title"]: row for row in rows_of(ROWS)}
    assert by_title["注"]["paragraphs"] == [
        "城南风急雁行斜，谁在高楼望岁华。",
        "江水无情东去远，白头人对白头花。",
    ]
    assert by_title["总叙"]["paragraphs"] == [
        "弟子规，圣人训，首孝弟，次谨信。",
        "泛爱众，而亲仁，有余力，则学文。",
    ]
    assert by_title["总叙"]["author"] == "李毓秀"
    assert by_title["短文"]["author"] == "左丘明"
    assert by_title["短文"]["paragraphs"][0] == "初，郑武公娶于申？曰“武姜”。"
    assert by_title["双调·折桂令"]["paragraphs"] == [
        "行到水穷处，坐看云起时。",
        "他道是“功名半纸”，风雪千山。",
    ]
    assert by_title["如梦令"]["dynasty"] == "宋"
    untitled = by_title[""]
    assert untitled["text"] == "\n".join(untitled["paragraphs"])


def test_what_is_held_out_is_what_the_mix_holds_out(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poetry, "HELD_OUT_SHARE", 0.25)
    download()
    mix.build(mix.MixOptions(built_in="none", val_fraction=0.25, general=0))
    held_out = {row["text"] for row in rows_of(ROWS) if row["split"] == "held out"}
    answers = {row["messages"][1]["content"] for row in rows_of(CONVERSATIONS)}
    assert answers
    assert not [text for text in held_out if text.split("\n", 1)[1] in answers]
    validation = rows_of(Path("data/processed/pretrain_chinese_val.jsonl"))
    train = rows_of(Path("data/processed/pretrain_chinese.jsonl"))
    assert {row["text"] for row in validation} == held_out
    assert len(held_out) + len(train) == len(rows_of(ROWS))
    assert 1 <= len(held_out) < len(train)
    assert mix.MixOptions().val_fraction == 0.01  # what HELD_OUT_SHARE is, unless it is changed


def test_questions_ask_only_for_what_is_trained_on(archive: Path) -> None:
    download()
    row = {**rows_of(ROWS)[0], "split": "train"}
    chats = poetry.poem_conversations(row)
    assert [chat["messages"][0]["content"] for chat in chats] == [
        "写一首《桥西名篇》",
        "无名《桥西名篇》",
        "写一首七言绝句《桥西名篇》",
    ]
    for chat in chats:
        assert chat["messages"][1] == {"role": "assistant", "content": PLAIN}
        parse_line(json.dumps(chat).encode())
    for change in ({"split": "held out"}, {"title": ""}, {"title": "长" * 17}):
        assert poetry.poem_conversations({**row, **change}) == []
    assert len(poetry.poem_conversations({**row, "author": ""})) == 2
    uneven = {"paragraphs": ["昨夜雨疏风骤。", "浓睡不消残酒。"]}
    assert len(poetry.poem_conversations({**row, **uneven})) == 2


def test_the_questions_are_those_of_all_rows_in_their_order(archive: Path) -> None:
    download()
    expected = [chat for row in rows_of(ROWS) for chat in poetry.poem_conversations(row)]
    assert rows_of(CONVERSATIONS) == expected
    report = json.loads(archive.with_name("report.json").read_bytes())
    assert report["total"]["questions"] == len(expected) > 10
    digest = hashlib.sha256(CONVERSATIONS.read_bytes()).hexdigest()
    assert report["conversations_sha256"] == digest


def test_what_is_there_is_not_made_again(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    download()
    table = capsys.readouterr().out
    assert "全唐诗" in table
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.json*")}
    monkeypatch.setattr(poetry, "texts_in", None)  # would fail
    download()
    assert capsys.readouterr().out == table
    assert before == {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.json*")}


def test_rows_of_an_older_recipe_are_made_anew_and_those_of_others_are_left(archive: Path) -> None:
    download()
    made, path = ROWS.read_bytes(), archive.with_name("report.json")
    path.write_text(path.read_text().replace('"recipe": "', '"recipe": "old '))
    download()
    assert '"recipe": "old ' not in path.read_text()
    assert ROWS.read_bytes() == made
    path.unlink()  # as if killed before it was written
    download()
    CONVERSATIONS.unlink()
    download()
    assert rows_of(CONVERSATIONS)
    for path in (CONVERSATIONS, ROWS):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        with pytest.raises(UserError, match=rf"{path.name} exists, with other rows: remove it"):
            download()
        assert path.read_bytes() == content + b"\n"
        path.write_bytes(content)
    assert not list(Path("data").rglob("*.tmp"))


def test_a_run_that_is_killed_leaves_no_half_file(archive: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from minillm.data import poetry\n"
        f"poetry.PACKAGE = poetry.PACKAGE._replace(integrity={poetry.PACKAGE.integrity!r})\n"
        "make = poetry.row_of\n"
        "def row_of(poem):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "poetry.row_of = row_of\n"
        "poetry.run_poetry(Path('data/raw'), Path('data/chinese'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "writing\n"
        run.send_signal(signal.SIGKILL)
    assert not ROWS.exists()
    assert not archive.with_name("report.json").exists()
    download()
    assert (
        len(rows_of(ROWS))
        == json.loads(archive.with_name("report.json").read_bytes())["total"]["rows"]
    )
    assert [path.name for path in sorted(Path("data").rglob("*")) if path.is_file()] == [
        "general_poetry.jsonl",
        "text_poetry.jsonl",
        poetry.PACKAGE.archive,
        "dropped.jsonl",
        "report.json",
    ]


def test_a_file_of_the_archive_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = poetry.PACKAGE._replace(integrity=pack({"shijing/shijing.json": b'[{"ti'}, ARCHIVE))
    monkeypatch.setattr(poetry, "PACKAGE", known)
    with pytest.raises(UserError, match=r"2\.0\.1\.tgz: package/dist/shijing/shijing\.json: Input"):
        download()
    assert not ROWS.exists()


def test_other_shapes_are_counted_not_lost() -> None:
    assert list(poetry.texts_of(["a", 1, None], 0)) == []
    [empty] = poetry.texts_of([{"title": 3, "author": None, "paragraphs": None}], 0)
    assert (empty.title, empty.author, empty.body) == ("", "", "")
    [odd] = poetry.texts_of({"title": "t", "content": [1, None]}, 0)
    assert odd.body == "1\nNone"


# --- npm ------------------------------------------------------------------------------------------


def fake_npm(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a program of this name first in the path."""
    folder = Path("bin").absolute()
    folder.mkdir(exist_ok=True)
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


BY_HAND = (
    r"or put chinese-poetry-2\.0\.1\.tgz \(85 MB; on another machine `npm pack "
    r"chinese-poetry@2\.0\.1` writes it\) into data/raw/poetry yourself, "
    r"then again: minillm download poetry$"
)


def test_npm_fetches_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    known = poetry.PACKAGE._replace(integrity=pack(FILES, Path("there.tgz")))
    monkeypatch.setattr(poetry, "PACKAGE", known)
    there = Path("there.tgz").absolute()
    fake_npm(monkeypatch, f'echo "$@" > asked; cp {there} "$5/{known.archive}"')
    Path("data/raw/poetry/.unfinished").mkdir(parents=True)
    Path("data/raw/poetry/.unfinished", known.archive).write_bytes(
        b"half"
    )  # of a run that was killed
    download()
    asked = Path("asked").read_text().split()
    assert asked[:4] == ["pack", "chinese-poetry@2.0.1", "--ignore-scripts", "--pack-destination"]
    assert ARCHIVE.read_bytes() == there.read_bytes()
    assert not Path("data/raw/poetry/.unfinished").exists()
    Path("asked").unlink()
    download()
    assert not Path("asked").exists()


def test_without_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=f"^there is no npm: install Node.js, {BY_HAND}"):
        download()
    assert not Path("data").exists()


def test_npm_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(
        monkeypatch, "echo 'npm error code ENOTFOUND' >&2; echo 'npm error no host' >&2; exit 1"
    )
    with pytest.raises(
        UserError,
        match=f"^npm cannot fetch chinese-poetry@2.0.1: code ENOTFOUND no host; {BY_HAND}",
    ) as error:
        download()
    assert "\n" not in str(error.value)
    assert [path.name for path in Path("data/raw/poetry").iterdir()] == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm here")
def test_the_real_npm_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(Path("cache").absolute()))
    with pytest.raises(
        UserError, match=r"^npm cannot fetch chinese-poetry@2\.0\.1: code ECONNREFUSED"
    ):
        download()


@pytest.mark.parametrize("change", [lambda data: data[:-100], lambda data: b"\0" + data[1:]])
def test_a_cut_or_altered_archive_is_named_and_kept(archive: Path, change: Any) -> None:
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(UserError) as error:
        download()
    assert str(error.value) == (
        f"{archive}: cut or altered, its sha512 is not that of chinese-poetry@2.0.1; delete it, "
        "then again: minillm download poetry"
    )
    assert archive.exists()
    assert not ROWS.exists()


@pytest.mark.parametrize("library", ["opencc", "datasketch"])
def test_without_a_library(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[poetry\]' \("):
        download()
    assert not Path("data").exists()  # before anything is fetched


def test_other_hubs_do_not_have_it() -> None:
    with pytest.raises(UserError, match="poetry comes from npm, not from a hub: leave out --hub"):
        run_download(DownloadOptions("poetry", "modelscope"))


# --- run.sh ---------------------------------------------------------------------------------------


def ready_for_poems(project: Project) -> Project:
    """The extra that the poems need counts as installed."""
    project.activated("source scripts/env.sh && requirements_state > .venv/.poetry_installed")
    return project


def test_the_script_makes_the_poems_that_are_not_there(recorder: Project) -> None:
    ready_for_poems(recorder)
    integrity = pack(FILES, recorder.root / ARCHIVE)
    code = recorder.root / "minillm" / "data" / "poetry.py"
    known = code.read_text("utf-8").replace(poetry.PACKAGE.integrity, integrity)
    code.write_text(known, "utf-8")
    log = recorder.run("bash scripts/run.sh --preset small").stdout
    assert re.search(r"nothing to install .*\.poetry_installed", log)
    folder = recorder.root / "data" / "poetry"
    assert len(rows_of(folder / ROWS.name)) > 40
    assert rows_of(folder / CONVERSATIONS.name)
    assert calls(recorder)[0][:3] == ["scripts/build_chinese_mix.py", "--preset", "small"]
    assert not (recorder.root / ROWS).exists()
    log = recorder.run("bash scripts/run.sh --preset small").stdout
    assert "Those in data/poetry are used." in log
    assert "poetry_installed" not in log


def test_the_script_stops_where_it_cannot_fetch_them(
    recorder: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_for_poems(recorder)
    fake_npm(monkeypatch, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    done = recorder.run("bash scripts/run.sh --preset small", check=False)
    assert done.returncode == 2
    *_, reason, last = done.stdout.splitlines()
    assert reason.startswith(
        "minillm: error: npm cannot fetch chinese-poetry@2.0.1: code ENOTFOUND"
    )
    assert last == "error: there are no poems: see the message above, and then run this again"
    assert calls(recorder) == []


# --- One text -------------------------------------------------------------------------------------

SIGNS = list('春眠不觉晓處聞啼鳥，。、；：？！（）()[]〔〕〖〗［］“”‘’"「」《》')
WORDS = [" ", "\n", "\u3000", "\xa0", "□", "?", "a", "1", "々", "疎", "[晏]", "（一作曉）"]
PIECES = st.sampled_from([*SIGNS, *WORDS])


@given(st.lists(PIECES, max_size=40).map("".join), st.booleans())
def test_tidy_text_stays_as_it_is(text: str, verse: bool) -> None:
    once = classical.tidy(text, verse)
    assert classical.tidy(once, verse) == once


@given(st.text(max_size=30), st.booleans())
def test_any_text_can_be_asked(text: str, verse: bool) -> None:
    once = classical.tidy(text, verse)
    assert classical.tidy(once, verse) == once
    assert classical.problem(text, once, verse) in ("", *poetry.REASONS)
    assert classical.title_of(classical.title_of(text)) == classical.title_of(text)


@given(st.lists(st.sampled_from("春眠不觉晓处闻啼鸟夜来风雨声花落知多少"), min_size=5, max_size=5))
def test_no_character_of_a_clean_poem_is_changed(letters: list[str]) -> None:
    lines = [f"{''.join(letters)}，{''.join(reversed(letters))}。"] * 3
    assert classical.tidy("\n".join(lines), verse=True) == "\n".join(lines)
    assert classical.problem("春", "\n".join(lines), verse=True) == ""


def test_characters_are_those_of_opencc() -> None:
    """And each form in the table of variants becomes one that OpenCC would leave as it is."""
    import opencc

    convert = opencc.OpenCC("t2s").convert
    assert classical.simplifier()("乾坤雲裏") == convert("乾坤雲裏") == "乾坤云里"
    forms, standard = classical._VARIANTS[::2], classical._VARIANTS[1::2]
    assert len(forms) == len(standard) == len(set(forms))
    assert not set(forms) & set(standard)
    assert convert(forms) == forms
    assert convert(standard) == standard
    for letter in standard:
        letter.encode("gb2312" if letter not in "㔉𬬻" else "utf-8")


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("春（一作（舊）秋）眠不覺曉，", "春眠不覺曉。"),
        ("白日依山盡，黃河入海流？欲窮千里目。", "白日依山盡，黃河入海流？\n欲窮千里目。"),
        ("〔黄鐘爲角〕宋德惟火。", "宋德惟火。"),
        ("日[晏]犹得眠。", "日晏犹得眠。"),
        ("悠々我心。", "悠悠我心。"),
        ("他道“去。\n我不去", "他道去。\n我不去。"),
        ("疎影橫斜", "疏影橫斜。"),
        ("", ""),
    ],
)
def test_tidy(text: str, tidy: str) -> None:
    assert classical.tidy(text, verse=True) == tidy


def test_titles() -> None:
    assert classical.title_of("感遇（一作遇）  其一○") == "感遇 其一〇"
    assert classical.title_of("□□") == classical.title_of("x") == ""
    assert classical.title_of("傷春曲・滿江紅") == "傷春曲·滿江紅"


# --- Near duplicates ------------------------------------------------------------------------------

TEXTS = st.lists(st.text("春夏秋冬", min_size=1, max_size=9), min_size=2, max_size=12)


@given(TEXTS)
def test_candidates_are_those_of_datasketch(texts: list[str]) -> None:
    hashes = signatures(texts)
    index = datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=(16, 2))
    expected = []
    for i, row in enumerate(hashes):
        minhash = datasketch.MinHash(
            num_perm=PERMUTATIONS, seed=1, hashvalues=row, scheme="affine32"
        )
        expected += [(i, earlier) for earlier in sorted(index.query(minhash))]
        index.insert(i, minhash)
    assert list(candidates(hashes)) == expected


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.9]))
def test_near_duplicates_are_near_and_few_are_missed(texts: list[str], threshold: float) -> None:
    found = near_duplicates(texts, threshold)
    for later, (earlier, share) in found.items():
        one, other = shingles(texts[later]), shingles(texts[earlier])
        assert earlier < later
        assert earlier not in found
        assert share == jaccard(one, other) >= threshold
        assert share == len(one & other) / len(one | other)
    for later, text in enumerate(texts):
        if text in texts[:later]:  # equal ones agree in every band
            assert later in found


def test_datasketch_estimates_the_share_that_is_counted() -> None:
    one, other = "".join(map(chr, range(0x4E00, 0x4E80))), "".join(map(chr, range(0x4E20, 0x4EA0)))
    exact = jaccard(shingles(one), shingles(other))
    first, second = signatures([one, other])
    estimate = float((first == second).mean())
    assert abs(estimate - exact) < 3 * (exact * (1 - exact) / PERMUTATIONS) ** 0.5
    [near] = near_duplicates([one, "短", other], 0.4).values()
    assert near == (0, exact)


def test_nothing_to_compare() -> None:
    assert near_duplicates([], 0.5) == {}
    assert near_duplicates(["春"], 0.5) == {}
    assert near_duplicates(["", ""], 0.5) == {1: (0, 1.0)}


# --- The real archive -----------------------------------------------------------------------------

RESULTS = Path(__file__).parents[2] / "book" / "results" / "poetry.json"
"""What became of the real archive; pages of the book rest on it."""


def test_the_page_about_sources_shows_the_steps() -> None:
    results = json.loads(RESULTS.read_bytes())
    total = results["total"]
    page = (RESULTS.parents[1] / "sources.md").read_text(encoding="utf-8")
    page = page.replace("<!-- by: book/results/poetry.json --> ", "")
    heads = ("read", *poetry.REASONS, "rows")
    for name, counts in [*results["collections"].items(), ("合计", total)]:
        assert f"| {name} | {' | '.join(f'{counts[head]:,}' for head in heads)} |\n" in page
        assert counts["read"] == counts["rows"] + sum(counts[reason] for reason in poetry.REASONS)
    for number in (total["rows"], total["characters"], total["held out"], total["questions"]):
        assert f" {number:,} " in page
    assert f" {results['distinct_characters']:,} " in page


@pytest.mark.skipif("MINILLM_POETRY" not in os.environ, reason="MINILLM_POETRY names no archive")
def test_the_real_archive() -> None:
    """Some two minutes on one core."""
    ARCHIVE.parent.mkdir(parents=True)
    ARCHIVE.symlink_to(Path(os.environ["MINILLM_POETRY"]).absolute())
    made = poetry.run_poetry(Path("data/raw"), Path("data/chinese"))
    expected = json.loads(RESULTS.read_bytes())
    assert msgspec.to_builtins(made) | {"recipe": expected["recipe"]} == expected
    famous = {
        "静夜思": "李白",
        "登鹳雀楼": "王之涣",
        "寻隐者不遇": "贾岛",
        "离骚": "屈原",
        "关雎": "",
    }
    allowed = regex.compile(r"[\p{Han}，。、；：？！“”‘’《》·]*")
    bodies = set()
    rhyming: dict[str, list[bool | None]] = {}
    for row in rows_of(ROWS):
        if famous.get(row["title"]) == row["author"]:
            del famous[row["title"]]
        body = "".join(row["paragraphs"])
        assert allowed.fullmatch(body), row
        bodies.add(classical.bare(body))
        rhyming.setdefault(verse.kind(body) or "", []).append(verse.rhymes(body))
    assert famous == {}
    for kind in ("五言绝句", "七言绝句", "五言律诗", "七言律诗"):
        assert rhyming[kind].count(True) >= 0.94 * len(rhyming[kind]) > 10_000
    assert len(bodies) == made.total["rows"]
