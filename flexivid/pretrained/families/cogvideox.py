"""CogVideoX 1.0 and 1.5: ``CogVideoXTransformer3DModel``. Text and video in one sequence; latents are (b, t, c, h, w).

Rotary positions come with the call as tables of the native grid (5B, 1.5): they are turned to patch centres. Sinusoidal
and learned ones are a table added to the tokens (2B, image to video): it is interpolated at patch centres.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Fold, Work
from flexivid.pretrained.families.folding import fold, unfold
from flexivid.pretrained.families.rotary import centre_rotary


class CogVideoXEmbedding(nn.Module):
    """``CogVideoXPatchEmbed`` with its position table interpolated at patch centres."""

    def __init__(self, native: nn.Module, how: Fold) -> None:
        super().__init__()
        self.native: list[Any] = [native]  # in a list: it is registered in the model
        self.how = how

    def forward(self, text: Tensor, latent: Tensor) -> Tensor:
        native, (b, _, _, h, w) = self.native[0], latent.shape
        tokens = native.proj(latent.flatten(0, 1)).flatten(2).transpose(1, 2)  # (b t, h w, d)
        tokens = tokens.reshape(b, -1, tokens.shape[-1])  # (b, n, d)
        place = Size3(latent.shape[1], h // native.patch_size, w // native.patch_size)
        return torch.cat([native.text_proj(text), tokens + self._table(place).to(tokens)], dim=1)

    def _table(self, grid: Size3) -> Tensor:
        """(1, n, d)."""
        native, text = self.native[0], self.native[0].max_text_seq_length
        full = Size3(*(side * factor for side, factor in zip(grid, self.how.growth, strict=True)))
        if native.use_learned_positional_embeddings:
            cells = self._learned(full)
        else:
            frames = (full.t - 1) * native.temporal_compression_ratio + 1
            size = (full.h * native.patch_size, full.w * native.patch_size)
            table = native._get_positional_embeddings(*size, frames, device=native.pos_embedding.device)
            cells = table[:, text:].transpose(1, 2).unflatten(2, tuple(full)).float()  # (1, d, t, h, w)
        return F.interpolate(cells, tuple(grid), mode="trilinear").flatten(2).transpose(1, 2)

    def _learned(self, full: Size3) -> Tensor:
        """The learned table, (1, d, t, h, w), its ends repeated where the latent is padded."""
        native, side = self.native[0], self.native[0].patch_size
        frames = (native.sample_frames - 1) // native.temporal_compression_ratio + 1
        own = Size3(frames, native.sample_height // side, native.sample_width // side)
        missing = [new - old for new, old in zip(full, own, strict=True)]
        if any(not 0 <= count < factor for count, factor in zip(missing, self.how.growth, strict=True)):
            raise ValueError(
                f"got a latent of {full.t} x {full.h} x {full.w} native patches, padding included; expected {own.t} x"
                f" {own.h} x {own.w}, for which this model learned positions; generate at its own size"
            )
        cells = native.pos_embedding[:, native.max_text_seq_length :].transpose(1, 2).unflatten(2, tuple(own)).float()
        return F.pad(cells, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")


def _positions(model: nn.Module, how: Fold) -> dict[str, nn.Module]:
    native: Any = model.get_submodule("patch_embed")
    added = native.use_positional_embeddings or native.use_learned_positional_embeddings
    return {"patch_embed": CogVideoXEmbedding(native, how)} if added else {}


def _fold_call(call: dict[str, Any], how: Fold) -> Size3:
    latent = call["hidden_states"].transpose(1, 2)  # (b, c, t, h, w)
    size = Size3(*latent.shape[2:])
    call["hidden_states"] = fold(latent, how.growth, how.native).transpose(1, 2)
    if call.get("image_rotary_emb") is not None:
        call["image_rotary_emb"] = centre_rotary(call["image_rotary_emb"], grid_of(size, how.native), how.growth)
    return size


def _unfold_output(sample: Tensor, how: Fold, size: Size3) -> Tensor:
    return unfold(sample.transpose(1, 2), how.growth, size).transpose(1, 2)


def _width(config: Config) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, _width(config), config["num_layers"]
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
    patch=lambda config: PatchMode(config["patch_size_t"] or 1, config["patch_size"], config["patch_size"]),
    width=_width,
    embed="patch_embed.proj",
    unembed="proj_out",
    output_order="c pt ph pw",
    lora=r"transformer_blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
    work=_work,
    positions=_positions,
    fold_call=_fold_call,
    unfold_output=_unfold_output,
)
