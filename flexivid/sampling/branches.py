"""How a guided step reaches the network: both branches in one call or one by one, in batches that suit the mode.

A result does not depend on either, but for the rounding of kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flexivid.budget.schedule import Step
from flexivid.diffusion.guidance import Branch, Network
from flexivid.model.conditioning import Condition
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.packing import Packed
from flexivid.patching.shapes import PatchMode, num_tokens

PACKED_TOKENS = {"cpu": 512}  # of both branches: above, one call is no faster than two (bench_guidance.json)
PACKED_TOKENS_ELSEWHERE = 8192  # not measured: about what fills an accelerator
LARGEST_GROWTH = 8  # a weak mode's batch over the native one's


def branch_network(model: FlexiDiT, packing: str = "auto") -> Network:
    """The network as guidance calls it.

    Args:
        model: The network.
        packing: ``always`` packs two branches into one call, ``never`` calls them one by one, ``auto`` packs where that
            was measured to be faster: while both together are few tokens.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> branches = [Branch(Condition(), mode) for mode in model.config.modes]
        >>> [output.shape for output in branch_network(model)(torch.zeros(1, 3, 2, 4, 4), torch.ones(1), branches)]
        [torch.Size([1, 3, 2, 4, 4]), torch.Size([1, 3, 2, 4, 4])]
    """

    def network(x: Tensor, time: Tensor, branches: Sequence[Branch]) -> Sequence[Tensor]:
        if len(branches) > 1 and _packs(x, branches, packing):
            return call_packed(model, x, time, branches)
        return [model(x, time, branch.condition, branch.mode) for branch in branches]

    return network


def call_packed(model: FlexiDiT, x: Tensor, time: Tensor, branches: Sequence[Branch]) -> Sequence[Tensor]:
    """All branches in one call: equal modes as a larger batch, different ones with their tokens in one row."""
    count, modes = len(branches), [branch.mode for branch in branches]
    labels = torch.cat([_labels(branch.condition, time, model.config.num_classes) for branch in branches])
    mode = modes[0] if len(set(modes)) == 1 else Packed(modes)
    output = model(x.repeat(count, 1, 1, 1, 1), time.repeat(count), Condition(labels), mode)
    return output.chunk(count)


def batch_of(mode_or_step: PatchMode | Step, size: tuple[int, int, int], native: PatchMode, base: int) -> int:
    """Samples in a call: as many as hold about the tokens of ``base`` native ones, up to eight times ``base``.

    Args:
        mode_or_step: A mode, or a step, whose finer mode decides.
        size: Latent size (t, h, w).
        native: The network's native mode.
        base: Batch size of the native mode.

    Example:
        >>> batch_of(PatchMode("4x8x8"), (8, 32, 32), PatchMode("2x4x4"), 16)
        128
    """
    modes = mode_or_step.modes if isinstance(mode_or_step, Step) else [mode_or_step]
    tokens = max(
        (num_tokens(size, mode) for mode in modes), default=1
    )  # none is called where the last output is reused
    return max(1, min(LARGEST_GROWTH * base, base * num_tokens(size, native) // tokens))


def _packs(x: Tensor, branches: Sequence[Branch], packing: str) -> bool:
    if packing != "auto":
        return packing == "always"
    size = (x.shape[2], x.shape[3], x.shape[4])
    tokens = len(x) * sum(num_tokens(size, branch.mode) for branch in branches)
    return tokens <= PACKED_TOKENS.get(x.device.type, PACKED_TOKENS_ELSEWHERE)


def _labels(condition: Condition | None, time: Tensor, null: int) -> Tensor:
    if condition is None or condition.label is None:
        return torch.full_like(time, null, dtype=torch.long)
    return condition.label
