"""One classical text: simplified characters, one kind of punctuation, no editors' notes.

Editions of old texts carry marks that a reader skips and a model would learn: variants in brackets,
squares for characters that nobody can read any more, forms of characters that no dictionary of
today lists. ``tidy`` takes away or replaces what it can without a guess, and ``problem`` says what
is left that makes a text useless. No character is ever guessed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import regex

from minillm.errors import UserError

LEAST = 16
"""Fewest characters of a text, without punctuation: those of the shortest form of a ci."""
MISSING = "missing"
SIGNS = "signs"
FRAGMENT = "fragment"

_VARIANTS = (
    "疎疏踈疏劒剑劔剑鴈雁猨猿慙惭櫂棹徧遍媿愧鬬斗鬭斗斾旆蘂蕊嬾懒堦阶臯皋皐皋廻回囘回飜翻煖暖"
    "覩睹暎映髪发埽扫歛敛桮杯褭袅呌叫檝楫荅答羇羁覊羁覉羁妬妒逈迥烱炯𬬻炉隣邻巵卮髣仿髴佛竝并"
    "倂并顇悴鸎莺鶑莺燄焰罇樽顦憔簷檐牋笺牕窗窓窗窻窗栢柏緜绵帬裙鵶鸦邨村藂丛壻婿秖只秪只隄堤"
    "懽欢驩欢讙欢𫏐暂缾瓶鏁锁鎻锁棃梨碁棋僊仙麤粗麄粗汚污諠喧牓榜粧妆懃勤慇殷悮误穉稚衞卫䜩宴"
    "醼宴欵款讐仇飡餐跼局峩峨筯箸輭软徴征効效傚效趂趁姪侄輙辄彊强蔕蒂搆构畧略鼈鳖椀碗盌碗怱匆"
    "悤匆胷胸犂犁攲欹敧欹轝舆虵蛇揜掩椶棕瓌瑰嚬颦遯遁嵓岩嵒岩巌岩秔粳恡吝旛幡磵涧毘毗筭算穽阱"
    "羃幂賸剩碪砧塲场襃褒廐厩匳奁羗羌蠭蜂勗勖澁涩隟隙醆盏覰觑韈袜韤袜氊毡迺乃廼乃駮驳鼇鳌餙饰"
    "瑯琅鎗枪畊耕䆗窈勅敕顋腮蟇蟆敍叙柟楠菓果翺翱櫺棂躭耽蜨蝶墖塔𫘞驼騣鬃嗁啼醻酬詶酬剏创呪咒"
    "甎砖塼砖犇奔偪逼徃往鷰燕謌歌勌倦麞獐肎肯憇憩蹏蹄澂澄湼涅逓递騐验朞期鉏锄宂冗楡榆埜野樝楂"
    "𢼮俯韲齑箒帚隠隐螘蚁揑捏頼赖鬰郁欝郁浄净髙高馿驴閙闹寛宽鳯凤潄漱歳岁羮羹邉边槩概揺摇薫薰"
    "纒缠餽馈毎每懐怀蠧蠹朶朵戯戏皷鼓濶阔倐倏蕚萼粃秕逺远渇渴逰游葅菹醤酱様样闗关艶艳倣仿觧解"
    "寜宁燿耀啣衔衘衔淛浙脇胁鐡铁穏稳嚢囊勲勋寃冤眀明釡釜歴历凖准黙默彜彝甦苏飇飙撃击専专覔觅"
    "髩鬓刼劫糢模覧览痩瘦囓啮氷冰臈腊覇霸荘庄曵曳膓肠掲揭帯带濵滨昻昂聨联捜搜飬养戸户亷廉冩写"
    "煑煮鵞鹅圗图蠒茧頬颊媮偷貎貌餠饼賛赞"
)
"""Forms that OpenCC leaves as they are, each followed by the one of the same word in today's list
of standard characters. Found by laying the copies of poems in two editions side by side."""
_MARKS = str.maketrans(
    dict(zip(",;:!()「」『』﹁﹂・•‧", "，；：！（）“”‘’“”···", strict=True))
    | dict(zip(_VARIANTS[::2], _VARIANTS[1::2], strict=True))
    | {"\ufeff": ""}
)
_HAN = r"[\p{Han}--[⺀-⿟々〡-〩]]"
"""Characters: no radicals, no mark of repetition, no numerals of merchants."""
_NOTE = regex.compile("（[^（）]*）|〖[^〖〗]*〗|［[^［］]*］|^〔[^〔〕]*〕", regex.MULTILINE)
_LOST = regex.compile(r"[□○●◎〓�{}⿰-⿻⺀-⿟囗…\uE000-\uF8FF]")
_STRANGE = regex.compile(rf"(?V1)[^{_HAN}，。、；：？！“”‘’《》·\n]")
_NOT_HAN = regex.compile(rf"(?V1)[^{_HAN}]")
_FRAGMENT = regex.compile(
    r"^(断|残|逸|佚)?句(\s|其|$)|[一二两三四]句(\s|$)|（(断|残|逸)?句）|^存目"
)
"""Titles of single lines that quotations saved, and of poems of which only the title is left."""


def simplifier() -> Callable[[str], str]:
    """OpenCC's conversion to simplified characters. Raises UserError if it is not installed."""
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise UserError(
            f"classical texts need OpenCC: pip install -e '.[poetry]' ({error})"
        ) from None
    convert: Callable[[str], str] = OpenCC("t2s").convert
    return convert


def tidy(text: str, verse: bool) -> str:
    """A text in simplified characters without notes; of verse, each line is a sentence.

    Tidy text stays as it is. What is strange in it is for ``problem`` to find.
    """
    while (tidier := _tidier(text, verse)) != text:  # what one step leaves, another may see
        text = tidier
    return text


def _tidier(text: str, verse: bool) -> str:
    text = without_notes(unicodedata.normalize("NFC", text).translate(_MARKS))
    text = regex.sub(r'"([^"\n]*)"', r"“\1”", text)
    if any(text.count(a) != text.count(b) for a, b in ("“”", "‘’")):
        text = regex.sub("[“”‘’]", "", text)  # nobody knows where the one that is missing stood
    text = regex.sub(r"\[((?![一二三四五六七八九十])\p{Han})\]", r"\1", text)  # 日[晏]犹得眠
    text = regex.sub(r"(\p{Han})々", r"\1\1", text)
    text = regex.sub(r"\s*\n\s*", "\n", text.strip())
    text = regex.sub(rf"(?V1)(?<={_HAN})[^\S\n]+(?={_HAN})", "，", text)  # 弟子规 圣人训
    text = regex.sub(r"[^\S\n]+", "", text)
    text = regex.sub(rf"(?V1)({_HAN}|》)$", r"\1。", text, flags=regex.MULTILINE)
    if verse:
        text = text.replace("\n", "")
    # What notes leave behind: a stop where a line begins, or a second one.
    text = regex.sub(r"^[\n，。、；：？！]+", "", text, flags=regex.MULTILINE)
    text = regex.sub(r"[，、；：]+(?=[，。、；：？！])", "", text)
    text = regex.sub(r"([。？！])[，。、；：？！]+", r"\1", text)
    if verse:
        text = regex.sub("[，、；：]$", "。", text)
        text = regex.sub("([。？！][”’]*)(?=.)", r"\1\n", text)
    return text.strip()


def without_notes(text: str) -> str:
    """The text without what stands in round, square or black brackets, be they nested."""
    while (shorter := _NOTE.sub("", text)) != text:
        text = shorter
    return text


def title_of(text: str) -> str:
    """A title or name without notes; "" if a character of it is missing or strange."""
    text = without_notes(unicodedata.normalize("NFC", text).translate(_MARKS)).replace("○", "〇")
    text = " ".join(text.split()).strip("，。 ")
    return "" if _LOST.search(text) or _STRANGE.search(text.replace(" ", "")) else text


def problem(title: str, body: str, verse: bool, lost: str = "") -> str:
    """Why a text cannot be used: MISSING characters, strange SIGNS, a FRAGMENT; "" if it can.

    Args:
        title: as its edition has it, in simplified characters.
        body: tidy.
        verse: whether it must have three clauses at least.
        lost: further characters that stand for missing ones in its edition.
    """
    if _LOST.search(body) or any(mark in body for mark in lost):
        return MISSING
    if _STRANGE.search(body) or body.count("《") != body.count("》"):
        return SIGNS
    clauses = regex.findall("[^，。；？！\n]+", body)
    if len(bare(body)) < LEAST or (verse and len(clauses) < 3) or _FRAGMENT.search(title.strip()):
        return FRAGMENT
    return ""


def bare(body: str) -> str:
    """A text's characters without punctuation: what copies have in common."""
    return str(_NOT_HAN.sub("", body))
