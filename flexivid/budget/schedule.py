"""Which patch mode each solver step uses, and what that costs. No torch.

A schedule is a tuple of steps, one for every call of the network that the solver makes (Heun makes two a step). Its
budget is its cost over that of the all-native schedule with as many steps and the same guidance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from typing import NamedTuple

from flexivid.budget.cost import NetworkShape, macs, text_macs
from flexivid.patching.shapes import PatchMode

MAX_STEPS = 10_000


class Step(NamedTuple):
    """One solver step.

    Args:
        mode: Patch mode of the conditional branch; ``None`` = the network is not called, and the solver gets the last
            output again (:data:`REUSE`), which costs nothing.
        guide_mode: Patch mode of guidance's second branch; ``None`` = no guidance at this step. Equal to ``mode``:
            ordinary guidance. Another mode: weak guidance.

    Example:
        >>> str(Step(PatchMode("2x4x4"))), str(Step(PatchMode("1x2x2"), PatchMode("2x4x4"))), str(REUSE)
        ('2x4x4', '1x2x2+2x4x4', 'reuse')
    """

    mode: PatchMode | None
    guide_mode: PatchMode | None = None

    @property
    def modes(self) -> tuple[PatchMode, ...]:
        """The modes that are called, one a branch; none for :data:`REUSE`."""
        return tuple(mode for mode in self if mode is not None)

    @property
    def plain(self) -> Step:
        """The same step without guidance."""
        return Step(self.mode)

    @property
    def ordinary(self) -> Step:
        """The same step guided by its own mode, if it is guided at all."""
        return Step(self.mode, self.mode if self.guide_mode else None)

    def __str__(self) -> str:
        return "+".join(map(str, self.modes)) or "reuse"


REUSE = Step(None)  # the output of the last call again, as caches do (BudCache, 2606.13496, searches where)


class Schedule(tuple[Step, ...]):
    """The patch plan: a tuple of :class:`Step`, written like ``12x4x8x8,8x2x4x4`` = 12 steps of 4x8x8, then 8 of 2x4x4.

    Example:
        >>> schedule = Schedule.parse("2x4x8x8,1x2x4x4+2x4x4")
        >>> len(schedule), str(schedule), schedule[0].mode
        (3, '2x4x8x8,1x2x4x4+2x4x4', PatchMode('4x8x8'))
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read the written form; a guidance mode may follow with ``+``.

        Raises:
            ValueError: If the text is not of that form.
        """
        steps: list[Step] = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\d+)x(?:reuse|(\d+x\d+x\d+)(?:\+(\d+x\d+x\d+))?)\s*", part)
            if match is None or not 1 <= int(match[1]) <= MAX_STEPS:
                raise ValueError(
                    f"got schedule part {part!r}; expected COUNTxMODE such as 12x4x8x8 (12 steps of mode 4x8x8) or"
                    f" 1xreuse, count 1 to {MAX_STEPS}; write parts separated by commas"
                )
            step = Step(PatchMode(match[2]), PatchMode(match[3]) if match[3] else None) if match[2] else REUSE
            steps += [step] * int(match[1])
        return cls(steps).check()

    def check(self) -> Schedule:
        """Return itself.

        Raises:
            ValueError: If it begins with reuse, where there is no last output.
        """
        if self and self[0] == REUSE:
            raise ValueError(
                f"got schedule {self}, which begins with reuse; expected a call of the network first; put a mode there"
            )
        return self

    def runs(self) -> list[tuple[int, Step]]:
        """Counts of equal neighbours, in order."""
        return [(len(list(group)), step) for step, group in groupby(self)]

    @property
    def short(self) -> str:
        """The written form for people: without guidance where it is ordinary throughout.

        Example:
            >>> Schedule.parse("4x2x4x4+2x4x4,1xreuse,2x1x2x2+1x2x2").short
            '4x2x4x4,1xreuse,2x1x2x2'
        """
        ordinary = all(step.guide_mode == step.mode for step in self if step.modes)
        return str(Schedule(step.plain for step in self)) if ordinary else str(self)

    def __str__(self) -> str:
        return ",".join(f"{count}x{step}" for count, step in self.runs())


def constant(mode: str | PatchMode, num_steps: int, *, guided: bool = False) -> Schedule:
    """Return a schedule of one mode at all steps.

    Example:
        >>> str(constant("1x2x2", 20))
        '20x1x2x2'
    """
    return weak_first([(mode, num_steps)], guided=guided)


def weak_first(counts: Iterable[tuple[str | PatchMode, int]], *, guided: bool = False) -> Schedule:
    """Return a schedule of so many steps of each mode, in this order (the paper's: weak modes first, native last).

    Args:
        counts: Pairs of mode and number of steps.
        guided: Whether every step has guidance by its own mode.

    Raises:
        ValueError: If there is no step, or a count is negative.

    Example:
        >>> str(weak_first([("2x4x4", 12), ("1x2x2", 8)]))
        '12x2x4x4,8x1x2x2'
    """
    steps: list[Step] = []
    for mode, count in counts:
        if count < 0:
            raise ValueError(f"got {count} steps of {mode}; expected 0 or more; change the count")
        patch = PatchMode(mode)
        steps += [Step(patch, patch if guided else None)] * count
    if not 1 <= len(steps) <= MAX_STEPS:
        raise ValueError(f"got {len(steps)} steps; expected 1 to {MAX_STEPS}; change num_steps")
    return Schedule(steps)


def schedule_macs(
    schedule: Sequence[Step],
    config: NetworkShape,
    size: tuple[int, int, int],
    *,
    text_tokens: int = 0,
    windows: int = 1,
) -> int:
    """MACs of one sample under a schedule with calls of latent size (t, h, w), both branches of guidance counted.

    A text of ``text_tokens``, padding included, is read once a sample and branch. A step makes as many calls for each
    branch as there are ``windows``.
    """
    reading = text_macs(config, text_tokens) * num_texts(schedule)
    return windows * _call_macs(schedule, config, size, text_tokens) + reading


def _call_macs(schedule: Sequence[Step], config: NetworkShape, size: tuple[int, int, int], text_tokens: int) -> int:
    modes = {mode for step in schedule for mode in step.modes}
    cost = {mode: macs(config, size, mode, text_tokens=text_tokens) for mode in modes}
    return sum(cost[mode] for step in schedule for mode in step.modes)


def num_texts(steps: Iterable[Step]) -> int:
    """Texts that are read for a sample: its own, and that of guidance's second branch where a step has one.

    Example:
        >>> num_texts(Schedule.parse("2x2x4x4")), num_texts(Schedule.parse("1x2x4x4,1x1x2x2+1x2x2"))
        (1, 2)
    """
    return 2 if any(step.guide_mode is not None for step in steps) else 1


def budget_of(
    schedule: Sequence[Step], config: NetworkShape, size: tuple[int, int, int], *, text_tokens: int = 0
) -> float:
    """Cost of a schedule over the all-native one with as many steps and the same guidance.

    Args:
        schedule: Steps. One that reuses the last output counts as a native step in the denominator, guided if the step
            before it is.
        config: Shape of the network.
        size: Latent size (t, h, w).
        text_tokens: Tokens of the texts; reading them is not counted, for no schedule changes it.

    Returns:
        Fraction > 0; 1 for the all-native schedule.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> config = FlexiDiTConfig(width=192, depth=6, num_heads=3, modes=("1x2x2", "2x4x4"))
        >>> round(budget_of(Schedule.parse("10x2x4x4,10x1x2x2"), config, (8, 16, 16)), 2)
        0.55
    """
    branches, last = 0, 1
    for step in schedule:
        last = len(step.modes) or last
        branches += last
    native = macs(config, size, text_tokens=text_tokens)
    return _call_macs(schedule, config, size, text_tokens) / (branches * native)


def affordable_cost(budget: float, full: int) -> int:
    """The largest cost with ``cost / full <= budget``, rounded as ``budget_of`` rounds.

    Example:
        >>> affordable_cost(0.25, 1000)
        250
    """
    cost = math.floor((Fraction(budget) + Fraction(math.nextafter(budget, 2))) / 2 * full)
    return cost if cost / full <= budget else cost - 1
