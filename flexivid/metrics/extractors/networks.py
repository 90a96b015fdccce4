"""The networks behind features, each with its preprocessing and its limits. Loads weights; computes nothing.

``i3d`` has DeepMind's weights, ``motion`` those that come with the package; torchvision's networks lose their last
layer and bring their own preprocessing; a file may hold any module.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flexivid.metrics.extractors import motion
from flexivid.metrics.extractors.i3d import MIN_FRAMES, NUM_CLASSES, SIDE
from flexivid.metrics.extractors.i3d_weights import load_i3d
from flexivid.metrics.extractors.preprocess import RESIZES
from flexivid.runtime.errors import reason_of
from flexivid.runtime.paths import resolve_path
from flexivid.runtime.weights import read_data

TORCHVISION = {  # name: (last layer, features, fewest frames, frames it is built for or None = any)
    "r3d_18": ("fc", 512, 8, None),
    "mvit_v2_s": ("head", 768, 16, 16),
    "swin3d_t": ("head", 768, 2, None),
}
PROBE = (1, 3, 16, 224, 224)  # input of a module that does not state its number of features


class Network(NamedTuple):
    """A network, ready to use."""

    network: nn.Module  # (b, 3, t, height, width) -> (b, d), in evaluation mode
    prepare: Callable[[Tensor], Tensor]  # videos in [-1, 1] of any size -> input of the network
    num_features: int
    min_frames: int  # fewer frames give no features, or useless ones
    preprocessing: str  # what ``prepare`` does, in words


def i3d_network(weights: str | Path | None = None, compat: str | None = None, resize: str | None = None) -> Network:
    """I3D, whose 400 logits give FVD proper."""
    resize = resize or next(iter(RESIZES))
    if resize not in RESIZES:
        raise ValueError(f"got resize {resize}; expected one of {', '.join(RESIZES)}; correct it")
    kernel, words = RESIZES[resize]
    words = f"{SIDE}x{SIDE} {words}, [-1, 1]"
    return Network(load_i3d(weights, compat=compat), partial(kernel, side=SIDE), NUM_CLASSES, MIN_FRAMES, words)


def motion_network() -> Network:
    """The small network that comes with the package."""
    network = motion.load_motion_net()
    return Network(network, nn.Identity().eval(), motion.NUM_FEATURES, motion.MIN_FRAMES, motion.PREPROCESSING)


def torchvision_network(name: str, weights: str | Path | None = None) -> Network:
    """One of torchvision's, trained on Kinetics-400, without its last layer.

    Without a file of its state dict, torchvision's loader finds or downloads it. ``FileNotFoundError`` if it cannot;
    ``ValueError`` if the weights do not fit.
    """
    from torchvision.models import get_model, get_model_weights

    head, num_features, min_frames, num_frames = TORCHVISION[name]
    published: Any = get_model_weights(name).DEFAULT
    network = get_model(name)
    state = _fetch(name, published.url, published) if weights is None else _read(name, resolve_path(weights))
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"got weights of {name} that do not fit ({reason}); expected {published.url}; fetch it"
        ) from error
    setattr(network, head, nn.Identity())
    preset = published.transforms()
    size, cut = ("x".join(map(str, sides)) for sides in (preset.resize_size, preset.crop_size))
    words = f"torchvision: to {size}, {cut} of the centre, mean {preset.mean}, deviation {preset.std}"
    words += f", {num_frames} frames evenly spaced" if num_frames else ""
    return Network(network.eval(), partial(_preset, preset=preset, frames=num_frames), num_features, min_frames, words)


def module_in_file(path: Path) -> Network:
    """A module from videos (b, 3, t, h, w) in [-1, 1], as they are, to features (b, d).

    The file was made by ``torch.export.save`` (.pt2, with example inputs; let b vary) or ``torch.jit.save``. It is a
    program, which runs with your rights; pickles in it are refused. A scripted module may have attributes
    ``num_features`` and ``min_frames``; without, it is called once with 16 frames of 224x224. ``ValueError`` if it is
    no such file, or the module takes no videos.
    """
    try:
        network, example = _open_exported(path) if path.suffix == ".pt2" else _open_scripted(path)
    except Exception as error:  # whatever the bytes lead to
        raise ValueError(
            f"got {path}, which cannot be opened ({reason_of(error)}); expected a module saved by torch.export.save"
            " (.pt2) or torch.jit.save; a state dict alone does not say what to compute"
        ) from error
    num_features = getattr(network, "num_features", 0) or _count_features(path, network, example)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    words = f"none, but for that of the file {path.name} ({digest})"
    return Network(network, nn.Identity().eval(), int(num_features), int(getattr(network, "min_frames", 1)), words)


def _preset(video: Tensor, *, preset: Callable[[Tensor], Tensor], frames: int | None) -> Tensor:
    if frames is not None:
        video = video[:, :, torch.arange(frames, device=video.device) * video.shape[2] // frames]
    return preset(((video + 1) / 2).transpose(1, 2).contiguous())


def _fetch(name: str, url: str, published: Any) -> dict[str, Tensor]:
    try:
        return published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"got no weights of {name} from {url} ({error}); expected a connection; or fetch that file elsewhere and"
            f" put it into {torch.hub.get_dir()}/checkpoints, or name it with --weights or weights=; or take another"
            " metric, e.g. motion"
        ) from error


def _read(name: str, path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"got weights {path}, which do not exist; expected a file; correct the path")
    return read_data(path, expected=f"a state dict of {name}; fetch it")


def _open_exported(path: Path) -> tuple[nn.Module, Tensor]:
    """Torch refuses pickles in the program meanwhile, which it would load where it cannot do without."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        program = torch.export.load(path)
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
    return program.module(), program.example_inputs[0][0]


def _open_scripted(path: Path) -> tuple[nn.Module, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that torch will drop it some day
        return torch.jit.load(path, map_location="cpu").eval(), torch.zeros(PROBE)


@torch.no_grad()
def _count_features(path: Path, network: nn.Module, example: Tensor) -> int:
    try:
        features = network(example)
    except Exception as error:
        raise ValueError(
            f"got {path}, which does not take videos {tuple(example.shape)} ({reason_of(error)}); expected features"
            " (b, d) of them; give the module an attribute num_features if it takes others"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(f"got {path}, which does not give one tensor (b, d); expected that; wrap the module")
    return features.shape[1]
