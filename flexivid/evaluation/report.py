"""The output of an evaluation: tables, ``evaluation.json``, ``fvd_vs_compute.png``, and a page."""

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
from flexivid.evaluation.result import BudgetScores, Evaluation, plain
from flexivid.evaluation.rivals import FEWER_STEPS
from flexivid.evaluation.run import Job, Request
from flexivid.evaluation.samples import NUM_SHOWN, SampleBlock, Task
from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.scores import Scores
from flexivid.runtime.files import atomic_write
from flexivid.sampling.plan import Plan

CURVE = "fvd_vs_compute.png"
FILES = {"json": "evaluation.json", "curve": CURVE, "page": "index.html"}
COST = ("budget", "cost a video", "seconds")
DISTANCE = ("95 % interval", "endless videos", "real against real")
RIVAL = ("fewer steps", "difference", "plan is")
QUALITY = ("KVD", "precision", "recall", "density", "coverage")
LIKENESS = ("PSNR", "SSIM", "perceptual")
NARROW_COST = ("budget", "GMACs", "seconds", "FVD", "95 %")
NARROW_RIVAL = ("fewer\nsteps", "difference\n95 %", "plan\nis")
NARROW_CAPTION = (
    "fewer steps: native steps alone that the budget pays for, from the same noises; difference: the plan's FVD minus"
    " theirs, paired"
)
LEGEND = (
    "Endless videos: the distance extrapolated to sets without end, 0 for a perfect generator. Real against real: what"
    " as many videos of a perfect generator would score."
)
RIVAL_LEGEND = (
    " Fewer steps: native steps alone, as many as the budget pays for, from the same noises; the difference is the"
    " plan's distance minus theirs, with its paired 95 % interval."
)


def table(evaluation: Evaluation) -> list[list[str]]:
    """Cells of the table, the head first; a dash stands for what was not measured."""
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
    """Explain the columns of :func:`table` that need it."""
    source = json.loads(evaluation.protocol.sampling).get("given_frames", "")
    frames = f" Samples are given {source.rpartition(', ')[0]}." if source else ""
    seen = f" {evaluation.captions}." if evaluation.captions else ""
    return LEGEND + (RIVAL_LEGEND if any(row.rival for row in evaluation.rows) else "") + frames + seen


def narrow_table(evaluation: Evaluation) -> tuple[str, str, tuple[str, ...], list[tuple[str, ...]]]:
    """Cost and quality of each budget beside what fewer native steps come to, in at most 80 columns of a terminal.

    Without such rivals: beside coverage and likeness to full compute. Returns title, caption, columns and rows.
    """
    title = f"{evaluation.metric} at step {evaluation.global_step}, mean {evaluation.fvd_auc:.4g}"
    floor = next((row.scores.floor for row in evaluation.rows), math.nan)
    title += "" if math.isnan(floor) else f"; real against real {short(floor)}"
    beside = any(row.rival for row in evaluation.rows)
    columns = (*NARROW_COST, *(NARROW_RIVAL if beside else ("coverage", "PSNR")))
    rows = []
    for row in evaluation.rows:
        cost = (f"{row.budget:g}", f"{row.macs / 1e9:.3g}", f"{row.seconds:.3g}")
        quality = short(row.scores.fvd), f"{short(row.scores.low)} to {short(row.scores.high)}"
        rows.append((*cost, *quality, *(_narrow_rival(row) if beside else _narrow_likeness(row))))
    caption = [NARROW_CAPTION] * beside + [evaluation.captions] * bool(evaluation.captions)
    return title, "; ".join(caption), columns, rows


def short(value: float) -> str:
    """Three digits, or all before the point.

    Example:
        >>> short(7.0123), short(1234.5), short(0.000123456)
        ('7.01', '1234', '0.000123')
    """
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def pair_table(metric: str, scores: Scores) -> list[list[str]]:
    """The same as :func:`table` for two folders."""
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


def write_evaluation(
    request: Request, job: Job, evaluation: Evaluation, samples: Sequence[SampleBlock]
) -> dict[str, Path]:
    """Write all files; returns their paths."""
    task, clips = job.task, job.real.clips
    curve = png(curve_figure([evaluation]))
    films = [_films_of(number, samples) for number in range(len(task.plans))]
    rows = [_film_row(task.plans[number], films[number]) for number in _beside_each_other(task)]
    rows.append(Row("real videos", f"{clips.root} ({clips.split})", _films_of_clips(clips, len(films[0]))))
    text = page(
        f"{evaluation.metric} against compute",
        note=f"{request.checkpoint}. Area under the curve over log(MACs): {evaluation.fvd_auc:.4g}."
        f" {legend(evaluation)}",
        table=table(evaluation),
        protocol=_spaced(evaluation.protocol._asdict()),
        films=Films([f"seed {task.seed + i}" for i in range(len(films[0]))], rows, task.model.recipe.fps),
        curve=curve,
    )
    return _write(Path(request.output), evaluation.to_json(), text, curve)


def write_pair(pair: Pair, scores: Scores, folder: Path) -> dict[str, Path]:
    """Write the files of a comparison of two folders."""
    sides = {"generated": pair.generated.clips, "real": pair.real.clips}
    count = min(NUM_SHOWN, *map(len, sides.values()))
    rows = [Row(name, clips.root, _films_of_clips(clips, count)) for name, clips in sides.items()]
    result: dict[str, Any] = {
        "metric": pair.protocol.label,
        "scores": plain(scores),
        **{name: {"folder": clips.root, "fingerprint": clips.fingerprint} for name, clips in sides.items()},
        "protocol": pair.protocol._asdict(),
    }
    text = page(
        f"{pair.protocol.label} of two folders",
        note=LEGEND,
        table=pair_table(pair.protocol.label, scores),
        protocol=_spaced(result["protocol"]),
        films=Films([str(i) for i in range(count)], rows, pair.real.clips.fps),
    )
    return _write(folder, result, text, None)


def _write(folder: Path, result: dict[str, Any], text: str, curve: bytes | None) -> dict[str, Path]:
    contents = {"json": json.dumps(result, indent=2).encode(), "page": text.encode()}
    contents |= {"curve": curve} if curve else {}
    for kind, content in contents.items():
        with atomic_write(folder / FILES[kind]) as part:
            part.write_bytes(content)
    return {kind: folder / FILES[kind] for kind in contents}


def _distance(scores: Scores) -> list[str]:
    endless = "-" if scores.fvd_infinity is None else f"{scores.fvd_infinity:.4g}"
    floor = "-" if math.isnan(scores.floor) else f"{scores.floor:.4g}"
    return [f"{scores.fvd:.4g}", f"{scores.low:.4g} to {scores.high:.4g}", endless, floor]


def _narrow_rival(row: BudgetScores) -> tuple[str, str, str]:
    """Empty where the plan is itself native steps alone."""
    if row.rival is None or row.difference is None:
        return "", "", ""
    _, low, high = row.difference
    return short(row.rival.scores.fvd), f"{short(low)} to {short(high)}", row.difference.verdict


def _narrow_likeness(row: BudgetScores) -> tuple[str, str]:
    return f"{row.scores.coverage:.2f}", "" if row.fidelity is None else f"{row.fidelity.psnr:.1f} dB"


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


def _spaced(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in protocol.items()}


def _beside_each_other(task: Task) -> list[int]:
    """Numbers of all plans, each once: that of a budget, then native steps alone for the same compute."""
    pairs = ((number, task.rival(number)) for number in task.rows)
    numbers = [number for pair in pairs for number in pair if number is not None]
    return list(dict.fromkeys([*numbers, *range(len(task.plans))]))


def _film_row(plan: Plan, films: Sequence[np.ndarray]) -> Row:
    name = "native steps alone, budget" if plan.planner == FEWER_STEPS else "budget"
    return Row(f"{name} {plan.budget:g}", str(plan.followed), films)


def _films_of(plan: int, samples: Sequence[SampleBlock]) -> list[np.ndarray]:
    ordered = sorted((block for block in samples if block.plan == plan), key=lambda block: int(block.indices[0]))
    return list(torch.cat([block.frames for block in ordered]).numpy())


def _films_of_clips(clips: ClipSet, count: int) -> list[np.ndarray]:
    """Some clips spread evenly over a set."""
    chosen = [i * len(clips) // count for i in range(count)]
    return [video.numpy() for _, videos in read_blocks(clips, [chosen]) for video in videos.permute(0, 2, 3, 4, 1)]
