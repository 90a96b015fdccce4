"""Train a flexible video model: ``python -m flexivid.train fit --config conf/train_video.yaml``.

LightningCLI does the work; this file answers ``--help`` at once and takes ``--dry-run``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

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
            from flexivid.training.command_lines import command_line_of

            module, name = command_line_of(words)
            start = getattr(import_module(module), name)
        start(dry_run=bool(dry))
        leave_group()


if __name__ == "__main__":
    main()
