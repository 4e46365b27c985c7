"""Drawings of chapters 3 and 4: characters as bytes, bytes as tokens, tokens as a packed row."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from minillm.book.canvas import COLOURS, GREY, Canvas, Picture
from minillm.model.transformer import document_mask
from minillm.tokenizer import bpe
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.dataset import TokenDataset
from minillm.training.packing import IGNORE_INDEX, collate

_PARTS = [COLOURS["pretrain"], COLOURS["dpo"], COLOURS["sft"], COLOURS["identity"]]
"""Of the bits of a code point, by the byte that they go to."""
_SPECIAL = {
    "<|bos|>": "bos",
    "<|user_start|>": "用户\n开始",
    "<|user_end|>": "用户\n结束",
    "<|assistant_start|>": "助手\n开始",
    "<|assistant_end|>": "助手\n结束",
}
MOST_TOKENS = 16
"""Side by side, so that what stands in the cells can be read."""
MOST_POSITIONS = 26
"""Of a row, which holds only small numbers."""


# --- Characters as bytes --------------------------------------------------------------------------


def utf8_bits(character: str) -> Picture:
    """How the bits of a character's code point are dealt out to the bytes of its UTF-8: above the
    code point, cut into one part for each byte; below the bytes, in grey the bits that say how many
    bytes there are or that this is a later one.

    Raises ValueError when it is not one character.
    """
    if len(character) != 1:
        raise ValueError(f"one character is drawn, not {character!r}")
    point, encoded = ord(character), character.encode()
    heads = [0 if len(encoded) == 1 else len(encoded) + 1] + [2] * (len(encoded) - 1)
    if heads[0] == 0:
        heads[0] = 1  # the 0 of ASCII
    sizes = [8 - head for head in heads]
    bits = f"{point:0{sum(sizes)}b}"
    cell, gap, left = 0.175, 0.16, 0.1
    width = 2 * left + 8 * cell * len(encoded) + gap * (len(encoded) - 1)
    canvas = Canvas(max(width, 2.6), 2.75)
    above = (width - cell * len(bits) - 0.08 * (len(sizes) - 1)) / 2
    canvas.text(width / 2, 0.18, f"“{character}”的码点 U+{point:04X}（{point}）", size=11)
    begin, x = 0, above
    for i, (head, size) in enumerate(zip(heads, sizes, strict=True)):
        colour, part = _PARTS[i], bits[begin : begin + size]
        canvas.cells(x, 0.42, list(part), [colour] * size, cell, 0.32, 0.25, 10.5)
        at = left + i * (8 * cell + gap)
        fixed, paid = f"{encoded[i]:08b}"[:head], f"{encoded[i]:08b}"[head:]
        canvas.arrow((x + cell * size / 2, 0.8), (at + cell * (head + size / 2), 1.32), colour)
        canvas.cells(at, 1.38, list(fixed), None, cell, 0.32, 0.1, 10.5)
        canvas.cells(at + cell * head, 1.38, list(paid), [colour] * size, cell, 0.32, 0.25, 10.5)
        canvas.text(at + 4 * cell, 1.97, f"{encoded[i]:02X}", colour, 12)
        canvas.text(at + 4 * cell, 2.25, f"即 {encoded[i]}", size=10.5)
        x, begin = x + cell * size + 0.08, begin + size
    several = "灰色：几个 1 就是几个字节；10 开头是后面的字节"
    canvas.text(width / 2, 2.58, several if len(encoded) > 1 else "灰色：0 开头只有一个字节")
    codes = " ".join(f"{byte:08b}" for byte in encoded)
    parts = [bits[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    told = f"“{character}”的码点 U+{point:04X}，{len(bits)} 位，分成 {'、'.join(parts)}"
    return canvas.picture(
        f"{told}；填进 {len(encoded)} 个字节 {codes}，即 {encoded.hex(' ').upper()}"
    )


# --- Bytes as tokens ------------------------------------------------------------------------------


@dataclass
class _Node:
    """A token of a tree of merges: its bytes, and the point of the sheet where its box ends."""

    token: bytes
    x: float
    y: float


def merge_tree(text: str, tokenizer: RustBPETokenizer) -> Picture:
    """The merges that make a text, one chunk, into tokens: its bytes below, a joint for each merge
    with its rank, the earlier the lower; at the top of each tree is a token.

    Raises ValueError when the text is several chunks, or too long to be drawn.
    """
    if len(bpe.count_chunks([text], tokenizer.pattern)) != 1 or len(text.encode()) > MOST_TOKENS:
        raise ValueError(f"{text!r} is not one chunk of at most {MOST_TOKENS} bytes")
    ranks, cell, left, step = tokenizer.mergeable_ranks, 0.4, 0.42, 0.44
    count = len(text.encode()) - len(tokenizer.encode(text))
    floor = 0.35 + step * count  # the upper edge of the bytes
    canvas = Canvas(left + cell * len(text.encode()) + 0.1, floor + 1.1)
    nodes = [
        _Node(bytes([byte]), left + cell * (i + 0.5), floor) for i, byte in enumerate(text.encode())
    ]
    told: list[str] = []
    while True:
        joined = [a.token + b.token for a, b in pairwise(nodes)]
        place = min(range(len(joined)), key=lambda i: ranks.get(joined[i], len(ranks)), default=0)
        if not joined or joined[place] not in ranks:
            break
        below = nodes[place : place + 2]
        rank, whole = ranks[joined[place]], _whole(joined[place])
        node = _Node(joined[place], sum(n.x for n in below) / 2, floor - step * len(told) - 0.4)
        colour = COLOURS["pretrain"] if whole else COLOURS["bad"]
        width, middle = 0.46 + 0.17 * len(whole), node.y + 0.15
        for child, side in zip(below, (-width / 2, width / 2), strict=True):
            points = [(child.x, child.y), (child.x, node.y + 0.3)]
            if abs(child.x - node.x) > width / 2:
                points = [(child.x, child.y), (child.x, middle), (node.x + side, middle)]
            canvas.line(points)
        canvas.box(node.x - width / 2, node.y, width, 0.3, f"{whole} {rank}".strip(), colour, 0, 11)
        nodes[place : place + 2] = [node]
        told.append(f"{_name(below[0].token)} 加 {_name(below[1].token)} 得 {rank}")
    canvas.cells(left, floor, [f"{b:02X}" for b in text.encode()], None, cell, 0.32, 0.12, 11)
    x = left
    for character in text:
        width = cell * len(character.encode())
        canvas.box(x, floor + 0.36, width, 0.4, character, size=14, fill=0, square=True)
        x += width
    canvas.arrow((0.2, floor - 0.1), (0.2, 0.35))
    canvas.text(0.2, 0.2, "后")
    canvas.text(0.2, floor + 0.04, "先")
    legend = left + cell * len(text.encode()) / 2
    canvas.text(legend - 0.08, floor + 0.94, "蓝：整字", COLOURS["pretrain"], align="right")
    canvas.text(legend + 0.08, floor + 0.94, "橙红：不成整字", COLOURS["bad"], align="left")
    ends = "、".join(f"{_name(node.token)}（{ranks[node.token]}）" for node in nodes)
    return canvas.picture(f"“{text}”的 {len(text.encode())} 个字节：{'；'.join(told)}；剩下 {ends}")


def _whole(token: bytes) -> str:
    """What a token spells; nothing if it is no whole characters."""
    text = token.decode(errors="ignore")
    return text if text.encode() == token else ""


def _name(token: bytes) -> str:
    return _whole(token) or token.hex(" ").upper()


def merge_step(word: Sequence[int], new_id: int) -> Picture:
    """What one merge of the most frequent pair changes: the word before and after, and the entries
    that lie in the heap afterwards, in the order in which they will be taken out, each with the
    count that it claims and the true one.

    Raises ValueError when the word is too long to be drawn, or has no pair.
    """
    if not 2 <= len(word) <= MOST_TOKENS:
        raise ValueError(f"from 2 to {MOST_TOKENS} tokens are drawn, not {len(word)}")
    claimed = Counter(pairwise(word))
    pair = min(claimed, key=lambda p: (-claimed[p], p))
    after = list(word)
    changed = {p for p, _ in bpe.merge(after, pair, new_id)} - {pair}
    true = Counter(pairwise(after))
    entries = [(-count, p) for p, count in claimed.items() if p != pair]
    entries += [(-true[p], p) for p in changed if p not in claimed and true[p]]
    heap = heapq.nsmallest(len(entries), entries)

    cell, left, blue, gone, new = 0.33, 0.1, COLOURS["pretrain"], COLOURS["bad"], COLOURS["sft"]
    columns = 4
    lines = -(-len(heap) // columns)
    canvas = Canvas(2 * left + cell * len(word), 2.9 + 0.68 * lines)
    merged = _places(word, pair)
    inside = {i for place in merged for i in (place, place + 1)}
    beside = {i for place in merged for i in (place - 1, place + 2)} - inside
    colours = [blue if i in inside else gone if i in beside else GREY for i in range(len(word))]
    fills = [0.25 if i in inside else 0.15 if i in beside else 0.06 for i in range(len(word))]
    canvas.text(left, 0.16, f"合并前：{pair[0]} {pair[1]} 有 {len(merged)} 处", blue, 11, "left")
    canvas.cells(left, 0.34, [str(t) for t in word], colours, cell, 0.36, fills, 10)
    _links(canvas, [i for i, p in enumerate(pairwise(word)) if p in changed], left, cell, 0.7, gone)

    canvas.text(left, 1.24, f"合并后：它们成了 {new_id}", blue, 11, "left")
    made = [i for i, token in enumerate(after) if token == new_id]
    next_to = {i for place in made for i in (place - 1, place + 1)} - set(made)
    colours = [blue if i in made else new if i in next_to else GREY for i in range(len(after))]
    fills = [0.25 if i in made else 0.15 if i in next_to else 0.06 for i in range(len(after))]
    canvas.cells(left, 1.42, [str(t) for t in after], colours, cell, 0.36, fills, 10)
    _links(
        canvas, [i for i, p in enumerate(pairwise(after)) if p in changed], left, cell, 1.78, new
    )

    top = 2.5
    canvas.text(left, top - 0.12, "堆里的条目，按取出的次序：", size=11, align="left")
    width = (cell * len(word) - 0.1 * (columns - 1)) / columns
    stale, born = [], []
    for i, (count, p) in enumerate(heap):
        colour = GREY if true[p] == -count else gone
        state = f"记 {-count}，实 {true[p]}"
        if p not in claimed:
            colour, state = new, f"新，记 {-count}"
            born.append(p)
        elif colour == gone:
            stale.append(p)
        x, y = left + (i % columns) * (width + 0.1), top + 0.08 + 0.68 * (i // columns)
        canvas.box(x, y, width, 0.58, f"{p[0]} {p[1]}\n{state}", colour, 0.12, 10)
    words = "记：条目写着的次数；实：真正的次数；橙红：过期"
    canvas.text(left, top + 0.2 + 0.68 * lines, words, align="left")
    return canvas.picture(
        f"合并前 {_spelled(word)}；{pair[0]} {pair[1]} 合并成 {new_id}，之后 {_spelled(after)}；"
        f"堆里 {len(heap)} 个条目，新添 {_pairs(born)}，过期 {_pairs(stale)}，"
        f"其余 {len(heap) - len(stale) - len(born)} 个没有变"
    )


def _places(word: Sequence[int], pair: tuple[int, int]) -> list[int]:
    """Where the pair is merged, from left to right, no token twice."""
    found: list[int] = []
    for i, here in enumerate(pairwise(word)):
        if here == pair and (not found or found[-1] < i - 1):
            found.append(i)
    return found


def _links(
    canvas: Canvas, places: Sequence[int], left: float, cell: float, y: float, colour: str
) -> None:
    """A bracket below each pair of cells that begins at one of the places."""
    for i in places:
        from_, to = left + cell * (i + 0.6), left + cell * (i + 1.4)
        canvas.line([(from_, y + 0.04), (from_, y + 0.14), (to, y + 0.14), (to, y + 0.04)], colour)
        count = "−1" if colour == COLOURS["bad"] else "+1"
        canvas.text((from_ + to) / 2, y + 0.27, count, colour, 10)


def _spelled(word: Sequence[int]) -> str:
    return " ".join(map(str, word))


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    return "、".join(f"{a} {b}" for a, b in pairs) or "没有"


# --- Tokens as a packed row -----------------------------------------------------------------------


def row_to_mask(
    data: TokenDataset, units: Sequence[int], row_length: int, tokenizer: RustBPETokenizer
) -> Picture:
    """From a row of data to the attention mask, in four storeys: the tokens and ids of the first
    unit; its labels, shifted by one; all units packed into one row; who sees whom in it.

    Args:
        data: of sequences that stand alone (not pairs).
        units: which of them, as many as fit into a row.
        row_length: positions of the row.

    Raises ValueError when the first or the row is too long to be drawn.
    """
    first = slice(int(data.offsets[units[0]]), int(data.offsets[units[0] + 1]))
    ids, mask = data.ids[first].tolist(), data.mask[first].tolist()
    n = len(ids)
    if n > MOST_TOKENS or row_length > MOST_POSITIONS:
        raise ValueError(
            f"at most {MOST_TOKENS} tokens in rows of {MOST_POSITIONS} positions are drawn, "
            f"not {n} in rows of {row_length}"
        )
    batch = collate(data, [units], row_length)
    documents = batch.document_ids[0].tolist()
    learned = (batch.labels[0] != IGNORE_INDEX).tolist()
    allowed = document_mask(batch.document_ids)[0, 0].tolist()

    green, blue, left, whole = COLOURS["sft"], COLOURS["pretrain"], 0.1, 4.8
    cell, small, low = whole / n, whole / row_length, 0.105
    canvas = Canvas(whole + 2 * left, 4.45 + low * row_length)

    def title(y: float, text: str) -> None:
        canvas.text(left + 0.06, y, text, size=11, align="left")

    colours = [green if learn else GREY for learn in mask]
    fills = [0.3 if learn else 0.1 for learn in mask]
    title(0.16, "一　一行数据成了词元和编号")
    canvas.cells(left, 0.34, [_cell(t, tokenizer) for t in ids], colours, cell, 0.46, fills, 10)
    canvas.cells(left, 0.8, list(map(str, ids)), colours, cell, 0.32, fills, 10)

    title(1.7, "二　标签：错开一位，不学的是 -100")
    labels = batch.labels[0, : n - 1].tolist()
    for t, label in enumerate(labels):
        text = str(label) if label == IGNORE_INDEX else _cell(label, tokenizer)
        colour = green if learned[t] else GREY
        canvas.arrow((left + cell * (t + 1.4), 1.14), (left + cell * (t + 0.6), 1.48), colour)
        x = left + cell * t
        canvas.box(x, 1.88, cell, 0.42, text, colour, fills[t + 1], 10, square=True)

    title(2.72, "三　几段打包成一行，绿的算损失")
    for end in (0, n - 1):
        canvas.line([(left + cell * end, 2.34), (left + small * end, 3.04)], width=0.8)
    for t, document in enumerate(documents):
        colour, fill = (green, 0.3) if learned[t] else (GREY, 0.0 if document < 0 else 0.18)
        text = "" if document < 0 else str(batch.position_ids[0, t].item())
        canvas.box(left + small * t, 3.06, small, 0.32, text, colour, fill, 10, square=True)
    starts = [t for t in range(row_length) if t == 0 or documents[t] != documents[t - 1]]
    for start, end in pairwise([*starts, row_length]):
        name = "填充" if documents[start] < 0 else f"第 {documents[start]} 段"
        middle = left + small * (start + end) / 2
        canvas.text(min(middle, left + whole - 0.16), 3.56, name)

    title(3.96, "四　许可表")
    top = 4.16
    for t, row in enumerate(allowed):
        for s, sees in enumerate(row):
            if sees:
                x, y = left + small * s, top + low * t
                colour = blue if documents[t] >= 0 else GREY
                canvas.box(x, y, small, low, colour=colour, fill=0.45, square=True)
    bottom = top + low * row_length
    for t in [*starts, row_length]:
        x = left + small * t
        canvas.line([(x, 3.02), (x, 3.42)], width=2)
        canvas.line([(x, 3.42), (x, bottom)], width=0.8)
    for y in (top, bottom):
        canvas.line([(left, y), (left + whole, y)], width=0.8)
    canvas.text(left, bottom + 0.17, "一横行是一个位置；涂色的格，是它看得见的位置", align="left")
    seen, named = sum(map(sum, allowed)), [_cell(t, tokenizer).replace("\n", "") for t in ids]
    return canvas.picture(
        f"第一段 {n} 个词元：{' '.join(named)}；{n - 1} 个位置里学 {sum(learned[: n - 1])} 个；"
        f"{len(units)} 段打包成 {row_length} 个位置，填充 {documents.count(-1)} 个，"
        f"算损失 {sum(learned)} 个；"
        f"许可表 {row_length} × {row_length} 格，涂色 {seen} 格"
    )


def _cell(token: int, tokenizer: RustBPETokenizer) -> str:
    """A token in a narrow cell: two characters a line."""
    text = tokenizer.decode([token])
    if text in _SPECIAL:
        return _SPECIAL[text]
    return "\n".join(text[i : i + 2] for i in range(0, len(text), 2))
