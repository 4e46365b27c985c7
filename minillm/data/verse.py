"""The form of classical verse: clauses, metre, kind and rhyme of a poem's body.

A body is tidy (``minillm.data.classical``): simplified characters with full-width punctuation, one
sentence a line.
"""

from __future__ import annotations

from functools import cache

import regex

from minillm.data.classical import bare
from minillm.errors import UserError

RHYME_GROUPS = (
    ("东冬", "ong iong eng ueng"),
    ("江阳", "ang iang uang"),
    ("支微齐", "i er ei uei"),
    ("鱼虞", "u v"),
    ("佳灰", "ai uai ei uei"),
    ("真文侵", "en in uen vn"),
    ("元", "an ian uan van en uen"),
    ("寒删先覃盐咸", "an ian uan van"),
    ("萧肴豪", "ao iao"),
    ("歌", "o e uo"),
    ("麻", "a ia ua e ie"),
    ("庚青蒸", "eng ing ong iong"),
    ("尤", "ou iou"),
    ("月屑", "ie ve"),
)
"""Finals of today that the rhymes of classical verse have: the level tones of the 106 rhymes
(平水韵), those that poets mix joined as in 词林正韵, and the commonest rhyme that ended in a stop.
Finals are pypinyin's strict ones: ``v`` stands for ü, and the vowels of 知 and 资 are ``i``.

Two finals may rhyme in one group and not in another: 回 and 来 do (佳灰), 回 and 知 do (支微齐),
来 and 知 don't. What was kept apart then is kept apart here: 心 and 星, 鱼 and 齐. What no longer
sounds alike is found where it is common (原 and 昏), and missed where a single character moved away
from its rhyme (浮, once with 流; 簪, with 心), or where a stop has gone (白, once with 客)."""


def clauses(body: str) -> list[str]:
    """What stands between stops, commas and line ends: characters only, none of them empty."""
    return [clause for part in regex.split("[，。；：？！、\n]", body) if (clause := bare(part))]


def metre(body: str) -> int | None:
    """5 or 7, if all clauses have so many characters and come in pairs, two pairs at least."""
    parts = clauses(body)
    lengths = set(map(len, parts))
    return lengths.pop() if lengths in ({5}, {7}) and len(parts) in range(4, 10**9, 2) else None


def kind(body: str) -> str | None:
    """五言绝句, 七言绝句 (of four clauses), 五言律诗 or 七言律诗 (of eight); None: another form.

    Length alone decides, not the tones.
    """
    length, lines = metre(body), len(clauses(body))
    if length is None or lines not in (4, 8):
        return None
    return ("五言" if length == 5 else "七言") + ("绝句" if lines == 4 else "律诗")


def rhymes(body: str) -> bool | None:
    """Whether the ends of the even clauses rhyme: some group of RHYME_GROUPS has a final of each.

    Every reading of a character counts, whatever its tone; a character that comes back rhymes with
    itself. None: fewer than two even clauses. Raises UserError without pypinyin.
    """
    ends = [clause[-1] for clause in clauses(body)[1::2]]
    return bool(frozenset.intersection(*map(groups_of, ends))) if len(ends) > 1 else None


@cache
def groups_of(character: str) -> frozenset[str]:
    """Names of the groups that a reading of the character belongs to; empty: no known reading."""
    try:
        from pypinyin import Style, pinyin
    except ImportError as error:
        raise UserError(f"rhymes need pypinyin: pip install -e '.[poetry]' ({error})") from None
    readings = pinyin(character, Style.FINALS, heteronym=True, errors="ignore", strict=True)
    finals = {final for reading in readings for final in reading}
    return frozenset(name for name, group in RHYME_GROUPS if finals & set(group.split()))
