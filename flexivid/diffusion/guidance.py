"""How guidance mixes the two branches of a step: what the second one is, at which scale, and at which calls.

A step without a guide mode has one branch. How branches are called is up to the sampler.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from flexivid.budget.schedule import Step
from flexivid.patching.shapes import PatchMode

WEAK_SCALE_RATIO = 2.5  # (1 - s1) / (1 - s2) of ordinary and weak guidance (2502.20126, sec. 4.1)
COMPENSATION = 1.0  # scale added per share of the compute that is saved: 4.5 -> 5.0, 6.0 -> 6.5 at half (2502.20126)
KINDS = ("ordinary", "weak", "auto")
ROUNDING = 1e-6  # of times, which solvers compute in float32: their 0.8 is 0.80000001


class Guidance(NamedTuple):
    """How two branches are mixed.

    Of ``kind`` ``ordinary``, the second branch is without the condition; ``weak``: a weaker mode with the condition,
    and a smaller scale; ``auto``: a weaker mode without the condition.

    Source:
        Ordinary: 2207.12598. Weak: FlexiDiT (2502.20126, sec. 4.1). Auto: a weaker version of the same model as in
        2406.02507, here the coarser patches.

    Example:
        >>> native, weak = PatchMode("1x2x2"), PatchMode("2x4x4")
        >>> guidance = Guidance(3.0, weak_mode_scale=1.5, native=native)
        >>> guidance.kind, guidance.strength(Step(native, native)), guidance.strength(Step(weak, weak))
        ('ordinary', 3.0, 1.5)
    """

    scale: float = 1.0  # 1 = the conditional output as it is
    kind: str = "ordinary"
    weak_mode_scale: float | None = None  # of steps in other modes than the native one; None = ``scale``
    native: PatchMode | None = None  # mode of the network; needed with ``weak_mode_scale`` only

    def strength(self, step: Step) -> float:
        """How far the output goes from the guide branch: 1 = to the conditional one."""
        scale = self.scale
        if self.weak_mode_scale is not None and step.mode != self.native:
            scale = self.weak_mode_scale
        return weak_scale(scale) if self.is_weak(step) else scale

    def is_weak(self, step: Step) -> bool:
        """Whether the guide branch sees the condition too and differs by its weaker mode alone.

        In a step that is weak itself, weak guidance is ordinary: both branches would be one.
        """
        return self.kind == "weak" and step.guide_mode != step.mode


def weak_scale(scale: float) -> float:
    """The scale of weak guidance that goes with an ordinary guidance scale: 3 with 6."""
    return 1 + (scale - 1) / WEAK_SCALE_RATIO


def compensated_scale(scale: float, budget: float) -> float:
    """The scale for a schedule with weak steps: they need a little more guidance; 1 stays 1.

    Example:
        >>> compensated_scale(4.5, 0.5), compensated_scale(6.0, 0.5), compensated_scale(1.0, 0.5)
        (5.0, 6.5, 1.0)
    """
    return scale + COMPENSATION * (1 - budget) if scale != 1 else scale


def calls_outside(times: Sequence[float], interval: tuple[float, float] | None) -> frozenset[int]:
    """Calls whose time is outside the interval of guidance, both ends of which are inside.

    Source:
        2404.07724: guidance harms at high noise and does nothing at low noise.

    Example:
        >>> sorted(calls_outside([1.0, 0.75, 0.5, 0.25], (0.3, 0.8)))
        [0, 3]
    """
    if interval is None:
        return frozenset()
    low, high = interval
    return frozenset(call for call, time in enumerate(times) if not low - ROUNDING <= time <= high + ROUNDING)


def at_call(step: Step, call: int, plain_calls: Collection[int]) -> Step:
    """The step, without its guidance where the call has none."""
    return step.plain if call in plain_calls else step
