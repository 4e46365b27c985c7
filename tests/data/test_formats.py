"""Every format's reader, on rows written for it; and what no reader may let through."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.formats import FORMATS, canonical, convert, format_of
from minillm.data.rows import (
    MARKS,
    MAY_FOLLOW,
    MEDIA,
    BadRow,
    Chat,
    Message,
    Pair,
    Row,
    Text,
    plain_text,
)


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
    assert dropped <= {*format_of(tuple(raw)).drop, "system", "history"}
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
    ({"text": None}, "no known format has the fields ''"),
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
    ({"messages": [{"role": None, "content": "x"}]}, "messages[0].from is None"),
    ({"messages": [{"content": "x"}]}, "messages[0].from is None"),
    ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
    ({"messages": turns("你好", "")}, "messages[1].content is empty"),
    (
        {"messages": [{"role": "user", "content": 3}]},
        "messages[0].content must be a string, not a number",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "messages[0].content[0] is of type 'image', not text",
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
        "choice must hold 2 to 26 options, not 1",
    ),
    (
        {"context": ["文"], "question": "问", "choice": ["甲", "丙"], "answer": "乙"},
        "answer is '乙', not one of A, B",
    ),
    (
        {"context": ["文", 1], "question": "问", "choice": ["甲", "乙"], "answer": "甲"},
        "context[1] must be a string, not a number",
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
    ({"chosen": "好", "rejected": "坏"}, "chosen is a reply, and what it replies to is missing"),
    (
        {"chosen": turns("一", "好"), "rejected": turns("二", "坏")},
        "chosen and rejected do not ask the same: prompt 1 of 1 differs",
    ),
    (
        {"chosen": turns("一", "好", "二", "好"), "rejected": turns("一", "坏", "三", "坏")},
        "chosen and rejected do not ask the same: prompt 2 of 2 differs",
    ),
    (
        {"chosen": turns("一", "好", "二", "好"), "rejected": turns("一", "坏")},
        "chosen and rejected do not ask the same: prompt 2 of 2 differs",
    ),
]


@pytest.mark.parametrize(("raw", "reason"), BAD_ROWS, ids=[reason[:40] for _, reason in BAD_ROWS])
def test_what_is_wrong_is_said_with_the_field(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        convert(raw)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


BESIDE = {"system", "history", "tools", "explanation", "context", "passage", "choices", "options"}
FIELDS = sorted({field for known in FORMATS for field in known.fields} | BESIDE | {*MARKS, *MEDIA})
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
            for field in ("content", "value", "tool_calls", "tools", "reasoning_content", "text")
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
    except BadRow as error:
        reason = str(error)
    else:
        reason = ""
    assert "\n" not in reason
    assert len(reason) <= 400
    if reason:
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


@settings(deadline=None)
@given(
    st.sampled_from([raw for _, raw, _ in EXAMPLES])
    | st.dictionaries(st.sampled_from(FIELDS), VALUES),
    st.sets(st.sampled_from(FIELDS)),
)
def test_null_columns_change_nothing(raw: dict[str, Any], columns: set[str]) -> None:
    present = {field: value for field, value in raw.items() if value is not None}
    try:
        row = convert(present)
    except BadRow:
        with pytest.raises(BadRow):
            convert({**dict.fromkeys(columns), **present})
        return
    table_row = {**dict.fromkeys(columns), **present}
    assert convert(table_row) == row
    assert convert(on_disk(table_row, row)) == row


# --- What stands beside the question and the answer -----------------------------------------------

SYSTEM, HISTORY = "只用一个词回答。", [["小黑是什么？", "小黑是一只猫。"]]
ASKED = [
    {"query": "它有几条腿？", "response": "四条。"},
    {"prompt": "它有几条腿？", "response": "四条。"},
    {"input": "它有几条腿？", "target": "四条。"},
    {"input": "它有几条腿？", "golden": "四条。"},
    {"question": "它有几条腿？", "answer": "四条。"},
    {"instruction": "它有几条腿？", "output": "四条。"},
    {"original_text": "它有几条腿？", "ans": "四条。"},
    {"messages": turns("它有几条腿？", "四条。")},
    {"conversations": sharegpt("它有几条腿？", "四条。")},
    {"conversation": [{"human": "它有几条腿？", "assistant": "四条。"}]},
]


@pytest.mark.parametrize("raw", ASKED, ids=[next(iter(raw)) for raw in ASKED])
def test_a_system_prompt_and_earlier_turns_are_kept_in_every_format(raw: dict[str, Any]) -> None:
    answer = "答案：四条。" if "ans" in raw else "四条。"
    expected = chat(*HISTORY[0], "它有几条腿？", answer, system=SYSTEM)
    asked = {**raw, "system": SYSTEM, "history": HISTORY}
    row = convert(asked)
    assert row == expected
    written = on_disk(asked, row)
    assert not {"system", "history"} & written.keys()
    assert convert(written) == expected
    # Written by somebody who kept the fields beside the turns that they are in already:
    assert convert({**written, "system": SYSTEM, "history": HISTORY}) == expected
    # Empty, they are fields like any other.
    assert on_disk({**raw, "system": "", "history": []}, convert(raw))["history"] == []


def test_a_system_prompt_and_earlier_turns_are_kept_on_both_sides_of_a_pair() -> None:
    for sides in (
        {"prompt": "早上好", "chosen": "早上好，您请坐。", "rejected": "哦。"},
        {"chosen": turns("早上好", "早上好，您请坐。"), "rejected": turns("早上好", "哦。")},
    ):
        row = convert({**sides, "system": SYSTEM, "history": HISTORY})
        before = messages(*HISTORY[0], system=SYSTEM)
        assert row == Pair(before + PAIR.chosen, before + PAIR.rejected)


def test_a_system_prompt_that_contradicts_the_system_turn_is_refused() -> None:
    raw = {
        "messages": [{"role": "system", "content": "说长些。"}, *turns("问", "答")],
        "system": SYSTEM,
    }
    with pytest.raises(BadRow, match="system says something else than the system turn"):
        convert(raw)


TOOLS = [{"name": "weather", "parameters": {"city": "string"}}]
TOOLS_TEXT = '[{"name":"weather","parameters":{"city":"string"}}]'


def test_tools_calls_and_reasoning_become_text() -> None:
    call = {"id": "1", "function": {"name": "weather"}}
    conversation = [
        {"role": "system", "content": "你会查天气。", "tools": TOOLS},
        {"role": "user", "content": [{"type": "text", "text": "杭州？"}], "tool_calls": []},
        {
            "role": "assistant",
            "content": "我查查。",
            "tool_calls": [call],
            "reasoning_content": None,
        },
        {"role": "tool", "content": "晴"},
        {"role": "assistant", "content": "晴天。", "reasoning_content": "工具说晴。\n"},
    ]
    expected = Chat(
        [
            Message("system", f"你会查天气。\n\n{TOOLS_TEXT}"),
            Message("user", "杭州？"),
            Message("assistant", '我查查。\n[{"id":"1","function":{"name":"weather"}}]'),
            Message("tool", "晴"),
            Message("assistant", "<think>\n工具说晴。\n</think>\n\n晴天。"),
        ]
    )
    assert convert({"messages": conversation}) == expected
    # Tools beside the turns, as OpenAI and LLaMA-Factory have them; empty ones say nothing.
    del conversation[0]["tools"]
    for tools in (TOOLS, TOOLS_TEXT):
        raw = {"messages": conversation, "tools": tools}
        assert convert(raw) == expected
        assert convert(on_disk(raw, expected)) == expected
    assert convert({"query": "问", "response": "答", "tools": TOOLS}) == chat(
        "问", "答", system=TOOLS_TEXT
    )
    for nothing in ("[]", "", [], None, "{}"):
        turn = {"role": "system", "content": "", "tools": nothing}
        assert convert({"messages": [turn, *turns("问", "答")], "tools": nothing}) == chat(
            "问", "答"
        )


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"tool_calls": [{"name": "f"}]}, "messages[0].tool_calls belongs to a turn of assistant"),
        (
            {"function_call": {"name": "f"}},
            "messages[0].function_call belongs to a turn of assistant",
        ),
        (
            {"reasoning_content": "想"},
            "messages[0].reasoning_content belongs to a turn of assistant",
        ),
        ({"tools": TOOLS}, "messages[0].tools belongs to a turn of system, not of user"),
        ({"tool_calls": 5}, "messages[0].tool_calls must be an array, not a number"),
        ({"images": ["a.png"]}, "messages[0].images is not empty, and only text can be learned"),
        ({"content": [{"type": "text"}]}, "messages[0].content[0].text is missing"),
        ({"content": [{"type": "text", "text": " "}]}, "messages[0].content[0].text is empty"),
        ({"content": ["问"]}, "messages[0].content[0] must be an object, not a string"),
        ({"content": []}, "messages[0].content is empty"),
        (
            {"role": "system", "content": [{"type": "text"}]},
            "messages[0].content[0].text is missing",
        ),
    ],
)
def test_what_a_turn_cannot_hold_is_refused_with_its_place(
    turn: dict[str, Any], reason: str
) -> None:
    first, second = turns("问", "答")
    with pytest.raises(BadRow) as caught:
        convert({"messages": [{**first, **turn}, second]})
    assert str(caught.value).startswith(reason)


CHOICES4 = ["CO2", "H2O", "O2", "N2"]
WATER = "水的化学式是？\nA. CO2\nB. H2O\nC. O2\nD. N2\n请选出正确的选项。"


@pytest.mark.parametrize("name", ["choices", "options", "choice"])
@pytest.mark.parametrize("choices", [CHOICES4, dict(zip("ABCD", CHOICES4, strict=True))])
@pytest.mark.parametrize("answer", [1, "B", "b", "B.", "（B）", "H2O", " H2O "])
def test_a_question_with_choices_becomes_multiple_choice(
    name: str, choices: Any, answer: Any
) -> None:
    raw = {"question": "水的化学式是？", name: choices, "answer": answer}
    assert convert(raw) == chat(WATER, "B. H2O")
    assert convert({**raw, "explanation": "两个氢，一个氧。"}) == chat(
        WATER, "B. H2O\n解析：两个氢，一个氧。"
    )


def test_choices_in_other_shapes() -> None:
    asked = {"prompt": "几？", "response": "B", "options": ["A. 一", "B. 二"]}
    assert convert(asked) == chat("几？\nA. 一\nB. 二\n请选出正确的选项。", "B. 二")
    numbered = {"question": "几？", "choices": {"1": "一", "2": "二"}, "answer": 1}
    assert convert(numbered) == chat("几？\n1. 一\n2. 二\n请选出正确的选项。", "1. 一")
    numbers = {"question": "几？", "choices": [3, 5], "answer": 5}
    assert convert(numbers) == chat("几？\nA. 3\nB. 5\n请选出正确的选项。", "B. 5")
    # A table has columns for its longest question.
    three = {"question": "几？", "A": "一", "B": "二", "C": "三", "D": None, "E": "", "answer": "C"}
    assert convert(three) == chat("几？\nA. 一\nB. 二\nC. 三\n请选出正确的选项。", "C. 三")
    five = {"Question": "几？", **dict(zip("ABCDE", "一二三四五", strict=True)), "Answer": "E"}
    assert plain_text(convert(five)).endswith("E. 五\n请选出正确的选项。\nE. 五")
    assert convert({"question": "几？", "choices": [], "answer": "五"}) == chat("几？", "五")


@pytest.mark.parametrize(
    ("choices", "answer", "reason"),
    [
        (CHOICES4, 4, "answer is 4, not one of A, B, C, D"),
        (CHOICES4, -1, "answer is -1, not one of A, B, C, D"),
        (CHOICES4, "E", "answer is 'E', not one of A, B, C, D"),
        (CHOICES4, "1", "answer is '1', not one of A, B, C, D"),  # counted from 0 or from 1?
        (CHOICES4, "AB", "answer is 'AB', not one of A, B, C, D"),
        (CHOICES4, True, "answer must be a string, not a boolean"),
        (CHOICES4, 1.5, "answer must be a string, not a number"),
        (["2", "1", "0"], 1, None),  # a number beside texts counts them
        ([2, 1, 0], 2, "answer is 2, which may mean A or C"),
        (["B", "A"], "A", "answer is 'A', which may mean A or B"),
        (["甲"], 0, "choices must hold 2 to 26 options, not 1"),
        (["甲"] * 27, 0, "choices must hold 2 to 26 options, not 27"),
        (["甲", None], 0, "choices[B] must be a string, not null"),
        ({"A": "甲", "B": " "}, "A", "choices[B] is empty"),
        ("甲、乙", 0, "choices must be an array, not a string"),
    ],
)
def test_an_answer_that_cannot_be_told_is_refused(
    choices: Any, answer: Any, reason: str | None
) -> None:
    raw = {"question": "问", "choices": choices, "answer": answer}
    if reason is None:
        assert plain_text(convert(raw)).endswith("\nB. 1")
        return
    with pytest.raises(BadRow) as caught:
        convert(raw)
    assert str(caught.value) == reason


@pytest.mark.parametrize("name", ["context", "passage"])
def test_a_passage_stands_before_its_question(name: str) -> None:
    asked = {name: "小黑住在杭州。", "question": "它住在哪里？", "answer": "杭州"}
    assert convert(asked) == chat("小黑住在杭州。\n\n它住在哪里？", "杭州")
    pair = {name: "小黑住在杭州。", "prompt": "它住在哪里？", "chosen": "杭州", "rejected": "北京"}
    row = convert(pair)
    assert isinstance(row, Pair)
    assert row.rejected == messages("小黑住在杭州。\n\n它住在哪里？", "北京")
    choice = {name: ["小黑", "住在杭州。"], "question": "哪里？", "choices": ["北京", "杭州"]}
    assert plain_text(convert({**choice, "answer": 1})).startswith(
        "小黑\n住在杭州。\n\n哪里？\nA. 北京"
    )
    # Where the question holds it already, it is not said again.
    quoted = {name: "小黑", "instruction": "小黑住在哪里？", "output": "杭州"}
    assert convert(quoted) == chat("小黑住在哪里？", "杭州")


BAD_MARKS: list[tuple[str, Any]] = [
    ("label", False),
    ("label", "False"),
    ("kto_tag", False),
    ("weight", 0),
    ("weight", 0.0),
    ("weight", "0"),
    ("loss", False),
    ("train", False),
]


@pytest.mark.parametrize(("name", "value"), BAD_MARKS)
def test_an_answer_that_is_marked_as_bad_is_not_learned(name: str, value: Any) -> None:
    marked, reason = {name: value}, f"{name} is {str(value).lower()}: marked as not to be learned"
    for raw in ASKED:
        with pytest.raises(BadRow) as caught:
            convert({**raw, **marked})
        assert str(caught.value) == reason
    question, answer, *more = turns("一", "二", "三", "四")
    for field in ("messages", "conversations"):
        # Others build on it:
        with pytest.raises(BadRow) as caught:
            convert({field: [question, {**answer, **marked}, *more]})
        assert str(caught.value) == f"{field}[1].{reason}"
        # It is the only one:
        with pytest.raises(BadRow) as caught:
            convert({field: [question, {**answer, **marked}]})
        assert str(caught.value) == f"{field}[1].{reason}"
        # It is the last: like a question without an answer.
        assert convert({field: [question, answer, more[0], {**more[1], **marked}]}) == chat(
            "一", "二"
        )
        # Questions are never learned, so that a mark on them says nothing.
        assert convert({field: [{**question, **marked}, answer]}) == chat("一", "二")
        part = {"type": "text", "text": "二", **marked}
        with pytest.raises(BadRow) as caught:
            convert({field: [question, {"role": "assistant", "content": [part]}]})
        assert str(caught.value) == f"{field}[1].content[0].{reason}"
    with pytest.raises(BadRow, match=r"conversation\[0\]"):
        convert({"conversation": [{"human": "一", "assistant": "二", **marked}]})
    # A rejected answer is not learned anyway; a chosen one that is marked contradicts itself.
    good, bad = turns("早", "您早。"), turns("早", "哦。")
    assert convert({"chosen": good, "rejected": [bad[0], {**bad[1], **marked}]})
    with pytest.raises(BadRow):
        convert({"chosen": [good[0], {**good[1], **marked}], "rejected": bad})


@pytest.mark.parametrize("name", ["label", "kto_tag", "weight", "loss", "train"])
def test_other_values_of_a_mark_say_nothing_bad(name: str) -> None:
    for value in (True, None, 1, 0.5, "1", "neutral"):
        assert convert({**ASKED[0], name: value}) == convert(ASKED[0])
    assert convert({"text": "一", "label": False}) == Text("一")  # the class of a text
    assert convert({**ASKED[0], "label": 0}) == convert(ASKED[0])  # a class, not a verdict


@pytest.mark.parametrize("name", ["images", "audios", "videos", "image", "audio", "video"])
def test_rows_with_more_than_text_are_refused(name: str) -> None:
    for raw in [*ASKED, {"prompt": "早", "chosen": "您早。", "rejected": "哦。"}]:
        for media in (["a.png"], "a.png", {"bytes": None, "path": "a.png"}):
            with pytest.raises(BadRow) as caught:
                convert({**raw, name: media})
            assert str(caught.value) == f"{name} is not empty, and only text can be learned"
        for nothing in ([], "", None, {}, [None], {"bytes": None, "path": None}):
            assert convert({**raw, name: nothing}) == convert(raw)
    if name.endswith("s"):
        with pytest.raises(BadRow, match="only text"):
            convert({"text": "看<image>", name: ["a.png"]})
    else:  # a newspaper's text beside the address of its picture
        assert convert({"text": "文", name: "a.png"}) == Text("文")


# --- Dialogues that are told in a question --------------------------------------------------------

TOLD = chat("你好", "你好！有事吗？", "讲个笑话", "从前有只猫。")


@pytest.mark.parametrize(
    "question",
    [
        "Human:你好\nAssistant:你好！有事吗？\nHuman:讲个笑话\nAssistant:",
        "Human: 你好\nAssistant: 你好！有事吗？\nHuman: 讲个笑话\nAssistant: ",
        "Human：你好\nAssistant：你好！有事吗？\nHuman：讲个笑话\nAssistant：",
        "Human:你好\r\nAssistant:你好！有事吗？\r\nHuman:讲个笑话\r\nAssistant:\r\n",
        "\n\nHuman: 你好\n\nAssistant: 你好！有事吗？\n\nHuman: 讲个笑话\n\nAssistant:",
        "Human:你好\n Assistant :你好！有事吗？\n\u3000Human:讲个笑话",
        "Human:你好\\nAssistant:你好！有事吗？\\nHuman:讲个笑话\\nAssistant:",
    ],
)
def test_a_dialogue_told_in_a_question_becomes_turns(question: str) -> None:
    for raw in (
        {"instruction": question, "input": "", "output": "从前有只猫。"},
        {"prompt": question, "response": "从前有只猫。"},
    ):
        assert convert(raw) == TOLD
        assert convert(on_disk(raw, TOLD)) == TOLD


def test_a_question_that_only_speaks_of_humans_stays_as_it_is() -> None:
    for question in (
        "Human: 人类的英语",
        "解释：\nHuman: 你好\nAssistant: 你好",
        "Humans\nAssistant: 是什么意思？",
        " 什么是 Human: 和 Assistant:？ ",
    ):
        assert convert({"instruction": question, "output": "答"}) == chat(question, "答")


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (
            "Human:一\nHuman:二\nAssistant:",
            "instruction, turn 2 of its dialogue: user cannot come after user",
        ),
        (
            "Human:一\nAssistant:二",
            "instruction, the answer to its dialogue: assistant cannot come after assistant",
        ),
        ("Human:\nAssistant:", "instruction, turn 1 of its dialogue is empty"),
    ],
)
def test_a_dialogue_out_of_order_is_refused_with_the_turn(question: str, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        convert({"instruction": question, "output": "答"})
    assert str(caught.value) == reason


def test_plain_text_says_everything_once() -> None:  # [3.1]
    assert plain_text(Text("一段文字")) == "一段文字"
    assert plain_text(chat("问", "答", system="系统")) == "系统\n问\n答"
    assert plain_text(PAIR) == "早上好\n早上好，您请坐。\n哦。"
