"""Level and oblique tones (平仄) of classical verse.

The tones of today do not decide them: 白, 国 and 一, which ended in a stop, were oblique. The
package ``chinese-poetry`` has tonal patterns beside the poems of the Tang and the Song, one sign a
character: 平, 仄, or ○ where a character can be either. Laid over the poems they give a table.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import regex

from minillm.data.classical import simplifier, title_of
from minillm.data.verse import clauses, metre
from minillm.errors import UserError

CERTAIN = 0.9
"""Share from which on a character counts as level, or as oblique; those between can be either."""
_FILES = r"package/dist/(quantangshi|strains/json)/poet\.(tang|song)\.\d+\.json"
_LEVELS = {"平": 1.0, "○": 0.5, "仄": 0.0}
_PATTERNS = ("平仄平", "仄平仄")


def tones_in(archive: Path) -> dict[str, float]:
    """Simplified character → share of its places that are level (平 1, ○ ½, 仄 0), from the archive
    that ``minillm download poetry`` fetches.

    Patterns of another length than their line are left out. Raises UserError: no such archive, one
    without patterns, or no OpenCC.
    """
    simplify, counts = simplifier(), _counts(archive)
    sums: dict[str, list[float]] = {}
    for (character, sign), number in counts.items():
        # A single character is also a title: its variant becomes today's form of it.
        found = sums.setdefault(title_of(simplify(character)), [0.0, 0.0])
        found[0] += _LEVELS[sign] * number
        found[1] += number
    sums.pop("", None)
    return {character: level / places for character, (level, places) in sums.items()}


def _counts(archive: Path) -> Counter[tuple[str, str]]:
    """How often each character of the archive stands under each sign."""
    counts: Counter[tuple[str, str]] = Counter()
    waiting: dict[str, list[str]] = {}  # a poem that waits for its pattern, or the other way round
    try:
        with tarfile.open(archive) as members:
            for member in members:
                content = members.extractfile(member)
                if content is None or not regex.fullmatch(_FILES, member.name):
                    continue
                for poem in msgspec.json.decode(content.read()):
                    lines = poem.get("strains") or poem.get("paragraphs") or []
                    if other := waiting.pop(poem["id"], None):
                        pair = (other, lines) if "strains" in poem else (lines, other)
                        counts.update(_pairs(*pair))
                    else:
                        waiting[poem["id"]] = lines
    except (OSError, tarfile.TarError, msgspec.DecodeError) as error:
        raise UserError(
            f"{archive}: cannot be read ({error}); run: minillm download poetry"
        ) from None
    if not counts:
        raise UserError(f"{archive}: has no tonal patterns; run: minillm download poetry")
    return counts


def _pairs(lines: Iterable[str], patterns: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line, pattern in zip(lines, patterns, strict=False):
        if len(line) == len(pattern):
            yield from (pair for pair in zip(line, pattern, strict=True) if pair[1] in _LEVELS)


def tone(character: str, levels: Mapping[str, float]) -> str:
    """平 or 仄; "" for a character that can be either, or is not in the table."""
    share = levels.get(character, 0.5)
    return "平" if share >= CERTAIN else "仄" if share <= 1 - CERTAIN else ""


def alternates(body: str, levels: Mapping[str, float]) -> bool | None:
    """Whether in every clause the second, fourth and, of seven, sixth character have tones that
    alternate, as regulated verse asks; a character that can be either fits everywhere.

    None: the body has no metre (``minillm.data.verse``).
    """
    return all(_alternates(clause, levels) for clause in clauses(body)) if metre(body) else None


def _alternates(clause: str, levels: Mapping[str, float]) -> bool:
    tones = [tone(character, levels) for character in clause[1::2]]
    return any(
        all(mark in ("", wanted) for mark, wanted in zip(tones, pattern, strict=False))
        for pattern in _PATTERNS
    )
