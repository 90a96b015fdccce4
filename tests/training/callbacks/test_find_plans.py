"""A short search when training ends: kept with the model, used by samples and by the curve, never fatal."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch

from flexivid import Schedule, load
from flexivid.budget.schedule import schedule_macs
from flexivid.budget.table import read_tables, write_tables
from flexivid.evaluation.rivals import native_plan
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling, full_macs
from flexivid.training.callbacks import ExportModel, FindPlans, FVDVsBudget, SampleVideos, find_plans
from flexivid.training.callbacks.find_plans import SharedScorer
from flexivid.training.callbacks.plans_and_clips import possible_plans

pytestmark = pytest.mark.filterwarnings("ignore:got .* videos. expected at least")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """So few videos and steps that a search takes a second."""
    monkeypatch.setattr(find_plans, "FEWEST_VIDEOS", 4)
    monkeypatch.setattr("flexivid.calibration.plan_search.FEWEST_VIDEOS", 4)
    monkeypatch.setattr(find_plans, "ENOUGH_STEPS", 5)


def test_the_model_is_left_with_its_floor_and_its_plans(noisy_module, make_data, make_trainer, tmp_path):
    curve = FVDVsBudget(budgets=[1.0, 0.5], num_videos=6, every_n_steps=0, batch_size=2)
    callbacks = [ExportModel(), FindPlans(num_videos=6), SampleVideos(budgets=[0.5], num_videos=2), curve]
    make_trainer(tmp_path, 3, *callbacks).fit(noisy_module, make_data())
    model = load(tmp_path)
    (table,) = read_tables(tmp_path)
    assert table.model == fingerprint(model)
    assert table.step_floor == model.recipe.step_floor <= 5
    steps = model.recipe.sampling.num_inference_steps
    assert steps == max(find_plans.FEWEST_STEPS, table.step_floor)
    assert dict(table.settings)["num_inference_steps"] == steps
    settings = Sampling().filled(model)
    plan = plan_for(model, settings, 0.5, tables=[table])
    assert plan.planner == "searched_fvd"
    assert schedule_macs(plan.schedule, model.config, settings.size) <= 0.5 * full_macs(model, settings)
    (file,) = (tmp_path / "evaluations").glob("*.json")
    rows = json.loads(file.read_text())["budgets"]
    assert rows[1]["schedule"] == str(plan.schedule)
    assert len(Schedule.parse(rows[0]["schedule"])) >= 1


def test_the_number_of_steps_may_be_kept(noisy_module, make_data, make_trainer, tmp_path):
    make_trainer(tmp_path, 2, ExportModel(), FindPlans(num_videos=4, steps=False)).fit(noisy_module, make_data())
    recipe = load(tmp_path).recipe
    assert (recipe.sampling.num_inference_steps, recipe.step_floor <= 5) == (20, True)


def test_failure_is_a_warning_and_costs_nothing_else(noisy_module, make_data, make_trainer, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise ValueError("no floor today")

    monkeypatch.setattr(find_plans, "step_floor", broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(tmp_path, 2, ExportModel(), FindPlans(num_videos=4)).fit(noisy_module, make_data())
    assert any("no plans were searched: no floor today" in str(warning.message) for warning in caught)
    assert load(tmp_path).recipe.sampling.num_inference_steps == 20
    assert read_tables(tmp_path) == []


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_make_the_samples_of_one_process(noisy_module, monkeypatch, world_size):
    from flexivid.calibration.scoring import Judge
    from flexivid.metrics.extractors.extractor import build_extractor

    network = noisy_module.network.eval()
    network.recipe = replace(noisy_module.recipe(), size=(4, 16, 16))
    settings = Sampling(precision="fp32", batch_size=2).filled(network)
    judge = Judge(build_extractor("motion"), torch.zeros(2, 96), conditions_for(network, 7), "fvd[motion]")
    plan = native_plan(network, settings, 2)
    alone = SharedScorer(network, settings, judge).features(plan, 7)
    shares = []
    monkeypatch.setattr(find_plans, "gathered", lambda own: shares.append(own) or shares)
    for rank in range(world_size):
        merged = SharedScorer(network, settings, judge, rank, world_size).make(plan, range(7))
    assert torch.equal(merged, alone)
    assert sum(len(share) for share in shares) == 4


def test_what_was_measured_of_other_weights_is_left_alone(noisy_module, make_data, make_trainer, tmp_path):
    make_trainer(tmp_path, 2, ExportModel(), FindPlans(num_videos=4)).fit(noisy_module, make_data())
    (table,) = read_tables(tmp_path)
    network = load(tmp_path)
    settings = Sampling().filled(network)
    assert possible_plans(network, settings, [0.5], tmp_path)[0].planner == "searched_fvd"
    write_tables(tmp_path, [table._replace(model="0" * 12)])
    assert possible_plans(network, settings, [0.5], tmp_path)[0].planner == "staged"


def test_impossible_settings():
    with pytest.raises(ValueError, match=r"got max_seconds=0; expected more than 0; change FindPlans\.max"):
        FindPlans(max_seconds=0)
