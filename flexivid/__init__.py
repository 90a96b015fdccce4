"""flexivid: video diffusion transformers whose compute you can dial (FlexiDiT on PyTorch Lightning).

The public names below are loaded on first use: importing flexivid imports no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if "OMP_WAIT_POLICY" not in os.environ:  # GNU's OpenMP waits 30 times longer at full speed, and stalls on busy cores
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # benchmarks/bench_waiting.py; torch reads it when it is imported

_NAMES = {  # module: its public names
    "patching.shapes": ["PatchMode"],
    "model.config": ["FlexiDiTConfig"],
    "model.flexidit": ["FlexiDiT"],
    "model.conditioning": ["Condition"],
    "model.checkpoint": ["load", "save"],
    "budget.cost": ["macs"],
    "budget.schedule": ["Step", "Schedule", "weak_first", "constant", "budget_of"],
    "budget.planners": ["for_budget"],
    "sampling.generate": ["generate"],
    "pretrained.flexify": ["unflexify", "set_mode", "current_mode"],
    "pretrained.adapter": ["flexify", "save_adapter", "load_adapter"],
    "pretrained.shared.convert": ["load_shared"],
    "pipelines.budget": ["apply_budget"],
    "training.module": ["FlexiDiffusion"],
    "training.distillation.module": ["FlexiDistillation"],
    "training.callbacks": ["FVDVsBudget"],
    "data.module": ["VideoDataModule"],
    "data.decoding.reader": ["open_video"],
    "data.storage.errors": ["VideoError"],
    "metrics": ["FrechetVideoDistance"],
}
_MODULES = {name: f"flexivid.{module}" for module, names in _NAMES.items() for name in names}
__all__ = [*_MODULES, "__version__"]

if TYPE_CHECKING:
    from flexivid.budget.cost import macs as macs
    from flexivid.budget.planners import for_budget as for_budget
    from flexivid.budget.schedule import Schedule as Schedule
    from flexivid.budget.schedule import Step as Step
    from flexivid.budget.schedule import budget_of as budget_of
    from flexivid.budget.schedule import constant as constant
    from flexivid.budget.schedule import weak_first as weak_first
    from flexivid.data.decoding.reader import open_video as open_video
    from flexivid.data.module import VideoDataModule as VideoDataModule
    from flexivid.data.storage.errors import VideoError as VideoError
    from flexivid.metrics import FrechetVideoDistance as FrechetVideoDistance
    from flexivid.model.checkpoint import load as load
    from flexivid.model.checkpoint import save as save
    from flexivid.model.conditioning import Condition as Condition
    from flexivid.model.config import FlexiDiTConfig as FlexiDiTConfig
    from flexivid.model.flexidit import FlexiDiT as FlexiDiT
    from flexivid.patching.shapes import PatchMode as PatchMode
    from flexivid.pipelines.budget import apply_budget as apply_budget
    from flexivid.pretrained.adapter import flexify as flexify
    from flexivid.pretrained.adapter import load_adapter as load_adapter
    from flexivid.pretrained.adapter import save_adapter as save_adapter
    from flexivid.pretrained.flexify import current_mode as current_mode
    from flexivid.pretrained.flexify import set_mode as set_mode
    from flexivid.pretrained.flexify import unflexify as unflexify
    from flexivid.pretrained.shared.convert import load_shared as load_shared
    from flexivid.sampling.generate import generate as generate
    from flexivid.training.callbacks import FVDVsBudget as FVDVsBudget
    from flexivid.training.distillation.module import FlexiDistillation as FlexiDistillation
    from flexivid.training.module import FlexiDiffusion as FlexiDiffusion


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'flexivid' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
