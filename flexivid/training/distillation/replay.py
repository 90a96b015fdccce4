"""Replay buffer of a distillation: the teacher's pass is most of a step's work, so several steps share its output."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Answer = tuple[dict[str, Any], Tensor]  # arguments of a call, and the output of the native mode


class Replay:
    """The latest calls and outputs of the teacher. Not stored in checkpoints: a resumed run starts with new ones.

    Args:
        reuse: Steps that use each output, on average, >= 1.

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
        self.answers: deque[Answer] = deque(maxlen=2 * reuse - 1)

    def answer(self, ask: Callable[[], Answer], generator: Callable[[], torch.Generator]) -> Answer:
        """Return a new answer every ``reuse`` calls, else a random one of the buffer.

        Args:
            ask: Calls the teacher.
            generator: Makes the generator of the draw.
        """
        is_new = not self.answers or self.num_calls % self.reuse == 0
        self.num_calls += 1
        if not is_new:
            return self.answers[int(torch.randint(len(self.answers), (), generator=generator()))]
        self.answers.append(ask())
        return self.answers[-1]

    def forget_bad(self) -> None:
        """Remove answers whose output or arguments are not finite."""
        finite = [
            (call, target)
            for call, target in self.answers
            if all(_is_finite(value) for value in (target, *call.values()) if isinstance(value, Tensor))
        ]
        self.answers = deque(finite, maxlen=self.answers.maxlen)


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())
