"""What a distillation keeps of its teacher from step to step: sampling paths that it walks, and outputs to use again.

Neither is in checkpoints: a resumed run starts with new ones. Knows how transformers are called; no Lightning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flexivid.diffusion.times import shift_time
from flexivid.pretrained.families.family import config_of
from flexivid.pretrained.signature import noisy_call
from flexivid.runtime.errors import check_settings
from flexivid.training.objective import Walk

Answer = tuple[dict[str, Any], Tensor]  # arguments of a call, and the output of the native mode


class TeacherWalk:
    """Training points without data: on the sampling paths of the teacher, a rectified flow.

    They cost nothing, since the teacher's output, which distillation needs anyway, also moves a sample by one solver
    step. Each slot of a batch walks from noise to data in Euler steps of random length, so that times are spread
    evenly, and then restarts with other noise and another text.
    """

    def __init__(self, settings: Walk) -> None:
        self.settings = settings
        self.position: Tensor | None = None  # (b,) in [0, 1] before the shift, 1 = noise
        self.latent = torch.empty(0)
        self.inputs: dict[str, Tensor] = {}

    @property
    def time(self) -> Tensor:
        """Times of the slots, (b,)."""
        assert self.position is not None
        return shift_time(self.position, self.settings.shift)

    def call(self, model: nn.Module, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Any]:
        """Return the arguments of the next call of a transformer, text to video.

        Slots at the end of their path restart from noise with these inputs: those beside the latent, one row a slot.
        """
        first = next(iter(inputs.values()))
        count, device = len(first), first.device
        shape = (count, config_of(model)["in_channels"], *self.settings.size)
        if self.position is None or len(self.position) != count:
            self.position, self.latent = torch.zeros(count, device=device), torch.zeros(shape, device=device)
            self.inputs = {name: value.clone() for name, value in inputs.items()}
        ended = self.position <= 0
        noise = torch.randn(shape, device=device, generator=generator)
        self.latent = torch.where(_like(ended, noise), noise, self.latent)
        self.inputs = {name: torch.where(_like(ended, new), new, self.inputs[name]) for name, new in inputs.items()}
        self.position = torch.where(ended, 1.0, self.position)
        return noisy_call(model, self.latent, self.latent, self.time, self.inputs)

    def advance(self, velocity: Tensor, hidden: Tensor, generator: torch.Generator) -> None:
        """Move all slots by a solver step: by the teacher's output for the latest call, whose latent is ``hidden``."""
        assert self.position is not None
        time = self.time
        lengths = torch.rand(len(time), device=time.device, generator=generator) * 2 / self.settings.num_steps
        self.position = (self.position - lengths).clamp_min(0)
        step = velocity.float() * _like(self.time - time, hidden)
        if step.ndim == 3:  # of a family that packs (b, c, t, h, w) into tokens (b, t h w, c)
            step = step.transpose(1, 2).reshape(self.latent.shape)
        self.latent = self.latent + step

    def restart_bad(self) -> None:
        """Restart slots whose latent is not finite with the next call."""
        if self.position is not None:
            finite = self.latent.isfinite().flatten(1).all(1)
            self.position = torch.where(finite, self.position, 0.0)


class Replay:
    """Buffer of the latest calls and outputs of the teacher, whose pass is most of a step: ``reuse`` steps share each.

    Example:
        >>> replay = Replay(reuse=2)
        >>> answers = [replay.answer(lambda: ({}, torch.ones(1)), lambda: torch.Generator()) for _ in range(4)]
        >>> len(replay.answers)
        2
    """

    def __init__(self, reuse: int = 1) -> None:
        check_settings("model", ("reuse", reuse, reuse >= 1, "1 or more"))
        self.reuse, self.num_calls = reuse, 0
        self.answers: deque[Answer] = deque(maxlen=2 * reuse - 1)

    def answer(self, ask: Callable[[], Answer], generator: Callable[[], torch.Generator]) -> Answer:
        """Ask the teacher anew in every ``reuse``-th call, and return its answer; else return one of the buffer."""
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
            if all(value.isfinite().all() for value in (target, *call.values()) if isinstance(value, Tensor))
        ]
        self.answers = deque(finite, maxlen=self.answers.maxlen)


def _like(values: Tensor, target: Tensor) -> Tensor:
    """(b,) -> (b, 1, ...), as many axes as ``target``."""
    return values.view(-1, *[1] * (target.ndim - 1))
