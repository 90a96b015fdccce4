"""Former home of ``CallArrays``: configurations saved by earlier distillation runs import it from here."""

from flexivid.training.distillation.recorded_data import CallArrays

__all__ = ["CallArrays"]
