"""Which codec and text encoder are meant, and how they compute: plain data that a recipe keeps. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from flexivid.runtime.errors import check_keys

_S = TypeVar("_S", "CodecSettings", "TextSettings")


@dataclass(frozen=True)
class _Settings:
    def to_plain(self) -> dict[str, Any]:
        """The settings that are not the defaults, and the source."""
        plain = asdict(self)
        return {f.name: plain[f.name] for f in fields(self) if f.name == "source" or plain[f.name] != f.default}


@dataclass(frozen=True)
class CodecSettings(_Settings):
    """A codec and how it computes.

    Args:
        source: ``pixel``; a folder of an autoencoder, or of a pipeline with one in ``vae/``; or the id of such a model
            on the hub.
        dtype: Precision of its weights and arithmetic: ``fp32``, ``bf16`` or ``fp16``. Latents are float32 anyway.
        tile: Side in pixels of the square tiles that larger pictures are cut into; tiles overlap by a quarter and are
            blended. ``None`` = pictures are never cut.
        sample: Draw latents from the posterior instead of taking its mode.
        frames: Frames that an image autoencoder sees at once. Video autoencoders have chunks of their own.

    Example:
        >>> CodecSettings("madebyollin/taef2", tile=256).to_plain()
        {'source': 'madebyollin/taef2', 'tile': 256}
    """

    source: str = "pixel"
    dtype: str = "fp32"
    tile: int | None = None
    sample: bool = False
    frames: int = 16

    def __post_init__(self) -> None:
        _check_dtype(self.dtype, "codec")
        if self.frames < 1 or (self.tile is not None and self.tile < 1):
            raise ValueError(
                f"got codec frames={self.frames}, tile={self.tile}; expected at least 1; change the codec's settings"
            )


@dataclass(frozen=True)
class TextSettings(_Settings):
    """Which encoder reads the captions.

    Args:
        source: Folder of an encoder with its tokenizer, of a diffusers pipeline, or an id on the Hugging Face hub.
        max_length: Tokens of a caption, end mark included; longer ones are cut with a warning. ``None`` = as many as
            the encoder can read, at most 256.
        dtype: Arithmetic of the encoder: ``fp32``, ``bf16`` or ``fp16``.
        revision: Branch, tag or commit on the hub.
        local_files_only: Read what is on this machine only.

    Example:
        >>> TextSettings("google/t5-v1_1-base", dtype="bf16").to_plain()
        {'source': 'google/t5-v1_1-base', 'dtype': 'bf16'}
    """

    source: str
    max_length: int | None = None
    dtype: str = "fp32"
    revision: str | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"got max_length={self.max_length}; expected at least 1 token; change it")
        _check_dtype(self.dtype, "text encoder")


def _check_dtype(dtype: str, what: str) -> None:
    from flexivid.runtime.device import DTYPES

    if dtype not in DTYPES:
        raise ValueError(f"got {what} dtype {dtype!r}; expected one of {', '.join(DTYPES)}; choose one")


def codec_settings(codec: str | Mapping[str, Any] | CodecSettings) -> CodecSettings:
    """Settings of a codec, from its source alone or from plain data; an unknown setting is a ``ValueError``.

    Example:
        >>> codec_settings("pixel") == codec_settings({"source": "pixel"}) == CodecSettings()
        True
    """
    return _read(codec, CodecSettings, "codec setting")


def text_settings(encoder: str | Mapping[str, Any] | TextSettings) -> TextSettings:
    """Settings of a text encoder, likewise."""
    return _read(encoder, TextSettings, "setting of the text encoder")


def require_fingerprint(kind: str, source: str, fingerprint: str, expected: str | None, *, why: str) -> None:
    """Refuse a codec or text encoder (``kind``) from ``source`` whose weights are not those that are needed.

    ``expected=None`` = unknown, so that any will do. ``why`` ends the message: what the needed one did, what to do.
    """
    if expected not in (None, fingerprint):
        raise ValueError(f"got {kind} {source} of fingerprint {fingerprint}; expected {expected}, {why}")


def _read(value: Any, kind: type[_S], what: str) -> _S:
    if isinstance(value, kind):
        return value
    plain = {"source": value} if isinstance(value, str) else value
    check_keys(plain, [f.name for f in fields(kind)], what=what)
    return kind(**plain)
