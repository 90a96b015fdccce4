"""Solving from noise to data with diffusers' schedulers, behind one function.

Knows processes and schedulers; not what the network is, nor which patch modes it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexivid.diffusion.process import NUM_TRAIN_TIMESTEPS, Process
from flexivid.diffusion.times import shift_time

SOLVERS = {"flow": ("euler", "heun", "unipc", "dpm++"), "ddpm": ("ddim", "ddpm", "unipc", "dpm++")}

Randomness = torch.Generator | list[torch.Generator] | None
Predict = Callable[[int, Tensor, Tensor], Tensor]  # (call index, x, times (b,)) -> network output
NOISE_STREAM = 1  # spawn key of the solver's own noise


def solvers_of(process: Process) -> tuple[str, ...]:
    """Solvers that can follow a process's path, the default one first.

    Example:
        >>> solvers_of(Process("flow")), solvers_of(Process("cosine"))
        (('euler', 'heun', 'unipc', 'dpm++'), ('ddim', 'ddpm', 'unipc', 'dpm++'))
    """
    return SOLVERS["flow" if process.path == "flow" else "ddpm"]


def num_calls(solver: str, num_steps: int) -> int:
    """How often a solver calls the network: once a step, Heun twice in all steps but the last.

    Example:
        >>> num_calls("euler", 20), num_calls("heun", 20)
        (20, 39)
    """
    return 2 * num_steps - 1 if solver == "heun" else num_steps


def steps_of_calls(solver: str, calls: int) -> int:
    """Number of solver steps that makes so many calls of the network: the inverse of :func:`num_calls`."""
    return (calls + 1) // 2 if solver == "heun" else calls


def build_scheduler(process: Process, solver: str, num_steps: int, *, shift: float = 1.0) -> Any:
    """A diffusers scheduler with its timesteps set; ``ValueError`` if the solver does not fit the process.

    ``solver`` is one of :func:`solvers_of`, ``num_steps`` 1 to 1000, ``shift`` the time shift of flow paths.
    """
    check_solver(process, solver, num_steps)
    if process.path == "flow":
        return _flow_scheduler(solver, num_steps, shift)
    return _ddpm_scheduler(process, solver, num_steps)


def check_solver(process: Process, solver: str, num_steps: int) -> None:
    """Refuse a solver that does not fit the path, or a number of steps outside 1 to 1000."""
    if solver not in solvers_of(process):
        raise ValueError(
            f"got solver {solver!r} for a {process.path} process; expected one of {', '.join(solvers_of(process))};"
            " choose one of these"
        )
    if not 1 <= num_steps <= NUM_TRAIN_TIMESTEPS:
        raise ValueError(f"got {num_steps} inference steps; expected 1 to {NUM_TRAIN_TIMESTEPS}; change the number")


def _flow_scheduler(solver: str, num_steps: int, shift: float) -> Any:
    import diffusers

    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    sigmas = torch.linspace(1, 1 / num_steps, num_steps).numpy()  # equal steps; the last one ends at 0
    scheduler: Any
    if solver == "euler":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(sigmas=sigmas)
    elif solver == "heun":
        scheduler = diffusers.FlowMatchHeunDiscreteScheduler()  # its shift would be applied twice (constructor, steps)
        scheduler.set_timesteps(num_steps)
        _set_heun_sigmas(scheduler, shift_time(torch.from_numpy(sigmas), shift))
    elif solver == "unipc":
        scheduler = diffusers.UniPCMultistepScheduler(**flow)
        scheduler.set_timesteps(sigmas=sigmas)
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(**flow)
        scheduler.set_timesteps(num_steps)
    scheduler.set_begin_index(0)  # else looked up by timestep, and whole-numbered ones may occur twice
    return scheduler


def _set_heun_sigmas(scheduler: Any, sigmas: Tensor) -> None:
    """Replace Heun's sigmas, which diffusers cannot be told: its own stop at 1/1000 and spend a step on the rest."""
    inner = sigmas[1:].repeat_interleave(2)
    scheduler.sigmas = torch.cat((sigmas[:1], inner, torch.zeros(1)))
    scheduler.timesteps = torch.cat((sigmas[:1], inner)) * NUM_TRAIN_TIMESTEPS


def _ddpm_scheduler(process: Process, solver: str, num_steps: int) -> Any:
    import diffusers

    settings = {
        "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
        "beta_schedule": {"cosine": "squaredcos_cap_v2", "linear": "linear"}[process.path],
        "prediction_type": "sample",
        "timestep_spacing": "trailing",  # starts at pure noise (2305.08891)
    }
    if solver == "ddim":  # diffusers' own is off where num_steps does not divide 1000; DPM-Solver++ of order 1 is DDIM
        settings["solver_order"] = 1
    if solver == "ddpm":
        settings["clip_sample"] = False
    name = {"ddpm": "DDPM", "unipc": "UniPCMultistep"}.get(solver, "DPMSolverMultistep")
    scheduler = getattr(diffusers, name + "Scheduler")(**settings)
    scheduler.set_timesteps(num_steps)
    return scheduler


def noise_generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """One source of the solver's own noise for each sample's seed, on the CPU, independent of the noise it starts from.

    A generator seeded with the seed itself would repeat the starting noise at the first step of the ancestral solver,
    and two equal noises add up to more than two independent ones.

    Example:
        >>> start, own = torch.Generator().manual_seed(7), noise_generators([7])[0]
        >>> [round(torch.randn(1, generator=source).item(), 3) for source in (start, own)]
        [-0.147, 0.539]
    """
    words = [np.random.SeedSequence(seed % 2**64, spawn_key=(NOISE_STREAM,)).generate_state(1) for seed in seeds]
    return [torch.Generator().manual_seed(int(word[0])) for word in words]  # the CPU generator reads 32 bits


def solve(predict: Predict, noise: Tensor, process: Process, scheduler: Any, *, generator: Randomness = None) -> Tensor:
    """Follow the path from noise to data; returns the latent at time 0, float32.

    Args:
        predict: ``predict(i, x, time)`` -> network output at the i-th call, time (b,) in (0, 1].
        noise: Where to start, (b, c, t, h, w), float32.
        process: Path and target of the network.
        scheduler: From :func:`build_scheduler`; it serves one call.
        generator: Randomness of the ancestral solver (ddpm), one in all or one a sample (:func:`noise_generators`).
    """
    x = noise.float()
    times = _times_of(process, scheduler)
    target = "velocity" if process.path == "flow" else "x0"  # what the scheduler expects
    extra = {"generator": generator} if type(scheduler).__name__ == "DDPMScheduler" else {}
    for i, value in enumerate(times):
        time = torch.full((len(x),), value, device=x.device)
        output = process.convert(predict(i, x, time), x, time, target)
        x = scheduler.step(output, scheduler.timesteps[i], x, return_dict=False, **extra)[0].float()
    return x


def call_times(process: Process, solver: str, num_steps: int, *, shift: float = 1.0) -> list[float]:
    """Time of each call of the network, as :func:`solve` will make them; arguments as of :func:`build_scheduler`.

    Example:
        >>> call_times(Process("flow"), "euler", 4)
        [1.0, 0.75, 0.5, 0.25]
    """
    return _times_of(process, build_scheduler(process, solver, num_steps, shift=shift))


def _times_of(process: Process, scheduler: Any) -> list[float]:
    """Time of each call. Flow: sigma, since some schedulers cut their timesteps to whole numbers."""
    if process.path == "flow":
        return scheduler.sigmas[: len(scheduler.timesteps)].tolist()
    return ((scheduler.timesteps + 1) / NUM_TRAIN_TIMESTEPS).tolist()  # discrete timestep k is time (k + 1) / 1000
