"""Which network learns enough in the minutes of a job on this machine?

    python conf/network_for.py conf/train_video.yaml tiny nano

Networks are those of conf/model, the best one first. A few training steps of each but the last one are timed, until
enough of the job's steps fit into its minutes; else the last one is taken. Accelerators get the first one untimed.
Prints its name; what was measured goes to stderr. How many are enough was measured: docs/LOG.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flexivid.runtime.start import keep_freed_memory, swift_imports

with swift_imports():
    import torch
    import yaml

    from flexivid.model.config import FlexiDiTConfig
    from flexivid.model.flexidit import FlexiDiT
    from flexivid.runtime.device import autocast, pick_device
    from flexivid.training.optimizer import OptimizerSettings, build_optimizer

TIMED = 2  # steps, after a first one
ENOUGH = 0.45  # of a job's steps: with fewer, a smaller network that makes all of them is better


def seconds_of_step(job: dict[str, Any], network: str) -> float:
    """Seconds of a native training step of a job with a network of this name."""
    data, settings = job["data"], OptimizerSettings(**job["model"]["optimizer"])
    model = FlexiDiT(FlexiDiTConfig.preset(network, modes=tuple(job["model"]["network"]["modes"])))
    optimizer = build_optimizer(model, settings)
    x = torch.randn(data["batch_size"], 3, data["num_frames"], data["size"], data["size"])
    seconds = []
    for _ in range(1 + TIMED):
        started = time.perf_counter()
        with autocast(x.device):
            loss = (model(x, torch.full((len(x),), 0.5)) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def choose(job: dict[str, Any], networks: Sequence[str]) -> str:
    """The first network of which enough steps fit into the job's minutes, else the last one."""
    callbacks, steps = job["trainer"]["callbacks"], job["trainer"]["max_steps"]
    minutes = next(one["init_args"]["minutes"] for one in callbacks if one["class_path"].endswith(".FitMinutes"))
    if pick_device().type != "cpu":
        return networks[0]
    *better, last = networks
    for network in better:
        seconds = seconds_of_step(job, network)
        fit = int(minutes * 60 / seconds)
        is_enough = fit >= ENOUGH * steps
        told = f"{network}: {seconds:.2f} s a step on this machine, {fit} of {steps} fit into {minutes:g} minutes"
        print(told if is_enough else f"{told}; a smaller network learns more", file=sys.stderr)
        if is_enough:
            return network
    return last


def main() -> None:
    """Read the job, and print a name."""
    keep_freed_memory()
    job, *networks = sys.argv[1:]
    print(choose(yaml.safe_load(Path(job).read_text(encoding="utf-8")), networks))


if __name__ == "__main__":
    main()
