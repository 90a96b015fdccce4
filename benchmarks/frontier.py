"""What does a budget cost in quality, and what else would the same compute buy?

Budgets are fractions of full compute: native steps, as many as the model says (its step floor). At every budget the
same noises and classes are sampled in many ways: each planner, fewer native steps by each solver, the cheapest mode
alone, outputs reused between native steps. All are held against real clips (Frechet distance with its interval), and
pairwise against full compute and against fewer native steps. Each block of samples is made in every way before the
next, and kept: a run that was cut goes on, and one that ran out of --minutes compares what it has.

    python benchmarks/frontier.py --checkpoint RUN --data data/moving_digits --digits --plot docs/frontier.png

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
from digit_judge import Judge, train_judge
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from flexivid.budget.schedule import REUSE, Schedule, schedule_macs
from flexivid.budget.table import read_tables
from flexivid.diffusion.solver import solvers_of
from flexivid.evaluation.features import BlockFolder, blocks_of, extract
from flexivid.evaluation.rivals import native_plan
from flexivid.evaluation.run import Job, Request, prepare
from flexivid.media.pixels import to_bytes, to_unit
from flexivid.metrics.bootstrap import paired_difference
from flexivid.metrics.scores import score
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling.generate import generate_batches, schedule_of
from flexivid.sampling.plan import Plan, allowance_of, plan_for, plan_of, runnable, tables_folder
from flexivid.sampling.settings import Settings

BUDGETS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
PLANNERS = ("staged", "searched_fvd", "spectral", "weak_first", "searched", "adaptive")
MOST_WEAK = 24  # steps of the cheapest mode alone, at most


class Way(NamedTuple):
    """One way to sample at one budget."""

    name: str
    budget: float
    plan: Plan


def plan_ways(job: Job, tables: list, budgets: list[float], names: list[str]) -> list[Way]:
    """All ways that are possible, full compute first; the others are named on stderr."""
    model, settings = job.task.model, job.task.settings
    ways = [Way("full", 1.0, native_plan(model, settings))]
    for budget in budgets:
        for name in names:
            try:
                ways.append(Way(name, budget, _plan(job, tables, name, budget)))
            except ValueError as error:
                print(f"left out {name} at {budget:g}: {error}", file=sys.stderr)
    return ways


def _plan(job: Job, tables: list, name: str, budget: float) -> Plan:
    model, settings = job.task.model, job.task.settings
    if name in PLANNERS:
        return plan_for(model, settings._replace(planner=name), budget, tables=tables)
    whole = allowance_of(model, settings, keep_steps=False)
    affordable = whole.at(budget).affordable
    native, weak = affordable // whole.costs[0], min(MOST_WEAK, affordable // whole.costs[-1])
    steps = [whole.options[-1]] * weak if name == "all_weak" else [whole.options[0]] * native
    sampling = {}
    if name.startswith("fewer_steps:"):
        sampling = {"solver": name.partition(":")[2]}
    if name == "reuse":
        steps = [part for step in steps for part in (step, REUSE)]
    if not steps:
        raise ValueError(f"got a budget of {affordable / whole.costs[0]:.2g} native steps; expected a whole step")
    schedule = runnable(Schedule(steps), model, settings._replace(**sampling))
    return plan_of(schedule, model, settings, budget)._replace(sampling=sampling)


def ways_of(job: Job) -> list[str]:
    """Names of all ways."""
    own = job.task.settings.solver
    others = [name for name in solvers_of(job.task.model.recipe.process) if name not in (own, "heun")]
    return [*PLANNERS, "fewer_steps", *(f"fewer_steps:{name}" for name in others), "all_weak", "reuse"]


class Maker:
    """Makes blocks of samples, or finds them where they were kept."""

    def __init__(self, job: Job, ways: list[Way], cache: Path, judge: Judge | None) -> None:
        self._task, self._ways, self._judge = job.task, ways, judge
        names = job.task.model.recipe.class_names
        self._digits = torch.tensor([int(name) for name in names]) if judge else torch.tensor([])
        common = {"checkpoint": fingerprint(job.task.model), "seed": job.task.seed}
        common |= {"extractor": job.task.extractor.fingerprint, "judged": judge is not None}
        self._stores = [BlockFolder(cache, {**common, "way": self._facts(way)}) for way in ways]

    def block(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """What is kept of a block, for each way; two ways may be the same plan."""
        for way, store in zip(self._ways, self._stores, strict=True):
            if store.read(indices) is None:
                store.write(indices, self._made(way, indices))
        found = [store.read(indices) for store in self._stores]
        return [one for one in found if one is not None]

    def _made(self, way: Way, indices: list[int]) -> dict[str, Tensor]:
        task, started = self._task, time.perf_counter()
        settings = way.plan.settings(task.settings)
        made = generate_batches(
            task.model, way.plan.followed, settings, conditions=task.conditions, seed=task.seed, indices=indices
        )
        videos = to_bytes(torch.cat([videos for _, videos in made]))
        kept = {"seconds": torch.tensor(time.perf_counter() - started)}
        macs = [schedule_macs(schedule_of(way.plan.followed, i), task.model.config, settings.size) for i in indices]
        kept |= {"features": extract(task.extractor, videos), "macs": torch.tensor(macs)}
        if self._judge is not None:
            kept["digits"] = torch.from_numpy(self._judge.classes(to_unit(videos)))
            kept["asked"] = self._digits[task.conditions.labels[indices]]
        return kept

    def _facts(self, way: Way) -> list[Any]:
        plan = way.plan
        what = plan.adaptive.facts if plan.adaptive else str(plan.schedule)
        return [plan.settings(self._task.settings)._asdict(), what]


def rows_of(ways: list[Way], blocks: list[list[dict[str, Tensor]]], real: Tensor) -> list[dict[str, Any]]:
    """Scores of every way over the blocks that there are; the first way is full compute."""
    kept = [{key: _joined(blocks, number, key) for key in blocks[0][number]} for number in range(len(ways))]
    full, rows = kept[0], []
    for way, own in zip(ways, kept, strict=True):
        found = score(own["features"], real)
        rivals = [k for w, k in zip(ways, kept, strict=True) if (w.name, w.budget) == ("fewer_steps", way.budget)]
        row: dict[str, Any] = {
            "way": way.name,
            "budget": way.budget,
            "plan": str(way.plan.followed),
            "sampling": dict(way.plan.sampling),
            "macs_share": own["macs"].double().mean().item() / full["macs"].double().mean().item(),
            "seconds_share": own["seconds"].sum().item() / full["seconds"].sum().item(),
            **{"fvd": found.fvd, "low": found.low, "high": found.high, "infinity": found.fvd_infinity},
            **{"precision": found.precision, "recall": found.recall},
            "to_full": paired_difference(own["features"], full["features"], real)._asdict(),
        }
        if rivals:
            row["to_fewer_steps"] = paired_difference(own["features"], rivals[0]["features"], real)._asdict()
        if "digits" in own:
            row |= _digits(own["digits"], own["asked"])
        rows.append(row)
    return rows


def _joined(blocks: list[list[dict[str, Tensor]]], number: int, key: str) -> Tensor:
    return torch.cat([block[number][key].reshape(-1, *block[number][key].shape[1:]) for block in blocks])


def _digits(digits: Tensor, asked: Tensor) -> dict[str, float]:
    """What the judge of digits says: clips of the asked class, and frames that agree with their clip."""
    most = torch.mode(digits, dim=1).values
    return {
        "class_accuracy": (most == asked).double().mean().item(),
        "consistency": (digits == most[:, None]).double().mean().item(),
    }


def write_plot(path: Path, result: dict[str, Any]) -> None:
    """Distance to real clips against the compute really spent."""
    rows, figure = result["rows"], Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    full = next(row for row in rows if row["way"] == "full")
    axes.axhspan(full["low"], full["high"], color="0.9", label="full compute, 95 %")
    if result["floor"] is not None:
        axes.axhline(result["floor"], color="0.5", linestyle=":", label="real against real")
    for way in dict.fromkeys(row["way"] for row in rows if row["way"] != "full"):
        own = sorted((row for row in rows if row["way"] == way), key=lambda row: row["macs_share"])
        ends = [[row["fvd"] - row["low"] for row in own], [row["high"] - row["fvd"] for row in own]]
        fewer = way.startswith("fewer_steps")
        line = "none" if way == "schedule" else "--" if fewer else "-"
        look: dict = {"marker": "s" if fewer else "o", "linestyle": line, "capsize": 2, "alpha": 0.85}
        axes.errorbar([row["macs_share"] for row in own], [row["fvd"] for row in own], ends, label=way, **look)
    axes.set(xscale="log", yscale="log", xlabel="share of full compute", ylabel=f"{result['metric']} to real clips")
    budgets = sorted({row["budget"] for row in rows if row["way"] != "schedule"})
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    steps = result["settings"]["num_inference_steps"]
    axes.set_title(f"{result['num_videos']} samples of the same noises; full = {steps} native steps", fontsize=10)
    figure.savefig(path, dpi=120)


def _tell(rows: list[dict[str, Any]]) -> None:
    """A line for each row."""
    for row in rows:
        fewer = row.get("to_fewer_steps")
        beside = f" to fewer [{fewer['low']:.2f}, {fewer['high']:.2f}]" if fewer else ""
        judged = f" class {row['class_accuracy']:.3f} steady {row['consistency']:.3f}" if "consistency" in row else ""
        print(
            f"{row['budget']:<4} {row['way']:<18} MACs {row['macs_share']:.3f}  {row['fvd']:.2f} [{row['low']:.2f},"
            f" {row['high']:.2f}]  to full [{row['to_full']['low']:.2f}, {row['to_full']['high']:.2f}]{beside}{judged} "
            f" {row['plan']} {row['sampling'] or ''}",
            file=sys.stderr,
        )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder, or the name of a shipped model")
    add("--data", help="real videos (default: those of the run)")
    add("--split", help="part of them (default: held-out clips where there are enough)")
    add("--budgets", type=float, nargs="+", default=list(BUDGETS))
    add("--ways", nargs="+", help="only these (default: all that are possible)")
    add("--schedules", nargs="+", default=[], help="these plans too, such as 3x4x8x8,1x4x4x4")
    add("--steps", type=int, help="native steps of full compute (default: as the model says)")
    add("--num-videos", type=int, default=512)
    add("--seed", type=int, default=50_000, help="far from those that a search has seen")
    add("--block", type=int, default=64, help="samples made in every way before the next")
    add("--minutes", type=float, default=math.inf, help="begin no block after so many")
    add("--digits", action="store_true", help="let the judge of digits look too")
    add("--cache", default="runs/frontier", help="features are kept here")
    add("--output", type=Path, help="also write the result here")
    add("--plot", type=Path, help="write the picture here")
    return parser.parse_args()


def sample(options: argparse.Namespace, job: Job, ways: list[Way]) -> list[list[dict[str, Tensor]]]:
    """All blocks that there is time for."""
    started = time.perf_counter()
    maker = Maker(job, ways, Path(options.cache) / "features", train_judge() if options.digits else None)
    blocks: list[list[dict[str, Tensor]]] = []
    for block in blocks_of(options.num_videos, options.block):
        minutes = (time.perf_counter() - started) / 60
        if blocks and minutes > options.minutes:
            break
        print(f"{block[0]} samples of {len(ways)} ways after {minutes:.1f} min", file=sys.stderr)
        blocks.append(maker.block(block))
    return blocks


def main() -> None:
    """Sample, compare, write."""
    options = parse()
    where = {"reference": options.data, "split": options.split, "seed": options.seed, "rivals": False}
    sampling = {"planner": "weak_first"}
    request = Request(
        options.checkpoint, options.cache, [1.0], num_videos=options.num_videos, sampling=sampling, **where
    )
    job = prepare(request, torch.device("cpu"))
    if options.steps:
        settings: Settings = job.task.settings._replace(num_inference_steps=options.steps)
        job = job._replace(task=job.task._replace(settings=settings))
    tables = read_tables(tables_folder(options.checkpoint))
    ways = plan_ways(job, tables, options.budgets, options.ways or ways_of(job))
    for text in options.schedules:
        plan = plan_for(job.task.model, job.task.settings._replace(fixed_steps=False), schedule=text)
        ways.append(Way("schedule", plan.budget, plan))
    blocks, real = sample(options, job, ways), job.real.all()
    features = _joined(blocks, 0, "features")
    result = {
        "question": __doc__.splitlines()[0],
        **{"num_videos": len(features), "num_real": len(real), "split": job.protocol.reference_split},
        **{"metric": job.task.extractor.metric_name, "floor": score(features, real).floor},
        **{"settings": job.task.settings._asdict(), "step_floor": job.task.model.recipe.step_floor},
        **{"torch": torch.__version__, "threads": torch.get_num_threads()},
        "rows": rows_of(ways, blocks, real),
    }
    _tell(result["rows"])
    if options.plot:
        write_plot(options.plot, result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
