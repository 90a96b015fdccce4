"""Load a pre-trained transformer from a folder, the hub, or an original checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flexivid.model.checkpoint import load
from flexivid.model.formats import CONFIG
from flexivid.pretrained.families.video_dit import VideoDiT
from flexivid.pretrained.model_files import ANY_FILES, ModelFiles, plain_loading
from flexivid.pretrained.original_checkpoints import load_plain
from flexivid.runtime.hub import cache_alone
from flexivid.runtime.paths import resolve


def load_transformer(
    model: str | Path, *, dtype: torch.dtype | None = None, empty: bool = False, files: ModelFiles = ANY_FILES
) -> nn.Module:
    """Load the transformer of a diffusers pipeline, or an original checkpoint of DiT or Latte, or a trained FlexiDiT.

    ``model`` is the folder of a pipeline, a transformer (``VideoDiT`` included) or a FlexiDiT, an id on the Hugging
    Face hub, or a ``.pt`` file, see ``load_plain``; any other is a ``ValueError``. ``dtype=None`` is float32.
    ``empty`` reads the configuration only: the model is on the meta device.
    """
    model, dtype = resolve(model), dtype or torch.float32
    folder = Path(model)
    is_original = folder.suffix in (".pt", ".pth")
    if is_original or "flexivid_version" in _config(folder):
        files.refuse_for(model)
        plain = load_plain(folder) if is_original else load(folder, device="meta" if empty else "cpu")
        return plain.to("meta" if empty else "cpu").to(dtype)
    source, where = files.locate(model)
    if where and not files.local_files_only:  # on the hub, which diffusers would wait for
        files = replace(files, **cache_alone(source))
    with plain_loading(f"model {model}", "a diffusers model"):
        from diffusers import AutoModel

        is_ours = _config(Path(source)).get("_class_name") == VideoDiT.__name__
        kind: Any = VideoDiT if is_ours else AutoModel
        if empty:
            return nn.Module.to(_empty(kind, source, where, files), dtype)  # diffusers' own warns of parts in float32
        return kind.from_pretrained(source, dtype=dtype, **where, **files.settings).eval()


def _empty(kind: Any, source: str, where: dict[str, str], files: ModelFiles) -> nn.Module:
    """A model on the meta device; its configuration is the same for all variants."""
    hub = {name: value for name, value in files.settings.items() if name in ("revision", "local_files_only")}
    with torch.device("meta"):
        if kind is VideoDiT:
            return kind.from_config(kind.load_config(source))
        return kind.from_config(source, **where, **hub)


def _config(folder: Path) -> dict[str, Any]:
    """The configuration in a folder; empty for a hub id."""
    file = folder / CONFIG
    return json.loads(file.read_text()) if file.is_file() else {}
