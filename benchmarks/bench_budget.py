"""Do the seconds of a sample fall with its budget, and is the budget kept?

One model, one process: every budget samples the same noises; repetitions take the budgets in turn, so that drift of the
machine hits all alike. MACs are measured by PyTorch's counter over the calls really made. Full compute is native steps
throughout, as many as the model says (its step floor); budgets go by the plans that were searched, if any were.

    python benchmarks/bench_budget.py --checkpoint RUN --compile --output benchmarks/results/bench_budget.json

Overhead is what a sample takes beside the calls of its network: planning, solver, guidance, decoding. It is given over
the time that the calls of a full sample take. Freed memory is kept, as in the programs.

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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flexivid import FlexiDiT, FlexiDiTConfig, generate, load
from flexivid.budget.allowance import Amount
from flexivid.budget.schedule import Schedule
from flexivid.budget.table import read_tables
from flexivid.model.recipe import Recipe, SamplingDefaults
from flexivid.runtime.start import keep_freed_memory
from flexivid.sampling.compiling import compile_forward, is_compiled
from flexivid.sampling.generate import Generation
from flexivid.sampling.latency import batches_of, measure_latency
from flexivid.sampling.plan import plan_for, tables_folder
from flexivid.sampling.settings import Sampling, options_for

RECIPE = Recipe(size=(8, 32, 32), sampling=SamplingDefaults(5, guidance_scale=2.0, shift=4.0))


def build() -> FlexiDiT:
    """The main job's network, random weights."""
    torch.manual_seed(0)
    config = FlexiDiTConfig.preset("tiny", modes=("2x4x4", "4x4x4", "2x8x8", "4x8x8"), num_classes=10)
    model = FlexiDiT(config).eval()
    model.recipe = RECIPE
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


def seconds_beside_calls(make: Callable[[], Generation], model: FlexiDiT, repetitions: int) -> float:
    """Median seconds that sampling takes beside the network's calls."""
    found = []
    for _ in range(repetitions):
        with CallTimer(model) as timer:
            started = time.perf_counter()
            make()
            found.append(time.perf_counter() - started - timer.seconds)
    return statistics.median(found)


def plan_in_seconds(model: FlexiDiT, share: float, batch: int, packing: str) -> Schedule:
    """The plan that a share of the seconds of full compute pays for, as ``--budget-seconds`` has it."""
    settings = Sampling(batch_size=batch, packing=packing, planner="staged").filled(model)
    latency = measure_latency(model, settings, batches_of(model, settings, batch))
    native = options_for(model, settings)[0]
    full = settings.num_inference_steps * latency[native]
    return plan_for(model, settings, Amount(share * full, "seconds"), latency=latency).schedule


def measure(model: FlexiDiT, tables: list, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for full compute and for each budget, in batches of one size."""
    native = f"{model.recipe.sampling.num_inference_steps}x{model.config.native}"
    common = {"num_videos": batch, "batch_size": batch, "packing": options.packing, "tables": tables}
    makers = {"full": partial(generate, model, schedule=native, **common)}
    makers |= {f"{budget:g}": partial(generate, model, budget, **common) for budget in options.budgets}
    for share in options.seconds:
        steps = plan_in_seconds(model, share, batch, options.packing)
        makers[f"{share:g} of seconds"] = partial(generate, model, schedule=steps, **common)
    made: dict[str, list[Generation]] = {name: [] for name in makers}
    for repetition in range(options.repetitions + 1):
        for name, make in makers.items():
            result = make()
            made[name] += [result] if repetition else []  # the first one warms up
    seconds = {name: statistics.median(result.seconds for result in results) for name, results in made.items()}
    rows = []
    for name, results in made.items():
        beside = seconds_beside_calls(makers[name], model, options.repetitions)
        rows.append(
            {
                "batch": batch,
                "compiled": is_compiled(model),
                "budget": name,
                "plan": results[0].schedule.short,
                "macs_predicted": results[0].predicted_macs,
                "macs_measured": results[0].measured_macs,
                "macs_share": results[0].measured_macs / made["full"][0].measured_macs,
                "seconds": seconds[name],
                "seconds_share": seconds[name] / seconds["full"],
                "overhead": beside / (seconds["full"] - beside),
            }
        )
        kind = " compiled" * is_compiled(model)
        print(
            f"batch {batch:<3}{kind} budget {name:<5} MACs {rows[-1]['macs_share']:.3f}  seconds {seconds[name]:.3f}"
            f" ({rows[-1]['seconds_share']:.3f})  overhead {rows[-1]['overhead']:.2%}  {rows[-1]['plan']}",
            file=sys.stderr,
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="run folder, .ckpt, exported folder or name of a shipped model")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.7, 0.5, 0.3, 0.2, 0.1])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.35], help="budgets as shares of full seconds")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 1])
    parser.add_argument("--packing", default="auto", help="auto, always or never")
    parser.add_argument("--compile", action="store_true", help="also with compiled calls")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    keep_freed_memory()
    model = (load(options.checkpoint) if options.checkpoint else build()).to(options.device)

    tables = read_tables(tables_folder(options.checkpoint)) if options.checkpoint else []
    rows = [row for batch in options.batch for row in measure(model, tables, batch, options)]
    if options.compile:
        model = compile_forward(model)
        rows += [row for batch in options.batch for row in measure(model, tables, batch, options)]
    machine = {"device": options.device, "processor": platform.processor(), "threads": torch.get_num_threads()}
    question = __doc__.splitlines()[0]
    result = {
        "question": question,
        "packing": options.packing,
        "torch": torch.__version__,
        "machine": machine,
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
