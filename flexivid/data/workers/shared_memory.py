"""Shared memory through which decode processes return frames, without a copy through a pipe.

It is one anonymous file in memory (memfd) that the processes inherit: the system frees it when the last of them ends,
even after a crash, and it does not count against the size of /dev/shm. Both sides know the shape of a block beforehand,
so the contents are only ever read as pixels. Frames are stored channel first, as batches are, so that the reader copies
contiguous blocks. Imports numpy only.
"""

import fcntl
import mmap
import os
import tempfile
from collections import defaultdict
from typing import NamedTuple
from weakref import finalize

import numpy as np

SLAB_BYTES = 64 << 20  # of address space; memory is used only where frames are written


class Block(NamedTuple):
    """A range of the shared file."""

    offset: int
    num_bytes: int


class SharedMemory:
    """The side that allocates and reads blocks; blocks are reused, so it grows only with the number in use.

    >>> memory = SharedMemory()
    >>> block = memory.take(100)
    >>> BlockWriter(memory.file).write(np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3), block, (1, 1, 2, 3))
    >>> memory.view(block, (1, 1, 2, 3)).tolist()
    [[[[0, 1, 2], [3, 4, 5]]]]
    >>> memory.take(99) == block  # the array is gone, its block is used again
    True
    >>> memory.close()
    """

    def __init__(self) -> None:
        self.file = _open_file()
        self._maps = _Maps(self.file)
        self._free: defaultdict[int, list[Block]] = defaultdict(list)
        self._end = 0

    def take(self, num_bytes: int) -> Block:
        """Return a block of at least ``num_bytes``; to be called from one thread."""
        size = _round_up(num_bytes)
        try:
            return self._free[size].pop()
        except IndexError:
            if size > -self._end % SLAB_BYTES:  # no room in this slab
                self._end += -self._end % SLAB_BYTES
                os.ftruncate(self.file, self._end + max(size, SLAB_BYTES))
            block = Block(self._end, size)
            self._end += size
            return block

    def give_back(self, block: Block) -> None:
        """Take a block back, from any thread; no process may write to it any more."""
        self._free[block.num_bytes].append(block)

    def view(self, block: Block, shape: tuple[int, ...]) -> np.ndarray:
        """Return frames of a shape, (t, h, w, c); the block comes back when the array and all views of it are gone."""
        planes = self._maps.planes(block, shape)
        finalize(planes, self.give_back, block).atexit = False
        return np.moveaxis(planes, 0, -1)

    def close(self) -> None:
        """Close the file; arrays that are still in use keep their memory."""
        os.close(self.file)


class BlockWriter:
    """The side that writes, in another process; ``file`` is the descriptor of the shared file."""

    def __init__(self, file: int) -> None:
        self._maps = _Maps(file)

    def write(self, frames: np.ndarray, block: Block, shape: tuple[int, ...]) -> None:
        """Copy frames into a block; ``ValueError`` if they are not uint8 of the requested shape."""
        if frames.shape != tuple(shape) or frames.dtype != np.uint8:
            raise ValueError(f"got frames of {frames.shape} {frames.dtype}; expected {tuple(shape)} uint8")
        if frames.size:
            self._maps.planes(block, shape)[...] = np.moveaxis(frames, -1, 0)  # t h w c -> c t h w


class _Maps:
    """Maps the shared file slab by slab, not block by block: each map takes a file descriptor."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._slabs: dict[int, mmap.mmap] = {}

    def planes(self, block: Block, shape: tuple[int, ...]) -> np.ndarray:
        slab, start = divmod(block.offset, SLAB_BYTES)
        if slab not in self._slabs:
            size = max(SLAB_BYTES, block.num_bytes)
            self._slabs[slab] = mmap.mmap(self._file, size, offset=slab * SLAB_BYTES)
        return np.ndarray((shape[-1], *shape[:-1]), np.uint8, buffer=self._slabs[slab], offset=start)


def _round_up(num_bytes: int) -> int:
    """Round up by at most an eighth, to whole pages, so that clips of like sizes share blocks."""
    step = max(mmap.ALLOCATIONGRANULARITY, 1 << max(0, num_bytes.bit_length() - 4))
    return max(1, -(-num_bytes // step)) * step


def _open_file() -> int:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("flexivid-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # a process that made it shorter would crash all that read beyond its end
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return file
    with tempfile.TemporaryFile() as nameless:
        return os.dup(nameless.fileno())
