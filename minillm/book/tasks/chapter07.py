"""Build tasks of chapter 7: sampling from the best tokens, and a check of a conversation's
labels."""

from __future__ import annotations

from torch import tensor

from minillm.book.tasks.attempt import Attempt, task


@task("7.1")
def _nucleus(attempt: Attempt) -> None:
    """``nucleus(logits, temperature, top_p)``: the probabilities that are drawn from."""
    logits = tensor([0.5, 0.3, 0.15, 0.05]).log()
    attempt.gives(tensor([0.5, 0.3, 0.15, 0.05]), logits, 1.0, 1.0)
    attempt.gives(
        tensor([0.25, 0.09, 0.0225, 0.0025]) / 0.365,
        logits,
        0.5,
        1.0,
        hint="分数先除以温度，再 softmax。",
    )
    attempt.gives(
        tensor([0.625, 0.375, 0, 0]),
        logits,
        1.0,
        0.7,
        hint="使总和刚到 p 的那一个也留下；留下的重新归一。",
    )
    attempt.gives(tensor([1.0, 0, 0, 0]), logits, 1.0, 0.2, hint="最好的那个总要留下。")
    attempt.gives(
        tensor([0, 0.625, 0, 0.375]),
        tensor([0.05, 0.5, 0.15, 0.3]).log(),
        1.0,
        0.7,
        hint="排过序的概率，要放回各自原来的位置。",
    )
    roots = tensor([0.5, 0.3, 0.15, 0]).sqrt()
    attempt.gives(roots / roots.sum(), logits, 2.0, 0.7, hint="先调温度，再剪尾巴。")
    attempt.gives(
        tensor([0.0, 1, 0]), tensor([1.0, 3, 2]), 0.0, 0.9, hint="温度是 0，就是贪心解码。"
    )
    attempt.gives(tensor([1.0, 0]), tensor([1000.0, 0]), 1.0, 0.9, hint="分数很大时，指数会溢出。")
    attempt.leaves(logits, 0.5, 0.7)


_BOS, _USER, _USER_END, _ASSISTANT, _END = 90, 91, 92, 93, 94
_SPECIAL = {
    "<|bos|>": _BOS,
    "<|user_start|>": _USER,
    "<|user_end|>": _USER_END,
    "<|assistant_start|>": _ASSISTANT,
    "<|assistant_end|>": _END,
}
_NO = -100


@task("7.2")
def _faults(attempt: Attempt) -> None:
    """``faults(ids, labels, special)``: how many positions of a conversation have which fault."""
    one = [_BOS, _USER, 1, 2, _USER_END, _ASSISTANT, 3, 4, _END]
    right = [_NO, _NO, _NO, _NO, _NO, 3, 4, _END]
    attempt.gives(_found(), one, right, _SPECIAL, hint="这一份标签没有错。")
    attempt.gives(
        _found(没学停=1),
        one,
        [*right[:-1], _NO],
        _SPECIAL,
        hint="下一个词元是 <|assistant_end|>，也该学。",
    )
    attempt.gives(
        _found(多学=5), one, [*one[1:5], _ASSISTANT, 3, 4, _END], _SPECIAL, hint="连问题也学了。"
    )
    attempt.gives(
        _found(错位=2, 漏学=1),
        one,
        [_NO, _NO, _NO, _NO, _NO, _NO, 3, 4],
        _SPECIAL,
        hint="标签是这个位置自己的词元，没有错开一位。",
    )
    two = [*one, _USER, 5, _USER_END, _ASSISTANT, 6, _END]
    rest = [_NO, _NO, _NO, _NO, 6, _END]
    attempt.gives(
        _found(), two, right + rest, _SPECIAL, hint="两轮的对话，两个回答都学，都没有错。"
    )
    attempt.gives(
        _found(多学=3),
        two,
        [*right, _USER, 5, _USER_END, _NO, 6, _END],
        _SPECIAL,
        hint="第一个回答说完了，后面又是用户的话。",
    )
    attempt.gives(
        _found(漏学=2, 没学停=1),
        two,
        [_NO] * 8 + rest,
        _SPECIAL,
        hint="只学了最后一轮，前一个回答漏了。",
    )
    cut = one[:-1]
    attempt.gives(_found(), cut, right[:-1], _SPECIAL, hint="截断的对话没有结束符，不算没学停。")
    attempt.leaves(one, right, _SPECIAL)


def _found(**counts: int) -> dict[str, int]:
    return {"错位": 0, "多学": 0, "漏学": 0, "没学停": 0, **counts}
