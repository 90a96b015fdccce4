"""Replay buffer of a distillation: the teacher's pass is most of a step's work, so its answers serve several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Answer = tuple[dict[str, Any], Tensor]  # a call of the network, and its native output


class Replay:
    """The latest answers of the teacher. Not part of a checkpoint: a resumed run begins with new ones.

    Args:
        reuse: Steps that an answer serves, on average, >= 1.

    Example:
        >>> replay = Replay(reuse=2)
        >>> answers = [replay.answer(lambda: ({}, torch.ones(1)), lambda: torch.Generator()) for _ in range(4)]
        >>> len(replay.answers)
        2
    """

    def __init__(self, reuse: int = 1) -> None:
        if reuse < 1:
            raise ValueError(f"got reuse={reuse}; expected 1 or more; change model.reuse")
        self.reuse, self.num_calls = reuse, 0
        self.answers: list[Answer] = []

    def answer(self, ask: Callable[[], Answer], generator: Callable[[], torch.Generator]) -> Answer:
        """A new answer every ``reuse`` calls, else one of the latest.

        Args:
            ask: Gives a new one.
            generator: Gives the source of the draw among the latest.
        """
        is_new, self.num_calls = not self.answers or self.num_calls % self.reuse == 0, self.num_calls + 1
        if not is_new:
            return self.answers[int(torch.randint(len(self.answers), (), generator=generator()))]
        self.answers = [*self.answers, ask()][1 - 2 * self.reuse :]
        return self.answers[-1]

    def forget_bad(self) -> None:
        """Drop answers that are not finite, or are to calls that are not."""
        self.answers = [
            (call, target)
            for call, target in self.answers
            if all(_is_finite(value) for value in (target, *call.values()) if isinstance(value, Tensor))
        ]


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())
