"""DiT and Latte as a FlexiDiT whose weights all patch modes share: the paper's variant A, which trains all of them.

``flexify`` leaves a pre-trained network as it is and gives weak modes weights of their own. Here it becomes a FlexiDiT
whose native mode computes what the original does; ``add_modes`` grows its kernels, and the ordinary training goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from einops import rearrange
from torch import Tensor, nn

from flexivid.diffusion.process import Process
from flexivid.latents.settings import CodecSettings, TextSettings
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.recipe import Recipe, SamplingDefaults
from flexivid.patching.position import sinusoids
from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.families.family import config_of, heads_width
from flexivid.pretrained.load import load_transformer
from flexivid.pretrained.model_files import ANY_FILES, TRANSFORMER, ModelFiles
from flexivid.pretrained.more_modes import add_modes

PROCESS = Process("linear", "noise")  # that DiT and Latte were trained with
CHAIN = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "epsilon"}
ACTIVATIONS = {"gelu": "gelu", "gelu-approximate": "gelu_tanh"}
GUIDANCE = {"DiTTransformer2DModel": 4.0, "VideoDiT": 7.0, "LatteTransformer3DModel": 7.5}  # as published
TEXT_TOKENS = 120  # of Latte's captions

LACKING = ("mode_embedding", "text.null", "conditioning.label.weight")  # what diffusers' may lack, and is zero then

BLOCK = {  # name in diffusers: in a FlexiDiT
    "norm1.linear": "modulation",
    "scale_shift_table": "modulation.table",
    "attn1.to_q": "attention.q",
    "attn1.to_k": "attention.k",
    "attn1.to_v": "attention.v",
    "attn1.to_out.0": "attention.out",
    "attn2.to_q": "cross.q",
    "attn2.to_k": "cross.k",
    "attn2.to_v": "cross.v",
    "attn2.to_out.0": "cross.out",
    "ff.net.0.proj": "mlp_in",
    "ff.net.2": "mlp_out",
}
WHOLE = {
    "pos_embed.proj": "embed",
    "proj_out_1": "out_modulation",
    "scale_shift_table": "out_modulation.table",
    "adaln_single.linear": "shared_modulation",
    "caption_projection.linear_1": "text.project_in",
    "caption_projection.linear_2": "text.project_out",
}
EMBEDDER = {
    "timestep_embedder.linear_1.weight": "time_in.weight",
    "timestep_embedder.linear_1.bias": "time_in.bias",
    "timestep_embedder.linear_2.weight": "time_out.weight",
    "timestep_embedder.linear_2.bias": "mode",
    "class_embedder.embedding_table.weight": "label.weight",
}


def load_shared(
    source: str | Path, modes: Iterable[str | PatchMode] = (), *, files: ModelFiles = ANY_FILES
) -> FlexiDiT:
    """Load DiT or Latte, or a FlexiDiT, as a FlexiDiT with more modes, to be trained in all of them.

    Channels of a learned variance are dropped: no sampler here reads them.

    Args:
        source: As ``load_transformer`` takes it: a folder or hub id of a diffusers pipeline or transformer, an original
            ``.pt`` file of DiT or Latte, or the folder of a FlexiDiT.
        modes: To add, as text or :class:`PatchMode`.
        files: Which files of a diffusers model to read.

    Returns:
        The model in evaluation mode, in float32; its recipe names process, codec, text encoder, size and classes as far
        as the source tells.

    Raises:
        ValueError: If there is no such model, it is of another class, or its scheduler is of another process.

    Source:
        2502.20126, sec. 3.1, "shared parameters".

    Example:
        >>> load_shared("moving_digits", ["8x8x8"]).config.modes[-1]
        PatchMode('8x8x8')
    """
    loaded = load_transformer(source, files=files)
    if isinstance(loaded, FlexiDiT):
        return add_modes(loaded, modes).eval()
    model = without_variance(to_flexidit(loaded))
    model.recipe = _recipe(source, loaded)
    return add_modes(model, modes).eval()


def to_flexidit(model: nn.Module) -> FlexiDiT:
    """A FlexiDiT with the native mode alone, which computes what a transformer of diffusers does.

    Time ``(k + 1) / 1000`` of the FlexiDiT is timestep k. The vector of a null text, which Latte lacks, is zero.

    Args:
        model: ``DiTTransformer2DModel``, ``VideoDiT`` or ``LatteTransformer3DModel``, also on the meta device.

    Raises:
        ValueError: If the model is of another class, or has a part that a FlexiDiT lacks.

    Example:
        >>> from diffusers import DiTTransformer2DModel
        >>> dit = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8)
        >>> to_flexidit(dit).config.native, to_flexidit(dit).config.num_classes
        (PatchMode('1x2x2'), 1000)
    """
    weights = model.state_dict()
    config = shape_of(model)
    with torch.device(next(iter(weights.values())).device):
        flexible = FlexiDiT(config)
    renamed = _renamed(weights, config)
    lacking = {name: torch.zeros_like(value) for name, value in flexible.state_dict().items() if name in LACKING}
    flexible.load_state_dict({**lacking, **renamed}, assign=flexible.embed.weight.is_meta)
    return flexible.eval()


def shape_of(model: nn.Module) -> FlexiDiTConfig:
    """The shape of the FlexiDiT that a transformer of diffusers becomes; see :func:`to_flexidit`."""
    name, settings = type(model).__name__, config_of(model)
    if name not in GUIDANCE:
        raise ValueError(
            f"got a {name}; expected {', '.join(GUIDANCE)}, whose weights all modes can share; flexify it instead, which"
            " leaves its weights alone"
        )
    _check_options(settings)
    is_text, is_video = name == "LatteTransformer3DModel", name != "DiTTransformer2DModel"
    patch, width = settings["patch_size"], heads_width(settings)
    span = settings["sample_size"] // patch / (max(settings["sample_size"] // 64, 1) if is_text else 1)
    return FlexiDiTConfig(
        width=width,
        depth=settings["num_layers"] * (1 + is_video),
        num_heads=settings["num_attention_heads"],
        in_channels=settings["in_channels"],
        out_channels=settings["out_channels"],
        modes=(PatchMode(1, patch, patch),),
        num_classes=0 if is_text else len(_embedders(model.state_dict())[0]["label.weight"]) - 1,
        attention="factorised" if is_video else "joint",
        positions="sinusoids",
        position_span=span,
        time_embedding="ddpm_shifted" if _is_shifted(model) else "ddpm",
        modulation="single" if is_text else "block",
        block_conditioning=not is_text and not _share_one(_embedders(model.state_dict())),
        qk_norm=False,
        attention_bias=settings.get("attention_bias", True),
        activation=ACTIVATIONS[settings.get("activation_fn", "gelu-approximate")],
        text_channels=settings["caption_channels"] if is_text else 0,
        cross_attention="plain" if is_text else "normed",
        attention_eps=settings["norm_eps"] if is_text else 1e-6,
        mlp_eps=settings["norm_eps"],
    )


def without_variance(model: FlexiDiT) -> FlexiDiT:
    """The model without the output channels of a learned variance, which come last; itself if it has none."""
    channels, weights = model.config.in_channels, dict(model.state_dict())
    if model.config.out_channels == channels:
        return model
    weights["out.weight"], weights["out.bias"] = weights["out.weight"][:, :channels], weights["out.bias"][:channels]
    smaller = FlexiDiT(replace(model.config, out_channels=channels))
    smaller.load_state_dict(weights)
    smaller.recipe = model.recipe
    return smaller.train(model.training)


def _check_options(settings: Mapping[str, Any]) -> None:
    """Refuse what a FlexiDiT cannot be, ``ValueError``."""
    choices = {
        "activation_fn": (*ACTIVATIONS, None),
        "norm_elementwise_affine": (False, None),
        "norm_type": ("ada_norm_zero", "ada_norm_single", None),
        "upcast_attention": (False, None),
    }
    for name, known in choices.items():
        if settings.get(name) not in known:
            raise ValueError(
                f"got {name}={settings[name]!r}; expected {known[0]!r}, as in published DiT and Latte; flexify this"
                " model instead"
            )


def _is_shifted(model: nn.Module) -> bool:
    """Whether the frequencies of the time embedding are those of diffusers' DiT."""
    shifts = {module.downscale_freq_shift for module in model.modules() if isinstance(module, Timesteps)}
    return shifts == {1}


def _block(name: str) -> tuple[int | None, str]:
    """Number of the block in a FlexiDiT and the rest of the name; ``None`` = of no block."""
    match = re.fullmatch(r"(temporal_)?transformer_blocks\.(\d+)\.(.+)", name)
    return (None, name) if match is None else (int(match[2]) * 2 + bool(match[1]), match[3])


def _embedders(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Weights of the embedders of time and class, one for each block in order, or one for all, as in a FlexiDiT."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in weights.items():
        number, inner = _block(name)
        if inner.startswith(("norm1.emb.", "adaln_single.emb.")):
            entry = EMBEDDER[inner.split(".emb.")[1]]
            found.setdefault(number or 0, {})[entry] = value[None] if entry == "mode" else value
    return [found[number] for number in sorted(found)]


def _share_one(embedders: list[dict[str, Tensor]]) -> bool:
    """Whether all embedders are the same; on the meta device they count as such, as in all published weights."""
    first = embedders[0]
    return all(
        value.is_meta or torch.equal(value, first[name]) for each in embedders[1:] for name, value in each.items()
    )


def _renamed(weights: Mapping[str, Tensor], config: FlexiDiTConfig) -> dict[str, Tensor]:
    """Weights of diffusers by their names in a FlexiDiT of one mode.

    Raises:
        ValueError: If a weight has no place there.
    """
    is_video, embedders = config.attention == "factorised", _embedders(weights)
    renamed: dict[str, Tensor] = {}
    for number, embedder in enumerate(embedders if config.block_conditioning else embedders[:1]):
        prefix = f"conditioning.{number}." if config.block_conditioning else "conditioning."
        renamed |= {prefix + name: value for name, value in embedder.items()}
    for name, value in weights.items():
        number, inner = _block(name)
        stem, _, kind = inner.rpartition(".")
        if ".emb." in inner or name == "pos_embed.pos_embed":
            continue
        if stem == "proj_out" or stem == "proj_out_2":
            renamed[f"out.{kind}"] = _output(value, config)
        elif name == "temporal_positions.weight":
            _check_frames(value)
        elif number is not None:
            place = number if is_video else number // 2
            renamed[f"blocks.{place}.{_renamed_as(inner, BLOCK)}"] = value
        else:
            to = _renamed_as(name, WHOLE)
            renamed[to] = value.unsqueeze(2) if to == "embed.weight" else value  # (d, c, ph, pw): one frame
    return renamed


def _renamed_as(name: str, table: Mapping[str, str]) -> str:
    stem, _, kind = name.rpartition(".")
    if name in table:
        return table[name]
    if stem in table:
        return f"{table[stem]}.{kind}"
    raise ValueError(f"got weights with {name}; expected those of DiT or Latte; flexify this model instead")


def _output(value: Tensor, config: FlexiDiTConfig) -> Tensor:
    """The last layer's weight (ph pw c, d) or bias as that of a FlexiDiT, (d, c, 1, ph, pw) or (c, 1, ph, pw)."""
    sides = {"ph": config.native.h, "pw": config.native.w}
    if value.ndim == 1:
        return rearrange(value, "(ph pw c) -> c 1 ph pw", **sides)
    return rearrange(value, "(ph pw c) d -> d c 1 ph pw", **sides)


def _check_frames(table: Tensor) -> None:
    """Refuse positions of frames that are no sinusoids, (1, t, d)."""
    if table.is_meta:
        return
    expected = sinusoids(torch.arange(table.shape[1], device=table.device), table.shape[2])
    if not torch.allclose(table[0].double(), expected.double(), atol=1e-3):
        raise ValueError(
            "got learned positions of frames; expected the sinusoids of Latte; flexify this model, which keeps them"
        )


def _recipe(source: str | Path, model: nn.Module) -> Recipe:
    """What the source tells a sampler; ``ValueError`` if its scheduler is of another process."""
    folder, settings, name = Path(source), config_of(model), type(model).__name__
    _check_scheduler(folder / "scheduler" / "scheduler_config.json")
    is_pipeline = (folder / TRANSFORMER).is_dir() or not folder.exists()  # else a transformer alone, or a .pt file
    side, frames = settings["sample_size"], settings.get("video_length", 1)
    is_text = name == "LatteTransformer3DModel"
    return Recipe(
        process=PROCESS,
        codec=CodecSettings(str(source)) if is_pipeline else CodecSettings(),
        text_encoder=TextSettings(str(source), max_length=TEXT_TOKENS) if is_pipeline and is_text else None,
        size=(frames, side, side),
        class_names=() if is_text else _class_names(folder / "model_index.json", settings["num_embeds_ada_norm"]),
        sampling=SamplingDefaults(guidance_scale=GUIDANCE[name]),
    )


def _check_scheduler(file: Path) -> None:
    settings = json.loads(file.read_text()) if file.is_file() else CHAIN
    other = {name: settings[name] for name, value in CHAIN.items() if settings.get(name, value) != value}
    if other:
        raise ValueError(
            f"got a scheduler with {other} in {file}; expected {CHAIN}, the process of DiT and Latte; flexify this"
            " model instead"
        )


def _class_names(file: Path, count: int) -> tuple[str, ...]:
    """Names of the classes as DiT's pipeline has them; empty where it names another number."""
    names = json.loads(file.read_text()).get("id2label", {}) if file.is_file() else {}
    return tuple(names[str(number)] for number in range(count)) if len(names) == count else ()
