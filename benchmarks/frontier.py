"""Which way of spending less compute keeps the most quality?

At every budget the same noises and classes are sampled with each planner's schedule, with fewer native steps, and with
weak modes alone. All are held against real clips (Frechet distance with its interval) and, sample by sample, against
full compute. Each block of samples is made in every way before the next, and kept: a run that was cut goes on, and one
that ran out of --minutes compares what it has.

    python -m flexivid.search --checkpoint RUN --goal fvd
    python benchmarks/frontier.py --checkpoint RUN --data data/moving_digits --plot docs/frontier.png

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from flexivid.budget.planners import PLANNERS, weak_first
from flexivid.budget.schedule import constant, schedule_macs
from flexivid.budget.table import read_tables
from flexivid.budget.units import USUAL_BUDGETS
from flexivid.diffusion.solver import num_calls
from flexivid.latents.codec import to_bytes, to_unit
from flexivid.metrics.fidelity import fidelity
from flexivid.metrics.scores import score
from flexivid.pipeline.checkpoint import fingerprint
from flexivid.pipeline.evaluation import blocks_of, extract
from flexivid.pipeline.evaluation_run import Job, Request, prepare
from flexivid.pipeline.evaluation_store import BlockFolder
from flexivid.pipeline.generate import generate_batches, schedule_of
from flexivid.pipeline.planning import Amount, plan_within, tables_folder
from flexivid.pipeline.sample_folder import Plan, plan_of
from flexivid.pipeline.sampling import Settings, fraction_of

WAYS = ("fewer_steps", "all_weak", *sorted(PLANNERS))
QUANTILE = 1.96  # two-sided 95 %


class Way(NamedTuple):
    """One way to sample at one budget."""

    name: str
    budget: float
    settings: Settings
    plan: Plan


def plan_ways(job: Job, tables: list, budgets: list[float], names: list[str]) -> list[Way]:
    """All ways that are possible; the others are named on stderr."""
    ways = [_way(job, tables, "full", 1.0)]
    for budget in budgets:
        for name in names:
            try:
                ways.append(_way(job, tables, name, budget))
            except ValueError as error:
                print(f"left out {name} at {budget:g}: {error}", file=sys.stderr)
    return ways


def _way(job: Job, tables: list, name: str, budget: float) -> Way:
    model, settings = job.task.model, job.task.settings
    if name in PLANNERS:
        plan = plan_within(model, settings._replace(planner=name), Amount(budget), tables=tables)
        return Way(name, budget, settings, plan)
    if name == "all_weak":
        whole = fraction_of(model, settings, budget)
        weak = whole._replace(options=whole.options[1:], costs=whole.costs[1:], plain_costs=whole.plain_costs[1:])
        return Way(name, budget, settings, plan_of(weak_first(weak), model, settings, budget))
    if name == "fewer_steps":
        steps = math.floor(budget * settings.num_inference_steps)
        if steps < 1:
            raise ValueError(f"got budget {budget:g} of {settings.num_inference_steps} steps; expected a whole step")
        settings = settings._replace(num_inference_steps=steps)
    calls = num_calls(settings.solver, settings.num_inference_steps)
    schedule = constant(model.config.native, calls, guided=settings.guidance_scale != 1)
    return Way(name, budget, settings, plan_of(schedule, model, settings, budget))


class Maker:
    """Makes blocks of samples, or finds them where they were kept."""

    def __init__(self, job: Job, ways: list[Way], cache: Path) -> None:
        self._task, self._ways, self._full = job.task, ways, ways[0]
        common = {"checkpoint": fingerprint(job.task.model), "seed": job.task.seed, "full": self._facts(ways[0])}
        common["extractor"] = job.task.extractor.fingerprint
        self._stores = [BlockFolder(cache, {**common, "way": self._facts(way)}) for way in ways]

    def block(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """What is kept of a block, for each way."""
        found = [store.read(indices) for store in self._stores]
        if any(one is None for one in found):
            goal = self._videos(self._full, indices)[0]
            reference = goal, extract(self._task.extractor, goal)
            for number, way in enumerate(self._ways):
                if self._stores[number].read(indices) is None:  # two ways may be the same schedule
                    self._stores[number].write(indices, self._made(way, indices, reference))
            found = [store.read(indices) for store in self._stores]
        return [one for one in found if one is not None]

    def _made(self, way: Way, indices: list[int], reference: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        videos, seconds = self._videos(way, indices)
        features = extract(self._task.extractor, videos)
        pairs = zip(to_unit(videos).split(1), to_unit(reference[0]).split(1), strict=True)
        likeness = torch.tensor([fidelity(video, goal) for video, goal in pairs], dtype=torch.float64)
        likeness[:, -1] = (features - reference[1]).double().norm(dim=1)
        model, size = self._task.model, way.settings.size
        macs = [schedule_macs(schedule_of(way.plan.followed, i), model.config, size) for i in indices]
        kept = {"features": features, "fidelity": likeness, "seconds": torch.tensor(seconds)}
        return {**kept, "macs": torch.tensor(macs)}

    def _videos(self, way: Way, indices: list[int]) -> tuple[Tensor, float]:
        task, started = self._task, time.perf_counter()
        made = generate_batches(
            task.model, way.plan.followed, way.settings, labels=task.labels, seed=task.seed, indices=indices
        )
        videos = torch.cat([videos for _, videos in made])
        return to_bytes(videos), time.perf_counter() - started

    def _facts(self, way: Way) -> list[Any]:
        plan = way.plan.adaptive.facts if way.plan.adaptive else str(way.plan.schedule)
        return [way.settings._asdict(), plan]


def rows_of(ways: list[Way], blocks: list[list[dict[str, Tensor]]], real: Tensor, full_macs: int) -> list[dict]:
    """Scores of every way over the blocks that there are."""
    rows = []
    for number, way in enumerate(ways):
        kept = {key: torch.cat([block[number][key] for block in blocks]) for key in ("features", "fidelity", "macs")}
        found, count = score(kept["features"], real), len(kept["features"])
        means = kept["fidelity"].mean(0).tolist()
        spread = (QUANTILE * kept["fidelity"].std(0) / math.sqrt(count)).tolist()
        rows.append(
            {
                "way": way.name,
                "budget": way.budget,
                "plan": str(way.plan.followed),
                "macs_share": kept["macs"].double().mean().item() / full_macs,
                "seconds": sum(float(block[number]["seconds"]) for block in blocks) / count,
                **{"fvd": found.fvd, "fvd_low": found.low, "fvd_high": found.high},
                **dict(zip(("psnr", "ssim", "perceptual"), means, strict=True)),
                **dict(zip(("psnr_interval", "ssim_interval", "perceptual_interval"), spread, strict=True)),
            }
        )
    return rows


def write_plot(path: Path, rows: list[dict], num_videos: int) -> None:
    """Distance to real clips, and distance to full compute, against the compute really spent."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    full = next(row for row in rows if row["way"] == "full")
    left.axhspan(full["fvd_low"], full["fvd_high"], color="0.9", label="full compute, 95 %")
    for way in WAYS:
        own = sorted((row for row in rows if row["way"] == way), key=lambda row: row["macs_share"])
        share = [row["macs_share"] for row in own]
        ends = [[row["fvd"] - row["fvd_low"] for row in own], [row["fvd_high"] - row["fvd"] for row in own]]
        look: dict = {"marker": "o", "capsize": 2, "label": way}
        if way.startswith("searched"):  # often the same schedule as another way, which is to be seen below
            look |= {"markersize": 10, "markerfacecolor": "none", "linestyle": "--"}
        left.errorbar(share, [row["fvd"] for row in own], ends, **look)
        bars = [row["perceptual_interval"] for row in own]
        right.errorbar(share, [row["perceptual"] for row in own], bars, **look)
    left.set_ylabel("fvd[motion] to real clips")
    right.set_ylabel("feature distance to full compute")
    budgets = sorted({row["budget"] for row in rows})
    for axes in (left, right):
        axes.set_xlabel("share of the full compute")
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        axes.set_xticks([], minor=True)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(WAYS) + 1, fontsize=8)
    figure.suptitle(f"{num_videos} samples of the same noises in every way; bars are 95 % intervals")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sample, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder; flexivid.search has been run on it")
    parser.add_argument("--data", help="real videos (default: those of the run)")
    parser.add_argument("--split", default="held_out", help="part of them; the search may have seen train")
    parser.add_argument("--budgets", type=float, nargs="+", default=list(USUAL_BUDGETS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--num-videos", type=int, default=512)
    parser.add_argument("--block", type=int, default=64, help="samples made in every way before the next")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no block after so many")
    parser.add_argument("--cache", default="runs/frontier", help="features are kept here")
    parser.add_argument("--output", type=Path, help="also write the result here")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    options = parser.parse_args()

    started = time.perf_counter()
    real_clips = {"reference": options.data, "split": options.split}
    request = Request(options.checkpoint, options.cache, [1.0], num_videos=options.num_videos, **real_clips)
    job = prepare(request, torch.device("cpu"))
    ways = plan_ways(job, read_tables(tables_folder(options.checkpoint)), options.budgets, options.ways)
    maker, blocks = Maker(job, ways, Path(options.cache) / "features"), []
    for block in blocks_of(options.num_videos, options.block):
        if blocks and time.perf_counter() - started > 60 * options.minutes:
            break
        blocks.append(maker.block(block))
        print(f"{block[-1] + 1} samples after {(time.perf_counter() - started) / 60:.1f} min", file=sys.stderr)
    num_videos, real = sum(len(block[0]["features"]) for block in blocks), job.real.all()
    model, settings = job.task.model, job.task.settings
    rows = rows_of(ways, blocks, real, schedule_macs(ways[0].plan.schedule, model.config, settings.size))
    result = {
        "question": __doc__.splitlines()[0],
        **{
            "num_videos": num_videos,
            "num_real": len(real),
            "metric": job.task.extractor.metric_name,
            "split": options.split,
        },
        **{"settings": settings._asdict(), "torch": torch.__version__, "threads": torch.get_num_threads()},
        "rows": rows,
    }
    for row in rows:
        print(
            f"{row['budget']:<5} {row['way']:<12} MACs {row['macs_share']:.3f}  fvd {row['fvd']:.4g}"
            f" [{row['fvd_low']:.4g}, {row['fvd_high']:.4g}]  psnr {row['psnr']:.2f}  features {row['perceptual']:.4g}",
            file=sys.stderr,
        )
    if options.plot:
        write_plot(options.plot, rows, num_videos)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
