"""Check that ``flexify`` leaves native outputs alone, and report what the modes of a transformer cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from flexivid.budget.cost import human
from flexivid.patching.shapes import PatchMode, num_tokens
from flexivid.pipelines.plan import costs_of, least_budget
from flexivid.pretrained.families.family import config_of
from flexivid.pretrained.families.registry import family_of
from flexivid.pretrained.flexify import NATIVE, adapter_parameters, blocks_of, flexi_of, flexify, set_mode
from flexivid.pretrained.signature import Size, first_output, random_call, signature_of, usual_size
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


def needs_of(model: nn.Module, size: Size, text_tokens: int) -> dict[str, int]:
    """Count the parameters of a flexified transformer, and bytes of memory; it may be on the meta device."""
    flexi, new = flexi_of(model), adapter_parameters(model)
    ours = set(map(id, new))
    native = [parameter for parameter in model.parameters() if id(parameter) not in ours]
    count, added = (sum(parameter.numel() for parameter in part) for part in (native, new))
    weights = sum(parameter.nbytes for parameter in native)
    tokens = max(num_tokens(size, PatchMode(mode)) for mode in flexi.modes) + text_tokens
    activations = len(blocks_of(model)) * tokens * flexi.family.width(config_of(model)) * compute_dtype(model).itemsize
    return {
        "native": count,
        "added": added,
        "inference_bytes": weights + 4 * added,  # of weights, all modes loaded
        "training_bytes": weights + TRAINING_BYTES * added,
        "activation_bytes": activations,  # of a sample in the dearest mode: tokens that enter each checkpointed block
    }


def summary(model: nn.Module, size: Size, text_tokens: int) -> dict[str, Any]:
    """MACs of a call by mode, the least budget, and what ``needs_of`` counts."""
    costs = costs_of(model, size, text_tokens)
    return {"macs": costs, "least_budget": least_budget(costs), **needs_of(model, size, text_tokens)}


def report(model: nn.Module, size: Size | None = None, *, text_tokens: int = 512) -> list[str]:
    """Lines to print of a flexified model: parameters, cost of each mode, least budget, memory."""
    size = size or usual_size(model)
    flexi, needs = flexi_of(model), summary(model, size, text_tokens)
    costs, native = needs["macs"], flexi.family.patch(config_of(model))
    passing = ", detail passed on" if flexi.detail else ""
    lines = [
        f"{type(model).__name__}: {needs['native'] / 1e6:.4g} M parameters, native mode {native}",
        f"added: {needs['added'] / 1e6:.2f} M parameters ({needs['added'] / needs['native']:.2%}), rank"
        f" {flexi.rank}{passing}",
        f"latent {'x'.join(map(str, size))}, text of {text_tokens}:",
    ]
    for name, cost in costs.items():
        tokens = num_tokens(size, native if name == NATIVE else PatchMode(name))
        lines.append(f"  {name:<8} {tokens:>7} tokens  {human(cost):>11} a call  {cost / costs[NATIVE]:.3f} of native")
    cheapest = min(costs, key=lambda name: costs[name])
    weights, training, activations = (needs[f"{kind}_bytes"] / 1e9 for kind in ("inference", "training", "activation"))
    return [
        *lines,
        f"least budget {needs['least_budget']} (every step in {cheapest})",
        f"memory: {weights:.2f} GB of weights; training {training:.2f} GB and about {activations:.2f} GB a sample with"
        " gradient checkpointing",
    ]


def _sizes(model: nn.Module) -> list[Size]:
    """Small sizes that the native patch divides, or the only one that the model takes."""
    signature, config = signature_of(model), config_of(model)
    if signature.has_one_size(config):
        return [signature.usual_size(config)]
    patch = family_of(type(model).__name__).patch(config)
    return [(patch.t * t, patch.h * h, patch.w * w) for t, h, w in ((1, 4, 4), (3, 3, 5))]
