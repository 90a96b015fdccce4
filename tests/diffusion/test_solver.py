"""With the ideal denoiser of Gaussian data, every solver gives back the data's mean and deviation."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from flexivid.diffusion.process import PATHS, TARGETS, Process
from flexivid.diffusion.solver import (
    SOLVERS,
    build_scheduler,
    call_times,
    noise_generators,
    num_calls,
    solve,
    solvers_of,
)
from flexivid.diffusion.times import shift_time

MEAN, STD = 0.5, 0.3
CASES = [(path, solver) for path in PATHS for solver in solvers_of(Process(path))]
FLOW = solvers_of(Process("flow"))
DEVIATION = {"euler": 0.007, "ddim": 0.015, "ddpm": 0.03}  # measured at 100 steps; the others, of second order, 0.002


def ideal(process: Process, calls: list[float]):
    """What a perfect network outputs when data is normal with MEAN and STD."""

    def predict(i: int, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        assert i == len(calls)
        calls.append(time[0].item())
        alpha, sigma = (value.view(-1, 1, 1, 1, 1).double() for value in process.alpha_sigma(time))
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        return process.target_of(x0, (x - alpha * x0) / sigma, time).float()

    return predict


def standard_noise(*shape: int) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (noise - noise.mean()) / noise.std()


@pytest.mark.parametrize(("path", "solver"), CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_keeps_mean_and_deviation(path: str, solver: str, target: str) -> None:
    process, calls = Process(path, target), []
    scheduler = build_scheduler(process, solver, 100)
    noise, generator = standard_noise(64, 1, 2, 16, 16), torch.Generator().manual_seed(1)
    data = solve(ideal(process, calls), noise, process, scheduler, generator=generator)
    assert len(calls) == num_calls(solver, 100)
    assert calls[0] == pytest.approx(1, abs=2e-3)
    assert calls == sorted(calls, reverse=True)
    off = 0.006 if target == "noise" else 0.002  # at time 1 noise says nothing of x0: alpha is kept above 0.05 there
    assert data.mean().item() == pytest.approx(MEAN, abs=off)
    assert data.std().item() == pytest.approx(STD, abs=DEVIATION.get(solver, 0.002))


@pytest.mark.parametrize(
    ("path", "solver", "shift"), [(*case, 1.0) for case in CASES] + [("flow", s, 12.0) for s in FLOW]
)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 30, 150, 400])
def test_any_number_of_steps(path: str, solver: str, shift: float, num_steps: int) -> None:
    """Numbers that do not divide 1000 trip diffusers' DDIM; times closer than 1/1000, its multistep flow solvers."""
    process, calls = Process(path, "velocity"), []
    scheduler = build_scheduler(process, solver, num_steps, shift=shift)
    generator = torch.Generator().manual_seed(1)
    data = solve(ideal(process, calls), standard_noise(64, 1, 1, 8, 8), process, scheduler, generator=generator)
    assert len(calls) == num_calls(solver, num_steps)
    assert data.isfinite().all()
    if num_steps >= 150:
        assert data.mean().item() == pytest.approx(MEAN, abs=0.015 if solver == "ddpm" else 0.002)
        assert data.std().item() == pytest.approx(STD, abs=0.025 if shift == 1 else 0.035)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("solver", FLOW)
@pytest.mark.parametrize("num_steps", [20, 50, 100])
def test_no_noise_is_left_when_x0_is_certain(target: str, solver: str, num_steps: int) -> None:
    """Data is -1 or 1: a perfect network knows which, long before the last step."""
    process = Process("flow", target)

    def predict(i: int, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (value.view(-1, 1).double() for value in process.alpha_sigma(time))
        x0 = torch.tanh(alpha * x / sigma**2)
        return process.target_of(x0, (x - alpha * x0) / sigma, time).float()

    data = solve(predict, standard_noise(500, 1), process, build_scheduler(process, solver, num_steps))
    assert (data.abs() - 1).abs().max() < 1e-3


@pytest.mark.parametrize("path", ["cosine", "linear"])
def test_ddim_is_diffusers_ddim_where_that_is_right(path: str) -> None:
    schedule = {"cosine": "squaredcos_cap_v2", "linear": "linear"}[path]
    own = DDIMScheduler(
        beta_schedule=schedule, prediction_type="sample", timestep_spacing="trailing", clip_sample=False
    )
    own.set_timesteps(20)
    process, noise = Process(path, "x0"), standard_noise(4, 8)
    expected, data = (
        solve(lambda i, x, time: torch.tanh(3 * x) - time[:, None], noise, process, scheduler)
        for scheduler in (own, build_scheduler(process, "ddim", 20))
    )
    torch.testing.assert_close(data, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", FLOW)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_network_is_told_the_noise_level_it_gets(solver: str, shift: float) -> None:
    process, calls = Process("flow", "velocity"), []
    solve(
        ideal(process, calls), standard_noise(2, 1, 1, 4, 4), process, build_scheduler(process, solver, 10, shift=shift)
    )
    once = [calls[0], *calls[1::2]] if solver == "heun" else calls
    expected = shift_time(torch.linspace(1, 0.1, 10), shift).tolist()
    assert once == pytest.approx(expected, abs=2e-3 if solver == "dpm++" else 1e-5)  # dpm++ starts at 999/1000


@pytest.mark.parametrize("solver", FLOW)
def test_shift_moves_the_times_towards_noise(solver: str) -> None:
    times = [build_scheduler(Process("flow"), solver, 10, shift=shift).timesteps for shift in (1.0, 3.0)]
    assert (times[1][1:] > times[0][1:]).all()


def test_the_solvers_own_noise_is_uncorrelated_with_the_start_and_the_seeds_alone() -> None:
    seeds, shape = [-3, 0, 1, 2**31 + 7], (4, 100_000)
    start = torch.stack([torch.randn(shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    own = torch.stack([torch.randn(shape[1], generator=source) for source in noise_generators(seeds)])
    seen = torch.corrcoef(torch.cat((start, own))) - torch.eye(8)
    assert seen.abs().max() < 5 / shape[1] ** 0.5  # of independent values, 5 deviations
    alone = torch.randn(shape[1], generator=noise_generators([2**31 + 7])[0])
    assert torch.equal(alone, own[3])


def test_ancestral_noise_follows_its_generators() -> None:
    process, noise = Process("linear", "noise"), torch.zeros(2, 1, 1, 4, 4)
    runs = []
    for seeds in ((1, 2), (1, 2), (2, 1)):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        scheduler = build_scheduler(process, "ddpm", 5)
        runs.append(solve(lambda i, x, t: x, noise, process, scheduler, generator=generators))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0][0], runs[2][1])


@pytest.mark.parametrize(
    ("process", "solver", "steps", "words"),
    [
        (Process("flow"), "ddim", 10, "for a flow process; expected one of euler"),
        (Process("cosine"), "euler", 10, "for a cosine process; expected one of ddim"),
        (Process("flow"), "euler", 0, "got 0 inference steps"),
        (Process("flow"), "heun", 1001, "got 1001 inference steps"),
    ],
)
def test_refuses_what_does_not_fit(process: Process, solver: str, steps: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_scheduler(process, solver, steps)


@pytest.mark.parametrize("path", ["flow", "cosine"])
def test_the_loop_never_waits_for_a_value(path):
    """Tensors without data cannot be read: a solver that looks at a value of the latent would fail here."""
    process = Process(path, "x0")
    for solver in (name for name in solvers_of(process) if name != "ddpm"):  # draws its noise on the CPU
        scheduler = build_scheduler(process, solver, 6)
        noise = torch.empty(2, 3, 2, 4, 4, device="meta")
        assert solve(lambda i, x, time: x, noise, process, scheduler).shape == noise.shape


@pytest.mark.parametrize("solver", SOLVERS["flow"])
def test_call_times_are_those_of_the_loop(solver):
    process, heard = Process("flow", "x0"), []
    scheduler = build_scheduler(process, solver, 5, shift=3.0)

    def predict(i, x, time):
        heard.append(time[0].item())
        return x

    solve(predict, torch.zeros(1, 1, 1, 2, 2), process, scheduler)
    assert heard == call_times(process, solver, 5, shift=3.0)
