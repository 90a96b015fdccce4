"""Scales as published, an interval with both ends, and mixing that does not depend on the target."""

from __future__ import annotations

import pytest
import torch

from flexivid import PatchMode, Step
from flexivid.diffusion.guidance import (
    at_call,
    calls_outside,
    compensated_scale,
)
from flexivid.diffusion.process import TARGETS, Process
from flexivid.diffusion.solver import call_times

NATIVE = PatchMode("1x2x2")


def test_interval_includes_its_ends_and_a_step_outside_is_one_branch() -> None:
    outside = calls_outside([1.0, 0.8, 0.5, 0.2, 0.1], (0.2, 0.8))
    assert outside == {0, 4}
    assert calls_outside([1.0, 0.5], None) == frozenset()
    for steps in (5, 10, 20):  # whose times are not those of decimals to the last bit
        tenths = [i for i in range(steps) if 2 * steps <= 10 * (steps - i) <= 8 * steps]
        times = call_times(Process("flow"), "euler", steps)
        assert set(range(steps)) - calls_outside(times, (0.2, 0.8)) == set(tenths)
    assert [len(at_call(Step(NATIVE, NATIVE), call, outside).modes) for call in range(3)] == [1, 2, 2]


def test_published_scales_at_half_the_compute() -> None:
    assert [compensated_scale(scale, 0.5) for scale in (4.5, 6.0)] == [5.0, 6.5]  # 2502.20126
    assert compensated_scale(3.0, 1.0) == 3.0
    assert compensated_scale(1.0, 0.2) == 1.0


@pytest.mark.parametrize("target", TARGETS)
def test_mixing_outputs_equals_mixing_velocities(target: str) -> None:
    torch.manual_seed(0)
    process, time = Process("flow", target), torch.full((2,), 0.6)
    x, cond, null = torch.randn(3, 2, 1, 1, 4, 4)
    mixed = process.convert(null + 3 * (cond - null), x, time, "velocity")
    velocities = [process.convert(output, x, time, "velocity") for output in (cond, null)]
    torch.testing.assert_close(mixed, velocities[1] + 3 * (velocities[0] - velocities[1]), atol=1e-4, rtol=1e-4)
