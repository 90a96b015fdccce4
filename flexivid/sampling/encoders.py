"""The codec and the text encoder that a model was trained with: loaded once a model, checked against its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from flexivid.latents.codec import Codec, build_codec
from flexivid.latents.settings import require_fingerprint
from flexivid.latents.text_encoder import TextEncoder
from flexivid.model.flexidit import FlexiDiT

_loaded: WeakKeyDictionary[nn.Module, dict[type, tuple[Any, Any]]] = WeakKeyDictionary()


def use_sources(model: FlexiDiT, codec: str | None = None, text_encoder: str | None = None) -> FlexiDiT:
    """Read the codec or the text encoder of a model from another folder or hub id than its recipe names; returns it.

    ``ValueError`` if the model has none.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> use_sources(FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2)), codec="taef2")
        Traceback (most recent call last):
        ...
        ValueError: got --codec taef2 for a model that was trained on pixels; expected no codec; leave it out
    """
    recipe = model.recipe
    if codec is not None:
        if recipe.codec.source == "pixel":
            raise ValueError(
                f"got --codec {codec} for a model that was trained on pixels; expected no codec; leave it out"
            )
        recipe = replace(recipe, codec=replace(recipe.codec, source=codec))
    if text_encoder is not None:
        if not model.config.text_channels:
            raise ValueError(f"got --text-encoder {text_encoder} for a model without text; expected none; leave it out")
        named = text_encoder if recipe.text_encoder is None else replace(recipe.text_encoder, source=text_encoder)
        recipe = replace(recipe, text_encoder=named)  # type: ignore[arg-type]
    model.recipe = recipe
    return model


def codec_of(model: FlexiDiT) -> Codec:
    """The codec of a model, on its device.

    ``ValueError`` if it cannot be loaded, or is not the one that the model was trained with.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> codec_of(FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2))).latent_size(8, 32, 32)
        (8, 32, 32)
    """
    codec: Codec = _part(model, Codec, lambda device: build_codec(model.recipe.codec).to(device))
    return codec


def encoder_of(model: FlexiDiT) -> TextEncoder:
    """The text encoder of a model, on its device.

    ``ValueError`` if the model reads no text, or its encoder cannot be loaded or is not the one of its training.
    """
    if not model.config.text_channels:
        raise ValueError("got a prompt for a model without text; expected none; leave it out, or train with captions")
    settings = model.recipe.text_encoder
    if settings is None:
        raise ValueError(
            "got a prompt for a model whose recipe names no text encoder; expected the one that it was trained with;"
            " name its folder with --text-encoder"
        )
    encoder: TextEncoder = _part(model, TextEncoder, lambda device: TextEncoder(settings, device))
    return encoder


def share_encoders(model: FlexiDiT, codec: Codec | None = None, text_encoder: TextEncoder | None = None) -> None:
    """Sample with a codec and a text encoder that are in memory already, those of a training, instead of loading both.

    They must be those that the model's recipe names, on its device; one that is ``None`` is loaded when it is needed.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> model, codec = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2)), build_codec("pixel")
        >>> share_encoders(model, codec)
        >>> codec_of(model) is codec
        True
    """
    parts: dict[type, Any] = {Codec: codec, TextEncoder: text_encoder}
    loaded = {kind: (_key(model, kind), part) for kind, part in parts.items() if part is not None}
    _loaded.setdefault(model, {}).update(loaded)


def forget_encoder(model: FlexiDiT) -> None:
    """Free the memory of a model's text encoder once its prompts are encoded; it is loaded again when it is needed."""
    _loaded.get(model, {}).pop(TextEncoder, None)


def _part(model: FlexiDiT, kind: type, build: Callable[[torch.device], Any]) -> Any:
    """The codec or the text encoder of a model; built and checked again where the recipe or the device has changed."""
    parts, key = _loaded.setdefault(model, {}), _key(model, kind)
    if kind not in parts or parts[kind][0] != key:
        parts[kind] = key, _checked(model, kind, build)
    return parts[kind][1]


def _key(model: FlexiDiT, kind: type) -> tuple[Any, str | None, torch.device]:
    recipe, device = model.recipe, next(model.parameters()).device
    if kind is Codec:
        return recipe.codec, recipe.codec_fingerprint, device
    return recipe.text_encoder, recipe.text_fingerprint, device


def _checked(model: FlexiDiT, kind: type, build: Callable[[torch.device], Any]) -> Any:
    settings, expected, device = _key(model, kind)
    noun, unit, channels = "codec", "channels", model.config.in_channels
    if kind is TextEncoder:
        noun, unit, channels = "text encoder", "features", model.config.text_channels
    flag = f"--{noun.replace(' ', '-')}"
    try:
        part = build(device)
    except ValueError as error:
        raise ValueError(
            f"got a model whose {noun} {settings.source} cannot be loaded ({str(error).split(';')[0]}); expected the"
            f" one that it was trained with; name its folder with {flag}"
        ) from error
    if expected is not None:  # that of a text encoder reads all its weights
        fingerprint = part.fingerprint if kind is Codec else part.fingerprint()
        why = f"which the model was trained with; name it with {flag}"
        require_fingerprint(noun, settings.source, fingerprint, expected, why=why)
    if part.channels != channels:
        raise ValueError(
            f"got {noun} {settings.source} with {part.channels} {unit}; expected {channels}, which the model was"
            f" trained on; name the right one with {flag}"
        )
    return part
