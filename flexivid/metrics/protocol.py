"""What a number depends on: kept with it, part of its name, checked before two are compared.

Also the cache of reference features, which is keyed by all that they depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed

from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import cache_folder

NOT_OF_REFERENCE = ("num_videos", "sampling")  # all else tells which reference features are meant


class Protocol(NamedTuple):
    """Everything that changes an FVD but the model that is measured; plain values, so that ``_asdict()`` is JSON.

    Args:
        metric: ``fvd`` with the I3D network, ``fvd[name]`` with another extractor.
        extractor_fingerprint: Of weights and preprocessing.
        preprocessing: What becomes of the frames, in words.
        num_frames: Of a video. Likewise ``height``, ``width``: before the preprocessing.
        stride: Frames of the source from one frame to the next.
        fps: Frames a second of the videos.
        num_videos: Generated ones. Likewise ``num_reference``, real ones.
        reference: Fingerprint of the reference data.
        reference_split: Which part of it, e.g. ``train`` or ``val``.
        seed: Of the noise, and of the choice of reference clips.
        sampling: Settings of the sampler, JSON.

    Example:
        >>> protocol = Protocol("fvd", "0f3a", "224x224", 16, 64, 64, 1, 8.0, 2048, 2048, "9c1e")
        >>> protocol.label, protocol.key()
        ('fvd2048_16f', 'fe30b3c98920a1aad65e')
    """

    metric: str
    extractor_fingerprint: str
    preprocessing: str
    num_frames: int
    height: int
    width: int
    stride: int
    fps: float
    num_videos: int
    num_reference: int
    reference: str
    reference_split: str = "train"
    seed: int = 0
    sampling: str = "{}"

    @property
    def label(self) -> str:
        """Name of the metric with the two numbers that change it most, as papers write it."""
        return f"{self.metric}{self.num_videos}_{self.num_frames}f"

    def key(self) -> str:
        """Name of the reference features: 20 hexadecimal digits of all that they depend on."""
        fields = {name: value for name, value in self._asdict().items() if name not in NOT_OF_REFERENCE}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:20]


class Result(NamedTuple):
    """A number that says how it was made.

    Args:
        protocol: How.
        value: The distance.
        low: Lower end of its 95 % interval. Likewise ``high``.

    Example:
        >>> Result._fields
        ('protocol', 'value', 'low', 'high')
    """

    protocol: Protocol
    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """By how much two results differ.

    Args:
        difference: Second value minus first: negative = the second is better.
        low: Lower end of the 95 % interval of the difference. Likewise ``high``.

    Example:
        >>> Comparison(-20.0, -35.0, -5.0).is_certain
        True
    """

    difference: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.low <= 0 <= self.high


def compare(a: Result, b: Result, *, force: bool = False) -> Comparison:
    """Compare two results of one protocol.

    The intervals are combined as if the two were independent; shared noise and reference make the truth narrower.

    Args:
        a: The first result. Likewise ``b``, the second.
        force: Compare whatever the protocols are.

    Raises:
        ValueError: If the protocols differ; the message names the fields.

    Example:
        >>> protocol = Protocol("fvd", "0f3a", "224x224", 16, 64, 64, 1, 8.0, 2048, 2048, "9c1e")
        >>> compare(Result(protocol, 150.0, 147.0, 153.0), Result(protocol, 140.0, 136.0, 144.0))
        Comparison(difference=-10.0, low=-15.0, high=-5.0)
    """
    pairs = zip(Protocol._fields, a.protocol, b.protocol, strict=True)
    differing = [f"{name} {first} and {second}" for name, first, second in pairs if first != second]
    if differing and not force:
        raise ValueError(
            f"got results of different protocols ({', '.join(differing)}); expected one, for these change the number;"
            " evaluate again with the same settings, or pass force=True"
        )
    half = ((a.high - a.value) ** 2 + (b.high - b.value) ** 2) ** 0.5  # low may be cut off at 0
    return Comparison(b.value - a.value, b.value - a.value - half, b.value - a.value + half)


def reference_folder() -> Path:
    """Where reference features are kept: ``$FLEXIVID_CACHE/reference`` or ``~/.cache/flexivid/reference``.

    Example:
        >>> reference_folder().name
        'reference'
    """
    return cache_folder("reference")


def reference_features(
    protocol: Protocol, compute: Callable[[], Tensor], folder: str | os.PathLike[str] | None = None
) -> Tensor:
    """Features of the reference videos, from the cache or computed and then kept there.

    Every rank calls it. The first one looks into the cache and sends what it finds to the others; if it finds nothing,
    ``compute`` is called on every rank, so that they can share the work, and the first one writes.

    Args:
        protocol: Tells which features.
        compute: Gives all of them, (num_reference, d), in the same order on every rank.
        folder: Where they are kept; ``None`` = :func:`reference_folder`.

    Raises:
        ValueError: If ``compute`` gives another number of videos, or numbers that are not finite; nothing is kept then.

    Example:
        >>> import tempfile, torch
        >>> protocol = Protocol("fvd", "0f3a", "224x224", 16, 64, 64, 1, 8.0, 2048, 2, "9c1e")
        >>> folder = tempfile.mkdtemp()
        >>> first = reference_features(protocol, lambda: torch.ones(2, 3), folder)
        >>> reference_features(protocol, lambda: torch.zeros(2, 3), folder).sum().item()
        6.0
    """
    path = Path(folder or reference_folder(), f"{protocol.key()}.safetensors")
    is_first = not distributed.is_initialized() or distributed.get_rank() == 0
    found = [_read(path, protocol) if is_first else None]
    if distributed.is_initialized():
        distributed.broadcast_object_list(found, src=0)
    if found[0] is not None:
        return found[0]
    features = compute().detach().cpu()
    if len(features) != protocol.num_reference or not features.isfinite().all():
        raise ValueError(
            f"got features {tuple(features.shape)} of the reference videos, finite: {bool(features.isfinite().all())};"
            f" expected finite ones of {protocol.num_reference} videos; correct num_reference, or look at the videos"
        )
    if is_first:
        _write(path, protocol, features)
    return features


def _read(path: Path, protocol: Protocol) -> Tensor | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"got {path}, which cannot be read ({error}): its reference features are made again", stacklevel=3
        )
        return None
    return features if len(features) == protocol.num_reference else None


def _write(path: Path, protocol: Protocol, features: Tensor) -> None:
    """Other processes see the file whole or not at all."""
    notes: dict[str, Any] = {"protocol": json.dumps(protocol._asdict())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            save_file({"features": features.contiguous()}, part, metadata=notes)
    except OSError as error:
        warnings.warn(
            f"got {path}, which cannot be written ({error}): its reference features are not kept; expected a folder"
            " with room; set FLEXIVID_CACHE to one",
            stacklevel=3,
        )
