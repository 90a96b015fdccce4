"""The older place of ``AdapterEMA``: recipes of distillation named it, and runs have saved them."""

from flexivid.training.distillation.ema import AdapterEMA

__all__ = ["AdapterEMA"]
