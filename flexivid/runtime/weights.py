"""Weights of networks: read from files without running code in them, hashed, and compared with what they were.

What is computed from weights can be reused until they change. PyTorch counts changes in place, but not those through
``.data``, by which Lightning swaps averaged weights in and out, so a few values of each are compared as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flexivid.runtime.errors import reason_of
from flexivid.runtime.files import atomic_write

SAMPLES = 4  # values of each tensor that are compared


def read_data(path: Path, *, expected: str) -> Any:
    """Read a file of safetensors or ``torch.save``, by its suffix, as data alone: a program in it does not run.

    A file that is not there, damaged, or holds something else is a ``ValueError``; ``expected`` ends its message.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead to anything
        raise ValueError(f"got {path}, which cannot be read ({reason_of(error)}); expected {expected}") from error


def misfit(module: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Say which weights do not fit a module; empty if all do.

    Example:
        >>> misfit(nn.Linear(2, 3), {"weight": torch.zeros(3, 2), "scale": torch.zeros(3)})
        '1 missing, 1 unknown, 0 of another shape, e.g. bias'
    """
    expected = module.state_dict()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    shapes = sorted(name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape)
    counts = f"{len(missing)} missing, {len(unknown)} unknown, {len(shapes)} of another shape, e.g. "
    return next((counts + name for name in (*shapes, *missing, *unknown)), "")


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights, on any device, as safetensors; the file appears whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_write(path) as part:
        save_file(tensors, part, metadata={"format": "pt"})


def add_weights(update: Callable[[bytes], object], weights: Mapping[str, Tensor]) -> None:
    """Add names and bytes of weights, on any device, to a hash by its ``update``, in the order of their names."""
    for name, tensor in sorted(weights.items()):
        update(name.encode())
        update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())


class Snapshot:
    """A module's parameters and buffers at one moment, kept in memory so that no new tensor can get their addresses.

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
