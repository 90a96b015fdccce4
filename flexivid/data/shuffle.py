"""An order of clips that is random, yet reads storage in long runs. Pure arithmetic: numpy only.

Clips that lie next to each other on disk, or in one shard, have neighbouring numbers. A plain permutation of millions
of them makes every read a seek to another place. Here blocks of neighbours are shuffled, and then the clips within each
window of several blocks: at any time reading stays inside ``window`` blocks. A clip can meet only those whose blocks
share its window, but the windows are drawn anew in every epoch.
"""

import numpy as np


def block_permutation(num: int, rng: np.random.Generator, *, block: int = 0, window: int = 16) -> np.ndarray:
    """Return the numbers 0 to ``num`` - 1 in a random order.

    Args:
        num: How many.
        rng: Source of the order; the same state gives the same order.
        block: Neighbours that stay together; 0 or anything from ``num`` / ``window`` on gives a plain permutation.
        window: Blocks that are mixed with each other.

    Returns:
        Each number once, (num,) int64.

    Raises:
        ValueError: If a count is too small.

    >>> order = block_permutation(1000, np.random.default_rng(0), block=10, window=5)
    >>> len(set(order.tolist())), len({int(number) // 10 for number in order[:50]})
    (1000, 5)
    """
    if num < 0 or block < 0 or window < 1:
        raise ValueError(f"got num {num}, block {block}, window {window}; expected 0, 0 and 1 at least; correct them")
    if block == 0 or block * window >= num:
        return rng.permutation(num)
    blocks = rng.permutation(-(-num // block))
    numbers = (blocks[:, None] * block + np.arange(block)).reshape(-1)
    for start in range(0, len(numbers), block * window):
        rng.shuffle(numbers[start : start + block * window])
    return numbers[numbers < num]  # the last block may be short
