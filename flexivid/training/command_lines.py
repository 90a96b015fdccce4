"""Which of training's two command lines to start: FlexiDiT or distillation. Imports no torch, to import only one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml


def is_distillation(words: Sequence[str]) -> bool:
    """Whether the arguments, or a configuration file that they name, name a pre-trained transformer.

    Example:
        >>> is_distillation(["fit", "--model.transformer", "my_wan"]), is_distillation(["fit"])
        (True, False)
    """
    if any(word.startswith("--model.transformer") for word in words):
        return True
    files = [following for word, following in pairwise(words) if word in ("--config", "-c")]
    files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    return any("transformer" in _model_of(Path(file)) for file in files)


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
