"""Sampling options are one list: every program has them all, and none that a program lists is without effect."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flexivid import FlexiDiT, FlexiDiTConfig, evaluate, sample, search
from flexivid.calibration import calibrate, plan_search, scoring, searched
from flexivid.model.checkpoint import load, save
from flexivid.model.recipe import Recipe
from flexivid.pipelines import sample as pipeline_sample
from flexivid.sampling import compiling, sample_folder, settings
from flexivid.sampling.conditions import Conditions, conditions_for
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.options import OPTIONS, PLANNERS, Sampling, sampling_options
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Settings, settings_from

PROGRAMS = {"sample": sample, "search": search, "evaluate": evaluate}
RECIPE = Recipe.from_dict(
    {
        "process": {"path": "flow", "target": "x0"},
        "size": [4, 8, 8],
        "fps": 8.0,
        "class_names": ["cat", "dog"],
        "sampling": {"num_inference_steps": 4, "guidance_scale": 2.0},
    }
)
SHARED = {  # an option of sampling: another value than its default
    "num_inference_steps": ["3"],
    "guidance_scale": ["3"],
    "guide_mode": ["2x4x4"],
    "solver": ["heun"],
    "shift": ["2"],
    "batch_size": ["2"],
    "precision": ["bf16"],
    "modes": ["2x4x4"],
    "planner": ["weak_first"],
    "guidance": ["auto"],
    "guidance_interval": ["0.2", "0.8"],
    "compensate_guidance": [],
    "packing": ["never"],
    "weak_guidance_scale": ["1.5"],
    "frame_guidance": [],
    "window": ["none"],
}
OF_SAMPLE = {
    **{"checkpoint": ["other"], "num_videos": ["3"], "label": ["dog"], "seed": ["1"], "device": ["cuda:99"]},
    **{"num_frames": ["2"], "height": ["4"], "width": ["4"], "size": ["4"], "fps": ["5"], "output_dir": ["elsewhere"]},
    **{"budget": ["0.5"], "budget_gmacs": ["1"], "budget_seconds": ["100"], "schedule": ["3x2x4x4,1x1x2x2"]},
    **{"compile": [], "no_ema": [], "dry_run": [], "json": [], "pipeline": ["wan"], "adapter": ["modes"]},
    **{"prompt": ["a cat"], "negative_prompt": ["a dog"], "merge_lora": [], "variant": ["fp16"], "revision": ["main"]},
    **{"local_files_only": [], "use_safetensors": [], "prompts_file": ["texts.txt"], "image": ["a.png"]},
    **{"last_image": ["a.png"], "continue_from": ["a.mp4"], "codec": ["taef2"], "text_encoder": ["t5"]},
}
OF_SEARCH = {
    **{"checkpoint": ["other"], "goal": ["fidelity"], "reference": ["videos"]},
    **{"layout": ["flat"], "num_videos": ["3"], "max_switches": ["1"], "device": ["cuda:99"], "no_ema": []},
    **{"json": [], "prompts_file": ["texts.txt"], "codec": ["taef2"], "text_encoder": ["t5"]},
}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def names_of(program: Any) -> set[str]:
    return set(vars(program.build_parser().parse_args([])))


@pytest.fixture(autouse=True)
def two_models(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("model", "other")):
        torch.manual_seed(seed)
        config = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "1x4x4", "2x4x4"), num_classes=2)
        save(FlexiDiT(config), tmp_path / name, recipe=RECIPE)


def test_programs_share_all_sampling_options_and_no_others() -> None:
    assert set(OPTIONS) == set(Sampling.__dataclass_fields__) - {"size"}
    for name, program in PROGRAMS.items():
        assert set(OPTIONS) <= names_of(program), name
    own = {name: names_of(program) - set(OPTIONS) for name, program in PROGRAMS.items()}
    assert not any((set(Sampling.__dataclass_fields__) - {"size"}) & names for names in own.values())


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_flag_sets_its_field_and_no_other(program: str) -> None:
    parse = PROGRAMS[program].build_parser().parse_args
    before = sampling_options(parse([]))
    assert settings_from(before) == Sampling()
    assert set(SHARED) == set(OPTIONS)
    for name, words in SHARED.items():
        after = sampling_options(parse([f"--{name}", *words]))
        assert {key for key in OPTIONS if after[key] != before[key]} == {name}


def outcome(program: Any, words: list[str], seen: list, capsys) -> tuple:
    """What a program did with its options: what it printed, what it handed on, or how it refused."""
    seen.clear()
    try:
        program.main(words)
    except SystemExit as stop:
        return "refused", stop.code, capsys.readouterr().err
    return capsys.readouterr().out, str(seen)


@pytest.fixture
def watched_sample(monkeypatch) -> list:
    """``flexivid.sample`` up to the making of samples."""
    seen: list = []

    def write_samples(model, plans, folder, *, settings, conditions, seed, on_step):
        facts = [(str(plan.followed), plan.budget, str(plan.settings(settings))) for plan in plans]
        seen.append((facts, conditions.labels.tolist(), seed, str(folder), model.recipe.fps, "forward" in vars(model)))
        return []

    monkeypatch.setattr(sample_folder, "write_samples", write_samples)
    monkeypatch.setattr(compiling, "warm_up_plans", lambda *args: 0.0)
    monkeypatch.setattr(pipeline_sample, "run_pipeline", lambda options: seen.append("a pipeline") or {})
    return seen


@pytest.mark.filterwarnings("ignore:.*dynamo")
def test_every_option_of_sample_has_an_effect_or_is_refused(watched_sample, capsys) -> None:
    base = ["--checkpoint", "model", "--budget", "0.4"]
    changes = {**SHARED, **OF_SAMPLE}
    assert set(changes) == names_of(sample)
    before = outcome(sample, base, watched_sample, capsys)
    assert before[0] != "refused"
    assert outcome(sample, base, watched_sample, capsys) == before
    for name, words in changes.items():
        first = base[:2] if name in ("budget_gmacs", "budget_seconds", "schedule") else base
        assert outcome(sample, [*first, flag(name), *words], watched_sample, capsys) != before, name


@pytest.fixture
def watched_search(monkeypatch) -> list:
    """``flexivid.search`` without the measuring."""
    seen: list = []
    judge = SimpleNamespace(real=[0], conditions=Conditions(torch.zeros(1, dtype=torch.long)))

    def write_down(*args, **options):
        seen.append((args[1:], {key: value for key, value in options.items() if key not in ("grow", "on_samples")}))
        return judge

    monkeypatch.setattr(scoring, "find_judge", lambda request, device: write_down(None, request, device))
    monkeypatch.setattr(plan_search, "search_plans", write_down)
    monkeypatch.setattr(
        calibrate, "calibrate", lambda *args, on_calls, **options: seen.append((args[1:], options)) or judge
    )
    monkeypatch.setattr(calibrate, "relate", lambda measured: [])
    monkeypatch.setattr("flexivid.budget.table.write_tables", lambda *args: None)
    for name in ("score_lines", "searched_lines"):
        monkeypatch.setattr(searched, name, lambda *args: [])
    for name in ("draw_scores", "draw_schedules"):
        monkeypatch.setattr(searched, name, lambda *args: None)
    return seen


@pytest.mark.parametrize("goal", search.GOALS)
def test_every_option_of_search_has_an_effect_or_is_refused(goal: str, watched_search, capsys) -> None:
    base = ["--checkpoint", "model", "--goal", goal]
    changes = {**SHARED, **OF_SEARCH, "goal": ["fidelity" if goal == "fvd" else "fvd"]}
    assert set(changes) == names_of(search)
    before = outcome(search, base, watched_search, capsys)
    assert before[0] != "refused"
    assert outcome(search, base, watched_search, capsys) == before
    for name, words in changes.items():
        assert outcome(search, [*base, flag(name), *words], watched_search, capsys) != before, name


def test_every_setting_is_read_by_what_plans_or_samples(model, monkeypatch) -> None:
    """No setting is there for show: the code that plans and samples asks for each."""
    read: set[str] = set()
    rooms = [str(Path(settings.__file__).parent), str(Path(calibrate.__file__).parent)]

    class Watched(Settings):
        def __getattribute__(self, name: str) -> Any:
            caller = sys._getframe(1).f_code
            if any(caller.co_filename.startswith(room) for room in rooms) and caller.co_name not in (
                "check",
                "_asdict",
            ):
                read.add(name)
            return super().__getattribute__(name)

    values = Sampling(guidance_scale=2.0, guidance_interval=(0.1, 0.9), precision="fp32").filled(model)._asdict()
    watched = Watched(**values)
    plan = plan_for(model, watched, 0.5)
    list(generate_batches(model, plan.followed, plan.settings(watched), conditions=conditions_for(model, 2)))
    assert set(OPTIONS) - {"window"} | {"size", "fixed_steps"} <= read  # a window is chosen when settings are filled in


def test_settings_are_in_the_order_in_which_results_name_them(model) -> None:
    """Protocols and manifests of results hold settings as text: their order must stay as it is."""
    assert list(Sampling().filled(model)._asdict()) == [
        *("num_inference_steps", "guidance_scale", "guide_mode", "solver", "shift", "size", "batch_size", "precision"),
        *("modes", "planner", "guidance", "guidance_interval", "compensate_guidance", "packing"),
        *("weak_guidance_scale", "fixed_steps"),
    ]


def test_unknown_values_are_refused_by_name(model) -> None:
    with pytest.raises(ValueError, match=f"got planner 'best'; expected one of {', '.join(PLANNERS)}; choose one"):
        Sampling(planner="best").filled(model)
    with pytest.raises(ValueError, match="got guidance 'strong'; expected one of ordinary, weak, auto; choose one"):
        Sampling(guidance="strong").filled(model)
    with pytest.raises(ValueError, match="got packing 'often'; expected one of auto, always, never; choose one"):
        Sampling(packing="often").filled(load("model"))
