"""Former home of ``AdapterEMA``: configurations saved by earlier distillation runs import it from here."""

from flexivid.training.distillation.ema import AdapterEMA

__all__ = ["AdapterEMA"]
