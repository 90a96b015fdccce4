"""Settings: what is given, else what the recipe says, else the default; wrong ones are named."""

import math
from dataclasses import replace

import pytest
import torch

from flexivid.budget.schedule import Schedule, budget_of, schedule_macs
from flexivid.budget.spectral import Spectrum
from flexivid.diffusion.process import Process
from flexivid.diffusion.solver import num_calls
from flexivid.model.recipe import Recipe, SamplingDefaults
from flexivid.patching.shapes import Size3
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling, full_macs, label_numbers, labels_for, resized, settings_from


def test_given_before_recipe_before_default(model):
    settings = Sampling(shift=3.0).filled(model)
    assert (settings.shift, settings.num_inference_steps, settings.solver) == (3.0, 4, "euler")
    assert settings.size == Size3(4, 8, 8)
    model.recipe = Recipe(size=(2, 4, 4), process=Process("cosine"))
    bare = Sampling().filled(model)
    assert (bare.num_inference_steps, bare.guidance_scale, bare.shift, bare.solver) == (20, 1.0, 1.0, "ddim")


def test_size_must_come_from_somewhere(model):
    model.recipe = Recipe()
    with pytest.raises(ValueError, match="got no size; expected"):
        Sampling().filled(model)
    assert Sampling(size=(1, 4, 4)).filled(model).size == Size3(1, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"guidance": "strong"}, "got guidance 'strong'; expected one of ordinary"),
        ({"guidance": "ordinary", "guide_mode": "2x4x4"}, "got guidance ordinary with guide_mode 2x4x4"),
        ({"guidance_interval": (0.8, 0.2)}, "got guidance_interval 0.8 to 0.2; expected 0 <= low < high <= 1"),
        ({"packing": "yes"}, "got packing 'yes'; expected one of auto"),
        ({"guidance_scale": 0.5}, "got guidance_scale=0.5; expected a number >= 1"),
        ({"guidance_scale": math.nan}, "got guidance_scale=nan; expected a number >= 1"),
        ({"shift": 0.0}, r"got shift=0.0; expected a number >= 0.001"),
        ({"shift": math.inf}, r"got shift=inf; expected a number >= 0.001"),
        ({"batch_size": 0}, "got batch_size=0; expected"),
        ({"size": (0, 8, 8)}, r"got size \(0, 8, 8\); expected frames, height, width >= 1"),
        ({"precision": "fp8"}, "got precision 'fp8'; expected one of auto"),
        ({"solver": "rk4"}, "got solver 'rk4' for a flow process; expected one of euler, heun"),
        ({"solver": "ddim"}, "got solver 'ddim' for a flow process; expected one of euler, heun"),
        ({"num_inference_steps": 0}, "got 0 inference steps; expected 1 to 1000"),
        ({"num_inference_steps": 1001}, "got 1001 inference steps; expected 1 to 1000"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong).filled(model)


def test_guidance_without_classes_warns_and_does_nothing(build_model):
    model = build_model(num_classes=0)
    with pytest.warns(UserWarning, match="guidance_scale has no effect"):
        assert Sampling(guidance_scale=2.0).filled(model).guidance_scale == 1.0
    assert Sampling(guidance_scale=2.0, guide_mode="2x4x4").filled(model).guidance_scale == 2.0
    model.recipe = replace(model.recipe, sampling=SamplingDefaults(guidance_scale=2.0))
    assert Sampling().filled(model).guidance_scale == 1.0


def test_misspelt_setting():
    with pytest.raises(ValueError, match=r"got sampling setting 'sovler'; expected one of .*; did you mean 'solver'\?"):
        settings_from({"sovler": "euler"})
    with pytest.raises(ValueError, match="remove it"):
        settings_from({"zzz": 1})


def test_plan_of_a_budget(model):
    settings = Sampling(guidance_scale=2.0, num_inference_steps=4).filled(model)
    assert str(plan_for(model, settings, 1.0).schedule) == "4x1x2x2+1x2x2"
    assert str(plan_for(model, settings, 0.5).schedule) == "3x2x4x4+2x4x4,1x1x2x2+1x2x2"
    weak = settings._replace(guide_mode="2x4x4", guidance="weak")
    assert str(plan_for(model, weak, 1.0).schedule) == "4x1x2x2+2x4x4"
    assert str(plan_for(model, settings._replace(guidance_scale=1.0, modes=("1x2x2",)), 1.0).schedule) == "4x1x2x2"
    with pytest.raises(ValueError, match=r"got budget 0.5; expected at least 1.0"):
        plan_for(model, settings._replace(modes=("1x2x2",)), 0.5)


def test_without_a_number_of_steps_small_budgets_are_met_by_fewer(model):
    settings = Sampling(guidance_scale=2.0).filled(model)
    plan = plan_for(model, settings, 0.07)
    assert len(plan.schedule) == 2
    assert budget_of(plan.schedule, model.config, settings.size) * 2 / 4 <= 0.07
    assert str(plan_for(model, settings._replace(modes=("1x2x2",)), 0.5).schedule) == "2x1x2x2+1x2x2"
    with pytest.raises(ValueError, match=r"got budget 0.001; expected at least 0.\d+, which is one step in the cheap"):
        plan_for(model, settings, 0.001)


@pytest.mark.parametrize("planner", ["staged", "weak_first", "three_phase", "fewer_steps", "spectral"])
@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "dpm++"])
def test_every_solver_can_run_the_plan(model, planner, solver):
    rows = (
        (1.0, 0.5, 0.2, 0.1),
        (3.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02),
        (3.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02),
    )
    model.recipe = replace(model.recipe, spectrum=Spectrum(rows, 0.5, 8))
    settings = Sampling(solver=solver, planner=planner, guidance_interval=(0.3, 0.8), guidance_scale=2.0).filled(model)
    for budget in (0.35, 0.6, 1.0):
        plan = plan_for(model, settings, budget)
        calls = num_calls(solver, plan.settings(settings).num_inference_steps)
        assert len(plan.schedule) == calls
        assert schedule_macs(plan.schedule, model.config, settings.size) <= budget * full_macs(model, settings)


def test_explicit_plan(model):
    settings = Sampling().filled(model)
    plan = Schedule.parse("1x2x4x4,3x1x2x2")
    assert plan_for(model, settings, 1.0, plan).schedule == plan_for(model, settings, 1.0, str(plan)).schedule == plan
    guided = Sampling(guidance_scale=2.0).filled(model)
    assert plan_for(model, guided, 1.0, plan).schedule == Schedule.parse("1x2x4x4+2x4x4,3x1x2x2+1x2x2")
    assert str(plan_for(model, guided, 1.0, "3x2x4x4,1x1x2x2+2x4x4").schedule) == "3x2x4x4,1x1x2x2+2x4x4"


def test_an_explicit_plan_brings_its_number_of_steps(model):
    settings = Sampling().filled(model)
    plan = plan_for(model, settings, 1.0, "9x2x4x4,1xreuse,2x1x2x2")
    assert plan.settings(settings).num_inference_steps == 12
    assert (
        plan_for(model, Sampling(solver="heun").filled(model), 1.0, "5x1x2x2")
        .settings(settings._replace(solver="heun"))
        .num_inference_steps
        == 3
    )


@pytest.mark.parametrize(
    ("solver", "schedule", "message"),
    [
        ("heun", "4x1x2x2", r"got a schedule of 4 steps; expected 3 \(2 inference steps of heun\)"),
        ("euler", "1xreuse,3x1x2x2", r"got schedule 1xreuse,3x1x2x2, which begins with reuse; expected a call"),
        ("euler", "4x3x3x3", r"got mode 3x3x3; expected one the model has \(1x2x2, 2x4x4\)"),
        ("euler", "4x1x2x2+9x9x9", r"got mode 9x9x9; expected one the model has"),
        ("euler", "banana", r"got schedule part 'banana'; expected COUNTxMODE"),
    ],
)
def test_plans_that_do_not_fit(model, solver, schedule, message):
    with pytest.raises(ValueError, match=message):
        plan_for(model, Sampling(solver=solver).filled(model), 1.0, schedule)


def test_a_number_of_steps_that_is_asked_for_is_kept(model):
    settings = Sampling(num_inference_steps=4).filled(model)
    with pytest.raises(ValueError, match=r"got a schedule of 3 steps; expected 4 \(4 inference steps of euler\)"):
        plan_for(model, settings, 1.0, "3x1x2x2")


@pytest.mark.parametrize("planner", ["staged", "fewer_steps"])
def test_planners_that_choose_the_number_of_steps_meet_small_budgets_all_the_same(model, planner):
    settings = Sampling(num_inference_steps=100, planner=planner).filled(model)
    plan = plan_for(model, settings, 0.01)
    assert 0 < settings.schedule_macs(model.config, plan.schedule) <= 0.01 * full_macs(model, settings)
    with pytest.raises(ValueError, match=r"got budget 0\.01; expected at least .* every step in the cheapest mode"):
        plan_for(model, settings._replace(planner="weak_first"), 0.01)


def test_what_has_no_effect_warns(model):
    with pytest.warns(UserWarning, match="the guidance of the schedule has no effect, but costs: guidance_scale is 1"):
        plan_for(model, Sampling().filled(model), 1.0, "1x2x4x4+2x4x4,1x1x2x2")
    model.recipe = Recipe(size=(2, 4, 4), process=Process("cosine"))
    with pytest.warns(UserWarning, match="shift has no effect on a cosine process, only on flow"):
        assert Sampling(shift=3.0).filled(model) == Sampling().filled(model)


@pytest.mark.parametrize("wrong", [{"modes": ("3x3x3",)}, {"guide_mode": "3x3x3", "guidance_scale": 2.0}])
def test_unknown_modes(model, wrong):
    with pytest.raises(ValueError, match=r"got mode 3x3x3; expected one the model has \(1x2x2, 2x4x4\)"):
        plan_for(model, Sampling(**wrong).filled(model), 1.0)


def test_resized(model):
    settings = Sampling().filled(model)
    assert resized(model, settings, None, None, None) == settings
    assert resized(model, settings, 2, None, 16).size == Size3(2, 8, 16)
    with pytest.raises(ValueError, match="got size"):
        resized(model, settings, 0, None, None)


def test_labels_by_name_before_number(model):
    assert label_numbers(model, None) is None
    assert label_numbers(model, ["dog", "0", "7"]) == [1, 0, 2]  # a class is named 7
    with pytest.raises(ValueError, match="got label 'zebra'; expected one of cat, dog, 7; change --label"):
        label_numbers(model, ["zebra"])
    with pytest.raises(ValueError, match="got label '\u00b2'; expected one of cat"):
        label_numbers(model, ["\u00b2"])  # a digit for Python, and no number


def test_labels_go_in_turn(model, build_model):
    assert labels_for(model, 5, None).tolist() == [0, 1, 2, 0, 1]
    assert labels_for(model, 3, [2]).tolist() == [2, 2, 2]
    assert labels_for(model, None, torch.tensor([1, 2])).tolist() == [1, 2]
    assert labels_for(build_model(num_classes=0), 2, None).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("classes", "count", "labels", "message"),
    [
        (3, None, [3], r"got labels \[3\]; expected whole numbers from 0 to 2"),
        (3, None, [-1], r"got labels \[-1\]; expected whole numbers from 0 to 2"),
        (3, None, [1.7], r"got labels \[1.7\d*\]; expected whole numbers from 0 to 2"),
        (0, None, [0], r"got labels \[0\]; expected none, the model has no classes"),
        (3, 0, None, r"got 0 videos; expected at least 1"),
    ],
)
def test_labels_out_of_range(build_model, classes, count, labels, message):
    with pytest.raises(ValueError, match=message):
        labels_for(build_model(num_classes=classes), count, labels)
