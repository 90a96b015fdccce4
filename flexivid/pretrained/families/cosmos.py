"""Cosmos 1, Predict 2 and 2.5: ``CosmosTransformer3DModel``. Rotary positions, often learned ones too.

The model appends masks to the latent as channels: one of conditions (video to world), one of padding. Both are folded
as the latent is. Residuals of a ControlNet are one a native token: not in weak modes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.family import Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.folding import Fold, pool_times
from flexivid.pretrained.families.positions import PositionModule


class CosmosPositions(PositionModule):
    """Rotary embeddings of patch centres, in the place of ``CosmosRotaryPosEmbed``."""

    def forward(self, hidden_states: Tensor, fps: int | None = None) -> tuple[Tensor, Tensor]:
        native, angles = self.native, []
        for axis, name in zip(self.centres(hidden_states).unbind(1), "thw", strict=True):
            width, stretch = getattr(native, f"dim_{name}"), getattr(native, f"{name}_ntk_factor")
            powers = torch.arange(0, width, 2, device=axis.device, dtype=torch.float32) / width
            seconds = axis / fps * native.base_fps if name == "t" and fps is not None else axis
            angles.append(torch.outer(seconds, 1.0 / (10000.0 * stretch) ** powers))
        both = torch.cat(angles * 2, dim=1)  # (n, e)
        return both.cos(), both.sin()


class CosmosTable(PositionModule):
    """``CosmosLearnablePositionalEmbed``, interpolated at patch centres; its ends are repeated beyond its size."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(1, n, d); the native one repeats it for the batch."""
        t, h, w = (self._axis(*axis) for axis in zip("thw", self.grid(hidden_states), self.fold.growth, strict=True))
        table = (t[:, None, None] + h[:, None] + w).flatten(0, 2)[None]
        norm = torch.linalg.vector_norm(table, dim=-1, keepdim=True, dtype=torch.float32)
        return (table / (self.native.eps + norm / table.shape[-1] ** 0.5)).type_as(hidden_states)

    def _axis(self, name: str, count: int, growth: int) -> Tensor:
        table = getattr(self.native, f"pos_emb_{name}")[: count * growth].T[None]  # (1, d, native tokens)
        table = F.pad(table, (0, count * growth - table.shape[2]), mode="replicate")
        return F.interpolate(table, count, mode="linear")[0].T  # at the centre of each weak token


def _refuse(config: Config, mode: PatchMode) -> None:
    if config["img_context_dim_in"]:
        raise ValueError("got Cosmos with image conditions (Transfer); expected Cosmos 1, Predict 2 or 2.5; use one")


def _positions(model: nn.Module, fold: Fold) -> dict[str, nn.Module]:
    positions: dict[str, nn.Module] = {"rope": CosmosPositions(model.get_submodule("rope"), fold)}
    if getattr(model, "learnable_pos_embed", None) is not None:
        positions["learnable_pos_embed"] = CosmosTable(model.get_submodule("learnable_pos_embed"), fold)
    return positions


def _fold_inputs(call: dict[str, Any], fold: Fold, size: Size3) -> None:
    if fold.growth.volume > 1 and call.get("block_controlnet_hidden_states") is not None:
        raise ValueError("got residuals of a ControlNet; expected none in weak modes; use the native mode")
    if call.get("condition_mask") is not None:
        call["condition_mask"] = fold.apply(call["condition_mask"])
    if call.get("padding_mask") is not None:
        mask = F.interpolate(call["padding_mask"], size[1:], mode="nearest").unsqueeze(2)
        call["padding_mask"] = fold.apply(mask)[:, :, 0]
    if call["timestep"].ndim == 5:  # (b, 1, t, 1, 1): a time for each frame
        times = pool_times(call["timestep"].flatten(1), Size3(fold.growth.t, 1, 1), Size3(size.t, 1, 1))
        call["timestep"] = times[:, None, :, None, None]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    """The time is one for the sample, not one a frame."""
    n, d, depth, low = grid.volume, heads_width(config), config["num_layers"], config["adaln_lora_dim"]
    work = [
        Work(1, 1, d, 4 * d),  # time embedding
        Work(depth * 3, 1, 4 * d, low),  # modulation: d -> low -> 3 d
        Work(1, 1, 3 * d, low),  # and of the output: d -> low -> 2 d
        Work(depth * 4, n, d, d, adapted=True),  # self-attention: q k v out
        Work(depth * 2, n, d, n),  # scores, weighted sums
        Work(depth * 2, n, d, d),  # cross-attention: q out
        Work(depth * 2, text, config["text_embed_dim"], d),  # k v
        Work(depth * 2, n, d, text),
        Work(depth * 2, n, d, int(d * config["mlp_ratio"]), adapted=True),
    ]
    if config["use_crossattn_projection"]:
        work.append(Work(1, text, config["crossattn_proj_in_channels"], config["encoder_hidden_states_channels"]))
    return work


COSMOS = Family(
    class_name="CosmosTransformer3DModel",
    signature=Signature(
        lambda config, text: {"encoder_hidden_states": (text, config["text_embed_dim"])},
        lambda config, size: {"fps": 24, "padding_mask": torch.zeros(1, 1, *size[1:])},
        joined=("padding_mask",),
        usual_size=lambda config: (16, 88, 160),
    ),
    patch=lambda config: PatchMode(*config["patch_size"]),
    channels=lambda config: (config["in_channels"] + config["concat_padding_mask"], config["out_channels"]),
    embed="patch_embed.proj",
    unembed="proj_out",
    output_order="ph pw pt c",
    work=_work,
    refuse=_refuse,
    positions=_positions,
    fold_inputs=_fold_inputs,
)
