"""Any target follows from any other; the DDPM paths are diffusers' chains."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from flexivid.diffusion.process import PATHS, TARGETS, Process


def draw(count: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    shape = (count, 2, 3, 4, 4)
    return torch.randn(shape), torch.randn(shape), torch.linspace(0.1, 0.9, count)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_output_gives_back_x0_and_noise(path: str, target: str) -> None:
    process = Process(path, target)
    x0, noise, time = draw()
    got = process.split(process.target_of(x0, noise, time), process.add_noise(x0, noise, time), time)
    inside = process.alpha_sigma(time)[0] > 0.051  # below, alpha is kept from dividing
    for value, expected in zip(got, (x0, noise), strict=True):
        torch.testing.assert_close(value[inside], expected[inside], atol=2e-4, rtol=1e-4)
    assert inside.sum() >= 12


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("other", TARGETS)
def test_conversion_there_and_back(path: str, target: str, other: str) -> None:
    process = Process(path, target)
    x, output, time = draw()
    time = time * 0.7  # alpha and sigma well above what divisions are kept from
    there = process.convert(output, x, time, other)
    back = Process(path, other).convert(there, x, time, target)
    torch.testing.assert_close(back, output, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("path", "name"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_ddpm_paths_are_the_chains_of_diffusers(path: str, name: str) -> None:
    chain = DDPMScheduler(beta_schedule=name).alphas_cumprod
    times = (torch.arange(1000) + 1) / 1000
    alpha, sigma = Process(path).alpha_sigma(times)
    torch.testing.assert_close(alpha.square(), chain, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1000))
    start, end = Process(path).alpha_sigma(torch.tensor([0.0, 1.0]))
    assert start[0] == 1
    assert end[0] == 0


def test_velocity_is_the_slope_of_the_flow_path() -> None:
    process = Process("flow", "velocity")
    x0, noise, time = draw()
    ahead = process.add_noise(x0, noise, time + 1e-3)
    slope = (ahead - process.add_noise(x0, noise, time)) / 1e-3
    torch.testing.assert_close(slope, process.target_of(x0, noise, time), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("process", "word"), [(Process("cubic"), "path"), (Process("flow", "score"), "target")])
def test_refuses_unknown_names(process: Process, word: str) -> None:
    with pytest.raises(ValueError, match=f"got process {word}"):
        process.check()
