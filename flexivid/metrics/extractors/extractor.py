"""Extractors: videos in, features out, by a frozen network in full float32 that has a name and a fingerprint.

``i3d`` gives FVD proper, ``motion`` comes with the package, the others are torchvision's, and a file may hold any
module.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flexivid.metrics.extractors.i3d_weights import find_weights
from flexivid.metrics.extractors.networks import (
    TORCHVISION,
    Network,
    i3d_network,
    module_in_file,
    motion_network,
    torchvision_network,
)
from flexivid.runtime.paths import resolve_path
from flexivid.runtime.weights import add_weights

EXTRACTORS = ("i3d", "motion", *TORCHVISION)
CLIPS = 16  # at a time: memory does not grow with the batch
NO_WEIGHTS = "no I3D weights (--download fetches them): fvd[motion] instead, which compares with no paper's FVD"


class Extractor(nn.Module):
    """A frozen network with its preprocessing; ``name`` is part of the metric's name.

    Example:
        >>> extractor = build_extractor("motion")
        >>> extractor(torch.zeros(2, 3, 8, 40, 50)).shape, extractor.metric_name
        (torch.Size([2, 96]), 'fvd[motion]')
    """

    def __init__(self, name: str, network: Network) -> None:
        super().__init__()
        self.name = name
        self.network, self.prepare, self.num_features, self.min_frames, self.preprocessing = network
        digest = hashlib.sha256(f"{name}\0{self.preprocessing}".encode())
        add_weights(digest.update, self.network.state_dict())
        self.fingerprint = digest.hexdigest()[:16]
        self.training = False
        self.requires_grad_(False)

    @property
    def metric_name(self) -> str:
        """``fvd`` for I3D only, ``fvd[name]`` for others."""
        return "fvd" if self.name == "i3d" else f"fvd[{self.name}]"

    def train(self, mode: bool = True) -> Extractor:
        """Stay in evaluation mode, whatever a module around it does."""
        return self

    @torch.no_grad()
    def forward(self, videos: Tensor) -> Tensor:
        """Videos (b, 3, t, h, w), float in [-1, 1] -> features (b, d), float32.

        ``ValueError`` if they are no videos, or too short.
        """
        if videos.ndim != 5 or videos.shape[1] != 3 or not videos.is_floating_point():
            raise ValueError(
                f"got videos {tuple(videos.shape)} of {videos.dtype}; expected float (b, 3, t, h, w) in [-1, 1];"
                " permute or convert them"
            )
        if videos.shape[2] < self.min_frames:
            raise ValueError(
                f"got videos of {videos.shape[2]} frames; expected at least {self.min_frames} for {self.name}; take"
                " longer videos, or another extractor"
            )
        with full_precision(videos.device.type):
            parts = [self.network(self.prepare(part.float())) for part in videos.split(CLIPS) if len(part)]
        return torch.cat([part.float() for part in parts]) if parts else videos.new_empty(0, self.num_features).float()


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Compute in float32: no autocast, no TF32, no bfloat16 in products, whatever the calling program has set.

    >>> with torch.autocast("cpu", torch.bfloat16), full_precision("cpu"):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    backends: list[Any] = [cudnn.conv, cuda.matmul, mkldnn.conv, mkldnn.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def build_extractor(
    name: str | Path = "motion",
    *,
    weights: str | Path | None = None,
    compat: str | None = None,
    resize: str | None = None,
    device: str | torch.device = "cpu",
) -> Extractor:
    """Make an extractor.

    Args:
        name: One of ``EXTRACTORS``, or a file with a module, see ``networks.module_in_file``. Opening such a file may
            run a program in it: use files that you trust.
        weights: File of the network's weights; ``None`` = the usual path. Not for ``motion`` and files.
        compat: For ``i3d``: ``"videogpt"`` for the numbers of most PyTorch ports.
        resize: For ``i3d``: kernel, one of ``preprocess.RESIZES``; ``None`` = bilinear.
        device: Where to put it.

    Raises:
        ValueError: If an argument is unknown or has no effect, or the weights are unusable; ``FileNotFoundError`` if
            there are none.

    Example:
        >>> build_extractor("motion").num_features
        96
    """
    name, path = str(name), resolve_path(name)
    unused: dict[str, Any] = {} if name == "i3d" else {"compat": compat, "resize": resize}
    unused |= {} if name == "i3d" or name in TORCHVISION else {"weights": weights}
    for option, value in unused.items():
        if value is not None:
            raise ValueError(f"got {option} {value} for {name}; expected none, for it has no effect; leave it out")
    if name == "i3d":
        network = i3d_network(weights, compat, resize)
    elif name == "motion":
        network = motion_network()
    elif name in TORCHVISION:
        network = torchvision_network(name, weights)
    elif path.is_file():
        name, network = path.stem, module_in_file(path)
    else:
        raise ValueError(
            f"got extractor {name}; expected one of {', '.join(EXTRACTORS)}, or a file made by torch.export.save or"
            " torch.jit.save; correct it"
        )
    return Extractor(f"{name}-{compat}" if compat else name, network).to(device)


def choose_metric(
    name: str | None, weights: str | None = None, compat: str | None = None
) -> tuple[dict[str, Any], str]:
    """The extractor that the user names, or ``i3d`` if its weights are there or were asked for, else ``motion``.

    Returns keywords of :func:`build_extractor`, and a note for the user, which may be empty. ``FileNotFoundError`` if
    weights are named that do not exist.

    Example:
        >>> choose_metric("r3d_18")
        ({'name': 'r3d_18'}, '')
    """
    options = {key: value for key, value in (("weights", weights), ("compat", compat)) if value is not None}
    if name is None:
        try:
            find_weights(weights)
        except FileNotFoundError:
            if options or os.environ.get("FLEXIVID_I3D"):
                raise
            return {"name": "motion"}, NO_WEIGHTS
    return {"name": name or "i3d", **options}, ""


def for_frames(extractor: Extractor, num_frames: int) -> Extractor:
    """Return the extractor for videos of so many frames: for one frame, one that repeats it, with a name that says so.

    A distance of such features compares pictures. It is neither the FID of the literature, which is another network's,
    nor comparable with distances of videos.

    Example:
        >>> motion = build_extractor("motion")
        >>> for_frames(motion, 8) is motion, for_frames(motion, 1).metric_name
        (True, 'fvd[motion-still]')
    """
    if num_frames != 1 or extractor.min_frames <= 1:
        return extractor
    frames = extractor.min_frames
    words = f"the frame {frames} times; {extractor.preprocessing}"
    prepare = partial(_prepare_repeated, frames=frames, prepare=extractor.prepare)
    still = Network(extractor.network, prepare, extractor.num_features, 1, words)
    device = next((tensor.device for tensor in extractor.network.parameters()), "cpu")
    return Extractor(f"{extractor.name}-still", still).to(device)


def _prepare_repeated(videos: Tensor, *, frames: int, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    return prepare(videos.expand(-1, -1, frames, -1, -1))
