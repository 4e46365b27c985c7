"""Build tasks of chapter 2: what is trained on, and what is only asked."""

from __future__ import annotations

from minillm.book.tasks.attempt import Attempt, task


@task("2.1")
def _divide(attempt: Attempt) -> None:
    """``divide(documents, is_held_out, target)``: the rows for training and those for validation:
    first one of each, then divided, and only then repeated."""

    def never(document: str) -> bool:
        return False

    def always(document: str) -> bool:
        return True

    def about_wang(document: str) -> bool:
        return "王" in document

    attempt.gives((list("甲乙丙丁"), []), list("甲乙丙丁戊己庚"), never, 4)
    attempt.gives((list("甲甲甲乙乙"), []), list("甲乙"), never, 5, hint="余数由前几条分担。")
    attempt.gives(
        (list("甲甲乙乙丙"), []), list("甲乙甲甲丙"), never, 5, hint="相同的内容只算一条。"
    )
    attempt.gives(
        (["李", "李", "张"], ["王"]),
        ["李", "王", "张"],
        about_wang,
        3,
        hint="目标由留给训练的几条分，验证的不占份。",
    )
    attempt.gives(
        (["李", "李"], ["王", "王二"]),
        ["王", "李", "王", "王二", "王"],
        about_wang,
        2,
        hint="验证的每条只写一遍。",
    )
    attempt.gives(
        ([], ["甲"]), ["甲", "甲"], always, 3, hint="一条训练的也没有时，写不出任何一行。"
    )
    attempt.gives(([], []), [], never, 3)
    attempt.leaves(["甲", "乙", "甲"], never, 3)


@task("2.2")
def _find_leaks(attempt: Attempt) -> None:
    """``find_leaks(train, quiz, threshold)``: the questions of which some document of training
    holds at least that share of the runs of three characters."""
    asked = "8加4等于多少？"  # 8加4 加4等 4等于 等于多 于多少

    attempt.gives([asked], ["8加4等于多少？"], [asked], 0.8)
    attempt.gives([], ["5加3等于多少？"], [asked], 0.8, hint="五个三字串里只有两个相同。")
    attempt.gives([], [], [asked], 0.8)
    attempt.gives(
        [asked],
        ["小猫在河边问小狗：“8加4，等于多少？”小狗数了数，说：“等于12。”"],
        [asked],
        0.8,
        hint="只比字和数字，标点不算；文档比题目长得多，分母只看题目。",
    )
    attempt.gives(
        [], ["8加4等于12。", "那么，等于多少？"], [asked], 0.8, hint="要在同一篇里，不能两篇凑。"
    )
    attempt.gives([asked], ["9+8加4等于多"], [asked], 0.8, hint="刚好 0.8 也算。")
    attempt.gives([], ["8加4等于几？"], [asked], 0.8, hint="五个三字串里有三个相同。")
    attempt.gives(
        ["哈哈哈哈哈，笑什么"],
        ["哈哈哈，笑什么"],
        ["哈哈哈哈哈，笑什么"],
        1.0,
        hint="同样的三字串只算一个。",
    )
    quiz = ["张静住在哪里？", "你是谁呀？", "王勇喜欢什么颜色？"]
    train = ["王勇喜欢什么颜色，你知道吗", "张静住在哪里"]
    attempt.gives([quiz[0], quiz[2]], train, quiz, 0.8, hint="按题目原来的次序。")
    attempt.leaves(train, quiz, 0.8)
