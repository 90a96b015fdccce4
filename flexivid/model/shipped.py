"""Trained models that come with the package: their names and folders. Imports no torch.

A shipped model is a folder below ``flexivid/models/`` with ``config.json``, ``model.safetensors`` (in float16, to halve
the download), ``schedules.json``, and ``card.md``, which says how it was trained and what it can do.
"""

from __future__ import annotations

from pathlib import Path

from flexivid.runtime.paths import resolve_path

FOLDER = Path(__file__).resolve().parents[1] / "models"
DEFAULT = "moving_digits"  # what programs use where there is no run
WEIGHTS = "model.safetensors"


def shipped_models() -> list[str]:
    """Return the names of the shipped models, sorted."""
    return sorted(file.parent.name for file in FOLDER.glob(f"*/{WEIGHTS}"))


def locate(checkpoint: str | Path) -> Path:
    """Return the folder of a shipped model where there is no path of that name, else the path itself."""
    path = resolve_path(checkpoint) if str(checkpoint) else Path()  # loading it will say that there is nothing
    return FOLDER / path if str(checkpoint) in shipped_models() and not path.exists() else path


def is_shipped(path: str | Path) -> bool:
    """Say whether a path is inside the folder of the shipped models, where nothing may be written."""
    return Path(path).resolve().is_relative_to(FOLDER.resolve())


def names_line() -> str:
    """Return the part of error messages that lists shipped models; empty if there are none."""
    names = shipped_models()
    return f", or a shipped model: {', '.join(names)}" if names else ""


def refuse_shipped(path: Path, purpose: str) -> None:
    """Refuse to write beside a shipped model (``ValueError``); ``purpose`` says what, e.g. ``measured schedules``."""
    if is_shipped(path):
        raise ValueError(
            f"got the shipped model {path.name}, which must stay as it is; expected a model of your own for"
            f" {purpose}; copy it first: mkdir -p runs && cp -r {path} runs/{path.name}"
        )
