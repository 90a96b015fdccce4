"""Adds the weights of a network to a hash: what was computed from other weights is then never taken for its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Digest(Protocol):
    """A hash of ``hashlib``."""

    def update(self, data: bytes, /) -> None: ...


def add_weights(digest: Digest, weights: Mapping[str, Tensor]) -> None:
    """Add names and bytes of all weights, in the order of their names.

    Args:
        digest: Of ``hashlib``.
        weights: By name, on any device.

    Example:
        >>> import hashlib
        >>> digests = [hashlib.sha256() for _ in range(2)]
        >>> for digest, names in zip(digests, ("ab", "ba")):
        ...     add_weights(digest, {name: torch.ones(2) for name in names})
        >>> digests[0].hexdigest() == digests[1].hexdigest()
        True
    """
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
