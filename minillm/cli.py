"""`minillm COMMAND [--flag value ...]`: a command is a dataclass of options and a function that
runs them.

Its flags, their defaults and their help come from the dataclass; `--max-length` and
`--max_length` are the same flag. `--preset` chooses among sets of defaults before the other flags
are read.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from minillm.config import PRESETS
from minillm.errors import UserError

if TYPE_CHECKING:
    from minillm.data.mix import MixOptions
    from minillm.evaluate import EvaluateOptions


class Command(NamedTuple):
    """Where a command's code is, as ``module:name``; only the chosen command's modules are
    imported."""

    summary: str
    options: str
    """A dataclass, or a dict of its instances by preset."""
    run: str
    stage: str = ""
    """Training: which of the stages."""


COMMANDS = {
    "import": Command(
        "turn raw downloads into rows for the mix",
        "data.importer:ImportOptions",
        "data.importer:run_import",
    ),
    "download": Command(
        "fetch a well-known data set from a hub",
        "data.hubs:DownloadOptions",
        "data.hubs:run_download",
    ),
    "mix": Command("mix the training data", "data.mix:MIX_PRESETS", "cli:run_mix"),
    "tokenizer": Command(
        "train a tokenizer", "tokenizer.learn:TOKENIZER_PRESETS", "tokenizer.learn:run_tokenizer"
    ),
    "export": Command(
        "write rows as padded token tensors",
        "training.export:ExportOptions",
        "training.export:run_export",
    ),
    "pretrain": Command(
        "stage 1: learn the language", "config:TRAINING", "training.loop:train", "pretrain"
    ),
    "sft": Command("stage 2: learn to answer", "config:TRAINING", "training.loop:train", "sft"),
    "dpo": Command(
        "stage 3: learn what people prefer", "config:TRAINING", "training.loop:train", "dpo"
    ),
    "grpo": Command(
        "stage 4: learn to think, from right and wrong alone",
        "config:GRPO_PRESETS",
        "training.grpo:train_grpo",
    ),
    "persona": Command(
        "give a trained model another persona", "persona:PERSONA_PRESETS", "persona:run_persona"
    ),
    "evaluate": Command("score a stage's weights", "evaluate:EVALUATE_PRESETS", "cli:run_scores"),
    "gguf": Command(
        "write a model as a GGUF file, for llama.cpp and Ollama",
        "training.gguf_export:GGUF_PRESETS",
        "training.gguf_export:run_gguf",
    ),
    "chat": Command("talk to the model", "chat:CHAT_PRESETS", "chat:run_chat"),
}


def run_mix(options: MixOptions) -> None:
    """`minillm mix`: builds the files and prints the report, tokens by the built-in tokenizer."""
    from minillm.data.mix import build
    from minillm.tokenizer.vocabulary import RustBPETokenizer

    tokenizer = RustBPETokenizer.load()
    print(build(options, lambda text: len(tokenizer.encode(text))).table())


def run_scores(options: EvaluateOptions) -> None:
    """`minillm evaluate`: what the reader's own files ask for; without any, all that there is."""
    from minillm.evaluate import run_evaluate
    from minillm.own.report import run_own

    is_own = options.questions is not None or options.text is not None
    (run_own if is_own else run_evaluate)(options)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command. Exits with 2 and one line for an error that the user can mend, with 130
    when stopped, and with 1 if nobody reads the output any longer, as in ``minillm mix | head``."""
    for stream in (sys.stdin, sys.stdout):  # stderr shows everything anyway, if need be as \uXXXX
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            _main(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # what still waits there finds out now that it has no reader
    except BrokenPipeError:
        # As the documentation of Python's `signal` advises: Python flushes once more at its end.
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(null, stream.fileno())
        sys.exit(1)


def _main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    try:
        _run(arguments[0], arguments[1:])
    except UserError as error:
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt as stopped:
        print(f"minillm: {str(stopped) or 'stopped'}", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> int:
    print(f"minillm: error: {message}", file=sys.stderr)
    return 2


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: minillm COMMAND [--flag value ...]",
            "",
            *lines,
            "",
            "minillm COMMAND --help: all flags",
        ]
    )


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"minillm.{module}"), name)


def _run(name: str, arguments: list[str]) -> None:
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    options = _load(command.options)
    preset_help = ""
    if isinstance(options, dict):
        preset = _take_preset(arguments)
        options = options[preset]
        preset_help = f" --preset {{{','.join(PRESETS)}}} chooses the defaults, here: {preset}."
    default = (
        options[command.stage] if command.stage else options() if callable(options) else options
    )
    summary = command.summary[0].upper() + command.summary[1:]
    parsed, unknown = tyro.cli(
        type(default),
        prog=f"minillm {name}",
        description=f"{summary}.{preset_help}",
        args=arguments,
        default=default,
        return_unknown_args=True,
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    if unknown:
        raise UserError(_unknown(name, unknown[0], parsed))
    run = _load(command.run)
    (partial(run, stage=command.stage) if command.stage else run)(parsed)


def _take_preset(arguments: list[str]) -> str:
    """Removes every ``--preset NAME`` or ``--preset=NAME`` from the arguments; returns the last
    one's name."""
    names = []
    for i, argument in reversed(list(enumerate(arguments))):
        if argument == "--preset":
            names += arguments[i + 1 : i + 2] or [""]
            del arguments[i : i + 2]
        elif argument.startswith("--preset="):
            names.append(argument.removeprefix("--preset="))
            del arguments[i]
    preset = names[0] if names else "default"
    if preset not in PRESETS:
        raise UserError(f"--preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return preset


def _unknown(command: str, argument: str, options: Any) -> str:
    """One line for an argument that nobody asked for; for a flag with the nearest that exists."""
    parts = [options, *filter(is_dataclass, vars(options).values())]
    flags = [f"--{field.name}" for part in parts for field in fields(part) if field.init]
    near = difflib.get_close_matches(argument.replace("-", "_").replace("__", "--", 1), flags, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    kind = "flag" if argument.startswith("-") else "argument"
    if kind == "argument" and os.path.exists(argument):  # the shell has put files in its place
        hint = "a pattern of files must stand in quotes; "
    return f"{command}: unknown {kind} {argument}; {hint}`minillm {command} --help` lists all flags"
