"""Features of videos in blocks: which blocks a rank makes, and where finished blocks are kept.

A block is a few neighbouring videos, made in one call of a network. Blocks are kept in files, so that an interrupted
evaluation goes on and ranks need no connection; or in memory, for ranks of one process group. Videos are not kept: an
mp4 would change the distance, and raw pixels take a thousand times the room of features (1.6 KB a video for I3D).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flexivid.evaluation.clips import ClipSet, read_blocks
from flexivid.media.pixels import to_unit
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.protocol import Protocol
from flexivid.runtime.distributed import gathered
from flexivid.runtime.files import atomic_write

Block = dict[str, Tensor]


def blocks_of(num_videos: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """A rank's share: whole blocks of neighbouring indices, dealt out in turn.

    A block depends on ``num_videos`` and ``batch_size`` alone, so kernels give the same features on any number of
    ranks. With fewer blocks than ranks some ranks are idle: lower ``batch_size``.

    Example:
        >>> blocks_of(7, 2), blocks_of(7, 2, rank=1, world_size=2)
        ([[0, 1], [2, 3], [4, 5], [6]], [[2, 3], [6]])
    """
    firsts = range(rank * batch_size, num_videos, world_size * batch_size)
    return [list(range(first, min(first + batch_size, num_videos))) for first in firsts]


@torch.no_grad()
def extract(extractor: Extractor, videos: Tensor) -> Tensor:
    """Features of uint8 videos (b, 3, t, h, w): float32 (b, d), on the CPU."""
    state = chain(extractor.parameters(), extractor.buffers())
    device = next((tensor.device for tensor in state), torch.device("cpu"))
    return extractor(to_unit(videos.to(device))).float().cpu()


def check_frames(extractor: Extractor, num_frames: int) -> None:
    """Refuse videos too short for an extractor."""
    if num_frames < extractor.min_frames:
        raise ValueError(
            f"got videos of {num_frames} frames; expected at least {extractor.min_frames} for metric {extractor.name};"
            " raise num_frames or choose another metric, e.g. motion"
        )


class BlockFolder:
    """Blocks of one kind, each a safetensors file named by its first index, in a folder of their own below ``root``.

    The key is everything that the blocks depend on, plain data. It names the folder, so nothing stale is ever read.

    Example:
        >>> import tempfile
        >>> blocks = BlockFolder(tempfile.mkdtemp(), {"seed": 0})
        >>> blocks.write([4, 5], {"features": torch.ones(2, 3)})
        >>> blocks.read([4, 5])["features"].shape, blocks.read([4, 5, 6]), blocks.read([0, 1])
        (torch.Size([2, 3]), None, None)
    """

    def __init__(self, root: str | Path, key: dict[str, Any]) -> None:
        self._key = json.dumps(key, sort_keys=True, default=str)
        self.folder = Path(root) / hashlib.sha256(self._key.encode()).hexdigest()[:16]

    def has(self, indices: Sequence[int]) -> bool:
        """Whether there is a file for a block; it may be of another length."""
        return self._path(indices).is_file()

    def read(self, indices: Sequence[int]) -> Block | None:
        """The tensors of a block; ``None`` if it is not there, damaged, or of other indices."""
        try:
            return _matching(indices, load_file(self._path(indices)))
        except (OSError, SafetensorError):
            return None

    def write(self, indices: Sequence[int], tensors: Block) -> None:
        """Add a block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with atomic_write(self._path(indices)) as part:  # two ranks may make the same block
            save_file({**tensors, "indices": torch.tensor(list(indices))}, part, metadata={"key": self._key})

    def share(self) -> None:
        """Nothing to do: the ranks share the folder."""

    def _path(self, indices: Sequence[int]) -> Path:
        return self.folder / f"{indices[0]:06d}.safetensors"


class BlockMemory:
    """Blocks that live as long as this process; ranks of a process group can share theirs.

    Example:
        >>> blocks = BlockMemory()
        >>> blocks.write([4, 5], {"features": torch.ones(2, 3)})
        >>> blocks.has([4, 5]), blocks.read([4, 5, 6]), blocks.read([4, 5])["features"].shape
        (True, None, torch.Size([2, 3]))
    """

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}

    def has(self, indices: Sequence[int]) -> bool:
        """Whether there is a block with this first index."""
        return indices[0] in self._blocks

    def read(self, indices: Sequence[int]) -> Block | None:
        """The tensors of a block; ``None`` if it is not there or of other indices."""
        return _matching(indices, self._blocks.get(indices[0], {}))

    def write(self, indices: Sequence[int], tensors: Block) -> None:
        """Add a block."""
        self._blocks[indices[0]] = {**tensors, "indices": torch.tensor(list(indices))}

    def share(self) -> None:
        """Give every rank the blocks of all; all ranks must call it."""
        for blocks in gathered(self._blocks):
            self._blocks |= blocks


def _matching(indices: Sequence[int], block: Block) -> Block | None:
    return block if "indices" in block and block["indices"].tolist() == list(indices) else None


class ClipFeatures:
    """Features of the clips of a set, in blocks of ``batch_size``; no block is made twice.

    Blocks are in a folder, or else in memory. One decoding process a core, unless their number is given.
    """

    def __init__(
        self,
        extractor: Extractor,
        clips: ClipSet,
        root: Path | None = None,
        *,
        batch_size: int = 16,
        num_workers: int | None = None,
    ) -> None:
        self.extractor, self.clips = extractor, clips
        self.batch_size, self.num_workers = batch_size, num_workers
        key = {"clips": clips.fingerprint, "extractor": extractor.fingerprint}
        self.store = BlockFolder(root, key) if root else BlockMemory()

    def blocks(self, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        """A rank's share of the clips."""
        return blocks_of(len(self.clips), self.batch_size, rank, world_size)

    def protocol(self, size: tuple[int, int, int], num_videos: int, *, seed: int, sampling: str = "{}") -> Protocol:
        """How distances of generated videos (frames, height, width) to these clips are measured, see ``Protocol``."""
        num_frames, height, width = size
        return Protocol(
            metric=self.extractor.metric_name,
            extractor_fingerprint=self.extractor.fingerprint,
            preprocessing=self.extractor.preprocessing,
            num_frames=num_frames,
            height=height,
            width=width,
            stride=self.clips.dataset.settings.stride,
            fps=self.clips.fps,
            num_videos=num_videos,
            num_reference=len(self.clips),
            reference=self.clips.fingerprint,
            reference_split=self.clips.split,
            seed=seed,
            sampling=sampling,
        )

    @property
    def num_done(self) -> int:
        """Clips whose features are in the store."""
        return sum(len(block) for block in self.blocks() if self.store.has(block))

    def each(self, blocks: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Features of blocks, (b, d) each; clips that cannot be decoded have none."""
        stored = [self.store.read(block) for block in blocks]
        missing = [block for block, tensors in zip(blocks, stored, strict=True) if tensors is None]
        decoded = read_blocks(self.clips, missing, num_workers=self.num_workers)
        for tensors in stored:
            if tensors is None:
                block, videos = next(decoded)
                empty = torch.empty(0, self.extractor.num_features)
                tensors = {"features": extract(self.extractor, videos) if len(videos) else empty}
                self.store.write(block, tensors)
            yield tensors["features"]

    def all(self) -> Tensor:
        """Features of all clips, (n, d)."""
        return torch.cat(list(self.each(self.blocks())))
