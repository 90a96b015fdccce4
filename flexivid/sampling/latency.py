"""Seconds of a network's calls for one video, by mode: measured once a machine and setting, stored in the cache.

A call is as sampling makes it: of as many videos as a batch holds, and for few of them of both branches of guidance,
each of which then counts half. A step without guidance is timed by itself there. The key of a measurement names all
that it depends on: network, latent size, batches, precision, device, threads, whether the network is compiled, and the
version of torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flexivid.budget.schedule import Step
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.frozen import sampling_calls
from flexivid.patching.shapes import PatchMode
from flexivid.runtime.files import save_json
from flexivid.runtime.paths import cache_folder
from flexivid.sampling.compiling import empty_condition, is_compiled
from flexivid.sampling.denoiser import batch_of, shares_call
from flexivid.sampling.settings import Settings, options_for

REPEATS = 5

# One branch of guidance in a mode; or a step without guidance, where both branches would share a call.
Call = PatchMode | Step


def known_latency(model: FlexiDiT, settings: Settings, num_videos: int) -> dict[Call, float]:
    """Seconds of one branch of guidance for one video, of every mode, from the cache or measured now.

    Where both branches share a call, also those of a step without guidance, which takes more than half of their time.
    """
    batches = batches_of(model, settings, num_videos)
    key = latency_key(model, settings, batches)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_folder("latency") / f"{digest}.json"
    seconds = _read(file, batches)
    if seconds is None:
        seconds = measure_latency(model, settings, batches)
        content = {"key": key, "seconds": {name_of(call): value for call, value in seconds.items()}}
        file.parent.mkdir(parents=True, exist_ok=True)
        save_json(file, content)
    return seconds


def name_of(call: Call) -> str:
    """How a call is called in files and lines.

    Example:
        >>> name_of(PatchMode("2x4x4")), name_of(Step(PatchMode("2x4x4")))
        ('2x4x4', '2x4x4 alone')
    """
    return f"{call} alone" if isinstance(call, Step) else str(call)


def batches_of(model: FlexiDiT, settings: Settings, num_videos: int) -> dict[Call, int]:
    """Samples in each call, as sampling has them; both branches of guidance may share it.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.sampling.settings import Sampling
        >>> config = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=3)
        >>> model = FlexiDiT(config)
        >>> list(batches_of(model, Sampling(size=(2, 8, 8), batch_size=4).filled(model), 20).values())
        [4, 20]
        >>> list(batches_of(model, Sampling(size=(2, 8, 8), guidance_scale=2.0).filled(model), 1).values())
        [2, 2, 1, 1]
    """
    modes: Sequence[PatchMode] = [PatchMode(mode) for mode in model.config.modes]
    largest = {mode: batch_of(mode, settings.call_size, model.config.native, settings.batch_size) for mode in modes}
    counts = {mode: min(num_videos, batch) for mode, batch in largest.items()}
    device = next(model.parameters()).device
    alike = [step for step in options_for(model, settings) if step.mode == step.guide_mode]
    doubled = {step.mode for step in alike if shares_call(step, settings, counts[step.modes[0]], device)}
    calls: dict[Call, int] = {mode: 2 * count if mode in doubled else count for mode, count in counts.items()}
    return calls | {Step(mode): counts[mode] for mode in counts if mode in doubled}


def latency_key(model: FlexiDiT, settings: Settings, batches: Mapping[Call, int]) -> dict[str, Any]:
    """Everything that a measurement depends on, as plain data."""
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "model": model.config.to_dict(),
        "size": list(settings.call_size),
        "batches": {name_of(call): batch for call, batch in batches.items()},
        "precision": settings.precision,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "compiled": is_compiled(model),
        "torch": torch.__version__,
        **({"text_tokens": settings.text_tokens} if settings.text_tokens else {}),
    }


@torch.no_grad()
def measure_latency(
    model: FlexiDiT, settings: Settings, batches: Mapping[Call, int], *, repeats: int = REPEATS
) -> dict[Call, float]:
    """Median seconds of one sample of each call; calls take turns, so that a slow moment hits all."""
    device = next(model.parameters()).device
    x = torch.zeros(max(batches.values()), model.config.in_channels, *settings.call_size, device=device)
    time_of_noise = torch.ones(len(x), device=device)
    times: dict[Call, list[float]] = {call: [] for call in batches}
    with sampling_calls(model, settings.precision):
        conditions = {batch: empty_condition(model, settings, batch) for batch in batches.values()}
        for turn in range(repeats + 1):
            for call, batch in batches.items():
                mode = call.mode if isinstance(call, Step) else call
                _wait(device)
                started = time.perf_counter()
                model(x[:batch], time_of_noise[:batch], conditions[batch], mode)
                _wait(device)
                if turn:  # the first one warms up
                    times[call].append((time.perf_counter() - started) / batch)
    return {call: statistics.median(values) for call, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _read(file: Path, calls: Iterable[Call]) -> dict[Call, float] | None:
    """Seconds by call from the cache; ``None`` if the file is missing or damaged."""
    try:
        seconds = json.loads(file.read_text())["seconds"]
        return {call: float(seconds[name_of(call)]) for call in calls}
    except (OSError, ValueError, KeyError, TypeError):
        return None
