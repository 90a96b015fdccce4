"""What a pre-trained DiT or Latte tells a sampler: process, codec, text encoder, size, classes."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from flexivid.latents.codec import build_codec
from flexivid.model.recipe import Recipe
from flexivid.pretrained.families.family import config_of
from flexivid.pretrained.model_files import TRANSFORMER

PROCESS = {"path": "linear", "target": "noise"}  # that DiT and Latte were trained with
CHAIN = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "epsilon"}
GUIDANCE = {"DiTTransformer2DModel": 4.0, "VideoDiT": 7.0, "LatteTransformer3DModel": 7.5}  # that authors sample with
CODEC = "stabilityai/sd-vae-ft-ema"  # of published weights without a pipeline
TEXT_TOKENS = 120  # of Latte's captions


def recipe_of(source: str | Path, model: nn.Module) -> Recipe:
    """What the source tells a sampler; ``ValueError`` if its scheduler is of another process."""
    folder, settings, name = Path(source), config_of(model), type(model).__name__
    _check_scheduler(folder / "scheduler" / "scheduler_config.json")
    is_pipeline = (folder / TRANSFORMER).is_dir() or not folder.exists()  # else a transformer alone, or a .pt file
    has_codec, is_empty = (folder / "vae").is_dir(), next(model.parameters()).is_meta
    side, frames = settings["sample_size"], settings.get("video_length", 1)
    is_text = name == "LatteTransformer3DModel"
    classes = 0 if is_text else settings["num_embeds_ada_norm"]
    scale = GUIDANCE[name] if is_text or classes else 1.0
    return Recipe.from_dict(
        {
            "process": PROCESS,
            "codec": str(source) if is_pipeline else CODEC,
            "codec_fingerprint": None if is_empty or not has_codec else build_codec(str(source)).fingerprint,
            "text_encoder": {"source": str(source), "max_length": TEXT_TOKENS} if is_pipeline and is_text else None,
            "size": (frames, side, side),
            "class_names": _class_names(folder / "model_index.json", classes),
            "sampling": {"guidance_scale": scale},
        }
    )


def _check_scheduler(file: Path) -> None:
    settings = json.loads(file.read_text()) if file.is_file() else CHAIN
    wrong = {name: settings[name] for name, value in CHAIN.items() if settings.get(name, value) != value}
    if wrong:
        raise ValueError(
            f"got a scheduler with {wrong} in {file}; expected {CHAIN}, the process of DiT and Latte; flexify this"
            " model instead"
        )


def _class_names(file: Path, count: int) -> tuple[str, ...]:
    """Names of the classes as DiT's pipeline has them; empty where it names another number."""
    names = json.loads(file.read_text()).get("id2label", {}) if file.is_file() else {}
    return tuple(names[str(number)] for number in range(count)) if len(names) == count else ()
