# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-commands)=
# # 命令手册
#
# 包里的一切都由一个命令完成：`minillm 命令 [--参数 值 …]`。`scripts/` 和 `trainer/` 里的同名脚本只是它的别名，两种写法的参数完全相同。
#
# 本页的参数表直接由源代码里的数据类生成，默认值和说明（英文，与 `--help` 相同）不会过时；生成表的代码还会核对每个参数确实出现在 `--help` 里（在笔记本 `book/commands.ipynb` 中可以看到它）。出错时怎么办，见[常见问题](faq.md)。

# %% tags=["remove-cell"]
import os

os.environ.pop("TF_DIR", None)  # this page shows the defaults of an empty shell

import ast
import inspect
import re
from contextlib import redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from html import escape
from io import StringIO
from itertools import pairwise
from typing import Literal, get_args, get_origin, get_type_hints

from IPython.display import HTML

from minillm import cli
from minillm.book import lab
from minillm.config import TRAINING

# %% [markdown]
# ## 共同的规则
#
# - `minillm` 不带参数，列出全部命令；`minillm 命令 --help` 列出一个命令的全部参数。
# - `--preset default|small|tiny|smoke` 先选一整套默认值，其余参数再逐个覆盖。`default` 是为 GPU 准备的 2,583 万参数的模型，`small` 在两个 CPU 核上用一小时学写古诗，`tiny` 是本书的小模型，`smoke` 只走几步，证明流程能跑通。
# - `--max-length` 和 `--max_length` 是同一个参数。开关写成 `--strict`，关掉写成 `--no_strict`。
# - 使用者能改正的错误只打印一行 `minillm: error: …`，退出码为 2。

# %%
cli.main(["--help"])


# %% tags=["remove-cell"]
def explained(options):
    """Every flag of a dataclass: (name, type, default, what its docstring says)."""
    found = []
    body = ast.parse(inspect.getsource(type(options))).body[0].body
    docs = {
        field.target.id: re.sub(r"\s+", " ", text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
    hints = get_type_hints(type(options), include_extras=True)
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            found += explained(value)
        elif field.name in docs:  # else it is another stage's as well, and explained there
            found.append((field.name, hints[field.name], value, docs[field.name]))
    return found


# %% tags=["remove-cell"]
def code(*parts):
    # Paths may be broken after a slash and after an underscore.
    broken = [re.sub("([/_])", r"\1<wbr>", escape(str(part))) for part in parts]
    return " ".join(f"<code>{part}</code>" for part in broken)


def usage(name, kind):
    """--flag {its,choices}, or NAME for what is given without a flag."""
    if "Positional" in repr(kind):
        return code("PATH …" if name == "paths" else name.upper())
    kinds = [kind, *get_args(kind)]
    choices = [c for k in kinds if get_origin(k) is Literal for c in get_args(k)]
    return f'<span style="white-space:nowrap">{code(f"--{name}")}</span> {" | ".join(choices)}'


def shown(value):
    if value is None or value in ((), ""):
        return "–"
    return code(*value) if isinstance(value, tuple) else code(value)


# %% tags=["remove-cell"]
def table(header, rows):
    """Rows of HTML; wider than a phone, it scrolls."""
    cell = "padding:4px 8px;border-bottom:1px solid rgba(128,128,128,.3);text-align:left"
    head = "".join(f'<th style="{cell}">{text}</th>' for text in header)
    td = f'<td style="{cell};vertical-align:top">'
    last = f'<td style="{cell};vertical-align:top;min-width:18em">'  # the explanation
    lines = "".join(
        f"<tr>{''.join(f'{td}{c}</td>' for c in row[:-1])}{last}{row[-1]}</td></tr>" for row in rows
    )
    return HTML(
        '<div class="minillm-show" style="max-width:100%;overflow-x:auto">'
        '<table style="border-collapse:collapse;color:inherit;font-size:.9em;min-width:40em">'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


# %% tags=["remove-cell"]
def helped(name):
    """What `minillm NAME --help` prints."""
    out = StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        cli.main([name, "--help"])
    return out.getvalue()


def columns(name):
    """Preset (or stage) → the options of a command."""
    options = cli._load(cli.COMMANDS[name].options)
    if name in TRAINING["default"]:
        return TRAINING["default"]
    return options if isinstance(options, dict) else {"default": options()}


# %% tags=["remove-cell"]
def reference(name):
    """The table of a command's flags, checked against its --help."""
    presets = columns(name)
    tables = {preset: explained(options) for preset, options in presets.items()}
    text = helped(name)
    rows = []
    for i, (flag, kind, _, doc) in enumerate(next(iter(tables.values()))):
        assert f"--{flag} " in text or f"--{flag}," in text or "Positional" in repr(kind), flag
        values = [shown(flags[i][2]) for flags in tables.values()]
        values[1:] = ["" if value == values[0] else value for value in values[1:]]
        rows.append([usage(flag, kind), *values, escape(doc)])
    header = ["参数", *("默认" if preset == "default" else preset for preset in presets)]
    return table([*header, "说明"], rows)


# %% [markdown]
# 下面的表里，`–` 表示没有默认值；格子空着，表示与左边第一个值相同。
#
# ## 数据
#
# ### minillm mix
#
# 混合训练数据，别名 `python scripts/build_chinese_mix.py`，见 {numref}`第 %s 章 <sec-data>`。
#
# ```bash
# python scripts/build_chinese_mix.py --preset tiny
# minillm mix --general 2000 --persona_name 小满 --persona_author 我
# minillm mix --built_in none     # nothing but your own rows
# ```

# %% tags=["remove-input"]
reference("mix")

# %% [markdown]
# ### minillm import
#
# 把下载来的原始文件变成混合用的行，认得常见的格式。
#
# ```bash
# minillm import belle.json sharegpt.jsonl --category general
# ```

# %% tags=["remove-input"]
reference("import")

# %% [markdown]
# ### minillm download
#
# 从 Hugging Face 或 ModelScope 取一个公开的数据集并导入；不带名字时列出全部。`poetry` 例外：它是 npm 上的古诗词，先 `pip install -e ".[poetry]"`，取来以后还要清洗和去重，写出诗和听题写诗的对话两个文件，见[数据从哪里来](sources.md)。
#
# ```bash
# minillm download
# minillm download belle --hub modelscope
# minillm download poetry
# ```

# %% tags=["remove-input"]
reference("download")

# %% [markdown]
# ## 词元与张量
#
# ### minillm tokenizer
#
# 训练分词器，别名 `python scripts/train_rustbpe_tokenizer.py`，见 {numref}`第 %s 章 <sec-bpe>`。
#
# ```bash
# python scripts/train_rustbpe_tokenizer.py --preset tiny
# ENABLE_RUSTBPE=1 minillm tokenizer --data_path data/processed/pretrain_chinese.jsonl --vocab_size 6400
# ```

# %% tags=["remove-input"]
reference("tokenizer")

# %% [markdown]
# ### minillm export
#
# 把行写成填充好的张量文件，别名 `python scripts/export_embeddings.py`，见 {numref}`第 %s 章 <sec-tensors>`。训练命令自己会做这件事（并且打包），只有别的程序要用张量时才需要它。
#
# ```bash
# python scripts/export_embeddings.py --format sft --max-length 2048
# ```

# %% tags=["remove-input"]
reference("export")

# %% [markdown]
# ## 训练
#
# ### minillm pretrain、sft、dpo
#
# 三个阶段的参数相同，默认值不同。别名依次是 `python trainer/train_pretrain.py`、`trainer/train_full_sft.py`、`trainer/train_dpo.py`；见 {numref}`第 %s 章 <sec-pretrain>`、{numref}`第 %s 章 <sec-sft>`、{numref}`第 %s 章 <sec-dpo>`。
#
# ```bash
# python trainer/train_pretrain.py --preset tiny
# python trainer/train_full_sft.py --batch_size 8 --accumulation_steps 8
# python trainer/train_dpo.py --resume
# torchrun --nproc_per_node 8 trainer/train_pretrain.py
# ```

# %% tags=["remove-input"]
assert columns("pretrain") == columns("sft") == columns("dpo") == TRAINING["default"]
assert all(
    f"--{flag}" in helped(name)
    for name in ("sft", "dpo")
    for flag, *_ in explained(TRAINING["tiny"][name])
)
reference("pretrain")

# %% [markdown]
# small、tiny 和 smoke 预设改了这些值：


# %% tags=["remove-input"]
def changed(preset):
    """Flags whose value in the preset is another, stage by stage."""
    rows = []
    stages = TRAINING[preset]
    tables = [(explained(TRAINING["default"][s]), explained(stages[s])) for s in stages]
    for i, (flag, kind, *_) in enumerate(tables[0][0]):
        if any(old[i][2] != new[i][2] for old, new in tables):
            rows.append([usage(flag, kind), *(shown(new[i][2]) for _, new in tables)])
    return table([f"参数（{preset}）", *stages], rows)


changed("small")

# %% tags=["remove-input"]
changed("tiny")

# %% tags=["remove-input"]
changed("smoke")

# %% [markdown]
# ### minillm grpo
#
# 从 DPO 的权重出发做强化学习，别名 `python trainer/train_grpo.py`，见 {numref}`第 %s 章 <sec-thinking>`。下面列的是它自己的参数；其余的与上面三个阶段相同，默认值见 `minillm grpo --help`（它没有 `--epochs`、`--accumulation_steps`、`--beta` 和 `--nll_weight`）。`--data_path` 指向自己的题目：每行一个 `{"question": …, "answer": …}`。
#
# ```bash
# python trainer/train_grpo.py --preset tiny
# minillm grpo --preset tiny --init_from out/tiny/sft.safetensors --length_penalty 0.3
# bash scripts/run.sh --preset tiny --with-grpo
# ```

# %% tags=["remove-input"]
reference("grpo")

# %% [markdown]
# ### minillm persona
#
# 给训练好的模型换一个身份：名字和作者。它从 DPO 的权重出发，把身份对话和要留住的回答混在一起，再做一遍 SFT；新的模型在 `OUT_DIR/persona` 里，见 {numref}`第 %s 章 <sec-identity>`。
#
# ```bash
# minillm persona --preset tiny --name 小满 --author 这位读者
# minillm persona --name 小满 --data_path my_identity.jsonl
# ```

# %% tags=["remove-input"]
reference("persona")

# %% [markdown]
# ## 评测与对话
#
# ### minillm evaluate
#
# 给一个阶段的权重打分，并在 `TF_DIR/eval_results.jsonl` 里追加一行，别名 `python scripts/evaluate_stage.py`，见 {numref}`第 %s 章 <sec-pipeline>`。
#
# ```bash
# python scripts/evaluate_stage.py --preset tiny --stage sft
# minillm evaluate --preset tiny --stage sft --questions cmmlu/test
# minillm evaluate --preset tiny --stage dpo --questions my.jsonl --against sft
# minillm evaluate --preset tiny --stage sft --text my.txt --predictions said.jsonl
# ```
#
# 后三条只考你自己的文件，不考微世界，可以一次给几个文件或文件夹。例子和怎样读结果，见[常见问题](sec-faq-own-task)。
#
# - `--questions`，选择题（C-Eval、CMMLU 的 CSV，或者带 `choices` 的行）：题目和选项放进对话模板，不给例题；比较 A、B、C、D 接在后面的概率，最大的就是它的选择。比的是字母，不是选项的文字。
# - `--questions`，一问一答（`question` 和 `answer`，或者 `instruction`、`input`、`output`）：贪心解码，`exact` 是回答与答案相同，`contained` 是回答里有答案；全角半角、汉字之间的空白、句末标点不计，英文的空格和大小写要对；8 不算在 18 里。
# - `--text`：文章的每个词元预测一次，换算成每字符、每字节的比特数。长文章分窗口读，窗口长 `--max_seq_len` 个词元；从第二个窗口起，前半是重读的上文，只给后半打分。
# - `--against`：第二个模型答同样的题、读同样的文章，逐题比较。可以写 `--out_dir` 里的另一个阶段、一个权重文件、一个放权重的文件夹，或 transformers 能打开的文件夹。
# - `--predictions`：每题或每篇一行的明细，选择题带各个字母的对数概率。
#
# 数据是本项目混合的，里面又没有微世界的行时，不带这些参数的评测会略去微世界的题，并说出略去了哪些。

# %% tags=["remove-input"]
reference("evaluate")

# %% [markdown]
# ### minillm chat
#
# 在终端里与模型对话，空行结束。
#
# ```bash
# minillm chat --preset tiny
# minillm chat --preset tiny --prompt 张静住在哪里？
# minillm chat --preset tiny --temperature 0.8 --top_p 0.9 --seed 1
# minillm chat --preset small --prompt 写一首五言绝句《春夜》
# ```

# %% tags=["remove-input"]
reference("chat")

# %% [markdown]
# ### minillm gguf
#
# 把一个阶段的模型写成一个 GGUF 文件，给 llama.cpp 和建在它上面的程序用；旁边放一个 Ollama 的 Modelfile。先 `pip install -e ".[gguf]"`，用法见[常见问题](faq.md)。
#
# ```bash
# minillm gguf --preset tiny
# minillm gguf --preset tiny --stage sft --type Q8_0
# ```

# %% tags=["remove-input"]
reference("gguf")

# %% [markdown]
# ## 脚本
#
# :::{table} 脚本和它们的用法
# :name: tab-commands-scripts
#
# | 脚本 | 做什么 | 例子 |
# |---|---|---|
# | `scripts/run.sh` | 一键流水线：环境、数据、分词器、三个阶段，每个阶段之后评测 | `bash scripts/run.sh --preset small` |
# | `scripts/run_cn_pipeline.sh` | 同上，用 uv 安装依赖 | `ENABLE_RUSTBPE=1 bash scripts/run_cn_pipeline.sh` |
# | `scripts/book.sh` | 构建这本书，`--execute` 先运行各章，`--serve` 在本机提供阅读 | `bash scripts/book.sh --execute 03-rustbpe` |
# | `scripts/test.sh` | 全部检查：格式、类型、测试、各章、成书；参数传给 pytest | `bash scripts/test.sh tests/data/test_mix.py` |
# | `scripts/gpu_check.sh` | 检查一块 CUDA 的 GPU：损失与 CPU 是否相同，跑的是哪个注意力内核，显存和速度 | `bash scripts/gpu_check.sh` |
# | `scripts/run_notebooks.py` | 运行各章并保存输出，不构建 | `python scripts/run_notebooks.py 03-rustbpe` |
# | `scripts/screenshot.py` | 给构建好的首页和各页的互动部件拍照 | `python scripts/screenshot.py` |
# | `scripts/pipeline_datatrove.py` | 用 datatrove 清洗、去重，写成分片（{numref}`第 %s 章 <sec-scale>`） | `python scripts/pipeline_datatrove.py --raw_dir raw/ --out_dir data/sharded` |
# | `scripts/moving_picture.py` | 画出两份 README 开头会动的图；`--record` 先重新训练和对话一次 | `python scripts/moving_picture.py` |
# | `scripts/env.sh` | 由其他脚本读入，不单独运行 | |
# | `scripts/build_chinese_mix.py` | `minillm mix` | `python scripts/build_chinese_mix.py --preset tiny` |
# | `scripts/train_rustbpe_tokenizer.py` | `minillm tokenizer` | `python scripts/train_rustbpe_tokenizer.py` |
# | `scripts/export_embeddings.py` | `minillm export` | `python scripts/export_embeddings.py --format dpo` |
# | `scripts/evaluate_stage.py` | `minillm evaluate` | `python scripts/evaluate_stage.py --stage dpo` |
# | `trainer/train_pretrain.py` | `minillm pretrain` | `python trainer/train_pretrain.py --preset tiny` |
# | `trainer/train_full_sft.py` | `minillm sft` | `python trainer/train_full_sft.py --preset tiny` |
# | `trainer/train_dpo.py` | `minillm dpo` | `python trainer/train_dpo.py --preset tiny` |
# | `trainer/train_grpo.py` | `minillm grpo` | `python trainer/train_grpo.py --preset tiny` |
# | `python -m minillm.book.lab` | 训练各章共用的模型，存入 `.cache/` | `python -m minillm.book.lab` |
# :::
#
# 表里列的就是这两个文件夹里的全部文件，别名也确实指向所写的命令：

# %%
page = (lab.ROOT / "book" / "commands.py").read_text(encoding="utf-8")
files = sorted(p for folder in ("scripts", "trainer") for p in (lab.ROOT / folder).glob("*.*"))
for path in files:
    name = f"{path.parent.name}/{path.name}"
    row = re.search(rf"^# \| `{name}` \| (.*?) \|", page, re.M)
    assert row, f"{name} is missing in the table"
    alias = re.search(r'main\(\["(\w+)"', path.read_text(encoding="utf-8"))
    assert not alias or row[1] == f"`minillm {alias[1]}`", name

print(f"{len(files)} scripts")

# %% [markdown]
# ## 环境变量
#
# :::{table} 环境变量
# :name: tab-commands-variables
#
# | 变量 | 作用 | 默认 | 例子 |
# |---|---|---|---|
# | `PYTHON` | 创建虚拟环境的解释器，3.10 或更新 | `python3` | `PYTHON=python3.12` |
# | `VENV_DIR` | 虚拟环境的位置 | `.venv` | `VENV_DIR=.venv312` |
# | `INSTALLER` | 安装依赖用 `pip` 还是 `uv` | `pip` | `INSTALLER=uv` |
# | `ENABLE_RUSTBPE` | 为 1 时编译 RustBPE，用它训练分词器 | 关闭 | `ENABLE_RUSTBPE=1` |
# | `MIX_ARGS` | 传给数据混合的参数 | 空 | `MIX_ARGS="--built_in none"` |
# | `PRETRAIN_ARGS` | 传给预训练阶段的参数 | 空 | `PRETRAIN_ARGS="--batch_size 16"` |
# | `SFT_ARGS` | 传给 SFT 阶段的参数 | 空 | `SFT_ARGS="--learning_rate 1e-4"` |
# | `DPO_ARGS` | 传给 DPO 阶段的参数 | 空 | `DPO_ARGS="--beta 0.2"` |
# | `GRPO_ARGS` | 传给强化学习的参数（`--with-grpo`） | 空 | `GRPO_ARGS="--group_size 16"` |
# | `TF_DIR` | TensorBoard 日志和 `eval_results.jsonl` 的位置 | `../tf_dir` | `TF_DIR=logs` |
# | `MINILLM_CACHE` | 各章共用的模型的位置 | `.cache` | `MINILLM_CACHE=cache2` |
# | `MINILLM_SEED` | 本书模型的随机种子：换一个，各章就用另一组随机数 | `42` | `MINILLM_SEED=7` |
# | `MINILLM_QUIET` | 为 1 时各章训练不显示进度条 | 关闭 | `MINILLM_QUIET=1` |
# | `OMP_NUM_THREADS` | PyTorch 在 CPU 上用几个线程 | 核数 | `OMP_NUM_THREADS=2` |
# | `PIP_INDEX_URL`、`UV_INDEX_URL` | pip 和 uv 下载软件包的镜像 | 官方 | 见[常见问题](faq.md) |
# | `HF_ENDPOINT` | `minillm download` 使用的 Hugging Face 镜像 | 官方 | 见[常见问题](faq.md) |
# :::
#
# 例如，用较小的批次跑完 default 预设，日志放在项目之内：
#
# ```bash
# TF_DIR=logs PRETRAIN_ARGS="--batch_size 8 --accumulation_steps 16" bash scripts/run.sh
# ```
#
# 前十三个是本项目自己的，代码里都读到了它们：

# %%
sources = "".join(
    path.read_text(encoding="utf-8") for path in [*files, *(lab.ROOT / "minillm").rglob("*.py")]
)
listed = page[page.index("tab-commands-variables") : page.index("前十三个是")]
variables = re.findall(r"^# \| `([A-Z_]+)` \|", listed, re.M)
own = [name for name in variables if re.search(rf"\b{name}\b", sources)]
assert own[:13] == variables[:13]
print(", ".join(own[:13]))
