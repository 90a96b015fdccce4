"""Class-conditional Latte, as published beside its paper: DiT's blocks in space and in time, in turn. diffusers has no
class for it.

Knows blocks of diffusers, no family. Latents are (b, c, t, h, w).

Source:
    Latte (arXiv:2401.03048), variant 1, the one of the published weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import Timesteps
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from einops import rearrange
from torch import Tensor, nn


class FramePositions(nn.Module):
    """A learned table added to frames, (1, t, d); zero at first."""

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, frames, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t, d) -> the same."""
        return tokens + self.weight.to(tokens.dtype)


class VideoDiT(DiTTransformer2DModel):
    """DiT with a temporal block after every spatial one. It takes ``video_length`` frames, no others.

    Arguments that are not listed are those of ``DiTTransformer2DModel``.

    Args:
        num_layers: Pairs of blocks; published Latte-XL has 14.
        num_embeds_ada_norm: Classes; 0 = none, ``class_labels`` is zeros then.
        time_shift: Of the frequencies of the time embedding; 0 as published, 1 as diffusers has it in its DiT.

    Example:
        >>> model = VideoDiT(num_attention_heads=2, attention_head_dim=4, num_layers=1, sample_size=4, video_length=3)
        >>> zero = torch.zeros(1, dtype=torch.long)
        >>> model(torch.zeros(1, 4, 3, 4, 4), timestep=zero, class_labels=zero).sample.shape
        torch.Size([1, 4, 3, 4, 4])
    """

    @register_to_config
    def __init__(  # noqa: PLR0913
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = None,
        num_layers: int = 14,
        sample_size: int = 32,
        patch_size: int = 2,
        num_embeds_ada_norm: int = 1000,
        norm_eps: float = 1e-6,
        video_length: int = 16,
        time_shift: int = 0,
    ) -> None:
        heads: dict[str, Any] = {"num_attention_heads": num_attention_heads, "attention_head_dim": attention_head_dim}
        block: dict[str, Any] = {**heads, "num_embeds_ada_norm": num_embeds_ada_norm, "norm_eps": norm_eps}
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        super().__init__(**block, **channels, num_layers=num_layers, sample_size=sample_size, patch_size=patch_size)
        block |= {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate"}
        block |= {"attention_bias": True, "norm_elementwise_affine": False}
        width = num_attention_heads * attention_head_dim
        self.temporal_transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(width, **block) for _ in range(num_layers)
        )
        self.temporal_positions = FramePositions(video_length, width)
        set_time_shift(self, time_shift)

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> Any:
        """One pass over a latent (b, c, t, h, w), with times and classes (b,); a tuple without ``return_dict``."""
        (b, _, t, h, _), side = hidden_states.shape, self.config["patch_size"]
        x = self.pos_embed(rearrange(hidden_states, "b c t h w -> (b t) c h w"))  # (b t) s d
        of_frame, of_cell = (
            (timestep.repeat_interleave(count), class_labels.repeat_interleave(count)) for count in (t, x.shape[1])
        )
        pairs = zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True)
        for number, (spatial, temporal) in enumerate(pairs):
            x = self._block(spatial, x, *of_frame)
            x = rearrange(x, "(b t) s d -> (b s) t d", b=b)
            x = self._block(temporal, self.temporal_positions(x) if number == 0 else x, *of_cell)
            x = rearrange(x, "(b s) t d -> (b t) s d", b=b)
        first: Any = self.transformer_blocks[0]
        conditioning = first.norm1.emb(timestep, class_labels, hidden_dtype=x.dtype)
        shift, scale = self.proj_out_1(F.silu(conditioning)).repeat_interleave(t, dim=0).unsqueeze(1).chunk(2, dim=2)
        x = self.proj_out_2(self.norm_out(x) * (1 + scale) + shift)  # (b t) s (ph pw c)
        sides = {"b": b, "gh": h // side, "ph": side, "pw": side}
        sample = rearrange(x, "(b t) (gh gw) (ph pw c) -> b c t (gh ph) (gw pw)", **sides)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _block(self, block: nn.Module, x: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        arguments = (x, None, None, None, timestep, None, labels)
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *arguments)  # type: ignore[misc]
        return block(*arguments)


def set_time_shift(model: nn.Module, shift: int) -> None:
    """Shift the frequencies of the time embeddings of a DiT. The original has 0, diffusers has 1."""
    for module in model.modules():
        if isinstance(module, Timesteps):
            module.downscale_freq_shift = shift
