"""Loading and saving models, which model a program works on, and a name for weights.

The name of a shipped model stands for its folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from flexivid.model import shipped
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.formats import CONFIG, write_model
from flexivid.model.recipe import Recipe
from flexivid.model.shipped import WEIGHTS
from flexivid.runtime.paths import is_hidden, resolve_path
from flexivid.runtime.weights import Snapshot, add_weights, is_plain

_fingerprints: WeakKeyDictionary[FlexiDiT, tuple[Snapshot, str]] = WeakKeyDictionary()


def load(path: str | Path, *, ema: bool = True, device: str | torch.device = "cpu") -> FlexiDiT:
    """Load a model for sampling.

    Args:
        path: An exported folder, a training run's folder, a Lightning ``.ckpt`` file, or the name of a shipped model
            where there is no such path.
        ema: Averaged weights. ``False`` takes the last ones, which only a ``.ckpt`` (or a run that has one) keeps.
        device: Where to put it.

    Returns:
        The network in eval mode; ``model.recipe`` says how it was trained and how to sample it.

    Raises:
        FileNotFoundError: If there is no checkpoint at ``path``.
        ValueError: If the files are damaged or weights and config do not fit.
        NotFiniteError: If a weight holds NaN or infinity.

    Example:
        >>> model = load("moving_digits")
        >>> model.recipe.size, len(model.recipe.class_names)
        (Size3(t=8, h=32, w=32), 10)
    """
    return FlexiDiT.from_pretrained(path, ema=ema, device=device)


def save(model: FlexiDiT, folder: str | Path, *, recipe: Recipe | None = None) -> Path:
    """Write ``config.json`` and ``model.safetensors``, as :func:`load` reads them; each appears whole or not at all.

    Args:
        model: Its weights are written as they are.
        folder: Made if missing.
        recipe: How to sample the model; ``None`` = ``model.recipe``.

    Returns:
        The folder.

    Raises:
        NotFiniteError: If a weight holds NaN or infinity; then nothing is written.

    Example:
        >>> import tempfile
        >>> from flexivid import FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2))
        >>> load(save(model, tempfile.mkdtemp(), recipe=Recipe(fps=16))).recipe.fps
        16.0
    """
    return write_model(folder, model.config, model.recipe if recipe is None else recipe, model.state_dict())


def fingerprint(model: FlexiDiT) -> str:
    """Return twelve hex digits of the weights and the config: they say which checkpoint a sample came from.

    Reading all weights takes longer than a small sample, so the result is remembered until the weights change.

    Example:
        >>> fingerprint(load("moving_digits"))
        '09ea0388f29f'
    """
    snapshot, name = _fingerprints.get(model, (None, ""))
    if snapshot is None or not snapshot.holds(model):
        name = _hash(model)
        if is_plain(model):
            _fingerprints[model] = (Snapshot(model), name)
    return name


def _hash(model: FlexiDiT) -> str:
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    add_weights(digest.update, model.state_dict())
    return digest.hexdigest()[:12]


def newest_run(root: str | Path = "runs") -> Path:
    """The run below ``root`` that was written last; ``FileNotFoundError`` if there is none."""
    root = resolve_path(root)
    checkpoints = [file for file in root.rglob("*.ckpt") if not is_hidden(file.name)]
    files = [*root.rglob(WEIGHTS), *checkpoints]
    if not files:
        raise FileNotFoundError(
            f"got no trained model below {root}/; expected {WEIGHTS} or a .ckpt file; run `make train-video`"
            " or name one with --checkpoint"
        )
    newest = max(files, key=lambda file: file.stat().st_mtime)
    if newest.name == WEIGHTS:
        return newest.parent
    run = newest.parent.parent  # Lightning writes the last checkpoint when all is done, after the export
    return run if (run / WEIGHTS).is_file() and _has_steps(run / CONFIG, newest) else newest


def _has_steps(config: Path, checkpoint: Path) -> bool:
    """Whether an exported model is of the same step as a checkpoint."""
    try:
        steps = json.loads(config.read_text())["recipe"]["global_step"]
        return steps == torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)["global_step"]
    except Exception:  # damaged or foreign: whoever loads it says so
        return False


def choose(checkpoint: str | Path | None, *, root: str | Path = "runs") -> tuple[Path, str]:
    """Which model a program works on, and the line that says so where the shipped model stands in for a run.

    ``checkpoint`` is a path or the name of a shipped model; ``None`` = the newest run below ``root``, else the shipped
    default, or ``FileNotFoundError`` if no model is shipped.
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
