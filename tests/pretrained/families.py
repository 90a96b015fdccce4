"""A tiny random model of every family and the arguments of a call. A new family is one more entry of CASES."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    CosmosTransformer3DModel,
    DiTTransformer2DModel,
    HunyuanVideoTransformer3DModel,
    LatteTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from flexivid import Condition, FlexiDiT, FlexiDiTConfig
from flexivid.pretrained.families.video_dit import VideoDiT
from flexivid.pretrained.signature import first_output

TEXT = 6
Size = tuple[int, int, int]


class Case(NamedTuple):
    """A family as the tests see it. ``call`` makes the arguments of ``forward`` for (batch, size, dtype)."""

    name: str
    build: Callable[..., nn.Module]
    call: Callable[[int, Size, torch.dtype], dict[str, Any]]
    native: str
    modes: tuple[str, ...] = ("2x2x2", "1x4x4", "2x4x4")
    even: Size = (4, 8, 8)
    odd: Size = (5, 6, 10)


def _wan(**changes: Any) -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 16}
    settings |= {"freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32}
    return WanTransformer3DModel(**(settings | changes))


def _wan_call(channels: int, *, per_token: bool = False) -> Callable[..., dict[str, Any]]:
    def call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
        tokens = (size[0] * (size[1] // 2) * (size[2] // 2),) if per_token else ()
        return {
            "hidden_states": torch.randn(batch, channels, *size).to(dtype),
            "timestep": torch.full((batch, *tokens), 500.0),
            "encoder_hidden_states": torch.randn(batch, TEXT, 16).to(dtype),
        }

    return call


def _wan_image_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    call = _wan_call(9)(batch, size, dtype)
    call["encoder_hidden_states"] = torch.randn(batch, 512, 16).to(dtype)  # the length that the model expects
    return call | {"encoder_hidden_states_image": torch.randn(batch, 257, 8).to(dtype)}


def _ltx() -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24, "caption_channels": 16}
    return LTXVideoTransformer3DModel(in_channels=8, out_channels=8, num_layers=2, **settings)


def _ltx_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    volume = size[0] * size[1] * size[2]
    return {
        "hidden_states": torch.randn(batch, volume, 8).to(dtype),
        "encoder_hidden_states": torch.randn(batch, TEXT, 16).to(dtype),
        "timestep": torch.full((batch,), 500.0),
        "encoder_attention_mask": torch.ones(batch, TEXT),
        "num_frames": size[0],
        "height": size[1],
        "width": size[2],
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def _hunyuan(**changes: Any) -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4}
    settings |= {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "text_embed_dim": 16}
    settings |= {"pooled_projection_dim": 8, "rope_axes_dim": (4, 4, 4), "mlp_ratio": 2.0}
    return HunyuanVideoTransformer3DModel(**(settings | changes))


def _hunyuan_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 4, *size).to(dtype),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, TEXT, 16).to(dtype),
        "encoder_attention_mask": torch.ones(batch, TEXT),
        "pooled_projections": torch.randn(batch, 8).to(dtype),
        "guidance": torch.full((batch,), 6000.0),
    }


def _cogvideox(**changes: Any) -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4}
    settings |= {"time_embed_dim": 8, "text_embed_dim": 16, "num_layers": 2, "max_text_seq_length": TEXT}
    settings |= {"sample_width": 8, "sample_height": 8, "sample_frames": 13}
    return CogVideoXTransformer3DModel(**(settings | changes))


def _cogvideox_learned() -> nn.Module:
    rotary = {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True}
    return _cogvideox(sample_frames=17, **rotary)


def _cogvideox15() -> nn.Module:
    return _cogvideox(use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False)


def _cogvideox_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, size[0], 4, *size[1:]).to(dtype),
        "encoder_hidden_states": torch.randn(batch, TEXT, 16).to(dtype),
        "timestep": torch.full((batch,), 500.0),
    }


def _cogvideox_rotary_call(batch: int, size: Size, dtype: torch.dtype, patch_t: int = 1) -> dict[str, Any]:
    tables = get_3d_rotary_pos_embed(16, ((0, 0), (3.0, 5.0)), (size[1] // 2, size[2] // 2), size[0] // patch_t)
    return _cogvideox_call(batch, size, dtype) | {"image_rotary_emb": tables}


def _dit() -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 8}
    return DiTTransformer2DModel(num_layers=2, sample_size=8, num_embeds_ada_norm=1000, **settings)


def _dit_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 4, *size[1:]).to(dtype),
        "timestep": torch.full((batch,), 500),
        "class_labels": torch.arange(batch),
    }


def _video_dit() -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "out_channels": 8, "sample_size": 8}
    model = VideoDiT(num_layers=2, num_embeds_ada_norm=10, video_length=5, **settings)
    torch.nn.init.normal_(model.temporal_positions.weight)
    return model


def _video_dit_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return _dit_call(batch, size, dtype) | {"hidden_states": torch.randn(batch, 4, *size).to(dtype)}


def _latte(video_length: int = 5) -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 8}
    settings |= {"cross_attention_dim": 24, "caption_channels": 16, "sample_size": 8, "patch_size": 2}
    settings |= {"norm_type": "ada_norm_single", "activation_fn": "gelu-approximate", "attention_bias": True}
    settings |= {"norm_elementwise_affine": False, "norm_eps": 1e-6, "num_layers": 2}
    return LatteTransformer3DModel(video_length=video_length, **settings)


def _latte_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 4, *size).to(dtype),
        "timestep": torch.full((batch,), 500),
        "encoder_hidden_states": torch.randn(batch, TEXT, 16).to(dtype),
    }


def _cosmos(**changes: Any) -> nn.Module:
    settings = {"num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 4, "out_channels": 4}
    settings |= {"num_layers": 2, "mlp_ratio": 2.0, "text_embed_dim": 16, "adaln_lora_dim": 4, "max_size": (5, 8, 12)}
    model = CosmosTransformer3DModel(**(settings | changes))
    if model.learnable_pos_embed is not None:
        for table in model.learnable_pos_embed.parameters():
            torch.nn.init.normal_(table)
    return model


def _cosmos_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 4, *size).to(dtype),
        "timestep": torch.full((batch,), 0.5),
        "encoder_hidden_states": torch.randn(batch, TEXT, 16).to(dtype),
        "padding_mask": torch.randint(0, 2, (1, 1, 2 * size[1], 2 * size[2])).to(dtype),
        "fps": 16,
    }


def _cosmos_video_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    call = _cosmos_call(batch, size, dtype)
    call["condition_mask"] = torch.zeros(batch, 1, *size).to(dtype)
    call["condition_mask"][:, :, 0] = 1
    return call | {"timestep": torch.full((batch, 1, size[0], 1, 1), 0.5)}


def _flexidit(**changes: Any) -> nn.Module:
    model = FlexiDiT(FlexiDiTConfig(width=24, depth=2, num_heads=2, in_channels=4, num_classes=10, **changes))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():  # gates and the last layer start at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _flexidit_call(batch: int, size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "x": torch.randn(batch, 4, *size).to(dtype),
        "time": torch.full((batch,), 0.5, dtype=dtype),
        "condition": Condition(torch.arange(batch)),
    }


_cogvideox15_call = partial(_cogvideox_rotary_call, patch_t=2)
COG15_MODES = ("4x2x2", "2x4x4", "4x4x4")
FACTORISED = {"modes": ("1x2x2", "4x4x4"), "attention": "factorised"}
COG_LEARNED = (5, 8, 8)
LTX_MODES = ("2x1x1", "1x2x2", "2x2x2")
CASES = [
    Case("wan2.1", _wan, _wan_call(4), "1x2x2"),
    Case("ltx", _ltx, _ltx_call, "1x1x1", LTX_MODES, odd=(5, 3, 5)),
    Case("hunyuan", _hunyuan, _hunyuan_call, "1x2x2"),
    Case("cogvideox-2b", _cogvideox, _cogvideox_call, "1x2x2"),
    Case("latte", _latte, _latte_call, "1x2x2", even=(5, 8, 8)),  # as many frames as it was made for
    # 10 wide: in one token of 6, attention has no choice, and the gradients of its queries are rounding or zero.
    Case("dit", _dit, _dit_call, "1x2x2", ("1x4x4", "1x6x6"), even=(1, 8, 8), odd=(1, 10, 10)),
    Case("cosmos", _cosmos, _cosmos_call, "1x2x2"),
    Case("video-dit", _video_dit, _video_dit_call, "1x2x2", even=(5, 8, 8)),
    Case("flexidit", partial(_flexidit, modes=("1x2x2",)), _flexidit_call, "1x2x2"),
]
FAST = [case for case in CASES if case.name in ("wan2.1", "ltx", "flexidit")]
VARIANTS = [  # of families that have a case above
    Case("wan2.2-5b", _wan, _wan_call(4, per_token=True), "1x2x2"),
    Case("wan2.2-i2v", lambda: _wan(in_channels=9), _wan_call(9), "1x2x2"),
    Case("wan2.1-i2v", lambda: _wan(in_channels=9, image_dim=8, added_kv_proj_dim=24), _wan_image_call, "1x2x2"),
    Case("cogvideox-5b", lambda: _cogvideox(use_rotary_positional_embeddings=True), _cogvideox_rotary_call, "1x2x2"),
    Case("cogvideox-i2v", _cogvideox_learned, _cogvideox_rotary_call, "1x2x2", even=COG_LEARNED, odd=COG_LEARNED),
    Case("cogvideox1.5", _cogvideox15, _cogvideox15_call, "2x2x2", COG15_MODES, odd=(6, 6, 10)),
    Case("latte-even", lambda: _latte(4), _latte_call, "1x2x2", odd=(4, 6, 10)),
    Case("cosmos-video", lambda: _cosmos(in_channels=5, extra_pos_embed_type=None), _cosmos_video_call, "1x2x2"),
    Case("flexidit-factorised", lambda: _flexidit(**FACTORISED), _flexidit_call, "1x2x2"),
    Case("hunyuan-i2v", lambda: _hunyuan(image_condition_type="token_replace"), _hunyuan_call, "1x2x2", ("1x4x4",)),
]
by_family = pytest.mark.parametrize(
    "case",
    [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in (*CASES, *VARIANTS) if case not in FAST)],
    ids=lambda case: case.name,
)


def build(case: Case, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The same tiny model each time, in evaluation mode."""
    torch.manual_seed(0)
    return case.build().to(dtype).eval()


def call(case: Case, size: Size, *, batch: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The same arguments each time."""
    torch.manual_seed(1)
    return case.call(batch, size, dtype)


@torch.no_grad()
def output(model: nn.Module, arguments: dict[str, Any]) -> Tensor:
    return first_output(model, arguments)


def disturb(model: nn.Module) -> None:
    """Give every new parameter another value, as training does."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.flexi.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
