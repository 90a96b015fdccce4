"""Train a flexible video model: ``python -m flexivid.train fit --config conf/train_video.yaml``.

LightningCLI does the work; this file answers ``--help`` at once and takes ``--dry-run``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from flexivid.runtime.errors import plain_errors
from flexivid.runtime.start import keep_freed_memory, swift_imports

HELP = """usage: python -m flexivid.train fit --config conf/train_video.yaml [--dry-run] [--section.key value ...]

Train a flexible video model: one network, several patch sizes.

examples:
  python -m flexivid.train fit --config conf/train_video.yaml
  python -m flexivid.train fit --config conf/train_video.yaml --data.root my_videos --trainer.max_steps 5000
  python -m flexivid.train fit --config conf/train_video.yaml --config conf/model/B.yaml --dry-run
  python -m flexivid.train fit --config conf/train_video.yaml --ckpt_path last        go on with the newest run
  python -m flexivid.train fit --config conf/distill_wan.yaml        weak modes for a pre-trained model of diffusers
  python -m flexivid.train fit --config conf/autoencoder.yaml --data.root my_videos        a small video autoencoder

subcommands (Lightning's):
  fit        train          validate   loss of every mode on held-out videos

options:
  --config FILE        settings as YAML; may be given several times, later ones override
  --data.root FOLDER   videos to train on          --data.* --model.* --trainer.*   anything else in a configuration
  --ckpt_path FILE     resume; `last` = the newest run of this configuration
  --dry-run            print parameters, tokens, MACs and memory, and stop
  --print_config       print the whole configuration with its explanations

all settings: python -m flexivid.train fit --help
"""

COMMAND_LINES = {  # by the key of ``model`` that tells them: module and class
    "transformer": ("flexivid.training.distillation.cli", "DistillCLI"),
    "autoencoder": ("flexivid.training.autoencoder.cli", "AutoencoderCLI"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return
    keep_freed_memory()
    dry = [word for word in words if word in ("--dry-run", "--dry_run")]
    with plain_errors():
        sys.argv = [sys.argv[0], *(word for word in words if word not in dry)]  # where Lightning, and its ranks, look
        with swift_imports():
            from flexivid.runtime.distributed import leave_group

            module, name = command_line_of(words)
            start = getattr(import_module(module), name)
        start(dry_run=bool(dry))
        leave_group()


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
    import yaml

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


if __name__ == "__main__":
    main()
