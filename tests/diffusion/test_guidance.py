"""Guidance is a function around the model: one call without a guide mode, two with one."""

from __future__ import annotations

import pytest
import torch

from flexivid import PatchMode, Step
from flexivid.diffusion.guidance import (
    Branch,
    Guidance,
    at_call,
    calls_outside,
    check_kind,
    compensated_scale,
    guided_output,
    weak_scale,
)
from flexivid.diffusion.process import TARGETS, Process

NATIVE, WEAK = PatchMode("1x2x2"), PatchMode("2x4x4")
VALUES = {("c", NATIVE): 3.0, ("u", NATIVE): 1.0, ("c", WEAK): 2.0, ("u", WEAK): 0.5}


def run(step: Step, scale: float, kind: str = "ordinary") -> tuple[float, list]:
    calls = []

    def network(x: torch.Tensor, time: torch.Tensor, branches: list[Branch]) -> list[torch.Tensor]:
        calls.extend(branches)
        return [torch.full_like(x, VALUES[branch]) for branch in branches]

    x, time, guidance = torch.zeros(1, 1, 1, 2, 2), torch.ones(1), Guidance(scale, kind)
    return guided_output(network, x, time, step, condition="c", null="u", guidance=guidance).mean().item(), calls


def test_without_guide_mode_one_call() -> None:
    assert run(Step(NATIVE), 7.0) == (3.0, [("c", NATIVE)])


def test_ordinary_guidance_uses_the_null_condition() -> None:
    assert run(Step(NATIVE, NATIVE), 4.0) == (1 + 4 * (3 - 1), [("c", NATIVE), ("u", NATIVE)])
    assert run(Step(NATIVE, NATIVE), 1.0)[0] == 3.0


def test_weak_guidance_keeps_the_condition_and_ties_the_scale() -> None:
    value, calls = run(Step(NATIVE, WEAK), 6.0, "weak")
    assert calls == [("c", NATIVE), ("c", WEAK)]
    assert value == pytest.approx(2 + 3.0 * (3 - 2))
    assert (1 - 6.0) / (1 - weak_scale(6.0)) == pytest.approx(2.5)
    assert run(Step(WEAK, WEAK), 6.0, "weak") == run(Step(WEAK, WEAK), 6.0)  # both branches would be one


def test_autoguidance_drops_the_condition_and_keeps_the_scale() -> None:
    value, calls = run(Step(NATIVE, WEAK), 6.0, "auto")
    assert calls == [("c", NATIVE), ("u", WEAK)]
    assert value == 0.5 + 6.0 * (3 - 0.5)


def test_interval_includes_its_ends_and_a_step_outside_is_one_branch() -> None:
    outside = calls_outside([1.0, 0.8, 0.5, 0.2, 0.1], (0.2, 0.8))
    assert outside == {0, 4}
    assert calls_outside([1.0, 0.5], None) == frozenset()
    assert [len(run(at_call(Step(NATIVE, NATIVE), call, outside), 4.0)[1]) for call in range(3)] == [1, 2, 2]


def test_published_scales_at_half_the_compute() -> None:
    assert [compensated_scale(scale, 0.5) for scale in (4.5, 6.0)] == [5.0, 6.5]  # 2502.20126
    assert compensated_scale(3.0, 1.0) == 3.0
    assert compensated_scale(1.0, 0.2) == 1.0


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="got guidance 'strong'; expected one of ordinary, weak, auto"):
        check_kind("strong")


@pytest.mark.parametrize("target", TARGETS)
def test_mixing_outputs_equals_mixing_velocities(target: str) -> None:
    torch.manual_seed(0)
    process, time = Process("flow", target), torch.full((2,), 0.6)
    x, cond, null = torch.randn(3, 2, 1, 1, 4, 4)
    mixed = process.convert(null + 3 * (cond - null), x, time, "velocity")
    velocities = [process.convert(output, x, time, "velocity") for output in (cond, null)]
    torch.testing.assert_close(mixed, velocities[1] + 3 * (velocities[0] - velocities[1]), atol=1e-4, rtol=1e-4)
