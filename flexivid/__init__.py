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

_MODULES = {  # where each public name is
    "PatchMode": "flexivid.patching.shapes",
    "FlexiDiTConfig": "flexivid.model.config",
    "FlexiDiT": "flexivid.model.flexidit",
    "Condition": "flexivid.model.conditioning",
    "load": "flexivid.model.checkpoint",
    "save": "flexivid.model.checkpoint",
    "macs": "flexivid.budget.cost",
    "Step": "flexivid.budget.schedule",
    "Schedule": "flexivid.budget.schedule",
    "weak_first": "flexivid.budget.schedule",
    "constant": "flexivid.budget.schedule",
    "for_budget": "flexivid.budget.planners",
    "budget_of": "flexivid.budget.schedule",
    "generate": "flexivid.sampling.generate",
    "flexify": "flexivid.pretrained.adapter",
    "unflexify": "flexivid.pretrained.flexify",
    "set_mode": "flexivid.pretrained.flexify",
    "current_mode": "flexivid.pretrained.flexify",
    "save_adapter": "flexivid.pretrained.adapter",
    "load_adapter": "flexivid.pretrained.adapter",
    "apply_budget": "flexivid.pipelines.budget",
    "FlexiDiffusion": "flexivid.training.module",
    "FlexiDistillation": "flexivid.training.distillation.module",
    "FVDVsBudget": "flexivid.training.callbacks",
    "VideoDataModule": "flexivid.data.module",
    "open_video": "flexivid.data.decoding.reader",
    "VideoError": "flexivid.data.storage.errors",
    "FrechetVideoDistance": "flexivid.metrics",
}
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
