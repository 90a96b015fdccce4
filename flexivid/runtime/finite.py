"""Refuses NaN and infinity where they would spread: in weights that are saved or loaded, and in samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


class NotFiniteError(ValueError):
    """Something holds NaN or infinity. Callbacks that turn other errors into warnings must raise this one."""


class NotFiniteSampleError(NotFiniteError):
    """A sample is not finite; ``context`` says where it is from, such as ``at budget 0.5``."""

    def __init__(self, sample: int, context: str = "") -> None:
        self.sample = sample
        super().__init__(
            f"got values that are not finite in sample {sample}{context and ' '}{context}; expected numbers; try"
            " precision fp32, or a checkpoint from before the training diverged"
        )


def first_not_finite(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first floating-point tensor with NaN or infinity; ``None`` if all are finite.

    Example:
        >>> first_not_finite({"a": torch.zeros(2), "b": torch.tensor([1.0, torch.inf])})
        'b'
    """
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if tensor.is_floating_point() and not tensor.is_meta:
            values = tensor.float() if tensor.element_size() == 1 else tensor  # float8 has no isfinite
            if not torch.isfinite(values).all():
                return name
    return None


def require_finite_weights(weights: Mapping[str, Tensor], owner: object) -> None:
    """Refuse weights with NaN or infinity (``NotFiniteError``); ``owner`` is their file or model, for the message."""
    name = first_not_finite(weights)
    if name is not None:
        raise NotFiniteError(
            f"got values that are not finite in weight {name} of {owner}; expected numbers; take a checkpoint from"
            " before the training diverged"
        )


def require_finite_samples(samples: Tensor, indices: Sequence[int]) -> Tensor:
    """Return the samples, (b, ...), or refuse one with NaN or infinity (``NotFiniteSampleError``) by its index."""
    finite = samples.isfinite().flatten(1).all(1)
    if not finite.all():
        raise NotFiniteSampleError(indices[int(finite.int().argmin())])
    return samples
