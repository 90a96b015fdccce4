"""Losses of the first steps of a small training in pixels are the numbers that they were: no change is silent.

They were computed once, in float32 on a CPU, by commit 801ed91. A change that means to move them computes them anew and
says why. A PyTorch that draws other random numbers skips the test.
"""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch.utils.data import DataLoader

from flexivid import FlexiDiTConfig
from flexivid.training.modes import ModeChoice, Phase
from flexivid.training.module import Clips, FlexiDiffusion
from flexivid.training.objective import Objective
from flexivid.training.optimizer import OptimizerSettings

WEIGHTS = 10633.568701  # sum of the absolute initial weights
LOSSES = [
    *(0.7117765545845032, 1.754709005355835, 1.2724124193191528, 0.8333656191825867),
    *(1.3679053783416748, 0.867998480796814, 0.7581773996353149, 33.408287048339844),
]


class Batches(LightningDataModule):
    """Videos of noise that moves, with labels."""

    def train_dataloader(self):
        source = torch.Generator().manual_seed(0)
        frame = torch.randint(0, 256, (8, 4, 3, 1, 16, 16), generator=source, dtype=torch.uint8)
        videos = torch.cat([frame.roll(shift, -1) for shift in range(4)], dim=3)
        rows = [{"video": video, "label": torch.arange(4) + step} for step, video in enumerate(videos)]
        return DataLoader(rows, batch_size=None)


class Losses(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item())


def test_losses_are_those_of_before(tmp_path, make_trainer):
    torch.manual_seed(0)
    phases = [Phase(0.5, {"native": 0.5, "weak": 0.5}), Phase(1.0, {"native": 0.7, "weak": 0.3})]
    module = FlexiDiffusion(
        FlexiDiTConfig(width=64, depth=2, num_heads=2, modes=("2x4x4", "4x4x4", "2x8x8")),
        Clips(size=(4, 16, 16), num_classes=12, batch_size=4),
        objective=Objective(target="x0", loss_space="velocity", time_mean=1.0, time_std=1.2),
        mode_choice=ModeChoice(phases=phases, seed=0),
        optimizer=OptimizerSettings(name="muon", learning_rate=2e-3, muon_learning_rate=5e-3, warmup_steps=2),
    )
    weights = sum(parameter.double().abs().sum().item() for parameter in module.network.parameters())
    if weights != pytest.approx(WEIGHTS, rel=1e-6):
        pytest.skip(f"PyTorch {torch.__version__} draws other initial weights")
    losses = Losses()
    make_trainer(tmp_path, 8, losses, precision="32-true", gradient_clip_val=1.0).fit(module, Batches())
    assert losses.seen == pytest.approx(LOSSES, rel=1e-5)
