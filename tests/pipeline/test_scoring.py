"""Schedules held against real videos: what is tried, and that scores are those of the samples."""

import pytest
import torch

from flexivid import Schedule
from flexivid.budget.planners import scored_front
from flexivid.latents.codec import to_bytes
from flexivid.metrics.features import build_extractor
from flexivid.metrics.scores import score
from flexivid.pipeline.calibration import SEED, calibrate, relate
from flexivid.pipeline.evaluation import extract
from flexivid.pipeline.generate import generate
from flexivid.pipeline.sampling import Sampling, fraction_of, labels_for
from flexivid.pipeline.scoring import Judge, candidates, num_sample_steps, score_schedules
from flexivid.pipeline.searched import draw_schedules, scored_lines

BUDGETS = (0.8, 0.4, 0.05)
pytestmark = pytest.mark.filterwarnings("ignore:got 6 videos")


@pytest.fixture(params=[{}, {"guidance_scale": 2.0, "guidance_interval": (0.4, 0.8)}], ids=["plain", "interval"])
def searched(model, request):
    settings = Sampling(precision="fp32", num_inference_steps=5, **request.param).filled(model)
    every = [settings, settings._replace(num_inference_steps=2)]
    return model, every, relate([calibrate(model, one, num_videos=2) for one in every])


@pytest.fixture
def judge(model):
    extractor = build_extractor("motion")
    real = extract(extractor, to_bytes(torch.rand(12, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))))
    return Judge(extractor, real, labels_for(model, 6, None), "fvd[motion]")


def test_every_option_alone_and_mixtures_within_each_budget(searched):
    model, every, tables = searched
    found = candidates(model, every, tables, BUDGETS)
    for settings, own in zip(every, found, strict=True):
        whole = fraction_of(model, settings, 1.0)
        assert {(option,) * whole.num_steps for option in range(len(whole.options))} <= set(own)
        assert len(set(own)) == len(own)
    assert any(len(set(choice)) > 1 for choice in found[0])
    full = fraction_of(model, every[0], 1.0)
    for budget in BUDGETS[:2]:
        costs = [full.cost(full.schedule(choice)) / full.full for choice in found[0]]
        assert max(cost for cost in costs if cost <= budget) > budget - 0.35


def test_scores_are_those_of_the_samples(searched, judge, tmp_path):
    model, every, tables = searched
    choices, done = candidates(model, every, tables, BUDGETS)[0], []
    table = score_schedules(model, every[0], tables[0], choices, judge, on_calls=done.append)
    assert sum(done) == num_sample_steps([choices], 6)
    assert len(table.scored) == len(choices)
    assert table.scored_by == {"metric": "fvd[motion]", "num_videos": 6, "num_real": 12, "seed": SEED}
    plan = fraction_of(model, every[0], 1.0).schedule(choices[-1])
    names = ("num_inference_steps", "guidance_scale", "guidance_interval", "precision")
    sampling = {name: getattr(every[0], name) for name in names}
    made = generate(model, schedule=plan, num_videos=6, seed=SEED, **sampling)
    again = score(extract(judge.extractor, to_bytes(made.videos)), judge.real)
    assert table.scored[-1].fvd == pytest.approx(again.fvd, rel=1e-4)
    lines = scored_lines(model, every, [table, tables[1]], BUDGETS)
    assert lines[0].startswith("budget 0.8: ")
    best = min(table.scored, key=lambda row: row.fvd)
    assert scored_lines(model, every, [table, tables[1]], [1.0])[0].split("] ")[1].startswith(f"{best.fvd:.4g}")
    draw_schedules(model, every, [table, tables[1]], tmp_path / "fvd.png", scored_front)
    assert (tmp_path / "fvd.png").stat().st_size > 10_000
    assert all(len(Schedule.parse(row.steps)) == 5 for row in table.scored)


def test_a_distance_that_is_not_finite_is_refused(searched, judge):
    model, every, tables = searched
    broken = judge._replace(real=torch.full_like(judge.real, torch.nan))
    with pytest.raises(ValueError, match="finite"):
        score_schedules(model, every[0], tables[0], [(0,) * 5], broken)
