"""Words that no variable, parameter or attribute is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "flexivid"
WORDS = {
    *("found", "wanted", "given", "made", "kept", "told", "known", "whole"),
    *("how", "own", "at", "left", "facts", "place", "other", "one"),
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
    wrong = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in names(ast.parse(path.read_text()))
        if name.strip("_") in WORDS
    ]
    assert not wrong, "give names that say what they hold"
