"""Which network learns enough in the minutes of a job on this machine?

    python conf/network_for.py conf/train_video.yaml tiny nano --resumed runs/moving_digits

Networks are those of conf/model, the best one first. A few training steps of each but the last one are timed, until
enough of the job's steps fit into its minutes; else the last one is taken. Accelerators get the first one untimed.
Who resumes goes on with the network of the run. Prints its name; what was measured goes to stderr. How many are enough
was measured: docs/LOG.md.
"""

from __future__ import annotations

import argparse
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
    from flexivid.training.last_good import newest_first
    from flexivid.training.optimizer import OptimizerSettings, build_optimizer

NETWORKS = Path(__file__).parent / "model"
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


def network_of(resumed: Path, networks: Sequence[str]) -> str | None:
    """The network of a checkpoint, or of the newest one of a folder of runs; ``None`` if it is none of these."""
    file = resumed if resumed.is_file() else next(iter(newest_first(resumed.glob("*/checkpoints/*.ckpt"))), None)
    config = file and file.parent.parent / "config.yaml"
    if config is None or not config.is_file():
        return None
    trained = _read(config)["model"]["network"].items()
    return next(
        (name for name in networks if _read(NETWORKS / f"{name}.yaml")["model"]["network"].items() <= trained), None
    )


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def main() -> None:
    """Read the job, and print a name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("networks", nargs="+", help="of conf/model, the best one first")
    parser.add_argument("--resumed", type=Path, help="a checkpoint, or a folder of runs whose newest one goes on")
    options = parser.parse_args()
    keep_freed_memory()
    resumed = options.resumed and network_of(options.resumed, options.networks)
    print(resumed or choose(_read(options.job), options.networks))


if __name__ == "__main__":
    main()
