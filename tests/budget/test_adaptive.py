"""Samples choose for themselves, and none ever spends more than its allowance, whatever its latents do."""

from __future__ import annotations

import random

import pytest
import torch

from flexivid import PatchMode, budget_of
from flexivid.budget.adaptive import AdaptivePlan, patch_change, third_change
from flexivid.budget.allowance import step_options
from flexivid.budget.schedule import Step
from tests.budget.test_schedule import CONFIG, SIZE, fraction_allowance, least_budget, random_case


def plan_of(build_table, budget: float, *, num_steps: int = 12, seed: int = 0) -> AdaptivePlan:
    options = step_options(CONFIG)
    allowance = fraction_allowance(budget, CONFIG, SIZE, options=options, num_steps=num_steps)
    return AdaptivePlan(allowance, build_table(options, num_steps, seed=seed))


def follow(plan: AdaptivePlan, latents: list[torch.Tensor]) -> None:
    chooser = plan.start(range(len(latents[0])))
    for call, x in enumerate(latents):
        chooser.steps(call, x)


def noise(num_steps: int, size: tuple[int, int, int], scale: torch.Tensor, seed: int = 0) -> list[torch.Tensor]:
    """Latents of a few samples; each changes by its own scale."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(num_steps, len(scale), 3, *size, generator=generator)
    return list(steps * scale.view(-1, 1, 1, 1, 1))


@pytest.mark.parametrize("seed", range(30))
def test_never_exceeds_the_budget(seed: int, build_table) -> None:
    source = random.Random(seed)
    config, size, _ = random_case(source)
    size, num_steps = tuple(min(side, 9) for side in size), source.randint(4, 16)
    options = step_options(config, guided=source.random() < 0.5)
    table = build_table(options, num_steps, seed=seed)
    for budget in (1.0, source.uniform(least_budget(config, size) + 1e-4, 1), least_budget(config, size) + 1e-4):
        allowance = fraction_allowance(min(budget, 1), config, size, options=options, num_steps=num_steps)
        plan = AdaptivePlan(allowance, table)
        follow(plan, noise(num_steps, size, torch.tensor([0.0, 1e-3, 0.3, 100.0]), seed))
        assert sorted(plan.followed) == [0, 1, 2, 3]
        for schedule in plan.followed.values():
            assert len(schedule) == num_steps
            assert budget_of(schedule, config, size) <= min(budget, 1)


def as_measured(plan: AdaptivePlan, factors: dict[int, float]) -> list[torch.Tensor]:
    """Latents of one sample that changes as much as was measured, but at some calls so many times that."""
    pattern = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = [torch.zeros_like(pattern)] * 3
    unit = patch_change(pattern, plan.allowance.options[0]).item()
    for call in range(3, len(plan)):
        change = pattern * float(plan.changes[call][0]) / unit * factors.get(call, 1.0)  # type: ignore[index]
        latents.append(change + 3 * latents[-1] - 3 * latents[-2] + latents[-3])
    return [latent.double() for latent in latents]


def alike(build_table, budget: float, num_steps: int = 12) -> AdaptivePlan:
    """A plan whose measured changes do not depend on the option, nor on the patch in the pattern above."""
    options = step_options(CONFIG, modes=["1x2x2", "2x4x4"])
    allowance = fraction_allowance(budget, CONFIG, SIZE, options=options, num_steps=num_steps)
    pattern = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    units = [patch_change(pattern, step).item() for step in options]
    table = build_table(options, num_steps)
    return AdaptivePlan(
        allowance, table._replace(changes=[[1e-3 * u for u in units] if c else [] for c in table.changes])
    )


@pytest.mark.parametrize("budget", [0.8, 0.5, 0.2])
def test_a_sample_like_those_measured_follows_the_searched_schedule(budget: float, build_table) -> None:
    plan = alike(build_table, budget)
    follow(plan, as_measured(plan, {}))
    followed = [plan.allowance.options.index(step) for step in plan.followed[0]]
    opening = [plan.allowance.options.index(step) for step in plan.opening]
    rows = plan.errors
    assert rows[range(12), followed].sum() == pytest.approx(rows[range(12), opening].sum())


def test_where_a_sample_changes_more_it_gets_finer_steps(build_table) -> None:
    plan = alike(build_table, 0.5)
    weak = [call for call in range(6, 12) if plan.opening[call] != plan.allowance.options[0]]
    refined = []
    for call in weak:
        follow(plan, as_measured(plan, {call: 1000.0}))  # counts as the number of changes seen, at most
        refined.append(plan.followed[0][call] == plan.allowance.options[0])
    assert sum(refined) > len(weak) / 2


def test_where_a_sample_changes_less_it_saves(build_table) -> None:
    plan = alike(build_table, 0.5)
    native = [call for call in range(4, 11) if plan.opening[call] == plan.allowance.options[0]]
    assert native
    for call in native:
        follow(plan, as_measured(plan, {call: 1e-6}))
        assert plan.followed[0][call] != plan.allowance.options[0]


def test_a_sample_does_not_depend_on_its_batch(build_table) -> None:
    plan, latents = plan_of(build_table, 0.4), noise(12, (4, 8, 8), torch.tensor([0.1, 0.4, 2.0]))
    follow(plan, latents)
    together = dict(plan.followed)
    for i in range(3):
        follow(plan, [x[i : i + 1] for x in latents])
        assert plan.followed[0] == together[i]


def test_third_change_of_a_square_is_nothing() -> None:
    assert third_change([torch.tensor(float(i) ** 2) for i in range(4)]).item() == 0


def test_larger_patches_vary_more_inside() -> None:
    change = torch.randn(2, 3, 5, 9, 9, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    small, large = (patch_change(change, Step(PatchMode(mode))) for mode in ("1x1x2", "1x1x8"))
    assert small.shape == (2,)
    assert (small < large).all()
    assert patch_change(torch.ones(1, 1, 1, 1, 1), Step(PatchMode("1x1x1"))).item() == 0


def test_thresholds_need_calibration(build_table) -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.5, CONFIG, SIZE, options=options, num_steps=3)
    with pytest.raises(ValueError, match="got no table of measured errors"):
        AdaptivePlan(allowance, None)
    with pytest.raises(ValueError, match="got planner adaptive without measured changes, so without thresholds"):
        AdaptivePlan(allowance, build_table(options, 3))
