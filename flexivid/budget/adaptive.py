"""Choose each sample's schedule while it is generated, within a hard budget. Needs torch.

Every call takes the option of least error in all: its own error, and the least error of later calls with the budget
that it leaves. Its own error is the measured one, scaled by how much more this latent changes here than those that were
measured. No sample spends more than its allowance. Knows no network and no solver: latents in, options out.

Source:
    Third-order change of the latent against a threshold: DDiT (arXiv:2602.16968), where the threshold is given and the
    cost follows; here it is the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flexivid.budget.allowance import Allowance
from flexivid.budget.measured import searched
from flexivid.budget.schedule import Schedule, Step
from flexivid.budget.search import outlooks
from flexivid.budget.table import ErrorTable
from flexivid.patching.embed import patchify

HISTORY = 3  # earlier latents that a third difference takes
QUANTILE = 0.4  # of a sample's patches
SMALLEST = 1e-12  # changes are kept above this where they divide


def third_change(latents: Sequence[Tensor]) -> Tensor:
    """Third difference of four latents in a row, the oldest first.

    Example:
        >>> third_change([torch.tensor(float(i) ** 3) for i in range(4)]).item()
        6.0
    """
    a, b, c, d = latents
    return d - 3 * c + 3 * b - a


def patch_change(change: Tensor, step: Step) -> Tensor:
    """How much a change varies inside the patches of a step's mode, (b, c, t, h, w) -> (b,).

    Standard deviation inside each patch, and of these a quantile: the detail that patches of this size would lose.

    Example:
        >>> from flexivid.patching.shapes import PatchMode
        >>> rows = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 1, 4, 1).expand(1, 1, 1, 4, 4)
        >>> [round(patch_change(rows, Step(PatchMode(mode))).item(), 3) for mode in ("1x2x2", "1x4x4")]
        [0.0, 0.5]
    """
    return patchify(change.float(), step.modes[0]).std(dim=-1, correction=0).quantile(QUANTILE, dim=-1)


class AdaptivePlan:
    """What each sample may spend, and the measurements by which a :class:`Chooser` makes the choices of a batch.

    A sample follows the searched schedule, ``opening``, until enough of its changes are known. ``ValueError`` if there
    is no table, or it holds no changes.
    """

    def __init__(self, allowance: Allowance, table: ErrorTable | None) -> None:
        self.allowance, self.opening = allowance, searched(allowance, table)
        if table is None or not any(table.changes):
            raise ValueError(
                "got planner adaptive without measured changes, so without thresholds; expected a table of more than"
                f" {HISTORY} calls of the network; take more steps, or choose --planner searched"
            )
        self.followed: dict[int, Schedule] = {}  # of the finished samples, by global index
        columns = table.columns(allowance.options)
        rows = table.rows(allowance.options)
        self.errors = np.array(rows)  # calls, options
        self.changes = [np.array([call[column] for column in columns]) if call else None for call in table.changes]
        self.outlooks = outlooks(rows, allowance.rows)

    def __len__(self) -> int:
        return self.allowance.num_steps

    def __str__(self) -> str:
        return f"adaptive, {len(self)} steps of {', '.join(map(str, self.allowance.options))}"

    @property
    def share(self) -> float:
        """The budget, as a fraction of full compute."""
        return min(1.0, self.allowance.share(self.allowance.affordable))

    def start(self, indices: Sequence[int]) -> Chooser:
        """Begin a batch of samples, named by their global indices."""
        return Chooser(self, list(indices))


class Chooser:
    """Chooses the steps of one batch, call by call; samples are named by their global indices."""

    def __init__(self, plan: AdaptivePlan, indices: list[int]) -> None:
        self._plan, self._indices = plan, indices
        self._remaining = np.full(len(indices), plan.allowance.affordable)
        self._latents: list[Tensor] = []
        self._change_ratios: list[np.ndarray] = []  # of each sample at each call so far, 1 = as measured
        self._choices: list[np.ndarray] = []

    def steps(self, call: int, x: Tensor) -> list[Step]:
        """The step of each sample at a call, whose latents are x, (b, c, t, h, w); calls come in order."""
        self._latents = [*self._latents[-HISTORY:], x.float()]
        allowance = self._plan.allowance
        costs = allowance.rows[call]
        now = self._plan.errors[call][:, None] * self._relative_changes(call)  # options, b
        later = np.stack([self._least_error(call + 1, self._remaining - cost) for cost in costs])
        chosen = (now + later).argmin(axis=0)  # of equals the finest
        self._remaining = self._remaining - np.take(costs, chosen)
        self._choices.append(chosen)
        if call + 1 == len(self._plan):
            for index, choice in zip(self._indices, zip(*self._choices, strict=True), strict=True):
                self._plan.followed[index] = allowance.schedule(choice)
        return [allowance.step(call, option) for option in chosen]

    def _relative_changes(self, call: int) -> np.ndarray:
        """Change of each sample over the measured one, divided by the sample's mean so far, (options, b).

        Budgets are per sample, so each is normalised by its own past: one that changes fast throughout gets no more.
        """
        measured = self._plan.changes[call]
        if measured is None:
            return np.ones((1, len(self._indices)))
        change = third_change(self._latents)
        changes = torch.stack([patch_change(change, step) for step in self._plan.allowance.options]).double().cpu()
        ratio = changes.numpy().clip(SMALLEST) / measured[:, None].clip(SMALLEST)
        self._change_ratios.append(ratio.mean(axis=0))
        return ratio / np.mean(self._change_ratios, axis=0)

    def _least_error(self, call: int, budgets: np.ndarray) -> np.ndarray:
        """Least error of the calls from this one on, for each budget; infinite where a budget does not pay for them."""
        costs, errors = self._plan.outlooks[call]
        point = np.searchsorted(costs, budgets, side="right") - 1
        return np.where(point < 0, np.inf, errors[point.clip(0)])
