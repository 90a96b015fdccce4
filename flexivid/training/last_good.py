"""Finds the checkpoint to resume from: the newest that is complete, finite and not from a diverging run."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch

from flexivid.runtime.files import atomic_write
from flexivid.runtime.finite import first_not_finite

KEY = "bad_steps"  # of the counters of ``bad_steps.StepRecord`` in a checkpoint
LAST, PROVEN = "last.ckpt", "last_good.ckpt"
CUT_OFF = "is cut off, or no checkpoint"
FEW = 3  # from so many bad steps in a row on, a checkpoint counts as one of a diverging run; fewer are harmless


def fault_of(file: Path) -> str:
    """What is wrong with a checkpoint, to follow "which" in a sentence; empty if nothing is. Reads the whole file."""
    if file.is_dir():  # sharded: only the strategy that wrote it can read it
        return "" if (file / ".metadata").is_file() else "is a folder without a checkpoint in it"
    if not file.is_file():
        return "does not exist"
    if not is_zipfile(file):
        return CUT_OFF if file.stat().st_size else "is empty"
    try:
        with ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            return f"is damaged ({damaged})"
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        return f"is damaged ({' '.join(str(error).split())[:120]})"
    except Exception as error:  # unpickling can raise anything
        return f"cannot be read without running code that is in it ({type(error).__name__})"
    return _fault_in(content)


def _fault_in(content: object) -> str:
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        return "holds no weights"
    if content.get("hyper_parameters"):  # Lightning's command line would apply them, and import classes they name
        return "brings settings of its own"
    for key in ("state_dict", "current_model_state"):
        name = first_not_finite(content.get(key, {}))
        if name is not None:
            return f"holds values that are not finite in weight {name}"
    bad = content.get(KEY, {}).get("in_a_row", 0)
    return f"was saved after {bad} bad steps in a row" if bad >= FEW else ""


def newest_first(files: Iterable[Path]) -> list[Path]:
    """Sort checkpoints: newest folder first, in each folder ``last.ckpt`` first, then the rest by time of writing.

    Copying a run changes times, so names count first. Where Lightning did not write a ``last.ckpt`` itself it adds a
    number (``last-v1.ckpt``); among those, the time decides.
    """
    by_folder: dict[Path, list[Path]] = {}
    for file in sorted(files, key=lambda file: file.stat().st_mtime if file.exists() else 0.0, reverse=True):
        by_folder.setdefault(file.parent, []).append(file)
    return [file for group in by_folder.values() for file in sorted(group, key=_rank)]


def _rank(file: Path) -> int:
    if file.name == PROVEN:
        return 2
    return 0 if file.name == LAST or file.name.startswith("last-v") else 1


def choose_good(files: Iterable[Path]) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Return the first file to resume from, and the faults of those before it."""
    rejected: list[tuple[Path, str]] = []
    for file in files:
        fault = fault_of(file)
        if not fault:
            return file, rejected
        rejected.append((file, fault))
    return None, rejected


def to_rewind_to(folders: Iterable[Path]) -> Path | None:
    """The checkpoint that a diverging run goes back to: one that good steps followed, else the newest good one."""
    folders = list(folders)
    proven = newest_first(folder / PROVEN for folder in folders if (folder / PROVEN).exists())
    others = newest_first(file for folder in folders for file in folder.glob("*.ckpt") if file not in proven)
    return choose_good([*proven, *others])[0]


def keep_proven(folder: Path) -> None:
    """Link the newest checkpoint as ``last_good.ckpt``, because good steps have followed it: one that was written
    while a run began to diverge is then never the only one. The link takes no space until the file is replaced.
    """
    files = newest_first(file for file in folder.glob("*.ckpt") if file.name != PROVEN and file.is_file())
    if not files:
        return
    with atomic_write(folder / PROVEN) as part:
        try:
            os.link(files[0].resolve(), part)
        except OSError:  # a file system without links
            shutil.copy2(files[0], part)
