"""The loss in a space equals the loss of outputs and targets converted to that space."""

from __future__ import annotations

import pytest
import torch

from flexivid.diffusion.loss import denoising_loss
from flexivid.diffusion.process import PATHS, TARGETS, Process


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("space", TARGETS)
def test_equals_explicit_conversion(path: str, target: str, space: str) -> None:
    torch.manual_seed(0)
    x0, noise, wrong = torch.randn(3, 8, 1, 2, 4, 4)
    time, process = torch.linspace(0.15, 0.75, 8), Process(path, target)
    x = process.add_noise(x0, noise, time)
    goal = process.target_of(x0, noise, time)
    output = goal + 0.3 * wrong
    converted = process.convert(output, x, time, space) - Process(path, space).target_of(x0, noise, time)
    expected = converted.square().flatten(1).mean(1)
    torch.testing.assert_close(denoising_loss(process, output, goal, time, space=space), expected, rtol=2e-3, atol=1e-5)


def test_is_finite_at_both_ends() -> None:
    time, output = torch.tensor([0.0, 1.0]), torch.ones(2, 1, 1, 2, 2)
    for path in PATHS:
        for target in TARGETS:
            for space in TARGETS:
                loss = denoising_loss(Process(path, target), output, -output, time, space=space)
                assert torch.isfinite(loss).all()


def test_refuses_an_unknown_space() -> None:
    with pytest.raises(ValueError, match="got loss space 'pixels'"):
        denoising_loss(Process(), torch.ones(1, 1), torch.ones(1, 1), torch.ones(1) / 2, space="pixels")
