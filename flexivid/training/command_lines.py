"""Which of training's three command lines to start: FlexiDiT, distillation or autoencoder. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

COMMAND_LINES = {  # by the key of ``model`` that tells them: module and class
    "transformer": ("flexivid.training.distillation.cli", "DistillCLI"),
    "autoencoder": ("flexivid.training.autoencoder.cli", "AutoencoderCLI"),
}


def command_line_of(words: Sequence[str]) -> tuple[str, str]:
    """Module and class of the command line that arguments are for, by what they or their configurations name.

    Example:
        >>> command_line_of(["fit", "--model.transformer", "my_wan"])[1], command_line_of(["fit"])[1]
        ('DistillCLI', 'FlexiCLI')
    """
    files = [following for word, following in pairwise(words) if word in ("--config", "-c")]
    files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    models = [_model_of(Path(file)) for file in files]
    for key, command_line in COMMAND_LINES.items():
        if any(word.startswith(f"--model.{key}") for word in words) or any(key in model for model in models):
            return command_line
    return "flexivid.training.cli", "FlexiCLI"


def _model_of(file: Path) -> dict[str, Any]:
    """The section ``model`` of a configuration; empty if the file cannot be read, which the parser reports later."""
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return {}
    except UnicodeDecodeError as error:  # which the parser would report without the name of the file
        raise ValueError(f"got {file}: {error}; expected a configuration as UTF-8; save it as UTF-8") from error
    model = content.get("model") if isinstance(content, dict) else None
    return model if isinstance(model, dict) else {}
