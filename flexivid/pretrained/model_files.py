"""Which files of a pre-trained model are read, and errors for files that are missing. Loads nothing.

Private models: the hub's library reads the token of ``hf auth login`` or ``HF_TOKEN``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flexivid.model.formats import CONFIG
from flexivid.runtime.paths import HUB_ID

TRANSFORMER = "transformer"  # its folder in a pipeline
WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?\.(safetensors|bin)")
SINGLE_FILES = (".safetensors", ".sft", ".gguf", ".bin", ".ckpt")


@dataclass(frozen=True)
class ModelFiles:
    """Which files of a diffusers model to read, named as in diffusers.

    Args:
        variant: Of its weights: ``fp16`` reads ``diffusion_pytorch_model.fp16.safetensors``.
        revision: Branch, tag or commit on the hub.
        subfolder: Folder of the transformer, where it is not ``transformer``: ``transformer_2`` of Wan 2.2.
        local_files_only: Read what is on this machine only.
        use_safetensors: Read safetensors only, even if there are other formats.

    Example:
        >>> ModelFiles(variant="fp16", local_files_only=True).settings
        {'variant': 'fp16', 'local_files_only': True}
    """

    variant: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    local_files_only: bool = False
    use_safetensors: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of diffusers for these settings, without the subfolder, which pipelines do not take."""
        return {name: value for name, value in vars(self).items() if value and name != "subfolder"}

    def refuse_for(self, model: str | Path) -> None:
        """Refuse all settings for a model that is not one of diffusers: ``ValueError`` if one was set."""
        names = [name for name, value in vars(self).items() if value]
        if names:
            raise ValueError(
                f"got {' and '.join(names)} for {model}; expected a diffusers model with it, which this is not; leave"
                " it out"
            )

    def locate(self, model: str | Path) -> tuple[str, dict[str, str]]:
        """Return where the transformer is: its folder, or a hub id with the subfolder as an argument of diffusers."""
        folder = Path(model)
        if folder.is_file() or folder.suffix in SINGLE_FILES:
            raise ValueError(
                f"got model {model}, a single file; expected a diffusers folder or hub id, or an original .pt of DiT or"
                " Latte; load it with from_single_file of its class in diffusers, and write it with save_pretrained"
            )
        if not folder.is_dir():
            if re.fullmatch(HUB_ID, str(model)):
                return str(model), {"subfolder": self.subfolder or TRANSFORMER}
            raise ValueError(f"got model {model}, which does not exist; expected a folder or a hub id like org/name")
        is_pipeline = (folder / "model_index.json").is_file()
        inner = folder / (self.subfolder or (TRANSFORMER if is_pipeline else ""))
        if not (inner / CONFIG).is_file():
            raise ValueError(
                f"got model {model} without {(inner / CONFIG).relative_to(folder)}; expected a diffusers folder, of a"
                " pipeline or of its transformer; check the path"
            )
        self.check_folder(inner)
        return str(inner), {}

    def check_folder(self, folder: Path) -> None:
        """Refuse a revision or a variant that a folder does not have, which diffusers would ignore in silence."""
        matches = [match for file in folder.glob("*") if (match := WEIGHTS.fullmatch(file.name))]
        variants = {match["variant"] for match in matches}
        if variants and self.variant not in variants:
            choices = ", ".join(sorted(variant or "none" for variant in variants))
            raise ValueError(
                f"got variant {self.variant or 'none'} for {folder}; expected one of those there: {choices}; name it"
                " (--variant, or files.variant of a distillation), or download other files"
            )
        if self.revision and folder.is_dir():
            raise ValueError(
                f"got revision {self.revision} for {folder}; expected a hub id with it, since a folder has one only;"
                " leave it out"
            )

    def keep_fingerprint(self, model: nn.Module) -> bool:
        """Whether a model read with these settings has the fingerprint of its float32 weights.

        In bfloat16 it does; float16 rounds to other values, and float8 or quantised weights have other values.
        """
        dtypes = {weight.dtype for weight in model.parameters()}
        return self.variant != "fp16" and dtypes <= {torch.float64, torch.float32, torch.bfloat16}


ANY_FILES = ModelFiles()


def files_of(options: Any) -> ModelFiles:
    """Read the settings from the options of a command line."""
    return ModelFiles(**{name: getattr(options, name) for name in vars(ANY_FILES) if hasattr(options, name)})


@contextmanager
def plain_loading(model: str, expected: str) -> Iterator[None]:
    """Turn any error of loading a model into a ``ValueError`` of one line."""
    try:
        yield
    except Exception as error:  # no file, a broken one, no library or no device for a quantised model
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"got {model}, which cannot be loaded ({reason}); expected {expected}; check it") from error
