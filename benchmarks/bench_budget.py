"""Do the seconds of a sample fall with its budget, and is the budget kept?

One model, one process: every budget samples the same noises; repetitions take the budgets in turn, so that drift of the
machine hits all alike. MACs are measured by PyTorch's counter over the calls really made.

    python benchmarks/bench_budget.py --checkpoint RUN --output benchmarks/results/bench_budget.json

Overhead is what a sample takes beside the calls of its network: planning, solver, guidance, decoding. It is given over
the time that the calls of a native sample take.

Without a checkpoint a network of the main job's shape with random weights is used: the cost is the same.
The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from flexivid import FlexiDiT, FlexiDiTConfig, generate, load
from flexivid.pipeline.compiling import compile_forward

RECIPE = {"size": [8, 32, 32], "process": {"path": "flow", "target": "x0"}}


def build() -> FlexiDiT:
    """The main job's network, random weights."""
    torch.manual_seed(0)
    config = FlexiDiTConfig.preset("tiny", modes=("2x4x4", "4x4x4", "2x8x8", "4x8x8"), num_classes=10)
    model = FlexiDiT(config).eval()
    model.recipe = {**RECIPE, "sampling": {"num_inference_steps": 20, "guidance_scale": 2.0, "shift": 2.0}}
    return model


class CallTimer:
    """Seconds inside the network's calls while it is entered (on an accelerator every call is waited for)."""

    def __init__(self, model: FlexiDiT) -> None:
        self._model, self.seconds = model, 0.0

    def __enter__(self) -> CallTimer:
        before, after = (
            self._model.register_forward_pre_hook(self._start),
            self._model.register_forward_hook(self._stop),
        )
        self._handles = (before, after)
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _start(self, module: Any, args: Any) -> None:
        self._started = time.perf_counter()

    def _stop(self, module: Any, args: Any, output: torch.Tensor) -> None:
        if output.device.type != "cpu":
            torch.accelerator.synchronize(output.device)
        self.seconds += time.perf_counter() - self._started


def seconds_beside_calls(model: FlexiDiT, budget: float, batch: int, repetitions: int, **sampling: Any) -> float:
    """Median seconds that sampling takes beside the network's calls."""
    found = []
    for _ in range(repetitions):
        with CallTimer(model) as timer:
            started = time.perf_counter()
            generate(model, budget, num_videos=batch, batch_size=batch, **sampling)
            found.append(time.perf_counter() - started - timer.seconds)
    return statistics.median(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="run folder, .ckpt or exported folder")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.8, 0.6, 0.5, 0.4, 0.25, 0.15])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--packing", default="auto", help="auto, always or never")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    model = (load(options.checkpoint) if options.checkpoint else build()).to(options.device)

    if options.compile:
        model = compile_forward(model)
    sampling = {"packing": options.packing}

    made: dict[float, list] = {budget: [] for budget in options.budgets}
    for repetition in range(options.repetitions + 1):
        for budget, results in made.items():
            result = generate(model, budget, num_videos=options.batch, batch_size=options.batch, **sampling)
            if repetition:
                results.append(result)
    full = made[options.budgets[0]]
    seconds = {budget: statistics.median(result.seconds for result in results) for budget, results in made.items()}
    rows = []
    for budget, results in made.items():
        row = {
            "budget": budget,
            "plan": str(results[0].schedule),
            "macs_predicted": results[0].predicted_macs,
            "macs_measured": results[0].measured_macs,
            "macs_share": results[0].measured_macs / full[0].measured_macs,
            "seconds": seconds[budget],
            "seconds_share": seconds[budget] / seconds[options.budgets[0]],
            "seconds_over_budget": seconds[budget] / seconds[options.budgets[0]] / budget,
        }
        beside = seconds_beside_calls(model, budget, options.batch, options.repetitions, **sampling)
        row["overhead"] = beside / (seconds[options.budgets[0]] - beside)
        rows.append(row)
        print(
            f"budget {budget:<5} MACs {row['macs_share']:.3f}  seconds {row['seconds_share']:.3f}, over the budget"
            f" {row['seconds_over_budget']:.3f}  overhead {row['overhead']:.2%}",
            file=sys.stderr,
        )
    machine = {"device": options.device, "processor": platform.processor(), "threads": torch.get_num_threads()}
    question = __doc__.splitlines()[0]
    result = {
        "question": question,
        "batch": options.batch,
        **{"packing": options.packing, "compiled": options.compile},
        "torch": torch.__version__,
        "machine": machine,
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
