"""Make the shards of an encoded folder. Any number of processes may share it, and any of them may die at any moment.

A process claims a shard by a lock, which it loses when it dies: then another one makes it, or the next run.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.decoding.probe import VideoError
from flexivid.data.encoded.clips import ENDS, FEATURES, LATENTS, open_shard, write_shard
from flexivid.data.encoded.folder import END, TEXT, Encoded, End, Shard
from flexivid.data.workers.pool import DecodePool, DecoderDiedError, outcomes
from flexivid.latents.text_encoder import CutCaptionWarning
from flexivid.media.pixels import to_unit
from flexivid.runtime.device import DTYPES
from flexivid.runtime.files import locked, save_json

POLL_SECONDS = 0.5
MISSING = "missing"


class Failure(NamedTuple):
    """A clip that has no latent."""

    clip: int
    path: str
    reason: str  # what is wrong with the file


def share(
    folder: Path, shards: Sequence[Shard], make: Callable[[Shard], None], *, rank: int, size: int
) -> Iterator[Shard]:
    """Make the missing shards, together with other processes; yield every shard once it is there, whoever has made it.

    This process, number ``rank`` of the ``size`` that are known to share the work, begins with its own share, and
    continues with those of others. More may join.

    >>> import tempfile
    >>> folder, shards = Path(tempfile.mkdtemp()), [Shard("train", number, 8 * number, 8) for number in range(3)]
    >>> [shard.number for shard in share(folder, shards, lambda shard: (folder / shard.name).touch(), rank=1, size=2)]
    [1, 0, 2]
    """
    pending = [shard for share in range(size) for shard in shards[(rank + share) % size :: size]]
    while pending:
        rest = []
        for shard in pending:
            file = folder / shard.name
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                with locked(file, wait=False) as is_ours:
                    if is_ours and not file.is_file():  # another process may have made it just now
                        make(shard)
            if file.is_file():
                yield shard
            else:
                rest.append(shard)
        if len(rest) == len(pending):
            time.sleep(POLL_SECONDS)
        pending = rest


class TextWork:
    """Encodes captions, each by itself: features do not depend on what else is encoded.

    ``encode`` makes of a caption its features without padding, (tokens, f).
    """

    def __init__(self, folder: Path, captions: Sequence[str], encode: Callable[[str], Tensor], dtype: str) -> None:
        self.folder, self.captions, self.encode, self.dtype = folder, captions, encode, DTYPES[dtype]
        self.warning, self.num_warnings = "", 0

    def __call__(self, shard: Shard) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            captions = self.captions[shard.first : shard.first + shard.length]
            texts = [self.encode(text).to("cpu", self.dtype) for text in captions]
        for each in caught:
            if issubclass(each.category, CutCaptionWarning):
                self.num_warnings += 1
                self.warning = self.warning or str(each.message)
            else:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        ends = torch.tensor([len(text) for text in texts]).cumsum(0)
        write_shard(self.folder / shard.name, {FEATURES: torch.cat(texts), ENDS: ends})

    def report(self) -> None:
        """Warn once about captions that the encoder has cut."""
        if self.num_warnings:
            warnings.warn(f"{self.warning}; likewise {self.num_warnings - 1} others encoded here", stacklevel=2)


class ClipWork:
    """Decodes clips in a pool, and encodes each by itself with a codec on ``device``.

    ``on_clip`` is called for each clip that was tried, ``on_bad`` with path and reason for each that cannot be decoded.
    """

    def __init__(  # noqa: PLR0913
        self,
        folder: Path,
        encoded: Encoded,
        parts: dict[str, ClipDataset],
        *,
        codec: Any,
        device: torch.device,
        pool: DecodePool,
        on_clip: Callable[[], None],
        on_bad: Callable[[str, str], object],
    ) -> None:
        self.folder, self.encoded, self.parts = folder, encoded, parts
        self.codec, self.device, self.pool, self.on_bad = codec, device, pool, on_bad
        self.on_clip, self.shards = on_clip, set[Shard]()  # those that were made here
        self._died: dict[str, str] = {}  # files that hang or kill decoders: trying each of their clips takes too long

    def __call__(self, shard: Shard) -> None:
        latents = torch.zeros(shard.length, *self.encoded.latent_size, dtype=DTYPES[self.encoded.dtype])
        failures: list[Failure] = []
        for clip, frames in self._decoded(shard, failures):
            if isinstance(frames, VideoError):
                if isinstance(frames, DecoderDiedError):
                    self._died[frames.path] = frames.reason
                failures.append(Failure(clip, frames.path, frames.reason))
                self.on_bad(frames.path, frames.reason)
            else:
                latents[clip - shard.first] = self._encoded(frames, clip, shard)
            self.on_clip()
        self.shards.add(shard)
        metadata = {MISSING: json.dumps(sorted(failures))}
        write_shard(self.folder / shard.name, {LATENTS: latents}, metadata)

    def _decoded(self, shard: Shard, failures: list[Failure]) -> Iterator[tuple[int, Any]]:
        dataset = self.parts[shard.part]

        def requests() -> Iterator[tuple[int, Any]]:
            for clip in range(shard.first, shard.first + shard.length):
                request = dataset.plan((clip, 0))
                if request.path in self._died:
                    failures.append(Failure(clip, request.path, self._died[request.path]))
                else:
                    yield clip, request

        return outcomes(requests(), self.pool)

    def _encoded(self, frames: np.ndarray, clip: int, shard: Shard) -> Tensor:
        pixels = torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2).contiguous()  # t h w c -> c t h w
        latent = self.codec.encode(to_unit(pixels[None].to(self.device)))[0].cpu()
        if not latent.isfinite().all():
            path = self.parts[shard.part].plan((clip, 0)).path
            raise ValueError(
                f"got a latent that is not finite, of {path} by {self.encoded.codec.source}; expected numbers; use"
                " --codec-dtype bf16 or fp32"
            )
        return latent


def failures_of(folder: Path, shard: Shard) -> list[Failure]:
    """The clips of a shard that are missing."""
    with open_shard(str(folder / shard.name)) as file:
        return [Failure(*failure) for failure in json.loads(file.metadata()[MISSING])]


def end_of(folder: Path, encoded: Encoded, bad: dict[str, str]) -> End:
    """Return what is missing, now that all shards are there; ``bad`` are files that failed before, and why."""
    clips: dict[str, list[int]] = {}
    for part in encoded.num_clips:
        failures = [failure for shard in encoded.shards(part) for failure in failures_of(folder, shard)]
        bad = {failure.path: failure.reason for failure in failures} | bad
        clips[part] = [failure.clip for failure in failures]
    return End(clips, bad)


def finish(folder: Path, encoded: Encoded, end: End) -> None:
    """Mark a folder as complete, and remove the partial files and locks of processes that died."""
    save_json(folder / END, end._asdict(), indent=1)
    for each in {folder, *((folder / shard.name).parent for shard in [*encoded.latent_shards, *encoded.shards(TEXT)])}:
        for file in [*each.glob("*.part"), *each.glob(".*.lock")]:
            file.unlink(missing_ok=True)


def check_shards(folder: Path, encoded: Encoded) -> list[str]:
    """Names of shards that are not as long as they should be, or cannot be read."""
    damaged = []
    for shard in [*encoded.shards(TEXT), *encoded.latent_shards]:
        try:
            with safe_open(str(folder / shard.name), framework="pt") as file:
                rows = file.get_slice(ENDS if shard.part == TEXT else LATENTS).get_shape()[0]
        except Exception:  # of the library, of several kinds
            rows = -1
        damaged += [shard.name] * (rows != shard.length)
    return damaged
