"""The result of an evaluation as plain data: cost and scores of each budget, and how they were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from flexivid.metrics.bootstrap import Difference
from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores


class BudgetScores(NamedTuple):
    """Cost and quality of one plan."""

    budget: float  # the plan's name
    schedule: str  # the patch plan, as it is written
    macs: int  # MACs of one sample; the mean where each chooses its own schedule
    seconds: float  # seconds of one device for one sample, decoding included
    scores: Scores  # distances to the real videos
    fidelity: Fidelity | None  # likeness to full compute from the same seeds; ``None`` for that itself, or without it
    rival: BudgetScores | None = None  # native steps alone for the same budget and noises; ``None`` if not sampled
    difference: Difference | None = None  # the plan's FVD minus the rival's, with its paired interval


class Evaluation(NamedTuple):
    """The curve of a model, and how to reproduce it."""

    metric: str  # label, such as ``fvd2048_16f``
    protocol: Protocol  # what was compared and how
    rows: tuple[BudgetScores, ...]  # one for each plan
    global_step: int | None = None  # optimizer step of the weights, where it is known
    captions: str = ""  # how many of the prompts were trained on, in words; empty = unknown

    @property
    def fvd_auc(self) -> float:
        """Mean FVD along the logarithm of compute: ``integral of FVD d log(MACs) / (log MACs_max - log MACs_min)``.

        By the trapezoid rule between the budgets. A single budget gives its FVD; NaN without any.
        """
        points = sorted((math.log(row.macs), row.scores.fvd) for row in self.rows)
        if not points:
            return math.nan
        width = points[-1][0] - points[0][0]
        if width == 0:
            return sum(fvd for _, fvd in points) / len(points)
        return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points)) / width

    def to_json(self) -> dict[str, Any]:
        """Plain data, for ``json.dumps``; what is not a number is ``None``."""
        return {
            "metric": self.metric,
            "fvd_auc": plain(self.fvd_auc),
            "global_step": self.global_step,
            "budgets": [plain(row) for row in self.rows],
            "protocol": self.protocol._asdict(),
            **({"captions": self.captions} if self.captions else {}),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Evaluation:
        """Read what :meth:`to_json` wrote, also before there were rivals and floors."""
        rows = tuple(_row_of(row) for row in values["budgets"])
        protocol, captions = Protocol(**values["protocol"]), values.get("captions", "")
        return Evaluation(values["metric"], protocol, rows, values["global_step"], captions)


def plain(value: Any) -> Any:
    """Named tuples as dicts and NaN as ``None``, for ``json.dumps``.

    Example:
        >>> plain({"difference": Difference(-1.5, -2.0, math.nan)})
        {'difference': {'difference': -1.5, 'low': -2.0, 'high': None}}
    """
    value = value._asdict() if hasattr(value, "_asdict") else value
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scores_of(values: Mapping[str, Any]) -> Scores:
    """Scores that :func:`plain` has written."""
    return Scores(**{**_numbers(values), "fvd_infinity": values["fvd_infinity"]})


def _row_of(values: Mapping[str, Any]) -> BudgetScores:
    parts: dict[str, Any] = {"scores": scores_of(values["scores"])}
    for name, kind in (("fidelity", Fidelity), ("difference", Difference)):
        parts[name] = kind(**_numbers(values[name])) if values.get(name) else None
    parts["rival"] = _row_of(values["rival"]) if values.get("rival") else None
    return BudgetScores(**{**values, **parts})


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}
