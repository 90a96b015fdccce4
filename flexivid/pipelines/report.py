"""Check that ``flexify`` leaves native outputs alone, and report what the modes of a transformer cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from flexivid.budget.cost import human
from flexivid.patching.shapes import PatchMode, num_tokens
from flexivid.pipelines.plan import costs_of, least_budget
from flexivid.pretrained.families.family import config_of
from flexivid.pretrained.families.registry import family_of
from flexivid.pretrained.flexify import NATIVE, adapter_parameters, blocks_of, flexi_of, flexify, set_mode
from flexivid.pretrained.signature import Size, first_output, random_call, signature_of
from flexivid.pretrained.weak_modes.affine import compute_dtype

TRAINING_BYTES = 4 * (1 + 1 + 2 + 1)  # of a new parameter: itself, its gradient, Adam's two moments, its average


@torch.no_grad()
def flexify_and_compare(model: nn.Module, modes: Sequence[str | PatchMode], **settings: Any) -> float:
    """Flexify a transformer; return the largest difference of native outputs before it and after use of each mode.

    0 is the only right answer.
    """
    sizes = _sizes(model)  # refuses models of no family
    calls = [random_call(model, size, batch=number + 1, seed=number) for number, size in enumerate(sizes)]

    def outputs() -> list[torch.Tensor]:
        return [first_output(model, call) for call in calls]

    before, largest = outputs(), 0.0
    flexify(model, modes, **settings)
    for mode in flexi_of(model).modes:
        set_mode(model, mode)
        outputs()
        set_mode(model, NATIVE)
        for output, original in zip(outputs(), before, strict=True):
            largest = max(largest, (output - original).abs().max().item())
    return largest


class Needs(NamedTuple):
    """Parameters and memory of a flexified transformer."""

    native: int  # parameters of the original model
    added: int  # new parameters
    inference_bytes: int  # weights, all modes loaded
    training_bytes: int  # the same, with gradients, Adam's moments and averages of the new parameters
    activation_bytes: int  # of a sample in the dearest mode with gradient checkpointing: tokens that enter each block


def needs_of(model: nn.Module, size: Size, text_tokens: int) -> Needs:
    """Count parameters and memory; the model may be on the meta device."""
    flexi, new = flexi_of(model), adapter_parameters(model)
    ours = set(map(id, new))
    native = [parameter for parameter in model.parameters() if id(parameter) not in ours]
    count, added = (sum(parameter.numel() for parameter in part) for part in (native, new))
    weights = sum(parameter.nbytes for parameter in native)
    tokens = max(num_tokens(size, PatchMode(mode)) for mode in flexi.modes) + text_tokens
    activations = len(blocks_of(model)) * tokens * flexi.family.width(config_of(model)) * compute_dtype(model).itemsize
    return Needs(count, added, weights + 4 * added, weights + TRAINING_BYTES * added, activations)


def report(model: nn.Module, size: Size | None = None, *, text_tokens: int = 512) -> list[str]:
    """Lines to print of a flexified model: parameters, cost of each mode, least budget, memory.

    The latent size is the usual one of its class, unless another is named.
    """
    flexi, size = flexi_of(model), size or signature_of(model).usual_size(config_of(model))
    costs, needs = costs_of(model, size, text_tokens), needs_of(model, size, text_tokens)
    native = flexi.family.patch(config_of(model))
    passing = ", detail passed on" if flexi.detail else ""
    lines = [
        f"{type(model).__name__}: {needs.native / 1e6:.4g} M parameters, native mode {native}",
        f"added: {needs.added / 1e6:.2f} M parameters ({needs.added / needs.native:.2%}), rank {flexi.rank}{passing}",
        f"latent {'x'.join(map(str, size))}, text of {text_tokens}:",
    ]
    for name, cost in costs.items():
        tokens = num_tokens(size, native if name == NATIVE else PatchMode(name))
        lines.append(f"  {name:<8} {tokens:>7} tokens  {human(cost):>11} a call  {cost / costs[NATIVE]:.3f} of native")
    cheapest = min(costs, key=lambda name: costs[name])
    lines.append(f"least budget {least_budget(costs)} (every step in {cheapest})")
    lines.append(
        f"memory: {needs.inference_bytes / 1e9:.2f} GB of weights; training {needs.training_bytes / 1e9:.2f} GB and"
        f" about {needs.activation_bytes / 1e9:.2f} GB a sample with gradient checkpointing"
    )
    return lines


def _sizes(model: nn.Module) -> list[Size]:
    """Small sizes that the native patch divides, or the only one that the model takes."""
    signature, config = signature_of(model), config_of(model)
    if signature.has_one_size(config):
        return [signature.usual_size(config)]
    patch = family_of(type(model).__name__).patch(config)
    return [(patch.t * t, patch.h * h, patch.w * w) for t, h, w in ((1, 4, 4), (3, 3, 5))]
