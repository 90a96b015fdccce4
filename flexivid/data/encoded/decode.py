"""Pixels of encoded clips, for looking at them, and for a comparison where their videos are gone. Loads the codec."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from flexivid.data.clips.windows import ClipSettings
from flexivid.data.encoded.clips import EncodedClips, EncodedSet
from flexivid.data.encoded.folder import HELD_OUT, TRAIN, open_encoded
from flexivid.data.sources.layout import Collection
from flexivid.latents.codec import build_codec
from flexivid.latents.settings import require_fingerprint
from flexivid.media.pixels import to_bytes
from flexivid.runtime.device import pick_device
from flexivid.runtime.files import atomic_write, locked
from flexivid.runtime.paths import is_remote, resolve

MOST_DECODED = 2048  # clips, which FVD is usually measured on


class RealClips(NamedTuple):
    """Where the real clips of an encoded folder are, and how they are cut out."""

    collection: Collection
    settings: ClipSettings
    note: str = ""  # what is special about them; empty where they are the videos that were encoded


def real_clips_of(folder: str | os.PathLike[str]) -> RealClips:
    """Return the real clips that generated ones are compared with: those of the source of an encoded folder.

    Where the source is gone, the held-out latents are decoded once, at most 2048 of them, into ``decoded/`` in the
    folder. They have the errors of the codec, which ``note`` says. Only with its source may the folder be unfinished.
    ``ValueError`` if the folder cannot be read, or the codec cannot be loaded.
    """
    folder = Path(resolve(folder))
    data = EncodedSet(os.fspath(folder), *open_encoded(folder))
    encoded = data.encoded
    if is_remote(encoded.source.root) or os.path.exists(encoded.source.root):
        return RealClips(encoded.source, encoded.clips)
    part = HELD_OUT if encoded.num_clips.get(HELD_OUT, 0) > 1 else TRAIN  # a distance needs two
    target = folder / "decoded" / part
    target.parent.mkdir(exist_ok=True)
    with locked(target):
        if not target.is_dir():
            _write_pictures(data, part, target)
    settings = encoded.clips._replace(stride=1, fps=encoded.fps or None, windows="first", clips_per_video=None)
    return RealClips(Collection(str(target), "flat"), settings, f"{part}, decoded latents")


def decoded(clips: EncodedClips, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Decode some clips of an encoded folder; yield number and frames, uint8 (t, h, w, 3), of those that have a latent.

    ``ValueError`` if the codec cannot be loaded, or is not the one that made the latents.
    """
    encoded, device = clips.encoded, pick_device()
    codec = build_codec(encoded.codec).to(device)
    why = f"which made the latents in {clips.folder}; bring its weights back"
    require_fingerprint("codec", encoded.codec.source, codec.fingerprint, encoded.codec_fingerprint, why=why)
    for number in numbers:
        if number not in clips.missing:
            latent = clips.latent(number)[None].to(device, torch.float32)
            video = codec.decode(latent, frames=encoded.clips.num_frames)[0]
            yield number, to_bytes(video).permute(1, 2, 3, 0).cpu().numpy()


def _write_pictures(data: EncodedSet, part: str, target: Path) -> None:
    """A folder of pictures for each clip: lossless, and read like any video."""
    clips = data.part(part)
    assert clips is not None
    count = min(MOST_DECODED, len(clips))
    with atomic_write(target) as root:
        for number, frames in decoded(clips, [i * len(clips) // count for i in range(count)]):
            (root / f"{number:06d}").mkdir(parents=True)
            for index, frame in enumerate(frames):
                Image.fromarray(frame).save(root / f"{number:06d}" / f"{index:04d}.png")
