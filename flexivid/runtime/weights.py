"""Adds the weights of a network to a hash: what was computed from other weights is then never taken for its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def add_weights(update: Callable[[bytes], object], weights: Mapping[str, Tensor]) -> None:
    """Add names and bytes of all weights to a hash, in the order of their names.

    Args:
        update: Method of a hash of ``hashlib``.
        weights: By name, on any device.

    Example:
        >>> import hashlib
        >>> digests = [hashlib.sha256() for _ in range(2)]
        >>> for digest, names in zip(digests, ("ab", "ba")):
        ...     add_weights(digest.update, {name: torch.ones(2) for name in names})
        >>> digests[0].hexdigest() == digests[1].hexdigest()
        True
    """
    for name, tensor in sorted(weights.items()):
        update(name.encode())
        update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
