"""DiT and Latte as a FlexiDiT whose weights all patch modes share: the paper's variant A, which trains all of them.

``flexify`` leaves a pre-trained network as it is and gives weak modes weights of their own. Here it becomes a FlexiDiT
whose native mode computes what the original does; ``add_modes`` grows its kernels, and the ordinary training goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from flexivid.model.conditioning import Condition, Text
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.families.family import config_of, heads_width
from flexivid.pretrained.load import load_transformer
from flexivid.pretrained.model_files import ANY_FILES, ModelFiles
from flexivid.pretrained.more_modes import grown_weights, with_modes
from flexivid.pretrained.shared.names import embedders_of, is_shared, renamed_weights
from flexivid.pretrained.shared.recipe import PROCESS, recipe_of
from flexivid.pretrained.signature import first_output, random_call, signature_of

ACTIVATIONS: dict[str, Any] = {"gelu": "gelu", "gelu-approximate": "gelu_tanh"}
CLASSES = ("DiTTransformer2DModel", "VideoDiT", "LatteTransformer3DModel")
LACKING = ("mode_embedding", "text.null", "conditioning.label.weight")  # what a source may lack is zero
OUTPUT = ("out.weight", "out.bias")  # (d, c, t, h, w) and (c, t, h, w)


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
        ValueError: If there is no such model, it is of another class, its scheduler is of another process, or its
            ``output_conv`` mixes channels of a learned variance into the others.

    Source:
        2502.20126, sec. 3.1, "shared parameters".

    Example:
        >>> from flexivid.model.shipped import locate
        >>> load_shared(locate("moving_digits"), ["8x8x8"]).config.modes[-1]
        PatchMode('8x8x8')
    """
    return share(load_transformer(source, files=files), source, modes)


def share(loaded: nn.Module, source: str | Path, modes: Iterable[str | PatchMode] = ()) -> FlexiDiT:
    """As :func:`load_shared`, of a transformer that was loaded from ``source``; large tensors are its own."""
    if isinstance(loaded, FlexiDiT):
        config, recipe, weights = loaded.config, loaded.recipe, dict(loaded.state_dict())
    else:
        config, recipe = shape_of(loaded), recipe_of(source, loaded)
        weights = _complete_weights(loaded, config)
    config = without_variance(config)
    for name in OUTPUT:  # the channels of a learned variance come last
        weights[name] = weights[name].narrow(weights[name].ndim - 4, 0, config.in_channels)
    larger = with_modes(config, modes)
    model = FlexiDiT.holding(larger, grown_weights(weights, config, larger))
    model.recipe = recipe
    return model.eval()


def without_variance(config: FlexiDiTConfig) -> FlexiDiTConfig:
    """The shape with as many output as input channels: without those of a learned variance.

    ``ValueError`` if ``output_conv`` mixes them into the others, which would change without them.
    """
    if config.output_conv and config.out_channels != config.in_channels:
        raise ValueError(
            f"got a FlexiDiT with output_conv, {config.in_channels} input and {config.out_channels} output channels;"
            " expected as many of both, as output_conv mixes those of a learned variance, which no sampler reads, into"
            " the others; start from a FlexiDiT that lacks one of the two"
        )
    return replace(config, out_channels=config.in_channels)


def to_flexidit(model: nn.Module) -> FlexiDiT:
    """A FlexiDiT with the native mode alone, which computes what a transformer of diffusers does.

    Time ``(k + 1) / 1000`` of the FlexiDiT is timestep k. The vector of a null text, which Latte lacks, is zero.
    ``ValueError`` if the model is none of ``CLASSES``, or has a part that a FlexiDiT lacks.

    Example:
        >>> from diffusers import DiTTransformer2DModel
        >>> dit = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8)
        >>> to_flexidit(dit).config.native, to_flexidit(dit).config.num_classes
        (PatchMode('1x2x2'), 1000)
    """
    config = shape_of(model)
    return FlexiDiT.holding(config, _complete_weights(model, config)).eval()


def _complete_weights(model: nn.Module, config: FlexiDiTConfig) -> dict[str, Tensor]:
    """Weights of a transformer of diffusers by their names in a FlexiDiT, and zeros where it has none."""
    weights = renamed_weights(model.state_dict(), config)
    with torch.device("meta"):
        shapes = FlexiDiT(config).state_dict()
    device = weights["embed.weight"].device
    return {name: torch.zeros_like(shapes[name], device=device) for name in LACKING if name in shapes} | weights


@torch.no_grad()
def difference(model: nn.Module, flexible: FlexiDiT) -> float:
    """Largest absolute difference of native outputs of a transformer of diffusers and of what was made of it.

    Over a random call, without channels of a learned variance.
    """
    call = random_call(model, signature_of(model).usual_size(config_of(model)), batch=2)
    x, channels = call["hidden_states"], flexible.config.in_channels
    text = call.get("encoder_hidden_states")
    condition = Condition(call.get("class_labels"), None if text is None else Text(text))
    video = x if x.ndim == 5 else x.unsqueeze(2)
    output = flexible(video, (call["timestep"] + 1) / 1000, condition)[:, :channels]
    original = first_output(model, call)[:, :channels]
    return (output.view_as(original) - original).abs().max().item()


def shape_of(model: nn.Module) -> FlexiDiTConfig:
    """The shape of the FlexiDiT that a transformer of diffusers becomes; see :func:`to_flexidit`."""
    name = type(model).__name__
    if name not in CLASSES:
        raise ValueError(
            f"got a {name}; expected {', '.join(CLASSES)}, whose weights all modes can share; flexify it, which leaves"
            " weights alone"
        )
    settings = config_of(model)
    _check_options(settings)
    is_text, is_video = name == "LatteTransformer3DModel", name != "DiTTransformer2DModel"
    patch, width = settings["patch_size"], heads_width(settings)
    span = settings["sample_size"] // patch / (max(settings["sample_size"] // 64, 1) if is_text else 1)
    time_shifts = {module.downscale_freq_shift for module in model.modules() if isinstance(module, Timesteps)}
    return FlexiDiTConfig(
        width=width,
        depth=settings["num_layers"] * (1 + is_video),
        num_heads=settings["num_attention_heads"],
        in_channels=settings["in_channels"],
        out_channels=settings["out_channels"],
        modes=(PatchMode(1, patch, patch),),
        num_classes=0 if is_text else len(embedders_of(model.state_dict())[0]["label.weight"]) - 1,
        attention="factorised" if is_video else "joint",
        positions="sinusoids",
        position_span=span,
        time_embedding="ddpm_shifted" if time_shifts == {1} else "ddpm",  # 1 as in diffusers' DiT
        modulation="single" if is_text else "block",
        block_conditioning=not is_text and not is_shared(embedders_of(model.state_dict())),
        qk_norm=False,
        attention_bias=settings.get("attention_bias", True),
        activation=ACTIVATIONS[settings.get("activation_fn", "gelu-approximate")],
        text_channels=settings["caption_channels"] if is_text else 0,
        cross_attention="plain" if is_text else "normed",
        attention_eps=settings["norm_eps"] if is_text else 1e-6,
        mlp_eps=settings["norm_eps"],
        weak_detail=" ".join(PROCESS.values()),
    )


def _check_options(settings: Mapping[str, Any]) -> None:
    """Refuse what a FlexiDiT cannot be, ``ValueError``."""
    choices = {
        "activation_fn": (*ACTIVATIONS, None),
        "norm_elementwise_affine": (False, None),
        "norm_type": ("ada_norm_zero", "ada_norm_single", None),
        "upcast_attention": (False, None),
    }
    for name, choice in choices.items():
        if settings.get(name) not in choice:
            raise ValueError(
                f"got {name}={settings[name]!r}; expected {choice[0]!r}, as in published DiT and Latte; flexify this"
                " model instead"
            )
