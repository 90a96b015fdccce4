"""What an evaluation leaves for people and programs: a table, ``evaluation.json``, ``fvd_vs_compute.png``, a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flexivid.budget.cost import human
from flexivid.evaluation.clips import ClipSet, read_blocks
from flexivid.evaluation.compare import Pair
from flexivid.evaluation.curve import curve_figure, png
from flexivid.evaluation.page import Films, Row, page
from flexivid.evaluation.result import plain_scores
from flexivid.evaluation.rivals import FEWER_STEPS
from flexivid.evaluation.run import Job
from flexivid.evaluation.samples import NUM_SHOWN, BudgetScores, Evaluation, Made, Task
from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.scores import Scores
from flexivid.runtime.files import atomic_write
from flexivid.sampling.plan import Plan

FILES = {"json": "evaluation.json", "curve": "fvd_vs_compute.png", "page": "index.html"}
COST = ("budget", "cost a video", "seconds")
DISTANCE = ("95 % interval", "endless videos", "real against real")
RIVAL = ("fewer steps", "difference", "plan is")
QUALITY = ("KVD", "precision", "recall", "density", "coverage")
LIKENESS = ("PSNR", "SSIM", "perceptual")
LEGEND = (
    "Endless videos: the distance extrapolated to sets without end, 0 for a perfect generator. Real against real: what"
    " as many videos of a perfect generator would score."
)
RIVAL_LEGEND = (
    " Fewer steps: native steps alone, as many as the budget pays for, from the same noises; the difference is the"
    " plan's distance minus theirs, with its paired 95 % interval."
)


def table(evaluation: Evaluation) -> list[list[str]]:
    """Words of the table, the head first; what was not measured is a dash."""
    beside = any(row.rival for row in evaluation.rows)
    rows = [
        [
            *(f"{row.budget:g}", human(row.macs), f"{row.seconds:.3g}", *_distance(row.scores)),
            *(_rival(row) if beside else ()),
            *(*_quality(row.scores), *_likeness(row.fidelity)),
        ]
        for row in evaluation.rows
    ]
    return [[*COST, evaluation.metric, *DISTANCE, *(RIVAL if beside else ()), *QUALITY, *LIKENESS], *rows]


def legend(evaluation: Evaluation) -> str:
    """What the columns of :func:`table` mean that do not speak for themselves."""
    return LEGEND + (RIVAL_LEGEND if any(row.rival for row in evaluation.rows) else "")


def pair_table(metric: str, scores: Scores) -> list[list[str]]:
    """Likewise for two folders."""
    return [
        ["generated", "real", metric, *DISTANCE, *QUALITY],
        [str(scores.num_generated), str(scores.num_real), *_distance(scores), *_quality(scores)],
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text.

    Example:
        >>> aligned([["budget", "fvd"], ["1", "3.25"]])
        ['budget   fvd', '     1  3.25']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in rows]


def write_evaluation(job: Job, evaluation: Evaluation, made: Sequence[Made]) -> dict[str, Path]:
    """Write all files; returns where they are."""
    task, folder = job.task, Path(job.request.output)
    curve = png(curve_figure([evaluation]))
    films = [_films_of(one, made) for one in range(len(task.plans))]
    rows = [_film_row(task.plans[number], films[number]) for number in _beside_each_other(task)]
    rows.append(
        Row(
            "real videos",
            f"{job.real.clips.root} ({job.real.clips.split})",
            _films_of_clips(job.real.clips, len(films[0])),
        )
    )
    columns = [f"seed {task.seed + i}" for i in range(len(films[0]))]
    text = page(
        f"{evaluation.metric} against compute",
        note=f"{job.request.checkpoint}. Area under the curve over log(MACs): {evaluation.fvd_auc:.4g}."
        f" {legend(evaluation)}",
        table=table(evaluation),
        facts=_facts(evaluation.protocol._asdict()),
        films=Films(columns, rows, float(task.model.recipe.get("fps", 8))),
        curve=curve,
    )
    return _write(folder, evaluation.to_json(), text, curve)


def write_pair(pair: Pair, scores: Scores, folder: Path) -> dict[str, Path]:
    """Write the files of a comparison of two folders."""
    sides = {"generated": pair.generated.clips, "real": pair.real.clips}
    count = min(NUM_SHOWN, *map(len, sides.values()))
    rows = [Row(name, clips.root, _films_of_clips(clips, count)) for name, clips in sides.items()]
    plain: dict[str, Any] = {
        "metric": pair.protocol.label,
        "scores": plain_scores(scores),
        **{name: {"folder": clips.root, "fingerprint": clips.fingerprint} for name, clips in sides.items()},
        "protocol": pair.protocol._asdict(),
    }
    text = page(
        f"{pair.protocol.label} of two folders",
        note=LEGEND,
        table=pair_table(pair.protocol.label, scores),
        facts=_facts(plain["protocol"]),
        films=Films([str(i) for i in range(count)], rows, pair.real.clips.fps),
    )
    return _write(folder, plain, text, None)


def _write(folder: Path, plain: dict[str, Any], text: str, curve: bytes | None) -> dict[str, Path]:
    contents = {"json": json.dumps(plain, indent=2).encode(), "page": text.encode()}
    contents |= {"curve": curve} if curve else {}
    for kind, content in contents.items():
        with atomic_write(folder / FILES[kind]) as part:
            part.write_bytes(content)
    return {kind: folder / FILES[kind] for kind in contents}


def _distance(scores: Scores) -> list[str]:
    endless = "-" if scores.fvd_infinity is None else f"{scores.fvd_infinity:.4g}"
    floor = "-" if math.isnan(scores.floor) else f"{scores.floor:.4g}"
    return [f"{scores.fvd:.4g}", f"{scores.low:.4g} to {scores.high:.4g}", endless, floor]


def _rival(row: BudgetScores) -> list[str]:
    """Native steps alone beside a plan; dashes where the plan is just that."""
    if row.rival is None or row.difference is None:
        return ["-"] * len(RIVAL)
    value, low, high = row.difference
    beside = f"{row.rival.scores.fvd:.4g} ({row.rival.schedule})"
    return [beside, f"{value:.3g} ({low:.3g} to {high:.3g})", row.difference.verdict]


def _quality(scores: Scores) -> list[str]:
    values = (scores.precision, scores.recall, scores.density, scores.coverage)
    return [f"{scores.kvd:.4g}", *(f"{value:.3f}" for value in values)]


def _likeness(fidelity: Fidelity | None) -> list[str]:
    if fidelity is None:
        return ["-"] * len(LIKENESS)
    return [f"{fidelity.psnr:.2f}", f"{fidelity.ssim:.4f}", f"{fidelity.perceptual:.4g}"]


def _facts(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in protocol.items()}


def _beside_each_other(task: Task) -> list[int]:
    """Numbers of all plans, each once: that of a budget, then native steps alone for the same compute."""
    numbers = [one for number in task.rows for one in (number, task.rival(number)) if one is not None]
    return list(dict.fromkeys([*numbers, *range(len(task.plans))]))


def _film_row(plan: Plan, films: Sequence[np.ndarray]) -> Row:
    name = "native steps alone, budget" if plan.planner == FEWER_STEPS else "budget"
    return Row(f"{name} {plan.budget:g}", str(plan.followed), films)


def _films_of(plan: int, made: Sequence[Made]) -> list[np.ndarray]:
    ordered = sorted((one for one in made if one.plan == plan), key=lambda one: int(one.indices[0]))
    return list(torch.cat([one.frames for one in ordered]).numpy())


def _films_of_clips(clips: ClipSet, count: int) -> list[np.ndarray]:
    """Some clips spread evenly over a set."""
    chosen = [i * len(clips) // count for i in range(count)]
    return [video.numpy() for _, videos in read_blocks(clips, [chosen]) for video in videos.permute(0, 2, 3, 4, 1)]
