"""CogVideoX 1.0 and 1.5: ``CogVideoXTransformer3DModel``. Text and video in one sequence; latents are (b, t, c, h, w).

Rotary positions come with the call as tables of the native grid (5B, 1.5): they are turned to patch centres. Sinusoidal
and learned ones are a table added to the tokens (2B, image to video): it is interpolated at patch centres.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_3d_rotary_pos_embed, get_3d_sincos_pos_embed
from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.families.positions import PositionModule, centre_rotary

OFFSET = 2.0  # of image to video 1.5, as the pipeline passes it


class CogVideoXEmbedding(PositionModule):
    """``CogVideoXPatchEmbed`` with its position table interpolated at patch centres."""

    def forward(self, text: Tensor, latent: Tensor) -> Tensor:
        native, (b, _, _, h, w) = self.native, latent.shape
        tokens = native.proj(latent.flatten(0, 1)).flatten(2).transpose(1, 2)  # (b t, h w, d)
        tokens = tokens.reshape(b, -1, tokens.shape[-1])  # (b, n, d)
        grid = Size3(latent.shape[1], h // native.patch_size, w // native.patch_size)
        return torch.cat([native.text_proj(text), tokens + self._table(grid).to(tokens)], dim=1)

    def _table(self, grid: Size3) -> Tensor:
        """(1, n, d)."""
        full = Size3(*(side * factor for side, factor in zip(grid, self.fold.growth, strict=True)))
        cells = self._learned(full) if self.native.use_learned_positional_embeddings else self._sinusoids(full)
        return F.interpolate(cells, tuple(grid), mode="trilinear").flatten(2).transpose(1, 2)

    def _sinusoids(self, full: Size3) -> Tensor:
        """Sinusoids of the native tokens, (1, d, t, h, w)."""
        native = self.native
        table = get_3d_sincos_pos_embed(
            native.embed_dim,
            (full.w, full.h),
            full.t,
            native.spatial_interpolation_scale,
            native.temporal_interpolation_scale,
            device=native.pos_embedding.device,
            output_type="pt",
        )  # (t, h w, d)
        return table.unflatten(1, full[1:]).permute(3, 0, 1, 2)[None].float()

    def _learned(self, full: Size3) -> Tensor:
        """The learned table, (1, d, t, h, w), its ends repeated where the latent is padded."""
        native, side = self.native, self.native.patch_size
        frames = (native.sample_frames - 1) // native.temporal_compression_ratio + 1
        learned = Size3(frames, native.sample_height // side, native.sample_width // side)
        missing = [new - old for new, old in zip(full, learned, strict=True)]
        if any(not 0 <= count < factor for count, factor in zip(missing, self.fold.growth, strict=True)):
            raise ValueError(
                f"got a latent of {full.t} x {full.h} x {full.w} native patches, padding included; expected"
                f" {learned.t} x {learned.h} x {learned.w}, for which this model learned positions; generate at its own"
                " size"
            )
        table = native.pos_embedding[:, native.max_text_seq_length :].transpose(1, 2)
        cells = table.unflatten(2, tuple(learned)).float()
        return F.pad(cells, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")


def _positions(model: nn.Module, fold: Fold) -> dict[str, nn.Module]:
    native: Any = model.get_submodule("patch_embed")
    added = native.use_positional_embeddings or native.use_learned_positional_embeddings
    return {"patch_embed": CogVideoXEmbedding(native, fold)} if added else {}


def _fold_inputs(call: dict[str, Any], fold: Fold, size: Size3) -> None:
    if call.get("image_rotary_emb") is not None:
        call["image_rotary_emb"] = centre_rotary(call["image_rotary_emb"], grid_of(size, fold.native), fold.growth)


def _constants(config: Config, size: Size3) -> dict[str, Any]:
    side, patch_t = config["patch_size"], config["patch_size_t"]
    grid = (size[1] // side, size[2] // side)
    frames = -(-size[0] // (patch_t or 1))
    constants: dict[str, Any] = {"ofs": torch.full((1,), OFFSET)} if config["ofs_embed_dim"] else {}
    if not config["use_rotary_positional_embeddings"]:
        return constants
    kind: dict[str, Any] = {"grid_type": "slice", "max_size": grid} if patch_t else {}
    tables = get_3d_rotary_pos_embed(config["attention_head_dim"], ((0, 0), grid), grid, frames, **kind)
    return constants | {"image_rotary_emb": tables}


def _usual_size(config: Config) -> Size3:
    frames = (config["sample_frames"] - 1) // config["temporal_compression_ratio"] + 1
    patch_t = config["patch_size_t"] or 1
    return Size3(-(-frames // patch_t) * patch_t, config["sample_height"], config["sample_width"])


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, heads_width(config), config["num_layers"]
    time, offset = config["time_embed_dim"], config["ofs_embed_dim"] or 0
    return [
        Work(1, 1, d + time, time),
        Work(2, 1, offset, offset),
        Work(1, text, config["text_embed_dim"], d),
        Work(depth * 2, 1, time, 6 * d),  # modulation
        Work(depth * 4, n + text, d, d, adapted=True),  # q k v out
        Work(depth * 2, n + text, d, n + text),  # scores, weighted sums
        Work(depth * 2, n + text, d, 4 * d, adapted=True),
        Work(1, 1, time, 2 * d),
    ]


COGVIDEOX = Family(
    class_name="CogVideoXTransformer3DModel",
    signature=Signature(
        lambda config, text: {"encoder_hidden_states": (config["max_text_seq_length"], config["text_embed_dim"])},
        _constants,
        pack=lambda latent: latent.transpose(1, 2),
        unpack=lambda packed, call: packed.transpose(1, 2),
        usual_size=_usual_size,
        has_one_size=lambda config: bool(config["use_learned_positional_embeddings"]),
    ),
    patch=lambda config: PatchMode(config["patch_size_t"] or 1, config["patch_size"], config["patch_size"]),
    embed="patch_embed.proj",
    unembed="proj_out",
    output_order="c pt ph pw",
    work=_work,
    positions=_positions,
    fold_inputs=_fold_inputs,
    unpack_output=lambda output, fold, size: output.transpose(1, 2),
)
