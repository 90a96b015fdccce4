"""Plans whose samples were compared with real videos, as plain data. No torch.

The planner ``searched_fvd`` chooses from them. They are stored in ``schedules.json`` beside the error tables;
``flexivid.calibration`` scores them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flexivid.budget.allowance import Allowance
from flexivid.budget.schedule import Schedule


class ScoredPlan(NamedTuple):
    """A plan that was sampled, and how far its samples are from real videos."""

    steps: str  # the schedule as text, exactly as it was run
    sampling: Mapping[str, Any]  # where it differs from the table: ``solver``, ``shift``, ``[weak_]guidance_scale``
    fvd: float  # Frechet distance
    low: float  # lower end of its 95 % interval
    high: float  # its upper end
    num_videos: int  # samples it was measured on; only plans with equally many are compared
    ahead: bool = True  # the default plan of its price range, or clearly nearer to real videos than that one


class ScoreTable(NamedTuple):
    """All scored plans of one model under one setting of its sampler.

    Example:
        >>> row = ScoredPlan("2x1x2x2", {}, 5.0, 4.0, 6.0, 64)
        >>> ScoreTable("m", {}, (row,), {"metric": "fvd"}).check().rows[0].fvd
        5.0
    """

    model: str  # fingerprint of the weights
    settings: Mapping[str, Any]  # which a sampler must share: steps of full compute, solver, shift, guidance, size
    rows: tuple[ScoredPlan, ...]  # scored plans, in any order
    by: Mapping[str, Any]  # how they were scored: metric, real videos, seed
    step_floor: int | None = None  # fewest native steps within the interval of many; ``None`` = not measured

    def check(self) -> ScoreTable:
        """Return itself; ``ValueError`` if a distance is not finite or a schedule cannot be read."""
        for row in self.rows:
            Schedule.parse(row.steps)
            if not all(math.isfinite(value) for value in (row.fvd, row.low, row.high)):
                if math.isfinite(row.fvd):
                    raise ValueError(
                        f"got an interval of {row.num_videos} videos of schedule {row.steps} that is not finite;"
                        " expected more videos; raise --num-videos"
                    )
                raise ValueError(
                    f"got a distance of schedule {row.steps} that is not a finite number; expected samples without NaN;"
                    " check the weights, or search with --precision fp32"
                )
        return self


def affordable_rows(table: ScoreTable, allowance: Allowance, *, num_calls: int | None = None) -> list[ScoredPlan]:
    """The plans that an allowance pays for, the cheapest first; of these, the ones that were scored on the most videos.

    A plan with an option that the allowance lacks is left out, and one of another number of calls, if that is given.

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> allowance = Allowance((Step(PatchMode("1x2x2")),), (8,), 3, 20, (8,))
        >>> rows = tuple(ScoredPlan(f"{count}x1x2x2", {}, 9.0 / count, 0.0, 9.0, 64) for count in (1, 2, 3))
        >>> [row.steps for row in affordable_rows(ScoreTable("m", {}, rows, {}), allowance)]
        ['1x1x2x2', '2x1x2x2']
    """
    options = set(allowance.options) | {step.plain for step in allowance.options}
    most = max((row.num_videos for row in table.rows), default=0)
    priced = []
    for row in table.rows:
        steps = Schedule.parse(row.steps)
        possible = {step for step in steps if step.modes} <= options and num_calls in (None, len(steps))
        if possible and row.num_videos == most and (cost := allowance.cost(steps)) <= allowance.affordable:
            priced.append((cost, row.fvd, row))
    return [row for *_, row in sorted(priced, key=lambda entry: entry[:2])]


def best_row(rows: Sequence[ScoredPlan]) -> ScoredPlan | None:
    """The plan of least distance among those ahead, of equals the first; ``None`` if there is no plan.

    Of many plans that are alike, the one of least distance on a few videos was lucky: one that is not clearly better
    than the default plan of its price range is chosen only where no other can be paid.

    Example:
        >>> best_row([ScoredPlan("1x1x2x2", {}, 9.0, 8.0, 9.5, 64), ScoredPlan("2x1x2x2", {}, 7.0, 6.0, 8.0, 64)]).fvd
        7.0
        >>> lucky = ScoredPlan("3x1x2x2", {}, 6.9, 5.9, 7.9, 64, ahead=False)
        >>> best_row([lucky, ScoredPlan("2x1x2x2", {}, 7.0, 6.0, 8.0, 64)]).fvd, best_row([lucky]).fvd
        (7.0, 6.9)
    """
    return min([row for row in rows if row.ahead] or rows, key=lambda row: row.fvd, default=None)
