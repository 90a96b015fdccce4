"""The floor plan of docs/architecture.md held against the code: who imports whom, lengths, public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flexivid

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flexivid"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}

MAY_IMPORT = {  # room: the rooms below it that it may use
    "patching": set(),
    "budget": {"patching"},
    "model": {"patching"},
    "diffusion": {"budget", "patching"},
    "latents": {"budget", "patching"},
    "data": set(),
    "metrics": set(),
    "pretrained": {"budget", "patching"},
    "pipeline": {"pretrained", "metrics", "data", "latents", "diffusion", "model", "budget", "patching"},
    "training": {"pipeline", "pretrained", "metrics", "data", "latents", "diffusion", "model", "budget", "patching"},
}
MAY_IMPORT = {"files": set(), **{name: {"files", *below} for name, below in MAY_IMPORT.items()}}
NO_TORCH = ["__init__", "__main__", "sample", "train", "patching.shapes", "budget.cost", "budget.schedule"]
NO_TORCH += ["budget.allowance", "budget.scores"]
NO_TORCH += ["evaluate", "search", "flexify", "budget.search", "budget.table", "budget.units", "budget.planners"]
NO_TORCH += ["budget.spectral"]
NO_TORCH += ["files.paths", "model.config", "pipeline.messages", "pipeline.shipped", "data.clips", "data.manifest"]
PUBLIC = {
    "PatchMode", "FlexiDiTConfig", "FlexiDiT", "Condition", "macs", "Step", "Schedule", "weak_first", "constant",
    "for_budget", "budget_of", "generate", "load", "flexify", "set_mode", "apply_budget", "__version__",
}  # fmt: skip


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(nodes: list[ast.stmt] | ast.Module) -> set[str]:
    """Full names of what is imported, inside functions too when a whole module is given."""
    walk = ast.walk(nodes) if isinstance(nodes, ast.Module) else iter(nodes)
    names: set[str] = set()
    for node in walk:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "flexivid" and parts[1] in MAY_IMPORT else None


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def test_every_room_has_a_place() -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    own = room(name)
    used = {room(other) for other in imported(tree(MODULES[name]))} - {None, own}
    assert own is None or used <= MAY_IMPORT[own], f"{name} uses {used - MAY_IMPORT[own]}"


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_no_program_and_nothing_by_its_public_name(name: str) -> None:
    outside = {other for other in imported(tree(MODULES[name])) if other.startswith("flexivid.") and not room(other)}
    assert room(name) is None or not outside


def test_diffusion_knows_steps_and_no_costs() -> None:
    used = {other for name in MODULES if room(name) == "diffusion" for other in imported(tree(MODULES[name]))}
    assert {other for other in used if room(other) == "budget" and other in MODULES} == {"flexivid.budget.schedule"}


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) == "files"])
def test_files_use_the_standard_library_only(name: str) -> None:
    assert {other.split(".")[0] for other in imported(tree(MODULES[name]))} <= set(sys.stdlib_module_names)


def test_no_circles_inside_a_room() -> None:
    edges = {name: {n for n in imported(tree(path)) if n in MODULES and n != name} for name, path in MODULES.items()}
    done: set[str] = {"flexivid"}  # the public names are loaded on first use

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
    assert done >= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_lightning_only_at_the_edge(name: str) -> None:
    uses = any(other.split(".")[0] in ("lightning", "pytorch_lightning") for other in imported(tree(MODULES[name])))
    assert not uses or room(name) == "training" or name == "flexivid.data.module"


@pytest.mark.parametrize("name", NO_TORCH)
def test_no_torch_at_module_level(name: str) -> None:
    top = imported(tree(PACKAGE / (name.replace(".", "/") + ".py")).body)
    assert not {other for other in top if other.split(".")[0] in ("torch", "lightning", "diffusers", "einops")}


def test_shapes_use_the_standard_library_only() -> None:
    top = {other.split(".")[0] for other in imported(tree(PACKAGE / "patching/shapes.py"))}
    assert top <= set(sys.stdlib_module_names)


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_limits(path: Path) -> None:
    text = path.read_text()
    assert text.isascii()
    assert len(text.splitlines()) <= 300
    assert path.stem not in ("utils", "common", "helpers", "misc")
    for function in functions(path):
        documented = ast.get_docstring(function) is not None
        first = function.body[1].lineno if documented and len(function.body) > 1 else function.body[0].lineno
        assert (function.end_lineno or 0) - first < 40, f"{function.name} is too long"
        header = "\n".join(text.splitlines()[function.lineno - 1 : function.body[0].lineno])
        arguments = [*function.args.args, *function.args.kwonlyargs]
        count = len([a for a in arguments if a.arg not in ("self", "cls")])
        assert count <= 7 or "noqa: PLR0913" in header, f"{function.name} takes {count}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_everything_public_says_what_it_is(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module)
    named = [n for n in module.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    assert [node.name for node in named if not ast.get_docstring(node)] == []


def test_public_names() -> None:
    assert set(flexivid.__all__) == PUBLIC
    assert all(getattr(flexivid, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError):
        flexivid.no_such_name  # noqa: B018


def test_nothing_unfinished_or_private_to_a_machine() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    marks = ["TO" + "DO", "FIX" + "ME", "/wo" + "rk/", "/ro" + "ot/"]
    for name in listing.stdout.splitlines():
        if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".ipynb", ".sh", ""} and (ROOT / name).is_file():
            text = (ROOT / name).read_text()
            assert [mark for mark in marks if mark in text] == [], name
