"""Finds and loads autoencoders, from a folder or the hub: safetensors and JSON only, so that nothing in them is run.

Private models: the hub's own library reads the token that ``hf auth login`` or ``HF_TOKEN`` gave it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from flexivid.latents.kinds import KINDS, Scale
from flexivid.latents.taef2 import TAEF2, own_names
from flexivid.runtime.finite import require_finite_weights
from flexivid.runtime.hub import cache_alone
from flexivid.runtime.paths import HUB_ID, resolve
from flexivid.runtime.weights import add_weights

CONFIG = "config.json"
INNER = ("", "vae")  # folders of a repository that an autoencoder is looked for in, in this order
TAEF2_FILES = (("taef2.safetensors",), ("encoder.safetensors", "decoder.safetensors"))
EXPECTED = f"one of {', '.join(KINDS)}, in its folder or in vae/ of a pipeline"


def load_autoencoder(source: str, *, weights: bool = True) -> nn.Module:
    """Load an autoencoder in float32, on the CPU: from its folder, from ``vae/`` of a pipeline, or from the hub.

    Without weights it is on the meta device, made of its configuration alone, which is all that is downloaded.

    Raises:
        ValueError: If there is none, it is of no known class, or its files do not fit.

    Example:
        >>> load_autoencoder("no_such_folder")
        Traceback (most recent call last):
        ...
        ValueError: got codec no_such_folder, which does not exist; expected `pixel`, a folder, or a hub id like \
org/name; check the name
    """
    folder = Path(resolve(source))
    if not folder.is_dir():
        if not re.fullmatch(HUB_ID, source):
            raise ValueError(
                f"got codec {source}, which does not exist; expected `pixel`, a folder, or a hub id like org/name;"
                " check the name"
            )
        folder = _downloaded(source, weights=weights)
    with _plain_loading(source):
        if not weights:
            with torch.device("meta"):
                return _load(folder, source, weights=False)
        network = _load(folder, source, weights=True)
    require_finite_weights(network.state_dict(), source)
    return nn.Module.float(network)


def fingerprint_of(network: nn.Module, scale: Scale) -> str:
    """Twelve hex digits of the class, the normalisation and the weights: latents of another one mean something else.

    Example:
        >>> network = nn.Linear(1, 1).requires_grad_(False)
        >>> one = fingerprint_of(network, Scale(0.0, 1.0))
        >>> one == fingerprint_of(network, Scale(0.0, 1.0)), one == fingerprint_of(network, Scale(0.0, 2.0)), len(one)
        (True, False, 12)
    """
    numbers = [value.tolist() if isinstance(value, Tensor) else value for value in scale]
    digest = hashlib.blake2b(json.dumps([type(network).__name__, numbers]).encode())
    add_weights(digest.update, network.state_dict())
    return digest.hexdigest()[:12]


def _load(folder: Path, source: str, *, weights: bool) -> nn.Module:
    """Load what is in a folder, or make the same network without reading weights."""
    for files in TAEF2_FILES:
        if all((folder / file).is_file() for file in files):
            return _load_taef2(folder, files) if weights else TAEF2()
    inner, name = _class_in(folder, source)
    if name == "CausalAutoencoder":
        from flexivid.latents.causal_autoencoder import CausalAutoencoder

        return CausalAutoencoder.load(inner) if weights else CausalAutoencoder.without_weights(inner)
    import diffusers

    kind = getattr(diffusers, name)
    if not weights:
        return kind.from_config(kind.load_config(inner, local_files_only=True))
    network, report = kind.from_pretrained(
        inner, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32, output_loading_info=True
    )
    missing = [*report["missing_keys"], *report["mismatched_keys"]]
    if missing:
        raise ValueError(f"{len(missing)} weights are missing or of another shape, e.g. {missing[0]}")
    return network


def _load_taef2(folder: Path, files: tuple[str, ...]) -> nn.Module:
    weights: dict[str, Tensor] = {}
    for file in files:
        part = load_file(folder / file)
        prefix = f"{Path(file).stem}." if len(files) > 1 else ""
        weights |= {prefix + name: tensor.float() for name, tensor in part.items()}
    network = TAEF2()
    network.load_state_dict(own_names(weights))
    return network


def _class_in(folder: Path, source: str) -> tuple[Path, str]:
    """The folder of the autoencoder, and the name of its class."""
    others = []
    for inner in INNER:
        file = folder / inner / CONFIG
        config = json.loads(file.read_text()) if file.is_file() else None
        name = config.get("_class_name") if isinstance(config, dict) else None
        if name in KINDS:
            return folder / inner, name
        others += [name] if isinstance(name, str) else []
    what = f"a {others[-1]}" if others else "without the configuration of an autoencoder"
    raise _RefusedError(f"got codec {source}, {what}; expected {EXPECTED}; name another model")


def _downloaded(source: str, *, weights: bool) -> Path:
    """Folder of a hub model in the local cache; downloads the files that are missing."""
    from huggingface_hub import snapshot_download

    options = cache_alone(source)
    patterns = [file for files in TAEF2_FILES for file in files]
    patterns += [f"{inner}/{CONFIG}".lstrip("/") for inner in INNER]
    try:
        folder = Path(snapshot_download(source, allow_patterns=patterns, **options))
        if weights and not any((folder / file).is_file() for files in TAEF2_FILES for file in files):
            inner, _ = _class_in(folder, source)
            pattern = f"{inner.relative_to(folder)}/diffusion_pytorch_model*.safetensors*".removeprefix("./")
            folder = Path(snapshot_download(source, allow_patterns=[*patterns, pattern], **options))
    except _RefusedError:
        raise
    except Exception as error:  # no network, no such repository, no right to read it
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"got codec {source}, which is neither a folder nor within reach on the hub ({reason}); expected"
            f" {EXPECTED}; connect to the network, or download it elsewhere and name the folder"
        ) from error
    return folder


class _RefusedError(ValueError):
    """An error whose message is already meant for users."""


@contextmanager
def _plain_loading(source: str) -> Iterator[None]:
    """Say in one line why an autoencoder cannot be loaded."""
    try:
        yield
    except _RefusedError:
        raise
    except Exception as error:  # of many kinds: no file, a broken one, weights of another shape
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"got codec {source}, which cannot be loaded ({reason}); expected {EXPECTED}, with weights as safetensors;"
            " check its files"
        ) from error
