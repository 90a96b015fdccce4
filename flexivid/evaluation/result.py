"""The result of an evaluation as plain data: cost and scores of each budget, and how they were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.paired import Difference
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores


class BudgetScores(NamedTuple):
    """Cost and quality of one plan.

    Args:
        budget: The plan's name.
        schedule: The patch plan, as it is written.
        macs: MACs of one sample; the mean where each chooses its own schedule.
        seconds: Seconds of one device for one sample, decoding included.
        scores: Distances to the real videos.
        fidelity: Likeness to the full-compute videos of the same seeds; ``None`` for those themselves, or without them.
        rival: Native steps alone, as many as the budget pays for, from the same noises; ``None`` where the plan is just
            that, or where they were not sampled.
        difference: The plan's FVD minus the rival's, with its paired interval.
    """

    budget: float
    schedule: str
    macs: int
    seconds: float
    scores: Scores
    fidelity: Fidelity | None
    rival: BudgetScores | None = None
    difference: Difference | None = None


class Evaluation(NamedTuple):
    """The curve of a model, and all that is needed to make it again.

    Args:
        metric: Label, such as ``fvd2048_16f``.
        protocol: What was compared and how.
        rows: One for each plan.
        global_step: Optimizer step of the weights, where it is known.
    """

    metric: str
    protocol: Protocol
    rows: tuple[BudgetScores, ...]
    global_step: int | None = None

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
            "fvd_auc": _plain(self.fvd_auc),
            "global_step": self.global_step,
            "budgets": [_plain_row(row) for row in self.rows],
            "protocol": self.protocol._asdict(),
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Evaluation:
        """Read what :meth:`to_json` wrote, also before there were rivals and floors."""
        rows = tuple(_row_of(row) for row in plain["budgets"])
        return Evaluation(plain["metric"], Protocol(**plain["protocol"]), rows, plain["global_step"])


def plain_scores(scores: Scores) -> dict[str, Any]:
    """Scores for ``json.dumps``."""
    return _plain(scores._asdict())


def _plain_row(row: BudgetScores) -> dict[str, Any]:
    return {
        **row._asdict(),
        "scores": plain_scores(row.scores),
        "fidelity": None if row.fidelity is None else _plain(row.fidelity._asdict()),
        "rival": None if row.rival is None else _plain_row(row.rival),
        "difference": None if row.difference is None else _plain(row.difference._asdict()),
    }


def _row_of(plain: Mapping[str, Any]) -> BudgetScores:
    scores = {**_numbers(plain["scores"]), "fvd_infinity": plain["scores"]["fvd_infinity"]}
    fidelity, rival, difference = (plain.get(name) for name in ("fidelity", "rival", "difference"))
    parts = {
        "scores": Scores(**scores),
        "fidelity": None if fidelity is None else Fidelity(**_numbers(fidelity)),
        "rival": None if rival is None else _row_of(rival),
        "difference": None if difference is None else Difference(**_numbers(difference)),
    }
    return BudgetScores(**{**plain, **parts})


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in plain.items()}
