"""What the transformers of diffusers are called with: how a latent lies, what comes beside it. A table by class name.

For random calls that prove the native mode untouched and that measure memory, and for the calls of training where a
class is a rectified flow: ``x = (1 - time) latent + time noise``, its output is the velocity ``noise - latent``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from einops import rearrange
from torch import Tensor, nn

from flexivid.pretrained.families.family import Config, config_of
from flexivid.pretrained.weak_modes.affine import compute_dtype, device_of

Size = tuple[int, int, int]
JOINED = ("padding_mask",)  # constants that become channels of the latent, and have its dtype
TRAIN_TIMES = 1000  # the timestep of pure noise in diffusers


class CallForm(NamedTuple):
    """How a class is called.

    Args:
        inputs: (configuration, text length) -> shapes of the inputs beside the latent, without the batch; a shape that
            starts with a value in place of a size is filled with it: ``("ones", l)``.
        constants: (configuration, latent size) -> arguments that are the same for all samples.
        pack: Latent (b, c, t, h, w) -> ``hidden_states``.
        is_flow: Whether the model is a rectified flow.
        size: Configuration -> latent size (t, h, w) that such models are mostly used at.
        is_fixed: Configuration -> whether that is the only size, since positions were learned for it.
        names: What the latent and the time are called.
        noise_time: The time of pure noise.
    """

    inputs: Callable[[Config, int], dict[str, tuple]]
    constants: Callable[[Config, Size], dict[str, Any]] = lambda config, size: {}
    pack: Callable[[Tensor], Tensor] = lambda latent: latent
    is_flow: bool = False
    size: Callable[[Config], Size] = lambda config: (21, 60, 104)
    is_fixed: Callable[[Config], bool] = lambda config: False
    names: tuple[str, str] = ("hidden_states", "timestep")
    noise_time: float = TRAIN_TIMES


def _wan_inputs(config: Config, text: int) -> dict[str, tuple]:
    image = {"encoder_hidden_states_image": (257, config["image_dim"])} if config["added_kv_proj_dim"] else {}
    return {"encoder_hidden_states": (512 if image else text, config["text_dim"]), **image}


def _hunyuan_inputs(config: Config, text: int) -> dict[str, tuple]:
    guidance = {"guidance": ("guidance",)} if config["guidance_embeds"] else {}
    pooled = {"pooled_projections": (config["pooled_projection_dim"],)}
    return {"encoder_hidden_states": (text, config["text_embed_dim"]), "encoder_attention_mask": ("ones", text)} | (
        pooled | guidance
    )


def _cogvideox_constants(config: Config, size: Size) -> dict[str, Any]:
    side, patch_t = config["patch_size"], config["patch_size_t"]
    grid = (size[1] // side, size[2] // side)
    frames = -(-size[0] // (patch_t or 1))
    constants: dict[str, Any] = {"ofs": torch.full((1,), 2.0)} if config["ofs_embed_dim"] else {}
    if not config["use_rotary_positional_embeddings"]:
        return constants
    kind: dict[str, Any] = {"grid_type": "slice", "max_size": grid} if patch_t else {}
    tables = get_3d_rotary_pos_embed(config["attention_head_dim"], ((0, 0), grid), grid, frames, **kind)
    return constants | {"image_rotary_emb": tables}


def _cogvideox_size(config: Config) -> Size:
    frames = (config["sample_frames"] - 1) // config["temporal_compression_ratio"] + 1
    patch_t = config["patch_size_t"] or 1
    return -(-frames // patch_t) * patch_t, config["sample_height"], config["sample_width"]


def _cosmos_constants(config: Config, size: Size) -> dict[str, Any]:
    return {"fps": 24, "padding_mask": torch.zeros(1, 1, *size[1:])}


FORMS: Mapping[str, CallForm] = {
    "CogVideoXTransformer3DModel": CallForm(
        lambda config, text: {"encoder_hidden_states": (config["max_text_seq_length"], config["text_embed_dim"])},
        _cogvideox_constants,
        lambda latent: latent.transpose(1, 2),
        size=_cogvideox_size,
        is_fixed=lambda config: bool(config["use_learned_positional_embeddings"]),
    ),
    "CosmosTransformer3DModel": CallForm(
        lambda config, text: {"encoder_hidden_states": (text, config["text_embed_dim"])},
        _cosmos_constants,
        size=lambda config: (16, 88, 160),
    ),
    "DiTTransformer2DModel": CallForm(
        lambda config, text: {"class_labels": ("label", config["num_embeds_ada_norm"])},
        pack=lambda latent: latent[:, :, 0],
        size=lambda config: (1, config["sample_size"], config["sample_size"]),
        is_fixed=lambda config: True,
    ),
    "FlexiDiT": CallForm(lambda config, text: {}, size=lambda config: (8, 32, 32), names=("x", "time"), noise_time=1.0),
    "HunyuanVideoTransformer3DModel": CallForm(_hunyuan_inputs, is_flow=True, size=lambda config: (33, 90, 160)),
    "LatteTransformer3DModel": CallForm(
        lambda config, text: {"encoder_hidden_states": (text, config["caption_channels"])},
        size=lambda config: (config["video_length"], config["sample_size"], config["sample_size"]),
        is_fixed=lambda config: True,
    ),
    "LTXVideoTransformer3DModel": CallForm(
        lambda config, text: {
            "encoder_hidden_states": (text, config["caption_channels"]),
            "encoder_attention_mask": ("ones", text),
        },
        lambda config, size: {
            "num_frames": size[0],
            "height": size[1],
            "width": size[2],
            "rope_interpolation_scale": (8 / 25, 32, 32),
        },
        lambda latent: rearrange(latent, "b c t h w -> b (t h w) c"),
        is_flow=True,
        size=lambda config: (21, 16, 24),
    ),
    "VideoDiT": CallForm(
        lambda config, text: {"class_labels": ("label", config["num_embeds_ada_norm"] or 1)},
        size=lambda config: (config["video_length"], config["sample_size"], config["sample_size"]),
        is_fixed=lambda config: True,
    ),
    "WanTransformer3DModel": CallForm(_wan_inputs, is_flow=True),
}


def form_of(model: nn.Module) -> CallForm:
    """The form of a model's class.

    Raises:
        ValueError: If there is none.
    """
    for kind in type(model).__mro__:  # FSDP puts a class of its own before it
        if kind.__name__ in FORMS:
            return FORMS[kind.__name__]
    name = type(model).__name__
    raise ValueError(f"got a model of class {name}; expected one of {', '.join(FORMS)}; add its form to {__name__}")


def random_call(model: nn.Module, size: Size, *, batch: int = 1, text_tokens: int = 32, seed: int = 0) -> dict:
    """Arguments of a call with random values, on the device of the model and in the precision that it computes in.

    Args:
        model: Transformer of diffusers.
        size: Latent size (t, h, w), which the native patch divides.
        batch: Samples.
        text_tokens: Length of the text, where the class does not fix it.
        seed: Of the values.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> {name: tuple(value.shape) for name, value in random_call(wan, (2, 4, 4), text_tokens=8).items()}
        {'hidden_states': (1, 16, 2, 4, 4), 'timestep': (1,), 'encoder_hidden_states': (1, 8, 4096)}
    """
    form, config, source = form_of(model), config_of(model), torch.Generator().manual_seed(seed)
    latent = torch.randn(batch, config["in_channels"], *size, generator=source).to(
        device_of(model), compute_dtype(model)
    )
    call: dict[str, Any] = {form.names[0]: form.pack(latent)}
    call[form.names[1]] = torch.full((batch,), form.noise_time / 2, device=latent.device)
    for name, shape in form.inputs(config, text_tokens).items():
        value = _filled(shape, batch, source).to(latent.device)
        call[name] = value.to(latent.dtype) if value.is_floating_point() else value
    return call | _moved(form.constants(config, size), latent)


def first_output(model: nn.Module, call: Mapping[str, Any]) -> Tensor:
    """What a model answers to a call: its one output, or the first of several."""
    output = model(**call)
    return output if isinstance(output, Tensor) else output[0]


def flow_call(model: nn.Module, latent: Tensor, noise: Tensor, time: Tensor, inputs: Mapping[str, Tensor]) -> dict:
    """Arguments of a training call of a rectified flow.

    Args:
        model: Transformer of diffusers, text to video.
        latent: (b, c, t, h, w), scaled as the model wants it.
        noise: Likewise.
        time: (b,) in [0, 1], 1 = noise.
        inputs: What comes beside the latent, named as the arguments of ``forward``.

    Raises:
        ValueError: If the class is no rectified flow, or wants more channels than the latent has.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> zeros = torch.zeros(1, 16, 1, 2, 2)
        >>> call = flow_call(wan, zeros, zeros + 1, torch.tensor([0.25]), {})
        >>> call["hidden_states"].mean().item(), call["timestep"].item()
        (0.25, 250.0)
    """
    form, config = form_of(model), config_of(model)
    if not form.is_flow or latent.shape[1] != config["in_channels"]:
        what = f"latents of {latent.shape[1]} channels" if form.is_flow else type(model).__name__
        raise ValueError(
            f"got {what}; expected a rectified flow whose {config['in_channels']} input channels are those of the"
            " latent; record calls of its pipeline instead (record_calls)"
        )
    t = time.view(-1, 1, 1, 1, 1).to(latent)
    noisy = torch.lerp(latent, noise.to(latent), t)
    size: Size = tuple(latent.shape[2:])  # type: ignore[assignment]
    constants = _moved(form.constants(config, size), latent)
    return {form.names[0]: form.pack(noisy), form.names[1]: form.noise_time * time, **constants, **inputs}


def _filled(shape: tuple, batch: int, source: torch.Generator) -> Tensor:
    if shape[:1] == ("ones",):
        return torch.ones(batch, *shape[1:], dtype=torch.long)
    if shape[:1] == ("label",):
        return torch.randint(0, shape[1], (batch,), generator=source)
    if shape == ("guidance",):
        return torch.full((batch,), 6000.0)
    return torch.randn(batch, *shape, generator=source)


def _moved(values: dict[str, Any], latent: Tensor) -> dict[str, Any]:
    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(move(part) for part in value)
        return value.to(latent.device) if isinstance(value, Tensor) else value

    moved = {name: move(value) for name, value in values.items()}
    return moved | {name: moved[name].to(latent.dtype) for name in JOINED if name in moved}
