"""The words of the micro-world: who lives in it, what things cost, and how its people speak.

Nothing here decides anything; the other modules draw from these tables. To enlarge the world,
add a line: a person, a thing for sale, a way to say or to ask something. Slots are in braces:

* of a person: ``{n}`` a name or a pronoun, ``{v}`` the value of an attribute;
* of a story: ``{a}`` and ``{b}`` two animals, ``{o}`` an object, ``{m}`` its measure word, ``{c}``
  its colour, ``{s}`` where it was found, ``{p}`` where it was put;
* of a calculation: ``{x}`` and ``{y}`` numbers, days or things for sale, with their measure words
  ``{m}`` and ``{k}``; ``{n}`` a number of days;
* of a way to ask: ``{q}`` the question, without its question mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


def _split(line: str) -> tuple[str, ...]:
    return tuple(line.split())


@dataclass(frozen=True)
class Attribute:
    """Something that can be said of, and asked about, every person."""

    values: tuple[str, ...]
    statements: tuple[str, ...]  # the first is also the full answer to a question
    questions: tuple[str, ...]  # about a person, without the question mark
    noun: str  # the attribute of a person
    ask: str  # to the person
    tell: str  # what the person answers


ATTRIBUTES: dict[str, Attribute] = {
    "工作": Attribute(
        values=_split("医生 老师 厨师 司机 农民 警察 画家 记者 木匠 护士 歌手 裁缝"),
        statements=(
            "{n}的工作是{v}。",
            "{n}是一名{v}。",
            "{n}当{v}很多年了。",
            "{n}从小就想当{v}。",
            "{n}做的是{v}的工作。",
        ),
        questions=(
            "{n}的工作是什么",
            "{n}是做什么工作的",
            "{n}做什么工作",
            "{n}做的是什么工作",
            "{n}每天做什么工作",
        ),
        noun="{n}的工作",
        ask="你做什么工作",
        tell="我是一名{v}",
    ),
    "城市": Attribute(
        values=_split("北京 上海 广州 成都 西安 杭州 武汉 南京 昆明 青岛 厦门 苏州"),
        statements=(
            "{n}住在{v}。",
            "{n}的家在{v}。",
            "{n}在{v}住了很久。",
            "{n}在{v}生活。",
            "{n}每天走在{v}的街上。",
        ),
        questions=(
            "{n}住在哪里",
            "{n}的家在哪里",
            "{n}住在哪个城市",
            "{n}在哪个城市生活",
            "{n}的家在什么地方",
        ),
        noun="{n}住的城市",
        ask="你住在哪里",
        tell="我住在{v}",
    ),
    "食物": Attribute(
        values=_split("面条 饺子 米饭 包子 豆腐 鸡蛋 烤鱼 烤鸭 火锅 粽子 年糕 春卷"),
        statements=(
            "{n}爱吃{v}。",
            "{n}最爱吃的是{v}。",
            "{n}最喜欢的食物是{v}。",
            "{n}吃饭的时候总想要{v}。",
            "{n}一看见{v}就饿了。",
        ),
        questions=(
            "{n}爱吃什么",
            "{n}最爱吃的是什么",
            "{n}最喜欢的食物是什么",
            "{n}喜欢吃什么",
            "{n}吃饭的时候想要什么",
        ),
        noun="{n}爱吃的食物",
        ask="你爱吃什么",
        tell="我爱吃{v}",
    ),
    "爱好": Attribute(
        values=_split("钓鱼 下棋 跑步 唱歌 游泳 爬山 看书 画画 跳舞 打球 写字 种花"),
        statements=(
            "{n}的爱好是{v}。",
            "{n}喜欢{v}。",
            "{n}一有空就{v}。",
            "{n}周末常常{v}。",
            "{n}和朋友一起{v}。",
        ),
        questions=(
            "{n}的爱好是什么",
            "{n}有什么爱好",
            "{n}喜欢做什么",
            "{n}周末常常做什么",
            "{n}有空的时候做什么",
        ),
        noun="{n}的爱好",
        ask="你有什么爱好",
        tell="我的爱好是{v}",
    ),
    "宠物": Attribute(
        values=_split("猫 狗 兔子 乌龟 鸽子 松鼠 鸭子 山羊"),
        statements=(
            "{n}养了一只{v}。",
            "{n}的宠物是{v}。",
            "{n}家里有一只{v}。",
            "{n}每天照顾一只{v}。",
            "{n}回家先看看那只{v}。",
        ),
        questions=(
            "{n}养了什么宠物",
            "{n}的宠物是什么",
            "{n}家里有什么宠物",
            "{n}养了什么",
            "{n}每天照顾什么宠物",
        ),
        noun="{n}的宠物",
        ask="你养了什么宠物",
        tell="我养了一只{v}",
    ),
    "颜色": Attribute(
        values=_split("红色 蓝色 绿色 黄色 白色 黑色 紫色 橙色"),
        statements=(
            "{n}最喜欢{v}。",
            "{n}喜欢的颜色是{v}。",
            "{n}常穿{v}的衣服。",
            "{n}的房间是{v}的。",
            "{n}买东西总要挑{v}的。",
        ),
        questions=(
            "{n}最喜欢什么颜色",
            "{n}喜欢的颜色是什么",
            "{n}喜欢什么颜色",
            "{n}常穿什么颜色的衣服",
            "{n}的房间是什么颜色的",
        ),
        noun="{n}喜欢的颜色",
        ask="你最喜欢什么颜色",
        tell="我最喜欢{v}",
    ),
}


class Person(NamedTuple):
    name: str
    pronoun: str
    facts: dict[str, str]  # attribute -> value


# The census: name, pronoun, then the attributes in the order above. Every value occurs equally
# often, so guessing the most frequent one is worth 1/12 (1/8 for pets and colours).
_CENSUS = """
王芳 她 老师 苏州 春卷 跳舞 猫 白色
王婷 她 裁缝 广州 烤鸭 写字 兔子 黑色
王勇 他 裁缝 青岛 鸡蛋 跑步 山羊 黄色
王涛 他 警察 成都 鸡蛋 画画 松鼠 绿色
李兰 她 司机 昆明 烤鱼 下棋 猫 白色
李雪 她 歌手 西安 春卷 游泳 松鼠 蓝色
李磊 他 记者 南京 年糕 看书 松鼠 橙色
李伟 他 木匠 苏州 年糕 爬山 松鼠 黑色
张静 她 歌手 北京 豆腐 写字 猫 紫色
张梅 她 画家 苏州 烤鸭 画画 猫 蓝色
张强 他 记者 上海 粽子 钓鱼 鸽子 红色
张峰 他 厨师 南京 面条 跑步 兔子 黄色
刘敏 她 医生 昆明 饺子 爬山 狗 蓝色
刘琳 她 护士 上海 豆腐 打球 鸽子 白色
刘杰 他 老师 西安 米饭 看书 鸽子 黄色
刘军 他 护士 青岛 火锅 打球 鸭子 黄色
陈芳 她 护士 武汉 春卷 跑步 山羊 黄色
陈雪 她 老师 成都 烤鱼 下棋 乌龟 紫色
陈勇 他 画家 上海 年糕 游泳 山羊 橙色
陈伟 他 警察 武汉 年糕 唱歌 鸽子 橙色
杨静 她 厨师 杭州 豆腐 钓鱼 鸭子 绿色
杨婷 她 司机 厦门 火锅 看书 兔子 蓝色
杨磊 他 记者 杭州 豆腐 游泳 兔子 黑色
杨军 他 裁缝 苏州 粽子 唱歌 狗 红色
赵兰 她 农民 武汉 饺子 种花 山羊 橙色
赵琳 她 警察 杭州 烤鱼 写字 兔子 黑色
赵强 他 记者 厦门 饺子 写字 兔子 红色
赵涛 他 画家 武汉 面条 画画 松鼠 紫色
周梅 她 司机 北京 烤鱼 看书 鸭子 橙色
周敏 她 木匠 杭州 包子 跳舞 狗 橙色
周勇 他 护士 青岛 粽子 种花 山羊 蓝色
周峰 他 木匠 青岛 面条 爬山 狗 紫色
吴静 她 医生 广州 烤鸭 爬山 松鼠 黄色
吴芳 她 医生 成都 鸡蛋 唱歌 鸭子 红色
吴伟 他 厨师 厦门 包子 跳舞 乌龟 紫色
吴杰 他 农民 厦门 火锅 钓鱼 鸭子 红色
林兰 她 警察 北京 鸡蛋 下棋 乌龟 白色
林敏 她 医生 北京 春卷 跳舞 乌龟 蓝色
林军 他 农民 昆明 粽子 下棋 鸽子 黑色
林涛 他 歌手 广州 饺子 跑步 山羊 绿色
孙芳 她 农民 南京 面条 钓鱼 狗 绿色
孙梅 她 画家 西安 火锅 打球 鸭子 白色
孙磊 他 厨师 成都 包子 种花 猫 白色
孙强 他 裁缝 西安 米饭 种花 乌龟 绿色
何静 她 木匠 上海 米饭 打球 猫 绿色
何雪 她 歌手 南京 烤鸭 游泳 乌龟 红色
何峰 他 老师 昆明 米饭 唱歌 鸽子 紫色
何杰 他 司机 广州 包子 画画 狗 黑色
"""
PEOPLE: dict[str, Person] = {
    name: Person(name, pronoun, dict(zip(ATTRIBUTES, values, strict=True)))
    for name, pronoun, *values in (line.split() for line in _CENSUS.strip().splitlines())
}

# What the shop sells: thing, measure word, price in yuan.
_GOODS = _split("""
苹果 个 3  香蕉 根 2  橘子 个 2  西瓜 个 9  桃子 个 4  铅笔 支 1  毛笔 支 8
本子 个 5  牛奶 盒 6  面包 个 4  蛋糕 块 7  糖果 颗 1  毛巾 条 6  雨衣 件 10
剪刀 把 8  梳子 把 5  气球 个 3  蜡烛 支 2  手套 双 9  台灯 个 10
""")
GOODS: dict[str, tuple[str, int]] = {
    thing: (measure, int(price))
    for thing, measure, price in zip(_GOODS[::3], _GOODS[1::3], _GOODS[2::3], strict=True)
}

# What the animals of the stories play with: object, measure word.
_OBJECTS = _split("""
皮球 个  帽子 顶  雨伞 把  书包 个  风筝 只  杯子 个  钥匙 把  积木 块
围巾 条  铃铛 个  镜子 面  勺子 把  扇子 把  石头 块  贝壳 个  花瓶 个
""")
OBJECTS: dict[str, str] = dict(zip(_OBJECTS[::2], _OBJECTS[1::2], strict=True))
ANIMALS = _split("小猫 小狗 小兔 小熊 小猪 小羊 小鸭 小鹿 小猴 小马")
PLACES = _split(
    "箱子里 桌子上 床底下 门后面 柜子里 树洞里 窗台上 篮子里 椅子下 草地上 屋顶上 水井旁"
)
SITES = _split("公园 河边 学校 山上 花园 操场 森林 村口")
COLOUR_NAMES = ATTRIBUTES["颜色"].values

# A story: somebody goes somewhere, finds a thing, puts it away; a friend looks for it; an end.
OPENINGS = ("早上，", "有一天，", "天晴了，", "雨停了，", "吃过午饭，", "风停了，", "")
GOING = ("{a}去{s}玩。", "{a}来到{s}。", "{a}高高兴兴地去{s}。", "{a}慢慢地走到{s}。")
FINDING = (
    "{a}捡到一{m}{c}的{o}。",
    "{a}看见一{m}{c}的{o}。",
    "{a}带着一{m}{c}的{o}。",
    "{a}找到一{m}{c}的{o}。",
)
PUTTING = ("{a}把{o}放在{p}。", "{a}把{o}藏在{p}。", "{a}轻轻地把{o}放在{p}。")
SEEKING = (
    "{b}来了，问：“{o}在哪里？”{a}说：“{o}在{p}。”",
    "{b}找不到{o}，{a}告诉{b}：“{o}在{p}。”",
    "{b}也想要{o}，{a}说：“{o}在{p}，你去拿吧。”",
)
ENDINGS = (
    "{b}在{p}找到了{c}的{o}，它们一起玩得很开心。",
    "{b}拿到{c}的{o}，说：“谢谢你，{a}！”",
    "太阳下山了，{a}和{b}一起回家了。",
    "{a}和{b}成了好朋友。",
)
# Questions about a story: question, slot that answers it, full answer.
READING = (
    ("{o}在哪里", "p", "{o}在{p}。"),
    ("{a}把{o}放在哪里", "p", "{o}在{p}。"),
    ("{o}是什么颜色的", "c", "{o}是{c}的。"),
    ("{a}去了哪里", "s", "{a}去了{s}。"),
    ("是谁放的{o}", "a", "是{a}放的。"),
)

# Ways to put a question. The second list is never seen in training.
FRAMES = (
    "{q}？",
    "请问{q}？",
    "你知道{q}吗？",
    "告诉我，{q}？",
    "我想问，{q}？",
    "想一想，{q}？",
    "小朋友问：{q}？",
)
HELD_OUT_FRAMES = ("麻烦问一下，{q}？", "能不能说说{q}？", "老师问：{q}？", "有人知道{q}吗？")

ADDING = (
    "{x}加{y}等于多少",
    "{x}加{y}等于几",
    "{x}加{y}是多少",
    "{x}+{y}等于多少",
    "{x}+{y}是多少",
)
SUBTRACTING = (
    "{x}减{y}等于多少",
    "{x}减{y}等于几",
    "{x}减{y}是多少",
    "{x}-{y}等于多少",
    "{x}-{y}是多少",
)
STEP_BY_STEP = ("请数着算。", "请一步一步算。", "请数一数再回答。")
SHOPPING = (
    "一{m}{x}和一{k}{y}一共多少元",
    "买一{m}{x}和一{k}{y}一共要付多少元",
    "买{x}和{y}一共多少元",
    "{x}和{y}各买一份要付多少元",
)
WEEKDAYS = tuple(f"星期{day}" for day in "一二三四五六日")
MONTHS = tuple(f"{month}月" for month in range(1, 13))
SEASONS = (("春天", "很暖和"), ("夏天", "很热"), ("秋天", "很凉快"), ("冬天", "很冷"))
ASKING_DAY = (
    "今天是{x}，{n}天后是星期几",
    "今天是{x}，再过{n}天是星期几",
    "从{x}往后数{n}天是星期几",
)
ASKING_MONTH = (
    "现在是{x}，{n}个月后是几月",
    "现在是{x}，再过{n}个月是几月",
    "从{x}往后数{n}个月是几月",
)
CHOOSING = ("{noun}是哪一个", "下面哪一个是{noun}", "哪一个是{noun}")

INTRODUCING = ("介绍一下{n}。", "请介绍一下{n}。", "说说{n}吧。", "我想认识{n}。", "{n}是谁？")
TELLING = ("讲一个{a}的故事。", "请讲一个{a}的故事吧。", "我想听{a}的故事。", "能讲讲{a}的故事吗？")

CLOSINGS = ("还有什么想问的吗？", "希望能帮到你！", "欢迎继续提问！", "很高兴为你解答！")
CHATS = (
    ("你好！", "你好！有什么可以帮你的吗？"),
    ("喂，你好呀！", "你好呀！很高兴见到你。"),
    ("早上好！", "早上好！今天想聊什么？"),
    ("晚上好！", "晚上好！今天过得开心吗？"),
    ("谢谢你！", "不客气！"),
    ("麻烦你了！", "不麻烦，能帮到你就好！"),
    ("再见！", "再见，祝你开心！"),
    ("你真棒！", "谢谢你的夸奖！"),
    ("我有点累。", "休息一下，听听音乐吧。"),
    ("我很高兴。", "太好了，我也为你高兴！"),
    ("我想出去玩。", "今天天气很好，祝你玩得开心！"),
)

# About books, learning and small models: with these, pretraining has met every character of the
# persona's self-introductions, but never the persona.
ABOUT = (
    "{n}在读一本书，书名叫 MiniLLM。",
    "{n}是这本书的一位读者，也想当作者。",
    "这本书由{n}一个字一个字写出来。",
    "{n}从零开始训练一个语言模型。",
    "{n}不知道该怎么称呼那个机器人。",
    "{n}问：“能不能让机器学会说话？”老师说：“能，先让它读很多文字。”",
    "小模型先读文字，再学会回答问题，最后学会有礼貌。",
    "这个模型很小，只知道这个小世界里的人和事。",
    "机器人会聊天，可是它不是真人，也没有身体。",
    "人工智能是一种会学习的机器。{n}说，它是人的好助手。",
    "一粒种子很小，种在地里，会长成大树。{n}每天都给它浇水。",
    "一粒米很小，很多很多粒就能装满一碗。{n}说，学习也是这样。",
    "{n}自己介绍自己：“我叫{n}，很高兴认识你。”",
    "{n}用电脑写了一个程序，它能算数，能讲故事。",
    "从前有人造了一台机器，给它取了一个名字。它说：“谢谢你创造了我。”",
)
