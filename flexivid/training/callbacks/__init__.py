"""Callbacks of a training run. Configurations name them as ``flexivid.training.callbacks.Speed`` and so on."""

from flexivid.training.callbacks.export import ExportModel
from flexivid.training.callbacks.find_plans import FindPlans
from flexivid.training.callbacks.folder import run_folder
from flexivid.training.callbacks.fvd_vs_budget import FVDVsBudget
from flexivid.training.callbacks.minutes import FitMinutes
from flexivid.training.callbacks.progress import FlexiProgressBar
from flexivid.training.callbacks.samples import SampleVideos
from flexivid.training.callbacks.speed import Speed

DOORS = ("folder", "tensorboard")
__all__ = [
    "ExportModel",
    "FVDVsBudget",
    "FindPlans",
    "FitMinutes",
    "FlexiProgressBar",
    "SampleVideos",
    "Speed",
    "run_folder",
]
