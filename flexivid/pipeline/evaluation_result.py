"""The result of an evaluation as plain data: what each budget costs, what it is worth, how that was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores


class BudgetScores(NamedTuple):
    """What one plan costs and what its videos are worth.

    Args:
        budget: What the plan is called.
        schedule: The patch plan, as it is written.
        macs: MACs of one sample; the mean where each chooses its own schedule.
        seconds: Seconds of one device for one sample, decoding included.
        scores: Distances to the real videos.
        fidelity: Likeness to the full-compute videos of the same seeds; ``None`` for those themselves, or without them.
    """

    budget: float
    schedule: str
    macs: int
    seconds: float
    scores: Scores
    fidelity: Fidelity | None


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
            "budgets": [
                {
                    **row._asdict(),
                    "scores": plain_scores(row.scores),
                    "fidelity": None if row.fidelity is None else _plain(row.fidelity._asdict()),
                }
                for row in self.rows
            ],
            "protocol": self.protocol._asdict(),
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Evaluation:
        """What :meth:`to_json` gave."""
        rows = []
        for row in plain["budgets"]:
            scores = {name: _number(value) for name, value in row["scores"].items()}
            scores["fvd_infinity"] = row["scores"]["fvd_infinity"]
            known = row["fidelity"]
            likeness = None if known is None else Fidelity(**{name: _number(value) for name, value in known.items()})
            rows.append(BudgetScores(**{**row, "scores": Scores(**scores), "fidelity": likeness}))
        return Evaluation(plain["metric"], Protocol(**plain["protocol"]), tuple(rows), plain["global_step"])


def plain_scores(scores: Scores) -> dict[str, Any]:
    """Scores for ``json.dumps``."""
    return _plain(scores._asdict())


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return math.nan if value is None else value
