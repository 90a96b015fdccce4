"""The ways through the house are short: from the command line to the network, and from a budget to a schedule."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flexivid
from flexivid import FlexiDiT, FlexiDiTConfig, sample
from flexivid.budget import measured, planners
from flexivid.budget.schedule import Schedule
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.budget.table import FILE, write_tables
from flexivid.calibration.calibrate import calibrate
from flexivid.model.checkpoint import fingerprint, load, save
from flexivid.model.recipe import Recipe
from flexivid.sampling.plan import table_settings
from flexivid.sampling.settings import Sampling

PACKAGE = Path(flexivid.__file__).parent
MOST_FRAMES = 8
MOST_FILES = 3
RECIPE = Recipe(size=(2, 4, 4), sampling={"num_inference_steps": 4})


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.manual_seed(0)
    config = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=2)
    return save(FlexiDiT(config), tmp_path / "model", recipe=RECIPE)


def frames_here() -> list[str]:
    """Frames of the package that are on the stack, the outermost first, as file:function."""
    stack = [(Path(frame.f_code.co_filename), frame.f_code.co_name) for frame, _ in traceback.walk_stack(None)]
    return [f"{path.relative_to(PACKAGE)}:{name}" for path, name in reversed(stack) if PACKAGE in path.parents]


@pytest.mark.parametrize("words", [["--guidance-scale", "2", "--guidance", "weak"], ["--packing", "always"], []])
def test_from_the_command_line_to_the_network_it_is_eight_frames(checkpoint, tmp_path, monkeypatch, words) -> None:
    stacks: list[list[str]] = []
    forward = FlexiDiT.forward

    def watched(self, x, *args, **options):
        stacks.append([*frames_here(), "model/flexidit.py:forward"])
        return forward(self, x, *args, **options)

    monkeypatch.setattr(FlexiDiT, "forward", watched)
    options = ["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "out"), "--budget", "0.5", *words]
    monkeypatch.setattr(sys, "argv", ["sample", *options])
    monkeypatch.delitem(sys.modules, "flexivid.sample")
    runpy.run_module("flexivid.sample", run_name="__main__")
    denoising = [stack for stack in stacks if any("denoiser" in frame for frame in stack)]
    assert denoising
    assert {stack[0] for stack in denoising} == {"sample.py:<module>"}
    longest = max(denoising, key=len)
    assert len(longest) <= MOST_FRAMES, longest


def files_to(function: str, call: Callable[[], object]) -> list[str]:
    """Files of the package on the way to a function of a planner, the outermost first."""
    found: list[list[str]] = []

    def watch(frame, event, arg):
        if event == "call" and frame.f_code.co_name == function and "budget" in frame.f_code.co_filename:
            found.append(frames_here())

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    assert found, f"{function} was not called"
    return list(dict.fromkeys(frame.split(":")[0] for stack in found for frame in stack))


def plans(checkpoint: Path, *words: str) -> list:
    options = sample.build_parser().parse_args(list(words))
    model = load(checkpoint)
    settings = Sampling(planner=options.planner).filled(model)
    return sample.sampling_plans(options, model, settings, checkpoint, {mode: 0.1 for mode in model.config.modes})


@pytest.mark.parametrize("planner", planners.PLANNERS)
@pytest.mark.parametrize("unit", ["--budget", "--budget_gmacs", "--budget_seconds"])
def test_from_the_flag_to_the_schedule_it_is_three_files(checkpoint, planner, unit) -> None:
    amounts = {"--budget": "0.5", "--budget_gmacs": "1", "--budget_seconds": "2"}
    files = files_to(planner, lambda: plans(checkpoint, unit, amounts[unit], "--planner", planner))
    assert files == ["sample.py", "sampling/plan.py", "budget/planners.py"]
    assert len(files) <= MOST_FILES


def test_what_was_searched_is_as_near(checkpoint) -> None:
    model = load(checkpoint)
    settings = Sampling(precision="fp32").filled(model)
    row = ScoredPlan("1x2x4x4,1x1x2x2", {}, 1.0, 0.5, 1.5, 64)
    scores = ScoreTable(fingerprint(model), table_settings(settings), (row,), {"metric": "m"})
    write_tables(checkpoint / FILE, [scores, calibrate(model, settings, num_videos=1).table])
    for planner, function in (("searched", "searched_over"), ("searched_fvd", "best_scored")):
        assert hasattr(measured, function)
        files = files_to(function, lambda name=planner: plans(checkpoint, "--budget", "0.9", "--planner", name))
        assert files == ["sample.py", "sampling/plan.py", "budget/measured.py"]


def test_the_python_way_is_as_short(model) -> None:
    files = files_to("weak_first", lambda: flexivid.for_budget(0.5, model.config, (4, 8, 8)))
    assert files == ["budget/planners.py"]
    options = {"num_videos": 1, "num_inference_steps": 3, "precision": "fp32"}
    files = files_to("weak_first", lambda: flexivid.generate(model, 0.5, **options))
    assert files == ["sampling/generate.py", "sampling/plan.py", "budget/planners.py"]


def test_weights_are_hashed_once_for_all_budgets(checkpoint, monkeypatch) -> None:
    from flexivid.model import checkpoint as checkpoints

    model = load(checkpoint)
    settings = Sampling(precision="fp32").filled(model)
    row = ScoredPlan(str(Schedule.parse("1x1x2x2")), {}, 1.0, 0.5, 1.5, 64)
    scores = ScoreTable(fingerprint(model), table_settings(settings), (row,), {"metric": "m"})
    write_tables(checkpoint / FILE, [scores])
    hashed: list[object] = []
    hash_of = checkpoints._hash
    monkeypatch.setattr(checkpoints, "_hash", lambda model: hashed.append(model) or hash_of(model))
    plans(checkpoint, "--budget", "1", "0.8", "0.6")
    assert len(hashed) == 1
