"""How good generated videos are: features of videos, distances between sets of them, and the protocol of a number.

Public names are loaded on first use: importing this package does not import torch.

>>> from flexivid.metrics import frechet_distance
>>> frechet_distance.__module__
'flexivid.metrics.frechet'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexivid.metrics.extractors.i3d import I3D
    from flexivid.metrics.frechet import frechet_distance
    from flexivid.metrics.fvd import FrechetVideoDistance

_HOMES = {"FrechetVideoDistance": "fvd", "I3D": "extractors.i3d", "frechet_distance": "frechet"}

DOORS = ("bootstrap", "fidelity", "frechet", "protocol", "scores")
__all__ = ["FrechetVideoDistance", "I3D", "frechet_distance"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; expected one of {__all__}")


def __dir__() -> list[str]:
    return sorted(__all__)
