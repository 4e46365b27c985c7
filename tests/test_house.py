"""The rooms of the package: what may import what. This is the only list of its modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import minillm
from minillm.book import lab

ROOMS = """
errors files text_table config progress
microworld.words microworld.exercises microworld.documents microworld.entropy
microworld.identity microworld.lessons microworld.scoring
data.rows data.formats data.readers data.shards data.categories data.importer
data.npm data.near data.classical data.verse data.tones data.poetry data.hubs
data.report data.mix
tokenizer.bpe tokenizer.chat_format tokenizer.storage tokenizer.tokenizer_json
tokenizer.vocabulary tokenizer.hugging_face tokenizer.learn
model.transformer model.decode model.generate
training.dataset training.packing training.objectives training.optimizers training.devices
training.llama_folder training.checkpoint training.model_folder training.gguf_export
training.log training.export training.loop
training.questions training.reinforcement training.grpo
evaluate chat persona
own.files own.paired own.questions own.text own.report
cli
book.ngram book.copies book.lab book.laws book.canvas book.show book.page
book.drawings.scale
book.drawings.model
book.drawings.tuning
book.drawings.judging
book.drawings.data
book.drawings.optimisation
book.drawings.tokens
book.tasks.attempt book.tasks.chapter01 book.tasks.chapter02 book.tasks.chapter03
book.tasks.chapter04 book.tasks.chapter05 book.tasks.chapter06 book.tasks.chapter07
book.tasks.chapter08 book.tasks.chapter09 book.tasks.chapter10 book.tasks.chapter11
book.tasks.chapter12 book.tasks.chapter13 book.tasks.chapter14 book.tasks.chapter15
book.tasks.chapter16
"""
ORDER = ROOMS.split()


def test_the_list_is_complete() -> None:
    package = Path(minillm.__file__).parent
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")
    }
    assert {name for name in modules if not name.endswith("__init__")} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize(("place", "module"), list(enumerate(ORDER)))
def test_a_module_imports_only_what_stands_before_it(place: int, module: str) -> None:
    assert lab.imported(module) - {module} <= set(ORDER[:place])


def test_the_names_offered_are_there() -> None:
    assert set(minillm._PLACES) == set(minillm.__all__)
    for name in minillm.__all__:
        assert getattr(minillm, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = minillm.lode


def test_no_name_stands_for_two_things() -> None:
    """Public names at the top of a module: functions, classes, constants."""
    places: dict[str, list[str]] = {}
    for module in ORDER:
        for node in lab.tree(module).body:
            for name in names_of(node):
                if not name.startswith("_"):
                    places.setdefault(name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]
