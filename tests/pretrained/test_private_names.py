"""What weak modes and budgets do to models and pipelines goes through public names of torch, diffusers and others."""

import ast
from pathlib import Path

import pytest

import flexivid

PACKAGE = Path(flexivid.__file__).parent
ROOMS = ("pretrained", "pipelines")
WITHOUT_PUBLIC_NAME = {  # may only shrink
    "_parallel_config": "diffusers says in no other way that a model runs over several devices",
    "_gradient_checkpointing_func": "of ModelMixin, for the classes derived from it",
}
FILES = [path for room in ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def defined(tree: ast.Module) -> set[str]:
    """Private names that a file itself gives to functions, classes and attributes of ``self``."""
    functions = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    stored = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    return functions | stored


def used(tree: ast.Module) -> set[str]:
    """Private names that are read as attributes, also by ``getattr`` and the like."""
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    arguments = [n.args[1] for n in calls if n.func.id in ("getattr", "hasattr", "setattr", "delattr")]
    words = {n.value for n in arguments if isinstance(n, ast.Constant)}
    return {name for name in attributes | words if is_private(name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_of_a_library_is_used(path) -> None:
    tree = ast.parse(path.read_text())
    namedtuples = {"_replace", "_asdict"}  # public in spite of their names
    assert used(tree) - defined(tree) - namedtuples <= WITHOUT_PUBLIC_NAME.keys()


def test_exceptions_are_still_needed() -> None:
    assert {name for path in FILES for name in used(ast.parse(path.read_text()))} >= WITHOUT_PUBLIC_NAME.keys()
