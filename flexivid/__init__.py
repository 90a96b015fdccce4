"""flexivid: video diffusion transformers whose compute you can dial (FlexiDiT on PyTorch Lightning).

The public names below are loaded on first use: importing flexivid imports no torch.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if "OMP_WAIT_POLICY" not in os.environ:  # GNU's OpenMP waits 30 times longer at full speed, and stalls on busy cores
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # benchmarks/bench_waiting.py; torch reads it when it is imported

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
    "for_budget": "flexivid.budget.planners",
    "budget_of": "flexivid.budget.schedule",
    "generate": "flexivid.sampling.generate",
    "load": "flexivid.model.checkpoint",
    "flexify": "flexivid.pretrained.adapter",
    "set_mode": "flexivid.pretrained.flexify",
    "apply_budget": "flexivid.pipelines.budget",
}
__all__ = [*_PLACES, "__version__"]

if TYPE_CHECKING:
    from flexivid.budget.cost import macs as macs
    from flexivid.budget.planners import for_budget as for_budget
    from flexivid.budget.schedule import Schedule as Schedule
    from flexivid.budget.schedule import Step as Step
    from flexivid.budget.schedule import budget_of as budget_of
    from flexivid.budget.schedule import constant as constant
    from flexivid.budget.schedule import weak_first as weak_first
    from flexivid.model.checkpoint import load as load
    from flexivid.model.conditioning import Condition as Condition
    from flexivid.model.config import FlexiDiTConfig as FlexiDiTConfig
    from flexivid.model.flexidit import FlexiDiT as FlexiDiT
    from flexivid.patching.shapes import PatchMode as PatchMode
    from flexivid.pipelines.budget import apply_budget as apply_budget
    from flexivid.pretrained.adapter import flexify as flexify
    from flexivid.pretrained.flexify import set_mode as set_mode
    from flexivid.sampling.generate import generate as generate


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'flexivid' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``flexivid.flexify`` the function: importing the program of that name would set the attribute to it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PLACES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
