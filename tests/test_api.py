"""The public names: a list that only grows, a page that shows it, and an example for each name.

``python tests/test_api.py`` writes the page anew.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import flexivid

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
GROUPS = {
    "Patch modes, schedules, costs": "PatchMode Schedule Step weak_first constant for_budget budget_of macs",
    "The network": "FlexiDiTConfig FlexiDiT Condition load save generate",
    "Pre-trained models": "flexify unflexify set_mode current_mode save_adapter load_adapter apply_budget load_shared",
    "Training": "FlexiDiffusion FlexiDistillation FVDVsBudget VideoDataModule",
    "Videos and metrics": "open_video VideoError FrechetVideoDistance",
}
PUBLIC = [name for names in GROUPS.values() for name in names.split()]
ROOMS = {  # names that recipes, the README or docs took from a room, and that stay there
    "flexivid.data": "module.VideoDataModule decoding.reader.open_video storage.errors.VideoError",
    "flexivid.metrics": "fvd.FrechetVideoDistance",
    "flexivid.training": "module.FlexiDiffusion distillation.module.FlexiDistillation callbacks.FVDVsBudget",
}
OLDER_PLACES = {  # of names that pages or recipes wrote with their module, before files moved to rooms
    "flexivid.training.arrays.CallArrays": "flexivid.training.distillation.recorded_data",
    "flexivid.training.callbacks.adapter.AdapterEMA": "flexivid.training.distillation.ema",
}
INTRODUCTION = """# Public names

`import flexivid` is enough: every name is loaded on first use, and torch with the first that needs it.
`help(flexivid.load)` shows arguments, units and an example. Names stay; a change is announced in
[CHANGELOG.md](../CHANGELOG.md).
"""


def first_line(name: str) -> str:
    paragraph = (inspect.getdoc(getattr(flexivid, name)) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`").replace(":class:", "").replace(":func:", "")


def page() -> str:
    text = INTRODUCTION
    for title, names in GROUPS.items():
        rows = "\n".join(f"| `{name}` | {first_line(name)} |" for name in names.split())
        text += f"\n## {title}\n\n| name | what it is |\n|---|---|\n{rows}\n"
    return text


def test_the_list_of_public_names() -> None:
    assert sorted(flexivid.__all__) == sorted([*PUBLIC, "__version__"]), (
        "public names stay; a new one goes into GROUPS here, into CHANGELOG.md and, by `python tests/test_api.py`, into"
        " docs/api.md"
    )
    assert dir(flexivid) == sorted(flexivid.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        flexivid.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_is_what_its_module_defines_and_has_an_example(name: str) -> None:
    item = getattr(flexivid, name)
    assert item.__name__ == name
    assert getattr(import_module(item.__module__), name) is item
    examples = [example for test in doctest.DocTestFinder(recurse=False).find(item) for example in test.examples]
    assert examples, f"flexivid.{name} has no example"
    assert any(character.isdigit() for example in examples for character in example.want), (
        f"no example of flexivid.{name} shows a number"
    )


def test_type_checkers_know_the_same_names() -> None:
    tree = ast.parse((ROOT / "flexivid" / "__init__.py").read_text())
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    declared = [alias.asname for node in block.body for alias in node.names]  # type: ignore[attr-defined]
    assert sorted(declared) == sorted(PUBLIC)


def test_names_stay_in_the_rooms_they_were_public_in() -> None:
    for room, names in ROOMS.items():
        for path in names.split():
            module, _, name = f"{room}.{path}".rpartition(".")
            assert getattr(import_module(module), name) is getattr(flexivid, name)


@pytest.mark.parametrize("path", OLDER_PLACES)
def test_older_places_lead_to_the_same(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) is getattr(import_module(OLDER_PLACES[path]), name)


def test_rooms_give_their_public_names() -> None:
    for room, names in {"data": "VideoDataModule VideoError open_video", "metrics": "FrechetVideoDistance I3D"}.items():
        assert set(names.split()) <= set(import_module(f"flexivid.{room}").__all__)


def test_names_without_tensors_load_no_torch() -> None:
    light = "PatchMode Schedule Step weak_first constant for_budget budget_of macs FlexiDiTConfig VideoError"
    code = f"import sys, flexivid; [getattr(flexivid, name) for name in {light.split()}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_page_of_public_names() -> None:
    assert PAGE.read_text() == page(), "run `python tests/test_api.py`"


if __name__ == "__main__":
    PAGE.write_text(page())
