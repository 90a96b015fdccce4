"""Where steps may go without guidance, the first ones keep it and native ones come last, within the amount."""

from __future__ import annotations

import pytest

from flexivid import PatchMode, Schedule, Step
from flexivid.budget.allowance import Allowance
from flexivid.budget.planners import FEW_STEPS, FEWEST_LATE, guided_stages, staged

MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")


def allowance_of(affordable: int, num_steps: int = 5) -> Allowance:
    """Of a native mode that costs 50 a call, a finer weak one of 20, another of 9 and a coarse one of 5."""
    options = tuple(Step(PatchMode(mode), PatchMode(mode)) for mode in MODES)
    return Allowance(options, (100, 40, 18, 10), num_steps, affordable, (50, 20, 9, 5))


def bought(allowance: Allowance) -> Schedule:
    options, choice = guided_stages(allowance)
    schedule = options.schedule(choice)
    assert allowance.cost(schedule) <= allowance.affordable
    return schedule


@pytest.mark.parametrize(
    ("affordable", "plan"),
    [
        (500, "5x1x2x2+1x2x2"),
        (430, "3x2x4x4+2x4x4,4x1x2x2+1x2x2"),
        (230, "3x2x4x4+2x4x4,2x1x2x2+1x2x2"),
        (229, "3x2x4x4+2x4x4,2x1x2x2"),
        (130, "3x2x4x4+2x4x4,2x1x2x2"),
        (129, "3x2x4x4+2x4x4,1x2x2x2,1x1x2x2"),
        (100, "3x2x4x4+2x4x4,1x2x2x2,1x1x2x2"),
        (99, "3x2x4x4+2x4x4,2x2x2x2"),
        (70, "3x2x4x4+2x4x4,2x2x2x2"),
        (69, "2x2x4x4+2x4x4,2x2x2x2"),
        (60, "2x2x4x4+2x4x4,2x2x2x2"),
        (59, "5x2x4x4+2x4x4"),
        (10, "1x2x4x4+2x4x4"),
    ],
)
def test_native_steps_finish_what_guided_coarse_ones_begin(affordable: int, plan: str) -> None:
    assert str(bought(allowance_of(affordable))) == plan


def test_every_amount_is_kept_and_more_of_it_never_buys_less() -> None:
    spent = 0
    for affordable in range(10, 501):
        cost = allowance_of(affordable).cost(bought(allowance_of(affordable)))
        late = [step for step in bought(allowance_of(affordable)) if str(step.mode) == "1x2x2"]
        assert cost >= spent - 20  # a dearer stage may come with one step less of the one before
        assert len(late) != 1 or affordable < 130
        spent = max(spent, cost)


def test_models_of_many_steps_finish_as_without_guidance() -> None:
    for affordable in range(100, 100 * (FEW_STEPS + 14), 10):
        allowance = allowance_of(affordable, num_steps=FEW_STEPS + 14)
        assert guided_stages(allowance) == (allowance, staged(allowance))


@pytest.mark.parametrize(
    ("affordable", "plan"),
    [
        (100, "2x2x4x4+2x4x4,2x2x2x2+2x2x2"),
        (99, "3x2x4x4+2x4x4,3x2x2x2"),
        (85, "4x2x4x4+2x4x4,2x2x2x2"),
        (60, "2x2x4x4+2x4x4,2x2x2x2"),
        (59, "5x2x4x4+2x4x4"),
    ],
)
def test_late_steps_lose_their_guidance_where_it_leaves_fewer_than_two(affordable: int, plan: str) -> None:
    schedule = bought(allowance_of(affordable, num_steps=20))
    assert str(schedule) == plan
    assert len([step for step in schedule if str(step.mode) == "2x2x2"]) in (0, *range(FEWEST_LATE, 9))


@pytest.mark.parametrize("kind", ["none", "weak", "two modes", "dear calls"])
def test_guidance_that_is_of_another_kind_stays(kind: str) -> None:
    allowance = allowance_of(99)
    options = {
        "none": tuple(step.plain for step in allowance.options),
        "weak": tuple(Step(step.mode, allowance.options[-1].mode) for step in allowance.options),
        "two modes": (allowance.options[0], allowance.options[-1]),
    }.get(kind, allowance.options)
    plain = (100, 10, 18, 10) if kind == "dear calls" else allowance.plain_costs  # no saving in going without
    allowance = allowance._replace(options=options, plain_costs=plain)
    assert guided_stages(allowance) == (allowance, staged(allowance))
