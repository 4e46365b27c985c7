"""Files are written whole or not at all, whatever is written and whatever goes wrong."""

from __future__ import annotations

import ast
import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minillm import files
from minillm.errors import UserError
from minillm.files import appending, atomic_file, atomic_folder, write_atomically
from minillm.text_table import aligned

FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
REPO = Path(files.__file__).parents[1]


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder, also of those in it, and what they hold."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_file(path: Path) -> None:
    write_atomically(path, b"new")


def write_folder(path: Path) -> None:
    with atomic_folder(path) as unfinished:
        (unfinished / "a").write_bytes(b"new")


def write_line(path: Path) -> None:
    with appending(path) as file:
        file.write(b"new\n")


WRITERS: list[Callable[[Path], None]] = [write_file, write_folder, write_line]
WAYS = [atomic_file, atomic_folder, appending]


# ---- what is written ----


def test_a_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for content in (b"one", b"two"):
        with atomic_file(path) as file:
            before = path.read_bytes() if path.exists() else b""
            file.write(content[:2])
            file.write(content[2:])
            assert before == (b"one" if content == b"two" else b"")
        assert tree(tmp_path) == {"deep/file": content}


def test_a_folder_appears_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep" / "folder"
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("file after file"))
    with atomic_folder(folder) as unfinished:
        (unfinished / "b").write_bytes(b"1")
        (unfinished / "a").write_bytes(b"2")
        assert not folder.exists()
    assert tree(tmp_path) == {"deep/folder/a": b"2", "deep/folder/b": b"1"}
    usual = tmp_path / "usual"
    usual.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_files_of_a_folder_that_is_there_are_replaced_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "other"):
        (tmp_path / name).write_bytes(b"old")
    moved: list[str] = []
    replace = os.replace

    def note(source: Path, target: Path) -> None:
        moved.append(target.name)
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", note)
    with atomic_folder(tmp_path, last="a") as unfinished:
        for name in ("a", "b", "c"):
            (unfinished / name).write_bytes(b"new")
    assert tree(tmp_path) == {"a": b"new", "b": b"new", "c": b"new", "other": b"old"}
    assert moved == ["b", "c", "a"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "other"]


def test_of_two_processes_that_make_a_folder_both_succeed(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with atomic_folder(folder) as first:
        (first / "a").write_bytes(b"first")
        with atomic_folder(folder) as second:
            (second / "a").write_bytes(b"second")
    assert tree(tmp_path) == {"cache/a": b"first"}
    assert os.listdir(tmp_path) == ["cache"]


def test_lines_come_after_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines"
    for _ in range(2):
        with appending(path) as file:
            file.write(b"a\n")
            file.write(b"b\n")
    assert path.read_bytes() == b"a\nb\na\nb\n"


# ---- what goes wrong ----


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("old", [True, False])
def test_a_block_that_raises_changes_nothing(
    tmp_path: Path, write: Callable[..., Any], old: bool
) -> None:
    path = tmp_path / "x"
    if old and write is atomic_folder:
        path.mkdir()
        (path / "a").write_bytes(b"old")
    elif old:
        path.write_bytes(b"old\n")
    before = tree(tmp_path)

    def interrupted() -> None:
        with write(path) as opened:
            if isinstance(opened, Path):
                (opened / "a").write_bytes(b"new")
            else:
                opened.write(b"new\n")
                opened.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (["x"] if old else [])


@pytest.mark.parametrize("write", WAYS)
def test_a_file_in_the_way_is_known_before_the_work(
    tmp_path: Path, write: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "deep" / "x"):
        with (
            pytest.raises(UserError, match=r"x: cannot write: .*; a file is in the place of a"),
            write(path),
        ):
            pytest.fail("worked for nothing")
    assert tree(tmp_path) == {"file": b""}


@pytest.mark.parametrize("write", [atomic_file, appending])
def test_a_folder_in_the_way_is_known_before_the_work(
    tmp_path: Path, write: Callable[..., Any]
) -> None:
    (tmp_path / "x").mkdir()
    with (
        pytest.raises(UserError, match=r"x: cannot write: .*; there is a folder of this name"),
        write(tmp_path / "x"),
    ):
        pytest.fail("worked for nothing")
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_in_the_place_of_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(UserError, match=r"x: cannot write: Not a directory"):
        write_folder(tmp_path / "x")
    assert tree(tmp_path) == {"x": b""}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "make the folder writable"),
        (errno.EROFS, "choose a folder that is not read-only"),
        (errno.ENAMETOOLONG, "check the path"),
    ],
)
def test_what_cannot_be_made_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    number: int,
    advice: str,
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=rf"x: cannot write: {os.strerror(number)}; {advice}"):
        write(tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", WRITERS[:2])
def test_a_disk_that_is_full_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "x")
    before = tree(tmp_path)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(UserError, match="x: cannot write: No space left on device; free some"):
        write(tmp_path / "x")
    assert tree(tmp_path) == before


@needs_full_disk
@pytest.mark.parametrize("write", [write_file, write_line])
def test_a_full_disk(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / ("x" if write is write_line else "x.tmp")).symlink_to(FULL)
    with pytest.raises(UserError, match="x: cannot write: No space left on device; free some"):
        write(tmp_path / "x")


def test_half_a_line_does_not_stay(tmp_path: Path) -> None:
    """The disk holds 4096 bytes more, but not the whole line."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "lines"
    path.write_bytes(b"old\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4100, limits[1]))
    try:
        with (
            pytest.raises(UserError, match="lines: cannot write: File too large"),
            appending(path) as file,
        ):
            file.write(b"x" * 100_000 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old\n"


# ---- tables ----


def test_a_table_by_hand() -> None:
    rows = [["name", "n", ""], ["a", "1,000", "x"], ["longer", "1", ""]]
    assert aligned(rows) == "name        n\na       1,000  x\nlonger      1"
    assert aligned(rows, left=3) == "name    n\na       1,000  x\nlonger  1"
    assert aligned(rows, least=6).splitlines()[1] == "a        1,000       x"
    assert aligned([]) == ""


def test_chinese_takes_two_places() -> None:
    assert aligned([["小猫", "1"], ["ab", "2"]]) == "小猫  1\nab    2"
    assert aligned([["", "小猫"], ["", "1"]]) == "  小猫\n     1"


def test_rows_of_a_table_are_equally_long() -> None:
    with pytest.raises(ValueError, match="zip"):
        aligned([["a"], ["a", "b"]])


# ---- encodings ----

PLACES = ("minillm/**", "benchmarks", "scripts", "trainer", "book", "book/_ext", "rustbpe")
SOURCES = sorted(path for place in PLACES for path in REPO.glob(f"{place}/*.py"))


def in_the_locales_encoding(source: str) -> list[int]:
    """The lines that read or write text without saying in which encoding."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if lacks_encoding(call)]


def lacks_encoding(call: ast.Call) -> bool:
    called, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
    name = called.rpartition(".")[2]
    if "encoding" in given or called in ("os.open", "Image.open", "opener.open", "tarfile.open"):
        return False
    if name in ("open", "fdopen"):
        modes = [given.get("mode", ""), *map(ast.unparse, call.args)]
        return not any(re.fullmatch("'[abrwx+]*b[abrwx+]*'", mode) for mode in modes)
    if name in ("run", "Popen", "check_output"):
        return "text" in given or "universal_newlines" in given
    return name == "write_text" or (called.endswith(".read_text") and not call.args)


def test_what_names_no_encoding_is_found() -> None:
    bad = [
        "open('x')", "open('x', 'r')", "p.open()", "p.open('w')", "p.read_text()",
        "p.write_text('x')", "subprocess.run(c, text=True)", "open('x', mode='a')",
    ]  # fmt: skip
    good = [
        "open('x', 'rb')", "p.open('wb')", "p.open(mode='ab')", "p.read_bytes()",
        "p.read_text('utf-8')", "p.read_text(encoding='utf-8')", "open('x', encoding='utf-8')",
        "subprocess.run(c, text=True, encoding='utf-8')", "subprocess.run(c)", "os.open(p, 1)",
        "tarfile.open(p)",
    ]  # fmt: skip
    assert [line for line in bad if not in_the_locales_encoding(line)] == []
    assert [line for line in good if in_the_locales_encoding(line)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPO).as_posix())
def test_text_is_utf_8_whatever_the_locale(path: Path) -> None:
    assert in_the_locales_encoding(path.read_text(encoding="utf-8")) == []
