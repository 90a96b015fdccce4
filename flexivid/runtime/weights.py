"""Whether weights are those that a result was computed from: by a hash of all, or by a quick snapshot.

Results computed from weights (a hash, patch kernels, casts) can be reused until they change. PyTorch counts changes in
place, but not those through ``.data``, by which Lightning swaps averaged weights in and out, so a few values of each
tensor are compared as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

SAMPLES = 4  # values of each tensor that are compared


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


class Snapshot:
    """A module's weights at one moment.

    Args:
        module: Its parameters and buffers are compared. The snapshot keeps them in memory, so that no new tensor
            can get their addresses.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> snapshot = Snapshot(layer)
        >>> before = snapshot.holds(layer)
        >>> layer.bias.data.add_(1).shape, before, snapshot.holds(layer)
        (torch.Size([2]), True, False)
    """

    def __init__(self, module: nn.Module) -> None:
        tensors = [tensor.detach() for tensor in _tensors(module)]
        self._marks = _marks(tensors)
        self._samples = [tensor.reshape(-1)[:: max(1, tensor.numel() // SAMPLES)] for tensor in tensors]  # views
        self._values = self._sampled()

    def holds(self, module: nn.Module) -> bool:
        """Say whether the module still has the same tensors with the same values."""
        return self._marks == _marks(_tensors(module)) and torch.equal(self._values, self._sampled())

    def _sampled(self) -> Tensor:
        return torch.cat(self._samples) if self._samples else torch.empty(0)


def is_plain(module: nn.Module) -> bool:
    """Say whether all weights are ordinary tensors on one device, as a snapshot needs; sharded ones are not."""
    tensors = _tensors(module)
    ordinary = all(type(x) in (Tensor, nn.Parameter) and x.is_contiguous() and not x.is_meta for x in tensors)
    return ordinary and len({tensor.device for tensor in tensors}) == 1


def _tensors(module: nn.Module) -> list[Tensor]:
    return list(chain(module.parameters(), module.buffers()))


def _marks(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Address and number of in-place changes of each tensor; inference tensors have no such number."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
