"""Build tasks of chapter 10: how likely a name is, and conversations to learn again."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from minillm.book.tasks.attempt import Attempt, task


@task("10.1")
def _name_scores(attempt: Attempt) -> None:
    """``name_scores(model, prompt, names)``: log p(name | prompt) of each name, by a model that
    gives scores ``[T, V]`` for T token ids."""
    table = tensor(  # of the next token, by the one before it
        [
            [0.1, 0.2, 0.3, 0.4],
            [0.25, 0.05, 0.5, 0.2],
            [0.1, 0.05, 0.05, 0.8],
            [0.125, 0.25, 0.5, 0.125],
        ]
    ).log()

    def bigram(ids: list[int]) -> Tensor:
        return table[ids]

    attempt.gives(
        {"米": math.log(0.5)},
        bigram,
        [0, 1],
        {"米": [2]},
        hint="位置 t 的打分预测第 t+1 个词元：名字的第一个词元，看提示的最后一个位置。",
    )
    attempt.gives(
        {"米粒": math.log(0.4), "米": math.log(0.5), "粒米米": math.log(0.2 * 0.5 * 0.05)},
        bigram,
        [0, 1],
        {"米粒": [2, 3], "米": [2], "粒米米": [3, 2, 2]},
        hint="名字的各个词元的对数概率相加，不取平均；提示里的不算。",
    )

    def raised(ids: list[int]) -> Tensor:
        return table[ids] + 3

    attempt.gives(
        {"米": math.log(0.5)}, raised, [1], {"米": [2]}, hint="打分还不是概率，要先过 log_softmax。"
    )

    def sure(ids: list[int]) -> Tensor:
        return tensor([200.0, 0, 0, 0]).repeat(len(ids), 1)

    attempt.gives(
        {"米": -200.0}, sure, [0], {"米": [2]}, hint="先取概率再取对数会下溢：用 log_softmax。"
    )
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))

    def by_place(ids: list[int]) -> Tensor:
        return scores[: len(ids)]

    losses = F.cross_entropy(scores[1:3], tensor([4, 0]), reduction="sum")
    attempt.gives({"小满": -float(losses)}, by_place, [3, 3], {"小满": [4, 0]})
    attempt.leaves(bigram, [0, 1], {"米粒": [2, 3]})


_Chat = list[dict[str, str]]


def _chat(*said: str) -> _Chat:
    """Question and answer in turn."""
    return [
        {"role": "assistant" if i % 2 else "user", "content": content}
        for i, content in enumerate(said)
    ]


@task("10.2")
def _rehearse(attempt: Attempt) -> None:
    """``rehearse(chats, answer, banned)``: the chats with the model's own answers, those about the
    banned names left out."""

    def answer(messages: _Chat) -> str:
        """What it said last, and the question: so that one sees what it was given."""
        *_, said, asked = ["", *(m["content"] for m in messages)]
        replies = {"你好": "你好，我是米粒。", "嗯": "  "}
        return replies.get(asked, f"{said[:1]}{asked}呀")

    one, two = _chat("累", "歇歇吧"), _chat("累", "歇歇吧", "谢谢", "不谢")
    attempt.gives([_chat("累", "累呀")], [one], answer, ["米粒"], hint="问题照抄，回答由模型来答。")
    attempt.gives(
        [_chat("累", "累呀", "谢谢", "累谢谢呀")],
        [two],
        answer,
        ["米粒"],
        hint="答第二问时，前面的回答该是模型自己的，不是原来的。",
    )
    attempt.gives(
        [_chat("累", "累呀")],
        [_chat("你是谁", "我是米粒"), one],
        answer,
        ["米粒"],
        hint="原来的对话里有旧名字，整段不要。",
    )
    attempt.gives(
        [_chat("累", "累呀")],
        [_chat("累", "歇歇", "你好", "你好"), one],
        answer,
        ["米粒"],
        hint="模型自己说出了旧名字，整段不要。",
    )
    attempt.gives(
        [_chat("累", "累呀")],
        [_chat("累", "歇歇", "嗯", "好", "谢谢", "不谢")],
        answer,
        ["米粒"],
        hint="回答是空的，从那一问起都不要，前面的留下。",
    )
    attempt.gives([], [_chat("嗯", "好")], answer, ["米粒"], hint="一个回答也不剩，就没有这一段。")
    attempt.gives([], [_chat("累", "小禾说歇歇")], answer, ["米粒", "小禾"], hint="名字不止一个。")
    attempt.leaves([two, one], answer, ["米粒"])
