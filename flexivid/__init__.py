"""flexivid: video diffusion transformers whose compute you can dial (FlexiDiT on PyTorch Lightning).

The public names below are loaded on first use: importing flexivid imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "PatchMode": "flexivid.patching.shapes",
    "FlexiDiTConfig": "flexivid.model.config",
    "FlexiDiT": "flexivid.model.flexidit",
    "Condition": "flexivid.model.conditioning",
    "macs": "flexivid.budget.cost",
    "Step": "flexivid.budget.schedule",
    "Schedule": "flexivid.budget.schedule",
    "weak_first": "flexivid.budget.schedule",
    "constant": "flexivid.budget.schedule",
    "for_budget": "flexivid.budget.schedule",
    "budget_of": "flexivid.budget.schedule",
    "generate": "flexivid.pipeline.generate",
    "load": "flexivid.pipeline.checkpoint",
}
__all__ = [*_PLACES, "__version__"]

if TYPE_CHECKING:
    from flexivid.budget.cost import macs as macs
    from flexivid.budget.schedule import Schedule as Schedule
    from flexivid.budget.schedule import Step as Step
    from flexivid.budget.schedule import budget_of as budget_of
    from flexivid.budget.schedule import constant as constant
    from flexivid.budget.schedule import for_budget as for_budget
    from flexivid.budget.schedule import weak_first as weak_first
    from flexivid.model.conditioning import Condition as Condition
    from flexivid.model.config import FlexiDiTConfig as FlexiDiTConfig
    from flexivid.model.flexidit import FlexiDiT as FlexiDiT
    from flexivid.patching.shapes import PatchMode as PatchMode
    from flexivid.pipeline.checkpoint import load as load
    from flexivid.pipeline.generate import generate as generate


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'flexivid' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
