"""Is our I3D as fast as torchvision's r3d_18 for the work it does, and what does the metric cost beyond its features?

One process, the candidates in turn within each repetition so that drift of the machine hits all alike. r3d_18 is taken
as torchvision makes it and, since that is faster on some machines, with channels last too. MACs are PyTorch's count.
The metric's cost is the time of ``update`` and ``compute`` over that of the same features alone. Weights are random:
the cost is the same.

    python benchmarks/bench_fvd.py --output benchmarks/results/bench_fvd.json

The last line of stdout is one JSON document.
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
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flexivid.metrics import I3D, FrechetVideoDistance, frechet_distance
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.extractors.networks import Network
from flexivid.metrics.extractors.preprocess import bilinear

FRAMES, LAST = 16, torch.channels_last_3d
NUM_VIDEOS, NUM_FEATURES = 2048, 400


def candidates(batch: int, device: str) -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks, each with a batch of 16 frames of the size it is made for."""
    torch.manual_seed(0)
    r3d = torchvision.models.get_model("r3d_18").eval().to(device)
    last = torchvision.models.get_model("r3d_18").eval().to(device, memory_format=LAST)
    small = torch.rand(batch, 3, FRAMES, 112, 112, device=device)
    return {
        "flexivid I3D": (I3D().eval().to(device), torch.rand(batch, 3, FRAMES, 224, 224, device=device)),
        "torchvision r3d_18": (r3d, small),
        "torchvision r3d_18, channels last": (last, small.contiguous(memory_format=LAST)),
    }


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


@torch.no_grad()
def measure_networks(batch: int, repetitions: int, device: str) -> list[dict[str, Any]]:
    """Clips and billions of MACs a second."""
    networks = candidates(batch, device)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for repetition in range(repetitions + 1):
        for name, (network, clips) in networks.items():
            taken = seconds_of(lambda network=network, clips=clips: network(clips), device)
            if repetition:
                seconds[name].append(taken)
    rows = []
    for name, (network, clips) in networks.items():
        with FlopCounterMode(display=False) as counter:
            network(clips[:1])
        gmacs, rate = counter.get_total_flops() / 2e9, batch / statistics.median(seconds[name])
        row = {"network": name, "batch": batch, "gmacs_a_clip": gmacs, "clips_a_second": rate}
        rows.append({**row, "gmacs_a_second": gmacs * rate, "seconds": seconds[name]})
        print(f"{name:>34} {rate:6.2f} clips/s {gmacs * rate:7.1f} GMAC/s", file=sys.stderr)
    return rows


def measure_metric(batch: int, batches: int, device: str) -> dict[str, float]:
    """Seconds of features alone, and of the metric that takes the same ones."""
    network = Network(I3D().eval(), lambda videos: bilinear(videos, 224), NUM_FEATURES, 9, "bilinear")
    extractor = Extractor("i3d", network).to(device)
    metric = FrechetVideoDistance(extractor)
    videos = torch.rand(batch, 3, FRAMES, 64, 64, device=device) * 2 - 1
    extractor(videos)
    alone = whole = 0.0
    for number in range(2 * batches):
        alone += seconds_of(lambda: extractor(videos), device)
        whole += seconds_of(lambda real=number % 2: metric.update(videos, real=bool(real)), device)
    whole += seconds_of(metric.compute, device)
    print(f"metric over features alone: {whole / alone:.4f}", file=sys.stderr)
    return {"videos": 2 * batches * batch, "seconds_features": alone, "seconds_metric": whole, "ratio": whole / alone}


def measure_distance(repetitions: int) -> dict[str, Any]:
    """Seconds of the distance of two full sets of features."""
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, NUM_VIDEOS, NUM_FEATURES, generator=generator)
    seconds = [seconds_of(lambda: frechet_distance(one, two), "cpu") for _ in range(repetitions + 1)][1:]
    print(f"distance of {NUM_VIDEOS} x {NUM_FEATURES} features: {statistics.median(seconds):.3f} s", file=sys.stderr)
    return {"videos": NUM_VIDEOS, "features": NUM_FEATURES, "seconds": statistics.median(seconds)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    networks = [
        row
        for batch in sorted({1, options.batch})
        for row in measure_networks(batch, options.repetitions, options.device)
    ]
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    machine = {"device": options.device, "processor": platform.processor(), "threads": torch.get_num_threads()}
    result = {
        "question": __doc__.splitlines()[0],
        "frames": FRAMES,
        "machine": {**machine, **versions},
        "networks": networks,
        "metric": measure_metric(options.batch, 4, options.device),
        "distance": measure_distance(options.repetitions),
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
