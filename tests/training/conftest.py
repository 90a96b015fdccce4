"""A tiny data set of real files and a tiny trainer, so that a training run takes a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from flexivid import FlexiDiTConfig
from flexivid.data.module import VideoDataModule
from flexivid.training.modes import ModeChoice, Phase
from flexivid.training.module import Clips, FlexiDiffusion
from flexivid.training.optimizer import OptimizerSettings

MODES = ("2x4x4", "2x8x8")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products only wait for each other in several threads; on a busy machine that costs 100x."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory, load_script: Callable[[str], Any]) -> Path:
    """Twenty training clips and ten held-out ones, 16x16, two classes' worth of folders and more."""
    digits = load_script("data/moving_digits.py")
    folder = tmp_path_factory.mktemp("data") / "digits"
    digits.make(folder, digits.Recipe(num_clips=20, num_held_out=10, size=16, num_frames=6, digit_size=12))
    return folder


@pytest.fixture
def make_data(digits_folder: Path) -> Callable[..., VideoDataModule]:
    def make(**changes: Any) -> VideoDataModule:
        return VideoDataModule(**{"root": str(digits_folder), "num_frames": 4, "size": 16, "batch_size": 2, **changes})

    return make


@pytest.fixture
def make_module() -> Callable[..., FlexiDiffusion]:
    def make(**changes: Any) -> FlexiDiffusion:
        network = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=MODES)
        phases = [Phase(0.5, {"2x8x8": 3, "2x4x4": 1}), Phase(1.0, {"2x4x4": 1, "2x8x8": 1})]
        settings = {
            "network": network,
            "clips": Clips(size=(4, 16, 16), num_classes=10, batch_size=2),
            "mode_choice": ModeChoice(phases=phases),
            "optimizer": OptimizerSettings(name="muon", warmup_steps=2),
        }
        return FlexiDiffusion(**{**settings, **changes})

    return make


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    def make(folder: Path, max_steps: int, *callbacks: Any, **changes: Any) -> Trainer:
        saves = ModelCheckpoint(dirpath=folder / "checkpoints", save_last=True, save_top_k=0, every_n_train_steps=1)
        ema = EMAWeightAveraging(use_buffers=False, decay=0.9)
        settings = {
            "max_steps": max_steps,
            "max_epochs": -1,
            "accelerator": "cpu",
            "callbacks": [ema, *callbacks, saves],
            "logger": TensorBoardLogger(folder, name="", version=""),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        return Trainer(**{**settings, **changes})

    return make
