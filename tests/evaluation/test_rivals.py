"""Native steps alone: as many as a budget pays for and no more, each plan once."""

import pytest

from flexivid.budget.schedule import Schedule, schedule_macs
from flexivid.evaluation.rivals import FEWER_STEPS, native_plan, rival_plan, with_rivals
from flexivid.sampling.plan import Plan, plan_for, plan_of
from flexivid.sampling.settings import Sampling, full_macs

SETTINGS = {
    "plain": {},
    "guided": {"guidance_scale": 2.0},
    "heun": {"solver": "heun"},
    "interval": {"guidance_scale": 2.0, "guidance_interval": (0.2, 0.7)},
    "weak guidance": {"guidance_scale": 2.0, "guide_mode": "2x4x4"},
}


def macs_of(model, settings, num_steps):
    return schedule_macs(native_plan(model, settings, num_steps).schedule, model.config, settings.size)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("budget", [1.0, 0.999, 0.5, 0.3, 0.29, 0.25, 0.1, 0.01])
def test_as_many_steps_as_the_budget_pays_for(model, kind, budget):
    settings = Sampling(num_inference_steps=10, **SETTINGS[kind]).filled(model)
    plan, full = rival_plan(model, settings, budget), full_macs(model, settings)
    assert {step.mode for step in plan.schedule} == {model.config.native}
    affordable = [number for number in range(1, 11) if macs_of(model, settings, number) / full <= budget]
    expected = native_plan(model, settings, max(affordable, default=1))
    assert (plan.schedule, plan.planner) == (expected.schedule, FEWER_STEPS)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_budget_pays_for_reading_the_text_too(text_model, guidance):
    settings = Sampling(num_inference_steps=10, guidance_scale=guidance).filled(text_model)
    settings = settings._replace(text_tokens=2000)  # so many that reading them costs more than a step
    full = full_macs(text_model, settings)

    def cost(steps):
        return settings.schedule_macs(text_model.config, native_plan(text_model, settings, steps).schedule)

    assert cost(10) == full
    assert cost(5) > 0.5 * full  # half of the steps with all of the text
    assert len(rival_plan(text_model, settings, 0.5).schedule) < 5
    assert cost(len(rival_plan(text_model, settings, 0.5).schedule)) <= 0.5 * full
    assert len(rival_plan(text_model, settings, cost(5) / full).schedule) == 5


def test_steps_have_the_guidance_of_the_settings(model):
    settings = Sampling(num_inference_steps=6, **SETTINGS["interval"]).filled(model)
    assert plan_for(model, settings, 1.0).schedule == native_plan(model, settings).schedule
    guided = [step.guide_mode is not None for step in native_plan(model, settings, 3).schedule]
    assert any(guided)
    assert not all(guided)


@pytest.fixture
def plan(model):
    """A function that plans budgets of ten steps."""
    settings = Sampling(num_inference_steps=10).filled(model)

    def make(*budgets):
        return settings, [plan_for(model, settings, one) for one in budgets]

    return make


def test_each_budget_has_its_rival_after_all_plans(model, plan):
    settings, plans = plan(1.0, 0.5, 0.25)
    sampled = with_rivals(model, settings, plans)
    assert list(sampled[:3]) == plans
    assert [(one.planner, one.budget, len(one.schedule)) for one in sampled[3:]] == [
        (FEWER_STEPS, 0.5, 5),
        (FEWER_STEPS, 0.2, 2),
    ]
    assert with_rivals(model, settings, plans, rivals=False) == tuple(plans)


def test_budgets_of_one_rival_share_it(model, plan):
    settings, plans = plan(0.29, 0.25)
    assert [len(one.schedule) for one in with_rivals(model, settings, plans)] == [10, 10, 2]


def test_a_plan_of_native_steps_alone_is_its_own_rival(model, plan):
    settings, plans = plan(1.0, 0.5)
    fewer = plan_of(Schedule.parse("5x1x2x2"), model, settings, 0.5)
    sampled = with_rivals(model, settings, [plans[0], fewer])
    assert sampled == (plans[0], fewer)


@pytest.mark.parametrize("rivals", [True, False])
def test_full_compute_is_there_where_budget_1_is_something_else(model, plan, rivals):
    settings, (weak,) = plan(0.5)
    better = Plan(1.0, Schedule.parse("2x2x4x4,9x1x2x2"))
    sampled = with_rivals(model, settings, [better, weak], rivals=rivals)
    assert native_plan(model, settings) in sampled
    assert native_plan(model, settings) not in with_rivals(model, settings, [weak], rivals=rivals)


def test_the_same_schedule_under_another_solver_is_another_plan(model, plan):
    settings, _ = plan(1.0)
    other = native_plan(model, settings)._replace(budget=1.0, sampling={"solver": "unipc"})
    assert native_plan(model, settings) in with_rivals(model, settings, [other])
