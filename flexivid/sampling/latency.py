"""Seconds that a step of sampling takes for one video: measured once a machine and setting, stored in the cache.

Steps are timed as sampling makes them: of as many videos as a batch holds, with both branches of guidance where a step
has them, and with the solver's own work. The key of a measurement names all that it depends on: network, latent size,
batches, precision, solver, device, threads, whether the network is compiled, and the version of torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from flexivid.budget.schedule import Step
from flexivid.diffusion.solver import build_scheduler, noise_generators, num_calls, solve
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.frozen import sampling_calls
from flexivid.runtime.files import save_json
from flexivid.runtime.paths import cache_folder
from flexivid.sampling.compiling import is_compiled, step_call
from flexivid.sampling.denoiser import batch_of, shares_call
from flexivid.sampling.settings import Settings, options_for

ENOUGH_SECONDS = 2.0  # of timing: steps of a small network differ by a fifth from one turn to the next
FEWEST_TURNS, MOST_TURNS = 3, 50
SOLVER_STEPS = 5  # of which the first is of a lower order


def known_latency(model: FlexiDiT, settings: Settings, num_videos: int) -> dict[Step, float]:
    """Seconds of each step that a schedule may have, for one of so many videos, from the cache or measured now."""
    batches = batches_of(model, settings, num_videos)
    key = latency_key(model, settings, batches)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_folder("latency") / f"{digest}.json"
    seconds = _read(file, batches)
    if seconds is None:
        seconds = measure_latency(model, settings, batches)
        content = {"key": key, "seconds": {str(step): value for step, value in seconds.items()}}
        file.parent.mkdir(parents=True, exist_ok=True)
        save_json(file, content)
    return seconds


def batches_of(model: FlexiDiT, settings: Settings, num_videos: int) -> dict[Step, int]:
    """The steps that a schedule may have, each also without guidance, and how many videos share one.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.sampling.settings import Sampling
        >>> config = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=3)
        >>> settings = Sampling(size=(2, 8, 8), guidance_scale=2.0, batch_size=4).filled(FlexiDiT(config))
        >>> {str(step): count for step, count in batches_of(FlexiDiT(config), settings, 20).items()}
        {'1x2x2+1x2x2': 4, '1x2x2': 4, '2x4x4+2x4x4': 20, '2x4x4': 20}
    """
    options = options_for(model, settings)
    steps = dict.fromkeys(each for step in (options[0].ordinary, *options) for each in (step, step.plain))
    most = num_videos * len(settings.window_starts)
    return {
        step: min(most, batch_of(step, settings.call_size, model.config.native, settings.batch_size)) for step in steps
    }


def latency_key(model: FlexiDiT, settings: Settings, batches: Mapping[Step, int]) -> dict[str, Any]:
    """Everything that a measurement depends on, as plain data."""
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    guided = {step: batch for step, batch in batches.items() if step.guide_mode}
    return {
        "model": model.config.to_dict(),
        "size": list(settings.call_size),
        "batches": {str(step): batch for step, batch in batches.items()},
        "together": [str(step) for step, batch in guided.items() if shares_call(step, settings, batch, device)],
        "precision": settings.precision,
        "solver": settings.solver,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "compiled": is_compiled(model),
        "torch": torch.__version__,
        **({"text_tokens": settings.text_tokens} if settings.text_tokens else {}),
    }


@torch.no_grad()
def measure_latency(model: FlexiDiT, settings: Settings, batches: Mapping[Step, int]) -> dict[Step, float]:
    """Median seconds of each step for one video; steps take turns, so that a slow moment hits all."""
    device = next(model.parameters()).device
    work: dict[Step | int, Callable[[], Any]] = {c: _solver_steps(model, settings, c) for c in set(batches.values())}
    times: dict[Step | int, list[float]] = {key: [] for key in (*batches, *work)}
    with sampling_calls(model, settings.precision):
        work |= {step: step_call(model, settings, step, count) for step, count in batches.items()}
        started, turn = time.perf_counter(), 0
        while turn <= FEWEST_TURNS or (turn <= MOST_TURNS and time.perf_counter() - started < ENOUGH_SECONDS):
            for key, make in work.items():
                seconds = _seconds(make, device)
                times[key] += [seconds] if turn else []  # the first one warms up
            turn += 1
    medians = {key: statistics.median(each) for key, each in times.items()}
    calls = num_calls(settings.solver, SOLVER_STEPS)
    return {step: (medians[step] + medians[count] / calls) / count for step, count in batches.items()}


def _solver_steps(model: FlexiDiT, settings: Settings, count: int) -> Callable[[], Any]:
    """The solver's own work in :data:`SOLVER_STEPS` steps of so many videos."""
    process, device = model.recipe.process, next(model.parameters()).device
    x = torch.zeros(count, model.config.in_channels, *settings.call_size, device=device)

    def run() -> None:
        scheduler = build_scheduler(process, settings.solver, SOLVER_STEPS, shift=settings.shift)
        solve(lambda call, x, time: x, x, process, scheduler, generator=noise_generators(range(count)))

    return run


def _seconds(make: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    make()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _read(file: Path, steps: Iterable[Step]) -> dict[Step, float] | None:
    """Seconds by step from the cache; ``None`` if the file is missing or damaged."""
    try:
        seconds = json.loads(file.read_text())["seconds"]
        return {step: float(seconds[str(step)]) for step in steps}
    except (OSError, ValueError, KeyError, TypeError):
        return None
