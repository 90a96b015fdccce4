"""How long should a thread that waits for others burn its core? Seconds of a training step, alone and on busy cores.

PyTorch's threads wait for each other hundreds of times a step. GNU's OpenMP (that of the Linux wheels) turns 300,000
rounds before it gives its core away; flexivid asks for ``GOMP_SPINCOUNT=10000``. Each setting runs in a process of its
own, the settings in turn; "busy" has another process on one of the cores.

    python benchmarks/bench_waiting.py --output benchmarks/results/bench_waiting.json

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COUNTS = ("300000", "100000", "10000", "1000", "0")
BUSY = "while True: pass"


def step_seconds(steps: int) -> float:
    """Median seconds of a training step of the main job's network in its native mode."""
    import torch

    from flexivid import Condition, FlexiDiT, FlexiDiTConfig
    from flexivid.runtime.device import autocast

    torch.manual_seed(0)
    model = FlexiDiT(FlexiDiTConfig.preset("tiny", modes=("2x4x4", "4x8x8"), num_classes=10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x, at, shown = torch.randn(16, 3, 8, 32, 32), torch.rand(16), Condition(torch.arange(16) % 10)
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with autocast(torch.device("cpu")):
            made = model(x, at, shown)
        made.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def measure(count: str, *, busy: bool, steps: int) -> float:
    """The same in a process of its own."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY])] if busy else []
    try:
        command = [sys.executable, __file__, "--worker", "--steps", str(steps)]
        env = {**os.environ, "GOMP_SPINCOUNT": count}
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout.split()[-1])
    finally:
        for other in others:
            other.kill()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    if options.worker:
        print(step_seconds(options.steps))
        return
    found: dict[tuple[bool, str], list[float]] = {}
    for _ in range(options.repetitions):
        for busy in (False, True):
            for count in COUNTS:
                found.setdefault((busy, count), []).append(measure(count, busy=busy, steps=options.steps))
    rows = [
        {"busy": busy, "rounds": int(count), "seconds": statistics.median(seconds), "all": seconds}
        for (busy, count), seconds in found.items()
    ]
    for row in rows:
        print(f"{'busy' if row['busy'] else 'alone':<6} {row['rounds']:>7} {row['seconds']:.3f} s", file=sys.stderr)
    machine = {"processor": platform.processor(), "cores": os.cpu_count()}
    result = {"question": __doc__.splitlines()[0], "machine": machine, "rows": rows}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
