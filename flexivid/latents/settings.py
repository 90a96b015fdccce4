"""Which codec is meant, and how it computes: plain data that a recipe keeps. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from flexivid.runtime.errors import nearest


@dataclass(frozen=True)
class CodecSettings:
    """A codec and how it computes.

    Args:
        source: ``pixel``; a folder of an autoencoder, or of a pipeline with one in ``vae/``; or the id of such a model
            on the hub.
        dtype: Precision of its weights and arithmetic: ``fp32``, ``bf16`` or ``fp16``. Latents are float32 anyway.
        tile: Side in pixels of the square tiles that larger pictures are cut into; tiles overlap by a quarter and are
            blended. ``None`` = pictures are never cut.
        sample: Draw latents from the posterior instead of taking its mode.
        frames: Frames that an image autoencoder sees at once. Video autoencoders have chunks of their own.

    Raises:
        ValueError: If a value makes no sense.

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
        from flexivid.runtime.device import DTYPES

        if self.dtype not in DTYPES:
            raise ValueError(f"got codec dtype {self.dtype!r}; expected one of {', '.join(DTYPES)}; choose one")
        if self.frames < 1 or (self.tile is not None and self.tile < 1):
            raise ValueError(
                f"got codec frames={self.frames}, tile={self.tile}; expected at least 1; change the codec's settings"
            )

    def to_plain(self) -> dict[str, Any]:
        """The settings that are not the defaults, and the source."""
        plain = asdict(self)
        return {f.name: plain[f.name] for f in fields(self) if f.name == "source" or plain[f.name] != f.default}


def codec_settings(codec: str | Mapping[str, Any] | CodecSettings) -> CodecSettings:
    """Read what names a codec: its source alone, or settings as plain data.

    Raises:
        ValueError: If there is no such setting.

    Example:
        >>> codec_settings("pixel") == codec_settings({"source": "pixel"}) == CodecSettings()
        True
    """
    if isinstance(codec, CodecSettings):
        return codec
    if isinstance(codec, str):
        return CodecSettings(codec)
    names = [f.name for f in fields(CodecSettings)]
    unknown = [name for name in codec if name not in names]
    if unknown:
        raise ValueError(
            f"got codec setting {unknown[0]}; expected one of {', '.join(names)}; {nearest(unknown[0], names)}"
        )
    return CodecSettings(**codec)
