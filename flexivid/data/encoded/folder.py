"""An encoded folder: clips and captions of a collection that a codec and a text encoder have coded, once.

    encoded.json                        what all other files mean; written before any shard
    clips.safetensors                   class and captions of every clip, and the texts
    latents/PART/000000.safetensors     latents of clips that follow each other, (n, c, t, h, w)
    text/000000.safetensors             features of captions that follow each other, (tokens, f), and where each ends
    finished.json                       the clips that are missing, and why; written last

``encoded.json`` fixes which clips are in which shard, and a shard appears under its name only when it is complete: the
shards that are there say what has been done. Imports no torch.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from flexivid.data.clips.windows import ClipSettings
from flexivid.data.sources.layout import Collection
from flexivid.latents.settings import CodecSettings, TextSettings, codec_settings, text_settings
from flexivid.runtime.paths import resolve

PLAN, TABLE, END = "encoded.json", "clips.safetensors", "finished.json"
TRAIN, HELD_OUT = "train", "held_out"
TEXT = "text"
VERSION = 1


class Shard(NamedTuple):
    """A file of an encoded folder.

    >>> Shard("train", 2, 20, 10).name
    'latents/train/000002.safetensors'
    """

    part: str  # ``train``, ``held_out``, or ``text`` for captions
    number: int  # its place in the part, from 0
    first: int  # number of its first clip or caption
    length: int  # number of its clips or captions

    @property
    def name(self) -> str:
        """Path of the file in the folder."""
        return f"{self.part if self.part == TEXT else f'latents/{self.part}'}/{self.number:06d}.safetensors"


@dataclass(frozen=True)
class Encoded:
    """What an encoded folder holds, and what it was made of.

    >>> size = {"codec": CodecSettings(), "codec_fingerprint": "pixel", "latent_size": (3, 8, 32, 32)}
    >>> encoded = Encoded(Collection("videos"), ClipSettings(), "1f3a", {"train": 150}, (), 8.0, **size)
    >>> [shard.length for shard in encoded.shards("train")]
    [64, 64, 22]
    >>> Encoded.from_plain(json.loads(json.dumps(encoded.to_plain()))) == encoded
    True
    """

    source: Collection
    clips: ClipSettings  # how they were cut out of the videos
    contents: str  # hash of the videos, classes and captions of all parts
    num_clips: dict[str, int]  # by the name of the part
    class_names: tuple[str, ...]  # the classes; empty without
    fps: float  # frames a second of the clips; 0 where unknown
    codec: CodecSettings
    codec_fingerprint: str  # of its weights; likewise ``text_fingerprint``
    latent_size: tuple[int, int, int, int]  # of a clip, (c, t, h, w)
    text_encoder: TextSettings | None = None  # ``None`` = captions are kept as texts only
    text_fingerprint: str | None = None
    text_channels: int = 0  # features of a token; 0 without a text encoder
    num_captions: int = 0  # different captions; 0 without captions
    dtype: str = "fp32"  # of what is stored: ``fp32`` or ``bf16``
    clips_per_shard: int = 64  # in each but the last one of a part; likewise captions
    captions_per_shard: int = 256
    num_too_short: int = 0  # videos that were left out since they are shorter than a clip

    def shards(self, part: str) -> list[Shard]:
        """The shards of a part, or of ``text``."""
        if part == TEXT:
            total, size = self.num_captions * (self.text_encoder is not None), self.captions_per_shard
        else:
            total, size = self.num_clips[part], self.clips_per_shard
        return [Shard(part, i, first, min(size, total - first)) for i, first in enumerate(range(0, total, size))]

    @property
    def latent_shards(self) -> list[Shard]:
        """The shards of all parts."""
        return [shard for part in self.num_clips for shard in self.shards(part)]

    def to_plain(self) -> dict[str, Any]:
        plain = asdict(self) | {"codec": self.codec.to_plain(), "clips": self.clips._asdict()}
        plain |= {"source": self.source._asdict(), "version": VERSION}
        return plain | {"text_encoder": self.text_encoder and self.text_encoder.to_plain()}

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Encoded:
        """What ``to_plain`` returned, JSON in between or not."""
        if plain.pop("version", None) != VERSION:
            raise ValueError("of another version of flexivid")
        clips = ClipSettings(**plain.pop("clips"))
        text = plain.pop("text_encoder")
        return Encoded(
            source=Collection(**plain.pop("source")),
            clips=clips._replace(size=(clips.size[0], clips.size[1])),
            codec=codec_settings(plain.pop("codec")),
            text_encoder=text and text_settings(text),
            class_names=tuple(plain.pop("class_names")),
            latent_size=tuple(plain.pop("latent_size")),
            **plain,
        )

    def __str__(self) -> str:
        parts = " and ".join(f"{count} clips ({part})" for part, count in self.num_clips.items())
        words = f"{self.num_captions} captions" * bool(self.num_captions)
        words += f" by {self.text_encoder.source}" if self.text_encoder else ""
        height, width = self.clips.size
        shape = f"{self.clips.num_frames} frames of {width}x{height}"
        return ", ".join(filter(None, (parts, shape, f"by {self.codec.source}, {self.dtype}", words)))


class End(NamedTuple):
    """What is missing in a finished folder."""

    missing: dict[str, list[int]]  # by part: clips without a latent, in order
    bad: dict[str, str]  # files that cannot be decoded, and why


def is_encoded(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds encoded clips, finished or not.

    >>> is_encoded("nowhere")
    False
    """
    return os.path.isfile(os.path.join(resolve(root), PLAN))


def read_encoded(folder: str | os.PathLike[str]) -> Encoded:
    """Read the description of a folder; ``ValueError`` if that fails."""
    return _read(Path(folder, PLAN), Encoded.from_plain)


def read_end(folder: str | os.PathLike[str]) -> End | None:
    """Read what is missing in a folder, ``None`` where it is not finished; ``ValueError`` if that fails."""
    file = Path(folder, END)
    return _read(file, lambda plain: End(plain["missing"], plain["bad"])) if file.is_file() else None


def _read(file: Path, parse: Any) -> Any:
    try:
        return parse(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"got {file}, which cannot be read ({error}); expected what dataset encode wrote; encode into a new folder"
        ) from error


def open_encoded(folder: str | os.PathLike[str]) -> tuple[Encoded, End]:
    """Read a finished folder; ``ValueError`` if it is not finished."""
    encoded, end = read_encoded(folder), read_end(folder)
    if end is None:
        present = [Path(folder, shard.name).is_file() for shard in [*encoded.shards(TEXT), *encoded.latent_shards]]
        raise ValueError(
            f"got {folder}, where {sum(present)} of {len(present)} shards are encoded;"
            " expected all; go on with the command that began it: dataset encode"
        )
    return encoded, end


def refuse_change(folder: str | os.PathLike[str], before: Encoded, now: Encoded) -> None:
    """Raise ``ValueError`` if a folder would mix clips of different kinds; only the place of the videos may change."""
    plain, news = before.to_plain(), now.to_plain()
    for name in [f.name for f in fields(Encoded) if f.name != "source"]:
        old, new = plain[name], news[name]
        if old != new and isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            old, new = ({key: value.get(key) for key in keys} for value in (old, new))
        if old != new:
            raise ValueError(
                f"got {name} {_words(new)} for {folder}, which holds clips with {name} {_words(old)}; expected one"
                " codec, text encoder and kind of clips in a folder; encode into another folder, or as before"
            )


def _words(value: Any) -> str:
    return ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def stored_settings(folder: str, encoded: Encoded, asked: ClipSettings) -> ClipSettings:
    """Return the settings of the clips of a folder, with the seed asked for.

    ``ValueError`` if a setting of the run is neither its default nor that of the folder.

    >>> size = {"codec": CodecSettings(), "codec_fingerprint": "pixel", "latent_size": (3, 16, 32, 32)}
    >>> encoded = Encoded(Collection("videos"), ClipSettings(num_frames=16), "1f3a", {"train": 9}, (), 8.0, **size)
    >>> stored_settings("latents", encoded, ClipSettings(seed=3))[:4]
    (16, (32, 32), 1, 3)
    """
    defaults, stored = ClipSettings(), encoded.clips._replace(seed=asked.seed)
    for name, value in asked._replace(decoder=stored.decoder)._asdict().items():  # nothing is decoded any more
        if value not in (getattr(defaults, name), getattr(stored, name)):
            raise ValueError(
                f"got data.{name}={value} for {folder}, whose clips were encoded with {name}={getattr(stored, name)};"
                f" expected the same; leave data.{name} out, or encode clips as you want them into another folder"
            )
    return stored
