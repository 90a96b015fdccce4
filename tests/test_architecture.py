"""The floor plan of docs/architecture.md held against the code: who imports whom, doors, lengths, public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flexivid"

MAY_IMPORT = {  # room: the rooms below it that it may use, beside runtime and the rooms within it
    "runtime": "",
    "media": "",
    "patching": "",
    "budget": "patching",
    "diffusion": "budget patching",
    "latents": "budget patching",
    "model": "latents diffusion budget patching",
    "metrics.extractors": "",
    "metrics": "",
    "data.storage": "",
    "data.lists": "data.storage",
    "data.sources": "data.lists data.storage",
    "data.decoding": "data.sources data.storage",
    "data.workers": "data.decoding data.storage",
    "data.index": "data.decoding data.lists data.sources data.storage",
    "data.clips": "data.index data.workers data.decoding data.sources data.storage",
    "data.encoded": "data.clips data.workers data.decoding data.sources data.storage latents media",
    "data": "latents",
    "data.inspection": "data media",
    "sampling": "data.lists data.decoding model latents diffusion budget patching media",
    "pretrained.families": "model diffusion budget patching",
    "pretrained.weak_modes": "pretrained.families diffusion budget patching",
    "pretrained": "model budget patching",
    "pretrained.shared": "latents pretrained pretrained.families model patching",
    "pipelines": "pretrained sampling data.lists model budget patching media",
    "evaluation": "sampling data metrics model budget patching media",
    "calibration": "evaluation sampling data metrics model diffusion budget patching media",
    "training": "pretrained.shared sampling data metrics model latents diffusion budget patching media",
    "training.callbacks": "training calibration evaluation sampling data metrics model budget media",
    "training.autoencoder": "training training.callbacks data metrics latents media",
    "training.distillation": "training training.callbacks pipelines pretrained sampling data model latents diffusion "
    "patching media",
}
NO_TORCH = [
    *(
        "__init__",
        "__main__",
        "train",
        "sample",
        "search",
        "evaluate",
        "convert",
        "dataset",
        "patching.shapes",
        "model.config",
        "model.shipped",
    ),
    *(
        "budget.cost",
        "budget.schedule",
        "budget.allowance",
        "budget.scores",
        "budget.search",
        "budget.table",
        "budget.measured",
    ),
    *(
        "budget.planners",
        "budget.spectral",
        "runtime.paths",
        "runtime.errors",
        "runtime.program",
        "sampling.options",
        "sampling.messages",
    ),
    *("data.clips.windows", "data.sources.manifest", "data.encoded.folder", "data.encode_request"),
]
STANDARD_LIBRARY_ONLY = ["patching.shapes", "runtime.files", "runtime.paths", "runtime.printable"]
FILES_IN_A_ROOM = 13


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TEXTS = {name: path.read_text() for name, path in PATHS.items()}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}


def names_in(nodes: list[ast.stmt] | ast.Module) -> set[str]:
    """Full names of what is imported, inside functions too when a whole module is given."""
    walk = ast.walk(nodes) if isinstance(nodes, ast.Module) else iter(nodes)
    names: set[str] = set()
    for node in walk:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


IMPORTS = {name: names_in(tree) for name, tree in TREES.items()}


def room(name: str) -> str:
    """Room of a module: "" for programs at the root, the room itself for its ``__init__``."""
    parent = name if PATHS[name].name == "__init__.py" else name.rpartition(".")[0]
    return parent.removeprefix("flexivid").removeprefix(".")


ROOMS = sorted({room(name) for name in PATHS} - {""})
FILES = {r: sorted(n for n in PATHS if room(n) == r and PATHS[n].name != "__init__.py") for r in ROOMS}
MODULES_USED = {name: {other for other in IMPORTS[name] if other in PATHS and other != "flexivid"} for name in PATHS}


def doors(name: str) -> tuple[str, ...]:
    for node in TREES[f"flexivid.{name}"].body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOORS":
            return tuple(ast.literal_eval(node.value))
    raise AssertionError(f"flexivid/{name.replace('.', '/')}/__init__.py names no DOORS")


def test_every_room_has_a_place() -> None:
    assert set(ROOMS) == set(MAY_IMPORT)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    allowed = {name, "runtime", *MAY_IMPORT[name].split()}
    for module in FILES[name]:
        for used in {room(other) for other in MODULES_USED[module]}:
            above = {used, used.rpartition(".")[0]} - {
                ""
            }  # a room that may be used may be used with the rooms within it
            assert above & allowed, f"{module} uses {used or 'a program'}"


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_the_floor_plan_has_no_circle(name: str) -> None:
    below: set[str] = set()
    pending = MAY_IMPORT[name].split()
    while pending:
        other = pending.pop()
        if other not in below:
            below.add(other)
            pending += MAY_IMPORT[other].split()
    assert name not in below


@pytest.mark.parametrize("name", ROOMS)
def test_only_doors_are_imported_from_outside(name: str) -> None:
    outside = {
        other.rpartition(".")[2]
        for module in PATHS
        if room(module) != name
        for other in MODULES_USED[module] & {*FILES[name]}
    }
    assert sorted(outside) == sorted(doors(name)), f"doors of {name}"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_small_and_its_files_share_no_prefix(name: str) -> None:
    assert len(FILES[name]) <= FILES_IN_A_ROOM
    prefixes = Counter(module.rpartition(".")[2].split("_")[0] for module in FILES[name])
    assert [prefix for prefix, count in prefixes.items() if count > 2 and prefix != "i3d"] == []


def test_diffusion_knows_steps_and_no_costs() -> None:
    used = {other for name in FILES["diffusion"] for other in MODULES_USED[name]}
    assert {other for other in used if room(other) == "budget"} == {"flexivid.budget.schedule"}


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_standard_library_only(name: str) -> None:
    assert {other.split(".")[0] for other in IMPORTS[f"flexivid.{name}"]} <= set(sys.stdlib_module_names)


def test_no_circles_inside_a_room() -> None:
    done: set[str] = {"flexivid"}  # the public names are loaded on first use

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in MODULES_USED[name] - {name}:
                visit(other, (*trail, name))
            done.add(name)

    for name in PATHS:
        visit(name, ())
    assert done >= set(PATHS)


@pytest.mark.parametrize("name", PATHS)
def test_lightning_only_at_the_edge(name: str) -> None:
    uses = any(other.split(".")[0] in ("lightning", "pytorch_lightning") for other in IMPORTS[name])
    assert not uses or room(name).split(".")[0] == "training" or name == "flexivid.data.module"


@pytest.mark.parametrize("name", NO_TORCH)
def test_no_torch_at_module_level(name: str) -> None:
    top = names_in(TREES[f"flexivid.{name}".removesuffix(".__init__")].body)
    assert not {other for other in top if other.split(".")[0] in ("torch", "lightning", "diffusers", "einops")}


@pytest.mark.parametrize(
    "code",
    [
        "import flexivid",
        "import flexivid; c = flexivid.FlexiDiTConfig(); flexivid.for_budget(0.5, c, (8, 16, 16))",
        "from flexivid import sample, train; sample.build_parser()",
    ],
)
def test_planning_and_help_load_no_torch(code: str) -> None:
    check = code + "; import sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", PATHS)
def test_limits(name: str) -> None:
    lines = TEXTS[name].splitlines()
    assert TEXTS[name].isascii()
    assert len(lines) <= 300
    assert PATHS[name].stem not in ("utils", "common", "helpers", "misc")
    for function in (node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef)):
        documented = ast.get_docstring(function) is not None
        first = function.body[1].lineno if documented and len(function.body) > 1 else function.body[0].lineno
        assert (function.end_lineno or 0) - first < 40, f"{function.name} is too long"
        header = "\n".join(lines[function.lineno - 1 : function.body[0].lineno])
        arguments = [*function.args.args, *function.args.kwonlyargs]
        count = len([a for a in arguments if a.arg not in ("self", "cls")])
        assert count <= 7 or "noqa: PLR0913" in header, f"{function.name} takes {count}"


@pytest.mark.parametrize("name", PATHS)
def test_everything_public_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(TREES[name])
    body = TREES[name].body
    public = [n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_nothing_unfinished_or_private_to_a_machine() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    marks = ["TO" + "DO", "FIX" + "ME", "/wo" + "rk/", "/ro" + "ot/"]
    for name in listing.stdout.splitlines():
        if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".ipynb", ".sh", ""} and (ROOT / name).is_file():
            text = (ROOT / name).read_text()
            assert [mark for mark in marks if mark in text] == [], name
