"""`minillm chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from minillm.config import Count, Device, Preset, Stage, check_ranges
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model.generate import Sampling, remembered, reply
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
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
    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    sampling: Sampling = field(default_factory=Sampling)
    device: Device = "auto"
    """auto: a CUDA GPU where there is one, else a Mac's GPU (mps), else the CPU."""

    def __post_init__(self) -> None:
        check_ranges(self)


CHAT_PRESETS: dict[Preset, ChatOptions] = {
    "default": ChatOptions(),
    "small": ChatOptions(out_dir=Path("out/small")),
    "tiny": ChatOptions(out_dir=Path("out/tiny")),
    "smoke": ChatOptions(out_dir=Path("out/smoke"), max_new_tokens=16),
}


class Talk:
    """A conversation with a model, which forgets the oldest questions when it grows too long."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: RustBPETokenizer,
        window: int,
        options: ChatOptions,
    ) -> None:
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.window, self.room = window, model.config.max_position_embeddings
        self.messages: list[Message] = []
        self.forgets = False

    def ask(self, text: str) -> None:
        """Prints the answer to a question while it grows. One that is broken off counts as said.

        Raises UserError: the question alone is too long; it is not part of the conversation then.
        """
        question = Message("user", text)
        if (length := len(self.tokenizer.render_for_completion([question]))) >= self.room:
            raise UserError(
                f"this question is {length} tokens long, the model can read {self.room - 1}: "
                "ask a shorter one"
            )
        said = len(self.messages) + 1
        self.messages = remembered(self.tokenizer, [*self.messages, question], self.window)
        if len(self.messages) < said and not self.forgets:
            self.forgets = True
            print("(from here on, the oldest questions are forgotten)", file=sys.stderr)
        parts = []
        max_new_tokens, sampling = self.options.max_new_tokens, self.options.sampling
        try:
            for part in reply(self.model, self.tokenizer, self.messages, max_new_tokens, sampling):
                print(part, end="", flush=True)
                parts.append(part)
        finally:
            print(flush=True)
            self.messages.append(Message("assistant", "".join(parts)))


def run_chat(options: ChatOptions) -> None:
    """`minillm chat`.

    Raises:
        UserError: no weights or tokenizer, or the question of ``--prompt`` is too long.
        KeyboardInterrupt: Ctrl-C, but not at the prompt nor while a question typed there is
            answered: that ends the chat, or the answer.
    """
    model, tokenizer, metadata = load_for_inference(
        options.out_dir, options.stage, options.tokenizer_path, options.device
    )
    talk = Talk(model, tokenizer, metadata.window, options)
    if options.prompt is not None:
        talk.ask(options.prompt)
        return
    print(
        f"{metadata.stage} model, {model.num_parameters():,} parameters; "
        "an empty line ends the chat"
    )
    while question := _typed():
        try:
            talk.ask(question)
        except UserError as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            pass  # the answer's line is ended, and the next question asked for


def _typed() -> str:
    """What is typed at the prompt; "" when there is no more."""
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""
