"""What a number depends on: stored with it, part of its name, checked before two numbers are compared.

Also the cache of reference features, keyed by everything that they depend on.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flexivid.runtime.distributed import from_first
from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import cache_folder

NOT_OF_REFERENCE = ("num_videos", "sampling")  # fields that reference features do not depend on


class Protocol(NamedTuple):
    """Everything that changes an FVD, except the model that is measured; plain values, so ``_asdict()`` is JSON.

    Example:
        >>> protocol = Protocol("fvd", "0f3a", "224x224", 16, 64, 64, 1, 8.0, 2048, 2048, "9c1e")
        >>> protocol.label, protocol.key()
        ('fvd2048_16f', 'fe30b3c98920a1aad65e')
    """

    metric: str  # ``fvd`` with the I3D network, ``fvd[name]`` with another extractor
    extractor_fingerprint: str  # of weights and preprocessing
    preprocessing: str  # what is done to the frames, in words
    num_frames: int  # of a video
    height: int  # before the preprocessing, like the width
    width: int
    stride: int  # frames of the source from one frame to the next
    fps: float
    num_videos: int  # generated ones
    num_reference: int  # real ones
    reference: str  # fingerprint of the reference data
    reference_split: str = "train"  # part of it, e.g. ``train`` or ``held_out``
    seed: int = 0  # of the noise, and of the choice of reference clips
    sampling: str = "{}"  # settings of the sampler, JSON

    @property
    def label(self) -> str:
        """Name of the metric with the numbers of videos and frames, as papers write it."""
        return f"{self.metric}{self.num_videos}_{self.num_frames}f"

    def key(self) -> str:
        """Name of the reference features: 20 hexadecimal digits of everything that they depend on."""
        fields = {name: value for name, value in self._asdict().items() if name not in NOT_OF_REFERENCE}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:20]


def check_alike(a: Protocol, b: Protocol) -> None:
    """Refuse to compare numbers of different protocols by a ``ValueError`` that names the fields.

    Example:
        >>> protocol = Protocol("fvd", "0f3a", "224x224", 16, 64, 64, 1, 8.0, 2048, 2048, "9c1e")
        >>> check_alike(protocol, protocol._replace(seed=1))
        Traceback (most recent call last):
        ...
        ValueError: got results of different protocols (seed 0 and 1); expected one, for these change the number; \
evaluate again with the same settings
    """
    pairs = zip(Protocol._fields, a, b, strict=True)
    differing = [f"{name} {first} and {second}" for name, first, second in pairs if first != second]
    if differing:
        raise ValueError(
            f"got results of different protocols ({', '.join(differing)}); expected one, for these change the number;"
            " evaluate again with the same settings"
        )


def reference_file(protocol: Protocol) -> Path:
    """Return the file of the reference features of a protocol, in the cache folder."""
    return cache_folder("reference") / f"{protocol.key()}.safetensors"


def reference_features(protocol: Protocol, compute: Callable[[], Tensor], *, may_be_fewer: bool = False) -> Tensor:
    """Features of the reference videos, from the cache, or computed and then cached.

    Every rank calls it. The first one looks into the cache for all. If nothing is there, ``compute`` is called on every
    rank, so that they can share the work, and the first one writes. It gives all features, (num_reference, d), in the
    same order on every rank; with ``may_be_fewer``, fewer are accepted, and cached as a reference of that number.
    ``ValueError`` if their number is another one, or they are not finite; nothing is cached then.
    """
    features = from_first(lambda: _read(reference_file(protocol), protocol))
    if features is not None:
        return features
    features = compute().detach().cpu()
    if may_be_fewer and len(features) < protocol.num_reference:
        protocol = protocol._replace(num_reference=len(features))
    if len(features) != protocol.num_reference or not features.isfinite().all():
        raise ValueError(
            f"got features {tuple(features.shape)} of the reference videos, finite: {bool(features.isfinite().all())};"
            f" expected finite ones of {protocol.num_reference} videos; correct num_reference, or look at the videos"
        )
    from_first(lambda: _write(reference_file(protocol), protocol, features))
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
            f"got {path}, which cannot be written ({error}): its reference features are not cached; expected a folder"
            " with room; set FLEXIVID_CACHE to one",
            stacklevel=3,
        )
