"""The data section of a recipe, read as the training program reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import Namespace

from flexivid.data.clips.windows import ClipSettings
from flexivid.data.lists.text import read_text
from flexivid.data.module import VideoDataModule
from flexivid.runtime.program import OneLineParser

NAMES = ("num_frames", "stride", "fps", "size", "square_pixels", "layout", "pictures")


def data_module_of(files: Sequence[str] | None, root: str | None, overrides: dict[str, Any]) -> VideoDataModule:
    """Build the data module of some recipes by the rules of the training program.

    Later recipes override earlier ones, and ``overrides`` and ``root``, the collection, override all of them.
    """
    content: dict[str, Any] = {}
    section: dict[str, Any] = {}
    for file in files or ():
        loaded = yaml.safe_load(read_text(file))
        content |= loaded if isinstance(loaded, dict) else {}
        section |= content.get("data") or {}
    seed = content.get("seed_everything")
    if section.get("seed") is None and not isinstance(seed, bool):  # true is a random one
        section["seed"] = seed
    section |= overrides | ({"root": root} if root else {})
    parser = OneLineParser(prog="python -m flexivid.dataset")
    parser.add_class_arguments(VideoDataModule, "data")
    return VideoDataModule(**parser.parse_object({"data": section}).data.as_dict())


def overrides_of(options: Namespace) -> dict[str, Any]:
    """Options that override the recipe, by their names there."""
    overrides = {name: options[name] for name in NAMES if options[name] is not None}
    if len(overrides.get("size", ())) == 1:
        overrides["size"] = overrides["size"][0]
    return overrides


def described(data: VideoDataModule) -> str:
    """A clip in one line."""
    settings: ClipSettings = data.settings
    rate = f"stride {settings.stride}" if settings.fps is None else f"{settings.fps:g} fps"
    height, width = settings.size
    shapes = [f"{length} frames of {w}x{h}" for length, h, w in data.buckets or [(settings.num_frames, height, width)]]
    return f"{' or '.join(shapes)}, {rate}, short videos: {settings.short}, windows: {settings.windows}"
