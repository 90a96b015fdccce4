"""The description of a family of transformers: where its layers are, how it is called, what a pass costs.

A family file says where the model embeds and de-embeds tokens, where positions enter, which linears take LoRA, how a
latent goes in and out of ``forward``, and what a pass costs. Everything else is the same for all. Plain data; no
family is named here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.folding import Fold

Config = Mapping[str, Any]
TRAIN_TIMES = 1000.0  # the timestep of pure noise in diffusers
ATTENTION_AND_FEED_FORWARD = r"attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)"  # as diffusers names them


def config_of(model: nn.Module) -> Config:
    """Return the configuration of a transformer, by name."""
    config: Any = model.config
    return config if isinstance(config, Mapping) else config.to_dict()


def named_call(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of a model's ``forward`` by name, in a new dictionary."""
    kind: Any = type(model)
    return dict(zip(_argument_names(kind), args, strict=False)) | kwargs


@functools.cache
def _argument_names(kind: Any) -> list[str]:
    return list(inspect.signature(kind.forward).parameters)[1:]


class Work(NamedTuple):
    """Matrix products of one shape, for one sample: ``times`` x (rows, inputs) @ (inputs, outputs)."""

    times: int
    rows: int
    inputs: int
    outputs: int
    adapted: bool = False  # by a linear that carries LoRA in weak modes

    def macs(self, rank: int) -> int:
        """Multiply-accumulates, those of the LoRA of ``rank`` included."""
        lora = rank * (self.inputs + self.outputs) if self.adapted else 0
        return self.times * self.rows * (self.inputs * self.outputs + lora)


class Signature(NamedTuple):
    """How a class is called: for random calls, and for training where noise can be added without a pipeline."""

    # (config, text length) -> shapes of the inputs beside the latent, without the batch. A shape may start with a word:
    # ("ones", l) is filled with integer ones, ("label", n) is one class below n, ("constant", x) is the number x.
    inputs: Callable[[Config, int], dict[str, tuple]]
    constants: Callable[[Config, Size3], dict[str, Any]] = lambda config, size: {}  # the same for all samples
    joined: tuple[str, ...] = ()  # constants that the model appends to the latent as channels, and that have its dtype
    pack: Callable[[Tensor], Tensor] = lambda latent: latent  # (b, c, t, h, w) -> the layout of the class
    unpack: Callable[[Tensor, Mapping[str, Any]], Tensor] = lambda packed, call: packed  # -> (b, c, t, h, w)
    latent: str = "hidden_states"  # name of its argument; likewise time
    time: str = "timestep"
    noise_time: float = TRAIN_TIMES  # time of pure noise
    is_flow: bool = False  # a rectified flow: x = (1 - time) latent + time noise, predicting noise - latent
    process: Callable[[Any], tuple[str, str] | None] = lambda model: None  # path and target, where it is no flow
    # (model, latent, noise, time in [0, 1]) -> noisy latent, where it is no rectified flow and noise can be added all
    # the same; None = calls have to be recorded
    add_noise: Callable[[Any, Tensor, Tensor, Tensor], Tensor] | None = None
    # (config, labels) -> arguments for classes; a label below 0 is none. None = no classes in training
    class_inputs: Callable[[Config, Tensor], dict[str, Any]] | None = None
    usual_size: Callable[[Config], tuple[int, int, int]] = lambda config: (21, 60, 104)  # latent size (t, h, w)
    has_one_size: Callable[[Config], bool] = lambda config: False  # since positions were learned for it


def heads_width(config: Config) -> int:
    """Return the token width d of a class of diffusers."""
    return config["num_attention_heads"] * config["attention_head_dim"]


@dataclass(frozen=True)
class Family:
    """One class of transformers."""

    class_name: str
    signature: Signature
    patch: Callable[[Config], PatchMode]  # the native one
    embed: str  # path of the layer that embeds patches: a convolution, or a linear with features (c, pt, ph, pw)
    unembed: str  # path of the linear that makes patches of tokens
    output_order: str  # of its output features, an einops pattern of "c pt ph pw"
    work: Callable[[Config, Size3, int], list[Work]]  # by grid and text tokens: all products but those of patches
    width: Callable[[Config], int] = heads_width  # of tokens, d
    # regular expression of the paths of linears that take LoRA: self-attention and feed-forward
    lora: str = rf"transformer_blocks\.\d+\.({ATTENTION_AND_FEED_FORWARD})"
    channels: Callable[[Config], tuple[int, int]] = lambda config: (  # of the latent, in and out
        config["in_channels"],
        config["out_channels"] or config["in_channels"],
    )
    axes: Callable[[Config], str] = lambda config: "thw"  # along which weak modes may grow
    square: bool = False  # whether weak modes must grow rows and columns alike
    refuse: Callable[[Config, PatchMode], None] = lambda config, mode: None  # modes, for reasons of the class's own
    # native patch layers as a convolution or linear, where those at the paths are neither
    native_layers: Callable[[nn.Module], tuple[nn.Module, nn.Module]] | None = None
    # new patch layers for a class that does not call them as plain modules
    wrap_layers: Callable[[Any, Any, Fold], tuple[nn.Module, nn.Module]] = lambda embed, unembed, fold: (embed, unembed)
    # modules that answer in the place of native ones in a weak mode, by path
    positions: Callable[[nn.Module, Fold], dict[str, nn.Module]] = lambda model, fold: {}
    # folds in place what else in a call is per cell or per native token: masks, times, tables; the latent is folded
    fold_inputs: Callable[[dict[str, Any], Fold, Size3], None] = lambda call, fold, size: None
    # (output, fold, latent size) -> folded latent (b, c gt gh gw, t', h', w')
    unpack_output: Callable[[Tensor, Fold, Size3], Tensor] = lambda output, fold, size: output

    def fold_call(self, call: dict[str, Any], fold: Fold) -> Size3:
        """Fold the arguments of a call in place; return the size (t, h, w) of the latent."""
        latent = self.signature.unpack(call[self.signature.latent], call)  # b c t h w
        size = Size3(*latent.shape[2:])
        call[self.signature.latent] = self.signature.pack(fold.apply(latent))
        self.fold_inputs(call, fold, size)
        return size

    def unfold_output(self, output: Tensor, fold: Fold, size: Size3) -> Tensor:
        """Bring the output of a folded call to the layout and ``size`` of a native one."""
        return self.signature.pack(fold.undo(self.unpack_output(output, fold, size), size))

    def fold_of(self, config: Config, mode: PatchMode) -> Fold:
        """Return what a mode folds; ``ValueError`` if models of this configuration cannot take the mode."""
        native, axes = self.patch(config), self.axes(config)
        self.refuse(config, mode)
        fold = Fold.between(mode, native)
        if any(factor > 1 and axis not in axes for axis, factor in zip("thw", fold.growth, strict=True)):
            raise ValueError(
                f"got mode {mode} for {self.class_name}; expected one larger along {' '.join(axes)} only with this"
                f" configuration; keep the native side elsewhere ({native})"
            )
        if self.square and fold.growth.h != fold.growth.w:
            raise ValueError(
                f"got mode {mode} for {self.class_name}; expected as many rows as columns, since the class puts square"
                f" images together only; pass for example {native.t}x{2 * native.h}x{2 * native.w}"
            )
        return fold
