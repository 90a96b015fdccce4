"""Features of real clips, or of any videos in a folder, block by block, each block once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from flexivid.evaluation.clips import ClipSet, read_blocks
from flexivid.evaluation.samples import blocks_of, extract
from flexivid.evaluation.store import BlockFolder
from flexivid.metrics.extractors.extractor import Extractor


class ClipFeatures:
    """Features of a set of clips, kept in files.

    Args:
        extractor: Turns videos into features.
        clips: The videos.
        root: The folder that holds the blocks.
        batch_size: Clips of a block.
    """

    def __init__(self, extractor: Extractor, clips: ClipSet, root: Path, *, batch_size: int = 16) -> None:
        self.extractor, self.clips, self.batch_size = extractor, clips, batch_size
        self.store = BlockFolder(root, {"clips": clips.fingerprint, "extractor": extractor.fingerprint})

    def blocks(self, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        """A rank's share of the clips."""
        return blocks_of(len(self.clips), self.batch_size, rank, world_size)

    @property
    def num_done(self) -> int:
        """Clips whose features are in files."""
        return sum(len(block) for block in self.blocks() if self.store.has(block))

    def each(self, blocks: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Features of blocks, (b, d) each; clips that cannot be decoded have none."""
        kept = [self.store.read(block) for block in blocks]
        made = read_blocks(self.clips, [block for block, found in zip(blocks, kept, strict=True) if found is None])
        for found in kept:
            if found is None:
                block, videos = next(made)
                empty = torch.empty(0, self.extractor.num_features)
                found = {"features": extract(self.extractor, videos) if len(videos) else empty}
                self.store.write(block, found)
            yield found["features"]

    def all(self) -> Tensor:
        """Features of all clips, (n, d)."""
        return torch.cat(list(self.each(self.blocks())))
