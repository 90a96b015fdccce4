"""Weak guidance in one packed call against two calls: seconds and quality, beside ordinary guidance and none.

Seconds: one guided step of the native mode at several batch sizes, the ways in turn within each repetition. Quality:
whole samples of the same noises and classes, each way; Frechet distance to real clips with its interval, and how far
the packed samples are from those of two calls (only the rounding of kernels lies between).

    python benchmarks/bench_guidance.py --checkpoint RUN --data data/moving_digits --output FILE.json

On an accelerator add --compile. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid import FlexiDiT, Step
from flexivid.budget.schedule import Schedule, schedule_macs
from flexivid.diffusion.guidance import Guidance
from flexivid.evaluation.features import extract
from flexivid.evaluation.run import Job, Request, prepare
from flexivid.media.pixels import to_bytes
from flexivid.metrics.scores import score
from flexivid.runtime.device import autocast
from flexivid.sampling.compiling import compile_forward
from flexivid.sampling.conditions import Conditions
from flexivid.sampling.denoiser import GuidedDenoiser, steps_of
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.settings import Settings


class Way(NamedTuple):
    """A kind of guidance, and how its branches are called."""

    kind: str
    packing: str

    def __str__(self) -> str:
        calls = {"always": ", one call", "never": ", two calls"}[self.packing]
        return self.kind if self.kind == "none" else self.kind + calls


WAYS = (Way("none", "never"), *(Way(kind, packing) for kind in ("ordinary", "weak") for packing in ("never", "always")))


def step_of(model: FlexiDiT, kind: str) -> Step:
    """A native step with the guide branch of a kind: its own mode, the cheapest, or none."""
    guide = {"none": None, "ordinary": model.config.native, "weak": model.config.modes[-1]}[kind]
    return Step(model.config.native, guide)


def step_seconds(job: Job, batch: int, repetitions: int) -> dict[str, float]:
    """Median seconds of a guided step, each way."""
    model, settings = job.task.model, job.task.settings
    device = next(model.parameters()).device
    x, at = (
        torch.randn(batch, model.config.in_channels, *settings.size, device=device),
        torch.full((batch,), 0.7, device=device),
    )
    runs = {str(way): _runner(model, settings, way, x, at) for way in WAYS}
    found: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad(), autocast(device, settings.precision):
        for repetition in range(repetitions + 2):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                if device.type != "cpu":
                    torch.accelerator.synchronize(device)
                if repetition >= 2:
                    found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def _runner(model: FlexiDiT, settings: Settings, way: Way, x: Tensor, at: Tensor) -> Callable[[], Tensor]:
    labels = torch.arange(len(x), device=x.device) % model.config.num_classes
    guidance = Guidance(3.0, "weak" if way.kind == "weak" else "ordinary")
    settings = settings._replace(packing=way.packing, batch_size=len(x))
    denoise = GuidedDenoiser(model, settings, guidance, Conditions(labels), steps_of([step_of(model, way.kind)]))
    return lambda: denoise(0, x, at)


def quality(job: Job) -> list[dict[str, Any]]:
    """Whole samples each way: score, seconds, share of the compute, and what packing changes."""
    model, base, real = job.task.model, job.task.settings, job.real.all()
    full, rows, before = 0, [], {}
    for way in WAYS:
        kind = "ordinary" if way.kind == "none" else way.kind
        settings = base._replace(guidance=kind, packing=way.packing)
        schedule = Schedule([step_of(model, way.kind)] * base.num_inference_steps)
        started = time.perf_counter()
        made = generate_batches(model, schedule, settings, conditions=job.task.conditions, seed=job.task.seed)
        videos = torch.cat([videos for _, videos in made])
        seconds, macs = time.perf_counter() - started, schedule_macs(schedule, model.config, settings.size)
        full = max(full, macs if way.kind == "ordinary" else 0)
        features = [extract(job.task.extractor, part) for part in to_bytes(videos).split(32)]
        found = score(torch.cat(features), real)
        row = {
            "way": str(way),
            "seconds": seconds,
            "macs": macs,
            "fvd": found.fvd,
            "low": found.low,
            "high": found.high,
        }
        if way.packing == "always":
            row["change_by_packing"] = (videos - before[way.kind]).abs().mean().item() / 2
        before[way.kind] = videos
        rows.append(row)
        print(
            f"{way!s:<22} {seconds:7.1f} s  fvd {found.fvd:.3f} ({found.low:.3f} - {found.high:.3f})", file=sys.stderr
        )
    return [{**row, "macs_share": row["macs"] / full} for row in rows]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder of a model with classes")
    parser.add_argument("--data", help="real videos (default: those of the run)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 32])
    parser.add_argument("--num-videos", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cache", default="runs/bench_guidance", help="features of the real clips are kept here")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    request = Request(options.checkpoint, options.cache, [1.0], num_videos=options.num_videos, reference=options.data)
    job = prepare(request, torch.device(options.device))
    if options.compile:
        compile_forward(job.task.model)
    rows = []
    for batch in options.batches:
        seconds = step_seconds(job, batch, options.repetitions)
        rows.append({"batch": batch, "seconds": seconds})
        print(
            f"batch {batch:<3} " + "  ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items()),
            file=sys.stderr,
        )
    result = {
        "question": __doc__.splitlines()[0],
        "machine": {"device": options.device, "processor": platform.processor(), "threads": torch.get_num_threads()},
        **{"torch": torch.__version__, "compiled": options.compile, "metric": job.task.extractor.metric_name},
        **{"settings": job.task.settings._asdict(), "num_videos": options.num_videos},
        **{"steps": rows, "samples": quality(job)},
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
