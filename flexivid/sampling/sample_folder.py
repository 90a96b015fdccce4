"""A folder of samples: an mp4 or PNG each, ``manifest.jsonl``, a grid. Finished files survive an interruption."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flexivid.media.write import to_frames, write_grid, write_picture, write_video
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.flops import CallCounter
from flexivid.runtime.files import atomic_write, locked
from flexivid.runtime.paths import resolve_path
from flexivid.sampling.compiling import warm_up
from flexivid.sampling.conditions import Conditions
from flexivid.sampling.denoiser import OnStep
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.generate import generate_batches, sample_macs, schedule_of
from flexivid.sampling.plan import Plan
from flexivid.sampling.settings import Settings, video_size

MANIFEST = "manifest.jsonl"
GRID_COLUMNS = 8
SLUG = 40  # letters of a prompt in the name of a file


class Outcome(NamedTuple):
    """Files of one plan, and what all its samples cost together."""

    plan: Plan
    files: list[Path]
    predicted_macs: int
    measured_macs: int
    seconds: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while sampling: says what is finished and what is missing."""


def prepare_folder(folder: str | Path) -> Path:
    """Make the folder and check that it can be written to; ``OSError`` if it cannot; the message says what to do."""
    folder = resolve_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"got output folder {folder}, which cannot be written ({error.strerror}); expected a folder of yours;"
            " choose another with --output-dir"
        ) from error
    return folder


def write_samples(
    model: FlexiDiT,
    plans: Sequence[Plan],
    folder: Path,
    *,
    settings: Settings,
    conditions: Conditions,
    seed: int = 0,
    on_step: Callable[[Plan], OnStep] | None = None,
) -> list[Outcome]:
    """Make and write the same samples (noises and conditions) under every plan; ``on_step`` follows the steps of one.

    ``Interrupted`` on Ctrl-C; finished files are whole and listed in the manifest.
    """
    words = conditions.prompts or [""] * len(conditions)
    ending = ".png" if video_size(model, settings).t == 1 else ".mp4"
    names = [[file_name(i, seed, plan.budget, word, ending) for i, word in enumerate(words)] for plan in plans]
    weights = fingerprint(model)
    outcomes, grid = [], []
    lines: dict[str, dict[str, Any]] = {}  # of the manifest; those of this run
    try:
        warm_up(model, set().union(*(plan.modes for plan in plans)), settings, len(conditions))
        for plan, files in zip(plans, names, strict=True):
            callback = on_step(plan) if on_step else None
            plan_settings = plan.settings(settings)
            shown: list[np.ndarray] = []
            codec_of(model)  # loaded before time is taken
            with CallCounter(model) as counter:
                started, writing = time.perf_counter(), 0.0
                batches = generate_batches(
                    model, plan.followed, plan_settings, conditions=conditions, seed=seed, on_step=callback
                )
                for indices, videos in batches:
                    pause = time.perf_counter()
                    origin = {"seconds": (pause - started - writing) / (indices[-1] + 1), "checkpoint": weights}
                    batch = indices, videos, files, seed, plan_settings, origin
                    shown += _write_batch(model, plan, folder, conditions, batch, lines)
                    _update_manifest(folder / MANIFEST, lines)
                    writing += time.perf_counter() - pause
                seconds = time.perf_counter() - started - writing
            predicted = sum(sample_macs(model, plan_settings, plan.followed, i) for i in range(len(conditions)))
            outcomes.append(Outcome(plan, [folder / file for file in files], predicted, counter.macs, seconds))
            grid.append((f"budget {plan.budget:g}   {plan.followed}   {seconds:.1f} s", shown[:GRID_COLUMNS]))
    except KeyboardInterrupt:
        _update_manifest(folder / MANIFEST, lines)
        raise Interrupted(_missing(folder, [file for files in names for file in files], lines)) from None
    write_grid(folder / "grid", grid, model.recipe.fps, conditions.prompts[:GRID_COLUMNS])
    return outcomes


def file_name(index: int, seed: int, budget: float, prompt: str = "", ending: str = ".mp4") -> str:
    """Name of a sample's file, with as much of the prompt as any file system takes.

    Example:
        >>> file_name(3, 7, 0.25), file_name(0, 1, 1, "A red/green ball!", ".png")
        ('000003_seed10_b0.25.mp4', '000000_seed1_b1_a-red-green-ball.png')
    """
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG].strip("-")
    return f"{index:06d}_seed{seed + index}_b{budget:g}{words and '_'}{words}{ending}"


def _write_batch(
    model: FlexiDiT, plan: Plan, folder: Path, conditions: Conditions, batch: tuple, lines: dict[str, dict[str, Any]]
) -> list[np.ndarray]:
    """Write a batch's videos, add their manifest lines; returns the frames."""
    indices, videos, files, seed, settings, origin = batch
    common = {**origin, "sampling": settings._asdict()}
    names, has_text = model.recipe.class_names, bool(conditions.prompts)
    shown = []
    for i, video in zip(indices, videos, strict=True):
        frames = to_frames(video)
        label = int(conditions.labels[i]) if model.config.num_classes else None
        texts = {"prompt": conditions.prompts[i], "negative_prompt": conditions.negative_prompt} if has_text else {}
        line = {
            "file": files[i],
            "index": i,
            "seed": seed + i,
            "label": label,
            "class": names[label] if label is not None and label < len(names) else None,
            **texts,
            "budget": plan.budget,
            "plan": str(schedule_of(plan.followed, i)),
            "macs": sample_macs(model, settings, plan.followed, i),
            **common,
        }
        if files[i].endswith(".png"):
            write_picture(folder / files[i], frames[0])
        else:
            write_video(folder / files[i], frames, model.recipe.fps)
        lines[files[i]] = line  # right after the file: an interruption in between would leave it out
        shown.append(frames)
    return shown


def videos_in(folder: str | Path) -> dict[Path, float | None]:
    """Videos or pictures that ``write_samples`` wrote into a folder and that are still there, with their budgets.

    Example:
        >>> videos_in("no_such_folder")
        {}
    """
    try:
        folder = resolve_path(folder)
        lines = [line for line in _lines_of(folder / MANIFEST) if "plan" in line]
        files = {folder / line["file"]: line.get("budget") for line in lines}
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or a list of another kind
        return {}
    return {file: budget for file, budget in files.items() if file.is_file()}


def _lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _update_manifest(path: Path, lines: dict[str, dict[str, Any]]) -> None:
    """Add lines, replacing those of the same file, under a lock: programs that share a folder lose no line."""
    with locked(path):
        old = _lines_of(path) if path.exists() else []
        merged = {line["file"]: line for line in old} | lines
        with atomic_write(path) as part:
            part.write_text("".join(json.dumps(line) + "\n" for _, line in sorted(merged.items())))


def _missing(folder: Path, files: Sequence[str], done: Container[str]) -> str:
    missing = [file for file in files if file not in done]
    listed = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    return f"interrupted: {len(files) - len(missing)} of {len(files)} files are finished in {folder}; missing: {listed}"
