"""The command line of distillation: a configuration whose ``model`` names a ``transformer``."""

from __future__ import annotations

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from flexivid.pipelines.report import report
from flexivid.pretrained.flexify import flexify
from flexivid.pretrained.load import load_transformer
from flexivid.pretrained.model_files import ModelFiles
from flexivid.runtime.device import DTYPES
from flexivid.training.cli import FlexiCLI
from flexivid.training.distillation.module import FlexiDistillation


class DistillCLI(FlexiCLI):
    """Like ``FlexiCLI``, for ``FlexiDistillation`` and any data module, named by its ``class_path``."""

    module_class = FlexiDistillation
    data_class = LightningDataModule

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link nothing: a pre-trained model knows its shapes."""

    def needs(self, config: Namespace) -> list[str]:
        """The lines of a dry run: new parameters, costs and memory."""
        settings, files = config.model, ModelFiles(**config.model.files.as_dict())
        network = load_transformer(settings.transformer, dtype=DTYPES[settings.weights], empty=True, files=files)
        flexify(network, settings.modes, rank=settings.rank, skip=settings.skip, detail=settings.detail)
        return report(network, tuple(settings.walk.size))
