"""Times have the distribution they claim, spread evenly over it."""

from __future__ import annotations

import pytest
import torch

from flexivid.diffusion.times import draw_times, shift_time


def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_uniform_has_one_time_in_each_share() -> None:
    times = draw_times(64, generator=source())
    assert sorted((times * 64).long().tolist()) == list(range(64))
    assert times.tolist() != sorted(times.tolist())


def test_logit_normal_has_its_moments() -> None:
    logits = torch.logit(draw_times(5000, distribution="logit_normal", mean=0.8, std=1.2, generator=source()).double())
    assert logits.mean().item() == pytest.approx(0.8, abs=0.01)
    assert logits.std().item() == pytest.approx(1.2, abs=0.02)


def test_stay_inside_and_move_with_the_shift() -> None:
    times = draw_times(1000, shift=5.0, generator=source())
    assert times.min() > 0
    assert times.max() < 1
    assert times.median().item() == pytest.approx(5 / 6, abs=0.01)
    assert torch.allclose(shift_time(shift_time(times, 4.0), 0.25), times, atol=1e-6)


def test_repeat_with_the_generator() -> None:
    assert torch.equal(draw_times(8, generator=source()), draw_times(8, generator=source()))


def test_refuses_an_unknown_distribution() -> None:
    with pytest.raises(ValueError, match="got times 'beta'"):
        draw_times(4, distribution="beta")


@pytest.mark.parametrize("settings", [{}, {"distribution": "logit_normal", "mean": 0.5, "std": 1.5}])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_part_of_a_distribution_is_that_part(settings: dict, shift: float) -> None:
    low, high = 0.3, 0.8
    whole = draw_times(20_000, **settings, shift=shift, generator=source())
    expected = whole[(whole >= low) & (whole <= high)].sort().values
    part = draw_times(len(expected), **settings, shift=shift, within=(low, high), generator=source()).sort().values
    assert low <= part.min() < part.max() <= high
    torch.testing.assert_close(part, expected, atol=2e-3, rtol=0)
