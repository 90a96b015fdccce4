"""Our own ``FlexiDiT``: adapters add modes that it was not trained with.

A FlexiDiT has weak modes in its own weights, trained with it. Those of ``flexify`` come on top: their patch layers
start from the native mode, and every mode that the model had gives the same bits as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flexivid.budget.cost import TIME_FEATURES
from flexivid.model.conditioning import Condition, check_labels
from flexivid.patching.embed import patchify, unpatchify
from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Signature, Work, config_of
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.families.positions import PositionModule, native_centres


class FoldedEmbed(nn.Module):
    """Embedding of a folded latent, in the place of ``FlexiPatchEmbed``."""

    def __init__(self, embedding: nn.Module, in_channels: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.in_channels = in_channels

    def forward(self, latent: Tensor, native: PatchMode) -> Tensor:
        """(b, c gt gh gw, t', h', w') -> tokens (b, n, d)."""
        return self.embedding(patchify(latent, native))


class FoldedOutput(nn.Module):
    """De-embedding into a folded latent, in the place of ``FlexiPatchOutput``."""

    def __init__(self, unembedding: nn.Module) -> None:
        super().__init__()
        self.unembedding = unembedding

    def forward(self, tokens: Tensor, native: PatchMode, size: Size3) -> Tensor:
        """Tokens (b, n, d) -> (b, c gt gh gw, t', h', w')."""
        return unpatchify(self.unembedding(tokens), native, size)


class WeakPositions(PositionModule):
    """The tables of ``Positions`` at the centres of weak patches."""

    def forward(self, size: Size3, patch: PatchMode, like: Tensor) -> Any:
        """What blocks need, and the table to add to the tokens (n, d), for the size of the folded latent."""
        grid, growth = grid_of(size, patch), self.fold.growth
        native_grid = Size3(*(side * factor for side, factor in zip(grid, growth, strict=True)))
        return self.native.tables(native_centres(grid, growth, like.device), grid, native_grid, like)


def _native(config: Config) -> PatchMode:
    return PatchMode(config["modes"][0])


def _refuse(config: Config, mode: PatchMode) -> None:
    if config.get("output_conv"):
        raise ValueError(
            f"got mode {mode} for a FlexiDiT with output_conv, which cannot see a folded latent; expected one without;"
            " train the network with the modes you want"
        )
    if config.get("text_channels") or config.get("given_frames"):
        raise ValueError(
            f"got mode {mode} for a FlexiDiT with text or given frames; expected one with classes at most; train the"
            " network with the modes you want"
        )
    if mode in [PatchMode(trained) for trained in config["modes"][1:]]:
        raise ValueError(
            f"got mode {mode} for a FlexiDiT that was trained with it; expected another; leave it out, and call the"
            f' model with mode="{mode}"'
        )


def _native_layers(model: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    """The native mode's patch layers, resized from the underlying kernels, as linears of features (c, pt, ph, pw)."""
    native = _native(config_of(model))
    embed: Any = model.get_submodule("embed")
    out: Any = model.get_submodule("out")
    weight, (out_weight, out_bias) = embed.kernel(native), out.kernel(native)
    return _linear(weight.flatten(1), embed.bias), _linear(out_weight.flatten(1).T, out_bias.flatten())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, *weight.shape[::-1], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _fold_inputs(call: dict[str, Any], fold: Fold, size: Size3) -> None:
    mode = call.get("mode")
    if mode is not None and str(mode) not in ("native", str(fold.native)):
        raise ValueError(
            f"got mode {mode} while a mode of flexify is set; expected none; call set_mode(model, 'native') first"
        )


def _class_inputs(config: Config, labels: Tensor) -> dict[str, Any]:
    null = config["num_classes"]
    if not null:
        return {"condition": None}
    labels = torch.where(labels < 0, null, labels)
    check_labels(labels, null)
    return {"condition": Condition(labels)}


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, config["width"], config["depth"]
    hidden = int(d * config["mlp_ratio"])
    work = [
        Work(depth if config.get("block_conditioning") else 1, 1, TIME_FEATURES + d, d),
        Work(1, 1, d, 6 * d if config.get("modulation") == "single" else (6 * depth + 2) * d),
        Work(depth * 4, n, d, d, adapted=True),  # q k v out
        Work(depth * 2, n, d, hidden, adapted=True),
    ]
    if config["attention"] == "joint":
        return [*work, Work(depth * 2, n, d, n)]  # scores, weighted sums
    spatial, temporal = (depth + 1) // 2, depth // 2
    return [*work, Work(spatial * 2, n, d, grid.h * grid.w), Work(temporal * 2, n, d, grid.t)]


FLEXIDIT = Family(
    class_name="FlexiDiT",
    signature=Signature(
        lambda config, text: {},
        latent="x",
        time="time",
        noise_time=1.0,
        add_noise=lambda model, latent, noise, time: model.recipe.process.add_noise(latent, noise, time),
        class_inputs=_class_inputs,
        process=lambda model: model.recipe.process,
        usual_size=lambda config: (8, 32, 32),
    ),
    patch=_native,
    width=lambda config: config["width"],
    embed="embed",
    unembed="out",
    output_order="c pt ph pw",
    lora=r"blocks\.\d+\.(attention\.(q|k|v|out)|mlp_in|mlp_out)",
    work=_work,
    refuse=_refuse,
    native_layers=_native_layers,
    wrap_layers=lambda embed, unembed, fold: (
        FoldedEmbed(embed, embed.layer.in_features // fold.native.volume),
        FoldedOutput(unembed),
    ),
    positions=lambda model, fold: {"positions": WeakPositions(model.get_submodule("positions"), fold)},
    fold_inputs=_fold_inputs,
)
