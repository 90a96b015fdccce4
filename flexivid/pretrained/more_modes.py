"""A FlexiDiT gains patch modes: its kernels grow, and what it computes in the modes it has stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.resize import embedding_dual, output_dual, pi_resize
from flexivid.patching.shapes import PatchMode, underlying_patch

Dual = Callable[[int, int], Tensor]


def add_modes(model: FlexiDiT, modes: Iterable[str | PatchMode]) -> FlexiDiT:
    """A new model with more modes, before any training in them; each starts with the native mode's vectors.

    ``w_flex = Q(p_pre)^+ w_pre`` (2502.20126, sec. 3.1), for several old modes at once. Modes that the model has
    already are passed over. ``ValueError`` if no kernel of the new size can keep what the model computes.

    Example:
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2",)))
        >>> add_modes(model, ["1x4x4"]).config.modes
        (PatchMode('1x2x2'), PatchMode('1x4x4'))
    """
    config = with_modes(model.config, modes)
    if config == model.config:
        return model
    copies = {name: value.clone() for name, value in model.state_dict().items()}
    larger = FlexiDiT.holding(config, grown_weights(copies, model.config, config))
    larger.recipe = model.recipe
    return larger.to(model.embed.weight.device, model.embed.weight.dtype).train(model.training)


def grown_weights(weights: Mapping[str, Tensor], old: FlexiDiTConfig, config: FlexiDiTConfig) -> dict[str, Tensor]:
    """Weights for the modes of ``config``, of which ``old`` has the first ones; those that stay are not copied."""
    values = dict(weights)
    if config.modes == old.modes:
        return values
    duals: dict[str, Dual] = {"embed": partial(embedding_dual, resize=config.resize), "out": output_dual}
    maps = {name: _growth(old.modes, config.modes, dual) for name, dual in duals.items()}  # type: ignore[arg-type]
    for name, part in (("embed.weight", "embed"), ("out.weight", "out"), ("out.bias", "out")):
        axes = (each.to(values[name].device) for each in maps[part])
        values[name] = pi_resize(values[name].double(), *axes).to(values[name].dtype)
    for name, value in values.items():
        if name == "mode_embedding" or (name.startswith("conditioning.") and name.endswith(".mode")):
            values[name] = torch.cat((value, value[:1].expand(len(config.modes) - len(value), -1)))
    return values


def with_modes(config: FlexiDiTConfig, modes: Iterable[str | PatchMode]) -> FlexiDiTConfig:
    """The shape with more modes, after those it has."""
    return replace(config, modes=tuple(dict.fromkeys((*config.modes, *map(PatchMode, modes)))))


def _growth(old: tuple[PatchMode, ...], new: tuple[PatchMode, ...], dual: Dual) -> list[Tensor]:
    """Maps from the old underlying kernel to the new one, (new side, old side) an axis, float64."""
    sides = zip(zip(*old, strict=True), underlying_patch(old), underlying_patch(new), strict=True)
    return [_axis_growth(sorted(set(axis)), small, large, dual) for axis, small, large in sides]


def _axis_growth(sides: list[int], small: int, large: int, dual: Dual) -> Tensor:
    """The map nearest to the least kernel whose resizes to all ``sides`` are what they were."""
    if small == large:
        return torch.eye(small, dtype=torch.float64)
    after, before = (torch.cat([dual(side, each) for each in sides]) for side in (large, small))
    least = torch.linalg.pinv(dual(large, small))
    growth = least + torch.linalg.pinv(after) @ (before - after @ least)
    if not torch.allclose(after @ growth, before, atol=1e-8):
        raise ValueError(
            f"got modes whose largest side grows from {small} to {large} beside sides {sides}; expected a side from"
            " which all of these can be kept; add modes of another side"
        )
    return growth
