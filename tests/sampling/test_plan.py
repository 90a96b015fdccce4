"""Whatever is asked for, in whatever unit and from whatever planner: predicted is measured, and never above."""

from dataclasses import replace

import pytest
import torch

from flexivid import PatchMode, Schedule, Step, load
from flexivid.budget import planners
from flexivid.budget.allowance import Amount
from flexivid.budget.schedule import schedule_macs
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.budget.spectral import Spectrum
from flexivid.calibration.calibrate import calibrate, relate
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.generate import generate, generate_batches
from flexivid.sampling.messages import describe
from flexivid.sampling.options import PLANNERS
from flexivid.sampling.plan import allowance_of, plan_for, plan_of, runnable, table_settings, tables_folder
from flexivid.sampling.sample_folder import write_samples
from flexivid.sampling.settings import Sampling, full_macs, plain_calls

GUIDANCE = {"none": {}, "ordinary": {"guidance_scale": 2.0}, "weak": {"guidance_scale": 2.0, "guide_mode": "2x4x4"}}
GUIDANCE["interval"] = {"guidance_scale": 2.0, "guidance_interval": (0.4, 0.8)}
LATENCY = {PatchMode("1x2x2"): 0.01, PatchMode("2x4x4"): 0.001}
STEPS = 8


ROWS = ((1.0, 0.5, 0.2, 0.1), *[(3.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)] * 2)


@pytest.fixture(params=GUIDANCE)
def measured(model, request):
    """A model, settings, and what was measured under them: errors, also of fewer steps, and scores."""
    model.recipe = replace(model.recipe, spectrum=Spectrum(ROWS, 0.5, 8))
    settings = Sampling(precision="fp32", **GUIDANCE[request.param]).filled(model)
    every = [settings._replace(num_inference_steps=steps) for steps in (STEPS, 3)]
    tables = relate([calibrate(model, one, num_videos=3) for one in every])
    return model, every[0], [*tables, scored(model, every[0])]


def scored(model, settings):
    """As if coarse options had turned out better than finer ones, and other solver settings better still."""
    texts = [f"{STEPS}x1x2x2", f"{STEPS}x2x4x4", "3x2x4x4,1x1x2x2", "1x2x4x4,1xreuse,1x1x2x2"]
    plans = [plan_for(model, settings._replace(num_inference_steps=4), 1.0, text).schedule for text in texts]
    rows = [ScoredPlan(str(plan), {}, 9.0 - i, 8.0, 9.0, 64) for i, plan in enumerate(plans)]
    rows.append(rows[2]._replace(sampling={"shift": 5.0, "solver": "unipc"}, fvd=5.0))
    by = {"metric": "fvd[motion]", "num_real": 9, "seed": 0}
    return ScoreTable(fingerprint(model), table_settings(settings), tuple(rows), by)


@pytest.mark.parametrize("planner", PLANNERS)
def test_predicted_is_measured_and_never_above(measured, planner, tmp_path):
    model, settings, tables = measured
    settings = settings._replace(planner=planner)
    conditions = conditions_for(model, 4)
    amounts = [Amount(0.6), Amount("draft"), Amount(0.02, "gmacs"), Amount(0.07, "seconds")]
    for i, amount in enumerate(amounts):
        if planner == "fewer_steps" and amount.value in ("draft", 0.02):
            continue  # less than a guided native step
        plan = plan_for(model, settings, amount, tables=tables, latency=LATENCY)
        (outcome,) = write_samples(model, [plan], tmp_path, settings=settings, conditions=conditions, seed=i)
        assert outcome.predicted_macs == outcome.measured_macs
        schedules = [plan.schedule] * 4 if plan.adaptive is None else list(plan.adaptive.followed.values())
        assert sum(schedule_macs(own, model.config, settings.size) for own in schedules) == outcome.measured_macs
        for own in schedules:
            cost, full = schedule_macs(own, model.config, settings.size), full_macs(model, settings)
            seconds = sum(LATENCY[mode] for step in own for mode in step if mode)
            limit = {"fraction": cost / full / 0.6, "gmacs": cost / 2e7, "seconds": seconds / 0.07}[amount.unit]
            assert limit <= 1 + 1e-9 or amount.value == "draft"  # seconds are whole microseconds in a plan


def test_the_goal_of_the_search_decides(model):
    settings = Sampling(precision="fp32").filled(model)._replace(num_inference_steps=STEPS)
    errors, scores = calibrate(model, settings, num_videos=2).table, scored(model, settings)
    by_errors = plan_for(model, settings, 0.8, tables=[errors])
    by_scores = plan_for(model, settings, 0.8, tables=[errors, scores])
    assert (by_errors.planner, by_scores.planner) == ("searched", "searched_fvd")
    assert str(by_scores.schedule) == "3x2x4x4,1x1x2x2"
    assert by_scores.settings(settings) == settings._replace(num_inference_steps=4, solver="unipc", shift=5.0)
    searched = settings._replace(planner="searched")
    assert plan_for(model, searched, 0.8, tables=[errors, scores]).schedule == by_errors.schedule
    for tables in ([], [errors]):
        with pytest.raises(ValueError, match="got no plan scored against real videos"):
            plan_for(model, settings._replace(planner="searched_fvd"), 0.8, tables=tables)
    made = generate(model, 0.8, num_videos=2, tables=[scores], num_inference_steps=None, precision="fp32")
    assert made.measured_macs == made.predicted_macs


def test_a_budget_below_all_that_was_searched_is_met(model):
    settings = Sampling(precision="fp32").filled(model)
    scores = scored(model, settings)
    native = scores._replace(rows=scores.rows[:1])
    assert plan_for(model, settings, 0.2, tables=[native]).planner == "staged"
    with pytest.raises(ValueError, match="got no plan scored against real videos for so small a budget"):
        plan_for(model, settings._replace(planner="searched_fvd"), 0.2, tables=[native])


def test_solver_settings_of_a_plan_are_used(model):
    settings = Sampling(precision="fp32").filled(model)
    scores = scored(model, settings)
    own = generate(model, 1.0, num_videos=2, seed=3, tables=[scores], precision="fp32")
    alone = {"solver": "unipc", "shift": 5.0, "num_videos": 2, "seed": 3, "precision": "fp32"}
    assert torch.equal(own.videos, generate(model, schedule="3x2x4x4,1x1x2x2", **alone).videos)


def test_default_is_searched_once_it_was_measured(model):
    settings = Sampling(precision="fp32").filled(model)._replace(num_inference_steps=STEPS)
    tables = [calibrate(model, settings, num_videos=2).table]
    rule, found = (
        plan_for(model, settings._replace(planner=name), 0.5, tables=tables) for name in ("staged", "searched")
    )
    assert plan_for(model, settings, 0.5, tables=tables) == found
    assert plan_for(model, settings, 0.5) == rule
    assert plan_for(model, settings._replace(shift=3.0), 0.5, tables=tables) == rule  # not what was measured
    fixed = settings._replace(fixed_steps=True)
    assert plan_for(model, fixed, 0.5).planner == "weak_first"
    assert len(plan_for(model, fixed, 0.5).schedule) == STEPS
    scores = scored(model, settings)
    assert plan_for(model, fixed, 0.5, tables=[scores]).planner == "searched_fvd"  # of the plans with so many steps
    assert len(plan_for(model, fixed, 0.5, tables=[scores]).schedule) == STEPS
    other = fixed._replace(num_inference_steps=STEPS + 1)
    assert plan_for(model, other, 0.5, tables=[scores]).planner == "weak_first"


def test_a_search_of_some_modes_is_used_and_what_it_lacks_is_left_to_the_rule(build_model):
    model = build_model(modes=("1x2x2", "2x2x2", "2x4x4"))
    settings = Sampling(precision="fp32").filled(model)
    some = calibrate(model, settings._replace(modes=("2x2x2",)), num_videos=1, max_switches=0).table
    plan = plan_for(model, settings, 0.9, tables=[some])
    assert plan.planner == "searched"
    assert {str(step) for step in plan.schedule} <= {"1x2x2", "2x2x2"}
    assert plan_for(model, settings, 0.1, tables=[some]).planner == "staged"  # nothing so cheap was measured
    assert plan_for(model, settings._replace(modes=("2x4x4",)), 0.9, tables=[some]).planner == "staged"
    with pytest.raises(ValueError, match="got a table of measured errors without 2x4x4"):
        plan_for(model, settings._replace(modes=("2x4x4",), planner="searched"), 0.9, tables=[some])
    with pytest.raises(ValueError, match="got a budget below that of every measured schedule"):
        plan_for(model, settings._replace(planner="searched"), 0.2, tables=[some])
    with pytest.raises(ValueError, match=r"got budget 0\.001; expected at least"):
        plan_for(model, settings, 0.001, tables=[some])


def test_errors_of_another_model_are_refused(model, build_model):
    settings = Sampling(precision="fp32").filled(model)
    tables = [calibrate(build_model(depth=1), settings, num_videos=1).table]
    for planner in (None, "searched", "adaptive"):
        with pytest.raises(ValueError, match=r"got schedules.json of model \w+; expected one of this model"):
            plan_for(model, settings._replace(planner=planner), 0.5, tables=tables)
    assert len(plan_for(model, settings._replace(planner="weak_first"), 0.5, tables=tables).schedule) == 4


def test_planners_that_lack_what_they_go_by(model):
    settings = Sampling(precision="fp32").filled(model)
    for planner in ("searched", "adaptive"):
        with pytest.raises(ValueError, match=r"got no table of measured errors.*run python -m flexivid.search --goal"):
            plan_for(model, settings._replace(planner=planner), Amount(0.5))
    scores = [scored(model, settings)]  # which say nothing about errors
    with pytest.raises(ValueError, match=r"got no table of measured errors"):
        plan_for(model, settings._replace(planner="searched"), Amount(0.5), tables=scores)
    short = settings._replace(num_inference_steps=3)
    tables = [calibrate(model, short, num_videos=1).table]
    with pytest.raises(ValueError, match="without measured changes, so without thresholds"):
        plan_for(model, short._replace(planner="adaptive"), Amount(0.5), tables=tables)
    with pytest.raises(ValueError, match=r"got planner searched for .*; expected settings that were measured"):
        plan_for(model, settings._replace(planner="searched"), Amount(0.5), tables=tables)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (Amount(0.001), r"got budget 0.001; expected at least 0\.\d+, which is one step in the cheapest mode 2x4x4"),
        (Amount("tiny"), "got budget 'tiny'; expected a fraction"),
        (Amount(1e-4, "gmacs"), r"got --budget-gmacs 0.0001; expected at least 0\.\d+ for one video"),
        (Amount(1e-4, "seconds"), r"got --budget-seconds 0.0001; expected at least 0.001 for one video"),
    ],
)
def test_what_cannot_be_met_is_refused_in_its_unit(model, amount, message):
    with pytest.raises(ValueError, match=message):
        plan_for(model, Sampling().filled(model), amount, latency=LATENCY)


def test_adaptive_samples_by_name(model):
    settings = Sampling(precision="fp32", num_inference_steps=STEPS).filled(model)
    tables = [calibrate(model, settings, num_videos=3).table]
    options = {"precision": "fp32", "num_inference_steps": STEPS, "planner": "adaptive", "tables": tables}
    made = generate(model, 0.6, num_videos=4, **options)
    assert made.predicted_macs == made.measured_macs
    assert str(generate(model, schedule="8x2x4x4", num_videos=1, **options).schedules[0]) == "8x2x4x4"
    assert [len(schedule) for schedule in made.schedules] == [STEPS] * 4
    for i, schedule in enumerate(made.schedules):  # grouping changes who shares a call, and nothing else
        alone = generate(model, schedule=schedule, labels=[i % 3], seed=i, precision="fp32", num_inference_steps=STEPS)
        torch.testing.assert_close(alone.videos[0], made.videos[i], atol=1e-4, rtol=0)


def test_lines_for_people(model):
    settings = Sampling(precision="fp32", num_inference_steps=STEPS).filled(model)
    plan = plan_for(model, settings, Amount(0.05, "seconds"), latency=LATENCY)
    line = describe(plan, model, settings, 4, LATENCY)
    assert line.startswith(f"budget {plan.budget:g}: 4 steps of 2x4x4, 4 of 1x2x2")
    assert line.endswith("; planner weak_first; about 0.044 s a video")
    (varied,) = [plan._replace(sampling={"shift": 5.0, "solver": "unipc"})]
    assert "; planner weak_first, shift 5.0, solver unipc" in describe(varied, model, settings, 4)
    tables = [calibrate(model, settings, num_videos=2).table]
    plan = plan_for(model, settings._replace(planner="adaptive"), Amount(0.5), tables=tables)
    assert describe(plan, model, settings, 4) == (
        "budget 0.5: adaptive, 8 steps of 1x2x2, 2x4x4, each video its own; at most 0.5 of all"
    )


def test_tables_lie_beside_the_checkpoint(tmp_path):
    assert tables_folder(tmp_path) == tmp_path
    assert tables_folder(tmp_path / "last.ckpt") == tmp_path


def test_fewer_steps_where_they_are_expected_to_be_nearer(model):
    """What a plan of fewer steps is judged by are its distances, and it is never above the budget of the most steps."""
    every = [Sampling(precision="fp32", num_inference_steps=steps).filled(model) for steps in (STEPS, 3)]
    tables = relate([calibrate(model, settings, num_videos=2) for settings in every])
    free = every[0]._replace(fixed_steps=False)
    near, far = (tables[1]._replace(distance=d, trials=((0.0, d), (1.0, 1 + d))) for d in (0.0, 1e6))
    few = plan_for(model, free, Amount(0.4), tables=[tables[0], near])
    assert (len(few.schedule), few.budget, few.planner) == (3, 0.4, "searched")
    assert schedule_macs(few.schedule, model.config, free.size) <= 0.4 * full_macs(model, free)
    assert plan_of(few.schedule, model, free).budget == pytest.approx(3 / STEPS, abs=1e-3)
    for settings, others in (
        (free, [tables[0], far]),
        (free, [tables[0], near._replace(finest=99)]),  # measured against other samples
        (every[0], [tables[0], near]),  # so many steps were asked for
        (free._replace(planner="weak_first"), [tables[0], near]),  # which keeps the number of steps
    ):
        assert len(plan_for(model, settings, Amount(0.4), tables=others).schedule) == STEPS
    made = generate(model, 0.4, num_videos=2, tables=[tables[0], near], precision="fp32")
    assert made.schedule == plan_for(model, Sampling().filled(model), 0.4).schedule  # of 4 steps nothing was measured
    settings = free._replace(num_inference_steps=3, fixed_steps=True)
    assert len(plan_for(model, settings, Amount(0.8), tables=[tables[0], near]).schedule) == 3


def test_fewer_steps_are_what_is_made(model):
    """A schedule says how many steps there are: the samples are those of that many inference steps."""
    settings = Sampling(precision="fp32", num_inference_steps=STEPS).filled(model)
    few = Schedule.parse("1x2x4x4,2x1x2x2")
    ((_, made),) = generate_batches(model, few, settings, conditions=conditions_for(model, 2))
    alone = generate(model, schedule=few, num_videos=2, precision="fp32", num_inference_steps=3)
    torch.testing.assert_close(made, alone.videos, atol=0, rtol=0)


def test_guidance_interval_follows_the_number_of_steps(model):
    every = [
        Sampling(precision="fp32", num_inference_steps=steps, **GUIDANCE["interval"]).filled(model)
        for steps in (STEPS, 4)
    ]
    tables = relate([calibrate(model, settings, num_videos=2) for settings in every])
    tables[1] = tables[1]._replace(distance=0.0, trials=((0.0, 0.0), (1.0, 0.0)))
    plan = plan_for(model, every[0]._replace(fixed_steps=False), Amount(0.5), tables=tables)
    outside, called = plain_calls(model, every[1]), [call for call, step in enumerate(plan.schedule) if step.modes]
    assert len(plan.schedule) == 4
    assert {call for call in called if plan.schedule[call].guide_mode is None} == outside & set(called)
    assert 0 < len(outside) < 4


def test_the_default_plan_of_little_compute_is_guided_early():
    model = load("moving_digits")
    full = full_macs(model, Sampling().filled(model))

    def planned(budget, alone=1.0, **options):
        settings = Sampling(planner="staged", precision="fp32", **options).filled(model)
        latency = {mode: settings.call_macs(model.config, mode) / 1e12 for mode in model.config.modes}
        latency |= {Step(mode): alone * seconds for mode, seconds in latency.items()}
        plan = plan_for(model, settings, budget, latency=latency)
        assert settings.schedule_macs(model.config, plan.schedule) <= full
        return [step.guide_mode is not None for step in plan.schedule], plan.sampling.get("guidance_scale")

    early = pytest.approx(1 + 1.5 * (model.recipe.sampling.guidance_scale - 1))
    assert planned(0.5) == ([True] * 5, None)
    assert planned(0.3) == ([True] * 3 + [False] * 2, early)
    assert planned(0.2) == ([True] * 3 + [False] * 2, early)
    assert planned(0.2, guidance_scale=3.0)[1] == 4.0
    seconds = Amount(0.2 * full / 1e12, "seconds")
    assert planned(seconds) == planned(0.2)
    assert planned(seconds, alone=1.5)[0] == [True] * 2 + [False] * 2  # a call alone takes more than half of two
    assert planned(seconds, alone=2.0) == ([True] * 5, None)
    for other in ({"weak_guidance_scale": 3.0}, {"guidance_interval": (0.5, 1.0)}, {"guidance_scale": 1.0}):
        assert planned(0.2, **other)[1] is None
        assert planned(0.2, **other)[0] != planned(0.2)[0]


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.8, 1.0])
def test_steps_outside_the_guidance_interval_are_priced_as_one_call(model, budget):
    settings = Sampling(precision="fp32", num_inference_steps=STEPS, **GUIDANCE["interval"]).filled(model)
    limit = budget * full_macs(model, settings)

    def spent(steps):
        return settings.schedule_macs(model.config, steps)

    free = settings._replace(fixed_steps=False)

    def naive(budget):
        """As if every step had guidance."""
        allowance = allowance_of(model, free, budget, keep_steps=False)
        return runnable(Schedule(allowance.options[i] for i in planners.staged(allowance)), model, free)

    every = [plan_for(model, free, 1.0, f"{count}x1x2x2").schedule for count in range(1, STEPS + 1)]
    fewer, staged = (
        plan_for(model, settings._replace(planner=planner), budget).schedule for planner in ("fewer_steps", "staged")
    )
    assert len(fewer) == max(len(steps) for steps in every if spent(steps) <= limit)
    assert spent(naive(budget)) <= spent(staged) <= limit
    assert spent(naive(0.4)) < spent(plan_for(model, settings._replace(planner="staged"), 0.4).schedule)
