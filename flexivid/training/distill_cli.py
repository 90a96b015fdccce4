"""The command line of distillation: a recipe whose ``model`` names a ``transformer``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from flexivid.pipeline.pretrained_model import load_transformer, report
from flexivid.pretrained.flexify import flexify
from flexivid.training.cli import FlexiCLI, Parser
from flexivid.training.distill import DTYPES, FlexiDistillation


def is_distillation(words: Sequence[str]) -> bool:
    """Whether arguments, or a recipe among them, name a pre-trained transformer.

    Example:
        >>> is_distillation(["fit", "--model.transformer", "my_wan"]), is_distillation(["fit"])
        (True, False)
    """
    if any(word.startswith("--model.transformer") for word in words):
        return True
    after = [following for word, following in pairwise(words) if word in ("--config", "-c")]
    files = after + [word.partition("=")[2] for word in words if word.startswith("--config=")]
    return any("transformer" in _model_of(Path(file)) for file in files)


def _model_of(file: Path) -> dict[str, Any]:
    """The part ``model`` of a recipe; nothing where it cannot be read, which the parser complains of."""
    if not file.is_file():
        return {}
    try:
        recipe = yaml.safe_load(file.read_text())
    except yaml.YAMLError:
        return {}
    model = recipe.get("model") if isinstance(recipe, dict) else None
    return model if isinstance(model, dict) else {}


class DistillCLI(FlexiCLI):
    """Like ``FlexiCLI``, for ``FlexiDistillation`` and any data module, named by its ``class_path``."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        LightningCLI.__init__(
            self,
            FlexiDistillation,
            LightningDataModule,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_class=Parser,
            parser_kwargs={"prog": "python -m flexivid.train"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Nothing is linked: a pre-trained model knows its own shapes."""

    def instantiate_classes(self) -> None:
        """Build everything, or only say what it would need."""
        if not self.dry_run:
            super().instantiate_classes()
            return
        settings = self.config[self.subcommand].model
        network = load_transformer(settings.transformer, empty=True).to(DTYPES[settings.weights])
        flexify(network, settings.modes, rank=settings.rank, skip=settings.skip)
        sys.stdout.write("\n".join(report(network, tuple(settings.walk.size))) + "\n")
        raise SystemExit(0)
