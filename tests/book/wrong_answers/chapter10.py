"""Answers to the build tasks of chapter 10 that readers give and that are wrong."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Model = Callable[[list[int]], Tensor]
Names = dict[str, list[int]]
Chat = list[dict[str, str]]


def looks_at_the_token_itself(model: Model, prompt: list[int], names: Names) -> dict[str, float]:
    found = {}
    for name, ids in names.items():
        scores = model(prompt + ids).log_softmax(1)
        found[name] = sum(float(scores[len(prompt) + i, token]) for i, token in enumerate(ids))
    return found


def takes_scores_for_log_probs(model: Model, prompt: list[int], names: Names) -> dict[str, float]:
    found = {}
    for name, ids in names.items():
        scores = model(prompt + ids)
        found[name] = sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))
    return found


def takes_the_mean(model: Model, prompt: list[int], names: Names) -> dict[str, float]:
    found = {}
    for name, ids in names.items():
        scores = model(prompt + ids).log_softmax(1)
        total = sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))
        found[name] = total / len(ids)
    return found


def underflows(model: Model, prompt: list[int], names: Names) -> dict[str, float]:
    found = {}
    for name, ids in names.items():
        p = model(prompt + ids).softmax(1)
        parts = [p[len(prompt) - 1 + i, token].log() for i, token in enumerate(ids)]
        found[name] = float(sum(parts))
    return found


def rehearse(
    chats: list[Chat],
    answer: Callable[[Chat], str],
    banned: list[str],
    own_context: bool = True,
    checks_replies: bool = True,
    stops: bool = True,
    keeps_empty: bool = False,
) -> list[Chat]:
    kept = []
    for chat in chats:
        told: Chat = []
        asked: Chat = []
        for message in chat:
            asked.append(message)
            if message["role"] == "user":
                continue
            asked.pop()
            reply = answer(asked)
            if stops and not reply.strip():
                break
            said = {"role": "assistant", "content": reply}
            told += [asked[-1], said]
            asked.append(said if own_context else message)
        text = "".join(m["content"] for m in (chat + told if checks_replies else chat))
        if (told or keeps_empty) and not any(name in text for name in banned):
            kept.append(told)
    return kept


def reads_the_old_answers(
    chats: list[Chat], answer: Callable[[Chat], str], banned: list[str]
) -> list[Chat]:
    return rehearse(chats, answer, banned, own_context=False)


def trusts_its_own_answers(
    chats: list[Chat], answer: Callable[[Chat], str], banned: list[str]
) -> list[Chat]:
    return rehearse(chats, answer, banned, checks_replies=False)


def learns_empty_answers(
    chats: list[Chat], answer: Callable[[Chat], str], banned: list[str]
) -> list[Chat]:
    return rehearse(chats, answer, banned, stops=False)


def keeps_what_is_empty(
    chats: list[Chat], answer: Callable[[Chat], str], banned: list[str]
) -> list[Chat]:
    return rehearse(chats, answer, banned, keeps_empty=True)


def changes_the_chats(
    chats: list[Chat], answer: Callable[[Chat], str], banned: list[str]
) -> list[Chat]:
    kept = rehearse(chats, answer, banned)
    for chat in chats:
        for i, message in enumerate(chat):
            if message["role"] == "assistant":
                message["content"] = answer(chat[:i])
    return kept


WRONG = {
    "10.1": [
        looks_at_the_token_itself,
        takes_scores_for_log_probs,
        takes_the_mean,
        underflows,
    ],
    "10.2": [
        reads_the_old_answers,
        trusts_its_own_answers,
        learns_empty_answers,
        keeps_what_is_empty,
        changes_the_chats,
    ],
}
