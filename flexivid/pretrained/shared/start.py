"""A training that starts from weights: which network it trains, and what of the weights fits it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.load import load_transformer
from flexivid.pretrained.more_modes import grown_weights, with_modes
from flexivid.pretrained.shared.convert import load_shared, shape_of, without_variance


def fitted_shape(weights: FlexiDiTConfig, asked: FlexiDiTConfig) -> FlexiDiTConfig:
    """The network to train: that of the weights, with the modes, the classes and the given frames that are asked for.

    Width, depth and other traits in ``asked`` do not count. ``ValueError`` if channels or texts differ, or a mode of
    the weights is missing.

    Example:
        >>> weights = FlexiDiTConfig(width=64, modes=("1x2x2",))
        >>> shape = fitted_shape(weights, FlexiDiTConfig(modes=("1x2x2", "1x4x4"), num_classes=3))
        >>> shape.width, shape.modes[1], shape.num_classes
        (64, PatchMode('1x4x4'), 3)
    """
    for name, part in (("in_channels", "channels of latents"), ("text_channels", "features of text (0 = none)")):
        expected, got = getattr(weights, name), getattr(asked, name)
        if got != expected:
            raise ValueError(
                f"got data with {got} {part}; expected {expected}, as the weights of model.init_from take them; encode"
                " the data with the codec and the text encoder of these weights"
            )
    modes: tuple[PatchMode, ...] = asked.modes  # type: ignore[assignment]
    missing = [mode for mode in weights.modes if mode not in modes]
    if missing or modes[0] != weights.native:
        raise ValueError(
            f"got model.network.modes {', '.join(map(str, modes))}; expected {weights.native} first, and all modes of"
            f" the weights ({', '.join(map(str, weights.modes))}); change model.network.modes"
        )
    return replace(
        with_modes(without_variance(weights), modes),
        num_classes=asked.num_classes,
        given_frames=weights.given_frames or asked.given_frames,
        gradient_checkpointing=asked.gradient_checkpointing,
        attention_backend=asked.attention_backend,
    )


def shape_from(source: str | Path, asked: FlexiDiTConfig) -> FlexiDiTConfig:
    """As :func:`fitted_shape`, for weights that are not read."""
    model = load_transformer(source, empty=True)
    return fitted_shape(model.config if isinstance(model, FlexiDiT) else shape_of(model), asked)


def network_from(source: str | Path, asked: FlexiDiTConfig, process: tuple[str, str]) -> FlexiDiT:
    """A network that starts with the weights of ``source``, see ``load_shared``.

    Without given frames it computes what they do. Where it has another number of classes, each starts as the null
    class. Its recipe is theirs. ``process`` is the path and target of the training; ``ValueError`` if the weights are
    of another, or do not fit (:func:`fitted_shape`).

    Example:
        >>> from flexivid.model.shipped import locate
        >>> folder = locate("moving_digits")
        >>> network_from(folder, load_shared(folder).config, ("flow", "x0")).num_parameters
        7759872
    """
    model = load_shared(source)
    if tuple(model.recipe.process) != tuple(process):
        ours, theirs = ("path {}, target {}".format(*each) for each in (process, model.recipe.process))
        raise ValueError(
            f"got model.objective with {ours}; expected {theirs}, the process of the weights {source}; set"
            " model.objective.path and model.objective.target"
        )
    shape = fitted_shape(model.config, asked)
    values = grown_weights(model.state_dict(), model.config, shape)
    with torch.device("meta"):
        expected_weights = FlexiDiT(shape).state_dict()
    for name, value in expected_weights.items():
        if name.endswith("label.weight") and value.shape != values[name].shape:
            values[name] = values[name][-1:].expand_as(value)
        elif name == "embed.weight":
            more = value.shape[1] - values[name].shape[1]
            values[name] = torch.cat((values[name], values[name].new_zeros(value[:, :more].shape)), dim=1)
    network = FlexiDiT.holding(shape, values)
    network.recipe = model.recipe
    return network
