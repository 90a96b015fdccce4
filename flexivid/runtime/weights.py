"""Weights of networks: read from files without running code in them, and hashed, to tell networks apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from flexivid.runtime.errors import reason_of


def read_data(path: Path, *, expected: str) -> Any:
    """Read a file of safetensors or ``torch.save``, as data alone: a program in it does not run.

    Args:
        path: Its suffix tells the format.
        expected: What the file should hold and what to do else, for the message.

    Raises:
        ValueError: If the file is not there, damaged, or holds something else than data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead to anything
        raise ValueError(f"got {path}, which cannot be read ({reason_of(error)}); expected {expected}") from error


def add_weights(update: Callable[[bytes], object], weights: Mapping[str, Tensor]) -> None:
    """Add names and bytes of weights, on any device, to a hash by its ``update``, in the order of their names.

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
