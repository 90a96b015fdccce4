"""Saving and loading models: ``config.json`` + ``model.safetensors``, or a Lightning ``.ckpt``. EMA weights by default.

The name of a shipped model stands for its folder. Weights may be stored in half precision; they are loaded as float32.
A recipe is plain data beside the model's shape: what a sampler must know and the network does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import flexivid
from flexivid.model import shipped
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.shipped import WEIGHTS
from flexivid.model.snapshot import Snapshot, is_plain
from flexivid.runtime.errors import reason_of
from flexivid.runtime.files import atomic_write
from flexivid.runtime.finite import require_finite_weights
from flexivid.runtime.paths import is_hidden, resolve_path

CONFIG = "config.json"
KEY = "flexivid"  # of the entry that training adds to a Lightning checkpoint
PREFIX = "network."  # of the network's weights there
_fingerprints: WeakKeyDictionary[FlexiDiT, tuple[Snapshot, str]] = WeakKeyDictionary()


def save(folder: str | Path, model: FlexiDiT, recipe: Mapping[str, Any]) -> Path:
    """Write ``config.json`` and ``model.safetensors``; each appears whole or not at all.

    Args:
        folder: Made if missing.
        model: Its weights are written as they are.
        recipe: Plain data: process, size, fps, class names, sampling defaults.

    Returns:
        The folder.

    Raises:
        NotFiniteError: If a weight holds NaN or infinity; then nothing is written.
    """
    folder = resolve_path(folder)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    require_finite_weights(weights, f"a model for {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS) as part:
        save_file(weights, part, metadata={"format": "pt"})
    write_config(folder, model, recipe)
    return folder


def write_config(folder: str | Path, model: FlexiDiT, recipe: Mapping[str, Any]) -> None:
    """Write ``config.json`` alone: the weights stay, and what a sampler must know of them is told anew."""
    content = {"flexivid_version": flexivid.__version__, "model": model.config.to_dict(), "recipe": dict(recipe)}
    with atomic_write(Path(folder) / CONFIG) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def load(path: str | Path, *, ema: bool = True, device: str | torch.device = "cpu") -> FlexiDiT:
    """Load a model for sampling.

    Args:
        path: An exported folder, a training run's folder, a Lightning ``.ckpt`` file, or the name of a shipped model
            where there is no such path.
        ema: Averaged weights. ``False`` takes the last ones, which only a ``.ckpt`` (or a run that has one) keeps.
        device: Where to put it.

    Returns:
        The network in eval mode; ``model.recipe`` tells how it was trained and how to sample it.

    Raises:
        FileNotFoundError: If there is no checkpoint at ``path``.
        ValueError: If the files are damaged or weights and config do not fit.
        NotFiniteError: If a weight holds NaN or infinity.
    """
    path = shipped.locate(path)
    config, recipe, weights = _read(path, ema)
    model = FlexiDiT(FlexiDiTConfig.from_dict(config))
    _load_weights(model, weights, path)
    model.recipe = recipe
    return model.eval().to(device)


def fingerprint(model: FlexiDiT) -> str:
    """Twelve hex digits of the weights and the config: says which checkpoint a sample came from.

    Reading all weights takes longer than a small sample, so it is remembered as long as they stay as they are.
    """
    known = _fingerprints.get(model)
    if known is None or not known[0].holds(model):
        name = _hash(model)
        if not is_plain(model):
            return name
        known = _fingerprints[model] = (Snapshot(model), name)
    return known[1]


def _hash(model: FlexiDiT) -> str:
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def newest_run(root: str | Path = "runs") -> Path:
    """The run below ``root`` that was written last.

    Raises:
        FileNotFoundError: If there is none.
    """
    root = resolve_path(root)
    checkpoints = [file for file in root.rglob("*.ckpt") if not is_hidden(file.name)]
    found = [*root.rglob(WEIGHTS), *checkpoints]
    if not found:
        raise FileNotFoundError(
            f"got no trained model below {root}/; expected {WEIGHTS} or a .ckpt file; run `make train-video`"
            " or name one with --checkpoint"
        )
    newest = max(found, key=lambda file: file.stat().st_mtime)
    return newest.parent if newest.name == WEIGHTS else newest


def choose(checkpoint: str | Path | None, *, root: str | Path = "runs") -> tuple[Path, str]:
    """Which model a program works on, and the line that says so where the user did not name it.

    Args:
        checkpoint: A path or the name of a shipped model; ``None`` = the newest run, else the shipped default.
        root: Folder of the runs.

    Returns:
        The path, and the line, empty unless the shipped model stands in for a run.

    Raises:
        FileNotFoundError: If none is named, there is no run, and no model is shipped.
    """
    if checkpoint is not None:
        return shipped.locate(checkpoint), ""
    try:
        return newest_run(root), ""
    except FileNotFoundError:
        if shipped.DEFAULT not in shipped.shipped_models():
            raise
    line = f"no run below {Path(root)}/: using the shipped model {shipped.DEFAULT}; name one with --checkpoint"
    return shipped.FOLDER / shipped.DEFAULT, line


def _read(path: Path, ema: bool) -> tuple[dict, dict, dict[str, torch.Tensor]]:
    """Config, recipe and weights of whatever ``path`` is."""
    if path.is_file():
        return _read_ckpt(path, ema)
    exported = (path / CONFIG).is_file() and (path / WEIGHTS).is_file()
    ckpt = _last_ckpt(path)
    if ckpt is not None and not (exported and ema):
        return _read_ckpt(ckpt, ema)
    if not exported:
        raise FileNotFoundError(
            f"got checkpoint {path}, which {'has no model in it' if path.is_dir() else 'does not exist'}; expected a"
            f" folder with {CONFIG} and {WEIGHTS}, a run folder or a .ckpt file{shipped.names_line()}; check the path"
        )
    if not ema:
        raise ValueError(f"got --no-ema for {path}; expected a .ckpt, which keeps both weights; point to one")
    return _read_exported(path)


def _last_ckpt(path: Path) -> Path | None:
    """``last.ckpt`` of a run or of its ``checkpoints``; ``last-v1.ckpt`` where Lightning had to number a newer one."""
    for folder in (path / "checkpoints", path):
        files = [file for pattern in ("last.ckpt", "last-v*.ckpt") for file in folder.glob(pattern) if file.is_file()]
        if files:
            return max(files, key=lambda file: file.stat().st_mtime)
    return None


def _read_exported(folder: Path) -> tuple[dict, dict, dict[str, torch.Tensor]]:
    try:
        content = json.loads((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
        return content["model"], content.get("recipe", {}), weights
    except (ValueError, KeyError, TypeError, SafetensorError) as error:  # the first of bad JSON and bad text
        raise ValueError(
            f"got {folder} with damaged files ({error!r}); expected what flexivid wrote; export the run again"
        ) from error


def _read_ckpt(file: Path, ema: bool) -> tuple[dict, dict, dict[str, torch.Tensor]]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        entry = content[KEY]
    except Exception as error:
        raise ValueError(
            f"got {file}, which cannot be read as a flexivid checkpoint ({reason_of(error)}); expected a"
            " .ckpt written by flexivid.train; check the path"
        ) from error
    states = content["state_dict"] if ema else content.get("current_model_state", content["state_dict"])
    weights = {name[len(PREFIX) :]: tensor for name, tensor in states.items() if name.startswith(PREFIX)}
    return entry["model"], entry["recipe"], weights


def _load_weights(model: FlexiDiT, weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load, or say in one line how weights and config differ."""
    own = model.state_dict()
    missing, surplus = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if missing or surplus or shapes:
        first = (sorted(shapes) + missing + surplus)[0]
        raise ValueError(
            f"got weights at {path} that do not fit their config ({len(missing)} missing, {len(surplus)} unknown,"
            f" {len(shapes)} of another shape, e.g. {first}); expected the pair that was saved together; export again"
        )
    require_finite_weights(weights, path)
    model.load_state_dict(dict(weights))
