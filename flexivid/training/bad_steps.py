"""Decides which steps of a run are bad, counts them, and says when there are too many. Knows no trainer.

A step whose loss or gradient is not finite is skipped: weights and optimizer state do not change, the step is counted.
A step whose loss explodes is taken, since the run may recover, but it counts as bad. Losses are divided by that of
predicting zero on the same clips, times and noises, so that a network that learns stays below about 1 on any data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from flexivid.runtime.errors import check_settings
from flexivid.runtime.finite import NotFiniteError

MEMORY = 10  # steps
ENOUGH, WORSE = 20, 1.1  # after so many steps, a network that learns is below this ratio


class DivergedError(NotFiniteError):
    """A run must stop: too many of its steps were bad."""


@dataclass(frozen=True)
class BadSteps:
    """When a run goes back to an earlier checkpoint or stops because of bad steps.

    Args:
        in_a_row: After so many bad steps in a row the run goes back to its last good checkpoint, >= 1.
        rewinds: How often it goes back before it stops, >= 0.
        share: Stop when a larger share of all steps was bad, in (0, 1]; up to ``in_a_row`` are always allowed.
        explosion: A loss so many times that of predicting zero counts as bad, though its step is taken; > 1.
    """

    in_a_row: int = 10
    rewinds: int = 1
    share: float = 0.1
    explosion: float = 10.0

    def check(self) -> BadSteps:
        """Return itself; ``ValueError`` if a number is out of range."""
        check_settings(
            "model.optimizer.bad_steps",
            ("in_a_row", self.in_a_row, self.in_a_row >= 1, "1 or more"),
            ("rewinds", self.rewinds, self.rewinds >= 0, "0 or more"),
            ("share", self.share, 0 < self.share <= 1, "a fraction in (0, 1]"),
            ("explosion", self.explosion, self.explosion > 1, "more than 1"),
        )
        return self


class Verdict(NamedTuple):
    """Loss and gradient of an optimizer step, the worst of all ranks; infinity stands for all that is not finite."""

    loss: float  # mean over the batches of the step
    gradient: float  # norm before clipping
    ratio: float  # loss divided by that of predicting zero

    @property
    def is_finite(self) -> bool:
        """Whether the step may be taken."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient)


@dataclass
class StepRecord:
    """Counters of a run: plain numbers, stored in checkpoints.

    Example:
        >>> record, settings = StepRecord(), BadSteps(in_a_row=2)
        >>> [record.add(Verdict(loss, 1.0, loss), settings) for loss in (1.0, math.inf, 50.0)]
        [True, False, False]
        >>> record.in_a_row, record.is_streak(settings)
        (2, True)
    """

    bad: int = 0  # bad steps in all
    in_a_row: int = 0  # bad steps since the last good one or the last rewind
    rewinds: int = 0  # how often the run has gone back
    good: int = 0  # good steps in all
    scale: float = 0.0  # the first finite ratio, at least 1; 0 = none yet
    recent: float = 1.0  # running mean of ratio / scale over about ten steps, clipped at ``explosion``

    def add(self, verdict: Verdict, settings: BadSteps) -> bool:
        """Count a step and say whether it was good."""
        if verdict.is_finite:
            self.scale = self.scale or max(1.0, verdict.ratio)
            self.recent += (min(verdict.ratio / self.scale, settings.explosion) - self.recent) / MEMORY
        is_good = verdict.is_finite and verdict.ratio <= settings.explosion * self.scale
        self.in_a_row = 0 if is_good else self.in_a_row + 1
        self.good, self.bad = self.good + is_good, self.bad + (not is_good)
        return is_good

    def is_streak(self, settings: BadSteps) -> bool:
        """Whether the run has to go back, or to stop."""
        return self.in_a_row >= settings.in_a_row

    def is_too_much(self, settings: BadSteps) -> bool:
        """Whether so many steps were bad that going back does not help."""
        allowed = settings.in_a_row * (1 + self.rewinds)  # each rewind discards a streak
        return self.bad > max(allowed, settings.share * (self.good + self.bad))

    def ends_badly(self, settings: BadSteps) -> bool:
        """Whether a run that ends here has failed."""
        is_streak = self.in_a_row >= min(3, settings.in_a_row) or (self.in_a_row > 0 and self.rewinds > 0)
        return is_streak or (self.bad > 0 and self.good == 0) or self.is_useless

    @property
    def is_useless(self) -> bool:
        """Whether, after enough steps, predictions are worse than predicting zero."""
        return self.good + self.bad >= ENOUGH and self.recent > WORSE
