"""`minillm chat`: a conversation in the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minillm.config import Preset, Stage
from minillm.data.rows import Message
from minillm.model.generate import Sampling, reply
from minillm.training.checkpoint import load_for_inference


@dataclass(frozen=True)
class ChatOptions:
    """Talk to a trained model in the terminal."""

    prompt: str | None = None
    """Answer this one question and exit; None: a conversation, question by question."""
    out_dir: Path = Path("out")
    """Folder of the weights."""
    stage: Stage | None = None
    """Whose weights; None: the latest stage that there is."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: OUT_DIR/tokenizer if it exists, else the built-in one."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    sampling: Sampling = field(default_factory=Sampling)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a CUDA GPU where there is one."""


PRESETS: dict[Preset, ChatOptions] = {
    "default": ChatOptions(),
    "tiny": ChatOptions(out_dir=Path("out/tiny")),
    "smoke": ChatOptions(out_dir=Path("out/smoke"), max_new_tokens=16),
}


def run_chat(options: ChatOptions) -> None:
    """`minillm chat`."""
    model, tokenizer, metadata = load_for_inference(
        options.out_dir, options.stage, options.tokenizer_path, options.device
    )
    messages: list[Message] = []

    def answer(question: str) -> None:
        messages.append(Message("user", question))
        parts = []
        for text in reply(model, tokenizer, messages, options.max_new_tokens, options.sampling):
            print(text, end="", flush=True)
            parts.append(text)
        print()
        messages.append(Message("assistant", "".join(parts)))

    if options.prompt is not None:
        answer(options.prompt)
        return
    print(
        f"{metadata.stage} model, {model.num_parameters():,} parameters; "
        "an empty line ends the chat"
    )
    while question := _ask():
        limit = model.config.max_position_embeddings
        while (
            messages
            and len(tokenizer.render_for_completion([*messages, Message("user", question)]))
            > limit // 2
        ):
            del messages[:2]  # forget the oldest question and answer
        answer(question)


def _ask() -> str:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""
