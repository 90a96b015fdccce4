"""Optimizer and learning rate: AdamW in groups, or Muon for the blocks' matrices with AdamW for the rest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from flexivid.runtime.device import fast_dtype
from flexivid.training.bad_steps import BadSteps

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, https://kellerjordan.github.io/posts/muon/
ITERATIONS = 5
RMS = 0.2  # of AdamW's updates, which a step is scaled to (2502.16982, sec. 2.2)


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the optimizer and the learning rate.

    Args:
        name: ``adamw``, or ``muon`` (https://kellerjordan.github.io/posts/muon/): orthogonalised momentum for the
            matrices inside the blocks, AdamW for everything else. Needs whole matrices: not for FSDP.
        learning_rate: Peak.
        muon_learning_rate: Peak for Muon's matrices, on AdamW's scale (2502.16982).
        weight_decay: Decoupled, on matrices only.
        betas: Of AdamW.
        warmup_steps: Linear rise.
        final_fraction: Where the cosine ends, as a fraction of the peak.
        bad_steps: When bad steps make a run go back or stop.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-4
    muon_learning_rate: float = 2e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 100
    final_fraction: float = 0.0
    bad_steps: BadSteps = BadSteps()


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """Return the loss of an optimizer's closure, called with gradients on; ``None`` without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class Muon(Optimizer):
    """Muon: momentum with orthogonalised updates, for matrices.

    As ``torch.optim.Muon``, with the same state, but in the arithmetic that the device is fast in: torch's is bfloat16
    everywhere, which takes ten times the rest of a training step on processors without instructions for it. Matrices of
    one shape are worked on together. ``lr`` is on AdamW's scale, ``weight_decay`` is decoupled, ``momentum`` the decay
    of the running mean of gradients (Nesterov).
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

    Computed in the dtype that the device is fast in, unless one is named.

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


class Chained(Optimizer):
    """Several optimizers as one, over disjoint parameters."""

    def __init__(self, parts: Iterable[Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # the same dicts, not copies

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Call the closure once, then step every part."""
        loss = loss_of(closure)
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def build_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Make the optimizer. Biases, norms and embeddings have no weight decay; the network's ``blocks`` are Muon's."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in named if name.startswith("blocks.") and p.ndim == 2 and "modulation" not in name]
    muon = matrices if settings.name == "muon" else []
    by_muon = set(map(id, muon))
    rest = [(name, p) for name, p in named if id(p) not in by_muon]
    decayed = [p for name, p in rest if p.ndim >= 2 and not _is_table(name)]
    plain = [p for name, p in rest if p.ndim < 2 or _is_table(name)]
    adamw = AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=settings.betas,
        fused=all(parameter.device.type in ("cpu", "cuda") for _, parameter in named),
    )
    if not muon:
        return Chained([adamw])  # alone, a fused AdamW under bf16 makes Lightning refuse to clip gradients
    return Chained([Muon(muon, settings.muon_learning_rate, settings.weight_decay), adamw])


def rate_factor(step: int, progress: float, settings: OptimizerSettings) -> float:
    """Return the learning rate as a fraction of its peak: linear warm-up, then a half cosine over the whole run.

    Example:
        >>> settings = OptimizerSettings(warmup_steps=10)
        >>> rate_factor(4, 0.0, settings), rate_factor(500, 0.5, settings), round(rate_factor(999, 1.0, settings), 6)
        (0.5, 0.5, 0.0)
    """
    low = settings.final_fraction
    cosine = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / max(1, settings.warmup_steps)) * cosine


def with_rate(optimizer: Optimizer, settings: OptimizerSettings, progress_at: Callable[[int], float]) -> dict[str, Any]:
    """What ``configure_optimizers`` returns. ``progress_at`` is the fraction of the run that is done before a step."""
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, progress_at(step), settings))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def _is_table(name: str) -> bool:
    return "label" in name or name.endswith(("mode", "mode_embedding"))
