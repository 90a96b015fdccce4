"""The codec and the text encoder that a model was trained with: loaded once a model, checked against its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from flexivid.latents.codec import Codec, build_codec
from flexivid.latents.text_encoder import TextEncoder
from flexivid.model.flexidit import FlexiDiT

_T = TypeVar("_T")
_loaded: WeakKeyDictionary[nn.Module, dict[type, tuple[Any, Any]]] = WeakKeyDictionary()


def use_sources(model: FlexiDiT, codec: str | None = None, text_encoder: str | None = None) -> FlexiDiT:
    """Read the codec or the text encoder of a model from another folder than the recipe names; returns the model.

    Args:
        model: The network.
        codec: Folder or hub id; ``None`` = as the recipe says. Likewise ``text_encoder``.

    Raises:
        ValueError: If the model has none.

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

    Raises:
        ValueError: If it cannot be loaded, or is not the one that the model was trained with.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> codec_of(FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2))).latent_size(8, 32, 32)
        (8, 32, 32)
    """
    recipe, device = model.recipe, next(model.parameters()).device
    source = recipe.codec.source

    def load() -> Codec:
        try:
            codec = build_codec(recipe.codec).to(device)
        except ValueError as error:
            raise ValueError(
                f"got a model whose codec {source} cannot be loaded ({str(error).split(';')[0]}); expected the one that"
                " it was trained with; name its folder with --codec"
            ) from error
        _check("codec", source, codec.fingerprint, recipe.codec_fingerprint)
        if codec.channels != model.config.in_channels:
            raise ValueError(
                f"got codec {source} with {codec.channels} channels; expected {model.config.in_channels}, which the"
                " model was trained on; name its codec with --codec"
            )
        return codec

    return _once(model, Codec, (recipe.codec, recipe.codec_fingerprint, device), load)


def encoder_of(model: FlexiDiT) -> TextEncoder:
    """The text encoder of a model, on its device.

    Raises:
        ValueError: If the model reads no text, or its encoder cannot be loaded or is not the one of its training.
    """
    recipe, device = model.recipe, next(model.parameters()).device
    if not model.config.text_channels:
        raise ValueError("got a prompt for a model without text; expected none; leave it out, or train with captions")
    settings = recipe.text_encoder
    if settings is None:
        raise ValueError(
            "got a prompt for a model whose recipe names no text encoder; expected the one that it was trained with;"
            " name its folder with --text-encoder"
        )

    def load() -> TextEncoder:
        try:
            encoder = TextEncoder(settings, device)
        except ValueError as error:
            raise ValueError(
                f"got a model whose text encoder {settings.source} cannot be loaded ({str(error).split(';')[0]});"
                " expected the one that it was trained with; name its folder with --text-encoder"
            ) from error
        if recipe.text_fingerprint is not None:
            _check("text-encoder", settings.source, encoder.fingerprint(), recipe.text_fingerprint)
        if encoder.channels != model.config.text_channels:
            raise ValueError(
                f"got text encoder {settings.source} with {encoder.channels} features; expected"
                f" {model.config.text_channels}, which the model was trained on; name its encoder with --text-encoder"
            )
        return encoder

    return _once(model, TextEncoder, (settings, recipe.text_fingerprint, device), load)


def forget_encoder(model: FlexiDiT) -> None:
    """Free the memory of a model's text encoder once its prompts are encoded; it is loaded again when it is needed."""
    _loaded.get(model, {}).pop(TextEncoder, None)


def _check(flag: str, source: str, fingerprint: str, expected: str | None) -> None:
    if expected not in (None, fingerprint):
        raise ValueError(
            f"got {flag.replace('-', ' ')} {source} of fingerprint {fingerprint}; expected {expected}, which the model"
            f" was trained with; name it with --{flag}"
        )


def _once(model: FlexiDiT, kind: type, key: Any, load: Callable[[], _T]) -> _T:
    parts = _loaded.setdefault(model, {})
    if kind not in parts or parts[kind][0] != key:
        parts[kind] = key, load()
    part: _T = parts[kind][1]
    return part
