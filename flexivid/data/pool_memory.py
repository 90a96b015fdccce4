"""Memory that decode processes write frames into and the main process reads them from, without a copy through a pipe.

It is one nameless file in memory (memfd), handed to the processes as an open file: the system frees it when the last of
them ends, however it ends, so nothing can be left behind, and it does not count against the size of /dev/shm. Frames
travel as planes, channel first, as batches hold them: then the reader copies whole blocks.

Knows nothing of processes. Imports numpy only.
"""

import mmap
import os
import tempfile
from collections import defaultdict
from typing import NamedTuple
from weakref import finalize

import numpy as np

SLAB_BYTES = 64 << 20  # address space, which becomes memory only where it is written to


class Block(NamedTuple):
    """A range of the shared file.

    >>> Block(offset=0, num_bytes=4096).num_bytes
    4096
    """

    offset: int
    num_bytes: int


class Layout(NamedTuple):
    """How an array lies in a block.

    Args:
        shape: Shape as it lies there.
        dtype: Its numpy name.
        planar: Whether the last axis of the array lies first.

    >>> Layout((3, 2, 4, 4), "|u1", planar=True).shape
    (3, 2, 4, 4)
    """

    shape: tuple[int, ...]
    dtype: str
    planar: bool


class SharedMemory:
    """The side that gives out blocks and reads them; blocks are used again, so it grows only with what is in use.

    >>> memory = SharedMemory()
    >>> block = memory.take(100)
    >>> layout = BlockWriter(memory.file).write(np.arange(6).reshape(2, 3), block)
    >>> memory.view(block, layout).tolist()
    [[0, 1, 2], [3, 4, 5]]
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

    def view(self, block: Block, layout: Layout) -> np.ndarray:
        """Return what was written as an array; the block comes back when the array and all views of it are gone."""
        array = self._maps.array(block, layout)
        finalize(array, self.give_back, block).atexit = False
        return np.moveaxis(array, 0, -1) if layout.planar else array[:]

    def close(self) -> None:
        """Let go of the file; arrays that are still in use keep their memory."""
        os.close(self.file)


class BlockWriter:
    """The side that writes, in another process.

    Args:
        file: Descriptor of the shared file.

    >>> memory = SharedMemory()
    >>> BlockWriter(memory.file).write(np.zeros((2, 4, 5, 3), np.uint8), memory.take(120))
    Layout(shape=(3, 2, 4, 5), dtype='|u1', planar=True)
    """

    def __init__(self, file: int) -> None:
        self._maps = _Maps(file)

    def write(self, array: np.ndarray, block: Block) -> Layout | None:
        """Copy an array into a block; None if it does not fit."""
        if array.nbytes > block.num_bytes or array.dtype.hasobject:
            return None
        planar = array.ndim == 4  # t h w c -> c t h w
        laid = np.moveaxis(array, -1, 0) if planar else array
        layout = Layout(laid.shape, laid.dtype.str, planar)
        self._maps.array(block, layout)[...] = laid
        return layout


class _Maps:
    """The shared file as memory, a slab at a time: each map holds a file descriptor, and there are many blocks."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._slabs: dict[int, mmap.mmap] = {}

    def array(self, block: Block, layout: Layout) -> np.ndarray:
        slab, start = divmod(block.offset, SLAB_BYTES)
        if slab not in self._slabs:
            size = max(SLAB_BYTES, block.num_bytes)
            self._slabs[slab] = mmap.mmap(self._file, size, offset=slab * SLAB_BYTES)
        return np.ndarray(layout.shape, layout.dtype, buffer=self._slabs[slab], offset=start)


def _round_up(num_bytes: int) -> int:
    """Round up by at most an eighth, to whole pages, so that clips of like sizes share blocks."""
    step = max(mmap.ALLOCATIONGRANULARITY, 1 << max(0, num_bytes.bit_length() - 4))
    return max(1, -(-num_bytes // step)) * step


def _open_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("flexivid-frames")
    with tempfile.TemporaryFile() as file:  # has no name either
        return os.dup(file.fileno())
