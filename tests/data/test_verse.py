"""The form of verse, on poems that everybody knows and on lines without one."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data import verse
from minillm.errors import UserError

pytest.importorskip("pypinyin")

KNOWN = {
    "静夜思": ("五言绝句", "床前明月光，疑是地上霜。举头望明月，低头思故乡。"),
    "登鹳雀楼": ("五言绝句", "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"),
    "相思": ("五言绝句", "红豆生南国，春来发几枝？愿君多采撷，此物最相思。"),
    "江雪": ("五言绝句", "千山鸟飞绝，万径人踪灭。孤舟蓑笠翁，独钓寒江雪。"),
    "悯农": ("五言绝句", "锄禾日当午，汗滴禾下土。谁知盘中餐，粒粒皆辛苦。"),
    "杂诗": ("五言绝句", "君自故乡来，应知故乡事。来日绮窗前，寒梅著花未？"),
    "登乐游原": ("五言绝句", "向晚意不适，驱车登古原。夕阳无限好，只是近黄昏。"),
    "山行": (
        "七言绝句",
        "远上寒山石径斜，白云生处有人家。停车坐爱枫林晚，霜叶红于二月花。",
    ),
    "回乡偶书": (
        "七言绝句",
        "少小离家老大回，乡音无改鬓毛衰。儿童相见不相识，笑问客从何处来。",
    ),
    "早发白帝城": (
        "七言绝句",
        "朝辞白帝彩云间，千里江陵一日还。\n两岸猿声啼不住，轻舟已过万重山。",
    ),
    "山居秋暝": (
        "五言律诗",
        "空山新雨后，天气晚来秋。明月松间照，清泉石上流。"
        "竹喧归浣女，莲动下渔舟。随意春芳歇，王孙自可留。",
    ),
    "登高": (
        "七言律诗",
        "风急天高猿啸哀，渚清沙白鸟飞回。无边落木萧萧下，不尽长江滚滚来。"
        "万里悲秋常作客，百年多病独登台。艰难苦恨繁霜鬓，潦倒新停浊酒杯。",
    ),
}
POEMS = [pytest.param(*known, id=title) for title, known in KNOWN.items()]


@pytest.mark.parametrize(("kind", "body"), POEMS)
def test_poems_that_everybody_knows(kind: str, body: str) -> None:
    assert verse.kind(body) == kind
    assert verse.metre(body) == (5 if kind.startswith("五") else 7)
    assert verse.rhymes(body) is True


@pytest.mark.parametrize(("kind", "body"), POEMS)
def test_another_end_takes_the_rhyme_away(kind: str, body: str) -> None:
    parts = verse.clauses(body)
    here = verse.groups_of(parts[1][-1])
    other = next(end for end in "山东" if not verse.groups_of(end) & here)
    changed = "，".join([*parts[:3], parts[3][:-1] + other, *parts[4:]])
    assert verse.kind(changed) == kind
    assert verse.rhymes(changed) is False


def test_other_forms() -> None:
    ci = "昨夜雨疏风骤，浓睡不消残酒。试问卷帘人，却道海棠依旧。知否？知否？应是绿肥红瘦。"
    assert verse.metre(ci) is None
    assert verse.kind(ci) is None
    assert verse.rhymes("关关雎鸠，在河之洲。窈窕淑女，君子好逑。") is True
    assert verse.metre("关关雎鸠，在河之洲。窈窕淑女，君子好逑。") is None
    six = "春风吹又生，" * 6
    assert verse.metre(six) == 5
    assert verse.kind(six) is None
    for odd in ("", "春风吹又生。", "春风吹又生，" * 2, "春风吹又生，" * 5):
        assert verse.metre(odd) is None
    assert verse.rhymes("") is verse.rhymes("白日依山尽，黄河入海流。") is None


def test_a_clause_is_its_characters() -> None:
    body = "“春眠不觉晓”，处处闻啼鸟。\n《夜》来：风雨声！！花、落；知？多少"
    expected = ["春眠不觉晓", "处处闻啼鸟", "夜来", "风雨声", "花", "落", "知", "多少"]
    assert verse.clauses(body) == expected


@pytest.mark.parametrize(
    ("one", "other", "rhyme"),
    [
        ("心", "星", False),  # in and ing
        ("鱼", "齐", False),
        ("真", "心", True),
        ("风", "红", True),
        ("回", "来", True),
        ("回", "知", True),
        ("来", "知", False),
        ("原", "昏", True),
        ("山", "昏", True),  # one group has both: the price of 原 and 昏
        ("山", "心", False),
        ("重", "东", True),
        ("还", "山", True),  # huán, not hái
        ("浮", "流", False),  # known to be missed
        ("簪", "心", False),
        ("花", "x", False),
    ],
)
def test_pairs(one: str, other: str, rhyme: bool) -> None:
    assert bool(verse.groups_of(one) & verse.groups_of(other)) is rhyme


def test_each_final_of_today_has_a_group() -> None:
    from pypinyin import Style, pinyin

    common = "".join(KNOWN[title][1] for title in KNOWN)
    finals = {final for [final] in pinyin(common, Style.FINALS, strict=True, errors="ignore")}
    grouped = {final for _, group in verse.RHYME_GROUPS for final in group.split()}
    assert len(finals) > 30
    assert finals <= grouped
    assert len({name for name, _ in verse.RHYME_GROUPS}) == len(verse.RHYME_GROUPS)


@given(
    st.sampled_from([5, 7]),
    st.integers(2, 6),
    st.text("春夏秋冬风花雪月", min_size=84, max_size=84),
    st.sampled_from("，；！？、：\n"),
)
def test_equal_clauses_in_pairs_are_metre(n: int, pairs: int, signs: str, stop: str) -> None:
    parts = [signs[i * n : i * n + n] for i in range(2 * pairs)]
    body = stop.join(parts)
    assert verse.clauses(body) == parts
    assert verse.metre(body) == n
    assert (verse.kind(body) is not None) == (pairs in (2, 4))
    assert verse.metre(body + "长") is None


@given(st.text(max_size=40))
def test_any_text_can_be_looked_at(body: str) -> None:
    few = len(verse.clauses(body)) < 4
    assert (verse.rhymes(body) is None) == few
    assert verse.kind(body) is None or verse.metre(body) in (5, 7)


def test_without_pypinyin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    verse.groups_of.cache_clear()
    with pytest.raises(UserError, match=r"^rhymes need pypinyin: pip install -e '\.\[poetry\]' \("):
        verse.rhymes(KNOWN["登高"][1])
