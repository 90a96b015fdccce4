"""What does a budget look like beside fewer native steps of the same cost? One picture, the same noises in every row.

    python benchmarks/side_by_side.py --checkpoint RUN --output docs/samples.png

Rows: full compute, then for each budget its plan and native steps alone, as many as it pays for (at least one).
Columns: one sample a class, some frames of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flexivid import FlexiDiT, generate, load
from flexivid.budget.schedule import schedule_macs
from flexivid.budget.table import read_tables
from flexivid.evaluation.rivals import native_plan, rival_plan
from flexivid.media.write import to_frames
from flexivid.sampling.plan import Plan, plan_for, tables_folder
from flexivid.sampling.settings import Sampling, Settings, full_macs

GAP = 2  # pixels between samples


def plans_of(model: FlexiDiT, settings: Settings, tables: list, budgets: list[float]) -> list[tuple[str, Plan]]:
    """Titles and plans of the rows."""
    rows = [(f"full compute: {settings.num_inference_steps} native steps", native_plan(model, settings))]
    for budget in budgets:
        plan, rival = plan_for(model, settings, budget, tables=tables), rival_plan(model, settings, budget)
        count = len(rival.schedule)
        rows.append((f"budget {budget:g}: {plan.schedule.short}", plan))
        rows.append((f"fewer native steps: {count}", rival))
    full = full_macs(model, settings)
    shares = [schedule_macs(plan.schedule, model.config, settings.size) / full for _, plan in rows]
    return [(f"{title}  ({share:.0%} of the compute)", plan) for (title, plan), share in zip(rows, shares, strict=True)]


def strip(videos: np.ndarray, frames: list[int]) -> np.ndarray:
    """Frames of all samples side by side: (n, t, h, w, 3) -> (h, n * frames * w, 3)."""
    parts = [np.pad(np.concatenate(list(video[frames]), axis=1), ((0, 0), (0, GAP), (0, 0))) for video in videos]
    return np.concatenate(parts, axis=1)


def main() -> None:
    """Sample and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder, or the name of a shipped model")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.3, 0.1])
    parser.add_argument("--num-videos", type=int, default=10)
    parser.add_argument("--frames", type=int, default=3, help="of each sample, evenly spread")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    model, tables = load(options.checkpoint), read_tables(tables_folder(options.checkpoint))
    settings = Sampling().filled(model)
    rows = plans_of(model, settings, tables, options.budgets)
    figure = Figure(figsize=(14, 0.78 * len(rows)), layout="constrained")
    shown = np.linspace(0, settings.size[0] - 1, options.frames).round().astype(int).tolist()
    for axes, (title, plan) in zip(figure.subplots(len(rows), 1), rows, strict=True):
        made = generate(
            model, schedule=plan.schedule, num_videos=options.num_videos, seed=options.seed, **plan.sampling
        )
        axes.imshow(strip(np.stack([to_frames(video) for video in made.videos]), shown), interpolation="nearest")
        axes.set_title(title, fontsize=9, loc="left", pad=2)
        axes.axis("off")
    figure.savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
