"""Plans are scored by the samples that they really make, and no sample is made twice."""

import pytest
import torch

from flexivid.budget.schedule import REUSE, Schedule, Step, schedule_macs
from flexivid.budget.scores import ScoredPlan
from flexivid.calibration import plan_search, scoring
from flexivid.calibration.plan_search import (
    SEARCHED_BUDGETS,
    Effort,
    first_candidates,
    search_plans,
    search_with,
    variations,
)
from flexivid.calibration.scoring import SEED, Judge, Scorer, halve, raised_floor, step_floor
from flexivid.calibration.searched import draw_scores, score_lines
from flexivid.diffusion.solver import num_calls
from flexivid.evaluation.features import extract
from flexivid.evaluation.rivals import native_plan
from flexivid.media.pixels import to_bytes
from flexivid.metrics.extractors.extractor import build_extractor
from flexivid.metrics.scores import score
from flexivid.model.checkpoint import fingerprint
from flexivid.patching.shapes import PatchMode
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.generate import generate
from flexivid.sampling.plan import plan_for, table_settings
from flexivid.sampling.settings import Sampling, full_macs

pytestmark = pytest.mark.filterwarnings(r"ignore:got \d+ videos")


@pytest.fixture(params=[{}, {"guidance_scale": 2.0, "guidance_interval": (0.4, 0.8)}], ids=["plain", "interval"])
def settings(model, request):
    return Sampling(precision="fp32", **request.param).filled(model)._replace(num_inference_steps=5)


@pytest.fixture
def judge(model):
    extractor = build_extractor("motion")
    real = extract(extractor, to_bytes(torch.rand(12, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))))
    return Judge(extractor, real, conditions_for(model, 6), "fvd[motion]")


def test_candidates_cost_at_most_their_budget_and_are_of_every_kind(model, settings):
    full = full_macs(model, settings)
    for budget in SEARCHED_BUDGETS:
        plans = first_candidates(model, settings, [budget])
        costs = [schedule_macs(plan.schedule, model.config, settings.size) for plan in plans]
        assert max(costs) <= budget * full
        assert len({str(plan.schedule) for plan in plans}) == len(plans)
    plans = first_candidates(model, settings, SEARCHED_BUDGETS)
    kinds = [[step.mode for step in plan.schedule] for plan in plans]
    native, weak = model.config.modes
    assert {len(kind) for kind in kinds if set(kind) == {native}} == {1, 2, 3, 5}
    assert any(set(kind) == {weak} for kind in kinds)
    for kind in kinds:  # large patches first
        assert kind == sorted(kind, key=lambda mode: mode == native)
    assert len({len(kind) for kind in kinds if set(kind) == {native, weak}}) > 3


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_variations_cost_no_more_and_can_be_run(model, settings, judge, solver):
    settings = settings._replace(solver=solver)
    scorer = Scorer(model, settings, judge)
    for plan in first_candidates(model, settings, [0.6]):
        cost = schedule_macs(plan.schedule, model.config, settings.size)
        for varied in [plan, *variations(model, settings, plan)]:
            assert schedule_macs(varied.schedule, model.config, settings.size) <= cost
            own = varied.settings(settings)
            assert num_calls(own.solver, own.num_inference_steps) == len(varied.schedule)
        scorer.features(plan, 2)
    others = variations(model, settings, native_plan(model, settings, 2))
    assert {name for plan in others for name in plan.sampling} >= {"shift", "solver"}
    assert any(REUSE in plan.schedule for plan in others) or solver == "heun"


def test_scores_are_those_of_the_samples(model, settings, judge):
    made, plan = [], plan_for(model, settings, 1.0, "2x2x4x4,1xreuse,1x1x2x2")
    plan = plan._replace(sampling={"shift": 5.0, "solver": "unipc"})
    scorer = Scorer(model, settings, judge, made.append)
    row = scorer.row(plan, 6)
    names = ("guidance_scale", "guidance_interval", "precision")
    known = {name: getattr(settings, name) for name in names}
    samples = generate(model, schedule=plan.schedule, num_videos=6, seed=SEED, shift=5.0, solver="unipc", **known)
    again = score(extract(judge.extractor, to_bytes(samples.videos)), judge.real)
    assert row == ScoredPlan(str(plan.schedule), {"shift": 5.0, "solver": "unipc"}, *row[2:5], 6)
    assert row[2:5] == pytest.approx((again.fvd, again.low, again.high), rel=1e-3)
    assert sum(made) == 6


def test_no_sample_is_made_twice(model, settings, judge):
    made = []
    scorer = Scorer(model, settings, judge, made.append)
    plan = native_plan(model, settings, 2)
    few, all_at_once = scorer.features(plan, 2), Scorer(model, settings, judge).features(plan, 6)
    assert torch.equal(scorer.features(plan, 2), few)
    torch.testing.assert_close(scorer.features(plan, 6), all_at_once, rtol=1e-4, atol=1e-4)
    assert sum(made) == 6
    assert scorer.num_samples(plan) == 6


def test_the_better_half_of_each_price_range_stays():
    distances = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 9.0, "f": 8.0, "g": 7.0, "h": 1.0}
    costs = [1, 1, 2, 2, 3, 4, 4, 9]
    kept = halve(list(distances), costs, [2, 4], list(distances.values()))  # type: ignore[arg-type]
    assert kept == ["d", "c", "g", "f"]


def test_step_floor_is_the_fewest_steps_within_the_interval_of_many(model, settings, judge, monkeypatch):
    values = {50: 5.0, 1: 40.0, 2: 20.0, 3: 6.6, 4: 5.9}

    class Fixed(Scorer):
        def distance(self, plan, count):
            return values[len(plan.schedule)]

        def score(self, plan, count):
            return super().score(native_plan(model, settings, 1), count)._replace(high=values[50] + 1.0)

    assert step_floor(Fixed(model, settings, judge), 4) == 4
    assert step_floor(Fixed(model, settings, judge), 4, many=4) == 4
    monkeypatch.setattr(scoring, "FLOOR_STEPS", (1, 2))
    assert step_floor(Fixed(model, settings, judge), 4) == scoring.MANY_STEPS


def test_the_step_floor_rises_where_more_videos_show_a_gain():
    native = Step(PatchMode("1x2x2"), PatchMode("1x2x2"))

    def rows(**fvds):
        return [ScoredPlan(steps, {}, fvd, fvd - 1, fvd + 1, 64) for steps, fvd in fvds.items()]

    natives = {f"{steps}x1x2x2+1x2x2": fvd for steps, fvd in [(1, 90.0), (2, 18.6), (3, 14.2), (4, 13.4)]}
    assert raised_floor(2, rows(**natives), native) == 3
    assert raised_floor(3, rows(**natives), native) == 3
    assert raised_floor(4, rows(**natives), native) == 4
    assert raised_floor(2, rows(**natives, **{"8x2x4x4+2x4x4": 5.0}), native) == 3
    assert raised_floor(2, rows(**{"8x2x4x4+2x4x4": 5.0}), native) == 2
    del natives["3x1x2x2+1x2x2"]  # nothing is said of three steps
    assert [raised_floor(floor, rows(**natives), native) for floor in (1, 2, 3, 4)] == [4, 4, 3, 4]
    assert raised_floor(1, [row._replace(sampling={"shift": 8.0}) for row in rows(**natives)], native) == 1


def test_a_search_ends_with_plans_for_every_budget_and_sampling_follows(model, settings, judge, monkeypatch, tmp_path):
    monkeypatch.setattr(plan_search, "FEWEST_VIDEOS", 2)
    monkeypatch.setattr(scoring, "MANY_STEPS", 6)
    planned, made = [], []
    table = search_plans(
        model, settings, judge, effort=Effort(rounds=(0.5, 1.0)), grow=planned.append, on_samples=made.append
    )
    assert sum(made) <= sum(planned)
    assert (table.model, table.settings) == (fingerprint(model), table_settings(settings))
    assert 1 <= table.step_floor <= 6
    assert {row.num_videos for row in table.rows} == {6}
    full = full_macs(model, settings)
    for budget in (1.0, 0.5, 0.2):
        plan = plan_for(model, settings, budget, tables=[table])
        assert plan.planner == "searched_fvd"
        paid = [
            row.fvd
            for row in table.rows
            if row.ahead and schedule_macs(Schedule.parse(row.steps), model.config, settings.size) <= budget * full
        ]
        best = min(paid)
        assert (str(plan.schedule), dict(plan.sampling)) in [
            (row.steps, dict(row.sampling)) for row in table.rows if row.fvd == best
        ]
    native = {row.steps for row in table.rows if not row.sampling and "2x4x4" not in row.steps}
    assert {len(Schedule.parse(steps)) for steps in native} >= {1, 2, 3, 5}
    lines = score_lines(model, settings, table)
    assert lines[0].startswith(f"step floor {table.step_floor}: ")
    assert f" {min(row.fvd for row in table.rows if row.ahead):.4g} (" in lines[1]
    draw_scores(model, settings, table, tmp_path / "plans.png")
    assert (tmp_path / "plans.png").stat().st_size > 10_000


def test_a_plan_replaces_the_default_of_its_price_only_if_it_is_clearly_better(model, settings, judge):
    source = torch.Generator().manual_seed(2)
    real, common = (torch.randn(count, 8, generator=source) for count in (64, 48))
    judge = judge._replace(real=real, conditions=conditions_for(model, 48))
    unsearched = settings._replace(planner="staged")
    defaults = {str(plan_for(model, unsearched, budget).schedule) for budget in SEARCHED_BUDGETS}
    plans = {str(plan.schedule) for plan in first_candidates(model, settings, SEARCHED_BUDGETS)}
    better, lucky = sorted(plans - defaults)[0], []

    class Fabricated(Scorer):
        def make(self, plan, indices):
            name = str(plan.schedule)
            if name not in defaults and name != better:
                lucky.append(name)
            noise = torch.randn(48, 8, generator=torch.Generator().manual_seed(len(name)))
            return (common + 0.2 * noise + (0.3 if name == better else 1.0))[list(indices)]

    effort = Effort(rounds=(1.0,), vary=False, measure_floor=False)
    table = search_with(Fabricated(model, settings, judge), effort, 48)
    rows = {row.steps: row for row in table.rows}
    assert defaults <= rows.keys()
    assert {name for name, row in rows.items() if row.ahead} == defaults | {better}
    nearest = min(rows[name].fvd for name in defaults)
    assert any(rows[name].fvd < nearest for name in lucky if name in rows)  # by chance
    for budget in SEARCHED_BUDGETS:
        assert str(plan_for(model, settings, budget, tables=[table]).schedule) in defaults | {better}


def test_a_distance_that_is_not_finite_is_refused(model, settings, judge):
    broken = judge._replace(real=torch.full_like(judge.real, torch.nan))
    with pytest.raises(ValueError, match="finite"):
        search_plans(model, settings, broken, effort=Effort(rounds=(1.0,), measure_floor=False))
    with pytest.raises(ValueError, match=r"got an interval of 2 videos of schedule .*; expected more videos; raise"):
        search_plans(
            model,
            settings,
            judge._replace(conditions=judge.conditions.take([0, 1])),
            effort=Effort(rounds=(1.0,), measure_floor=False),
        )
