"""Whether a module's weights are still what they were, told without reading them all.

What is computed from weights (a hash, patch kernels, casts) may then be kept. PyTorch counts changes in place, but not
those through ``.data``, by which Lightning swaps averaged weights in and out: so a few values of each tensor are
compared too.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

SAMPLES = 4  # values of each tensor that are compared


class Snapshot:
    """A module's weights at one moment.

    Args:
        module: Its parameters and buffers are looked at. They stay in memory as long as the snapshot does, so that no
            other tensor can come to stand at their addresses.

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
        """Whether they are the same tensors with the same values."""
        return self._marks == _marks(_tensors(module)) and torch.equal(self._values, self._sampled())

    def _sampled(self) -> Tensor:
        return torch.cat(self._samples) if self._samples else torch.empty(0)


def is_plain(module: nn.Module) -> bool:
    """Whether all weights are ordinary tensors on one device, so that a snapshot can be taken; sharded ones are not."""
    tensors = _tensors(module)
    ordinary = all(type(one) in (Tensor, nn.Parameter) and one.is_contiguous() and not one.is_meta for one in tensors)
    return ordinary and len({tensor.device for tensor in tensors}) == 1


def _tensors(module: nn.Module) -> list[Tensor]:
    return list(chain(module.parameters(), module.buffers()))


def _marks(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Address and count of changes in place of each; inference tensors have no count."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
