"""Every format's reader, on rows written for it; and what no reader may let through."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.formats import FORMATS, canonical, convert, format_of
from minillm.data.rows import MAY_FOLLOW, BadRow, Chat, Message, Pair, Row, Text, plain_text


def chat(*contents: str, system: str = "") -> Chat:
    """A conversation, user first."""
    return Chat(messages(*contents, system=system))


def messages(*contents: str, system: str = "") -> list[Message]:
    turns = [Message(("user", "assistant")[i % 2], said) for i, said in enumerate(contents)]
    return ([Message("system", system)] if system else []) + turns


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages(*contents)]


def sharegpt(*contents: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": said} for i, said in enumerate(contents)]


def on_disk(raw: dict[str, Any], row: Row) -> dict[str, Any]:
    """The canonical row, written and read again."""
    written: dict[str, Any] = json.loads(msgspec.json.encode(canonical(raw, row)))
    return written


CHOICES = "水在标准大气压下的沸点是多少度？\nA. 0\nB. 50\nC. 100\nD. 200\n请选出正确的选项。"
PASSAGE = "小河从村子东边流过，一直流到湖里。"
PAIR = Pair(messages("早上好", "早上好，您请坐。"), messages("早上好", "哦。"))
CALL = '{"name": "weather", "arguments": {"city": "杭州"}}'

EXAMPLES: list[tuple[str, dict[str, Any], Row]] = [
    ("text", {"text": "春天来了。", "id": 3}, Text("春天来了。")),
    (
        "messages",
        {"messages": turns("你好", "你好！", "再见", "再见！")},
        chat("你好", "你好！", "再见", "再见！"),
    ),
    (
        "messages",  # a system turn without content says nothing
        {"messages": [{"role": "system", "content": " "}, *turns("几点了？", "三点。")]},
        chat("几点了？", "三点。"),
    ),
    (
        "messages",  # OpenAI: content in parts, calls beside it; the tool's answer in between
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "杭州"}, {"type": "text", "text": "天气"}],
                },
                {"role": "assistant", "content": None, "tool_calls": CALL},
                {"role": "tool", "content": "晴"},
                {"role": "assistant", "content": "今天晴。"},
            ]
        },
        Chat(
            [
                Message("user", "杭州天气"),
                Message("assistant", CALL),
                Message("tool", "晴"),
                Message("assistant", "今天晴。"),
            ]
        ),
    ),
    (
        "ShareGPT, MiniMind",
        {"conversations": turns("喝茶吗？", "好的。")},
        chat("喝茶吗？", "好的。"),
    ),
    (
        "ShareGPT, MiniMind",
        {
            "conversations": [
                {"from": "system", "value": "你说话很短。"},
                *sharegpt("累吗？", "不累。"),
            ]
        },
        chat("累吗？", "不累。", system="你说话很短。"),
    ),
    (
        "ShareGPT, MiniMind",  # the last question was never answered
        {"id": "x1", "conversations": sharegpt("一加一？", "二。", "那二加二呢？")},
        chat("一加一？", "二。"),
    ),
    (
        "ShareGPT, MiniMind",
        {
            "conversations": [
                {"from": "human", "value": "杭州天气"},
                {"from": "function_call", "value": CALL},
                {"from": "observation", "value": "晴"},
                {"from": "gpt", "value": "今天晴。"},
            ],
            "tools": "[]",
        },
        Chat(
            [
                Message("user", "杭州天气"),
                Message("assistant", CALL),
                Message("tool", "晴"),
                Message("assistant", "今天晴。"),
            ]
        ),
    ),
    (
        "ShareGPT-90k",
        {
            "conversation": [
                {"human": "会唱歌吗？", "assistant": "会。"},
                {"human": "唱吧", "assistant": "啦啦啦。"},
            ]
        },
        chat("会唱歌吗？", "会。", "唱吧", "啦啦啦。"),
    ),
    (
        "alpaca, BELLE",
        {"instruction": "写一个颜色", "input": "", "output": "红色"},
        chat("写一个颜色", "红色"),
    ),
    (
        "alpaca, BELLE",
        {
            "instruction": "翻译成英语：",
            "input": "猫",
            "output": "cat",
            "system": "你是翻译。",
            "history": [["翻译：狗", "dog"]],
        },
        chat("翻译：狗", "dog", "翻译成英语：\n猫", "cat", system="你是翻译。"),
    ),
    ("alpaca, BELLE", {"instruction": "", "input": "说“好”", "output": "好"}, chat("说“好”", "好")),
    (
        "CMMLU",
        {
            "subject": "physics",
            "id": "0",
            "Question": "水在标准大气压下的沸点是多少度？",
            "A": "0",
            "B": "50",
            "C": "100",
            "D": "200",
            "Answer": "C",
        },
        chat(CHOICES, "C. 100"),
    ),
    (
        "C-Eval",
        {
            "id": 0,
            "question": "水在标准大气压下的沸点是多少度？",
            "A": 0,
            "B": 50,
            "C": 100,
            "D": 200,
            "answer": "C",
            "explanation": "定义如此。",
        },
        chat(CHOICES, "C. 100\n解析：定义如此。"),
    ),
    (
        "C3",
        {
            "context": ["女：下雨了。", "男：带伞吧。"],
            "question": "天气怎样？",
            "choice": ["晴", "雨"],
            "answer": "雨",
        },
        chat("女：下雨了。\n男：带伞吧。\n\n天气怎样？\nA. 晴\nB. 雨\n请选出正确的选项。", "B. 雨"),
    ),
    (
        "SQuAD",
        {
            "context": PASSAGE,
            "question": "小河流到哪里？",
            "answers": [{"text": "湖里", "answer_start": 14}],
        },
        chat(f"{PASSAGE}\n\n根据上文回答：小河流到哪里？", "湖里"),
    ),
    (
        "SQuAD",
        {
            "context": PASSAGE,
            "question": "小河流到哪里？",
            "answers": {"text": ["湖里"], "answer_start": [14]},
        },
        chat(f"{PASSAGE}\n\n根据上文回答：小河流到哪里？", "湖里"),
    ),
    (
        "TNEWS",
        {"label": 103, "label_desc": "news_sports", "sentence": "校队赢了"},
        chat("下面的内容属于哪个类别？\n校队赢了", "体育"),
    ),
    (
        "TNEWS, EPRSTMT",
        {"sentence": "股市涨了", "label": "114"},
        chat("下面的内容属于哪个类别？\n股市涨了", "股票"),
    ),
    (
        "TNEWS, EPRSTMT",
        {"sentence": "很好用", "label": "Positive"},
        chat("下面这句话的情感是正面还是负面？\n很好用", "正面"),
    ),
    (
        "IFLYTEK",
        {"label": "7", "label_des": "地图导航", "sentence": "带你去任何地方"},
        chat("下面的内容属于哪个类别？\n带你去任何地方", "地图导航"),
    ),
    (
        "AFQMC, OCNLI",
        {"sentence1": "怎么还款", "sentence2": "如何还钱", "label": "1"},
        chat("句子一：怎么还款\n句子二：如何还钱\n这两个句子的意思相同还是不同？", "相同"),
    ),
    (
        "AFQMC, OCNLI",
        {
            "sentence1": "他在跑步",
            "sentence2": "他没有动",
            "label": "contradiction",
            "genre": "口语",
        },
        chat(
            "句子一：他在跑步\n句子二：他没有动\n从句子一看，句子二是蕴含、矛盾还是无关？", "矛盾"
        ),
    ),
    (
        "Math23K, Ape210K",
        {
            "id": "1",
            "original_text": "3个盘子各放4个桃，共几个？",
            "equation": "x=3*4",
            "ans": "12",
        },
        chat("3个盘子各放4个桃，共几个？", "x=3*4\n答案：12"),
    ),
    ("math401, self-cognition", {"query": "7*8=", "response": "56"}, chat("7*8=", "56")),
    (
        "CMath",
        {"grade": 1, "input": "5只鸟飞走2只，还剩几只？", "golden": "3"},
        chat("5只鸟飞走2只，还剩几只？", "3"),
    ),
    (
        "Firefly",
        {"kind": "对联", "input": "上联：春风", "target": "下联：秋月"},
        chat("上联：春风", "下联：秋月"),
    ),
    ("GSM8K", {"question": "一打有多少个？", "answer": 12}, chat("一打有多少个？", "12")),
    (
        "prompt, response",
        {"prompt": "天是什么颜色？", "response": "蓝色。"},
        chat("天是什么颜色？", "蓝色。"),
    ),
    (
        "UltraFeedback, LLaMA-Factory pairs",  # UltraFeedback, MiniMind: whole conversations
        {
            "prompt": "早上好",
            "chosen": turns("早上好", "早上好，您请坐。"),
            "rejected": turns("早上好", "哦。"),
            "messages": turns("早上好", "早上好，您请坐。"),
            "score_chosen": 8.5,
        },
        PAIR,
    ),
    (
        "UltraFeedback, LLaMA-Factory pairs",  # LLaMA-Factory: a reply each
        {
            "conversations": sharegpt("早上好"),
            "chosen": {"from": "gpt", "value": "早上好，您请坐。"},
            "rejected": {"from": "gpt", "value": "哦。"},
        },
        PAIR,
    ),
    (
        "UltraFeedback, LLaMA-Factory pairs",  # TRL: prompt and replies as messages
        {
            "prompt": turns("早上好"),
            "chosen": [turns("", "早上好，您请坐。")[1]],
            "rejected": [turns("", "哦。")[1]],
        },
        PAIR,
    ),
    (
        "UltraFeedback, LLaMA-Factory pairs",
        {"prompt": "早上好", "chosen": "早上好，您请坐。", "rejected": "哦。"},
        PAIR,
    ),
    (
        "UltraFeedback, LLaMA-Factory pairs",
        {
            "system": "要有礼貌。",
            "instruction": "早上",
            "input": "好",
            "chosen": "您请坐。",
            "rejected": "哦。",
        },
        Pair(
            messages("早上\n好", "您请坐。", system="要有礼貌。"),
            messages("早上\n好", "哦。", system="要有礼貌。"),
        ),
    ),
    (
        "MedicalGPT pairs",
        {
            "history": [["在吗", "在。"]],
            "question": "早上好",
            "response_chosen": "早上好，您请坐。",
            "response_rejected": "哦。",
        },
        Pair(
            messages("在吗", "在。", "早上好", "早上好，您请坐。"),
            messages("在吗", "在。", "早上好", "哦。"),
        ),
    ),
    (
        "UltraFeedback-chinese",
        {
            "instruction": "早上好",
            "chosen_response": "早上好，您请坐。",
            "rejected_response": "哦。",
        },
        PAIR,
    ),
]


@pytest.mark.parametrize(("name", "raw", "row"), EXAMPLES, ids=[name for name, *_ in EXAMPLES])
def test_every_format_is_recognised_and_read(name: str, raw: dict[str, Any], row: Row) -> None:
    assert format_of(tuple(raw)).name == name
    assert convert(raw) == row


def test_no_format_is_without_an_example() -> None:
    assert {known.name for known in FORMATS} == {name for name, *_ in EXAMPLES}


@pytest.mark.parametrize(("name", "raw", "row"), EXAMPLES, ids=[name for name, *_ in EXAMPLES])
def test_the_canonical_row_means_the_same_and_keeps_what_describes_it(
    name: str, raw: dict[str, Any], row: Row
) -> None:  # [2.7]
    written = on_disk({**raw, "tag": [1, {"a": None}]}, row)
    assert convert(written) == row
    assert written["tag"] == [1, {"a": None}]
    dropped = raw.keys() - written.keys()
    assert dropped <= set(format_of(tuple(raw)).drop)
    assert not dropped & {
        "id",
        "subject",
        "answer",
        "Answer",
        "answers",
        "label",
        "grade",
        "source",
    }


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({}, "no known format has the fields ''"),
    ({"headline": "x", "bo\ndy": "y"}, r"no known format has the fields 'headline, bo\ndy'"),
    ({"sentence": "没有标签的测试题", "id": 1}, "no known format"),
    ({"text": ""}, "text is empty"),
    ({"text": " \n\u3000"}, "text is empty"),
    ({"text": None}, "text must be a string, not null"),
    ({"text": 5}, "text must be a string, not a number"),
    ({"text": ["a"]}, "text must be a string, not an array"),
    ({"instruction": "问", "input": "", "output": ""}, "output is empty"),
    (
        {"instruction": "问", "input": {"a": 1}, "output": "答"},
        "input must be a string, not an object",
    ),
    ({"instruction": " ", "input": None, "output": "答"}, "instruction is empty"),
    (
        {"instruction": "问", "history": "无", "output": "答"},
        "history must be an array, not a string",
    ),
    (
        {"instruction": "问", "history": [["一"]], "output": "答"},
        "history[0] must be [question, answer]",
    ),
    ({"instruction": "问", "history": [["一", ""]], "output": "答"}, "history[0][1] is empty"),
    ({"messages": {}}, "messages must be an array, not an object"),
    ({"messages": []}, "messages has no assistant reply"),
    ({"messages": ["你好"]}, "messages[0] must be an object, not a string"),
    ({"messages": turns("你好")}, "messages has no assistant reply"),
    (
        {"messages": [{"role": "bot", "content": "x"}]},
        "messages[0].role is 'bot', not one of system, user",
    ),
    ({"messages": [{"role": None, "content": "x"}]}, "messages[0].role is None"),
    ({"messages": [{"content": "x"}]}, "messages[0].from is None"),
    ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
    ({"messages": turns("你好", "")}, "messages[1].content is empty"),
    (
        {"messages": [{"role": "user", "content": 3}]},
        "messages[0].content must be a string, not a number",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "has parts that are not text",
    ),
    ({"messages": turns("一", "二")[1:]}, "messages[0].role: assistant cannot come first"),
    (
        {"messages": turns("一", "二") + turns("", "三")[1:]},
        "messages[2].role: assistant cannot come after assistant",
    ),
    (
        {"messages": turns("一") + turns("二", "三")},
        "messages[1].role: user cannot come after user",
    ),
    ({"conversations": sharegpt("一", "  ")}, "conversations[1].value is empty"),
    (
        {"conversations": [{"from": "human", "value": "问"}, {"from": "阿猫", "value": "答"}]},
        "is '阿猫', not one of",
    ),
    ({"conversation": []}, "conversation is empty"),
    ({"conversation": [{"human": "问"}]}, "conversation[0].assistant must be a string, not null"),
    (
        {"Question": "问", **dict.fromkeys("ABCD", "甲"), "Answer": "E"},
        "Answer is 'E', not one of A, B, C, D",
    ),
    ({"question": "问", **dict.fromkeys("ABCD", "甲"), "answer": ""}, "answer is empty"),
    ({"question": "问", **dict.fromkeys("ABCD", ""), "answer": "A"}, "A is empty"),
    (
        {"context": ["文"], "question": "问", "choice": ["甲"], "answer": "乙"},
        "answer is not one of choice",
    ),
    (
        {"context": "文", "question": "问", "choice": ["甲"], "answer": "甲"},
        "context must be an array",
    ),
    ({"context": "文", "question": "问", "answers": []}, "answers must be an array of"),
    ({"context": "文", "question": "问", "answers": [{"text": ""}]}, "text is empty"),
    ({"label_desc": "news_x", "sentence": "句"}, "label_desc is 'news_x', not one of news_story"),
    (
        {"sentence1": "一", "sentence2": "二", "label": "-"},
        "label is '-', not one of 0, 1, entailment",
    ),
    # As a number, 0 is "different" in AFQMC and "neutral" in OCNLI.
    ({"sentence1": "一", "sentence2": "二", "label": 0}, "label must be a string, not a number"),
    ({"sentence": "句", "label": 1}, "label must be a string, not a number"),
    ({"input": "问", "golden": True}, "golden must be a string, not a boolean"),
    ({"prompt": "问", "chosen": "好", "rejected": "好"}, "chosen and rejected are the same"),
    ({"prompt": "问", "chosen": "好", "rejected": ""}, "rejected is empty"),
    ({"prompt": "问", "chosen": "好", "rejected": 3}, "rejected must be an array, not a number"),
    ({"chosen": "好", "rejected": "坏"}, "instruction is empty"),
    (
        {"chosen": turns("一", "好"), "rejected": turns("二", "坏")},
        "chosen and rejected do not begin with the same question",
    ),
]


@pytest.mark.parametrize(("raw", "reason"), BAD_ROWS, ids=[reason[:40] for _, reason in BAD_ROWS])
def test_what_is_wrong_is_said_with_the_field(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        convert(raw)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


FIELDS = sorted(
    {field for known in FORMATS for field in known.fields} | {"system", "history", "explanation"}
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from(["", "A", "好"]),
)
TURNS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool", "x"]),
        "from": st.sampled_from(["human", "gpt", "observation"]),
        **{
            field: LEAVES | st.lists(LEAVES, max_size=2)
            for field in ("content", "value", "tool_calls", "text")
        },
    },
)
VALUES = st.recursive(
    LEAVES | TURNS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
    ),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8))
def test_whatever_comes_in_only_good_rows_come_out(raw: dict[str, Any]) -> None:
    try:
        row = convert(raw)
    except BadRow:
        return
    sides = (
        [row.messages]
        if isinstance(row, Chat)
        else [row.chosen, row.rejected]
        if isinstance(row, Pair)
        else []
    )
    for side in sides:
        assert side[-1].role == "assistant"
        for before, after in zip(["", *(m.role for m in side)], side, strict=False):
            assert after.role in MAY_FOLLOW[before]
            assert after.content.strip()
    assert plain_text(row).strip()
    assert convert(on_disk(raw, row)) == row


def test_plain_text_says_everything_once() -> None:  # [3.1]
    assert plain_text(Text("一段文字")) == "一段文字"
    assert plain_text(chat("问", "答", system="系统")) == "系统\n问\n答"
    assert plain_text(PAIR) == "早上好\n早上好，您请坐。\n哦。"
