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
    """Return the arguments of a call of a model's ``forward`` by name, in a new dictionary.

    Example:
        >>> named_call(nn.Linear(2, 2), (1,), {})
        {'input': 1}
    """
    kind: Any = type(model)
    return dict(zip(_argument_names(kind), args, strict=False)) | kwargs


@functools.cache
def _argument_names(kind: Any) -> list[str]:
    return list(inspect.signature(kind.forward).parameters)[1:]


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


class Signature(NamedTuple):
    """How a class is called: for random calls, and for training where noise can be added without a pipeline.

    Args:
        inputs: (configuration, text length) -> shapes of the inputs beside the latent, without the batch. A shape may
            start with a word: ``("ones", l)`` is filled with integer ones, ``("label", n)`` is one class below n,
            ``("constant", x)`` is the number x.
        constants: (configuration, latent size) -> arguments that are the same for all samples.
        joined: Those constants that the model appends to the latent as channels, and that have its dtype.
        pack: Latent (b, c, t, h, w) -> the layout that the class takes and returns.
        unpack: (packed latent, call) -> latent (b, c, t, h, w).
        latent: Name of the argument that is the latent.
        time: Name of the argument that is the time.
        noise_time: Time of pure noise.
        is_flow: Whether the model is a rectified flow: x = (1 - time) latent + time noise, predicting noise - latent.
        add_noise: (model, latent, noise, time in [0, 1]) -> noisy latent, where it is no rectified flow and noise can
            be added all the same; ``None`` = calls have to be recorded.
        class_inputs: (configuration, labels) -> arguments for classes; a label below 0 is none. ``None`` = no classes
            in training.
        usual_size: Configuration -> latent size (t, h, w) that such models are mostly used at.
        has_one_size: Configuration -> whether that is the only size, since positions were learned for it.
    """

    inputs: Callable[[Config, int], dict[str, tuple]]
    constants: Callable[[Config, Size3], dict[str, Any]] = lambda config, size: {}
    joined: tuple[str, ...] = ()
    pack: Callable[[Tensor], Tensor] = lambda latent: latent
    unpack: Callable[[Tensor, Mapping[str, Any]], Tensor] = lambda packed, call: packed
    latent: str = "hidden_states"
    time: str = "timestep"
    noise_time: float = TRAIN_TIMES
    is_flow: bool = False
    add_noise: Callable[[Any, Tensor, Tensor, Tensor], Tensor] | None = None
    class_inputs: Callable[[Config, Tensor], dict[str, Any]] | None = None
    usual_size: Callable[[Config], tuple[int, int, int]] = lambda config: (21, 60, 104)
    has_one_size: Callable[[Config], bool] = lambda config: False


def heads_width(config: Config) -> int:
    """Return the token width d of a class of diffusers."""
    return config["num_attention_heads"] * config["attention_head_dim"]


@dataclass(frozen=True)
class Family:
    """One class of transformers.

    Attributes:
        class_name: Name of the class.
        signature: How it is called.
        patch: Native patch, from the configuration.
        embed: Path of the layer that embeds patches: a convolution, or a linear with features (c, pt, ph, pw).
        unembed: Path of the linear that makes patches of tokens.
        output_order: Order of its output features, an einops pattern of ``c pt ph pw``.
        work: (config, grid of tokens, text tokens) -> all matrix products but those of patches.
        width: Token width d, from the configuration.
        lora: Regular expression of the paths of linears that take LoRA: self-attention and feed-forward.
        channels: Channels (in, out) of the latent, from the configuration.
        axes: Axes along which weak modes may grow, from the configuration: some of ``thw``.
        square: Whether weak modes must grow rows and columns alike.
        refuse: Raises ValueError for a mode that models of a configuration cannot take, for reasons of their own.
        native_layers: Model -> native patch layers as a convolution or linear, where those at the paths are neither.
        wrap_layers: (embedding, de-embedding, fold) -> new patch layers for a class that does not call them as plain
            modules.
        positions: (model, fold) -> modules that answer in the place of native ones in a weak mode, by path.
        fold_inputs: (call, fold, latent size) -> nothing; folds in place what else in a call is per cell or per native
            token: masks, times, tables of positions. The latent is folded already.
        unpack_output: (output, fold, latent size) -> folded latent (b, c gt gh gw, t', h', w').
    """

    class_name: str
    signature: Signature
    patch: Callable[[Config], PatchMode]
    embed: str
    unembed: str
    output_order: str
    work: Callable[[Config, Size3, int], list[Work]]
    width: Callable[[Config], int] = heads_width
    lora: str = rf"transformer_blocks\.\d+\.({ATTENTION_AND_FEED_FORWARD})"
    channels: Callable[[Config], tuple[int, int]] = lambda config: (
        config["in_channels"],
        config["out_channels"] or config["in_channels"],
    )
    axes: Callable[[Config], str] = lambda config: "thw"
    square: bool = False
    refuse: Callable[[Config, PatchMode], None] = lambda config, mode: None
    native_layers: Callable[[nn.Module], tuple[nn.Module, nn.Module]] | None = None
    wrap_layers: Callable[[Any, Any, Fold], tuple[nn.Module, nn.Module]] = lambda embed, unembed, fold: (embed, unembed)
    positions: Callable[[nn.Module, Fold], dict[str, nn.Module]] = lambda model, fold: {}
    fold_inputs: Callable[[dict[str, Any], Fold, Size3], None] = lambda call, fold, size: None
    unpack_output: Callable[[Tensor, Fold, Size3], Tensor] = lambda output, fold, size: output

    def fold_call(self, call: dict[str, Any], fold: Fold) -> Size3:
        """Fold a call in place.

        Args:
            call: Arguments by name.
            fold: Of the weak mode.

        Returns:
            The size (t, h, w) of the latent.
        """
        latent = self.signature.unpack(call[self.signature.latent], call)  # b c t h w
        size = Size3(*latent.shape[2:])
        call[self.signature.latent] = self.signature.pack(fold.apply(latent))
        self.fold_inputs(call, fold, size)
        return size

    def unfold_output(self, output: Tensor, fold: Fold, size: Size3) -> Tensor:
        """Bring the output of a folded call to the layout and ``size`` of a native one."""
        return self.signature.pack(fold.undo(self.unpack_output(output, fold, size), size))

    def fold_of(self, config: Config, mode: PatchMode) -> Fold:
        """Return what a mode folds.

        Raises:
            ValueError: If models of this configuration cannot take the mode.
        """
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
