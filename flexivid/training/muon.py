"""Muon: momentum whose matrix is brought near the closest orthogonal one before it is a step.

As ``torch.optim.Muon``, with the same state, but in the arithmetic that the device is fast in: torch's is bfloat16
everywhere, which takes ten times the rest of a training step on processors without instructions for it. Matrices of
one shape are worked on together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flexivid.runtime.device import fast_dtype

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, https://kellerjordan.github.io/posts/muon/
ITERATIONS = 5
RMS = 0.2  # of AdamW's updates, which a step is scaled to (2502.16982, sec. 2.2)


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """Return the loss of an optimizer's closure, called with gradients on; ``None`` without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class Muon(Optimizer):
    """Muon: momentum with orthogonalised updates, for matrices.

    Args:
        params: Matrices.
        lr: On AdamW's scale.
        weight_decay: Decoupled.
        momentum: Decay of the running mean of gradients (Nesterov).

    Raises:
        ValueError: If a parameter is not a matrix.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for parameter in self.param_groups[0]["params"]:
            if parameter.ndim != 2:
                raise ValueError(f"got a parameter of shape {tuple(parameter.shape)}; expected matrices; use AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every matrix that has a gradient."""
        loss = loss_of(closure)
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append((parameter, self._direction(parameter, group["momentum"])))
            for shape, pairs in by_shape.items():
                updates = orthogonalised(torch.stack([direction for _, direction in pairs]))
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * RMS * math.sqrt(max(shape)))
        return loss

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum_buffer"], momentum)


def orthogonalised(matrices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return matrices with the same singular vectors and singular values near 1, (n, rows, columns).

    Args:
        matrices: (n, rows, columns).
        dtype: Of the computation; ``None`` = the one that the device is fast in.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalised(torch.tensor([[[3.0, 0.0], [0.0, 0.2]]])))
        >>> bool(((values > 0.6) & (values < 1.3)).all())
        True
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype or fast_dtype(matrices.device))
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]  # no singular value above 1
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)
