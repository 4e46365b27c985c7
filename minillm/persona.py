"""`minillm persona`: another persona for a trained model, which keeps its skills and manners.

Conversations about the persona alone would wash away the rest. So the model learns them among what
it is to keep (replay): chosen answers of the preference data, which hold skills and manners, and
for what the preferences never ask, its own answers to questions of the SFT data. (The SFT data's
answers would cost it the manners that DPO taught.) One pass of SFT over all of it, from the DPO
weights, or from those of SFT where the model's data had no preferences.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from minillm.config import (
    TRAINING,
    Device,
    Positive,
    Preset,
    Range,
    Seed,
    Size,
    Stage,
    TrainConfig,
    check_ranges,
    default_tf_dir,
)
from minillm.data.readers import Record, read
from minillm.data.rows import Chat, Message, Pair, in_a_chat, plain_text
from minillm.errors import UserError
from minillm.evaluate import Evaluator
from minillm.files import write_atomically
from minillm.microworld import identity
from minillm.microworld.identity import Persona, fill
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training import loop
from minillm.training.checkpoint import find_weights, load_for_inference, weights_path

FOLDER = "persona"
"""Of the new model, in the old one's."""

Dialogue: TypeAlias = list[Message]


# --- Rows -----------------------------------------------------------------------------------------


def about(persona: Persona, path: Path | None = None) -> list[Dialogue]:
    """Conversations about the persona: those of a file, else the package's own, filled in.

    Raises UserError: the file cannot be used, or none of its answers says the persona's name.
    """
    if path is None:
        own = identity.persona_conversations(identity.SAMPLE_ROWS)
        found = [[Message(t["role"], t["content"]) for t in turns] for turns in own]  # type: ignore[arg-type]
    else:
        found = [_chat(path, record) for record in read(path)]
    filled = [[Message(m.role, fill(m.content, persona)) for m in turns] for turns in found]
    if not any(persona.name in m.content for c in filled for m in c if m.role == "assistant"):
        raise UserError(f"{path}: no answer says {persona.name}; write {{{{name}}}} for --name")
    return filled


def _chat(path: Path, record: Record) -> Dialogue:
    if not isinstance(record.row, Chat):
        kind = type(record.row).__name__.lower()
        raise UserError(
            f"{path}:{record.line}: about a persona are conversations, this is a {kind}"
        )
    return record.row.messages


def chosen_answers(data_dir: Path, count: int) -> list[Dialogue]:
    """The first ``count`` of the preference data's chosen conversations.

    The data mix writes its rows in random order. Raises UserError if the file is missing.
    """
    pairs = (record.row for record in _mixed(data_dir, "dpo"))
    return list(islice((row.chosen for row in pairs if isinstance(row, Pair)), count))


def own_answers(
    model: Transformer, tokenizer: RustBPETokenizer, data_dir: Path, count: int, longest: int
) -> list[Dialogue]:
    """The first ``count`` conversations of the SFT data (none about a persona), in which the model
    itself gives all answers; each only as far as ``longest`` tokens hold it.

    To learn again what it says keeps a model as it is, whatever that is (pseudorehearsal: Robins
    1995). Raises UserError if the file is missing.
    """
    records = (record for record in _mixed(data_dir, "sft") if not _about_a_persona(record))
    chats = list(islice((r.row.messages for r in records if isinstance(r.row, Chat)), count))
    evaluator = Evaluator(model, tokenizer, longest)
    told: list[Dialogue] = [[] for _ in chats]
    for i in range(max(map(len, chats), default=0)):
        asked = []
        for turns, chat in zip(told, chats, strict=True):
            if len(turns) == i < len(chat):  # else it has ended, or an answer was empty
                if chat[i].role == "assistant":
                    asked.append(turns)
                else:
                    turns.append(chat[i])
        for turns, reply in zip(asked, evaluator.chat(asked), strict=True):
            if reply.strip():
                turns.append(Message("assistant", reply))
    return [kept for turns in told if (kept := _within(turns, tokenizer, longest))]


def _within(turns: Dialogue, tokenizer: RustBPETokenizer, longest: int) -> Dialogue:
    """The conversation up to its last answer that ends within so many tokens."""
    while turns and (
        turns[-1].role != "assistant" or len(tokenizer.render_conversation(turns)[0]) > longest
    ):
        turns = turns[:-1]
    return turns


def _mixed(data_dir: Path, stage: str) -> Iterator[Record]:
    path = data_dir / f"{stage}_chinese.jsonl"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; name the folder of the model's data by --data_dir, or make it "
            "anew by `python scripts/build_chinese_mix.py`"
        )
    return read(path)


def _about_a_persona(record: Record) -> bool:
    source = record.raw.get("source")
    return isinstance(source, str) and source.removeprefix("builtin:").startswith("identity")


def training_rows(
    conversations: Sequence[Dialogue], replayed: Sequence[Dialogue], count: int
) -> bytes:
    """The file to train on: ``count`` rows about the persona, or each once if there are more, and
    what is replayed. Of the first, every other one comes after something that is replayed: the
    persona must hold in the middle of a chat too."""
    repeated = list(islice(cycle(conversations), max(count, len(conversations))))
    if replayed:
        rng = Random(0)
        few = min(4, len(replayed))
        repeated[1::2] = [in_a_chat(c, rng.sample(replayed, few)) for c in repeated[1::2]]
    lines = (msgspec.json.encode({"messages": turns}) for turns in chain(repeated, replayed))
    return b"".join(line + b"\n" for line in lines)


def unknown_characters(persona: Persona, path: Path) -> list[str]:
    """Characters of the persona that no row of a file has: they come out garbled, and spoil others.

    They are spelled in bytes, which other characters share.
    """
    missing = set(persona.name + persona.author)
    for record in read(path):
        missing.difference_update(plain_text(record.row))
        if not missing:
            break
    return sorted(missing)


# --- The command ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PersonaOptions:
    """Teach a trained model another persona, so that it keeps its skills and manners."""

    name: str = ""
    """What the model is to call itself (required)."""
    author: str = Persona.author
    """Who it is to say trained it."""
    data_path: Path | None = None
    """Your own conversations about it, in any format that `minillm import` reads, with {{name}}
    and {{author}} for the two; None: the package's 200."""
    rows: Size = 800
    """Rows about the persona: its conversations are repeated until there are so many."""
    replay_chosen: Annotated[int, Range(0, 2**20)] = 1500
    """Chosen answers of the preference data to learn again beside them: they hold the skills and
    manners to keep."""
    replay_own: Annotated[int, Range(0, 2**20)] = 1500
    """Conversations of the SFT data in which the model first gives all answers itself, to learn
    them again."""
    out_dir: Path = Path("out")
    """Folder of the model, whose DPO weights are the start; the new one goes to OUT_DIR/persona."""
    data_dir: Path = Path("data/processed")
    """Folder of the data that it was trained on."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: OUT_DIR/tokenizer if it exists, else the built-in one."""
    tf_dir: Path = field(default_factory=default_tf_dir)
    """Where TensorBoard logs go (environment variable TF_DIR, else ../tf_dir)."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """As in SFT."""
    learning_rate: Positive = 1e-4
    """Peak learning rate; a third of SFT's."""
    batch_size: Size = 8
    """Packed rows in one optimizer step: few, since the rows are few."""
    max_seq_len: Size = 512
    """Longest conversation in tokens; longer ones are cut."""
    seed: Seed = 42
    """Seed of the order of rows."""
    device: Device = "auto"
    """auto: a CUDA GPU where there is one, else a Mac's GPU (mps), else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the matrix products; auto: bfloat16 on a CUDA GPU that has it, else float32."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def persona(self) -> Persona:
        return Persona(self.name, self.author)


def _preset(name: Preset, **changes: Any) -> PersonaOptions:
    """Trained like the preset's SFT, whose files and lengths these are."""
    sft = TRAINING[name]["sft"]
    return PersonaOptions(
        out_dir=sft.out_dir,
        data_dir=sft.data_path.parent,
        optimizer=sft.optimizer,
        max_seq_len=sft.max_seq_len,
        device=sft.device,
        dtype=sft.dtype,
        **changes,
    )


PERSONA_PRESETS: dict[Preset, PersonaOptions] = {
    "default": _preset("default"),
    "small": _preset("small", learning_rate=7e-4),
    "tiny": _preset("tiny", learning_rate=2e-3),
    "smoke": _preset("smoke", rows=20, replay_chosen=20, replay_own=4),
}


def run_persona(options: PersonaOptions) -> Path:
    """`minillm persona`: writes the rows, trains on them, and says how to talk to the result.

    Returns the new model's folder, which has its weights and its tokenizer.
    """
    if not options.name.strip():
        raise UserError("--name is missing: what the model is to call itself")
    stage: Stage = "dpo" if _has_preferences(options) else "sft"
    start = find_weights(options.out_dir, stage)
    conversations = about(options.persona, options.data_path)
    replayed = chosen_answers(options.data_dir, options.replay_chosen) if stage == "dpo" else []
    _warn_of_unknown_characters(options)
    model, tokenizer, metadata = load_for_inference(
        options.out_dir, stage, options.tokenizer_path, options.device
    )
    folder = options.out_dir / FOLDER
    path = folder / "rows.jsonl"
    config = TrainConfig(
        data_path=path,
        out_dir=folder,
        tf_dir=options.tf_dir,
        init_from=start,
        model=metadata.model,
        max_seq_len=options.max_seq_len,
        batch_size=options.batch_size,
        accumulation_steps=1,
        epochs=1,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        decay_fraction=0.9,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
    )
    if n := options.replay_own:
        print(f"persona: {start} gives its own answers in {n:,} conversations", flush=True)
        replayed += own_answers(model, tokenizer, options.data_dir, n, options.max_seq_len)
    write_atomically(path, training_rows(conversations, replayed, options.rows))
    tokenizer.save(folder / "tokenizer")
    try:
        loop.train(config, "sft")
    except KeyboardInterrupt:  # nothing that is worth a checkpoint
        raise KeyboardInterrupt("persona: stopped; start it again") from None
    print(f"Talk to {options.name}: minillm chat --out_dir {shlex.quote(str(folder))}")
    return folder


def _has_preferences(options: PersonaOptions) -> bool:
    """False where there was nothing to do DPO with, as run.sh sees it, and none was done."""
    pairs = options.data_dir / "dpo_chinese.jsonl"
    mixed = (options.data_dir / "sft_chinese.jsonl").is_file()
    none = mixed and not (pairs.is_file() and pairs.stat().st_size)
    return not none or weights_path(options.out_dir, "dpo").is_file()


def _warn_of_unknown_characters(options: PersonaOptions) -> None:
    path = options.data_dir / "pretrain_chinese.jsonl"
    if path.is_file() and (unknown := unknown_characters(options.persona, path)):
        print(
            f"warning: {path} never shows {' '.join(unknown)}: the name may come out garbled, and "
            "other characters with it; better choose another",
            file=sys.stderr,
        )
