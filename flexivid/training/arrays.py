"""The older place of ``CallArrays``: recipes of distillation named it, and runs have saved them."""

from flexivid.training.distillation.recorded_data import CallArrays

__all__ = ["CallArrays"]
