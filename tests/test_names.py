"""Words that no variable, parameter or attribute is called, and the rooms that still have some."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "flexivid"
WORDS = {
    *("found", "wanted", "given", "made", "kept", "told", "known", "whole"),
    *("how", "own", "at", "left", "facts", "place", "other", "one"),
}
LEFT = {  # room: such names still there; may only shrink
    "data": 10,
    "data.clips": 38,
    "latents": 4,
}


def names(tree: ast.AST) -> Iterator[str]:
    """Names that a file gives to variables, parameters and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_no_name_is_a_participle_or_a_pronoun() -> None:
    count: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        room = ".".join(path.relative_to(PACKAGE).parent.parts)
        count[room] += sum(name.strip("_") in WORDS for name in names(ast.parse(path.read_text())))
    assert {room: number for room, number in count.items() if number} == LEFT, "give names that say what they hold"
