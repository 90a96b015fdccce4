"""The clips of an encoded folder, one part of it: latents and text features out of files mapped into memory.

Clips have the numbers that they have in the collection, so that a run draws the same batches from either, and captions
are drawn as there. Imports neither a codec nor a text encoder.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flexivid.data.clips.buckets import Bucket
from flexivid.data.clips.dataset import Address, ClipDataset, draw_caption
from flexivid.data.clips.loader import Batch, described
from flexivid.data.clips.trainer_state import FollowsRun
from flexivid.data.encoded.folder import TABLE, TEXT, Encoded, End, Shard, is_encoded, open_encoded
from flexivid.runtime.files import atomic_write

OPEN_SHARDS = 256  # files mapped at a time
AHEAD = 3  # batches that threads read ahead
FEATURES, ENDS, LATENTS = "features", "ends", "latents"


def write_shard(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors into a file, which is there as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=metadata)


def open_shard(file: str) -> Any:
    """Map a file of tensors into memory; ``ValueError`` if it is not there or damaged."""
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"got {file}, which cannot be read ({error}); expected what dataset encode wrote; remove it and"
            " finished.json, and encode again"
        ) from error


def make_table(
    parts: dict[str, ClipDataset], captions: dict[str, list[tuple[str, ...]]]
) -> tuple[dict[str, Tensor], list[str]]:
    """Number the captions, given by part and video, and list the class and the captions of every clip.

    Returns the contents of ``clips.safetensors``; and the different captions, in the order of their numbers.
    """
    numbers: dict[str, int] = {}
    table: dict[str, Tensor] = {}
    for part, dataset in parts.items():
        rows = np.repeat(np.arange(len(dataset.videos)), dataset.counts)
        ids = [[numbers.setdefault(text, len(numbers)) for text in texts] for texts in captions[part]]
        of_clip = [ids[row] for row in rows]
        table[f"{part}.label"] = torch.from_numpy(dataset.videos.label[rows].astype(np.int64))
        table[f"{part}.caption"] = torch.tensor([number for each in of_clip for number in each], dtype=torch.long)
        table[f"{part}.caption_end"] = torch.tensor([len(each) for each in of_clip], dtype=torch.long).cumsum(0)
    texts = [text.encode() for text in numbers]
    table["text"] = torch.from_numpy(np.frombuffer(b"".join(texts), np.uint8).copy())
    table["text_end"] = torch.tensor([len(text) for text in texts], dtype=torch.long).cumsum(0)
    return table, list(numbers)


class EncodedClips:
    """Clips of one part of an encoded folder, ``train`` or ``held_out``, in the place of a ``ClipDataset``.

    ``seed`` is that of the draw of captions; ``missing`` are the clips without a latent.
    """

    def __init__(
        self, folder: str | os.PathLike[str], encoded: Encoded, part: str, *, seed: int, missing: Iterable[int] = ()
    ) -> None:
        self.folder, self.encoded, self.part = os.fspath(folder), encoded, part
        self.settings = encoded.clips._replace(seed=seed)
        self.missing = frozenset(missing)
        self.has_captions = encoded.num_captions > 0
        self.buckets = (Bucket(encoded.clips.num_frames, *encoded.clips.size),)
        self.fps = encoded.fps
        try:
            table = load_file(Path(folder, TABLE))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"got {folder} without a good {TABLE} ({error}); encode into a new folder") from error
        self._labels, self._texts, self._text_ends = table[f"{part}.label"], table["text"], table["text_end"]
        self._captions, self._ends = table[f"{part}.caption"], table[f"{part}.caption_end"]
        self._open = lru_cache(maxsize=OPEN_SHARDS)(open_shard)

    def __len__(self) -> int:
        return self.encoded.num_clips[self.part]

    def label(self, clip: int) -> int:
        """Class of a clip, -1 without classes."""
        return int(self._labels[clip])

    def caption(self, clip: int, epoch: int = 0) -> str:
        """Words for a clip, empty without captions; of several, one drawn by (seed, epoch, clip)."""
        if not self.has_captions:
            return ""
        begin, end = _span(self._text_ends, self.caption_number(clip, epoch))
        return self._texts[begin:end].numpy().tobytes().decode()

    def caption_number(self, clip: int, epoch: int = 0) -> int:
        """Number of the caption of a clip in an epoch."""
        begin, end = _span(self._ends, clip)
        return int(self._captions[begin + draw_caption(end - begin, (clip, epoch), seed=self.settings.seed)])

    def latent(self, clip: int) -> Tensor:
        """Latent of a clip, (c, t, h, w), as it is stored."""
        shard, index = self._shard(self.part, clip, self.encoded.clips_per_shard)
        return shard.get_slice(LATENTS)[index]

    def text(self, number: int) -> Tensor:
        """Features of a caption, (tokens, f), as they are stored."""
        shard, index = self._shard(TEXT, number, self.encoded.captions_per_shard)
        begin, end = _span(shard.get_tensor(ENDS), index)
        return shard.get_slice(FEATURES)[begin:end]

    def bucket(self, clip: int) -> int:
        """All clips have one shape."""
        return 0

    def clips_by_bucket(self) -> list[np.ndarray]:
        """All clips, int64."""
        return [np.arange(len(self))]

    def present(self, address: Address) -> Address:
        """Return the address if its clip has a latent, else that of the next clip that has one.

        ``ValueError`` if no clip has one.
        """
        if len(self.missing) == len(self):
            raise ValueError(
                f"got {self.folder}, where none of the {len(self)} clips ({self.part}) has a latent; expected at least"
                " one; replace the files that bad_videos.jsonl in it lists, and encode into a new folder"
            )
        clip, epoch = address
        while clip in self.missing:
            clip = (clip + 1) % len(self)
        return clip, epoch

    def without_missing(self, batches: Iterable[list[Address]]) -> list[list[Address]]:
        """Return batches without the clips that have no latent; empty ones are left out.

        If that leaves none, one address stays, whose clip another replaces: other ranks wait for one without a batch.
        """
        batches = list(batches)
        remaining = [[address for address in batch if address[0] not in self.missing] for batch in batches]
        can_replace = len(self.missing) < len(self)
        return [batch for batch in remaining if batch] or [batch[:1] for batch in batches[:can_replace]]

    def _shard(self, part: str, item: int, size: int) -> tuple[Any, int]:
        name = Shard(part, item // size, 0, 0).name
        return self._open(f"{self.folder}/{name}"), item % size


class EncodedSet(NamedTuple):
    """All parts of a finished folder."""

    folder: str
    encoded: Encoded
    end: End

    def part(self, name: str, *, seed: int = 0) -> EncodedClips | None:
        """The clips of a part, ``train`` or ``held_out``; ``None`` where there is no such part."""
        if name not in self.encoded.num_clips:
            return None
        return EncodedClips(self.folder, self.encoded, name, seed=seed, missing=self.end.missing[name])

    @property
    def num_missing(self) -> int:
        """Clips of all parts without a latent."""
        return sum(map(len, self.end.missing.values()))


def open_if_encoded(root: str) -> EncodedSet | None:
    """Return the contents of an encoded folder, ``None`` for another one; ``ValueError`` if it is not finished.

    >>> open_if_encoded("nowhere") is None
    True
    """
    return EncodedSet(root, *open_encoded(root)) if is_encoded(root) else None


def _span(ends: Tensor, index: int) -> tuple[int, int]:
    return int(ends[index - 1]) if index else 0, int(ends[index])


class EncodedLoader(FollowsRun):
    """An iterable of batches. Iterating again starts anew.

    ``latent`` is float32 (b, c, t, h, w); ``label`` and ``caption`` are as a ``ClipLoader`` gives them. Where captions
    were encoded, there are ``text_features``, float32 (b, l, f), zero behind the last token, and ``text_mask``, bool
    (b, l). Another clip takes the place of one without a latent.
    """

    def __init__(self, dataset: EncodedClips, batches: Iterable[list[Address]]) -> None:
        self.dataset, self.batches = dataset, batches
        self.pin_memory = torch.cuda.is_available()

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        ahead: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="encoded")
        try:
            for addresses in self.batches:
                ahead.append(pool.submit(self._batch, addresses))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, addresses: list[Address]) -> Batch:
        clips = [self.dataset.present(address) for address in addresses]
        batch = {"latent": torch.stack([self.dataset.latent(clip) for clip, _ in clips]).float()}
        if self.dataset.encoded.text_encoder is not None:
            batch |= self._text([self.dataset.caption_number(*clip) for clip in clips])
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()} if self.pin_memory else batch
        return {**batch, **described(self.dataset, clips)}

    def _text(self, captions: list[int]) -> dict[str, Tensor]:
        texts = [self.dataset.text(number) for number in captions]
        lengths = torch.tensor([len(text) for text in texts])
        features = torch.zeros(len(texts), max(1, int(lengths.max())), self.dataset.encoded.text_channels)
        for row, text in zip(features, texts, strict=True):
            row[: len(text)] = text
        return {"text_features": features, "text_mask": torch.arange(features.shape[1]) < lengths[:, None]}
