"""A guidance scale for steps in weak modes: one scale where both are equal, and nothing is paid where it is 1."""

from dataclasses import replace

import pytest
import torch

from flexivid.budget.cost import macs
from flexivid.budget.schedule import Schedule, schedule_macs
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.budget.table import read_tables, write_tables
from flexivid.calibration.plan_search import variations
from flexivid.model.checkpoint import fingerprint
from flexivid.model.recipe import Recipe
from flexivid.sampling.generate import generate
from flexivid.sampling.plan import plan_for, table_settings
from flexivid.sampling.settings import Sampling, full_macs

MIXED, COARSE, NATIVE = "2x2x4x4,2x1x2x2", "4x2x4x4", "4x1x2x2"
SHARED = {"precision": "fp32", "labels": [0, 1], "seed": 3}


def videos(model, schedule, **options):
    return generate(model, schedule=schedule, **SHARED, **options).videos


@pytest.mark.parametrize("kind", ["ordinary", "weak", "auto"])
def test_equal_scales_are_one(model, kind):
    one = {"guidance_scale": 3.0, "guidance": kind}
    assert torch.equal(videos(model, MIXED, **one), videos(model, MIXED, **one, weak_guidance_scale=3.0))
    settings = [Sampling(**one, weak_guidance_scale=scale).filled(model) for scale in (None, 3.0)]
    assert settings[0] == settings[1]


def test_each_stage_has_its_own(model):
    own = {"guidance_scale": 3.0, "weak_guidance_scale": 1.5}
    assert torch.equal(videos(model, COARSE, **own), videos(model, COARSE, guidance_scale=1.5))
    assert torch.equal(videos(model, NATIVE, **own), videos(model, NATIVE, guidance_scale=3.0))
    assert not torch.equal(videos(model, MIXED, **own), videos(model, MIXED, guidance_scale=3.0))


def test_a_model_brings_its_own(model):
    sampling = replace(model.recipe.sampling, guidance_scale=3.0, weak_guidance_scale=1.5)
    model.recipe = replace(model.recipe, sampling=sampling)
    own, asked = Sampling().filled(model), Sampling(guidance_scale=2.0).filled(model)
    assert (own.guidance_scale, own.weak_scale) == (3.0, 1.5)
    assert (asked.guidance_scale, asked.weak_scale) == (2.0, 2.0)  # who asks for a scale asks for all steps
    assert Recipe.from_dict(model.recipe.to_dict()) == model.recipe


def test_a_scale_of_1_is_one_call(model):
    size, config = (4, 8, 8), model.config
    weak, native = macs(config, size, "2x4x4"), macs(config, size)
    costs = {(3.0, 1.0): 2 * weak + 4 * native, (1.0, 3.0): 4 * weak + 2 * native, (3.0, 2.0): 4 * (weak + native)}
    for (scale, weak_scale), cost in costs.items():
        made = generate(
            model, schedule=MIXED, size=size, guidance_scale=scale, weak_guidance_scale=weak_scale, **SHARED
        )
        assert made.measured_macs == made.predicted_macs == 2 * cost


def test_a_budget_buys_more_without_guidance_in_weak_steps(model):
    guided = Sampling(guidance_scale=3.0).filled(model)
    plain = guided._replace(weak_guidance_scale=1.0)
    assert full_macs(model, guided) == full_macs(model, plain)
    plans = [plan_for(model, settings._replace(planner="weak_first"), 0.7) for settings in (guided, plain)]
    assert all(
        schedule_macs(plan.schedule, model.config, guided.size) <= 0.7 * full_macs(model, guided) for plan in plans
    )
    modes = [[step.mode for step in plan.schedule].count(model.config.native) for plan in plans]
    assert modes[0] <= modes[1]
    assert all((step.guide_mode is None) == (step.mode != model.config.native) for step in plans[1].schedule)


def test_a_searched_plan_is_sampled_with_it(model, tmp_path):
    settings = Sampling(precision="fp32", guidance_scale=3.0).filled(model)
    plan = plan_for(model, settings, 1.0, MIXED)
    varied = [one for one in variations(model, settings, plan) if "weak_guidance_scale" in one.sampling]
    assert {one.sampling["weak_guidance_scale"] for one in varied} == {1.0, 2.0, 4.0}
    by = {"metric": "fvd[motion]", "num_real": 9, "seed": 0}
    for one in varied:
        row = ScoredPlan(str(one.schedule), dict(one.sampling), 5.0, 4.0, 6.0, 64)
        write_tables(tmp_path, [ScoreTable(fingerprint(model), table_settings(settings), (row,), by)])
        searched = generate(model, 1.0, tables=read_tables(tmp_path), guidance_scale=3.0, **SHARED)
        assert searched.schedule == one.schedule
        by_hand = videos(model, MIXED, guidance_scale=3.0, **one.sampling)
        assert torch.equal(searched.videos, by_hand)
        assert searched.measured_macs == searched.predicted_macs
    plain = next(one for one in varied if one.sampling["weak_guidance_scale"] == 1)
    assert plain.schedule == Schedule.parse("2x2x4x4,2x1x2x2+1x2x2")


def test_what_was_measured_without_it_is_found_without_it_only(model):
    settings = Sampling(guidance_scale=3.0).filled(model)
    assert "weak_guidance_scale" not in table_settings(settings)
    assert table_settings(settings._replace(weak_guidance_scale=2.0)) != table_settings(settings)


def test_what_makes_no_sense_is_refused_or_warned_of(model, build_model):
    with pytest.raises(ValueError, match=r"got weak_guidance_scale=0\.5; expected a number >= 1"):
        Sampling(weak_guidance_scale=0.5).filled(model)
    with pytest.warns(UserWarning, match="weak_guidance_scale has no effect: the model has no classes"):
        settings = Sampling(weak_guidance_scale=2.0).filled(build_model(num_classes=0))
    assert settings.weak_scale == 1


def test_more_scale_for_less_compute_in_both_stages(model):
    own = {"guidance_scale": 3.0, "weak_guidance_scale": 1.0, "compensate_guidance": True}
    assert torch.equal(videos(model, COARSE, **own), videos(model, COARSE))
    same = [
        videos(model, MIXED, guidance_scale=3.0, compensate_guidance=True, **one)
        for one in ({}, {"weak_guidance_scale": 3.0})
    ]
    assert torch.equal(*same)
