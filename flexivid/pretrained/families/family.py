"""What a family of transformers must say about itself to get weak modes. Plain data; no family is named here.

A family file says where the model embeds and de-embeds tokens, where positions enter, which linears take LoRA, how a
latent goes in and out of ``forward``, and what a pass costs. Everything else is the same for all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.folding import fold, growth_of, unfold

Config = Mapping[str, Any]


def config_of(model: nn.Module) -> Config:
    """The configuration of a transformer, by name."""
    config: Any = model.config
    return config if isinstance(config, Mapping) else config.to_dict()


def argument_names(model: nn.Module) -> list[str]:
    """Of a model's ``forward``, in order."""
    kind: Any = type(model)
    return _argument_names(kind)


@functools.cache
def _argument_names(kind: Any) -> list[str]:
    return list(inspect.signature(kind.forward).parameters)[1:]


def named_call(names: list[str], args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name.

    Example:
        >>> named_call(["x", "time", "text"], (1, 2), {"text": 3})
        {'x': 1, 'time': 2, 'text': 3}
    """
    return dict(zip(names, args, strict=False)) | kwargs


class Work(NamedTuple):
    """Matrix products of one shape, for one sample: ``times`` x (rows, inputs) @ (inputs, outputs).

    ``adapted``: the products of a linear that carries LoRA in weak modes.

    Example:
        >>> Work(2, rows=10, inputs=4, outputs=8).macs(rank=1), Work(2, 10, 4, 8, adapted=True).macs(rank=1)
        (640, 880)
    """

    times: int
    rows: int
    inputs: int
    outputs: int
    adapted: bool = False

    def macs(self, rank: int) -> int:
        """Multiply-accumulates, those of the LoRA of ``rank`` included."""
        lora = rank * (self.inputs + self.outputs) if self.adapted else 0
        return self.times * self.rows * (self.inputs * self.outputs + lora)


class Fold(NamedTuple):
    """A weak mode as the model sees it: ``growth`` cells folded, then cut by the ``native`` patch."""

    growth: Size3
    native: PatchMode


def fold_cells(latent: Tensor, how: Fold) -> tuple[Tensor, Size3]:
    """A latent (b, c, t, h, w) folded, and its size (t, h, w)."""
    return fold(latent, how.growth, how.native), Size3(*latent.shape[2:])


def fold_latent(call: dict[str, Any], how: Fold) -> Size3:
    """Fold ``hidden_states`` (b, c, t, h, w) of a call in place; returns its size (t, h, w)."""
    call["hidden_states"], size = fold_cells(call["hidden_states"], how)
    return size


def unfold_latent(sample: Tensor, how: Fold, size: Size3) -> Tensor:
    """Bring an output (b, c gt gh gw, t', h', w') back to (b, c, t, h, w)."""
    return unfold(sample, how.growth, size)


def no_positions(model: nn.Module, how: Fold) -> dict[str, nn.Module]:
    """For families whose positions arrive as arguments of the call."""
    return {}


def latent_channels(config: Config) -> tuple[int, int]:
    """Channels (in, out), as most classes name them: no ``out_channels`` means as many as come in."""
    return config["in_channels"], config["out_channels"] or config["in_channels"]


@dataclass(frozen=True)
class Family:
    """One class of transformers.

    Attributes:
        class_name: Name of the class.
        patch: Native patch, from the configuration.
        width: Token width d, from the configuration.
        embed: Path of the layer that embeds patches: a convolution, or a linear with features (c, pt, ph, pw).
        unembed: Path of the linear that makes patches of tokens.
        output_order: Order of its output features, an einops pattern of ``c pt ph pw``.
        lora: Regular expression of the paths of linears that take LoRA: self-attention and feed-forward.
        work: (config, grid of tokens, text tokens) -> all matrix products but those of patches.
        channels: Channels (in, out) of the latent, from the configuration.
        axes: Axes along which weak modes may grow, from the configuration: some of ``thw``.
        square: Whether weak modes must grow rows and columns alike.
        refuse: Raises ValueError for a mode that models of a configuration cannot take, for reasons of their own.
        patch_layers: Model -> native patch layers as a convolution or linear, where those at the paths are neither.
        answers: (embedding, de-embedding, fold) -> what answers at the paths, where a class calls them otherwise.
        positions: (model, fold) -> modules that answer in the place of native ones in a weak mode, by path.
        fold_call: Folds the arguments of a call in place; returns the size of the latent.
        unfold_output: (output, fold, size) -> output of the native size.
        time_of: Folded call -> its times, 0 to 1000 as in diffusers.
    """

    class_name: str
    patch: Callable[[Config], PatchMode]
    width: Callable[[Config], int]
    embed: str
    unembed: str
    output_order: str
    lora: str
    work: Callable[[Config, Size3, int], list[Work]]
    channels: Callable[[Config], tuple[int, int]] = latent_channels
    axes: Callable[[Config], str] = lambda config: "thw"
    square: bool = False
    refuse: Callable[[Config, PatchMode], None] = lambda config, mode: None
    patch_layers: Callable[[nn.Module], tuple[nn.Module, nn.Module]] | None = None
    answers: Callable[[Any, Any, Fold], tuple[nn.Module, nn.Module]] = lambda embed, unembed, how: (embed, unembed)
    positions: Callable[[nn.Module, Fold], dict[str, nn.Module]] = no_positions
    fold_call: Callable[[dict[str, Any], Fold], Size3] = fold_latent
    unfold_output: Callable[[Tensor, Fold, Size3], Tensor] = unfold_latent
    time_of: Callable[[dict[str, Any]], Tensor | None] = lambda call: call.get("timestep")

    def growth(self, config: Config, mode: PatchMode) -> Size3:
        """How many native patches a mode covers along each axis.

        Raises:
            ValueError: If models of this configuration cannot take the mode.
        """
        native, axes = self.patch(config), self.axes(config)
        self.refuse(config, mode)
        growth = growth_of(mode, native)
        if any(factor > 1 and axis not in axes for axis, factor in zip("thw", growth, strict=True)):
            raise ValueError(
                f"got mode {mode} for {self.class_name}; expected one larger along {' '.join(axes)} only with this"
                f" configuration; keep the native side elsewhere ({native})"
            )
        if self.square and growth.h != growth.w:
            raise ValueError(
                f"got mode {mode} for {self.class_name}; expected as many rows as columns, since the class puts square"
                f" images together only; pass for example {native.t}x{2 * native.h}x{2 * native.w}"
            )
        return growth
