"""The two formats a model is stored in: ``config.json`` + ``model.safetensors``, and Lightning's ``.ckpt``.

Weights may be stored in half precision; they are loaded as float32. Nothing that is read is run as code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import flexivid
from flexivid.model import shipped
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.recipe import Recipe
from flexivid.model.shipped import WEIGHTS
from flexivid.runtime.errors import reason_of
from flexivid.runtime.files import save_json
from flexivid.runtime.finite import require_finite_weights
from flexivid.runtime.paths import resolve_path
from flexivid.runtime.weights import misfit, save_weights

CONFIG = "config.json"
KEY = "flexivid"  # of the entry that training adds to a Lightning checkpoint
PREFIX = "network."  # of the network's weights there


class StoredModel(NamedTuple):
    """A model as it was read from ``path``; ``weights`` by name."""

    path: Path
    config: FlexiDiTConfig
    recipe: Recipe
    weights: dict[str, Tensor]

    def fill(self, model: nn.Module) -> None:
        """Load the weights into a network made from the config; ``ValueError`` if they do not fit or are not finite."""
        if fault := misfit(model, self.weights):
            raise ValueError(
                f"got weights at {self.path} that do not fit their config ({fault}); expected the pair that was saved"
                " together; export again"
            )
        require_finite_weights(self.weights, self.path)
        model.load_state_dict(self.weights)


def write_model(folder: str | Path, config: FlexiDiTConfig, recipe: Recipe, weights: Mapping[str, Tensor]) -> Path:
    """Write ``config.json`` and ``model.safetensors`` to a folder, made if missing, and return it, see ``save``."""
    folder = resolve_path(folder)
    require_finite_weights(weights, f"a model for {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, weights)
    write_config(folder, config, recipe)
    return folder


def write_config(folder: str | Path, config: FlexiDiTConfig, recipe: Recipe) -> None:
    """Write ``config.json`` alone, for weights that stay as they are."""
    content = {"flexivid_version": flexivid.__version__, "model": config.to_dict(), "recipe": recipe.to_dict()}
    save_json(Path(folder) / CONFIG, content)


def read_model(checkpoint: str | Path, *, ema: bool = True) -> StoredModel:
    """Read a model in any format; arguments and errors are those of ``flexivid.load``."""
    path = shipped.locate(checkpoint)
    is_exported = (path / CONFIG).is_file() and (path / WEIGHTS).is_file()
    ckpt = path if path.is_file() else _last_ckpt(path)
    if ckpt is None and not is_exported:
        raise FileNotFoundError(
            f"got checkpoint {path}, which {'has no model in it' if path.is_dir() else 'does not exist'}; expected a"
            f" folder with {CONFIG} and {WEIGHTS}, a run folder or a .ckpt file{shipped.names_line()}; check the path"
        )
    if ckpt is None and not ema:
        raise ValueError(f"got --no-ema for {path}; expected a .ckpt, which keeps both weights; point to one")
    if ckpt is None or (is_exported and ema):
        config, recipe, weights = _read_exported(path)
    else:
        config, recipe, weights = _read_ckpt(ckpt, ema)
    return StoredModel(path, FlexiDiTConfig.from_dict(config), Recipe.from_dict(recipe), weights)


def _last_ckpt(path: Path) -> Path | None:
    """``last.ckpt`` of a run or of its ``checkpoints``; ``last-v1.ckpt`` where Lightning had to number a newer one."""
    for folder in (path / "checkpoints", path):
        files = [file for pattern in ("last.ckpt", "last-v*.ckpt") for file in folder.glob(pattern) if file.is_file()]
        if files:
            return max(files, key=lambda file: file.stat().st_mtime)
    return None


def _read_exported(folder: Path) -> tuple[dict, dict, dict[str, Tensor]]:
    try:
        content = json.loads((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
        return content["model"], content.get("recipe", {}), weights
    except (ValueError, KeyError, TypeError, SafetensorError) as error:  # the first of bad JSON and bad text
        raise ValueError(
            f"got {folder} with damaged files ({error!r}); expected what flexivid wrote; export the run again"
        ) from error


def _read_ckpt(file: Path, ema: bool) -> tuple[dict, dict, dict[str, Tensor]]:
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
